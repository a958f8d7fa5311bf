/* SPDX-License-Identifier: MIT */
/*
 * Finds the library that `hakmem run` preloads, and composes LD_PRELOAD.
 *
 * A name that the dynamic linker cannot load is not an error to it: it says a line and runs the
 * program with the C library's malloc (ld.so(8)). So the file is looked for, and looked at, here,
 * and LD_PRELOAD always gets an absolute path.
 */
#define _GNU_SOURCE
#include "tools/hakmem_run.h"

#include "tools/hakmem.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

/* ld.so(8): "separated by spaces or colons, and there is no support for escaping either separator";
 * $ORIGIN, $LIB and $PLATFORM are expanded. */
#define SEPARATORS " :"
#define MEANT_OTHERWISE SEPARATORS "$"

/* One folder, seen from the tool's own. */
static bool try_folder(const char *own, const char *folder, char *path)
{
    char candidate[2 * PATH_MAX];
    snprintf(candidate, sizeof candidate, "%s/%s%s", own, folder, PRELOAD_FILE);
    return realpath(candidate, path) != NULL;
}

/* In the build folder it lies beside the tool; installed, the tool is in bin and it in lib, lib64
 * (as some distributions have it) or lib/<processor>-linux-gnu (as Debian has it). */
static bool find_near(char *path)
{
    char own[PATH_MAX], triplet[96];
    struct utsname system;
    ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
    if (length <= 0 || uname(&system) != 0)
        return false;
    own[length] = '\0';
    char *slash = strrchr(own, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    snprintf(triplet, sizeof triplet, "../lib/%.64s-linux-gnu/", system.machine);
    return try_folder(own, "", path) || try_folder(own, "../lib/", path) ||
           try_folder(own, "../lib64/", path) || try_folder(own, triplet, path);
}

/* "<tab>libhakmem_preload.so => /usr/lib/libhakmem_preload.so (0x00007...)" */
static bool take_line(const char *line, char *path)
{
    char found[PATH_MAX];
    const char *arrow = strstr(line, PRELOAD_FILE " => /");
    if (arrow == NULL)
        return false;
    arrow += strlen(PRELOAD_FILE " => ");
    const char *end = strstr(arrow, " (0x");
    if (end == NULL || (size_t)(end - arrow) >= sizeof found)
        return false;
    memcpy(found, arrow, (size_t)(end - arrow));
    found[end - arrow] = '\0';
    return realpath(found, path) != NULL;
}

/* Starts this tool once more, told to list what would be loaded (which is how ldd(1) asks) and not
 * to run. Its standard output is the file returned; NULL where that cannot be done. */
static FILE *start_listing(pid_t *child)
{
    int ends[2];
    posix_spawn_file_actions_t actions;
    char own[] = "/proc/self/exe", *arguments[] = {own, NULL};
    if (pipe2(ends, O_CLOEXEC) != 0)
        return NULL;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int code = posix_spawn(child, own, &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    FILE *listing = code == 0 ? fdopen(ends[0], "r") : NULL;
    if (listing == NULL)
        close(ends[0]);
    if (listing == NULL && code == 0)
        waitpid(*child, NULL, 0);
    return listing;
}

/* Where the dynamic linker itself would find it: LD_LIBRARY_PATH, its cache, its own folders. */
static bool ask_linker(char *path)
{
    char line[2 * PATH_MAX];
    const char *before = getenv(PRELOAD_VARIABLE);
    char *kept = NULL;
    bool found = false;
    pid_t child;
    /* A tool without a dynamic linker would not list but run. */
    if (*elf_own_interpreter() == '\0')
        return false;
    if (before != NULL && (kept = strdup(before)) == NULL)
        return false;
    setenv(PRELOAD_VARIABLE, PRELOAD_FILE, 1);
    setenv("LD_TRACE_LOADED_OBJECTS", "1", 1);
    FILE *listing = start_listing(&child);
    unsetenv("LD_TRACE_LOADED_OBJECTS");
    if (kept != NULL)
        setenv(PRELOAD_VARIABLE, kept, 1);
    else
        unsetenv(PRELOAD_VARIABLE);
    free(kept);
    if (listing == NULL)
        return false;
    while (fgets(line, sizeof line, listing) != NULL)
        found = found || take_line(line, path);
    fclose(listing);
    waitpid(child, NULL, 0);
    return found;
}

static int find(const char *given, char *path)
{
    if (given != NULL && realpath(given, path) == NULL)
        return tool_fail(TOOL_NOT_STARTED, "--preload %s: %s", given, strerror(errno));
    if (given != NULL || find_near(path) || ask_linker(path))
        return TOOL_OK;
    return tool_fail(TOOL_NOT_STARTED,
                     "%s is neither beside this tool nor in ../lib, ../lib64 or the multiarch "
                     "folder seen from there, nor where the dynamic linker looks; --preload FILE "
                     "says where it is",
                     PRELOAD_FILE);
}

int preload_find(const char *given, char *path, struct elf_file *library)
{
    int status = find(given, path);
    if (status != TOOL_OK)
        return status;
    if (path[strcspn(path, MEANT_OTHERWISE)] != '\0')
        return tool_fail(TOOL_NOT_STARTED,
                         "%s cannot be preloaded from there: the dynamic linker gives spaces, "
                         "colons and dollar signs in a path a meaning, see ld.so(8); copy it "
                         "elsewhere and name it by --preload",
                         path);
    elf_read(path, library);
    if (library->kind == ELF_UNREADABLE)
        return tool_fail(TOOL_NOT_STARTED, "%s cannot be read: %s", path, strerror(errno));
    /* A position-independent program is ET_DYN too, but has a dynamic linker to run it. */
    if (library->kind != ELF_OBJECT || library->type != ET_DYN || library->truncated ||
        *library->interpreter != '\0')
        return tool_fail(TOOL_NOT_STARTED, "%s is not a shared library of this system", path);
    return TOOL_OK;
}

/* A nested run has it in the list already: one entry is enough, and it belongs in front. */
int preload_put_in_front(const char *path)
{
    const char *rest = getenv(PRELOAD_VARIABLE);
    size_t length = strlen(path);
    char *list = malloc(length + (rest != NULL ? strlen(rest) : 0) + 2);
    if (list == NULL)
        return tool_fail(TOOL_NOT_STARTED, "no memory for %s", PRELOAD_VARIABLE);
    char *end = stpcpy(list, path);
    while (rest != NULL && *(rest += strspn(rest, SEPARATORS)) != '\0') {
        size_t entry = strcspn(rest, SEPARATORS);
        if (entry != length || memcmp(rest, path, length) != 0) {
            *end++ = ':';
            end = mempcpy(end, rest, entry);
        }
        rest += entry;
    }
    *end = '\0';
    int code = setenv(PRELOAD_VARIABLE, list, 1);
    free(list);
    return code == 0 ? TOOL_OK
                     : tool_fail(TOOL_NOT_STARTED, "%s: %s", PRELOAD_VARIABLE, strerror(errno));
}
