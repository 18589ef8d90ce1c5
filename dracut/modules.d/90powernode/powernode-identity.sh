#!/bin/sh
# Who this node is: the sources an identity may come from, and their readers. Functions only, sourced after powernode-lib.sh and
# powernode-trust.sh and under their conventions. powernode-handover.sh leaves the result for the real root.

# The places an identity may come from; the first that has one wins. A new place is a new word here and a function
# powernode_claim_<word> below, which returns 0 (claimed), 1 (nothing there) or 2 (there, but wrong: PN_REASON).
# The early ones are asked before the root is mounted, the late ones read files of the verified root.
PN_SOURCES_EARLY='cmdline cloud fw_cfg boot_file'
PN_SOURCES_LATE='root_file local_id'

# The claimed identity. PN_SOURCE is `none` until something was claimed.
PN_SOURCE=none
PN_ID='' PN_KEY='' PN_SERVER='' PN_NAME='' PN_AGENT_URL='' PN_CA_URL='' PN_CA_SHA256='' PN_CA_PEM=''
# The first identity.cfg without an ID: a medium that waits for somebody to claim it, which its agent asks for.
PN_UNCLAIMED='' PN_UNCLAIMED_SERVER='' PN_UNCLAIMED_CA_PEM=''

# powernode_forget: nothing of a source that has no identity is mixed with the identity of another.
powernode_forget() {
    PN_ID='' PN_KEY='' PN_SERVER='' PN_NAME='' PN_AGENT_URL='' PN_CA_URL='' PN_CA_SHA256='' PN_CA_PEM=''
}

# powernode_claim SOURCES: ask each source in order until one has an identity. A source that has one which is wrong stops the boot:
# going on to the next would start the node under another name.
powernode_claim() {
    [ "$PN_SOURCE" = none ] || return 0
    for pn_source in $1; do
        powernode_forget
        "powernode_claim_$pn_source"
        case $? in
            0)
                PN_SOURCE=$pn_source
                return 0
                ;;
            1) powernode_forget ;;
            *) return 2 ;;
        esac
    done
    return 0
}

powernode_claim_early() { powernode_claim "$PN_SOURCES_EARLY"; }
powernode_claim_late() { powernode_claim "$PN_SOURCES_LATE"; }

# powernode_lone WHERE NAMES: a source that names no instance. With NAMES, words of an identity that it does have, that is refused: they
# would be lost silently. Returns 1 without any.
powernode_lone() {
    [ -n "$2" ] || return 1
    pn_lone=${2# }
    PN_REASON="$1 has ${pn_lone%% *} and names no instance (instance_uuid)"
    return 2
}

# From the kernel command line: powernode.instance_uuid=, and with it bootstrap_token=, platform_url=, and the certificates of the
# platform as ca_pem= (or ca=, the older name) or as ca_url=, with ca_sha256=.
powernode_claim_cmdline() {
    pn_given=''
    for pn_name in bootstrap_token platform_url ca_url ca_sha256 ca_pem ca; do
        case $pn_name in
            ca_pem | ca) powernode_cmdline_pem "powernode.$pn_name" ;;
            *) powernode_cmdline_get "powernode.$pn_name" ;;
        esac
        case $? in
            0) pn_given="$pn_given powernode.$pn_name=" ;;
            1) continue ;;
            *) return 2 ;;
        esac
        case $pn_name in
            bootstrap_token)
                powernode_check_word powernode.bootstrap_token= "$PN_VALUE" || return
                PN_KEY=$PN_VALUE
                ;;
            platform_url)
                pn_url=$PN_VALUE
                powernode_check_platform_url powernode.platform_url= "$pn_url" || return
                PN_SERVER=$pn_url
                ;;
            ca_url)
                powernode_check_url powernode.ca_url= "$PN_VALUE" || return
                PN_CA_URL=$PN_VALUE
                ;;
            ca_sha256) PN_CA_SHA256=$PN_VALUE ;;
            ca_pem | ca)
                if [ -n "$PN_CA_PEM" ]; then
                    PN_REASON='powernode.ca= and powernode.ca_pem= are both on the kernel command line'
                    return 2
                fi
                powernode_inline_pem "powernode.$pn_name=" "$PN_VALUE" || return
                PN_CA_PEM=$PN_VALUE
                ;;
        esac
    done
    powernode_cmdline_get powernode.instance_uuid
    case $? in
        0) ;;
        1)
            powernode_lone 'the kernel command line' "$pn_given"
            return
            ;;
        *) return 2 ;;
    esac
    powernode_check_uuid 'powernode.instance_uuid=' "$PN_VALUE" || return
    PN_ID=$PN_VALUE
    if [ -n "$PN_CA_URL" ] && [ -n "$PN_CA_PEM" ]; then
        PN_REASON='powernode.ca_url= and certificates are both on the kernel command line'
        return 2
    fi
    powernode_check_ca_url
}

