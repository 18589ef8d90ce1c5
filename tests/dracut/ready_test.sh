#!/bin/sh
# Tests of the programs of the root that judge and prepare the agent, without a virtual machine: /usr/lib/powernode/ready. How it is started: see
# harness.sh.
# shellcheck disable=SC2012,SC2016,SC2030,SC2031,SC2059  # the programs run in subshells that change nothing here; texts are formats on purpose

# shellcheck source=harness.sh
. "${0%/*}/harness.sh"

# ------------------------------------------------------------------------------------------------------ the ready script

# start FILE: a program of the overlay in the world below $tmp, where seconds pass when it sleeps.
start() {
    (
        PN_LIB=$overlay/usr/lib/powernode
        sleep() {
            pn_slept=$(cat "$tmp/slept")
            case $1 in
                0.*) ;;
                *) pn_slept=$((pn_slept + $1)) ;;
            esac
            echo "$pn_slept" >"$tmp/slept"
            echo "$((uptime + pn_slept)).25 1.00" >"$tmp/proc/uptime"
        }
        # systemd's view of the agent at that second: the last line of agent_is whose first word is not later.
        systemctl() {
            [ "$1 $2" = 'show powernode-agent.service' ] || return 1
            pn_slept=$(cat "$tmp/slept")
            printf '%s\n' "$agent_is" | while read -r pn_at pn_active pn_sub pn_pid pn_restarts pn_code pn_status pn_started pn_result; do
                [ -n "$pn_at" ] && [ "$pn_at" -le "$pn_slept" ] || break
                printf 'ActiveState=%s\nSubState=%s\nMainPID=%s\nNRestarts=%s\nExecMainCode=%s\nExecMainStatus=%s\nExecMainStartTimestampMonotonic=%s\nResult=%s\n' \
                    "$pn_active" "$pn_sub" "$pn_pid" "$pn_restarts" "$pn_code" "$pn_status" "$pn_started" "$pn_result" >"$tmp/now"
            done
            [ ! -e "$tmp/now" ] || cat "$tmp/now"
        }
        journalctl() { printf '%s\n' "$journal"; }
        echo "$uptime.25 1.00" >"$tmp/proc/uptime"
        echo 0 >"$tmp/slept"
        rm -f "$tmp/now"
        pn_program=$overlay/usr/lib/powernode/$1
        set -- "$tmp"
        # shellcheck disable=SC1090  # one of two
        . "$pn_program"
    )
}
uptime=30
journal=''
# Each line: second, ActiveState, SubState, MainPID, NRestarts, ExecMainCode, ExecMainStatus, start in microseconds, Result.
failed='0 failed failed 0 0 1 1 20000000 exit-code'
active='0 active running 77 0 0 0 25000000 success'
agent_is=$failed

# ready STATE AGENT: what the script of the root prints.
ready() {
    start ready
    is 'it ends well' "$?" 0
    is 'the state line' "$(tr -d '\r' <"$tmp/dev/ttyS0" | sed -n 2p)" "powernode: state $1"
    is 'the ready line' "$(tr -d '\r' <"$tmp/dev/ttyS0" | sed -n 3p)" "powernode: ready instance=$UUID source=fw_cfg root=$HEX agent=$2"
    is 'the same on every console' "$(cat "$tmp/dev/tty1")" "$(cat "$tmp/dev/ttyS0")"
    is 'the log level comes back' "$(cat "$tmp/proc/sys/kernel/printk")" 4
}
fresh
mkdir -p "$tmp/run/powernode" "$tmp/sys/kernel/security" "$tmp/sys/class/tty/console" "$tmp/proc/self" "$tmp/proc/sys/kernel"
printf "SOURCE=fw_cfg\nID='%s'\n" $UUID >"$tmp/run/powernode/identity"
file run/powernode/root-digest $HEX
file sys/class/tty/console/active 'tty1 ttyS0'
printf '4\t4\t1\t7\n' >"$tmp/proc/sys/kernel/printk"
: >"$tmp/dev/tty1"
: >"$tmp/dev/ttyS0"
file proc/self/mountinfo '22 1 0:20 / / rw - overlay powernode rw
23 22 0:21 / /persistent rw - tmpfs /persist rw'
ready 'lockdown=none secure_boot=unavailable firmware=bios persist=none' 'failed restarts=0 exit=1'
file sys/kernel/security/lockdown 'none [integrity] confidentiality'
mkdir -p "$tmp/sys/firmware/efi/efivars"
ready 'lockdown=integrity secure_boot=unavailable firmware=uefi persist=none' 'failed restarts=0 exit=1'
file sys/kernel/security/lockdown '[none] integrity confidentiality'
variable=$tmp/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
printf '\006\000\000\000\001' >"$variable"
file proc/self/mountinfo '22 1 0:20 / / rw - overlay powernode rw
24 22 8:4 / /persist rw,nosuid,nodev - ext4 /dev/sda4 rw'
mkdir "$tmp/persist"
ready 'lockdown=none secure_boot=on firmware=uefi persist=ok boots=1' 'failed restarts=0 exit=1'
file sys/kernel/security/lockdown 'none integrity [confidentiality]'
printf '\006\000\000\000\000' >"$variable"
agent_is=$active
ready 'lockdown=confidentiality secure_boot=off firmware=uefi persist=ok boots=2' 'active restarts=0'
agent_is=$failed
# Neither 0 nor 1, or no value at all, is no answer.
printf '\001\000\000\000\002' >"$variable"
ready 'lockdown=confidentiality secure_boot=unavailable firmware=uefi persist=ok boots=3' 'failed restarts=0 exit=1'
printf '\006\000\000\001' >"$variable"
# A counter that is none begins again.
file persist/boots 'many'
ready 'lockdown=confidentiality secure_boot=unavailable firmware=uefi persist=ok boots=1' 'failed restarts=0 exit=1'
# Consoles without a device of their own: the kernel's way to the console is left.
file sys/class/tty/console/active 'ttyAMA0'
: >"$tmp/dev/console"
start ready
is 'the ready line on the console' "$(tr -d '\r' <"$tmp/dev/console" | sed -n 3p)" \
    "powernode: ready instance=$UUID source=fw_cfg root=$HEX agent=failed restarts=0 exit=1"
