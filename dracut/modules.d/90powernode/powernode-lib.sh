#!/bin/sh
# What all parts of 90powernode share: saying, refusing, reading, checking, deciding. Beside it are powernode-trust.sh (certificates and
# addresses), powernode-identity.sh (who the node is), powernode-handover.sh (what the root gets of that), powernode-root.sh (the
# verified root), powernode-persist.sh (the disk's own file system) and powernode-install.sh (writing a disk). All are sourced by powernode-boot in the initramfs, and by the tests, which run the same files under dash and
# busybox sh without a virtual machine. Nothing happens when one is sourced.
#
# Conventions:
#   - A function that can fail returns non-zero and says why in PN_REASON; results are left in PN_VALUE or in a variable named in
#     its comment. None of these functions is called in $( ), which would lose them.
#   - Data from outside (command line, fw_cfg, files) is only ever compared, measured and copied: no eval, no expansion
#     of names, no unquoted use.
#   - Every path is a variable set here, so that a test can point it elsewhere after sourcing.

LC_ALL=C
export LC_ALL

PN_CMDLINE=/proc/cmdline
PN_FW_CFG=/sys/firmware/qemu_fw_cfg/by_name/opt/com.powernode
PN_DIGEST_FILE=/etc/powernode/root-digest
PN_ROOT_FILE=/powernode/root.ext4
PN_RUN=/run/powernode
PN_NEWROOT=/sysroot
PN_BY_LABEL=/dev/disk/by-label
PN_CONSOLE_LIST=/sys/class/tty/console/active
PN_DEV=/dev
PN_KMSG=/dev/kmsg
PN_PRINTK=/proc/sys/kernel/printk
PN_CRITICAL=usr/lib/powernode/critical-files
# There when the image was built with the option recovery.
PN_RECOVERY=/etc/powernode/recovery
PN_SYS=/sys
PN_PROC=/proc
# The test(1) operator that a block device passes; the tests have plain files for devices.
PN_IS_BLOCK=-b
# Seconds a line is given to leave a serial console; see powernode_say.
PN_PAUSE=1

PN_REASON='' PN_VALUE='' PN_MODE='' PN_DIGEST='' PN_STORE=''
# One newline, tab and carriage return, for patterns.
PN_NL='
'
PN_TAB=$(printf '\t')
PN_CR=$(printf '\r')

# ---------------------------------------------------------------------------------------------------------------- saying

# powernode_say LINE: print one line on every console and put it in the kernel log. The kernel's own console output is held back
# meanwhile, because it may otherwise cut into the line; level 7 keeps the log's copy off the consoles.
powernode_say() {
    pn_level=''
    if [ -w "$PN_PRINTK" ]; then
        # All at once: a sysctl gives nothing more to a reader that takes byte after byte, as the shell's `read` does.
        pn_level=$(cat "$PN_PRINTK")
        pn_level=${pn_level%%[!0-9]*}
        echo 1 >"$PN_PRINTK"
    fi
    [ ! -w "$PN_KMSG" ] || printf '<7>%s\n' "$1" >"$PN_KMSG"
    pn_consoles=''
    [ ! -r "$PN_CONSOLE_LIST" ] || read -r pn_consoles <"$PN_CONSOLE_LIST"
    pn_said=''
    for pn_tty in $pn_consoles; do
        # A console can be listed whose device does not exist or cannot be opened; the others still get the line.
        if { printf '%s\n' "$1" >"$PN_DEV/$pn_tty"; } 2>/dev/null; then
            pn_said=1
        fi
    done
    [ -n "$pn_said" ] || printf '%s\n' "$1" >"$PN_DEV/console"
    # Serial lines are slow: let the line leave before anybody else writes or the power goes.
    sleep "$PN_PAUSE"
    [ -z "$pn_level" ] || echo "$pn_level" >"$PN_PRINTK"
}

# powernode_tell LINE: powernode_say for a line after which the boot goes on; it does not wait long for the serial port.
powernode_tell() {
    PN_PAUSE=0.1
    powernode_say "$1"
    PN_PAUSE=1
}

