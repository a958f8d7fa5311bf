// SPDX-License-Identifier: MIT
/*
 * hakmem::region owns as a std::unique_ptr does, and hakmem::error says what the record says; the
 * objects of make_unique and allocate_unique live and die in their region.
 */
#include <cerrno>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <utility>
#include <vector>

#include "tests/hpp_kit.hpp"

namespace
{

/* How many further regions there are: the most there can be less those that can still be had. */
unsigned regions_left()
{
    std::vector<hakmem::region> had;
    hak_error failure{};
    do {
        had.emplace_back(kit::config(2 * kit::MiB), failure);
    } while (had.back());
    CHECK_EQ(failure.code, -ENOSPC);
    return HAK_REGIONS_MAX - static_cast<unsigned>(had.size());
}

hak_config impossible()
{
    hak_config made = kit::config(2 * kit::MiB);
    made.reserved[3] = 7;
    return made;
}

struct Counted {
    static int alive;
    std::string name;

    explicit Counted(const char *given) : name(given)
    {
        if (name.empty()) {
            throw std::invalid_argument("a name, please");
        }
        alive++;
    }
    Counted(const Counted &) = delete;
    Counted &operator=(const Counted &) = delete;
    ~Counted()
    {
        alive--;
    }
};
int Counted::alive;

struct Base {
    int number = 1;
};
struct Derived : Base {
    int more[20] = {};
};

} // namespace

TEST(hpp_region_ends_with_its_owner)
{
    CHECK_EQ(regions_left(), 0);
    {
        const hakmem::region first(kit::config(4 * kit::MiB));
        const hakmem::region second = kit::further();
        CHECK(first && second);
        CHECK(first.handle() != second.handle());
        CHECK_EQ(kit::stats(first.handle()).size_bytes, 4 * kit::MiB);
        CHECK_EQ(regions_left(), 2);
    }
    CHECK_EQ(regions_left(), 0);
}

TEST(hpp_region_moves_and_is_ended_once)
{
    hakmem::region first = kit::further();
    hak_region *handle = first.handle();
    hakmem::region &source = first;
    hakmem::region second(std::move(source));
    CHECK(!first);
    CHECK(second.handle() == handle);
    CHECK_EQ(regions_left(), 1);

    hakmem::region third = kit::further();
    hak_region *other = third.handle();
    CHECK_EQ(regions_left(), 2);
    second = std::move(third); /* ends its first one */
    CHECK(second.handle() == other);
    CHECK_EQ(regions_left(), 1);
    hakmem::region &itself = second;
    second = std::move(itself);
    CHECK(second.handle() == other);
    std::swap(first, second);
    CHECK(first.handle() == other);
    CHECK(!second);

    hakmem::region taken(first.release());
    CHECK(!first);
    CHECK_EQ(first.reset(), 0);
    CHECK_EQ(regions_left(), 1);
    CHECK_EQ(taken.reset(), 0);
    CHECK(!taken);
    CHECK_EQ(regions_left(), 0);
    /* One that somebody else ended. */
    hakmem::region gone = kit::further();
    CHECK_EQ(hak_region_destroy(gone.handle()), 0);
    CHECK_EQ(gone.reset(), -EINVAL);
    CHECK_EQ(gone.reset(), 0);
}

TEST(hpp_region_owns_the_default_one)
{
    (void)hak_region_fini();
    {
        const hakmem::region usual = hakmem::region::init(kit::config(4 * kit::MiB));
        CHECK(usual.handle() != nullptr);
        CHECK(usual.handle() == hak_region_default());
        CHECK_EQ(kit::stats(nullptr).size_bytes, 4 * kit::MiB);
    }
    CHECK(hak_region_default() == nullptr);
    hak_error failure{};
    hakmem::region usual = hakmem::region::init(kit::config(4 * kit::MiB), failure);
    CHECK_EQ(failure.code, 0);
    CHECK_EQ(failure.kind, HAK_ERROR_NONE);
    const hakmem::region second = hakmem::region::init(kit::config(4 * kit::MiB), failure);
    CHECK(!second);
    CHECK_EQ(failure.code, -EALREADY);
    CHECK(usual.handle() == hak_region_default());
    CHECK_EQ(usual.reset(), 0);
    CHECK(hak_region_default() == nullptr);
}

