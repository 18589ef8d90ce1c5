#!/bin/sh
# Installs the programs of other registries that the tests of publishing run, below the directory $1: each version is pinned by its
# digest, and nothing is installed outside that directory. Called by the tests when something is missing, and by CI before them. Needs
# python3 with venv, and npm where tests/publish/npm is there.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
exec 9>publish-install.lock
flock 9

# installed NAME FILE: whether NAME was installed from this content of FILE.
installed() { [ -f "$1/installed-from" ] && cmp -s "$2" "$1/installed-from"; }

if ! installed publish-python "$here/requirements.txt"; then
    rm -rf publish-python
    python3 -m venv publish-python
    publish-python/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes --only-binary :all: \
        --no-deps -r "$here/requirements.txt"
    cp "$here/requirements.txt" publish-python/installed-from
fi

if [ -f "$here/npm/package-lock.json" ] && ! installed publish-npm "$here/npm/package-lock.json"; then
    rm -rf publish-npm
    mkdir publish-npm
    cp "$here/npm/package.json" "$here/npm/package-lock.json" publish-npm/
    (cd publish-npm && npm ci --silent --ignore-scripts --no-audit --no-fund)
    cp "$here/npm/package-lock.json" publish-npm/installed-from
fi
