/* SPDX-License-Identifier: MIT */
/*
 * Processor matters. From one stack to another: two dozen instructions and no system call, where
 * swapcontext(3) makes two. What a called function must keep is kept (System V ABI for x86-64;
 * AAPCS64); the signal mask and the modes of floating point are the same for all.
 *
 * And from one set of thread-locals to another: each fiber uses those of a real thread that sleeps
 * for good, so that what the library keeps per thread is per fiber, at an address of its own.
 */
#ifndef HAK_TESTS_SCHED_SWITCH_H
#define HAK_TESTS_SCHED_SWITCH_H

#if defined(__x86_64__)
#include <asm/prctl.h>
#endif
#include <stdbool.h>
#include <stdint.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Leaves the caller's stack pointer in *from and goes on where to was left. */
void sim_switch(void **from, void *to);
/* Where a new stack begins. Never returns. */
void sim_begin(void);

/* Where the running thread's control block is, and another one's in its place. */
static inline uintptr_t sim_thread_pointer(void)
{
    uintptr_t value;
#if defined(__x86_64__)
    __asm__ volatile("mov %%fs:0, %0" : "=r"(value)); /* its first word is its own address */
#else
    __asm__ volatile("mrs %0, tpidr_el0" : "=r"(value));
#endif
    return value;
}

static inline void sim_set_thread_pointer(uintptr_t value)
{
#if defined(__x86_64__)
    static int allowed = -1; /* HWCAP2_FSGSBASE, Linux 5.9 */

    if (allowed < 0) {
        allowed = (getauxval(AT_HWCAP2) >> 1) & 1;
    }
    if (allowed) {
        __asm__ volatile("wrfsbase %0" : : "r"(value) : "memory");
    } else {
        syscall(SYS_arch_prctl, ARCH_SET_FS, value);
    }
#else
    __asm__ volatile("msr tpidr_el0, %0" : : "r"(value) : "memory");
#endif
}

#if defined(__x86_64__)
#define SIM_SWITCH_CODE                                                                            \
    __asm__(".text\n.globl sim_switch\n.hidden sim_switch\n.type sim_switch, @function\n"          \
            "sim_switch:\n"                                                                        \
            "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"              \
            "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"                                                  \
            "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n"              \
            ".size sim_switch, . - sim_switch\n")
/* Six registers, then the address to return to, which leaves the stack as after a call. */
#define SIM_FRAME_WORDS 8
#define SIM_FRAME_PC 6
#elif defined(__aarch64__)
#define SIM_SWITCH_CODE                                                                            \
    __asm__(".text\n.globl sim_switch\n.hidden sim_switch\n.type sim_switch, %function\n"          \
            "sim_switch:\n"                                                                        \
            "stp x19, x20, [sp, #-160]!\n stp x21, x22, [sp, #16]\n stp x23, x24, [sp, #32]\n"     \
            "stp x25, x26, [sp, #48]\n stp x27, x28, [sp, #64]\n stp x29, x30, [sp, #80]\n"        \
            "stp d8, d9, [sp, #96]\n stp d10, d11, [sp, #112]\n stp d12, d13, [sp, #128]\n"        \
            "stp d14, d15, [sp, #144]\n"                                                           \
            "mov x9, sp\n str x9, [x0]\n mov sp, x1\n"                                             \
            "ldp x21, x22, [sp, #16]\n ldp x23, x24, [sp, #32]\n ldp x25, x26, [sp, #48]\n"        \
            "ldp x27, x28, [sp, #64]\n ldp x29, x30, [sp, #80]\n ldp d8, d9, [sp, #96]\n"          \
            "ldp d10, d11, [sp, #112]\n ldp d12, d13, [sp, #128]\n ldp d14, d15, [sp, #144]\n"     \
            "ldp x19, x20, [sp], #160\n ret\n"                                                     \
            ".size sim_switch, . - sim_switch\n")
#define SIM_FRAME_WORDS 20
#define SIM_FRAME_PC 11 /* x30 */
#endif

#endif
