/* SPDX-License-Identifier: MIT */
/* A program that replaces the array forms of new and delete; see new_steps.h. */
#include "tests/preload/new_steps.h"

void *operator new[](std::size_t size)
{
    news++;
    return std::malloc(size);
}

void operator delete[](void *object) noexcept
{
    deletes++;
    std::free(object);
}

int main()
{
    plain_steps(0, 1);
    aligned_steps(0);
    return failures != 0;
}
