/* SPDX-License-Identifier: MIT */
/*
 * hakmem doctor: the kernel's version, processors that are kept free of others, and their speed.
 */
#define _GNU_SOURCE
#include "tools/hakmem_doctor.h"

#include <glob.h>
#include <stdio.h>
#include <string.h>

#define LIST_BYTES 256

void check_kernel(struct doctor *doctor)
{
    char release[128];
    unsigned major = 0, minor = 0;
    if (!doctor_read("/proc/sys/kernel/osrelease", release, sizeof release) ||
        sscanf(release, "%u.%u", &major, &minor) != 2) {
        doctor_remedy(doctor, "mount -t proc none /proc");
        doctor_say(doctor, DOCTOR_BAD, "/proc/sys/kernel/osrelease cannot be read: no /proc?");
        return;
    }
    if (major > 5 || (major == 5 && minor >= 14)) {
        doctor_say(doctor, DOCTOR_OK, "Linux %s", release);
        return;
    }
    doctor_remedy(doctor, "Linux 5.14 or newer");
    doctor_say(doctor, DOCTOR_BAD,
               "Linux %s has no MADV_POPULATE_WRITE (5.14): regions on hugetlb pages that are "
               "faulted in cannot be had, since too few pages would be a signal",
               release);
}

void check_isolated(struct doctor *doctor)
{
    char isolated[LIST_BYTES] = "", ticks[LIST_BYTES] = "";
    (void)doctor_read("/sys/devices/system/cpu/isolated", isolated, sizeof isolated);
    (void)doctor_read("/sys/devices/system/cpu/nohz_full", ticks, sizeof ticks);
    /* So the kernel says "none" where it was built for it. */
    if (strncmp(ticks, "(null)", strlen("(null)")) == 0)
        ticks[0] = '\0';
    if (isolated[0] == '\0' && ticks[0] == '\0') {
        doctor_say(doctor, DOCTOR_OK, "none");
        return;
    }
    const char *list = isolated[0] != '\0' ? isolated : ticks;
    doctor_remedy(doctor, "taskset -c %s PROGRAM", list);
    doctor_say(doctor, DOCTOR_NOTE,
               "isolated: %s; without timer ticks (nohz_full): %s; the kernel puts nobody there by "
               "itself, so workers run there only where the program was started on them",
               isolated[0] != '\0' ? isolated : "none", ticks[0] != '\0' ? ticks : "none");
}

void check_governor(struct doctor *doctor)
{
    glob_t found;
    char word[64], other[64] = "";
    unsigned seen = 0, slow = 0;
    if (glob("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor", 0, NULL, &found) != 0)
        memset(&found, 0, sizeof found);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        if (!doctor_read(found.gl_pathv[i], word, sizeof word))
            continue;
        seen++;
        if (strcmp(word, "performance") == 0)
            continue;
        slow++;
        snprintf(other, sizeof other, "%s", word);
    }
    globfree(&found);
    if (slow != 0) {
        doctor_remedy(doctor, "cpupower frequency-set -g performance");
        doctor_say(doctor, DOCTOR_NOTE,
                   "%u of %u processors are governed by '%s': the first calls after a pause are "
                   "slow ones",
                   slow, seen, other);
    } else if (seen != 0) {
        doctor_say(doctor, DOCTOR_OK, "performance, on %u processors", seen);
    } else {
        doctor_say(doctor, DOCTOR_OK, "not visible here (virtual machine, or no cpufreq)");
    }
}
