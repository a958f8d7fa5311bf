/* SPDX-License-Identifier: MIT */
/*
 * Makes every atomic step a point at which the simulator (sim.h) decides who goes on. Put in front
 * of every source file of the sched build by -include; nothing in the library knows of it.
 *
 * A point lies right before its step; what a thread does between two steps touches nothing that
 * others look at, so points after the steps would add schedules but no behaviour. Operands are
 * worked out before the point: a load inside a store's operand is a point of its own, and the store
 * may come much later. Orders are dropped: one thread of the system runs all of it, so what is
 * simulated is sequentially consistent.
 *
 * Two liberties that real machines take are taken too: a weak compare-and-swap may fail for no
 * reason, and a lock that was found taken is a wait.
 */
#ifndef HAK_TESTS_SCHED_POINTS_H
#define HAK_TESTS_SCHED_POINTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct sim_site {
    const char *file;
    int line;
    const char *step, *operand;
};

/* Who comes next; returns when the caller does. */
void sim_point(const struct sim_site *site);
/* What the step that was just done read, or wrote. For the trace. */
void sim_saw(uint64_t value);
/* Whether this weak compare-and-swap shall fail whatever it finds. */
bool sim_spurious(void);
/* The caller can do nothing until somebody else has. */
void sim_wait(void);

/* The value that an _Atomic object holds has its type without _Atomic. */
#define SIM_TYPE(p) __typeof__((void)0, *(p))
/* Steps on plain types: gcc and clang have the same names for these only. */
#define SIM_PLAIN(p) ((SIM_TYPE(p) *)(uintptr_t)(p))
#define SIM_LOAD(p) __atomic_load_n(SIM_PLAIN(p), __ATOMIC_SEQ_CST)
#define SIM_STORE(p, v) __atomic_store_n(SIM_PLAIN(p), v, __ATOMIC_SEQ_CST)
#define SIM_EXCHANGE(p, v) __atomic_exchange_n(SIM_PLAIN(p), v, __ATOMIC_SEQ_CST)
#define SIM_FETCH(op, p, v) __atomic_fetch_##op(SIM_PLAIN(p), v, __ATOMIC_SEQ_CST)
#define SIM_SWAP(p, e, v)                                                                          \
    __atomic_compare_exchange_n(SIM_PLAIN(p), e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)

/* Of a pointer only whether it is one: where things lie changes from run to run. */
#define SIM_SAW(v) sim_saw(__builtin_classify_type(v) == 5 ? (uint64_t)((v) != 0) : (uint64_t)(v))
#define SIM_HERE(step, p)                                                                          \
    static const struct sim_site sim_here = {__FILE__, __LINE__, step, #p};                        \
    sim_point(&sim_here)

#undef atomic_load_explicit
#define atomic_load_explicit(p, order)                                                             \
    __extension__({                                                                                \
        (void)(order);                                                                             \
        SIM_HERE("load", p);                                                                       \
        SIM_TYPE(p) sim_value = SIM_LOAD(p);                                                       \
        SIM_SAW(sim_value);                                                                        \
        sim_value;                                                                                 \
    })

#undef atomic_store_explicit
#define atomic_store_explicit(p, v, order)                                                         \
    __extension__({                                                                                \
        SIM_TYPE(p) sim_new = (v);                                                                 \
        SIM_HERE("store", p);                                                                      \
        SIM_STORE(p, sim_new);                                                                     \
        SIM_SAW(sim_new);                                                                          \
    })

#undef atomic_exchange_explicit
#define atomic_exchange_explicit(p, v, order)                                                      \
    __extension__({                                                                                \
        SIM_TYPE(p) sim_new = (v);                                                                 \
        SIM_HERE("exchange", p);                                                                   \
        SIM_TYPE(p) sim_value = SIM_EXCHANGE(p, sim_new);                                          \
        SIM_SAW(sim_value);                                                                        \
        sim_value;                                                                                 \
    })

#define SIM_FETCH_STEP(op, p, v)                                                                   \
    __extension__({                                                                                \
        SIM_TYPE(p) sim_new = (v);                                                                 \
        SIM_HERE("fetch_" #op, p);                                                                 \
        SIM_TYPE(p) sim_value = SIM_FETCH(op, p, sim_new);                                         \
        SIM_SAW(sim_value);                                                                        \
        sim_value;                                                                                 \
    })

#undef atomic_fetch_add_explicit
#undef atomic_fetch_sub_explicit
#undef atomic_fetch_and_explicit
#undef atomic_fetch_or_explicit
#define atomic_fetch_add_explicit(p, v, order) SIM_FETCH_STEP(add, p, v)
#define atomic_fetch_sub_explicit(p, v, order) SIM_FETCH_STEP(sub, p, v)
#define atomic_fetch_and_explicit(p, v, order) SIM_FETCH_STEP(and, p, v)
#define atomic_fetch_or_explicit(p, v, order) SIM_FETCH_STEP(or, p, v)

#define SIM_SWAP_STEP(name, weak, p, expected, v)                                                  \
    __extension__({                                                                                \
        SIM_TYPE(p) *sim_expected = (expected);                                                    \
        SIM_TYPE(p) sim_new = (v);                                                                 \
        SIM_HERE(name, p);                                                                         \
        bool sim_done;                                                                             \
        if ((weak) && sim_spurious()) {                                                            \
            *sim_expected = SIM_LOAD(p);                                                           \
            sim_done = false;                                                                      \
        } else {                                                                                   \
            sim_done = SIM_SWAP(p, sim_expected, sim_new);                                         \
        }                                                                                          \
        sim_saw(sim_done ? (uint64_t)sim_new : (uint64_t)*sim_expected);                           \
        sim_done;                                                                                  \
    })

#undef atomic_compare_exchange_strong_explicit
#undef atomic_compare_exchange_weak_explicit
#define atomic_compare_exchange_strong_explicit(p, expected, v, yes, no)                           \
    SIM_SWAP_STEP("cas", false, p, expected, v)
#define atomic_compare_exchange_weak_explicit(p, expected, v, yes, no)                             \
    SIM_SWAP_STEP("cas_weak", true, p, expected, v)

/* A lock: whoever finds it taken waits. */
#undef atomic_flag_test_and_set_explicit
#define atomic_flag_test_and_set_explicit(p, order)                                                \
    __extension__({                                                                                \
        SIM_HERE("test_and_set", p);                                                               \
        bool sim_taken = atomic_flag_test_and_set(p);                                              \
        sim_saw(sim_taken);                                                                        \
        if (sim_taken) {                                                                           \
            sim_wait();                                                                            \
        }                                                                                          \
        sim_taken;                                                                                 \
    })

#endif
