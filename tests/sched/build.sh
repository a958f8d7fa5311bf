# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# For tests/test_sched.sh and tests/full_sched.sh: builds the simulator over the library's sources
# ($sched, the program) and programs with a mistake put into them. Sourced in the checkout's top
# folder.

build=${BUILD:-build}
sched_build=$build/sched
# shellcheck disable=SC2034
sched=$sched_build/sched
points='-include tests/sched/points.h'
# Operands that a point has worked out first lose what the compiler knew of their constants.
quiet='-O1 -g -Wno-conversion -Wno-shadow'
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

# The jobs of a make above are not ours to share; the flags are ours alone.
sched_make() {
    MAKEFLAGS='' make --no-print-directory "-j$(nproc)" BUILD="$sched_build" \
        CPPFLAGS="$points" CFLAGS="$quiet" SANITIZE= DEBUG= "$@"
}

# mutate NAME FILE <CHANGE: a copy of the file with the change, in $work/NAME. A change is lines as
# in mutants.sh. Fails where the lines that it looks for are not there, or more than once.
mutate() {
    mkdir -p "$work/$1/$(dirname "$2")" &&
        perl -e '
            my ($file) = @ARGV;
            my ($old, $new) = ("", "");
            while (my $line = <STDIN>) {
                $line =~ /^([-+])(.*\n)/ or next;
                $1 eq "-" ? ($old .= $2) : ($new .= $2);
            }
            my $look = join("\\s+", map { quotemeta } split(" ", $old));
            open(my $in, "<", $file) or die;
            my $text = do { local $/; <$in> };
            my $found = () = $text =~ /$look/g;
            $found == 1 or exit 1;
            $text =~ s/$look/$new/;
            print $text;
        ' "$2" >"$work/$1/$2"
}

# link_mutant NAME FILE [SOURCE...]: a program with FILE's copy in place of FILE (of a header: with
# the sources compiled anew that use it).
link_mutant() {
    local name=$1 file=$2 objects=("$sched_build"/obj/tests/sched/*.o) own=() source
    shift 2
    [ $# -gt 0 ] || set -- "$file"
    for source; do
        # A scene's object gives way; a member of the archive is not looked for when it is there.
        mapfile -t objects < <(printf '%s\n' "${objects[@]}" | grep -vF "/${source%.c}.o")
        own+=("$work/$name/$(basename "${source%.c}").o")
        [ -f "$work/$name/$source" ] || {
            mkdir -p "$work/$name/$(dirname "$source")" && cp "$source" "$work/$name/$source"
        } || return 1
        # shellcheck disable=SC2086
        ${CC:-cc} -std=gnu17 -w -D_GNU_SOURCE= -I"$work/$name" -Iinclude -I. $points -O1 -g \
            -pthread -fvisibility=hidden -c -o "${own[-1]}" "$work/$name/$source" || return 1
    done
    ${CC:-cc} -pthread \
        -Wl,--wrap=sched_yield,--wrap=os_yield,--wrap=os_coarse_ns,--wrap=os_discard \
        -Wl,--wrap=topology_current_node,--wrap=pthread_key_create -o "$work/$name/sched" \
        "${own[@]}" "${objects[@]}" "$sched_build/inside.a" -lnuma -lpthread
}