# powernode_read_fw_cfg NAME LIMIT: PN_VALUE is that value of fw_cfg, without white space around it. Returns 1 when it is absent or empty,
# 2 when it is longer or more than one line.
powernode_read_fw_cfg() {
    powernode_read "$PN_FW_CFG/$1/raw" "$2" || return
    powernode_trim "$PN_VALUE"
    case $PN_VALUE in
        '') return 1 ;;
        *"$PN_NL"*)
            PN_REASON="fw_cfg $1 holds more than one line"
            return 2
            ;;
    esac
}

# From QEMU's fw_cfg, opt/com.powernode/<name>.
powernode_claim_fw_cfg() {
    pn_given=''
    for pn_name in bootstrap_token platform_url agent_url; do
        powernode_read_fw_cfg "$pn_name" 1024
        case $? in
            0) ;;
            1) continue ;;
            *) return 2 ;;
        esac
        case $pn_name in
            bootstrap_token)
                powernode_check_word 'fw_cfg bootstrap_token' "$PN_VALUE" || return
                PN_KEY=$PN_VALUE
                pn_given="$pn_given $pn_name"
                ;;
            platform_url)
                pn_url=$PN_VALUE
                powernode_check_platform_url 'fw_cfg platform_url' "$pn_url" || return
                PN_SERVER=$pn_url
                pn_given="$pn_given $pn_name"
                ;;
            agent_url)
                powernode_check_url 'fw_cfg agent_url' "$PN_VALUE" || return
                PN_AGENT_URL=$PN_VALUE
                ;;
        esac
    done
    powernode_read "$PN_FW_CFG/ca_pem/raw" "$PN_PEM_MAX"
    case $? in
        0)
            if [ -n "$PN_VALUE" ]; then
                powernode_check_pem 'fw_cfg ca_pem' "$PN_VALUE" || return
                PN_CA_PEM=$PN_VALUE
                pn_given="$pn_given ca_pem"
            fi
            ;;
        1) ;;
        *) return 2 ;;
    esac
    powernode_read_fw_cfg instance_uuid 256
    case $? in
        0) ;;
        1)
            if [ -f "$PN_FW_CFG/instance_uuid/raw" ]; then
                PN_REASON='fw_cfg instance_uuid is empty'
                return 2
            fi
            powernode_lone fw_cfg "$pn_given"
            return
            ;;
        *) return 2 ;;
    esac
    powernode_check_uuid 'fw_cfg instance_uuid' "$PN_VALUE" || return
    PN_ID=$PN_VALUE
    powernode_fw_cfg_name
}

# powernode_fw_cfg_name: PN_NAME, which a person typed. It names the node to people only, so one that cannot be handed on is left out,
# and the node boots.
powernode_fw_cfg_name() {
    powernode_read_fw_cfg instance_name 1024
    case $? in
        0)
            if powernode_check_plain 'fw_cfg instance_name' "$PN_VALUE"; then
                PN_NAME=$PN_VALUE
                return 0
            fi
            ;;
        1) return 0 ;;
    esac
    powernode_tell 'powernode: identity: fw_cfg instance_name is not up to 1024 plain characters, and is left out'
    PN_REASON=''
}

