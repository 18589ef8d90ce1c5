#!/usr/bin/env bash
# Walks README.md on a bare Debian, as root and as an ordinary user: its two commands, its first hour line by line, and the tasks of a release
# engineer. What a newcomer would have to find out by himself makes this script fail.
#
#   tests/newcomer/walk.sh DIRECTORY [--program FILE]
#
# DIRECTORY gets the root of the machine (about 10 GB) and is left as it is for a look. Needs root and Debian or Ubuntu: the packages of the
# bare machine come from the mirror of the host's apt. Lent from this machine: the Rust toolchain, the crates that cargo has fetched, and
# the pinned packages in target/tmp/mirror. With --program, this program is used and the two commands are left out.
set -euo pipefail
usage() {
    echo "usage: tests/newcomer/walk.sh DIRECTORY [--program FILE]" >&2
    exit 2
}
program=
case "$#:${2:-}" in
    1:) ;;
    3:--program) program=$(realpath "$3") ;;
    *) usage ;;
esac
project=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1"
directory=$(realpath "$1")
root=$directory/root

[ -d "$project/target/tmp/mirror" ] || {
    echo "target/tmp/mirror is not there; pnb vendor target/tmp/mirror makes it" >&2
    exit 1
}
command -v debootstrap >/dev/null || {
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends debootstrap
}

# The bare machine: the minimal packages of Debian, and nothing of this one but where packages come from.
if [ ! -e "$root/etc/os-release" ]; then
    # shellcheck disable=SC2016  # a format of apt-get
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
    debootstrap --variant=minbase trixie "$root.new" "${mirror%/}" >"$directory/debootstrap.log" 2>&1 || {
        tail -n 20 "$directory/debootstrap.log" >&2
        exit 1
    }
    mv "$root.new" "$root"
fi
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp -a /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
mkdir -p "$root"/{walk,lent/rust,lent/registry,lent/mirror,old}
cp "$project/tests/newcomer/inside.sh" "$root/walk/inside.sh"
rm -rf "$root/walk/pnb" "$root/walk/pnb.git"
git clone -q --bare "$project" "$root/walk/pnb.git"
[ -z "$program" ] || cp "$program" "$root/walk/pnb"

# A chroot has no user namespaces: the root of the machine is changed.
# shellcheck disable=SC2016  # the arguments of the inner shell
exec unshare --mount --pid --fork --propagation private bash -euc '
    root=$1 toolchain=$2 registry=$3 mirror=$4
    mount --rbind "$root" "$root"
    mount --rbind /dev "$root/dev"
    mount --rbind /sys "$root/sys"
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    mount --bind "$toolchain" "$root/lent/rust"
    mount --bind "$registry" "$root/lent/registry"
    mount --bind "$mirror" "$root/lent/mirror"
    cd "$root"
    pivot_root . old
    cd /
    umount -l /old
    exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8 bash /walk/inside.sh
' walk "$root" "$(rustc --print sysroot)" "${CARGO_HOME:-$HOME/.cargo}/registry" "$project/target/tmp/mirror"
