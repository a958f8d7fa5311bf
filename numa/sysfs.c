/* SPDX-License-Identifier: MIT */
/*
 * open, read, close, and a number out of a text. Called by numa/topology, region/supply and
 * region/cgroup.
 */
#include "numa/sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int sysfs_read(const char *path, char *text, size_t capacity)
{
    text[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    size_t length = 0;
    int code = 0;
    while (length < capacity - 1) {
        ssize_t got = read(fd, text + length, capacity - 1 - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            code = -errno;
        if (got <= 0)
            break;
        length += (size_t)got;
    }
    close(fd);
    text[length] = '\0';
    return code != 0 ? code : (int)length;
}

int sysfs_read_number(const char *path, uint64_t *out)
{
    char text[64];
    int length = sysfs_read(path, text, sizeof text);
    if (length < 0)
        return length;
    if (text[0] < '0' || text[0] > '9')
        return -EINVAL;
    *out = strtoull(text, NULL, 10);
    return 0;
}

uint64_t sysfs_find_number(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    return at == NULL ? 0 : strtoull(at + strlen(key), NULL, 10);
}
