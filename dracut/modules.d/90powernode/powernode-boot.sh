#!/bin/sh
# The steps of a Powernode boot, in order. Started by /init (`guard`) and by the hooks: `decide` from `cmdline`, `root` from `mount`,
# `pivot` from `pre-pivot`, and `emergency` from dracut's way to a shell.
# Every step either succeeds or sets PN_REASON; then the one line `powernode: refused: <reason>` is printed and the machine
# goes down (an image with recovery opens a shell before, with powernode.debug=1). There is no third way out of this file.

set -u
# shellcheck source=powernode-lib.sh
. /usr/lib/powernode/powernode-lib.sh
# shellcheck source=powernode-trust.sh
. /usr/lib/powernode/powernode-trust.sh
# shellcheck source=powernode-guard.sh
. /usr/lib/powernode/powernode-guard.sh
# shellcheck source=powernode-identity.sh
. /usr/lib/powernode/powernode-identity.sh
# shellcheck source=powernode-cloud.sh
. /usr/lib/powernode/powernode-cloud.sh
# shellcheck source=powernode-handover.sh
. /usr/lib/powernode/powernode-handover.sh
# shellcheck source=powernode-root.sh
. /usr/lib/powernode/powernode-root.sh
# shellcheck source=powernode-persist.sh
. /usr/lib/powernode/powernode-persist.sh
# shellcheck source=powernode-install.sh
. /usr/lib/powernode/powernode-install.sh
# shellcheck source=powernode-modules.sh
. /usr/lib/powernode/powernode-modules.sh
# shellcheck source=powernode-stack.sh
. /usr/lib/powernode/powernode-stack.sh

case ${1:-} in
    guard)
        powernode_guard || powernode_refuse "$PN_REASON"
        ;;
    decide)
        powernode_decide || powernode_refuse "$PN_REASON"
        case $PN_MODE in
            recovery) powernode_recovery ;;
        esac
        ;;
    root)
        powernode_load_drivers
        powernode_install_asked || powernode_refuse "$PN_REASON"
        powernode_pinned_digest || powernode_refuse "$PN_REASON"
        powernode_mount_run || powernode_refuse "$PN_REASON"
        powernode_find_store || powernode_refuse "$PN_REASON"
        powernode_choose_sources || powernode_refuse "$PN_REASON"
        # An installation replaces whatever identity is on the disks: a wrong one there must not stop it.
        [ -n "$PN_TARGET" ] || powernode_claim_early || powernode_refuse "$PN_REASON"
        powernode_mount_store || powernode_refuse "$PN_REASON"
        powernode_verify_image || powernode_refuse "$PN_REASON"
        powernode_install || powernode_refuse "$PN_REASON"
        powernode_prepare_persist || powernode_refuse "$PN_REASON"
        powernode_mount_root || powernode_refuse "$PN_REASON"
        powernode_open_root || powernode_refuse "$PN_REASON"
        powernode_read_critical || powernode_refuse "$PN_REASON"
        powernode_mount_persist || powernode_refuse "$PN_REASON"
        powernode_claim_late || powernode_refuse "$PN_REASON"
        powernode_mount_seed || powernode_refuse "$PN_REASON"
        powernode_find_modules || powernode_refuse "$PN_REASON"
        powernode_take_modules || powernode_refuse "$PN_REASON"
        powernode_stack_modules || powernode_refuse "$PN_REASON"
        powernode_protect_root || powernode_refuse "$PN_REASON"
        powernode_modules_done || powernode_refuse "$PN_REASON"
        powernode_hand_over || powernode_refuse "$PN_REASON"
        powernode_mark_complete || powernode_refuse "$PN_REASON"
        ;;
    pivot)
        powernode_check_complete || powernode_refuse "$PN_REASON"
        ;;
    emergency)
        PN_REASON='dracut did not come to the root, and this image has no recovery shell'
        powernode_has_recovery || powernode_refuse "$PN_REASON"
        ;;
    *)
        powernode_refuse "powernode-boot was started with '${1:-}', not 'guard', 'decide', 'root', 'pivot' or 'emergency'"
        ;;
esac
