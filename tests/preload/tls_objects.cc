/* SPDX-License-Identifier: MIT */
/*
 * A library with thread_local objects whose constructors and destructors allocate, to be opened and
 * closed. tls_use() makes the calling thread's and says whether they are whole; tls_alive() is how
 * many threads have them.
 */
#include <atomic>
#include <map>
#include <string>
#include <vector>

static std::atomic<int> alive{0};

struct objects {
    std::vector<std::string> words;
    std::map<int, std::string> numbers;
    objects()
    {
        alive++;
        for (int i = 0; i < 200; i++) {
            words.emplace_back(50 + i, 'w');
            numbers[i] = std::to_string(i) + std::string(100, '.');
        }
    }
    ~objects()
    {
        std::string last(70000, 'x');
        words.push_back(last);
        alive--;
    }
};

static thread_local objects mine;
static thread_local char big_block[8192];
static std::string of_the_library(10000, 'l');

extern "C" int tls_use(int seed);
extern "C" int tls_alive(void);

int tls_use(int seed)
{
    big_block[seed % 8192] = static_cast<char>(seed);
    mine.words[seed % 200] += std::string(seed % 3000, 'y');
    mine.numbers.erase(seed % 50);
    return mine.words[199].size() >= 249 && mine.numbers.at(150).substr(0, 3) == "150" &&
           of_the_library.size() == 10000;
}

int tls_alive(void)
{
    return alive;
}