# powernode_has_recovery: this image was built with the option recovery, so that an operator may get a shell from it.
powernode_has_recovery() {
    [ -f "$PN_RECOVERY" ]
}

# powernode_refuse REASON: the only way to give up. Prints one line and powers off; an image with recovery opens a shell before, with
# powernode.debug=1. Does not return. The reason may hold bytes from outside, so it is cut down to printable ones and to 240 of them.
powernode_refuse() {
    pn_line=$(printf '%s' "$1" | tr -c ' -~' '?' | head -c 240)
    powernode_say "powernode: refused: $pn_line"
    if powernode_has_recovery && powernode_cmdline_get powernode.debug && [ "$PN_VALUE" = 1 ]; then
        powernode_shell
    fi
    powernode_power_off
}

# powernode_power_off: switch the machine off. Should that be impossible, stay here: process 1 must not go on to boot.
powernode_power_off() {
    sync
    busybox poweroff -f
    echo o >/proc/sysrq-trigger
    while :; do
        sleep 3600
    done
}

# powernode_shell: a shell on the main console. When it ends, the caller goes on.
powernode_shell() {
    pn_tty=console
    if [ -r "$PN_CONSOLE_LIST" ]; then
        read -r pn_tty <"$PN_CONSOLE_LIST"
        pn_tty=${pn_tty##* }
    fi
    PS1='powernode# ' setsid -c /bin/sh -i <"$PN_DEV/$pn_tty" >"$PN_DEV/$pn_tty" 2>&1
}

# powernode_recovery: what powernode.boot=0 means. No root is mounted and no identity is read; an operator with the console gets a
# shell with the initramfs's tools, and the machine goes down when they leave it. Does not return.
powernode_recovery() {
    powernode_say "powernode: recovery: powernode.boot=0, nothing is mounted, the machine powers off when this shell ends"
    powernode_shell
    powernode_power_off
}

# --------------------------------------------------------------------------------------------------------------- reading

# powernode_cmdline_get KEY: PN_VALUE is the value of KEY= on the kernel command line. A word may have spaces in double quotes, around
# the value or around the whole word, as the kernel reads it; the quotes are taken off, and white space becomes one space.
# Returns 0 when it is there once, 1 when it is absent, 2 when it is there more than once (PN_REASON).
powernode_cmdline_get() {
    PN_VALUE=''
    pn_found=0
    pn_words=''
    [ ! -r "$PN_CMDLINE" ] || pn_words=$(cat "$PN_CMDLINE")
    pn_word=''
    set -f
    for pn_part in $pn_words; do
        pn_word=${pn_word:+$pn_word }$pn_part
        powernode_quotes_open "$pn_word" && continue
        powernode_word_is "$1" "$pn_word"
        pn_word=''
    done
    set +f
    # A quote that is never closed reaches to the end.
    [ -z "$pn_word" ] || powernode_word_is "$1" "$pn_word"
    case $pn_found in
        0) return 1 ;;
        1) return 0 ;;
    esac
    PN_REASON="$1= is $pn_found times on the kernel command line"
    return 2
}

# powernode_quotes_open TEXT: whether TEXT has an odd number of double quotes.
powernode_quotes_open() {
    pn_open=1
    pn_quoted=$1
    while :; do
        case $pn_quoted in
            *\"*) pn_quoted=${pn_quoted#*\"} ;;
            *) return "$pn_open" ;;
        esac
        pn_open=$((1 - pn_open))
    done
}

# powernode_word_is KEY WORD: set PN_VALUE and count in pn_found when WORD of the command line is KEY=value.
powernode_word_is() {
    pn_bare=$2
    case $pn_bare in
        \"*\")
            pn_bare=${pn_bare#?}
            pn_bare=${pn_bare%?}
            ;;
    esac
    case $pn_bare in
        "$1="*) ;;
        *) return 0 ;;
    esac
    PN_VALUE=${pn_bare#*=}
    case $PN_VALUE in
        \"*\")
            if [ "${#PN_VALUE}" -ge 2 ]; then
                PN_VALUE=${PN_VALUE#?}
                PN_VALUE=${PN_VALUE%?}
            fi
            ;;
    esac
    pn_found=$((pn_found + 1))
}

# powernode_trim TEXT: PN_VALUE is TEXT without white space around it.
powernode_trim() {
    PN_VALUE=$1
    while :; do
        case $PN_VALUE in
            ' '* | "$PN_TAB"* | "$PN_CR"* | "$PN_NL"*) PN_VALUE=${PN_VALUE#?} ;;
            *' ' | *"$PN_TAB" | *"$PN_CR" | *"$PN_NL") PN_VALUE=${PN_VALUE%?} ;;
            *) return 0 ;;
        esac
    done
}

