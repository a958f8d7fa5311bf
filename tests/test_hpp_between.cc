// SPDX-License-Identifier: MIT
/*
 * Containers of different regions meeting: copied, moved, swapped, nested. Wherever the contents
 * come from, they lie in the region that hakmem.hpp says, and are freed where they lie.
 */
#include <list>
#include <map>
#include <scoped_allocator>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tests/hpp_kit.hpp"

namespace
{

template <class T> using region_vector = std::vector<T, hakmem::region_allocator<T>>;
template <class T> using region_list = std::list<T, hakmem::region_allocator<T>>;

/* Counts its copies and moves, to tell memory taken over from elements moved one by one. */
struct Traveller {
    int number = 0;
    static int moves, copies;

    explicit Traveller(int given) : number(given)
    {
    }
    Traveller(Traveller &&other) noexcept : number(std::exchange(other.number, -1))
    {
        moves++;
    }
    Traveller(const Traveller &other) : number(other.number)
    {
        copies++;
    }
    Traveller &operator=(const Traveller &other)
    {
        number = other.number;
        copies++;
        return *this;
    }
    Traveller &operator=(Traveller &&other) noexcept
    {
        number = std::exchange(other.number, -1);
        moves++;
        return *this;
    }
    ~Traveller() = default;
};
int Traveller::moves, Traveller::copies;

template <class Container> void fill(Container &container, int from, int count)
{
    for (int i = 0; i < count; i++) {
        container.emplace_back(from + i);
    }
}

template <class Container>
void check_numbers(const Container &container, int from, int count, hak_region *where)
{
    CHECK_EQ(container.size(), count);
    for (const Traveller &traveller : container) {
        CHECK_EQ(traveller.number, from++);
        CHECK(kit::lies_in(where, &traveller));
    }
}

void forget_travels()
{
    Traveller::moves = Traveller::copies = 0;
}

struct Two {
    hakmem::region a = kit::further(), b = kit::further();
    hak_region *in_a = a.handle(), *in_b = b.handle();

    void check_no_misuse() const
    {
        CHECK_EQ(kit::stats(in_a).misuses, 0);
        CHECK_EQ(kit::stats(in_b).misuses, 0);
    }
};

/* What each way of assignment does, for a container that takes its allocator last. */
template <class Container, class Allocator>
void assign_between(Two &two, const Allocator &a, const Allocator &b)
{
    constexpr int count = 500;
    Container first(a), second(b);
    fill(first, 100, count);
    fill(second, 9000, 7);

    second = first;
    check_numbers(first, 100, count, two.in_a);
    check_numbers(second, 100, count, two.in_b);

    fill(first, 100 + count, 3);
    forget_travels();
    second = std::move(first);
    CHECK_EQ(Traveller::moves, count + 3);
    CHECK_EQ(Traveller::copies, 0);
    check_numbers(second, 100, count + 3, two.in_b);

    forget_travels();
    Container third(std::move(second));
    CHECK_EQ(Traveller::moves, 0);
    check_numbers(third, 100, count + 3, two.in_b);

    const Container elsewhere(std::move(third), a);
    CHECK_EQ(Traveller::moves, count + 3);
    check_numbers(elsewhere, 100, count + 3, two.in_a);
    const Container copy(elsewhere, b);
    check_numbers(copy, 100, count + 3, two.in_b);
    CHECK_EQ(Traveller::copies, count + 3);
}

} // namespace

TEST(hpp_assignment_between_regions_keeps_each_container_in_its_own)
{
    Two two;
    const hakmem::region_allocator<Traveller> a(two.a), b(two.b);
    assign_between<region_vector<Traveller>>(two, a, b);
    assign_between<region_list<Traveller>>(two, a, b);
    two.check_no_misuse();
}

TEST(hpp_pmr_assignment_between_regions_keeps_each_container_in_its_own)
{
    Two two;
    hakmem::memory_resource in_a(two.a), in_b(two.b);
    const std::pmr::polymorphic_allocator<Traveller> a(&in_a), b(&in_b);
    assign_between<std::pmr::vector<Traveller>>(two, a, b);
    assign_between<std::pmr::list<Traveller>>(two, a, b);
    two.check_no_misuse();
}

