#!/bin/sh
# What the test scripts of 90powernode share: the files under test, an empty world to run them in, and checks. Sourced by a script that
# was started as
#
#   <shell> <script> <directory of 90powernode> <empty directory> <overlay of the root> <stages> \
#     <settings of dracut>
#
# Run by tests/dracut.rs under dash and under busybox sh (with busybox's own tools). A script prints one line for each failed check and the
# number of checks at the end; it exits with 1 when one failed.

set -u

module=$1
tmp=$2
# shellcheck disable=SC2034  # for the scripts
overlay=$3
# shellcheck disable=SC2034  # for the scripts
stages=$4
# shellcheck disable=SC2034  # for the scripts
settings=$5
checks=0
failures=0

# shellcheck disable=SC2034  # for the scripts
UUID=0b8f2c1e-1111-4222-8333-444455556666
# shellcheck disable=SC2034
OTHER=99999999-aaaa-4bbb-8ccc-dddddddddddd
# shellcheck disable=SC2034
HEX=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
# shellcheck disable=SC2034
PEM='-----BEGIN CERTIFICATE-----
MIIBLDCB36ADAgECAhRnSnZJQyHgbEaGKZHAmfi68+mu4jAFBgMrZXAwDDEKMAgG
A1UEAwwBYTAeFw0yNjExMzAwMjU3MzJaFw0zNjExMjcwMjU3MzJaMAwxCjAIBgNV
BAMMAWEwKjAFBgMrZXADIQCZN7/H5aFzoxdJLrInluId3mIVHBL/7tQs2jWLR3FT
maNTMFEwHQYDVR0OBBYEFD/l3BOjQ01apNOu2wBH5TtBS/wMMB8GA1UdIwQYMBaA
FD/l3BOjQ01apNOu2wBH5TtBS/wMMA8GA1UdEwEB/wQFMAMBAf8wBQYDK2VwA0EA
tmkPonTp5CY1TAb59kO/e1NBc4IrGl3g2+3f2KOkj/96kUF1EbxoSg+ZR7f7+HAI
U+q3ahN6B1v9gkgzNp4qAg==
-----END CERTIFICATE-----'

# shellcheck source=../../dracut/modules.d/90powernode/powernode-lib.sh
. "$module/powernode-lib.sh"
# shellcheck source=../../dracut/modules.d/90powernode/powernode-trust.sh
. "$module/powernode-trust.sh"
# shellcheck source=../../dracut/modules.d/90powernode/powernode-guard.sh
. "$module/powernode-guard.sh"
# shellcheck source=../../dracut/modules.d/90powernode/powernode-identity.sh
. "$module/powernode-identity.sh"
# shellcheck source=../../dracut/modules.d/90powernode/powernode-cloud.sh
. "$module/powernode-cloud.sh"
# shellcheck source=../../dracut/modules.d/90powernode/powernode-handover.sh
. "$module/powernode-handover.sh"
# shellcheck source=../../dracut/modules.d/90powernode/powernode-root.sh
. "$module/powernode-root.sh"
# shellcheck source=../../dracut/modules.d/90powernode/powernode-persist.sh
. "$module/powernode-persist.sh"
# shellcheck source=../../dracut/modules.d/90powernode/powernode-install.sh
. "$module/powernode-install.sh"
# shellcheck source=../../dracut/modules.d/90powernode/powernode-modules.sh
. "$module/powernode-modules.sh"
# shellcheck source=../../dracut/modules.d/90powernode/powernode-stack.sh
. "$module/powernode-stack.sh"

# A stand-in for a program is a function, which the real timeout could not start.
timeout() {
    shift 3
    "$@"
}

# red: count a failed check. With STOP=1 the first one ends the script, as a mutant needs no second.
red() { failures=$((failures + 1)); }
stop() {
    [ -z "${STOP:-}" ] || {
        echo "$checks checks, $failures failed"
        exit 1
    }
}

# is NAME GOT WANT: the two are the same text.
is() {
    checks=$((checks + 1))
    if [ "$2" != "$3" ]; then
        red
        printf 'failed: %s\n  expected: %s\n  actual:   %s\n' "$1" "$3" "$2"
        stop
    fi
}

# status WANT COMMAND...: the command returns WANT.
status() {
    wanted=$1
    shift
    PN_REASON=''
    "$@"
    got=$?
    checks=$((checks + 1))
    if [ "$got" -ne "$wanted" ]; then
        red
        printf 'failed: %s\n  expected: status %s\n  actual:   status %s (%s)\n' "$*" "$wanted" "$got" "$PN_REASON"
        stop
    fi
}

# reason_has TEXT: the last reason contains TEXT.
reason_has() {
    checks=$((checks + 1))
    case $PN_REASON in
        *"$1"*) ;;
        *)
            red
            printf 'failed: the reason\n  expected: …%s…\n  actual:   %s\n' "$1" "$PN_REASON"
            stop
            ;;
    esac
}

# fresh: an empty world, in which no source has anything.
fresh() {
    rm -rf "${tmp:?}"/*
    mkdir -p "$tmp/fw" "$tmp/run/medium" "$tmp/root/etc/powernode" "$tmp/dev" "$tmp/boot"
    PN_CMDLINE=$tmp/cmdline
    PN_FW_CFG=$tmp/fw
    PN_RUN=$tmp/run
    PN_NEWROOT=$tmp/root
    PN_BY_LABEL=$tmp/by-label
    PN_DIGEST_FILE=$tmp/digest
    PN_DEV=$tmp/dev
    PN_CONSOLE_LIST=$tmp/active
    PN_KMSG=$tmp/kmsg
    PN_PRINTK=$tmp/printk
    PN_ROOT_FILE=$tmp/root.ext4
    PN_SYS=$tmp/sys
    PN_PROC=$tmp/proc
    PN_UDEV=$tmp/udev
    PN_RECOVERY=$tmp/recovery
    PN_COMPLETE=$tmp/complete
    PN_WORDS=$module/powernode-words
    PN_IS_BLOCK=-f
    PN_STORE_KIND='' PN_STORE_SOURCE='' PN_DISK='' PN_PERSIST=''
    PN_SOURCE=none
    powernode_forget
    PN_UNCLAIMED='' PN_UNCLAIMED_SERVER='' PN_UNCLAIMED_CA_PEM=''
    PN_ESP=''
    PN_DIGEST=''
    PN_MODULE_KEPT_COUNTER='' PN_MODULE_DROPPED=' ' PN_MODULE_STORE=''
    : >"$tmp/cmdline"
}

# file NAME TEXT: a file of the world that holds a line.
file() {
    printf '%s\n' "$2" >"$tmp/$1"
}

# fw NAME TEXT: a value of fw_cfg.
fw() {
    mkdir -p "$tmp/fw/$1"
    printf '%s' "$2" >"$tmp/fw/$1/raw"
}

# finish: the end of every script.
finish() {
    echo "$checks checks, $failures failed"
    [ "$failures" -eq 0 ]
}
