/* SPDX-License-Identifier: MIT */
/*
 * A program that allocates as early as one can: in .preinit_array, before every constructor, and in
 * the library that it needs (early_library.c). In main it looks at what came of that, grows and
 * shrinks half of it and frees all. Exits 0 if nothing was lost.
 *
 * Earlier is only an ifunc's resolver, and that may not allocate under any preloaded allocator: the
 * dynamic loader relocates the program, and runs its resolvers, before libraries that nothing
 * depends on.
 */
#include "tests/preload/early.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *from_preinit, *from_constructor;

static void preinit(int argc, char **argv, char **environment)
{
    (void)argc, (void)argv, (void)environment;
    from_preinit = malloc(200000);
    if (from_preinit != NULL) {
        memset(from_preinit, 'p', 200000);
    }
}

__attribute__((section(".preinit_array"),
               used)) static void (*const preinit_entry)(int, char **, char **) = preinit;

__attribute__((constructor(101))) static void first(void)
{
    from_constructor = strdup("first");
}

__attribute__((constructor(102))) static void second(void)
{
    from_constructor = realloc(from_constructor, 100000);
    if (from_constructor != NULL) {
        memcpy(from_constructor + strlen("first"), ", second", sizeof ", second");
    }
}

static int complain(const char *what, size_t n)
{
    fprintf(stderr, "early program: %s (%zu)\n", what, n);
    return 1;
}

static int use_early_objects(void)
{
    for (size_t n = 0; n < early_count; n++) {
        struct early_object *object = &early_objects[n];
        if (!early_holds(object, object->bytes)) {
            return complain("an early object lost its contents", n);
        }
        if (n % 2 == 0) {
            size_t bytes = n % 4 == 0 ? object->bytes * 2 : object->bytes / 2 + 1;
            size_t kept = bytes < object->bytes ? bytes : object->bytes;
            object->start = realloc(object->start, bytes);
            if (object->start == NULL || !early_holds(object, kept)) {
                return complain("realloc lost an early object's contents", n);
            }
            object->bytes = bytes;
            early_fill(object);
        }
    }
    for (size_t n = 0; n < early_count; n++) {
        if (n % 2 == 0 && !early_holds(&early_objects[n], early_objects[n].bytes)) {
            return complain("an object overlaps another", n);
        }
        free(early_objects[n].start);
    }
    return 0;
}

int main(void)
{
    if (from_preinit == NULL || from_preinit[199999] != 'p') {
        return complain("the object of .preinit_array", 0);
    }
    if (from_constructor == NULL || strcmp(from_constructor, "first, second") != 0) {
        return complain("the constructors' object", 0);
    }
    from_preinit = realloc(from_preinit, 1000000);
    if (from_preinit == NULL || from_preinit[199999] != 'p') {
        return complain("the object of .preinit_array, grown", 0);
    }
    free(from_preinit);
    free(from_constructor);
    if (use_early_objects() != 0) {
        return 1;
    }
    printf("early objects: %zu\n", early_count);
    return 0;
}
