/* SPDX-License-Identifier: MIT */
/*
 * hakmem for C++17 and later: standard containers in a region. Header only, over hakmem.h, whose
 * terms, thread rules and costs hold here too.
 *
 *     hakmem::region             owns a region; ends it when it goes
 *     hakmem::memory_resource    std::pmr::memory_resource in the default region or in another one
 *     hakmem::default_resource   the resource of the default region, there for the whole program
 *     hakmem::allocator<T>       the default region; has no state, costs a container no byte
 *     hakmem::region_allocator<T>    a region by its handle; one pointer
 *     hakmem::make_unique, hakmem::allocate_unique    one object, owned by a std::unique_ptr
 *     hakmem::error              what a failed set-up throws; carries struct hak_error
 *
 * Two allocators and not one with a pointer in it: a std::string of hakmem::allocator is 32 bytes
 * as it always was, two allocators of one type are always equal, so that a move takes the memory
 * over and cannot throw, and the compiler sees hak_malloc itself.
 *
 * Handles. A NULL handle stands for the default region, whichever that is at each call, and so does
 * its own handle: both give equal resources and allocators. Resources and allocators do not own: a
 * region must outlive every object in it, containers included. Declare the region first.
 *
 * Out of memory. Where the C call returns NULL, std::bad_alloc is thrown; errno is the C call's and
 * hak_last_error tells what was asked, where and what is left. The new_handler of [new.handler] is
 * not run: it belongs to operator new and cannot know which region is short. hak_on_exhausted is
 * its counterpart here, and is called before anything is thrown. The exception object itself comes
 * from the C++ runtime, not from the region.
 *
 * Without exceptions (-fno-exceptions) the same failures write "hakmem: ..." to standard error and
 * call abort(), as misuse does in the library; the calls with a struct hak_error for an argument
 * neither throw nor abort. Without RTTI (-fno-rtti) memory_resource::is_equal takes two resources
 * for equal only when they are the same object. Both choices are part of the inline functions
 * below, so make them alike for every file of a program ([basic.def.odr]).
 *
 * [mem.res.private] and the like name sections of the C++ standard.
 */
#ifndef HAKMEM_HPP
#define HAKMEM_HPP

#include <hakmem.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <memory_resource>
#include <new>
#include <system_error>
#include <type_traits>
#include <utility>

/* The text is looked at only where nothing can be thrown. Taken back at the end. */
#if defined(__cpp_exceptions)
#define HAK_HPP_THROW(what, ...) throw what
#else
#define HAK_HPP_THROW(what, ...) ::hakmem::detail::stop(__VA_ARGS__)
#endif

namespace hakmem
{

/* ---- errors ------------------------------------------------------------------------------- */

/*
 * A set-up call that failed. what() is the record's message, code() the errno as a
 * std::error_code of the generic category (it compares with std::errc), record() the whole record
 * with the remedy. Copying allocates nothing and cannot fail.
 */
class error : public std::exception
{
  public:
    explicit error(const hak_error &record) noexcept : record_(record)
    {
    }
    const char *what() const noexcept override
    {
        return record_.message;
    }
    std::error_code code() const noexcept
    {
        return {-record_.code, std::generic_category()};
    }
    const hak_error &record() const noexcept
    {
        return record_;
    }

