/* SPDX-License-Identifier: MIT */
/*
 * Processor matters, which are in switch.S. From one stack to another: two dozen instructions and
 * no system call, where swapcontext(3) makes two.
 *
 * And from one set of thread-locals to another: each fiber uses those of a real thread that sleeps
 * for good, so that what the library keeps per thread is per fiber, at an address of its own.
 */
#ifndef HAK_TESTS_SCHED_SWITCH_H
#define HAK_TESTS_SCHED_SWITCH_H

#include <stdbool.h>
#include <stdint.h>

/* Leaves the caller's stack pointer in *from and goes on where to was left. */
void sim_switch(void **from, void *to);
/* Where a new stack begins. Never returns. */
void sim_begin(void);
/* Words that sim_switch leaves on a stack, and which of them is the address to go on at. */
extern const uint32_t sim_frame_words, sim_frame_pc;

/* Where the running thread's control block is, and another one's in its place. directly: the
 * processor's own instruction may do it (x86-64: HWCAP2_FSGSBASE, Linux 5.9). */
uintptr_t sim_thread_pointer(void);
void sim_set_thread_pointer(uintptr_t value, bool directly);

#endif
