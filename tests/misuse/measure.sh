# SPDX-License-Identifier: MIT
#
# Running the misdeeds of deeds.c and putting what became of them into few words; to be sourced from
# the checkout's top by table.sh and tests/test_misuse_table.sh. Needs $work, a folder.
#
# An outcome is a list of what happened, in order, each thing with the stage it happened in:
#
#   overlap           two live objects share bytes
#   damage            the bytes of a live object changed, that the program had not written
#   told STAGE        a message, and the program went on
#   caught STAGE      a message and an abort
#   crash STAGE       another signal, or an abort without a word
#   fault write       the bad write (or read) itself was stopped by the processor
#   hang STAGE        no end
#   books             the allocator's own walk over its books failed
#   says ...          what the call answered
#   harmless          nothing of all that, up to the end
#   none              this allocator has no such call
# shellcheck shell=bash

# As they are, and in the modes and allocators that look at each call. Who sources this uses them.
# shellcheck disable=SC2034
misuse_usual=(hakmem glibc mimalloc jemalloc tcmalloc)
# shellcheck disable=SC2034
misuse_strict=(hardened scudo glibc-check tcmalloc-debug)

# misuse_build BUILD: the two programs, $work/deeds and $work/inside.
misuse_build() {
    local flags=(-O1 -g -fno-builtin -std=gnu17 -D_GNU_SOURCE= -Wall -Wextra -Werror -Iinclude -I.
        -pthread tests/misuse/deeds.c)
    # Unquoted: CC may be several words.
    # shellcheck disable=SC2086
    ${CC:-cc} "${flags[@]}" tests/misuse/calls_plain.c -o "$work/deeds" &&
        ${CC:-cc} "${flags[@]}" tests/misuse/calls_library.c "$1/inside.a" -lnuma \
            -o "$work/inside"
}

misuse_rows() {
    "$work/deeds" --list
}

misuse_library() {
    local name
    case $1 in
    hakmem | hardened) realpath "${BUILD:-build}/libhakmem_preload.so" && return ;;
    glibc) return 0 ;;
    glibc-check) name=libc_malloc_debug.so.0 ;;
    mimalloc) name=libmimalloc.so.2 ;;
    jemalloc) name=libjemalloc.so.2 ;;
    tcmalloc) name=libtcmalloc_minimal.so.4 ;;
    tcmalloc-debug) name=libtcmalloc_minimal_debug.so.4 ;;
    scudo)
        find /usr/lib/llvm-* -name "libclang_rt.scudo_standalone-$(uname -m).so" 2>/dev/null |
            sort | tail -n 1 | grep .
        return
        ;;
    esac
    /sbin/ldconfig -p | sed -n "s/^[[:space:]]*$name .*64.* => //p" | head -n 1 | grep .
}

# misuse_run PROGRAM COLUMN ROW LOG [NAME=VALUE...]: runs a row; leaves the log, its last line the
# exit status.
misuse_run() {
    local program=$1 column=$2 row=$3 log=$4 library status settings=("${@:5}")
    library=$(misuse_library "$column") || return
    [ "$program" = deeds ] || library=
    case $column in
    hardened) settings+=(HAKMEM_HARDENED=1) ;;
    glibc-check) settings+=(GLIBC_TUNABLES=glibc.malloc.check=3) ;;
    esac
    # The shell says that the program was aborted, which is expected here; that goes nowhere.
    {
        (
            ulimit -c 0
            exec timeout -k 1 "${MISUSE_SECONDS:-20}" \
                env ${library:+LD_PRELOAD="$library"} ${settings[@]+"${settings[@]}"} \
                "$work/$program" "$row"
        ) >"$log" 2>&1 </dev/null
    } 2>/dev/null
    status=$?
    printf '\n@ status %s\n' "$status" >>"$log"
}

