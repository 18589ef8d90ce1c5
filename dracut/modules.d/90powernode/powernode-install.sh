#!/bin/sh
# The installer: powernode.install=<disk> on the command line of the ISO writes a whole disk image to that disk and switches the machine off.
# Functions only, sourced after powernode-persist.sh and under powernode-lib.sh's conventions.
#
# The image is not on the medium as one file; a plan beside the root says which parts it is made of:
#
#   powernode-install 1
#   size <bytes>
#   sector-size 4096            (only in the plan of a disk with such sectors; others have 512)
#   <offset> <length> <sha256> <path>
#   <offset> <length> <sha256> zero
#
# One line for each extent, in order, without gaps, from 0 to the size. A path is relative to the directory of the root's file; `zero`
# is zeros. Everything begins and ends at whole sectors, but for the end of a file, after which zeros fill the sector. All that
# can be found wrong is found before the first byte is written.
#
# The plan is believed as far as the medium is: its digests say that what was written is what the medium holds, not who
# made it. The root is judged by the digest in the initramfs, before and after, as on every boot.

# The target as the command line names it, as a device, and its size in bytes; the plan, the size and the sectors it is for.
PN_TARGET='' PN_TARGET_DEVICE='' PN_TARGET_SIZE=0 PN_PLAN='' PN_PLAN_SIZE=0 PN_PLAN_SECTOR=512
# Bytes that are read or written at once, between two looks at the progress.
PN_STRIDE=67108864
PN_BLOCK_SIZE=1048576

# powernode_install_asked: PN_TARGET is the disk of powernode.install=, or empty. Asking takes two words, so that no single typing error
# erases a disk.
powernode_install_asked() {
    PN_TARGET=''
    powernode_cmdline_get powernode.install
    case $? in
        0) pn_target=$PN_VALUE ;;
        1) return 0 ;;
        *) return 2 ;;
    esac
    case $pn_target in
        /dev/?*) powernode_check_path powernode.install= "$pn_target" || return ;;
        *)
            PN_REASON="powernode.install= is not a device below /dev: '$pn_target'"
            return 2
            ;;
    esac
    powernode_cmdline_get powernode.install.confirm
    case $?:$PN_VALUE in
        0:yes) ;;
        2:*) return 2 ;;
        *)
            PN_REASON="powernode.install=$pn_target needs powernode.install.confirm=yes"
            return 2
            ;;
    esac
    powernode_cmdline_get powernode.rootfile
    case $? in
        0) ;;
        1)
            PN_REASON='powernode.install= needs a medium: powernode.rootfile= is missing'
            return 2
            ;;
        *) return 2 ;;
    esac
    PN_TARGET=$pn_target
}

# powernode_install: do it, if it was asked for; then switch the machine off. Runs with the medium mounted and the image on it verified.
powernode_install() {
    [ -n "$PN_TARGET" ] || return 0
    powernode_read_plan || return
    powernode_check_target || return
    powernode_say "powernode: installing: $PN_TARGET ($((PN_PLAN_SIZE / 1048576)) MiB) root=$PN_DIGEST"
    powernode_write_disk || return
    powernode_say "powernode: installed: $PN_TARGET root=$PN_DIGEST"
    powernode_power_off
}

# ---------------------------------------------------------------------------------------------------------------- the plan

