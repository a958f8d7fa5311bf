// SPDX-License-Identifier: MIT
/*
 * Which calls of hakmem.h the header makes. The functions that it may call stand here themselves,
 * in front of the library's, and keep a ledger: every object is given back once, to the region that
 * it came from, by the sized call and with the size that was asked for, which the library takes as
 * a promise; the alignment is passed on; set-up errors are told although another thread's has come
 * in between.
 */
#include <hakmem.hpp>

#include <cerrno>
#include <cstdlib>
#include <deque>
#include <list>
#include <map>
#include <new>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "tests/harness.h"

struct hak_region {
    int id;
};

namespace
{

struct Entry {
    hak_region *region;
    std::size_t size, alignment;
};

struct Ledger {
    std::map<void *, Entry> live;
    std::set<hak_region *> regions; /* that were asked; NULL is the default one */
    unsigned taken = 0, wrong = 0;
    std::size_t last_alignment = 0, last_size = 0;
    hak_region *last_region = nullptr;
    int fails_after = -1; /* allocations that succeed before one does not */

    hak_error error{};
    int set_up_code = 0;
    std::vector<std::string> set_up_calls;
};

Ledger ledger;
hak_region usual{0}, further{1};
hak_region *default_handle;

void *take(hak_region *region, std::size_t alignment, std::size_t size)
{
    if (ledger.fails_after >= 0 && ledger.fails_after-- == 0) {
        errno = ENOMEM;
        return nullptr;
    }
    const std::size_t granted = alignment > 16 ? alignment : 16;
    void *memory = std::aligned_alloc(granted, (size + granted) & ~(granted - 1));
    ledger.taken++;
    ledger.last_alignment = alignment;
    ledger.last_size = size;
    ledger.last_region = region;
    ledger.regions.insert(region);
    ledger.live[memory] = {region, size, alignment};
    return memory;
}

void give(hak_region *region, void *memory, std::size_t size)
{
    const auto found = ledger.live.find(memory);
    if (found == ledger.live.end() || found->second.region != region ||
        found->second.size != size) {
        ledger.wrong++;
        return;
    }
    ledger.live.erase(found);
    std::free(memory);
}

int set_up(const char *call, hak_region **out)
{
    ledger.set_up_calls.emplace_back(call);
    if (ledger.set_up_code == 0 && out != nullptr) {
        *out = &further;
    }
    return ledger.set_up_code;
}

/* Ordinary containers' life with an allocator. */
template <template <class> class Allocator> void use(const Allocator<char> &from)
{
    struct alignas(128) Wide {
        char bytes[128];
    };
    using pair = std::pair<const int, int>;
    std::vector<int, Allocator<int>> numbers(from);
    std::vector<Wide, Allocator<Wide>> wides(from);
    std::deque<long, Allocator<long>> line(from);
    std::list<char, Allocator<char>> chain(from);
    std::unordered_map<int, int, std::hash<int>, std::equal_to<>, Allocator<pair>> table(from);
    std::set<int, std::less<>, Allocator<int>> sorted(from);
    std::basic_string<char, std::char_traits<char>, Allocator<char>> text(from);
    for (int i = 0; i < 3000; i++) {
        numbers.push_back(i);
        line.push_front(i);
        chain.push_back('x');
        table[i * 7] = i;
        sorted.insert(i % 1000);
        text += 'y';
        if (i % 50 == 0) {
            wides.emplace_back();
        }
    }
    numbers.resize(17);
    numbers.shrink_to_fit();
    table.rehash(7000);
    text.resize(5);
    text.shrink_to_fit();
    std::vector<int, Allocator<int>> other(numbers, from);
    other.swap(numbers);
    numbers = std::move(other);
    const auto shared = std::allocate_shared<Wide>(Allocator<Wide>(from));
    Allocator<Wide> plain(from);
    plain.deallocate(plain.allocate(0), 0);
}

void check_ledger(unsigned taken)
{
    CHECK_GE(ledger.taken, taken);
    CHECK_EQ(ledger.wrong, 0);
    CHECK_EQ(ledger.live.size(), 0);
}

struct Thrower {
    Thrower()
    {
        throw 7;
    }
};

} // namespace

extern "C" {
void *hak_malloc(size_t size)
{
    return take(nullptr, 0, size);
}
void *hak_aligned_alloc(size_t alignment, size_t size)
{
    return take(nullptr, alignment, size);
}
void hak_free_sized(void *pointer, size_t size)
{
    give(nullptr, pointer, size);
}
void *hak_region_malloc(hak_region *region, size_t size)
{
    return take(region, 0, size);
}
void *hak_region_aligned_alloc(hak_region *region, size_t alignment, size_t size)
{
    return take(region, alignment, size);
}
void hak_region_free_sized(hak_region *region, void *pointer, size_t size)
{
    give(region, pointer, size);
}
hak_region *hak_region_default(void)
{
    return default_handle;
}
int hak_last_error(hak_error *out)
{
    *out = ledger.error;
    return out->code;
}
int hak_region_init(const hak_config *)
{
    return set_up("init", &default_handle);
}
int hak_region_fini(void)
{
    default_handle = nullptr;
    return set_up("fini", nullptr);
}
int hak_region_create(const hak_config *, hak_region **out)
{
    return set_up("create", out);
}
int hak_region_adopt(void *, size_t, int, const hak_config *, hak_region **out, size_t *)
{
    return set_up("adopt", out);
}
int hak_region_destroy(hak_region *)
{
    return set_up("destroy", nullptr);
}
}

