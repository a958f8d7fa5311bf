// SPDX-License-Identifier: MIT
/*
 * Several threads with containers in the same regions: each with its own, handing them to another
 * that destroys them, and one resource used by all at once.
 */
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/hpp_kit.hpp"

namespace
{

constexpr unsigned thread_count = 4;

using text = std::basic_string<char, std::char_traits<char>, hakmem::allocator<char>>;
using texts = std::vector<text, hakmem::allocator<text>>;
using tree = std::map<int, int, std::less<>, hakmem::region_allocator<std::pair<const int, int>>>;

template <class Body> void in_threads(Body body)
{
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < thread_count; i++) {
        threads.emplace_back(body, i);
    }
    for (std::thread &each : threads) {
        each.join();
    }
}

/* What is handed over: containers of both regions, by the default and by a handle. */
struct Parcel {
    texts lines;
    tree numbers;
    std::pmr::vector<int> pmr_numbers;
    unsigned from;

    Parcel(unsigned number, const hakmem::region &owner, hakmem::memory_resource &resource)
        : numbers(owner), pmr_numbers(&resource), from(number)
    {
        for (int i = 0; i < 100; i++) {
            lines.emplace_back(static_cast<std::size_t>(20 + i), static_cast<char>('a' + number));
            numbers[i * 37 % 100] = static_cast<int>(number) + i;
            pmr_numbers.push_back(i);
        }
    }
    bool whole() const
    {
        int sum = 0;
        for (const auto &entry : numbers) {
            sum += entry.second;
        }
        return lines.size() == 100 && numbers.size() == 100 &&
               lines[99] == text(119, static_cast<char>('a' + from)) &&
               sum == 4950 + 100 * static_cast<int>(from) && pmr_numbers[99] == 99;
    }
};

/* A queue with an end, between threads. */
class Belt
{
  public:
    void put(std::unique_ptr<Parcel> parcel)
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        parcels_.push_back(std::move(parcel));
        ready_.notify_one();
    }
    std::unique_ptr<Parcel> take()
    {
        std::unique_lock<std::mutex> lock(mutex_);
        ready_.wait(lock, [this] { return !parcels_.empty(); });
        std::unique_ptr<Parcel> parcel = std::move(parcels_.front());
        parcels_.pop_front();
        return parcel;
    }

  private:
    std::mutex mutex_;
    std::condition_variable ready_;
    std::deque<std::unique_ptr<Parcel>> parcels_;
};

} // namespace

TEST(hpp_threads_fill_containers_of_one_region)
{
    const hakmem::region usual = kit::standard(32 * kit::MiB);
    const hakmem::region owner = kit::further(32 * kit::MiB);
    hakmem::memory_resource resource(owner);
    std::vector<int> whole(thread_count);
    in_threads([&](unsigned number) {
        for (int round = 0; round < 200; round++) {
            const Parcel mine(number, owner, resource);
            whole[number] += mine.whole();
        }
    });
    for (const int rounds : whole) {
        CHECK_EQ(rounds, 200);
    }
    CHECK_EQ(kit::stats(nullptr).misuses, 0);
    CHECK_EQ(kit::stats(owner.handle()).misuses, 0);
}

TEST(hpp_containers_are_destroyed_by_another_thread)
{
    constexpr unsigned rounds = 1000;
    const hakmem::region usual = kit::standard(32 * kit::MiB);
    const hakmem::region owner = kit::further(32 * kit::MiB);
    hakmem::memory_resource resource(owner);
    std::vector<Belt> belts(thread_count);
    std::vector<unsigned> whole(thread_count);
    /* A ring: what one makes, the next one checks, adds to and destroys. That every parcel's
     * memory comes back shows in that it fits: 4,000 of some 30 KiB pass through 64 MiB. */
    in_threads([&](unsigned number) {
        for (unsigned round = 0; round < rounds; round++) {
            belts[(number + 1) % thread_count].put(
                std::make_unique<Parcel>(number, owner, resource));
            const std::unique_ptr<Parcel> got = belts[number].take();
            whole[number] += got->whole();
            got->lines.resize(got->lines.size() / 2);
            got->lines.emplace_back(500, 'z');
            got->numbers.erase(50);
            got->numbers[1000] = 1;
            got->pmr_numbers.resize(1000);
        }
    });
    for (const unsigned each : whole) {
        CHECK_EQ(each, rounds);
    }
    CHECK_EQ(kit::stats(nullptr).misuses, 0);
    CHECK_EQ(kit::stats(owner.handle()).misuses, 0);
    CHECK_EQ(kit::stats(nullptr).exhausted, 0);
    CHECK_EQ(kit::stats(owner.handle()).exhausted, 0);
}

TEST(hpp_one_resource_serves_all_threads)
{
    const hakmem::region owner = kit::further(32 * kit::MiB);
    hakmem::memory_resource resource(owner);
    std::vector<unsigned> wrong(thread_count);
    in_threads([&](unsigned number) {
        std::uint64_t state = number + 1;
        std::vector<std::pair<unsigned char *, std::size_t>> held(64);
        for (int i = 0; i < 100000; i++) {
            auto &slot = held[harness_random(&state) % held.size()];
            if (slot.first != nullptr) {
                wrong[number] += slot.first[0] != number || slot.first[slot.second - 1] != number;
                resource.deallocate(slot.first, slot.second);
            }
            slot.second = 1 + harness_random(&state) % 2000;
            slot.first = static_cast<unsigned char *>(resource.allocate(slot.second));
            slot.first[0] = slot.first[slot.second - 1] = static_cast<unsigned char>(number);
        }
        for (auto &slot : held) {
            if (slot.first != nullptr) {
                resource.deallocate(slot.first, slot.second);
            }
        }
    });
    for (const unsigned each : wrong) {
        CHECK_EQ(each, 0);
    }
    CHECK_EQ(kit::stats(owner.handle()).misuses, 0);
}

HARNESS_MAIN()
