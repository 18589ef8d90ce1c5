#!/bin/sh
# The metadata service of a cloud, a source of the identity (powernode-identity.sh), and the order of the sources. Functions only,
# sourced after powernode-identity.sh and under the conventions of powernode-lib.sh.
#
# The service has one address in every cloud, which is link-local: whoever answers there is the hypervisor, or is on the same wire. So it is
# asked only where the firmware says that the machine is in that cloud, or the command line does. The network exists while it is asked,
# and not before or after. An answer is read once, and what was read is what counts.

PN_CLOUD_ADDRESS=169.254.169.254
# Seconds for one request, and for everything.
PN_CLOUD_REQUEST=1.5
PN_CLOUD_TIME=30
# Bytes of user data that are read, and of an answer's head.
PN_CLOUD_MAX=65536
PN_CLOUD_HEAD_MAX=16384
PN_LEASE_SCRIPT=/usr/lib/powernode/powernode-lease
PN_JSON=/usr/lib/powernode/powernode-json.awk

PN_CLOUD='' PN_CLOUD_END=0 PN_CLOUD_STATUS='' PN_CLOUD_NOTE=''

# ------------------------------------------------------------------------------------------------------------ the order of the sources

# powernode_choose_sources: powernode.identity.sources= on the command line names the sources and their order, separated by commas. From
# the first one that is in the root on, all are asked when the root is mounted.
powernode_choose_sources() {
    powernode_cmdline_get powernode.identity.sources
    case $? in
        0) ;;
        1) return 0 ;;
        *) return 2 ;;
    esac
    pn_known=" $PN_SOURCES_EARLY $PN_SOURCES_LATE "
    pn_early='' pn_late=''
    pn_rest=$PN_VALUE,
    while [ -n "$pn_rest" ]; do
        pn_source=${pn_rest%%,*}
        pn_rest=${pn_rest#*,}
        case $pn_source in
            '' | *[!a-z_]*) PN_REASON="powernode.identity.sources= names a source '$pn_source'; the sources are$pn_known" ;;
            *) PN_REASON='' ;;
        esac
        case $pn_known in
            *" $pn_source "*) ;;
            *) PN_REASON="powernode.identity.sources= names a source '$pn_source'; the sources are$pn_known" ;;
        esac
        case " $pn_early $pn_late " in
            *" $pn_source "*) PN_REASON="powernode.identity.sources= names '$pn_source' again" ;;
        esac
        [ -z "$PN_REASON" ] || return 2
        case "$pn_late:$PN_SOURCES_LATE " in
            :*"$pn_source "*) pn_late=$pn_source ;;
            :*) pn_early="${pn_early:+$pn_early }$pn_source" ;;
            *) pn_late="$pn_late $pn_source" ;;
        esac
    done
    PN_SOURCES_EARLY=$pn_early
    PN_SOURCES_LATE=$pn_late
}

# ------------------------------------------------------------------------------------------------------------------------- which cloud

# powernode_which_cloud: PN_CLOUD is the cloud that the machine is in. Returns 1 when it is in none, 2 when the command line names one that
# does not exist.
powernode_which_cloud() {
    PN_CLOUD=''
    powernode_cmdline_get powernode.cloud
    case $? in
        0)
            case $PN_VALUE in
                aws | gcp | azure | digitalocean | openstack) PN_CLOUD=$PN_VALUE ;;
                none) return 1 ;;
                *)
                    PN_REASON="powernode.cloud= is none of aws, gcp, azure, digitalocean, openstack and none: '$PN_VALUE'"
                    return 2
                    ;;
            esac
            return 0
            ;;
        1) ;;
        *) return 2 ;;
    esac
    powernode_dmi sys_vendor
    case $PN_VALUE in
        'Amazon EC2') PN_CLOUD=aws ;;
        DigitalOcean) PN_CLOUD=digitalocean ;;
    esac
    powernode_dmi product_name
    case $PN_VALUE in
        'Google Compute Engine') PN_CLOUD=gcp ;;
        'OpenStack Nova' | 'OpenStack Compute') PN_CLOUD=openstack ;;
    esac
    powernode_dmi chassis_asset_tag
    case $PN_VALUE in
        7783-7084-3265-9085-8269-3286-77) PN_CLOUD=azure ;;
    esac
    [ -n "$PN_CLOUD" ]
}

