#!/bin/bash
# SPDX-License-Identifier: MIT
# limit: 900 s
#
# The larger searches of the models: tests/test_model.sh has the quick ones. Environment: CC (cc).
set -u
cd "$(dirname "$0")/.." || exit 1
MODEL_MIB=${MODEL_MIB:-5000} MODEL_SECONDS=${MODEL_SECONDS:-600}
# shellcheck source-path=SCRIPTDIR/..
. tests/model_kit.sh

model slab_a_word_each slab.pml '-DROUNDS=1 -DDEAL=2'
model slab_three_deals slab.pml '-DROUNDS=1 -DDEAL'
model slab_one_freer_page_box slab.pml '-DROUNDS=1 -DFREERS=1 -DOWNER_TAKES=1 -DBOX=1'
model slab_one_freer_two_rounds slab.pml '-DROUNDS=2 -DFREERS=1'
model slab_two_rounds slab.pml '-DROUNDS=2 -DDEAL -DTHIEF_TAKES=0'
model bitset_three_threads bitset.pml '-DTHREADS=3'
model bitset_eight_bits bitset.pml '-DTHREADS=2 -DLEVELS=3'
finish
