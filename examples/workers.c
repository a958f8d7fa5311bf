/* SPDX-License-Identifier: MIT */
/* A shard a processor: each worker has its own table, in memory of its own node. */
#include <hakmem.h>
#include <stdio.h>
#include <string.h>

#define KEYS 10000

static void shard(unsigned worker, void *argument)
{
    void **table = hak_calloc(KEYS, sizeof(*table));
    size_t stored = 0;
    (void)argument;
    for (unsigned key = 0; table != NULL && key < KEYS; key++) {
        char text[64];
        size_t bytes = (size_t)snprintf(text, sizeof(text), "shard %u has key %u", worker, key) + 1;
        table[key] = hak_malloc(bytes); /* no lock, no system call, no other node's memory */
        if (table[key] == NULL)
            break;
        memcpy(table[key], text, bytes);
        stored += bytes;
    }
    printf("worker %u stored %zu KiB\n", worker, stored >> 10);
    if (table != NULL)
        hak_free_bulk(table, KEYS); /* NULLs are passed over */
    hak_free(table);
}

int main(void)
{
    struct hak_config config = {.size_bytes = (size_t)512 << 20};
    /* 0 workers: one for every processor. */
    if (hak_region_init(&config) != 0 || hak_worker_start(0, shard, NULL) != 0 ||
        hak_worker_join() != 0) {
        struct hak_error error;
        hak_last_error(&error);
        fprintf(stderr, "%s\n%s\n", error.message, error.remedy);
        return 1;
    }
    return hak_region_fini() == 0 ? 0 : 1;
}
