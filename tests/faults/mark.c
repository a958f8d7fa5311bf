/* SPDX-License-Identifier: MIT */
/*
 * Preloaded by tests/faults/inject into what it runs: says by a call of its own that the loader has
 * done its work. Calls from here on are counted.
 */
#include "tests/faults/inject.h"

#include <sys/syscall.h>
#include <unistd.h>

__attribute__((constructor)) static void mark(void)
{
    (void)syscall(SYS_prctl, INJECT_MARK, 0, 0, 0, 0);
}
