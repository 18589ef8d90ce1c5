#!/bin/sh
# Tests of powernode-modules.sh: the list, its signature, its rules. harness.sh says how it is run.

set -u
# shellcheck source=harness.sh
. "${0%/*}/harness.sh"

UUID=0f8fad5b-d9cb-469f-a165-70867728950e
HEX=5cde62e28f37bdbb38f8c9be1dde3ed73a06a6f9cd3cd4f1da5e8d6ae7c9b1aa
HEX2=6cde62e28f37bdbb38f8c9be1dde3ed73a06a6f9cd3cd4f1da5e8d6ae7c9b1aa

# The host offers no share.
mount() {
    return 1
}
modprobe() { :; }

# Two keys, made once.
keys=$tmp/../keys
mkdir "$keys"
signify-openbsd -G -n -p "$keys/good.pub" -s "$keys/good.sec" || exit 1
signify-openbsd -G -n -p "$keys/other.pub" -s "$keys/other.sec" || exit 1

# world: a node with a key, /persist and an empty share.
world() {
    fresh
    mkdir -p "$tmp/root/etc/powernode/module-keys" "$tmp/root/usr" "$tmp/root/persist/cache/modules" "$tmp/run/seed/modules"
    cp "$keys/good.pub" "$tmp/root/etc/powernode/module-keys/"
    PN_PERSIST=vda4
    PN_ID=$UUID
    touch -d '2020-01-01 00:00:00' "$tmp/root/usr"
}

# list MODULES...: the text of a good list.
list() {
    printf 'powernode-modules 1\ninstance %s\ncounter %s\nexpires %s\n' "${instance:-*}" "${counter:-7}" "${expires:-2999-01-01T00:00:00Z}"
    for line in "$@"; do
        printf '%s\n' "$line"
    done
    echo end
}

# signed KEY DIR: the list of stdin is signed with the key and put into DIR.
signed() {
    cat >"$tmp/plain"
    signify-openbsd -S -e -s "$keys/$1.sec" -m "$tmp/plain" -x "$tmp/$2/modules.list"
}

one="500 nginx sha256:$HEX required"
two="20 tools sha256:$HEX2 optional"

# ---------------------------------------------------------------------------------------------------------------- parsing

world
PN_MODULE_TEXT=$tmp/run/modules.text
PN_MODULE_SORTED=$tmp/run/modules.sorted
# parses NAME WANT <list
parses() {
    powernode_parse_list
    is "parsing: $1" "$?|$PN_REASON" "$2"
}
list "$one" "$two" >"$tmp/list"
parses 'a good list' '0|' <"$tmp/list"
is 'values of a list' "$PN_LIST_INSTANCE $PN_MODULE_COUNTER $PN_LIST_EXPIRES $PN_MODULE_COUNT" '* 7 2999-01-01T00:00:00Z 2'
is 'modules of a list' "$(cat "$PN_MODULE_SORTED")" "500 nginx $HEX required
20 tools $HEX2 optional"
list >"$tmp/list"
parses 'a list without modules' '0|' <"$tmp/list"

# The line that is changed, and the change; everything else is as in a good list.
# broken SCRIPT REASON
broken() {
    list "$one" "$two" | sed "$1" >"$tmp/list"
    powernode_parse_list <"$tmp/list"
    is "refused: $1" "$?" 2
    reason_has "$2"
}
broken '1s/1/2/' 'line 1 of another form'
broken '2s/\*/node/' 'instance in line 2 is not a UUID'
broken '2s/instance/instances/' 'line 2 of another form'
broken '3s/7/07/' 'line 3 of another form'
broken '3s/7/-7/' 'line 3 of another form'
broken '3s/7/1234567890123456/' 'line 3 of another form'
broken '4s/Z//' 'line 4 of another form'
broken '4s/2999-01/2999-21/' 'line 4 of another form'
broken '5s/500/0500/' 'line 5 of another form'
broken '5s/500/-1/' 'line 5 of another form'
broken '5s/500/1234567890/' 'line 5 of another form'
broken '5s/nginx/ng\/inx/' 'line 5 of another form'
broken '5s/nginx/.nginx/' 'line 5 of another form'
# shellcheck disable=SC2016  # nothing here may be expanded
broken '5s/nginx/$(id)/' 'line 5 of another form'
broken '5s/ nginx/  nginx/' 'line 5 of another form'
broken '5s/ nginx/\tnginx/' 'line 5 of another form'
broken '5s/sha256://' 'line 5 of another form'
broken '5s/sha256:5c/sha256:5C/' 'line 5 of another form'
broken '5s/sha256:5c/sha256:/' 'line 5 of another form'
broken '5s/required/wanted/' 'line 5 of another form'
broken '5s/$/ more/' 'line 5 of another form'
broken '5s/.*/*/' 'line 5 of another form'
broken '6s/tools/nginx/' 'names the module nginx twice'
broken "6s/$HEX2/$HEX/" "names the image $HEX twice"
broken '7d' "cut off: its last line is not 'end'"
broken '7s/end/end\nend/' 'line 8 of another form'
broken '7s/$/\n/' 'line 8 of another form'
list "$one" >"$tmp/list"
head -c -1 "$tmp/list" >"$tmp/cut"
powernode_parse_list <"$tmp/cut"
is 'without its last newline' "$?" 2
reason_has 'cut off'
head -n 3 "$tmp/list" >"$tmp/cut"
powernode_parse_list <"$tmp/cut"
is 'without its second half' "$?" 2
reason_has 'cut off'
number=0
while [ "$number" -le 480 ]; do
    number=$((number + 1))
    printf '1 m%d sha256:%064d required\n' "$number" "$number"
