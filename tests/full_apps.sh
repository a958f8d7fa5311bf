#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Real software on the region, all of it (tests/apps): about ten minutes.
# limit: 1700 s
exec "$(dirname "$0")/apps/all.sh" full 600
