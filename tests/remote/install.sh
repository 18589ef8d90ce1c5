#!/bin/sh
# Installs BuildGrid, which the nightly tests of remote execution run, below the directory $1: each version is pinned by its digest, and
# nothing is installed outside that directory. Called by the tests when something is missing, and by CI before them. Needs Python 3.11 or
# newer with venv, and no network once it is installed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
exec 9>remote-install.lock
flock 9

# What is installed is complete when the list that it was installed from lies beside it.
if ! cmp -s "$here/requirements.txt" remote-python/installed-from; then
    rm -rf remote-python
    python3 -m venv remote-python
    remote-python/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "BuildGrid needs Python 3.11, and $(python3 --version) is what python3 starts" >&2
        exit 1
    }
    remote-python/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes --only-binary :all: \
        --no-deps -r "$here/requirements.txt"
    cp "$here/requirements.txt" remote-python/installed-from
fi
