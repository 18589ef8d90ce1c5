#!/bin/sh
# Tests of 90powernode's shell library, without a virtual machine: deciding, the identity, the root, the ready script, refusing. How it
# is started: see harness.sh.

# shellcheck source=harness.sh
. "${0%/*}/harness.sh"

UUID=0b8f2c1e-1111-4222-8333-444455556666
OTHER=99999999-aaaa-4bbb-8ccc-dddddddddddd
HEX=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
PEM='-----BEGIN CERTIFICATE-----
MIIBszCCAVmgAwIBAgIUQ==
-----END CERTIFICATE-----'

fw() {
    mkdir -p "$tmp/fw/$1"
    printf '%s' "$2" >"$tmp/fw/$1/raw"
}

# --------------------------------------------------------------------------------------------------------- command line

fresh
file cmdline "quiet powernode.boot=1 a.powernode.boot=0 powernode.bootx=0 powernode.x=a=b powernode.e= powernode.t=*"
status 0 powernode_cmdline_get powernode.boot
is 'value' "$PN_VALUE" 1
status 0 powernode_cmdline_get powernode.x
is 'value with =' "$PN_VALUE" a=b
status 0 powernode_cmdline_get powernode.e
is 'empty value' "$PN_VALUE" ''
status 1 powernode_cmdline_get powernode.none
cd "$tmp" || exit 1
status 0 powernode_cmdline_get powernode.t
is 'a star stays a star' "$PN_VALUE" '*'
file cmdline "powernode.boot=1 powernode.boot=1"
status 2 powernode_cmdline_get powernode.boot
reason_has '2 times'

# ------------------------------------------------------------------------------------------------------------- deciding

