/* SPDX-License-Identifier: MIT */
/*
 * What scenes over a whole region share. The region is made once per scene, by the library's own
 * set-up; then its books are copied, and every schedule begins by copying them back, so that it
 * starts from the same state whatever came before it.
 *
 * kit_own and kit_disown keep a map of who has which bytes. Misuse is counted and never aborts.
 */
#ifndef HAK_TESTS_SCHED_HEAP_KIT_H
#define HAK_TESTS_SCHED_HEAP_KIT_H

#include "alloc/heap.h"
#include "alloc/thread.h"
#include "tests/sched/sim.h"

#define KIT_FIBERS 4
#define KIT_HAND 160

/* What a fiber (or, last, who sets the scene) holds. */
struct kit_hand {
    void *objects[KIT_HAND];
    size_t bytes[KIT_HAND];
    unsigned count;
};

struct kit {
    struct hak_region *heap;
    struct pool *pool; /* of the first node */
    struct kit_hand hands[KIT_FIBERS + 1];
    struct thread *threads[KIT_FIBERS]; /* slots attached before, one a fiber; NULL where none */
    uint64_t misuses;                   /* that must have been found at the end */
};

extern struct kit kit;

/* A default region of ordinary pages: bytes on each of so many nodes. */
void kit_open(size_t bytes, unsigned nodes, enum hak_switch prefault);
/* Attaches a slot for each fiber, on the first node. */
void kit_attach_all(void);
/* Copies the books as they are now: where every schedule starts. */
void kit_save(void);
/* In begin(): puts the books back. */
void kit_restore(void);
void kit_close(void);

/* The bytes are the running fiber's; nobody else's, and nobody's twice. */
void kit_own(const void *object, size_t bytes);
void kit_disown(const void *object, size_t bytes);

struct kit_hand *kit_hand(void);
/* Into the running fiber's hand, which owns it then. */
void kit_keep(void *object, size_t bytes);
/* Out of it, so that it may be freed. */
void *kit_let_go(unsigned which);

/* In end(): with objects alive all books are right; then everything in hands is freed through the
 * pools, the fibers' slots are emptied, and the region must be empty. */
void kit_check_and_empty(void);

#endif
