/* SPDX-License-Identifier: MIT */
/*
 * Model of a slab's life: who owns it, who publishes it, who gives its units back.
 *
 * Stands for (tests/test_model.sh checks that each is there and that its file names this one):
 *   alloc/slab.h                 slab_put_any, head_with, head_freed, slab_word_full
 *   alloc/slab.c                 slab_open, slab_take_owner, slab_look
 *   alloc/sharedpool_release.c   put, settle, publish, recycle, sharedpool_give_up
 *   alloc/sharedpool_acquire.c   sharedpool_claim, sharedpool_acquire_partial,
 *                                sharedpool_acquire_fresh
 *   alloc/pagebox.c              pagebox_emptied_owner
 *
 * One run of units, as a slab of class A (two words of two objects), as one of class B (one word;
 * one or two objects, as its slabs differ in length) and as a large object, one after the other in
 * any order. Threads: the first owner (takes OWNER_TAKES times), FREERS that hold objects of the
 * slab, and a thief that takes the published slab or the free units, ROUNDS times. All run the same
 * code and choose freely what they do next; who holds which object at first is chosen too (DEAL:
 * one of a few). With BOX an owner frees into its own slab, as with a page box. Words have two
 * objects because what the code decides by is what a word was and became: empty, part, full.
 *
 * One step = one atomic operation of the C code, with the local work after it, and what the model
 * itself notes down (lines with "ghost"). Nothing coarser, but for three stand-ins:
 *   units_acquire, units_release   one step on unit_free; units.pml is about them
 *   the set of published slabs     one bit a class; bitset.pml is about its summaries
 *   bitset_find                    a look at that bit; a "no" of the real one lets a thief pass
 *
 * Orders. Spin interleaves: what it shows holds for sequentially consistent steps. The code makes
 * the steps of SLAB-STATE (bits, head, published bit) seq_cst. Those that it does not:
 *   slab_take_owner's load and and   only the owner clears bits: it takes what it saw, and misses
 *                     at most what comes in, as in an earlier interleaving; its own later loads of
 *                     the word cannot be older
 *   head, relaxed, by its owner (sharedpool_give_up, slab_open, pagebox)   nobody else writes it
 *   head, relaxed, in put   units and class stay while the slab lives; a later one is modelled
 *   head, relaxed, in sharedpool_claim   it follows an and that read the publisher's or, which
 *                     follows the publisher's head: no older head can be seen
 *   slab_open's stores of bits, class map   handed on by the objects and by unit_free's step
 *
 * Not modelled: misuse (an object freed twice), threads that stop for good half-way, the counts.
 * MUTANT_... breaks one thing each; docs/model.md has what each is caught by.
 */

#ifndef FREERS
#define FREERS 2
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef OWNER_TAKES
#define OWNER_TAKES 0
#endif
#ifndef THIEF_TAKES
#define THIEF_TAKES 1
#endif

#ifndef BOX
#define BOX 0
#endif

#define NONE 0
#define A 1
#define B 2
#define BIG 3

#define FREE 0
#define OWNED 1
#define FULL 2
#define PARTIAL 3
#define LARGE 4

/* generation | units (2 bits) | class (2) | state (3) */
#define HEAD(cls, units, state) ((units) * 32 + (cls) * 8 + (state))
#define STATE(h) ((h) & 7)
#define CLASS(h) (((h) >> 3) & 3)
#define UNITS(h) (((h) >> 5) & 3)
#define GENERATION 128
#define WITH(h, state) (((h) - STATE(h)) + (state)) /* head_with */
#define FREED(h) ((h) - (h) % GENERATION)           /* head_freed */

/* Words of a class; all bits that a word can have. */
#define WORDS(cls) ((cls) == A -> 2 : 1)
/* slab_word_full: of no class there are no objects. */
#define WORD_FULL(cls, units, w) ((cls) == A -> 3 : ((cls) == B -> ((units) == 1 -> 1 : 3) : 0))

short head = GENERATION + HEAD(A, 1, OWNED);
byte bits[2];
bool published[3]; /* by class */
bool unit_free;
byte class_map = A;

/* ghost: objects out of the slab, in somebody's hands; bit 2 * word + bit */
byte out;
/* ghost: somebody owns the slab; somebody was elected to publish it since it was last owned */
bool owned = true;
bool elected;
byte living_class = A;
byte ended;

