/* SPDX-License-Identifier: MIT */
/*
 * One misdeed with the heap, and a look at what is left of the heap afterwards: deeds ROW. A plain
 * program, so that every allocator can be put under the same steps; `deeds --list` names the rows
 * and what they do.
 *
 * Stages, in lines that measure.sh reads: "write", a write where none should be; "call", the bad
 * call; "free", of the object that was written past; "reuse", many objects of that size are taken;
 * "flush", they and all others are freed; "work", a fixed load of 100,000 calls; "end", the thread
 * that did all this ends; "check", the allocator walks its books where it can. How far a process
 * came, with what signal it ended and what was said in which stage is what is known of it.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <unistd.h>

#include "tests/misuse/herd.h"

#define SMALL ((size_t)104) /* what many allocators give without a byte to spare, or nearly */
#define LARGE ((size_t)1 << 20)
#define PAGE ((size_t)4096)
#define WORK_CALLS 100000
#define WORK_HELD 1000

struct row {
    const char *name;
    const char *title;
    void (*commit)(void);
    size_t size; /* of the objects concerned */
};

static const struct row *row;
static int in_static_memory[16];

/* ---- freed twice ---- */

static void double_at_once(void)
{
    void *object = herd_middle();
    call_free(object);
    stage("call");
    call_free(object);
}

static void double_in_cache(void)
{
    void *object = herd_middle();
    call_free(object);
    for (int n = 0; n < 5; n++) {
        call_free(herd_middle());
    }
    stage("call");
    call_free(object);
    stage("flush");
    herd_shrink(0);
}

/* All but a few of each slab, page or run, which so stays what it is. */
static void free_most(void)
{
    size_t kept = 0;
    for (size_t n = 0; n < herd_count; n++) {
        if (n % 200 == 1) {
            herd[kept++] = herd[n];
        } else {
            call_free(herd[n].at);
        }
    }
    herd_count = kept;
}

static void double_after_pool(void)
{
    void *object = herd_middle();
    call_free(object);
    free_most();
    stage("call");
    call_free(object);
}

/* Takes and frees until the address comes again: where it is held back, that may take a while. */
static void double_after_reuse(void)
{
    unsigned char *object = herd_middle(), *again = NULL;
    size_t before = herd_count;
    call_free(object);
    for (int round = 0; round < 20 && again != object; round++) {
        for (int n = 0; n < 20000 && again != object; n++) {
            again = call_malloc(row->size);
            herd_add(again, row->size);
        }
        if (again != object) {
            herd_shrink(before);
        }
    }
    if (again != object) {
        say("says the memory never came again");
    }
    stage("call");
    call_free(object);
}

static void *free_it(void *object)
{
    call_free(object);
    return NULL;
}

static void in_thread(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, argument) != 0 || pthread_join(thread, NULL) != 0) {
        say("failed: no thread");
        _exit(3);
    }
}

static void double_other_thread(void)
{
    void *object = herd_middle();
    call_free(object);
    stage("call");
    in_thread(free_it, object);
}

/* ---- not an object ---- */

static void free_interior(void)
{
    stage("call");
    call_free(herd_middle() + 16);
}

static void free_odd(void)
{
    stage("call");
    call_free(herd_middle() + 1);
}

static void free_interior_page(void)
{
    stage("call");
    call_free(herd_middle() + PAGE);
}

static void free_interior_far(void)
{
    stage("call");
    call_free(herd_middle() + 192 * 1024);
}

static void free_stack(void)
{
    _Alignas(16) int on_stack[16] = {0};
    stage("call");
    call_free(on_stack);
}

static void free_static(void)
{
    stage("call");
    call_free(in_static_memory);
}

static void free_libc(void)
{
    void *object = call_libc_malloc(SMALL);
    stage("call");
    call_free(object);
}

static void free_null(void)
{
    stage("call");
    call_free(NULL);
}

/* Of no mapping: nobody maps there without being asked to. */
static void free_random(void)
{
    stage("call");
    call_free((void *)(uintptr_t)0x123456789ab0);
}

static void free_other_region(void)
{
    void *object = call_other_region(SMALL);
    if (object == NULL) {
        say("none");
        return;
    }
    stage("call");
    call_free(object);
}

/* ---- with a wrong size ---- */

static void sized(size_t size)
{
    void *object = herd_middle();
    stage("call");
    if (!call_free_sized(object, size)) {
        say("none");
    }
}

static void sized_small(void)
{
    sized(16);
}

static void sized_large(void)
{
    sized(4000);
}

static void sized_near(void)
{
    sized(SMALL + 2); /* of the same size class, mostly */
}

static void sized_aligned(size_t alignment, size_t size)
{
    void *object;
    do { /* one that does not have the wrong alignment by chance */
        object = call_aligned(64, 192);
    } while (((uintptr_t)object & 4095) == 0);
    stage("call");
    if (!call_free_aligned_sized(object, alignment, size)) {
        say("none");
    }
}

static void aligned_wrong(void)
{
    sized_aligned(4096, 192);
}

