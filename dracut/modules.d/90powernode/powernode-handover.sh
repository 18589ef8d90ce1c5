#!/bin/sh
# What the real root gets of the identity: /boot as the platform's agent reads it, and /run/powernode. Functions only, sourced after
# powernode-lib.sh and under its conventions.
#
# The agent reads /proc/cmdline, fw_cfg, /boot/identity.cfg, the metadata of clouds and /etc/identity.cfg, in this order, and takes the first
# that names an instance. So whatever source 90powernode has claimed from, the result is in /boot/identity.cfg, and the
# sources before that file are out of the agent's sight unless they are the claimed one:
#   /run/powernode/esp     the boot partition as it is
#   /run/powernode/boot    identity.cfg, powernode-ca.pem, and an empty place for each other entry of the boot partition
#   /boot                  the same directory, with the other entries of the partition bound on their places
# (FAT cannot be a layer of an overlay.)

# The directory where the boot partition is mounted; empty as long as it is not.
PN_ESP=''
# Entries of the boot partition that /boot shows, apart from the identity.
PN_BOOT_ENTRIES=64
PN_BOOT_FLAGS=ro,nosuid,nodev,noexec,nosymfollow

# powernode_mount_boot: PN_ESP is the boot partition, mounted read-only: powernode.bootdev=, or powernode-esp on the disk of the root (another
# disk of the machine may have one too), or the label POWERNODE. It stays mounted. Returns 1 when there is none.
powernode_mount_boot() {
    [ -z "$PN_ESP" ] || return 0
    powernode_cmdline_get powernode.bootdev
    case $? in
        0) powernode_device powernode.bootdev= "$PN_VALUE" || return 2 ;;
        1) powernode_boot_partition || return ;;
        *) return 2 ;;
    esac
    mkdir -p "$PN_RUN/esp"
    if ! timeout -s KILL "$PN_MOUNT_SECONDS" mount -t vfat -o "$PN_BOOT_FLAGS,umask=0077" "$PN_VALUE" "$PN_RUN/esp" 2>/dev/null; then
        PN_REASON="the boot partition $PN_VALUE cannot be mounted"
        return 2
    fi
    PN_ESP=$PN_RUN/esp
}

# powernode_boot_partition: PN_VALUE is the boot partition that nobody named. Returns 1 when there is none.
powernode_boot_partition() {
    if [ "$PN_STORE_KIND" = device ] && powernode_disk_of "$PN_STORE_SOURCE"; then
        powernode_partition powernode-esp
        case $? in
            0)
                PN_VALUE=$PN_DEV/$PN_VALUE
                return 0
                ;;
            1) ;;
            *) return 2 ;;
        esac
    fi
    PN_VALUE=$PN_BY_LABEL/POWERNODE
    [ -e "$PN_VALUE" ]
}

# powernode_hand_over: leave the identity for the real root, and the digest of the root in /run/powernode/root-digest.
powernode_hand_over() {
    if [ "$PN_SOURCE" = none ] && [ -n "$PN_UNCLAIMED" ]; then
        PN_SERVER=$PN_UNCLAIMED_SERVER
        PN_CA_PEM=$PN_UNCLAIMED_CA_PEM
    fi
    mkdir -p "$PN_RUN/boot"
    powernode_hand_over_files || return
    powernode_hand_over_boot || return
    powernode_hide_sources || return
    printf '%s\n' "$PN_DIGEST" >"$PN_RUN/root-digest"
}

# powernode_hand_over_files: the identity in both forms, readable by root alone, and the certificates. Without an identity and without a
# medium that waits for one, there is no /boot/identity.cfg, and the agent looks further.
powernode_hand_over_files() {
    pn_ca_file=''
    [ -z "$PN_CA_PEM$PN_CA_URL" ] || pn_ca_file=/boot/powernode-ca.pem
    PN_REASON="the identity cannot be written below $PN_RUN"
    if [ -n "$PN_CA_PEM" ]; then
        printf '%s\n' "$PN_CA_PEM" >"$PN_RUN/boot/powernode-ca.pem" || return 1
    fi
    if [ -n "$PN_CA_URL" ]; then
        # For fetch-ca of the root: the address, and the digest of the file or an empty line.
        printf '%s\n%s\n' "$PN_CA_URL" "$PN_CA_SHA256" >"$PN_RUN/ca-url" || return 1
    fi
    (
        umask 077
        {
            printf '# Written by the initramfs.\n'
            printf 'SOURCE=%s\n' "$PN_SOURCE"
            for pn_pair in "ID=$PN_ID" "KEY=$PN_KEY" "SERVER=$PN_SERVER" "CA_PEM_FILE=$pn_ca_file" \
                "CA_URL=$PN_CA_URL" "NAME=$PN_NAME" "AGENT_URL=$PN_AGENT_URL"; do
                [ -z "${pn_pair#*=}" ] || printf "%s='%s'\n" "${pn_pair%%=*}" "${pn_pair#*=}"
            done
        } >"$PN_RUN/identity"
    ) || return 1
    if [ "$PN_SOURCE" != none ] || [ -n "$PN_UNCLAIMED" ]; then
        # The agent's reader of this file takes a value as it stands: without quotes.
        (
            umask 077
            {
                printf '# Written by the initramfs (90powernode). The source of the identity: %s\n' "$PN_SOURCE"
                printf 'ID=%s\nKEY=%s\nSERVER=%s\nCA_PEM_FILE=%s\n' "$PN_ID" "$PN_KEY" "$PN_SERVER" "$pn_ca_file"
            } >"$PN_RUN/boot/identity.cfg"
        ) || return 1
    fi
    PN_REASON=''
}

