#!/bin/sh
# /persist: the one writable file system of a node that starts from a disk. Functions only, sourced after powernode-lib.sh and under its
# conventions.
#
# It is the partition named powernode-persist on the disk of the root, and the last one there. An image is written with a small
# one; on the first boot it grows to the end of the disk. Everything here may be cut off by a power failure at any point and is
# done again, or found done, by the next boot:
#   - sfdisk writes the backup of the partition table before the table itself, and every step begins from what the disk says;
#   - the file system grows while it is mounted, which ext4 journals (resize2fs on an unmounted one does not);
#   - /persist/var is filled under another name and then renamed.
# Nothing on it is verified by anybody: no program is started from it before the root runs.

# The disk of the root and its partition for /persist, as the kernel names them; empty when there is none.
PN_DISK='' PN_PERSIST=''
# 512-byte sectors: what the kernel counts in, also on a disk with larger ones. The backup of a GPT takes the last 33; on a disk with
# sectors of 4096 bytes it takes 40, which leave as many whole MiB.
PN_GPT_BACKUP=33
PN_MIB=2048

# powernode_disk_of DEVICE: PN_DISK is the disk that DEVICE is a partition of. Returns 1 when it is not a partition.
powernode_disk_of() {
    PN_DISK=''
    pn_name=$(readlink -f "$1") || return 1
    pn_name=${pn_name##*/}
    [ -n "$pn_name" ] && [ -f "$PN_SYS/class/block/$pn_name/partition" ] || return 1
    # The entry is a link into the device tree, where a partition is below its disk.
    pn_tree=$(readlink -f "$PN_SYS/class/block/$pn_name") || return 1
    pn_tree=${pn_tree%/*}
    PN_DISK=${pn_tree##*/}
}

# powernode_number FILE: PN_VALUE is the number that FILE of the kernel holds. Returns 2 when it holds none.
powernode_number() {
    PN_VALUE=''
    [ ! -r "$1" ] || PN_VALUE=$(cat "$1")
    if ! powernode_is_count "$PN_VALUE"; then
        PN_REASON="$1 holds no number"
        return 2
    fi
}

# powernode_partition NAME: PN_VALUE is the partition of PN_DISK whose name in the GPT is NAME. Returns 1 when there is none, 2 when
# there are several.
powernode_partition() {
    PN_VALUE=''
    pn_many=''
    for pn_dir in "$PN_SYS/class/block/$PN_DISK"/*/; do
        pn_dir=${pn_dir%/}
        [ -f "$pn_dir/partition" ] && [ -r "$pn_dir/uevent" ] || continue
        [ "$(sed -n 's/^PARTNAME=//p' "$pn_dir/uevent")" = "$1" ] || continue
        [ -z "$PN_VALUE" ] || pn_many=1
        PN_VALUE=${pn_dir##*/}
    done
    if [ -n "$pn_many" ]; then
        PN_REASON="$PN_DISK has more than one partition named $1"
        return 2
    fi
    [ -n "$PN_VALUE" ]
}

# powernode_find_persist: PN_DISK and PN_PERSIST, both empty when the root is not on a partition or its disk has no such partition (an
# ISO, a root inside the initramfs): then the node keeps nothing, by design and not by accident.
powernode_find_persist() {
    PN_DISK='' PN_PERSIST=''
    [ "$PN_STORE_KIND" = device ] || return 0
    powernode_disk_of "$PN_STORE_SOURCE" || return 0
    powernode_partition powernode-persist
    case $? in
        0) PN_PERSIST=$PN_VALUE ;;
        1) ;;
        *) return 2 ;;
    esac
}

# powernode_prepare_persist: everything that has to happen while the partition is not mounted. Runs when the image on the same disk was
# found to be the one that is wanted: no other disk is written to.
powernode_prepare_persist() {
    powernode_find_persist || return
    [ -n "$PN_PERSIST" ] || return 0
    powernode_grow_partition || return
    powernode_check_persist
}

