#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What tests/numa/boot.sh takes for a pass: a stand-in for QEMU ends in every way that a machine can
# end, and only the one that says all is well on both ways, status and last line, may pass.
set -u
cd "$(dirname "$0")/.." || exit 1

passed=0 failed=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/numa" "$work/bin"

# The stand-in: finds the two files among its arguments, as QEMU would, and does what it is told.
cat >"$work/bin/qemu-system-x86_64" <<'END'
#!/bin/bash
files=()
for word; do
    [[ $word != file:* ]] || files+=("${word#file:}")
done
echo 'a word of the kernel' >"${files[0]}"
printf '%b' "$GUEST_SAYS" >"${files[1]}"
exit "$GUEST_STATUS"
END
chmod 755 "$work/bin/qemu-system-x86_64"

# boot STATUS TEXT: the machine of scene `short` says the text and QEMU ends with the status.
boot() {
    PATH=$work/bin:$PATH BUILD=$work GUEST_STATUS=$1 GUEST_SAYS=$2 VM_QUICK=1 \
        tests/numa/boot.sh short >"$work/said" 2>&1
}

# Skips that the table has for the scene.
# shellcheck source=tests/numa/scenes.sh
. tests/numa/scenes.sh
VM_QUICK=1 scene short
# shellcheck disable=SC2154
skips=$(echo "$runs" | awk '{ sum += $3 } END { print sum + 0 }')

passes() {
    if boot "$2" "$3" && [ "$(cat "$work/said")" = "$4" ]; then
        echo "ok $1"
        passed=$((passed + 1))
    else
        echo "FAIL $1: boot.sh said $(cat "$work/said")"
        failed=$((failed + 1))
    fi
}

# fails NAME STATUS TEXT WHY: not a pass; says why, and shows what the kernel had said.
fails() {
    if boot "$2" "$3"; then
        echo "FAIL $1: boot.sh took it for a pass: $(cat "$work/said")"
    elif ! grep -qF -e "$4" "$work/said"; then
        echo "FAIL $1: boot.sh does not say '$4': $(cat "$work/said")"
    elif ! grep -q 'a word of the kernel' "$work/said"; then
        echo "FAIL $1: boot.sh does not show the kernel's words: $(cat "$work/said")"
    else
        echo "ok $1"
        passed=$((passed + 1))
        return
    fi
    failed=$((failed + 1))
}

good="7 passed, 0 failed, $skips skipped"
passes status_and_tally_together_are_a_pass 33 "ok this\nok that\n$good\n" "$good"
passes carriage_returns_do_not_matter 33 "ok this\r\n$good\r\n" "$good"
fails a_panic_is_none 0 'ok this\n' 'QEMU ended with 0, not 33; no tally in the end'
fails a_reboot_after_the_tally_is_none 0 "$good\n" 'QEMU ended with 0, not 33'
fails silence_is_none 33 '' 'no tally in the end'
fails words_after_the_tally_are_none 33 "$good\nSegmentation fault\n" 'no tally in the end'
fails a_failed_case_is_none 33 "FAIL this: why\n6 passed, 1 failed, $skips skipped\n" '1 failed'
fails a_failed_case_is_shown 35 "FAIL this: why\n6 passed, 1 failed, $skips skipped\n" \
    '--- FAIL this: why'
fails nothing_passed_is_none 33 "0 passed, 0 failed, $skips skipped\n" 'nothing passed'
fails one_skip_more_is_none 33 "6 passed, 0 failed, $((skips + 1)) skipped\n" \
    "$((skips + 1)) skips, and the table says $skips"
fails one_skip_fewer_is_none 33 "8 passed, 0 failed, $((skips - 1)) skipped\n" \
    "$((skips - 1)) skips, and the table says $skips"
fails a_machine_that_hangs_is_none 124 'ok this\n' 'more than'
fails a_machine_that_had_to_be_killed_is_none 137 "$good\n" 'more than'

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
