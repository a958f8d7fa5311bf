#!/bin/bash
# SPDX-License-Identifier: MIT
#
# `hakmem run`: every option, every refusal, what is passed through, where it finds its library.
#
# A case is a function in a subshell of its own, in the order of this file; it ends by `fail WHY` or
# `skip REASON`, or it is ok. The words that cases are made of are in run_kit.sh. An argument runs
# only the cases with that in their names. Environment: BUILD (build), CC (cc).
#
# Cases are called by their names, which shellcheck does not see.
# shellcheck disable=SC2317
set -u
cd "$(dirname "$0")/.." || exit 1
# shellcheck source=tests/run_kit.sh
. tests/run_kit.sh

# The probe's pages as numbers, from the header.
pages_4k=4 pages_thp=3

the_heap_is_in_a_region() {
    expect 0 ./probe
    output libc
    run 0 ./probe
    quiet
    grep -q '^region ' out || fail "printed $(cat out)"
    run 0 -- ./probe
    grep -q '^region ' out || fail "printed $(cat out)"
}

defaults_are_as_the_help_says() {
    local machine most
    run 0 ./probe
    read -r _ most _ <out
    machine=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
    [[ $most -ge $machine && $most -le $((machine + 66)) ]] ||
        fail "a region of $most MiB on a machine of $machine MiB"
    run 0 --prefault ./probe
    grep -q '^region 256 ' out || fail "with prefault: $(cat out)"
    run 0 --help
    grep -A 4 '^  --size ' out | grep -q "default: the machine's memory; 256M with prefault" ||
        fail 'size'
    grep -A 5 '^  --pages ' out | grep -q 'default: thp,4k' || fail 'pages'
    grep -A 5 '^  --prefault' out | grep -q 'default: 0' || fail 'prefault'
    grep -A 5 '^  --exhausted' out | grep -q 'default: any-node' || fail 'exhausted'
    run 0 --size 512M sh -c "grep '^VmRSS:' /proc/\$\$/status"
    [ "$(awk '{ print $2 }' out)" -lt 65536 ] || fail "faulted in without being asked: $(cat out)"
    run 0 --size 128M --prefault sh -c "grep '^VmRSS:' /proc/\$\$/status"
    [ "$(awk '{ print $2 }' out)" -gt 131072 ] || fail "not faulted in: $(cat out)"
}

size_and_pages_reach_the_region() {
    run 0 --size 64M --pages 4k ./probe
    output "region 64 $pages_4k"
    run 0 --size=32M --pages=thp,4k ./probe
    grep -qxE "region 32 ($pages_thp|$pages_4k)" out || fail "printed $(cat out)"
}

an_option_wins_over_its_variable() {
    HAKMEM_REGION_SIZE=64M HAKMEM_PAGES=4k run 0 ./probe
    output "region 64 $pages_4k"
    HAKMEM_REGION_SIZE=64M HAKMEM_PAGES=2M run 0 --size 32M --pages 4k ./probe
    output "region 32 $pages_4k"
    HAKMEM_PREFAULT=nonsense run 0 --size 32M --prefault=0 --pages 4k ./probe
    output "region 32 $pages_4k"
}