  private:
    hak_error record_;
};

namespace detail
{

/* The end of a program that has no exceptions. */
[[noreturn]] inline void stop(const char *message, const char *remedy = "") noexcept
{
    (void)std::fprintf(stderr, "hakmem: %s\n%s%s", message, remedy, *remedy != 0 ? "\n" : "");
    std::abort();
}

inline hak_error newest() noexcept
{
    hak_error record{};
    (void)hak_last_error(&record);
    return record;
}

/*
 * The record of a set-up call that returned code; code 0 gives an empty one. The process keeps one
 * set-up error for all threads: when another thread's has taken its place, the code speaks.
 */
inline void fetch(int code, hak_error &out) noexcept
{
    out = newest();
    if (code != 0 && out.kind == HAK_ERROR_SETUP && out.code == code) {
        return;
    }
    out = hak_error{};
    out.node = -1;
    out.code = code;
    if (code != 0) {
        out.kind = HAK_ERROR_SETUP;
        (void)std::snprintf(out.message, sizeof out.message, "set-up failed: %s",
                            std::strerror(-code));
    }
}

inline void check(int code)
{
    if (code != 0) {
        hak_error record;
        fetch(code, record);
        HAK_HPP_THROW(error(record), record.message, record.remedy);
    }
}

[[noreturn]] inline __attribute__((cold, noinline)) void no_room()
{
    HAK_HPP_THROW(std::bad_alloc(), newest().message);
}

[[noreturn]] inline __attribute__((cold, noinline)) void too_many()
{
    HAK_HPP_THROW(std::bad_array_new_length(), "an array of more bytes than std::size_t counts");
}

/* Memory of a region, NULL the default one; never returns NULL. */
inline void *take(hak_region *region, std::size_t bytes, std::size_t alignment)
{
    void *memory;
    if (alignment <= HAK_ALIGNMENT_MIN) {
        memory = region == nullptr ? hak_malloc(bytes) : hak_region_malloc(region, bytes);
    } else {
        memory = region == nullptr ? hak_aligned_alloc(alignment, bytes)
                                   : hak_region_aligned_alloc(region, alignment, bytes);
    }
    if (__builtin_expect(memory == nullptr, 0)) {
        no_room();
    }
    return memory;
}

inline void give(hak_region *region, void *memory, std::size_t bytes) noexcept
{
    if (region == nullptr) {
        hak_free_sized(memory, bytes);
    } else {
        hak_region_free_sized(region, memory, bytes);
    }
}

/* NOLINTNEXTLINE(bugprone-sizeof-expression): a pointer is as good an object as any */
template <class T> inline constexpr std::size_t size_of = sizeof(T);

/* Room for count objects; the product is checked. */
template <class T> T *take_array(hak_region *region, std::size_t count)
{
    static_assert(alignof(T) <= HAK_ALIGNMENT_MAX, "hakmem aligns to 1 GiB at most");
    if (__builtin_expect(count > SIZE_MAX / size_of<T>, 0)) {
        too_many();
    }
    return static_cast<T *>(take(region, count * size_of<T>, alignof(T)));
}

/* The default region is NULL, so that handles compare. */
inline hak_region *canonical(hak_region *region) noexcept
{
    return region == hak_region_default() ? nullptr : region;
}

} // namespace detail

/* ---- owning a region ---------------------------------------------------------------------- */

/*
 * Owns a region, as std::unique_ptr owns an object: moves, does not copy, ends the region when it
 * goes (hak_region_destroy, or hak_region_fini for the default one). By then every object of it
 * must be gone, and no other thread may be in one of its calls. One owner is used by one thread at
 * a time; the region by any.
 *
 * Each way to get one comes twice: throwing hakmem::error, and with a struct hak_error that is
 * filled instead (code 0, and an empty message, on success; otherwise the owner owns nothing).
 * Codes are those of the C call named. The config may be left out where it has a default: then
 * everything comes from the environment.
 */
class region
{
  public:
    /* Owns nothing. */
    region() noexcept = default;

    /* A further region: hak_region_create. */
    explicit region(const hak_config &config)
    {
        detail::check(hak_region_create(&config, &handle_));
    }
    region(const hak_config &config, hak_error &failure) noexcept
    {
        detail::fetch(hak_region_create(&config, &handle_), failure);
    }

    /* Takes over a region that was made otherwise; NULL: owns nothing. */
    explicit region(hak_region *owned) noexcept : handle_(owned)
    {
    }

