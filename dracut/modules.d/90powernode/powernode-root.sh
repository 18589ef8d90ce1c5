#!/bin/sh
# The root: the device or the medium it is on, the verified image, the overlay, the host's seed share. Functions only, sourced
# after powernode-lib.sh and under its conventions.

# Where the root comes from, set by powernode_find_store: the kind is `file` (inside this initramfs), `medium` (a file on the
# device) or `device` (its whole file system); the source is that file or device.
PN_STORE_KIND='' PN_STORE_SOURCE='' PN_MEDIUM_FILE=''
# What udev knows of each device.
PN_UDEV=/run/udev/data
# Seconds that a file system from elsewhere may take to be mounted.
PN_MOUNT_SECONDS=20

# powernode_mount_foreign ARGUMENTS...: mount(8) of something that is not this image's: a share of the host, a medium, a boot partition.
# Nothing on it is a program or a device, no symbolic link on it is followed, and its server may not answer at all. Returns 124 or more
# when it took too long.
powernode_mount_foreign() {
    pn_type=$1 pn_options=$2
    shift 2
    timeout -s KILL "$PN_MOUNT_SECONDS" mount -t "$pn_type" -o "$pn_options,nodev,nosuid,noexec,nosymfollow" "$@" 2>/dev/null
}

# powernode_mount_share TAG DIRECTORY: mount what the host shares under that mount tag, read-only: by 9p, else by virtio-fs. Returns 1 when the
# host shares nothing under it, 2 when its server did not answer.
powernode_mount_share() {
    mkdir -p "$2"
    modprobe -q -a 9pnet_virtio virtiofs
    for pn_kind in 9p,ro,trans=virtio,version=9p2000.L,msize=262144 virtiofs,ro; do
        powernode_mount_foreign "${pn_kind%%,*}" "${pn_kind#*,}" "$1" "$2" && return
        if [ $? -ge 124 ]; then
            PN_REASON="the host's share '$1' did not answer in $PN_MOUNT_SECONDS seconds"
            return 2
        fi
    done
    return 1
}

# powernode_one_disk WHERE TEXT LINK: the link below /dev that TEXT stands for belongs to devices of one disk only. Two copies of a disk
# claim the same links, and which of them gets one is a race: the machine would be one node today and another tomorrow. A stick with
# an ISO claims its label twice, as a disk and as a partition of it.
powernode_one_disk() {
    pn_disks=''
    for pn_db in "$PN_UDEV"/b*; do
        [ -r "$pn_db" ] || continue
        pn_claims=''
        while read -r pn_line; do
            [ "$pn_line" != "S:$3" ] || pn_claims=1
        done <"$pn_db"
        [ -n "$pn_claims" ] || continue
        pn_tree=$(readlink -f "$PN_SYS/dev/block/${pn_db##*/b}") || continue
        # A partition is below its disk.
        [ ! -f "$pn_tree/partition" ] || pn_tree=${pn_tree%/*}
        case " $pn_disks " in
            *" ${pn_tree##*/} "*) ;;
            *) pn_disks="$pn_disks${pn_disks:+ }${pn_tree##*/}" ;;
        esac
    done
    case $pn_disks in
        *' '*)
            PN_REASON="$1 names more than one disk: '$2' is on $pn_disks; remove the others, or choose one with powernode.rootdev=/dev/NAME"
            return 2
            ;;
    esac
}

