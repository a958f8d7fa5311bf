// SPDX-License-Identifier: MIT
/*
 * The standard containers in a region, by hakmem::allocator, hakmem::region_allocator and std::pmr:
 * each does the same random steps as its twin on the ordinary heap, ends with the same contents,
 * and has its elements in the region that it was told.
 */
#include <deque>
#include <forward_list>
#include <functional>
#include <list>
#include <map>
#include <queue>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tests/hpp_kit.hpp"

namespace
{

constexpr unsigned steps = 6000;

template <class World, class T> using allocator_of = typename World::template allocator<T>;

unsigned draw(std::uint64_t &state, std::size_t below)
{
    return static_cast<unsigned>(harness_random(&state) % below);
}

/* Same contents in the same order, and every element in the world's region. */
template <class World, class Container, class Twin>
void check_same(const World &world, const Container &container, const Twin &twin)
{
    auto expected = twin.begin();
    for (const auto &element : container) {
        CHECK(expected != twin.end());
        CHECK(element == *expected);
        CHECK(kit::lies_in(world.handle, &element));
        ++expected;
    }
    CHECK(expected == twin.end());
}

} // namespace

TEST(hpp_vector)
{
    kit::in_every_world([](const auto &world) {
        using World = std::decay_t<decltype(world)>;
        std::uint64_t state = harness_seed();
        std::vector<int, allocator_of<World, int>> numbers(world.template in<int>());
        std::vector<int> twin;
        for (unsigned i = 0; i < steps; i++) {
            const unsigned at = draw(state, twin.size() + 1);
            if (at < twin.size() && draw(state, 4) == 0) {
                numbers.erase(numbers.begin() + at);
                twin.erase(twin.begin() + at);
            } else {
                numbers.insert(numbers.begin() + at, static_cast<int>(i));
                twin.insert(twin.begin() + at, static_cast<int>(i));
            }
        }
        check_same(world, numbers, twin);
        numbers.shrink_to_fit();
        check_same(world, numbers, twin);
        /* Over 256 KiB it is a large object; large_bytes shows whether it went back. */
        numbers.resize(kit::MiB);
        twin.resize(kit::MiB);
        CHECK(numbers == (std::vector<int, allocator_of<World, int>>(twin.begin(), twin.end(),
                                                                     world.template in<int>())));
        CHECK_GE(kit::stats(world.handle).large_bytes, kit::MiB * sizeof(int));
    });
}

TEST(hpp_vector_of_bool)
{
    kit::in_every_world([](const auto &world) {
        using World = std::decay_t<decltype(world)>;
        std::uint64_t state = harness_seed();
        std::vector<bool, allocator_of<World, bool>> flags(world.template in<bool>());
        std::vector<bool> twin;
        for (unsigned i = 0; i < steps; i++) {
            const bool flag = draw(state, 2) == 1;
            flags.push_back(flag);
            twin.push_back(flag);
        }
        for (unsigned i = 0; i < steps; i++) {
            CHECK(flags[i] == twin[i]);
        }
    });
}

TEST(hpp_deque)
{
    kit::in_every_world([](const auto &world) {
        using World = std::decay_t<decltype(world)>;
        std::uint64_t state = harness_seed();
        std::deque<long, allocator_of<World, long>> line(world.template in<long>());
        std::deque<long> twin;
        for (unsigned i = 0; i < steps; i++) {
            switch (draw(state, 5)) {
            case 0:
            case 1:
                line.push_back(i);
                twin.push_back(i);
                break;
            case 2:
            case 3:
                line.push_front(i);
                twin.push_front(i);
                break;
            default:
                if (!twin.empty()) {
                    line.pop_front();
                    twin.pop_front();
                }
            }
        }
        check_same(world, line, twin);
    });
}

TEST(hpp_list_and_forward_list)
{
    kit::in_every_world([](const auto &world) {
        using World = std::decay_t<decltype(world)>;
        std::uint64_t state = harness_seed();
        std::list<unsigned, allocator_of<World, unsigned>> chain(world.template in<unsigned>());
        std::forward_list<unsigned, allocator_of<World, unsigned>> single(
            world.template in<unsigned>());
        std::list<unsigned> twin;
        for (unsigned i = 0; i < steps; i++) {
            const unsigned number = draw(state, 1000);
            chain.push_front(number);
            single.push_front(number);
            twin.push_front(number);
        }
        check_same(world, chain, twin);
        check_same(world, single, twin);
        const auto odd = [](unsigned number) { return number % 2 == 1; };
        chain.remove_if(odd);
        single.remove_if(odd);
        twin.remove_if(odd);
        chain.sort();
        single.sort();
        twin.sort();
        /* splice and merge hand nodes on; within a region they may. */
        std::list<unsigned, allocator_of<World, unsigned>> more({1U, 500U, 2000U},
                                                                world.template in<unsigned>());
        chain.merge(more);
        CHECK(more.empty());
        std::list<unsigned> more_twin({1U, 500U, 2000U});
        twin.merge(more_twin);
        check_same(world, chain, twin);
    });
}

