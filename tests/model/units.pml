/* SPDX-License-Identifier: MIT */
/*
 * Model of the free runs: truth (a SuperSlab's word), hint (the sets by length), lengths above it.
 *
 * Stands for (tests/test_model.sh checks that each is there and that its file names this one):
 *   region/units.c    announce, announce_length, keep_length, retract, find_hint, next_length,
 *                     take_run, acquire_run, give_back, units_check
 *
 * Two SuperSlabs of two units; so runs of one unit and of two. Each length's set is one word of two
 * bits with one summary bit above it (what bitset.pml has in general; here, as a third level,
 * the word of lengths). THREADS threads: the first gives back, one by one, the units that are taken
 * at first; the others take a unit each by acquire_run and give it back or keep it. What is taken
 * at first, and which hints are there that are true no more, is chosen freely.
 *
 * One step = one atomic operation of the C code with the local work after it; nothing coarser. All
 * of them are seq_cst there (label UNITS-RUNS), but for the loads in bitset_find; bitset.pml has
 * why those may see an older word.
 *
 * With BRIEF all units are taken at first, one of them is given back, and the takers keep what they
 * get: three threads at once.
 *
 * Not modelled: runs of more than a SuperSlab, alignment, giving back to the kernel.
 * MUTANT_... breaks one thing each; docs/model.md has what each is caught by.
 */

#ifndef THREADS
#define THREADS 3
#endif

#define NOTHING 255
/* longest_run of a SuperSlab's two units, by those taken */
#define LONGEST(t) ((t) == 0 -> 2 : ((t) == 3 -> 0 : 1))
#define HAS(s) (1 << (s))

byte taken_units[2];
byte runs[3];     /* [length]: the SuperSlabs; [0] is not in use */
bool summary[3];  /* ... and whether there may be one */
byte lengths;     /* bit n: there may be runs of n */
byte held;        /* ghost: units in hands, bit 2 * SuperSlab + unit */
byte ended;

/* announce_length */
inline announce_length(l)
{
    atomic { hear = (lengths & HAS(l)) == 0 };
    if
    :: hear -> atomic { lengths = lengths | HAS(l); hear = false }
    :: else
    fi
}

/* announce: t, the units taken */
inline announce(s, t)
{
    longest = LONGEST(t);
    if
    :: longest != 0 ->
        atomic { runs[longest] = runs[longest] | HAS(s) };
        atomic { hear = !summary[longest] };
        if
        :: hear -> atomic { summary[longest] = true; hear = false }
        :: else
        fi;
        announce_length(longest)
    :: else
    fi;
    longest = 0
}

/* The look at the lengths after a step that may have taken a summary back. */
inline keep_length(l)
{
#ifndef MUTANT_LENGTH_NOT_KEPT
    atomic { hear = summary[l] };
    if
    :: hear -> hear = false; announce_length(l)
    :: else
    fi
#else
    skip
#endif
}

/* withdraw of bitset.pml, with one level above */
inline withdraw(l)
{
    summary[l] = false;
    atomic { hear = runs[l] != 0 };
    if
    :: hear -> atomic { summary[l] = true; hear = false }
    :: else
    fi
}

/* retract: clears the hint, looks at the word, announces what it says now */
inline retract(s, l)
{
#ifdef MUTANT_WORD_BEFORE_HINT
    t = taken_units[s];
#endif
    atomic {
        hear = runs[l] == HAS(s);
        runs[l] = runs[l] & ~HAS(s)
    };
    if
    :: hear -> hear = false; withdraw(l)
    :: else
    fi;
    keep_length(l);
#ifndef MUTANT_NO_SECOND_LOOK
#ifndef MUTANT_WORD_BEFORE_HINT
    t = taken_units[s];
#endif
    announce(s, t);
#endif
    t = 0
}

/* find_hint, bitset_find in it; s: the lowest SuperSlab, or NOTHING */
inline find_hint(l)
{
    atomic { s = NOTHING; more = summary[l] };
    if
    :: more ->
        atomic { more = runs[l] == 0 };
        if
        :: more -> withdraw(l)
        :: else
        fi;
        atomic {
            if
            :: (runs[l] & 1) != 0 -> s = 0
            :: runs[l] == 2 -> s = 1
            :: runs[l] == 0 -> skip
            fi;
            more = false
        };
        keep_length(l)
    :: else
    fi
}

