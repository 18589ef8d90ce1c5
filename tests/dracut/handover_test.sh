#!/bin/sh
# Tests of what the root gets of the identity, without a virtual machine: /boot, /run/powernode, and what the agent must not see. Mounting is a
# function that writes down how it was called. How it is started: see harness.sh.

# shellcheck source=harness.sh
. "${0%/*}/harness.sh"

mount() {
    printf 'mount %s\n' "$*" | sed "s|$tmp|T|g" >>"$tmp/calls"
    case "$*" in
        *"${mount_fails:-no such mount}"*) return 1 ;;
    esac
}
calls() { cat "$tmp/calls"; }
flags=ro,nosuid,nodev,noexec,nosymfollow

# modes FILE: the letters of its permissions.
# shellcheck disable=SC2012  # the mode of one file whose name is known
modes() { ls -l "$1" | cut -c1-10; }

# world: nothing claimed, and no boot partition.
world() {
    fresh
    : >"$tmp/dev/console"
    : >"$tmp/calls"
    mkdir -p "$tmp/root/boot"
    PN_DIGEST=$HEX
    file cmdline 'powernode.boot=1 quiet'
}

# ---------------------------------------------------------------------------------------------------------- the files

world
PN_SOURCE=fw_cfg PN_ID=$UUID PN_KEY='tok 1' PN_SERVER=https://s.example PN_CA_PEM=$PEM PN_NAME='web 1'
fw instance_uuid "$UUID"
status 0 powernode_hand_over
is 'identity.cfg as the agent reads it' "$(sed '/^#/d' "$tmp/run/boot/identity.cfg")" "ID=$UUID
KEY=tok 1
SERVER=https://s.example
CA_PEM_FILE=/boot/powernode-ca.pem"
is 'the certificates' "$(cat "$tmp/run/boot/powernode-ca.pem")" "$PEM"
is 'the record' "$(sed '/^#/d' "$tmp/run/identity")" "SOURCE=fw_cfg
ID='$UUID'
KEY='tok 1'
SERVER='https://s.example'
CA_PEM_FILE='/boot/powernode-ca.pem'
NAME='web 1'"
is 'only root may read them' "$(modes "$tmp/run/identity")|$(modes "$tmp/run/boot/identity.cfg")" '-rw-------|-rw-------'
is 'digest' "$(cat "$tmp/run/root-digest")" $HEX
is '/boot without a boot partition' "$(calls)" "mount --bind T/run/boot T/root/boot
mount -o remount,bind,$flags T/root/boot"
# What was handed over can be read back by the same parser.
status 0 powernode_parse_identity "$tmp/run/boot/identity.cfg"
is 'read back' "$PN_F_ID|$PN_F_KEY|$PN_F_CA_PEM_FILE" "$UUID|tok 1|/boot/powernode-ca.pem"
status 0 powernode_parse_identity "$tmp/run/identity"
is 'read back' "$PN_F_ID|$PN_F_KEY" "$UUID|tok 1"

# A medium that waits for somebody to claim it: its server and certificates, and no instance.
world
PN_UNCLAIMED=1 PN_UNCLAIMED_SERVER=https://s.example PN_UNCLAIMED_CA_PEM=$PEM
status 0 powernode_hand_over
is 'an unclaimed medium' "$(sed '/^#/d' "$tmp/run/boot/identity.cfg")" "ID=
KEY=
SERVER=https://s.example
CA_PEM_FILE=/boot/powernode-ca.pem"
is 'its certificates' "$(cat "$tmp/run/boot/powernode-ca.pem")" "$PEM"
is 'and the record' "$(sed -n 's/^SOURCE=//p' "$tmp/run/identity")" none
# They do not count when another source has an identity.
world
PN_UNCLAIMED=1 PN_UNCLAIMED_SERVER=https://evil.example PN_UNCLAIMED_CA_PEM=$PEM
PN_SOURCE=root_file PN_ID=$UUID PN_KEY=k
status 0 powernode_hand_over
is 'nothing of the medium' "$(sed '/^#/d' "$tmp/run/boot/identity.cfg")" "ID=$UUID
KEY=k
SERVER=
CA_PEM_FILE="
is 'and not its certificates' "$(ls "$tmp/run/boot")" identity.cfg
# Nobody and nothing: the agent looks further.
world
status 0 powernode_hand_over
is 'no file' "$(ls "$tmp/run/boot")" ''

# Certificates that the root has to fetch.
world
PN_SOURCE=cmdline PN_ID=$UUID PN_CA_URL=http://s.example/ca PN_CA_SHA256=$HEX
status 0 powernode_hand_over
is 'what to fetch' "$(cat "$tmp/run/ca-url")" "http://s.example/ca
$HEX"
is 'where it will be' "$(sed -n 's/^CA_PEM_FILE=//p' "$tmp/run/boot/identity.cfg")" /boot/powernode-ca.pem

# ---------------------------------------------------------------------------------------------------------------- /boot