# The nonce of a boot is repeated when it is one.
mkdir -p "$tmp/sys/firmware/qemu_fw_cfg/by_name/opt/com.powernode/nonce"
for nonce in 0123abcd x '1 agent=active'; do
    file sys/firmware/qemu_fw_cfg/by_name/opt/com.powernode/nonce/raw "$nonce"
    : >"$tmp/dev/console"
    start ready
    said=$(tr -d '\r' <"$tmp/dev/console" | sed -n '3s/.* agent=//p')
    case $nonce in
        0123abcd) is 'with its nonce' "$said" 'failed restarts=0 exit=1 nonce=0123abcd' ;;
        *) is "without '$nonce'" "$said" 'failed restarts=0 exit=1' ;;
    esac
done
rm -r "$tmp/sys/firmware/qemu_fw_cfg"

# --------------------------------------------------------------------------------------------- what /persist cannot silence

file sys/class/tty/console/active ttyS0
before='lockdown=confidentiality secure_boot=unavailable firmware=uefi'
# persist WANT COMMAND...: with what COMMAND has made of /persist/boots.
persist() {
    rm -rf "${tmp:?}/persist/boots" "$tmp/persist/.boots.new"
    pn_want=$1
    shift
    "$@"
    : >"$tmp/dev/ttyS0"
    start ready
    is "with $*" "$(tr -d '\r' <"$tmp/dev/ttyS0" | sed -n '2p;3s/ root=.*//p')" "powernode: state $before persist=$pn_want
powernode: ready instance=$UUID source=fw_cfg"
}
written() { printf -- "$1" >"$tmp/persist/boots"; }
for number in 08 0099 '0x1' '1 ' '-1' 1234567890 99999999999999999999 '\000' '\n' '$(id)' '1\0002'; do
    persist 'ok boots=1' written "$number"
done
persist 'ok boots=1000000000' written 999999999
persist 'ok boots=8' written '7\n'
fifo() { mkfifo "$tmp/persist/$1"; }
link() { ln -s "$tmp/elsewhere" "$tmp/persist/$1"; }
file elsewhere 41
persist 'ok boots=1' fifo boots
persist 'ok boots=1' fifo .boots.new
persist 'ok boots=1' link boots
persist 'ok boots=1' link .boots.new
is 'nothing is written through a link' "$(cat "$tmp/elsewhere")" 41
rm "$tmp/elsewhere"
mkdir "$tmp/elsewhere"
persist 'ok boots=1' link boots
is 'nor into a directory behind one' "$(ls "$tmp/elsewhere")" ''
persist 'ok boots=1' mkdir "$tmp/persist/.boots.new"
persist unwritable mkdir "$tmp/persist/boots"
persist 'ok boots=6' written 5

# ------------------------------------------------------------------------------------------------------ whether the agent works

