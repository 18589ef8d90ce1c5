# What .ci/run and .ci/nightly share: steps, each with its cost, and a table of them at the end. Sourced by both.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
costs=()
failed=()
begin=$SECONDS

# as_root COMMAND...: runs it as root.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# step NAME COMMAND...: runs the command, and notes its seconds on the clock and of the processor. A step that fails does not keep the
# others from running: the table shows all that is wrong.
step() {
    local name=$1 times status=0
    shift
    printf '\n== %s\n' "$name"
    times=$(mktemp)
    TIMEFORMAT='%0R %0U %0S'
    { time "$@" 2>&3 || status=$?; } 3>&2 2>"$times"
    [ "$status" = 0 ] || failed+=("$name")
    local wall user system
    read -r wall user system < <(tail -n 1 "$times")
    rm "$times"
    costs+=("$(printf '%6s %6s  %s%s' "$wall" "$((user + system))" "$name" "$([ "$status" = 0 ] || echo ' (failed)')")")
}

# left_out NAME WHY: a step that was left out at the caller's wish, in the table.
left_out() {
    printf '\n== %s: left out: %s\n' "$1" "$2"
    costs+=("$(printf '%6s %6s  %s (left out: %s)' - - "$1" "$2")")
}

# table: what each step cost. The status is 1 when one failed.
table() {
    printf '\n wall s  CPU s  step\n'
    printf '%s\n' "${costs[@]}"
    printf '%6s         in all\n' "$((SECONDS - begin))"
    [ "${#failed[@]}" = 0 ]
}

# The one program that no test can run from the lock: newuidmap and newgidmap have the set-user-id bit. Git and a C compiler build pnb;
# npm and Python's venv install the clients of tests/publish, which are in no archive of Debian.
# host_packages PACKAGE...: installs them, and these packages.
host_packages() {
    local missing=() package
    for package in build-essential git python3-venv uidmap "$@"; do
        dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing+=("$package")
    done
    # For tests/publish/install.sh; npm may come from elsewhere than Debian.
    command -v npm >/dev/null || missing+=(npm)
    [ "${#missing[@]}" -gt 0 ] || return 0
    as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

# promised_rust: the compiler in use is the one that Cargo.toml promises; every step after this one tries that promise.
promised_rust() {
    local promised used
    promised=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    used=$(rustc --version | cut -d ' ' -f 2)
    echo "Cargo.toml promises Rust $promised, rustc is $used"
    case $used in
        "$promised" | "$promised".*) ;;
        *) return 1 ;;
    esac
}

# tool NAME VERSION: makes the cargo command NAME available: the machine's own, or one that is compiled once for a target directory.
tool() {
    local name=$1 version=$2 tools=target/ci-tools
    ! command -v "$name" >/dev/null || return 0
    # Without optimisation it takes a third of the time to compile; it runs for a second.
    [ -x "$tools/bin/$name" ] || cargo install --debug --locked --root "$tools" --target-dir "$tools/build" "$name@$version" || return
    PATH=$PWD/$tools/bin:$PATH
}

# deny CHECK...: cargo-deny's checks that need no network.
deny() { tool cargo-deny 0.20.2 && cargo deny --locked check "$@"; }

# advisories: what the RustSec database says about the crates. A database that is missing or old fails the step, as an advisory does.
advisories() { tool cargo-deny 0.20.2 && .ci/advisories; }

# vet: supply-chain/ has an audit or an exemption for every crate of Cargo.lock, in the form that cargo-vet writes.
vet() { tool cargo-vet 0.10.2 && cargo vet --locked --frozen; }

# newcomer: the walk of tests/newcomer. Its bare machine, which belongs to root, is removed however it ends: the log tells what went wrong.
newcomer() {
    local kept=(PATH="$PATH" HOME="$HOME" CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}")
    [ -z "${RUSTUP_HOME:-}" ] || kept+=(RUSTUP_HOME="$RUSTUP_HOME")
    local status=0
    as_root env "${kept[@]}" tests/newcomer/walk.sh target/newcomer || status=$?
    as_root rm -rf --one-file-system target/newcomer
    return "$status"
}

documentation() { RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items; }

# lints: all that needs no test to run.
lints() {
    step "toolchain" promised_rust
    step "cargo fmt" cargo fmt --check
    step "cargo clippy" cargo clippy --locked --all-targets -- -D warnings
    step "cargo doc" documentation
    # A workspace of its own, whose dependencies have the versions and profiles of this one: most are compiled already.
    step "cargo clippy of fuzz/" cargo clippy --locked --manifest-path fuzz/Cargo.toml --target-dir target -- -D warnings
    step "cargo fmt of fuzz/" cargo fmt --check --manifest-path fuzz/Cargo.toml
}

# binaries: the test programs, as arguments of `cargo test`: --lib, --bin pnb, --example NAME, --test NAME.
binaries() {
    cargo test --locked --no-run 2>&1 | sed -n \
        -e 's|^ *Executable unittests src/lib\.rs .*|--lib|p' \
        -e 's|^ *Executable unittests src/main\.rs .*|--bin pnb|p' \
        -e 's|^ *Executable unittests examples/\([a-z0-9_]*\)\.rs .*|--example \1|p' \
        -e 's|^ *Executable tests/\([a-z0-9_]*\)\(/main\)\{0,1\}\.rs .*|--test \1|p'
}

# each_binary ARGUMENT...: every test program is a step of its own, with these arguments; then the examples in the documentation.
each_binary() {
    local list binary all
    mapfile -t list < <(binaries)
    all=$(cargo test --locked --no-run 2>&1 | grep -c '^ *Executable')
    if [ "$all" -lt 20 ] || [ "${#list[@]}" != "$all" ]; then
        echo "there are $all test programs, and ${#list[@]} of them would run" >&2
        failed+=("list of test programs")
    fi
    for binary in "${list[@]}"; do
        # shellcheck disable=SC2086  # two words
        step "test $binary" cargo test --locked $binary -- "$@"
    done
    step "test --doc" cargo test --locked --doc
}
