#!/usr/bin/env bash
# The walk, on the bare machine: tests/newcomer/walk.sh has made it and put a clone of the project at /walk/pnb.git, perhaps a program at
# /walk/pnb. Mounted: /dev, /proc, /sys, /tmp; lent: /lent/rust, /lent/registry, /lent/mirror. The arguments are the users who walk.
set -euo pipefail

packages() { DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >>/walk/apt.log 2>&1; }

# What README.md asks for, and nothing else; an ordinary user's uidmap and ids only where that user walks.
apt-get update -q >/walk/apt.log 2>&1
packages git
# shellcheck disable=SC2016  # Markdown
requirements=$(git -C /walk/pnb.git show HEAD:README.md | sed -n 's/.*`apt install \([a-z -]*\)`.*/\1/p' | head -n 1)
[ "$requirements" = "git build-essential" ] || {
    echo "README.md asks for the packages \"$requirements\", and this script installs git and build-essential" >&2
    exit 1
}
packages build-essential
# For the recipe of docs/looking-around.md: the key of an operator, and his way in.
packages openssh-client

status=0
for user in "$@"; do
    # Each has a repository to clone that is his own, as from a server.
    cp -r /walk/pnb.git "/walk/$user.git"
    begin=$SECONDS
    if [ "$user" = root ]; then
        bash /walk/user.sh || status=1
    else
        packages uidmap
        useradd --create-home --shell /bin/bash "$user"
        chown -R "$user:" "/walk/$user.git"
        su - "$user" -c 'TERM=dumb LANG=C.UTF-8 bash /walk/user.sh' || status=1
        # Whoever sits down as root in the clone of a user is told how to go on.
        bash /walk/guest.sh "$user" || status=1
        apt-get purge -q -y uidmap >>/walk/apt.log 2>&1
    fi
    mkdir -p "/walk/built/$user"
    home=$(getent passwd "$user" | cut -d : -f 6)
    (cd "$home/pnb/images" && cp --parents ./*/amd64/SHA256SUMS ./*/amd64/build-manifest.json "/walk/built/$user/") || status=1
    printf '\n%s walked for %s s, with %s in use at the end\n' "$user" "$((SECONDS - begin))" "$(du -sh "$home" | cut -f 1)"
    rm -rf "${home:?}/pnb" "$home/.cache" "$home/.cargo"
done

# What everybody built is the same.
if [ "$#" -gt 1 ]; then
    diff -r "/walk/built/$1" "/walk/built/$2" || {
        echo "WRONG: $1 and $2 built different artifacts" >&2
        status=1
    }
fi
exit "$status"
