#!/bin/sh
# No way round: which words the kernel command line may hold, and what must have happened before the root is entered. Functions only,
# sourced after powernode-lib.sh and under its conventions.
#
# The command line is the one input of a boot that nothing signs. The kernel, dracut, udev and systemd read it, and each of them has
# words that give a shell, run a program or start something else than the verified root. So only words of a list are taken
# (powernode-words), and any other word is refused by name. An image that was built with the option recovery takes every word.
#
# The kernel itself obeys rdinit=, and starts that program in place of this one: no code of an initramfs can refuse it.

PN_WORDS=/usr/lib/powernode/words
# What the last step of the boot leaves for the hook pre-pivot. It is in the initramfs's own file system and ends with it.
PN_COMPLETE=/tmp/powernode-complete
# What the root masks, and a recovery image unmasks in its upper layer: shells and commands that the command line asks systemd for.
PN_MASKS='etc/systemd/system-generators/systemd-debug-generator etc/systemd/system-generators/systemd-run-generator
    etc/systemd/system/debug-shell.service etc/systemd/system/rescue.service etc/systemd/system/rescue.target
    etc/systemd/system/emergency.service etc/systemd/system/emergency.target'

# powernode_guard: every word of the kernel command line is on the list. Nothing that anybody else reads there has been read yet.
powernode_guard() {
    if powernode_has_recovery; then
        return 0
    fi
    PN_REASON="the list of the words that the kernel command line may hold cannot be read: $PN_WORDS"
    pn_patterns=$(sed 's/^#.*//' "$PN_WORDS" 2>/dev/null) || return 1
    [ -n "$pn_patterns" ] || return 1
    PN_REASON="the kernel command line cannot be read: $PN_CMDLINE"
    pn_text=$(cat "$PN_CMDLINE" 2>/dev/null) || return 1
    # The kernel takes bytes for spaces that a shell does not.
    pn_odd=$(tr -d '\011\012\040-\176' <"$PN_CMDLINE" | wc -c)
    if [ "$pn_odd" -ne 0 ]; then
        PN_REASON="the kernel command line holds $pn_odd bytes that are not plain text"
        return 2
    fi
    pn_pem=''
    set -f
    for pn_word in $pn_text; do
        powernode_guard_word "$pn_word" || {
            set +f
            return 2
        }
    done
    set +f
    PN_REASON=''
}

# powernode_guard_word WORD: one word of the command line. A certificate has spaces in it, so that it is several words; pn_pem is not
# empty while they last.
powernode_guard_word() {
    if [ -n "$pn_pem" ]; then
        powernode_guard_pem "$1"
        return
    fi
    # The quotes of a value with spaces are around the value or around the whole word.
    case $1 in
        powernode.ca=-----BEGIN | powernode.ca=\"-----BEGIN | \"powernode.ca=-----BEGIN \
            | powernode.ca_pem=-----BEGIN | powernode.ca_pem=\"-----BEGIN | \"powernode.ca_pem=-----BEGIN)
            pn_pem=head
            return 0
            ;;
    esac
    case $1 in
        # Quotes and backslashes mean one thing to the kernel and another to systemd.
        *\"* | *\'* | *\\*)
            powernode_guard_name "$1"
            PN_REASON="$PN_VALUE on the kernel command line holds a quote or a backslash, which no word of this image may"
            return 2
            ;;
        powernode.boot=0)
            PN_REASON='powernode.boot=0 asks for the recovery, which this image does not have: pnb build --with recovery makes one that has it'
            return 2
            ;;
        powernode.debug=0) return 0 ;;
        powernode.debug | powernode.debug=*)
            PN_REASON='powernode.debug asks for a shell, which this image does not have: pnb build --with recovery makes one that has it'
            return 2
            ;;
    esac
    for pn_pattern in $pn_patterns; do
        # shellcheck disable=SC2254  # the lines of the list are patterns
        case $1 in
            $pn_pattern) return 0 ;;
        esac
    done
    powernode_guard_name "$1"
    PN_REASON="$PN_VALUE is not a word that the kernel command line of this image may hold: $PN_WORDS lists those; an image with recovery takes any"
    return 2
}

