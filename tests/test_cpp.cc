// SPDX-License-Identifier: MIT
/*
 * The public header from C++: it compiles as C++17 with every warning an error, links against the
 * C library, and an object of each kind goes round through it.
 */
#include <cerrno>
#include <cstring>
#include <hakmem.h>
#include <memory>
#include <new>
#include <string>

#include "tests/harness.h"

namespace
{

constexpr std::size_t region_bytes = std::size_t{16} << 20;

struct Region {
    Region()
    {
        hak_config config{};
        config.size_bytes = region_bytes;
        config.pages[0] = HAK_PAGES_4K;
        status = hak_region_init(&config);
    }
    ~Region()
    {
        if (status == 0) {
            (void)hak_region_fini();
        }
    }
    Region(const Region &) = delete;
    Region &operator=(const Region &) = delete;

    int status;
};

struct Free {
    void operator()(void *pointer) const
    {
        hak_free(pointer);
    }
};

void check_region(const Region &region)
{
    if (region.status != 0) {
        hak_error error{};
        (void)hak_last_error(&error);
        FAIL("hak_region_init: %d: %s", region.status, error.message);
    }
}

} // namespace

TEST(cpp_version_is_the_headers)
{
    const std::string version = std::to_string(HAK_VERSION_MAJOR) + "." +
                                std::to_string(HAK_VERSION_MINOR) + "." +
                                std::to_string(HAK_VERSION_PATCH);
    CHECK(version == hak_version());
}

TEST(cpp_malloc_and_free_round_trip)
{
    const Region region;
    check_region(region);
    CHECK(hak_region_default() != nullptr);
    for (std::size_t size : {1U, 16U, 100U, 1024U, 5000U, 65536U, 1U << 20}) {
        auto *bytes = static_cast<unsigned char *>(hak_malloc(size));
        CHECK(bytes != nullptr);
        CHECK_EQ(reinterpret_cast<std::uintptr_t>(bytes) % HAK_ALIGNMENT_MIN, 0);
        CHECK_GE(hak_usable_size(bytes), size);
        std::memset(bytes, 0xa5, size);
        CHECK_EQ(bytes[size - 1], 0xa5);
        hak_free(bytes);
    }
}

TEST(cpp_placement_new_in_owned_memory)
{
    struct alignas(256) Wide {
        unsigned long long lanes[32];
    };
    const Region region;
    check_region(region);
    std::unique_ptr<void, Free> memory(hak_aligned_alloc(alignof(Wide), sizeof(Wide)));
    CHECK(memory != nullptr);
    CHECK_EQ(reinterpret_cast<std::uintptr_t>(memory.get()) % alignof(Wide), 0);
    const Wide *wide = new (memory.get()) Wide{};
    CHECK_EQ(wide->lanes[31], 0);
}

TEST(cpp_bulk_and_statistics)
{
    const Region region;
    check_region(region);
    void *objects[64];
    CHECK_EQ(hak_malloc_bulk(128, 64, objects), 64);
    hak_stats stats{};
    CHECK_EQ(hak_region_stats(nullptr, &stats), 0);
    CHECK_GE(stats.size_bytes, region_bytes);
    CHECK_EQ(stats.pages, HAK_PAGES_4K);
    hak_free_bulk(objects, 64);
}

TEST(cpp_allocation_without_a_region_is_null_and_enomem)
{
    CHECK(hak_region_default() == nullptr);
    errno = 0;
    const void *nothing = hak_malloc(64);
    CHECK(nothing == nullptr);
    CHECK_EQ(errno, ENOMEM);
}

HARNESS_MAIN()
