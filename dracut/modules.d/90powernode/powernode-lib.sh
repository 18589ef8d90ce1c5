#!/bin/sh
# What 90powernode does, as functions; claiming the node's identity is in powernode-identity.sh beside it. Sourced by powernode-boot
# in the initramfs, and by the tests, which run the same files under dash and busybox sh without a virtual machine. Nothing
# happens when it is sourced.
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

PN_REASON='' PN_VALUE='' PN_MODE='' PN_DIGEST='' PN_STORE=''
# One newline, for patterns.
PN_NL='
'

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
    sleep 1
    [ -z "$pn_level" ] || echo "$pn_level" >"$PN_PRINTK"
}

# powernode_refuse REASON: the only way to give up. Prints one line and powers off, or opens a shell with powernode.debug=1.
# Does not return. The reason may hold bytes from outside, so it is cut down to printable ones and to 240 of them.
powernode_refuse() {
    pn_line=$(printf '%s' "$1" | tr -c ' -~' '?' | head -c 240)
    powernode_say "powernode: refused: $pn_line"
    if powernode_cmdline_get powernode.debug && [ "$PN_VALUE" = 1 ]; then
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

# powernode_cmdline_get KEY: PN_VALUE is the value of KEY= on the kernel command line. Returns 0 when it is there once, 1 when
# it is absent, 2 when it is there more than once (PN_REASON).
powernode_cmdline_get() {
    PN_VALUE=''
    pn_found=0
    pn_words=''
    [ ! -r "$PN_CMDLINE" ] || pn_words=$(cat "$PN_CMDLINE")
    set -f
    for pn_word in $pn_words; do
        case $pn_word in
            "$1="*)
                PN_VALUE=${pn_word#*=}
                pn_found=$((pn_found + 1))
                ;;
        esac
    done
    set +f
    case $pn_found in
        0) return 1 ;;
        1) return 0 ;;
    esac
    PN_REASON="$1= is $pn_found times on the kernel command line"
    return 2
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

# powernode_check_pem WHERE TEXT: one or more PEM certificates and nothing that is not PEM.
powernode_check_pem() {
    PN_REASON="$1 is not a PEM certificate"
    case $2 in
        '-----BEGIN CERTIFICATE-----'*'-----END CERTIFICATE-----'*) ;;
        *) return 2 ;;
    esac
    pn_odd=$(printf '%s' "$2" | tr -d 'A-Za-z0-9+/=\012\015 -' | wc -c)
    [ "$pn_odd" -eq 0 ] || return 2
    PN_REASON=''
}

# -------------------------------------------------------------------------------------------------------------- deciding

# powernode_decide: PN_MODE is `boot` for powernode.boot=1 and `recovery` for powernode.boot=0. There is no default: this initramfs
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
        0) PN_MODE=recovery ;;
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

# ------------------------------------------------------------------------------------------------------------------ root

# powernode_device WHERE TEXT: PN_VALUE is the path of the block device that TEXT names: /dev/…, LABEL=, UUID=, PARTLABEL= or
# PARTUUID=. Waits up to ten seconds for it to appear.
powernode_device() {
    powernode_check_word "$1" "$2" || return
    case $2 in
        */../* | */.. | '') pn_path='' ;;
        LABEL=*/* | UUID=*/* | PARTLABEL=*/* | PARTUUID=*/*) pn_path='' ;;
        LABEL=?*) pn_path=$PN_DEV/disk/by-label/${2#*=} ;;
        UUID=?*) pn_path=$PN_DEV/disk/by-uuid/${2#*=} ;;
        PARTLABEL=?*) pn_path=$PN_DEV/disk/by-partlabel/${2#*=} ;;
        PARTUUID=?*) pn_path=$PN_DEV/disk/by-partuuid/${2#*=} ;;
        /dev/?*) pn_path=$2 ;;
        *) pn_path='' ;;
    esac
    if [ -z "$pn_path" ]; then
        PN_REASON="$1 names no block device: '$2'"
        return 2
    fi
    pn_left=10
    while [ ! -b "$pn_path" ]; do
        if [ "$pn_left" -eq 0 ]; then
            PN_REASON="$1 names a block device that is not there: '$2'"
            return 2
        fi
        pn_left=$((pn_left - 1))
        sleep 1
    done
    PN_VALUE=$pn_path
}

