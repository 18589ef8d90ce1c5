#!/bin/sh
# Tests of the metadata service as a source of the identity, without a network: busybox's ip, udhcpc and nc are replaced by a double that
# logs what it is asked. How it is started: see harness.sh.
# shellcheck disable=SC2016  # nothing here may be expanded

# shellcheck source=harness.sh
. "${0%/*}/harness.sh"

CR=$(printf '\r')
PN_JSON=$module/powernode-json.awk
is 'the whole time' "$PN_CLOUD_TIME" 30

# Time passes when somebody sleeps.
sleep() {
    pn_now=$(cat "$tmp/proc/uptime")
    echo "$((${pn_now%%.*} + 1)).25 1.00" >"$tmp/proc/uptime"
}

busybox() {
    case $1 in
        ip) echo "$*" >>"$tmp/calls" ;;
        timeout)
            shift 3
            echo "$*" >>"$tmp/calls"
            case $1 in
                udhcpc) [ ! -e "$tmp/offer" ] || cp "$tmp/offer" "$PN_LEASE" ;;
                nc) service ;;
            esac
            ;;
        *) command busybox "$@" ;;
    esac
}

# service: answers one request with the first line of $tmp/answers that begins with its method and path, and whose header it has:
#   METHOD PATH|HEADER|FILE|ENDED
# FILE is the whole answer; ENDED is 0 when the connection ends after it. A line is used once, unless it begins with `*`.
service() {
    pn_asked=''
    while read -r pn_line; do
        pn_line=${pn_line%"$CR"}
        [ -n "$pn_line" ] || break
        pn_asked="$pn_asked$pn_line;"
    done
    printf '%s\n' "$pn_asked" >>"$tmp/requests"
    pn_first=${pn_asked%% HTTP/*}
    pn_used=''
    while IFS='|' read -r pn_request pn_header pn_file pn_ended; do
        if [ -z "$pn_used" ] && [ "${pn_request#\*}" = "$pn_first" ]; then
            case $pn_asked in
                *";$pn_header;"*)
                    pn_used=1
                    pn_found=$pn_file
                    pn_status=$pn_ended
                    [ "$pn_request" = "${pn_request#\*}" ] && continue
                    ;;
            esac
        fi
        printf '%s|%s|%s|%s\n' "$pn_request" "$pn_header" "$pn_file" "$pn_ended"
    done <"$tmp/answers" >"$tmp/answers.new"
    mv "$tmp/answers.new" "$tmp/answers"
    if [ -z "$pn_used" ]; then
        printf 'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n'
        return 0
    fi
    cat "$pn_found"
    return "$pn_status"
}

# cloud NAME: an empty world of a machine in that cloud, with one network card.
cloud() {
    fresh
    PN_PROC=$tmp/proc
    PN_SOURCE=none
    powernode_forget
    PN_SOURCES_EARLY='cmdline cloud fw_cfg boot_file'
    PN_SOURCES_LATE='root_file local_id'
    PN_CLOUD_TIME=2
    mkdir -p "$tmp/proc" "$tmp/sys/class/dmi/id" "$tmp/sys/class/net/lo" "$tmp/sys/class/net/eth0/device"
    echo '10.25 1.00' >"$tmp/proc/uptime"
    echo '52:54:00:12:34:56' >"$tmp/sys/class/net/eth0/address"
    printf 'ip 10.0.0.9\nmask 24\nrouter 10.0.0.1\nstaticroutes \n' >"$tmp/offer"
    : >"$tmp/calls"
    : >"$tmp/requests"
    : >"$tmp/answers"
    : >"$tmp/dev/console"
    : >"$tmp/cmdline"
    case $1 in
        aws) file sys/class/dmi/id/sys_vendor 'Amazon EC2' ;;
        gcp) file sys/class/dmi/id/product_name 'Google Compute Engine' ;;
        azure) file sys/class/dmi/id/chassis_asset_tag 7783-7084-3265-9085-8269-3286-77 ;;
        digitalocean) file sys/class/dmi/id/sys_vendor DigitalOcean ;;
        openstack) file sys/class/dmi/id/product_name 'OpenStack Nova' ;;
        qemu) file sys/class/dmi/id/sys_vendor QEMU ;;
    esac
}

# answers NUMBER STATUS BODY: a file with that answer of HTTP.
answer() {
    { printf 'HTTP/1.1 %s X\r\nServer: x\r\nContent-Length: %s\r\n\r\n' "$2" "${#3}"; printf '%s' "$3"; } >"$tmp/answer-$1"
}

# user_data CLOUD TEXT: a machine in that cloud whose service has that user data.
user_data() {
    cloud "$1"
    answer data 200 "$2"
    serve "$1"
}

# serve CLOUD: the requests that lead to $tmp/answer-data.
serve() {
    case $1 in
        aws)
            answer token 200 TOKEN==
            echo "PUT /latest/api/token|X-aws-ec2-metadata-token-ttl-seconds: 60|$tmp/answer-token|0" >>"$tmp/answers"
            echo "GET /latest/user-data|X-aws-ec2-metadata-token: TOKEN==|$tmp/answer-data|0" >>"$tmp/answers"
            ;;
        gcp)
            answer probe 200 x
            echo "GET /computeMetadata/v1/|Metadata-Flavor: Google|$tmp/answer-probe|0" >>"$tmp/answers"
            echo "GET /computeMetadata/v1/instance/attributes/user-data|Metadata-Flavor: Google|$tmp/answer-data|0" >>"$tmp/answers"
            ;;
        azure)
            answer probe 200 x
            echo "GET /metadata/instance?api-version=2021-01-01&format=text|Metadata: true|$tmp/answer-probe|0" >>"$tmp/answers"
            echo "GET /metadata/instance/compute/userData?api-version=2021-01-01&format=text|Metadata: true|$tmp/answer-data|0" \
                >>"$tmp/answers"
            ;;
        digitalocean)
            answer probe 200 1
            echo "GET /metadata/v1/id|Connection: close|$tmp/answer-probe|0" >>"$tmp/answers"
            echo "GET /metadata/v1/user-data|Connection: close|$tmp/answer-data|0" >>"$tmp/answers"
            ;;
        openstack) echo "GET /openstack/latest/user_data|Connection: close|$tmp/answer-data|0" >>"$tmp/answers" ;;
    esac
}

said() { tr -d '\r' <"$tmp/dev/console"; }
requests() { sed 's/ HTTP.*//' "$tmp/requests" | tr '\n' ';'; }

JSON="{\"instance_uuid\": \"$UUID\", \"bootstrap_token\": \"tok\", \"platform_url\": \"https://p.example\"}"
WORDS="powernode.instance_uuid=$UUID powernode.bootstrap_token=tok powernode.platform_url=https://p.example"
LINES="# of the platform
ID=$UUID
KEY=tok
SERVER=https://p.example"

# ------------------------------------------------------------------------------------------------------- each cloud, each form

for name in aws gcp azure digitalocean openstack; do
    case $name in
        azure) user_data azure "$(printf '%s\n' "$WORDS" | base64)" ;;
        gcp) user_data gcp "$LINES" ;;
        *) user_data "$name" "$JSON" ;;
    esac
    status 0 powernode_claim_early
    is "$name" "$PN_SOURCE|$PN_ID|$PN_KEY|$PN_SERVER" "cloud|$UUID|tok|https://p.example"
    is "$name: nothing is left" "$(ls "$tmp/run")" medium
    is "$name: nothing is said" "$(said)" ''