# powernode_read_plan: PN_PLAN is the checked plan, one extent in each line as `<offset> <length> <sha256> <file or zero>`, with the files' full
# paths; PN_PLAN_SIZE is the size of the image.
powernode_read_plan() {
    pn_base=${PN_MEDIUM_FILE%/*}
    powernode_file_on_medium "$pn_base/install/plan" || return
    PN_REASON='the install plan cannot be read'
    powernode_read "$PN_VALUE" 65536 || return 2
    powernode_parse_plan "$PN_VALUE" || return
    powernode_check_plan_files "$pn_base"
}

# powernode_parse_plan TEXT: PN_PLAN, PN_PLAN_SIZE and PN_PLAN_SECTOR from the text of a plan; paths stay as they are.
powernode_parse_plan() {
    PN_PLAN='' PN_PLAN_SIZE=0 PN_PLAN_SECTOR=512
    pn_text=$1$PN_NL
    PN_REASON='the install plan does not begin with powernode-install 1'
    [ "${pn_text%%"$PN_NL"*}" = 'powernode-install 1' ] || return 2
    pn_text=${pn_text#*"$PN_NL"}
    PN_REASON='line 2 of the install plan is not size <bytes>, a multiple of 512'
    pn_line=${pn_text%%"$PN_NL"*}
    case $pn_line in
        'size '*) ;;
        *) return 2 ;;
    esac
    pn_whole=${pn_line#size }
    powernode_is_count "$pn_whole" && [ "$pn_whole" -gt 0 ] && [ $((pn_whole % 512)) -eq 0 ] || return 2
    pn_text=${pn_text#*"$PN_NL"}
    pn_number=2
    case ${pn_text%%"$PN_NL"*} in
        sector-size*)
            PN_REASON='line 3 of the install plan is not sector-size 4096'
            [ "${pn_text%%"$PN_NL"*}" = 'sector-size 4096' ] || return 2
            PN_REASON="the size $pn_whole of the install plan is not of whole sectors of 4096 bytes"
            [ $((pn_whole % 4096)) -eq 0 ] || return 2
            PN_PLAN_SECTOR=4096
            pn_text=${pn_text#*"$PN_NL"}
            pn_number=3
            ;;
    esac
    pn_at=0
    pn_plan=''
    pn_has_root=''
    while [ -n "$pn_text" ]; do
        pn_line=${pn_text%%"$PN_NL"*}
        pn_text=${pn_text#*"$PN_NL"}
        pn_number=$((pn_number + 1))
        powernode_parse_extent "$pn_line" || {
            PN_REASON="line $pn_number of the install plan $PN_REASON"
            return 2
        }
        pn_plan=$pn_plan$pn_line$PN_NL
        [ "$pn_path" != "${PN_MEDIUM_FILE##*/}" ] || pn_has_root=1
    done
    if [ "$pn_at" -ne "$pn_whole" ]; then
        PN_REASON="the install plan ends at $pn_at, not at its size $pn_whole"
        return 2
    fi
    if [ -z "$pn_has_root" ]; then
        PN_REASON="the install plan does not write the root, ${PN_MEDIUM_FILE##*/}"
        return 2
    fi
    PN_REASON=''
    PN_PLAN=$pn_plan
    PN_PLAN_SIZE=$pn_whole
}

