# SPDX-License-Identifier: MIT
"""A fixed load for a server on a unix socket: load.py http|memcached SOCKET CONNECTIONS

Two connections at a time; each sends its requests in one go, reads until the server closes, and
checks how many answers came. What is sent is made beforehand and small enough for the socket's
buffer, so that the client costs little beside the server and neither waits for the other for ever.
Prints requests/s. Called by bench/apps."""
import random
import socket
import sys
import time

random.seed(1)


def http():
    """A connection's requests: plain files, one compressed, one put together from parts."""
    paths = ["/small.txt", "/page.txt", "/page.shtml", "/small.txt", "/page.txt"] * 8
    text = ""
    for i, path in enumerate(paths):
        more = "Accept-Encoding: gzip\r\n" if i % 10 == 1 else ""
        last = "Connection: close\r\n" if i == len(paths) - 1 else ""
        text += ("GET %s?%d HTTP/1.1\r\nHost: localhost\r\nUser-Agent: load\r\n%s%s\r\n"
                 % (path, random.randrange(10**9), more, last))
    return text.encode(), len(paths), (b"HTTP/1.1 200 OK\r\n",)


def memcached():
    """Keys out of 20,000, a third of the commands sets of 10 to 2,500 bytes."""
    text = b""
    for _ in range(60):
        key = b"key:%d" % random.randrange(20000)
        if random.randrange(3) == 0:
            value = b"v" * int(10 * 250 ** random.random())
            text += b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value)
        else:
            text += b"get %s\r\n" % key
    return text + b"quit\r\n", 60, (b"STORED\r\n", b"END\r\n")


def connect(path, requests):
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(path)
    channel.sendall(requests)
    return channel


def answers(channel, marks):
    parts = []
    while part := channel.recv(1 << 18):
        parts.append(part)
    channel.close()
    data = b"".join(parts)
    return sum(data.count(mark) for mark in marks)


kind = {"http": http, "memcached": memcached}[sys.argv[1]]
prepared = [kind() for _ in range(200)]
total, started = 0, time.monotonic()
for i in range(0, int(sys.argv[3]), 2):
    pair = [prepared[(i + j) % len(prepared)] for j in range(2)]
    channels = [connect(sys.argv[2], requests) for requests, _, _ in pair]
    for channel, (_, wanted, marks) in zip(channels, pair):
        got = answers(channel, marks)
        if got != wanted:
            sys.exit("load.py: %d answers to %d requests" % (got, wanted))
        total += got
print("%.0f" % (total / (time.monotonic() - started)))
