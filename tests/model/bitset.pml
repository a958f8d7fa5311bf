/* SPDX-License-Identifier: MIT */
/*
 * Model of the bitset with its summaries: who hears yes, and whether a bit can stay unannounced.
 *
 * Stands for (tests/test_model.sh checks that each is there and that its file names this one):
 *   region/bitset.c   bitset_set, announce, bitset_clear, withdraw, bitset_find, find_in_word,
 *                     bitset_claim, bitset_mend, bitset_check
 *
 * Words of two bits in place of 64, so that three levels are seven words: two levels (LEVELS 2,
 * four bits) or three (eight bits). The first THREADS do OPS operations each, on bits and of kinds
 * that are chosen freely among those given; what is set at first is chosen too, and so is which
 * summaries say yes too often at first. With STOP the first thread may stop for good between any
 * two of its steps; then bitset_mend must find what it hides.
 *
 * One step = one atomic operation of the C code with the local work after it; nothing coarser.
 *
 * Orders. Spin interleaves: what it shows holds for sequentially consistent steps. Those of label
 * BITSET-SUMMARY are seq_cst: both ands, both ors, the look at the summary in announce and the
 * second look in withdraw. find_in_word's load (acquire) and the relaxed load in bitset_find may
 * see an older word: an older bit is claimed in vain, an older "no" is one that this model has too
 * (of a search that came earlier), and an older zero only leads to withdraw, whose and is a step in
 * between and whose second look is seq_cst.
 *
 * MUTANT_... breaks one thing each; docs/model.md has what each is caught by.
 */

#ifndef LEVELS
#define LEVELS 2
#endif
#ifndef THREADS
#define THREADS 3
#endif
#ifndef OPS
#define OPS 1
#endif

/* Levels one after the other: words of level n begin at BASE(n). */
#if LEVELS == 3
#define BITS 8
#define ALL_WORDS 7
#define BASE(n) ((n) == 0 -> 0 : ((n) == 1 -> 4 : 6))
#define COUNT(n) ((n) == 0 -> 8 : ((n) == 1 -> 4 : 2)) /* bit_count */
#else
#define BITS 4
#define ALL_WORDS 3
#define BASE(n) ((n) == 0 -> 0 : 2)
#define COUNT(n) ((n) == 0 -> 4 : 2)
#endif
#define MASK(b) (1 << ((b) % 2))
#define AT(n, w) word[BASE(n) + (w)]
#define ABOVE(n) (BITS / 2 + (n) / 2) /* the word that announces word n of all */
#define NOTHING 255
#define FIRST 16 /* what the first thread's end counts */
/* who does what; with ROLES there are less interleavings that are alike */
#ifdef ROLES
#define MAY_SET (_pid != 2)
#define MAY_CLEAR (_pid == 2)
#define MAY_SEARCH (_pid == 3)
#else
#define MAY_SET true
#define MAY_CLEAR true
#define MAY_SEARCH true
#endif
/* which bits are in use */
#ifndef BIT_STEP
#define BIT_STEP 1
#endif
#ifndef LAST_BIT
#define LAST_BIT (BITS - BIT_STEP)
#endif

byte word[ALL_WORDS];
byte ended;
bool halted;

/* ghost: set by somebody who heard that it was not there, cleared by nobody who heard yes */
bool up[BITS];

/* announce: from level 1 on, as far up as there is; first the bit's word, then each summary's */
inline announce(b)
{
    at = b;
    n = 1;
    do
    :: n < LEVELS ->
        at = at / 2;
#ifdef MUTANT_SUMMARY_BY_STORE
        atomic { old = AT(n, at / 2) };
        atomic { AT(n, at / 2) = old | MASK(at); n++ }
#else
        atomic {
            if
            :: (AT(n, at / 2) & MASK(at)) != 0 -> n++; won = false
#ifdef MUTANT_FIRST_SUMMARY_ENDS
            n = LEVELS;
#endif
            :: else -> won = true
            fi
        };
        if
        :: won -> atomic { AT(n, at / 2) = AT(n, at / 2) | MASK(at); n++; won = false }
        :: else
        fi
#endif
    :: else -> break
    od;
    atomic { n = 0; at = 0; old = 0 }
}

/* bitset_set */
inline set(b)
{
#ifdef MUTANT_SUMMARY_FIRST
    announce(b);
#endif
    atomic {
        if
        :: (AT(0, b / 2) & MASK(b)) == 0 ->
            assert(!up[b]); /* a bit is lost */
            up[b] = true
        :: else
        fi;
        AT(0, b / 2) = AT(0, b / 2) | MASK(b)
    };
#ifndef MUTANT_SUMMARY_FIRST
#ifndef MUTANT_NO_SUMMARY
    announce(b)
#else
    skip
#endif
#else
    skip
#endif
}

/* withdraw: word v of level n was seen 0 */
inline withdraw()
{
    do
    :: n + 1 < LEVELS ->
#ifdef MUTANT_LOOK_BEFORE_SUMMARY
        atomic { won = AT(n, v) != 0 };
#endif
        atomic {
            old = AT(n + 1, v / 2) & ~MASK(v);
            AT(n + 1, v / 2) = old
        };
#if !defined(MUTANT_NO_SECOND_LOOK) && !defined(MUTANT_LOOK_BEFORE_SUMMARY)
        atomic { won = AT(n, v) != 0 };
#endif
        if
        :: won ->
            up_to = n + 1;
            do
            :: up_to < LEVELS ->
                atomic {
                    AT(up_to, v / 2) = AT(up_to, v / 2) | MASK(v);
                    v = v / 2;
                    up_to++
                }
#ifdef MUTANT_BACK_ONE_LEVEL
                ;
                break
#endif
            :: else -> break
            od;
            break
        :: else ->
            if
            :: old != 0 -> break
            :: else -> v = v / 2; n++
            fi
        fi
    :: else -> break
    od;
    atomic { n = 0; v = 0; old = 0; won = false; up_to = 0 }
}

