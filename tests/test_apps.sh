#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Real software on the region, the quick part of each application (tests/apps): a minute or so.
exec "$(dirname "$0")/apps/all.sh" quick 90
