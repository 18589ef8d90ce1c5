#!/bin/sh
# Makes the configured root file system of the target: /build/root.
#
# What is there when this runs: / is the tools tree (unpacked packages, nothing configured, no /etc/passwd), and the writer dpkg-root
# has prepared /build/root: every pinned .deb of the target in /build/root/debs, its members uncompressed, and in place the files of all
# that a package's scripts may call before it is unpacked (essential packages, and what is needed beforehand). /build/root/dev has device nodes.
# With a base image (docs/base-image.md), /build/root has its files instead, and debs has only the packages that it lacks.
# Programs of another architecture run under an emulator, ten times slower: dpkg of the build machine unpacks, dpkg of the target
# configures, and the build machine lends programs that scripts call often (install/native.sh). There is no network, no mount(2) and no
# /proc inside the root. All packages are installed, so that what is pinned and what is installed cannot differ. They were chosen by the
# lock, so no program that chooses takes part: dpkg alone installs them.
set -eu
umask 022

root=/build/root
install=/stage/install

fail() {
    echo "rootfs: $*" >&2
    exit 1
}

# shellcheck source=install/install.sh
. "$install/install.sh"

packages=$(sed -n 's/^Package: //p' /inputs/packages/Packages | LC_ALL=C sort -u)
[ -n "$packages" ] || fail '/inputs/packages/Packages names no package'

# A base image has a database of its own.
[ -s "$root/var/lib/dpkg/status" ] || make_database
install_packages

# ------------------------------------------------------------------------------------------------- what must have happened

installed=$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Package}\n' | LC_ALL=C sort -u)
[ "$installed" = "$packages" ] || fail 'the packages in the root are not those of /inputs/packages'
for file in etc/passwd etc/shadow etc/ssl/certs/ca-certificates.crt usr/lib/udev/hwdb.bin usr/sbin/init; do
    [ -s "$root/$file" ] || fail "the configured root has no /$file"
done
certificates=$(grep -c 'BEGIN CERTIFICATE' "$root/etc/ssl/certs/ca-certificates.crt")
[ "$certificates" -gt 50 ] || fail "the configured root trusts only $certificates certificates"

# ------------------------------------------------------------------------------- the same with and without a base image
#
# What two runs of dpkg, one for the base image and one for the rest, leave differently than one run for all. Both changes change nothing
# in a root that was made from packages alone.
#
# deb-systemd-helper calls systemctl, which writes links to /usr/lib; where systemd is not unpacked yet, it writes them itself, to /lib.
find "$root/etc/systemd" -type l | while read -r link; do
    target=$(readlink "$link")
    case $target in
        /lib/systemd/*) ln -sfn "/usr$target" "$link" ;;
    esac
done
# dpkg lists the packages that wait for changes of files in the order in which it unpacks them. In one run, that is the order of the
# names of the packages' files.
interests=$root/var/lib/dpkg/triggers/File
sed 's,^[^ ]* \([^/:]*\).*,\1_ &,' "$interests" | LC_ALL=C sort -s -k 1,1 | cut -d ' ' -f 2- >"$interests.sorted"
[ "$(wc -l <"$interests.sorted")" = "$(wc -l <"$interests")" ] || fail "the lines of $interests could not be sorted"
chmod 0644 "$interests.sorted"
mv "$interests.sorted" "$interests"

# ---------------------------------------------------------------------------------------------- what must not go into an image

cd "$root"

# Where a disk of its own is mounted, if the node has one.
mkdir persist

# Traces of this build: logs, caches, package lists, dpkg's previous state, locks.
find var/log -type f -delete
rm -rf var/log/apt var/log/journal
rm -rf var/cache/apt var/cache/debconf var/cache/ldconfig var/lib/apt
rm -f var/lib/dpkg/*-old var/lib/dpkg/lock var/lib/dpkg/lock-frontend var/lib/dpkg/triggers/Lock
rm -f var/lib/dpkg/available var/lib/dpkg/cmethopt var/lib/shells.state
rm -f etc/passwd- etc/group- etc/shadow- etc/gshadow- etc/subuid- etc/subgid- etc/.pwd.lock
rm -f etc/ld.so.cache~ etc/resolv.conf etc/hostname
rm -rf tmp/* tmp/.[!.]* run/* run/.[!.]* var/tmp/*

# What every node must make for itself.
rm -f etc/ssh/ssh_host_* var/lib/systemd/random-seed var/lib/systemd/credential.secret var/lib/dbus/machine-id

# An empty machine-id means: make one at boot, and this is not a first boot. Without the file, or with `uninitialized` in it, systemd
# would apply its presets at every boot of this volatile /etc and undo what the image enables and masks.
rm -f etc/machine-id
: >etc/machine-id
chmod 0444 etc/machine-id

# What is left of documentation and translations.
# Tables of iconv(3) for other character sets than UTF-8, which the C library has built in: 8 MB.
find usr/lib/*-linux-gnu/gconv -mindepth 1 -delete
find usr/share/doc -mindepth 1 ! -type d ! -name copyright -delete
find usr/share/doc -mindepth 1 -type d -empty -delete
for dir in $unneeded; do
    rm -rf "usr/share/$dir"
done
mkdir -p usr/share/man usr/share/locale usr/share/info
# The compiled database beside these is what udev reads.
rm -rf usr/lib/udev/hwdb.d

# ------------------------------------------------------------------------------------------ what bootc asks of a root
#
# Linux containers that can be installed as an operating system have these two (docs/oci.md). They are part of the common root, so that
# all variants keep one digest.
mkdir -p sysroot
ln -s sysroot/ostree ostree

# A node keeps /var and replaces the rest of the root. What describes /usr therefore lies in /usr: dpkg's database, and the compiled
# catalog of messages. Which services were enabled, which PAM profiles were chosen, and which versions of configuration files ucf (for
# openssh-server, among others) has seen, only matters to the next upgrade by dpkg.
rm -rf var/lib/systemd/deb-systemd-helper-enabled var/lib/systemd/deb-systemd-user-helper-enabled var/lib/pam var/lib/ucf
mkdir -p usr/lib/sysimage
mv var/lib/dpkg usr/lib/sysimage/dpkg
ln -s ../../usr/lib/sysimage/dpkg var/lib/dpkg
mv var/lib/systemd/catalog usr/lib/sysimage/catalog
ln -s ../../../usr/lib/sysimage/catalog var/lib/systemd/catalog
others=$(find var -mindepth 1 ! -type d ! -type l)
[ -z "$others" ] || fail "/var would not be made anew from tmpfiles.d: it has the files $others"

# tmpfiles.d makes a missing /var. A path that a package's own line makes gets no second one. /var/.updated is in the overlay: with it,
# systemd does not rebuild the catalog.
own=$(sed -n 's/^[a-zA-Z][^[:space:]]*[[:space:]]\{1,\}\(\/var[^[:space:]]*\).*/\1/p' usr/lib/tmpfiles.d/*.conf)
lines=$(
    echo 'f /var/.updated 0644 0 0 - -'
    find var -mindepth 1 -type d -printf 'd /%p %m %U %G - -\n' -o -type l -printf 'L /%p - - - - %l\n'
)
printf '%s\n' "$lines" | LC_ALL=C sort -k 2 | while read -r kind path rest; do
    printf '%s\n' "$own" | grep -qxF "$path" || printf '%s %s %s\n' "$kind" "$path" "$rest"
done >usr/lib/tmpfiles.d/powernode-var.conf
[ -s usr/lib/tmpfiles.d/powernode-var.conf ] || fail 'no line for tmpfiles.d was made of /var'

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
