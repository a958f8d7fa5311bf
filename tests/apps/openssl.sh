#!/bin/bash
# SPDX-License-Identifier: MIT
#
# openssl: digests, ciphers, keys and signatures are the same, what one side has encrypted or signed
# the other accepts, and speed runs every algorithm asked for to its end, with processes and all.
# shellcheck source=tests/apps/common.sh
. "$(dirname "$0")/common.sh"

openssl=/usr/bin/openssl
need openssl "$openssl"
if [ "$part" = quick ]; then
    speed=(-seconds 1 -bytes 1024 sha256 aes-128-cbc)
    digests=(sha256 sha3-512 blake2b512 md5)
    ciphers=(aes-256-cbc chacha20)
else
    speed=(-seconds 1 -bytes 16384 -multi 2 sha256 sha512 md5 aes-128-cbc aes-256-cbc rsa2048
        ecdsap256)
    read -ra digests <<<"$("$openssl" list -digest-commands | tr -s ' \n' ' ')"
    ciphers=(aes-128-cbc aes-256-cbc aes-256-ctr aes-192-ofb camellia-256-cbc chacha20 aria-256-cbc)
fi

awk 'BEGIN { for (i = 0; i < 60000; i++) printf "%d %x\n", i, i * 2654435761 % 4294967291 }' \
    >"$work/data"
key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
"$openssl" genrsa -out "$work/key.pem" 2048 2>/dev/null
"$openssl" rsa -in "$work/key.pem" -pubout -out "$work/public.pem" 2>/dev/null

session() {
    local name
    for name in "${digests[@]}"; do
        run "$openssl" dgst "-$name" <"$work/data" || return
    done
    for name in "${ciphers[@]}"; do
        run "$openssl" enc "-$name" -pbkdf2 -S 0011223344556677 -pass pass:word -in "$work/data" \
            -out "$work/$mode.$name" || return
        md5sum <"$work/$mode.$name"
        # By the other one's hand: encrypted under the C library, read under hakmem.
        run "$openssl" enc -d "-$name" -pbkdf2 -S 0011223344556677 -pass pass:word \
            -in "$work/glibc.$name" | cmp - "$work/data" || return
    done
    run "$openssl" dgst -sha256 -mac HMAC -macopt "hexkey:$key" <"$work/data" || return
    run "$openssl" kdf -keylen 64 -kdfopt pass:secret -kdfopt salt:salt -kdfopt n:4096 -kdfopt r:8 \
        -kdfopt p:1 SCRYPT || return
    run "$openssl" dgst -sha256 -sign "$work/key.pem" -out "$work/$mode.signature" "$work/data" ||
        return
    md5sum <"$work/$mode.signature"
    run "$openssl" dgst -sha256 -verify "$work/public.pem" -signature "$work/glibc.signature" \
        "$work/data" || return
    run "$openssl" prime -generate -bits 256 | grep -cE '^[0-9]{70,}$'
    run "$openssl" req -x509 -key "$work/key.pem" -subj /CN=test -days 2 -set_serial 1 \
        -out "$work/$mode.cert" || return
    run "$openssl" cms -sign -binary -nodetach -in "$work/data" -signer "$work/$mode.cert" \
        -inkey "$work/key.pem" -outform DER -out "$work/$mode.cms" || return
    # Signed by this one, checked by the C library's.
    "$openssl" cms -verify -binary -inform DER -in "$work/$mode.cms" -CAfile "$work/$mode.cert" \
        -out "$work/$mode.data" 2>&1 || return
    cmp "$work/$mode.data" "$work/data"
}

for mode in "${modes[@]}"; do
    prefault_size=64M
    set_mode "$mode"
    session >"$work/$mode.session" 2>&1
    equal "digests, ciphers and signatures end well ($mode)" 0 "$?"
    run "$openssl" speed -mr "${speed[@]}" >"$work/$mode.speed" 2>&1
    equal "openssl speed ends well ($mode)" 0 "$?"
    # +F:number:algorithm:figure...; without the figures.
    grep -aE '^\+(F|F2|F4|H):' "$work/$mode.speed" |
        awk -F : '{ $0 = $1 ":" $2 ":" $3 ":" NF; print }' >"$work/$mode.rows"
    if [ "$mode" = glibc ]; then
        check 'openssl speed has measured something' [ -s "$work/glibc.rows" ]
        continue
    fi
    same "digests, ciphers and signatures ($mode)" "$work/glibc.session" "$work/$mode.session"
    same "algorithms that openssl speed measured ($mode)" "$work/glibc.rows" "$work/$mode.rows"
done
set_mode hakmem
serve "$work/live.log" "$openssl" speed -seconds 3 -bytes 16384 sha256
sleep 0.5
on_region openssl "$server" 100
stop "$server" TERM
all_bound openssl "$openssl" dgst -sha256 "$work/data"
finish