# misuse_outcome LOG: the outcome.
misuse_outcome() {
    awk '
        function add(what) { outcome = outcome (outcome == "" ? "" : ", ") what }
        /^@ stage / { stage = $3; next }
        /^@ overlap$/ { add("overlap"); next }
        /^@ damage$/ { add("damage"); next }
        /^@ books / { add("books"); next }
        /^@ says / { sub(/^@ /, ""); says = $0; next }
        /^@ none$/ { none = 1; next }
        /^@ misuses / { next }
        /^@ done$/ { done = 1; next }
        /^@ failed/ { add("FAILED") ; next }
        /^@ status / { status = $3; next }
        /^$/ { next }
        told == "" { told = stage }
        END {
            signal = status > 128 ? status - 128 : 0
            if (status == 124 || status == 137)
                add("hang " stage)
            else if (signal == 6 && told != "")
                add("caught " (told == stage ? stage : told ", abort " stage))
            else if (signal != 0) {
                if (told != "") add("told " told)
                add(stage == "write" && signal != 6 ? "fault write" : "crash " stage)
            } else if (status != 0 || !done)
                add("FAILED with status " status)
            else if (none)
                outcome = "none"
            else if (told != "")
                add("told " told)
            if (outcome == "" && says == "") outcome = "harmless"
            if (says != "") outcome = says (outcome == "" ? "" : ", " outcome)
            print outcome
        }' "$1"
}

# misuse_words OUTCOME: the same for a reader.
misuse_words() {
    # shellcheck disable=SC2001
    sed -e 's/says refused/refused (NULL)/
            s/says \([^,]*\)/\1/
            s/overlap/**handed out twice**/
            s/damage/**others'"'"' bytes changed**/
            s/books/**books out of order**/
            s/caught call/caught at the call/
            s/caught free/caught when it is freed/
            s/caught reuse/caught at reuse/
            s/caught flush/caught at a flush/
            s/told call/told at the call/
            s/told \([a-z]*\)$/told at \1/
            s/caught work/caught later/
            s/caught end/caught at thread exit/
            s/fault write/the write faults/
            s/crash call/**crash** in the call/
            s/crash free/**crash** when it is freed/
            s/crash reuse/**crash** at reuse/
            s/crash flush/**crash** at frees after/
            s/crash work/**crash** later/
            s/hang \([a-z]*\)/**hang** at \1/
            s/^none$/–/' <<<"$1"
}

# misuse_measure PROGRAM COLUMN POLICY [ROW...]: these rows, or every one, as many at once as there
# are processors; leaves $work/PROGRAM.COLUMN.POLICY/ROW. POLICY: HAKMEM_MISUSE's.
misuse_measure() {
    local folder=$work/$1.$2.$3 rows=("${@:4}")
    mkdir -p "$folder"
    export -f misuse_run misuse_library
    export work
    [ "${#rows[@]}" -gt 0 ] || mapfile -t rows < <(misuse_rows | cut -d '|' -f 1)
    printf '%s\n' "${rows[@]}" |
        xargs -P "$(nproc)" -I ROW bash -c 'misuse_run "$@"' run "$1" "$2" ROW "$folder/ROW" \
            HAKMEM_MISUSE="$3"
}

# misuse_table COLUMN...: a table in Markdown of what was measured of deeds under abort.
misuse_table() {
    local name title column
    printf '| '
    for column in misdeed "$@"; do
        printf ' %s |' "$(misuse_title "$column")"
    done | cut -c 2-
    printf '|'
    for column in misdeed "$@"; do
        printf ' --- |'
    done
    printf '\n'
    while IFS='|' read -r name title; do
        printf '| %s |' "$title"
        for column; do
            printf ' %s |' "$(misuse_words "$(misuse_outcome "$work/deeds.$column.abort/$name")")"
        done
        printf '\n'
    done < <(misuse_rows)
}

misuse_title() {
    case $1 in
    hardened) echo 'hakmem, hardened' ;;
    glibc-check) echo 'glibc, checking' ;;
    tcmalloc-debug) echo 'tcmalloc, debug' ;;
    *) echo "$1" ;;
    esac
}

# misuse_versions: what the others' columns were measured with, a line each.
misuse_versions() {
    local package column
    for column in glibc:libc6 mimalloc:libmimalloc2.0 jemalloc:libjemalloc2 \
        tcmalloc:libtcmalloc-minimal4 scudo:libclang-rt-14-dev; do
        package=${column#*:}
        dpkg-query -W -f "- ${column%%:*}: Debian's \${Package} \${Version}\n" "$package"
    done
}
