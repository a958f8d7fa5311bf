/* SPDX-License-Identifier: MIT */
/*
 * Finds the program that `hakmem run` is to execute, and tells beforehand where preloading cannot
 * work. The dynamic linker would say nothing in any of these cases, or the program would not start:
 *
 *   no dynamic linker       statically linked: nobody reads LD_PRELOAD
 *   another one             another C library (musl ...): it cannot resolve the library's symbols
 *   another processor       or a 32-bit program: the library has the wrong ELF class or machine
 *   others' rights          secure-execution mode, ld.so(8): LD_PRELOAD is ignored
 *
 * A script is as good as its interpreter. What binfmt_misc or an interpreter runs in its turn
 * (`#!/usr/bin/env python3`) is not looked into.
 */
#define _GNU_SOURCE
#include "tools/hakmem_run.h"

#include "tools/hakmem.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Scripts whose interpreters are scripts, as deep as the kernel goes (execve(2), ELOOP). */
#define SCRIPTS_MAX 5
/* What execvp(3) has run a file that the kernel does not know. */
#define SHELL "/bin/sh"

/* ---- finding it ---------------------------------------------------------------------------- */

/* Whether it can be executed by name; errno says why not. */
static bool executable(const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0 || faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) != 0)
        return false;
    errno = S_ISDIR(status.st_mode) ? EISDIR : EACCES;
    return S_ISREG(status.st_mode);
}

static bool missing(int code)
{
    return code == ENOENT || code == ENOTDIR;
}

static int judge(const char *path, int code)
{
    return missing(code) ? tool_fail(TOOL_NOT_FOUND, "%s: not found: %s", path, strerror(code))
                         : tool_fail(TOOL_NOT_EXECUTABLE, "%s: found, but cannot be executed: %s",
                                     path, strerror(code));
}

/* An empty member of PATH is the current folder; a member that is too long cannot hold it. */
static bool member_path(const char *member, size_t length, const char *name, char *path)
{
    int written = length == 0 ? snprintf(path, PATH_MAX, "./%s", name)
                              : snprintf(path, PATH_MAX, "%.*s/%s", (int)length, member, name);
    return written > 0 && written < PATH_MAX;
}

int program_find(const char *name, char *path)
{
    char standard[256] = "", seen[PATH_MAX];
    int code = ENOENT;
    if (*name == '\0')
        return tool_fail(TOOL_NOT_FOUND, "the program's name is empty");
    if (strchr(name, '/') != NULL) {
        if (snprintf(path, PATH_MAX, "%s", name) >= PATH_MAX)
            return judge(name, ENAMETOOLONG);
        return executable(path) ? TOOL_OK : judge(path, errno);
    }
    const char *member = getenv("PATH");
    if (member == NULL) {
        confstr(_CS_PATH, standard, sizeof standard);
        member = standard;
    }
    for (;; member++) {
        size_t length = strcspn(member, ":");
        if (member_path(member, length, name, path)) {
            if (executable(path))
                return TOOL_OK;
            /* The first that is there but of no use is told of, if no later one is better. In a
             * closed folder there is nothing to be seen. */
            int why = errno;
            if (missing(code) && access(path, F_OK) == 0) {
                code = why;
                memcpy(seen, path, sizeof seen);
            }
        }
        member += length;
        if (*member == '\0')
            break;
    }
    return missing(code) ? tool_fail(TOOL_NOT_FOUND, "%s: not found on PATH", name)
                         : judge(seen, code);
}

/* ---- whether it can be preloaded ----------------------------------------------------------- */

/* What the messages call it: a script and its interpreter, or just the program. */
struct subject {
    const char *script; /* NULL: the program itself */
    const char *path;
};

static int refuse(const struct subject *about, const char *what)
{
    if (about->script != NULL)
        return tool_fail(TOOL_NOT_STARTED, "%s: cannot be put onto a region: its interpreter %s %s",
                         about->script, about->path, what);
    return tool_fail(TOOL_NOT_STARTED, "%s: cannot be put onto a region: it %s", about->path, what);
}

/*
 * The kernel calls an execution secure when the new effective user or group is not the real one, or
 * when somebody but root gets rights by file capabilities. Set-ID bits count for nothing on a
 * nosuid mount and for who has given up new privileges; file capabilities on a nosuid mount.
 */