# powernode_guard_pem WORD: a word of a certificate: base64, whose length is a multiple of four, or a part of its first or last line.
# That leaves no word that the kernel, dracut or systemd knows: outside of quotes they read these as words of their own.
powernode_guard_pem() {
    PN_REASON='the certificate on the kernel command line is not PEM'
    pn_base=$1
    if [ "$pn_pem" = head ]; then
        case $pn_base in
            CERTIFICATE-----*) pn_base=${pn_base#CERTIFICATE-----} ;;
            *) return 2 ;;
        esac
        pn_pem=body
        # The first line of base64 may follow at once.
        if [ -z "$pn_base" ]; then
            PN_REASON=''
            return 0
        fi
    elif [ "$pn_pem" = tail ]; then
        case $pn_base in
            CERTIFICATE----- | CERTIFICATE-----\") pn_pem='' ;;
            # More than one certificate.
            CERTIFICATE----------BEGIN) pn_pem=head ;;
            *) return 2 ;;
        esac
        PN_REASON=''
        return 0
    fi
    case $pn_base in
        *-----END)
            pn_base=${pn_base%-----END}
            pn_pem=tail
            if [ -z "$pn_base" ]; then
                PN_REASON=''
                return 0
            fi
            ;;
        # An empty list of security modules is four characters long.
        lsm=) return 2 ;;
    esac
    [ $((${#pn_base} % 4)) -eq 0 ] || return 2
    pn_base=${pn_base%=}
    pn_base=${pn_base%=}
    case $pn_base in
        '' | *[!A-Za-z0-9+/]*) return 2 ;;
    esac
    PN_REASON=''
}

# powernode_guard_name WORD: PN_VALUE is the name of a word: what is before `=`, which may be followed by a secret, and not too long.
powernode_guard_name() {
    PN_VALUE=$(printf '%s' "${1%%=*}" | head -c 64)
    case $1 in
        *=*) PN_VALUE="$PN_VALUE=" ;;
    esac
}

# powernode_open_root: an image with recovery gives back what the root masks. The verified files stay as they are: this removes the masks
# in the upper layer, which is in memory.
powernode_open_root() {
    if ! powernode_has_recovery; then
        return 0
    fi
    for pn_mask in $PN_MASKS; do
        if ! rm -f "$PN_NEWROOT/$pn_mask"; then
            PN_REASON="/$pn_mask of the root cannot be unmasked"
            return 1
        fi
    done
}

# powernode_mark_complete: the last step: everything before it has succeeded.
powernode_mark_complete() {
    if ! powernode_is_hex64 "$PN_DIGEST" || ! printf '%s\n' "$PN_DIGEST" >"$PN_COMPLETE"; then
        PN_REASON="$PN_COMPLETE cannot be written"
        return 1
    fi
}

# powernode_check_complete: what the hook pre-pivot asks: did all steps succeed, and is that root still mounted? A shell that was killed
# after it had mounted the root would else be taken for one that had finished.
powernode_check_complete() {
    powernode_pinned_digest || return
    PN_REASON='the boot did not come to its end: a step of it is missing'
    [ -f "$PN_COMPLETE" ] && [ "$(cat "$PN_COMPLETE" 2>/dev/null)" = "$PN_DIGEST" ] || return 1
    PN_REASON="the verified root is not what is mounted on $PN_NEWROOT"
    pn_top=''
    while read -r pn_what pn_where pn_type pn_more; do
        [ "$pn_where" != "$PN_NEWROOT" ] || pn_top="$pn_what $pn_type"
    done <"$PN_PROC/mounts"
    [ "$pn_top" = 'powernode overlay' ] || return 1
    PN_REASON=''
}
