# SPDX-License-Identifier: MIT
#
# What the cases of test_run.sh are made of: the words to run the tool and to look at what it did,
# the programs that it is given, and the loop over the cases. To be sourced from the checkout's
# top.
#
# The programs are made here with the C compiler. A probe says where malloc's memory comes from; so
# it also says that a refusal was right. For whoever is root there are cases of other users.
# shellcheck shell=bash
source=$PWD build=$(realpath "${BUILD:-build}") cc=${CC:-cc}
hakmem=$build/hakmem library=$build/libhakmem_preload.so
for variable in $(compgen -e); do
    case $variable in HAKMEM_* | LD_*) unset "$variable" ;; esac
done
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
# Others may look: some cases are theirs.
chmod 755 "$work"
cd "$work" || exit 1
passed=0 failed=0 skipped=0
exec 3>>why 4>&1

# ---- words of the cases ----------------------------------------------------------------------

fail() {
    echo "$*" >&3
    exit 1
}

skip() {
    echo "$*" >&3
    exit 77
}

# run STATUS ARGUMENT...: `hakmem run ARGUMENT...` must end with STATUS; leaves out and err.
run() {
    expect "$1" "$hakmem" run "${@:2}"
}

# expect STATUS COMMAND...
expect() {
    local want=$1 got
    shift
    "$@" >out 2>err
    got=$?
    [ "$got" -eq "$want" ] ||
        fail "exit status $got, not $want, of: ${*@Q}; it said: $(head -c 600 out err)"
}

# output TEXT: that is all that was printed, a last newline aside.
output() {
    [ "$(cat out)" = "$1" ] || fail "printed $(cat out), not $1"
}

# said TEXT...: standard error is one line and has each of them.
said() {
    local text
    [ "$(wc -l <err)" -eq 1 ] || fail "said $(wc -l <err) lines, not one: $(cat err)"
    for text; do
        grep -qF -e "$text" err || fail "said: $(cat err); without: $text"
    done
}

quiet() {
    [ ! -s err ] || fail "said: $(cat err)"
}

script() {
    printf '%s\n' "${@:2}" >"$1"
    chmod 755 "$1"
}

# variables: a line `OPTION VARIABLE KIND` for each of the table, as the help has it.
variables() {
    "$hakmem" run --help |
        sed -nE 's/^  --([a-z-]+)(\[=0\|1\]| VALUE)  \((HAKMEM_[A-Z_]+)\)$/\1 \3 \2/p'
}

# accepted OPTION: a value that it takes; the last of its words, or the least of its range.
accepted() {
    local line
    line=$("$hakmem" run --help | grep -A 9 -E "^  --$1[[ ]" | grep -m 1 'accepted: ')
    line=${line#*accepted: }
    case $line in
    'a comma list of '*) line=${line#a comma list of } ;;
    all,*) line=all ;;
    esac
    case $line in
    *'|'*) echo "${line##*|}" ;;
    *) echo "${line%% *}" ;;
    esac
}

as_nobody() {
    setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all "$@"
}

need_root() {
    [ "$(id -u)" -eq 0 ] || skip 'only root can give a program to another user'
    as_nobody true 2>/dev/null || skip 'setpriv cannot take another user here'
}

need_static() {
    compile static -static probe.c || skip "nothing can be linked statically here: $(cat cc.err)"
}

# Nobody's copy of the tool, since the build folder may be closed to him.
for_nobody() {
    need_root
    mkdir -p open/bin open/lib
    cp "$hakmem" open/bin
    cp "$library" open/lib
    hakmem=$work/open/bin/hakmem library=$work/open/lib/libhakmem_preload.so
    cp probe "$1"
}

# refused_for_nobody PROGRAM: the program is secure, the tool says so, and may run it as root.
refused_for_nobody() {
    expect 0 as_nobody env LD_PRELOAD="$library" "$1"
    [ "$(cat out)" = 'libc secure' ] || skip 'no rights come with a program here (mount, kernel)'
    expect 125 as_nobody "$hakmem" run "$1"
    said "$1: cannot be put onto a region: it $2" 'ld.so(8)'
    run 0 "$1"
    grep -q '^region ' out || fail "as root: $(cat out)"
}

# ---- what the cases run ----------------------------------------------------------------------

cat >probe.c <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <hakmem.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>

/* Where malloc's memory comes from, the region's size in MiB, and its pages. */
int main(void)
{
    void *object = malloc(1000), *large = malloc(1000000);
    struct hak_stats stats;
    size_t (*usable)(const void *) = (size_t(*)(const void *))dlsym(RTLD_DEFAULT,
                                                                    "hak_usable_size");
    int (*tell)(hak_region *, struct hak_stats *) =
        (int (*)(hak_region *, struct hak_stats *))dlsym(RTLD_DEFAULT, "hak_region_stats");
    if (usable == NULL || tell == NULL || tell(NULL, &stats) != 0)
        return puts(getauxval(AT_SECURE) != 0 ? "libc secure" : "libc") < 0;
    if (usable(object) < 1000 || usable(large) < 1000000)
        return puts("a region, but malloc does not use it") < 0;
    printf("region %zu %d\n", stats.size_bytes >> 20, (int)stats.pages);
    free(large);
    free(object);
    return 0;
}
END
cat >arguments.c <<'END'
#include <stdio.h>

int main(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        printf("<%s>\n", argv[i]);
    return 0;
}
END

compile() {
    # Unquoted: CC may be several words.
    # shellcheck disable=SC2086
    $cc -O1 -I"$source/include" -o "$@" -ldl 2>cc.err
}

# copy_with FILE OFFSET BYTES: the probe with some bytes of its head changed.
copy_with() {
    cp probe "$1"
    # The bytes are escapes for printf.
    # shellcheck disable=SC2059
    printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# ---- running them ----------------------------------------------------------------------------

run_case() {
    local status reason
    : >why
    ("$1") </dev/null >&4 2>&4
    status=$?
    reason=$(tr '\n' ' ' <why)
    case $status in
    0) passed=$((passed + 1)) && echo "ok $1" ;;
    77) skipped=$((skipped + 1)) && echo "skip $1: $reason" ;;
    *) failed=$((failed + 1)) && echo "FAIL $1: ${reason:-status $status}" ;;
    esac
}

# run_cases FILE [PART]: the functions of the file, where it has a line "# ---- cases" those below
# it, those whose names have the part in them.
run_cases() {
    local name first=1
    grep -q '^# ---- cases' "$1" && first='/^# ---- cases/'
    while read -r name; do
        [[ $name == *${2:-}* ]] || continue
        run_case "$name"
    done < <(sed -nE "$first,\$ s/^([a-z_0-9]+)\\(\\) \\{\$/\\1/p" "$1")
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ] || exit 1
    [ "$passed" -gt 0 ] || exit 77
    exit 0
}

if ! compile probe probe.c || ! compile arguments arguments.c; then
    echo "FAIL the_cases_programs: $(cat cc.err)"
    echo '0 passed, 1 failed, 0 skipped'
    exit 1
fi
