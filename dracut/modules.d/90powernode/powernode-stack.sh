#!/bin/sh
# Modules, second half: the images that the list names. Brings them into a file system with fs-verity, compares their digests, mounts them,
# and stacks them on the root in one overlay. Functions only, sourced after powernode-modules.sh.
#
# Nothing is mounted before its digest was measured, and nothing that was measured can change afterwards: fs-verity checks each block of
# an image, and overlayfs (verity=require) compares each object with the digest in the image when it is first opened.

# The store of the modules: `<hex>.cfs`, and the objects by digest in .store. It is on /persist, or on an ext4 file system in memory.
PN_MODULE_STORE=''
# The modules that are left out, with spaces around each digest.
PN_MODULE_DROPPED=' '
PN_PROTECTED=usr/lib/powernode/protected-paths
# By its path: busybox has a smaller one under the same name, and prefers it.
PN_GETFATTR=/usr/bin/getfattr
# Features of the file system in memory: the usual ones of ext4 without a journal, and fs-verity.
PN_MODULE_FEATURES=none,ext_attr,dir_index,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,filetype,verity

# powernode_bad_module ID REQUIRED HEX TEXT: a required module that is bad refuses the boot; an optional one is left out and said.
powernode_bad_module() {
    PN_REASON="module $1: $4"
    [ "$2" = optional ] || return 1
    PN_MODULE_DROPPED="$PN_MODULE_DROPPED$3 "
    powernode_tell_text "powernode: modules: left out: $1: $4"
}

# powernode_is_dropped HEX
powernode_is_dropped() {
    case $PN_MODULE_DROPPED in
        *" $1 "*) return 0 ;;
    esac
    return 1
}

# powernode_take_modules: every module of the list is in the store, has its digest and is mounted on /run/powernode/modules/<hex>. A program is
# started once for all modules and not once for each, wherever one can be: there may be hundreds.
powernode_take_modules() {
    PN_MODULE_DROPPED=' '
    [ "$PN_MODULE_COUNT" -gt 0 ] || return 0
    powernode_module_store || return
    powernode_fetch_images || return
    powernode_measure_images || return
    powernode_mount_images || return
    powernode_check_entries || return
    powernode_take_objects
}

