#!/bin/sh
# Makes the two parts of the initramfs that do not depend on the root: /build/dracut.cpio, and on amd64 /build/early.cpio
# with the processors' microcode. Both are uncompressed; a later stage puts them together. dracut exits with 0 when a library or a
# program was not found: that stage looks what is in the archive (stages/initramfs-base/contents.toml).
#
# What is there when this runs: / is the tools tree, /build/modules/<version> the kernel modules of the initramfs with their indexes,
# /inputs/initramfs-root the unpacked packages of the target (nothing configured), /inputs/dracut-core the unpacked dracut of the
# target, /inputs/kernel the unpacked kernel package, /inputs/version what the kernel stage found in it, /inputs/dracut this
# repository's dracut/ directory, on amd64 /inputs/microcode the unpacked microcode packages, and with the option graphics
# /inputs/graphics-firmware the unpacked firmware packages.
set -eu
umask 022

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
# With the option graphics, the firmware of the drivers in powernode-amd64-graphics.conf: a driver's is in the directory of its name.
if [ -e /inputs/graphics-firmware ]; then
    drivers=$(sed -n 's/^ *add_drivers+="\(.*\)"$/\1/p' /inputs/dracut/dracut.conf.d/powernode-amd64-graphics.conf)
    [ -n "$drivers" ] || fail "powernode-amd64-graphics.conf names no driver"
    mkdir -p "$work/firmware"
    for driver in $drivers; do
        [ -d "/inputs/graphics-firmware/usr/lib/firmware/$driver" ] || fail "graphics-firmware has no firmware of the driver $driver"
        cp -RP "/inputs/graphics-firmware/usr/lib/firmware/$driver" "$work/firmware/"
    done
    export PNB_FIRMWARE=$work/firmware
fi

# dracut takes everything from one directory: programs, its own modules and ours. The copies belong to whoever runs this, so that
# dracut may copy them on as they are.
mkdir -p "$target/etc" "$target/usr/share" "$work/conf" "$work/tmp"
cp -RP /inputs/initramfs-root/usr/bin /inputs/initramfs-root/usr/sbin /inputs/initramfs-root/usr/lib "$target/usr/"
[ ! -d /inputs/initramfs-root/usr/lib64 ] || cp -RP /inputs/initramfs-root/usr/lib64 "$target/usr/"
for link in bin sbin lib lib64; do
    [ ! -d "$target/usr/$link" ] || ln -s "usr/$link" "$target/$link"
done
cp -RP /inputs/initramfs-root/etc/ld.so.conf /inputs/initramfs-root/etc/ld.so.conf.d "$target/etc/"
# Of the target: dracut-util goes into the initramfs.
cp -RP /inputs/dracut-core/usr/lib/dracut "$target/usr/lib/"
cp -RP /inputs/dracut/modules.d/90powernode "$target/usr/lib/dracut/modules.d/"
# Without the command line: dracut would put it into the initramfs, where it would count beside the one that the machine was started with.
for file in powernode.conf "powernode-$PNB_ARCH.conf"; do
    sed '/^ *kernel_cmdline+*=/d' "/inputs/dracut/dracut.conf.d/$file" >"$work/conf/$file"
done
microcode=$(sed -n 's/^ *early_microcode="\(.*\)"$/\1/p' "$work/conf/powernode.conf" "$work/conf/powernode-$PNB_ARCH.conf" | tail -n 1)
: >"$work/empty.conf"
# dracut copies the entries of the users it knows; the packages' own scripts would have made this file.
printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin' >"$target/etc/passwd"
printf '%s\n' 'root:x:0:' 'nogroup:x:65534:' >"$target/etc/group"

# dracut gives everything newer than its own functions their time, which must not be the time of the copy.
find "$target" /build/modules ${PNB_FIRMWARE:+"$PNB_FIRMWARE"} -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

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

dracut --force --quiet --no-early-microcode --sysroot "$target" --kver "$version" \
    --conf "$work/empty.conf" --confdir "$work/conf" --tmpdir "$work/tmp" \
    /build/dracut.cpio >"$work/dracut.log" 2>&1 || {
    cat "$work/dracut.log" >&2
    fail "dracut failed"
}
cat "$work/dracut.log"

# dracut's own /init must not have taken the place of the one that looks at the kernel command line first.
mkdir "$work/made"
(cd "$work/made" && cpio -id --quiet --no-absolute-filenames init usr/lib/powernode/dracut-init </build/dracut.cpio)
[ "$(cat "$work/made/init")" = "$(cat /inputs/dracut/modules.d/90powernode/powernode-init.sh)" ] \
    || fail "/init of the initramfs is not powernode-init.sh"
[ -x "$work/made/init" ] || fail "/init of the initramfs is not executable: the kernel would start /bin/sh in its place"
grep -q '^source_hook cmdline' "$work/made/usr/lib/powernode/dracut-init" || fail "dracut-init of the initramfs is not dracut's init"

# ------------------------------------------------------------------------------------------------------------------ microcode
#
# The kernel takes microcode from an uncompressed archive at the very beginning, from these two names only.

if [ "$PNB_ARCH" = amd64 ] && [ "$microcode" = no ]; then
    # An archive of nothing.
    cpio -o --quiet -H newc </dev/null >early.cpio
elif [ "$PNB_ARCH" = amd64 ]; then
    [ "$microcode" = yes ] || fail "early_microcode is neither yes nor no: '$microcode'"
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
