/* SPDX-License-Identifier: MIT */
/*
 * The simulator: a few threads of a scene run as fibers on one thread of the system, and a seed
 * decides at every point (points.h) which of them goes on.
 *
 * A fiber has thread-locals of its own (switch.h), new ones in every schedule.
 *
 * A schedule is one run of a scene: begin() puts everything into its first state and spawns the
 * fibers, they run to their ends, end() looks at what is left. All choices, the scene's and the
 * scheduler's, come from the schedule's own seed, so scene and seed repeat it exactly.
 *
 * How the next fiber is chosen (drawn from the seed, per schedule):
 *   random    at every point, or at one in 2, 4, 8, anybody
 *   pct       the highest of random priorities; at up to 4 points the running one becomes the
 *             lowest (Burckhardt et al., ASPLOS 2010)
 *   bounded   nobody is interrupted, but for 1 to 3 points
 *   hour      as one of these, and one fiber stops at some point of its own until all others ended
 *
 * Waiting. A fiber that calls sched_yield, os_yield, or finds a lock taken is passed over for
 * WAIT_POINTS of the others'. Where all wait, time passes: SIM_TICK_NS on the clock that the
 * library reads (os_coarse_ns), beside a microsecond for each point. A schedule that takes more
 * than POINTS_MOST points hangs, and is a failure.
 */
#ifndef HAK_TESTS_SCHED_SIM_H
#define HAK_TESTS_SCHED_SIM_H

#include "tests/sched/points.h"

#include <stddef.h>

#define SIM_FIBERS_MAX 6
#define SIM_TICK_NS 10000000U

struct sim_scene {
    const char *name;
    unsigned points; /* of one schedule, about: where changes are put */
    unsigned share;  /* of all schedules, in parts */
    void (*open)(void), (*begin)(void), (*end)(void), (*close)(void);
    struct sim_scene *next;
};

/* A scene NAME of the functions NAME_open, NAME_begin, NAME_end, NAME_close. */
#define SCENE(scene_name, typical_points, parts)                                                   \
    static struct sim_scene scene_name##_scene = {                                                 \
        #scene_name,      typical_points,     parts, scene_name##_open, scene_name##_begin,        \
        scene_name##_end, scene_name##_close, NULL};                                               \
    __attribute__((constructor)) static void scene_name##_register(void)                           \
    {                                                                                              \
        sim_register(&scene_name##_scene);                                                         \
    }

void sim_register(struct sim_scene *scene);

/* ---- for scenes ---------------------------------------------------------------------------- */

/* In begin(): a fiber that runs run(number); numbers count from 0. */
void sim_spawn(void (*run)(unsigned me));
/* The schedule's own random numbers. */
uint64_t sim_random(void);
/* One of 0 .. n - 1. */
unsigned sim_pick(unsigned n);
/* What the library does when the calling fiber's thread exits. */
void sim_thread_exit(void);
/* The running fiber, or -1 outside of them. */
int sim_me(void);
/* Points so far that were not the running fiber's. */
uint64_t sim_others(void);
/* Whether a fiber is, or was, stopped for an hour in this schedule. */
bool sim_stopped_one(void);
/* In begin(): in this scene threads may wait for each other, however long. Elsewhere it is a
 * failure that all others wait for one that is stopped. */
void sim_may_wait(void);
/* The node that a fiber's thread runs on (-1: the caller of them all). */
extern int sim_node[SIM_FIBERS_MAX + 1];
/* Memory that goes back to the kernel (os_discard); a scene's answer, 0 where it sets none. */
extern int (*sim_discard)(void *at, size_t bytes);

/* Ends the schedule as failed. */
__attribute__((noreturn, format(printf, 3, 4))) void sim_fail(const char *file, int line,
                                                              const char *format, ...);

#define SIM_CHECK(condition)                                                                       \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            sim_fail(__FILE__, __LINE__, "SIM_CHECK(%s)", #condition);                             \
        }                                                                                          \
    } while (0)

#define SIM_CHECK_EQ(a, b)                                                                         \
    do {                                                                                           \
        long long sim_a = (long long)(a), sim_b = (long long)(b);                                  \
        if (sim_a != sim_b) {                                                                      \
            sim_fail(__FILE__, __LINE__, "SIM_CHECK_EQ(%s, %s): %lld and %lld", #a, #b, sim_a,     \
                     sim_b);                                                                       \
        }                                                                                          \
    } while (0)

/* ---- for the runner ------------------------------------------------------------------------ */

struct sim_result {
    bool failed;
    char why[512];
    uint64_t hash; /* of all choices: equal only for equal schedules */
    uint64_t points;
    const char *scheduler;
};

/* Runs one schedule of an open scene. */
void sim_run(const struct sim_scene *scene, uint64_t seed, struct sim_result *result);
/* Prints the points of the last schedule, the latest most of them. */
void sim_print_trace(size_t most);
/* Those so far registered, in order of their names. */
struct sim_scene *sim_scenes(void);

#endif