# powernode_module_store: PN_MODULE_STORE is the directory of the store, made if need be.
powernode_module_store() {
    if [ -n "$PN_PERSIST" ]; then
        PN_MODULE_STORE=$PN_NEWROOT/persist/cache/modules
        return 0
    fi
    PN_MODULE_STORE=$PN_RUN/module-store
    pn_file=$PN_RUN/module-store.ext4
    PN_REASON="no file system for the modules can be made in memory"
    pn_half=$(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' "$PN_PROC/meminfo")
    powernode_is_count "$pn_half" || return 1
    pn_half=$((pn_half / 2))
    mkdir -p "$PN_MODULE_STORE" || return
    dd if=/dev/null of="$pn_file" bs=1024 seek="$pn_half" 2>/dev/null || return
    mke2fs -q -F -t ext4 -b 4096 -m 0 -O "$PN_MODULE_FEATURES" -E assume_storage_prezeroed=1 "$pn_file" >/dev/null 2>&1 || return
    mount -t ext4 -o rw,nodev,nosuid,noexec,loop "$pn_file" "$PN_MODULE_STORE" 2>/dev/null || return
    mkdir -p "$PN_MODULE_STORE/.store" || return
    PN_REASON=''
}

# powernode_is_plain FILE: a file and no link to one.
powernode_is_plain() {
    [ -f "$1" ] && [ ! -h "$1" ]
}

# powernode_bring FILE: copy the files whose names, relative to a place of modules, are the lines of FILE from the host's shares to the store,
# each from the first share that has it, with fs-verity. One that no share has, or that cannot be copied, is not in the store afterwards.
powernode_bring() {
    pn_new=$PN_MODULE_STORE/.new
    for pn_place in "$PN_RUN/seed/modules" "$PN_RUN/module-share"; do
        PN_REASON="the store of modules cannot be written"
        rm -rf "$pn_new" && mkdir "$pn_new" || return
        while read -r pn_name; do
            powernode_is_plain "$pn_place/$pn_name" || continue
            powernode_is_plain "$PN_MODULE_STORE/$pn_name" || printf '%s\n' "$pn_name"
        done <"$1" >"$PN_RUN/modules.here"
        [ -s "$PN_RUN/modules.here" ] || continue
        # Complete under another name first: a power cut leaves no half of a file in its place.
        (cd "$pn_place" && timeout -s KILL 600 busybox xargs cp --parents -t "$pn_new" <"$PN_RUN/modules.here") 2>/dev/null
        sed "s|^|$pn_new/|" "$PN_RUN/modules.here" | busybox xargs -n 1 fsverity enable 2>/dev/null
        cp -rl "$pn_new/." "$PN_MODULE_STORE/" 2>/dev/null
    done
    rm -rf "$pn_new"
    PN_REASON=''
}

# powernode_image HEX: PN_VALUE is the image in the store. Both names are known to the platform. Returns 1 when there is none.
powernode_image() {
    for pn_name in "$1.cfs" "sha256_$1.cfs"; do
        PN_VALUE=$PN_MODULE_STORE/$pn_name
        ! powernode_is_plain "$PN_VALUE" || return 0
    done
    return 1
}

# powernode_fetch_images: the store has every image.
powernode_fetch_images() {
    while read -r pn_priority pn_id pn_hex pn_need; do
        powernode_image "$pn_hex" || printf '%s\n' "$pn_hex.cfs" "sha256_$pn_hex.cfs"
    done <"$PN_MODULE_SORTED" >"$PN_RUN/modules.missing"
    powernode_bring "$PN_RUN/modules.missing" || return
    while read -r pn_priority pn_id pn_hex pn_need; do
        powernode_image "$pn_hex" && continue
        powernode_bad_module "$pn_id" "$pn_need" "$pn_hex" "there is no image $pn_hex.cfs" || return
    done <"$PN_MODULE_SORTED"
}

# powernode_measure FILE HEX: the fs-verity digest of FILE is HEX. A file of /persist that has none yet gets it now; the digest is
# compared all the same.
powernode_measure() {
    pn_measured=$(fsverity measure "$1" 2>/dev/null) || {
        fsverity enable "$1" 2>/dev/null
        pn_measured=$(fsverity measure "$1" 2>/dev/null) || {
            PN_REASON="${1##*/} can have no fs-verity digest"
            return 1
        }
    }
    pn_measured=${pn_measured%% *}
    if ! powernode_is_hex64 "$2" || [ "$pn_measured" != "sha256:$2" ]; then
        PN_REASON="its image is ${pn_measured#sha256:}, not $2"
        return 1
    fi
}

# powernode_all_good FILE: every line of FILE is a path whose last part, with the directory before it for an object, names the fs-verity
# digest that the file has. All are measured at once; the caller finds out which one is wrong.
powernode_all_good() {
    pn_good=$(busybox xargs -n 400 fsverity measure <"$1" 2>/dev/null | busybox awk '
        {
            hex = $2
            if (!sub(/^.*\/\.store\//, "", hex)) sub(/^.*\//, "", hex)
            sub(/^sha256_/, "", hex)
            sub(/\.cfs$/, "", hex)
            sub(/\//, "", hex)
            if ($1 == "sha256:" hex) good++
        }
        END { print good + 0 }')
    [ "$pn_good" -eq "$(wc -l <"$1")" ]
}

# powernode_measure_images: compare the digest of every image and read every image completely, so that a damaged block is found here.
powernode_measure_images() {
    while read -r pn_priority pn_id pn_hex pn_need; do
        powernode_is_dropped "$pn_hex" || ! powernode_image "$pn_hex" || printf '%s\n' "$PN_VALUE"
    done <"$PN_MODULE_SORTED" >"$PN_RUN/modules.images"
    powernode_all_good "$PN_RUN/modules.images" && busybox xargs -n 400 cat <"$PN_RUN/modules.images" >/dev/null 2>&1 && return
    while read -r pn_priority pn_id pn_hex pn_need; do
        ! powernode_is_dropped "$pn_hex" || continue
        powernode_image "$pn_hex"
        pn_image=$PN_VALUE
        if powernode_measure "$pn_image" "$pn_hex"; then
            cat "$pn_image" >/dev/null 2>&1 && continue
            PN_REASON="its image $pn_hex is damaged: a block differs from its fs-verity digest"
        fi
        powernode_bad_module "$pn_id" "$pn_need" "$pn_hex" "$PN_REASON" || return
    done <"$PN_MODULE_SORTED"
}

# powernode_mount_images: mount every image on a directory of its own.
powernode_mount_images() {
    while read -r pn_priority pn_id pn_hex pn_need; do
        powernode_is_dropped "$pn_hex" || printf '%s\n' "$PN_RUN/modules/$pn_hex"
    done <"$PN_MODULE_SORTED" | busybox xargs -n 400 mkdir -p
    while read -r pn_priority pn_id pn_hex pn_need; do
        ! powernode_is_dropped "$pn_hex" || continue
        powernode_image "$pn_hex"
        mount -t erofs -o ro,nodev,nosuid,noexec "$PN_VALUE" "$PN_RUN/modules/$pn_hex" 2>/dev/null && continue
        powernode_bad_module "$pn_id" "$pn_need" "$pn_hex" "its image $pn_hex cannot be mounted as EROFS" || return
    done <"$PN_MODULE_SORTED"
}

# powernode_check_entries: the only attributes of overlayfs that an image may have are those of composefs: `opaque` on its root, and on a
# file the digest of its content with the path of the object of that digest. Everything else would let an image hide, move or borrow
# files of other layers. Devices and whiteouts are refused too. The objects that the images name are written to modules.objects.
powernode_check_entries() {
    : >"$PN_RUN/modules.roots"
    while read -r pn_priority pn_id pn_hex pn_need; do
        ! powernode_is_dropped "$pn_hex" || continue
        pn_mount=$PN_RUN/modules/$pn_hex
        printf '%s\0' "$pn_mount" >>"$PN_RUN/modules.roots"
        for pn_entry in "$pn_mount"/* "$pn_mount"/.[!.]* "$pn_mount"/..?*; do
            case ${pn_entry##*/} in
                # The whiteouts that every composefs image has in its root, for the directories of the objects. Anything
                # else of such a name would be seen in the union: powernode_stack_modules looks.
                [0-9a-f][0-9a-f]) continue ;;
            esac
            if [ -e "$pn_entry" ] || [ -h "$pn_entry" ]; then
                printf '%s\0' "$pn_entry"
            fi
        done
    done <"$PN_MODULE_SORTED" >"$PN_RUN/modules.entries"
    rm -f "$PN_RUN/modules.objects"
    {
        if [ -s "$PN_RUN/modules.entries" ]; then
            # shellcheck disable=SC2016  # for the other shell
            busybox xargs -0 -n 400 /bin/sh -c 'busybox find "$@" "(" -type c -o -type b ")" -print' sh <"$PN_RUN/modules.entries" 2>/dev/null \
                | sed 's/^/device /'
        fi
    } >"$PN_RUN/modules.odd"
    {
        busybox xargs -0 -n 400 "$PN_GETFATTR" -d -h --absolute-names -e hex -m '^trusted\.overlay\.' <"$PN_RUN/modules.roots" \
            && { [ ! -s "$PN_RUN/modules.entries" ] \
                || busybox xargs -0 -n 400 "$PN_GETFATTR" -d -h -R -P --absolute-names -e hex -m '^trusted\.overlay\.' <"$PN_RUN/modules.entries"; } \
            && echo whole
    } 2>/dev/null | busybox awk -v "base=$PN_RUN/modules/" -v "objects=$PN_RUN/modules.objects" "$PN_MODULE_AWK" >>"$PN_RUN/modules.odd"
    [ -s "$PN_RUN/modules.odd" ] || return 0
    while read -r pn_priority pn_id pn_hex pn_need; do
        ! powernode_is_dropped "$pn_hex" || continue
        pn_odd=$(busybox grep -e "$PN_RUN/modules/$pn_hex" -e '^unread' "$PN_RUN/modules.odd" | head -n 1)
        pn_path=${pn_odd#*"$PN_RUN/modules/$pn_hex"}
        case $pn_odd in
            '') continue ;;
            unread) pn_odd='its attributes cannot be read' ;;
            device*) pn_odd="$pn_path is a device or a whiteout" ;;
            *) pn_odd="${pn_path:-its root} has a foreign attribute of overlayfs" ;;
        esac
        powernode_bad_module "$pn_id" "$pn_need" "$pn_hex" "$pn_odd" || return
    done <"$PN_MODULE_SORTED"
}