done
user_data aws "$JSON"
status 0 powernode_claim_early
is 'the requests of aws' "$(cat "$tmp/requests")" "PUT /latest/api/token HTTP/1.0;Host: 169.254.169.254;User-Agent: powernode;Connection: close;Content-Length: 0;X-aws-ec2-metadata-token-ttl-seconds: 60;
GET /latest/user-data HTTP/1.0;Host: 169.254.169.254;User-Agent: powernode;Connection: close;X-aws-ec2-metadata-token: TOKEN==;"
is 'the network comes and goes' "$(sed 's/udhcpc.*/udhcpc/;s/^nc.*/nc/' "$tmp/calls")" 'ip link set dev eth0 up
udhcpc
ip addr add 10.0.0.9/24 dev eth0
ip route add 10.0.0.1/32 dev eth0
ip route add 169.254.169.254/32 via 10.0.0.1 dev eth0
nc
nc
ip route flush dev eth0
ip addr flush dev eth0
ip link set dev eth0 down'
is 'the connection' "$(sed -n 's/^nc/nc/p' "$tmp/calls" | uniq)" 'nc 169.254.169.254 80'
# Digital Ocean has no DHCP.
user_data digitalocean "$JSON"
status 0 powernode_claim_early
is 'a link-local address' "$(sed -n '/addr add/p;/udhcpc/p' "$tmp/calls")" 'ip addr add 169.254.53.87/16 dev eth0'

