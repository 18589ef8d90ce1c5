#!/bin/sh
# Who this node is: the sources an identity may come from, their readers, and the hand-over to the real root. Functions
# only, sourced after powernode-lib.sh and under its conventions.

# The places an identity may come from; the first that has one wins. A new place is a new word here and a function
# powernode_claim_<word> below, which returns 0 (claimed), 1 (nothing there) or 2 (there, but wrong: PN_REASON).
# The early ones are asked before the root is mounted, the late ones read files of the verified root.
PN_SOURCES_EARLY='cmdline fw_cfg boot_file'
PN_SOURCES_LATE='root_file local_id'

# The claimed identity. PN_SOURCE is `none` until something was claimed.
PN_SOURCE=none
PN_ID='' PN_KEY='' PN_SERVER='' PN_NAME='' PN_AGENT_URL='' PN_CA_URL='' PN_CA_PEM='' PN_CA_PEM_FILE=''

# powernode_claim SOURCES: ask each source in order until one has an identity. A source that has one which is wrong stops the boot:
# going on to the next would start the node under another name.
powernode_claim() {
    [ "$PN_SOURCE" = none ] || return 0
    for pn_source in $1; do
        "powernode_claim_$pn_source"
        case $? in
            0)
                PN_SOURCE=$pn_source
                return 0
                ;;
            1) ;;
            *) return 2 ;;
        esac
    done
    return 0
}

powernode_claim_early() { powernode_claim "$PN_SOURCES_EARLY"; }
powernode_claim_late() { powernode_claim "$PN_SOURCES_LATE"; }

# powernode_optional STATUS: 0 and 1 (found, absent) are fine, anything else is an error.
powernode_optional() { [ "$1" -le 1 ]; }

# From the kernel command line: powernode.instance_uuid=, and with it bootstrap_token=, platform_url=, ca_url= and ca= (a PEM
# certificate in base64, because the command line has no newlines).
powernode_claim_cmdline() {
    powernode_cmdline_get powernode.instance_uuid || return
    powernode_check_uuid 'powernode.instance_uuid=' "$PN_VALUE" || return
    PN_ID=$PN_VALUE
    for pn_name in bootstrap_token platform_url ca_url ca; do
        powernode_cmdline_get "powernode.$pn_name"
        case $? in
            0) ;;
            1) continue ;;
            *) return 2 ;;
        esac
        case $pn_name in
            bootstrap_token)
                powernode_check_word powernode.bootstrap_token= "$PN_VALUE" || return
                PN_KEY=$PN_VALUE
                ;;
            platform_url)
                powernode_check_url powernode.platform_url= "$PN_VALUE" || return
                PN_SERVER=$PN_VALUE
                ;;
            ca_url)
                powernode_check_url powernode.ca_url= "$PN_VALUE" || return
                PN_CA_URL=$PN_VALUE
                ;;
            ca)
                case $PN_VALUE in
                    '' | *[!A-Za-z0-9+/=]*)
                        PN_REASON='powernode.ca= is not base64'
                        return 2
                        ;;
                esac
                if [ "${#PN_VALUE}" -gt 4096 ]; then
                    PN_REASON="powernode.ca= is ${#PN_VALUE} characters long, more than 4096"
                    return 2
                fi
                if ! pn_pem=$(printf '%s' "$PN_VALUE" | base64 -d 2>/dev/null); then
                    PN_REASON='powernode.ca= is not base64'
                    return 2
                fi
                powernode_check_pem powernode.ca= "$pn_pem" || return
                PN_CA_PEM=$pn_pem
                ;;
        esac
    done
    return 0
}

