/* SPDX-License-Identifier: MIT */
/* A list, a character at a time; see ranges.h. */
#include "numa/ranges.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

/* Between two characters. */
struct scan {
    unsigned first, number;
    bool digits, dash;
    ranges_visit *visit;
    void *context;
};

static void end_range(struct scan *scan)
{
    if (scan->digits)
        scan->visit(scan->context, scan->dash ? scan->first : scan->number, scan->number);
    scan->dash = false;
    scan->digits = false;
    scan->number = 0;
}

static void take(struct scan *scan, char c)
{
    if (c >= '0' && c <= '9') {
        scan->number = scan->number * 10 + (unsigned)(c - '0');
        scan->digits = true;
    } else if (c == '-' && scan->digits) {
        scan->first = scan->number;
        scan->dash = true;
        scan->digits = false;
        scan->number = 0;
    } else {
        end_range(scan);
    }
}

int ranges_read(const char *path, ranges_visit *visit, void *context)
{
    struct scan scan = {.visit = visit, .context = context};
    char piece[256];
    ssize_t got;
    int code = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    while ((got = read(fd, piece, sizeof piece)) > 0 || (got < 0 && errno == EINTR))
        for (ssize_t i = 0; i < got; i++)
            take(&scan, piece[i]);
    if (got < 0)
        code = -errno;
    close(fd);
    end_range(&scan);
    return code;
}

void ranges_scan(const char *text, ranges_visit *visit, void *context)
{
    struct scan scan = {.visit = visit, .context = context};
    for (; *text != '\0' && *text != '\n'; text++)
        take(&scan, *text);
    end_range(&scan);
}