/* slab_look: outward from a word, until the answer is known */
inline look(from)
{
    some = false;
    all = true;
    do
    :: atomic {
            w2 = (from + step) % WORDS(CLASS(h));
            seen = bits[w2] & WORD_FULL(CLASS(h), UNITS(h), w2);
            some = some || seen != 0;
            all = all && seen == WORD_FULL(CLASS(h), UNITS(h), w2);
            step++;
            seen = 0;
            w2 = 0;
            if
            :: step == WORDS(CLASS(h)) || (some && !all) -> step = 0; break
            :: else
            fi
        }
    od
}

/* publish */
inline publish(cls)
{
#ifndef MUTANT_NO_PUBLISH
    published[cls] = true
#else
    skip
#endif
}

/* recycle */
inline recycle()
{
#ifndef MUTANT_UNITS_BEFORE_MAP
    class_map = NONE;
#endif
    atomic {
        assert(!unit_free); /* units are given back twice */
        assert(out == 0 && !owned); /* units are given back while in use */
        unit_free = true
    }
#ifdef MUTANT_UNITS_BEFORE_MAP
    ;
    class_map = NONE
#endif
}

/* settle */
inline settle(from)
{
#ifndef MUTANT_HEAD_BEFORE_BITS
    h = head;
#endif
    do
    :: STATE(h) != FULL && STATE(h) != PARTIAL -> break
    :: else ->
        look(from);
#ifdef MUTANT_HEAD_READ_AGAIN
        h = head;
#endif
        if
        :: !some || (!all && STATE(h) == PARTIAL) -> break
        :: else ->
            atomic {
                if
#ifndef MUTANT_NO_EXCHANGE
                :: head != h -> h = head; won = false
                :: else ->
#else
                :: true ->
#endif
                    head = (all -> FREED(h) : WITH(h, PARTIAL));
                    won = true;
                    /* ghost */
                    assert(!owned); /* somebody decides about an owned slab */
                    assert(!all || out == 0); /* a slab with live objects becomes FREE */
                    assert(all || !elected); /* a slab is published twice */
                    elected = !all
                fi
            };
            if
            :: won && !all -> publish(CLASS(h)); break
            :: won && all ->
#ifndef MUTANT_NO_TAKING_BACK
#ifndef MUTANT_TAKEN_BACK_LATE
                if
                :: STATE(h) == PARTIAL -> published[CLASS(h)] = false
                :: else
                fi;
#endif
#endif
                recycle();
#ifdef MUTANT_TAKEN_BACK_LATE
                if
                :: STATE(h) == PARTIAL -> published[CLASS(h)] = false
                :: else
                fi;
#endif
                break
#ifndef MUTANT_ONE_TRY
            :: else
#else
            :: else -> break
#endif
            fi
        fi
    od;
    atomic { h = 0; some = false; all = false; won = false }
}

/* sharedpool_give_up */
inline give_up()
{
    h = head;
    look(0);
    if
    :: all ->
        atomic {
            head = FREED(h);
            assert(owned && out == 0); /* a slab with live objects becomes FREE */
            owned = false;
            owner = false
        };
        recycle();
        atomic { h = 0; some = false; all = false }
    :: else ->
#ifdef MUTANT_LOOK_BEFORE_HEAD
        look(0);
        if
        :: all -> some = true
        :: else
        fi;
#endif
#ifdef MUTANT_PUBLISH_BEFORE_HEAD
        if
        :: some -> publish(CLASS(h))
        :: else
        fi;
#endif
        atomic {
            head = WITH(h, (some -> PARTIAL : FULL));
            assert(owned); /* somebody decides about an owned slab */
            owned = false;
            owner = false;
            elected = some
        };
#ifndef MUTANT_PUBLISH_BEFORE_HEAD
        if
#ifndef MUTANT_GIVEN_UP_UNPUBLISHED
        :: some -> publish(CLASS(h))
#endif
        :: else
        fi;
#endif
#ifndef MUTANT_NO_SECOND_LOOK
#ifndef MUTANT_LOOK_BEFORE_HEAD
        settle(0)
#else
        skip
#endif
#else
        skip
#endif
    fi
}

