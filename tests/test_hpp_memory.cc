// SPDX-License-Identifier: MIT
/*
 * Memory by memory_resource and the allocators, below the containers: alignment, impossible sizes,
 * no size, no room, no region; and the standard's own resources with ours below them.
 */
#include <array>
#include <cerrno>
#include <limits>
#include <list>
#include <map>
#include <new>
#include <string>
#include <vector>

#include "tests/hpp_kit.hpp"

namespace
{

template <std::size_t Alignment> struct alignas(Alignment) Wide {
    std::uint64_t first = Alignment;
    std::uint64_t last[Alignment / 8 - 1] = {};
};

/* Three ways to many objects of an over-aligned type. */
template <std::size_t Alignment, class World> void check_wide(const World &world, unsigned count)
{
    using wide = Wide<Alignment>;
    using pair = std::pair<const unsigned, wide>;
    std::vector<wide, typename World::template allocator<wide>> row(world.template in<wide>());
    std::map<unsigned, wide, std::less<>, typename World::template allocator<pair>> tree(
        world.template in<pair>());
    std::vector<std::shared_ptr<wide>> shared;
    for (unsigned i = 0; i < count; i++) {
        row.emplace_back();
        tree[i].last[0] = i;
        shared.push_back(std::allocate_shared<wide>(world.template in<wide>()));
    }
    for (unsigned i = 0; i < count; i++) {
        for (const wide *each : std::array<const wide *, 3>{&row[i], &tree[i], shared[i].get()}) {
            CHECK(kit::aligned(each, Alignment));
            CHECK_EQ(each->first, Alignment);
            CHECK(kit::lies_in(world.handle, each));
        }
        CHECK_EQ(tree[i].last[0], i);
    }
}

/* Whether the call ends in this exception and no other. */
template <class Exception, class Call> bool throws(Call call)
{
    try {
        call();
    } catch (const std::exception &thrown) {
        return typeid(thrown) == typeid(Exception);
    }
    return false;
}

hak_error last_error()
{
    hak_error filled{};
    (void)hak_last_error(&filled);
    return filled;
}

void check_aligned(const hakmem::region &owner, std::size_t bytes, std::size_t alignment,
                   std::size_t count)
{
    hakmem::memory_resource resource(owner);
    std::vector<void *> memory(count);
    for (void *&each : memory) {
        each = resource.allocate(bytes, alignment);
        CHECK(kit::aligned(each, alignment));
        CHECK_GE(hak_region_usable_size(owner.handle(), each), bytes);
        std::memset(each, 0xa5, bytes);
    }
    for (void *each : memory) {
        resource.deallocate(each, bytes, alignment);
    }
}

int new_handler_runs;

void count_new_handler()
{
    new_handler_runs++;
    std::set_new_handler(nullptr);
}

/* Fills the list until the region has no room; how many elements that took. */
template <class List> std::size_t fill_up(List &list)
{
    std::size_t count = 0;
    try {
        for (;; count++) {
            list.emplace_back();
        }
    } catch (const std::bad_alloc &) {
        return count;
    }
}

} // namespace

TEST(hpp_resource_honours_every_alignment)
{
    const hakmem::region owner = kit::further(64 * kit::MiB);
    for (std::size_t alignment = 1; alignment <= 16 * kit::MiB; alignment *= 2) {
        /* Of the largest alignments only so many fit between the region's borders. */
        const std::size_t count = alignment < 8 * kit::MiB ? 4 : 1;
        for (const std::size_t bytes : {std::size_t{1}, std::size_t{100}, alignment + 1}) {
            check_aligned(owner, bytes, alignment, count);
        }
    }
    CHECK_EQ(kit::stats(owner.handle()).misuses, 0);
    CHECK_EQ(kit::stats(owner.handle()).large_bytes, 0);
}

TEST(hpp_alignment_beyond_the_largest_is_bad_alloc)
{
    constexpr std::size_t region_bytes = 16 * kit::MiB;
    const hakmem::region owner = kit::further(region_bytes);
    hakmem::memory_resource resource(owner);
    /* No room for an object as large as the region (a small one may well find a multiple of
     * 1 GiB among the region's addresses), but no refusal either. */
    CHECK(
        throws<std::bad_alloc>([&] { (void)resource.allocate(region_bytes, HAK_ALIGNMENT_MAX); }));
    CHECK_EQ(last_error().kind, HAK_ERROR_EXHAUSTED);
    CHECK(throws<std::bad_alloc>([&] { (void)resource.allocate(8, 2 * HAK_ALIGNMENT_MAX); }));
    CHECK_EQ(errno, EINVAL);
    CHECK_EQ(last_error().kind, HAK_ERROR_ARGUMENT);
    CHECK_EQ(last_error().alignment, 2 * HAK_ALIGNMENT_MAX);
}