# --------------------------------------------------------------------------------------------------------- no cloud: no packet

cloud qemu
status 0 powernode_claim_early
is 'no cloud' "$PN_SOURCE|$(cat "$tmp/calls" "$tmp/requests")" 'none|'
user_data aws "$JSON"
echo 'powernode.cloud=none' >"$tmp/cmdline"
status 0 powernode_claim_early
is 'the command line says none' "$PN_SOURCE|$(cat "$tmp/calls" "$tmp/requests")" 'none|'
user_data qemu "$JSON"
serve openstack
echo 'powernode.cloud=openstack' >"$tmp/cmdline"
status 0 powernode_claim_early
is 'the command line says which' "$PN_SOURCE" cloud
cloud qemu
echo 'powernode.cloud=ec2' >"$tmp/cmdline"
status 2 powernode_claim_early
reason_has "'ec2'"
# The command line comes first, and then nobody is asked.
user_data aws "$JSON"
echo "powernode.instance_uuid=$OTHER" >"$tmp/cmdline"
status 0 powernode_claim_early
is 'first the command line' "$PN_SOURCE|$PN_ID|$(cat "$tmp/calls")" "cmdline|$OTHER|"
# Then the cloud, then fw_cfg.
user_data aws "$JSON"
mkdir -p "$tmp/fw/instance_uuid"
file fw/instance_uuid/raw $OTHER
status 0 powernode_claim_early
is 'the cloud before fw_cfg' "$PN_SOURCE|$PN_ID" "cloud|$UUID"

# --------------------------------------------------------------------------------------------------------------- the order

cloud aws
answer data 200 "$JSON"
serve aws
mkdir -p "$tmp/fw/instance_uuid"
file fw/instance_uuid/raw $OTHER
echo 'powernode.identity.sources=fw_cfg,cloud,root_file,boot_file' >"$tmp/cmdline"
status 0 powernode_choose_sources
is 'another order' "$PN_SOURCES_EARLY|$PN_SOURCES_LATE" 'fw_cfg cloud|root_file boot_file'
status 0 powernode_claim_early
is 'fw_cfg first' "$PN_SOURCE|$PN_ID|$(cat "$tmp/requests")" "fw_cfg|$OTHER|"
for wrong in 'fw_cfg,' ',fw_cfg' 'fw_cfg,fw_cfg' 'local_id,fw_cfg,local_id' 'dns' 'fw-cfg' '' 'x;reboot'; do
    cloud qemu
    echo "powernode.identity.sources=$wrong" >"$tmp/cmdline"
    status 2 powernode_choose_sources
    reason_has 'powernode.identity.sources='
done
cloud qemu
status 0 powernode_choose_sources
is 'the default' "$PN_SOURCES_EARLY|$PN_SOURCES_LATE" 'cmdline cloud fw_cfg boot_file|root_file local_id'

