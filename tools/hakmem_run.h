/* SPDX-License-Identifier: MIT */
/*
 * The parts of `hakmem run`: the program to run (hakmem_program.c), the library to put in front of
 * it (hakmem_preload.c), and the little that both read of an ELF file (hakmem_elf.c).
 *
 * The functions that return a status have said what is wrong, unless it is TOOL_OK. Paths are
 * buffers of PATH_MAX bytes.
 */
#ifndef HAK_TOOLS_HAKMEM_RUN_H
#define HAK_TOOLS_HAKMEM_RUN_H

#include <stdbool.h>
#include <stddef.h>

/* The library's file name, and the variable by which the dynamic linker is told of it, ld.so(8). */
#define PRELOAD_FILE "libhakmem_preload.so"
#define PRELOAD_VARIABLE "LD_PRELOAD"

/* What kind of file the kernel would see in it. */
enum elf_kind {
    ELF_UNREADABLE, /* may still be executable */
    ELF_SCRIPT,     /* begins with #! */
    ELF_OBJECT,
    ELF_OTHER /* none of these: execvp(3) has the shell run it */
};

struct elf_file {
    enum elf_kind kind;
    unsigned char cls, order; /* ELFCLASS64 ..., ELFDATA2LSB ... */
    unsigned machine, type;   /* EM_X86_64 ..., ET_DYN ... */
    bool truncated;           /* its program headers cannot be read */
    char interpreter[4096];   /* of a script, or the dynamic linker of an object; empty: none */
};

/* Looks at a file's beginning. Never fails: what cannot be read is ELF_UNREADABLE. */
void elf_read(const char *path, struct elf_file *out);

/* The dynamic linker that runs this process; "" where there is none. */
const char *elf_own_interpreter(void);

/* The program that execvp(3) would run for name: TOOL_OK with its path, which has a slash,
 * TOOL_NOT_FOUND or TOOL_NOT_EXECUTABLE. */
int program_find(const char *name, char *path);

/* Whether a library like this can be preloaded into the program, or, for a script, into its
 * interpreter: TOOL_OK, TOOL_NOT_STARTED when not, TOOL_NOT_EXECUTABLE when what it needs to be
 * run is missing. */
int program_check(const char *path, const struct elf_file *library);

/* The library's path and what it is: given by the user, or NULL to look for it. TOOL_OK or
 * TOOL_NOT_STARTED. */
int preload_find(const char *given, char *path, struct elf_file *library);

/* Puts the library in front of what PRELOAD_VARIABLE has; TOOL_OK or TOOL_NOT_STARTED. */
int preload_put_in_front(const char *path);

#endif
