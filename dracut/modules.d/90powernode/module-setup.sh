#!/bin/bash
# 90powernode: dracut module that starts a Powernode node from a verified composefs root.
#
# Runs at build time, inside dracut. It puts /init, four hooks, the libraries they share and the programs they call into the
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
        base64 blkid cat chmod cp cut fsverity head losetup ls mkdir modprobe mount mv od readlink rm sed sleep sort sync tail \
        timeout tr umount wc
    # For /persist, and for the installer.
    inst_multiple blockdev dd dumpe2fs e2fsck flock mke2fs partx resize2fs sfdisk sha256sum
    # For modules.
    inst_multiple getfattr signify-openbsd
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
    inst_simple "$moddir/powernode-trust.sh" /usr/lib/powernode/powernode-trust.sh
    inst_simple "$moddir/powernode-guard.sh" /usr/lib/powernode/powernode-guard.sh
    inst_simple "$moddir/powernode-words" /usr/lib/powernode/words
    inst_simple "$moddir/powernode-identity.sh" /usr/lib/powernode/powernode-identity.sh
    inst_simple "$moddir/powernode-cloud.sh" /usr/lib/powernode/powernode-cloud.sh
    inst_simple "$moddir/powernode-json.awk" /usr/lib/powernode/powernode-json.awk
    inst_script "$moddir/powernode-lease.sh" /usr/lib/powernode/powernode-lease
    inst_simple "$moddir/powernode-handover.sh" /usr/lib/powernode/powernode-handover.sh
    inst_simple "$moddir/powernode-root.sh" /usr/lib/powernode/powernode-root.sh
    inst_simple "$moddir/powernode-persist.sh" /usr/lib/powernode/powernode-persist.sh
    inst_simple "$moddir/powernode-install.sh" /usr/lib/powernode/powernode-install.sh
    inst_simple "$moddir/powernode-modules.sh" /usr/lib/powernode/powernode-modules.sh
    inst_simple "$moddir/powernode-stack.sh" /usr/lib/powernode/powernode-stack.sh
    inst_script "$moddir/powernode-boot.sh" /usr/lib/powernode/powernode-boot
    inst_hook cmdline 20 "$moddir/powernode-cmdline.sh"
    inst_hook mount 50 "$moddir/powernode-mount.sh"
    inst_hook pre-pivot 99 "$moddir/powernode-pivot.sh"
    # Before any other file there, such as the one in which dracut notes why it gave up.
    inst_hook emergency 00 "$moddir/powernode-emergency.sh"

    # /init is 90powernode's own, and dracut's comes after it. dracut's module `base` is installed later and leaves alone what is there;
    # the stage looks whether that was so.
    inst_script "$moddir/powernode-init.sh" /init
    # shellcheck disable=SC2154  # dracut sets dracutbasedir
    inst_script "$dracutbasedir/modules.d/99base/init.sh" /usr/lib/powernode/dracut-init
    # The kernel goes on to /bin/sh when it cannot start /init, and udhcpc goes on without its script.
    chmod 0755 "$initdir/init" "$initdir/usr/lib/powernode/dracut-init" "$initdir/usr/lib/powernode/powernode-lease"
}
