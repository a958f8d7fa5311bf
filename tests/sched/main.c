/* SPDX-License-Identifier: MIT */
/*
 * Runs the scenes. What it is told by the environment:
 *
 *   SCHEDULES=n       so many in all, shared out over the scenes (100,000)
 *   SCENE=x           that scene alone, with all of them
 *   SEED=n            with SCENE: that one schedule, with its trace; without: where the seeds of
 *                     all schedules come from (the clock)
 *
 * A line per scene, the tally last, as the test harness does. The first failure ends the program:
 * what it left behind would spoil the rest.
 */
#include "tests/sched/sim.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TRACE_SHOWN 600
#define SEEN_LOG2 21

static const struct sim_scene *current;
static uint64_t current_seed;
/* Hashes of schedules seen, open addressing; 0 is none. */
static uint64_t seen[1U << SEEN_LOG2];
static unsigned long long seen_count;

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93U;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93U;
    return x ^ (x >> 32);
}

static void note(uint64_t hash)
{
    uint64_t at = mix(hash) >> (64 - SEEN_LOG2);

    hash |= hash == 0;
    while (seen[at] != 0 && seen[at] != hash) {
        at = (at + 1) % (1U << SEEN_LOG2);
    }
    if (seen[at] == 0 && seen_count < (1U << SEEN_LOG2) / 4 * 3) {
        seen[at] = hash;
        seen_count++;
    }
}

static void tell_failure(const struct sim_result *result, unsigned long long number)
{
    printf("FAIL %s: %s\n", current->name, result->why);
    printf("    schedule %llu, scheduler %s; again: SCENE=%s SEED=%llu\n", number,
           result->scheduler, current->name, (unsigned long long)current_seed);
    sim_print_trace(TRACE_SHOWN);
}

/* A crash, or the library's own abort, is a finding like another. */
static void on_signal(int number)
{
    printf("FAIL %s: signal %d; again: SCENE=%s SEED=%llu\n", current->name, number, current->name,
           (unsigned long long)current_seed);
    sim_print_trace(TRACE_SHOWN);
    printf("0 passed, 1 failed, 0 skipped\n");
    (void)fflush(stdout);
    _exit(1);
}

static void catch_signals(void)
{
    static char stack[1 << 16];
    stack_t other = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};

    (void)sigaltstack(&other, NULL);
    (void)sigaction(SIGSEGV, &action, NULL);
    (void)sigaction(SIGBUS, &action, NULL);
    (void)sigaction(SIGABRT, &action, NULL);
    (void)sigaction(SIGFPE, &action, NULL);
}

static bool run_many(struct sim_scene *scene, uint64_t base, unsigned long long count)
{
    struct sim_result result;
    unsigned long long points = 0;

    memset(seen, 0, sizeof(seen));
    seen_count = 0;
    current = scene;
    scene->open();
    for (unsigned long long n = 0; n < count; n++) {
        current_seed = mix(base + n);
        sim_run(scene, current_seed, &result);
        if (result.failed) {
            tell_failure(&result, n);
            return false;
        }
        points += result.points;
        note(result.hash);
    }
    scene->close();
    printf("ok %s\n", scene->name);
    printf("    %llu schedules, %s%llu different, %llu points each\n", count,
           seen_count == (1U << SEEN_LOG2) / 4 * 3 ? "over " : "", seen_count,
           count > 0 ? points / count : 0);
    (void)fflush(stdout);
    return true;
}

static int replay(struct sim_scene *scene, uint64_t seed)
{
    struct sim_result result;

    current = scene;
    current_seed = seed;
    scene->open();
    sim_run(scene, seed, &result);
    if (result.failed) {
        tell_failure(&result, 0);
        printf("0 passed, 1 failed, 0 skipped\n");
        return 1;
    }
    printf("ok %s\n    scheduler %s, %llu points\n", scene->name, result.scheduler,
           (unsigned long long)result.points);
    sim_print_trace(TRACE_SHOWN);
    printf("1 passed, 0 failed, 0 skipped\n");
    return 0;
}

static const char *asked(const char *name)
{
    const char *value = getenv(name);

    return value != NULL && value[0] != '\0' ? value : NULL;
}

int main(void)
{
    const char *scene_asked = asked("SCENE"), *seed_asked = asked("SEED");
    const char *count_asked = asked("SCHEDULES");
    unsigned long long total = count_asked != NULL ? strtoull(count_asked, NULL, 10) : 100000;
    uint64_t seed = seed_asked != NULL ? strtoull(seed_asked, NULL, 0) : (uint64_t)time(NULL);
    unsigned parts = 0, passed = 0, failed = 0;

    catch_signals();
    for (struct sim_scene *scene = sim_scenes(); scene != NULL; scene = scene->next) {
        if (scene_asked != NULL && strcmp(scene_asked, scene->name) == 0 && seed_asked != NULL &&
            count_asked == NULL) {
            return replay(scene, seed);
        }
        parts += scene_asked == NULL || strcmp(scene_asked, scene->name) == 0 ? scene->share : 0;
    }
    if (parts == 0) {
        fprintf(stderr, "there is no scene %s\n", scene_asked != NULL ? scene_asked : "at all");
        return 2;
    }
    printf("seed %llu (again: SEED=%llu)\n", (unsigned long long)seed, (unsigned long long)seed);
    for (struct sim_scene *scene = sim_scenes(); scene != NULL && failed == 0;
         scene = scene->next) {
        if (scene_asked == NULL || strcmp(scene_asked, scene->name) == 0) {
            bool well = run_many(scene, mix(seed) + mix((uint64_t)scene->name[0]),
                                 total * scene->share / parts + 1);
            passed += well;
            failed += !well;
        }
    }
    printf("%u passed, %u failed, 0 skipped\n", passed, failed);
    return failed > 0 || passed == 0;
}
