/* SPDX-License-Identifier: MIT */
/*
 * mlockall(2) would fault in every page that can be written, and of a region that is taken as it is
 * used that is as much as the machine has. So it is asked to lock pages as they come (MCL_ONFAULT):
 * what the program has now, and what it takes from now on, is locked; what nobody uses stays
 * without memory. MCL_FUTURE alone means memory that is mapped from now on. The region was mapped
 * before, and what the heap takes from now on comes from it: it is locked as it comes, too.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "alloc/preload.h"

HAK_API int mlockall(int flags)
{
    const struct hak_region *heap = atomic_load_explicit(&heap_default, memory_order_acquire);

    if (heap == NULL || heap->area.prefault) {
        return (int)syscall(SYS_mlockall, flags);
    }
    bool apart = (flags & (MCL_CURRENT | MCL_FUTURE)) == MCL_FUTURE;
    /* First, so that a refusal (RLIMIT_MEMLOCK) leaves everything as it was. */
    if (apart && mlock2((const void *)heap->area.base, heap->area.bytes, MLOCK_ONFAULT) != 0) {
        return -1;
    }
    long result = syscall(SYS_mlockall, flags | MCL_ONFAULT);
    if (result != 0 && apart) {
        int saved = errno;
        munlock((const void *)heap->area.base, heap->area.bytes);
        errno = saved;
    }
    return (int)result;
}
