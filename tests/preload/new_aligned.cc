/* SPDX-License-Identifier: MIT */
/* A program that replaces the aligned plain forms of new and delete; see new_steps.h. */
#include "tests/preload/new_steps.h"

void *operator new(std::size_t size, std::align_val_t alignment)
{
    void *object = nullptr;
    news++;
    if (posix_memalign(&object, static_cast<std::size_t>(alignment), size) != 0) {
        throw std::bad_alloc();
    }
    return object;
}

void operator delete(void *object, std::align_val_t) noexcept
{
    deletes++;
    std::free(object);
}

int main()
{
    plain_steps(0, 0);
    aligned_steps(1);
    return failures != 0;
}