# powernode_parse_identity FILE: read KEY=value lines into PN_F_ID, PN_F_KEY, PN_F_SERVER, PN_F_CA_PEM_FILE and PN_F_CA_PEM. Comments and blank
# lines are skipped; `export`, spaces around `=` and one pair of quotes are taken off; other keys are ignored. Nothing is
# expanded. Returns 1 when there is no such file, 2 when a line is not KEY=value, a key is there twice or a value is not plain.
powernode_parse_identity() {
    PN_F_ID='' PN_F_KEY='' PN_F_SERVER='' PN_F_CA_PEM_FILE='' PN_F_CA_PEM=''
    powernode_read "$1" 65536 || return
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
        powernode_trim "$pn_line"
        pn_line=$PN_VALUE
        case $pn_line in
            '' | '#'*) continue ;;
            'export '* | "export$PN_TAB"*) pn_line=${pn_line#export?} ;;
        esac
        powernode_trim "${pn_line%%=*}"
        pn_key=$PN_VALUE
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
        case $pn_key in
            ID | KEY | SERVER | CA_PEM_FILE | CA_PEM) ;;
            *) continue ;;
        esac
        case $pn_seen in
            *" $pn_key "*)
                PN_REASON="$1 line $pn_number sets $pn_key again"
                return 2
                ;;
        esac
        pn_seen="$pn_seen$pn_key "
        powernode_trim "${pn_line#*=}"
        pn_value=$PN_VALUE
        case $pn_value in
            \"*\" | \'*\')
                if [ "${#pn_value}" -ge 2 ]; then
                    pn_value=${pn_value#?}
                    pn_value=${pn_value%?}
                fi
                ;;
        esac
        case $pn_key in
            CA_PEM)
                # May have the two characters \n for a line break; its own check follows where it is used.
                PN_F_CA_PEM=$pn_value
                continue
                ;;
        esac
        powernode_check_plain "$1 line $pn_number: $pn_key" "$pn_value" || return
        case $pn_key in
            ID) PN_F_ID=$pn_value ;;
            KEY) PN_F_KEY=$pn_value ;;
            SERVER) PN_F_SERVER=$pn_value ;;
            CA_PEM_FILE) PN_F_CA_PEM_FILE=$pn_value ;;
        esac
    done
}

# powernode_claim_identity_file FILE: take what FILE says, apart from CA_PEM_FILE, whose meaning depends on where FILE is. Returns 1 also
# when its ID is empty; see powernode_keep_unclaimed.
powernode_claim_identity_file() {
    powernode_parse_identity "$1" || return
    if [ -n "$PN_F_SERVER" ]; then
        powernode_check_platform_url "$1: SERVER" "$PN_F_SERVER" || return
        PN_SERVER=$PN_F_SERVER
    fi
    if [ -n "$PN_F_CA_PEM" ]; then
        powernode_inline_pem "$1: CA_PEM" "$PN_F_CA_PEM" || return
        PN_CA_PEM=$PN_VALUE
    fi
    if [ -n "$PN_F_KEY" ]; then
        powernode_check_word "$1: KEY" "$PN_F_KEY" || return
        PN_KEY=$PN_F_KEY
    fi
    if [ -z "$PN_F_ID" ]; then
        [ -n "$PN_F_KEY" ] || return 1
        PN_REASON="$1 has KEY and names no instance (ID)"
        return 2
    fi
    powernode_check_uuid "$1: ID" "$PN_F_ID" || return
    PN_ID=$PN_VALUE
}

# powernode_keep_unclaimed: an identity.cfg whose ID is empty is a medium that nobody has claimed yet. Its server and certificates are
# kept aside for the agent to ask there, and count only when no source has an identity. The first such file counts.
powernode_keep_unclaimed() {
    [ -z "$PN_UNCLAIMED" ] || return 0
    PN_UNCLAIMED=1
    PN_UNCLAIMED_SERVER=$PN_SERVER
    PN_UNCLAIMED_CA_PEM=$PN_CA_PEM
}