TEST(hpp_map_and_multimap)
{
    kit::in_every_world([](const auto &world) {
        using World = std::decay_t<decltype(world)>;
        using pair = std::pair<const unsigned, double>;
        std::uint64_t state = harness_seed();
        std::map<unsigned, double, std::less<>, allocator_of<World, pair>> one(
            world.template in<pair>());
        std::multimap<unsigned, double, std::less<>, allocator_of<World, pair>> many(
            world.template in<pair>());
        std::map<unsigned, double> one_twin;
        std::multimap<unsigned, double> many_twin;
        for (unsigned i = 0; i < steps; i++) {
            const unsigned key = draw(state, 500);
            if (draw(state, 8) == 0) {
                one.erase(key);
                one_twin.erase(key);
                many.erase(key);
                many_twin.erase(key);
            } else {
                one[key] = i;
                one_twin[key] = i;
                many.emplace(key, i);
                many_twin.emplace(key, i);
            }
        }
        check_same(world, one, one_twin);
        check_same(world, many, many_twin);
    });
}

TEST(hpp_set)
{
    kit::in_every_world([](const auto &world) {
        using World = std::decay_t<decltype(world)>;
        std::uint64_t state = harness_seed();
        std::set<unsigned, std::greater<>, allocator_of<World, unsigned>> sorted(
            world.template in<unsigned>());
        std::set<unsigned, std::greater<>> twin;
        for (unsigned i = 0; i < steps; i++) {
            const unsigned key = draw(state, 2000);
            CHECK(sorted.insert(key).second == twin.insert(key).second);
        }
        check_same(world, sorted, twin);
        /* A node handle carries its allocator along. */
        auto node = sorted.extract(sorted.begin());
        node.value() = 5000;
        sorted.insert(std::move(node));
        CHECK_EQ(*sorted.begin(), 5000);
        CHECK_EQ(sorted.size(), twin.size());
    });
}

TEST(hpp_unordered_map)
{
    kit::in_every_world([](const auto &world) {
        using World = std::decay_t<decltype(world)>;
        using pair = std::pair<const unsigned, unsigned>;
        std::uint64_t state = harness_seed();
        std::unordered_map<unsigned, unsigned, std::hash<unsigned>, std::equal_to<>,
                           allocator_of<World, pair>>
            table(world.template in<pair>());
        std::unordered_map<unsigned, unsigned> twin;
        for (unsigned i = 0; i < steps; i++) {
            const unsigned key = draw(state, 3000);
            if (draw(state, 4) == 0) {
                table.erase(key);
                twin.erase(key);
            } else {
                table[key] = i;
                twin[key] = i;
            }
        }
        table.rehash(10 * steps);
        CHECK_EQ(table.size(), twin.size());
        for (const auto &entry : table) {
            CHECK_EQ(twin.at(entry.first), entry.second);
            CHECK(kit::lies_in(world.handle, &entry));
        }
    });
}

TEST(hpp_string)
{
    kit::in_every_world([](const auto &world) {
        using World = std::decay_t<decltype(world)>;
        std::basic_string<char, std::char_traits<char>, allocator_of<World, char>> text(
            world.template in<char>());
        std::string twin;
        for (unsigned i = 0; i < steps; i++) {
            const std::string word = std::to_string(i) + ' ';
            text.append(word.data(), word.size());
            twin += word;
        }
        CHECK_EQ(text.size(), twin.size());
        CHECK(text.compare(0, text.npos, twin.data(), twin.size()) == 0);
        CHECK(kit::lies_in(world.handle, text.data()));
        text.erase(3, text.size() - 6);
        twin.erase(3, twin.size() - 6);
        text.shrink_to_fit();
        CHECK(twin == text.c_str());
    });
}

TEST(hpp_priority_queue)
{
    kit::in_every_world([](const auto &world) {
        using World = std::decay_t<decltype(world)>;
        using numbers = std::vector<unsigned, allocator_of<World, unsigned>>;
        std::uint64_t state = harness_seed();
        std::priority_queue<unsigned, numbers> heap(std::less<unsigned>{},
                                                    numbers(world.template in<unsigned>()));
        std::multiset<unsigned, std::greater<>> twin;
        for (unsigned i = 0; i < steps; i++) {
            const unsigned number = draw(state, 100000);
            heap.push(number);
            twin.insert(number);
        }
        CHECK(kit::lies_in(world.handle, &heap.top()));
        for (const unsigned number : twin) {
            CHECK_EQ(heap.top(), number);
            heap.pop();
        }
        CHECK(heap.empty());
    });
}

TEST(hpp_function_objects_by_allocate_shared)
{
    kit::in_every_world([](const auto &world) {
        using task = std::function<int(int)>;
        std::vector<std::shared_ptr<task>> tasks;
        std::weak_ptr<task> last;
        for (int i = 0; i < 1000; i++) {
            tasks.push_back(std::allocate_shared<task>(world.template in<task>(),
                                                       [i](int by) { return i * by; }));
            CHECK(kit::lies_in(world.handle, tasks.back().get()));
        }
        for (int i = 0; i < 1000; i++) {
            CHECK_EQ((*tasks[static_cast<std::size_t>(i)])(3), 3 * i);
        }
        last = tasks.back();
        tasks.clear();
        CHECK(last.expired());
    });
}

HARNESS_MAIN()