# powernode_parse_extent LINE: the next extent, which must begin at pn_at; moves pn_at to its end and leaves its path in pn_path. PN_REASON
# is how the line goes on.
powernode_parse_extent() {
    pn_offset=${1%% *}
    pn_rest=${1#* }
    pn_length=${pn_rest%% *}
    pn_rest=${pn_rest#* }
    pn_sum=${pn_rest%% *}
    pn_path=${pn_rest#* }
    PN_REASON='is not <offset> <length> <sha256> <path>'
    [ "$1" = "$pn_offset $pn_length $pn_sum $pn_path" ] || return 2
    powernode_is_count "$pn_offset" && powernode_is_count "$pn_length" && powernode_is_hex64 "$pn_sum" || return 2
    powernode_check_path x "/$pn_path" || {
        PN_REASON='is not <offset> <length> <sha256> <path>'
        return 2
    }
    PN_REASON="begins at $pn_offset, not at $pn_at"
    [ "$pn_offset" -eq "$pn_at" ] || return 2
    PN_REASON='is empty'
    [ "$pn_length" -gt 0 ] || return 2
    pn_at=$((pn_at + pn_length))
    PN_REASON="goes on to $pn_at, beyond the size"
    [ "$pn_at" -le "$pn_whole" ] || return 2
    case $pn_path in
        zero)
            PN_REASON="ends at $pn_at, inside a sector"
            [ $((pn_at % PN_PLAN_SECTOR)) -eq 0 ] || return 2
            ;;
        *)
            PN_REASON="begins at $pn_offset, inside a sector"
            [ $((pn_offset % PN_PLAN_SECTOR)) -eq 0 ] || return 2
            ;;
    esac
    PN_REASON=''
}

# powernode_check_plan_files DIRECTORY: every file of the plan is on the medium, below that directory, and has the length of its extent.
# Turns the paths of PN_PLAN into paths of this system.
powernode_check_plan_files() {
    pn_text=$PN_PLAN
    pn_plan=''
    while [ -n "$pn_text" ]; do
        pn_line=${pn_text%%"$PN_NL"*}
        pn_text=${pn_text#*"$PN_NL"}
        pn_path=${pn_line##* }
        pn_front=${pn_line% *}
        if [ "$pn_path" != zero ]; then
            powernode_file_on_medium "$1/$pn_path" || return
            pn_length=${pn_front#* }
            pn_length=${pn_length%% *}
            pn_size=$(wc -c <"$PN_VALUE") || pn_size=0
            if [ "$pn_size" -ne "$pn_length" ]; then
                PN_REASON="$1/$pn_path of the medium has $((pn_size)) bytes, the install plan says $pn_length"
                return 2
            fi
            pn_path=$PN_VALUE
        fi
        pn_plan="$pn_plan$pn_front $pn_path$PN_NL"
    done
    PN_PLAN=$pn_plan
}

# -------------------------------------------------------------------------------------------------------------- the target

# powernode_check_target: PN_TARGET_DEVICE is the target, if it is a whole disk that nobody uses and that holds the image.
powernode_check_target() {
    powernode_device powernode.install= "$PN_TARGET" || return
    pn_found=$(readlink -f "$PN_VALUE")
    pn_disk=${pn_found##*/}
    pn_sys=$PN_SYS/class/block/$pn_disk
    if [ -f "$pn_sys/partition" ]; then
        PN_REASON="powernode.install=$PN_TARGET is a partition, not a whole disk"
        return 2
    fi
    # Loop devices, RAM disks and what is put together from other devices have no hardware behind them.
    if [ ! -e "$pn_sys/device" ]; then
        PN_REASON="powernode.install=$PN_TARGET is not a disk"
        return 2
    fi
    # The medium may be a partition of the disk (a USB stick) or the disk itself.
    pn_medium=$(readlink -f "$PN_STORE_SOURCE")
    powernode_disk_of "$PN_STORE_SOURCE" || PN_DISK=${pn_medium##*/}
    if [ "$PN_DISK" = "$pn_disk" ]; then
        PN_REASON="powernode.install=$PN_TARGET is the medium itself"
        return 2
    fi
    powernode_check_unused "$pn_disk" || return
    for pn_dir in "$pn_sys"/*/; do
        [ ! -f "$pn_dir/partition" ] || {
            pn_dir=${pn_dir%/}
            powernode_check_unused "${pn_dir##*/}" || return
        }
    done
    powernode_number "$pn_sys/ro" || return
    if [ "$PN_VALUE" -ne 0 ]; then
        PN_REASON="powernode.install=$PN_TARGET is read-only"
        return 2
    fi
    powernode_number "$pn_sys/queue/logical_block_size" || return
    if [ "$PN_VALUE" -ne "$PN_PLAN_SECTOR" ]; then
        PN_REASON="powernode.install=$PN_TARGET has sectors of $PN_VALUE bytes, and the image is for sectors of $PN_PLAN_SECTOR"
        return 2
    fi
    powernode_number "$pn_sys/size" || return
    PN_TARGET_SIZE=$((PN_VALUE * 512))
    if [ "$PN_TARGET_SIZE" -lt "$PN_PLAN_SIZE" ]; then
        PN_REASON="powernode.install=$PN_TARGET has $PN_TARGET_SIZE bytes, the image needs $PN_PLAN_SIZE"
        return 2
    fi
    PN_TARGET_DEVICE=$PN_DEV/$pn_disk
}

# powernode_check_unused NAME: that disk or partition is not mounted, not swap and not part of another device.
powernode_check_unused() {
    for pn_holder in "$PN_SYS/class/block/$1/holders"/*; do
        if [ -e "$pn_holder" ] || [ -h "$pn_holder" ]; then
            PN_REASON="powernode.install=$PN_TARGET is in use: $1 is part of ${pn_holder##*/}"
            return 2
        fi
    done
    pn_dev=''
    [ ! -r "$PN_SYS/class/block/$1/dev" ] || pn_dev=$(cat "$PN_SYS/class/block/$1/dev")
    case $pn_dev in
        [0-9]*:[0-9]*) ;;
        *)
            PN_REASON="$PN_SYS/class/block/$1/dev holds no device number"
            return 2
            ;;
    esac
    # The third field is the device of the mounted file system.
    pn_list=$PN_NL$(cut -d ' ' -f 3 "$PN_PROC/self/mountinfo")$PN_NL
    case $pn_list in
        *"$PN_NL$pn_dev$PN_NL"*)
            PN_REASON="powernode.install=$PN_TARGET is in use: $1 is mounted"
            return 2
            ;;
    esac
    pn_list=$PN_NL
    [ ! -r "$PN_PROC/swaps" ] || pn_list=$PN_NL$(sed 's/[[:space:]].*//' "$PN_PROC/swaps")$PN_NL
    case $pn_list in
        *"$PN_NL/dev/$1$PN_NL"*)
            PN_REASON="powernode.install=$PN_TARGET is in use: $1 is swap"
            return 2
            ;;
    esac
}

