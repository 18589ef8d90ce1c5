#!/usr/bin/env bash
# The walk of one user, in a clone of his own; tests/newcomer/inside.sh runs it on the bare machine. What is typed is what README.md and the
# pages it names say, with the exit codes they promise. Not walked: what needs a server of somebody else (registries, releases, signatures,
# proxies, remote caches and workers, clouds) or a container; tests/publish, tests/sign, tests/fetch, tests/remote and tests/clouds have
# servers for them.
set -uo pipefail
# shellcheck source=try.sh
. /walk/try.sh

# Lent by the machine below. The crates are unpacked by each user: some have files that only their owner may read.
export PATH=/lent/rust/bin:$PATH CARGO_HOME=$HOME/.cargo CARGO_NET_OFFLINE=true PNB_MIRROR=file:///lent/mirror
mkdir -p "$CARGO_HOME/registry"
cp -r /lent/registry/cache /lent/registry/index "$CARGO_HOME/registry/"

try 0 "git clone -q /walk/$(id -un).git ~/pnb"
cd ~/pnb || exit 1
git config user.name "A newcomer"
git config user.email newcomer@example.org
# As the alias of README.md.
export PATH=$PWD/target/release:$PATH

# lines HEADING: the commands of a section of README.md, without what is said behind them.
lines() {
    awk -v heading="## $1" '$0 == heading { on = 1; next } /^## / { on = 0 } on && /^    / { sub(/ +# .*/, ""); print substr($0, 5) }' README.md
}

# code FILE PATH: the indented block that a document gives as the content of a file.
code() {
    awk -v name="\`$2\`:" '$0 == name { on = 1; next } on && /^    / { print substr($0, 5); seen = 1; next } on && /^$/ { if (seen) print ""; next } { on = 0 }' "$1" >"$2"
}

# afresh: back to the commit that was cloned.
commit=$(git rev-parse HEAD)
afresh() {
    git reset -q --hard "$commit"
    git clean -qfd
    rm -rf images-*
}

echo "== README: two commands"
if [ -e /walk/pnb ]; then
    mkdir -p target/release
    cp /walk/pnb target/release/pnb
    try 0 "pnb build --hermetic --arch amd64"
else
    while read -r line; do
        case $line in
            # As root, .ci/run runs the same tests before every change; a second time they would cost another half an hour here.
            "cargo test") [ "$(id -u)" != 0 ] || continue ;;
        esac
        try 0 "$line"
    done < <(lines "Two commands")
    # Room for what follows: what the tests were compiled to, and their own store.
    du -sh target ~/.cache/pnb images
    rm -rf target/debug target/tmp
fi
for variant in kernel-initrd raw iso ipxe qcow2 oci; do holds test -s "images/$variant/amd64/SHA256SUMS"; done

echo "== README: the first hour"
while read -r line; do
    case $line in
        alias*) continue ;;
        # The files differ, which is what the command is for.
        "pnb diff"*) try 1 "$line" && said '^ +~ motd ' ;;
        # A shell without a terminal reads its commands from its input.
        "pnb shell"*) try 0 "$line -c 'ls /inputs/packages'" && said '\.deb$' ;;
        *) try 0 "$line" ;;
    esac
    case $line in
        "pnb doctor") said '^ready: builds run on this machine, also with --hermetic$' ;;
        "pnb plan") if [ -e stages/root/overlay/etc/motd ]; then said 'stages/root/overlay/etc/motd'; else said '^none of [0-9]+ stages would run'; fi ;;
        "pnb audit"*) said '^6 artifacts, [0-9]+ checks.* hold' ;;
        "pnb boot"*) said 'powernode: ready instance=none .* agent=active' ;;
        *--report*) holds test -s report.html ;;
    esac
done < <(lines "The first hour")
# What was tried has left nothing that git sees.
try 0 "git status --short"
holds test ! -s "$out"
afresh

echo "== a package"
sed -i 's/^  "procps", /  "less", "procps", /' stages/rootfs/stage.toml
try 3 "pnb plan"
said 'pnb lock'
try 0 "env -u PNB_MIRROR pnb lock"
said 'less'
try 0 "git diff --stat"
try 0 "pnb build --stage rootfs"
holds test -x "$(pnb store path rootfs --output tree 2>/dev/null)/usr/bin/less"
afresh

echo "== security updates"
try 0 "env -u PNB_MIRROR pnb lock --suite trixie-security"
holds grep -q 'trixie-security' lockfile.toml
try 0 "pnb plan --variant kernel-initrd"
afresh

echo "== a file and a service"
mkdir -p stages/root/overlay/etc/systemd/system/multi-user.target.wants
printf '[Service]\nType=oneshot\nExecStart=/usr/bin/true\n' >stages/root/overlay/etc/systemd/system/hello.service
ln -s ../hello.service stages/root/overlay/etc/systemd/system/multi-user.target.wants/hello.service
try 8 "pnb build --hermetic --variant kernel-initrd --output images-new"
said 'hello.service'
git add stages && git commit -qm "a service"
try 0 "pnb build --hermetic --variant kernel-initrd --output images-new"
try 1 "pnb diff images/kernel-initrd/amd64 images-new/kernel-initrd/amd64"
said '^ +\+ hello\.service +symlink'
afresh

