#!/usr/bin/env bash
# Walks README.md on a bare Debian, as an ordinary user and as root: its two commands from the compiler on, its first hour line by line, and
# the tasks of a release engineer. Whatever a newcomer would have to find out by himself makes this script fail.
#
#   tests/newcomer/walk.sh DIRECTORY [--program FILE] [--as USER]
#
# DIRECTORY gets the bare machine (up to 20 GB) and is left as it is for a look; one that is there from before is made anew. Needs root and
# Debian or Ubuntu: the packages of the bare machine come from the mirror of the host's apt, and so do those that `pnb lock` looks for.
# Lent from this machine: the Rust toolchain, the crates of Cargo.lock, which are fetched first, and the pinned packages in target/tmp/mirror. With
# --program, this program is used and the two commands are left out; with --as, only `rel` or `root` walks. What is walked is the last
# commit: files that are not committed are not in the clone.
set -euo pipefail
usage() {
    echo "usage: tests/newcomer/walk.sh DIRECTORY [--program FILE] [--as rel|root]" >&2
    exit 2
}
program='' users="rel root" directory=''
while [ "$#" -gt 0 ]; do
    case $1 in
        --program) program=$(realpath "${2:?}") && shift ;;
        --as)
            case ${2:-} in rel | root) users=$2 ;; *) usage ;; esac
            shift
            ;;
        -*) usage ;;
        *)
            [ -z "$directory" ] || usage
            mkdir -p "$1"
            directory=$(realpath "$1")
            ;;
    esac
    shift
done
[ -n "$directory" ] || usage
project=$(cd "$(dirname "$0")/../.." && pwd)
root=$directory/bare-debian

# What cargo has not fetched cannot be lent: a build alone fetches no crate of the tests.
cargo fetch --locked --manifest-path "$project/Cargo.toml"
[ -d "$project/target/tmp/mirror" ] || {
    echo "target/tmp/mirror is not there; pnb vendor target/tmp/mirror makes it" >&2
    exit 1
}
command -v debootstrap >/dev/null || {
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends debootstrap
}

# The bare machine: the minimal packages of Debian, and nothing of this one but where packages come from.
rm -rf --one-file-system "$root"
# On Ubuntu the mirror is debootstrap's own. The keys are the project's.
mirror=()
# shellcheck disable=SC2016  # a format of apt-get
! grep -q '^ID=debian' /etc/os-release || mapfile -t mirror < <(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | sort -u)
main='' security=''
for uri in "${mirror[@]}"; do
    case $uri in
        *security*) security=${uri%/} ;;
        *) main=${main:-${uri%/}} ;;
    esac
done
debootstrap --variant=minbase --keyring="$project/stages/keys/debian-trixie.pgp" trixie "$root" ${main:+"$main" sid} \
    >"$directory/debootstrap.log" 2>&1 || {
    tail -n 20 "$directory/debootstrap.log" >&2
    exit 1
}
[ -z "$security" ] || echo "deb $security trixie-security main" >"$root/etc/apt/sources.list.d/security.list"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
# Proxies and the like.
apt-config dump | grep -E '^Acquire::(http|https|Check-)' >"$root/etc/apt/apt.conf.d/80walk" || true
mkdir -p "$root"/{walk,lent/rust,lent/registry,lent/mirror,old}
cp "$project"/tests/newcomer/{inside,user,guest,try}.sh "$root/walk/"
# As an installer leaves it.
printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
# The repository may belong to another user.
printf '[safe]\n\tdirectory = *\n' >"$directory/gitconfig"
GIT_CONFIG_GLOBAL=$directory/gitconfig git clone -q --bare "$project" "$root/walk/pnb.git"
[ -z "$program" ] || cp "$program" "$root/walk/pnb"

# A chroot has no user namespaces: the root of the machine is changed.
# shellcheck disable=SC2016  # the arguments of the inner shell
exec unshare --mount --pid --fork --kill-child --propagation private bash -euc '
    root=$1 toolchain=$2 registry=$3 mirror=$4 users=$5
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
    exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8 \
        bash /walk/inside.sh $users
' walk "$root" "$(rustc --print sysroot)" "${CARGO_HOME:-$HOME/.cargo}/registry" "$project/target/tmp/mirror" "$users"
