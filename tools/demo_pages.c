/* SPDX-License-Identifier: MIT */
/* Huge pages for the length of a run: how many, and what is said of it; bench/pool.h lends. */
#define _GNU_SOURCE

#include "bench/pool.h"
#include "tools/demo.h"

void pages_return(void)
{
    pool_return();
}

size_t pages_available_bytes(void)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            break;
    }
    fclose(file);
    return (size_t)kib << 10;
}

bool pages_borrow(size_t bytes, char *story, size_t story_bytes)
{
    char reason[POOL_STORY_BYTES] = "";
    struct topology topology;
    if (topology_read(&topology) != 0) {
        snprintf(story, story_bytes, "the machine's nodes cannot be read");
        return false;
    }
    uint64_t nodes = topology_memory_mask(&topology);
    size_t share = bytes / (size_t)max_size((size_t)__builtin_popcountll(nodes), 1);
    size_t there = (size_t)supply_unpromised(HAK_PAGES_2M) * os_pages_bytes(HAK_PAGES_2M);
    if (there < bytes && pages_available_bytes() / 2 < bytes - there) {
        snprintf(story, story_bytes, "%zu MiB of huge pages would take over half of the memory",
                 (bytes - there) >> 20);
        return false;
    }
    pool_watch();
    if (pool_borrow(HAK_PAGES_2M, nodes, share, reason) != 0) {
        snprintf(story, story_bytes, "%s", reason);
        return false;
    }
    uint64_t borrowed = pool_borrowed();
    if (borrowed == 0)
        snprintf(story, story_bytes, "there were enough of them");
    else
        snprintf(story, story_bytes, "%llu of them reserved for this run and given back after it",
                 (unsigned long long)borrowed);
    return true;
}