done >"$tmp/many"
{
    list | sed '$d'
    cat "$tmp/many"
    echo end
} >"$tmp/list"
powernode_parse_list <"$tmp/list"
is '481 modules' "$?" 2
reason_has 'has 481 modules, more than 480'

# order LINES WANT: topmost first.
order() {
    is "order: $1" "$(printf '%s\n' "$1" | powernode_module_order | cut -d ' ' -f 2 | tr '\n' ' ')" "$2"
}
order '5 low x
100 top x
20 mid x' 'top mid low '
order '10 b x
10 a x
9 z x' 'b a z '
order '9 a x
10 b x' 'b a '

# -------------------------------------------------------------------------------------------------------------- signatures

world
list "$one" | signed good run/seed/modules
status 0 powernode_find_modules
is 'signed' "$PN_MODULE_COUNT $PN_MODULE_KEY $PN_MODULE_COUNTER" '1 good 7'
# Every byte of the text and of the signature counts.
for change in '3s/powernode/powernodE/' '5s/7/8/' '7s/required/optional/' '7d' '2s/./X/20'; do
    sed "$change" "$tmp/run/seed/modules/modules.list" >"$tmp/changed"
    world
    cp "$tmp/../keys/good.pub" "$tmp/root/etc/powernode/module-keys/second.pub"
    list "$one" | signed good run/seed/modules
    sed -i "$change" "$tmp/run/seed/modules/modules.list"
    status 1 powernode_find_modules
    reason_has 'has no valid signature of any of the 2 keys in /etc/powernode/module-keys'
    # shellcheck disable=SC2012  # the names are ours
    is "nothing is left of it: $change" "$(ls "$tmp/run" | tr '\n' ' ')" 'medium module-share modules.signed seed '
done
world
list "$one" | signed other run/seed/modules
status 1 powernode_find_modules
reason_has 'no valid signature of any of the 1 keys'
# The comment of a signature names no key that counts.
sed -i '1s/other.pub/good.pub/' "$tmp/run/seed/modules/modules.list"
status 1 powernode_find_modules
cp "$keys/other.pub" "$tmp/root/etc/powernode/module-keys/"
status 0 powernode_find_modules
is 'the second key' "$PN_MODULE_KEY" other
rm -r "$tmp/root/etc/powernode/module-keys"
status 1 powernode_find_modules
reason_has 'any of the 0 keys'

world
list "$one" >"$tmp/run/seed/modules/modules.list"
status 1 powernode_find_modules
reason_has '/run/seed/modules/modules.list is not signed'
: >"$tmp/root/etc/powernode/unsigned-modules"
status 0 powernode_find_modules
is 'unsigned' "$PN_MODULE_COUNT $PN_MODULE_KEY" '1 none'
# A signed list is not taken for an unsigned one when its signature is wrong.
list "$one" | signed other run/seed/modules
status 1 powernode_find_modules

# ------------------------------------------------------------------------------------------------------------------- rules

