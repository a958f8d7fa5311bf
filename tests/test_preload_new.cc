/* SPDX-License-Identifier: MIT */
/*
 * The operators new and delete on the region, in all their forms, by [new.delete] of C++17: what
 * they give, what happens when there is nothing left, and which of them a program that replaces
 * some gets. Objects made before main and ended after it have a part of their own at the end.
 */
#include "tests/preload_kit.h"

#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

/* NOLINTBEGIN(clang-analyzer-unix.*,clang-analyzer-cplusplus.*): objects pass through kit_keep,
 * where the analyser loses them. */

/* clang declares these only where it is told to (-fsized-deallocation). */
void operator delete(void *object, std::size_t size) noexcept;
void operator delete[](void *object, std::size_t size) noexcept;
void operator delete(void *object, std::size_t size, std::align_val_t alignment) noexcept;
void operator delete[](void *object, std::size_t size, std::align_val_t alignment) noexcept;

/* Too much for a region of SMALL. */
static constexpr size_t TOO_MUCH = 64 * MIB;
#define SMALL "HAKMEM_REGION_SIZE=8M", "HAKMEM_PAGES=4k", "HAKMEM_PREFAULT=0"

static constexpr size_t sizes[] = {0, 1, 16, 100, 1000, 5000, 70000, 300000, 3 * MIB};

static bool aligned_to(const void *pointer, size_t alignment)
{
    return (reinterpret_cast<uintptr_t>(pointer) & (alignment - 1)) == 0;
}

static void check_object(void *object, size_t bytes, size_t alignment)
{
    CHECK(object != nullptr);
    CHECK(aligned_to(object, alignment));
    CHECK_GE(malloc_usable_size(object), bytes);
    kit_fill(object, bytes, bytes);
    CHECK(!kit_on_region() || kit_in_region(object));
}

/* ---- every form ------------------------------------------------------------------------------ */

CONTRACT(plain_array_and_nothrow_forms)
{
    for (size_t size : sizes) {
        for (int round = 0; round < 3; round++) {
            void *one = kit_keep(operator new(size)), *many = kit_keep(operator new[](size));
            void *quiet = kit_keep(operator new(size, std::nothrow));
            void *quiet_many = kit_keep(operator new[](size, std::nothrow));
            void *all[] = {one, many, quiet, quiet_many};
            for (void *object : all) {
                check_object(object, size, 16);
            }
            CHECK(one != many && quiet != quiet_many && one != quiet);
            if (round == 0) {
                operator delete(one);
                operator delete[](many);
            } else if (round == 1) {
                operator delete(one, std::nothrow);
                operator delete[](many, std::nothrow);
            } else {
                operator delete(one, size);
                operator delete[](many, size);
            }
            operator delete(quiet, std::nothrow);
            operator delete[](quiet_many, std::nothrow);
        }
    }
}

CONTRACT(aligned_forms)
{
    for (size_t alignment = 1; alignment <= 4 * MIB; alignment *= 2) {
        const std::align_val_t as{alignment};
        for (size_t size : sizes) {
            void *one = kit_keep(operator new(size, as));
            void *many = kit_keep(operator new[](size, as));
            void *quiet = kit_keep(operator new(size, as, std::nothrow));
            void *quiet_many = kit_keep(operator new[](size, as, std::nothrow));
            void *all[] = {one, many, quiet, quiet_many};
            for (void *object : all) {
                check_object(object, size, alignment);
            }
            operator delete(one, as);
            operator delete[](many, as);
            operator delete(quiet, as, std::nothrow);
            operator delete[](quiet_many, as, std::nothrow);
            operator delete(kit_keep(operator new(size, as)), size, as);
            operator delete[](kit_keep(operator new[](size, as)), size, as);
        }
    }
}

CONTRACT(delete_of_nullptr_does_nothing)
{
    const std::align_val_t as{64};
    operator delete(kit_keep(nullptr));
    operator delete[](kit_keep(nullptr));
    operator delete(kit_keep(nullptr), std::nothrow);
    operator delete[](kit_keep(nullptr), std::nothrow);
    operator delete (kit_keep(nullptr), size_t{8});
    operator delete[](kit_keep(nullptr), size_t{8});
    operator delete(kit_keep(nullptr), as);
    operator delete[](kit_keep(nullptr), as);
    operator delete(kit_keep(nullptr), as, std::nothrow);
    operator delete[](kit_keep(nullptr), as, std::nothrow);
    operator delete (kit_keep(nullptr), size_t{8}, as);
    operator delete[](kit_keep(nullptr), size_t{8}, as);
}

/* ---- exhaustion ------------------------------------------------------------------------------ */

