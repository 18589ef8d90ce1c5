#!/usr/bin/env bash
# Sourced by the walk: commands as a reader types them, each with the exit code that a document promises, and looks at the results.

failures=0
out=$(mktemp)

wrong() {
    printf 'WRONG: %s\n' "$1"
    failures=$((failures + 1))
}

# try STATUS LINE: runs the line as it stands, and says what it cost. What it printed is in $out.
try() {
    local expected=$1 line=$2 begin=$SECONDS status
    printf '\n$ %s\n' "$line"
    (eval "$line") </dev/null 2>&1 | tee "$out"
    status=${PIPESTATUS[0]}
    printf '[%s: exit %s, %s s]\n' "$(id -un)" "$status" "$((SECONDS - begin))"
    [ "$status" = "$expected" ] || wrong "exit $expected was expected: $line"
}

# said REGEX: the last command printed a line that matches.
said() { grep -Eq -e "$1" "$out" || wrong "no line of the output matches: $1"; }

# holds COMMAND...: something that a reader sees without pnb.
holds() { "$@" >/dev/null 2>&1 || wrong "does not hold: $*"; }

# verdict: the status is 1 when anything was wrong.
verdict() {
    printf '\n%s: %s of the commands and results were otherwise than expected\n' "$(id -un)" "$failures"
    [ "$failures" = 0 ]
}