# partition_of: a boot partition with these entries.
partition_of() {
    world
    PN_SOURCE=boot_file PN_ID=$UUID
    PN_ESP=$tmp/run/esp
    mkdir -p "$PN_ESP"
    for pn_made in "$@"; do
        case $pn_made in
            */) mkdir -p "$PN_ESP/$pn_made" ;;
            *) echo foreign >"$PN_ESP/$pn_made" ;;
        esac
    done
}
partition_of EFI/ config.txt Identity.CFG powernode-ca.PEM kernel8.img 'two words' .hidden "q'uote"
ln -s /etc/shadow "$PN_ESP/link"
status 0 powernode_hand_over
is 'the entries of the partition' "$(calls)" "mount --bind T/run/boot T/root/boot
mount --bind T/run/esp/EFI T/root/boot/EFI
mount --bind T/run/esp/config.txt T/root/boot/config.txt
mount --bind T/run/esp/kernel8.img T/root/boot/kernel8.img
mount -o remount,bind,$flags T/root/boot"
is 'a place for each' "$(cat "$tmp/run/boot/config.txt")$(ls "$tmp/run/boot")" 'EFI
config.txt
identity.cfg
kernel8.img'
is 'what is left out is said' "$(cat "$tmp/dev/console")" 'powernode: boot: /boot leaves out 3 entries of the boot partition'
is 'the identity is ours' "$(sed -n 's/^ID=//p' "$tmp/run/boot/identity.cfg")" "$UUID"
partition_of
for number in 0 1 2 3 4 5 6 7 8 9; do
    for other in a b c d e f g; do : >"$PN_ESP/$other$number"; done
done
status 0 powernode_hand_over
is 'no more than 64' "$(grep -c 'T/run/esp/' "$tmp/calls")|$(cat "$tmp/dev/console")" \
    '64|powernode: boot: /boot leaves out 6 entries of the boot partition'
partition_of
status 0 powernode_hand_over
is 'an empty partition' "$(grep -c . "$tmp/calls")|$(cat "$tmp/dev/console")" '2|'
for mount_fails in run/esp/EFI run/boot remount; do
    partition_of EFI/
    status 1 powernode_hand_over
    reason_has '/boot'
done
mount_fails=''

# Mounting the partition, once, by its name.
world
: >"$tmp/dev/vda2"
file cmdline powernode.bootdev=/dev/vda2
status 0 powernode_mount_boot
status 0 powernode_mount_boot
is 'the partition' "$(calls)|${PN_ESP#"$tmp"}" "mount -t vfat -o $flags,umask=0077 T/dev/vda2 T/run/esp|/run/esp"
world
: >"$tmp/dev/vda2"
file cmdline powernode.bootdev=/dev/vda2
mount_fails=vfat
status 2 powernode_claim_early
reason_has "the boot partition $tmp/dev/vda2 cannot be mounted"
is 'nothing is mounted' "$PN_ESP" ''
# Another source has the identity: the node boots, and says what is missing.
PN_SOURCE=cmdline PN_ID=$UUID
status 0 powernode_hand_over
is 'it is said' "$(cat "$tmp/dev/console")" "powernode: boot: /boot is without the boot partition: the boot partition $tmp/dev/vda2 cannot be mounted"
mount_fails=''
world
status 1 powernode_mount_boot

# ------------------------------------------------------------------------------------------- what the agent must not see

# hidden COMMANDLINE: what is left of the kernel command line.
hidden() {
    world
    PN_SOURCE=cmdline PN_ID=$UUID
    file cmdline "$1"
    status 0 powernode_hide_sources
    is "left of $1" "$(cat "$tmp/run/cmdline")" "$2"
    is 'it is bound on the other' "$(calls)" "mount --bind T/run/cmdline T/cmdline
mount -o remount,bind,$flags T/cmdline"
}
hidden "powernode.boot=1 powernode.instance_uuid=$UUID powernode.bootstrap_token=t powernode.platform_url=https://x powernode.ca=YQ== quiet" \
    'powernode.boot=1 quiet'
hidden "powernode.instance_uuid=$UUID \"powernode.ca_pem=-----BEGIN x-----\" powernode.ca_url=https://x powernode.ca_sha256=$HEX a=\"b c\"" 'a="b c"'
hidden "\"powernode.instance_uuid=$UUID\" powernode.instance_uuidx=1 x" 'powernode.instance_uuidx=1 x'
hidden "a powernode.ca=-----BEGIN CERTIFICATE----- AAAA BBBB -----END CERTIFICATE----- b" 'a b'
hidden "a powernode.ca=-----BEGIN CERTIFICATE-----AAAA-----END CERTIFICATE----------BEGIN CERTIFICATE-----AAAA-----END CERTIFICATE----- b" 'a b'
hidden "a \"powernode.ca=-----BEGIN CERTIFICATE-----AAAA-----END CERTIFICATE-----\" b" 'a b'
hidden "x powernode.bootstrap_token=\"a b powernode.boot=1" 'x'
world
status 0 powernode_hide_sources
is 'nothing to hide' "$(calls)" ''
for mount_fails in --bind remount; do
    world
    file cmdline "powernode.instance_uuid=$UUID"
    status 1 powernode_hide_sources
    reason_has 'the identity on the kernel command line cannot be hidden'
done
mount_fails=''
# fw_cfg, when another source was claimed.
world
fw instance_uuid $OTHER
PN_SOURCE=cmdline
status 0 powernode_hide_sources
is 'an empty file on the instance' "$(calls)|$(cat "$tmp/run/nothing")" 'mount --bind T/run/nothing T/fw/instance_uuid/raw|'
mount_fails=nothing
status 1 powernode_hide_sources
reason_has 'the identity in fw_cfg, which was not claimed, cannot be hidden'
mount_fails=''
world
fw instance_uuid $OTHER
PN_SOURCE=fw_cfg
status 0 powernode_hide_sources
is 'the claimed source stays' "$(calls)" ''

# ------------------------------------------------------------------------------------------------------------ programs

# Nothing below /run/powernode can be started but what is in exec.
world
status 0 powernode_mount_run
is 'the file systems in memory' "$(calls)" "mount -t tmpfs -o mode=0755,nodev,nosuid,noexec,size=50% powernode T/run
mount -t tmpfs -o mode=0755,nodev,nosuid,size=16m powernode-exec T/run/exec"
mount_fails=powernode-exec
status 1 powernode_mount_run
reason_has 'run/exec cannot be mounted'

finish
