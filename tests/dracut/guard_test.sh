#!/bin/sh
# Tests of powernode-guard.sh: which words the kernel command line may hold, what opens with the option recovery, and what the hook before the root
# asks. How it is started: see harness.sh.

# shellcheck source=harness.sh
. "${0%/*}/harness.sh"

HEX=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
DEFAULT='powernode.boot=1 lockdown=integrity ima_appraise=enforce ima_template=ima-ng console=tty1 console=ttyS0,115200'

# closed NAME WORDS: WORDS beside the default command line are refused, the reason begins with NAME, and the same words are taken by an
# image with recovery.
closed() {
    fresh
    printf '%s %s\n' "$DEFAULT" "$2" >"$tmp/cmdline"
    status 2 powernode_guard
    checks=$((checks + 1))
    case $PN_REASON in
        "$1 "*) ;;
        *)
            failures=$((failures + 1))
            printf 'failed: %s\n  expected: a reason that begins with %s\n  actual:   %s\n' "$2" "$1" "$PN_REASON"
            ;;
    esac
    said=$PN_REASON
    : >"$tmp/recovery"
    status 0 powernode_guard
    PN_REASON=$said
}

# open WORDS: the words are taken beside the default command line.
open() {
    fresh
    printf '%s %s\n' "$DEFAULT" "$1" >"$tmp/cmdline"
    status 0 powernode_guard
}

# ------------------------------------------------------------------------------------------------------- words that are taken

open ''
# Every command line that an image brings.
# shellcheck disable=SC2154  # harness.sh sets it
for file in powernode.conf powernode-arm64.conf; do
    # shellcheck disable=SC2154  # harness.sh sets it
    words=$(sed -n 's/^kernel_cmdline+="\(.*\)"$/\1/p' "$settings/$file")
    status 0 test -n "$words"
    open "$words"
done
for file in disk-image-rpi4/cmdline disk-image-arm64-uefi/cmdline raw/cmdline qcow2/cmdline iso/cmdline \
    ipxe/cmdline; do
    status 0 test -s "$stages/$file"
    open "$(cat "$stages/$file")"
done
for file in 10-powernode-amd64.toml 10-powernode-arm64.toml; do
    kargs=$(sed -n 's/^kargs = \[\(.*\)\]$/\1/p' "$overlay/usr/lib/bootc/kargs.d/$file")
    status 0 test -n "$kargs"
    open "$(printf '%s' "$kargs" | tr -d '",' | sed 's/115200/,115200/g')"
done
for words in 'gpt' 'kernel powernode.boot=1' 'initrd=initramfs.cpio.zst' 'BOOT_IMAGE=/powernode/vmlinuz powernode.rootdev=PARTUUID=486f5b15-f974-8e3b-a12b-8cfac826bb1a' \
    'powernode.rootdev=LABEL=POWERNODE_ISO powernode.rootfile=/powernode/root.ext4' 'powernode.install=/dev/vda powernode.install.confirm=yes' \
    'powernode.debug=0' 'console=ttyAMA0,115200 console=ttyS1,115200' 'quiet loglevel=4 panic=30' 'usb-storage.quirks=0bda:9210:u' \
    'coherent_pool=1M 8250.nr_uarts=1 snd_bcm2835.enable_hdmi=1 bcm2708_fb.fbwidth=0 smsc95xx.macaddr=DC:A6:32:00:00:01 vc_mem.mem_base=0x3ec00000' \
    "powernode.root=$HEX" 'powernode.new_word_of_another_release=1' 'root=UUID=0b8f2c1e-1111-4222-8333-444455556666 rw'; do
    open "$words"
done

# ----------------------------------------------------------------------------------------------------- words that are a way round

for place in cmdline pre-udev pre-trigger initqueue pre-mount mount pre-pivot cleanup; do
    closed rd.break= "rd.break=$place"
done
for word in rd.break rd.shell rd.debug rd.info rd.hostonly rd.skipfsck systemd.debug_shell systemd.debug-shell systemd.import_credentials \
    single S s 1 2 3 4 5 emergency rescue auto -b -s -z -- splash ip6 kgdbwait systemd.gpt_auto sysrq_always_enabled; do
    closed "$word" "$word"