# powernode_read FILE LIMIT: PN_VALUE is the text of FILE, without trailing newlines. Returns 1 when there is no such file, 2 when
# it holds more than LIMIT bytes a byte that is not printable ASCII, tab, line feed or carriage return, or
# cannot be read.
powernode_read() {
    PN_VALUE=''
    [ -f "$1" ] && [ -r "$1" ] || return 1
    if ! head -c $(($2 + 1)) "$1" >/dev/null 2>&1; then
        PN_REASON="$1 cannot be read"
        return 2
    fi
    pn_size=$(head -c $(($2 + 1)) "$1" | wc -c)
    if [ "$pn_size" -gt "$2" ]; then
        PN_REASON="$1 is larger than $2 bytes"
        return 2
    fi
    pn_odd=$(head -c "$2" "$1" | tr -d '\011\012\015\040-\176' | wc -c)
    if [ "$pn_odd" -ne 0 ]; then
        PN_REASON="$1 holds $pn_odd bytes that are not plain text"
        return 2
    fi
    PN_VALUE=$(head -c "$2" "$1")
}

# powernode_read_line FILE LIMIT: like powernode_read, for a file of one line. A carriage return at its end is dropped.
powernode_read_line() {
    powernode_read "$1" "$2" || return
    PN_VALUE=${PN_VALUE%"$(printf '\r')"}
    case $PN_VALUE in
        *"$PN_NL"*)
            PN_REASON="$1 holds more than one line"
            return 2
            ;;
    esac
}

# -------------------------------------------------------------------------------------------------------------- checking

# powernode_is_hex64 TEXT: exactly 64 lower-case hexadecimal digits, the only form of a root digest.
powernode_is_hex64() {
    case $1 in
        *[!0-9a-f]*) return 1 ;;
    esac
    [ "${#1}" -eq 64 ]
}

# powernode_is_count TEXT: a number without sign or leading zeros, of at most 15 digits, so that it can be reckoned with.
powernode_is_count() {
    case $1 in
        '' | *[!0-9]* | 0?* | ????????????????*) return 1 ;;
    esac
}

# powernode_check_uuid WHERE TEXT: PN_VALUE is TEXT in lower case when it is a UUID (8-4-4-4-12) and not the nil one; else 2.
powernode_check_uuid() {
    PN_REASON="$1 is not a UUID: '$2'"
    [ "${#2}" -eq 36 ] || return 2
    case $2 in
        *[!0-9A-Fa-f-]*) return 2 ;;
        ????????-????-????-????-????????????) ;;
        *) return 2 ;;
    esac
    pn_hex=$(printf '%s' "$2" | tr -d -)
    [ "${#pn_hex}" -eq 32 ] || return 2
    case $pn_hex in
        *[!0]*) ;;
        *) return 2 ;;
    esac
    PN_VALUE=$(printf '%s' "$2" | tr A-F a-f)
    PN_REASON=''
}

