#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The soak for 20 seconds and more; make soak is for as long as one likes.
set -u
cd "$(dirname "$0")/.." || exit 1
SOAK_MINUTES=0.35 exec tests/test_soak.sh