TEST(hpp_over_aligned_types)
{
    kit::in_every_world([](const auto &world) {
        check_wide<64>(world, 100);
        check_wide<4096>(world, 20);
    });
}

TEST(hpp_a_superslab_for_an_alignment)
{
    const hakmem::region owner = kit::further(32 * kit::MiB);
    hakmem::memory_resource resource(owner);
    check_wide<2 * kit::MiB>(kit::handle_world{owner.handle()}, 1);
    check_wide<2 * kit::MiB>(kit::pmr_world{owner.handle(), &resource}, 1);
    std::vector<Wide<2 * kit::MiB>, hakmem::region_allocator<Wide<2 * kit::MiB>>> row(owner);
    row.resize(3);
    CHECK(kit::aligned(&row[2], 2 * kit::MiB));
    CHECK_EQ(row[2].first, 2 * kit::MiB);
}

TEST(hpp_impossible_counts_are_bad_array_new_length)
{
    kit::in_every_world([](const auto &world) {
        constexpr std::size_t most = std::numeric_limits<std::size_t>::max();
        auto eights = world.template in<std::uint64_t>();
        auto bytes = world.template in<char>();
        for (const std::size_t count : {most / 8 + 1, most / 4, most}) {
            CHECK(throws<std::bad_array_new_length>(
                [&] { (void)eights.allocate(kit::opaque(count)); }));
        }
        /* A size that counts, but that nothing has. */
        CHECK(throws<std::bad_alloc>([&] { (void)eights.allocate(kit::opaque(most / 8)); }));
        CHECK(throws<std::bad_alloc>([&] { (void)bytes.allocate(kit::opaque(most)); }));
        CHECK_EQ(errno, ENOMEM);
    });
}

TEST(hpp_nothing_asked_gives_an_object_of_its_own)
{
    kit::in_every_world([](const auto &world) {
        auto wide = world.template in<Wide<256>>();
        auto small = world.template in<int>();
        Wide<256> *first = wide.allocate(0), *second = wide.allocate(0);
        int *third = small.allocate(0), *fourth = small.allocate(0);
        CHECK(kit::lies_in(world.handle, first));
        CHECK(kit::aligned(second, 256));
        CHECK(first != second && third != fourth);
        CHECK(kit::lies_in(world.handle, fourth));
        wide.deallocate(first, 0);
        wide.deallocate(second, 0);
        small.deallocate(third, 0);
        small.deallocate(fourth, 0);
    });
}

TEST(hpp_a_full_region_is_bad_alloc_and_usable_after)
{
    struct Block {
        std::array<char, 1000> bytes;
    };
    const hakmem::region usual = kit::standard(2 * kit::MiB);
    const hakmem::region owner = kit::further(2 * kit::MiB);
    hakmem::memory_resource resource(owner);
    const auto check = [](auto &list, hak_region *handle) {
        const std::size_t first = fill_up(list);
        CHECK_GE(first, 1000); /* of the 2,000 that 2 MiB could hold at most */
        CHECK_EQ(list.size(), first);
        CHECK_EQ(errno, ENOMEM);
        const hak_error error = last_error();
        CHECK_EQ(error.kind, HAK_ERROR_EXHAUSTED);
        CHECK_GE(error.size_bytes, sizeof(Block));
        CHECK_GE(kit::stats(handle).exhausted, 1);
        /* What is there is whole, goes, and leaves the same room for the next; a leak of one
         * element in a hundred would show. */
        for (auto &block : list) {
            block.bytes.fill('x');
        }
        list.pop_front();
        list.emplace_back();
        for (int round = 0; round < 3; round++) {
            list.clear();
            CHECK_GE(fill_up(list), first - first / 100);
        }
        list.clear();
        CHECK_EQ(kit::stats(handle).misuses, 0);
    };
    std::list<Block, hakmem::allocator<Block>> in_usual;
    std::list<Block, hakmem::region_allocator<Block>> in_owner(owner);
    std::pmr::list<Block> in_resource(&resource), in_default(hakmem::default_resource());
    check(in_usual, nullptr);
    check(in_owner, owner.handle());
    check(in_resource, owner.handle());
    check(in_default, nullptr);
}