# What reads getfattr's output: prints each entry with a foreign attribute, and appends the digests of objects to a file, with the module.
# shellcheck disable=SC2016  # for awk
PN_MODULE_AWK='
function ascii(hex,    i, c, out) {
    for (i = 1; i <= length(hex); i++) {
        c = substr(hex, i, 1)
        out = out (index("0123456789", c) ? "3" c : "6" index("abcdef", c))
    }
    return out
}
function entry(    want, module) {
    if (file == "" || seen == 0) return
    module = substr(file, length(base) + 1, 64)
    if (length(file) == length(base) + 64) {
        if (seen != 1 || opaque != "0x79") print "attribute " file
        return
    }
    want = ""
    if (length(metacopy) == 74 && substr(metacopy, 1, 10) == "0x00240001") {
        digest = substr(metacopy, 11)
        want = "0x2f" ascii(substr(digest, 1, 2)) "2f" ascii(substr(digest, 3))
    }
    if (want == "" || redirect != want || seen != 2) {
        print "attribute " file
        return
    }
    print digest " " module >>objects
}
/^# file: / { entry(); file = substr($0, 9); metacopy = redirect = opaque = ""; seen = 0; next }
/^trusted\./ { seen++ }
/^trusted\.overlay\.metacopy=/ { metacopy = substr($0, 26); next }
/^trusted\.overlay\.redirect=/ { redirect = substr($0, 26); next }
/^trusted\.overlay\.opaque=/ { opaque = substr($0, 24); next }
/^whole$/ { whole = 1 }
END { entry(); if (!whole) print "unread" }
'

