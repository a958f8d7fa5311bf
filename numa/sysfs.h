/* SPDX-License-Identifier: MIT */
/*
 * Small text files of the kernel, read without stdio, which allocates. Set-up only.
 */
#ifndef HAK_NUMA_SYSFS_H
#define HAK_NUMA_SYSFS_H

#include <stddef.h>
#include <stdint.h>

/* Reads a file into text, at most capacity - 1 bytes, NUL at the end; the length, or a negative
 * errno. */
int sysfs_read(const char *path, char *text, size_t capacity);

/* Reads a file that holds one decimal number. 0, -EINVAL for another content, or what the kernel
 * said. */
int sysfs_read_number(const char *path, uint64_t *out);

/* The number behind a key such as "MemTotal:" at its first occurrence in text; 0 where the key
 * is not there. */
uint64_t sysfs_find_number(const char *text, const char *key);

/* Calls look(line, context) for each line of a file that may be of any length, such as the mount
 * tables; look may write into the line, which has no newline. Longer ones than SYSFS_LINE_BYTES - 1
 * pass by. Nothing where there is no such file. */
#define SYSFS_LINE_BYTES 4096
void sysfs_each_line(const char *path, void (*look)(char *line, void *context), void *context);

/* A word of a mount table as it is meant: spaces and the like are written there as \040. */
void sysfs_unescape(char *text);

#endif
