#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Shows that the fuzzers find what they are for: each mutant is the library with one line of it made
# wrong, and has to be found, by the corpus or within MUTANT_SECONDS (60) of fuzzing from it. Two
# are tried at a time. tests/fuzz/mutants.sh [NAME...]: all, or those.
#
# A line of the table: name, fuzzer, file, and the sed command that makes it wrong, which has to
# change something.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/fuzz/kit.sh

seconds=${MUTANT_SECONDS:-60}

# Two lines each: name, fuzzer and file; the sed command.
mutants() {
    paste -d' ' - - <<'END'
a_size_has_the_class_below api alloc/thread.c
    s|sizeclass_of(n \* 16)|sizeclass_of((n == 70 ? 64 : n) * 16)|
aligned_class_ignores_alignment api alloc/sizeclass.c
    s|round_up(max_size(size, 1), alignment)|max_size(size, alignment)|
realloc_copies_the_old_size api alloc/front.c
    s|memcpy(moved, pointer, min_size(have, size))|memcpy(moved, pointer, have)|
realloc_forgets_the_tail api alloc/front.c
    s|pointer, min_size(have, size))|pointer, min_size(have, size) \& ~(size_t)15)|
calloc_leaves_reused_memory api alloc/front.c
    s|if (object != NULL \&\& !zeroed)|if (object != NULL \&\& !zeroed \&\& bytes > 1000)|
usable_size_too_large api alloc/usable.c
    s|\? bytes : 0;|? bytes + 16 : 0;|
second_free_passes_unseen api alloc/sharedpool_release.c
    s|if (unlikely(was \& group->mask))|if (false)|
interior_pointer_is_taken api alloc/sharedpool_release.c
    s/index \* bytes != offset || index >= capacity/index >= capacity/
empty_slab_keeps_its_class api alloc/sharedpool_release.c
    s|heap_set_class(by->heap, unit, units, CLASS_NONE);||
shrinking_gives_back_one_too_many api alloc/large.c
    s|heap_set_class(heap, (unit_t)(unit + want), have - want|want -= want > 1;&|
outbox_loses_its_last api alloc/outbox.c
    s|outbox->magazine), outbox->count);|outbox->magazine), outbox->count - 1);|
free_changes_errno api alloc/front.c
    s|^    errno = saved;|    errno = EINVAL;|
hardened_overflow_passes_unseen api alloc/hardened.c
    s/^\( *\)!intact(hardened, pointer, size_of_live(state, spot.slot_bytes), CANARY_BYTES)/\1false/
hardened_wrong_size_passes_unseen api alloc/hardened.c
    s/(size != have ||/(false ||/
hardened_usable_size_too_large api alloc/hardened.c
    s|? size_of_live(state, spot.slot_bytes) : 0|? spot.slot_bytes : 0|
range_is_not_clamped config region/config.c
    s|\*used = \*used > variable->most|*used = false|
list_takes_one_more config region/config.c
    s/last > variable->most/last > variable->most + 1/
words_are_read_past_the_end config region/config.c
    s|text += length + 1;|text += length + 2;|
letters_shift_too_far config region/config.c
    s|(letter - letters + 1);|(letter - letters + 1) + (letter == letters + 3);|
neighbours_are_an_overlap adopt alloc/setup.c
    s|first < heap->area.base|first <= heap->area.base|
overlap_of_the_last_is_missed adopt alloc/setup.c
    s|heap->area.base < first|heap->area.base + SUPERSLAB_BYTES < first|
start_is_rounded_down adopt alloc/setup.c
    s|\*first = round_up(low, SUPERSLAB_BYTES)|*first = round_down(low, SUPERSLAB_BYTES)|
length_is_rounded_up adopt alloc/setup.c
    s|return round_down(end_of|return round_up(end_of|
escape_is_taken_too_long text numa/sysfs.c
    s|from += octal ? 4 : 1|from += octal ? 5 : 1|
long_line_writes_past_its_end text numa/sysfs.c
    s|if (length < sizeof line)$|if (length <= sizeof line)|
list_forgets_where_it_began text numa/ranges.c
    s|scan->dash ? scan->first : scan->number|scan->number|
END
}

# try NAME TARGET FILE SED: builds it and lets the fuzzer at it; a line into its result file.
try() {
    local folder=$fuzz_build/mutants/$1 began=$EPOCHREALTIME how=corpus log status
    log=$folder/log
    rm -rf "$folder"
    mkdir -p "$folder/$(dirname "$3")" "$folder/new"
    sed "$4" "$3" >"$folder/$3"
    if cmp -s "$3" "$folder/$3"; then
        echo "FAIL $1: the command changes nothing in $3" >"$folder/result"
        return
    fi
    # -I. after the mutant's own folder: headers are the project's.
    if ! { "$fuzz_cc" -Iinclude -I. -D_GNU_SOURCE= -std=gnu17 -w -O1 -g -fPIC -fvisibility=hidden \
        -ftls-model=initial-exec -fsanitize="$fuzz_sanitizers" -fno-sanitize-recover=undefined \
        -c -o "$folder/mutant.o" "$folder/$3" &&
        "$fuzz_cc" -pthread -fsanitize=fuzzer,address,undefined -o "$folder/fuzz" \
            "$fuzz_build/obj/tests/fuzz/fuzz_$2.o" "$folder/mutant.o" "$fuzz_build/inside.a" \
            -lnuma -lpthread; } >"$log" 2>&1; then
        echo "FAIL $1: does not build" >"$folder/result"
        return
    fi
    fuzz_run "$folder/fuzz" "$2" "$log" -artifact_prefix="$folder/found-" -runs=0 \
        "tests/fuzz/corpus/$2"
    status=$?
    if [ "$status" -eq 0 ]; then
        how=fuzzing
        fuzz_run "$folder/fuzz" "$2" "$log" -artifact_prefix="$folder/found-" \
            -max_total_time="$seconds" "$folder/new" "tests/fuzz/corpus/$2"
        status=$?
    fi
    awk -v name="$1" -v how="$how" -v status="$status" -v from="$began" -v to="$EPOCHREALTIME" \
        -v what="$(grep -aE '^FINDING|ERROR: AddressSanitizer|runtime error:' "$log" |
            head -n 1 | cut -c 1-90)" 'BEGIN {
            if (status == 0) printf "FAIL %s: not found in %.0f s\n", name, to - from
            else printf "ok %s: %s, %.0f s: %s\n", name, how, to - from, what }' >"$folder/result"
}

if ! reason=$(fuzz_possible); then
    echo "skip mutants: $reason"
    echo "0 passed, 0 failed, 1 skipped"
    exit 77
fi
mkdir -p "$fuzz_build/mutants"
if ! fuzz_make fuzzers >"$fuzz_build/mutants/build" 2>&1; then
    echo "FAIL fuzzers_build"
    tail -n 20 "$fuzz_build/mutants/build"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi

passed=0 failed=0 names=()
while read -r name target file command; do
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    names+=("$name")
    while [ "$(jobs -pr | wc -l)" -ge 2 ]; do
        wait -n
    done
    try "$name" "$target" "$file" "$command" &
done < <(mutants)
wait
for name in "${names[@]}"; do
    result=$(cat "$fuzz_build/mutants/$name/result")
    echo "$result"
    case $result in
    ok*) passed=$((passed + 1)) ;;
    *) failed=$((failed + 1)) ;;
    esac
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
