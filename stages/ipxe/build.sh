#!/bin/sh
# Puts the network bundle together: scripts with the kernel command line filled in, and boot loaders. Kernel and initramfs belong to
# it too, and are those of kernel-initrd as they are.
#
# What is there when this runs: / is the image-tools tree, /inputs what stage.toml says, /stage/files the scripts and /stage/cmdline
# what this variant adds to the kernel command line.
set -eu
umask 022

fail() {
    echo "ipxe: $*" >&2
    exit 1
}

take() { # take PATH TARGET: a file of the boot loader packages
    [ -s "/inputs/loaders/$1" ] || fail "the boot loader packages hold no /$1"
    cp "/inputs/loaders/$1" "$2"
}

# The settings of dracut, whose values begin and end with a space; each is on a line of its own (src/image/kmod/conf.rs).
plain=$(sed -n 's/^ *kernel_cmdline+="\(.*\)"$/\1/p' /inputs/command-line/powernode.conf "/inputs/command-line/powernode-$PNB_ARCH.conf" | tr -s ' \n' ' ')
plain=${plain# }
plain=${plain% }
case $plain in
    *[!A-Za-z0-9=,._/:\ -]*) fail "the kernel command line holds a character that a script would take for syntax: $plain" ;;
    *powernode.boot=1*) ;;
    *) fail "the kernel command line has no powernode.boot=1: $plain" ;;
esac
recovery=$(printf '%s' "$plain" | sed 's/powernode\.boot=1/powernode.boot=0/')
# iPXE hands the initramfs over by a name that the kernel has to be told.
ipxe="$plain $(cat /stage/cmdline)"

# Lines of a menu that only an image with a recovery has, and only one without.
kept=WITHOUT_RECOVERY dropped=WITH_RECOVERY
if [ -e /inputs/recovery/recovery ]; then
    kept=WITH_RECOVERY dropped=WITHOUT_RECOVERY
fi

# fill SCRIPT TARGET COMMAND_LINE: a script of this stage with everything in it
fill() {
    sed -e "/^@$dropped@ /d" -e "s/^@$kept@ //" -e "s|@COMMAND_LINE@|$3|" -e "s|@RECOVERY_COMMAND_LINE@|$recovery|" -e "s|@ARCH@|$PNB_ARCH|" "/stage/files/$1" >"$2"
    ! grep -q '@[A-Z_]*@' "$2" || fail "a placeholder is left in $1"
}

for script in boot.ipxe autoexec.ipxe template.ipxe template.ipxe.erb; do
    fill "$script" "$script" "$ipxe"
done

case $PNB_ARCH in
    amd64)
        efi=x64 grub=x86_64-efi-signed
        take usr/lib/ipxe/undionly.kpxe undionly.kpxe
        take usr/lib/ipxe/ipxe.lkrn ipxe.lkrn
        ;;
    arm64) efi=aa64 grub=arm64-efi-signed ;;
    *) fail "no boot loaders for the architecture '$PNB_ARCH'" ;;
esac
take "usr/lib/ipxe/ipxe-$PNB_ARCH.efi" ipxe.efi

# The signed GRUB looks for /grub/grub.cfg from the root of the server, be that the bundle or secureboot/ in it.
mkdir -p grub secureboot/grub
take "usr/lib/shim/shim$efi.efi.signed" "secureboot/shim$efi.efi"
# shim asks the server for these two by name.
take "usr/lib/grub/$grub/grubnet$efi.efi.signed" "secureboot/grub$efi.efi"
take "usr/lib/shim/mm$efi.efi.signed" "secureboot/mm$efi.efi"
fill grub.cfg grub/grub.cfg "$plain"
cp grub/grub.cfg secureboot/grub/grub.cfg
