#!/bin/sh
# Modules, first half: the list. Finds modules.list, checks who signed it, and takes it apart. Functions only, sourced after
# powernode-lib.sh and under its conventions. powernode-stack.sh has the second half: the modules themselves.
#
# Runs with the root, /persist and the host's seed share mounted and the identity known. Everything that the list is judged by comes from
# the verified root: the keys in /etc/powernode/module-keys. docs/modules.md has the format.

PN_MODULE_KEYS=etc/powernode/module-keys
# The file of the verified root that allows a list without a signature; `pnb build --unsigned-modules` makes it.
PN_MODULE_UNSIGNED=etc/powernode/unsigned-modules
PN_MODULE_TAG=powernode_modules
# The verified list, without its signature; and its modules, topmost first: `<priority> <id> <hex> required|optional`.
PN_MODULE_TEXT='' PN_MODULE_SORTED=''
# The number of modules in the list, its counter, and the name of the key that vouches for it.
PN_MODULE_COUNT=0 PN_MODULE_COUNTER='' PN_MODULE_KEY=''
# Where the list was found, for people.
PN_MODULE_FROM=''
# Bytes of a list, and modules in it: the kernel stacks at most 500 layers, and the root and two stores are among them.
PN_MODULE_LIST_MAX=262144
PN_MODULE_MAX=480
# The file on /persist with the highest counter so far.
PN_MODULE_KEPT=persist/module-counter

# powernode_find_modules: find the list, check it and write PN_MODULE_SORTED. The first place that has a list counts; a wrong list is refused
# and never replaced by the next place's. Without any list PN_MODULE_COUNT stays 0.
powernode_find_modules() {
    PN_MODULE_COUNT=0
    PN_MODULE_TEXT=$PN_RUN/modules.text
    PN_MODULE_SORTED=$PN_RUN/modules.sorted
    powernode_modules_required || return
    powernode_kept_counter || return
    powernode_mount_module_share || return
    for pn_place in "$PN_RUN/seed/modules" "$PN_RUN/module-share" "$PN_NEWROOT/persist/cache/modules"; do
        if [ -e "$pn_place/modules.list" ] || [ -h "$pn_place/modules.list" ]; then
            powernode_take_list "$pn_place" || return
            powernode_tell_plain_modules
            return
        fi
    done
    if [ -n "$PN_MODULE_REQUIRED" ]; then
        PN_REASON='powernode.modules=required, and no place has a modules.list'
        return 1
    fi
    if [ -n "$PN_MODULE_KEPT_COUNTER" ]; then
        PN_REASON="modules.list is gone: this node has had the list with the counter $PN_MODULE_KEPT_COUNTER"
        return 1
    fi
    powernode_tell_unlisted
}

# powernode_modules_required: PN_MODULE_REQUIRED is 1 when the command line says powernode.modules=required.
powernode_modules_required() {
    PN_MODULE_REQUIRED=''
    powernode_cmdline_get powernode.modules
    case $? in
        0) ;;
        1) return 0 ;;
        *) return 2 ;;
    esac
    if [ "$PN_VALUE" != required ]; then
        PN_REASON="powernode.modules= is not 'required': '$PN_VALUE'"
        return 2
    fi
    PN_MODULE_REQUIRED=1
}

# powernode_kept_counter: PN_MODULE_KEPT_COUNTER is the counter that /persist keeps, or empty.
powernode_kept_counter() {
    PN_MODULE_KEPT_COUNTER=''
    powernode_read_line "$PN_NEWROOT/$PN_MODULE_KEPT" 64
    case $? in
        0) ;;
        1)
            if [ -e "$PN_NEWROOT/$PN_MODULE_KEPT" ] || [ -h "$PN_NEWROOT/$PN_MODULE_KEPT" ]; then
                PN_REASON="/$PN_MODULE_KEPT is not a file"
                return 2
            fi
            return 0
            ;;
        *) return 2 ;;
    esac
    if ! powernode_is_count "$PN_VALUE"; then
        PN_REASON="/$PN_MODULE_KEPT holds no number: '$PN_VALUE'"
        return 2
    fi
    PN_MODULE_KEPT_COUNTER=$PN_VALUE
}

