# SPDX-License-Identifier: MIT
"""Writes a repository's history for git fast-import: files of text, each commit edits some of them.
The same on every run. history.py COMMITS, called by bench/apps"""
import random
import sys

random.seed(20240101)
write = sys.stdout.write
files = [
    ["line %d of file %d: %x" % (i, f, random.getrandbits(40))
     for i in range(random.randint(40, 260))]
    for f in range(200)
]
for commit in range(int(sys.argv[1])):
    message = "Commit %d\n" % commit
    write("commit refs/heads/main\ncommitter A U Thor <author@example.org> %d +0000\n"
          % (1600000000 + 60 * commit))
    write("data %d\n%s" % (len(message), message))
    for f in range(len(files)) if commit == 0 else random.sample(range(len(files)), 3):
        lines = files[f]
        for _ in range(4):
            at = random.randrange(len(lines))
            edit = "edit %d: %x" % (commit, random.getrandbits(64))
            lines[at:at + 1] = [edit] * random.randint(0, 2)
        if len(lines) < 40:
            lines += ["more %x" % random.getrandbits(64) for _ in range(100)]
        text = "\n".join(lines) + "\n"
        write("M 100644 inline dir%d/file%d.txt\ndata %d\n%s\n" % (f % 9, f, len(text), text))
