#!/bin/sh
# Tests of 90powernode's shell library, without a virtual machine: the command line, deciding, the root, refusing. How it
# is started: see harness.sh.

# shellcheck source=harness.sh
. "${0%/*}/harness.sh"

# --------------------------------------------------------------------------------------------------------- command line

fresh
file cmdline "quiet powernode.boot=1 a.powernode.boot=0 powernode.bootx=0 powernode.x=a=b powernode.e= powernode.t=*"
status 0 powernode_cmdline_get powernode.boot
is 'value' "$PN_VALUE" 1
status 0 powernode_cmdline_get powernode.x
is 'value with =' "$PN_VALUE" a=b
status 0 powernode_cmdline_get powernode.e
is 'empty value' "$PN_VALUE" ''
status 1 powernode_cmdline_get powernode.none
cd "$tmp" || exit 1
status 0 powernode_cmdline_get powernode.t
is 'a star stays a star' "$PN_VALUE" '*'
file cmdline "powernode.boot=1 powernode.boot=1"
status 2 powernode_cmdline_get powernode.boot
reason_has '2 times'
# Double quotes keep a word together, around the value or around all of it; what is in them is no word of its own.
file cmdline 'powernode.q="a  b" "powernode.w=c d" dyndbg="x powernode.in=1 y" powernode.e="" powernode.l="open'
for case in 'powernode.q|a b' 'powernode.w|c d' 'powernode.e|' 'powernode.l|"open'; do
    status 0 powernode_cmdline_get "${case%%|*}"
    is "quoted: $case" "$PN_VALUE" "${case#*|}"
done
status 1 powernode_cmdline_get powernode.in

# ------------------------------------------------------------------------------------------------------------- deciding

