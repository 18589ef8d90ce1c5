#!/bin/sh
# Compiles pnb as a static program for $PNB_ARCH and leaves it in /build/pnb.
#
# When this runs, / is the tree of release-tools, /inputs/source has Cargo.toml, Cargo.lock, build.rs, and what it names,
# /inputs/vendor the crates of Cargo.lock, and for arm64 /inputs/std the standard library of that architecture.
set -eu
umask 022
export LC_ALL=C

# The compilers are named, because nothing has set up the alternatives `cc` and `ar`.
case $PNB_ARCH in
    amd64) target=x86_64-unknown-linux-gnu gnu=x86_64-linux-gnu std="" ;;
    arm64)
        target=aarch64-unknown-linux-gnu gnu=aarch64-linux-gnu
        std="-L /inputs/std/usr/lib/rustlib/aarch64-unknown-linux-gnu/lib"
        ;;
    *)
        echo "there is no release for $PNB_ARCH" >&2
        exit 1
        ;;
esac
rustflags="-C target-feature=+crt-static $std --remap-path-prefix=/inputs/vendor=/crates --remap-path-prefix=/inputs/source=/pnb"

# The working directory is in the generated code that crates include. Cargo derives the names of symbols from the flags, so the
# directory, which differs between two builds of verify-repro, is mapped behind its back.
here=$(pwd -P)
mkdir home work
cat >home/rustc <<WRAPPER
#!/bin/sh
exec "\$@" --remap-path-prefix=$here=/build
WRAPPER
chmod 0755 home/rustc
cat >home/config.toml <<CONFIG
[source.crates-io]
replace-with = "vendor"
[source.vendor]
directory = "/inputs/vendor"
CONFIG
export CARGO_HOME="$here/home" CARGO_TARGET_DIR="$here/work" CARGO_INCREMENTAL=0 RUSTC_WRAPPER="$here/home/rustc"
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
# With --target, build scripts and macros, which run here, do not get these flags.
export "CARGO_TARGET_$(echo "$target" | tr a-z- A-Z_)_RUSTFLAGS=$rustflags"
export HOST_CC=x86_64-linux-gnu-gcc HOST_AR=x86_64-linux-gnu-ar TARGET_CC="$gnu-gcc" TARGET_AR="$gnu-ar"
export TARGET_CFLAGS="-ffile-prefix-map=$here=/build -ffile-prefix-map=/inputs/vendor=/crates"

cd /inputs/source
cargo build --release --locked --offline --bin pnb --target "$target" --jobs "$PNB_CPUS"
cp "$here/work/$target/release/pnb" "$here/pnb"
chmod 0755 "$here/pnb"