# powernode_take_objects: the store has every object that an image names, with that digest.
powernode_take_objects() {
    [ -f "$PN_RUN/modules.objects" ] || return 0
    cut -c -64 "$PN_RUN/modules.objects" | sort -u | sed 's|^..|.store/&/|' >"$PN_RUN/modules.names"
    while read -r pn_name; do
        powernode_is_plain "$PN_MODULE_STORE/$pn_name" || printf '%s\n' "$pn_name"
    done <"$PN_RUN/modules.names" >"$PN_RUN/modules.missing"
    powernode_bring "$PN_RUN/modules.missing" || return
    sed "s|^|$PN_MODULE_STORE/|" "$PN_RUN/modules.names" >"$PN_RUN/modules.paths"
    powernode_measure_objects
}

# powernode_measure_objects: the digest of every object in modules.paths is its name.
powernode_measure_objects() {
    ! powernode_all_good "$PN_RUN/modules.paths" || return 0
    while read -r pn_path; do
        pn_hex=${pn_path##*/.store/}
        pn_hex=${pn_hex%%/*}${pn_hex#*/}
        PN_REASON='it is missing'
        if powernode_is_plain "$pn_path" && powernode_measure "$pn_path" "$pn_hex"; then
            continue
        fi
        powernode_bad_object "$pn_hex" || return
    done <"$PN_RUN/modules.paths"
}

# powernode_bad_object HEX: the modules that name this object are bad.
powernode_bad_object() {
    pn_bad=$1
    pn_why=$PN_REASON
    case $pn_why in
        'its image '*) pn_why="it ${pn_why#its image }" ;;
    esac
    while read -r pn_priority pn_id pn_hex pn_need; do
        ! powernode_is_dropped "$pn_hex" || continue
        busybox grep -q "^$pn_bad $pn_hex\$" "$PN_RUN/modules.objects" || continue
        powernode_bad_module "$pn_id" "$pn_need" "$pn_hex" "the object $pn_bad: $pn_why" || return
    done <"$PN_MODULE_SORTED"
}