    /* Sets the default region up: hak_region_init. */
    static region init(const hak_config &config = {})
    {
        detail::check(hak_region_init(&config));
        return region(hak_region_default());
    }
    static region init(const hak_config &config, hak_error &failure) noexcept
    {
        const int code = hak_region_init(&config);
        detail::fetch(code, failure);
        return region(code == 0 ? hak_region_default() : nullptr);
    }

    /* In the caller's memory: hak_region_adopt. size_bytes of hak_region_stats is what it uses. */
    static region adopt(void *start, std::size_t length, int node = -1,
                        const hak_config &config = {})
    {
        region adopted;
        detail::check(hak_region_adopt(start, length, node, &config, &adopted.handle_, nullptr));
        return adopted;
    }
    static region adopt(void *start, std::size_t length, int node, const hak_config &config,
                        hak_error &failure) noexcept
    {
        region adopted;
        detail::fetch(hak_region_adopt(start, length, node, &config, &adopted.handle_, nullptr),
                      failure);
        return adopted;
    }

    region(region &&other) noexcept : handle_(other.release())
    {
    }
    region(const region &) = delete;
    /* Ends what was owned before. */
    region &operator=(region other) noexcept
    {
        std::swap(handle_, other.handle_);
        return *this;
    }
    ~region()
    {
        (void)reset();
    }

    /* For the C calls; NULL when it owns nothing, which they take for the default region. */
    hak_region *handle() const noexcept
    {
        return handle_;
    }
    explicit operator bool() const noexcept
    {
        return handle_ != nullptr;
    }

    /* Gives the handle up; whoever has it ends the region. */
    [[nodiscard]] hak_region *release() noexcept
    {
        return std::exchange(handle_, nullptr);
    }

    /* Ends the region now. 0, also for nothing; otherwise what the C call returned: it was
     * ended elsewhere or did not come along into the child of a fork. Owns nothing afterwards. */
    int reset() noexcept
    {
        hak_region *ended = release();
        if (ended == nullptr) {
            return 0;
        }
        return ended == hak_region_default() ? hak_region_fini() : hak_region_destroy(ended);
    }

  private:
    hak_region *handle_ = nullptr;
};

namespace detail
{

/* The region of an owner that has one; an empty one must not pass for the default region. */
inline hak_region *handle_of(const region &owner)
{
    if (!owner) {
        hak_error record{};
        record.kind = HAK_ERROR_NO_REGION;
        record.code = -ENODEV;
        record.node = -1;
        (void)std::snprintf(record.message, sizeof record.message,
                            "a hakmem::region that owns nothing was asked for memory");
        HAK_HPP_THROW(error(record), record.message);
    }
    return canonical(owner.handle());
}

} // namespace detail

/* ---- std::pmr ----------------------------------------------------------------------------- */

/*
 * A memory resource in a region ([mem.res.class]); a handle, copied as one.
 *
 * allocate(bytes, alignment): as hak_malloc, beyond HAK_ALIGNMENT_MIN as hak_aligned_alloc; 0 bytes
 * give a least object of its own. Every power of two up to HAK_ALIGNMENT_MAX is honoured; what
 * cannot be had, larger alignments included, is std::bad_alloc ([mem.res.private]). deallocate is
 * hak_free_sized, so bytes must be those of allocate; it cannot fail. is_equal: the other is a
 * hakmem::memory_resource of the same region, which is when either may free the other's memory.
 *
 * Any thread, also several at a time: no lock or pool stands in front, as it would around
 * std::pmr::synchronized_pool_resource. A pool resource on top buys nothing, since the region has
 * size classes and thread caches of its own; a std::pmr::monotonic_buffer_resource does where much
 * is freed at once. Costs are those of the C calls, a virtual call and a branch.
 *
 * One node's memory: a region whose config.nodes names only that node.
 */
class memory_resource final : public std::pmr::memory_resource
{
  public:
    /* The default region. */
    constexpr memory_resource() noexcept = default;

    /* The region with this handle. */
    explicit memory_resource(hak_region *region) noexcept : region_(detail::canonical(region))
    {
    }

