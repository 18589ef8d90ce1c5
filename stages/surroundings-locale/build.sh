#!/bin/sh
# Compiles Turkish, in which I is no capital i, dates and numbers are written in another way and letters sort otherwise than bytes do.
#
# What is there when this runs: / is the tools' tree, /inputs/packages Debian's packages with the sources of all locales, and gzip. What it
# leaves: /build/locale/<name>, to be found through LOCPATH.
set -eu
umask 022

for package in /inputs/packages/*.deb; do
    dpkg-deb -x "$package" sources
done
sources/usr/bin/gzip -d sources/usr/share/i18n/charmaps/UTF-8.gz
mkdir locale
I18NPATH=sources/usr/share/i18n localedef --no-archive -i tr_TR -f sources/usr/share/i18n/charmaps/UTF-8 ./locale/tr_TR.UTF-8
rm -rf sources

test -s locale/tr_TR.UTF-8/LC_COLLATE
test "$(printf 'b\nA\na\nB\n' | LOCPATH=/build/locale LC_ALL=tr_TR.UTF-8 sort | head -n 2 | tail -n 1)" = a || {
    echo "the locale does not sort as Turkish does" >&2
    exit 1
}
