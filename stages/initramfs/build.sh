#!/bin/sh
# Makes the two parts of the initramfs that do not depend on the root: /build/dracut.cpio, and on amd64 /build/early.cpio
# with the processors' microcode. Both are uncompressed; a later stage puts them together.
#
# What is there when this runs: / is the tools tree, /build/modules/<version> the kernel modules of the initramfs with their indexes,
# /inputs/initramfs-root the unpacked packages of the target (nothing configured), /inputs/kernel the unpacked kernel package,
# /inputs/version what the kernel stage found in it, /inputs/dracut this repository's dracut/ directory, and on amd64
# /inputs/microcode the unpacked microcode packages.
set -eu

fail() {
    echo "initramfs: $*" >&2
    exit 1
}

work=/build/work
target=/build/work/target
version=$(cat /inputs/version)

case $PNB_ARCH in
    amd64) DRACUT_ARCH=x86_64 PNB_TRIPLET=x86_64-linux-gnu ;;
    arm64) DRACUT_ARCH=aarch64 PNB_TRIPLET=aarch64-linux-gnu ;;
    *) fail "no settings for the architecture '$PNB_ARCH'" ;;
esac

# What the modules ask for would have to come along.
[ ! -e /inputs/initramfs-root/usr/lib/firmware ] || fail "initramfs-root has firmware, and nothing puts it into the initramfs"

# dracut takes everything from one directory: programs, its own modules and ours. The copies belong to whoever runs this, so that
# dracut may copy them on as they are.
mkdir -p "$target/etc" "$target/usr/share" "$work/conf" "$work/tmp"
cp -RP /inputs/initramfs-root/usr/bin /inputs/initramfs-root/usr/sbin /inputs/initramfs-root/usr/lib "$target/usr/"
[ ! -d /inputs/initramfs-root/usr/lib64 ] || cp -RP /inputs/initramfs-root/usr/lib64 "$target/usr/"
for link in bin sbin lib lib64; do
    [ ! -d "$target/usr/$link" ] || ln -s "usr/$link" "$target/$link"
done
cp -RP /inputs/initramfs-root/etc/ld.so.conf /inputs/initramfs-root/etc/ld.so.conf.d "$target/etc/"
cp -RP /usr/lib/dracut "$target/usr/lib/"
cp -RP /inputs/dracut/modules.d/90powernode "$target/usr/lib/dracut/modules.d/"
cp /inputs/dracut/dracut.conf.d/powernode.conf "$work/conf/"
: >"$work/empty.conf"
# dracut copies the entries of the users it knows; the packages' own scripts would have made this file.
printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin' >"$target/etc/passwd"
printf '%s\n' 'root:x:0:' 'nogroup:x:65534:' >"$target/etc/group"

# dracut gives everything newer than its own functions their time, which must not be the time of the copy.
find "$target" /build/modules -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

export DRACUT_ARCH PNB_TRIPLET
export PNB_TARGET=$target
# What 90powernode puts into the initramfs.
export PNB_MODULES=/build/modules
export DRACUT_INSTALL=/usr/lib/dracut/dracut-install
# No program of the target is run, apart from its dynamic loader.
export DRACUT_LDCONFIG=true
export DRACUT_LDD=/stage/ldd
# Where libraries are looked for that are opened at run time; dracut would ask the ldconfig of the machine it runs on.
export libdirs="/usr/lib/$PNB_TRIPLET /usr/lib"
# Extended attributes mean nothing in a cpio archive, and setting them is forbidden here.
export DRACUT_NO_XATTR=1

dracut --force --quiet --sysroot "$target" --kver "$version" \
    --conf "$work/empty.conf" --confdir "$work/conf" --tmpdir "$work/tmp" \
    /build/dracut.cpio >"$work/dracut.log" 2>&1 || {
    cat "$work/dracut.log" >&2
    fail "dracut failed"
}
cat "$work/dracut.log"

# ------------------------------------------------------------------------------------------------------ what must be in there
#
# dracut exits with 0 when a library or a program was not found, so its word is not taken: the archive is listed, and what boots
# is looked up by name.

list=$work/list
cpio -t --quiet <dracut.cpio | LC_ALL=C sort >"$list"

wanted_programs='base64 blkid busybox cat chmod cp cut fsverity head kmod losetup ls mkdir modprobe mount mv readlink rm sed setsid sleep
    sort switch_root sync tr udevadm umount wc
    blockdev dd dumpe2fs e2fsck flock partx resize2fs sfdisk sha256sum'