# powernode_mount_module_share: mount the share of the platform's libvirt provider, if the host offers it, on /run/powernode/module-share.
powernode_mount_module_share() {
    powernode_mount_share "$PN_MODULE_TAG" "$PN_RUN/module-share"
    [ $? -le 1 ]
}

# powernode_tell_plain_modules: the platform's share holds plain directories, which nobody can vouch for: say each, use none.
powernode_tell_plain_modules() {
    for pn_dir in "$PN_RUN/module-share"/*/rootfs; do
        [ -e "$pn_dir" ] || [ -h "$pn_dir" ] || continue
        pn_dir=${pn_dir#"$PN_RUN/module-share/"}
        powernode_tell_text "powernode: modules: not used: $pn_dir of the share $PN_MODULE_TAG is a plain directory, for which no list can vouch"
    done
    return 0
}

# powernode_tell_text LINE: powernode_tell for a line with bytes from outside.
powernode_tell_text() {
    powernode_tell "$(printf '%s' "$1" | tr -c ' -~' '?' | head -c 240)"
}

# powernode_tell_unlisted: say that images lie where modules are looked for and no list vouches for them.
powernode_tell_unlisted() {
    for pn_place in "$PN_RUN/seed/modules" "$PN_RUN/module-share" "$PN_NEWROOT/persist/cache/modules"; do
        pn_images=0
        for pn_file in "$pn_place"/*.cfs; do
            [ ! -e "$pn_file" ] || pn_images=$((pn_images + 1))
        done
        [ "$pn_images" -eq 0 ] \
            || powernode_tell "powernode: modules: not used: $pn_images images in ${pn_place#"$PN_NEWROOT"} without a modules.list"
    done
    powernode_tell_plain_modules
}

# powernode_take_list DIR: check the list in DIR and write PN_MODULE_SORTED. The copy in memory is what is checked and read: the file
# of a share may change at any time.
powernode_take_list() {
    PN_MODULE_FROM=${1#"$PN_NEWROOT"}/modules.list
    if [ -h "$1/modules.list" ] || [ ! -f "$1/modules.list" ]; then
        PN_REASON="$PN_MODULE_FROM is not a file"
        return 2
    fi
    if ! timeout -s KILL 60 head -c $((PN_MODULE_LIST_MAX + 1)) "$1/modules.list" >"$PN_RUN/modules.signed" 2>/dev/null; then
        PN_REASON="$PN_MODULE_FROM cannot be read"
        return 2
    fi
    powernode_read "$PN_RUN/modules.signed" "$PN_MODULE_LIST_MAX" || {
        PN_REASON="$PN_MODULE_FROM: ${PN_REASON#"$PN_RUN/modules.signed "}"
        return 2
    }
    powernode_verify_list || return
    powernode_parse_list <"$PN_MODULE_TEXT" || {
        PN_REASON="$PN_MODULE_FROM $PN_REASON"
        return 2
    }
    powernode_judge_list
}

# powernode_verify_list: PN_MODULE_TEXT is the list without its signature, PN_MODULE_KEY the key that it verifies with.
powernode_verify_list() {
    rm -f "$PN_MODULE_TEXT"
    PN_MODULE_KEY=''
    if [ "$(head -n 1 "$PN_RUN/modules.signed")" = 'powernode-modules 1' ]; then
        if [ ! -f "$PN_NEWROOT/$PN_MODULE_UNSIGNED" ]; then
            PN_REASON="$PN_MODULE_FROM is not signed"
            return 1
        fi
        cp "$PN_RUN/modules.signed" "$PN_MODULE_TEXT" || return
        PN_MODULE_KEY=none
        return 0
    fi
    pn_keys=0
    for pn_key in "$PN_NEWROOT/$PN_MODULE_KEYS"/*.pub; do
        [ -f "$pn_key" ] || continue
        pn_keys=$((pn_keys + 1))
        if signify-openbsd -V -q -e -p "$pn_key" -x "$PN_RUN/modules.signed" -m "$PN_MODULE_TEXT" >/dev/null 2>&1 \
            && [ -f "$PN_MODULE_TEXT" ]; then
            PN_MODULE_KEY=${pn_key##*/}
            PN_MODULE_KEY=${PN_MODULE_KEY%.pub}
            return 0
        fi
        rm -f "$PN_MODULE_TEXT"
    done
    PN_REASON="$PN_MODULE_FROM has no valid signature of any of the $pn_keys keys in /$PN_MODULE_KEYS"
    return 1
}

