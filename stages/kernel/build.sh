#!/bin/sh
# Takes the kernel apart for the stages after it: /build/vmlinuz, /build/modules/usr/lib/modules/<version> with its indexes made, and
# /build/version. The modules stay a tree of their own, because the root and the initramfs both want them.
#
# What is there when this runs: / is the tools tree, /inputs/kernel the unpacked linux-image package of the target. depmod only reads
# module files, so the architecture it runs on does not matter.
set -eu

cd /inputs/kernel/usr/lib/modules
set -- *
if [ $# -ne 1 ] || [ ! -d "$1" ]; then
    echo "expected one kernel version in the kernel package, found: $*" >&2
    exit 1
fi
version=$1

vmlinuz=/inputs/kernel/boot/vmlinuz-$version
if [ ! -s "$vmlinuz" ]; then
    echo "the kernel package holds no $vmlinuz" >&2
    exit 1
fi

out=/build/modules/usr/lib/modules
mkdir -p "$out"
cp -R "$version" "$out/"
# `build` and `source` point at header packages that are not here.
rm -f "$out/$version/build" "$out/$version/source"
ln -s usr/lib /build/modules/lib
depmod -b /build/modules -F "/inputs/kernel/boot/System.map-$version" "$version"
rm /build/modules/lib

for index in modules.dep modules.alias modules.symbols modules.softdep; do
    if [ ! -s "$out/$version/$index" ]; then
        echo "depmod made no $index" >&2
        exit 1
    fi
done

cp "$vmlinuz" /build/vmlinuz
printf '%s\n' "$version" >/build/version
