#!/bin/sh
# Stands in for powernode-boot in the initramfs of tests/modules/cases.rs: runs the library of 90powernode with each case of the share,
# one after the other in one machine, each in a mount namespace of its own.
#
# What is there when this runs as `root`: /usr/lib/powernode with the library, and the root's file in the initramfs. The share has a
# directory cases/<name>/ for each case:
#
#   modules.list, *.cfs, .store/   what a place of modules has
#   counter                        the counter that /persist keeps (optional)
#   id                             the node's instance (optional)
#   mutant                         a script of sed(1) for every file of the library (optional)
#   after                          a script of sh(1) that runs when the modules were accepted (optional)
#
# A line `case <name>: accepted` or `case <name>: refused: <reason>` is printed for each.

set -u
lib=/usr/lib/powernode
share=/cases

libraries='powernode-lib powernode-trust powernode-guard powernode-identity powernode-root powernode-persist powernode-install powernode-modules powernode-stack'

# accepted: the steps of powernode-boot that belong to modules, with what they need before.
accepted() {
    powernode_pinned_digest || return
    powernode_mount_run || return
    powernode_find_store || return
    powernode_mount_store || return
    powernode_verify_image || return
    powernode_mount_root || return
    mkdir -p "$PN_RUN/seed/modules"
    mount --bind "$share/cases/$1" "$PN_RUN/seed/modules" || return
    [ ! -f "$share/cases/$1/id" ] || PN_ID=$(cat "$share/cases/$1/id")
    [ ! -f "$share/cases/$1/counter" ] || cp "$share/cases/$1/counter" "$PN_NEWROOT/persist/module-counter"
    powernode_find_modules || return
    powernode_take_modules || return
    powernode_stack_modules || return
    powernode_protect_root || return
    powernode_modules_done || return
    # shellcheck disable=SC1090  # it belongs to the case
    [ ! -f "$share/cases/$1/after" ] || . "$share/cases/$1/after"
}

case ${1:-} in
    guard | decide) exit 0 ;;
    root)
        # shellcheck source=../../dracut/modules.d/90powernode/powernode-lib.sh
        . "$lib/powernode-lib.sh"
        powernode_load_drivers
        modprobe -q 9pnet_virtio
        mkdir -p "$share"
        mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144 powernode-seed "$share" || powernode_refuse 'there are no cases'
        for dir in "$share"/cases/*/; do
            dir=${dir%/}
            busybox unshare -m /bin/sh "$0" case "${dir##*/}" </dev/null
        done
        powernode_refuse 'these were all cases'
        ;;
    case)
        mkdir -p /run/case
        mount -t tmpfs case /run/case
        for name in $libraries; do
            if [ -f "$share/cases/$2/mutant" ]; then
                sed -f "$share/cases/$2/mutant" "$lib/$name.sh" >"/run/case/$name.sh"
            else
                cp "$lib/$name.sh" "/run/case/$name.sh"
            fi
            # shellcheck disable=SC1090  # every file of the library
            . "/run/case/$name.sh"
        done
        if accepted "$2"; then
            powernode_tell "case $2: accepted"
        else
            powernode_tell "case $2: refused: $PN_REASON"
        fi
        ;;
esac