# powernode_dmi NAME: PN_VALUE is that value of the firmware's DMI tables, empty where there is none.
powernode_dmi() {
    PN_VALUE=''
    [ ! -r "$PN_SYS/class/dmi/id/$1" ] || PN_VALUE=$(head -c 256 "$PN_SYS/class/dmi/id/$1" 2>/dev/null | tr -d '\000')
}

# powernode_cloud_clock: sets PN_CLOUD_END, in seconds since the kernel started. powernode.identity.timeout= is the time for everything.
powernode_cloud_clock() {
    powernode_cmdline_get powernode.identity.timeout
    case $? in
        0)
            if ! powernode_is_count "$PN_VALUE" || [ "$PN_VALUE" -lt 1 ] || [ "$PN_VALUE" -gt 600 ]; then
                PN_REASON="powernode.identity.timeout= is not a number of seconds from 1 to 600: '$PN_VALUE'"
                return 2
            fi
            PN_CLOUD_TIME=$PN_VALUE
            ;;
        1) ;;
        *) return 2 ;;
    esac
    powernode_uptime
    PN_CLOUD_END=$((PN_VALUE + PN_CLOUD_TIME))
}

# powernode_uptime: PN_VALUE is the number of whole seconds since the kernel started.
powernode_uptime() {
    PN_VALUE=$(cat "$PN_PROC/uptime")
    PN_VALUE=${PN_VALUE%%.*}
}

# powernode_cloud_left: whether there is time left; PN_VALUE is the seconds.
powernode_cloud_left() {
    powernode_uptime
    PN_VALUE=$((PN_CLOUD_END - PN_VALUE))
    [ "$PN_VALUE" -gt 0 ]
}

# -------------------------------------------------------------------------------------------------------------------------- the source

# From the metadata service of the cloud that the machine is in. No answer, or no user data with an identity, is no identity, and is said
# in one line; user data with a wrong one stops the boot.
powernode_claim_cloud() {
    powernode_which_cloud || return
    powernode_cloud_clock || return
    PN_CLOUD_DIR=$PN_RUN/cloud
    mkdir -p "$PN_CLOUD_DIR"
    PN_CLOUD_NOTE='there is no network card'
    pn_cloud_status=3
    while :; do
        for pn_card in "$PN_SYS"/class/net/*; do
            # Only hardware has this; the loopback and the like have not.
            [ -e "$pn_card/device" ] || continue
            pn_card=${pn_card##*/}
            if powernode_network_up "$pn_card"; then
                powernode_cloud_user_data
                pn_cloud_status=$?
            fi
            powernode_network_down "$pn_card"
            [ "$pn_cloud_status" -eq 3 ] || break 2
        done
        # A card can appear late, and a service answer late.
        powernode_cloud_left || break
        sleep 0.2
    done
    if [ "$pn_cloud_status" -eq 0 ]; then
        powernode_user_data "$PN_CLOUD_DIR/user-data" "user data of $PN_CLOUD"
        pn_cloud_status=$?
        PN_CLOUD_NOTE='its user data names no instance'
    fi
    rm -rf "$PN_CLOUD_DIR"
    case $pn_cloud_status in
        0 | 2) return "$pn_cloud_status" ;;
    esac
    powernode_tell "powernode: identity: the metadata service of $PN_CLOUD gives none: $PN_CLOUD_NOTE"
    PN_REASON=''
    return 1
}

# ------------------------------------------------------------------------------------------------------------------------- the network