# rule INSTANCE COUNTER EXPIRES STATUS: a signed list with these values.
rule() {
    instance=$1 counter=$2 expires=$3
    list "$one" | signed good run/seed/modules
    instance='' counter='' expires=''
    status "$4" powernode_find_modules
}
world
rule "$UUID" 7 2999-01-01T00:00:00Z 0
rule 0F8FAD5B-d9cb-469f-a165-70867728950e 7 2999-01-01T00:00:00Z 0
rule 1f8fad5b-d9cb-469f-a165-70867728950e 7 2999-01-01T00:00:00Z 1
reason_has "is for the instance 1f8fad5b-d9cb-469f-a165-70867728950e, and this node is $UUID"
PN_ID=''
rule "$UUID" 7 2999-01-01T00:00:00Z 1
reason_has 'and this node is unclaimed'
rule '*' 7 2999-01-01T00:00:00Z 0
rule '*' 7 2021-01-01T00:00:00Z 1
reason_has 'expired at 2021-01-01T00:00:00Z'
echo 8 >"$tmp/root/persist/module-counter"
rule '*' 7 2999-01-01T00:00:00Z 1
reason_has 'has the counter 7, below 8 of an earlier list'
rule '*' 8 2999-01-01T00:00:00Z 0
status 0 powernode_keep_counter
rule '*' 11 2999-01-01T00:00:00Z 0
status 0 powernode_keep_counter
is 'the counter is kept' "$(cat "$tmp/root/persist/module-counter")" 11
rule '*' 10 2999-01-01T00:00:00Z 1
reason_has 'below 11'
for bad in x -1 07 '1
2'; do
    printf '%s\n' "$bad" >"$tmp/root/persist/module-counter"
    status 2 powernode_find_modules
    reason_has '/persist/module-counter'
done
rm "$tmp/root/persist/module-counter"
ln -s /nowhere "$tmp/root/persist/module-counter"
status 2 powernode_find_modules
reason_has '/persist/module-counter is not a file'

# A clock before the root's build is taken for the time of the build, and said.
world
touch -d '2998-01-01 00:00:00' "$tmp/root/usr"
rule '*' 7 2997-01-01T00:00:00Z 1
reason_has 'expired'
is 'the clock is said' "$(grep -c 'before this root was built' "$tmp/dev/console")" 1
rule '*' 7 2999-01-01T00:00:00Z 0

# ----------------------------------------------------------------------------------------------------------------- sources

world
status 0 powernode_find_modules
is 'no list anywhere' "$PN_MODULE_COUNT" 0
: >"$tmp/root/persist/cache/modules/$HEX.cfs"
status 0 powernode_find_modules
is 'an image without a list is said' \
    "$(cat "$tmp/dev/console")" 'powernode: modules: not used: 1 images in /persist/cache/modules without a modules.list'
echo 7 >"$tmp/root/persist/module-counter"
status 1 powernode_find_modules
reason_has 'modules.list is gone: this node has had the list with the counter 7'
rm "$tmp/root/persist/module-counter"
file cmdline 'powernode.boot=1 powernode.modules=required'
status 1 powernode_find_modules
reason_has 'powernode.modules=required, and no place has a modules.list'
file cmdline 'powernode.modules=none'
status 2 powernode_find_modules
reason_has "powernode.modules= is not 'required'"
: >"$tmp/cmdline"
list "$one" | signed good root/persist/cache/modules
status 0 powernode_find_modules
is 'from /persist' "$PN_MODULE_FROM" /persist/cache/modules/modules.list
# The host's list comes before the one of /persist, also when it is a wrong one.
list "$one" "$two" | signed good run/seed/modules
status 0 powernode_find_modules
is 'from the share' "$PN_MODULE_COUNT" 2
list "$one" | signed other run/seed/modules
status 1 powernode_find_modules
rm "$tmp/run/seed/modules/modules.list"
ln -s "$tmp/root/persist/cache/modules/modules.list" "$tmp/run/seed/modules/modules.list"
status 2 powernode_find_modules
reason_has 'modules.list is not a file'
rm "$tmp/run/seed/modules/modules.list"
head -c 300000 /dev/zero | tr '\0' x >"$tmp/run/seed/modules/modules.list"
status 2 powernode_find_modules
reason_has 'is larger than 262144 bytes'
printf 'powernode-modules 1\n\001\n' >"$tmp/run/seed/modules/modules.list"
status 2 powernode_find_modules
reason_has 'holds 1 bytes that are not plain text'

# The platform's share with plain directories.
world
mkdir -p "$tmp/run/module-share/nginx/rootfs"
status 0 powernode_find_modules
is 'plain directories are said' "$(cat "$tmp/dev/console")" \
    'powernode: modules: not used: nginx/rootfs of the share powernode_modules is a plain directory, for which no list can vouch'
: >"$tmp/dev/console"
list "$one" | signed good run/module-share
status 0 powernode_find_modules
is 'beside a list too' "$PN_MODULE_COUNT $(grep -c 'is a plain directory' "$tmp/dev/console")" '1 1'

finish