# powernode_wanted_size: PN_VALUE is the size in sectors that the partition should have: up to the end of the disk, in whole
# MiB. It is 0 when another partition comes after it.
powernode_wanted_size() {
    pn_sys=$PN_SYS/class/block/$PN_DISK
    powernode_number "$pn_sys/size" || return
    pn_end=$((PN_VALUE - PN_GPT_BACKUP))
    powernode_number "$pn_sys/$PN_PERSIST/start" || return
    pn_start=$PN_VALUE
    for pn_dir in "$pn_sys"/*/; do
        [ -f "$pn_dir/partition" ] || continue
        powernode_number "$pn_dir/start" || return
        if [ "$PN_VALUE" -gt "$pn_start" ]; then
            PN_VALUE=0
            return 0
        fi
    done
    PN_VALUE=0
    [ "$pn_end" -le "$pn_start" ] || PN_VALUE=$(((pn_end - pn_start) / PN_MIB * PN_MIB))
}

# powernode_grow_partition: when the disk is larger than the image that was written to it, put the backup of the GPT where it belongs
# and let the partition reach to it. GUIDs, names and all other partitions stay as they are. A disk that cannot be grown is said
# so and used as it is: nothing on it is wrong.
powernode_grow_partition() {
    powernode_wanted_size || return
    pn_wanted=$PN_VALUE
    pn_disk=$PN_DEV/$PN_DISK
    powernode_number "$PN_SYS/class/block/$PN_PERSIST/partition" || return
    pn_index=$PN_VALUE
    powernode_number "$PN_SYS/class/block/$PN_PERSIST/size" || return
    pn_heal=''
    if [ "$pn_wanted" -le "$PN_VALUE" ]; then
        # A table that was cut off while it was written: the kernel took the backup (`gpt` on its command line), and so does sfdisk.
        case $(sfdisk --dump "$pn_disk" 2>&1) in
            *'primary GPT table is corrupt'*) pn_heal=1 ;;
            *) return 0 ;;
        esac
    fi
    # udev reads the table again, and for that takes all partitions away for a moment, when a disk was written to and nobody
    # holds this lock. It is held until both file systems are mounted; see powernode_mount_persist.
    if ! command exec 9<"$pn_disk" || ! flock -x -w 10 9; then
        powernode_tell "powernode: persist: $PN_DISK cannot be locked, so $PN_PERSIST is not grown"
        return 0
    fi
    if ! sfdisk --quiet --lock=no --no-reread --no-tell-kernel --relocate gpt-bak-std "$pn_disk" >/dev/null 2>&1; then
        powernode_tell "powernode: persist: the partition table of $PN_DISK cannot be moved to the end of the disk"
        return 0
    fi
    if [ -n "$pn_heal" ]; then
        powernode_tell "powernode: persist: the partition table of $PN_DISK was damaged and is restored from its backup"
        return 0
    fi
    # In MiB: without a unit, sfdisk counts in the sectors of the disk, which may have 4096 bytes.
    if ! printf ', %sMiB\n' $((pn_wanted / PN_MIB)) \
        | sfdisk --quiet --lock=no --no-reread --no-tell-kernel -N "$pn_index" "$pn_disk" >/dev/null 2>&1; then
        powernode_tell "powernode: persist: partition $PN_PERSIST cannot be grown"
        return 0
    fi
    partx --update --nr "$pn_index" "$pn_disk" >/dev/null 2>&1
    powernode_number "$PN_SYS/class/block/$PN_PERSIST/size" || return
    if [ "$PN_VALUE" -ne "$pn_wanted" ]; then
        powernode_tell "powernode: persist: the kernel does not take the new size of $PN_PERSIST before the next boot"
        return 0
    fi
    powernode_tell "powernode: persist: partition $PN_PERSIST grown to $((pn_wanted / PN_MIB)) MiB"
}

# powernode_check_persist: let e2fsck repair what it can repair without asking. Its status is a sum: 1 repaired, 2 start over, 4 and more:
# damaged or unreadable. It is not started where no ext4 file system begins: the data there may be somebody else's.
powernode_check_persist() {
    if ! powernode_has_superblock 0 1080; then
        powernode_persist_reason
        return 1
    fi
    e2fsck -p "$PN_DEV/$PN_PERSIST" >/dev/null 2>&1
    pn_status=$?
    case $pn_status in
        2 | 3)
            e2fsck -p "$PN_DEV/$PN_PERSIST" >/dev/null 2>&1
            pn_status=$?
            [ "$pn_status" -ne 0 ] || pn_status=1
            ;;
    esac
    case $pn_status in
        0) ;;
        1) powernode_tell "powernode: persist: errors of the file system on $PN_PERSIST were corrected" ;;
        *)
            powernode_persist_reason "$pn_status"
            return 1
            ;;
    esac
}

# powernode_has_superblock BLOCK BYTE: the magic number of ext4 (53 ef) stands at BYTE of the 4096-byte block BLOCK of the partition: 1080
# of block 0 in the superblock itself, 56 of block 32768 in its first copy, which a file system of less than 128 MiB does not have.
powernode_has_superblock() {
    # shellcheck disable=SC2046  # these are two numbers
    set -- $(dd if="$PN_DEV/$PN_PERSIST" bs=4096 skip="$1" count=1 2>/dev/null | head -c $(($2 + 2)) | tail -c +$(($2 + 1)) | od -A n -t u1)
    [ "${1:-}:${2:-}" = 83:239 ]
}

# powernode_foreign DEVICE: PN_VALUE names the contents of DEVICE when blkid finds something else than an ext4 file system there, or beside
# one. Returns 1 when it finds nothing else. pn_instead is set when these are data that a file system is made over: encrypted ones, or
# another file system. All else can stand beside an ext4 file system that is there.
powernode_foreign() {
    pn_instead=''
    pn_found=$(blkid -p -o export -s TYPE -s USAGE -s PTTYPE "$1" 2>/dev/null)
    pn_status=$?
    case $pn_status in
        0) ;;
        2) return 1 ;;
        8)
            PN_VALUE='signatures of several file systems'
            return 0
            ;;
        *)
            PN_VALUE="data on which blkid fails (status $pn_status)"
            return 0
            ;;
    esac
    pn_type=$(printf '%s\n' "$pn_found" | sed -n 's/^TYPE=//p')
    pn_usage=$(printf '%s\n' "$pn_found" | sed -n 's/^USAGE=//p')
    pn_table=$(printf '%s\n' "$pn_found" | sed -n 's/^PTTYPE=//p')
    case $pn_type:$pn_usage in
        ext[234]:*) return 1 ;;
        :)
            [ -n "$pn_table" ] || return 1
            PN_VALUE="a partition table ($pn_table)"
            ;;
        *:filesystem) pn_instead=1 PN_VALUE="a file system of the type $pn_type" ;;
        *:crypto) pn_instead=1 PN_VALUE="encrypted data ($pn_type)" ;;
        *:raid) PN_VALUE="a part of a volume group or an array ($pn_type)" ;;
        *) PN_VALUE="data of the type $pn_type" ;;
    esac
}

# powernode_persist_reason [STATUS]: PN_REASON is why the partition is refused, and what to type in recovery. STATUS is that of e2fsck -p;
# without one, no ext4 file system begins there. The contents decide: e2fsck from a copy of an older superblock would overwrite
# somebody else's data, and mke2fs all that such a copy can still save. Where a superblock is in its place and blkid is not sure, the data
# are most likely the node's own: only looking is recommended.
powernode_persist_reason() {
    pn_device=$PN_DEV/$PN_PERSIST
    pn_shown="the persist file system on $PN_PERSIST"
    pn_recovery='with powernode.boot=0 type:'
    pn_make="mke2fs -t ext4 -b 4096 -O verity /dev/$PN_PERSIST"
    if ! head -c 1048576 "$pn_device" >/dev/null 2>&1; then
        PN_REASON="$pn_shown cannot be read: the disk reports errors; $pn_recovery dd if=/dev/$PN_PERSIST of=/dev/null"
    elif [ "$(blockdev --getro "$pn_device" 2>/dev/null)" = 1 ]; then
        PN_REASON="$pn_shown is read-only: the disk refuses writes; $pn_recovery blockdev --getro /dev/$PN_PERSIST"
    elif powernode_foreign "$pn_device"; then
        if [ -n "${1:-}" ] && [ -z "$pn_instead" ]; then
            PN_REASON="$pn_shown is damaged: e2fsck -p ended with $1; it also holds $PN_VALUE; to look, $pn_recovery e2fsck -n /dev/$PN_PERSIST"
            return
        fi
        PN_REASON="$PN_PERSIST holds $PN_VALUE in place of the persist file system; save what you need of it; to erase it, $pn_recovery $pn_make"
    elif [ -n "${1:-}" ]; then
        PN_REASON="$pn_shown is damaged: e2fsck -p ended with $1; to decide, $pn_recovery e2fsck -f /dev/$PN_PERSIST"
    elif powernode_has_superblock 32768 56; then
        PN_REASON="$pn_shown has no superblock; to repair it from a copy, $pn_recovery e2fsck -f -b 32768 /dev/$PN_PERSIST"
    elif [ "$(head -c 1048576 "$pn_device" | tr -d '\000' | wc -c)" -eq 0 ]; then
        PN_REASON="$pn_shown is blank; to make an empty one, $pn_recovery $pn_make"
    else
        PN_REASON="$PN_PERSIST holds neither the persist file system nor other known data; save what you need of it; to erase it, $pn_recovery $pn_make"
    fi
}

# powernode_mount_persist: mount the partition on /persist of the root and bind /persist/var on /var. Runs with the root mounted.
powernode_mount_persist() {
    [ -n "$PN_PERSIST" ] || return 0
    if ! mount -t ext4 -o rw,nodev,nosuid "$PN_DEV/$PN_PERSIST" "$PN_NEWROOT/persist" 2>/dev/null; then
        PN_REASON="the persist file system on $PN_PERSIST cannot be mounted; with powernode.boot=0 type: e2fsck -f /dev/$PN_PERSIST"
        return 1
    fi
    # Both file systems are in use: from here on nobody can take the partitions away.
    exec 9<&-
    powernode_grow_file_system || return
    powernode_persist_directories || return
    if ! mount --bind "$PN_NEWROOT/persist/var" "$PN_NEWROOT/var" 2>/dev/null; then
        PN_REASON='/persist/var cannot be bound on /var'
        return 1
    fi
}

# powernode_file_system_blocks: PN_VALUE is the size of the file system in blocks, PN_BLOCK the size of a block in bytes.
powernode_file_system_blocks() {
    pn_header=$(dumpe2fs -h "$PN_DEV/$PN_PERSIST" 2>/dev/null)
    PN_BLOCK=$(printf '%s\n' "$pn_header" | sed -n 's/^Block size: *//p')
    PN_VALUE=$(printf '%s\n' "$pn_header" | sed -n 's/^Block count: *//p')
    if ! powernode_is_count "$PN_VALUE" || ! powernode_is_count "$PN_BLOCK" || [ "$PN_BLOCK" -eq 0 ]; then
        PN_REASON="the size of the persist file system on $PN_PERSIST cannot be read"
        return 1
    fi
}

