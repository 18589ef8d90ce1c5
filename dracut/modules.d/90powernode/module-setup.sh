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

install() {
    inst_multiple \
        base64 blkid cat chmod cp cut fsverity head losetup ls mkdir modprobe mount mv readlink rm sed sleep sort sync tr umount wc
    # For /persist, and for the installer.
    inst_multiple blockdev dd dumpe2fs e2fsck flock partx resize2fs sfdisk sha256sum
    # For modules.
    inst_multiple getfattr mke2fs signify-openbsd timeout
    inst_binary busybox

    # udev and modprobe open libkmod with dlopen, which no scan of needed libraries can see.
    inst_libdir_file "libkmod.so*"

    # The kernel modules were chosen, laid out and indexed before dracut started. A move copies nothing.
    # shellcheck disable=SC2154  # dracut sets initdir
    mkdir -p "$initdir/usr/lib/modules"
    mv "${PNB_MODULES:?does not say where the kernel modules are}"/* "$initdir/usr/lib/modules/" || exit 1

    # So was firmware, where the build has any.
    if [ -n "${PNB_FIRMWARE:-}" ]; then
        mkdir -p "$initdir/usr/lib"
        mv "$PNB_FIRMWARE" "$initdir/usr/lib/firmware" || exit 1
    fi

    # shellcheck disable=SC2154  # dracut sets moddir
    inst_simple "$moddir/powernode-lib.sh" /usr/lib/powernode/powernode-lib.sh
    inst_simple "$moddir/powernode-identity.sh" /usr/lib/powernode/powernode-identity.sh
    inst_simple "$moddir/powernode-root.sh" /usr/lib/powernode/powernode-root.sh
    inst_simple "$moddir/powernode-persist.sh" /usr/lib/powernode/powernode-persist.sh
    inst_simple "$moddir/powernode-install.sh" /usr/lib/powernode/powernode-install.sh
    inst_simple "$moddir/powernode-modules.sh" /usr/lib/powernode/powernode-modules.sh
    inst_simple "$moddir/powernode-stack.sh" /usr/lib/powernode/powernode-stack.sh
    inst_script "$moddir/powernode-boot.sh" /usr/lib/powernode/powernode-boot
    inst_hook cmdline 20 "$moddir/powernode-cmdline.sh"
    inst_hook mount 50 "$moddir/powernode-mount.sh"
}
