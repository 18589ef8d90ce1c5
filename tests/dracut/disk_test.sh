#!/bin/sh
# Tests of what 90powernode does with disks, without a virtual machine: /persist and the installer. A disk is a plain file and a
# directory in a made-up sysfs; the programs that need a real one (sfdisk, e2fsck, …) are functions that write down how
# they were called. How it is started: see harness.sh.
# shellcheck disable=SC2059  # texts are formats on purpose

# shellcheck source=harness.sh
. "${0%/*}/harness.sh"

HEX=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef

# disk NAME SECTORS: a whole disk.
disk() {
    mkdir -p "$tmp/sys/devices/$1/queue" "$tmp/sys/devices/$1/device" "$tmp/sys/devices/$1/holders" "$tmp/sys/class/block"
    ln -sf "$tmp/sys/devices/$1" "$tmp/sys/class/block/$1"
    disks=$((disks + 1))
    file "sys/devices/$1/size" "$2"
    file "sys/devices/$1/ro" 0
    file "sys/devices/$1/dev" "8:$((disks * 16))"
    file "sys/devices/$1/queue/logical_block_size" 512
    [ -e "$tmp/dev/$1" ] || : >"$tmp/dev/$1"
}

# partition DISK NUMBER START SIZE NAME: a partition of it.
partition() {
    mkdir -p "$tmp/sys/devices/$1/$1$2/holders"
    ln -sf "$tmp/sys/devices/$1/$1$2" "$tmp/sys/class/block/$1$2"
    file "sys/devices/$1/$1$2/partition" "$2"
    file "sys/devices/$1/$1$2/start" "$3"
    file "sys/devices/$1/$1$2/size" "$4"
    file "sys/devices/$1/$1$2/dev" "8:$((disks * 16 + $2))"
    printf 'MAJOR=8\nDEVNAME=%s\nDEVTYPE=partition\nPARTN=%s\n%s' "$1$2" "$2" "${5:+PARTNAME=$5$PN_NL}" >"$tmp/sys/devices/$1/$1$2/uevent"
    : >"$tmp/dev/$1$2"
    [ "$5" != powernode-persist ] || superblock "$tmp/dev/$1$2"
}

# superblock FILE [MAGIC]: a file system of ext4 of which nothing but the magic number is there.
superblock() {
    { head -c 1080 /dev/zero && printf "${2:-\\123\\357}" && head -c 4096 /dev/zero; } >"$1"
}

# world: two disks with the layout of an image, the root on the first one; 64 MiB for /persist, nothing behind it.
world() {
    fresh
    disks=0
    mkdir -p "$tmp/proc/self" "$tmp/proc/sys/kernel/random" "$tmp/dev/disk/by-label" "$tmp/root/persist" "$tmp/root/var/lib/dpkg"
    echo 0b8f2c1e-1111-4222-8333-444455556666 >"$tmp/proc/sys/kernel/random/uuid"
    file proc/self/mountinfo '22 1 0:20 / / rw - rootfs rootfs rw'
    for pn_test in sda sdb; do
        disk $pn_test 397345
        partition $pn_test 1 2048 2048 powernode-bios
        partition $pn_test 2 4096 65536 powernode-esp
        partition $pn_test 3 69632 196608 powernode-root
        partition $pn_test 4 266240 131072 powernode-persist
    done
    ln -s "$tmp/dev/sda3" "$tmp/dev/disk/by-label/powernode-root"
    PN_STORE_KIND=device
    PN_STORE_SOURCE=$tmp/dev/disk/by-label/powernode-root
    : >"$tmp/dev/console"
    : >"$tmp/calls"
    fsck_says=0
    blocks=16384
}

# What was done to the disks, and what was said.
calls() { cat "$tmp/calls"; }
said() { cat "$tmp/dev/console"; }

