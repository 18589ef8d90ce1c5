#!/bin/sh
# Makes GRUB's cores for BIOS: /build/core.img for a disk with a BIOS boot partition, /build/eltorito.img for El Torito; and copies
# the first sectors that go with them: boot.img, boot_hybrid.img.
#
# What is there when this runs: / is the image-tools tree, /inputs/loaders the unpacked boot loader packages of the target.
set -eu
umask 022

modules=/inputs/loaders/usr/lib/grub/i386-pc
for file in boot.img boot_hybrid.img cdboot.img diskboot.img kernel.img normal.mod; do
    if [ ! -s "$modules/$file" ]; then
        echo "the package grub-pc-bin holds no ${modules#/inputs/loaders}/$file" >&2
        exit 1
    fi
done

# A prefix that begins with a comma is completed with the drive the BIOS booted from, so that a second disk with the same
# image cannot be taken for it. Without a script of its own, the core runs $prefix/grub.cfg.
common='biosdisk part_gpt part_msdos normal configfile linux search search_fs_file echo test serial terminal minicmd halt reboot'
# shellcheck disable=SC2086  # a list of words
grub-mkimage -O i386-pc -d "$modules" -p '(,gpt2)/EFI/debian' -o core.img fat $common
# shellcheck disable=SC2086
grub-mkimage -O i386-pc-eltorito -d "$modules" -p /powernode/grub -o eltorito.img iso9660 $common

cp "$modules/boot.img" "$modules/boot_hybrid.img" .