# powernode_find_store: PN_STORE_KIND and PN_VALUE say where the ext4 file system with the root is: `file` (inside this initramfs) or
# `device` (powernode.rootdev=, or else the label powernode-root). powernode.rootdev= wins, so that a disk can be tried with
# any initramfs; the digest decides whether it is accepted.
powernode_find_store() {
    powernode_cmdline_get powernode.rootdev
    case $? in
        0)
            PN_STORE_KIND=device
            powernode_device powernode.rootdev= "$PN_VALUE"
            return
            ;;
        1) ;;
        *) return 2 ;;
    esac
    if [ -f "$PN_ROOT_FILE" ]; then
        PN_STORE_KIND=file
        PN_VALUE=$PN_ROOT_FILE
        return 0
    fi
    PN_STORE_KIND=device
    powernode_device 'the default' LABEL=powernode-root || {
        PN_REASON="there is no root: no $PN_ROOT_FILE and no file system labelled powernode-root"
        return 2
    }
}

# powernode_mount_store: mount the ext4 file system that holds image.cfs and objects/ read-only; PN_STORE is where. Nothing in it is
# trusted yet, and nothing is executed from it.
powernode_mount_store() {
    powernode_find_store || return
    pn_source=$PN_VALUE
    PN_STORE=$PN_RUN/store
    mkdir -p "$PN_RUN"
    # The upper layer must not be on dracut's /run: its size would be shared with everything else that lives there.
    if ! mount -t tmpfs -o mode=0755,nodev,nosuid,noexec,size=50% powernode "$PN_RUN"; then
        PN_REASON="the tmpfs on $PN_RUN cannot be mounted"
        return 1
    fi
    mkdir -p "$PN_STORE" "$PN_RUN/lower" "$PN_RUN/upper" "$PN_RUN/work" "$PN_RUN/modules"
    if [ "$PN_STORE_KIND" = file ]; then
        if ! pn_source=$(losetup --find --show --read-only "$PN_ROOT_FILE" 2>/dev/null) || [ -z "$pn_source" ]; then
            PN_REASON="no loop device can be made of $PN_ROOT_FILE"
            return 1
        fi
    fi
    if ! mount -t ext4 -o ro,nodev,nosuid,noexec "$pn_source" "$PN_STORE" 2>/dev/null; then
        PN_REASON="the file system of the root cannot be mounted from $PN_VALUE"
        return 1
    fi
}

# powernode_verify_image: compare the fs-verity digest of image.cfs with the pinned one, then read it through once, so that a
# damaged block is found here. The digest alone says only what the blocks should be.
powernode_verify_image() {
    if [ ! -f "$PN_STORE/image.cfs" ]; then
        PN_REASON='the file system of the root holds no image.cfs'
        return 1
    fi
    if ! pn_measured=$(fsverity measure "$PN_STORE/image.cfs" 2>/dev/null); then
        PN_REASON='image.cfs has no fs-verity digest'
        return 1
    fi
    pn_measured=${pn_measured%% *}
    powernode_same_digest "$pn_measured" || return
    if ! cat "$PN_STORE/image.cfs" >/dev/null 2>&1; then
        PN_REASON='image.cfs is damaged: a block differs from its fs-verity digest'
        return 1
    fi
}

# powernode_same_digest MEASURED: MEASURED is `sha256:` and exactly the pinned digest.
powernode_same_digest() {
    if ! powernode_is_hex64 "$PN_DIGEST" || [ "$1" != "sha256:$PN_DIGEST" ]; then
        PN_REASON="the root is ${1#sha256:}, not $PN_DIGEST"
        return 1
    fi
}

