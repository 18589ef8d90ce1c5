#!/bin/sh
# Gathers the programs of the list `programs` for stages/rootfs/install/native.sh, with what they need to run in a root of another
# architecture: the tree /build/native.
#
# What is there when this runs: the writer unpack has made /build/tree of the packages. Result:
#
#     arch        the architecture of the programs, a line
#     programs    a line for each package: its name, its version, and the names of its programs
#     bin/        the programs, which belong to /usr/bin
#     added/      what the root gets beside them: the loader, libraries and perl's modules, all below directories of this architecture
set -eu
umask 022

tree=/build/tree
out=/build/native

fail() {
    echo "native-programs: $*" >&2
    exit 1
}

mkdir -p "$out/bin" "$out/added/usr/lib"
printf '%s\n' "$PNB_ARCH" >"$out/arch"
case $PNB_ARCH in
    amd64)
        triplet=x86_64-linux-gnu loader=usr/lib64/ld-linux-x86-64.so.2
        mkdir "$out/added/usr/lib64"
        ln -s usr/lib64 "$out/added/lib64"
        ;;
    arm64) triplet=aarch64-linux-gnu loader=usr/lib/ld-linux-aarch64.so.1 ;;
    *) fail "no loader is known for $PNB_ARCH" ;;
esac
cp -L "$tree/$loader" "$out/added/$loader"
# All libraries, for some are opened at run time; but no tables of iconv(3), which no program converts with here.
mv "$tree/usr/lib/$triplet" "$out/added/usr/lib/$triplet"
rm -rf "$out/added/usr/lib/$triplet/gconv"

while read -r package names || [ -n "$package" ]; do
    version=$(sed -n "/^Package: $package\$/,/^\$/s/^Version: //p" /inputs/packages/Packages)
    [ -n "$version" ] || fail "the package set has no $package"
    for name in $names; do
        # A link would be a program of another package, or another program.
        [ -f "$tree/usr/bin/$name" ] && [ ! -h "$tree/usr/bin/$name" ] || fail "$package has no program /usr/bin/$name"
        cp "$tree/usr/bin/$name" "$out/bin/$name"
    done
    printf '%s %s %s\n' "$package" "$version" "$names"
done </stage/programs >"$out/programs"
[ -s "$out/programs" ] || fail 'the list names no program'