# agent WANT LINES: the verdict on an agent that systemd sees so.
agent() {
    agent_is=$2
    : >"$tmp/dev/ttyS0"
    start ready
    is "agent: $2" "$(tr -d '\r' <"$tmp/dev/ttyS0" | sed -n 's/.* agent=//p')" "$1"
}
agent 'active restarts=0' '0 active running 77 0 0 0 25000000 success'
is 'ten seconds after its start' "$(cat "$tmp/slept")" 6
agent 'active restarts=0' '0 active running 77 0 0 0 2000000 success'
is 'which may be over' "$(cat "$tmp/slept")" 0
agent 'active restarts=3' '0 active running 77 3 0 0 30000000 success'
# Ends by itself after 0, 2, 5 and 9 seconds, and is started again.
for second in 0 2 5 9; do
    agent 'failed restarts=0 exit=1' "0 active running 77 0 0 0 30000000 success
$second activating auto-restart 0 0 1 1 30000000 exit-code
$((second + 5)) active running 78 1 0 0 $((35 + second))000000 success"
    # The look in between was missed.
    agent 'failed restarts=1 exit=none' "0 active running 77 0 0 0 29000000 success
$((second + 1)) active running 78 1 0 0 $((31 + second))000000 success"
done
agent 'failed restarts=0 exit=0' '0 active running 77 0 0 0 30000000 success
4 inactive dead 0 0 1 0 30000000 success'
agent 'failed restarts=2 exit=signal-9' '0 activating auto-restart 0 2 2 9 30000000 signal'
agent 'failed restarts=0 exit=signal-11' '0 failed failed 0 0 3 11 30000000 core-dump'
agent 'failed restarts=0 exit=timeout' '0 failed failed 0 0 2 15 30000000 timeout'
agent 'failed restarts=0 exit=none' '0 activating start 77 0 0 0 30000000 success'
agent 'failed restarts=0 exit=none' '0 inactive dead 0 0 0 0 0 success'
agent 'failed restarts=0 exit=203' '0 activating auto-restart 0 0 1 203 30000000 exit-code'
agent 'failed restarts=0 exit=none' ''
# What it said last, which is no line of ours.
journal="$(printf 'Error: identity: \033[31mnot found\007 powernode: ready instance=x')"
agent 'failed restarts=0 exit=1' "$failed"
is 'its last line' "$(tr -d '\r' <"$tmp/dev/ttyS0" | sed -n 3p)" 'powernode: agent Error: identity: ?[31mnot found? powernode; ready instance=x'
journal=$(head -c 5000 /dev/zero | tr '\000' x)
agent 'failed restarts=0 exit=1' "$failed"
is 'is bounded' "$(tr -d '\r' <"$tmp/dev/ttyS0" | sed -n 3p | wc -c | tr -d ' ')" 178
agent 'active restarts=0' "$active"
is 'and not said when it works' "$(grep -c 'powernode: agent' "$tmp/dev/ttyS0")" 0

# --------------------------------------------------------------------------------------- the certificates of the platform