    /* The region that it owns. hakmem::error with -ENODEV where it owns nothing. */
    explicit memory_resource(const region &owner) : region_(detail::handle_of(owner))
    {
    }
    explicit memory_resource(region &&) = delete; /* it would end with this statement */

    /* NULL: the default region. */
    hak_region *handle() const noexcept
    {
        return region_;
    }

  private:
    void *do_allocate(std::size_t bytes, std::size_t alignment) override
    {
        return detail::take(region_, bytes, alignment);
    }

    void do_deallocate(void *memory, std::size_t bytes, std::size_t) override
    {
        detail::give(region_, memory, bytes);
    }

    bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override
    {
#if defined(__cpp_rtti)
        const auto *same = dynamic_cast<const memory_resource *>(&other);
        return same != nullptr && same->region_ == region_;
#else
        return this == &other;
#endif
    }

    hak_region *region_ = nullptr;
};

/*
 * The default region's resource. Always the same object, never destroyed, so that containers with
 * static lifetime may use it; made before main. Until hak_region_init and after hak_region_fini it
 * throws std::bad_alloc. To have every pmr container in the region that is not told otherwise:
 *
 *     std::pmr::set_default_resource(hakmem::default_resource());
 */
inline memory_resource *default_resource() noexcept
{
    union forever {
        constexpr forever() noexcept : resource()
        {
        }
        ~forever()
        {
        }
        memory_resource resource;
    };
    static forever only;
    return &only.resource;
}

/* ---- allocators --------------------------------------------------------------------------- */

/*
 * The default region as an allocator ([allocator.requirements]). Empty, and always equal: a
 * container that is moved, assigned or swapped takes the memory over.
 *
 * allocate(count): room for count objects, aligned as T asks, over-aligned types included; count 0
 * gives a least object. std::bad_array_new_length when count * sizeof(T) is no std::size_t,
 * std::bad_alloc when the region has no room or does not exist. deallocate(pointer, count): the
 * count of allocate; hak_free_sized; cannot fail. Any thread frees any object. T may be incomplete
 * until one of the two is called. Costs are those of the C calls.
 */
template <class T> class allocator
{
  public:
    using value_type = T;
    using propagate_on_container_copy_assignment = std::false_type;
    using propagate_on_container_move_assignment = std::true_type;
    using propagate_on_container_swap = std::true_type;
    using is_always_equal = std::true_type;

    constexpr allocator() noexcept = default;
    template <class U> constexpr allocator(const allocator<U> &) noexcept
    {
    }

    [[nodiscard]] T *allocate(std::size_t count)
    {
        return detail::take_array<T>(nullptr, count);
    }
    void deallocate(T *objects, std::size_t count) noexcept
    {
        detail::give(nullptr, objects, count * detail::size_of<T>);
    }
};

template <class T, class U>
constexpr bool operator==(const allocator<T> &, const allocator<U> &) noexcept
{
    return true;
}
template <class T, class U>
constexpr bool operator!=(const allocator<T> &, const allocator<U> &) noexcept
{
    return false;
}

/*
 * A region by its handle as an allocator. As hakmem::allocator, and:
 *
 * - Equal when the region is the same.
 * - No assignment moves a container to another region: it was told once where to lie, and may
 *   outlive the one it is assigned from. A move between different regions moves the elements one
 *   by one, as with std::pmr, and may throw; within one region it takes the memory over.
 * - swap exchanges regions with contents. (Otherwise it would be undefined between different
 *   regions, [container.requirements.general].)
 * - The copy of a container lies where the original does, unless the constructor is told otherwise.
 * - There is no default constructor: a container that is not told its region does not compile,
 *   rather than lie in another than meant. hakmem::allocator<T>() converts where that is meant.
 */
template <class T> class region_allocator
{
  public:
    using value_type = T;
    using propagate_on_container_copy_assignment = std::false_type;
    using propagate_on_container_move_assignment = std::false_type;
    using propagate_on_container_swap = std::true_type;
    using is_always_equal = std::false_type;

    /* These convert, so that a container's constructor takes a handle or an owner by itself. */
    region_allocator(hak_region *region) noexcept : region_(detail::canonical(region))
    {
    }
    /* hakmem::error with -ENODEV where it owns nothing. */
    region_allocator(const region &owner) : region_(detail::handle_of(owner))
    {
    }
    region_allocator(region &&) = delete; /* it would end with this statement */

    template <class U>
    region_allocator(const region_allocator<U> &other) noexcept : region_(other.handle())
    {
    }
    template <class U> region_allocator(const allocator<U> &) noexcept
    {
    }

    [[nodiscard]] T *allocate(std::size_t count)
    {
        return detail::take_array<T>(region_, count);
    }
    void deallocate(T *objects, std::size_t count) noexcept
    {
        detail::give(region_, objects, count * detail::size_of<T>);
    }

    /* NULL: the default region. */
    hak_region *handle() const noexcept
    {
        return region_;
    }

  private:
    hak_region *region_ = nullptr;
};

template <class T, class U>
bool operator==(const region_allocator<T> &a, const region_allocator<U> &b) noexcept
{
    return a.handle() == b.handle();
}
template <class T, class U>
bool operator!=(const region_allocator<T> &a, const region_allocator<U> &b) noexcept
{
    return a.handle() != b.handle();
}

/* ---- one object --------------------------------------------------------------------------- */

/*
 * Destroys an object and gives its memory back to the allocator; the deleter of the two calls
 * below. Takes no byte in the std::unique_ptr where the allocator has none. A unique_ptr to a base
 * class cannot be made from it: the size that is freed must be that of the object.
 */
template <class Allocator> class deleter : private Allocator
{
    using traits = std::allocator_traits<Allocator>;

  public:
    using pointer = typename traits::pointer;

    deleter() = default;
    explicit deleter(const Allocator &from) noexcept : Allocator(from)
    {
    }
    void operator()(pointer object) noexcept
    {
        traits::destroy(*this, std::addressof(*object));
        traits::deallocate(*this, object, 1);
    }
};

/*
 * A T(arguments...) in the allocator's region: std::allocate_shared for one owner.
 *
 *     auto order = hakmem::allocate_unique<Order>(hakmem::region_allocator<Order>(owner), 7);
 *
 * T is one object, not an array. Throws what allocate and the constructor throw; then nothing
 * stays allocated.
 */
template <class T, class Allocator, class... Arguments>
auto allocate_unique(const Allocator &allocator, Arguments &&...arguments)
{
    static_assert(std::is_object_v<T> && !std::is_array_v<T> && !std::is_const_v<T>,
                  "one object that is neither an array nor const");
    using own = typename std::allocator_traits<Allocator>::template rebind_alloc<T>;
    using traits = std::allocator_traits<own>;

    own from(allocator);
    struct vacant {
        own &from;
        typename traits::pointer memory;
        ~vacant()
        {
            if (memory != nullptr) {
                traits::deallocate(from, memory, 1);
            }
        }
    } until_constructed{from, traits::allocate(from, 1)};
    traits::construct(from, std::addressof(*until_constructed.memory),
                      std::forward<Arguments>(arguments)...);
    return std::unique_ptr<T, deleter<own>>(std::exchange(until_constructed.memory, nullptr),
                                            deleter<own>(from));
}

/* The std::unique_ptr of hakmem::make_unique. */
template <class T> using unique_ptr = std::unique_ptr<T, deleter<allocator<T>>>;

/* A T(arguments...) in the default region; as allocate_unique. */
template <class T, class... Arguments> unique_ptr<T> make_unique(Arguments &&...arguments)
{
    return hakmem::allocate_unique<T>(allocator<T>(), std::forward<Arguments>(arguments)...);
}

} // namespace hakmem

#undef HAK_HPP_THROW
#endif