# From QEMU's fw_cfg, opt/com.powernode/<name>.
powernode_claim_fw_cfg() {
    powernode_read_line "$PN_FW_CFG/instance_uuid/raw" 256 || return
    powernode_check_uuid 'fw_cfg instance_uuid' "$PN_VALUE" || return
    PN_ID=$PN_VALUE
    for pn_name in bootstrap_token platform_url instance_name agent_url; do
        powernode_read_line "$PN_FW_CFG/$pn_name/raw" 1024
        case $? in
            0) [ -n "$PN_VALUE" ] || continue ;;
            1) continue ;;
            *) return 2 ;;
        esac
        case $pn_name in
            bootstrap_token)
                powernode_check_word 'fw_cfg bootstrap_token' "$PN_VALUE" || return
                PN_KEY=$PN_VALUE
                ;;
            platform_url)
                powernode_check_url 'fw_cfg platform_url' "$PN_VALUE" || return
                PN_SERVER=$PN_VALUE
                ;;
            instance_name)
                powernode_check_plain 'fw_cfg instance_name' "$PN_VALUE" || return
                PN_NAME=$PN_VALUE
                ;;
            agent_url)
                powernode_check_url 'fw_cfg agent_url' "$PN_VALUE" || return
                PN_AGENT_URL=$PN_VALUE
                ;;
        esac
    done
    powernode_read "$PN_FW_CFG/ca_pem/raw" 65536
    case $? in
        0)
            [ -n "$PN_VALUE" ] || return 0
            powernode_check_pem 'fw_cfg ca_pem' "$PN_VALUE" || return
            PN_CA_PEM=$PN_VALUE
            ;;
        1) ;;
        *) return 2 ;;
    esac
}

# powernode_parse_identity FILE: read KEY=value lines into PN_F_ID, PN_F_KEY, PN_F_SERVER and PN_F_CA_PEM_FILE. Comments and blank
# lines are skipped, `export ` and one pair of quotes are taken off, other keys are ignored. Nothing is expanded.
# Returns 1 when there is no such file, 2 when a line is not KEY=value, a key is there twice or a value is not plain.
powernode_parse_identity() {
    PN_F_ID='' PN_F_KEY='' PN_F_SERVER='' PN_F_CA_PEM_FILE=''
    powernode_read "$1" 65536 || return
    pn_cr=$(printf '\r')
    pn_tab=$(printf '\t')
    pn_seen=' '
    pn_number=0
    pn_text=$PN_VALUE$PN_NL
    while [ -n "$pn_text" ]; do
        pn_line=${pn_text%%"$PN_NL"*}
        pn_text=${pn_text#*"$PN_NL"}
        pn_number=$((pn_number + 1))
        [ "$pn_number" -le 1000 ] || {
            PN_REASON="$1 has more than 1000 lines"
            return 2
        }
        pn_line=${pn_line%"$pn_cr"}
        # Spaces and tabs around the line.
        while :; do
            case $pn_line in
                ' '* | "$pn_tab"*) pn_line=${pn_line#?} ;;
                *' ' | *"$pn_tab") pn_line=${pn_line%?} ;;
                *) break ;;
            esac
        done
        case $pn_line in
            '' | '#'*) continue ;;
            'export '*) pn_line=${pn_line#export } ;;
        esac
        pn_key=${pn_line%%=*}
        case $pn_line in
            *=*) ;;
            *) pn_key='' ;;
        esac
        case $pn_key in
            '' | [0-9]* | *[!A-Za-z0-9_]*)
                PN_REASON="$1 line $pn_number is not KEY=value"
                return 2
                ;;
        esac
        pn_value=${pn_line#*=}
        case $pn_value in
            \"*\" | \'*\')
                if [ "${#pn_value}" -ge 2 ]; then
                    pn_value=${pn_value#?}
                    pn_value=${pn_value%?}
                fi
                ;;
        esac
        case $pn_key in
            ID | KEY | SERVER | CA_PEM_FILE) ;;
            *) continue ;;
        esac
        case $pn_seen in
            *" $pn_key "*)
                PN_REASON="$1 line $pn_number sets $pn_key again"
                return 2
                ;;
        esac
        pn_seen="$pn_seen$pn_key "
        powernode_check_plain "$1 line $pn_number: $pn_key" "$pn_value" || return
        case $pn_key in
            ID) PN_F_ID=$pn_value ;;
            KEY) PN_F_KEY=$pn_value ;;
            SERVER) PN_F_SERVER=$pn_value ;;
            CA_PEM_FILE) PN_F_CA_PEM_FILE=$pn_value ;;
        esac
    done
}

# powernode_claim_identity_file FILE: take what FILE says. An empty ID is a medium that nobody has claimed yet: that is no identity,
# but its SERVER is kept, so that the agent knows where to ask.
powernode_claim_identity_file() {
    powernode_parse_identity "$1" || return
    if [ -n "$PN_F_SERVER" ]; then
        powernode_check_url "$1: SERVER" "$PN_F_SERVER" || return
        PN_SERVER=$PN_F_SERVER
    fi
    [ -n "$PN_F_ID" ] || return 1
    powernode_check_uuid "$1: ID" "$PN_F_ID" || return
    PN_ID=$PN_VALUE
    if [ -n "$PN_F_KEY" ]; then
        powernode_check_word "$1: KEY" "$PN_F_KEY" || return
        PN_KEY=$PN_F_KEY
    fi
}