# powernode_device WHERE TEXT: PN_VALUE is the path of the block device that TEXT names: /dev/…, LABEL=, UUID=, PARTLABEL= or
# PARTUUID=. Waits up to ten seconds for it to appear. All but the first must name one disk.
powernode_device() {
    powernode_check_word "$1" "$2" || return
    case $2 in
        */../* | */.. | '') pn_path='' ;;
        LABEL=*/* | UUID=*/* | PARTLABEL=*/* | PARTUUID=*/*) pn_path='' ;;
        LABEL=?*) pn_path=$PN_DEV/disk/by-label/${2#*=} ;;
        UUID=?*) pn_path=$PN_DEV/disk/by-uuid/${2#*=} ;;
        PARTLABEL=?*) pn_path=$PN_DEV/disk/by-partlabel/${2#*=} ;;
        PARTUUID=?*) pn_path=$PN_DEV/disk/by-partuuid/${2#*=} ;;
        /dev/?*) pn_path=$PN_DEV/${2#/dev/} ;;
        *) pn_path='' ;;
    esac
    if [ -z "$pn_path" ]; then
        PN_REASON="$1 names no block device: '$2'"
        return 2
    fi
    pn_left=10
    while ! test "$PN_IS_BLOCK" "$pn_path"; do
        if [ "$pn_left" -eq 0 ]; then
            PN_REASON="$1 names a block device that is not there: '$2'"
            return 2
        fi
        pn_left=$((pn_left - 1))
        sleep 1
    done
    case $pn_path in
        "$PN_DEV"/disk/*) powernode_one_disk "$1" "$2" "${pn_path#"$PN_DEV"/}" || return ;;
    esac
    PN_VALUE=$pn_path
}

# powernode_find_store: PN_STORE_KIND and PN_STORE_SOURCE say where the ext4 file system with the root is: with powernode.rootfile= the file
# of that path (PN_MEDIUM_FILE) on the file system of powernode.rootdev=; else powernode.rootdev= itself; else the file inside
# this initramfs; else the label powernode-root. What the command line says wins, so that a disk can be tried with any
# initramfs; the digest decides whether it is accepted.
powernode_find_store() {
    PN_MEDIUM_FILE=''
    powernode_cmdline_get powernode.rootfile
    case $? in
        0)
            powernode_check_path powernode.rootfile= "$PN_VALUE" || return
            PN_MEDIUM_FILE=$PN_VALUE
            ;;
        1) ;;
        *) return 2 ;;
    esac
    powernode_cmdline_get powernode.rootdev
    case $? in
        0)
            PN_STORE_KIND=device
            [ -z "$PN_MEDIUM_FILE" ] || PN_STORE_KIND=medium
            powernode_device powernode.rootdev= "$PN_VALUE" || return
            PN_STORE_SOURCE=$PN_VALUE
            return
            ;;
        1)
            if [ -n "$PN_MEDIUM_FILE" ]; then
                PN_REASON='powernode.rootfile= needs powernode.rootdev='
                return 2
            fi
            ;;
        *) return 2 ;;
    esac
    if [ -f "$PN_ROOT_FILE" ]; then
        PN_STORE_KIND=file
        PN_STORE_SOURCE=$PN_ROOT_FILE
        return 0
    fi
    PN_STORE_KIND=device
    powernode_device 'the label of the root' LABEL=powernode-root || {
        case $PN_REASON in
            *'is not there'*) PN_REASON="there is no root: no $PN_ROOT_FILE and no file system labelled powernode-root" ;;
        esac
        return 2
    }
    PN_STORE_SOURCE=$PN_VALUE
}

# powernode_mount_run: the tmpfs that holds the upper layer and everything that is mounted on the way. It must not be on dracut's /run:
# its size would be shared with everything else that lives there.
powernode_mount_run() {
    mkdir -p "$PN_RUN"
    if ! mount -t tmpfs -o mode=0755,nodev,nosuid,noexec,size=50% powernode "$PN_RUN"; then
        PN_REASON="the tmpfs on $PN_RUN cannot be mounted"
        return 1
    fi
    PN_STORE=$PN_RUN/store
    mkdir -p "$PN_STORE" "$PN_RUN/lower" "$PN_RUN/upper" "$PN_RUN/work" "$PN_RUN/modules" "$PN_RUN/exec"
    # The agent writes scripts of the platform there and starts them; nothing else below /run/powernode can be started.
    if ! mount -t tmpfs -o mode=0755,nodev,nosuid,size=16m powernode-exec "$PN_RUN/exec"; then
        PN_REASON="the tmpfs on $PN_RUN/exec cannot be mounted"
        return 1
    fi
}

# powernode_mount_medium: mount the device that holds the root as a file, read-only, on /run/powernode/medium, where it stays. What file
# system it has is tried, not guessed from its name: an ISO, a FAT stick, an ext4 disk.
powernode_mount_medium() {
    pn_medium=$PN_RUN/medium
    mkdir -p "$pn_medium"
    for pn_type in iso9660 vfat ext4; do
        if powernode_mount_foreign "$pn_type" ro "$1" "$pn_medium"; then
            powernode_file_on_medium "$PN_MEDIUM_FILE"
            return
        fi
    done
    PN_REASON="the medium cannot be mounted from $1 as iso9660, vfat or ext4"
    return 1
}

# powernode_file_on_medium PATH: PN_VALUE is that file below /run/powernode/medium. No part of its path may be a symbolic link, which
# could lead off the medium.
powernode_file_on_medium() {
    PN_VALUE=$PN_RUN/medium
    pn_rest=${1#/}/
    while [ -n "$pn_rest" ]; do
        PN_VALUE=$PN_VALUE/${pn_rest%%/*}
        pn_rest=${pn_rest#*/}
        if [ -h "$PN_VALUE" ]; then
            PN_REASON="$1 is a symbolic link on the medium"
            return 1
        fi
    done
    if [ ! -f "$PN_VALUE" ]; then
        PN_REASON="the medium holds no $1"
        return 1
    fi
}

