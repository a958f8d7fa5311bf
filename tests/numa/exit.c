/* SPDX-License-Identifier: MIT */
/*
 * Ends the virtual machine: a write to QEMU's isa-debug-exit port, for which a shell has no word.
 * QEMU then exits with (16 + status) * 2 + 1, a number that neither a panic nor a reboot nor an
 * error of QEMU's own gives. x86-64 only; tests/numa/prepare.sh builds it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>

#define EXIT_PORT 0xf4 /* iobase of the device, in boot.sh */

int main(int argc, char **argv)
{
    if (argc != 2 || ioperm(EXIT_PORT, 1, 1) != 0) {
        perror("exit: ioperm");
        return 1;
    }
    outb((unsigned char)(16 + atoi(argv[1])), EXIT_PORT);
    return 1;
}