done
for word in rd.shell=1 rd.cmdline=ask rd.emergency=reboot rd.memdebug=4 rd.ctty=ttyS0 rd.retry=1 rd.timeout=0 rd.driver.pre=x rd.driver.post=x \
    rd.udev.log_level=debug rd.systemd.unit=x rd.luks=1 rd.hook=x rd.modules_load=x rd_NO_DM=1 init=/bin/sh init=sh init= rdinit=/bin/sh \
    systemd.debug_shell=ttyS0 systemd.default_debug_tty=ttyS0 systemd.run=/bin/true systemd.run_success_action=none systemd.unit=rescue.target \
    systemd.unit=emergency.target systemd.wants=debug-shell.service systemd.mask=powernode-agent.service systemd.setenv=SYSTEMD_SULOGIN_FORCE=1 \
    systemd.set_credential=a:b systemd.set_credential_binary=a:Yg== systemd.import_credentials=1 systemd.import_credentials=0 \
    systemd.extra-unit.x.service=1 systemd.crash_shell=1 systemd.confirm_spawn=1 systemd.volatile=yes systemd.verity=0 systemd.hostname=x \
    systemd.machine_id=0123456789abcdef0123456789abcdef systemd.mount-extra=/dev/vdb:/usr systemd.show_status=0 systemd.log_level=debug \
    systemd.getty_auto=1 systemd.tty.term.console=x fstab=1 mount.usr=/dev/vdb luks.name=x modules-load=x modules_load=x udev.log_level=debug \
    udev.children_max=1 sysctl.kernel.core_pattern=/bin/sh sysctl.kernel.modprobe=/bin/sh SYSTEMD_SULOGIN_FORCE=1 LD_PRELOAD=/x ENV=/x PATH=/x \
    CREDENTIALS_DIRECTORY=/x HOME=/x TERM=x lsm= lsm=capability security=tomoyo TOMOYO_loader=/bin/sh tomoyo=1 kgdboc=ttyS0 kgdboc.kgdboc=ttyS0 \
    lockdown=none lockdown= ima_appraise=off ima_appraise=fix ima_appraise=log firmware_class.path=/persist acpi_rsdp=0x1 \
    efivar_ssdt=x module.sig_enforce=0 drbd.usermode_helper=/bin/sh rootflags=x rd.break=x panic_on_warn=1 cloud-init.x=1; do
    closed "${word%%=*}=" "$word"
done
closed powernode.boot=0 powernode.boot=0
closed powernode.debug powernode.debug=1
closed powernode.debug powernode.debug
closed powernode.boot 'powernode.boot'
closed powernode. 'powernode.'
# A word of the list is a whole word: nothing may come before or after it.
for word in xconsole=tty1 quietly gpt1 rwx power.boot=1 x.powernode.boot=1 Console=tty1; do
    case $word in
        *=*) closed "${word%%=*}=" "$word" ;;
        *) closed "$word" "$word" ;;
    esac
done
# Where the word stands does not matter, nor how many are fine.
closed rd.shell 'quiet rd.shell quiet'
closed single 'quiet
single'
closed single "quiet$(printf '\t')single"
# The star is that of the command line, not one of a file name.
cd "$tmp" || exit 1
closed '*' '*'
closed 'a*=' 'a*=*'

# A value may be a secret, and a name may be long.
closed bootstrap_token= 'bootstrap_token=SECRET'
case $PN_REASON in *SECRET*) is 'the value is not shown' "$PN_REASON" '' ;; *) is 'the value is not shown' 1 1 ;; esac
closed "$(head -c 64 /dev/zero | tr '\000' x)" "$(head -c 500 /dev/zero | tr '\000' x)"

# ------------------------------------------------------------------------------------------- what several readers split differently

closed console= 'console="tty1 init=/bin/sh"'
closed "'systemd.unit=" "'systemd.unit=rescue.target'"
closed '"systemd.unit=' '"systemd.unit=rescue.target"'
closed powernode.x= 'powernode.x="a b"'
closed powernode.x= "powernode.x=a\\"
for byte in '\013' '\014' '\015' '\240' '\033' '\001'; do
    fresh
    printf "%s powernode.x=a${byte}init=/bin/sh\n" "$DEFAULT" >"$tmp/cmdline"
    status 2 powernode_guard
    reason_has 'the kernel command line holds 1 bytes that are not plain text'
done

# ---------------------------------------------------------------------------------------------------------------- certificates