echo "== another agent"
mkdir -p agent/mine
{ cat agent/diagnostic/powernode-agent && echo '# Another one.'; } >agent/mine/powernode-agent
try 0 "pnb build --agent agent/mine/powernode-agent --variant kernel-initrd --output images-new"
try 1 "pnb diff images/kernel-initrd/amd64 images-new/kernel-initrd/amd64"
said '^ +~ powernode-agent '
sed -i 's|^path = "agent/diagnostic/|path = "agent/mine/|' stages/files.toml
try 3 "pnb build --variant kernel-initrd --output images-pinned"
said 'agent/mine/powernode-agent'
try 0 "env -u PNB_MIRROR pnb lock"
try 0 "pnb build --variant kernel-initrd --output images-pinned"
holds grep -q 'agent/mine/powernode-agent' images-pinned/kernel-initrd/amd64/build-manifest.json
afresh

echo "== a kernel argument"
echo 'quiet' >>stages/raw/cmdline
try 0 "pnb plan --variant raw"
try 0 "pnb build --variant raw --output images-new"
try 0 "pnb inspect images-new/raw/amd64"
said ' quiet'
afresh

echo "== the worked example of a stage"
mkdir -p stages/module-list
for file in stages/module-list/stage.toml stages/module-list/build.sh; do code docs/adding-a-stage.md "$file"; done
try 0 "pnb graph --stage module-list"
try 0 "pnb plan --stage module-list"
try 0 "pnb build --stage module-list"
try 0 "pnb log module-list"
try 0 "pnb store path module-list --output modules.txt"
holds grep -q '^virtio_net\.ko' "$(pnb store path module-list --output modules.txt 2>/dev/null)"
sed -i 's/-gt 1000/-gt 100000/' stages/module-list/build.sh
try 7 "pnb build --stage module-list"
said 'fewer than 1000 modules'
said 'pnb shell module-list'
try 1 "pnb shell module-list -c '/bin/sh -x /stage/build.sh'"
sed -i 's/-gt 100000/-gt 1000/' stages/module-list/build.sh
try 0 "pnb build --stage module-list"
afresh

echo "== the worked example of a variant"
mkdir stages/raw-serial
cp stages/raw/cmdline stages/raw-serial/
sed 's|stages/raw/cmdline|stages/raw-serial/cmdline|' stages/raw/stage.toml >stages/raw-serial/stage.toml
try 0 "pnb plan --variant raw-serial"
try 0 "pnb build --variant raw-serial --output images-new"
try 0 "pnb audit images-new"
afresh

echo "== the other architecture"
try 0 "pnb build --hermetic --arch arm64 --variant kernel-initrd --output images-arm64"
try 0 "pnb audit images-arm64/kernel-initrd/arm64"

echo "== a base image"
try 0 "pnb build --stage bootstrap-image"
try 3 "pnb lock --base registry.example/team/base:latest"
afresh

echo "== without a network"
try 0 "pnb vendor ~/mirror"
try 0 "env PNB_MIRROR= PNB_STORE=$HOME/store pnb build --hermetic --offline --mirror file://$HOME/mirror --variant kernel-initrd --output images-offline"
holds cmp images/kernel-initrd/amd64/SHA256SUMS images-offline/kernel-initrd/amd64/SHA256SUMS
rm -rf ~/mirror
try 4 "env -u PNB_MIRROR PNB_STORE=$HOME/empty pnb build --offline --variant kernel-initrd --output images-offline"
said 'not tried \(--offline\)'
rm -rf ~/store ~/empty
afresh

echo "== names that are nearly right"
try 2 "pnb build --variant rawe"
said '^hint: .pnb build --variant raw.$'
try 2 "pnb build raw"
said '^hint: .pnb build --variant raw.$'
try 2 "pnb build --arch x86_64"
said '^hint: .pnb build --arch amd64.$'
try 2 "pnb log rootf"
said '^hint: .pnb log rootfs.$'
try 2 "pnb audit images/vmdk"

echo "== an audit with rules"
try 50 "pnb audit images --policy docs/audit-policy.example.toml"
printf 'version = 1\nhermetic = true\nclean = true\ndebug = false\n' >/tmp/policy-"$(id -un)".toml
try 0 "pnb audit images --policy /tmp/policy-$(id -un).toml"

echo "== to a directory of the platform's"
try 0 "pnb publish --to dir:$HOME/netboot --layout platform --dry-run"
holds test ! -e ~/netboot
try 0 "pnb publish --to dir:$HOME/netboot --layout platform"
holds cmp ~/netboot/amd64/kernel images/kernel-initrd/amd64/kernel
try 0 "pnb publish --to dir:$HOME/netboot --layout platform"
rm -rf ~/netboot
try 65 "pnb verify-signature images/raw/amd64 --trusted-root public-good --identity release@example.com --issuer https://login.example"

