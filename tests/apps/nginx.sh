#!/bin/bash
# SPDX-License-Identifier: MIT
#
# nginx: files of many sizes over plain HTTP and TLS, compressed, put together (SSI) and through a
# cache of its own, arrive as they are on disk; under load from ab it takes a new configuration
# (reload, workers come and go) without a failed request, and ends by itself when asked to.
# shellcheck source=tests/apps/common.sh
. "$(dirname "$0")/common.sh"

nginx=/usr/sbin/nginx
need nginx "$nginx"
need curl /usr/bin/curl
need apache2-utils /usr/bin/ab
need openssl /usr/bin/openssl
if [ "$part" = quick ]; then
    files=100 requests=6000
else
    files=200 requests=20000
fi

site=$work/site
mkdir -p "$site/files"
for ((i = 0; i < files; i++)); do
    head -c $((i * i * 23 + i)) <(yes "line of file $i, $((i * 48271 % 65537))") \
        >"$site/files/$i.txt"
done
printf '<!--# include virtual="/files/%d.txt" -->\n' 7 9 >"$site/page.shtml"
chmod -R a+rX "$site"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout "$work/key.pem" \
    -out "$work/cert.pem" >/dev/null 2>&1

# configure PORT WORKERS: as for a site of some size: workers, cache, compression, TLS.
configure() {
    local user=''
    [ "$(id -u)" -ne 0 ] || user='user nobody nogroup;'
    cat >"$work/nginx.conf" <<END
daemon off;
worker_processes $2;
$user
pid $work/nginx.pid;
error_log $work/error-$mode.log notice;
events { worker_connections 512; }
http {
    types { text/plain txt; text/html shtml; }
    access_log $work/access-$mode.log;
    client_body_temp_path $work/temp/body;
    proxy_temp_path $work/temp/proxy;
    fastcgi_temp_path $work/temp/fastcgi;
    uwsgi_temp_path $work/temp/uwsgi;
    scgi_temp_path $work/temp/scgi;
    proxy_cache_path $work/temp/cache keys_zone=kept:4m;
    gzip on;
    gzip_types text/plain;
    ssl_certificate $work/cert.pem;
    ssl_certificate_key $work/key.pem;
    server {
        listen 127.0.0.1:$1;
        listen unix:$work/http.sock;
        listen unix:$work/https.sock ssl;
        root $site;
        ssi on;
        autoindex on;
        location /through/ {
            proxy_pass http://unix:$work/http.sock:/files/;
            proxy_cache kept;
            proxy_cache_valid 200 5s;
        }
    }
}
END
}

# fetch NAME BASE SOCKET OPTION...: every file by several connections at once; their sums.
fetch() {
    local to=$work/got/$1 base=$2 socket=$3
    shift 3
    mkdir -p "$to"
    curl --silent --show-error --fail --insecure --parallel --parallel-max 16 \
        --unix-socket "$work/$socket.sock" "$@" "$base/[0-$((files - 1))].txt" -o "$to/#1.txt" \
        >"$work/curl.log" 2>&1 || { tail -n 3 "$work/curl.log" && return 1; }
    (cd "$to" && md5sum -- *.txt)
    rm -rf "$to"
}

# clean_log NAME: nobody was ended by a signal, nothing was reported above a notice.
clean_log() {
    if grep -aE '\[(alert|crit|emerg|error)\]|exited on signal' "$work/error-$mode.log" \
        >"$work/bad.log"; then
        fail "$1" "$(head -n 5 "$work/bad.log")"
    else
        pass "$1"
    fi
}

# shellcheck disable=SC2317 # called by its name
serving() {
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && alive "$server" && [ -s "$work/nginx.pid" ]
}

# A port that nobody has: it is tried, and another one when nginx finds it taken.
start() {
    local try
    mkdir -p "$work/temp"
    rm -rf "$work/temp/cache"
    for try in 1 2 3 4 5; do
        port=$((20000 + (RANDOM * 7 + try) % 12000))
        configure "$port" 2
        rm -f "$work"/*.sock
        serve "$work/nginx-$mode.log" "$nginx" -p "$work" -c "$work/nginx.conf" -e "$work/error.log"
        until_true 10 serving && return
        stop "$server" TERM
        grep -q 'Address already in use' "$work/nginx-$mode.log" "$work/error.log" || break
        : >"$work/error-$mode.log"
    done
    fail "nginx starts ($mode)"
    tail -n 20 "$work/nginx-$mode.log" | sed 's/^/    /'
    finish
}

workers() {
    cat "/proc/$server/task/$server/children"
}

# shellcheck disable=SC2317 # called by its name
other_workers() {
    [ -n "$(workers)" ] && [ "$(workers)" != "$1" ]
}

reload_under_load() {
    local load before
    # A connection for each request: one that is kept may be closed as its worker ends, with a
    # request on its way.
    ab -q -c 50 -n "$requests" "http://127.0.0.1:$port/files/$((files / 2)).txt" \
        >"$work/ab.log" 2>&1 &
    load=$!
    servers+=("$load")
    sleep 0.2
    before=$(workers)
    configure "$port" 3
    kill -HUP "$server"
    until_true 10 other_workers "$before"
    equal "a reload begins new workers ($mode)" 0 "$?"
    wait "$load"
    equal "ab ends well ($mode)" 0 "$?"
    equal "requests done and failed under a reload ($mode)" "$requests 0" \
        "$(awk -F ': *' '/^Complete requests/ { done = $2 } /^Failed requests/ { failed = $2 }
                         END { print done, failed }' "$work/ab.log")"
}

(cd "$site/files" && md5sum -- *.txt) >"$work/expected"
for mode in "${modes[@]}"; do
    prefault_size=64M
    set_mode "$mode"
    start
    for round in 1 2; do
        fetch plain http://localhost/files http >"$work/sums"
        same "files over HTTP, $round ($mode)" "$work/expected" "$work/sums"
        fetch packed http://localhost/files http --compressed >"$work/sums"
        same "files compressed, $round ($mode)" "$work/expected" "$work/sums"
        fetch safe https://localhost/files https >"$work/sums"
        same "files over TLS, $round ($mode)" "$work/expected" "$work/sums"
        fetch cached http://localhost/through http >"$work/sums"
        same "files through the cache, $round ($mode)" "$work/expected" "$work/sums"
        [ "$round" = 2 ] || reload_under_load
    done
    curl -sS --unix-socket "$work/http.sock" http://localhost/page.shtml http://localhost/files/ \
        >"$work/$mode.pages" 2>&1
    on_region 'nginx (master)' "$server" 50
    read -r worker _ < <(workers)
    on_region 'nginx (worker)' "$worker" 50
    stop "$server" QUIT
    equal "nginx ends by itself ($mode)" 0 "$?"
    clean_log "nginx has nothing to report ($mode)"
    if [ "$mode" != glibc ]; then
        same "composed page and list of files ($mode)" "$work/glibc.pages" "$work/$mode.pages"
    fi
done
set_mode hakmem
all_bound nginx "$nginx" -t -p "$work" -c "$work/nginx.conf" -e "$work/error.log"
finish