# ----------------------------------------------------------------------------------------------------------------- writing

# powernode_write_disk: write the plan, read it back, and only then write the first extent, which has the partition table and the boot
# code: what was cut off half way does not start, neither as this system nor as the one that was there before.
powernode_write_disk() {
    powernode_each_extent powernode_check_extent rest checking || return
    powernode_each_extent powernode_check_extent first checking || return
    powernode_wipe || return
    powernode_each_extent powernode_write_extent rest writing || return
    powernode_flush || return
    powernode_each_extent powernode_verify_extent rest verifying || return
    powernode_each_extent powernode_write_extent first writing || return
    powernode_flush || return
    powernode_each_extent powernode_verify_extent first verifying || {
        pn_reason=$PN_REASON
        powernode_wipe
        PN_REASON=$pn_reason
        return 1
    }
}

# powernode_check_extent OFFSET LENGTH SHA256 SOURCE: what the medium has for one extent is what the plan says; nothing is written yet.
powernode_check_extent() {
    [ "$4" != zero ] || return 0
    pn_read=$(sha256sum <"$4")
    if [ "${pn_read%% *}" != "$3" ]; then
        PN_REASON="the medium is damaged: ${4##*/} differs from the install plan"
        return 1
    fi
}

# powernode_wipe: clear the first MiB of the disk and the last one, where the old partition table and its backup are.
powernode_wipe() {
    pn_wipe=$PN_BLOCK_SIZE
    [ "$PN_TARGET_SIZE" -ge "$pn_wipe" ] || pn_wipe=$PN_TARGET_SIZE
    if ! powernode_copy /dev/zero 0 0 "$pn_wipe" \
        || ! powernode_copy /dev/zero 0 $((PN_TARGET_SIZE - pn_wipe)) "$pn_wipe"; then
        PN_REASON="$PN_TARGET cannot be written"
        return 1
    fi
    powernode_flush
}

# powernode_copy FILE FROM TO LENGTH: copy bytes of FILE to the target, at any offset. A disk that was unplugged must not become a
# file in its place.
powernode_copy() {
    test "$PN_IS_BLOCK" "$PN_TARGET_DEVICE" && dd if="$1" of="$PN_TARGET_DEVICE" bs="$PN_BLOCK_SIZE" skip="$2" seek="$3" count="$4" \
        iflag=skip_bytes,count_bytes,fullblock oflag=seek_bytes conv=notrunc 2>/dev/null
}

