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

#endif
