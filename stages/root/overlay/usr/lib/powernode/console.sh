#!/bin/sh
# How the programs of the root speak to whoever watches a console. Functions only; sourced by ready and fetch-ca, with $top set.

# say LINE...: print the lines on every console. The kernel's own messages are held back while they go out: they would otherwise cut
# into them. (The file must be read at once, which the shell's own `read` does not do.)
say() {
    # shellcheck disable=SC2154  # set by the program
    level=$(cat "$top/proc/sys/kernel/printk")
    level=${level%%[!0-9]*}
    echo 1 >"$top/proc/sys/kernel/printk"
    # A console can be listed that has no device: the kernel's driver of something at the other end (Bluetooth on a Raspberry Pi) keeps
    # the port for itself. Where none has one, the kernel's own way to the console is left.
    said=''
    for tty in $(cat "$top/sys/class/tty/console/active"); do
        if [ -w "$top/dev/$tty" ] && printf '\r\n' >"$top/dev/$tty" && printf '%s\r\n' "$@" >>"$top/dev/$tty"; then
            said=yes
        fi
    done
    [ -n "$said" ] || { printf '\r\n' && printf '%s\r\n' "$@"; } >"$top/dev/console"
    # Serial lines are slow.
    sleep 0.3
    echo "$level" >"$top/proc/sys/kernel/printk"
}

# visible LIMIT: the first line of standard input as at most LIMIT characters of visible ASCII. A name of ours with a colon and a space, which
# begins the lines that a boot is judged by, is taken apart.
visible() {
    head -n 1 | tr -d '\n' | tr -c ' -~' '?' | sed 's/powernode: /powernode; /g' | head -c "$1"
}
