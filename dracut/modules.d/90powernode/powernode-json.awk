# Prints the string that the top-level member `key` of a JSON object (RFC 8259) has.
#
#   busybox awk -v key=NAME -f powernode-json.awk FILE
#
# Exit status 0: printed, without anything behind it; 1: there is no such member, or it is null; 2: the file is no JSON object, or the
# member is no string, or it is there twice. The file is read as bytes; a character outside of printable ASCII, tab and line ends is
# printed as the byte 1, which no value of an identity can have. At most 32 levels are read.

function fail() { bad = 1; exit 2 }

function white() {
    while (at <= size && index(" \t\r\n", substr(text, at, 1))) at++
}

# The four digits at `at` as a number.
function digits4(    n, i, d) {
    n = 0
    for (i = 0; i < 4; i++) {
        d = index("0123456789abcdef", tolower(substr(text, at + i, 1)))
        if (substr(text, at + i, 1) == "" || !d) fail()
        n = n * 16 + d - 1
    }
    at += 4
    return n
}

# The string whose first quote is at `at`.
function string(    out, c, run, n) {
    at++
    out = ""
    for (;;) {
        # A run of plain characters is taken in one piece.
        run = at
        while (run <= size && run - at < 1000) {
            c = substr(text, run, 1)
            if (c == "\"" || c == "\\" || !index(plain, c)) break
            run++
        }
        out = out substr(text, at, run - at)
        at = run
        if (at > size) fail()
        c = substr(text, at, 1)
        if (index(plain, c) && c != "\"" && c != "\\") continue
        at++
        if (c == "\"") return out
        if (c != "\\") {
            # A control character may not stand in a string; anything else is outside of ASCII.
            if (index(control, c)) fail()
            out = out "\001"
            continue
        }
        c = substr(text, at, 1)
        at++
        if (c == "\"" || c == "\\" || c == "/") out = out c
        else if (c == "n") out = out "\n"
        else if (c == "r") out = out "\r"
        else if (c == "t") out = out "\t"
        else if (c == "b" || c == "f") out = out "\001"
        else if (c == "u") {
            n = digits4()
            if (n >= 55296 && n <= 57343) {
                # The first half of a pair, and then the other.
                if (n > 56319 || substr(text, at, 2) != "\\u") fail()
                at += 2
                n = digits4()
                if (n < 56320 || n > 57343) fail()
                out = out "\001"
            } else if (n == 9 || n == 10 || n == 13 || (n >= 32 && n <= 126)) out = out sprintf("%c", n)
            else out = out "\001"
        } else fail()
    }
}

function number(    start, c) {
    start = at
    if (substr(text, at, 1) == "-") at++
    c = substr(text, at, 1)
    if (c == "0") at++
    else if (c ~ /^[1-9]$/) many()
    else fail()
    if (substr(text, at, 1) == ".") {
        at++
        if (!many()) fail()
    }
    c = substr(text, at, 1)
    if (c == "e" || c == "E") {
        at++
        c = substr(text, at, 1)
        if (c == "+" || c == "-") at++
        if (!many()) fail()
    }
}

# Passes digits; returns how many.
function many(    n) {
    n = 0
    while (substr(text, at, 1) ~ /^[0-9]$/) { at++; n++ }
    return n
}

function word(w) {
    if (substr(text, at, length(w)) != w) fail()
    at += length(w)
}

# Reads the value at `at`; its string is in `last`, its kind is returned.
function value(depth,    c, name, kind) {
    if (depth > 32) fail()
    white()
    c = substr(text, at, 1)
    if (c == "\"") { last = string(); return "string" }
    if (c == "t") { word("true"); return "true" }
    if (c == "f") { word("false"); return "false" }
    if (c == "n") { word("null"); return "null" }
    if (c == "[") {
        at++
        white()
        if (substr(text, at, 1) == "]") { at++; return "array" }
        for (;;) {
            value(depth + 1)
            white()
            c = substr(text, at, 1)
            at++
            if (c == "]") return "array"
            if (c != ",") fail()
        }
    }
    if (c == "{") {
        at++
        white()
        if (substr(text, at, 1) == "}") { at++; return "object" }
        for (;;) {
            white()
            if (substr(text, at, 1) != "\"") fail()
            name = string()
            white()
            if (substr(text, at, 1) != ":") fail()
            at++
            kind = value(depth + 1)
            if (depth == 1 && name == key) {
                if (found) fail()
                found = kind
                result = last
            }
            white()
            c = substr(text, at, 1)
            at++
            if (c == "}") return "object"
            if (c != ",") fail()
        }
    }
    number()
    return "number"
}

BEGIN {
    plain = ""
    control = ""
    for (i = 32; i < 127; i++) plain = plain sprintf("%c", i)
    for (i = 1; i < 32; i++) control = control sprintf("%c", i)
    text = ""
    parts = 0
}

{ text = text $0 "\n" }

END {
    if (bad) exit 2
    size = length(text)
    at = 1
    white()
    if (substr(text, at, 1) != "{") fail()
    value(1)
    white()
    if (at <= size) fail()
    if (found == "" || found == "null") exit 1
    if (found != "string") fail()
    printf "%s", result
    exit 0
}