# powernode_network_up CARD: an address and a route to the service. Returns 1 without (PN_CLOUD_NOTE).
powernode_network_up() {
    PN_CLOUD_NOTE="$1 gets no address"
    busybox ip link set dev "$1" up 2>/dev/null || return 1
    if [ "$PN_CLOUD" = digitalocean ]; then
        # This cloud has no DHCP. The address is one of the link, from the card's own.
        powernode_link_address "$1" || return 1
        busybox ip addr add "$PN_VALUE/16" dev "$1" 2>/dev/null
        return
    fi
    powernode_cloud_left || return 1
    rm -f "$PN_CLOUD_DIR/lease"
    # The lease is written by the script, which is called with this variable.
    PN_LEASE=$PN_CLOUD_DIR/lease busybox timeout "$PN_VALUE" busybox udhcpc -i "$1" -n -q -f -t 5 -T 1 -A 1 \
        -s "$PN_LEASE_SCRIPT" >/dev/null 2>&1
    powernode_lease || return 1
    busybox ip addr add "$pn_lease_ip/$pn_lease_mask" dev "$1" 2>/dev/null || return 1
    [ -n "$pn_lease_gateway" ] || return 0
    # The gateway can be outside of the address's network, whose mask may be /32.
    busybox ip route add "$pn_lease_gateway/32" dev "$1" 2>/dev/null
    busybox ip route add "$PN_CLOUD_ADDRESS/32" via "$pn_lease_gateway" dev "$1" 2>/dev/null
}

# powernode_lease: reads the lease into pn_lease_ip, pn_lease_mask and pn_lease_gateway, which is empty when the service is on the link.
powernode_lease() {
    powernode_read "$PN_CLOUD_DIR/lease" 4096 || return 1
    pn_lease_ip='' pn_lease_mask='' pn_lease_gateway='' pn_lease_router='' pn_lease_static=''
    while read -r pn_name pn_value; do
        case $pn_value in
            *[!0-9./\ ]*) return 1 ;;
        esac
        case $pn_name in
            ip) pn_lease_ip=$pn_value ;;
            mask) pn_lease_mask=$pn_value ;;
            router) pn_lease_router=${pn_value%% *} ;;
            staticroutes) pn_lease_static=$pn_value ;;
        esac
    done <"$PN_CLOUD_DIR/lease"
    [ -n "$pn_lease_ip" ] && powernode_is_count "$pn_lease_mask" || return 1
    if [ -z "$pn_lease_static" ]; then
        pn_lease_gateway=$pn_lease_router
    else
        # Destinations and gateways in turn. With these routes the router does not count (RFC 3442).
        set -f
        # shellcheck disable=SC2086  # these are words
        set -- $pn_lease_static
        set +f
        while [ "$#" -ge 2 ]; do
            case $1 in
                "$PN_CLOUD_ADDRESS/32")
                    pn_lease_gateway=$2
                    break
                    ;;
                0.0.0.0/0) pn_lease_gateway=$2 ;;
            esac
            shift 2
        done
    fi
    [ "$pn_lease_gateway" != 0.0.0.0 ] || pn_lease_gateway=''
}

# powernode_link_address CARD: PN_VALUE is an address of 169.254.0.0/16 (RFC 3927), from the last two bytes of the card's own.
powernode_link_address() {
    PN_VALUE=$(head -c 17 "$PN_SYS/class/net/$1/address" 2>/dev/null)
    case $PN_VALUE in
        ??:??:??:??:[0-9a-f][0-9a-f]:[0-9a-f][0-9a-f]) ;;
        *) return 1 ;;
    esac
    pn_low=${PN_VALUE##*:}
    PN_VALUE=${PN_VALUE%:*}
    # Away from both ends of the network, and from the service.
    PN_VALUE=169.254.$((0x${PN_VALUE##*:} % 168 + 1)).$((0x$pn_low % 254 + 1))
}

# powernode_network_down CARD: as it was before, so that the real root begins anew.
powernode_network_down() {
    busybox ip route flush dev "$1" 2>/dev/null
    busybox ip addr flush dev "$1" 2>/dev/null
    busybox ip link set dev "$1" down 2>/dev/null
    return 0
}

# ------------------------------------------------------------------------------------------------------------------------ the requests

# powernode_cloud_user_data: leaves the user data in $PN_CLOUD_DIR/user-data. Returns 0 with it; 1 when the service has none, 3 when nobody
# answers (PN_CLOUD_NOTE); 2 when it is wrong.
powernode_cloud_user_data() {
    case $PN_CLOUD in
        aws)
            # IMDSv2 only: the older way lets whoever can make a server of the node fetch a URL read the token.
            powernode_cloud_need PUT /latest/api/token 'X-aws-ec2-metadata-token-ttl-seconds: 60' || return
            powernode_read_line "$PN_CLOUD_DIR/body" 1024 || return
            pn_token=$PN_VALUE
            powernode_check_word 'session token of aws' "$pn_token" || return
            powernode_cloud_get GET /latest/user-data "X-aws-ec2-metadata-token: $pn_token" || return
            ;;
        gcp)
            powernode_cloud_need GET /computeMetadata/v1/ 'Metadata-Flavor: Google' || return
            powernode_cloud_get GET /computeMetadata/v1/instance/attributes/user-data 'Metadata-Flavor: Google' || return
            ;;
        azure)
            powernode_cloud_need GET '/metadata/instance?api-version=2021-01-01&format=text' 'Metadata: true' || return
            powernode_cloud_get GET '/metadata/instance/compute/userData?api-version=2021-01-01&format=text' 'Metadata: true' || return
            powernode_cloud_decode || return
            ;;
        digitalocean)
            powernode_cloud_need GET /metadata/v1/id || return
            powernode_cloud_get GET /metadata/v1/user-data || return
            ;;
        openstack) powernode_cloud_get GET /openstack/latest/user_data || return ;;
    esac
    mv "$PN_CLOUD_DIR/body" "$PN_CLOUD_DIR/user-data"
}