# powernode_check_plain WHERE TEXT: up to 1024 printable characters that no reader of KEY=value can take for syntax. The
# text itself is not repeated in the reason: it may be a secret.
powernode_check_plain() {
    PN_REASON="$1 holds a character that is not allowed there"
    # shellcheck disable=SC2016  # these are the characters themselves
    case $2 in
        *[!\ -~]* | *\'* | *\"* | *'\'* | *'$'* | *'`'*) return 2 ;;
    esac
    PN_REASON="$1 is ${#2} characters long, more than 1024"
    [ "${#2}" -le 1024 ] || return 2
    PN_REASON=''
}

# powernode_check_word WHERE TEXT: plain, not empty, and without spaces.
powernode_check_word() {
    powernode_check_plain "$1" "$2" || return
    PN_REASON="$1 is empty or holds a space"
    case $2 in
        '' | *' '*) return 2 ;;
    esac
    PN_REASON=''
}

# powernode_check_url WHERE TEXT: a word that begins with http:// or https:// and has a host.
powernode_check_url() {
    powernode_check_word "$1" "$2" || return
    PN_REASON="$1 is not an http or https URL: '$2'"
    case $2 in
        http://[!/]* | https://[!/]*) ;;
        *) return 2 ;;
    esac
    PN_REASON=''
}

# powernode_check_path WHERE TEXT: an absolute path of up to 255 characters whose parts are letters, digits, `.`, `_`, `+` and `-`, and
# do not begin with a dot.
powernode_check_path() {
    PN_REASON="$1 is not a plain absolute path: '$2'"
    case $2 in
        *[!A-Za-z0-9._+/-]* | *//* | */.* | */) return 2 ;;
        /?*) ;;
        *) return 2 ;;
    esac
    [ "${#2}" -le 255 ] || return 2
    PN_REASON=''
}

# -------------------------------------------------------------------------------------------------------------- deciding

# powernode_decide: PN_MODE is `boot` for powernode.boot=1 and, where there is one, `recovery` for powernode.boot=0. There is no default: this initramfs
# knows no other way to a root, and guessing would hide a broken boot loader entry.
powernode_decide() {
    PN_MODE=''
    powernode_cmdline_get powernode.boot
    case $? in
        0) ;;
        1)
            PN_REASON='the kernel command line has no powernode.boot=1'
            return 1
            ;;
        *) return 2 ;;
    esac
    case $PN_VALUE in
        1) PN_MODE=boot ;;
        0)
            PN_REASON='powernode.boot=0 asks for the recovery, which this image does not have'
            powernode_has_recovery || return 2
            PN_REASON=''
            PN_MODE=recovery
            ;;
        *)
            PN_REASON="powernode.boot= is neither 0 nor 1: '$PN_VALUE'"
            return 2
            ;;
    esac
}

# powernode_load_drivers: what udev does not load by itself. A driver that is missing shows where it is needed. The processor's own
# SHA-256 must be there before the first fs-verity file is opened: the kernel chooses once.
powernode_load_drivers() {
    modprobe -q -a crypto-sha256 loop ext4 erofs overlay qemu_fw_cfg
    # So that systemd can mount the firmware's variables as soon as it starts; one of them says whether Secure Boot is on.
    [ ! -d "$PN_SYS/firmware/efi" ] || modprobe -q efivarfs
    return 0
}

# powernode_pinned_digest: PN_DIGEST is the one root digest this initramfs accepts. A powernode.root= on the command line can
# only repeat it.
powernode_pinned_digest() {
    PN_DIGEST=''
    if [ ! -f "$PN_DIGEST_FILE" ]; then
        PN_REASON="there is no $PN_DIGEST_FILE"
        return 1
    fi
    PN_REASON="$PN_DIGEST_FILE is not 64 lower-case hexadecimal digits and a newline"
    pn_size=$(head -c 66 "$PN_DIGEST_FILE" | wc -c)
    [ "$pn_size" -eq 65 ] || return 2
    pn_size=$(head -c 65 "$PN_DIGEST_FILE" | tr -dc '0-9a-f' | wc -c)
    [ "$pn_size" -eq 64 ] || return 2
    pn_size=$(head -c 65 "$PN_DIGEST_FILE" | tr -dc '\012' | wc -c)
    [ "$pn_size" -eq 1 ] || return 2
    pn_digest=$(cat "$PN_DIGEST_FILE")
    powernode_is_hex64 "$pn_digest" || return 2
    PN_REASON=''
    powernode_cmdline_get powernode.root
    case $? in
        0)
            if [ "$PN_VALUE" != "$pn_digest" ]; then
                PN_REASON="powernode.root= is not this initramfs's root digest: '$PN_VALUE'"
                return 2
            fi
            ;;
        1) ;;
        *) return 2 ;;
    esac
    PN_DIGEST=$pn_digest
}
