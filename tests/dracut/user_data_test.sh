#!/bin/sh
# Tests of user data as a source of the identity: what they may be, and what is refused. How it is started: see harness.sh.
# shellcheck disable=SC2059  # texts are formats on purpose

# shellcheck source=harness.sh
. "${0%/*}/harness.sh"

PN_JSON=$module/powernode-json.awk
JSON="{\"instance_uuid\": \"$UUID\", \"bootstrap_token\": \"tok\", \"platform_url\": \"https://p.example\"}"
WORDS="powernode.instance_uuid=$UUID powernode.bootstrap_token=tok powernode.platform_url=https://p.example"
LINES="# of the platform
ID=$UUID
KEY=tok
SERVER=https://p.example"

# data STATUS FORMAT: user data in these bytes.
bytes() {
    fresh
    printf "$2" >"$tmp/data"
    status "$1" powernode_user_data "$tmp/data" 'user data'
}

# text STATUS TEXT: user data with this text.
text() {
    fresh
    printf '%s' "$2" >"$tmp/data"
    status "$1" powernode_user_data "$tmp/data" 'user data'
}

for form in "$JSON" "$WORDS" "$LINES" "
 $JSON
" "ssh=no $WORDS" "#!/bin/sh
export SERVER = 'https://p.example'
$(printf '\t')export ID='$UUID'
KEY = tok
echo done"; do
    text 0 "$form"
    is 'the identity' "$PN_ID|$PN_KEY|$PN_SERVER" "$UUID|tok|https://p.example"
done

# --------------------------------------------------------------------------------------------------------- without an identity

for entry in '' '  ' '#cloud-config
users: []' '#!/bin/sh
ID_OF_THIS=1' 'SERVER=https://p.example' '{}' '{"instance_uuid": null}' '{"instance_uuid": ""}' 'powernode.debug=1' 'ID=' 'CA_PEM_FILE=/x'; do
    text 1 "$entry"
done

# --------------------------------------------------------------------------------------------------- wrong is refused, by name

for entry in \
    'is not a UUID|{"instance_uuid": "nobody"}' \
    'is not a JSON object|{"instance_uuid": 7}' \
    'is not a JSON object|{"instance_uuid": "x"' \
    'is not a JSON object|{"instance_uuid": "a", "instance_uuid": "b"}' \
    'is not a JSON object|{} {}' \
    'bootstrap_token is empty or holds a space|{"bootstrap_token": "a b"}' \
    'bootstrap_token and names no instance|{"bootstrap_token": "a"}' \
    'platform_url is not an http|{"platform_url": "ftp://x"}' \
    'which needs powernode.platform.http=allow|{"platform_url": "http://x"}' \
    'ca_pem is not a PEM certificate|{"ca_pem": "FIXTURE"}' \
    'is not a UUID|powernode.instance_uuid=nobody' \
    'is there more than once|powernode.instance_uuid=a powernode.instance_uuid=b' \
    'bootstrap_token and names no instance|powernode.bootstrap_token=a' \
    'is neither base64 nor PEM|powernode.ca_pem=- powernode.instance_uuid=x' \
    'ID is not a UUID|ID=nobody' \
    'sets ID again|ID=a
ID=b' \
    'KEY and names no instance|KEY=tok' \
    'is a MIME message|Content-Type: multipart/mixed; boundary="x"

ID=x' \
    'is a MIME message|MIME-Version: 1.0
ID=x'; do
    text 2 "${entry#*|}"
    reason_has "${entry%%|*}"
done
# An http address of the platform is allowed by the real command line, not by the user data.
text 2 "$WORDS powernode.platform.http=allow powernode.platform_url="
reason_has 'is there more than once'
text 2 "powernode.instance_uuid=$UUID powernode.platform.http=allow powernode.platform_url=http://x"
reason_has 'which needs powernode.platform.http=allow'
bytes 2 '\037\213\010\000\000\000\000\000'
reason_has 'is compressed with gzip'
for wide in '\377\376I\000D\000=\000' '\376\377\000I\000D' 'I\000D\000=\000' '\000I\000D\000=' '\000\000\376\377\000\000\000I'; do
    bytes 2 "$wide"
    reason_has 'is in UTF-16'
done
bytes 2 '\357\273\277ID=x'
reason_has 'begins with a byte order mark'
bytes 2 'ID=\303\274'
reason_has 'bytes that are not plain text'
bytes 2 'ID=x\nKEY=a\000b'
reason_has 'bytes that are not plain text'
# As much as is read, and one byte more.
long=$(printf '%s %s' "$WORDS" "$(head -c 65536 /dev/zero | tr '\000' x)" | head -c 65536)
text 0 "$long"
text 2 "${long}x"
reason_has 'has more than 65536 bytes'
# The certificates of each form.
one=$(printf '%s' "$PEM" | sed 's/$/\\n/' | tr -d '\n')
text 0 "{\"instance_uuid\": \"$UUID\", \"ca_pem\": \"$one\"}"
is 'the certificates in JSON' "$PN_CA_PEM" "$PEM"
text 0 "powernode.ca_pem=\"$(printf '%s' "$PEM" | tr '\n' ' ')\" powernode.instance_uuid=$UUID"
is 'the certificates in words' "$PN_CA_PEM" "$PEM"
text 0 "ID=$UUID
CA_PEM=$one"
is 'the certificates in lines' "$PN_CA_PEM" "$PEM"
# Nothing in the user data runs.
# shellcheck disable=SC2016  # these are the characters themselves
text 2 'ID=$(echo >'"$tmp/canary"')`echo >'"$tmp/canary"'`'
is 'the canary' "$([ ! -e "$tmp/canary" ] && echo none)" none

finish
