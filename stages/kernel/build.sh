#!/bin/sh
# Takes the kernel apart for the stages after it: /build/vmlinuz, /build/version, and /build/indexes/usr/lib/modules/<version> with what
# depmod finds out about the modules. The modules themselves stay in the package's tree, which the root and the initramfs take beside
# the indexes: four thousand files are not copied for a dozen.
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

# depmod wants its input and its output below lib/modules of a base directory.
base=/build/base
mkdir -p "$base/lib/modules" "/build/indexes/usr/lib/modules/$version"
ln -s "/inputs/kernel/usr/lib/modules/$version" "$base/lib/modules/$version"
ln -s usr/lib /build/indexes/lib
depmod -b "$base" -o /build/indexes -F "/inputs/kernel/boot/System.map-$version" "$version"
rm /build/indexes/lib
out=/build/indexes/usr/lib/modules/$version

for index in modules.dep modules.alias modules.symbols modules.softdep; do
    if [ ! -s "$out/$index" ]; then
        echo "depmod made no $index" >&2
        exit 1
    fi
done

cp "$vmlinuz" /build/vmlinuz
printf '%s\n' "$version" >/build/version
