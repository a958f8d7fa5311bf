/* SPDX-License-Identifier: MIT */
/*
 * What the subcommands of `hakmem` have in common. Each is a function in tools/hakmem_NAME.c and a
 * line in the table of tools/hakmem.c. The tool reads the library's tables; it never sets a region
 * up in its own process.
 */
#ifndef HAK_TOOLS_HAKMEM_H
#define HAK_TOOLS_HAKMEM_H

/* Exit statuses. 125 to 127 as env(1) and POSIX sh have them; a program that was started has its
 * own. */
enum {
    TOOL_OK = 0,
    TOOL_USAGE = 2,            /* bad option, value or subcommand */
    TOOL_NOT_STARTED = 125,    /* the tool itself could not do what was asked */
    TOOL_NOT_EXECUTABLE = 126, /* the program was found, but cannot be executed */
    TOOL_NOT_FOUND = 127       /* there is no such program */
};

/* One line on standard error, `hakmem SUBCOMMAND: ...`, in one write; returns status. errno stays.
 */
int tool_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for what the user typed: status TOOL_USAGE, and where to read how it is done. */
int tool_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Text of files and of the environment, in place, for a reader that must not stumble over it. Every
 * byte that is not part of a well-formed UTF-8 sequence (RFC 3629) becomes '?', also what is left
 * of a character that was cut: JSON has no other text. */
void tool_utf8(char *text);

/* Every control character becomes '?' (C0, DEL and, in UTF-8, C1): a terminal would obey it. */
void tool_printable(char *text);

/* Subcommands: argv[0] is "hakmem SUBCOMMAND", which getopt_long puts into its messages. Return the
 * exit status; what they wrote to standard output is flushed and checked by the caller. */
int hakmem_run(int argc, char **argv);
int hakmem_plan(int argc, char **argv);
int hakmem_reserve(int argc, char **argv);
int hakmem_release(int argc, char **argv);
int hakmem_doctor(int argc, char **argv);

#endif