# From identity.cfg on the boot FAT partition, when there is such a partition: powernode.bootdev=, or powernode-esp on the disk of the
# root (another disk of the machine may have one too), or the label POWERNODE. The certificate is a file beside it, whatever
# directory CA_PEM_FILE names.
powernode_claim_boot_file() {
    powernode_cmdline_get powernode.bootdev
    case $? in
        0)
            powernode_device powernode.bootdev= "$PN_VALUE" || return 2
            ;;
        1) powernode_boot_partition || return ;;
        *) return 2 ;;
    esac
    mkdir -p "$PN_RUN/boot"
    if ! mount -t vfat -o ro,nodev,nosuid,noexec "$PN_VALUE" "$PN_RUN/boot" 2>/dev/null; then
        PN_REASON="the boot partition $PN_VALUE cannot be mounted"
        return 2
    fi
    powernode_claim_boot_directory "$PN_RUN/boot"
    pn_status=$?
    umount "$PN_RUN/boot"
    return "$pn_status"
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

# powernode_claim_boot_directory DIR: the part of powernode_claim_boot_file that reads.
powernode_claim_boot_directory() {
    powernode_claim_identity_file "$1/identity.cfg"
    pn_claimed=$?
    powernode_optional "$pn_claimed" || return 2
    if [ -n "$PN_F_CA_PEM_FILE" ]; then
        powernode_read "$1/${PN_F_CA_PEM_FILE##*/}" 65536
        case $? in
            0) ;;
            1)
                PN_REASON="identity.cfg names ${PN_F_CA_PEM_FILE##*/}, which is not beside it"
                return 2
                ;;
            *) return 2 ;;
        esac
        powernode_check_pem "${PN_F_CA_PEM_FILE##*/}" "$PN_VALUE" || return
        PN_CA_PEM=$PN_VALUE
    fi
    return "$pn_claimed"
}

# From /etc/identity.cfg of the root. CA_PEM_FILE is a path in that root and is handed on as it is.
powernode_claim_root_file() {
    powernode_claim_identity_file "$PN_NEWROOT/etc/identity.cfg" || return
    PN_CA_PEM_FILE=$PN_F_CA_PEM_FILE
}

# From /etc/powernode/local-id of the root: a bare UUID.
powernode_claim_local_id() {
    powernode_read_line "$PN_NEWROOT/etc/powernode/local-id" 256 || return
    [ -n "$PN_VALUE" ] || return 1
    powernode_check_uuid /etc/powernode/local-id "$PN_VALUE" || return
    PN_ID=$PN_VALUE
}

# powernode_hand_over: leave the identity for the real root in /run/powernode/identity, readable by root alone, with the keys of
# identity.cfg and what else is known. The root digest stands in /run/powernode/root-digest.
powernode_hand_over() {
    mkdir -p "$PN_RUN"
    if [ -n "$PN_CA_PEM" ]; then
        PN_CA_PEM_FILE=$PN_RUN/ca.pem
        printf '%s\n' "$PN_CA_PEM" >"$PN_CA_PEM_FILE" || {
            PN_REASON="$PN_CA_PEM_FILE cannot be written"
            return 1
        }
    fi
    if ! (
        umask 077
        {
            printf '# Written by the initramfs; the same keys as /etc/identity.cfg.\n'
            printf 'SOURCE=%s\n' "$PN_SOURCE"
            for pn_pair in "ID=$PN_ID" "KEY=$PN_KEY" "SERVER=$PN_SERVER" "CA_PEM_FILE=$PN_CA_PEM_FILE" \
                "CA_URL=$PN_CA_URL" "NAME=$PN_NAME" "AGENT_URL=$PN_AGENT_URL"; do
                [ -z "${pn_pair#*=}" ] || printf "%s='%s'\n" "${pn_pair%%=*}" "${pn_pair#*=}"
            done
        } >"$PN_RUN/identity"
    ); then
        PN_REASON="$PN_RUN/identity cannot be written"
        return 1
    fi
    printf '%s\n' "$PN_DIGEST" >"$PN_RUN/root-digest"
}
