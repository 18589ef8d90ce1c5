#!/bin/sh
# Programs of the machine that runs the stage in place of emulated ones, while packages are installed. install.sh reads this file.
#
# An emulated program takes about ten times the processor time, and maintainer scripts start hundreds. The kernel gives only programs of
# the target to the emulator, and libraries and loaders of two architectures lie in different directories, so a program of this machine
# runs in the target's root as it is. What it writes is the same, because it is the same program in the same version, and
# stages/native-programs/programs has only those whose work does not depend on the architecture (docs/sandbox.md). Afterwards every
# file is the one that it would have been, and nothing of this is left.
#
# What is there when this runs: in the directory $native what stages/native-programs made, if the stage has that input; the root is
# $root, $index is the index of its packages, and fail is a function that ends the shell with its text. Functions with ( ) instead of { }
# have their own variables.

: "${root:?}"

native=/inputs/native
index=/inputs/packages/Packages
# Where the target's programs lie meanwhile, with lists of what was changed.
aside=/build/emulated

# without_rebuild VERSION: without the number of a rebuild for one architecture alone.
without_rebuild() {
    printf '%s\n' "$1" | sed 's/+b[0-9]\{1,\}$//'
}

# Writes a line for each package that lends programs to one of the root: its name, and the names of the programs. One of another version may
# do other work: its programs stay the target's.
lent_programs() (
    while read -r package version programs; do
        own=$(sed -n "/^Package: $package\$/,/^\$/s/^Version: //p" "$index")
        [ -n "$own" ] || continue
        [ "$(without_rebuild "$own")" = "$(without_rebuild "$version")" ] || {
            echo "programs of $package run under the emulator: the root has $own, stages/native-programs has $version" >&2
            continue
        }
        printf '%s %s\n' "$package" "$programs"
    done <"$native/programs"
)

# A line for each file that was put into the root: its name, and everything about it that a script could change.
native_state() (
    for list in used:usr/bin added:.; do
        # What is not there any more has no line.
        (cd "$root/${list#*:}" && xargs -r stat -c '%n %i %f %u %g %s %Y' -- <"$aside/${list%:*}" 2>/dev/null) || :
    done
)

# Puts this machine's programs into the root.
use_native() (
    set -e
    [ -d "$native" ] || exit 0
    read -r machine <"$native/arch"
    [ "$machine" != "$PNB_ARCH" ] || exit 0
    mkdir -p "$aside/bin"
    lent_programs >"$aside/packages"
    # Perl loads compiled modules from a directory of its own architecture, and this machine's perl has only those of perl-base.
    modules=$(cd "$root/usr/lib" && find . -path './*-linux-gnu*/perl*/*.so' ! -path './*/perl-base/*')
    : >"$aside/replaced"
    while read -r package programs; do
        for name in $programs; do
            [ -f "$root/usr/bin/$name" ] && [ ! -h "$root/usr/bin/$name" ] || continue
            if [ "$name" = perl ] && [ -n "$modules" ]; then
                echo 'perl runs under the emulator: the root has compiled modules beside those of perl-base'
                continue
            fi
            printf '%s\n' "$name" >&3
            # dpkg will unpack the target's program over this machine's.
            for deb in "$root/debs/${package}"_*.deb; do
                [ ! -e "$deb" ] || printf '%s\n' "$name" >>"$aside/replaced"
            done
        done
    done <"$aside/packages" 3>"$aside/used"
    (cd "$native/added" && find . ! -type d) >"$aside/added"
    while read -r file; do
        [ ! -e "$root/$file" ] && [ ! -h "$root/$file" ] || fail "the root has /${file#./}, which is for $machine"
    done <"$aside/added"
    # Deepest first, as they are removed.
    (cd "$native/added" && find . -depth -type d) | while read -r directory; do
        [ -d "$root/$directory" ] || printf '%s\n' "$directory"
    done >"$aside/made"
    cp -RP "$native/added/." "$root/"
    (cd "$root/usr/bin" && xargs -r mv -t "$aside/bin" -- <"$aside/used")
    (cd "$native/bin" && xargs -r cp -t "$root/usr/bin" -- <"$aside/used")
    native_state >"$aside/state"
    echo "$(wc -l <"$aside/used") programs run natively, for $machine"
)

# The names of the packages that bring the target's programs back as dpkg unpacks them, each between spaces.
native_packages() (
    [ -d "$aside" ] || exit 0
    while read -r package programs; do
        for name in $programs; do
            grep -qxF -- "$name" "$aside/replaced" || continue
            printf ' %s ' "$package"
            break
        done
    done <"$aside/packages"
)

# Puts the target's programs back and takes away what was added. What dpkg has unpacked over a program meanwhile is the target's already;
# nothing else may have changed.
restore_emulated() (
    set -e
    [ -d "$aside" ] || exit 0
    native_state | grep -vxF -f - "$aside/state" | sed 's/ .*//' >"$aside/changed"
    odd=$(sort "$aside/changed" "$aside/replaced" | uniq -u)
    [ -z "$odd" ] || fail "files that this machine lends to the root did not stay as they were: $odd"
    (cd "$aside/bin" && grep -vxF -f "$aside/replaced" "$aside/used" | xargs -r mv -t "$root/usr/bin" --)
    (cd "$root" && xargs rm -- <"$aside/added")
    (cd "$root" && xargs -r rmdir -- <"$aside/made") || fail "a package put files beside those that this machine lends to the root"
    rm -r "$aside"
)
