/* SPDX-License-Identifier: MIT */
/*
 * Programs with a malloc of their own, or one around the usual one: they work as without us. The
 * programs lie in tests/preload; each runs under the C library alone first.
 */
#include "tests/preload_kit.h"

TEST(a_program_that_defines_malloc_keeps_it)
{
    kit_contract_program(kit_compile("own_heap.c", "own_heap", ""), NULL);
}

/* Its names are seen by shared libraries too. */
TEST(a_program_that_exports_its_malloc_keeps_it)
{
    kit_contract_program(kit_compile("own_heap.c", "own_heap_exported", "-rdynamic"), NULL);
}

TEST(a_program_may_wrap_malloc_by_RTLD_NEXT)
{
    kit_contract_program(kit_compile("wrap_next.c", "wrap_next", ""), NULL);
}

TEST(a_program_may_wrap_malloc_by_the_inner_names)
{
    kit_contract_program(kit_compile("wrap_inner.c", "wrap_inner", ""), NULL);
}

/* ---- two preloaded libraries ----------------------------------------------------------------- */

INSIDE(work)
{
    for (uint64_t seed = 0; seed < 5; seed++) {
        kit_work(seed, 2000);
    }
    CHECK(kit_in_region(kit_keep(strdup("ours"))));
    free(kit_keep(memalign(4096, 100)));
    free(kit_keep(realloc(kit_keep(strdup("ours")), 100000)));
}

static void beside_the_wrapper(bool wrapper_first, const char *wanted)
{
    static struct harness_result result;
    char preload[2 * PATH_MAX + 256], self[PATH_MAX];
    const char *wrapper = kit_compile("wrap_library.c", "libwrap.so", "-shared");
    snprintf(self, sizeof self, "%s", kit_self(0));
    snprintf(preload, sizeof preload, "%s:%s", wrapper_first ? wrapper : kit_library(),
             wrapper_first ? kit_library() : wrapper);
    const char *const argv[] = {self, "--inside", "work", NULL};
    kit_run_program(argv, preload, NULL, &result);
    kit_expect_ok(&result, preload);
    CHECK_STR_HAS(result.output, wanted);
    /* And one that starts others. */
    const char *const shell[] = {"/bin/sh", "-c", "ls / | sort | wc -l >/dev/null", NULL};
    kit_run_program(shell, preload, NULL, &result);
    kit_expect_ok(&result, "ls | sort");
}

TEST(a_wrapper_preloaded_in_front_of_ours_passes_on_to_it)
{
    beside_the_wrapper(true, "many came by");
}

TEST(a_wrapper_preloaded_behind_ours_is_not_asked)
{
    beside_the_wrapper(false, "few came by");
}

/* ---- linked with another allocator ----------------------------------------------------------- */

static void linked_with(const char *library)
{
    char options[128], output[128];
    snprintf(options, sizeof options, "-Wl,--no-as-needed -l:%s", library);
    snprintf(output, sizeof output, "linked_%s", library);
    const char *program = kit_compile_if("linked_allocator.c", output, options, true);
    if (program == NULL) {
        SKIP("%s is not on this machine", library);
    }
    kit_contract_program(program, NULL);
}

TEST(a_program_linked_with_jemalloc)
{
    linked_with("libjemalloc.so.2");
}

TEST(a_program_linked_with_mimalloc)
{
    linked_with("libmimalloc.so.2");
}

TEST(a_program_linked_with_tcmalloc)
{
    linked_with("libtcmalloc_minimal.so.4");
}

KIT_MAIN()