# powernode_parse_list: read the list from stdin. PN_LIST_INSTANCE, PN_LIST_EXPIRES and PN_MODULE_COUNTER are its values; its modules
# go to PN_MODULE_SORTED. A reason completes `<file> …`.
powernode_parse_list() {
    PN_LIST_INSTANCE='' PN_LIST_EXPIRES='' PN_MODULE_COUNTER='' PN_MODULE_COUNT=0
    pn_number=0
    pn_ended=''
    pn_ids=' '
    pn_digests=' '
    : >"$PN_RUN/modules.unsorted"
    while IFS= read -r pn_line; do
        pn_number=$((pn_number + 1))
        PN_REASON="has a line $pn_number of another form: '$pn_line'"
        [ -z "$pn_ended" ] || return 2
        # One space between two words, and nothing else between them.
        set -f
        # shellcheck disable=SC2086  # words are wanted
        set -- $pn_line
        set +f
        [ "$*" = "$pn_line" ] || return 2
        case $pn_number in
            1) [ "$pn_line" = 'powernode-modules 1' ] || return 2 ;;
            2)
                [ "$#" -eq 2 ] && [ "$1" = instance ] || return 2
                if [ "$2" != '*' ]; then
                    powernode_check_uuid "instance in line 2" "$2" || return
                fi
                PN_LIST_INSTANCE=$2
                [ "$2" = '*' ] || PN_LIST_INSTANCE=$PN_VALUE
                ;;
            3)
                [ "$#" -eq 2 ] && [ "$1" = counter ] && powernode_is_count "$2" || return 2
                PN_MODULE_COUNTER=$2
                ;;
            4)
                [ "$#" -eq 2 ] && [ "$1" = expires ] && powernode_moment "$2" || return 2
                PN_LIST_EXPIRES=$2
                ;;
            *)
                if [ "$pn_line" = end ]; then
                    pn_ended=1
                    continue
                fi
                [ "$#" -eq 4 ] && powernode_is_count "$1" && [ "${#1}" -le 9 ] || return 2
                case $2 in
                    [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) return 2 ;;
                esac
                [ "${#2}" -le 64 ] || return 2
                powernode_is_hex64 "${3#sha256:}" && [ "$3" != "${3#sha256:}" ] || return 2
                case $4 in
                    required | optional) ;;
                    *) return 2 ;;
                esac
                case $pn_ids in
                    *" $2 "*)
                        PN_REASON="names the module $2 twice"
                        return 2
                        ;;
                esac
                case $pn_digests in
                    *" ${3#sha256:} "*)
                        PN_REASON="names the image ${3#sha256:} twice"
                        return 2
                        ;;
                esac
                pn_ids="$pn_ids$2 "
                pn_digests="$pn_digests${3#sha256:} "
                PN_MODULE_COUNT=$((PN_MODULE_COUNT + 1))
                printf '%s %s %s %s\n' "$1" "$2" "${3#sha256:}" "$4" >>"$PN_RUN/modules.unsorted"
                ;;
        esac
    done
    PN_REASON="is cut off: its last line is not 'end'"
    # A last line without a newline is a cut-off one too: `read` leaves it in the variable and ends the loop.
    [ -n "$pn_ended" ] && [ -z "$pn_line" ] || return 2
    PN_REASON="has $PN_MODULE_COUNT modules, more than $PN_MODULE_MAX"
    [ "$PN_MODULE_COUNT" -le "$PN_MODULE_MAX" ] || return 2
    PN_REASON=''
    powernode_module_order <"$PN_RUN/modules.unsorted" >"$PN_MODULE_SORTED"
}