# powernode_grow_file_system: let the mounted file system fill its partition.
powernode_grow_file_system() {
    powernode_file_system_blocks || return
    pn_blocks=$PN_VALUE
    powernode_number "$PN_SYS/class/block/$PN_PERSIST/size" || return
    [ $((PN_VALUE * 512 / PN_BLOCK)) -gt "$pn_blocks" ] || return 0
    if ! resize2fs "$PN_DEV/$PN_PERSIST" >/dev/null 2>&1; then
        powernode_tell "powernode: persist: the file system on $PN_PERSIST cannot be grown"
        return 0
    fi
    powernode_file_system_blocks || return
    # A last group too small to be one is left out: then there is nothing to say, today and on every other boot.
    [ "$PN_VALUE" -gt "$pn_blocks" ] || return 0
    powernode_tell "powernode: persist: file system on $PN_PERSIST grown to $((PN_VALUE * PN_BLOCK / 1048576)) MiB"
}

# powernode_persist_directories: what must be on /persist. The first boot copies the root's /var there. A directory that is there must
# be one: a link in its place could lead anywhere.
powernode_persist_directories() {
    pn_persist=$PN_NEWROOT/persist
    for pn_dir in var cache cache/modules cache/modules/.store; do
        if [ -h "$pn_persist/$pn_dir" ] || { [ -e "$pn_persist/$pn_dir" ] && [ ! -d "$pn_persist/$pn_dir" ]; }; then
            PN_REASON="/persist/$pn_dir is not a directory"
            return 1
        fi
    done
    # A program's last words are the kernel's: no space, read-only, an error of the disk.
    if ! pn_said=$(mkdir -p "$pn_persist/cache/modules/.store" 2>&1); then
        PN_REASON="/persist/cache/modules cannot be made: ${pn_said##*: }"
        return 1
    fi
    [ ! -d "$pn_persist/var" ] || return 0
    if ! pn_said=$(powernode_copy_var "$pn_persist" 2>&1); then
        PN_REASON="the root's /var cannot be copied to /persist/var${pn_said:+: ${pn_said##*: }}"
        return 1
    fi
    powernode_tell "powernode: persist: /persist/var made from the root's /var"
}

# powernode_copy_var PERSIST: the root's /var as PERSIST/var, which has its name only when it is complete and on the disk.
powernode_copy_var() {
    rm -rf "$1/.var.new" \
        && cp -a "$PN_NEWROOT/var" "$1/.var.new" \
        && powernode_make_machine_id "$1/.var.new" \
        && sync \
        && mv "$1/.var.new" "$1/var" \
        && sync
}

# powernode_make_machine_id VAR: choose the node's machine id for good. /etc is new at every boot and its machine-id is empty; systemd
# then takes the one of D-Bus, if there is one, before it makes up its own.
powernode_make_machine_id() {
    pn_id=$(tr -dc '0-9a-f' <"$PN_PROC/sys/kernel/random/uuid")
    [ "${#pn_id}" -eq 32 ] || return 1
    mkdir -p "$1/lib/dbus" || return 1
    rm -f "$1/lib/dbus/machine-id"
    printf '%s\n' "$pn_id" >"$1/lib/dbus/machine-id" && chmod 0444 "$1/lib/dbus/machine-id"
}
