/* SPDX-License-Identifier: MIT */
/*
 * The process's last set-up error or misuse, for hak_last_error. Allocation failures are recorded
 * per thread elsewhere; both take their sequence numbers here, so that the later one is known.
 *
 * Any thread. A short spinlock guards the copy of one record; nothing under it can block.
 */
#ifndef HAK_REGION_ERRLOG_H
#define HAK_REGION_ERRLOG_H

#include <hakmem.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Starts *error (may be NULL) afresh: kind, code, no node, the formatted message, no remedy.
 * Returns code. A message that is too long is cut. errno stays. */
int errlog_fail(struct hak_error *error, int code, enum hak_error_kind kind, const char *format,
                ...) __attribute__((format(printf, 4, 5)));

/* Appends to a text of capacity bytes, which stays terminated whatever its length; returns false
 * when it had to be cut. errno stays. */
bool errlog_append(char *text, size_t capacity, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Makes *error the process's last; it gets the next sequence number. Given up where the lock cannot
 * be had within a million tries, as errlog_load is: a record is not worth a thread that hangs. */
void errlog_store(const struct hak_error *error);

/* Copies the process's last into *out; its sequence number. 0: there was none, *out untouched. */
uint64_t errlog_load(struct hak_error *out);

/* 1, 2, 3 ...: the order of events that hak_last_error compares. */
uint64_t errlog_next_sequence(void);

/* A line on standard error: "hakmem: ", the formatted text, a newline. Composed on the stack, in
 * one write, so that lines of several processes do not mix; cut where an error record's texts
 * would be. Not stdio, whose locks the caller may hold; no cancellation point. Where standard
 * error is closed there is nobody to tell, and a pipe that nobody reads is no SIGPIPE. errno
 * stays. */
void errlog_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Writes to a descriptor as errlog_say does: in one write, and without SIGPIPE. */
void errlog_write(int file, const char *text, size_t length);

/* In the child of a fork: another thread may have held the lock and did not come along. */
void errlog_after_fork(void);

#endif
