/* SPDX-License-Identifier: MIT */
/*
 * From one stack to another, and from one set of thread-locals to another; switch.h tells. What a
 * called function must keep is kept (System V ABI for x86-64; AAPCS64); the signal mask and the
 * modes of floating point are the same for all.
 */
.macro function name
    .text
    .globl \name
    .hidden \name
    .type \name, %function
\name:
.endm

.macro number name, value
    .section .rodata
    .globl \name
    .hidden \name
    .balign 4
\name:
    .long \value
.endm

#if defined(__x86_64__)

function sim_switch
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret

function sim_thread_pointer
    mov %fs:0, %rax /* its first word is its own address */
    ret

function sim_set_thread_pointer
    test %esi, %esi
    jz 1f
    wrfsbase %rdi
    ret
1:  mov %rdi, %rsi
    mov $0x1002, %edi /* ARCH_SET_FS */
    mov $158, %eax    /* arch_prctl(2) */
    syscall
    ret

/* Six registers, then the address to return to, which leaves the stack as after a call. */
number sim_frame_words, 8
number sim_frame_pc, 6

#elif defined(__aarch64__)

function sim_switch
    stp x19, x20, [sp, #-160]!
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    ldp x19, x20, [sp], #160
    ret

function sim_thread_pointer
    mrs x0, tpidr_el0
    ret

function sim_set_thread_pointer
    msr tpidr_el0, x0
    ret

number sim_frame_words, 20
number sim_frame_pc, 11 /* x30 */

#endif

.section .note.GNU-stack, "", %progbits