static const char *others_rights(const char *path)
{
    struct stat status;
    struct statvfs mount;
    if (stat(path, &status) != 0 || statvfs(path, &mount) != 0)
        return NULL;
    bool nosuid = (mount.f_flag & ST_NOSUID) != 0;
    bool honoured = !nosuid && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1;
    bool sets_user = honoured && (status.st_mode & S_ISUID) != 0;
    /* Without the group's x bit it means something else, see stat(2), inode(7). */
    bool sets_group = honoured &&
                      (status.st_mode & (S_ISGID | S_IXGRP)) == (unsigned)(S_ISGID | S_IXGRP);
    if ((sets_user ? status.st_uid : geteuid()) != getuid())
        return sets_user ? "is set-user-ID to another user" : "would run as another user";
    if ((sets_group ? status.st_gid : getegid()) != getgid())
        return sets_group ? "is set-group-ID to another group" : "would run as another group";
    if (getuid() != 0 && !nosuid && getxattr(path, "security.capability", NULL, 0) > 0)
        return "has file capabilities";
    return NULL;
}

static int check_rights(const struct subject *about)
{
    char text[160];
    const char *rights = others_rights(about->path);
    if (rights == NULL)
        return TOOL_OK;
    snprintf(text, sizeof text, "%s, and then the dynamic linker ignores LD_PRELOAD, see ld.so(8)",
             rights);
    return refuse(about, text);
}

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* The dynamic linker as a program (`ld.so program`) has none itself, and preloads all the same. */
static bool is_linker(const char *path)
{
    char real[PATH_MAX], own[PATH_MAX];
    return realpath(path, real) != NULL && realpath(elf_own_interpreter(), own) != NULL &&
           strcmp(file_name(real), file_name(own)) == 0;
}

static int check_object(const struct subject *about, const struct elf_file *object,
                        const struct elf_file *library)
{
    char text[PATH_MAX + 128];
    const char *own = elf_own_interpreter();
    if (object->cls != library->cls)
        return refuse(about, object->cls == ELFCLASS32
                                 ? "is a 32-bit program, the library a 64-bit one"
                                 : "has another word size than the library");
    if (object->order != library->order || object->machine != library->machine) {
        snprintf(text, sizeof text,
                 "is for another processor (ELF machine %u) than the library (%u)", object->machine,
                 library->machine);
        return refuse(about, text);
    }
    /* execvp would have the shell try it. */
    if (object->truncated || (object->type != ET_EXEC && object->type != ET_DYN))
        return judge(about->path, ENOEXEC);
    if (*object->interpreter == '\0')
        return is_linker(about->path)
                   ? TOOL_OK
                   : refuse(about, "is statically linked, and no dynamic linker reads LD_PRELOAD; "
                                   "link it with libhakmem.a instead");
    if (access(object->interpreter, F_OK) != 0)
        return tool_fail(TOOL_NOT_EXECUTABLE,
                         "%s: found, but cannot be executed: its dynamic linker %s: %s",
                         about->path, object->interpreter, strerror(errno));
    if (*own == '\0' || strcmp(file_name(own), file_name(object->interpreter)) == 0)
        return TOOL_OK;
    snprintf(text, sizeof text, "runs on another C library (its dynamic linker is %s)",
             object->interpreter);
    return refuse(about, text);
}

int program_check(const char *path, const struct elf_file *library)
{
    char now[PATH_MAX];
    struct elf_file file;
    struct subject about = {NULL, now};
    snprintf(now, sizeof now, "%s", path);
    for (unsigned scripts = 0; scripts <= SCRIPTS_MAX; scripts++) {
        elf_read(now, &file);
        /* On scripts the bits mean nothing to Linux. */
        if (file.kind == ELF_OBJECT || file.kind == ELF_UNREADABLE) {
            int status = file.kind == ELF_OBJECT ? check_object(&about, &file, library) : TOOL_OK;
            return status == TOOL_OK ? check_rights(&about) : status;
        }
        about.script = path;
        snprintf(now, sizeof now, "%s", file.kind == ELF_SCRIPT ? file.interpreter : SHELL);
        if (!executable(now))
            return tool_fail(TOOL_NOT_EXECUTABLE,
                             "%s: found, but cannot be executed: its interpreter %s: %s", path, now,
                             strerror(errno));
    }
    return TOOL_OK; /* the kernel will say ELOOP */
}