static void aligned_size_wrong(void)
{
    sized_aligned(64, 4096);
}

/* ---- realloc, usable size ---- */

static void resize(void *object, size_t size)
{
    stage("call");
    void *moved = call_realloc(object, size);
    if (moved == NULL) {
        say("says refused");
    } else {
        herd_add(moved, size);
    }
}

static void realloc_freed(void)
{
    void *object = herd_middle();
    call_free(object);
    resize(object, 500);
}

static void realloc_interior(void)
{
    resize(herd_middle() + 16, 500);
}

static void realloc_interior_large(void)
{
    resize(herd_middle() + PAGE, 2 * LARGE);
}

static void usable_freed(void)
{
    void *object = herd_middle();
    call_free(object);
    stage("call");
    size_t size = call_usable(object);
    say(size == 0 ? "says 0" : size < 2 * row->size ? "says its size" : "says nonsense");
}

/* ---- written where nothing should be ---- */

static void written(void *object)
{
    herd_repair();
    stage("free");
    call_free(object);
}

/* All of a freed object, with two addresses in front, where a list would have them. */
static void spoil(unsigned char *object)
{
    void *target[2] = {in_static_memory, in_static_memory};
    call_free(object);
    stage("write");
    memset(object, 0x41, row->size);
    memcpy(object, target, sizeof target);
}

static void write_after_free(void)
{
    spoil(herd_middle());
    stage("flush");
    free_most();
}

static void write_after_free_all(void)
{
    spoil(herd_middle());
    stage("flush");
    herd_shrink(0);
}

static void overflow_byte(void)
{
    unsigned char *object = herd_middle();
    stage("write");
    object[row->size] ^= 0x55;
    written(object);
}

/* The first byte that is not the object's even by what the allocator says. */
static void overflow_usable(void)
{
    unsigned char *object = herd_middle();
    stage("write");
    object[call_usable(object)] ^= 0x55;
    written(object);
}

static void overflow_page(void)
{
    unsigned char *object = herd_middle();
    stage("write");
    memset(object + row->size, 0x41, PAGE);
    written(object);
}

static void underflow(void)
{
    unsigned char *object = herd_middle();
    stage("write");
    memset(object - 8, 0x41, 8);
    written(object);
}

static void underflow_page(void)
{
    unsigned char *object = herd_middle();
    stage("write");
    memset(object - PAGE, 0x41, PAGE);
    written(object);
}

static size_t bytes_that_are(const volatile unsigned char *object, unsigned char value)
{
    size_t count = 0;
    for (size_t n = 0; n < row->size; n++) {
        count += object[n] == value;
    }
    return count;
}

static void read_after_free(void)
{
    unsigned char *object = herd_middle();
    memset(object, 0x5a, row->size);
    call_free(object);
    stage("write");
    size_t same = bytes_that_are(object, 0x5a);
    say(same == row->size ? "says all of it is there"
        : same != 0       ? "says part of it is there"
                          : "says it is gone");
}

/* What the next owners find in memory that nobody has cleared. */
static void read_before_write(void)
{
    size_t before = herd_count, whole = 0, some = 0;
    for (size_t n = 0; n < before; n++) {
        memset(herd[n].at, 0x5a, herd[n].size);
    }
    for (size_t n = 0; n < before; n++) {
        call_free(herd[n].at);
    }
    herd_count = 0;
    stage("call");
    for (size_t n = 0; n < before; n++) {
        unsigned char *object = call_malloc(row->size);
        size_t same = bytes_that_are(object, 0x5a);
        whole += same == row->size;
        some += same != 0;
        herd_add(object, row->size);
    }
    say(whole != 0 ? "says all of it" : some != 0 ? "says part of it" : "says no");
}

/* ---- impossible sizes ---- */

static void answered(void *object)
{
    say(object == NULL ? "says refused" : "says gave memory");
}

static void calloc_overflow(void)
{
    stage("call");
    answered(call_calloc(SIZE_MAX / 16 + 2, 16)); /* 16 bytes, cut off at 64 bits */
}

static void malloc_overflow(void)
{
    stage("call");
    answered(call_malloc(SIZE_MAX - 8));
}

static void aligned_overflow(void)
{
    stage("call");
    answered(call_aligned((size_t)1 << 16, SIZE_MAX - 0xffff));
}

