# SPDX-License-Identifier: MIT
"""Python objects by the million: instances, dicts, lists, strings and tuples that live for a moment
or for long. Run by bench/apps, with PYTHONMALLOC=malloc (every object is a call of malloc) and
without. The printed sums are the same whatever allocates. objects.py SCALE"""
import sys


class Node:
    def __init__(self, key):
        self.key = key
        self.left = self.right = None
        self.note = None


def insert(root, key):
    while True:
        if key == root.key:
            return root
        side = "left" if key < root.key else "right"
        below = getattr(root, side)
        if below is None:
            below = Node(key)
            setattr(root, side, below)
            return below
        root = below


def tree(count):
    """A binary tree with strings at its nodes, long-lived."""
    state, root = 1, Node(0)
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2147483648
        insert(root, state).note = "node %d of the tree" % state
    total, stack = 0, [root]
    while stack:
        node = stack.pop()
        total += len(node.note or "")
        stack += [below for below in (node.left, node.right) if below is not None]
    return total


def words(count):
    """Counts made-up words: short strings come and go, a dict grows."""
    seen = {}
    for i in range(count):
        text = "%x-%x" % (i * 7919 % 65537, i % 31)
        for word in text.split("-"):
            seen[word] = seen.get(word, 0) + 1
    return sum(len(word) * times for word, times in seen.items())


def churn(count):
    """A window of records that are replaced in turn, each a dict of lists and tuples."""
    window = [None] * 5000
    for i in range(count):
        window[i * 31 % len(window)] = {
            "id": str(i),
            "tags": [str(i + j) for j in range(i % 7)],
            "place": (float(i), float(i) / 3),
            "body": "x" * (i % 300),
        }
    return sum(len(record["body"]) + len(record["tags"]) for record in window if record)


scale = int(sys.argv[1])
print(tree(15000 * scale), words(80000 * scale), churn(60000 * scale))
