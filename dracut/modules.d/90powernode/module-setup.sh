#!/bin/bash
# 90powernode: dracut module that starts a Powernode node from a verified composefs root.
#
# Runs at build time, inside dracut. It puts three hooks, the library they share and the programs they call into the
# initramfs. The hooks only start a separate /bin/sh, so that nothing here depends on dracut's own shell state.

# Never picked up by accident: an initramfs has this module only when it is asked for by name.
check() {
    return 255
}

depends() {
    echo base udev-rules kernel-modules
}

installkernel() {
    # Without these the hooks cannot do their work, so each is named and a missing one fails the build's own check.
    hostonly='' instmods \
        loop ext4 erofs overlay \
        9p 9pnet_virtio virtiofs qemu_fw_cfg efivarfs \
        vfat nls_cp437 nls_ascii nls_iso8859-1 nls_utf8 iso9660 \
        virtio_blk virtio_scsi virtio_pci virtio_net nvme ahci sd_mod sr_mod usb-storage uas xhci-pci
}

install() {
    inst_multiple \
        base64 blkid cat chmod cp fsverity head losetup ls mkdir modprobe mount rm sed sleep sort tr umount wc
    inst_binary busybox

    # udev and modprobe open libkmod with dlopen, which no scan of needed libraries can see.
    inst_libdir_file "libkmod.so*"

    # shellcheck disable=SC2154  # dracut sets moddir
    inst_simple "$moddir/powernode-lib.sh" /usr/lib/powernode/powernode-lib.sh
    inst_simple "$moddir/powernode-identity.sh" /usr/lib/powernode/powernode-identity.sh
    inst_script "$moddir/powernode-boot.sh" /usr/lib/powernode/powernode-boot
    inst_hook cmdline 20 "$moddir/powernode-cmdline.sh"
    inst_hook mount 50 "$moddir/powernode-mount.sh"
}
