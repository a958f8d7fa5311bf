#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Python's own regression tests for threads, json, pickle and subprocess: each test's result is the
# same as under the C library. With PYTHONMALLOC=malloc too, where every object is a malloc of its
# own (pymalloc otherwise serves up to 512 bytes from mapped arenas). test_subprocess forks, vforks
# and execs from threads and after-fork hooks, and in the whole part only: it sleeps for
# most of its time.
# shellcheck source=tests/apps/common.sh
. "$(dirname "$0")/common.sh"

python=/usr/bin/python3
need python3 "$python"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
need "libpython$version-testsuite" "/usr/lib/python$version/test/test_pickle.py"

if [ "$part" = quick ]; then
    tests=(test_thread test_json test_pickle)
else
    tests=(test_threading test_thread test_json test_pickle test_subprocess)
fi

jobs=(-j2)

# results NAME ALLOCATOR: a line per test with its outcome, in $work/NAME.
results() {
    local name=$1 status
    mkdir -p "$work/tmp-$name"
    (cd "$work" && TMPDIR=$work/tmp-$name run "PYTHONMALLOC=$2" PYTHONHASHSEED=7 "$python" -m test \
        ${jobs[@]+"${jobs[@]}"} --randseed 7 --junit-xml "$work/$name.xml" "${tests[@]}") \
        >"$work/$name.log" 2>&1
    status=$?
    echo "exit status $status" >"$work/$name"
    "$python" - "$work/$name.xml" >>"$work/$name" <<'END'
import sys
import xml.etree.ElementTree as tree
seen = set()
for case in tree.parse(sys.argv[1]).iter('testcase'):
    ends = sorted({end.tag for end in case if end.tag in ('error', 'failure', 'skipped')})
    seen.add('%s %s' % (case.get('name'), ','.join(ends) or case.get('result') or 'passed'))
print('\n'.join(sorted(seen)))
END
    [ "$status" -eq 0 ] || tail -n 30 "$work/$name.log" | cut -c 1-200 | sed 's/^/    /'
}

# The interpreter itself can tell where it is.
cat >"$work/hold.py" <<'END'
import sys, threading
kept = []
def fill():
    for i in range(2000):
        kept.append(bytearray(b'x') * (600 + i))
threads = [threading.Thread(target=fill) for _ in range(8)]
for t in threads: t.start()
for t in threads: t.join()
print('ready', flush=True)
sys.stdin.read()
END
set_mode hakmem
mkfifo "$work/hold"
exec 9<>"$work/hold"
(exec env "${mode_vars[@]}" "$python" "$work/hold.py") <&9 >"$work/hold.log" 2>&1 &
server=$!
servers+=("$server")
answers 'python3 starts' "$work/hold.log" grep -q ready "$work/hold.log"
on_region python3 "$server" 16000
stop "$server" TERM
exec 9>&-

# compare MODE ALLOCATOR: the mode's results are those of the C library with the same tests.
compare() {
    local mode=$1
    set_mode "$mode"
    results "$mode-$2" "$2"
    same "results of ${tests[*]} ($mode, PYTHONMALLOC=$2)" "$work/glibc-$2" "$work/$mode-$2"
}

allocators=(malloc)
[ "$part" = quick ] || allocators=(pymalloc malloc)
for allocator in "${allocators[@]}"; do
    set_mode glibc
    results "glibc-$allocator" "$allocator"
    check "there are results under the C library ($allocator)" \
        awk 'END { exit NR < 100 }' "$work/glibc-$allocator"
    compare hakmem "$allocator"
done
if [ "$part" = full ]; then
    # Each interpreter that a test starts faults its region in: a few tests only. Pickling large
    # objects takes some hundred MiB.
    prefault_size=512M tests=(test_threading test_thread test_pickle)
    set_mode glibc
    results glibc-malloc malloc
    compare prefault malloc
    # Objects from the region and from the C library in one program, which frees and reallocates
    # both. In one process, since hakmem's line about it is not what a runner of tests expects to
    # hear last from one of its workers.
    jobs=() tests=(test_thread test_pickle)
    set_mode glibc
    results glibc-malloc malloc
    compare spill malloc
    run PYTHONMALLOC=malloc "$python" -c 'x = [bytearray(1000) for i in range(40000)]' \
        >"$work/spill.log" 2>&1
    check 'a region that is too small leaves the rest to the C library' \
        grep -q 'came from the C library' "$work/spill.log"
fi

set_mode hakmem
all_bound python3 "$python" -c 'import json, pickle, subprocess
subprocess.run(["/usr/bin/env", "true"], check=True)'
finish