# powernode_flush: bring everything to the disk and forget it, so that reading back asks the disk.
powernode_flush() {
    if ! sync "$PN_TARGET_DEVICE" || ! blockdev --flushbufs "$PN_TARGET_DEVICE"; then
        PN_REASON="$PN_TARGET cannot be written: the data did not reach the disk"
        return 1
    fi
}

# powernode_each_extent COMMAND PART WHAT: call COMMAND OFFSET LENGTH SHA256 SOURCE for the extent at offset 0 (PART is `first`) or for all
# others (`rest`). WHAT is for the progress.
powernode_each_extent() {
    pn_what=$3
    pn_text=$PN_PLAN
    while [ -n "$pn_text" ]; do
        pn_line=${pn_text%%"$PN_NL"*}
        pn_text=${pn_text#*"$PN_NL"}
        pn_source=${pn_line##* }
        pn_sum=${pn_line% *}
        pn_sum=${pn_sum##* }
        pn_offset=${pn_line%% *}
        pn_length=${pn_line#* }
        pn_length=${pn_length%% *}
        case $2:$pn_offset in
            first:0 | rest:[1-9]*) "$1" "$pn_offset" "$pn_length" "$pn_sum" "$pn_source" || return ;;
        esac
    done
}

# powernode_progress FROM TO: say how far it is, when a fifth of the image ends between these two offsets.
powernode_progress() {
    [ $(($1 * 5 / PN_PLAN_SIZE)) -eq $(($2 * 5 / PN_PLAN_SIZE)) ] \
        || powernode_tell "powernode: installing: $pn_what, $(($2 * 100 / PN_PLAN_SIZE)) %"
}

# powernode_write_extent OFFSET LENGTH SHA256 SOURCE: write one extent.
powernode_write_extent() {
    pn_from=$4
    [ "$4" != zero ] || pn_from=/dev/zero
    pn_done=0
    while [ "$pn_done" -lt "$2" ]; do
        pn_now=$(($2 - pn_done))
        [ "$pn_now" -le "$PN_STRIDE" ] || pn_now=$PN_STRIDE
        pn_skip=$pn_done
        [ "$4" != zero ] || pn_skip=0
        if ! powernode_copy "$pn_from" "$pn_skip" $(($1 + pn_done)) "$pn_now"; then
            PN_REASON="$PN_TARGET cannot be written at $(($1 + pn_done))"
            return 1
        fi
        powernode_progress $(($1 + pn_done)) $(($1 + pn_done + pn_now))
        pn_done=$((pn_done + pn_now))
    done
}

# powernode_verify_extent OFFSET LENGTH SHA256 SOURCE: read one extent back and compare it with the plan.
powernode_verify_extent() {
    pn_read=$(powernode_read_back "$1" "$2" | sha256sum)
    if [ "${pn_read%% *}" != "$3" ]; then
        PN_REASON="$PN_TARGET differs from the install plan at $1 after writing"
        return 1
    fi
}

# powernode_read_back OFFSET LENGTH: bytes of the target, on standard output. It ends early when the disk cannot be read.
powernode_read_back() {
    pn_done=0
    while [ "$pn_done" -lt "$2" ]; do
        pn_now=$(($2 - pn_done))
        [ "$pn_now" -le "$PN_STRIDE" ] || pn_now=$PN_STRIDE
        dd if="$PN_TARGET_DEVICE" bs="$PN_BLOCK_SIZE" skip=$(($1 + pn_done)) count="$pn_now" \
            iflag=skip_bytes,count_bytes,fullblock 2>/dev/null || return
        powernode_progress $(($1 + pn_done)) $(($1 + pn_done + pn_now))
        pn_done=$((pn_done + pn_now))
    done
}
