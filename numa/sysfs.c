/* SPDX-License-Identifier: MIT */
/*
 * open, read, close, and a number or a line out of a text. Called by numa/topology and whoever in
 * region/ asks what the machine has.
 */
#include "numa/sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
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

void sysfs_each_line(const char *path, void (*look)(char *line, void *context), void *context)
{
    char piece[1024], line[SYSFS_LINE_BYTES];
    size_t length = 0;
    ssize_t got;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    while ((got = read(fd, piece, sizeof piece)) > 0 || (got < 0 && errno == EINTR)) {
        for (ssize_t i = 0; i < got; i++) {
            if (piece[i] != '\n') {
                if (length < sizeof line)
                    line[length++] = piece[i];
                continue;
            }
            if (length < sizeof line) {
                line[length] = '\0';
                look(line, context);
            }
            length = 0;
        }
    }
    close(fd);
}

void sysfs_unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from != '\0'; to++) {
        bool octal = from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' &&
                     from[2] <= '7' && from[3] >= '0' && from[3] <= '7';
        *to = *from;
        if (octal)
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + from[3] - '0');
        from += octal ? 4 : 1;
    }
    *to = '\0';
}
