#!/bin/sh
# Installs packages with dpkg into a root that the writer dpkg-root has prepared. The stages rootfs and bootstrap read this file.
#
# What is there when install_packages runs: / is the tools tree (unpacked packages, nothing configured), $root is the root, with its
# device nodes in $root/dev and the packages to install in $root/debs, their members uncompressed. A root that a base image gave has
# the database of dpkg and the files of installed packages; any other root has only the files that a package's scripts may call before
# it is unpacked. The variable $install names the directory of this file, and fail is a function that ends the stage with its text.

: "${root:?}" "${install:?}"

# shellcheck source=native.sh
. "$install/native.sh"

# Half of all files are documentation and translations, which no program needs; licences stay.
unneeded='man info locale lintian bug bash-completion zsh fish groff linda'

# What dpkg expects of a system without packages, and what nobody else would make.
make_database() {
    mkdir -p "$root/etc/apt/apt.conf.d" "$root/etc/apt/sources.list.d" "$root/etc/apt/preferences.d" "$root/etc/dpkg/dpkg.cfg.d" \
        "$root/tmp" "$root/var/lib/dpkg/alternatives" "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/triggers" \
        "$root/var/lib/dpkg/updates"
    chmod 1777 "$root/tmp"
    : >"$root/var/lib/dpkg/status"
    : >"$root/var/lib/dpkg/available"
    printf '%s\n' "$PNB_ARCH" >"$root/var/lib/dpkg/arch"
    printf '%s\n' '# UNCONFIGURED FSTAB FOR BASE SYSTEM' >"$root/etc/fstab"
}

# Only for these scripts is it known that ours gives the same; others run themselves.
replace_scripts() {
    info=$root/var/lib/dpkg/info
    own=/build/ca-certificates.postinst
    if sha256sum --check --status <<EOF; then
bbad2df5d3c5e3d787789275830bc5b597fe6e9218a99516947a079dcae9e262  $info/ca-certificates.postinst
6d34a25b8f7e6ff679a768db581ae5e436faee193aece201c6a4501e36b2ec37  $info/ca-certificates.config
2cb06c85b5f01c4f6b72c3983d9f66d44aac0a7ac997ee55e7e429aedbc3934d  $root/usr/sbin/update-ca-certificates
EOF
        mv "$info/ca-certificates.postinst" "$own"
        cp "$install/ca-certificates.postinst" "$info/ca-certificates.postinst"
        chmod 0755 "$info/ca-certificates.postinst"
    fi
}

# dpkg unpacks all packages and after that configures them in the order of their dependencies. Unpacking cannot follow the order of
# Pre-Depends, as in any new system; the files of those are there already, which is what they are about.
# It has no diff, which it would show changed configuration with.
install_packages() {
    # No daemon is started.
    printf '%s\n' '#!/bin/sh' 'exit 101' >"$root/usr/sbin/policy-rc.d"
    chmod 0755 "$root/usr/sbin/policy-rc.d"
    export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
    set -- --path-exclude='/usr/share/doc/*' --path-include='/usr/share/doc/*/copyright'
    for dir in $unneeded; do
        set -- "$@" --path-exclude="/usr/share/$dir/*"
    done
    use_native
    # dpkg brings the root's own programs back with the packages that have them, so these are unpacked last.
    late=$(native_packages)
    set -- "$@" --unpack
    for deb in "$root"/debs/*.deb; do
        name=${deb##*/}
        case $late in
            *" ${name%%_*} "*) ;;
            *) set -- "$@" "$deb" ;;
        esac
    done
    for name in $late; do
        set -- "$@" "$root/debs/${name}"_*.deb
    done
    dpkg --root="$root" --force-unsafe-io --force-bad-path --force-depends --force-architecture "$@" \
        || fail 'dpkg could not unpack the packages'
    rm -rf "$root/debs"
    restore_emulated
    replace_scripts
    use_native
    chroot "$root" dpkg --force-unsafe-io --configure --pending || fail 'dpkg could not configure the packages'
    restore_emulated
    [ ! -e "$own" ] || mv "$own" "$info/ca-certificates.postinst"
    rm "$root/usr/sbin/policy-rc.d"
    unfinished=$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${db:Status-Abbrev}${Package}\n' | sed -n '/^ii /!p')
    [ -z "$unfinished" ] || fail "not installed and configured: $unfinished"
    # Both are empty here. On a machine, what a script writes there changes the kernel; here it would become a file of the root.
    strays=$(find "$root/proc" "$root/sys" -mindepth 1)
    [ -z "$strays" ] || fail "a package's script wrote to /proc or /sys: $strays"
}