# Without 60-cdrom_id udev makes no label of an optical disc. libkmod is opened at run time, so that no scan of needed libraries
# finds it.
wanted_files="init usr/bin/dash usr/bin/sh usr/lib/systemd/systemd-udevd usr/lib/powernode/powernode-boot
    usr/lib/powernode/powernode-lib.sh usr/lib/powernode/powernode-identity.sh usr/lib/powernode/powernode-root.sh
    usr/lib/powernode/powernode-persist.sh usr/lib/powernode/powernode-install.sh
    var/lib/dracut/hooks/cmdline/20-powernode-cmdline.sh var/lib/dracut/hooks/mount/50-powernode-mount.sh
    usr/lib/udev/rules.d/60-persistent-storage.rules usr/lib/udev/rules.d/80-drivers.rules
    usr/lib/udev/rules.d/60-cdrom_id.rules usr/lib/udev/cdrom_id
    usr/lib/$PNB_TRIPLET/libkmod.so.2 usr/lib/modules/$version/modules.dep.bin"
wanted_drivers='loop ext4 erofs overlay 9p 9pnet 9pnet_virtio virtiofs qemu_fw_cfg efivarfs vfat nls_cp437 isofs
    virtio_blk virtio_scsi virtio_net nvme ahci sd_mod sr_mod cdrom usb-storage uas xhci-pci e1000e igb ixgbe tg3 r8169'
case $PNB_ARCH in
    amd64) wanted_drivers="$wanted_drivers ata_piix sha256-ssse3" ;;
    arm64) wanted_drivers="$wanted_drivers sdhci-iproc bcm2835 genet" ;;
esac

# All at once: a process for each of a hundred names costs more than dracut's own work on the archive. A driver that is built into the
# kernel is as good as one in the archive.
{
    sed -n -e 's|^|file |p' \
        -e 's|^file usr/s\{0,1\}bin/\([^/]*\)$|program \1|p' \
        -e "s|^file usr/lib/modules/.*/\\([^/]*\\)\\.ko\\(\\.[a-z]*\\)\\{0,1\\}\$|driver \\1|p" "$list"
    sed -n 's|.*/\(.*\)\.ko$|driver \1|p' "/inputs/kernel/usr/lib/modules/$version/modules.builtin"
} | LC_ALL=C sort -u >"$work/there"
# shellcheck disable=SC2086  # one name is one argument
missing=$(
    {
        printf 'program %s\n' $wanted_programs
        printf 'file %s\n' $wanted_files
        printf 'driver %s\n' $wanted_drivers
    } | LC_ALL=C sort -u | LC_ALL=C comm -23 - "$work/there" | sed 's/^/    /'
)
[ -z "$missing" ] || missing="
$missing"

# Every library that a program in the archive needs must be in the archive.
mkdir "$work/unpacked"
(cd "$work/unpacked" && cpio -id --quiet <../../dracut.cpio)
cd "$work/unpacked/usr"
programs=0
# Scripts have no libraries.
for file in $(find bin sbin lib/systemd lib/udev -type f -perm -0100 -exec env LC_ALL=C grep -l '^.ELF' {} +); do
    programs=$((programs + 1))
    file=$work/unpacked/usr/$file
    PNB_TARGET=$work/unpacked /stage/ldd "$file" >"$work/ldd.out" 2>&1 || true
    if grep -q 'not found' "$work/ldd.out"; then
        missing="$missing
    of ${file#"$work/unpacked/"}: $(sed -n 's/ => not found.*//p' "$work/ldd.out" | tr -d '\t' | tr '\n' ' ')"
    fi
done
cd /build
[ "$programs" -gt 20 ] || fail "found only $programs programs to look at in the archive that dracut made"

[ -z "$missing" ] || fail "the archive that dracut made has no:$missing"

# ------------------------------------------------------------------------------------------------------------------ microcode
#
# The kernel takes microcode from an uncompressed archive at the very beginning, from these two names only.

if [ "$PNB_ARCH" = amd64 ]; then
    early=$work/early/kernel/x86/microcode
    mkdir -p "$early"
    cat /inputs/microcode/usr/lib/firmware/amd-ucode/microcode_amd*.bin >"$early/AuthenticAMD.bin"
    # Files with a suffix are for loading late, or wait for a decision of the distribution.
    find /inputs/microcode/usr/lib/firmware/intel-ucode -type f -name '??-??-??' | LC_ALL=C sort | xargs cat >"$early/GenuineIntel.bin"
    for file in "$early/AuthenticAMD.bin" "$early/GenuineIntel.bin"; do
        [ "$(wc -c <"$file")" -gt 65536 ] || fail "$file is too small to be microcode"
    done
    find "$work/early" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    (cd "$work/early" && find . -mindepth 1 | sed 's|^\./||' | LC_ALL=C sort | cpio -o --quiet -H newc --reproducible -R 0:0) >early.cpio
fi

rm -rf "$work"
