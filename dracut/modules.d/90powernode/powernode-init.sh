#!/bin/sh
# /init of the initramfs: process 1, started by the kernel with nothing mounted. It looks at the kernel command line before anything else
# does, and then becomes dracut's own init, which reads rd.cmdline=ask and rd.break=cmdline before it runs any hook.
#
# systemd in the root takes credentials from the hypervisor (fw_cfg, SMBIOS) and from the command line, and some of them are
# units and commands. It imports none when it is told where they are: here an empty directory. This does not depend on the
# command line. dracut gives the environment of its own start to the root's init; other words of the command line that the kernel has
# put there are left out.

set -u
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH

# The same as in dracut's init, which leaves alone what it finds mounted. The archive may have a few nodes in /dev, and the consoles are
# not among them.
umask 022
mkdir -p /proc /sys /dev
[ -d /proc/self ] || mount -t proc -o nosuid,noexec,nodev proc /proc
[ -d /sys/kernel ] || mount -t sysfs -o nosuid,noexec,nodev sysfs /sys
mount -t devtmpfs -o mode=0755,noexec,nosuid,strictatime devtmpfs /dev

# The check ends with a refusal or with 0. Should it not have run to its end, there is nobody left to ask.
if ! /bin/sh /usr/lib/powernode/powernode-boot guard; then
    echo 'powernode: refused: the check of the kernel command line did not run' >/dev/kmsg
    busybox poweroff -f
    while :; do
        sleep 3600
    done
fi

if [ -f /etc/powernode/recovery ]; then
    exec /usr/lib/powernode/dracut-init
fi
credentials=/run/credentials/@system
mkdir -p "$credentials"
chmod 0700 "$credentials"
exec busybox env -i HOME=/ TERM="${TERM:-linux}" "CREDENTIALS_DIRECTORY=$credentials" /usr/lib/powernode/dracut-init
