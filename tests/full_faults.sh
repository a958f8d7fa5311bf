#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What tests/test_faults*.{c,sh} and tests/test_fork_anywhere.c take a part of in `make check`, as a
# whole: each system call of the library's set-up and of the tools by every plausible error, for
# good, and reads that give too little; forks for longer. About four minutes.
# limit: 900 s
set -u
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build}
export FAULTS_WHOLE=1 FORK_SECONDS=5 TEST_TIMEOUT=400
export ERRORS='ENOMEM EPERM EINVAL ENOSYS EAGAIN EINTR EMFILE EIO'
exec tests/run.sh "$build/tests/test_faults" "$build/tests/test_faults_pages" \
    "$build/tests/test_fork_anywhere" tests/test_faults_tools.sh
