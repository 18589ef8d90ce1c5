#!/bin/sh
# Called by busybox udhcpc with a lease in its environment, in the initramfs; it changes nothing but writes the lease to the file $PN_LEASE,
# which powernode-cloud.sh reads.

set -u

[ "${1:-}" = bound ] || exit 0
printf 'ip %s\nmask %s\nrouter %s\nstaticroutes %s\n' "${ip:-}" "${mask:-}" "${router:-}" "${staticroutes:-}" >"${PN_LEASE:?}"
