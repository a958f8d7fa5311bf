/* SPDX-License-Identifier: MIT */
/* A region of 64 MiB, objects one at a time and in bulk, and what became of the memory. */
#include <hakmem.h>
#include <stdio.h>

int main(void)
{
    struct hak_config config = {.size_bytes = (size_t)64 << 20,
                                .pages = {HAK_PAGES_2M, HAK_PAGES_THP, HAK_PAGES_4K}};
    if (hak_region_init(&config) != 0) {
        struct hak_error error;
        hak_last_error(&error);
        fprintf(stderr, "%s\n%s\n", error.message, error.remedy);
        return 1;
    }

    /* From here on: no system call, no page fault, whatever the size. */
    char *greeting = hak_malloc(32);
    if (greeting != NULL)
        puts(snprintf(greeting, 32, "hakmem %s", hak_version()) > 0 ? greeting : "?");
    hak_free(greeting);

    void *packets[64];
    size_t count = hak_malloc_bulk(2048, 64, packets);
    struct hak_stats stats;
    if (hak_region_stats(NULL, &stats) == 0)
        printf("%zu packets in slabs of %zu KiB; %zu MiB of %zu are free for every size\n", count,
               stats.slab_bytes >> 10, stats.free_bytes >> 20, stats.size_bytes >> 20);
    hak_free_bulk(packets, count);
    return hak_region_fini() == 0 ? 0 : 1;
}