# From identity.cfg on the boot partition, when there is one (powernode_mount_boot).
powernode_claim_boot_file() {
    powernode_mount_boot || return
    powernode_claim_boot_directory "$PN_ESP"
}

# powernode_claim_boot_directory DIR: the part of powernode_claim_boot_file that reads. The certificate is a file beside identity.cfg,
# whatever directory CA_PEM_FILE names; CA_PEM in the file itself wins over it, as the agent has it.
powernode_claim_boot_directory() {
    powernode_claim_identity_file "$1/identity.cfg"
    pn_claimed=$?
    [ "$pn_claimed" -le 1 ] || return 2
    [ -f "$1/identity.cfg" ] || return 1
    if [ -n "$PN_F_CA_PEM_FILE" ] && [ -z "$PN_CA_PEM" ]; then
        powernode_read_ca "identity.cfg names ${PN_F_CA_PEM_FILE##*/}, which is not beside it" "$1/${PN_F_CA_PEM_FILE##*/}" || return
    fi
    [ "$pn_claimed" -eq 0 ] || powernode_keep_unclaimed
    return "$pn_claimed"
}

# powernode_read_ca ABSENT FILE: PN_CA_PEM is the certificates in FILE; ABSENT is the reason when there is no such file.
powernode_read_ca() {
    powernode_read "$2" "$PN_PEM_MAX"
    case $? in
        0) ;;
        1)
            PN_REASON=$1
            return 2
            ;;
        *) return 2 ;;
    esac
    powernode_check_pem "${2##*/}" "$PN_VALUE" || return
    PN_CA_PEM=$PN_VALUE
}

# From /etc/identity.cfg of the root. CA_PEM_FILE is an absolute path in that root.
powernode_claim_root_file() {
    powernode_claim_identity_file "$PN_NEWROOT/etc/identity.cfg"
    pn_claimed=$?
    [ "$pn_claimed" -le 1 ] || return 2
    [ -f "$PN_NEWROOT/etc/identity.cfg" ] || return 1
    if [ -n "$PN_F_CA_PEM_FILE" ] && [ -z "$PN_CA_PEM" ]; then
        powernode_check_path '/etc/identity.cfg: CA_PEM_FILE' "$PN_F_CA_PEM_FILE" || return
        powernode_in_root "$PN_F_CA_PEM_FILE" || return
        powernode_read_ca "/etc/identity.cfg names $PN_F_CA_PEM_FILE, which is not in the root" "$PN_VALUE" || return
    fi
    [ "$pn_claimed" -eq 0 ] || powernode_keep_unclaimed
    return "$pn_claimed"
}

# powernode_in_root PATH: PN_VALUE is where PATH of the root is seen from here. A link that is absolute begins at the root, not here.
powernode_in_root() {
    PN_VALUE=$PN_NEWROOT$1
    pn_links=8
    while [ -h "$PN_VALUE" ]; do
        pn_links=$((pn_links - 1))
        pn_link=$(readlink "$PN_VALUE")
        case $pn_link in
            *..* | '') pn_links=0 ;;
            /*) PN_VALUE=$PN_NEWROOT$pn_link ;;
            *) PN_VALUE=${PN_VALUE%/*}/$pn_link ;;
        esac
        if [ "$pn_links" -eq 0 ]; then
            PN_REASON="$1 of the root is a link that is not followed"
            return 2
        fi
    done
}

# From /etc/powernode/local-id of the root: a bare UUID.
powernode_claim_local_id() {
    powernode_read_line "$PN_NEWROOT/etc/powernode/local-id" 256 || return
    [ -n "$PN_VALUE" ] || return 1
    powernode_check_uuid /etc/powernode/local-id "$PN_VALUE" || return
    PN_ID=$PN_VALUE
}