TEST(hpp_a_vector_that_cannot_grow_keeps_its_contents)
{
    const hakmem::region owner = kit::further(2 * kit::MiB);
    std::vector<std::size_t, hakmem::region_allocator<std::size_t>> numbers(owner);
    CHECK(throws<std::bad_alloc>([&] {
        for (;;) {
            numbers.push_back(numbers.size());
        }
    }));
    CHECK_GE(numbers.size(), 1024);
    for (std::size_t i = 0; i < numbers.size(); i++) {
        CHECK_EQ(numbers[i], i);
    }
    numbers.clear();
    numbers.shrink_to_fit();
    numbers.resize(1024);
    CHECK(kit::lies_in(owner.handle(), numbers.data()));
}

TEST(hpp_no_room_runs_the_reclaimer_and_not_the_new_handler)
{
    const hakmem::region owner = kit::further(2 * kit::MiB);
    hakmem::memory_resource resource(owner);
    constexpr std::size_t most = kit::MiB + kit::MiB / 2; /* not twice in 2 MiB */
    void *spare = resource.allocate(most, 64);
    const auto reclaim = [](hak_region *region, std::size_t, void *argument) {
        void **held = static_cast<void **>(argument);
        hak_region_free(region, *held);
        *held = nullptr;
    };
    CHECK_EQ(hak_on_exhausted(owner.handle(), reclaim, &spare), 0);
    new_handler_runs = 0;
    const std::new_handler before = std::set_new_handler(count_new_handler);
    void *granted = resource.allocate(most, 64);
    CHECK(spare == nullptr);
    CHECK(throws<std::bad_alloc>([&] { (void)resource.allocate(most, 64); }));
    CHECK_EQ(new_handler_runs, 0);
    CHECK(std::get_new_handler() == count_new_handler);
    std::set_new_handler(before);
    resource.deallocate(granted, most, 64);
}

TEST(hpp_without_a_region_every_allocation_is_bad_alloc)
{
    (void)hak_region_fini();
    CHECK(hak_region_default() == nullptr);
    std::vector<int, hakmem::allocator<int>> numbers;
    std::pmr::string text(hakmem::default_resource());
    CHECK(throws<std::bad_alloc>([&] { numbers.push_back(1); }));
    CHECK(throws<std::bad_alloc>([&] { text.assign(1000, 'x'); }));
    CHECK(throws<std::bad_alloc>([] { (void)hakmem::make_unique<int>(1); }));
    CHECK_EQ(last_error().kind, HAK_ERROR_NO_REGION);
    /* The same objects work when there is one. */
    const hakmem::region usual = kit::standard();
    numbers.push_back(1);
    text.assign(1000, 'x');
    CHECK(kit::lies_in(nullptr, numbers.data()));
    CHECK(kit::lies_in(nullptr, text.data()));
    numbers = {};
    text = std::pmr::string(hakmem::default_resource());
}

TEST(hpp_below_a_monotonic_buffer)
{
    const hakmem::region owner = kit::further();
    hakmem::memory_resource resource(owner);
    const std::size_t before = kit::stats(owner.handle()).free_bytes;
    for (int round = 0; round < 50; round++) {
        std::pmr::monotonic_buffer_resource buffer(1024, &resource);
        std::pmr::vector<std::pmr::string> words(&buffer);
        for (int i = 0; i < 20000; i++) {
            words.emplace_back("a word that does not fit into the string's own place");
        }
        CHECK(kit::lies_in(owner.handle(), words.front().data()));
        CHECK(kit::lies_in(owner.handle(), &words.back()));
    }
    /* Its buffers went back: 50 rounds of 3 MiB have passed through 16. */
    CHECK_EQ(kit::stats(owner.handle()).large_bytes, 0);
    CHECK_GE(kit::stats(owner.handle()).free_bytes, before / 2);
    CHECK_EQ(kit::stats(owner.handle()).misuses, 0);
}

TEST(hpp_below_a_pool)
{
    const hakmem::region owner = kit::further();
    hakmem::memory_resource resource(owner);
    for (int round = 0; round < 20; round++) {
        std::pmr::unsynchronized_pool_resource pool(&resource);
        std::pmr::map<int, std::pmr::string> tree(&pool);
        for (int i = 0; i < 5000; i++) {
            tree[i * 7 % 5000] = std::string(static_cast<std::size_t>(i % 3000), 'x').c_str();
            if (i % 3 == 0) {
                tree.erase(i / 2);
            }
        }
        for (const auto &entry : tree) {
            CHECK(kit::lies_in(owner.handle(), &entry));
        }
    }
    CHECK_EQ(kit::stats(owner.handle()).large_bytes, 0);
    CHECK_EQ(kit::stats(owner.handle()).misuses, 0);
}

HARNESS_MAIN()