# powernode_module_lowerdirs: read `<effective_priority> <id> <directory>` lines from stdin and print the directories as overlay wants
# them: topmost first, joined by colons. Modules stack by ascending priority, ties by id, so the last of that order is on top.
# Nothing is printed for an empty list. Returns 2 for a line of another form, an id or a directory given twice.
powernode_module_lowerdirs() {
    pn_list=''
    while read -r pn_priority pn_id pn_dir pn_more; do
        case $pn_priority in
            '' | -* | *[!0-9]* | ??????????*) return 2 ;;
        esac
        case $pn_id in
            '' | *[!A-Za-z0-9._-]*) return 2 ;;
        esac
        # Overlay takes commas, colons and backslashes in a path for syntax.
        case $pn_dir in
            /*[!A-Za-z0-9._/-]* | '') return 2 ;;
            /?*) ;;
            *) return 2 ;;
        esac
        [ -z "$pn_more" ] || return 2
        case $PN_NL$pn_list in
            *" $pn_id "* | *" $pn_dir$PN_NL"*) return 2 ;;
        esac
        pn_list="$pn_list$pn_priority $pn_id $pn_dir$PN_NL"
    done
    [ -n "$pn_list" ] || return 0
    printf '%s' "$pn_list" | sort -k1,1nr -k2,2r | while read -r pn_priority pn_id pn_dir; do
        printf '%s%s' "${pn_join:-}" "$pn_dir"
        pn_join=:
    done
}

# powernode_mount_root: mount the image as EROFS and stack the writable root on it. verity=require makes the kernel refuse every
# object whose digest is not the one in the image. Modules that an earlier step has mounted are listed in modules.list.
powernode_mount_root() {
    if ! mount -t erofs -o ro,nodev,nosuid,noexec "$PN_STORE/image.cfs" "$PN_RUN/lower" 2>/dev/null; then
        PN_REASON='image.cfs cannot be mounted as EROFS'
        return 1
    fi
    pn_modules=''
    if [ -f "$PN_RUN/modules.list" ]; then
        if ! pn_modules=$(powernode_module_lowerdirs <"$PN_RUN/modules.list"); then
            PN_REASON="$PN_RUN/modules.list is malformed"
            return 2
        fi
    fi
    if ! mount -t overlay -o "lowerdir=${pn_modules:+$pn_modules:}$PN_RUN/lower::$PN_STORE/objects,upperdir=$PN_RUN/upper,workdir=$PN_RUN/work,metacopy=on,redirect_dir=on,verity=require" powernode "$PN_NEWROOT" 2>/dev/null; then
        PN_REASON='the overlay of the root cannot be mounted'
        return 1
    fi
}

# powernode_read_critical: read the files without which the node would hang or crash on its way to a usable state, so that damage
# to one of them is refused here, by name. The list is a file of the verified root: one path or pattern in each line.
powernode_read_critical() {
    pn_patterns=''
    if ! pn_patterns=$(cat "$PN_NEWROOT/$PN_CRITICAL" 2>/dev/null); then
        PN_REASON="/$PN_CRITICAL of the root cannot be read"
        return 1
    fi
    pn_text=$pn_patterns$PN_NL
    while [ -n "$pn_text" ]; do
        pn_pattern=${pn_text%%"$PN_NL"*}
        pn_text=${pn_text#*"$PN_NL"}
        case $pn_pattern in
            '' | '#'*) continue ;;
        esac
        # A pattern that matches nothing stays as it is and is then a missing file.
        for pn_file in "$PN_NEWROOT"/$pn_pattern; do
            if ! cat "$pn_file" >/dev/null 2>&1; then
                PN_REASON="${pn_file#"$PN_NEWROOT"} of the root is damaged or missing"
                return 1
            fi
        done
    done
}

# powernode_mount_seed: mount the host's seed share (9p or virtio-fs) read-only on /run/powernode/seed. The tag is powernode.seed=, or
# else powernode-seed; the host offering none is fine, unless the command line asked for one.
powernode_mount_seed() {
    powernode_cmdline_get powernode.seed
    case $? in
        0)
            pn_tag=$PN_VALUE
            pn_wanted=1
            ;;
        1)
            pn_tag=powernode-seed
            pn_wanted=''
            ;;
        *) return 2 ;;
    esac
    case $pn_tag in
        '' | *[!A-Za-z0-9._-]*)
            PN_REASON="powernode.seed= is not a mount tag: '$pn_tag'"
            return 2
            ;;
    esac
    mkdir -p "$PN_RUN/seed"
    modprobe -q -a 9pnet_virtio virtiofs
    if mount -t 9p -o ro,nodev,nosuid,noexec,trans=virtio,version=9p2000.L,msize=262144 "$pn_tag" "$PN_RUN/seed" 2>/dev/null \
        || mount -t virtiofs -o ro,nodev,nosuid,noexec "$pn_tag" "$PN_RUN/seed" 2>/dev/null; then
        return 0
    fi
    [ -n "$pn_wanted" ] || return 0
    PN_REASON="the host shares nothing with the mount tag '$pn_tag'"
    return 1
}
