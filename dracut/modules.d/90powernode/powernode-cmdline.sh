#!/bin/sh
# Hook `cmdline`: runs first, with /proc, /sys, /dev and /run mounted, before udev starts and before any device is known.
# It decides between boot and recovery, and tells dracut that the root file system is this module's business.
#
# dracut sources this file in process 1; the work happens in a shell of its own.

/bin/sh /usr/lib/powernode/powernode-boot decide

# dracut reads these two and nothing else: any `root=` of the kernel command line is overruled here.
# shellcheck disable=SC2034
root=powernode
# shellcheck disable=SC2034
rootok=1
