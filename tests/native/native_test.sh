#!/bin/sh
# Tests of stages/rootfs/install/native.sh: which programs it puts into a root, what it refuses, and that nothing of it is left. Started
# by tests/native.rs as `<shell> <script> <directory of native.sh>` in an empty directory. It prints a line for each failed check and
# the number of checks at the end.
set -u

PNB_ARCH=arm64
here=$PWD
checks=0
failures=0

fail() {
    echo "failed: $*" >&2
    exit 1
}

root=$here/root
# shellcheck source=../../stages/rootfs/install/native.sh
. "$1/native.sh"
# shellcheck disable=SC2034  # native.sh reads them
native=$here/native index=$here/Packages aside=$here/aside

# same WHAT ACTUAL EXPECTED
same() {
    checks=$((checks + 1))
    [ "$2" = "$3" ] || {
        failures=$((failures + 1))
        printf 'failed: %s\n  expected: %s\n  actual:   %s\n' "$1" "$3" "$2"
    }
}

# A root with four programs, one of them with a second name, and what this machine lends to it.
fresh() {
    rm -rf root native aside
    mkdir -p root/usr/bin root/usr/lib/aarch64-linux-gnu/perl-base/auto root/debs root/lib64x native/bin \
        native/added/usr/lib/x86_64-linux-gnu/perl-base native/added/usr/lib64
    for name in dash sed perl uname; do
        echo "target's $name" >"root/usr/bin/$name"
        chmod 0755 "root/usr/bin/$name"
    done
    ln root/usr/bin/perl root/usr/bin/perl5
    ln -s dash root/usr/bin/sh
    ln -s usr/lib root/lib
    : >root/usr/lib/aarch64-linux-gnu/perl-base/auto/List.so
    for name in dash find perl sed sh; do
        echo "machine's $name" >"native/bin/$name"
    done
    echo amd64 >native/arch
    : >native/added/usr/lib/x86_64-linux-gnu/libc.so.6
    ln -s libc.so.6 native/added/usr/lib/x86_64-linux-gnu/libc.so
    : >native/added/usr/lib64/ld.so
    : >native/added/usr/lib/x86_64-linux-gnu/perl-base/List.pm
    ln -s usr/lib64 native/added/lib64
    cat >native/programs <<'END'
dash 0.5-1 dash sh
findutils 4.10-3 find
perl-base 5.40.1-6+b2 perl
sed 4.9-2 sed
END
    cat >Packages <<'END'
Package: dash
Architecture: arm64
Version: 0.5-1
Depends: libc6 (>= 2)

Package: perl-base
Version: 5.40.1-6+b1

Package: sed
Version: 4.9-2

Package: sed-extra
Version: 1
END
}

# Everything in the root; the times of directories and the order in them are not the root's.
world() {
    find root -type d -printf '%p %m %U %G\n' -o -printf '%p %i %m %U %G %s %T@ %l %n\n' | LC_ALL=C sort
}

# refused TEXT: use_native fails and says TEXT.
refused() {
    said=$(use_native 2>&1)
    same "exit code of: $1" "$?" 1
    case $said in
        *"$1"*) same "$1" ok ok ;;
        *) same 'what is said' "$said" "$1" ;;
    esac
}

fresh
before=$(world)
same 'what is said' "$(use_native)" '3 programs run natively, for amd64'
same 'programs' "$(cat root/usr/bin/dash root/usr/bin/sh root/usr/bin/sed root/usr/bin/perl root/usr/bin/perl5 root/usr/bin/uname)" \
    "machine's dash
machine's dash
machine's sed
machine's perl
target's perl
target's uname"
same 'a program that the root does not have' "$(ls root/usr/bin/find 2>/dev/null)" ''
same 'a library' "$(readlink root/usr/lib/x86_64-linux-gnu/libc.so; ls root/lib64/)" 'libc.so.6
ld.so'
same 'nothing comes back by dpkg' "$(native_packages)" ''
restore_emulated
same 'code' "$?" 0
same 'the root afterwards' "$(world)" "$before"
restore_emulated
same 'a second time' "$? $(world)" "0 $before"