/* slab_take_owner: one of a word's objects, the lowest, or all of them */
inline take()
{
    atomic {
        was = bits[w];
        seen = was & WORD_FULL(CLASS(head), UNITS(head), w);
        if
        :: seen == 3 -> seen = 1
        :: true
        fi
    };
    atomic {
#ifndef MUTANT_TAKEN_BY_STORE
        bits[w] = bits[w] & ~seen;
#else
        bits[w] = was & ~seen;
#endif
        assert((out & (seen << (2 * w))) == 0); /* an object is handed out twice */
        out = out | (seen << (2 * w));
        mine = mine | (seen << (2 * w));
        seen = 0;
        was = 0;
        w = 0
    }
}

/*
 * put, and slab_put_any in it. The class is from the map (batch_add_any, batch_add_small), read in
 * the same step: nobody writes it as long as an object of the unit is out, or the assertion fails.
 */
inline put()
{
#ifdef MUTANT_HEAD_BEFORE_BITS
    h = head;
#endif
    atomic {
        assert(class_map == living_class); /* a live object's class is not in the map */
        was = bits[w];
        assert((was & m) == 0); /* a live object is free in the bitmap */
        bits[w] = was | m;
        out = out & ~(m << (2 * w));
        mine = mine & ~(m << (2 * w));
        if
        :: class_map == A -> f = 3; decide()
        :: else
        fi
    };
    if
    :: f == 0 -> atomic { f = WORD_FULL(CLASS(head), UNITS(head), w); decide() }
    :: else
    fi;
    if
    :: act ->
        act = false;
        settle(w);
        if
        :: filled && owner -> emptied()
        :: else
        fi
    :: else
    fi;
    atomic { filled = false; w = 0; f = 0 }
}

/* Whether there may be something to settle, by what the word was and became; in put. */
inline decide()
{
    filled = ((was | m) & f) == f;
    act = (was & f) == 0 || filled;
#ifdef MUTANT_FILLED_IS_NOTHING
    act = act && !((was & f) != 0 && filled);
#endif
#ifdef MUTANT_FIRST_IS_NOTHING
    act = act && !((was & f) == 0 && !filled);
#endif
    f = 1;
    m = 0;
    was = 0
}

/* pagebox_emptied_owner; whether there is another empty slab in the box is left open */
inline emptied()
{
    h = head;
    look(0);
    if
    :: atomic { all -> takes = 0 }; give_up()
    :: true -> atomic { h = 0; some = false; all = false }
    fi
}

