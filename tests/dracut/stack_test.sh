#!/bin/sh
# Tests of powernode-stack.sh: the images and objects of a list, the attributes they may have, the overlay, the protected paths. Nothing is
# mounted: what mounts is replaced by a function that writes down its arguments. harness.sh says how it is run.

set -u
# shellcheck source=harness.sh
. "${0%/*}/harness.sh"

# fsverity with a file's mode instead of the kernel: 0444 is a file with fs-verity. The digests are real.
bin=$tmp/../bin
mkdir "$bin"
real=$(command -v fsverity)
cat >"$bin/fsverity" <<EOF
#!/bin/sh
call=\$1
shift
for file; do
    case \$call in
        enable) chmod 0444 "\$file" || exit 1 ;;
        measure)
            case \$(ls -ld "\$file" 2>/dev/null) in
                -r--r--r--*) '$real' digest "\$file" || exit 1 ;;
                *) exit 1 ;;
            esac
            ;;
    esac
done
EOF
chmod 0755 "$bin/fsverity"
PATH=$bin:$PATH

mount() {
    printf '%s\n' "$*" >>"$tmp/mounts"
}
umount() {
    printf 'umount %s\n' "$*" >>"$tmp/mounts"
}

# digest FILE: its fs-verity digest in hexadecimal.
digest() {
    pn_got=$("$real" digest "$1")
    pn_got=${pn_got#sha256:}
    printf '%s' "${pn_got%% *}"
}

# world: a node with /persist, and a list of two modules whose images are in the share.
world() {
    fresh
    mkdir -p "$tmp/root/persist/cache/modules/.store" "$tmp/run/seed/modules/.store" "$tmp/run/modules"
    PN_PERSIST=vda4
    PN_MODULE_SORTED=$tmp/run/modules.sorted
    PN_MODULE_STORE=$tmp/root/persist/cache/modules
    echo 'the first image' >"$tmp/one"
    echo 'the second image' >"$tmp/two"
    ONE=$(digest "$tmp/one") TWO=$(digest "$tmp/two")
    cp "$tmp/one" "$tmp/run/seed/modules/$ONE.cfs"
    cp "$tmp/two" "$tmp/run/seed/modules/$TWO.cfs"
    PN_MODULE_COUNT=2
    printf '500 one %s required\n20 two %s optional\n' "$ONE" "$TWO" >"$PN_MODULE_SORTED"
    : >"$tmp/mounts"
    : >"$tmp/dev/console"
}

# getfattr of the modules: the file `attributes` beside the world has what it says of the entries; without it every root is opaque. xargs
# starts it, so it is a program.
cat >"$bin/getfattr" <<EOF
#!/bin/sh
case \$* in
    *-R*) cat '$bin/attributes' ;;
    *)
        for file; do
            case \$file in
                */modules/*) printf '# file: %s\\ntrusted.overlay.opaque=0x79\\n\\n' "\$file" ;;
            esac
        done
        ;;
esac
EOF
chmod 0755 "$bin/getfattr"
PN_GETFATTR=$bin/getfattr
: >"$bin/attributes"

# --------------------------------------------------------------------------------------------------------------- the images

world
status 0 powernode_take_modules
# shellcheck disable=SC2012  # the names are ours
is 'images are copied' "$(ls "$PN_MODULE_STORE" | sort | tr '\n' ' ')" "$(printf '%s.cfs\n%s.cfs\n' "$ONE" "$TWO" | sort | tr '\n' ' ')"
is 'images are mounted' "$(cat "$tmp/mounts")" "-t erofs -o ro,nodev,nosuid,noexec $PN_MODULE_STORE/$ONE.cfs $tmp/run/modules/$ONE
-t erofs -o ro,nodev,nosuid,noexec $PN_MODULE_STORE/$TWO.cfs $tmp/run/modules/$TWO"
# The second boot has them already, without the share.
rm -r "$tmp/run/seed"
status 0 powernode_take_modules

# An image on /persist that has no fs-verity yet gets it, and is compared all the same.
world
rm -r "$tmp/run/seed"
cp "$tmp/one" "$PN_MODULE_STORE/sha256_$ONE.cfs"
cp "$tmp/two" "$PN_MODULE_STORE/$TWO.cfs"
status 0 powernode_take_modules
is 'both names' "$(grep -c "sha256_$ONE.cfs" "$tmp/mounts")" 1
world
rm -r "$tmp/run/seed"
cp "$tmp/two" "$PN_MODULE_STORE/$ONE.cfs"
cp "$tmp/two" "$PN_MODULE_STORE/$TWO.cfs"
status 1 powernode_take_modules
reason_has "module one: its image is $TWO, not $ONE"
is 'nothing was mounted' "$(cat "$tmp/mounts")" ''

world
rm "$tmp/run/seed/modules/$ONE.cfs"
status 1 powernode_take_modules
reason_has "module one: there is no image $ONE.cfs"
world
rm "$tmp/run/seed/modules/$TWO.cfs"
status 0 powernode_take_modules
is 'an optional module is left out, and said' "$(cat "$tmp/dev/console")" "powernode: modules: left out: two: there is no image $TWO.cfs"
is 'only one is mounted' "$(grep -c erofs "$tmp/mounts")" 1
world
rm "$tmp/run/seed/modules/$ONE.cfs"
ln -s "$tmp/one" "$tmp/run/seed/modules/$ONE.cfs"
status 1 powernode_take_modules
reason_has 'there is no image'

# --------------------------------------------------------------------------------------------------------------- attributes

# judged TEXT WANT: what the reader of getfattr's output says; @ is the mount of the module.
M=0000000000000000000000000000000000000000000000000000000000000001
judged() {
    rm -f "$tmp/objects"
    said=$(printf '%s\n' "$1" | sed "s|@|/m/$M|g" | busybox awk -v base=/m/ -v "objects=$tmp/objects" "$PN_MODULE_AWK")
    is "attributes: $1" "$said" "$2"
}
D=5cde62e28f37bdbb38f8c9be1dde3ed73a06a6f9cd3cd4f1da5e8d6ae7c9b1aa
# hexadecimal of the text /5c/de62…
R=0x2f35632f$(printf '%s' "${D#??}" | od -An -v -tx1 | tr -d ' \n')
root='# file: @
trusted.overlay.opaque=0x79
'
judged "$root
# file: @/usr/x
trusted.overlay.metacopy=0x00240001$D
trusted.overlay.redirect=$R

whole" ''
is 'the object is noted' "$(cat "$tmp/objects")" "$D $M"
judged "${root}whole" ''
judged "$root" unread
judged '# file: @
trusted.overlay.opaque=0x78

whole' "attribute /m/$M"
judged "# file: @
trusted.overlay.redirect=$R

whole" "attribute /m/$M"
for odd in "trusted.overlay.redirect=$R" "trusted.overlay.metacopy=0x00240001$D" 'trusted.overlay.opaque=0x79' 'trusted.overlay.whiteout=0x79' \
    'trusted.overlay.metacopy=' 'trusted.overlay.overlay.opaque=0x79' 'trusted.overlay.origin' \
    "trusted.overlay.metacopy=0x00240001$D
trusted.overlay.redirect=0x2f6574632f736861646f77" \
    "trusted.overlay.metacopy=0x00000001$D
trusted.overlay.redirect=$R" \
    "trusted.overlay.metacopy=0x00240001$D
trusted.overlay.redirect=$R
trusted.overlay.opaque=0x79"; do
    judged "$root
# file: @/usr/x
$odd

# file: @/usr/y

whole" "attribute /m/$M/usr/x"
done

# ------------------------------------------------------------------------------------------------------------------ objects

# with_object: the module one has a file whose content is an object of the share.
with_object() {
    world
    echo 'an object' >"$tmp/object"
    O=$(digest "$tmp/object")
    OD=${O%"${O#??}"} ON=${O#??}
    mkdir "$tmp/run/seed/modules/.store/$OD"
    cp "$tmp/object" "$tmp/run/seed/modules/.store/$OD/$ON"
    mkdir -p "$tmp/run/modules/$ONE/usr"
    printf '# file: %s/usr/x\ntrusted.overlay.metacopy=0x00240001%s\ntrusted.overlay.redirect=0x2f%s2f%s\n\n' "$tmp/run/modules/$ONE" "$O" \
        "$(printf '%s' "$OD" | od -An -v -tx1 | tr -d ' \n')" "$(printf '%s' "$ON" | od -An -v -tx1 | tr -d ' \n')" >"$bin/attributes"
}
with_object
status 0 powernode_take_modules
is 'the object is copied' "$(cat "$PN_MODULE_STORE/.store/$OD/$ON")" 'an object'
# It is there at the next boot; without fs-verity it gets it.
rm -r "$tmp/run/seed"
chmod 0644 "$PN_MODULE_STORE/.store/$OD/$ON"
status 0 powernode_take_modules
# shellcheck disable=SC2012  # the name is ours
is 'with fs-verity' "$(ls -ld "$PN_MODULE_STORE/.store/$OD/$ON" | cut -c 1-10)" '-r--r--r--'
with_object
echo 'another one' >"$tmp/run/seed/modules/.store/$OD/$ON"
status 1 powernode_take_modules
reason_has "module one: the object $O: it is "
reason_has "not $O"
with_object
rm "$tmp/run/seed/modules/.store/$OD/$ON"
status 1 powernode_take_modules
reason_has "module one: the object $O: it is missing"
with_object
sed -i 's/required/optional/' "$PN_MODULE_SORTED"
rm "$tmp/run/seed/modules/.store/$OD/$ON"
status 0 powernode_take_modules
is 'a module with a missing object is left out' "$(cat "$tmp/dev/console")" \
    "powernode: modules: left out: one: the object $O: it is missing"

# A foreign attribute, and attributes that cannot be read.
with_object
printf '\n# file: %s/usr/y\ntrusted.overlay.opaque=0x79\n\n' "$tmp/run/modules/$ONE" >>"$bin/attributes"
status 1 powernode_take_modules
reason_has 'module one: /usr/y has a foreign attribute of overlayfs'
with_object
rm "$bin/attributes"
status 1 powernode_take_modules
reason_has 'module one: its attributes cannot be read'
: >"$bin/attributes"

# ------------------------------------------------------------------------------------------------------------- the overlay

world
mkdir -p "$tmp/proc/self" "$tmp/run/lower" "$tmp/run/store"
PN_STORE=$tmp/run/store
{
    echo "36 1 0:3 / $tmp/root rw - overlay x rw"
    echo "37 36 8:4 / $tmp/root/persist rw - ext4 /dev/vda4 rw"
    echo "38 37 8:4 / $tmp/root/persist/deep rw - ext4 /dev/vda4 rw"
    echo "39 36 8:4 /var $tmp/root/var rw - ext4 /dev/vda4 rw"
    echo "40 1 0:9 / $tmp/rootless rw - tmpfs x rw"
} >"$tmp/proc/self/mountinfo"
status 0 powernode_take_modules
: >"$tmp/mounts"
status 0 powernode_stack_modules
is 'the layers, topmost first' "$(cat "$tmp/mounts")" "--bind $PN_MODULE_STORE/.store $tmp/run/module-objects
--move $tmp/root/persist $tmp/run/hold/1
--move $tmp/root/var $tmp/run/hold/2
umount $tmp/root
-t overlay -o lowerdir+=$tmp/run/modules/$ONE,lowerdir+=$tmp/run/modules/$TWO,lowerdir+=$tmp/run/lower,datadir+=$tmp/run/module-objects,datadir+=$tmp/run/store/objects,upperdir=$tmp/run/upper,workdir=$tmp/run/work,metacopy=on,redirect_dir=on,verity=require powernode $tmp/root
-t overlay -o ro,lowerdir=$tmp/run/lower::$tmp/run/store/objects,verity=require powernode $tmp/run/root
umount $tmp/run/module-objects"
mkdir "$tmp/root/ab"
status 1 powernode_stack_modules
reason_has 'a module has a foreign entry /ab'

# ---------------------------------------------------------------------------------------------------------- protected paths

# union: a root, and the same with modules.
union() {
    world
    PN_MODULE_STACKED=1
    : >"$tmp/run/hold.list"
    for dir in "$tmp/run/root" "$tmp/root"; do
        mkdir -p "$dir/usr/lib/powernode" "$dir/usr/lib/systemd" "$dir/usr/lib/linux-gnu" "$dir/usr/sbin" "$dir/etc"
        ln -s usr/sbin "$dir/sbin"
        echo libc >"$dir/usr/lib/linux-gnu/libc.so.6.1"
        ln -s libc.so.6.1 "$dir/usr/lib/linux-gnu/libc.so.6"
        ln -s ../lib/systemd/systemd "$dir/usr/sbin/init"
        echo systemd >"$dir/usr/lib/systemd/systemd"
        echo agent >"$dir/usr/sbin/powernode-agent"
        echo root >"$dir/etc/passwd"
    done
    printf '%s\n' '# comment' sbin usr/lib/systemd usr/lib/systemd/system usr/sbin/init usr/sbin/powernode-agent etc/passwd \
        etc/ld.so.preload >"$tmp/run/root/usr/lib/powernode/protected-paths"
    echo 'usr/lib/*-gnu/libc.so.6' >"$tmp/run/root/usr/lib/powernode/critical-files"
}
# hidden WANT: the protected paths are not those of the root.
hidden() {
    status 1 powernode_protect_root
    reason_has "$1"
}
union
status 0 powernode_protect_root
is 'a directory is bound' "$(cat "$tmp/mounts")" "--bind $tmp/run/root/usr/lib/systemd $tmp/root/usr/lib/systemd
umount $tmp/run/root"
rm -r "$tmp/root/usr/lib/systemd"
hidden 'a module hides /usr/lib/systemd, which is protected'
union
rm -r "$tmp/root/usr/sbin"
ln -s share "$tmp/root/usr/sbin"
hidden 'a module replaces /usr/sbin, which is protected'
union
rm "$tmp/root/sbin"
mkdir "$tmp/root/sbin"
hidden 'a module replaces /sbin, which is protected'
union
rm "$tmp/root/usr/sbin/init"
ln -s /usr/share/init "$tmp/root/usr/sbin/init"
hidden 'a module replaces /usr/sbin/init, which is protected'
union
echo evil >"$tmp/root/usr/sbin/powernode-agent"
hidden 'a module replaces /usr/sbin/powernode-agent, which is protected'
union
chmod 4755 "$tmp/root/usr/sbin/powernode-agent"
hidden 'a module replaces /usr/sbin/powernode-agent, which is protected'
union
rm "$tmp/root/usr/sbin/powernode-agent"
hidden 'a module hides /usr/sbin/powernode-agent, which is protected'
union
echo x >"$tmp/root/etc/ld.so.preload"
hidden 'a module adds /etc/ld.so.preload, which is protected'
union
ln -s nowhere "$tmp/root/etc/ld.so.preload"
hidden 'a module replaces /etc/ld.so.preload, which is protected'
union
echo evil >"$tmp/root/usr/lib/linux-gnu/libc.so.6.1"
hidden 'a module replaces /usr/lib/linux-gnu/libc.so.6.1, which is protected'
union
rm "$tmp/run/root/usr/lib/powernode/protected-paths"
hidden '/usr/lib/powernode/protected-paths of the root cannot be read'

# What was mounted below the root comes back to the same places.
union
mkdir "$tmp/run/root/persist"
echo "1 $tmp/root/persist" >"$tmp/run/hold.list"
status 0 powernode_protect_root
is 'moved back' "$(head -n 1 "$tmp/mounts")" "--move $tmp/run/hold/1 $tmp/root/persist"
rm -r "$tmp/root/persist"
hidden 'a module hides /persist'
ln -s etc "$tmp/root/persist"
hidden 'a module replaces /persist, which is protected'

finish
