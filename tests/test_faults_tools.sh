#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The tools, and programs under the preload library, while one of their system calls fails: each in
# turn (tests/faults/inject.c), by an error that changes from call to call. They end with the same
# as undisturbed, or with another status than 0 and words that say why; never by a signal, never
# late, and with pools of huge pages only as the notes have them.
#
# Cases are functions, as in test_run.sh. Environment: BUILD, CC; ERRORS, names of errors that each
# call shall meet one after the other (tests/full_faults.sh), instead of one for each call.
# limit: 400 s
#
# Cases are called by their names, which shellcheck does not see.
# shellcheck disable=SC2317
set -u
cd "$(dirname "$0")/.." || exit 1
if [ "${FAULTS_NAMESPACE:-}" != 1 ] && unshare -m true 2>/dev/null; then
    # Notes of reserved pages (/run/hakmem) of its own.
    FAULTS_NAMESPACE=1 exec unshare -m "$PWD/tests/test_faults_tools.sh" "$@"
fi
# shellcheck source=tests/run_kit.sh
. tests/run_kit.sh

cat >heap.c <<'END'
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *work(void *unused)
{
    for (size_t size = 1; size < 2000000; size = size * 3 + 1) {
        char *object = calloc(1, size), *larger;
        if (object == NULL || object[0] != 0 || object[size - 1] != 0)
            abort();
        memset(object, 1, size);
        larger = realloc(object, size * 2);
        if (larger == NULL || larger[size - 1] != 1)
            abort();
        free(larger);
    }
    return unused;
}

int main(void)
{
    pthread_t thread;
    work(NULL);
    if (pthread_create(&thread, NULL, work, NULL) != 0)
        work(NULL);
    else
        pthread_join(thread, NULL);
    puts("all there");
    if (fflush(stdout) != 0) {
        perror("this program cannot write");
        return 1;
    }
    return 0;
}
END

make_inject() {
    # Unquoted: CC may be several words.
    # shellcheck disable=SC2086
    $cc -O1 -std=gnu17 -I"$source" -o inject "$source/tests/faults/inject.c" 2>cc.err &&
        $cc -O1 -std=gnu17 -I"$source" -shared -fPIC -o mark.so "$source/tests/faults/mark.c" \
            2>>cc.err && compile heap heap.c -pthread
}
if ! make_inject; then
    echo "FAIL inject: $(cat cc.err)"
    echo '0 passed, 1 failed, 0 skipped'
    exit 1
fi
state=/run/hakmem
pool=/sys/kernel/mm/hugepages/hugepages-2048kB

# inject OPTION... PROGRAM ARGUMENT...: every run must be good; with each error asked for.
inject() {
    local error status
    for error in ${ERRORS:-each}; do
        [ "$error" = each ] && error='' || error="-e $error"
        # Unquoted: two words or none.
        # shellcheck disable=SC2086
        ./inject $error "$@" >found
        status=$?
        [ "$status" -ne 77 ] || skip "$(cat found)"
        tail -n 1 found
        [ "$status" -eq 0 ] || fail "$error: $(head -c 3000 found)"
    done
}

tool() {
    inject -m ./mark.so "${options[@]}" "$hakmem" "$@"
}
options=(-l)