TEST(hpp_swap_between_regions_exchanges_them)
{
    Two two;
    region_vector<Traveller> first(two.a), second(two.b);
    region_list<Traveller> third(two.a), fourth(two.b);
    fill(first, 1, 300);
    fill(second, 5000, 20);
    fill(third, 1, 300);
    fill(fourth, 5000, 20);
    forget_travels();
    first.swap(second);
    std::swap(third, fourth);
    CHECK_EQ(Traveller::moves + Traveller::copies, 0);
    check_numbers(first, 5000, 20, two.in_b);
    check_numbers(second, 1, 300, two.in_a);
    check_numbers(third, 5000, 20, two.in_b);
    check_numbers(fourth, 1, 300, two.in_a);
    /* They grow where their contents are now. */
    fill(first, 5020, 2000);
    fill(third, 5020, 2000);
    check_numbers(first, 5000, 2020, two.in_b);
    check_numbers(third, 5000, 2020, two.in_b);
    first = region_vector<Traveller>(two.b);
    fourth.clear();
    two.check_no_misuse();
}

TEST(hpp_within_one_region_a_move_takes_the_memory_over)
{
    const hakmem::region owner = kit::further();
    const hakmem::region usual = kit::standard();
    hakmem::memory_resource one(owner), again(owner.handle());
    std::pmr::vector<Traveller> from(&one), to(&again);
    region_vector<Traveller> region_from(owner), region_to(owner.handle());
    std::vector<Traveller, hakmem::allocator<Traveller>> usual_from, usual_to;
    fill(from, 1, 100);
    fill(region_from, 1, 100);
    fill(usual_from, 1, 100);
    const Traveller *at = from.data(), *region_at = region_from.data(),
                    *usual_at = usual_from.data();

    forget_travels();
    to = std::move(from);
    region_to = std::move(region_from);
    usual_to = std::move(usual_from);
    CHECK_EQ(Traveller::moves + Traveller::copies, 0);
    CHECK(to.data() == at);
    CHECK(region_to.data() == region_at);
    CHECK(usual_to.data() == usual_at);
    to = std::pmr::vector<Traveller>(&one);
    CHECK_EQ(kit::stats(owner.handle()).misuses, 0);
    CHECK_EQ(kit::stats(nullptr).misuses, 0);
}

TEST(hpp_a_copy_lies_where_the_original_does)
{
    Two two;
    const hakmem::region usual = kit::standard();
    region_vector<Traveller> original(two.b);
    fill(original, 1, 50);
    const region_vector<Traveller> copy(original);
    check_numbers(copy, 1, 50, two.in_b);
    /* std::pmr has its own rule: the default resource, unless told otherwise. */
    hakmem::memory_resource resource(two.b);
    std::pmr::memory_resource *before = std::pmr::set_default_resource(hakmem::default_resource());
    std::pmr::vector<Traveller> pmr_original(&resource);
    fill(pmr_original, 1, 50);
    const std::pmr::vector<Traveller> pmr_copy(pmr_original);
    std::pmr::set_default_resource(before);
    check_numbers(pmr_copy, 1, 50, nullptr);
}

TEST(hpp_nested_pmr_containers_pass_their_resource_on)
{
    using names = std::pmr::vector<std::pmr::string>;
    Two two;
    hakmem::memory_resource in_a(two.a), in_b(two.b);
    std::pmr::unordered_map<int, names> first(&in_a);
    std::pmr::map<std::pmr::string, names> second(&in_b);
    for (int i = 0; i < 200; i++) {
        names &list = first[i % 20];
        list.emplace_back("a name too long for the string itself, number ");
        list.back() += std::to_string(i);
    }
    for (auto &entry : first) {
        names &moved = second[std::pmr::string("key, also too long for the string itself ") +
                              std::to_string(entry.first).c_str()];
        CHECK(kit::lies_in(two.in_a, entry.second.data()));
        for (auto &name : entry.second) {
            CHECK(kit::lies_in(two.in_a, name.data()));
            moved.push_back(std::move(name));
        }
    }
    first.clear();
    CHECK_EQ(second.size(), 20);
    int total = 0;
    for (const auto &entry : second) {
        CHECK(kit::lies_in(two.in_b, entry.first.data()));
        CHECK(kit::lies_in(two.in_b, entry.second.data()));
        for (const auto &name : entry.second) {
            CHECK(kit::lies_in(two.in_b, name.data()));
            CHECK_STR_HAS(name.c_str(), "for the string itself, number ");
            total++;
        }
    }
    CHECK_EQ(total, 200);
    second.clear();
    two.check_no_misuse();
}

