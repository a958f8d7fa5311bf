/* SPDX-License-Identifier: MIT */
/*
 * mlockall(2) would fault in every page that can be written, and of a region that is taken as it is
 * used that is as much as the machine has. So it is asked to lock pages as they come (MCL_ONFAULT):
 * what the program has now, and what it takes from now on, is locked; what nobody uses stays
 * without memory.
 */
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "alloc/preload.h"

HAK_API int mlockall(int flags)
{
    const struct hak_region *heap = atomic_load_explicit(&heap_default, memory_order_acquire);

    if (heap != NULL && !heap->area.prefault) {
        flags |= MCL_ONFAULT;
    }
    return (int)syscall(SYS_mlockall, flags);
}
