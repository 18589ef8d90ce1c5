#!/bin/sh
# Makes the configured root file system of the target: /build/root.
#
# What is there when this runs: / is the tools tree (unpacked packages, nothing configured, no /etc/passwd), /inputs/debs holds every
# pinned .deb of the target with the Packages and Release files that make it a flat repository, and /build/root/dev has device
# nodes. There is no network, no mount(2) and no /proc inside the root. All packages of /inputs/debs are installed, so that what
# is pinned and what is installed cannot differ.
set -eu
umask 022

root=/build/root

fail() {
    echo "rootfs: $*" >&2
    exit 1
}

packages=$(sed -n 's/^Package: //p' /inputs/debs/Packages | LC_ALL=C sort -u)
[ -n "$packages" ] || fail '/inputs/debs/Packages names no package'
include=$(printf '%s' "$packages" | tr '\n' ,)
suite=$(sed -n 's/^Codename: //p' /inputs/debs/Release)
[ -n "$suite" ] || fail '/inputs/debs/Release has no Codename'

# The checks and mounts that are skipped are the sandbox's business, or forbidden in it. apt would otherwise switch to a user that
# the tools tree does not have.
mmdebstrap --quiet --mode=root --format=directory --variant=essential \
    --skip=chroot/mount,check/empty,check/qemu,output/mknod,cleanup/reproducible \
    --architectures="$PNB_ARCH" \
    --aptopt='APT::Sandbox::User "root"' \
    --aptopt='Acquire::Languages "none"' \
    --dpkgopt=force-unsafe-io \
    --include="$include" \
    "$suite" "$root" 'deb [trusted=yes] copy:/inputs/debs ./'

# ------------------------------------------------------------------------------------------------- what must have happened

unfinished=$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${db:Status-Abbrev}${Package}\n' | sed -n '/^ii /!p')
[ -z "$unfinished" ] || fail "not installed and configured: $unfinished"
installed=$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Package}\n' | LC_ALL=C sort -u)
[ "$installed" = "$packages" ] || fail 'the packages in the root are not those of /inputs/debs'
for file in etc/passwd etc/shadow etc/ssl/certs/ca-certificates.crt usr/lib/udev/hwdb.bin usr/sbin/init; do
    [ -s "$root/$file" ] || fail "the configured root has no /$file"
done

# ---------------------------------------------------------------------------------------------- what must not go into an image

cd "$root"

# Where a disk of its own is mounted, if the node has one.
mkdir persist

# Traces of this build: logs, caches, package lists, dpkg's previous state, locks, apt's and mmdebstrap's own settings.
find var/log -type f -delete
rm -rf var/log/apt var/log/journal
rm -rf var/cache/apt var/cache/debconf var/cache/ldconfig var/lib/apt
rm -f var/lib/dpkg/*-old var/lib/dpkg/lock var/lib/dpkg/lock-frontend var/lib/dpkg/triggers/Lock
rm -f var/lib/dpkg/available var/lib/dpkg/cmethopt var/lib/shells.state
rm -f etc/passwd- etc/group- etc/shadow- etc/gshadow- etc/subuid- etc/subgid- etc/.pwd.lock
rm -f etc/dpkg/dpkg.cfg.d/99mmdebstrap etc/apt/apt.conf.d/99mmdebstrap etc/apt/sources.list
rm -f etc/ld.so.cache~ etc/resolv.conf etc/hostname
rm -rf tmp/* tmp/.[!.]* run/* run/.[!.]* var/tmp/*

# What every node must make for itself.
rm -f etc/ssh/ssh_host_* var/lib/systemd/random-seed var/lib/systemd/credential.secret var/lib/dbus/machine-id

# An empty machine-id means: make one at boot, and this is not a first boot. Without the file, or with `uninitialized` in it, systemd
# would apply its presets at every boot of this volatile /etc and undo what the image enables and masks.
rm -f etc/machine-id
: >etc/machine-id
chmod 0444 etc/machine-id

# Documentation and translations no program needs. Licences stay.
find usr/share/doc -mindepth 1 ! -type d ! -name copyright -delete
find usr/share/doc -mindepth 1 -type d -empty -delete
rm -rf usr/share/man usr/share/info usr/share/locale usr/share/lintian usr/share/bug usr/share/bash-completion usr/share/zsh
rm -rf usr/share/fish usr/share/groff usr/share/linda
mkdir -p usr/share/man usr/share/locale usr/share/info
# The compiled database beside these is what udev reads.
rm -rf usr/lib/udev/hwdb.d

# Days since 1970 of the last password change, which useradd takes from the clock.
day=$((SOURCE_DATE_EPOCH / 86400))
sed -i "s/^\\([^:]*:[^:]*\\):[0-9]*:/\\1:$day:/" etc/shadow
# systemd-sysusers makes these for nobody to read; the set-group-id helper of PAM needs its group.
shadow=$(sed -n 's/^shadow:[^:]*:\([0-9]*\):.*/\1/p' etc/group)
for file in etc/shadow etc/gshadow; do
    if [ -f "$file" ]; then
        chown "0:$shadow" "$file"
        chmod 0640 "$file"
    fi
done

# A login prompt on the screen would be one that nobody can pass: no account has a password.
rm -f etc/systemd/system/getty.target.wants/getty@tty1.service

# No account can log in with a password.
! cut -d: -f2 etc/passwd | grep -vx '[x!*].*' || fail 'an account in /etc/passwd has a password'
! cut -d: -f2 etc/shadow | grep -vx '[!*].*' || fail 'an account in /etc/shadow has a password'
