#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Machines with several NUMA nodes, all of them (tests/numa): about five minutes.
# limit: 1200 s
exec "$(dirname "$0")/numa/all.sh" full