# powernode_hand_over_boot: /boot of the root.
powernode_hand_over_boot() {
    powernode_mount_boot
    case $? in
        0 | 1) ;;
        *)
            # The identity came from elsewhere: nothing that the node needs is on this partition.
            powernode_tell "powernode: boot: /boot is without the boot partition: $PN_REASON"
            ;;
    esac
    mkdir -p "$PN_NEWROOT/boot"
    if ! mount --bind "$PN_RUN/boot" "$PN_NEWROOT/boot" 2>/dev/null; then
        PN_REASON='/boot of the root cannot be mounted'
        return 1
    fi
    [ -z "$PN_ESP" ] || powernode_bind_entries || return
    if ! mount -o "remount,bind,$PN_BOOT_FLAGS" "$PN_NEWROOT/boot" 2>/dev/null; then
        PN_REASON='/boot of the root cannot be made read-only'
        return 1
    fi
}

# powernode_bind_entries: bind the entries of the boot partition on /boot. They keep the flags of its mount. What has another name than a
# plain one, and what is neither a file nor a directory, is left out.
powernode_bind_entries() {
    pn_bound=0
    pn_left=0
    for pn_path in "$PN_ESP"/*; do
        pn_entry=${pn_path##*/}
        # FAT does not tell capitals from small letters.
        case $(printf '%s' "$pn_entry" | tr '[:upper:]' '[:lower:]') in
            identity.cfg | powernode-ca.pem | '*') continue ;;
            *[!a-z0-9._+-]*)
                pn_left=$((pn_left + 1))
                continue
                ;;
        esac
        if [ "$pn_bound" -ge "$PN_BOOT_ENTRIES" ] || [ -h "$pn_path" ]; then
            pn_left=$((pn_left + 1))
            continue
        fi
        if [ -d "$pn_path" ]; then
            mkdir -p "$PN_RUN/boot/$pn_entry"
        elif [ -f "$pn_path" ]; then
            : >"$PN_RUN/boot/$pn_entry"
        else
            pn_left=$((pn_left + 1))
            continue
        fi
        if ! mount --bind "$pn_path" "$PN_NEWROOT/boot/$pn_entry" 2>/dev/null; then
            PN_REASON="$pn_entry of the boot partition cannot be bound on /boot"
            return 1
        fi
        pn_bound=$((pn_bound + 1))
    done
    [ "$pn_left" -eq 0 ] || powernode_tell "powernode: boot: /boot leaves out $pn_left entries of the boot partition"
}

# powernode_hide_sources: the agent asks the command line and fw_cfg before /boot/identity.cfg, and takes an instance there without looking
# for the rest elsewhere. So it must not see an instance in a source that was not claimed, and none on the command line: that
# has no place for certificates in the form that the agent needs. This also keeps the bootstrap token out of /proc/cmdline.
powernode_hide_sources() {
    pn_words=''
    [ ! -r "$PN_CMDLINE" ] || pn_words=$(cat "$PN_CMDLINE")
    pn_kept=''
    pn_hidden=''
    pn_pem=''
    pn_word=''
    set -f
    for pn_part in $pn_words; do
        pn_word=${pn_word:+$pn_word }$pn_part
        powernode_quotes_open "$pn_word" && continue
        powernode_keep_word "$pn_word"
        pn_word=''
    done
    set +f
    [ -z "$pn_word" ] || powernode_keep_word "$pn_word"
    if [ -n "$pn_hidden" ]; then
        printf '%s\n' "$pn_kept" >"$PN_RUN/cmdline"
        if ! mount --bind "$PN_RUN/cmdline" "$PN_CMDLINE" 2>/dev/null \
            || ! mount -o "remount,bind,$PN_BOOT_FLAGS" "$PN_CMDLINE" 2>/dev/null; then
            PN_REASON='the identity on the kernel command line cannot be hidden'
            return 1
        fi
    fi
    [ "$PN_SOURCE" != fw_cfg ] && [ -f "$PN_FW_CFG/instance_uuid/raw" ] || return 0
    : >"$PN_RUN/nothing"
    if ! mount --bind "$PN_RUN/nothing" "$PN_FW_CFG/instance_uuid/raw" 2>/dev/null; then
        PN_REASON='the identity in fw_cfg, which was not claimed, cannot be hidden'
        return 1
    fi
}

# powernode_keep_word WORD: add WORD to pn_kept, or set pn_hidden when it is a part of an identity. A certificate without quotes is several
# words, up to `-----END CERTIFICATE-----` without another `-----BEGIN` behind it.
powernode_keep_word() {
    if [ -n "$pn_pem" ]; then
        case $pn_pem:$1 in
            tail:CERTIFICATE-----) pn_pem='' ;;
            *-----END) pn_pem=tail ;;
            *) pn_pem=body ;;
        esac
        return 0
    fi
    case $1 in
        powernode.ca=-----BEGIN | powernode.ca_pem=-----BEGIN)
            pn_pem=body
            pn_hidden=1
            return 0
            ;;
    esac
    case ${1#\"} in
        powernode.instance_uuid=* | powernode.bootstrap_token=* | powernode.platform_url=* | powernode.ca=* | powernode.ca_pem=* \
            | powernode.ca_url=* | powernode.ca_sha256=*)
            pn_hidden=1
            ;;
        *) pn_kept=${pn_kept:+$pn_kept }$1 ;;
    esac
}
