#!/bin/sh
# Hook `pre-pivot`: runs with the root mounted on /sysroot, right before dracut enters it. When it returns, every step of the boot has
# succeeded, or the machine has been powered off.
#
# dracut sources this file in process 1; the work happens in a shell of its own.

/bin/sh /usr/lib/powernode/powernode-boot pivot || while :; do sleep 3600; done