/* sharedpool_claim, after sharedpool_acquire_partial or a warm pool saw the bit */
inline claim(cls)
{
    atomic { won = published[cls]; published[cls] = false };
    if
    :: won ->
        h = head;
        do
#ifndef MUTANT_CLAIM_BY_BIT_ALONE
        :: atomic {
                STATE(h) == PARTIAL && CLASS(h) == cls ->
                if
                :: head != h -> h = head
                :: else ->
#else
        :: atomic {
                if
                :: true ->
#endif
#ifndef MUTANT_CLAIM_KEEPS_GENERATION
                    head = WITH(h, OWNED) + GENERATION;
#else
                    head = WITH(h, OWNED);
#endif
                    assert(!owned); /* a slab has two owners */
                    owned = true;
                    owner = true;
                    elected = false;
                    break
                fi
            }
#ifndef MUTANT_CLAIM_BY_BIT_ALONE
        :: else -> break
#endif
        od
    :: else
    fi;
    atomic { h = 0; won = false }
}

/* slab_open, in sharedpool_acquire_fresh; the units are ours */
inline open(cls, units)
{
    atomic {
        h = head;
        assert(class_map == NONE && STATE(h) == FREE); /* free units belong to something */
        bits[0] = WORD_FULL(cls, units, 0)
    };
    if
    :: cls == A -> bits[1] = 3
    :: else
    fi;
    atomic {
#ifndef MUTANT_OPEN_KEEPS_GENERATION
        head = FREED(h) + GENERATION + HEAD(cls, units, OWNED);
#else
        head = FREED(h) + HEAD(cls, units, OWNED);
#endif
        assert(!owned && out == 0); /* a slab is made of units in use */
        owned = true;
        owner = true;
        elected = false;
        living_class = cls;
        h = 0
    };
    class_map = cls
}

/* A large object in the units, and its end (mark and large_free in alloc/large.c). */
inline large()
{
    atomic {
        h = head;
        assert(class_map == NONE && STATE(h) == FREE); /* free units belong to something */
        head = FREED(h) + GENERATION + HEAD(0, 0, LARGE)
    };
    class_map = BIG;
    atomic {
        assert(out == 0 && !owned && STATE(head) == LARGE); /* two things in the same units */
        head = FREED(head)
    };
    class_map = NONE;
    atomic { unit_free = true; h = 0 }
}

proctype thread(byte mine; bool owner; byte rounds; byte may_take)
{
    short h;
    byte step, seen, w, w2, m, was, f;
    bool some, all, won, act, filled;
    byte takes;

    do
    /* objects go back, a word's at a time; or stay for good, see below */
    :: atomic {
            (mine & 3) != 0 && (!owner || BOX) ->
            w = 0;
            m = mine & 3;
            if
            :: m == 3 -> m = 1
            :: true
            fi
        };
        put()
    :: atomic {
            (mine & 12) != 0 && (!owner || BOX) ->
            w = 1;
            m = mine >> 2;
            if
            :: m == 3 -> m = 1
            :: true
            fi
        };
        put()
    :: atomic { owner && takes < may_take -> w = 0; takes++ }; take()
    :: atomic { owner && takes < may_take && WORDS(CLASS(head)) == 2 -> w = 1; takes++ }; take()
    :: atomic { owner -> takes = 0 }; give_up()
    :: atomic { !owner && rounds > 0 && published[A] -> rounds-- }; claim(A)
    :: atomic { !owner && rounds > 0 && published[B] -> rounds-- }; claim(B)
    :: atomic { !owner && rounds > 0 && unit_free -> unit_free = false; rounds-- };
        if
        :: open(A, 1)
        :: open(B, 1)
        :: open(B, 2)
        :: large()
        fi
    :: atomic { !owner -> mine = 0; rounds = 0; takes = 0; may_take = 0; ended++; break }
    od
}

/* Deals the four objects out, starts everybody, and looks at what is left when all have ended. */
init
{
    byte hold[3];
    byte n, last;

    atomic {
#ifdef DEAL
        if
        :: DEAL == 1 || DEAL == 0 -> hold[1] = 5; hold[2] = 10        /* both in both words */
        :: DEAL == 2 || DEAL == 0 -> hold[1] = 3; hold[2] = 12        /* a word each */
        :: DEAL == 3 || DEAL == 0 -> hold[1] = 12; hold[2] = 2; bits[0] = 1 /* one is free */
        fi;
#else
        do
        :: n < 4 ->
            /* The two objects of a word are alike, and so are the freers. */
            if
            :: n % 2 == 0 || last == 0 ->
                bits[n / 2] = bits[n / 2] | (1 << (n % 2)); last = 0
            :: n % 2 == 0 || last <= 1 ->
                hold[0] = hold[0] | (1 << n); last = 1
            :: n % 2 == 0 || last <= 2 ->
                hold[1] = hold[1] | (1 << n); last = 2
#if FREERS > 1
            :: hold[1] != 0 ->
                hold[2] = hold[2] | (1 << n); last = 3
#endif
            fi;
            n++
        :: else -> break
        od;
#endif
        out = hold[0] | hold[1] | hold[2];
        last = 0;
        run thread(hold[0], true, 0, OWNER_TAKES);
        run thread(hold[1], false, 0, 0);
#if FREERS > 1
        run thread(hold[2], false, 0, 0);
#endif
        run thread(0, false, ROUNDS, THIEF_TAKES);
        hold[0] = 0;
        hold[1] = 0;
        hold[2] = 0;
        n = 0
    };
    atomic {
        ended == FREERS + 2 ->
        assert(!owned); /* a slab has an owner who is gone */
        if
        :: STATE(head) == FREE ->
            assert(unit_free && class_map == NONE); /* a FREE slab's units are lost */
            assert(out == 0) /* a slab with live objects becomes FREE */
        :: else ->
            assert(!unit_free && class_map == CLASS(head)); /* a slab in units that are free */
            if
            :: CLASS(head) == A -> n = bits[0] + 4 * bits[1]
            :: else -> n = bits[0]
            fi;
            assert((n & out) == 0); /* a live object is free in the bitmap */
            assert((n | out) ==
                   (CLASS(head) == A -> 15 : WORD_FULL(B, UNITS(head), 0))); /* an object is lost */
            assert(out != 0); /* an empty slab is stranded */
            assert(STATE(head) == FULL || STATE(head) == PARTIAL); /* no such state */
            assert(STATE(head) != FULL || n == 0); /* a slab with room is stranded as FULL */
            assert(STATE(head) != PARTIAL || published[CLASS(head)]) /* PARTIAL, unpublished */
        fi
    }
}