for case in 'powernode.boot=1|0|boot' 'powernode.boot=0|0|recovery' 'quiet|1|' 'powernode.boot=|2|' 'powernode.boot=yes|2|' \
    'powernode.boot=1 powernode.boot=0|2|' 'powernode.boot|1|' 'powernode.boot=01|2|'; do
    fresh
    file cmdline "${case%%|*}"
    case=${case#*|}
    status "${case%%|*}" powernode_decide
    is 'mode' "$PN_MODE" "${case#*|}"
done

# --------------------------------------------------------------------------------------------------------------- digest

fresh
file digest $HEX
status 0 powernode_pinned_digest
is 'digest' "$PN_DIGEST" $HEX
file cmdline "powernode.root=$HEX"
status 0 powernode_pinned_digest
for other in "?$HEX" "sha256:$HEX" '' "${HEX%?}" "${HEX}0" "$HEX powernode.root=$HEX"; do
    file cmdline "powernode.root=$other"
    status 2 powernode_pinned_digest
    is 'no digest is accepted' "$PN_DIGEST" ''
done
fresh
status 1 powernode_pinned_digest
reason_has 'there is no'
for bad in "${HEX%?}" "${HEX}0" "0123456789ABCDEF${HEX#????????????????}" "?$HEX" " ${HEX%?}" "$HEX
$HEX" "g${HEX#?}" ''; do
    file digest "$bad"
    status 2 powernode_pinned_digest
    is 'no digest is accepted' "$PN_DIGEST" ''
done
printf %s $HEX >"$tmp/digest"
status 2 powernode_pinned_digest
printf '%s\000' $HEX >"$tmp/digest"
status 2 powernode_pinned_digest
PN_DIGEST=$HEX
status 0 powernode_same_digest "sha256:$HEX"
status 1 powernode_same_digest "sha512:$HEX"
status 1 powernode_same_digest "$HEX"
status 1 powernode_same_digest "sha256:0${HEX#?}x"
status 1 powernode_same_digest ''
PN_DIGEST=''
status 1 powernode_same_digest 'sha256:'

# ----------------------------------------------------------------------------------------------------------------- UUID

status 0 powernode_check_uuid x $UUID
status 0 powernode_check_uuid x 0B8F2C1E-1111-4222-8333-444455556666
is 'lower case' "$PN_VALUE" $UUID
# shellcheck disable=SC2016  # nothing here may be expanded
for bad in '' nope 0b8f2c1e11114222833344445555666 0b8f2c1e-1111-4222-8333-44445555666 0b8f2c1e-1111-4222-8333-4444555566667 \
    0b8f2c1e-1111-4222-83334-44455556666 g b8f2c1e-1111-4222-8333-444455556666x 00000000-0000-0000-0000-000000000000 \
    '{0b8f2c1e-1111-4222-8333-44445555666}' '$(id)c1e-1111-4222-8333-444455556666' '????????-????-????-????-????????????' \
    '0b8f2c1e-1111-4222-8333-44445555666
' '------------------------------------' 0b8f2c1e--111-4222-8333-444455556666; do
    status 2 powernode_check_uuid x "$bad"
done

# ------------------------------------------------------------------------------------------------- sources, one by one

fresh
file cmdline "powernode.instance_uuid=$UUID powernode.bootstrap_token=tok-1 powernode.platform_url=https://p.example powernode.ca_url=http://p.example/ca.pem powernode.ca=$(printf '%s' "$PEM" | base64 | tr -d '\n')"
status 0 powernode_claim_early
is 'source' "$PN_SOURCE|$PN_ID|$PN_KEY|$PN_SERVER|$PN_CA_URL" "cmdline|$UUID|tok-1|https://p.example|http://p.example/ca.pem"
is 'certificate' "$PN_CA_PEM" "$PEM"
# shellcheck disable=SC2016  # nothing here may be expanded
for bad in powernode.bootstrap_token=a\"b 'powernode.bootstrap_token=$(id)' powernode.bootstrap_token= powernode.ca_url=ftp://x/ \
    powernode.ca_url=https:/// powernode.ca=@@@@ powernode.ca=aGVsbG8= "powernode.instance_uuid=$UUID" powernode.platform_url=p.example; do
    fresh
    file cmdline "powernode.instance_uuid=$UUID $bad"
    status 2 powernode_claim_early
    is 'nothing is claimed' "$PN_SOURCE" none
done

fresh
fw instance_uuid "$UUID
"
fw instance_name 'web 1'
fw bootstrap_token tok-2
fw platform_url https://p.example:8443/x
fw agent_url https://p.example/agent
fw ca_pem "$PEM
"
status 0 powernode_claim_early
is 'source' "$PN_SOURCE|$PN_ID|$PN_NAME|$PN_KEY|$PN_SERVER|$PN_AGENT_URL" "fw_cfg|$UUID|web 1|tok-2|https://p.example:8443/x|https://p.example/agent"
is 'certificate' "$PN_CA_PEM" "$PEM"
fw ca_pem "$PEM
\$(touch $tmp/oops)"
PN_SOURCE=none
status 2 powernode_claim_early
printf '%s\r\n' $UUID >"$tmp/fw/instance_uuid/raw"
rm -r "$tmp/fw/ca_pem"
PN_SOURCE=none
status 0 powernode_claim_early
is 'carriage return' "$PN_ID" $UUID
printf '%s\000' $UUID >"$tmp/fw/instance_uuid/raw"
PN_SOURCE=none
status 2 powernode_claim_early
reason_has 'not plain text'
fw instance_uuid "$UUID
$OTHER"
status 2 powernode_claim_early
reason_has 'more than one line'
fw instance_uuid ''
status 2 powernode_claim_early

fresh
file root/etc/powernode/local-id $UUID
status 0 powernode_claim_late
is 'source' "$PN_SOURCE|$PN_ID" "local_id|$UUID"
fresh
: >"$tmp/root/etc/powernode/local-id"
status 0 powernode_claim_late
is 'an empty local-id claims nothing' "$PN_SOURCE" none

# ------------------------------------------------------------------------------------------------------- identity.cfg

# identity TEXT WANT: what the parser makes of a file, as ID|KEY|SERVER|CA_PEM_FILE.
identity() {
    printf '%s' "$1" >"$tmp/id"
    status 0 powernode_parse_identity "$tmp/id"
    is "identity: $1" "$PN_F_ID|$PN_F_KEY|$PN_F_SERVER|$PN_F_CA_PEM_FILE" "$2"
}
fresh
identity "# comment
 export ID=\"$UUID\"
KEY='a b'

SERVER=https://x # not a comment
CA_PEM_FILE=/boot/powernode-ca.pem
OTHER=\$(ignored)" "$UUID|a b|https://x # not a comment|/boot/powernode-ca.pem"
identity "ID=$UUID" "$UUID|||"
identity '' '|||'
identity "ID=
KEY=''
SERVER=\"\"" '|||'
identity "$(printf 'ID=%s\r\nKEY=k\r\n\r\n# c\r' $UUID)" "$UUID|k||"
identity "$(printf '\texport ID=%s \t' $UUID)" "$UUID|||"
identity 'KEY==' '|=||'
identity 'KEY=a=b' '|a=b||'

# refused TEXT REASON: the parser returns 2 and the reason names it.
refused() {
    printf '%s' "$1" >"$tmp/id"
    status 2 powernode_parse_identity "$tmp/id"
    reason_has "$2"
}
# shellcheck disable=SC2016  # nothing here may be expanded
for bad in 'KEY=$(touch oops)' 'KEY=`touch oops`' 'KEY="a' "KEY=a'b" 'KEY=a\b' 'KEY="$HOME"' "KEY='a'b'" 'KEY="'; do
    refused "$bad" 'line 1: KEY holds a character'
done
refused "ID=$UUID
ID=$OTHER" 'line 2 sets ID again'
refused 'just words' 'line 1 is not KEY=value'
refused '=x' 'line 1 is not KEY=value'
refused 'A B=x' 'line 1 is not KEY=value'
refused 'ID =x' 'line 1 is not KEY=value'
refused '9=x' 'line 1 is not KEY=value'
refused 'KEY=ü' 'not plain text'
refused "KEY=$(head -c 1025 /dev/zero | tr '\000' a)" '1025 characters long'
printf 'ID=%s\000' $UUID >"$tmp/id"
status 2 powernode_parse_identity "$tmp/id"
head -c 10485760 /dev/zero | tr '\000' 'A' >"$tmp/id"
status 2 powernode_parse_identity "$tmp/id"
reason_has 'larger than 65536'
head -c 2002 /dev/zero | tr '\000' '\n' | sed 's/^/#/' >"$tmp/id"
status 2 powernode_parse_identity "$tmp/id"
reason_has 'more than 1000 lines'
status 1 powernode_parse_identity "$tmp/absent"
mkdir "$tmp/directory"
status 1 powernode_parse_identity "$tmp/directory"
ls "$tmp"/oops oops >/dev/null 2>&1
is 'nothing was executed' "$?" "$(ls /nonexistent >/dev/null 2>&1; echo $?)"

fresh
file root/etc/identity.cfg "ID=$UUID
KEY=k
SERVER=https://s.example
CA_PEM_FILE=/etc/ca.pem"
status 0 powernode_claim_late
is 'root file' "$PN_SOURCE|$PN_ID|$PN_KEY|$PN_SERVER|$PN_CA_PEM_FILE" "root_file|$UUID|k|https://s.example|/etc/ca.pem"
fresh
file root/etc/identity.cfg "ID=nope"
status 2 powernode_claim_late
reason_has 'not a UUID'

# The boot partition: unclaimed, claimed, and with a certificate beside the file whatever directory it names.
fresh
file boot/identity.cfg 'ID=
KEY=
SERVER=https://s.example'
status 1 powernode_claim_boot_directory "$tmp/boot"
is 'unclaimed keeps the server' "$PN_ID|$PN_SERVER" '|https://s.example'
file boot/identity.cfg "ID=$UUID
CA_PEM_FILE=/boot/firmware/powernode-ca.pem"
status 2 powernode_claim_boot_directory "$tmp/boot"
reason_has 'not beside it'
file boot/powernode-ca.pem "$PEM"
status 0 powernode_claim_boot_directory "$tmp/boot"
is 'certificate' "$PN_CA_PEM" "$PEM"

# ---------------------------------------------------------------------------------------------------- order of sources

# everywhere: another identity in each place.
everywhere() {
    fresh
    file cmdline "powernode.instance_uuid=11111111-1111-4111-8111-111111111111"
    fw instance_uuid 22222222-2222-4222-8222-222222222222
    file root/etc/identity.cfg ID=33333333-3333-4333-8333-333333333333
    file root/etc/powernode/local-id 44444444-4444-4444-8444-444444444444
}
claim() {
    status 0 powernode_claim_early
    status 0 powernode_claim_late
}
everywhere
claim
is 'first the command line' "$PN_SOURCE|${PN_ID%%-*}" 'cmdline|11111111'
everywhere
: >"$tmp/cmdline"
claim
is 'then fw_cfg' "$PN_SOURCE|${PN_ID%%-*}" 'fw_cfg|22222222'
everywhere
: >"$tmp/cmdline"
rm -r "$tmp/fw/instance_uuid"
claim
is 'then the file' "$PN_SOURCE|${PN_ID%%-*}" 'root_file|33333333'
rm "$tmp/root/etc/identity.cfg"
PN_SOURCE=none
claim
is 'then local-id' "$PN_SOURCE|${PN_ID%%-*}" 'local_id|44444444'
fresh
claim
is 'nothing anywhere' "$PN_SOURCE|$PN_ID" 'none|'
everywhere
file cmdline 'powernode.instance_uuid=nope'
status 2 powernode_claim_early
is 'a wrong one does not fall through' "$PN_SOURCE" none

# ------------------------------------------------------------------------------------------------------------- devices

fresh
# shellcheck disable=SC2016
for bad in '' sda LABEL= LABEL=a/../../x /dev/../etc/passwd 'UUID=$(id)' http://x ../x; do
    status 2 powernode_device powernode.rootdev= "$bad"
done


# store WANT COMMANDLINE: where the root is looked for, as kind|source|file.
store() {
    file cmdline "$2"
    status 0 powernode_find_store
    is "store: $2" "$PN_STORE_KIND|$PN_STORE_SOURCE|$PN_MEDIUM_FILE" "$1"
}
fresh
mkdir -p "$tmp/dev/disk/by-label"
: >"$tmp/dev/sr0"
: >"$tmp/dev/disk/by-label/POWERNODE_ISO"
: >"$tmp/dev/disk/by-label/powernode-root"
store "device|$tmp/dev/disk/by-label/powernode-root|" ''
: >"$tmp/root.ext4"
store "file|$tmp/root.ext4|" ''
store "device|$tmp/dev/sr0|" 'powernode.rootdev=/dev/sr0'
store "medium|$tmp/dev/disk/by-label/POWERNODE_ISO|/powernode/root.ext4" \
    'powernode.rootdev=LABEL=POWERNODE_ISO powernode.rootfile=/powernode/root.ext4'
file cmdline 'powernode.rootfile=/powernode/root.ext4'
status 2 powernode_find_store
reason_has 'powernode.rootfile= needs powernode.rootdev='
file cmdline 'powernode.rootdev=/dev/sr0 powernode.rootfile=/a powernode.rootfile=/b'
status 2 powernode_find_store
reason_has '2 times'
# shellcheck disable=SC2016  # nothing here may be expanded
for bad in '' / a a/b ../x /../x /a/../b /a/./b /a//b /a/ /.a '/a*' '/$(id)' '/a;b' "/a'b" "/$(head -c 255 /dev/zero | tr '\000' a)"; do
    file cmdline "powernode.rootdev=/dev/sr0 powernode.rootfile=$bad"
    status 2 powernode_find_store
    reason_has 'powernode.rootfile= is not a plain absolute path'
done

# A device that shows up while it is waited for, and one that never does.
fresh
seconds=0
sleep() {
    seconds=$((seconds + $1))
    [ "$seconds" -ne 3 ] || : >"$tmp/dev/late"
}
status 0 powernode_device powernode.rootdev= /dev/late
is 'found as soon as it is there' "$seconds|$PN_VALUE" "3|$tmp/dev/late"
seconds=10
status 2 powernode_device powernode.rootdev= /dev/never
reason_has 'that is not there'
is 'ten seconds' "$seconds" 20
unset -f sleep

# The file on the medium.
fresh
mkdir -p "$tmp/run/medium/powernode" "$tmp/elsewhere"
: >"$tmp/run/medium/powernode/root.ext4"
: >"$tmp/elsewhere/root.ext4"
ln -s "$tmp/elsewhere" "$tmp/run/medium/away"
ln -s root.ext4 "$tmp/run/medium/powernode/link"
status 0 powernode_file_on_medium /powernode/root.ext4
is 'the file' "$PN_VALUE" "$tmp/run/medium/powernode/root.ext4"
for bad in /away/root.ext4 /powernode/link; do
    status 1 powernode_file_on_medium "$bad"
    reason_has 'is a symbolic link on the medium'
done
for bad in /powernode /powernode/other; do
    status 1 powernode_file_on_medium "$bad"
    reason_has "the medium holds no $bad"
done

# Each file system is tried, read-only and with nothing on it usable as a program or a device.
mount() {
    printf '%s\n' "$*" >>"$tmp/mounts"
    [ "$2" = "$works" ]
}
PN_MEDIUM_FILE=/powernode/root.ext4
for works in iso9660 vfat ext4; do
    : >"$tmp/mounts"
    status 0 powernode_mount_medium /dev/sr0
    is "mounted as $works" "$(tail -n 1 "$tmp/mounts")" "-t $works -o ro,nodev,nosuid,noexec /dev/sr0 $tmp/run/medium"
done
works=none
status 1 powernode_mount_medium /dev/sr0
reason_has 'cannot be mounted from /dev/sr0 as iso9660, vfat or ext4'
unset -f mount

# ---------------------------------------------------------------------------------------------------- critical files

fresh
mkdir -p "$tmp/root/usr/lib/powernode" "$tmp/root/usr/lib/x86-linux-gnu"
: >"$tmp/root/usr/lib/x86-linux-gnu/libc.so.6"
file root/usr/lib/powernode/critical-files '# comment

usr/lib/*-linux-gnu/libc.so.6'
status 0 powernode_read_critical
file root/usr/lib/powernode/critical-files 'usr/lib/*-linux-gnu/libc.so.6
usr/lib/*-linux-gnu/libm.so.6'
status 1 powernode_read_critical
reason_has '/usr/lib/*-linux-gnu/libm.so.6 of the root is damaged or missing'
rm "$tmp/root/usr/lib/powernode/critical-files"
status 1 powernode_read_critical

# ----------------------------------------------------------------------------------------------------------- hand over

fresh
PN_SOURCE=fw_cfg PN_ID=$UUID PN_KEY=tok PN_SERVER=https://s.example PN_CA_PEM=$PEM PN_DIGEST=$HEX
status 0 powernode_hand_over
is 'identity' "$(grep -v '^#' "$tmp/run/identity")" "SOURCE=fw_cfg
ID='$UUID'
KEY='tok'
SERVER='https://s.example'
CA_PEM_FILE='$tmp/run/ca.pem'"
# shellcheck disable=SC2012  # the mode of one file whose name is known
is 'only root may read it' "$(ls -l "$tmp/run/identity" | cut -c1-10)" '-rw-------'
is 'certificate' "$(cat "$tmp/run/ca.pem")" "$PEM"
is 'digest' "$(cat "$tmp/run/root-digest")" $HEX
# What was handed over can be read back by the same parser.
status 0 powernode_parse_identity "$tmp/run/identity"
is 'read back' "$PN_F_ID|$PN_F_KEY" "$UUID|tok"

# ------------------------------------------------------------------------------------------------------ the ready script

# ready STATE AGENT: what the script of the root prints in the world below $tmp.
ready() {
    (
        sleep() { :; }
        systemctl() { [ "$*" = 'is-active --quiet powernode-agent.service' ] && [ -e "$tmp/agent" ]; }
        set -- "$tmp"
        # shellcheck source=../../stages/root/overlay/usr/lib/powernode/ready
        . "$overlay/usr/lib/powernode/ready"
    )
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
ready 'lockdown=none secure_boot=unavailable firmware=bios persist=none' failed
file sys/kernel/security/lockdown 'none [integrity] confidentiality'
mkdir -p "$tmp/sys/firmware/efi/efivars"
ready 'lockdown=integrity secure_boot=unavailable firmware=uefi persist=none' failed
file sys/kernel/security/lockdown '[none] integrity confidentiality'
variable=$tmp/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
printf '\006\000\000\000\001' >"$variable"
file proc/self/mountinfo '22 1 0:20 / / rw - overlay powernode rw
24 22 8:4 / /persist rw,nosuid,nodev - ext4 /dev/sda4 rw'
mkdir "$tmp/persist"
ready 'lockdown=none secure_boot=on firmware=uefi persist=ok boots=1' failed
file sys/kernel/security/lockdown 'none integrity [confidentiality]'
printf '\006\000\000\000\000' >"$variable"
: >"$tmp/agent"
ready 'lockdown=confidentiality secure_boot=off firmware=uefi persist=ok boots=2' active
rm "$tmp/agent"
# Neither 0 nor 1, or no value at all, is no answer.
printf '\001\000\000\000\002' >"$variable"
ready 'lockdown=confidentiality secure_boot=unavailable firmware=uefi persist=ok boots=3' failed
printf '\006\000\000\001' >"$variable"
# A counter that is none begins again.
file persist/boots 'many'
ready 'lockdown=confidentiality secure_boot=unavailable firmware=uefi persist=ok boots=1' failed
# Consoles without a device of their own: the kernel's way to the console is left.
file sys/class/tty/console/active 'ttyAMA0'
: >"$tmp/dev/console"
(
    sleep() { :; }
    systemctl() { return 1; }
    set -- "$tmp"
    # shellcheck source=../../stages/root/overlay/usr/lib/powernode/ready
    . "$overlay/usr/lib/powernode/ready"
)
is 'the ready line on the console' "$(tr -d '\r' <"$tmp/dev/console" | sed -n 3p)" \
    "powernode: ready instance=$UUID source=fw_cfg root=$HEX agent=failed"

# ---------------------------------------------------------------------------------------------------------------- refusal

# refuse REASON: what the consoles show when powernode_refuse is called. Power off is replaced, as there is no way back from it.
refuse() {
    (
        sleep() { :; }
        powernode_power_off() { echo off >>"$tmp/power"; exit 7; }
        powernode_shell() { echo shell >>"$tmp/power"; }
        powernode_refuse "$1"
    )
}
fresh
echo 'tty1 ttyS0 ttyGone' >"$tmp/active"
: >"$tmp/dev/tty1"
: >"$tmp/dev/ttyS0"
mkdir "$tmp/dev/ttyGone"
: >"$tmp/kmsg"
printf '4\t4\t1\t7\n' >"$tmp/printk"
refuse "bad thing: '$(printf 'a\nb\033[2J')'"
is 'it powers off' "$?|$(cat "$tmp/power")" '7|off'
is 'one line on the first console' "$(cat "$tmp/dev/tty1")" "powernode: refused: bad thing: 'a?b?[2J'"
is 'one line on the second' "$(grep -c . "$tmp/dev/ttyS0")" 1
is 'one line in the log' "$(cat "$tmp/kmsg")" "<7>powernode: refused: bad thing: 'a?b?[2J'"
is 'the log level comes back' "$(cat "$tmp/printk")" 4
fresh
: >"$tmp/dev/console"
refuse "$(head -c 5000 /dev/zero | tr '\000' x)"
is 'a long reason is cut' "$(wc -c <"$tmp/dev/console" | tr -d ' ')" 261
fresh
: >"$tmp/dev/console"
file cmdline powernode.debug=1
refuse x
is 'debug opens a shell, then powers off' "$(cat "$tmp/power")" 'shell
off'
for other in powernode.debug=0 powernode.debug 'powernode.debug=1 powernode.debug=1'; do
    fresh
    : >"$tmp/dev/console"
    file cmdline "$other"
    refuse x
    is "no shell with $other" "$(cat "$tmp/power")" off
done

finish
