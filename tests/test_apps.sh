#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Real software on the region, the quick part of each application (tests/apps): a minute or so,
# and what it takes to install them the first time.
# limit: 900 s
exec "$(dirname "$0")/apps/all.sh" quick 240
