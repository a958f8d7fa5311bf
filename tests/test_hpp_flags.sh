#!/bin/bash
# SPDX-License-Identifier: MIT
#
# include/hakmem.hpp under the flags its users have: every compiler here, both standards, with and
# without exceptions and RTTI, all warnings errors; and what a program without exceptions hears when
# something cannot be had. BUILD names the build folder, as in the Makefile.
set -u
cd "$(dirname "$0")/.." || exit 1

library=${BUILD:-build}/libhakmem.a
warnings=(-Wall -Wextra -Wpedantic -Wundef -Wshadow -Wconversion -Werror)
without=(-fno-exceptions -fno-rtti)
passed=0 failed=0 skipped=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

ok() {
    echo "ok $1"
    passed=$((passed + 1))
}
fail() {
    echo "FAIL $1: $2"
    failed=$((failed + 1))
}
skip() {
    echo "skip $1: $2"
    skipped=$((skipped + 1))
}

# Every class whole, and every function template once; in two files, which must agree.
cat >"$work/all.cc" <<'EOF'
#include <hakmem.hpp>
#include <map>
#include <vector>
template class hakmem::allocator<char>;
template class hakmem::allocator<long double>;
template class hakmem::region_allocator<char>;
template class hakmem::deleter<hakmem::allocator<int>>;
template class hakmem::deleter<hakmem::region_allocator<int>>;
template class std::vector<int, hakmem::allocator<int>>;
template class std::map<int, int, std::less<>, hakmem::region_allocator<std::pair<const int, int>>>;
struct incomplete;
struct node {
    std::vector<node, hakmem::allocator<node>> children;
    hakmem::unique_ptr<incomplete> *later = nullptr;
};
std::pmr::memory_resource *of_the_other_file();
#ifdef SECOND
std::pmr::memory_resource *of_the_other_file()
{
    return hakmem::default_resource();
}
#else
int main()
{
    hak_error failure;
    hak_config config{};
    config.size_bytes = std::size_t{4} << 20;
    config.pages[0] = HAK_PAGES_4K;
    const hakmem::region usual = hakmem::region::init(config, failure);
    if (!usual || of_the_other_file() != hakmem::default_resource()) {
        return 1;
    }
    node root;
    root.children.resize(3);
    const hakmem::memory_resource first(usual), copy(first);
    const auto one = hakmem::make_unique<int>(1);
    const auto two = hakmem::allocate_unique<int>(hakmem::region_allocator<int>(usual), 2);
    return *one + *two == 3 && first == first && !first.is_equal(*std::pmr::new_delete_resource())
               ? 0
               : 1;
}
#endif
EOF

# compiles NAME COMPILER FLAG...: both files and the program of both.
compiles() {
    local name=$1
    shift
    if ! { "$@" "${warnings[@]}" -Iinclude -c "$work/all.cc" -o "$work/first.o" &&
        "$@" "${warnings[@]}" -Iinclude -DSECOND -c "$work/all.cc" -o "$work/second.o" &&
        "$@" "$work/first.o" "$work/second.o" "$library" -lnuma -lpthread -o "$work/all"; } \
        >"$work/said" 2>&1; then
        fail "$name" "$(head -n 20 "$work/said")"
    elif "$work/all" >"$work/said" 2>&1; then
        ok "$name"
    else
        fail "$name" "the program ends with $?: $(cat "$work/said")"
    fi
}

for compiler in g++ clang++; do
    for standard in c++17 c++20; do
        name=hpp_by_${compiler/++/xx}_${standard/++/xx}
        if ! command -v "$compiler" >/dev/null; then
            skip "$name" "there is no $compiler here"
            continue
        fi
        compiles "$name" "$compiler" -std="$standard" -O2
        compiles "${name}_without_exceptions_and_rtti" "$compiler" -std="$standard" -O0 \
            "${without[@]}"
    done
    name=hpp_example_by_${compiler/++/xx}
    if ! command -v "$compiler" >/dev/null; then
        skip "$name" "there is no $compiler here"
    elif ! "$compiler" -std=c++17 "${warnings[@]}" -Iinclude examples/containers.cc "$library" \
        -lnuma -lpthread -o "$work/example" >"$work/said" 2>&1; then
        fail "$name" "$(head -n 20 "$work/said")"
    elif ! "$work/example" >"$work/said" 2>&1 || ! grep -q 'the book is full' "$work/said"; then
        fail "$name" "$(cat "$work/said")"
    else
        ok "$name"
    fi
done

cat >"$work/stops.cc" <<'EOF'
#include <cstring>
#include <hakmem.hpp>
#include <vector>
int main(int, char **argv)
{
    hak_config config{};
    config.size_bytes = std::size_t{2} << 20;
    config.pages[0] = HAK_PAGES_4K;
    const hakmem::region owner(config);
    hakmem::memory_resource resource(owner);
    hakmem::region_allocator<long> longs(owner);
    volatile std::size_t much = std::size_t{1} << 62;
    if (std::strcmp(argv[1], "room") == 0) {
        (void)resource.allocate(std::size_t{64} << 20);
    } else if (std::strcmp(argv[1], "count") == 0) {
        (void)longs.allocate(much);
    } else if (std::strcmp(argv[1], "set-up") == 0) {
        config.reserved[0] = 1;
        const hakmem::region refused(config);
    } else if (std::strcmp(argv[1], "owner") == 0) {
        const hakmem::region empty;
        const hakmem::memory_resource none(empty);
    } else {
        hak_error failure;
        config.reserved[0] = 1;
        const hakmem::region refused(config, failure);
        std::vector<long, hakmem::region_allocator<long>> numbers(100, 1, owner);
        return !refused && failure.code == -EINVAL && numbers[99] == 1 ? 0 : 2;
    }
    return 3;
}
EOF

# stops NAME ARGUMENT TEXT: aborts, and the text is in what it writes before.
stops() {
    local status
    {
        (
            ulimit -c 0
            exec "$work/stops" "$2"
        ) >"$work/said" 2>&1
        status=$?
    } 2>/dev/null # where the shell remarks on the signal
    if [ "$status" -ne 134 ]; then
        fail "$1" "exit status $status and not SIGABRT: $(cat "$work/said")"
    elif ! grep -q "^hakmem: .*$3" "$work/said"; then
        fail "$1" "no '$3' in: $(cat "$work/said")"
    else
        ok "$1"
    fi
}

if ! g++ -std=c++17 "${without[@]}" "${warnings[@]}" -Iinclude "$work/stops.cc" "$library" \
    -lnuma -lpthread -o "$work/stops" >"$work/said" 2>&1; then
    fail hpp_without_exceptions "$(head -n 20 "$work/said")"
else
    stops hpp_without_exceptions_no_room_aborts room 'allocation of 67108864 bytes'
    stops hpp_without_exceptions_an_impossible_count_aborts count 'more bytes than std::size_t'
    stops hpp_without_exceptions_a_failed_set_up_aborts set-up 'reserved'
    stops hpp_without_exceptions_an_empty_owner_aborts owner 'owns nothing'
    if "$work/stops" none >"$work/said" 2>&1; then
        ok hpp_without_exceptions_errors_can_be_asked_for
    else
        fail hpp_without_exceptions_errors_can_be_asked_for "exit status $?: $(cat "$work/said")"
    fi
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] || exit 1
[ "$passed" -gt 0 ] || exit 77
