#!/bin/bash
# 90powernode: dracut module that starts a Powernode node from a verified composefs root.
#
# Runs at build time, inside dracut. It puts two hooks, the libraries they share and the programs they call into the
# initramfs. The hooks only start a separate /bin/sh, so that nothing here depends on dracut's own shell state.

# Never picked up by accident: an initramfs has this module only when it is asked for by name.
check() {
    return 255
}

depends() {
    echo base udev-rules
}

# The kernel modules of the initramfs, by directory and by name. dracut's own kernel-modules module finds block drivers by the symbols
# they use, for which it has to decompress nearly every module there is; these lists give the same drivers in a third of the
# time. A name that a kernel has built in or does not have is passed over here: the stage looks up what must be there.
installkernel() {
    # Where a root can be: disks, memory cards, flash drives, and what they hang on.
    hostonly='' instmods \
        =drivers/ata =drivers/nvme =drivers/mmc =drivers/ufs =drivers/message/fusion \
        =drivers/scsi =drivers/usb/storage =drivers/usb/host =drivers/usb/dwc2 =drivers/usb/dwc3 \
        =drivers/virtio =drivers/pci/controller =drivers/phy =drivers/reset =drivers/regulator =drivers/pinctrl \
        virtio_blk virtio_scsi vmd xen-blkfront hv_storvsc hv_vmbus
    # A keyboard for the emergency shell.
    hostonly='' instmods \
        =drivers/hid/usbhid hid-generic hid-apple hid-logitech-dj hid-microsoft hv-keyboard hyperv-keyboard \
        =drivers/input/keyboard =drivers/input/serio
    # The root itself, the boot partition and the ISO, the host's share, the identity.
    hostonly='' instmods \
        loop ext4 erofs overlay vfat nls_cp437 nls_ascii nls_iso8859-1 nls_utf8 iso9660 \
        9p 9pnet_virtio virtiofs qemu_fw_cfg efivarfs
    # SHA-256 with the processor's own instructions, for fs-verity; CRC-32C for ext4.
    hostonly='' instmods sha256-ssse3 sha256-ce sha2-ce crc32c-intel crc32c-generic crc32c
    # Wired network cards.
    hostonly='' instmods \
        virtio_net e1000 e1000e igb igc ixgbe i40e ice tg3 bnxt_en mlx4_en mlx5_core r8169 8139cp atlantic \
        hv_netvsc vmxnet3 ena gve xen-netfront genet macb fec stmmac dwmac-generic
}

install() {
    inst_multiple \
        base64 blkid cat chmod cp cut fsverity head losetup ls mkdir modprobe mount mv readlink rm sed sleep sort sync tr umount wc
    # For /persist, and for the installer.
    inst_multiple blockdev dd dumpe2fs e2fsck flock partx resize2fs sfdisk sha256sum
    inst_binary busybox

    # udev and modprobe open libkmod with dlopen, which no scan of needed libraries can see.
    inst_libdir_file "libkmod.so*"

    # shellcheck disable=SC2154  # dracut sets moddir
    inst_simple "$moddir/powernode-lib.sh" /usr/lib/powernode/powernode-lib.sh
    inst_simple "$moddir/powernode-identity.sh" /usr/lib/powernode/powernode-identity.sh
    inst_simple "$moddir/powernode-root.sh" /usr/lib/powernode/powernode-root.sh
    inst_simple "$moddir/powernode-persist.sh" /usr/lib/powernode/powernode-persist.sh
    inst_simple "$moddir/powernode-install.sh" /usr/lib/powernode/powernode-install.sh
    inst_script "$moddir/powernode-boot.sh" /usr/lib/powernode/powernode-boot
    inst_hook cmdline 20 "$moddir/powernode-cmdline.sh"
    inst_hook mount 50 "$moddir/powernode-mount.sh"
}