template <typename Call> static bool throws_bad_alloc(Call call)
{
    try {
        kit_keep(call());
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}

CONTRACT(impossible_sizes_throw_and_nothrow_gives_nullptr)
{
    for (size_t size : {size_t{PTRDIFF_MAX}, SIZE_MAX - 4096, SIZE_MAX}) {
        CHECK(throws_bad_alloc([=] { return operator new(kit_opaque(size)); }));
        CHECK(throws_bad_alloc([=] { return operator new[](kit_opaque(size)); }));
        CHECK(kit_keep(operator new(kit_opaque(size), std::nothrow)) == nullptr);
        CHECK(kit_keep(operator new[](kit_opaque(size), std::nothrow)) == nullptr);
    }
}

/* Not a CONTRACT: libstdc++ 12 rounds SIZE_MAX up to a multiple of the alignment, which is 0. */
PRELOADED(impossible_aligned_sizes_throw_and_nothrow_gives_nullptr)
{
    const std::align_val_t as{256};
    for (size_t size : {size_t{PTRDIFF_MAX}, SIZE_MAX - 4096, SIZE_MAX - 254, SIZE_MAX}) {
        CHECK(throws_bad_alloc([=] { return operator new(kit_opaque(size), as); }));
        CHECK(throws_bad_alloc([=] { return operator new[](kit_opaque(size), as); }));
        CHECK(kit_keep(operator new(kit_opaque(size), as, std::nothrow)) == nullptr);
        CHECK(kit_keep(operator new[](kit_opaque(size), as, std::nothrow)) == nullptr);
    }
}

PRELOADED(a_full_region_throws_bad_alloc, SMALL)
{
    const std::align_val_t as{4096};
    CHECK(throws_bad_alloc([] { return operator new(TOO_MUCH); }));
    CHECK(throws_bad_alloc([] { return operator new[](TOO_MUCH); }));
    CHECK(throws_bad_alloc([=] { return operator new(TOO_MUCH, as); }));
    CHECK(throws_bad_alloc([=] { return operator new[](TOO_MUCH, as); }));
    CHECK(kit_keep(operator new(TOO_MUCH, std::nothrow)) == nullptr);
    CHECK(kit_keep(operator new[](TOO_MUCH, std::nothrow)) == nullptr);
    CHECK(kit_keep(operator new(TOO_MUCH, as, std::nothrow)) == nullptr);
    CHECK(kit_keep(operator new[](TOO_MUCH, as, std::nothrow)) == nullptr);
}

PRELOADED(a_region_filled_by_small_objects_throws_and_recovers, SMALL)
{
    static void *held[20000];
    for (int round = 0; round < 3; round++) {
        size_t count = 0;
        CHECK(throws_bad_alloc([&]() -> void * {
            while (count < 20000) {
                void *object = operator new(1000);
                held[count++] = object;
            }
            return nullptr;
        }));
        CHECK_GE(count, 6000); /* of 8 MiB */
        while (count > 0) {
            operator delete (held[--count], size_t{1000});
        }
    }
    std::map<int, std::string> works;
    for (int i = 0; i < 1000; i++) {
        works[i] = std::string(100, 'x');
    }
    CHECK_EQ(works.size(), 1000);
}

static int handler_calls;
static void *reserve[4];

/* Gives one of its reserves back each time. The region holds the object after the last of them. */
static void free_a_reserve()
{
    CHECK(handler_calls < 4);
    free(reserve[handler_calls++]);
}

PRELOADED(the_new_handler_is_called_until_there_is_room, SMALL)
{
    size_t got = 0;
    for (void *&one : reserve) {
        one = kit_keep(malloc(MIB));
        CHECK(one != nullptr);
    }
    /* Whatever else there is of this size. */
    void *rest[16];
    for (; got < 16; got++) {
        rest[got] = kit_keep(operator new(MIB, std::nothrow));
        if (rest[got] == nullptr) {
            break;
        }
    }
    CHECK(got < 16);
    std::set_new_handler(free_a_reserve);
    CHECK(std::get_new_handler() == free_a_reserve);
    /* Each call gives one MiB back; two that lie side by side are there by the fourth. */
    void *object = kit_keep(operator new(MIB + MIB / 2));
    CHECK(object != nullptr);
    CHECK(handler_calls >= 2);
    CHECK(handler_calls <= 4);
    operator delete(object);
    std::set_new_handler(nullptr);
}

static void give_up_at_the_third()
{
    if (++handler_calls == 3) {
        std::set_new_handler(nullptr);
    }
}

PRELOADED(a_handler_that_takes_itself_away_ends_in_bad_alloc, SMALL)
{
    const std::align_val_t as{64};
    for (int form = 0; form < 4; form++) {
        handler_calls = 0;
        std::set_new_handler(give_up_at_the_third);
        CHECK(throws_bad_alloc([=] {
            return form == 0   ? operator new(TOO_MUCH)
                   : form == 1 ? operator new[](TOO_MUCH)
                   : form == 2 ? operator new(TOO_MUCH, as)
                               :
                               operator new[](TOO_MUCH, as);
        }));
        CHECK_EQ(handler_calls, 3);
    }
    for (int form = 0; form < 4; form++) {
        handler_calls = 0;
        std::set_new_handler(give_up_at_the_third);
        void *object = form == 0   ? operator new(TOO_MUCH, std::nothrow)
                       : form == 1 ? operator new[](TOO_MUCH, std::nothrow)
                       : form == 2 ? operator new(TOO_MUCH, as, std::nothrow)
                                   :
                                   operator new[](TOO_MUCH, as, std::nothrow);
        CHECK(kit_keep(object) == nullptr);
        CHECK_EQ(handler_calls, 3);
    }
}

struct no_room : std::bad_alloc {
    const char *what() const noexcept override
    {
        return "no room";
    }
};

static void throw_own()
{
    handler_calls++;
    throw no_room();
}

PRELOADED(what_the_handler_throws_reaches_the_caller, SMALL)
{
    const std::align_val_t as{64};
    bool caught = false;
    std::set_new_handler(throw_own);
    try {
        kit_keep(operator new(TOO_MUCH));
    } catch (const no_room &error) {
        caught = strcmp(error.what(), "no room") == 0;
    }
    CHECK(caught);
    CHECK_EQ(handler_calls, 1);
    /* The nothrow forms take it for what it says. */
    CHECK(kit_keep(operator new(TOO_MUCH, std::nothrow)) == nullptr);
    CHECK(kit_keep(operator new[](TOO_MUCH, std::nothrow)) == nullptr);
    CHECK(kit_keep(operator new(TOO_MUCH, as, std::nothrow)) == nullptr);
    CHECK(kit_keep(operator new[](TOO_MUCH, as, std::nothrow)) == nullptr);
    CHECK_EQ(handler_calls, 5);
}

PRELOADED(malloc_does_not_call_the_handler, SMALL)
{
    std::set_new_handler(throw_own);
    errno = 0;
    CHECK(kit_keep(malloc(TOO_MUCH)) == nullptr);
    CHECK_EQ(errno, ENOMEM);
    CHECK(kit_keep(calloc(TOO_MUCH, 1)) == nullptr);
    CHECK(kit_keep(aligned_alloc(64, TOO_MUCH)) == nullptr);
    CHECK_EQ(handler_calls, 0);
}

PRELOADED(containers_pass_bad_alloc_on_and_lose_nothing, SMALL)
{
    std::vector<std::string> strings(1000, std::string(100, 'a'));
    bool caught = false;
    try {
        while (true) {
            strings.emplace_back(100, 'b');
        }
    } catch (const std::bad_alloc &) {
        caught = true;
    }
    CHECK(caught);
    CHECK_GE(strings.size(), 10000);
    /* Not compared with another string: there is no room for one. */
    CHECK(strings[0].size() == 100 && strings[0][99] == 'a');
    CHECK(strings.back().size() == 100 && strings.back()[99] == 'b');
    strings.clear();
    strings.shrink_to_fit();
    std::vector<std::string> again(20000, std::string(100, 'c'));
    CHECK(again.back() == std::string(100, 'c'));
}

/* ---- programs that replace operators --------------------------------------------------------- */

/* A program's plain forms are called by the array and nothrow forms, and by shared libraries; the
 * aligned ones have nothing to do with them. */
TEST(replaced_plain_forms_serve_array_and_nothrow_forms)
{
    kit_contract_program(kit_compile("new_plain.cc", "new_plain", ""), nullptr);
}

TEST(replaced_array_forms_serve_nothrow_arrays)
{
    kit_contract_program(kit_compile("new_array.cc", "new_array", ""), nullptr);
}

TEST(replaced_aligned_forms_serve_aligned_arrays)
{
    kit_contract_program(kit_compile("new_aligned.cc", "new_aligned", ""), nullptr);
}

/* ---- before main and after it ---------------------------------------------------------------- */

struct early_object {
    std::string text = std::string(3000, 'e');
    std::map<int, std::unique_ptr<std::vector<int>>> numbers;
    early_object()
    {
        for (int i = 0; i < 100; i++) {
            numbers[i] = std::make_unique<std::vector<int>>(i, i);
        }
    }
    bool holds() const
    {
        return text == std::string(3000, 'e') && numbers.size() == 100 &&
               numbers.at(99)->back() == 99;
    }
    ~early_object()
    {
        std::string last(100000, 'l');
        if (!holds() || last[99999] != 'l') {
            _exit(HARNESS_CHILD_FAILED);
        }
    }
};

__attribute__((init_priority(101))) static early_object first_of_all;
static early_object usual;
static thread_local early_object of_this_thread;

CONTRACT(static_objects_live_from_before_main_to_after_it)
{
    CHECK(first_of_all.holds() && usual.holds() && of_this_thread.holds());
    first_of_all.numbers.erase(0);
    first_of_all.numbers[1000] = std::make_unique<std::vector<int>>(7, 7);
    for (int i = 0; i < 20; i++) {
        std::thread([] { CHECK(of_this_thread.holds()); }).join();
    }
}

/* NOLINTEND(clang-analyzer-unix.*,clang-analyzer-cplusplus.*): as above. */

KIT_MAIN()