# powernode_stack_modules: the overlay of the root is made anew with the modules above the root. The upper layer stays, and so does everything
# that is mounted below the root. Each layer is one option of its own: together they would not fit into the page that mount(2) takes.
powernode_stack_modules() {
    [ "$PN_MODULE_COUNT" -gt 0 ] || return 0
    pn_layers=''
    PN_MODULE_STACKED=0
    while read -r pn_priority pn_id pn_hex pn_need; do
        ! powernode_is_dropped "$pn_hex" || continue
        pn_layers="${pn_layers}lowerdir+=$PN_RUN/modules/$pn_hex,"
        PN_MODULE_STACKED=$((PN_MODULE_STACKED + 1))
    done <"$PN_MODULE_SORTED"
    [ "$PN_MODULE_STACKED" -gt 0 ] || return 0
    mkdir -p "$PN_RUN/module-objects" "$PN_RUN/root"
    PN_REASON='the objects of the modules cannot be bound'
    mount --bind "$PN_MODULE_STORE/.store" "$PN_RUN/module-objects" 2>/dev/null || return
    powernode_hold_mounts || return
    PN_REASON='the overlay of the root cannot be unmounted to be made anew'
    umount "$PN_NEWROOT" 2>/dev/null || return
    PN_REASON="the overlay of the root and $PN_MODULE_STACKED modules cannot be mounted"
    pn_root="lowerdir+=$PN_RUN/lower"
    pn_data="datadir+=$PN_RUN/module-objects,datadir+=$PN_STORE/objects"
    pn_upper="upperdir=$PN_RUN/upper,workdir=$PN_RUN/work,metacopy=on,redirect_dir=on"
    mount -t overlay -o "$pn_layers$pn_root,$pn_data,$pn_upper,verity=require" powernode "$PN_NEWROOT" 2>/dev/null || return
    PN_REASON='the root alone cannot be mounted beside the modules'
    mount -t overlay -o "ro,lowerdir=$PN_RUN/lower::$PN_STORE/objects,verity=require" powernode "$PN_RUN/root" 2>/dev/null || return
    umount "$PN_RUN/module-objects" 2>/dev/null
    PN_REASON=''
    for pn_entry in "$PN_NEWROOT"/[0-9a-f][0-9a-f]; do
        [ -e "$pn_entry" ] || [ -h "$pn_entry" ] || continue
        PN_REASON="a module has a foreign entry /${pn_entry##*/}"
        return 1
    done
}

# powernode_hold_mounts: move the mounts below the root out of the way; powernode_return_mounts puts them back.
powernode_hold_mounts() {
    cut -d ' ' -f 5 "$PN_PROC/self/mountinfo" | busybox grep "^$PN_NEWROOT/" >"$PN_RUN/held"
    pn_held=0
    pn_last=none
    while read -r pn_point; do
        # A mount below another one moves with it.
        case $pn_point in
            "$pn_last"/*) continue ;;
        esac
        pn_last=$pn_point
        pn_held=$((pn_held + 1))
        mkdir -p "$PN_RUN/hold/$pn_held"
        PN_REASON="${pn_point#"$PN_NEWROOT"} cannot be moved"
        mount --move "$pn_point" "$PN_RUN/hold/$pn_held" 2>/dev/null || return
        printf '%s %s\n' "$pn_held" "$pn_point"
    done <"$PN_RUN/held" >"$PN_RUN/hold.list"
}

# powernode_return_mounts: every place must still be a directory of the union, reached without a link: a module may have another thing there.
powernode_return_mounts() {
    while read -r pn_held pn_point; do
        pn_path=${pn_point#"$PN_NEWROOT"/}
        powernode_same_way "$pn_path" || return
        if [ ! -d "$pn_point" ] || [ -h "$pn_point" ] || ! mount --move "$PN_RUN/hold/$pn_held" "$pn_point" 2>/dev/null; then
            PN_REASON="a module hides /$pn_path"
            return 1
        fi
    done <"$PN_RUN/hold.list"
}

# powernode_same_way PATH: no directory on the way to PATH is a link in the union that is none in the root, or another one there.
powernode_same_way() {
    pn_rest=$1/
    pn_way=''
    while [ -n "$pn_rest" ]; do
        pn_way=${pn_way:+$pn_way/}${pn_rest%%/*}
        pn_rest=${pn_rest#*/}
        if [ -h "$PN_NEWROOT/$pn_way" ] || [ -h "$PN_RUN/root/$pn_way" ]; then
            if [ "$(readlink "$PN_NEWROOT/$pn_way")" != "$(readlink "$PN_RUN/root/$pn_way")" ]; then
                PN_REASON="a module replaces /$pn_way, which is protected"
                return 1
            fi
        fi
    done
}