# powernode_cloud_decode: the body is base64.
powernode_cloud_decode() {
    pn_odd=$(tr -d 'A-Za-z0-9+/=\011\012\015\040' <"$PN_CLOUD_DIR/body" | wc -c)
    pn_size=$(tr -d '\011\012\015\040' <"$PN_CLOUD_DIR/body" | wc -c)
    # Not every base64 looks whether the last group is whole.
    if [ "$pn_odd" -ne 0 ] || [ $((pn_size % 4)) -ne 0 ] || ! tr -d '\011\012\015\040' <"$PN_CLOUD_DIR/body" | base64 -d >"$PN_CLOUD_DIR/decoded" 2>/dev/null; then
        PN_REASON="user data of $PN_CLOUD is not base64"
        return 2
    fi
    mv "$PN_CLOUD_DIR/decoded" "$PN_CLOUD_DIR/body"
}

# powernode_cloud_need METHOD PATH [HEADER]: a request without whose answer there is no service of this cloud.
powernode_cloud_need() {
    powernode_cloud_get "$@"
    case $? in
        0) ;;
        1) PN_CLOUD_NOTE="$2 is answered with status $PN_CLOUD_STATUS"; return 1 ;;
        *) return 3 ;;
    esac
}

# powernode_cloud_get METHOD PATH [HEADER]: the answer's body in $PN_CLOUD_DIR/body. Returns 0 with status 200, 1 with another, 3 when nobody
# answers within the time. A request that fails is made again while there is time.
powernode_cloud_get() {
    {
        printf '%s %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: powernode\r\nConnection: close\r\n' "$1" "$2" "$PN_CLOUD_ADDRESS"
        [ "$1" != PUT ] || printf 'Content-Length: 0\r\n'
        [ -z "${3:-}" ] || printf '%s\r\n' "$3"
        printf '\r\n'
    } >"$PN_CLOUD_DIR/request"
    pn_path=$2
    while :; do
        rm -f "$PN_CLOUD_DIR/answer" "$PN_CLOUD_DIR/body"
        powernode_exchange "$PN_CLOUD_DIR/request" "$PN_CLOUD_DIR/answer"
        powernode_answer "$?" && break
        powernode_cloud_left || return 3
        sleep 0.2
    done
    [ "$PN_CLOUD_STATUS" = 200 ] && return 0
    PN_CLOUD_NOTE="$pn_path is answered with status $PN_CLOUD_STATUS"
    return 1
}

# powernode_exchange REQUEST ANSWER: sends one file to the service and leaves what comes back in the other, up to a limit. Returns 0 when
# the service ended the connection. There is no proxy and nothing that follows redirects: a connection goes to the one address.
powernode_exchange() {
    rm -f "$PN_CLOUD_DIR/pipe" "$PN_CLOUD_DIR/ended"
    busybox mkfifo "$PN_CLOUD_DIR/pipe"
    # Open for reading and writing, the pipe has no end: a service that takes the end of a request for the end of the client answers too.
    exec 9<>"$PN_CLOUD_DIR/pipe"
    cat "$1" >&9
    {
        busybox timeout "$PN_CLOUD_REQUEST" busybox nc "$PN_CLOUD_ADDRESS" 80 <&9 2>/dev/null && : >"$PN_CLOUD_DIR/ended"
    } | head -c $((PN_CLOUD_HEAD_MAX + PN_CLOUD_MAX + 1)) >"$2"
    exec 9>&-
    [ -e "$PN_CLOUD_DIR/ended" ]
}

