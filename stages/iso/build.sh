#!/bin/sh
# Makes /build/install.iso, which boots as a CD and as a USB stick.
#
#   El Torito, BIOS     (amd64) eltorito.img, GRUB's core, which reads /powernode/grub/grub.cfg
#   El Torito, UEFI     the EFI image, which is also partition 2
#   sector 0            (amd64) boot_hybrid.img, for BIOS from a USB stick
#   /powernode          kernel, initramfs, root.ext4, the plan and the parts of the disk that `powernode.install=` writes
#   /EFI/debian         the boot menu again: from a CD, the signed GRUB looks for it on the CD and not in the EFI image
#
# What is there when this runs: / is the image-tools tree, /inputs what stage.toml says.
set -eu
umask 022
# xorriso makes the medium's capital letters as the locale has them: in Turkish, i has another one.
export LC_ALL=C

fail() {
    echo "iso: $*" >&2
    exit 1
}

digest=$(cat /inputs/root-digest)
# The GUIDs of version 8 are made of the digest: another root, another medium.
uuid=$(printf '%s-%s-8%s-8%s-%s' "$(echo "$digest" | cut -c 1-8)" "$(echo "$digest" | cut -c 9-12)" \
    "$(echo "$digest" | cut -c 13-15)" "$(echo "$digest" | cut -c 16-18)" "$(echo "$digest" | cut -c 19-30)")
date=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S00)

mkdir -p tree/powernode/grub tree/EFI/debian
printf '%s\n' "$digest" >"tree/powernode/$digest"
cp /inputs/grub.cfg tree/powernode/grub/grub.cfg
cp /inputs/grub.cfg tree/EFI/debian/grub.cfg
# What a BIOS boots. The boot image has a table of its place written into it, so it must be a copy.
set --
if [ "$PNB_ARCH" = amd64 ]; then
    cp /inputs/eltorito.img tree/powernode/grub/eltorito.img
    chmod 0644 tree/powernode/grub/eltorito.img
    set -- -b powernode/grub/eltorito.img -no-emul-boot -boot-load-size 4 -boot-info-table --grub2-boot-info \
        --grub2-mbr /inputs/boot_hybrid.img -iso_mbr_part_type 83 -eltorito-alt-boot
fi

xorriso -as mkisofs -quiet -o /build/install.iso \
    -r -V POWERNODE_ISO -A 'POWERNODE' -publisher '' -preparer '' \
    --modification-date="$date" --set_all_file_dates "=$SOURCE_DATE_EPOCH" \
    -partition_offset 16 "$@" \
    -append_partition 2 C12A7328-F81F-11D2-BA4B-00A0C93EC93B /inputs/efi.img -appended_part_as_gpt \
    --gpt_disk_guid "$uuid" \
    -e --interval:appended_partition_2:all:: -no-emul-boot \
    -graft-points \
    /=tree \
    /powernode/vmlinuz=/inputs/vmlinuz \
    /powernode/initramfs.cpio.zst=/inputs/initramfs.cpio.zst \
    /powernode/root.ext4=/inputs/root.ext4 \
    /powernode/install=/inputs/install

[ -s /build/install.iso ] || fail 'xorriso wrote no install.iso'
rm -r tree