/* next_length, for one unit: l and s, or l is 0; each length once */
inline next_length()
{
    left = 6;
    do
    :: true ->
        atomic {
            l = ((lengths & left & 2) != 0 -> 1 : ((lengths & left & 4) != 0 -> 2 : 0));
            if
            :: l == 0 -> break
            :: else
            fi
        };
        find_hint(l);
        if
        :: s != NOTHING -> break
        :: else
        fi;
        atomic { lengths = lengths & ~HAS(l) };
#ifndef MUTANT_LENGTH_GOES_UNSEEN
        find_hint(l);
        if
        :: s != NOTHING -> atomic { lengths = lengths | HAS(l) }; break
        :: else
        fi;
#endif
        left = left & ~HAS(l)
    od;
    left = 0
}

/* give_back of one unit */
inline give_back(s, u)
{
#ifdef MUTANT_HINT_BEFORE_WORD
    t = taken_units[s] & ~HAS(u);
    announce(s, t);
#endif
    atomic {
        assert((taken_units[s] & HAS(u)) != 0 && (held & HAS(2 * s + u)) != 0);
        taken_units[s] = taken_units[s] & ~HAS(u);
        held = held & ~HAS(2 * s + u);
        t = taken_units[s]
    };
#ifndef MUTANT_HINT_BEFORE_WORD
    announce(s, t);
#endif
    t = 0
}

/* acquire_run of one unit, with take_run: s and u, or s is NOTHING */
inline acquire_run()
{
    do
    :: true ->
        next_length();
        if
        :: l == 0 -> s = NOTHING; break
        :: else
        fi;
        t = taken_units[s];
        if
        :: LONGEST(t) != l -> retract(s, l)
        :: else ->
            t = taken_units[s];
            do
            :: t == 3 -> break
            :: else ->
                atomic {
                    u = ((t & 1) == 0 -> 0 : 1);
                    if
                    :: taken_units[s] != t -> t = taken_units[s]
                    :: else ->
                        assert((held & HAS(2 * s + u)) == 0); /* a unit is taken twice */
                        taken_units[s] = t | HAS(u);
                        held = held | HAS(2 * s + u);
                        t = taken_units[s];
                        won = true;
                        break
                    fi
                }
            od;
            if
            :: won ->
#ifndef MUTANT_REST_NOT_ANNOUNCED
                announce(s, t);
#endif
                won = false;
                break
            :: else
            fi
        fi
    od;
    atomic { t = 0; l = 0 }
}

proctype giver(byte mine)
{
    byte s, u, t, longest;
    bool hear;

    do
    :: atomic {
            mine != 0 ->
            do
            :: (mine & HAS(2 * s + u)) != 0 -> break
            :: (mine >> (2 * s + u + 1)) != 0 -> s = (2 * s + u + 1) / 2; u = 1 - u
            od;
            mine = mine & ~HAS(2 * s + u)
        };
        give_back(s, u);
        atomic { s = 0; u = 0 }
    :: atomic { true -> mine = 0; ended++; break }
    od
}

proctype taker()
{
    byte s, u, t, longest, l, left;
    bool hear, more, won;

    acquire_run();
    if
#ifndef BRIEF
    :: s != NOTHING -> give_back(s, u)
#endif
    :: true
    fi;
    atomic { s = 0; u = 0; ended++ }
}

/* Deals the units out, starts everybody, and looks at what is left when all have ended. */
init
{
    byte s, n;

    atomic {
        do
        :: s < 2 ->
            if
            :: taken_units[s] = 3
#ifndef BRIEF
            :: taken_units[s] = 1
            :: true
#endif
            fi;
            held = held | (taken_units[s] << (2 * s));
            n = LONGEST(taken_units[s]);
            if
            :: n != 0 -> runs[n] = runs[n] | HAS(s)
            :: else
            fi;
            /* hints of what was once */
            if
            :: runs[1] = runs[1] | HAS(s)
            :: runs[2] = runs[2] | HAS(s)
            :: true
            fi;
            s++
        :: else -> break
        od;
        n = 1;
        do
        :: n < 3 ->
            if
            :: summary[n] = true; lengths = lengths | HAS(n)
            :: runs[n] == 0
            fi;
            n++
        :: else -> break
        od;
#ifdef BRIEF
        run giver(held & HAS(2)); /* the rest is kept */
#else
        run giver(held);
#endif
        n = 1;
        do
        :: n < THREADS -> run taker(); n++
        :: else -> break
        od;
        n = 0;
        s = 0
    };
    /* units_check */
    atomic {
        ended == THREADS ->
        do
        :: s < 2 ->
            assert(((held >> (2 * s)) & 3) == taken_units[s]); /* a unit is lost */
            n = LONGEST(taken_units[s]);
            if
            :: n != 0 ->
                assert((runs[n] & HAS(s)) != 0); /* a run has no hint */
                assert(summary[n]); /* a summary says no for good */
                assert((lengths & HAS(n)) != 0) /* the lengths say no for good */
            :: else
            fi;
            s++
        :: else -> break
        od
    }
}