# powernode_answer ENDED: splits the answer; PN_CLOUD_STATUS is its status. Returns 1 when it is no whole answer (PN_CLOUD_NOTE). ENDED is 0
# when the service ended the connection; otherwise the length in the head says whether the body is whole.
powernode_answer() {
    PN_CLOUD_STATUS='' pn_length=''
    PN_CLOUD_NOTE='nobody answers'
    [ -s "$PN_CLOUD_DIR/answer" ] || return 1
    PN_CLOUD_NOTE='the answer is not one of HTTP'
    # The head ends with an empty line; bytes that no head has would make the count wrong.
    pn_head=$(head -c "$PN_CLOUD_HEAD_MAX" "$PN_CLOUD_DIR/answer" | busybox awk '
        { n += length($0) + 1 }
        $0 == "" || $0 == "\r" { print n; exit }')
    powernode_is_count "$pn_head" || return 1
    pn_odd=$(head -c "$pn_head" "$PN_CLOUD_DIR/answer" | tr -d '\011\012\015\040-\176' | wc -c)
    [ "$pn_odd" -eq 0 ] || return 1
    busybox tail -c +$((pn_head + 1)) "$PN_CLOUD_DIR/answer" >"$PN_CLOUD_DIR/body"
    pn_text=$(head -c "$pn_head" "$PN_CLOUD_DIR/answer" | tr -d '\015')
    case $pn_text in
        HTTP/1.[01]\ [1-5][0-9][0-9] | HTTP/1.[01]\ [1-5][0-9][0-9][\ $PN_NL]*) ;;
        *) return 1 ;;
    esac
    pn_status=${pn_text#HTTP/1.? }
    while [ -n "$pn_text" ]; do
        pn_line=${pn_text%%"$PN_NL"*}
        case $pn_text in
            *"$PN_NL"*) pn_text=${pn_text#*"$PN_NL"} ;;
            *) pn_text='' ;;
        esac
        case $pn_line in
            [Cc]ontent-[Ll]ength:*)
                pn_length=${pn_line#*:}
                pn_length=${pn_length# }
                powernode_is_count "$pn_length" || return 1
                ;;
            [Tt]ransfer-[Ee]ncoding:*)
                # The request was one of HTTP/1.0, which has no chunks.
                PN_CLOUD_NOTE='the answer comes in chunks'
                return 1
                ;;
        esac
    done
    pn_size=$(wc -c <"$PN_CLOUD_DIR/body")
    PN_CLOUD_NOTE='the answer is cut off'
    if [ -n "$pn_length" ]; then
        # What is too long was not read to its end, and is refused for its size.
        [ "$pn_size" -ge "$pn_length" ] || [ "$pn_size" -gt "$PN_CLOUD_MAX" ] || return 1
        if [ "$pn_size" -gt "$pn_length" ]; then
            head -c "$pn_length" "$PN_CLOUD_DIR/body" >"$PN_CLOUD_DIR/exact"
            mv "$PN_CLOUD_DIR/exact" "$PN_CLOUD_DIR/body"
        fi
    else
        [ "$1" -eq 0 ] || [ "$pn_size" -gt "$PN_CLOUD_MAX" ] || return 1
    fi
    PN_CLOUD_STATUS=$(printf '%s' "$pn_status" | head -c 3)
}

# ----------------------------------------------------------------------------------------------------------------------- the user data

