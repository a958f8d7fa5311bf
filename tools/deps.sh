#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Sees to what has to be on the machine: deps.sh need|build|check|test|need-lint
#
#   need       says what a plain make lacks, and fails; installs nothing
#   build      make deps: the library's dependencies; installs what is missing where it may
#   check      ... and those of make check
#   test       ... and make deps-test: analysers, and the allocators that bench/compare runs against
#   need-lint  says what make lint lacks, and fails; installs nothing
#
# "Where it may" is: as root, on a machine with apt. Elsewhere it prints the line to run and fails.
set -eu

cc=${CC:-cc}
missing=

# want PACKAGE COMMAND...: the package is missing when the command fails.
want() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

header() {
    # Unquoted: CC may be several words (ccache gcc).
    # shellcheck disable=SC2086
    printf '#include <%s>\n' "$1" | $cc ${CPPFLAGS:-} -E -
}

clang_version() {
    version=$(clang -dumpversion 2>/dev/null || apt-cache depends clang 2>/dev/null |
        sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p')
    version=${version%%.*}
    echo "${version:-14}"
}

fuzzes() {
    probe=$(mktemp) || return 1
    echo 'int LLVMFuzzerTestOneInput(const unsigned char *d, __SIZE_TYPE__ n);
          int LLVMFuzzerTestOneInput(const unsigned char *d, __SIZE_TYPE__ n)
          { return (void)d, (void)n, 0; }' |
        "${FUZZ_CC:-clang}" -x c - -fsanitize=fuzzer,address,undefined -o "$probe"
    code=$?
    rm -f "$probe"
    return "$code"
}

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1")" = installed ]
}

want_build() {
    want libnuma-dev header numa.h
    want libhugetlbfs-dev header hugetlbfs.h
    want libcjson-dev header cjson/cJSON.h
}

want_check() {
    want_build
    want g++ command -v "${CXX:-g++}"
    want strace command -v strace
    want python3 command -v python3
    want libhugetlbfs-bin command -v hugeadm
    want numactl command -v numactl
    want spin command -v spin
    want clang command -v clang
    # The part of clang that make fuzz links with is a package of its own, by clang's version.
    want "libclang-rt-$(clang_version)-dev" fuzzes
}

want_lint() {
    want clang-tidy command -v clang-tidy
    want clang-format command -v clang-format
    want cppcheck command -v cppcheck
}

want_test() {
    want_check
    want_lint
    want valgrind command -v valgrind
    want gnuplot-nox command -v gnuplot
    for library in libmimalloc2.0 libjemalloc2 libtcmalloc-minimal4 libtbbmalloc2; do
        want "$library" installed "$library"
    done
}

say_and_fail() {
    sudo=
    [ "$(id -u)" -eq 0 ] || sudo='sudo '
    echo "hakmem: missing here:$missing. Run:" >&2
    if command -v apt-get >/dev/null 2>&1 || ! command -v dnf >/dev/null 2>&1; then
        echo "    ${sudo}apt-get update && ${sudo}apt-get install -y$missing" >&2
    else
        names=$(echo "$missing" | sed 's/libnuma-dev/numactl-devel/
                                       s/libhugetlbfs-dev/libhugetlbfs-devel/
                                       s/libcjson-dev/cjson-devel/
                                       s/g++/gcc-c++/
                                       s/clang-tidy\|clang-format/clang-tools-extra/g')
        echo "    ${sudo}dnf install -y$names" >&2
    fi
    exit 1
}

install_missing() {
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        say_and_fail
    fi
    echo "hakmem: installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    # Unquoted on purpose: a word for each package.
    # shellcheck disable=SC2086
    if ! { apt-get -qq update && apt-get -qq -o DPkg::Lock::Timeout=120 install -y \
        --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        say_and_fail
    fi
    rm -f "$log"
}

if ! command -v "${cc%% *}" >/dev/null 2>&1; then
    echo "hakmem: no C compiler ($cc). Run: apt-get install -y gcc libc6-dev" >&2
    exit 1
fi
case ${1:-} in
need)
    want libnuma-dev header numa.h
    want libcjson-dev header cjson/cJSON.h
    ;;
build) want_build ;;
check) want_check ;;
test) want_test ;;
need-lint) want_lint ;;
*)
    echo "usage: $0 need|build|check|test|need-lint" >&2
    exit 2
    ;;
esac
[ -n "$missing" ] || exit 0
case $1 in
need*) say_and_fail ;;
esac
install_missing
missing=
"want_$1"
[ -z "$missing" ] || say_and_fail