# Versions.
fresh
sed -i 's/^Version: 4.9-2/Version: 4.9-3/' Packages
sed -i 's/^Version: 5.40.1-6+b1/Version: 5.40.2-6+b1/' Packages
before=$(world)
same 'what is said of other versions' "$(use_native 2>&1)" \
    'programs of perl-base run under the emulator: the root has 5.40.2-6+b1, stages/native-programs has 5.40.1-6+b2
programs of sed run under the emulator: the root has 4.9-3, stages/native-programs has 4.9-2
1 programs run natively, for amd64'
same 'programs of other versions' "$(cat root/usr/bin/dash root/usr/bin/sed root/usr/bin/perl)" \
    "machine's dash
target's sed
target's perl"
restore_emulated
same 'the root after that' "$(world)" "$before"

# Where nothing is emulated, and in a stage without the input.
fresh
before=$(world)
echo arm64 >native/arch
same 'the same architecture' "$(use_native)$(world)" "$before"
rm -r native
same 'no input' "$(use_native; native_packages; restore_emulated)$(world)" "$before"

# Perl with modules that the machine's perl cannot load.
fresh
mkdir -p root/usr/lib/aarch64-linux-gnu/perl5/5.40/auto/Locale
: >root/usr/lib/aarch64-linux-gnu/perl5/5.40/auto/Locale/gettext.so
before=$(world)
same 'compiled modules' "$(use_native)" 'perl runs under the emulator: the root has compiled modules beside those of perl-base
2 programs run natively, for amd64'
same 'perl' "$(cat root/usr/bin/perl)" "target's perl"
restore_emulated
same 'the root with modules afterwards' "$(world)" "$before"

# What is in the way.
fresh
mkdir -p root/usr/lib/x86_64-linux-gnu
: >root/usr/lib/x86_64-linux-gnu/libc.so.6
refused 'the root has /usr/lib/x86_64-linux-gnu/libc.so.6, which is for amd64'
fresh
ln -s nowhere root/lib64
refused 'the root has /lib64, which is for amd64'
# A directory that was there before stays.
fresh
mkdir -p root/usr/lib/x86_64-linux-gnu
before=$(world)
use_native >/dev/null
restore_emulated
same 'a directory of the root' "$(world)" "$before"

# What scripts do to the programs.
for change in 'chmod 4755 root/usr/bin/dash' 'rm root/usr/bin/dash' 'cp root/usr/bin/sed root/usr/bin/dash' 'mv root/usr/bin/sed root/usr/bin/dash' \
    'rm root/lib64' 'ln -sf elsewhere root/usr/lib/x86_64-linux-gnu/libc.so' 'touch root/usr/lib/x86_64-linux-gnu/more'; do
    fresh
    use_native >/dev/null
    $change
    said=$(restore_emulated 2>&1)
    same "$change" "$?: $(printf '%s' "$said" | grep -c 'did not stay as they were:\|failed: a package put files beside')" '1: 1'
done

# dpkg unpacks dash, which has a program here, and another package.
fresh
: >root/debs/dash_0.5-1_arm64.deb
: >root/debs/sed-extra_1_arm64.deb
use_native >/dev/null
same 'what comes back by dpkg' "$(native_packages)" ' dash '
said=$(restore_emulated 2>&1)
same 'dpkg did not unpack it' "$? $said" '1 failed: files that this machine lends to the root did not stay as they were: dash'
echo "dpkg's dash" >root/usr/bin/dash.dpkg-new
mv root/usr/bin/dash.dpkg-new root/usr/bin/dash
restore_emulated
same 'after dpkg' "$(cat root/usr/bin/dash root/usr/bin/sed; ls root/lib64 2>&1)" "dpkg's dash
target's sed
ls: cannot access 'root/lib64': No such file or directory"

echo "$checks checks, $failures failed"