every_variable_has_an_option_that_sets_it() {
    local option variable kind value count=0
    # Not the machine's memory, for --prefault's sake.
    export HAKMEM_REGION_SIZE=32M
    while read -r option variable kind; do
        value=$(accepted "$option")
        [ -n "$value" ] || fail "the help says nothing of what --$option takes"
        run 0 "--$option=$value" env
        grep -qxF "$variable=$value" out || fail "--$option=$value did not set $variable"
        run 0 --print "--$option=$value" true
        grep -qF " $variable=$value " out || fail "--print --$option=$value: $(cat out)"
        if [ "$kind" = VALUE ]; then
            run 0 "--$option" "$value" env
        else
            run 0 "--$option" env
            value=1
        fi
        grep -qxF "$variable=$value" out || fail "--$option, $value did not set $variable"
        count=$((count + 1))
    done < <(variables)
    [ "$count" -ge 13 ] || fail "only $count options"
    [ "$count" -eq \
        "$(grep -cE '^    \[[A-Z_]+\] = \{"HAKMEM_' "$source/region/config_table.c")" ] ||
        fail "$count options, but another number of variables in the table"
}

progress_is_told_on_standard_error_alone() {
    run 0 --progress --prefault --size 64M --pages 4k ./probe
    [ "$(wc -l <err)" -eq 1 ] || fail "not one line: $(cat err)"
    local told='^hakmem: faulted in 64 MiB of 4k pages on [0-9]+ nodes? in [0-9.]+ s: '
    grep -qE "$told[0-9.]+ GiB/s\$" err || fail "said $(cat err)"
    grep -q '^region 64 ' out || fail "printed $(cat out)"
    # Memory that comes as it is used is not faulted in.
    run 0 --progress --size 64M --pages 4k ./probe
    [ ! -s err ] || fail "without prefault: $(cat err)"
    HAKMEM_PROGRESS=1 run 0 --progress=0 --prefault --size 64M --pages 4k ./probe
    [ ! -s err ] || fail "though switched off: $(cat err)"
}

every_accepted_word_is_taken() {
    local option words word
    for option in pages misuse exhausted prefault verify layers hugetlbfs progress; do
        words=$("$hakmem" run --help | grep -A 9 -E "^  --${option}[[ ]" | grep -m 1 'accepted: ')
        words=${words##*[ ]}
        [[ $words == *'|'* ]] || fail "--$option: $words"
        for word in ${words//|/ }; do
            run 0 --print "--$option=$word" true
        done
    done
}

nonsense_is_refused_before_anything_runs() {
    local option variable count=0
    while read -r option variable _; do
        run 2 "--$option=x-x" touch ran
        said "hakmem run: --$option: $variable=x-x cannot be understood; accepted: "
        expect 2 env "$variable=x-x" "$hakmem" run touch ran
        said "hakmem run: $variable=x-x cannot be understood; accepted: "
        grep -q -e '--' err && fail "blames an option that was not given: $(cat err)"
        count=$((count + 1))
    done < <(variables)
    [ "$count" -ge 13 ] || fail "only $count options"
    [ ! -e ran ] || fail 'the program was run'
}

a_number_out_of_range_is_told_once_and_clamped() {
    run 0 --size 1K ./probe
    said 'HAKMEM_REGION_SIZE=1K is less than 2M; using 2M'
    grep -q '^region 2 ' out || fail "printed $(cat out)"
    HAKMEM_WARM_POOL=99 run 0 env
    said 'HAKMEM_WARM_POOL=99 is more than 12; using 12'
    grep -qx 'HAKMEM_WARM_POOL=12' out || fail 'not handed on as 12'
}

an_empty_value_is_the_default() {
    HAKMEM_REGION_SIZE=64M run 0 --size= env
    grep -q '^HAKMEM_REGION_SIZE' out && fail "still set: $(grep HAKMEM out)"
    HAKMEM_REGION_SIZE=64M HAKMEM_PAGES=4k run 0 --print --size= true
    output "env -u HAKMEM_REGION_SIZE LD_PRELOAD=$library HAKMEM_PAGES=4k $(type -P true)"
}

a_switch_takes_its_value_after_an_equals_sign() {
    run 127 --prefault 0 -- true
    grep -qF -e '--prefault=0' err || fail "no hint: $(cat err)"
    run 127 --prefault --size 4M 0
    grep -qF -e '--prefault=0' err && fail "a hint out of place: $(cat err)"
    run 0 --prefault=0 true
}

unknown_options_are_refused() {
    run 2 --no-such-option true
    said "hakmem run: unrecognized option '--no-such-option'"
    run 2 -x true
    said "hakmem run: invalid option -- 'x'"
    run 2 --size
    said "hakmem run: option '--size' requires an argument"
    run 2 --print=yes true
    said "hakmem run: option '--print' doesn't allow an argument"
    run 2
    said 'there is no program to run'
    run 2 --size 64M --
    said 'there is no program to run'
}

exit_statuses_are_the_programs_own() {
    local status
    for status in 0 1 2 42 125 126 127 255; do
        run "$status" sh -c "exit $status"
        quiet
    done
}

the_program_takes_the_tools_place() {
    local pid
    "$hakmem" run sh -c 'echo $$' >out 2>err &
    pid=$!
    wait "$pid"
    output "$pid"
    # In a shell of its own, which says of a killed program what it likes.
    expect 143 bash -c "'$hakmem' run sh -c 'kill -TERM \$\$'; exit \$?"
    expect 139 bash -c "'$hakmem' run sh -c 'kill -SEGV \$\$'; exit \$?"
    echo 'through and through' | "$hakmem" run cat >out
    output 'through and through'
}

arguments_keep_their_borders() {
    run 0 -- ./arguments 'a b' '' -- --size 1 '*' $'two\nlines' '"' "'"
    output "$(printf '<%s>\n' ./arguments 'a b' '' -- --size 1 '*' $'two\nlines' '"' "'")"
    run 0 ./arguments --print --help -- ''
    output "$(printf '<%s>\n' ./arguments --print --help -- '')"
}

what_was_preloaded_before_stays_behind_it() {
    echo 'int one(void); int one(void) { return 1; }' >one.c
    compile one.so -shared -fPIC one.c || fail "$(cat cc.err)"
    cp one.so two.so
    LD_PRELOAD="$work/one.so $work/two.so" run 0 env
    grep -qxF "LD_PRELOAD=$library:$work/one.so:$work/two.so" out || fail "$(grep PRELOAD out)"
    LD_PRELOAD="$work/one.so" run 0 cat /proc/self/maps
    grep -qF "$work/one.so" out || fail 'the other library is not loaded'
    grep -qF "$library" out || fail 'ours is not loaded'
    LD_PRELOAD=$library run 0 env
    grep -qxF "LD_PRELOAD=$library" out || fail "twice: $(grep PRELOAD out)"
    LD_PRELOAD="$work/one.so:$library::$work/two.so" run 0 env
    grep -qxF "LD_PRELOAD=$library:$work/one.so:$work/two.so" out || fail "$(grep PRELOAD out)"
    run 0 env
    grep -qxF "LD_PRELOAD=$library" out || fail "$(grep PRELOAD out)"
}

runs_can_be_nested() {
    run 0 -- "$hakmem" run -- true
    quiet
    run 0 --size 64M --pages 4k -- "$hakmem" run --size 32M -- ./probe
    output "region 32 $pages_4k"
    run 0 -- "$hakmem" run -- env
    grep -qxF "LD_PRELOAD=$library" out || fail "$(grep PRELOAD out)"
    run 7 -- "$hakmem" run -- sh -c 'exit 7'
    run 2 -- "$hakmem" run --no-such-option true
    run 127 -- "$hakmem" run -- ./no-such-program
}

scripts_run_on_the_region() {
    script first "#!$work/probe"
    script second "#! $work/first with arguments"
    run 0 ./first
    grep -q '^region ' out || fail "first: $(cat out)"
    run 0 ./second
    grep -q '^region ' out || fail "second: $(cat out)"
    # The script's own argument.
    # shellcheck disable=SC2016
    script plain "$work/probe" 'echo "$1"'
    run 0 ./plain 'an argument'
    grep -q '^region ' out || fail "plain: $(cat out)"
    grep -qx 'an argument' out || fail "plain: $(cat out)"
    script by_env '#!/usr/bin/env sh' "$work/probe"
    run 0 ./by_env
    grep -q '^region ' out || fail "by_env: $(cat out)"
}

programs_are_found_as_execvp_finds_them() {
    mkdir -p one two three
    script two/tool '#!/bin/sh' 'echo two'
    script three/tool '#!/bin/sh' 'echo three'
    echo nothing >one/tool
    mkdir -p four/tool
    local base=$PATH
    PATH=$work/none:$work/one:$work/four:$work/two:$work/three:$base run 0 tool
    output two
    PATH=$work/three:$work/two:$base run 0 tool
    output three
    cp two/tool here_only
    PATH=:$base run 0 here_only
    output two
    PATH=$base: run 0 here_only
    output two
    PATH=$base run 127 here_only
    said 'hakmem run: here_only: not found on PATH'
    expect 0 env -u PATH "$hakmem" run true
    PATH=$work:$base run 0 arguments x
    output "$(printf '<%s>\n' arguments x)"
}

a_closed_folder_on_path_is_passed_over() {
    for_nobody ./probe_of_all
    mkdir -p shut
    script shut/shut_in '#!/bin/sh'
    chmod 700 shut
    expect 127 as_nobody env PATH="$work/shut:/usr/bin:/bin" "$hakmem" run shut_in
    said 'hakmem run: shut_in: not found on PATH'
    script shut_in '#!/bin/sh' 'exit 3'
    expect 3 as_nobody env PATH="$work/shut:$work:/usr/bin:/bin" "$hakmem" run shut_in
    chmod 644 shut_in
    expect 126 as_nobody env PATH="$work/shut:$work:/usr/bin:/bin" "$hakmem" run shut_in
}

a_missing_program_is_127() {
    run 127 no-such-program
    said 'hakmem run: no-such-program: not found on PATH'
    run 127 ./no-such-program
    said './no-such-program: not found'
    run 127 ./probe/below
    said './probe/below: not found'
    run 127 ''
    said 'name is empty'
}

a_program_that_cannot_be_executed_is_126() {
    echo 'exit 0' >plain_text
    chmod 644 plain_text
    mkdir -p folder
    run 126 ./plain_text
    said './plain_text: found, but cannot be executed: Permission denied'
    run 126 ./folder
    said './folder: found, but cannot be executed: Is a directory'
    PATH=$work run 126 plain_text
    said "$work/plain_text: found, but cannot be executed: Permission denied"
    script lost '#!/no/such/interpreter'
    run 126 ./lost
    said './lost: found, but cannot be executed: its interpreter /no/such/interpreter: No such'
    compile relocatable -c arguments.c || fail "$(cat cc.err)"
    chmod 755 relocatable
    run 126 ./relocatable
    said './relocatable: found, but cannot be executed: Exec format error'
    compile lost_linker probe.c -Wl,--dynamic-linker=/no/such/ld-linux-x86-64.so.2 ||
        fail "$(cat cc.err)"
    run 126 ./lost_linker
    said 'its dynamic linker /no/such/ld-linux'
    head -c 300 probe >torn
    chmod 755 torn
    run 126 ./torn
    said './torn: found, but cannot be executed: Exec format error'
    script loop "#!$work/loop"
    run 126 ./loop
    said './loop: found, but cannot be executed: Too many levels'
}

static_programs_are_refused() {
    need_static
    expect 0 env LD_PRELOAD="$library" ./static
    output libc
    run 125 ./static
    said './static: cannot be put onto a region: it is statically linked'
    run 125 --print ./static
    script on_static "#!$work/static"
    run 125 ./on_static
    said "./on_static: cannot be put onto a region: its interpreter $work/static is statically"
    script on_script "#!$work/on_static"
    run 125 ./on_script
    said "./on_script: cannot be put onto a region: its interpreter $work/static is statically"
}

static_pie_programs_are_refused() {
    compile static_pie -static-pie -fPIE arguments.c || skip 'no static-pie here'
    run 125 ./static_pie
    said 'it is statically linked'
}

programs_of_another_processor_are_refused() {
    copy_with narrow 4 '\001'
    run 125 ./narrow
    said './narrow: cannot be put onto a region: it is a 32-bit program'
    copy_with other 18 '\363\000'
    run 125 ./other
    said './other: cannot be put onto a region: it is for another processor (ELF machine 243)'
    copy_with big_endian 5 '\002'
    run 125 ./big_endian
    said 'it is for another processor'
    script on_narrow "#!$work/narrow"
    run 125 ./on_narrow
    said "its interpreter $work/narrow is a 32-bit program"
}

programs_of_another_c_library_are_refused() {
    local linker
    linker=$(ldd ./probe | sed -nE 's/^[[:space:]]*(\/[^ ]*\/ld-[^ ]*) .*/\1/p')
    ln -sf "$linker" ld-musl-x86_64.so.1
    compile foreign probe.c -Wl,--dynamic-linker="$work/ld-musl-x86_64.so.1" ||
        fail "$(cat cc.err)"
    expect 0 ./foreign
    run 125 ./foreign
    said "it runs on another C library (its dynamic linker is $work/ld-musl-x86_64.so.1)"
    ln -sf "$linker" "${linker##*/}"
    compile moved probe.c -Wl,--dynamic-linker="$work/${linker##*/}" || fail "$(cat cc.err)"
    run 0 ./moved
    grep -q '^region ' out || fail "$(cat out)"
    run 0 "$linker" ./probe
    grep -q '^region ' out || fail "the linker as a program: $(cat out)"
}

set_user_id_programs_of_others_are_refused() {
    for_nobody ./owned
    chmod 4755 owned
    refused_for_nobody ./owned 'is set-user-ID to another user'
    script on_owned "#!$work/owned"
    expect 125 as_nobody "$hakmem" run ./on_owned
    said "its interpreter $work/owned is set-user-ID"
    script marked "#!$work/probe"
    chmod 4755 marked
    expect 0 as_nobody "$hakmem" run ./marked
    grep -q '^region ' out || fail "the bit means nothing on a script: $(cat out)"
    expect 0 as_nobody setpriv --no-new-privs "$hakmem" run ./owned
    grep -q '^region ' out || fail "without new privileges: $(cat out)"
    chown 65534 owned
    chmod 4755 owned
    expect 0 as_nobody "$hakmem" run ./owned
    grep -q '^region ' out || fail "the user's own: $(cat out)"
    run 125 ./owned
    said 'it is set-user-ID to another user'
}

the_systems_su_is_refused() {
    local su
    su=$(type -P su) || skip 'no su here'
    [[ -u $su ]] || skip "$su is not set-user-ID here"
    if [ "$(id -u)" -eq 0 ]; then
        for_nobody ./probe_of_all
        expect 125 as_nobody "$hakmem" run su --version
    else
        run 125 su --version
    fi
    said 'su: cannot be put onto a region: it is set-user-ID to another user'
}

set_group_id_programs_of_others_are_refused() {
    for_nobody ./grouped
    chmod 2755 grouped
    refused_for_nobody ./grouped 'is set-group-ID to another group'
    chmod 2745 grouped
    expect 0 as_nobody "$hakmem" run ./grouped
    grep -q '^region ' out || fail "without the group's x bit: $(cat out)"
}

programs_with_file_capabilities_are_refused() {
    for_nobody ./capable
    setcap cap_net_raw+ep capable 2>/dev/null || skip 'no setcap, or no attributes on this mount'
    refused_for_nobody ./capable 'has file capabilities'
}

a_tool_with_others_rights_refuses() {
    for_nobody ./probe_of_all
    expect 125 setpriv --ruid 65534 "$hakmem" run ./probe_of_all
    said 'it would run as another user'
    expect 125 setpriv --rgid 65534 --keep-groups "$hakmem" run ./probe_of_all
    said 'it would run as another group'
}

a_program_that_cannot_be_read_runs() {
    for_nobody ./closed
    chmod 711 closed
    expect 0 as_nobody "$hakmem" run ./closed
    grep -q '^region ' out || fail "$(cat out)"
}

preload_names_the_library() {
    mkdir -p elsewhere 'with space'
    cp "$library" elsewhere/other.so
    run 0 --preload elsewhere/other.so env
    grep -qxF "LD_PRELOAD=$work/elsewhere/other.so" out || fail "$(grep PRELOAD out)"
    run 0 --preload "$work/elsewhere/other.so" ./probe
    grep -q '^region ' out || fail "$(cat out)"
    run 125 --preload elsewhere/none.so true
    said 'hakmem run: --preload elsewhere/none.so: No such file'
    run 125 --preload probe.c true
    said 'is not a shared library'
    compile object.o -c arguments.c || fail "$(cat cc.err)"
    run 125 --preload object.o true
    said 'is not a shared library'
    run 125 --preload ./probe true
    said 'is not a shared library'
    run 125 --preload "$work" true
    said "$work"
    cp "$library" 'with space'
    run 125 --preload 'with space/libhakmem_preload.so' true
    said 'spaces, colons and dollar signs'
    head -c 100 "$library" >torn.so
    run 125 --preload torn.so true
    said 'is not a shared library'
}

the_library_is_found_from_an_installed_tool() {
    local folder prefix
    for folder in bin lib lib64 "lib/$(uname -m)-linux-gnu"; do
        prefix=$work/prefix-${folder//\//-}
        mkdir -p "$prefix/bin" "$prefix/$folder"
        cp "$hakmem" "$prefix/bin"
        cp "$library" "$prefix/$folder"
        expect 0 "$prefix/bin/hakmem" run --size 32M env
        grep -qxF "LD_PRELOAD=$prefix/$folder/libhakmem_preload.so" out ||
            fail "$folder: $(grep PRELOAD out)"
        expect 0 "$prefix/bin/hakmem" run ./probe
        grep -q '^region ' out || fail "$folder: $(cat out)"
    done
    ln -sf "$work/prefix-lib/bin/hakmem" linked
    expect 0 ./linked run env
    grep -qxF "LD_PRELOAD=$work/prefix-lib/lib/libhakmem_preload.so" out || fail "by a link"
}

the_library_is_found_where_the_dynamic_linker_looks() {
    mkdir -p lonely far
    cp "$hakmem" lonely
    cp "$library" far
    expect 125 lonely/hakmem run true
    said 'libhakmem_preload.so is neither beside this tool nor in ../lib'
    LD_LIBRARY_PATH=$work/far LD_PRELOAD=$work/one.so expect 0 lonely/hakmem run env
    grep -qxF "LD_PRELOAD=$work/far/libhakmem_preload.so:$work/one.so" out ||
        fail "$(grep PRELOAD out)"
    grep -q '^LD_TRACE' out && fail 'the question to the linker is left in the environment'
    LD_LIBRARY_PATH=$work/far expect 0 lonely/hakmem run ./probe
    grep -q '^region ' out || fail "$(cat out)"
}

print_shows_what_would_run_and_runs_nothing() {
    run 0 --print --size 32M --pages 4k touch ran
    quiet
    output "env LD_PRELOAD=$library HAKMEM_REGION_SIZE=32M HAKMEM_PAGES=4k $(type -P touch) ran"
    [ ! -e ran ] || fail 'the program was run'
    run 0 --print --size 32M --pages 4k ./probe
    expect 0 sh -c "$(cat out)"
    output "region 32 $pages_4k"
    # Not expanded by either shell.
    # shellcheck disable=SC2016
    local words=(./arguments 'a b' '' "it's" '$HOME' $'two\nlines' '*' '~' '#')
    run 0 --print "${words[@]}"
    expect 0 sh -c "$(cat out)"
    output "$(printf '<%s>\n' "${words[@]}")"
    run 127 --print no-such-program
}

help_and_version() {
    local version
    run 0 --help
    quiet
    grep -q '^usage: hakmem run ' out || fail "$(head -n 1 out)"
    cp out by_option
    expect 0 "$hakmem" run -h
    cmp -s out by_option || fail 'hakmem run -h differs'
    expect 0 "$hakmem" help run
    cmp -s out by_option || fail 'hakmem help run differs'
    HAKMEM_REGION_SIZE=64M HAKMEM_WARM_POOL=99 run 0 --misuse=what --help
    grep -qx '      now: 64M' out || fail 'a value in the environment is not shown'
    grep -qx '      now: 99, out of range: taken as 12' out || fail 'nor one out of range'
    grep -qx '      now: what  <- cannot be understood' out || fail 'nor nonsense'
    expect 0 "$hakmem" --help
    grep -q '^  run ' out || fail "$(cat out)"
    version=$(awk '/define HAK_VERSION_M|define HAK_VERSION_P/ { v = v s $3; s = "." }
                   END { print v }' "$source/include/hakmem.h")
    expect 0 "$hakmem" --version
    output "hakmem $version"
    expect 0 "$hakmem" version
    output "hakmem $version"
}

unknown_subcommands_are_refused() {
    local word
    expect 2 "$hakmem"
    grep -q '^usage: ' err || fail "$(cat out err)"
    [ ! -s out ] || fail "on standard output: $(cat out)"
    for word in nonsense --nonsense '' ru; do
        expect 2 "$hakmem" "$word"
        grep -q '^usage: ' err || fail "$(cat out err)"
        grep -qF "hakmem: no subcommand or option '$word'" err || fail "$(cat out err)"
        [ ! -s out ] || fail "on standard output: $(cat out)"
    done
    expect 2 "$hakmem" help nonsense
    said "hakmem: no help about 'nonsense'"
    expect 2 "$hakmem" version nonsense
    said 'takes no arguments'
}

a_full_disk_is_an_error() {
    [ -w /dev/full ] || skip 'no /dev/full'
    local arguments
    for arguments in 'run --help' --help --version 'run --print true'; do
        # Words on purpose.
        # shellcheck disable=SC2086
        "$hakmem" $arguments >/dev/full 2>err && fail "hakmem $arguments: status 0"
        grep -q 'cannot write to standard output: No space' err || fail "$arguments: $(cat err)"
    done
}

run_cases "$source/tests/test_run.sh" "${1:-}"