TEST(hpp_scoped_allocator_passes_the_region_on)
{
    using text = std::basic_string<char, std::char_traits<char>, hakmem::region_allocator<char>>;
    using scoped = std::scoped_allocator_adaptor<hakmem::region_allocator<text>>;
    Two two;
    std::vector<text, scoped> lines{scoped(hakmem::region_allocator<text>(two.b))};
    const text from_a("a line from the other region that is too long to lie in the string",
                      two.in_a);
    for (int i = 0; i < 100; i++) {
        lines.push_back(from_a);
        lines.emplace_back(100, 'x');
    }
    for (const text &line : lines) {
        CHECK(kit::lies_in(two.in_b, &line));
        CHECK(kit::lies_in(two.in_b, line.data()));
    }
    CHECK(lines[0] == from_a);
    CHECK(lines[1] == text(100, 'x', two.in_a));
}

TEST(hpp_equality_is_that_of_the_region)
{
    Two two;
    const hakmem::region usual = kit::standard();
    const hakmem::memory_resource a(two.a), again(two.in_a), b(two.b);
    const hakmem::memory_resource standard, by_handle(usual.handle()), by_owner(usual);
    CHECK(a == again);
    CHECK(a != b);
    CHECK(a != standard);
    CHECK(standard == by_handle);
    CHECK(standard == by_owner);
    CHECK(standard == *hakmem::default_resource());
    CHECK(!a.is_equal(*std::pmr::new_delete_resource()));
    CHECK(by_owner.handle() == nullptr);
    CHECK(a.handle() == two.in_a);

    const hakmem::region_allocator<int> in_a(two.a), in_b(two.b), in_usual(usual);
    CHECK(in_a == hakmem::region_allocator<long>(in_a));
    CHECK(in_a != in_b);
    CHECK(!(in_a == in_b));
    CHECK(in_usual == hakmem::region_allocator<char>(nullptr));
    CHECK(in_usual == hakmem::region_allocator<int>(hakmem::allocator<char>()));
    CHECK(in_usual != in_a);
    CHECK(hakmem::allocator<int>() == hakmem::allocator<long>());
    CHECK(!(hakmem::allocator<int>() != hakmem::allocator<long>()));
}

/* What a container of each may promise, checked by the compiler. */
static_assert(sizeof(std::vector<int, hakmem::allocator<int>>) == sizeof(std::vector<int>));
static_assert(sizeof(std::basic_string<char, std::char_traits<char>, hakmem::allocator<char>>) ==
              sizeof(std::string));
static_assert(sizeof(region_vector<int>) == sizeof(std::vector<int>) + sizeof(void *));
static_assert(std::is_nothrow_move_assignable_v<std::vector<int, hakmem::allocator<int>>>);
static_assert(std::is_nothrow_swappable_v<region_vector<int>>);
static_assert(!std::is_nothrow_move_assignable_v<region_vector<int>>);
static_assert(std::is_nothrow_move_constructible_v<region_vector<int>>);
static_assert(!std::is_default_constructible_v<hakmem::region_allocator<int>>);
static_assert(!std::is_constructible_v<hakmem::region_allocator<int>, hakmem::region>);
static_assert(!std::is_constructible_v<hakmem::memory_resource, hakmem::region>);
static_assert(!std::is_convertible_v<hakmem::region_allocator<int>, hakmem::allocator<int>>);
static_assert(
    std::is_same_v<std::allocator_traits<hakmem::region_allocator<int>>::rebind_alloc<long>,
                   hakmem::region_allocator<long>>);

HARNESS_MAIN()
