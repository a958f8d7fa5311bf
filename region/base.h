/* SPDX-License-Identifier: MIT */
/*
 * What every room needs: compiler and processor matters in one place, so that no source file
 * has conditional compilation of its own.
 */
#ifndef HAK_REGION_BASE_H
#define HAK_REGION_BASE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 1 in builds that check invariants on every slow step (make DEBUG=1); the code always compiles. */
#ifndef HAK_DEBUG
#define HAK_DEBUG 0
#endif

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* A miss, kept out of line and away from the hit path's cache lines. */
#define HAK_COLD __attribute__((noinline, cold))
#define HAK_NOINLINE __attribute__((noinline))
#define HAK_INLINE static inline __attribute__((always_inline))
/* On declarations of the library's own data: reached directly, not by the global offset table.
 * (-fvisibility=hidden is about definitions.) */
#define HAK_OWN __attribute__((visibility("hidden")))
#define HAK_HOT __attribute__((hot, aligned(64)))

/* Reached without the dynamic linker's resolver: one load and no call. */
#define HAK_TLS_FAST _Thread_local __attribute__((tls_model("initial-exec")))

#define CACHE_LINE 64
#define CACHE_ALIGNED __attribute__((aligned(CACHE_LINE)))

HAK_INLINE void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/*
 * The processor's counter, before and after what is to be timed. x86-64: the fence before the first
 * read keeps earlier work out, rdtscp waits for the code in between, the fence after it keeps later
 * work out (Intel's manual, volume 2B, RDTSC and RDTSCP). arm64: isb does both around cntvct_el0.
 */
HAK_INLINE uint64_t cpu_ticks_begin(void)
{
#if defined(__x86_64__)
    uint32_t low, high;
    __asm__ volatile("lfence\n\trdtsc\n\tlfence" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("isb\n\tmrs %0, cntvct_el0\n\tisb" : "=r"(ticks) : : "memory");
    return ticks;
#else
#error "hakmem knows x86-64 and arm64"
#endif
}

HAK_INLINE uint64_t cpu_ticks_end(void)
{
#if defined(__x86_64__)
    uint32_t low, high, cpu;
    __asm__ volatile("rdtscp\n\tlfence" : "=a"(low), "=d"(high), "=c"(cpu) : : "memory");
    return (uint64_t)high << 32 | low;
#else
    return cpu_ticks_begin();
#endif
}

/* The compiler's builtin is a call into its library on processors of the baseline. */
HAK_INLINE unsigned popcount64(uint64_t word)
{
    word -= (word >> 1) & 0x5555555555555555U;
    word = (word & 0x3333333333333333U) + ((word >> 2) & 0x3333333333333333U);
    word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fU;
    return (unsigned)((word * 0x0101010101010101U) >> 56);
}

HAK_INLINE size_t round_up(size_t value, size_t power_of_two)
{
    return (value + power_of_two - 1) & ~(power_of_two - 1);
}

HAK_INLINE size_t round_down(size_t value, size_t power_of_two)
{
    return value & ~(power_of_two - 1);
}

HAK_INLINE size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

HAK_INLINE size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

#endif
