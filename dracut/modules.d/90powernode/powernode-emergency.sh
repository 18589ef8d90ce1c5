#!/bin/sh
# Hook `emergency`: dracut runs it before it opens a shell: when it gives up, is killed, or was told to by rd.break=. What is mounted
# depends on how far the boot came. There is no such shell on a node; an image with recovery goes on to it.
#
# dracut sources this file in process 1; the work happens in a shell of its own.

/bin/sh /usr/lib/powernode/powernode-boot emergency || while :; do sleep 3600; done