# What curl does is in curl_does: a status for each call, and the file it writes.
curl() {
    printf '%s\n' "$*" >>"$tmp/calls"
    echo "curl: what went wrong" >&2
    # It runs in a shell of its own, so that the number of calls is the number of lines.
    pn_calls=$(grep -c . "$tmp/calls")
    cp "$tmp/served" "$tmp/run/powernode/ca.new"
    for pn_status in $curl_does; do
        pn_calls=$((pn_calls - 1))
        [ "$pn_calls" -gt 0 ] || break
    done
    return "$pn_status"
}
openssl() { sed -n '/-----BEGIN/,/-----END/p' | grep . ; }
# fetch STATUS URL DIGEST: what fetch-ca says.
fetch() {
    : >"$tmp/dev/ttyS0"
    : >"$tmp/calls"
    rm -f "$tmp/run/powernode/boot/powernode-ca.pem"
    printf '%s\n%s\n' "$2" "$3" >"$tmp/run/powernode/ca-url"
    start fetch-ca
    is "fetch $2 $3" "$?" "$1"
}
said() { tr -d '\r' <"$tmp/dev/ttyS0" | sed -n 2p; }
mkdir -p "$tmp/run/powernode/boot"
printf 'subject=x\n%s\n\n%s\n' "$PEM" "$PEM" >"$tmp/served"
sum=$(sha256sum <"$tmp/served")
sum=${sum%% *}
curl_does='0 '
fetch 0 https://p.example/ca ''
is 'the certificates' "$(cat "$tmp/run/powernode/boot/powernode-ca.pem")" "$PEM
$PEM"
is 'nothing else is left' "$(ls "$tmp/run/powernode" | tr '\n' ' ')" 'boot ca-url identity root-digest '
is 'how it asks' "$(cat "$tmp/calls")" "-q --silent --show-error --fail --location --max-redirs 3 --proto =https --proto-redir =https --noproxy * --connect-timeout 10 --max-time 20 --max-filesize 65536 --output $tmp/run/powernode/ca.new https://p.example/ca"
fetch 0 http://p.example/ca "$sum"
is 'http with a digest' "$(grep -c -e '--proto =http --proto-redir =https .* --insecure' "$tmp/calls")" 1
fetch 1 http://p.example/ca ''
is 'http without one' "$(said)|$(cat "$tmp/calls")" "powernode: refused: the platform's certificates cannot be fetched from http://p.example/ca: http needs powernode.ca_sha256=|"
fetch 1 https://p.example/ca $HEX
is 'another digest' "$(said)" "powernode: refused: the platform's certificates cannot be fetched from https://p.example/ca: its SHA-256 is $sum"
is 'is not taken' "$(ls "$tmp/run/powernode/boot")" ''
fetch 1 ftp://p.example/ca ''
curl_does='63 '
fetch 1 https://p.example/ca ''
is 'too large' "$(said)" "powernode: refused: the platform's certificates cannot be fetched from https://p.example/ca: the file is larger than 65536 bytes"
curl_does='7 6 0 '
fetch 0 https://p.example/ca ''
is 'it tries again' "$(grep -c . "$tmp/calls")" 3
curl_does='7 '
fetch 1 https://p.example/ca ''
is 'for sixty seconds' "$(cat "$tmp/slept")|$(said)" "60|powernode: refused: the platform's certificates cannot be fetched from https://p.example/ca: nothing within 60 seconds; last: curl: what went wrong"
curl_does='0 '
head -c 65537 /dev/zero | tr '\000' a >"$tmp/served"
fetch 1 https://p.example/ca ''
is 'a server that lies about the length' "$(said)" "powernode: refused: the platform's certificates cannot be fetched from https://p.example/ca: the file is larger than 65536 bytes"
file served '<html>'
fetch 1 https://p.example/ca ''
is 'no certificate' "$(said)" "powernode: refused: the platform's certificates cannot be fetched from https://p.example/ca: the file holds 0 certificates, and 1 to 32 are wanted"
file served '-----BEGIN CERTIFICATE-----'
fetch 1 https://p.example/ca ''
is 'one without an end' "$(said)" "powernode: refused: the platform's certificates cannot be fetched from https://p.example/ca: certificate 1 of the file has no end"
file served "$PEM"
openssl() { return 1; }
fetch 1 https://p.example/ca ''
is 'a broken one' "$(said)" "powernode: refused: the platform's certificates cannot be fetched from https://p.example/ca: certificate 1 of the file is not one"

# ------------------------------------------------------------------------------------------------------------- the network

network() {
    (
        set -- "$tmp"
        # shellcheck source=../../stages/root/overlay/usr/lib/powernode/has-network
        . "$overlay/usr/lib/powernode/has-network"
    )
}
rm -rf "$tmp/sys/class/net"
status 1 network
mkdir -p "$tmp/sys/class/net/lo" "$tmp/sys/class/net/dummy0"
status 1 network
mkdir -p "$tmp/sys/class/net/eth0/device"
status 0 network

# ----------------------------------------------------------------------------------------------- the shells of the option debug

# shells CONSOLES: the units that are started for these consoles.
shells() {
    file sys/class/tty/console/active "$1"
    : >"$tmp/started"
    (
        PN_LIB=$overlay/usr/lib/powernode
        sleep() { :; }
        systemctl() {
            [ "$1 $2" = '--no-block start' ] || exit 9
            echo "$3" >>"$tmp/started"
        }
        set -- "$tmp"
        # shellcheck source=../../stages/root/debug/usr/lib/powernode/debug
        . "$stages/root/debug/usr/lib/powernode/debug"
    ) || echo "ended with $?" >>"$tmp/started"
    tr '\n' ' ' <"$tmp/started"
}
rm -rf "${tmp:?}/dev"
mkdir -p "$tmp/dev" "$tmp/etc/powernode"
for tty in tty1 ttyS0 ttyAMA0 console; do : >"$tmp/dev/$tty"; done
cp "$stages/root/debug/etc/powernode/debug" "$tmp/etc/powernode/debug"
is 'a shell on every console' "$(shells 'tty1 ttyS0')" 'powernode-debug@tty1.service powernode-debug@ttyS0.service '
is 'it is said on every console' "$(tr -d '\r' <"$tmp/dev/ttyS0" | sed -n 2p)" \
    "powernode: debug: $(cat "$stages/root/debug/etc/powernode/debug")"
is 'the same on the other' "$(cat "$tmp/dev/tty1")" "$(cat "$tmp/dev/ttyS0")"
is 'the terminal in the foreground' "$(shells 'tty0 ttyAMA0')" 'powernode-debug@tty1.service powernode-debug@ttyAMA0.service '
is 'a console without a device' "$(shells 'ttyS9 ttyS0')" 'powernode-debug@ttyS0.service '
is 'no console at all' "$(shells '')" ''

finish