BODY='MIIBszCCAVmgAwIBAgIUQ2Fh MIIBszCCAVmgAwIBAgIUQ2Fhaa== AAA='
for name in powernode.ca powernode.ca_pem; do
    open "$name=-----BEGIN CERTIFICATE----- $BODY -----END CERTIFICATE----- quiet"
    open "$name=\"-----BEGIN CERTIFICATE----- $BODY -----END CERTIFICATE-----\" quiet"
    # As the script of iPXE has it.
    open "\"$name=-----BEGIN CERTIFICATE-----AAAABBBB-----END CERTIFICATE-----\" quiet"
    open "\"$name=-----BEGIN CERTIFICATE-----AAAA-----END CERTIFICATE----------BEGIN CERTIFICATE-----BBBB-----END CERTIFICATE-----\" quiet"
    closed the "$name=-----BEGIN CERTIFICATE-----AAA-----END CERTIFICATE-----"
    closed the "$name=-----BEGIN CERTIFICATE-----AAAA$BODY-----END CERTIFICATE-----x"
    open "$name=-----BEGIN CERTIFICATE----- $BODY -----END CERTIFICATE----- $name=-----BEGIN CERTIFICATE----- AAAA -----END CERTIFICATE-----"
    open "$name=LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t"
    for word in single 1 S s emergency rescue -b init=/bin/sh rd.break lsm= systemd.unit=x init= a=b==== '"' AAAA=A; do
        closed the "$name=-----BEGIN CERTIFICATE----- AAAA $word BBBB -----END CERTIFICATE-----"
        reason_has 'the certificate on the kernel command line is not PEM'
    done
    closed single "$name=-----BEGIN CERTIFICATE----- AAAA -----END CERTIFICATE----- single"
    closed the "$name=-----BEGIN single"
done
closed CERTIFICATE----- 'powernode.x=-----BEGIN CERTIFICATE----- AAAA -----END CERTIFICATE-----'

# -------------------------------------------------------------------------------------------------- a check that cannot be made

fresh
rm "$tmp/cmdline"
status 1 powernode_guard
reason_has 'the kernel command line cannot be read'
fresh
file cmdline "$DEFAULT"
PN_WORDS=$tmp/none
status 1 powernode_guard
reason_has "cannot be read: $tmp/none"
: >"$tmp/none"
status 1 powernode_guard
printf '# only a comment\n\n' >"$tmp/none"
status 1 powernode_guard

# ------------------------------------------------------------------------------------------------------- recovery, and the root

fresh
file cmdline powernode.boot=0
status 2 powernode_decide
reason_has 'asks for the recovery, which this image does not have'
is 'no mode' "$PN_MODE" ''
: >"$tmp/recovery"
status 0 powernode_decide
is 'recovery' "$PN_MODE" recovery

# The root masks what the option recovery unmasks, and it masks all of that.
fresh
mkdir -p "$tmp/root/etc/systemd/system-generators" "$tmp/root/etc/systemd/system"
# shellcheck disable=SC2154  # harness.sh sets it
for mask in $PN_MASKS; do
    is "the root masks $mask" "$(readlink "$overlay/$mask")" /dev/null
    ln -s /dev/null "$tmp/root/$mask"
done
ln -s /dev/null "$tmp/root/etc/systemd/system-generators/systemd-getty-generator"
status 0 powernode_open_root
is 'nothing is unmasked' "$(cd "$tmp/root/etc/systemd/system" && echo *)" \
    'debug-shell.service emergency.service emergency.target rescue.service rescue.target'
: >"$tmp/recovery"
status 0 powernode_open_root
is 'all units are unmasked' "$(ls "$tmp/root/etc/systemd/system")" ''
is 'and the generators of shells' "$(ls "$tmp/root/etc/systemd/system-generators")" systemd-getty-generator

# ------------------------------------------------------------------------------------------------------- before the root is entered

# mounts LINE: what the kernel says is mounted.
mounts() {
    mkdir -p "$tmp/proc"
    printf 'rootfs / rootfs rw 0 0\n%s\nproc /proc proc rw 0 0\n' "$1" >"$tmp/proc/mounts"
}
fresh
file digest $HEX
mounts "powernode $tmp/root overlay rw,verity=require 0 0"
status 1 powernode_check_complete
reason_has 'the boot did not come to its end'
PN_DIGEST=$HEX
status 0 powernode_mark_complete
status 0 powernode_check_complete
for other in "/dev/vda3 $tmp/root ext4 ro 0 0" "powernode $tmp/root tmpfs rw 0 0" "evil $tmp/root overlay rw 0 0" "powernode $tmp/other overlay rw 0 0" \
    "powernode $tmp/root overlay rw 0 0
/dev/vdb $tmp/root ext4 rw 0 0"; do
    mounts "$other"
    status 1 powernode_check_complete
    reason_has 'the verified root is not what is mounted'
done
mounts "powernode $tmp/root overlay rw,verity=require 0 0"
file complete "${HEX%?}e"
status 1 powernode_check_complete
: >"$tmp/complete"
status 1 powernode_check_complete
for bad in '' x "$HEX$HEX"; do
    PN_DIGEST=$bad
    status 1 powernode_mark_complete
done

finish
