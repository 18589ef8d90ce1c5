#!/usr/bin/env bash
# Root in the clone of the user $1, after his walk; tests/newcomer/inside.sh runs it.
set -uo pipefail
# shellcheck source=try.sh
. /walk/try.sh
cd "/home/$1/pnb" || exit 1
export PATH=$PWD/target/release:$PATH PNB_STORE=/tmp/store
try 1 "pnb plan --variant kernel-initrd"
said "^hint: .* --project \"$PWD\"$"
try 0 "pnb plan --variant kernel-initrd --project $PWD"
verdict
