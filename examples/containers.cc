/* SPDX-License-Identifier: MIT */
/* Standard containers in hakmem's regions: an order book whose hot part has a region of its own. */
#include <hakmem.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <map>
#include <memory_resource>
#include <string>
#include <unordered_map>

namespace
{

struct Order {
    std::uint64_t id;
    unsigned price, quantity;
};

/* A price level's orders are pmr containers too: they take the book's region over by themselves. */
class Book
{
  public:
    explicit Book(std::pmr::memory_resource &where) : levels_(&where), names_(&where)
    {
    }
    void add(const Order &order, const char *trader)
    {
        levels_[order.price].push_back(order);
        names_.insert_or_assign(order.id, trader);
    }
    unsigned best_price() const
    {
        return levels_.empty() ? 0 : levels_.begin()->first;
    }
    const char *best_trader() const
    {
        return levels_.empty() ? "" : names_.at(levels_.begin()->second.front().id).c_str();
    }

  private:
    std::pmr::map<unsigned, std::pmr::vector<Order>, std::greater<>> levels_;
    std::pmr::unordered_map<std::uint64_t, std::pmr::string> names_;
};

/* The default region, in the type: no pointer in the string, no virtual call. */
using Text = std::basic_string<char, std::char_traits<char>, hakmem::allocator<char>>;

hak_config megabytes(std::size_t count)
{
    hak_config config{};
    config.size_bytes = count << 20;
    config.pages[0] = HAK_PAGES_2M;
    config.pages[1] = HAK_PAGES_THP;
    config.pages[2] = HAK_PAGES_4K;
    return config;
}

void overfill(Book &book)
{
    try {
        for (unsigned i = 0;; i++) {
            book.add({10000 + i, i, 1}, "one who never stops sending orders");
        }
    } catch (const std::bad_alloc &) {
        hak_error error;
        (void)hak_last_error(&error);
        std::printf("the book is full, and says so: %s\n", error.message);
    }
}

void run()
{
    const hakmem::region usual = hakmem::region::init(megabytes(64));
    const hakmem::region hot(megabytes(16));
    hakmem::memory_resource in_hot(hot);

    Book book(in_hot);
    for (unsigned i = 0; i < 10000; i++) {
        book.add({i, 100 + i * 7919 % 1000, 10}, i % 2 == 0 ? "a trader with quite a long name"
                                                            : "another one, with a longer name");
    }
    Text line("best price ");
    line += std::to_string(book.best_price()).c_str();
    line += ", by ";
    line += book.best_trader();
    std::puts(line.c_str());

    overfill(book);
    hak_stats stats{};
    if (hak_region_stats(usual.handle(), &stats) == 0) {
        std::printf("it still has its best price, %u, and the default region %zu MiB of room\n",
                    book.best_price(), stats.free_bytes >> 20);
    }
}

} // namespace

int main()
{
    try {
        run();
        return 0;
    } catch (const hakmem::error &error) {
        std::fprintf(stderr, "%s\n%s\n", error.what(), error.record().remedy);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
    }
    return 1;
}
