/* SPDX-License-Identifier: MIT */
/*
 * The little that `hakmem run` wants to know of a file that it is about to have executed: script or
 * ELF, for which processor, by which dynamic linker. elf(5) and execve(2) are the references. Only
 * headers of this process's own class are read in full; another class is all that needs knowing.
 */
#define _GNU_SOURCE
#include "tools/hakmem_run.h"

#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

/* What the kernel looks at of a script's first line, include/uapi/linux/binfmts.h. */
#define SCRIPT_LINE_BYTES 256

static bool read_at(int fd, void *to, size_t bytes, uint64_t at)
{
    return at <= INT64_MAX && pread(fd, to, bytes, (off_t)at) == (ssize_t)bytes;
}

/* "#! /bin/sh -e": the first word after the mark. */
static void read_script(const char *line, size_t length, struct elf_file *out)
{
    size_t begin = 2, end;
    while (begin < length && (line[begin] == ' ' || line[begin] == '\t'))
        begin++;
    for (end = begin; end < length; end++)
        if (line[end] == ' ' || line[end] == '\t' || line[end] == '\n' || line[end] == '\0')
            break;
    memcpy(out->interpreter, line + begin, end - begin);
    out->interpreter[end - begin] = '\0';
}

static void read_object(int fd, struct elf_file *out)
{
    ElfW(Ehdr) head;
    ElfW(Phdr) segment;
    bool native = sizeof(void *) == 8 ? out->cls == ELFCLASS64 : out->cls == ELFCLASS32;
    /* Of another class or byte order: no more to be read, and none needed. */
    if (!native || !read_at(fd, &head, sizeof head, 0)) {
        out->truncated = native;
        return;
    }
    out->machine = head.e_machine;
    out->type = head.e_type;
    for (unsigned i = 0; i < head.e_phnum; i++) {
        if (!read_at(fd, &segment, sizeof segment, head.e_phoff + i * sizeof segment)) {
            out->truncated = true;
            return;
        }
        if (segment.p_type != PT_INTERP)
            continue;
        if (segment.p_filesz < 2 || segment.p_filesz > sizeof out->interpreter ||
            !read_at(fd, out->interpreter, segment.p_filesz, segment.p_offset))
            out->truncated = true;
        out->interpreter[sizeof out->interpreter - 1] = '\0';
        return;
    }
}

void elf_read(const char *path, struct elf_file *out)
{
    char line[SCRIPT_LINE_BYTES];
    memset(out, 0, sizeof *out);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t length = fd < 0 ? -1 : pread(fd, line, sizeof line, 0);
    if (length < 0) {
        out->kind = ELF_UNREADABLE;
    } else if (length >= 2 && line[0] == '#' && line[1] == '!') {
        out->kind = ELF_SCRIPT;
        read_script(line, (size_t)length, out);
    } else if (length >= EI_NIDENT && memcmp(line, ELFMAG, SELFMAG) == 0) {
        out->kind = ELF_OBJECT;
        out->cls = (unsigned char)line[EI_CLASS];
        out->order = (unsigned char)line[EI_DATA];
        read_object(fd, out);
    } else {
        out->kind = ELF_OTHER;
    }
    if (fd >= 0)
        close(fd);
}

/* The first object is the program itself. */
static int take_interpreter(struct dl_phdr_info *info, size_t size, void *out)
{
    (void)size;
    for (unsigned i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_INTERP)
            *(const char **)out = (const char *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    return 1;
}

const char *elf_own_interpreter(void)
{
    const char *path = "";
    dl_iterate_phdr(take_interpreter, &path);
    return path;
}
