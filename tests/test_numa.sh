#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Machines with several NUMA nodes, the quick part (tests/numa): a minute or so, and what it takes
# to install QEMU and to fetch a kernel the first time.
# limit: 600 s
exec "$(dirname "$0")/numa/all.sh" quick
