/* SPDX-License-Identifier: MIT */
/* What tests/faults/inject.c and tests/faults/mark.c agree on. */
#ifndef HAK_TESTS_FAULTS_INJECT_H
#define HAK_TESTS_FAULTS_INJECT_H

/* An option that prctl(2) does not have. */
#define INJECT_MARK 0x4d41524b

#endif