# ------------------------------------------------------------------------------------------ absence falls through, and is said

# absent TEXT: the node has no identity from the cloud, and says why.
absent() {
    status 0 powernode_claim_early
    is "without: $1" "$PN_SOURCE|$PN_ID|$(said)" "none||powernode: identity: the metadata service of aws gives none: $1"
    is 'the network is gone' "$(tail -n 1 "$tmp/calls")" 'ip link set dev eth0 down'
}
cloud aws
absent '/latest/api/token is answered with status 404'
is 'the older way is not tried' "$(requests)" 'PUT /latest/api/token;'
cloud aws
answer token 200 TOKEN==
echo "PUT /latest/api/token|X-aws-ec2-metadata-token-ttl-seconds: 60|$tmp/answer-token|0" >"$tmp/answers"
absent '/latest/user-data is answered with status 404'
user_data aws '#cloud-config
users: []'
absent 'its user data names no instance'
# Redirects are not followed.
cloud aws
printf 'HTTP/1.1 302 Found\r\nLocation: http://10.0.0.7/latest/user-data\r\nContent-Length: 0\r\n\r\n' >"$tmp/answer-data"
serve aws
absent '/latest/user-data is answered with status 302'
is 'one address' "$(sed -n '/^nc/p' "$tmp/calls" | uniq)" 'nc 169.254.169.254 80'
# Answers that are none, again and again until the time is over.
for text in '' 'SSH-2.0-x' 'HTTP/1.1 20' 'HTTP/2 200
' 'HTTP/1.1 200 OK'; do
    cloud aws
    printf '%s' "$text" >"$tmp/answer-token"
    echo "*PUT /latest/api/token|Connection: close|$tmp/answer-token|0" >"$tmp/answers"
    case $text in
        '') absent 'nobody answers' ;;
        *) absent 'the answer is not one of HTTP' ;;
    esac
    pn_count=$(wc -l <"$tmp/requests")
    is 'more than once' "$([ "$pn_count" -gt 1 ] && [ "$pn_count" -le 3 ] && echo yes)" yes
done
cloud aws
printf 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nTOKEN\r\n0\r\n\r\n' >"$tmp/answer-token"
echo "*PUT /latest/api/token|Connection: close|$tmp/answer-token|0" >"$tmp/answers"
absent 'the answer comes in chunks'
cloud aws
printf 'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nTOK' >"$tmp/answer-token"
echo "*PUT /latest/api/token|Connection: close|$tmp/answer-token|0" >"$tmp/answers"
absent 'the answer is cut off'
cloud aws
printf 'HTTP/1.1 200 OK\r\n\r\nTOK' >"$tmp/answer-token"
echo "*PUT /latest/api/token|Connection: close|$tmp/answer-token|143" >"$tmp/answers"
absent 'the answer is cut off'
# A connection that stays open is no fault when the length says that everything is there.
user_data aws "$JSON"
sed 's/|0$/|143/' "$tmp/answers" >"$tmp/open"
mv "$tmp/open" "$tmp/answers"
status 0 powernode_claim_early
is 'an open connection' "$PN_SOURCE" cloud
# No card, no lease, no time.
cloud aws
rm -r "$tmp/sys/class/net/eth0"
status 0 powernode_claim_early
is 'no card' "$(said)|$(cat "$tmp/calls")" 'powernode: identity: the metadata service of aws gives none: there is no network card|'
cloud aws
rm "$tmp/offer"
absent 'eth0 gets no address'
is 'until the time is over' "$(cat "$tmp/proc/uptime")" '13.25 1.00'
cloud aws
rm "$tmp/offer"
echo 'powernode.identity.timeout=3' >"$tmp/cmdline"
absent 'eth0 gets no address'
is 'another time' "$(cat "$tmp/proc/uptime")" '14.25 1.00'
for wrong in 0 x -1 601 '' 1.5; do
    cloud aws
    echo "powernode.identity.timeout=$wrong" >"$tmp/cmdline"
    status 2 powernode_claim_early
    reason_has 'powernode.identity.timeout='
