#!/bin/bash
# SPDX-License-Identifier: MIT
#
# memcached: all keys that were set are read back with their values, deleted ones are gone, counters
# have counted, from several connections at once and with connections that come and go; the answers
# and the counts that the server keeps are the same.
# shellcheck source=tests/apps/common.sh
. "$(dirname "$0")/common.sh"

memcached=/usr/bin/memcached
need memcached "$memcached"
need python3 /usr/bin/python3
if [ "$part" = quick ]; then
    keys=20000 visits=500
else
    keys=100000 visits=5000
fi

cat >"$work/client.py" <<'END'
import hashlib, socket, sys, threading
path, keys, visits, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 8

class Connection:
    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.file = self.socket.makefile('rwb')
    def ask(self, line, data=None):
        self.file.write(line.encode() + b'\r\n')
        if data is not None:
            self.file.write(data + b'\r\n')
        self.file.flush()
        return self.file.readline().strip()
    def get(self, key):
        head = self.ask('get ' + key).split()
        if head == [b'END']:
            return None
        data = self.file.read(int(head[3]))
        assert self.file.read(7) == b'\r\nEND\r\n'
        return data
    def close(self):
        self.file.close()
        self.socket.close()

def value(i):
    size = i * 48271 % 3000 if i % 997 else 1500000
    return (b'%d,' % i * (size // 8 + 1))[:size]

answers = [None] * workers
def work(n):
    c, out = Connection(), []
    for i in range(n, keys, workers):
        out.append(c.ask('set key%d %d 0 %d' % (i, i % 65536, len(value(i))), value(i)))
    for i in range(n, keys, 5 * workers):
        out.append(c.ask('delete key%d' % i))
        out.append(c.ask('append key%d 0 0 5' % (i + workers), b'+tail'))
        out.append(c.ask('incr counter%d %d' % (n, i)) if i > n else
                   c.ask('set counter%d 0 0 1' % n, b'1'))
    for i in range(n, visits, workers):
        visitor = Connection()
        out.append(visitor.ask('set visitor%d 0 0 7' % i, b'%07d' % i))
        visitor.close()
    c.close()
    answers[n] = out

threads = [threading.Thread(target=work, args=(n,)) for n in range(workers)]
for t in threads: t.start()
for t in threads: t.join()
print(hashlib.sha256(repr(answers).encode()).hexdigest(), 'what', workers, 'connections heard')
kinds = sorted({a for some in answers for a in some if not a.isdigit()})
print(b' '.join(kinds).decode())
c = Connection()
wrong, held, sums = 0, 0, hashlib.sha256()
for i in range(keys):
    data = c.get('key%d' % i)
    n, step = i % workers, i // workers
    expected = None if step % 5 == 0 else value(i) + (b'+tail' if step % 5 == 1 else b'')
    wrong += data != expected
    held += data is not None
    sums.update(b'%d' % i + (data or b'(none)'))
for n in range(workers):
    sums.update(c.get('counter%d' % n) or b'(none)')
for i in range(visits):
    wrong += c.get('visitor%d' % i) != b'%07d' % i
print(wrong, 'wrong of', keys, 'and', visits, ';', held, 'held')
print(sums.hexdigest(), 'all values')
c.file.write(b'stats\r\n')
c.file.flush()
for line in iter(c.file.readline, b'END\r\n'):
    name, number = line.decode().split()[1:]
    if name in ('curr_items', 'total_items', 'evictions', 'bytes', 'cmd_get', 'cmd_set',
                'get_hits', 'get_misses', 'delete_hits', 'incr_hits', 'total_connections'):
        print(name, number)
END

# A folder that the server's user can write to.
mkdir -m 777 "$work/run"
user=()
[ "$(id -u)" -ne 0 ] || user=(-u nobody)
# The server may hold 1500 MiB.
prefault_size=2G
for mode in "${modes[@]}"; do
    set_mode "$mode"
    serve "$work/$mode.log" "$memcached" ${user[@]+"${user[@]}"} -s "$work/run/$mode" \
        -a 777 -m 1500 -I 4m -t 4 -c 2000
    answers "memcached starts ($mode)" "$work/$mode.log" test -S "$work/run/$mode"
    timeout --foreground 300 /usr/bin/python3 "$work/client.py" "$work/run/$mode" "$keys" \
        "$visits" >"$work/$mode.out" 2>&1
    equal "the client ends well ($mode)" 0 "$?"
    equal "every value comes back ($mode)" "0 wrong of $keys and $visits" \
        "$(sed -n 's/ ;.*//p' "$work/$mode.out")"
    equal "nothing was thrown out ($mode)" 'evictions 0' "$(grep evictions "$work/$mode.out")"
    on_region memcached "$server" 20000
    [ "$mode" = glibc ] || same "answers ($mode)" "$work/glibc.out" "$work/$mode.out"
    stop "$server" TERM
    equal "memcached ends well ($mode)" 0 "$?"
done
set_mode hakmem
all_bound memcached "$memcached" -h
finish