/* bitset_clear; heard: whether it was there */
inline clear(b)
{
#ifdef MUTANT_TWO_HEAR_YES
    atomic { old = AT(0, b / 2) };
    atomic {
        heard = (old & MASK(b)) != 0;
#else
    atomic {
        old = AT(0, b / 2);
        heard = (old & MASK(b)) != 0;
#endif
        AT(0, b / 2) = AT(0, b / 2) & ~MASK(b);
        /* ghost */
        assert(!heard || up[b]); /* two hear yes */
        if
        :: heard -> up[b] = false
        :: else
        fi
    };
    if
    :: heard && (old & ~MASK(b)) == 0 -> atomic { n = 0; v = b / 2; old = 0 }; withdraw()
    :: else
    fi;
    old = 0
}

/* bitset_find, with find_in_word; found: the bit or NOTHING */
inline find(from)
{
    n = 0;
    at = from;
    found = NOTHING;
    do
    :: atomic {
            if
            :: at < COUNT(n) && (AT(n, at / 2) >> (at % 2)) != 0 ->
                if
                :: (AT(n, at / 2) & MASK(at)) == 0 -> at++
                :: else
                fi;
                if
                :: n == 0 -> found = at; break
                :: else -> won = true
                fi
            :: else ->
                if
                :: n + 1 >= LEVELS -> break
                :: else -> n++; at = at / 2 + 1
                fi
            fi
        };
        if
        :: won ->
            atomic { n--; v = at; won = AT(n, v) == 0 };
            if
            :: won -> atomic { won = false; keep = n }; withdraw(); atomic { n = keep; keep = 0 }
            :: else
            fi;
            at = at * 2;
            v = 0
        :: else
        fi
    od;
    atomic { n = 0; at = 0 }
}

/* bitset_claim; found: the bit or NOTHING */
inline claim(from)
{
    find(from);
    do
    :: found == NOTHING -> break
    :: else ->
        b = found;
        clear(b);
        if
        :: heard -> break
        :: else -> find(b)
        fi
    od
}

/* bitset_mend */
inline mend()
{
    b = 0;
    do
    :: b < BITS ->
        if
        :: AT(0, b / 2) != 0 -> announce(b)
        :: else
        fi;
        b = b + 2
    :: else -> break
    od;
    b = 0
}

proctype thread(byte ops)
#ifdef STOP
provided (!halted || _pid != 1)
#endif
{
    byte n, at, v, old, up_to, keep, b, found;
    bool won, heard;

    do
    :: atomic {
            ops > 0 ->
            ops--;
            do
            :: b < LAST_BIT -> b = b + BIT_STEP
            :: true -> break
            od
        };
        if
        :: MAY_SET -> set(b)
        :: MAY_CLEAR -> clear(b)
        :: MAY_SEARCH -> b = 0; claim(0)
        :: MAY_SEARCH -> find(b)
        fi;
        atomic { b = 0; found = 0; heard = false }
    :: else -> break
    od;
    ended = ended + (_pid == 1 -> FIRST : 1)
}

/* bitset_check */
inline check()
{
    n = 0;
    do
    :: n < ALL_WORDS - 1 ->
        assert(word[n] == 0 || (word[ABOVE(n)] & MASK(n)) != 0); /* a summary says no for good */
        n++
    :: else -> break
    od;
    n = 0
}

/* Fills the set, starts everybody, and looks at what is left when all have ended or halted. */
init
{
    byte n, at, v, old, up_to, keep, b, found;
    bool won, heard;

    atomic {
        do
        :: n < BITS ->
            if
            :: n <= LAST_BIT && n % BIT_STEP == 0 ->
                AT(0, n / 2) = AT(0, n / 2) | MASK(n);
                up[n] = true
            :: true
            fi;
            n++
        :: else -> break
        od;
        n = 0;
        do
        :: n < ALL_WORDS - 1 ->
            /* announced, or said to have something though it has not */
            if
            :: word[ABOVE(n)] = word[ABOVE(n)] | MASK(n)
            :: word[n] == 0
            fi;
            n++
        :: else -> break
        od;
        n = 0;
        do
        :: n < THREADS -> run thread(OPS); n++
        :: else -> break
        od;
        n = 0
    };
    atomic {
#ifdef STOP
        ended % FIRST == THREADS - 1 ->
        halted = true;
#ifndef MUTANT_NO_MEND
        mend();
#endif
#else
        ended == THREADS - 1 + FIRST ->
#endif
        check();
        /* Whoever is alone finds all that is there, and claims it. */
        do
        :: claim(0);
            if
            :: found == NOTHING -> break
            :: else -> assert(heard) /* who is alone hears no */
            fi
        od;
        do
        :: n < BITS -> assert(!up[n]); n++ /* a bit is not found */
        :: else -> break
        od;
        halted = false
    };
#ifdef STOP
    /* The one that stopped goes on after all. */
    atomic { ended == THREADS - 1 + FIRST -> check() }
#endif
}
