#!/usr/bin/env bash
# The walk, on the bare machine: tests/newcomer/walk.sh has made it and put a clone of the project at /walk/pnb.git, perhaps a program at
# /walk/pnb. Mounted: /dev, /proc, /sys, /tmp; lent: /lent/rust, /lent/registry, /lent/mirror.
set -euo pipefail

apt-get update -q >/walk/apt.log 2>&1
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends git build-essential uidmap >>/walk/apt.log 2>&1
git config --system safe.directory '*'
# shellcheck disable=SC2016  # backticks of Markdown
requirements=$(git -C /walk/pnb.git show HEAD:README.md | sed -n 's/.*`apt install \([a-z -]*\)`.*/\1/p' | head -n 1)
[ "$requirements" = "git build-essential" ] || {
    echo "README.md asks for the packages \"$requirements\", and this script installs git and build-essential" >&2
    exit 1
}
id rel >/dev/null 2>&1 || useradd --create-home --shell /bin/bash rel

# The walk of one user, in a clone of its own.
cat >/walk/user.sh <<'USER'
set -uo pipefail
export PATH=/lent/rust/bin:$PATH CARGO_HOME=$HOME/.cargo CARGO_NET_OFFLINE=true PNB_MIRROR=file:///lent/mirror
mkdir -p "$CARGO_HOME"
ln -sfn /lent/registry "$CARGO_HOME/registry"
rm -rf ~/pnb
git clone -q /walk/pnb.git ~/pnb
cd ~/pnb || exit 1
git config user.name "A newcomer"
git config user.email newcomer@example.org
pnb() { target/release/pnb "$@"; }
failures=0

# try STATUS COMMAND: runs the line as it stands, and says what it cost.
try() {
    local expected=$1 line=$2 begin=$SECONDS status=0
    printf '\n$ %s\n' "$line"
    eval "$line" </dev/null || status=$?
    printf '[%s: exit %s, %s s]\n' "$(id -un)" "$status" "$((SECONDS - begin))"
    if [ "$status" != "$expected" ]; then
        printf 'WRONG: exit %s was expected\n' "$expected"
        failures=$((failures + 1))
    fi
}

# lines HEADING: the commands of a section of README.md, without what is said behind them.
lines() {
    awk -v heading="## $1" '$0 == heading { on = 1; next } /^## / { on = 0 } on && /^    / { sub(/ +# .*/, ""); print substr($0, 5) }' README.md
}

if [ -e /walk/pnb ]; then
    mkdir -p target/release
    cp /walk/pnb target/release/pnb
    try 0 "pnb build --hermetic --arch amd64"
else
    while read -r line; do try 0 "$line"; done < <(lines "Two commands" | grep -v '^cargo test')
fi
while read -r line; do
    case $line in
        alias*) continue ;;
        # The files differ, which is what the command is for.
        "pnb diff"*) try 1 "$line" ;;
        # A shell without a terminal reads its commands from its input.
        "pnb shell"*) try 0 "$line -c true" ;;
        *) try 0 "$line" ;;
    esac
done < <(lines "The first hour")
git checkout -q . && git clean -qfd

echo "== a package"
sed -i 's/^  "procps", /  "less", "procps", /' stages/rootfs/stage.toml
try 3 "pnb plan"
try 0 "env -u PNB_MIRROR target/release/pnb lock"
try 0 "git diff --stat"
try 0 "pnb plan --variant kernel-initrd"
git checkout -q .

echo "== a file and a service"
mkdir -p stages/root/overlay/etc/systemd/system/multi-user.target.wants
printf '[Service]\nType=oneshot\nExecStart=/usr/bin/true\n' >stages/root/overlay/etc/systemd/system/hello.service
ln -s ../hello.service stages/root/overlay/etc/systemd/system/multi-user.target.wants/hello.service
try 8 "pnb build --hermetic --variant kernel-initrd --output images-new"
git add stages && git commit -qm "a service"
try 0 "pnb build --hermetic --variant kernel-initrd --output images-new"
try 1 "pnb diff images/kernel-initrd/amd64 images-new/kernel-initrd/amd64"

echo "== another agent"
cp agent/diagnostic/powernode-agent /tmp/agent-$(id -un) && echo '# another' >>/tmp/agent-$(id -un)
try 0 "pnb build --agent /tmp/agent-$(id -un) --variant kernel-initrd --output images-new"

echo "== a kernel argument"
echo 'quiet' >>stages/raw/cmdline
try 0 "pnb plan --variant raw"
git checkout -q .

echo "== the worked example of a stage"
mkdir -p stages/module-list
awk '/^`stages\/module-list\/stage.toml`:/ { f = "stages/module-list/stage.toml"; next } /^`stages\/module-list\/build.sh`:/ { f = "stages/module-list/build.sh"; next }
    f && /^    / { print substr($0, 5) > f; next } f && /^$/ { print "" > f; next } { f = "" }' docs/adding-a-stage.md
try 0 "pnb build --stage module-list"
try 0 "pnb log module-list"
try 0 "pnb store path module-list --output modules.txt"
git clean -qfd

echo "== names that are nearly right"
try 2 "pnb build --variant rawe"
try 2 "pnb build raw"
try 2 "pnb build --arch x86_64"
try 2 "pnb log rootf"

echo "== an audit with rules"
try 50 "pnb audit images --policy docs/audit-policy.example.toml"

echo "== a shell on a node"
try 0 "pnb build --with debug --variant kernel-initrd --output images-debug"
try 0 "pnb boot images-debug/kernel-initrd/amd64"

printf '\n%s: %s of the commands ended otherwise than expected\n' "$(id -un)" "$failures"
[ "$failures" = 0 ]
USER
status=0
bash /walk/user.sh || status=1
su rel -c 'bash /walk/user.sh' || status=1
exit "$status"
