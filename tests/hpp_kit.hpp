/* SPDX-License-Identifier: MIT */
/*
 * What the tests of hakmem.hpp share: regions that count misuse instead of aborting, "in which
 * region does this byte lie?", and the three ways by which a standard container comes to a region
 * (worlds), so that a test of a container is written once.
 */
#ifndef HAK_TESTS_HPP_KIT_HPP
#define HAK_TESTS_HPP_KIT_HPP

#include <hakmem.hpp>

#include <cstddef>
#include <cstdint>
#include <memory_resource>

#include "tests/harness.h"

namespace kit
{

constexpr std::size_t MiB = std::size_t{1} << 20;

/* Ordinary pages, to be had everywhere. A bad free is counted, so that a test can say so. */
inline hak_config config(std::size_t bytes)
{
    hak_config made{};
    made.size_bytes = bytes;
    made.pages[0] = HAK_PAGES_4K;
    made.misuse = HAK_MISUSE_REPORT;
    return made;
}

inline hakmem::region further(std::size_t bytes = 16 * MiB)
{
    hak_error failure;
    hakmem::region made(config(bytes), failure);
    if (!made) {
        FAIL("hak_region_create: %d: %s", failure.code, failure.message);
    }
    return made;
}

/* The default region; one that a failed case before left behind is ended. */
inline hakmem::region standard(std::size_t bytes = 16 * MiB)
{
    hak_error failure;
    (void)hak_region_fini();
    hakmem::region made = hakmem::region::init(config(bytes), failure);
    if (!made) {
        FAIL("hak_region_init: %d: %s", failure.code, failure.message);
    }
    return made;
}

/* Whether a live object of the region (NULL: the default one) covers the address. */
inline bool lies_in(hak_region *region, const void *address)
{
    constexpr std::uintptr_t farthest = 8 * MiB;
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    for (std::uintptr_t start = at & ~std::uintptr_t{15}; at - start < farthest; start -= 16) {
        const std::size_t usable = hak_region_usable_size(region,
                                                          reinterpret_cast<const void *>(start));
        if (usable > 0) {
            return at - start < usable;
        }
    }
    return false;
}

inline hak_stats stats(hak_region *region)
{
    hak_stats filled{};
    CHECK_EQ(hak_region_stats(region, &filled), 0);
    return filled;
}

inline bool aligned(const void *address, std::size_t alignment)
{
    return reinterpret_cast<std::uintptr_t>(address) % alignment == 0;
}

/* Hides a value from the compiler, which would warn of the impossible sizes it is to be asked. */
template <class T> T opaque(T value)
{
    __asm__ volatile("" : "+r"(value));
    return value;
}

/* ---- worlds ---- */

struct default_world {
    template <class T> using allocator = hakmem::allocator<T>;
    hak_region *handle = nullptr;

    template <class T> allocator<T> in() const
    {
        return {};
    }
};

struct handle_world {
    template <class T> using allocator = hakmem::region_allocator<T>;
    hak_region *handle;

    template <class T> allocator<T> in() const
    {
        return handle;
    }
};

struct pmr_world {
    template <class T> using allocator = std::pmr::polymorphic_allocator<T>;
    hak_region *handle;
    std::pmr::memory_resource *resource;

    template <class T> allocator<T> in() const
    {
        return resource;
    }
};

/*
 * Runs the test in all of them, in regions of its own: test(world). Four runs, since a resource
 * comes with a handle and without; nothing may have been freed into the wrong region.
 */
template <class Test> void in_every_world(Test test)
{
    const hakmem::region usual = standard();
    const hakmem::region other = further();
    hakmem::memory_resource resource(other);

    test(default_world{});
    test(handle_world{other.handle()});
    test(pmr_world{other.handle(), &resource});
    test(pmr_world{nullptr, hakmem::default_resource()});
    CHECK_EQ(stats(usual.handle()).misuses, 0);
    CHECK_EQ(stats(other.handle()).misuses, 0);
    CHECK_EQ(stats(usual.handle()).large_bytes, 0);
    CHECK_EQ(stats(other.handle()).large_bytes, 0);
}

} // namespace kit

#endif
