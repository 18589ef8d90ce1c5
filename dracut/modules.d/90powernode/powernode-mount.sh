#!/bin/sh
# Hook `mount`: runs with udev settled and every device seen; /sysroot is empty. When it returns, /sysroot is the verified
# root, or the machine has been powered off.
#
# dracut sources this file in process 1; the work happens in a shell of its own.

/bin/sh /usr/lib/powernode/powernode-boot root
