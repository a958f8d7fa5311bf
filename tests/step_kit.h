/* SPDX-License-Identifier: MIT */
/*
 * Counts the instructions of a call, exactly: a child runs the call under ptrace and is stepped
 * through it one instruction at a time (ptrace(2), PTRACE_SINGLESTEP). The call's own entry and
 * return are the bounds, so what the caller does around it does not count.
 *
 * The child runs a body that calls step_here() just before each call to be counted. Processors
 * other than x86-64, and systems that forbid ptrace, are skipped.
 */
#ifndef HAK_TESTS_STEP_KIT_H
#define HAK_TESTS_STEP_KIT_H

#include "tests/harness.h"

#include <elf.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/utsname.h>

/* Words of x86-64's struct user_regs_struct (sys/user.h). */
#define STEP_REGISTERS 27
#define STEP_PC 16
#define STEP_SP 19
/* A call that takes more has run away. */
#define STEP_MOST 100000

/* Where the parent starts to look for the entry of the function. */
static inline void step_here(void)
{
    (void)raise(SIGSTOP);
}

static inline bool step_registers(pid_t child, uint64_t registers[STEP_REGISTERS])
{
    struct iovec where = {registers, STEP_REGISTERS * sizeof(uint64_t)};
    return ptrace(PTRACE_GETREGSET, child, (void *)NT_PRSTATUS, &where) == 0;
}

static inline bool step_once(pid_t child)
{
    int status = 0;
    return ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0 &&
           waitpid(child, &status, 0) == child && WIFSTOPPED(status);
}

/* Instructions from the entry of the function to its return; 0: it was not reached. */
static inline unsigned step_through(pid_t child, const void *function)
{
    uint64_t registers[STEP_REGISTERS];
    uint64_t entry_sp = 0;
    unsigned count = 0;
    for (unsigned steps = 0; steps < STEP_MOST; steps++) {
        if (!step_registers(child, registers)) {
            return 0;
        }
        if (entry_sp == 0 && registers[STEP_PC] == (uint64_t)(uintptr_t)function) {
            entry_sp = registers[STEP_SP];
        } else if (entry_sp != 0 && registers[STEP_SP] > entry_sp) {
            return count; /* the return address has been taken off the stack */
        }
        count += entry_sp != 0;
        if (!step_once(child)) {
            return 0;
        }
    }
    return 0;
}

static inline void step_needs(void)
{
    struct utsname machine;
    CHECK_EQ(uname(&machine), 0);
    if (strcmp(machine.machine, "x86_64") != 0) {
        SKIP("counts x86-64's instructions; this is %s", machine.machine);
    }
}

/*
 * Runs body(argument) in a child and counts the calls of function that follow its step_here()s,
 * up to most of them, into counts. Returns how many there were.
 */
static inline size_t step_count(void (*body)(void *), void *argument, const void *function,
                                unsigned counts[], size_t most)
{
    size_t calls = 0;
    int status = 0;
    step_needs();
    (void)fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        harness_state.in_child = true;
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
            _exit(HARNESS_EXIT_SKIPPED);
        }
        body(argument);
        _exit(0);
    }
    while (waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
        if (WSTOPSIG(status) == SIGSTOP && calls < most) {
            counts[calls++] = step_through(child, function);
        }
        int deliver = WSTOPSIG(status) == SIGSTOP || WSTOPSIG(status) == SIGTRAP ? 0
                                                                                 : WSTOPSIG(status);
        if (ptrace(PTRACE_CONT, child, NULL, (void *)(intptr_t)deliver) != 0) {
            break;
        }
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == HARNESS_EXIT_SKIPPED) {
        SKIP("ptrace is not allowed here");
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        FAIL("the stepped child ended with wait status 0x%x", (unsigned)status);
    }
    return calls;
}

#endif
