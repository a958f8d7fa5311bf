/* SPDX-License-Identifier: MIT */
/*
 * What the programs new_*.cc share: each replaces some operators new and delete and counts who
 * comes by. [new.delete]: the array form calls the plain one, the nothrow form the throwing one,
 * sized delete the unsized one; so who replaces the inner form gets all of them.
 */
#ifndef HAK_TESTS_PRELOAD_NEW_STEPS_H
#define HAK_TESTS_PRELOAD_NEW_STEPS_H

#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>

/* clang declares these only where it is told to (-fsized-deallocation). */
void operator delete(void *object, std::size_t size) noexcept;
void operator delete[](void *object, std::size_t size) noexcept;
void operator delete(void *object, std::size_t size, std::align_val_t alignment) noexcept;
void operator delete[](void *object, std::size_t size, std::align_val_t alignment) noexcept;

static int news, deletes, failures;

static void expect(const char *step, int wanted_news, int wanted_deletes)
{
    if (news != wanted_news || deletes != wanted_deletes) {
        std::printf("%s: %d calls of new and %d of delete, not %d and %d\n", step, news, deletes,
                    wanted_news, wanted_deletes);
        failures++;
    }
    news = deletes = 0;
}

/* Each step makes so many calls of the program's operators. */
static void plain_steps(int plain, int array)
{
    news = deletes = 0;
    void *object = operator new(100);
    operator delete(object);
    expect("plain", plain, plain);
    object = operator new(100, std::nothrow);
    operator delete(object, std::nothrow);
    expect("nothrow", plain, plain);
    object = operator new(100);
    operator delete (object, std::size_t{100});
    expect("sized delete", plain, plain);
    object = operator new[](100);
    operator delete[](object);
    expect("array", array, array);
    object = operator new[](100, std::nothrow);
    operator delete[](object, std::nothrow);
    expect("nothrow array", array, array);
    object = operator new[](100);
    operator delete[](object, std::size_t{100});
    expect("sized array delete", array, array);
    /* libstdc++ has its code for this in a shared library: the object, its text twice. */
    std::string *text = new std::string(1000, 't');
    text->append(100000, 'u');
    delete text;
    expect("std::string", 3 * plain, 3 * plain);
}

static void aligned_steps(int aligned)
{
    news = deletes = 0;
    const std::align_val_t as{256};
    void *object = operator new(100, as);
    operator delete(object, as);
    expect("aligned", aligned, aligned);
    object = operator new(100, as, std::nothrow);
    operator delete(object, as, std::nothrow);
    expect("aligned nothrow", aligned, aligned);
    object = operator new(100, as);
    operator delete (object, std::size_t{100}, as);
    expect("aligned sized delete", aligned, aligned);
    object = operator new[](100, as);
    operator delete[](object, as);
    expect("aligned array", aligned, aligned);
    object = operator new[](100, as, std::nothrow);
    operator delete[](object, as, std::nothrow);
    expect("aligned nothrow array", aligned, aligned);
    object = operator new[](100, as);
    operator delete[](object, std::size_t{100}, as);
    expect("aligned sized array delete", aligned, aligned);
}

#endif