for case in 'powernode.boot=1|0|boot' 'powernode.boot=0|0|recovery' 'quiet|1|' 'powernode.boot=|2|' 'powernode.boot=yes|2|' \
    'powernode.boot=1 powernode.boot=0|2|' 'powernode.boot|1|' 'powernode.boot=01|2|'; do
    fresh
    file cmdline "${case%%|*}"
    : >"$tmp/recovery"
    case=${case#*|}
    status "${case%%|*}" powernode_decide
    is 'mode' "$PN_MODE" "${case#*|}"
done

# --------------------------------------------------------------------------------------------------------------- digest

fresh
file digest $HEX
status 0 powernode_pinned_digest
is 'digest' "$PN_DIGEST" $HEX
file cmdline "powernode.root=$HEX"
status 0 powernode_pinned_digest
for other in "?$HEX" "sha256:$HEX" '' "${HEX%?}" "${HEX}0" "$HEX powernode.root=$HEX"; do
    file cmdline "powernode.root=$other"
    status 2 powernode_pinned_digest
    is 'no digest is accepted' "$PN_DIGEST" ''
done
fresh
status 1 powernode_pinned_digest
reason_has 'there is no'
for bad in "${HEX%?}" "${HEX}0" "0123456789ABCDEF${HEX#????????????????}" "?$HEX" " ${HEX%?}" "$HEX
$HEX" "g${HEX#?}" ''; do
    file digest "$bad"
    status 2 powernode_pinned_digest
    is 'no digest is accepted' "$PN_DIGEST" ''
done
printf %s $HEX >"$tmp/digest"
status 2 powernode_pinned_digest
printf '%s\000' $HEX >"$tmp/digest"
status 2 powernode_pinned_digest
PN_DIGEST=$HEX
status 0 powernode_same_digest "sha256:$HEX"
status 1 powernode_same_digest "sha512:$HEX"
status 1 powernode_same_digest "$HEX"
status 1 powernode_same_digest "sha256:0${HEX#?}x"
status 1 powernode_same_digest ''
PN_DIGEST=''
status 1 powernode_same_digest 'sha256:'

# ----------------------------------------------------------------------------------------------------------------- UUID

status 0 powernode_check_uuid x $UUID
status 0 powernode_check_uuid x 0B8F2C1E-1111-4222-8333-444455556666
is 'lower case' "$PN_VALUE" $UUID
# shellcheck disable=SC2016  # nothing here may be expanded
for bad in '' nope 0b8f2c1e11114222833344445555666 0b8f2c1e-1111-4222-8333-44445555666 0b8f2c1e-1111-4222-8333-4444555566667 \
    0b8f2c1e-1111-4222-83334-44455556666 g b8f2c1e-1111-4222-8333-444455556666x 00000000-0000-0000-0000-000000000000 \
    '{0b8f2c1e-1111-4222-8333-44445555666}' '$(id)c1e-1111-4222-8333-444455556666' '????????-????-????-????-????????????' \
    '0b8f2c1e-1111-4222-8333-44445555666
' '------------------------------------' 0b8f2c1e--111-4222-8333-444455556666; do
    status 2 powernode_check_uuid x "$bad"
done

# ------------------------------------------------------------------------------------------------------------- devices

fresh
# shellcheck disable=SC2016
for bad in '' sda LABEL= LABEL=a/../../x /dev/../etc/passwd 'UUID=$(id)' http://x ../x; do
    status 2 powernode_device powernode.rootdev= "$bad"
done


# store WANT COMMANDLINE: where the root is looked for, as kind|source|file.
store() {
    file cmdline "$2"
    status 0 powernode_find_store
    is "store: $2" "$PN_STORE_KIND|$PN_STORE_SOURCE|$PN_MEDIUM_FILE" "$1"
}
fresh
mkdir -p "$tmp/dev/disk/by-label"
: >"$tmp/dev/sr0"
: >"$tmp/dev/disk/by-label/POWERNODE_ISO"
: >"$tmp/dev/disk/by-label/powernode-root"
store "device|$tmp/dev/disk/by-label/powernode-root|" ''
: >"$tmp/root.ext4"
store "file|$tmp/root.ext4|" ''
store "device|$tmp/dev/sr0|" 'powernode.rootdev=/dev/sr0'
store "medium|$tmp/dev/disk/by-label/POWERNODE_ISO|/powernode/root.ext4" \
    'powernode.rootdev=LABEL=POWERNODE_ISO powernode.rootfile=/powernode/root.ext4'
file cmdline 'powernode.rootfile=/powernode/root.ext4'
status 2 powernode_find_store
reason_has 'powernode.rootfile= needs powernode.rootdev='
file cmdline 'powernode.rootdev=/dev/sr0 powernode.rootfile=/a powernode.rootfile=/b'
status 2 powernode_find_store
reason_has '2 times'
# shellcheck disable=SC2016  # nothing here may be expanded
for bad in '' / a a/b ../x /../x /a/../b /a/./b /a//b /a/ /.a '/a*' '/$(id)' '/a;b' "/a'b" "/$(head -c 255 /dev/zero | tr '\000' a)"; do
    file cmdline "powernode.rootdev=/dev/sr0 powernode.rootfile=$bad"
    status 2 powernode_find_store
    reason_has 'powernode.rootfile= is not a plain absolute path'
done

# A device that shows up while it is waited for, and one that never does.
fresh
seconds=0
sleep() {
    seconds=$((seconds + $1))
    [ "$seconds" -ne 3 ] || : >"$tmp/dev/late"
}
status 0 powernode_device powernode.rootdev= /dev/late
is 'found as soon as it is there' "$seconds|$PN_VALUE" "3|$tmp/dev/late"
seconds=10
status 2 powernode_device powernode.rootdev= /dev/never
reason_has 'that is not there'
is 'ten seconds' "$seconds" 20
unset -f sleep

# Two disks that claim the same names. A link is a race between them; what each claims is not.
# claims NUMBER DISK PARTITION LINK: what udev knows of a device; without a PARTITION it is the disk.
claims() {
    mkdir -p "$tmp/udev" "$tmp/sys/dev/block" "$tmp/sys/devices/$2${3:+/$3}"
    [ -z "$3" ] || echo 1 >"$tmp/sys/devices/$2/$3/partition"
    ln -s "../../devices/$2${3:+/$3}" "$tmp/sys/dev/block/$1"
    printf 'I:1\nS:%s\nE:ID_FS_TYPE=ext4\n' "$4" >"$tmp/udev/b$1"
}
fresh
mkdir -p "$tmp/dev/disk/by-label" "$tmp/dev/disk/by-partuuid"
for link in by-label/powernode-root by-partuuid/0b8f by-label/POWERNODE_ISO; do
    : >"$tmp/dev/disk/$link"
done
claims 254:3 vda vda3 disk/by-label/powernode-root
claims 254:19 vdb vdb3 disk/by-label/powernode-root-of-another
claims 254:4 vdd vdd1 disk/by-partuuid/0b8f
# A stick with an ISO: the disk and a partition of it.
claims 8:0 sda '' disk/by-label/POWERNODE_ISO
claims 8:1 sda sda1 disk/by-label/POWERNODE_ISO
for name in LABEL=powernode-root PARTUUID=0b8f LABEL=POWERNODE_ISO; do
    status 0 powernode_device powernode.rootdev= $name
done
status 0 powernode_find_store
claims 254:35 vdc vdc3 disk/by-label/powernode-root
claims 254:36 vdc vdc4 disk/by-partuuid/0b8f
claims 8:16 sdb '' disk/by-label/POWERNODE_ISO
status 2 powernode_device powernode.rootdev= LABEL=powernode-root
reason_has "powernode.rootdev= names more than one disk: 'LABEL=powernode-root' is on vda vdc; remove the others, or choose one with powernode.rootdev=/dev/NAME"
status 2 powernode_device powernode.rootdev= PARTUUID=0b8f
reason_has 'is on vdc vdd'
status 2 powernode_device powernode.rootdev= LABEL=POWERNODE_ISO
reason_has 'is on sda sdb'
status 2 powernode_find_store
reason_has 'the label of the root names more than one disk'
# The word that chooses.
: >"$tmp/dev/vdc3"
file cmdline powernode.rootdev=/dev/vdc3
status 0 powernode_find_store
is 'the chosen one' "$PN_STORE_SOURCE" "$tmp/dev/vdc3"

# The host's share.
fresh
file cmdline ''
mount() {
    printf '%s\n' "$*" >>"$tmp/mounts"
    return "$answer"
}
modprobe() { :; }
answer=0
status 0 powernode_mount_seed
is 'no link of the host is followed' "$(cat "$tmp/mounts")" \
    "-t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,nodev,nosuid,noexec,nosymfollow powernode-seed $tmp/run/seed"
answer=32
status 0 powernode_mount_seed
is 'virtio-fs is tried too' "$(tail -n 1 "$tmp/mounts")" "-t virtiofs -o ro,nodev,nosuid,noexec,nosymfollow powernode-seed $tmp/run/seed"
file cmdline powernode.seed=mine
status 1 powernode_mount_seed
reason_has "shares nothing with the mount tag 'mine'"
for answer in 124 137; do
    file cmdline ''
    status 2 powernode_mount_seed
    reason_has "the host's share 'powernode-seed' did not answer in 20 seconds"
    status 1 powernode_mount_module_share
    reason_has "the host's share 'powernode_modules' did not answer in 20 seconds"
done
# The platform's share of modules in the same way.
answer=0
: >"$tmp/mounts"
status 0 powernode_mount_module_share
is 'a share of modules is no better' "$(cat "$tmp/mounts")" \
    "-t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,nodev,nosuid,noexec,nosymfollow powernode_modules $tmp/run/module-share"
answer=32
status 0 powernode_mount_module_share
is 'virtio-fs there too' "$(tail -n 1 "$tmp/mounts")" "-t virtiofs -o ro,nodev,nosuid,noexec,nosymfollow powernode_modules $tmp/run/module-share"
# A mount that hangs is ended.
mount() { :; }
is 'a mount has a limit of time' "$(
    timeout() { echo "$1 $2 $3 $4"; }
    powernode_mount_foreign 9p ro x y
)" '-s KILL 20 mount'
unset -f mount modprobe

# The file on the medium.
fresh
mkdir -p "$tmp/run/medium/powernode" "$tmp/elsewhere"
: >"$tmp/run/medium/powernode/root.ext4"
: >"$tmp/elsewhere/root.ext4"
ln -s "$tmp/elsewhere" "$tmp/run/medium/away"
ln -s root.ext4 "$tmp/run/medium/powernode/link"
status 0 powernode_file_on_medium /powernode/root.ext4
is 'the file' "$PN_VALUE" "$tmp/run/medium/powernode/root.ext4"
for bad in /away/root.ext4 /powernode/link; do
    status 1 powernode_file_on_medium "$bad"
    reason_has 'is a symbolic link on the medium'
done
for bad in /powernode /powernode/other; do
    status 1 powernode_file_on_medium "$bad"
    reason_has "the medium holds no $bad"
done

# Each file system is tried, read-only and with nothing on it usable as a program or a device.
mount() {
    printf '%s\n' "$*" >>"$tmp/mounts"
    [ "$2" = "$works" ]
}
PN_MEDIUM_FILE=/powernode/root.ext4
for works in iso9660 vfat ext4; do
    : >"$tmp/mounts"
    status 0 powernode_mount_medium /dev/sr0
    is "mounted as $works" "$(tail -n 1 "$tmp/mounts")" "-t $works -o ro,nodev,nosuid,noexec,nosymfollow /dev/sr0 $tmp/run/medium"
done
works=none
status 1 powernode_mount_medium /dev/sr0
reason_has 'cannot be mounted from /dev/sr0 as iso9660, vfat or ext4'
unset -f mount

# ---------------------------------------------------------------------------------------------------- critical files

fresh
mkdir -p "$tmp/root/usr/lib/powernode" "$tmp/root/usr/lib/x86-linux-gnu"
: >"$tmp/root/usr/lib/x86-linux-gnu/libc.so.6"
: >"$tmp/root/usr/lib/x86-linux-gnu/["
: >"$tmp/root/usr/lib/x86-linux-gnu/a b\x2dc"
file root/usr/lib/powernode/critical-files '# comment

usr/lib/x86-linux-gnu/libc.so.6
usr/lib/x86-linux-gnu/[
usr/lib/x86-linux-gnu/a b\x2dc'
status 0 powernode_read_critical
file root/usr/lib/powernode/critical-files 'usr/lib/x86-linux-gnu/libc.so.6
usr/lib/x86-linux-gnu/libm.so.6
usr/lib/x86-linux-gnu/libc.so.6'
status 1 powernode_read_critical
reason_has '/usr/lib/x86-linux-gnu/libm.so.6 of the root is damaged or missing'
# A line is a path, not a pattern.
file root/usr/lib/powernode/critical-files 'usr/lib/*/libc.so.6'
status 1 powernode_read_critical
reason_has '/usr/lib/*/libc.so.6 of the root is damaged or missing'
for none in '' '# comment'; do
    file root/usr/lib/powernode/critical-files "$none"
    status 1 powernode_read_critical
    reason_has 'names no file'
done
rm "$tmp/root/usr/lib/powernode/critical-files"
mkdir -p "$tmp/proc/sys/kernel"
file proc/sys/kernel/osrelease 7.0.3-amd64
status 1 powernode_read_critical
reason_has 'verity=require of the kernel 7.0.3-amd64 does not work'

# ---------------------------------------------------------------------------------------------------------------- refusal

# refuse REASON: what the consoles show when powernode_refuse is called. Power off is replaced, as there is no way back from it.
refuse() {
    (
        sleep() { :; }
        powernode_power_off() { echo off >>"$tmp/power"; exit 7; }
        powernode_shell() { echo shell >>"$tmp/power"; }
        powernode_refuse "$1"
    )
}
fresh
echo 'tty1 ttyS0 ttyGone' >"$tmp/active"
: >"$tmp/dev/tty1"
: >"$tmp/dev/ttyS0"
mkdir "$tmp/dev/ttyGone"
: >"$tmp/kmsg"
printf '4\t4\t1\t7\n' >"$tmp/printk"
refuse "bad thing: '$(printf 'a\nb\033[2J')'"
is 'it powers off' "$?|$(cat "$tmp/power")" '7|off'
is 'one line on the first console' "$(cat "$tmp/dev/tty1")" "powernode: refused: bad thing: 'a?b?[2J'"
is 'one line on the second' "$(grep -c . "$tmp/dev/ttyS0")" 1
is 'one line in the log' "$(cat "$tmp/kmsg")" "<7>powernode: refused: bad thing: 'a?b?[2J'"
is 'the log level comes back' "$(cat "$tmp/printk")" 4
fresh
: >"$tmp/dev/console"
refuse "$(head -c 5000 /dev/zero | tr '\000' x)"
is 'a long reason is cut' "$(wc -c <"$tmp/dev/console" | tr -d ' ')" 261
fresh
: >"$tmp/dev/console"
file cmdline powernode.debug=1
refuse x
is 'debug opens nothing without recovery' "$(cat "$tmp/power")" off
fresh
: >"$tmp/dev/console"
: >"$tmp/recovery"
file cmdline powernode.debug=1
refuse x
is 'debug opens a shell, then powers off' "$(cat "$tmp/power")" 'shell
off'
for other in powernode.debug=0 powernode.debug 'powernode.debug=1 powernode.debug=1'; do
    fresh
    : >"$tmp/dev/console"
    : >"$tmp/recovery"
    file cmdline "$other"
    refuse x
    is "no shell with $other" "$(cat "$tmp/power")" off
done

finish