need_pool() {
    [ "$(id -u)" -eq 0 ] || skip 'only root can change the pools'
    [ "${FAULTS_NAMESPACE:-}" = 1 ] || skip 'no mount namespace can be had'
    [ -w "$pool/nr_hugepages" ] || skip 'no pool of 2M pages can be written'
    exec 9>/tmp/hugepages.lock
    flock -w 100 9 || skip 'others are at work on the pools'
    mkdir -p "$state"
    mount -t tmpfs -o mode=755,size=1m none "$state" || skip "no $state of its own"
    base=$(cat "$pool/nr_hugepages")
    free=$(cat "$pool/free_hugepages")
    trap 'echo "$base" >"$pool/nr_hugepages"' EXIT
    cat >left.sh <<END
# What came and was noted is the same; without a failure it is what was wanted; and a release that
# nothing disturbs has it all back.
more=\$((\$(cat $pool/nr_hugepages) - $base))
noted=\$(sed -n 's/^node .* added \([0-9]*\) from \([0-9]*\) to \([0-9]*\)$/\1/p' $state/reserved \
    2>/dev/null)
half=\$(sed -n 's/^node .* from \([0-9]*\) to \([0-9]*\)$/\1 \2/p' $state/reserved 2>/dev/null)
[ "\${noted:-0}" -eq \$more ] || [ "\${half% *}" != "\${half#* }" ] ||
    echo "\$more pages more, noted: \${noted:-0}, \$half"
case \$STATUS in 0) [ \$more -eq \$1 ] || echo "\$more pages more, not \$1, with status 0" ;; esac
$hakmem release >released 2>&1 9>&- || echo "cannot be released any more: \$(cat released)"
[ ! -e $state/reserved ] || echo "still noted: \$(cat $state/reserved)"
[ "\$(cat $pool/nr_hugepages)" -eq $base ] || {
    echo "not all came back: \$((\$(cat $pool/nr_hugepages) - $base))"
    echo $base >$pool/nr_hugepages
}
rm -f $state/*
END
}

# forks SETTING...: a busy program forks for a while, with these settings.
forks() {
    local status
    timeout 100 env LD_PRELOAD="$library" "$@" ./fork_load "${FORK_SECONDS:-1}" >out 2>err
    status=$?
    [ "$status" -eq 0 ] || fail "$*: status $status: $(cat out err)"
    cat out
}

# ---- cases -----------------------------------------------------------------------------------

plan_of_what_is_there() {
    options=(-l -1 'init would')
    tool plan --size 8M --pages 4k
}

plan_of_what_is_not() {
    options=(-l -1 'init would')
    tool plan --size 1T --pages 2M,4k
}

plan_as_json() {
    options=(-l -1 '"code"')
    tool plan --json --size 64M --pages 2M,thp
}

doctor() {
    # It has its own statuses for what it finds.
    options=(-l -1 'huge-page-pools')
    tool doctor
}

help_and_version() {
    options=()
    tool version
    tool help
    tool run --help
    tool plan --help
}

run_of_a_program() {
    options=(-x)
    tool run --region-size=64M ./probe
}

run_of_what_is_not_there() {
    options=(-x)
    tool run ./nothing
}

reserve() {
    need_pool
    options=(-c 'sh ./left.sh 4')
    tool reserve --count $((free + 4)) --nodes 0
}

release() {
    need_pool
    options=(-p "$hakmem reserve --count $((free + 4)) --nodes 0 >reserved" -c 'sh ./left.sh 0')
    tool release
}

# To a full device, and with nothing there to write to: another status, and words where there is
# somebody to tell.
output_that_nobody_takes() {
    local words
    for words in 'plan --size 8M --pages 4k' 'plan --json --size 8M --pages 4k' doctor version \
        help 'plan --help' 'run --help'; do
        # Unquoted: several words.
        # shellcheck disable=SC2086
        "$hakmem" $words >/dev/full 2>err
        [ $? -eq 125 ] || fail "$words >/dev/full: status not 125; $(cat err)"
        grep -q 'No space left on device' err || fail "$words >/dev/full said: $(cat err)"
        # shellcheck disable=SC2086
        "$hakmem" $words >&- 2>err
        [ $? -eq 125 ] || fail "$words >&-: status not 125; $(cat err)"
        # shellcheck disable=SC2086
        "$hakmem" $words >/dev/full 2>&1 && fail "$words: nothing could be said, and status 0"
        # shellcheck disable=SC2086
        "$hakmem" $words >&- 2>&- && fail "$words: all closed, and status 0"
    done
    true
}

# What others in the process call on the way to main counts, too; not the loader.
a_program_that_is_preloaded() {
    export LD_PRELOAD=$library
    inject -r ./heap
    HAKMEM_REGION_SIZE=20M HAKMEM_PAGES=4k HAKMEM_PREFAULT=1 inject -r ./heap
}

a_busy_program_that_is_preloaded_forks() {
    compile fork_load "$source/tests/faults/fork_load.c" -pthread || fail "$(cat cc.err)"
    forks HAKMEM_REGION_SIZE=256M
    forks HAKMEM_REGION_SIZE=128M HAKMEM_PAGES=4k HAKMEM_PREFAULT=1
    forks HAKMEM_EXHAUSTED=libc HAKMEM_REGION_SIZE=8M
}

run_cases "$source/tests/test_faults_tools.sh" "${1:-}"
