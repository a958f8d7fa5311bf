/* SPDX-License-Identifier: MIT */
/* The public set-up, pinning and query calls; include/hakmem.h is their contract. */
#include "alloc/setup.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "alloc/fork.h"
#include "alloc/stats.h"
#include "alloc/thread.h"
#include "alloc/warmpool.h"
#include "numa/bind.h"
#include "numa/topology.h"
#include "region/errlog.h"

/* Set-up is one at a time; allocation never takes this lock. */
static pthread_mutex_t setup_lock = PTHREAD_MUTEX_INITIALIZER;
static bool prints_at_exit;
/* The default region holds the heap of a whole program; see setup_whole_program. */
static bool whole_program;

/* The holder's cancelability before it came; under the lock. */
static int cancel_before;
/* Set-up calls that this thread is in. A second one comes from a signal's handler that interrupted
 * the first: it has the lock with it, and is refused; see begin. A fork from there goes on. */
static HAK_TLS_FAST unsigned depth;

/* No set-up call is a cancellation point: half a region, and the lock, would stay behind. */
static void lock_set_up(void)
{
    sigset_t every, mask;
    int cancel;

    if (depth != 0) {
        depth++;
        return;
    }
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
    /* A handler finds depth and lock agree. */
    sigfillset(&every);
    pthread_sigmask(SIG_BLOCK, &every, &mask);
    pthread_mutex_lock(&setup_lock);
    depth = 1;
    cancel_before = cancel;
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

static void unlock_set_up(void)
{
    sigset_t every, mask;
    int cancel = cancel_before;

    if (depth > 1) {
        depth--;
        return;
    }
    sigfillset(&every);
    pthread_sigmask(SIG_BLOCK, &every, &mask);
    depth = 0;
    pthread_mutex_unlock(&setup_lock);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    pthread_setcancelstate(cancel, NULL);
}

/* Not from the first set-up on: a fork in the middle of that one, or one that had begun before it,
 * would leave the lock taken in the child for good. */
__attribute__((constructor)) static void watch_forks_from_the_start(void)
{
    (void)fork_watch(lock_set_up, unlock_set_up); /* set-up tries again, and tells */
}

static void print_at_exit(void)
{
    lock_set_up();
    for (unsigned id = 0; id < HAK_REGIONS_MAX; id++) {
        struct hak_region *heap = atomic_load_explicit(&heap_all[id], memory_order_acquire);
        if (heap != NULL && heap->warm_pool_stats) {
            warmpool_print_stats(heap);
        }
    }
    unlock_set_up();
}

/* A handle, zeroed; it is metadata like the rest and not taken from any malloc. */
static struct hak_region *new_handle(const struct settings *settings, struct hak_error *error)
{
    enum table_place place = settings->hardened ? TABLE_APART : TABLE_ANYWHERE;
    struct hak_region *heap;
    void *memory;
    int code = backing_table(sizeof(struct hak_region), -1, false, HAK_PAGES_4K, place, &memory);

    if (code != 0) {
        errlog_fail(error, code, HAK_ERROR_SETUP, "no addresses for a region's handle");
        return NULL;
    }
    heap = memory;
    heap->place = place;
    return heap;
}

static void free_handle(struct hak_region *heap)
{
    backing_table_free(heap, sizeof(*heap), heap->place);
}

static void drop(struct hak_region *heap)
{
    heap_unlayout(heap);
    region_destroy(&heap->area);
    free_handle(heap);
}

static int free_id(struct hak_error *error)
{
    for (int id = 1; id < HAK_REGIONS_MAX; id++) {
        if (atomic_load_explicit(&heap_all[id], memory_order_relaxed) == NULL) {
            return id;
        }
    }
    return errlog_fail(error, -ENOSPC, HAK_ERROR_SETUP,
                       "there are %d further regions, the most that a process can have beside the "
                       "default one; destroy one",
                       HAK_REGIONS_MAX - 1);
}

static void install(struct hak_region *heap, unsigned id)
{
    heap->id = id;
    if (heap->warm_pool_stats && !prints_at_exit) {
        prints_at_exit = atexit(print_at_exit) == 0;
    }
    /* Release: who finds the region finds it laid out. */
    atomic_store_explicit(&heap_all[id], heap, memory_order_release);
    if (id == 0) {
        heap_default_front = heap->front;
        atomic_store_explicit(&heap_default, heap, memory_order_release);
    }
}

/* What a process needs once: forks and thread exits are noticed. */
static int watch(struct hak_error *error)
{
    int code = fork_watch(lock_set_up, unlock_set_up);

    if (code == 0) {
        code = thread_prepare();
    }
    return code == 0 ? 0
                     : errlog_fail(error, code, HAK_ERROR_SETUP,
                                   "the C library has no room for a fork handler or thread key");
}

/* The C library can stand in only where its pointers come back through malloc's names. */
int setup_check(struct settings *settings, struct hak_error *error)
{
    if (settings->exhausted != HAK_EXHAUSTED_LIBC) {
        return 0;
    }
    if (whole_program) {
        settings->exhausted = HAK_EXHAUSTED_ANY_NODE; /* of a further region */
        return 0;
    }
    return errlog_fail(error, -EINVAL, HAK_ERROR_SETUP,
                       "HAKMEM_EXHAUSTED=libc is for programs that run with libhakmem_preload.so; "
                       "accepted here: fail|any-node");
}

static int create(const struct settings *settings, unsigned id, struct hak_region **out,
                  struct hak_error *error)
{
    struct hak_region *heap;
    int code = watch(error);

    if (code != 0) {
        return code;
    }
    heap = new_handle(settings, error);
    if (heap == NULL) {
        return error->code;
    }
    code = region_create(&heap->area, settings, error);
    if (code == 0) {
        code = heap_layout(heap, settings, error);
        if (code != 0) {
            drop(heap);
            return code;
        }
        install(heap, id);
        *out = heap;
        return 0;
    }
    free_handle(heap);
    return code;
}

/* Begins a set-up call: takes the lock; -EDEADLK where this thread is in one already. */
static int begin(struct hak_error *error)
{
    lock_set_up();
    return depth == 1 ? 0
                      : errlog_fail(error, -EDEADLK, HAK_ERROR_SETUP,
                                    "a set-up call in a signal handler that has interrupted one "
                                    "of the same thread; block the signal around set-up");
}

/* Ends a set-up call: releases the lock, keeps the record of a failure. */
static int finish(int code, struct hak_error *error)
{
    unlock_set_up();
    if (code != 0) {
        errlog_store(error);
    }
    return code;
}

static int create_as_asked(const struct hak_config *config, unsigned id, struct hak_region **out,
                           struct hak_error *error)
{
    struct settings settings;
    int code = config_resolve(config, &settings, error);

    if (code == 0) {
        code = setup_check(&settings, error);
    }
    return code == 0 ? create(&settings, id, out, error) : code;
}

int hak_region_init(const struct hak_config *config)
{
    struct hak_region *heap;
    struct hak_error error;
    int code = begin(&error);

    if (code == 0 && atomic_load_explicit(&heap_default, memory_order_relaxed) != NULL) {
        code = errlog_fail(&error, -EALREADY, HAK_ERROR_SETUP,
                           "the default region exists; %s hak_region_create for a further one",
                           whole_program ? "it holds this program's heap; call"
                                         : "call hak_region_fini first, or");
    } else if (code == 0) {
        code = create_as_asked(config, 0, &heap, &error);
    }
    return finish(code, &error);
}

int setup_whole_program(void (*suit)(struct settings *settings),
                        bool (*shrink)(struct settings *settings, unsigned failures))
{
    struct hak_region *heap;
    struct hak_error error;
    struct settings settings;
    int code;

    lock_set_up();
    code = config_resolve(NULL, &settings, &error);
    if (code == 0) {
        settings.fork_inherits = true;
        suit(&settings);
        code = create(&settings, 0, &heap, &error);
    }
    for (unsigned failures = 1; code == -ENOMEM && shrink(&settings, failures); failures++) {
        code = create(&settings, 0, &heap, &error);
    }
    whole_program = code == 0;
    return finish(code, &error);
}

int hak_region_create(const struct hak_config *config, hak_region **out)
{
    struct hak_error error;
    int code;

    if (out == NULL) {
        code = errlog_fail(&error, -EINVAL, HAK_ERROR_SETUP, "hak_region_create: out is NULL");
        errlog_store(&error);
        return code;
    }
    *out = NULL;
    code = begin(&error);
    if (code == 0) {
        code = free_id(&error);
    }
    if (code > 0) {
        code = create_as_asked(config, (unsigned)code, out, &error);
    }
    return finish(code, &error);
}

static void end(struct hak_region *heap)
{
    if (heap->warm_pool_stats) {
        warmpool_print_stats(heap);
    }
    if (heap->id == 0) {
        heap_default_front = (struct heap_front){0};
        atomic_store_explicit(&heap_default, NULL, memory_order_release);
    }
    atomic_store_explicit(&heap_all[heap->id], NULL, memory_order_release);
    thread_forget(heap);
    drop(heap);
}

int hak_region_fini(void)
{
    struct hak_region *heap;
    struct hak_error error;
    int code = begin(&error);

    heap = atomic_load_explicit(&heap_default, memory_order_relaxed);
    if (code != 0) {
        return finish(code, &error);
    }
    if (heap == NULL) {
        code = errlog_fail(&error, -ENODEV, HAK_ERROR_SETUP,
                           "hak_region_fini: there is no default region");
    } else if (whole_program) {
        code = errlog_fail(&error, -EBUSY, HAK_ERROR_SETUP,
                           "hak_region_fini: the default region holds the heap of this whole "
                           "program (libhakmem_preload.so) and stays");
    } else {
        end(heap);
    }
    return finish(code, &error);
}

int hak_region_destroy(hak_region *region)
{
    struct hak_error error;
    int code = begin(&error);

    if (code != 0) {
        return finish(code, &error);
    }
    code = errlog_fail(&error, -EINVAL, HAK_ERROR_SETUP,
                       "hak_region_destroy: %p is not a live region of hak_region_create or "
                       "hak_region_adopt",
                       (void *)region);
    for (unsigned id = 1; region != NULL && id < HAK_REGIONS_MAX; id++) {
        if (atomic_load_explicit(&heap_all[id], memory_order_relaxed) == region) {
            end(region);
            code = 0;
            break;
        }
    }
    return finish(code, &error);
}

/* The whole SuperSlabs in [start, start + length); 0 bytes where there is none. */
static size_t usable_part(void *start, size_t length, uintptr_t *first)
{
    uintptr_t low = (uintptr_t)start;
    uintptr_t end_of = low + length;

    *first = round_up(low, SUPERSLAB_BYTES);
    if (end_of < low || *first < low || round_down(end_of, SUPERSLAB_BYTES) <= *first) {
        return 0;
    }
    return round_down(end_of, SUPERSLAB_BYTES) - *first;
}

static int check_adopted(void *start, size_t length, uintptr_t first, size_t bytes,
                         struct hak_error *error)
{
    if (start == NULL || (uintptr_t)start + length < (uintptr_t)start) {
        return errlog_fail(error, -EINVAL, HAK_ERROR_SETUP,
                           "hak_region_adopt: [%p, +%zu) is not a range of memory", start, length);
    }
    if (bytes == 0) {
        return errlog_fail(error, -EINVAL, HAK_ERROR_SETUP,
                           "hak_region_adopt: [%p, +%zu) holds no whole SuperSlab (2 MiB, aligned "
                           "to 2 MiB); from this start %zu bytes would hold one",
                           start, length,
                           (size_t)(round_up((uintptr_t)start, SUPERSLAB_BYTES) + SUPERSLAB_BYTES -
                                    (uintptr_t)start));
    }
    if (bytes > HAK_REGION_BYTES_MAX) {
        return errlog_fail(error, -E2BIG, HAK_ERROR_SETUP,
                           "hak_region_adopt: %zu bytes are more than the most a region can have "
                           "(%zu)",
                           bytes, HAK_REGION_BYTES_MAX);
    }
    for (unsigned id = 0; id < HAK_REGIONS_MAX; id++) {
        struct hak_region *heap = atomic_load_explicit(&heap_all[id], memory_order_relaxed);
        if (heap != NULL && first < heap->area.base + heap->area.bytes &&
            heap->area.base < first + bytes) {
            return errlog_fail(error, -EINVAL, HAK_ERROR_SETUP,
                               "hak_region_adopt: [%p, +%zu) overlaps the live region [%p, +%zu)",
                               start, length, (void *)heap->area.base, heap->area.bytes);
        }
    }
    return 0;
}

/* The node that adopted memory counts as: as said, or where its first page is. */
static int adopted_node(uintptr_t first, int node, struct hak_error *error)
{
    static struct topology topology;
    int code = topology_read(&topology);

    if (code != 0) {
        return errlog_fail(error, code, HAK_ERROR_SETUP, "the machine's nodes cannot be read");
    }
    if (node == -1) {
        size_t wrong = 1;
        for (int n = 0; n < (int)topology.node_end; n++) {
            if (bind_verify((void *)first, 4096, 4096, n, &wrong) == 0 && wrong == 0) {
                return n;
            }
        }
        return topology_nearest(&topology, 0, topology_memory_mask(&topology));
    }
    if (node < 0 || node >= HAK_NODES_MAX || !topology.nodes[node].exists) {
        return errlog_fail(error, -ENODEV, HAK_ERROR_SETUP, "hak_region_adopt: there is no node %d",
                           node);
    }
    return node;
}

static int adopt(uintptr_t first, size_t bytes, int node, const struct hak_config *config,
                 struct hak_region **out, struct hak_error *error)
{
    struct hak_config only_policy = {.misuse = config != NULL ? config->misuse : 0,
                                     .hardened = config != NULL ? config->hardened : 0};
    struct settings settings;
    struct hak_region *heap;
    int id = free_id(error);
    int code;

    if (id < 0) {
        return id;
    }
    node = adopted_node(first, node, error);
    code = node < 0 ? node : config_resolve(&only_policy, &settings, error);
    if (code != 0) {
        return code;
    }
    code = watch(error);
    if (code != 0) {
        return code;
    }
    heap = new_handle(&settings, error);
    if (heap == NULL) {
        return error->code;
    }
    code = region_adopt(&heap->area, (void *)first, bytes, node, heap->place, error);
    if (code != 0) {
        free_handle(heap);
        return code;
    }
    code = heap_layout(heap, &settings, error);
    if (code != 0) {
        drop(heap);
        return code;
    }
    install(heap, (unsigned)id);
    *out = heap;
    return 0;
}

int hak_region_adopt(void *start, size_t length, int node, const struct hak_config *config,
                     hak_region **out, size_t *usable_bytes)
{
    struct hak_error error;
    uintptr_t first;
    size_t bytes = usable_part(start, length, &first);
    int code;

    if (usable_bytes != NULL) {
        *usable_bytes = bytes;
    }
    if (out == NULL) {
        code = errlog_fail(&error, -EINVAL, HAK_ERROR_SETUP, "hak_region_adopt: out is NULL");
        errlog_store(&error);
        return code;
    }
    *out = NULL;
    code = begin(&error);
    if (code == 0) {
        code = check_adopted(start, length, first, bytes, &error);
    }
    if (code == 0) {
        code = adopt(first, bytes, node, config, out, &error);
    }
    return finish(code, &error);
}