# powernode_mount_store: mount the ext4 file system that holds image.cfs and objects/ read-only on PN_STORE. Nothing in it is trusted
# yet, and nothing is executed from it.
powernode_mount_store() {
    pn_source=$PN_STORE_SOURCE
    pn_shown=$PN_STORE_SOURCE
    case $PN_STORE_KIND in
        medium)
            powernode_mount_medium "$PN_STORE_SOURCE" || return
            pn_source=$PN_VALUE
            pn_shown="$PN_MEDIUM_FILE of $PN_STORE_SOURCE"
            ;;
    esac
    if [ "$PN_STORE_KIND" != device ]; then
        pn_file=$pn_source
        if ! pn_source=$(losetup --find --show --read-only "$pn_file" 2>/dev/null) || [ -z "$pn_source" ]; then
            PN_REASON="no loop device can be made of $pn_file"
            return 1
        fi
    fi
    if ! powernode_mount_foreign ext4 ro "$pn_source" "$PN_STORE"; then
        PN_REASON="the file system of the root cannot be mounted from $pn_shown"
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

# powernode_mount_root: mount the image as EROFS and stack the writable root on it. verity=require makes the kernel refuse every
# object whose digest is not the one in the image. Modules come later (powernode-stack.sh).
powernode_mount_root() {
    if ! mount -t erofs -o ro,nodev,nosuid,noexec "$PN_STORE/image.cfs" "$PN_RUN/lower" 2>/dev/null; then
        PN_REASON='image.cfs cannot be mounted as EROFS'
        return 1
    fi
    if ! mount -t overlay -o "lowerdir=$PN_RUN/lower::$PN_STORE/objects,upperdir=$PN_RUN/upper,workdir=$PN_RUN/work,metacopy=on,redirect_dir=on,verity=require" powernode "$PN_NEWROOT" 2>/dev/null; then
        PN_REASON='the overlay of the root cannot be mounted'
        return 1
    fi
}

# powernode_read_critical: read the files without which the node would hang or crash on its way to a usable state, so that damage
# to one of them is refused here, by name. The list is a file of the verified root: one path in each line. The build has made
# it, by following programs and units to what they need.
powernode_read_critical() {
    pn_patterns=''
    if ! pn_patterns=$(cat "$PN_NEWROOT/$PN_CRITICAL" 2>/dev/null); then
        # The first file that is read through the overlay: on a kernel whose verity=require does not work, this is where it shows.
        pn_kernel=$(cat "$PN_PROC/sys/kernel/osrelease" 2>/dev/null)
        PN_REASON="/$PN_CRITICAL of the root cannot be read: it is damaged, or verity=require of the kernel $pn_kernel does not work"
        return 1
    fi
    pn_text=$pn_patterns$PN_NL
    set --
    while [ -n "$pn_text" ]; do
        pn_path=${pn_text%%"$PN_NL"*}
        pn_text=${pn_text#*"$PN_NL"}
        case $pn_path in
            '' | '#'*) continue ;;
        esac
        set -- "$@" "$PN_NEWROOT/$pn_path"
    done
    if [ $# -eq 0 ]; then
        PN_REASON="/$PN_CRITICAL of the root names no file"
        return 1
    fi
    # All at once is one program; which file it was is looked for only when there is one.
    cat "$@" >/dev/null 2>&1 && return
    for pn_file in "$@"; do
        if ! cat "$pn_file" >/dev/null 2>&1; then
            PN_REASON="${pn_file#"$PN_NEWROOT"} of the root is damaged or missing"
            return 1
        fi
    done
    PN_REASON="a file of /$PN_CRITICAL could not be read, and then could"
    return 1
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
    powernode_mount_share "$pn_tag" "$PN_RUN/seed"
    case $? in
        0) return 0 ;;
        1) ;;
        *) return 2 ;;
    esac
    [ -n "$pn_wanted" ] || return 0
    PN_REASON="the host shares nothing with the mount tag '$pn_tag'"
    return 1
}
