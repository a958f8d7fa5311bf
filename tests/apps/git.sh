#!/bin/bash
# SPDX-License-Identifier: MIT
#
# git on a large history: import, gc --aggressive, log, blame, merge, fsck. Object names and answers
# are the same, and so is, with one thread, the pack that it writes.
# shellcheck source=tests/apps/common.sh
. "$(dirname "$0")/common.sh"

git=/usr/bin/git
need git "$git"
if [ "$part" = quick ]; then
    commits=600
else
    commits=5000
fi
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_PAGER=cat GIT_TERMINAL_PROMPT=0 \
    GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@localhost GIT_AUTHOR_DATE='1700000000 +0000' \
    GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@localhost GIT_COMMITTER_DATE='1700000000 +0000'

# Files grow, and change in the middle; every 50th commit is on a side branch.
history() {
    awk -v commits="$commits" 'BEGIN {
        for (c = 1; c <= commits; c++) {
            file = c * 48271 % 211
            for (k = 0; k < 3; k++)
                text[file] = text[file] sprintf("line %d of commit %d\n", k, c * 16807 % 99991)
            if (c % 3 == 0)
                sub(/line 1 of/, "changed " c " line 1 of", text[file])
            branch = c % 50 == 0 ? "side" : "main"
            message = sprintf("Commit %d\n\nAbout file %d.\n", c, file)
            printf "commit refs/heads/%s\nmark :%d\n", branch, c
            printf "committer a <a@localhost> %d +0000\ndata %d\n%s", 1600000000 + c * 60,
                length(message), message
            if (c == 50) printf "from :49\n"
            printf "M 100644 inline folder%d/%s%d.txt\ndata %d\n%s\n", file % 17,
                branch == "side" ? "side" : "file", file, length(text[file]), text[file]
        }
        printf "done\n"
    }'
}

# step NAME COMMAND...: a git command in the mode's repository, its answer and status kept.
step() {
    local name=$1
    shift
    {
        run "$git" -C "$work/$mode.git" "$@" 2>&1
        echo "exit status $?"
    } >"$work/$mode.$name"
}

# shellcheck disable=SC2317 # called by its name
all_steps() {
    ! grep -asE '^exit status [1-9]' "$work"/glibc.*
}

session() {
    rm -rf "$work/$mode.git"
    run "$git" init -q -b main "$work/$mode.git" || return
    run "$git" -C "$work/$mode.git" fast-import --quiet --done <"$work/history" || return
    step checkout checkout -q -f main
    step merge merge -q --no-edit side
    step log log --all --stat -M --format='%H %T %s'
    step patches log -p -30 --word-diff
    step blame blame -w -C -C folder0/file0.txt
    step grep grep -n -E 'changed [0-9]+ line' main~20
    step objects rev-list --objects --all
    step gc -c pack.threads=4 gc --quiet --aggressive --prune=now
    step fsck fsck --full --strict --no-progress
    step repack -c pack.threads=1 repack -q -a -d -f --depth=30 --window=20
    step packs count-objects -v
    step names ls-tree -r -l HEAD
    step bundle bundle create -q --version=2 "$work/$mode.bundle" --all
    step verify bundle verify "$work/$mode.bundle"
}

history >"$work/history"
for mode in "${modes[@]}"; do
    prefault_size=256M
    set_mode "$mode"
    session >"$work/$mode.session" 2>&1
    equal "the session ends well ($mode)" 0 "$?"
    cat "$work/$mode.git/.git/objects/pack/"*.pack >"$work/$mode.pack"
    if [ "$mode" = glibc ]; then
        # fsck says nothing about a sound repository.
        equal 'git finds it sound' 'exit status 0' "$(cat "$work/glibc.fsck")"
        check 'every step succeeds' all_steps
        check 'the history is as long as it should be' \
            [ "$(grep -c '^[0-9a-f]\{40\} ' "$work/glibc.log")" -gt "$commits" ]
        continue
    fi
    for name in checkout merge log patches blame grep objects gc fsck repack packs names; do
        same "git $name ($mode)" "$work/glibc.$name" "$work/$mode.$name"
    done
    same "pack written with one thread ($mode)" "$work/glibc.pack" "$work/$mode.pack"
    equal "bundle is sound ($mode)" 'exit status 0' "$(tail -n 1 "$work/$mode.verify")"
done
set_mode hakmem
all_bound git "$git" -C "$work/hakmem.git" -c pack.threads=2 gc --quiet
# The server side of a fetch waits for a command, with the history read.
mkfifo "$work/pipe"
exec 9<>"$work/pipe"
(exec env "${mode_vars[@]}" "$git" -C "$work/hakmem.git" cat-file --batch-check --buffer) \
    <&9 >"$work/batch.log" 2>&1 &
server=$!
servers+=("$server")
cut -d ' ' -f 1 "$work/hakmem.objects" | grep -v exit | head -n 500 >&9
until_true 10 [ -s "$work/batch.log" ]
on_region git "$server" 30
exec 9>&-
stop "$server" TERM
finish