static const struct row rows[] = {
    {"double_at_once", "freed twice in a row", double_at_once, SMALL},
    {"double_in_cache", "freed twice, five others between, then many freed", double_in_cache,
     SMALL},
    {"double_after_pool", "freed again after most of its neighbours were", double_after_pool,
     SMALL},
    {"double_after_reuse", "freed again when its memory is another object", double_after_reuse,
     SMALL},
    {"double_other_thread", "freed again by another thread", double_other_thread, SMALL},
    {"double_large", "a large object freed twice", double_at_once, LARGE},
    {"free_interior", "free of an object's inside, 16 bytes in", free_interior, SMALL},
    {"free_odd", "free of an odd address in an object", free_odd, SMALL},
    {"free_interior_page", "free of a large object's inside, a page in", free_interior_page, LARGE},
    {"free_interior_far", "free of a large object's inside, far in", free_interior_far, LARGE},
    {"free_stack", "free of a stack variable", free_stack, SMALL},
    {"free_static", "free of a static variable", free_static, SMALL},
    {"free_libc", "free of an object of the C library's own heap", free_libc, SMALL},
    {"free_null", "free of NULL", free_null, SMALL},
    {"free_random", "free of an address where nothing is", free_random, SMALL},
    {"free_other_region", "free of another region's object", free_other_region, SMALL},
    {"sized_small", "free_sized with too small a size", sized_small, SMALL},
    {"sized_large", "free_sized with too large a size", sized_large, SMALL},
    {"sized_near", "free_sized with a size two bytes off", sized_near, SMALL},
    {"aligned_wrong", "free_aligned_sized with a wrong alignment", aligned_wrong, 192},
    {"aligned_size_wrong", "free_aligned_sized with a wrong size", aligned_size_wrong, 192},
    {"realloc_freed", "realloc of a freed object", realloc_freed, SMALL},
    {"realloc_freed_large", "realloc of a freed large object", realloc_freed, LARGE},
    {"realloc_interior", "realloc of an object's inside", realloc_interior, SMALL},
    {"realloc_interior_large", "realloc of a large object's inside", realloc_interior_large, LARGE},
    {"usable_freed", "usable size of a freed object", usable_freed, SMALL},
    {"usable_freed_large", "usable size of a freed large object", usable_freed, LARGE},
    {"write_after_free", "write to a freed object", write_after_free, SMALL},
    {"write_after_free_all", "write to a freed object, then all others are freed",
     write_after_free_all, SMALL},
    {"write_after_free_large", "write to a freed large object", write_after_free_all, LARGE},
    {"read_after_free", "read of a freed object", read_after_free, SMALL},
    {"read_before_write", "a new object shows what was freed", read_before_write, SMALL},
    {"overflow_byte", "overflow by a byte of the size asked for", overflow_byte, SMALL},
    {"overflow_usable", "overflow by a byte of the usable size", overflow_usable, SMALL},
    {"overflow_page", "overflow by a page", overflow_page, SMALL},
    {"overflow_usable_large", "overflow of a large object by a byte of the usable size",
     overflow_usable, LARGE},
    {"overflow_page_large", "overflow of a large object by a page", overflow_page, LARGE},
    {"underflow", "write of eight bytes in front of an object", underflow, SMALL},
    {"underflow_large", "write of eight bytes in front of a large object", underflow, LARGE},
    {"underflow_page_large", "write of a page in front of a large object", underflow_page, LARGE},
    {"calloc_overflow", "calloc whose product overflows", calloc_overflow, SMALL},
    {"malloc_overflow", "malloc of nearly all addresses", malloc_overflow, SMALL},
    {"aligned_overflow", "aligned_alloc of nearly all addresses", aligned_overflow, SMALL},
};

/* ---- afterwards ---- */

/* A fixed load of all sizes, contents looked at: nothing overlaps and nothing is damaged. */
static void work(void)
{
    uint64_t random = 5;
    size_t before = herd_count;

    for (int call = 0; call < WORK_CALLS; call++) {
        random = random * 6364136223846793005U + 1442695040888963407U;
        size_t size = (random >> 33) % 64 == 0 ? (random >> 40) % 20000 : (random >> 40) % 1000;
        size_t at = before + (random >> 20) % WORK_HELD;
        size = (random >> 32) & 1 ? row->size < 8192 ? row->size : size : size;
        if (at >= herd_count) {
            herd_add(call_malloc(size), size);
            continue;
        }
        look_at(&herd[at]);
        call_free(herd[at].at);
        herd[at] = herd[--herd_count];
    }
    herd_look();
    herd_shrink(0);
}

static void *everything(void *unused)
{
    herd_grow(row->size);
    row->commit();
    for (int n = 0; n < 2; n++) {
        size_t before = n == 0 ? 0 : herd_count;
        stage("reuse");
        herd_grow(row->size);
        herd_look();
        stage("flush");
        herd_shrink(before);
    }
    stage("work");
    work();
    stage("end");
    return unused;
}

int main(int argc, char **argv)
{
    for (size_t n = 0; n < sizeof rows / sizeof *rows; n++) {
        if (argc == 2 && strcmp(argv[1], "--list") == 0) {
            printf("%s|%s\n", rows[n].name, rows[n].title);
        } else if (argc == 2 && strcmp(argv[1], rows[n].name) == 0) {
            row = &rows[n];
        }
    }
    if (row == NULL) {
        return argc == 2 && strcmp(argv[1], "--list") == 0 ? 0 : 2;
    }
    if (!calls_begin()) {
        return 3;
    }
    in_thread(everything, NULL);
    stage("check");
    if (calls_misuses() >= 0) {
        say("misuses %ld", calls_misuses());
    }
    if (calls_check() == ORDER_BAD) {
        say("books out of order");
    }
    say("done");
    return 0;
}