done
# A second card, when the first leads nowhere.
user_data aws "$JSON"
mkdir -p "$tmp/sys/class/net/dummy" "$tmp/sys/class/net/eth1/device"
printf '*PUT /latest/api/token|Connection: close|%s|1\n' "$tmp/nothing" >"$tmp/answers"
: >"$tmp/nothing"
cloud_cards() { sed -n 's/^ip link set dev \(.*\) up$/\1/p' "$tmp/calls" | sort | uniq | tr '\n' ' '; }
status 0 powernode_claim_early
is 'asked through both' "$PN_SOURCE" none
is 'the cards' "$(cloud_cards)" 'eth0 eth1 '

# --------------------------------------------------------------------------------------------------------------- the lease

# route STATICROUTES ROUTER WANT: the gateway to the service.
route() {
    printf 'ip 10.0.0.9\nmask 32\nrouter %s\nstaticroutes %s\n' "$2" "$1" >"$PN_CLOUD_DIR/lease"
    status 0 powernode_lease
    is "the way of '$1' '$2'" "$pn_lease_gateway" "$3"
}
cloud aws
PN_CLOUD_DIR=$tmp
route '' '10.0.0.1 10.0.0.2' 10.0.0.1
route '' '' ''
route '0.0.0.0/0 10.0.0.3 169.254.169.254/32 10.0.0.4 10.1.0.0/16 10.0.0.5' 10.0.0.1 10.0.0.4
route '169.254.169.254/32 10.0.0.4 0.0.0.0/0 10.0.0.3' '' 10.0.0.4
route '10.0.0.1/32 0.0.0.0 0.0.0.0/0 10.0.0.1' 10.0.0.9 10.0.0.1
route '169.254.169.254/32 0.0.0.0' 10.0.0.1 ''
for wrong in 'ip 10.0.0.9;x' 'ip
mask 24' 'ip 10.0.0.9
mask 255.255.255.0' 'ip $(id)
mask 24'; do
    printf '%s\n' "$wrong" >"$tmp/lease"
    status 1 powernode_lease
done
interface=eth0 ip=10.0.0.9 mask=24 router=10.0.0.1 PN_LEASE=$tmp/script.out
export interface ip mask router PN_LEASE
sh "$module/powernode-lease.sh" deconfig
is 'no lease yet' "$([ ! -e "$tmp/script.out" ] && echo none)" none
sh "$module/powernode-lease.sh" bound
is 'the lease that the script writes' "$(cat "$tmp/script.out")" 'ip 10.0.0.9
mask 24
router 10.0.0.1
staticroutes '

# ------------------------------------------------------------------------------------------------------- wrong is refused, and once

# refused WANT: the boot stops for that reason.
refused() {
    status 2 powernode_claim_early
    reason_has "$1"
    is 'the network is gone' "$(tail -n 1 "$tmp/calls")" 'ip link set dev eth0 down'
}
user_data aws '{"instance_uuid": "nobody"}'
refused 'user data of aws: instance_uuid is not a UUID'
user_data azure 'not base64!'
refused 'is not base64'
user_data azure 'AAAA='
refused 'is not base64'
user_data aws "$WORDS $(head -c 65600 /dev/zero | tr '\000' x)"
refused 'has more than 65536 bytes'
# The first answer counts: the service has another one ready, and is not asked again.
user_data aws "$JSON"
answer other 200 "{\"instance_uuid\": \"$OTHER\"}"
echo "*GET /latest/user-data|Connection: close|$tmp/answer-other|0" >>"$tmp/answers"
status 0 powernode_claim_early
is 'the first answer' "$PN_ID|$(requests)" "$UUID|PUT /latest/api/token;GET /latest/user-data;"
status 0 powernode_claim_late
is 'and no other' "$PN_ID|$(requests)" "$UUID|PUT /latest/api/token;GET /latest/user-data;"
finish