# The first who walks has nobody to be compared with.
for theirs in /walk/built/*/raw/amd64/build-manifest.json; do
    [ -e "$theirs" ] || continue
    echo "== several builders"
    try 0 "pnb challenge images/raw/amd64 $theirs"
done

echo "== a server for machines that boot over a network"
pnb serve images/ipxe/amd64 --http 8080 --tftp 6969 >served 2>&1 &
server=$!
for _ in $(seq 30); do
    sleep 1
    (exec 3<>/dev/tcp/127.0.0.1/8080) 2>/dev/null && break
done
exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /boot.ipxe HTTP/1.0\r\n\r\n' >&3 && sed '1,/^\r$/d' <&3 >boot.ipxe
exec 3>&-
holds cmp boot.ipxe images/ipxe/amd64/boot.ipxe
kill "$server"
wait "$server" || wrong "pnb serve ended with $?"
cat served
afresh

echo "== completion"
try 0 "pnb completion bash"
# shellcheck disable=SC2016  # for the other shell
holds bash -c '. "$1" && complete -p pnb' bash "$out"

echo "== a node with an identity and a shell"
try 0 "pnb build --with debug --variant kernel-initrd --output images-debug"
mkfifo keys
pnb boot images-debug/kernel-initrd/amd64 --interactive --fw-cfg instance_uuid=6f1c6a4e-6d53-4c8b-9a55-0f3f1c6c2f10 <keys >console 2>&1 &
machine=$!
exec 4>keys
# A machine that is gone reads no keys; its end is told below.
trap '' PIPE
for _ in $(seq 300); do
    sleep 2
    grep -q 'root@powernode' console && break
    kill -0 "$machine" || break
done
grep -q 'root@powernode' console || kill "$machine"
printf '\nsystemctl is-active powernode-agent; poweroff\n' >&4 || wrong "the keys were not read"
trap - PIPE
wait "$machine" || wrong "pnb boot --interactive ended with $?"
exec 4>&-
sed 's/\r//g; s/\x1b\[[0-9;?]*[A-Za-z]//g' console | tee "$out"
said 'powernode: ready instance=6f1c6a4e-6d53-4c8b-9a55-0f3f1c6c2f10 source=fw_cfg .* agent=active'
said 'powernode: debug: The consoles of this node have a shell'
said '^active$'
try 0 "pnb audit images-debug/kernel-initrd/amd64"
try 51 "pnb audit images-debug/kernel-initrd/amd64 --policy /tmp/policy-$(id -un).toml"
afresh

echo "== a module"
(
    cd "$(mktemp -d)" || exit 1
    export PNB_PROJECT=$HOME/pnb
    try 0 "pnb module key fleet"
    try 0 "pnb module build nginx --without usr/lib/systemd --out modules"
    printf '%s\n' 'powernode-modules 1' 'instance *' 'counter 1' 'expires 2099-06-30T00:00:00Z' "$(grep '^500 nginx sha256:' "$out")" end >modules/modules.list
    try 0 "pnb module sign modules/modules.list --key fleet.sec"
    try 0 "pnb module verify modules --key fleet.pub"
    try 0 "pnb build --variant kernel-initrd --module-key fleet.pub --output images"
    mkdir -p share && mv modules share/
    try 0 "pnb boot images/kernel-initrd/amd64 --share share"
    said 'powernode: modules: 1 of 1 stacked, counter=1 key=fleet'
    exit "$failures"
) || failures=$?

echo "== a user, and ssh into a node"
git clone -q . ~/ops
(
    cd ~/ops || exit 1
    unset PNB_MIRROR
    ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
    awk '/^```/ { on = ($0 == "```sh"); next } on' docs/looking-around.md >/tmp/recipe-"$(id -un)"
    try 0 "bash -eu /tmp/recipe-$(id -un)"
    # The line of the page has --interactive, for which a person sits there.
    pnb boot images/raw/amd64 --forward 2222:22 --settle 240 --timeout 600 >booted 2>&1 &
    machine=$!
    for _ in $(seq 60); do
        sleep 5
        kill -0 "$machine" || break
        ssh -p 2222 -o StrictHostKeyChecking=accept-new -o ConnectTimeout=5 ops@127.0.0.1 'id; journalctl -b -n 1 -u powernode-agent' >seen 2>&1 && break
    done
    kill "$machine"
    wait "$machine"
    cat seen
    holds grep -q 'uid=1000(ops)' seen
    holds grep -q powernode seen
    exit "$failures"
) || failures=$?
rm -rf ~/ops ~/.ssh

echo "== the store"
try 0 "pnb store verify"
try 0 "pnb store gc"
# What the project needs as it is has been kept.
try 0 "pnb plan"
said '^none of [0-9]+ stages would run'
verdict