# powernode_user_data FILE WHERE: takes the identity in FILE: a JSON object, words of a command line, or lines of identity.cfg. Returns 1
# when it has none, 2 when it is wrong.
powernode_user_data() {
    PN_REASON="$2 has more than $PN_CLOUD_MAX bytes"
    [ "$(head -c $((PN_CLOUD_MAX + 1)) "$1" | wc -c)" -le "$PN_CLOUD_MAX" ] || return 2
    PN_REASON=''
    pn_magic=$(head -c 4 "$1" | od -A n -t x1 | tr -d ' \n')
    case $pn_magic in
        1f8b*) PN_REASON="$2 is compressed with gzip" ;;
        fffe* | feff* | 00??* | ??00*) PN_REASON="$2 is in UTF-16 or UTF-32" ;;
        efbbbf*) PN_REASON="$2 begins with a byte order mark" ;;
    esac
    [ -z "$PN_REASON" ] || return 2
    case $(head -c 256 "$1" | tr 'A-Z\000\015' 'a-z  ') in
        'content-type:'* | 'mime-version:'*)
            PN_REASON="$2 is a MIME message"
            return 2
            ;;
    esac
    if ! powernode_read "$1" "$PN_CLOUD_MAX"; then
        PN_REASON="$2 holds bytes that are not plain text"
        return 2
    fi
    powernode_trim "$PN_VALUE"
    case $PN_VALUE in
        '') return 1 ;;
        '{'*) powernode_user_data_of json "$1" "$2" ;;
        powernode.* | *[\ $PN_TAB$PN_NL]powernode.*) powernode_user_data_of words "$1" "$2" ;;
        *)
            # Other lines are not ours: user data has other readers too.
            sed -n '/^[[:blank:]]*\(export[[:blank:]]\{1,\}\)\{0,1\}\(ID\|KEY\|SERVER\|CA_PEM\)[[:blank:]]*=/p' "$1" >"$1.lines"
            powernode_claim_identity_file "$1.lines"
            ;;
    esac
}

# powernode_user_data_of FORM FILE WHERE: the identity in the members of a JSON object or in powernode.* words.
powernode_user_data_of() {
    pn_form=$1 pn_file=$2 pn_where=$3 pn_given='' pn_uuid=''
    for pn_name in instance_uuid bootstrap_token platform_url ca_pem; do
        "powernode_user_data_$pn_form" "$pn_name"
        case $? in
            0) ;;
            1) continue ;;
            *) return 2 ;;
        esac
        pn_what="$pn_where: $pn_name"
        case $pn_name in
            instance_uuid)
                powernode_trim "$PN_VALUE"
                pn_uuid=$PN_VALUE
                [ -n "$pn_uuid" ] || continue
                ;;
            bootstrap_token)
                powernode_check_word "$pn_what" "$PN_VALUE" || return
                PN_KEY=$PN_VALUE
                ;;
            platform_url)
                pn_url=$PN_VALUE
                powernode_check_platform_url "$pn_what" "$pn_url" || return
                PN_SERVER=$pn_url
                ;;
            ca_pem)
                case $pn_form in
                    json) powernode_check_pem "$pn_what" "$PN_VALUE" || return ;;
                    words) powernode_inline_pem "$pn_what" "$PN_VALUE" || return ;;
                esac
                PN_CA_PEM=$PN_VALUE
                ;;
        esac
        [ "$pn_name" = instance_uuid ] || pn_given="$pn_given $pn_name"
    done
    if [ -z "$pn_uuid" ]; then
        powernode_lone "$pn_where" "$pn_given"
        return
    fi
    powernode_check_uuid "$pn_where: instance_uuid" "$pn_uuid" || return
    PN_ID=$PN_VALUE
}

# powernode_user_data_json NAME: PN_VALUE is that member. Returns 1 without it.
powernode_user_data_json() {
    PN_VALUE=$(busybox awk -v "key=$1" -f "$PN_JSON" "$pn_file")
    case $? in
        0) ;;
        1) return 1 ;;
        *)
            PN_REASON="$pn_where is not a JSON object with one string $1"
            return 2
            ;;
    esac
}

# powernode_user_data_words NAME: PN_VALUE is the value of powernode.NAME=. Returns 1 without it.
powernode_user_data_words() {
    pn_cmdline=$PN_CMDLINE
    PN_CMDLINE=$pn_file
    powernode_cmdline_get "powernode.$1"
    pn_status=$?
    PN_CMDLINE=$pn_cmdline
    [ "$pn_status" -lt 2 ] || PN_REASON="$pn_where: powernode.$1= is there more than once"
    return "$pn_status"
}
