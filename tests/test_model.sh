#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The models of tests/model, searched to the end by spin, and their mutants, each of which must be
# found wrong. docs/model.md says what they show. Environment: CC (cc).
set -u
cd "$(dirname "$0")/.." || exit 1
# shellcheck source-path=SCRIPTDIR/..
. tests/model_kit.sh

named
model slab_owner_freers_thief slab.pml '-DROUNDS=1 -DDEAL=3'
model slab_page_box slab.pml '-DROUNDS=0 -DOWNER_TAKES=1 -DBOX=1'
model bitset_two_levels bitset.pml '-DTHREADS=2 -DOPS=2'
model bitset_three_levels bitset.pml '-DTHREADS=3 -DLEVELS=3 -DBIT_STEP=2 -DLAST_BIT=4 -DROLES'
model bitset_mended_when_one_stops bitset.pml '-DTHREADS=2 -DOPS=2 -DSTOP'
model units_two_threads units.pml '-DTHREADS=2'
model units_three_threads units.pml '-DTHREADS=3 -DBRIEF'

for what in CLAIM_BY_BIT_ALONE CLAIM_KEEPS_GENERATION FILLED_IS_NOTHING FIRST_IS_NOTHING \
    GIVEN_UP_UNPUBLISHED HEAD_BEFORE_BITS HEAD_READ_AGAIN LOOK_BEFORE_HEAD NO_EXCHANGE NO_PUBLISH \
    NO_SECOND_LOOK ONE_TRY OPEN_KEEPS_GENERATION PUBLISH_BEFORE_HEAD TAKEN_BACK_LATE \
    TAKEN_BY_STORE UNITS_BEFORE_MAP; do
    mutant "slab_$what" slab.pml "-DROUNDS=1 -DDEAL=3 -DMUTANT_$what"
done
for what in LOOK_BEFORE_SUMMARY NO_SECOND_LOOK NO_SUMMARY SUMMARY_BY_STORE SUMMARY_FIRST \
    TWO_HEAR_YES; do
    mutant "bitset_$what" bitset.pml "-DTHREADS=3 -DMUTANT_$what"
done
mutant bitset_BACK_ONE_LEVEL bitset.pml \
    '-DTHREADS=3 -DLEVELS=3 -DBIT_STEP=2 -DLAST_BIT=4 -DROLES -DMUTANT_BACK_ONE_LEVEL'
mutant bitset_NO_MEND bitset.pml '-DTHREADS=2 -DOPS=2 -DSTOP -DMUTANT_NO_MEND'
for what in HINT_BEFORE_WORD LENGTH_GOES_UNSEEN NO_SECOND_LOOK REST_NOT_ANNOUNCED \
    WORD_BEFORE_HINT; do
    mutant "units_$what" units.pml "-DTHREADS=2 -DMUTANT_$what"
done
mutant units_LENGTH_NOT_KEPT units.pml '-DTHREADS=3 -DBRIEF -DMUTANT_LENGTH_NOT_KEPT'
finish