sleep() { :; }
# A console that keeps its lines.
powernode_say() { printf '%s\n' "$1" >>"$tmp/dev/console"; }
flock() { echo "flock $*" >>"$tmp/calls"; }
sfdisk() {
    case "$*" in
        *-N*) echo "sfdisk $* <$(cat)" >>"$tmp/calls" ;;
        --dump*)
            [ ! -e "$tmp/corrupt" ] || echo 'The primary GPT table is corrupt, but the backup appears OK, so that will be used.'
            return 0
            ;;
        *) echo "sfdisk $*" >>"$tmp/calls" ;;
    esac
    case "$*" in
        *"${sfdisk_fails:-nothing}"*) return 1 ;;
    esac
}
partx() {
    echo "partx $*" >>"$tmp/calls"
    [ -z "${new_size:-}" ] || file sys/devices/sda/sda4/size "$new_size"
}
# e2fsck ends with the statuses in fsck_says, one after the other.
e2fsck() {
    echo "e2fsck $*" >>"$tmp/calls"
    set -- "${fsck_says%% *}"
    fsck_says=${fsck_says#* }
    return "$1"
}
dumpe2fs() { printf 'Filesystem volume name:   powernode-persist\nBlock count:              %s\nReserved block count:     0\nBlock size:               4096\n' "$blocks"; }
resize2fs() {
    echo "resize2fs $*" >>"$tmp/calls"
    [ -z "${resize_fails:-}" ] || return 1
    blocks=${new_blocks:-$blocks}
}
mount() {
    echo "mount $*" >>"$tmp/calls"
    [ -z "${mount_fails:-}" ]
}
blkid() { /usr/sbin/blkid "$@"; }
mkfat() { /usr/sbin/mkfs.fat "$@"; }
mkswap() { chmod 0600 "$1" && /usr/sbin/mkswap "$1"; }
blockdev() {
    echo "blockdev $*" >>"$tmp/calls"
    [ "$1" != --getro ] || echo "${read_only:-0}"
}

# ------------------------------------------------------------------------------------------------ finding the partition

world
status 0 powernode_find_persist
is 'on the disk of the root' "$PN_DISK|$PN_PERSIST" 'sda|sda4'
PN_STORE_SOURCE=$tmp/dev/sdb3
status 0 powernode_find_persist
is 'on the other disk' "$PN_DISK|$PN_PERSIST" 'sdb|sdb4'
for kind in file medium; do
    PN_STORE_KIND=$kind
    status 0 powernode_find_persist
    is "nothing for a $kind" "$PN_DISK|$PN_PERSIST" '|'
done
PN_STORE_KIND=device
PN_STORE_SOURCE=$tmp/dev/sda
status 0 powernode_find_persist
is 'nothing for a whole disk' "$PN_DISK|$PN_PERSIST" '|'
world
partition sda 4 266240 131072 ''
status 0 powernode_prepare_persist
status 0 powernode_mount_persist
is 'a disk without it is left alone, whatever the other one has' "$PN_PERSIST|$(calls)" '|'
world
partition sda 5 400000 2048 powernode-persist
status 2 powernode_prepare_persist
reason_has 'sda has more than one partition named powernode-persist'
is 'nothing was done' "$(calls)" ''

# The boot partition of the same disk goes before a label, which another disk may have, too.
world
PN_BY_LABEL=$tmp/dev/disk/by-label
: >"$tmp/dev/disk/by-label/POWERNODE"
status 0 powernode_boot_partition
is 'the boot partition' "$PN_VALUE" "$tmp/dev/sda2"
PN_STORE_KIND=file
status 0 powernode_boot_partition
is 'by its label' "$PN_VALUE" "$tmp/dev/disk/by-label/POWERNODE"
rm "$tmp/dev/disk/by-label/POWERNODE"
status 1 powernode_boot_partition

# --------------------------------------------------------------------------------------------------- growing the partition

# The image's own size, and a disk that is larger by less than a MiB: nothing is written.
for sectors in 397345 397346 399392; do
    world
    file sys/devices/sda/size $sectors
    status 0 powernode_prepare_persist
    is "no growth at $sectors" "$(calls)|$(said)" "e2fsck -p $tmp/dev/sda4|"
done
# wants SECTORS SIZE: the size for a disk of so many sectors.
wants() {
    file sys/devices/sda/size "$1"
    status 0 powernode_wanted_size
    is "wanted on $1 sectors" "$PN_VALUE" "$2"
}
world
powernode_find_persist
wants 399393 133120
wants 6291456 6023168
wants 7814037168 7813769216
wants 266240 0
wants 1 0
partition sda 5 500000 2048 data
wants 6291456 0

world
file sys/devices/sda/size 6291456
new_size=6023168
status 0 powernode_prepare_persist
is 'how it grows' "$(calls)" "flock -x -w 10 9
sfdisk --quiet --lock=no --no-reread --no-tell-kernel --relocate gpt-bak-std $tmp/dev/sda
sfdisk --quiet --lock=no --no-reread --no-tell-kernel -N 4 $tmp/dev/sda <, 2941MiB
partx --update --nr 4 $tmp/dev/sda
e2fsck -p $tmp/dev/sda4"
is 'what it says' "$(said)" 'powernode: persist: partition sda4 grown to 2941 MiB'
: >"$tmp/calls"
status 0 powernode_prepare_persist
is 'once is enough' "$(calls)" "e2fsck -p $tmp/dev/sda4"

# A disk that does not let itself be grown is used as it is.
for sfdisk_fails in relocate -N; do
    world
    file sys/devices/sda/size 6291456
    status 0 powernode_prepare_persist
    is "said when $sfdisk_fails fails" "$(said | cut -c1-20)|$(calls | tail -n 1)" "powernode: persist: |e2fsck -p $tmp/dev/sda4"
done
sfdisk_fails=''
world
new_size=''
file sys/devices/sda/size 6291456
status 0 powernode_prepare_persist
is 'a kernel that does not follow' "$(said)" 'powernode: persist: the kernel does not take the new size of sda4 before the next boot'
world
rm "$tmp/dev/sda"
file sys/devices/sda/size 6291456
status 0 powernode_prepare_persist 2>/dev/null
is 'a disk that cannot be opened' "$(said)" 'powernode: persist: sda cannot be locked, so sda4 is not grown'

# A partition table that was cut off while it was written.
world
: >"$tmp/corrupt"
status 0 powernode_prepare_persist
is 'the table is written again' "$(calls | sed -n 2p)" "sfdisk --quiet --lock=no --no-reread --no-tell-kernel --relocate gpt-bak-std $tmp/dev/sda"
is 'and that is said' "$(said)" 'powernode: persist: the partition table of sda was damaged and is restored from its backup'

world
file sys/devices/sda/size '12x'
status 2 powernode_prepare_persist
reason_has 'holds no number'

# ------------------------------------------------------------------------------------------------------ the file system

# fsck STATUS SAYS LINE: e2fsck ends with SAYS.
fsck() {
    world
    fsck_says=$2
    status "$1" powernode_prepare_persist
    is "e2fsck $2" "$(said)" "$3"
}
corrected='powernode: persist: errors of the file system on sda4 were corrected'
fsck 0 0 ''
fsck 0 1 "$corrected"
fsck 0 '2 0' "$corrected"
fsck 0 '3 1' "$corrected"
# What is wrong with the partition, and what to type in recovery.
for bad in 4 8 12 16 128 '2 2' '3 4'; do
    fsck 1 "$bad" ''
    reason_has "the persist file system on sda4 is damaged: e2fsck -p ended with ${bad#* }; to decide, with powernode.boot=0 type: e2fsck -f /dev/sda4"
done

# Data that do not begin as an ext4 file system: e2fsck does not see them, whatever it would say.
persist=$tmp/dev/sda4
# at OFFSET FORMAT: writes there.
at() { printf "$2" | dd of="$persist" bs=1 seek="$1" conv=notrunc 2>/dev/null; }
# zeros: 256 MiB of them, in a sparse file.
zeros() {
    : >"$persist"
    dd if=/dev/zero of="$persist" bs=1 count=0 seek=268435456 2>/dev/null
}
# unknown WANT: it is refused with this reason, and nothing is started on it.
unknown() {
    : >"$tmp/calls"
    status 1 powernode_prepare_persist
    reason_has "$1"
    is "e2fsck is not called: $1" "$(calls | grep -c e2fsck)" 0
    is "a reason fits into its line: $1" "$([ "${#PN_REASON}" -le 240 ] && echo fits)" fits
}
erase='in place of the persist file system; save what you need of it; to erase it, with powernode.boot=0 type: mke2fs -t ext4 -b 4096 -O verity /dev/sda4'
world
zeros
unknown 'the persist file system on sda4 is blank; to make an empty one, with powernode.boot=0 type: mke2fs -t ext4 -b 4096 -O verity /dev/sda4'
# Its beginning is lost, and the copy of the superblock is not.
at 134217784 '\123\357'
unknown 'the persist file system on sda4 has no superblock; to repair it from a copy, with powernode.boot=0 type: e2fsck -f -b 32768 /dev/sda4'
at 1080 '\123\356'
unknown 'sda4 has no superblock; to repair it from a copy, with'
# Somebody else's file system over one of which the copy is left.
mkfat "$persist" >/dev/null
unknown "sda4 holds a file system of the type vfat $erase"
zeros
mkfat "$persist" >/dev/null
unknown "sda4 holds a file system of the type vfat $erase"
zeros
mkswap "$persist" >/dev/null
unknown "sda4 holds data of the type swap $erase"
zeros
at 0 'LUKS\272\276\000\001'
unknown "sda4 holds encrypted data (crypto_LUKS) $erase"
# The next three are superblocks as blkid takes them, with their checksums: a physical volume's label, and two file systems.
zeros
at 512 'LABELONE\001'
at 528 '\245\250\347\075\040\000\000\000LVM2 0010123456789abcdefghijklmnopqrstuv'
unknown "sda4 holds a part of a volume group or an array (LVM2_member) $erase"
zeros
at 65536 '\061\005\253\141'
at 65586 '\001'
at 65600 '_BHRfS_M'
at 65680 '\000\020'
unknown "sda4 holds a file system of the type btrfs $erase"
zeros
at 0 'XFSB\000\000\020\000\000\000\000\000\000\001\000\000'
at 80 '\000\000\000\001\000\000\100\000\000\000\000\004'
at 100 '\264\244\002\000\001\000\000\020'
at 120 '\014\011\010\004\016\000\000\031'
unknown "sda4 holds a file system of the type xfs $erase"
zeros
printf '%s\n' 'label: dos' ',,83' | /usr/sbin/sfdisk --quiet "$persist"
unknown "sda4 holds a partition table (dos) $erase"
zeros
printf '%s\n' 'label: gpt' ',,L' | /usr/sbin/sfdisk --quiet "$persist"
unknown "sda4 holds a partition table (gpt) $erase"
# Bytes that nobody knows.
zeros
at 4000 'my own data'
unknown 'sda4 holds neither the persist file system nor other known data; save what you need of it; to erase it, with powernode.boot=0 type: mke2fs'
# A blkid that fails is no reason to call it blank.
zeros
blkid() { return 4; }
unknown "sda4 holds data on which blkid fails (status 4) $erase"
blkid() { return 8; }
unknown "sda4 holds signatures of several file systems $erase"
blkid() { /usr/sbin/blkid "$@"; }
# Damage of a file system that somebody else has begun to overwrite: e2fsck was called, and nobody is told to call it again.
world
: >"$persist"
/usr/sbin/mke2fs -q -t ext4 "$persist" 64M 2>/dev/null
at 0 'LUKS\272\276\000\001'
fsck_says=8
status 1 powernode_prepare_persist
reason_has "sda4 holds encrypted data (crypto_LUKS) $erase"
world
: >"$persist"
/usr/sbin/mke2fs -q -t ext4 "$persist" 64M 2>/dev/null
fsck_says=8
status 1 powernode_prepare_persist
reason_has 'the persist file system on sda4 is damaged: e2fsck -p ended with 8'
# A superblock in its place, and besides what blkid is not sure of: nobody is told to erase it.
# beside STATUS WHAT: both are named.
beside() {
    fsck_says=$1
    status 1 powernode_prepare_persist
    reason_has "the persist file system on sda4 is damaged: e2fsck -p ended with $1; it also holds $2; to look, with powernode.boot=0 type: e2fsck -n /dev/sda4"
    is "not to be erased: $2" "$(printf '%s' "$PN_REASON" | grep -c mke2fs)" 0
    is "a reason fits into its line: $2" "$([ "${#PN_REASON}" -le 240 ] && echo fits)" fits
}
world
: >"$persist"
/usr/sbin/mke2fs -q -t ext4 "$persist" 64M 2>/dev/null
at 512 'LABELONE\001'
at 528 '\245\250\347\075\040\000\000\000LVM2 0010123456789abcdefghijklmnopqrstuv'
beside 4 'a part of a volume group or an array (LVM2_member)'
world
for blkid_says in 4 8 127; do
    blkid() { return "$blkid_says"; }
    case $blkid_says in
        8) beside 12 'signatures of several file systems' ;;
        *) beside 12 "data on which blkid fails (status $blkid_says)" ;;
    esac
done
blkid() { /usr/sbin/blkid "$@"; }
# Another file system over one whose superblock is left.
world
blkid() { printf '%s\n' TYPE=btrfs USAGE=filesystem; }
fsck_says=8
status 1 powernode_prepare_persist
reason_has "sda4 holds a file system of the type btrfs $erase"
blkid() { /usr/sbin/blkid "$@"; }
world
zeros
read_only=1
status 1 powernode_prepare_persist
reason_has 'sda4 is read-only: the disk refuses writes'
read_only=''
# A disk that gives errors: what stands for it is a directory.
world
rm "$tmp/dev/sda4"
# shellcheck disable=SC2218  # the program; a function of this name stands for it further down
mkdir "$tmp/dev/sda4"
status 1 powernode_prepare_persist
reason_has 'sda4 cannot be read: the disk reports errors'

# The first boot.
world
echo one >"$tmp/root/var/lib/dpkg/status"
ln -s /run "$tmp/root/var/run"
status 0 powernode_find_persist
status 0 powernode_mount_persist
is 'the mounts' "$(calls)" "mount -t ext4 -o rw,nodev,nosuid $tmp/dev/sda4 $tmp/root/persist
mount --bind $tmp/root/persist/var $tmp/root/var"
is 'the copy' "$(cat "$tmp/root/persist/var/lib/dpkg/status")$(readlink "$tmp/root/persist/var/run")" 'one/run'
is 'nothing is left over' "$(ls -A "$tmp/root/persist")" 'cache
var'
is 'the directories of the modules' "$(ls -A "$tmp/root/persist/cache/modules")" .store
is 'a machine id for good' "$(cat "$tmp/root/persist/var/lib/dbus/machine-id")" 0b8f2c1e111142228333444455556666
is 'what it says' "$(said)" "powernode: persist: /persist/var made from the root's /var"
# The second: nothing is copied again.
echo two >"$tmp/root/persist/var/lib/dpkg/status"
: >"$tmp/dev/console"
status 0 powernode_mount_persist
is 'kept' "$(cat "$tmp/root/persist/var/lib/dpkg/status")$(said)" two
# A copy that was cut off is made anew.
rm -r "$tmp/root/persist/var"
# shellcheck disable=SC2218  # the program; a function of this name stands for it further down
mkdir -p "$tmp/root/persist/.var.new/lib/half"
status 0 powernode_mount_persist
is 'made anew' "$(ls "$tmp/root/persist/var/lib")" 'dbus
dpkg'
# No id can be made: no /var without one.
rm -r "$tmp/root/persist/var"
echo short >"$tmp/proc/sys/kernel/random/uuid"
status 1 powernode_mount_persist
reason_has "the root's /var cannot be copied"
status 1 test -e "$tmp/root/persist/var"

# The kernel's reason is passed on.
world
powernode_find_persist
cp() { echo "cp: cannot create directory 'x': No space left on device" >&2 && return 1; }
status 1 powernode_mount_persist
is 'no room for /var' "$PN_REASON" "the root's /var cannot be copied to /persist/var: No space left on device"
unset -f cp
mkdir() { echo "mkdir: cannot create directory 'x': Read-only file system" >&2 && return 1; }
status 1 powernode_mount_persist
is 'no directory of modules' "$PN_REASON" '/persist/cache/modules cannot be made: Read-only file system'
unset -f mkdir

# Something else in the place of a directory.
for bad in var cache cache/modules cache/modules/.store; do
    world
    powernode_find_persist
    mkdir -p "$tmp/root/persist/${bad%/*}"
    rm -rf "$tmp/root/persist/$bad"
    mkdir -p "$tmp/elsewhere"
    ln -s "$tmp/elsewhere" "$tmp/root/persist/$bad"
    status 1 powernode_mount_persist
    reason_has "/persist/$bad is not a directory"
    is 'nothing is written elsewhere' "$(ls -A "$tmp/elsewhere")" ''
    rm "$tmp/root/persist/$bad"
    : >"$tmp/root/persist/$bad"
    status 1 powernode_mount_persist
    reason_has "/persist/$bad is not a directory"
done
world
powernode_find_persist
mount_fails=1
status 1 powernode_mount_persist
reason_has 'the persist file system on sda4 cannot be mounted'
mount_fails=''

# Growing what is mounted: 131072 sectors are 16384 blocks.
world
powernode_find_persist
status 0 powernode_grow_file_system
is 'full already' "$(calls)" ''
file sys/devices/sda/sda4/size 6023168
new_blocks=752896
status 0 powernode_grow_file_system
is 'grown' "$(calls)|$(said)" "resize2fs $tmp/dev/sda4|powernode: persist: file system on sda4 grown to 2941 MiB"
: >"$tmp/dev/console"
file sys/devices/sda/sda4/size 6025216
status 0 powernode_grow_file_system
is 'no room for another group' "$(said)" ''
resize_fails=1
status 0 powernode_grow_file_system
is 'it can fail' "$(said)" 'powernode: persist: the file system on sda4 cannot be grown'
for blocks in '' x 0x10 12345678901234567890; do
    status 1 powernode_grow_file_system
    reason_has 'the size of the persist file system on sda4 cannot be read'
done

# ---------------------------------------------------------------------------------------------------- asking to install

# asked STATUS COMMANDLINE WANT: the target, or what is missing.
asked() {
    file cmdline "$2"
    status "$1" powernode_install_asked
    is "asked: $2" "$PN_TARGET" ''
    reason_has "$3"
}
world
file cmdline 'powernode.boot=1 powernode.install.confirm=yes'
status 0 powernode_install_asked
is 'not asked' "$PN_TARGET" ''
status 0 powernode_install
is 'nothing is done' "$(calls)|$(said)" '|'
file cmdline 'powernode.install=/dev/sdb powernode.install.confirm=yes powernode.rootfile=/powernode/root.ext4'
status 0 powernode_install_asked
is 'asked' "$PN_TARGET" /dev/sdb
for no in '' powernode.install.confirm= powernode.install.confirm=no powernode.install.confirm=YES powernode.install.confirm; do
    asked 2 "powernode.install=/dev/sdb $no powernode.rootfile=/a" 'powernode.install=/dev/sdb needs powernode.install.confirm=yes'
done
asked 2 'powernode.install=/dev/sdb powernode.install.confirm=yes powernode.install.confirm=yes' '2 times'
asked 2 'powernode.install=/dev/sdb powernode.install=/dev/sda' '2 times'
asked 2 'powernode.install=/dev/sdb powernode.install.confirm=yes' 'powernode.rootfile= is missing'
# shellcheck disable=SC2016  # nothing here may be expanded
for bad in '' sdb yes LABEL=x /dev /dev/ /etc/passwd; do
    asked 2 "powernode.install=$bad powernode.install.confirm=yes" 'is not a device below /dev'
done
# shellcheck disable=SC2016  # nothing here may be expanded
for bad in /dev/../etc/passwd /dev//sda '/dev/sd*' '/dev/$x' /dev/sda/; do
    asked 2 "powernode.install=$bad powernode.install.confirm=yes" 'is not a plain absolute path'
done

# ------------------------------------------------------------------------------------------------------------ the plan

# plan LINES: parse a plan that has these lines after its first.
plan() {
    powernode_parse_plan "powernode-install 1
$1"
}
PN_MEDIUM_FILE=/powernode/root.ext4
good="size 4096
0 512 $HEX install/head.bin
512 1000 $HEX vmlinuz
1512 536 $HEX zero
2048 1024 $HEX root.ext4
3072 1024 $HEX zero"
status 0 plan "$good"
is 'the size' "$PN_PLAN_SIZE" 4096
is 'the plan' "$PN_PLAN" "${good#*"$PN_NL"}$PN_NL"
# bad REASON LINES
bad() {
    status 2 plan "$2"
    reason_has "$1"
    is 'no plan' "$PN_PLAN|$PN_PLAN_SIZE" '|0'
}
status 2 powernode_parse_plan ''
status 2 powernode_parse_plan "$good"
status 2 powernode_parse_plan "powernode-install 2
$good"
reason_has 'does not begin with powernode-install 1'
for line in '' size 'size ' 'size 0' 'size 513' 'size x' 'size 0512' 'size 512 ' ' size 512' 'size -512' 'size 9999999999999999' 'Size 512'; do
    bad 'line 2 of the install plan' "$line
0 512 $HEX root.ext4"
done
for line in '' '0' '0 512' "0 512 $HEX" "0 512 $HEX " "0  512 $HEX root.ext4" "0 512 $HEX root.ext4 " "0 512 $HEX root.ext4 x" " 0 512 $HEX root.ext4" \
    "0 512 ${HEX%?} root.ext4" "0 512 ${HEX%?}G root.ext4" "00 512 $HEX root.ext4" "0 0x200 $HEX root.ext4" "0 512 $HEX ../root.ext4" \
    "0 512 $HEX /root.ext4" "0 512 $HEX a/../root.ext4" "0 512 $HEX .root" "0 512 $HEX *" "+0 512 $HEX root.ext4" \
    "0 99999999999999999999 $HEX root.ext4" "0	512	$HEX	root.ext4" "0 512 $HEX root.ext4/"; do
    bad 'line 3 of the install plan is not <offset>' "size 512
$line"
done
bad 'line 3 of the install plan is empty' "size 512
0 0 $HEX root.ext4"
bad 'line 4 of the install plan begins at 1024, not at 512' "size 2048
0 512 $HEX root.ext4
1024 1024 $HEX zero"
bad 'line 4 of the install plan begins at 0, not at 512' "size 1024
0 512 $HEX root.ext4
0 512 $HEX zero"
bad 'line 3 of the install plan begins at 512, not at 0' "size 1024
512 512 $HEX root.ext4"
bad 'line 4 of the install plan goes on to 1536, beyond the size' "size 1024
0 512 $HEX root.ext4
512 1024 $HEX zero"
bad 'the install plan ends at 512, not at its size 1024' "size 1024
0 512 $HEX root.ext4"
bad 'the install plan ends at 0, not at its size 1024' 'size 1024'
bad 'line 4 of the install plan begins at 100, inside a sector' "size 1024
0 100 $HEX root.ext4
100 924 $HEX vmlinuz"
bad 'line 4 of the install plan ends at 200, inside a sector' "size 1024
0 100 $HEX root.ext4
100 100 $HEX zero
200 824 $HEX zero"
bad 'the install plan does not write the root, root.ext4' "size 1024
0 1024 $HEX other/root.ext4"

# A plan for a disk with sectors of 4096 bytes.
large="sector-size 4096
0 4096 $HEX install/head.bin
4096 1000 $HEX root.ext4
5096 3096 $HEX zero
8192 4096 $HEX zero"
status 0 plan "size 12288
$large"
is 'sectors of 4096 bytes' "$PN_PLAN_SECTOR|$PN_PLAN_SIZE" '4096|12288'
is 'the plan without its head' "$PN_PLAN" "${large#*"$PN_NL"}$PN_NL"
status 0 plan "$good"
is 'sectors of 512 bytes again' "$PN_PLAN_SECTOR" 512
for line in sector-size 'sector-size 512' 'sector-size 8192' 'sector-size 4096 ' 'sector-size=4096' 'sector-size 04096'; do
    bad 'line 3 of the install plan is not sector-size 4096' "size 12288
$line
${large#*"$PN_NL"}"
done
bad 'the size 12800 of the install plan is not of whole sectors of 4096 bytes' "size 12800
$large"
bad 'line 5 of the install plan begins at 512, inside a sector' "size 4096
sector-size 4096
0 512 $HEX root.ext4
512 3584 $HEX vmlinuz"
bad 'line 5 of the install plan ends at 1024, inside a sector' "size 4096
sector-size 4096
0 512 $HEX root.ext4
512 512 $HEX zero"

# -------------------------------------------------------------------------------------------------------- a whole medium

# sum FILE: its SHA-256.
sum() {
    sum=$(sha256sum <"$1")
    echo "${sum%% *}"
}

# medium: the ISO is sr0; its plan makes an image of 3.5 MiB out of files of odd lengths, and $tmp/image is what must come out.
# The target is sdb, with 4 MiB of something older.
medium() {
    world
    for pn_test in 1 2 3 4; do
        rm -r "$tmp/sys/devices/sdb/sdb$pn_test" "$tmp/sys/class/block/sdb$pn_test"
    done
    disk sr0 8192
    PN_STORE_KIND=medium PN_STORE_SOURCE=$tmp/dev/sr0 PN_MEDIUM_FILE=/powernode/root.ext4 PN_DIGEST=$HEX PN_STRIDE=300000
    PN_TARGET=/dev/sdb
    powernode=$tmp/run/medium/powernode
    mkdir -p "$powernode/install"
    head -c 1048576 /dev/zero | tr '\000' H >"$powernode/install/head.bin"
    head -c 700001 /dev/zero | tr '\000' V >"$powernode/vmlinuz"
    { head -c 1000000 /dev/zero | tr '\000' R; head -c 48576 /dev/zero; } >"$powernode/root.ext4"
    head -c 415 /dev/zero >"$tmp/zero1"
    head -c 872448 /dev/zero >"$tmp/zero2"
    cat "$powernode/install/head.bin" "$powernode/vmlinuz" "$tmp/zero1" "$powernode/root.ext4" "$tmp/zero2" >"$tmp/image"
    cat >"$powernode/install/plan" <<EOF
powernode-install 1
size 3670016
0 1048576 $(sum "$powernode/install/head.bin") install/head.bin
1048576 700001 $(sum "$powernode/vmlinuz") vmlinuz
1748577 415 $(sum "$tmp/zero1") zero
1748992 1048576 $(sum "$powernode/root.ext4") root.ext4
2797568 872448 $(sum "$tmp/zero2") zero
EOF
    head -c 4194304 /dev/zero | tr '\000' o >"$tmp/dev/sdb"
    file sys/devices/sdb/size 8192
    sum "$tmp/dev/sdb" >"$tmp/before"
}
# install: what the boot script does; nobody comes back from switching off.
install() {
    (
        powernode_power_off() {
            echo 'power off' >>"$tmp/calls"
            exit 77
        }
        powernode_install || {
            echo "$PN_REASON" >"$tmp/reason"
            exit 1
        }
    )
}
medium
status 77 install
is 'the image is on the disk' "$(head -c 3670016 "$tmp/dev/sdb" | sha256sum)" "$(sha256sum <"$tmp/image")"
is 'the old backup of the partition table is gone' "$(tail -c 524288 "$tmp/dev/sdb" | tr -d '\000' | wc -c | tr -d ' ')" 0
is 'the disk has its size' "$(wc -c <"$tmp/dev/sdb" | tr -d ' ')" 4194304
is 'the first line' "$(said | sed -n 1p)" "powernode: installing: /dev/sdb (3 MiB) root=$HEX"
is 'the last line' "$(said | tail -n 1)" "powernode: installed: /dev/sdb root=$HEX"
is 'progress' "$(said | grep -c 'installing: writing, ')|$(said | grep -c 'installing: verifying, ')" '5|5'
is 'read back from the disk, then off' "$(calls | sort | uniq -c | tr -s ' ')" " 3 blockdev --flushbufs $tmp/dev/sdb
 1 power off"

# untouched REASON: the installation is refused and the target has every byte it had.
untouched() {
    status 1 install
    PN_REASON=$(cat "$tmp/reason")
    reason_has "$1"
    is "untouched: $1" "$(sum "$tmp/dev/sdb")" "$(cat "$tmp/before")"
    is 'and nothing is said to be installed' "$(said)" ''
}
medium
rm "$powernode/install/plan"
untouched 'the medium holds no /powernode/install/plan'
medium
printf '\000' >>"$powernode/install/plan"
untouched 'not plain text'
medium
echo more >>"$powernode/install/plan"
untouched 'line 8 of the install plan'
medium
rm "$powernode/vmlinuz"
untouched 'the medium holds no /powernode/vmlinuz'
medium
echo >>"$powernode/vmlinuz"
untouched '/powernode/vmlinuz of the medium has 700002 bytes, the install plan says 700001'
medium
mv "$powernode/vmlinuz" "$tmp/vmlinuz"
ln -s "$tmp/vmlinuz" "$powernode/vmlinuz"
untouched '/powernode/vmlinuz is a symbolic link on the medium'
medium
PN_TARGET=/dev/sdx
untouched 'names a block device that is not there'
medium
PN_TARGET=/dev/sda4
untouched 'powernode.install=/dev/sda4 is a partition, not a whole disk'
medium
PN_TARGET=/dev/sr0
untouched 'powernode.install=/dev/sr0 is the medium itself'
medium
PN_STORE_SOURCE=$tmp/dev/disk/by-label/POWERNODE_ISO
partition sdb 1 64 100 ISO
ln -s "$tmp/dev/sdb1" "$PN_STORE_SOURCE"
untouched 'powernode.install=/dev/sdb is the medium itself'
medium
rmdir "$tmp/sys/devices/sdb/device"
untouched 'powernode.install=/dev/sdb is not a disk'
medium
partition sdb 1 64 100 data
file proc/self/mountinfo "22 1 0:20 / / rw - rootfs rootfs rw
30 22 $(cat "$tmp/sys/devices/sdb/sdb1/dev") / /mnt rw - ext4 /dev/sdb1 rw"
untouched 'powernode.install=/dev/sdb is in use: sdb1 is mounted'
medium
file proc/self/mountinfo "30 22 $(cat "$tmp/sys/devices/sdb/dev") / /mnt rw - ext4 /dev/sdb rw"
untouched 'is in use: sdb is mounted'
medium
file proc/swaps 'Filename				Type		Size		Used		Priority
/dev/sdb                                partition	1048572		0		-2'
untouched 'is in use: sdb is swap'
medium
partition sdb 1 64 100 lvm
ln -s ../../../dm-0 "$tmp/sys/devices/sdb/sdb1/holders/dm-0"
untouched 'is in use: sdb1 is part of dm-0'
medium
file sys/devices/sdb/ro 1
untouched 'powernode.install=/dev/sdb is read-only'
medium
file sys/devices/sdb/queue/logical_block_size 4096
untouched 'has sectors of 4096 bytes, and the image is for sectors of 512'
# large_plan: the same image, for sectors of 4096 bytes.
large_plan() {
    { head -n 2 "$powernode/install/plan"; echo 'sector-size 4096'; tail -n +3 "$powernode/install/plan"; } >"$tmp/large"
    mv "$tmp/large" "$powernode/install/plan"
}
medium
large_plan
untouched 'has sectors of 512 bytes, and the image is for sectors of 4096'
medium
large_plan
file sys/devices/sdb/queue/logical_block_size 4096
status 77 install
is 'a disk with sectors of 4096 bytes' "$(head -c 3670016 "$tmp/dev/sdb" | sha256sum)" "$(sha256sum <"$tmp/image")"
medium
file sys/devices/sdb/size 7167
untouched 'powernode.install=/dev/sdb has 3669504 bytes, the image needs 3670016'
# Exactly large enough.
medium
file sys/devices/sdb/size 7168
head -c 3670016 "$tmp/dev/sdb" >"$tmp/smaller"
mv "$tmp/smaller" "$tmp/dev/sdb"
status 77 install
is 'a disk of exactly the size' "$(sum "$tmp/dev/sdb")" "$(sum "$tmp/image")"

# A medium that gives other bytes than the plan says leaves the disk alone; a disk that keeps other bytes than it was given does
# not end as one that starts.
headless() {
    status 1 install
    PN_REASON=$(cat "$tmp/reason")
    reason_has "$1"
    is "no beginning: $1" "$(head -c 1048576 "$tmp/dev/sdb" | tr -d '\000' | wc -c | tr -d ' ')" 0
    is 'not installed' "$(said | grep -c 'powernode: installed')" 0
}
for wrong in vmlinuz root.ext4 install/head.bin; do
    medium
    { printf X; tail -c +2 "$powernode/$wrong"; } >"$tmp/wrong"
    mv "$tmp/wrong" "$powernode/$wrong"
    status 1 install
    PN_REASON=$(cat "$tmp/reason")
    reason_has "the medium is damaged: ${wrong##*/} differs from the install plan"
    is "untouched: $wrong" "$(sum "$tmp/dev/sdb")" "$(cat "$tmp/before")"
    is 'not installed' "$(said | grep -c 'powernode: installed')" 0
done
medium
blockdev() {
    echo "blockdev $*" >>"$tmp/calls"
    printf X | dd of="$tmp/dev/sdb" bs=1 seek=2000000 conv=notrunc 2>/dev/null
}
headless '/dev/sdb differs from the install plan at 1748992 after writing'
medium
blockdev() { return 1; }
headless 'the data did not reach the disk'

finish