TEST(hpp_frees_with_the_size_it_asked_for)
{
    ledger = {};
    default_handle = &usual;
    use<hakmem::allocator>(hakmem::allocator<char>());
    check_ledger(6000);
    CHECK(ledger.regions == std::set<hak_region *>{nullptr});
    ledger = {};
    use<hakmem::region_allocator>(hakmem::region_allocator<char>(&further));
    check_ledger(6000);
    CHECK(ledger.regions == std::set<hak_region *>{&further});
    ledger = {};
    hakmem::memory_resource resource(&further);
    use<std::pmr::polymorphic_allocator>(std::pmr::polymorphic_allocator<char>(&resource));
    check_ledger(6000);
    CHECK(ledger.regions == std::set<hak_region *>{&further});
    ledger = {};
    use<std::pmr::polymorphic_allocator>(
        std::pmr::polymorphic_allocator<char>(hakmem::default_resource()));
    check_ledger(6000);
    CHECK(ledger.regions == std::set<hak_region *>{nullptr});
}

TEST(hpp_asks_for_the_alignment_and_the_region_that_it_was_told)
{
    ledger = {};
    default_handle = &usual;
    hakmem::memory_resource resource(&further), of_default(&usual);
    for (std::size_t alignment = 1; alignment <= 4096; alignment *= 2) {
        void *memory = resource.allocate(48, alignment);
        CHECK_EQ(ledger.last_alignment, alignment > HAK_ALIGNMENT_MIN ? alignment : 0);
        CHECK_EQ(ledger.last_size, 48);
        CHECK(ledger.last_region == &further);
        resource.deallocate(memory, 48, alignment);
        memory = of_default.allocate(0, alignment);
        CHECK_EQ(ledger.last_size, 0);
        CHECK(ledger.last_region == nullptr); /* the default region by the shorter call */
        of_default.deallocate(memory, 0, alignment);
    }
    check_ledger(26);
}

TEST(hpp_unique_objects_are_freed_once_also_when_the_constructor_throws)
{
    ledger = {};
    default_handle = &usual;
    {
        const auto first = hakmem::make_unique<std::string>("first");
        const auto second = hakmem::allocate_unique<long>(hakmem::region_allocator<int>(&further));
        CHECK_EQ(ledger.live.size(), 2);
        CHECK_EQ(ledger.last_size, sizeof(long));
    }
    check_ledger(2);
    unsigned caught = 0;
    try {
        (void)hakmem::make_unique<Thrower>();
    } catch (int) {
        caught++;
    }
    ledger.fails_after = 0;
    try {
        (void)hakmem::make_unique<int>();
    } catch (const std::bad_alloc &) {
        caught++;
    }
    CHECK_EQ(caught, 2);
    check_ledger(3);
}

TEST(hpp_containers_give_everything_back_wherever_room_ends)
{
    default_handle = &usual;
    const auto grow = [] {
        std::map<int, std::pmr::vector<std::pmr::string>, std::less<>,
                 hakmem::region_allocator<std::pair<const int, std::pmr::vector<std::pmr::string>>>>
            tree(&further);
        for (int i = 0; i < 20; i++) {
            tree.try_emplace(i, hakmem::default_resource())
                .first->second.emplace_back("a string that is too long for its own place");
        }
    };
    int failed = 0;
    for (bool done = false; !done; check_ledger(static_cast<unsigned>(failed) / 2)) {
        ledger = {};
        ledger.fails_after = failed;
        try {
            grow();
            done = true;
        } catch (const std::bad_alloc &) {
            failed++;
        }
    }
    CHECK_GE(failed, 60); /* a node, a vector's array and a string, twenty times */
}

TEST(hpp_set_up_errors_are_those_of_the_call)
{
    ledger = {};
    default_handle = nullptr;
    ledger.set_up_code = -ENOSPC;
    ledger.error.kind = HAK_ERROR_SETUP;
    ledger.error.code = -ENOSPC;
    (void)std::snprintf(ledger.error.message, sizeof ledger.error.message, "31 there are");
    hak_error failure;
    CHECK(!hakmem::region(hak_config{}, failure));
    CHECK_STR_HAS(failure.message, "31 there are");
    /* Meanwhile another thread failed in another way, or ran out of memory. */
    ledger.error.code = -EINVAL;
    CHECK(!hakmem::region::init({}, failure));
    CHECK_EQ(failure.code, -ENOSPC);
    CHECK_STR_HAS(failure.message, "No space left");
    ledger.error.code = -ENOSPC;
    ledger.error.kind = HAK_ERROR_EXHAUSTED;
    unsigned caught = 0;
    try {
        (void)hakmem::region::adopt(&ledger, sizeof ledger);
    } catch (const hakmem::error &error) {
        caught++;
        CHECK(error.code() == std::errc::no_space_on_device);
        CHECK_EQ(error.record().kind, HAK_ERROR_SETUP);
        CHECK_STR_HAS(error.what(), "No space left");
    }
    CHECK_EQ(caught, 1);
    CHECK(ledger.set_up_calls == (std::vector<std::string>{"create", "init", "adopt"}));
}

TEST(hpp_ends_a_region_by_the_call_that_its_kind_asks_for)
{
    ledger = {};
    default_handle = nullptr;
    {
        const hakmem::region first{hak_config{}};
    }
    {
        const hakmem::region second = hakmem::region::init();
    }
    {
        hakmem::region third = hakmem::region::adopt(&ledger, 1);
        const hakmem::region owner(std::move(third));
    }
    CHECK(ledger.set_up_calls ==
          (std::vector<std::string>{"create", "destroy", "init", "fini", "adopt", "destroy"}));
}

HARNESS_MAIN()
