#!/bin/sh
# Makes the root of a base image: the essential packages and what they need, installed as the stage rootfs installs them.
#
# What is there when this runs: the same as in the stage rootfs (stages/rootfs/build.sh), with other packages; /inputs/install is the
# directory stages/rootfs/install. Nothing that the packages made is taken away except traces of this run: the stage rootfs, for which
# the image is the base, cleans up itself.
set -eu
umask 022

root=/build/root
install=/inputs/install

fail() {
    echo "bootstrap: $*" >&2
    exit 1
}

# shellcheck source=../rootfs/install/install.sh
. "$install/install.sh"

make_database
install_packages

# Times and inode numbers of this run, locks, and earlier versions of files. Whoever needs one of them makes it again.
cd "$root"
find var/log -type f -delete
rm -rf var/cache/ldconfig
rm -f var/lib/dpkg/*-old var/lib/dpkg/lock var/lib/dpkg/lock-frontend var/lib/dpkg/triggers/Lock
rm -f etc/passwd- etc/group- etc/shadow- etc/gshadow- etc/subuid- etc/subgid- etc/.pwd.lock etc/ld.so.cache~
rm -rf tmp/* tmp/.[!.]* run/* run/.[!.]* var/tmp/*