# powernode_protect_root: bind the protected paths of the root over the union, read-only. The lists are files of the root itself. A protected path
# that the root does not have must not come from a module either.
powernode_protect_root() {
    [ "$PN_MODULE_COUNT" -gt 0 ] && [ "$PN_MODULE_STACKED" -gt 0 ] || return 0
    powernode_return_mounts || return
    PN_REASON="/$PN_PROTECTED of the root cannot be read"
    pn_paths=$(cat "$PN_RUN/root/$PN_PROTECTED" "$PN_RUN/root/$PN_CRITICAL" 2>/dev/null) || return
    pn_bound=$PN_NL
    pn_list=$pn_paths$PN_NL
    while [ -n "$pn_list" ]; do
        pn_pattern=${pn_list%%"$PN_NL"*}
        pn_list=${pn_list#*"$PN_NL"}
        case $pn_pattern in
            '' | '#'*) continue ;;
        esac
        # A pattern that matches nothing in the root stays as it is.
        for pn_source in "$PN_RUN/root"/$pn_pattern; do
            powernode_protect "${pn_source#"$PN_RUN/root/"}" || return
        done
    done
    PN_REASON='the mount of the root alone cannot be undone'
    umount "$PN_RUN/root" || return
    PN_REASON=''
}

# powernode_protect PATH: the union has at PATH what the root has there: a directory is bound, a file is compared and stays writable. No layer
# below the upper one can change later, and the upper one is empty.
powernode_protect() {
    # A directory that is bound already has it.
    pn_above=$1
    while [ "$pn_above" != "${pn_above%/*}" ]; do
        pn_above=${pn_above%/*}
        case $pn_bound in
            *"$PN_NL$pn_above$PN_NL"*) return 0 ;;
        esac
    done
    # An image with recovery has taken these away in the upper layer.
    case " $(printf '%s' "$PN_MASKS" | tr -s ' \012' '  ') " in
        *" $1 "*) ! powernode_has_recovery || return 0 ;;
    esac
    powernode_same_way "$1" || return
    if [ -h "$PN_RUN/root/$1" ]; then
        # The same link on both sides: a file that it leads to has to be the same too. The directories behind /bin and its like are not
        # protected as a whole.
        powernode_target "$1" || return
        [ -d "$PN_RUN/root/$PN_VALUE" ] || powernode_protect "$PN_VALUE"
        return
    fi
    if [ ! -e "$PN_RUN/root/$1" ]; then
        [ -e "$PN_NEWROOT/$1" ] || [ -h "$PN_NEWROOT/$1" ] || return 0
        PN_REASON="a module adds /$1, which is protected"
        return 1
    fi
    if [ -d "$PN_RUN/root/$1" ]; then
        if [ ! -d "$PN_NEWROOT/$1" ] || ! mount --bind "$PN_RUN/root/$1" "$PN_NEWROOT/$1" 2>/dev/null; then
            PN_REASON="a module hides /$1, which is protected"
            return 1
        fi
        pn_bound=$pn_bound$1$PN_NL
        return 0
    fi
    if [ ! -f "$PN_NEWROOT/$1" ]; then
        PN_REASON="a module hides /$1, which is protected"
        return 1
    fi
    if [ "$(busybox stat -c '%f %u %g' "$PN_NEWROOT/$1")" != "$(busybox stat -c '%f %u %g' "$PN_RUN/root/$1")" ] \
        || ! busybox cmp -s "$PN_NEWROOT/$1" "$PN_RUN/root/$1"; then
        PN_REASON="a module replaces /$1, which is protected"
        return 1
    fi
}

# powernode_target PATH: PN_VALUE is the path that the link PATH of the root leads to, from the root.
powernode_target() {
    pn_to=$(readlink "$PN_RUN/root/$1")
    pn_from=/${1%/*}
    [ "$1" != "${1%/*}" ] || pn_from=''
    case $pn_to in
        /*) pn_from='' ;;
    esac
    while :; do
        case $pn_to in
            /*) pn_to=${pn_to#/} ;;
            ../*)
                pn_to=${pn_to#../}
                pn_from=${pn_from%/*}
                ;;
            *) break ;;
        esac
    done
    PN_VALUE=$pn_from/$pn_to
    PN_VALUE=${PN_VALUE#/}
    PN_REASON="/$1 of the root leads to '$pn_to', which is no plain path"
    case /$PN_VALUE/ in
        *//* | */./* | */../*) return 1 ;;
    esac
    PN_REASON=''
}

# powernode_modules_done: what the node says about its modules, after all of them were accepted.
powernode_modules_done() {
    [ -n "$PN_MODULE_COUNTER" ] || return 0
    powernode_keep_counter || return
    [ "$PN_MODULE_COUNT" -gt 0 ] || PN_MODULE_STACKED=0
    powernode_tell "powernode: modules: $PN_MODULE_STACKED of $PN_MODULE_COUNT stacked, counter=$PN_MODULE_COUNTER key=$PN_MODULE_KEY"
}