# powernode_module_order: the modules of stdin, topmost first. They stack by ascending priority, ties by id, so the last of that
# order is on top.
powernode_module_order() {
    sort -k1,1nr -k2,2r
}

# powernode_moment TEXT: PN_VALUE is the number YYYYMMDDhhmmss of the moment YYYY-MM-DDThh:mm:ssZ, by which moments are compared.
powernode_moment() {
    case $1 in
        [1-9][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z) ;;
        *) return 1 ;;
    esac
    PN_VALUE=$(printf '%s' "$1" | tr -dc '0-9')
}

# powernode_clock: PN_VALUE is the present moment as a number. A machine without a battery starts in 1970: before the time of the root's
# build the clock is wrong by itself, and that time is taken instead.
powernode_clock() {
    pn_now=$(busybox date -u +%Y%m%d%H%M%S)
    pn_built=$(busybox date -u -r "$PN_NEWROOT/usr" +%Y%m%d%H%M%S)
    if ! powernode_is_count "$pn_now" || ! powernode_is_count "$pn_built"; then
        PN_REASON='the time cannot be read'
        return 1
    fi
    PN_VALUE=$pn_now
    [ "$pn_now" -lt "$pn_built" ] || return 0
    powernode_tell "powernode: modules: the clock says $pn_now, before this root was built; $pn_built is taken for now"
    PN_VALUE=$pn_built
}

# powernode_judge_list: refuse the list of another instance, one that was replaced by a newer one, and one whose time is over.
powernode_judge_list() {
    if [ "$PN_LIST_INSTANCE" != '*' ] && [ "$PN_LIST_INSTANCE" != "$PN_ID" ]; then
        PN_REASON="$PN_MODULE_FROM is for the instance $PN_LIST_INSTANCE, and this node is ${PN_ID:-unclaimed}"
        return 1
    fi
    if [ -n "$PN_MODULE_KEPT_COUNTER" ] && [ "$PN_MODULE_COUNTER" -lt "$PN_MODULE_KEPT_COUNTER" ]; then
        PN_REASON="$PN_MODULE_FROM has the counter $PN_MODULE_COUNTER, below $PN_MODULE_KEPT_COUNTER of an earlier list"
        return 1
    fi
    powernode_clock || return
    pn_now=$PN_VALUE
    powernode_moment "$PN_LIST_EXPIRES" || return
    if [ "$pn_now" -ge "$PN_VALUE" ]; then
        PN_REASON="$PN_MODULE_FROM expired at $PN_LIST_EXPIRES"
        return 1
    fi
}

# powernode_keep_counter: from now on no list with a lower counter. Without /persist nothing is kept.
powernode_keep_counter() {
    [ -n "$PN_PERSIST" ] || return 0
    [ "$PN_MODULE_COUNTER" != "$PN_MODULE_KEPT_COUNTER" ] || return 0
    if ! printf '%s\n' "$PN_MODULE_COUNTER" >"$PN_NEWROOT/$PN_MODULE_KEPT.new" \
        || ! sync || ! mv "$PN_NEWROOT/$PN_MODULE_KEPT.new" "$PN_NEWROOT/$PN_MODULE_KEPT" || ! sync; then
        PN_REASON="/$PN_MODULE_KEPT cannot be written"
        return 1
    fi
}