TEST(hpp_region_adopts_memory_and_leaves_it)
{
    constexpr std::size_t length = 8 * kit::MiB;
    void *memory = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                        0);
    CHECK(memory != MAP_FAILED);
    {
        const hakmem::region adopted = hakmem::region::adopt(memory, length);
        std::vector<char, hakmem::region_allocator<char>> bytes(100000, 'x', adopted.handle());
        CHECK(bytes.data() >= memory && bytes.data() < static_cast<char *>(memory) + length);
        CHECK_GE(kit::stats(adopted.handle()).size_bytes, length - 2 * kit::MiB);
    }
    std::memset(memory, 0, length); /* still there */
    hak_error failure{};
    CHECK(!hakmem::region::adopt(memory, 4096, -1, {}, failure));
    CHECK_EQ(failure.code, -EINVAL);
    CHECK_STR_HAS(failure.message, "no whole SuperSlab");
    CHECK(hakmem::region::adopt(memory, length, -1, {}, failure));
    CHECK_EQ(failure.code, 0);
    CHECK_EQ(munmap(memory, length), 0);
}

TEST(hpp_error_carries_the_record)
{
    unsigned caught = 0;
    const auto check = [&](const hakmem::error &error) {
        caught++;
        CHECK(error.code() == std::errc::invalid_argument);
        CHECK_EQ(error.record().code, -EINVAL);
        CHECK_EQ(error.record().kind, HAK_ERROR_SETUP);
        CHECK_STR_HAS(error.what(), "reserved");
    };
    (void)hak_region_fini();
    try {
        const hakmem::region none(impossible());
    } catch (const hakmem::error &error) {
        check(error);
    }
    try {
        const hakmem::region none = hakmem::region::init(impossible());
    } catch (const std::exception &error) {
        check(dynamic_cast<const hakmem::error &>(error));
    }
    try {
        char too_small[64];
        const hakmem::region none = hakmem::region::adopt(too_small, sizeof too_small);
    } catch (const hakmem::error &error) {
        caught++;
        CHECK_STR_HAS(error.what(), "no whole SuperSlab");
    }
    CHECK_EQ(caught, 3);

    hak_error failure{};
    const hakmem::region none(impossible(), failure);
    CHECK(!none);
    check(hakmem::error(failure));
    const hakmem::region some(kit::config(2 * kit::MiB), failure);
    CHECK(some);
    CHECK_EQ(failure.code, 0);
    CHECK_EQ(failure.kind, HAK_ERROR_NONE);
    CHECK_EQ(std::strlen(failure.message), 0);
}

TEST(hpp_an_empty_owner_does_not_pass_for_the_default_region)
{
    const hakmem::region usual = kit::standard();
    const hakmem::region empty;
    unsigned caught = 0;
    try {
        const hakmem::memory_resource resource(empty);
    } catch (const hakmem::error &error) {
        caught++;
        CHECK(error.code() == std::errc::no_such_device);
        CHECK_EQ(error.record().kind, HAK_ERROR_NO_REGION);
    }
    try {
        const std::vector<int, hakmem::region_allocator<int>> numbers(empty);
    } catch (const hakmem::error &error) {
        caught++;
        CHECK_STR_HAS(error.what(), "owns nothing");
    }
    CHECK_EQ(caught, 2);
}

TEST(hpp_unique_objects_live_in_their_region)
{
    const hakmem::region usual = kit::standard();
    const hakmem::region owner = kit::further();
    const hakmem::region_allocator<char> in_owner(owner);
    Counted::alive = 0;
    {
        hakmem::unique_ptr<Counted> first = hakmem::make_unique<Counted>("first");
        auto second = hakmem::allocate_unique<Counted>(in_owner, "second");
        CHECK(kit::lies_in(nullptr, first.get()));
        CHECK(kit::lies_in(owner.handle(), second.get()));
        CHECK(first->name == "first" && second->name == "second");
        CHECK_EQ(Counted::alive, 2);
        second = hakmem::allocate_unique<Counted>(in_owner, "third");
        CHECK_EQ(Counted::alive, 2);
        hakmem::unique_ptr<Counted> &source = first;
        hakmem::unique_ptr<Counted> moved = std::move(source);
        CHECK(first == nullptr);
        CHECK(moved->name == "first");
        moved.reset();
        CHECK_EQ(Counted::alive, 1);
    }
    CHECK_EQ(Counted::alive, 0);
    CHECK_EQ(kit::stats(nullptr).misuses, 0);
    CHECK_EQ(kit::stats(owner.handle()).misuses, 0);
}

/* Shared by the compiler's checks: what a pointer costs, and what it must not turn into. */
static_assert(sizeof(hakmem::unique_ptr<int>) == sizeof(int *));
static_assert(std::is_convertible_v<Derived *, Base *>);
static_assert(!std::is_constructible_v<hakmem::unique_ptr<Base>, hakmem::unique_ptr<Derived>>);
static_assert(!std::is_copy_constructible_v<hakmem::region>);
static_assert(!std::is_copy_assignable_v<hakmem::region>);
static_assert(std::is_nothrow_move_constructible_v<hakmem::region>);
static_assert(std::is_nothrow_move_assignable_v<hakmem::region>);
static_assert(std::is_nothrow_copy_constructible_v<hakmem::error>);

HARNESS_MAIN()
