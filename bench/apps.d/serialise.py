# SPDX-License-Identifier: MIT
"""Documents through json and pickle and back. Run by bench/apps. serialise.py SCALE"""
import json
import pickle
import sys

documents = [
    {
        "id": i,
        "name": "document %d" % i,
        "size": i / 7,
        "tags": ["t%d" % (i * j % 1009) for j in range(12)],
        "parts": [{"part": j, "text": "line %d\n" % j * (1 + i % 9)} for j in range(6)],
        "parent": None if i % 5 else {"id": i // 5, "known": i % 2 == 0},
    }
    for i in range(3000)
]
length = 0
for _ in range(int(sys.argv[1])):
    text = json.dumps(documents, indent=1)
    again = json.loads(text)
    data = pickle.dumps(again, protocol=4)
    if pickle.loads(data) != documents:
        sys.exit("serialise.py: what came back is not what went in")
    length += len(text) + len(data)
print(length)
