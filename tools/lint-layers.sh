#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The rules of the house that no compiler checks; part of make lint. A line for each breach,
# FILE:LINE: what; exit status 1 when there is one.
#
#   floors      includes point down only: include <- numa <- region <- alloc <- everything else;
#               tools, tests and bench do not include each other; examples see the public header.
#               region/base.h is the ground that every floor stands on, numa's too.
#   licence     an SPDX line at the top of every file
#   story       a comment of at most 40 lines below it, in C and C++ files
#   conditions  preprocessor conditionals only in region/base.h and include/; elsewhere in headers
#               their include guard, and in C files none at all
#   size        100 columns, 600 lines; no tabs but make's, no blanks at a line's end
#   excuses     NOLINT and cppcheck-suppress say why; nothing is left to be done
set -u
cd "$(dirname "$0")/.." || exit 1
export LC_ALL=C

if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    mapfile -t files < <(git ls-files --cached --others --exclude-standard | sort -u)
else
    mapfile -t files < <(find . -type f -not -path './build*' -not -path './.git/*' -printf '%P\n')
fi
c_files=() text_files=()
for file in "${files[@]}"; do
    [ -f "$file" ] || continue # deleted, not yet committed
    case $file in
    *.c | *.h | *.cc | *.hpp) c_files+=("$file") text_files+=("$file") ;;
    *.sh | *.py | Makefile | .ci/* | .clang-* | .gitignore | bench/*) text_files+=("$file") ;;
    esac
done

awk '
function breach(what) { print FILENAME ":" FNR ": " what; bad = 1 }
# Some awks count bytes: those that continue a character are taken out first.
function columns(line) { gsub(/[\200-\277]/, "", line); return length(line) }
FNR == 1 { name = FILENAME; licensed = 0 }
FNR <= 2 && /SPDX-License-Identifier: MIT/ { licensed = 1 }
FNR == 2 && !licensed { breach("no SPDX-License-Identifier in the first two lines") }
FNR == 601 { breach("more than 600 lines") }
columns($0) > 100 { breach("more than 100 columns") }
/[ \t]$/ { breach("blanks at the end of the line") }
/\t/ && name !~ /(^|\/)Makefile$/ { breach("tab") }
/NOLINT/ && name !~ /lint-layers/ && !/NOLINT(NEXTLINE|BEGIN|END)?\([a-z0-9.,* -]+\): [a-z]/ {
    breach("NOLINT(check): without a reason")
}
/cppcheck-suppress/ && name !~ /lint-layers/ && !/cppcheck-suppress [A-Za-z]+ ; [a-z]/ {
    breach("cppcheck-suppress check ; without a reason")
}
/(^|[^A-Za-z])(TODO|FIXME)([^A-Za-z]|$)/ && name !~ /lint-layers/ { breach("left to be done") }
END { exit bad }
' "${text_files[@]}"
plain=$?

awk '
BEGIN {
    floor["include"] = 0; floor["numa"] = 1; floor["region"] = 2; floor["alloc"] = 3
    floor["tools"] = floor["tests"] = floor["bench"] = floor["examples"] = 4
}
function breach(what) { print FILENAME ":" FNR ": " what; bad = 1 }
function include_of(line,   target, top) {
    target = line
    sub(/^[ \t]*#[ \t]*include[ \t]*"/, "", target)
    sub(/".*/, "", target)
    if (target ~ /^hakmem\.hp*$/) return
    top = target
    sub(/\/.*/, "", top)
    if (target !~ /\// || !(top in floor)) {
        breach("\"" target "\" does not name its floor")
    } else if (folder == "examples") {
        breach("an example includes \"" target "\", not only the public header")
    } else if (floor[top] > floor[folder] && target != "region/base.h") {
        breach("include points up, from " folder " to \"" target "\"")
    } else if (floor[top] == 4 && top != folder && FILENAME !~ /^tools\/demo/) {
        # The demo shows the workloads of bench, and takes them from there.
        breach("include goes sideways, from " folder " to \"" target "\"")
    }
}
FNR == 1 {
    folder = FILENAME
    sub(/\/.*/, "", folder)
    story = 0; telling = 0; guards = 0
    free = FILENAME ~ /^(region\/base\.h$|include\/)/
    if (!(folder in floor)) breach("no floor is called " folder)
}
FNR == 2 { if ($0 ~ /^\/\*/) telling = 1; else breach("no story at the top of the file") }
telling { story++; if (/\*\//) telling = 0 }
telling && story == 41 { breach("the story at the top is longer than 40 lines") }
/^[ \t]*#[ \t]*include[ \t]*"/ { include_of($0) }
/^[ \t]*#[ \t]*include[ \t]*<(numa|region|alloc|tools|tests|bench)\// {
    breach("own headers are included with quotes")
}
!free && /^[ \t]*#[ \t]*(if|ifdef|ifndef|elif|else)([ \t(!]|$)/ {
    if (FILENAME ~ /\.h(pp)?$/ && guards == 0 && /^#ifndef HAK_[A-Z0-9_]+_H(PP)?$/) guards = 1
    else breach("conditional compilation outside region/base.h")
}
END { exit bad }
' "${c_files[@]}"
floors=$?

[ "$plain" -eq 0 ] && [ "$floors" -eq 0 ]
