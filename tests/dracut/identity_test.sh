#!/bin/sh
# Tests of where a node's identity comes from, without a virtual machine: every source, identity.cfg, certificates, and that no two sources are
# mixed. How it is started: see harness.sh.

# shellcheck source=harness.sh
. "${0%/*}/harness.sh"

# ------------------------------------------------------------------------------------------------- sources, one by one

fresh
file cmdline "powernode.instance_uuid=$UUID powernode.bootstrap_token=tok-1 powernode.platform_url=https://p.example powernode.ca=$(printf '%s' "$PEM" | base64 | tr -d '\n')"
status 0 powernode_claim_early
is 'source' "$PN_SOURCE|$PN_ID|$PN_KEY|$PN_SERVER|$PN_CA_URL" "cmdline|$UUID|tok-1|https://p.example|"
is 'certificate' "$PN_CA_PEM" "$PEM"
# shellcheck disable=SC2016  # nothing here may be expanded
for bad in powernode.bootstrap_token=a\"b 'powernode.bootstrap_token=$(id)' powernode.bootstrap_token= powernode.ca_url=ftp://x/ \
    powernode.ca_url=https:/// powernode.ca=@@@@ powernode.ca=aGVsbG8= "powernode.instance_uuid=$UUID" powernode.platform_url=p.example; do
    fresh
    file cmdline "powernode.instance_uuid=$UUID $bad"
    status 2 powernode_claim_early
    is 'nothing is claimed' "$PN_SOURCE" none
done

fresh
fw instance_uuid "$UUID
"
fw instance_name 'web 1'
fw bootstrap_token tok-2
fw platform_url https://p.example:8443/x
fw agent_url https://p.example/agent
fw ca_pem "$PEM
"
status 0 powernode_claim_early
is 'source' "$PN_SOURCE|$PN_ID|$PN_NAME|$PN_KEY|$PN_SERVER|$PN_AGENT_URL" "fw_cfg|$UUID|web 1|tok-2|https://p.example:8443/x|https://p.example/agent"
is 'certificate' "$PN_CA_PEM" "$PEM"
fw ca_pem "$PEM
\$(touch $tmp/oops)"
PN_SOURCE=none
status 0 powernode_claim_early
is 'text beside a certificate is left out' "$PN_CA_PEM" "$PEM"
printf '%s\r\n' $UUID >"$tmp/fw/instance_uuid/raw"
rm -r "$tmp/fw/ca_pem"
PN_SOURCE=none
status 0 powernode_claim_early
is 'carriage return' "$PN_ID" $UUID
printf '%s\000' $UUID >"$tmp/fw/instance_uuid/raw"
PN_SOURCE=none
status 2 powernode_claim_early
reason_has 'not plain text'
fw instance_uuid "$UUID
$OTHER"
PN_SOURCE=none
status 2 powernode_claim_early
reason_has 'more than one line'
fw instance_uuid ' '
status 2 powernode_claim_early
reason_has 'fw_cfg instance_uuid is empty'

fresh
file root/etc/powernode/local-id $UUID
status 0 powernode_claim_late
is 'source' "$PN_SOURCE|$PN_ID" "local_id|$UUID"
fresh
: >"$tmp/root/etc/powernode/local-id"
status 0 powernode_claim_late
is 'an empty local-id claims nothing' "$PN_SOURCE" none

# ------------------------------------------------------------------------------------------------------- identity.cfg

# identity TEXT WANT: what the parser makes of a file, as ID|KEY|SERVER|CA_PEM_FILE.
identity() {
    printf '%s' "$1" >"$tmp/id"
    status 0 powernode_parse_identity "$tmp/id"
    is "identity: $1" "$PN_F_ID|$PN_F_KEY|$PN_F_SERVER|$PN_F_CA_PEM_FILE" "$2"
}
fresh
identity "# comment
 export ID=\"$UUID\"
KEY='a b'

SERVER=https://x # not a comment
CA_PEM_FILE=/boot/powernode-ca.pem
OTHER=\$(ignored)" "$UUID|a b|https://x # not a comment|/boot/powernode-ca.pem"
identity "ID=$UUID" "$UUID|||"
identity '' '|||'
identity "ID=
KEY=''
SERVER=\"\"" '|||'
identity "$(printf 'ID=%s\r\nKEY=k\r\n\r\n# c\r' $UUID)" "$UUID|k||"
identity "$(printf '\texport ID=%s \t' $UUID)" "$UUID|||"
identity 'KEY==' '|=||'
identity 'KEY=a=b' '|a=b||'

# refused TEXT REASON: the parser returns 2 and the reason names it.
refused() {
    printf '%s' "$1" >"$tmp/id"
    status 2 powernode_parse_identity "$tmp/id"
    reason_has "$2"
}
# shellcheck disable=SC2016  # nothing here may be expanded
for bad in 'KEY=$(touch oops)' 'KEY=`touch oops`' 'KEY="a' "KEY=a'b" 'KEY=a\b' 'KEY="$HOME"' "KEY='a'b'" 'KEY="'; do
    refused "$bad" 'line 1: KEY holds a character'
done
refused "ID=$UUID
ID=$OTHER" 'line 2 sets ID again'
refused 'just words' 'line 1 is not KEY=value'
refused '=x' 'line 1 is not KEY=value'
refused 'A B=x' 'line 1 is not KEY=value'
refused '9=x' 'line 1 is not KEY=value'
refused 'KEY=ü' 'not plain text'
refused "KEY=$(head -c 1025 /dev/zero | tr '\000' a)" '1025 characters long'
printf 'ID=%s\000' $UUID >"$tmp/id"
status 2 powernode_parse_identity "$tmp/id"
head -c 10485760 /dev/zero | tr '\000' 'A' >"$tmp/id"
status 2 powernode_parse_identity "$tmp/id"
reason_has 'larger than 65536'
head -c 2002 /dev/zero | tr '\000' '\n' | sed 's/^/#/' >"$tmp/id"
status 2 powernode_parse_identity "$tmp/id"
reason_has 'more than 1000 lines'
status 1 powernode_parse_identity "$tmp/absent"
mkdir "$tmp/directory"
status 1 powernode_parse_identity "$tmp/directory"
ls "$tmp"/oops oops >/dev/null 2>&1
is 'nothing was executed' "$?" "$(ls /nonexistent >/dev/null 2>&1; echo $?)"

fresh
file root/etc/identity.cfg "ID=$UUID
KEY=k
SERVER=https://s.example
CA_PEM_FILE=/etc/ca.pem"
status 2 powernode_claim_late
reason_has '/etc/identity.cfg names /etc/ca.pem, which is not in the root'
file root/etc/real.pem "$PEM"
ln -s /etc/real.pem "$tmp/root/etc/ca.pem"
status 0 powernode_claim_late
is 'root file' "$PN_SOURCE|$PN_ID|$PN_KEY|$PN_SERVER" "root_file|$UUID|k|https://s.example"
is 'its certificate, by a link that begins at the root' "$PN_CA_PEM" "$PEM"
for link in ../../ca.pem ca.pem; do
    PN_SOURCE=none
    ln -sf "$link" "$tmp/root/etc/ca.pem"
    status 2 powernode_claim_late
    reason_has 'is a link that is not followed'
done
fresh
file root/etc/identity.cfg "ID=nope"
status 2 powernode_claim_late
reason_has 'not a UUID'

# The boot partition: unclaimed, claimed, and with a certificate beside the file whatever directory it names.
fresh
file boot/identity.cfg 'ID=
KEY=
SERVER=https://s.example'
status 1 powernode_claim_boot_directory "$tmp/boot"
is 'unclaimed keeps the server aside' "$PN_ID|$PN_UNCLAIMED|$PN_UNCLAIMED_SERVER" '|1|https://s.example'
file boot/identity.cfg "ID=$UUID
CA_PEM_FILE=/boot/firmware/powernode-ca.pem"
status 2 powernode_claim_boot_directory "$tmp/boot"
reason_has 'not beside it'
file boot/powernode-ca.pem "$PEM"
status 0 powernode_claim_boot_directory "$tmp/boot"
is 'certificate' "$PN_CA_PEM" "$PEM"
# CA_PEM in the file wins over CA_PEM_FILE, and is base64 or PEM in one line.
joined=$(printf '%s' "$PEM" | tr '\n' ' ')
escaped=$(printf '%s' "$PEM" | sed 's/$/\\n/' | tr -d '\n')
coded=$(printf '%s' "$PEM" | base64 | tr -d '\n')
for inline in "$joined" "\"$joined\"" "$escaped" "'$escaped'" "$coded"; do
    fresh
    file boot/identity.cfg "ID=$UUID
CA_PEM_FILE=absent.pem
CA_PEM=$inline"
    status 0 powernode_claim_boot_directory "$tmp/boot"
    is "inline: $inline" "$PN_CA_PEM" "$PEM"
done
file boot/identity.cfg "ID=$UUID
CA_PEM=CHANGEME!"
status 2 powernode_claim_boot_directory "$tmp/boot"
reason_has 'CA_PEM is neither base64 nor PEM'
# A token without an instance would be lost silently.
file boot/identity.cfg 'KEY=k
SERVER=https://s.example'
status 2 powernode_claim_boot_directory "$tmp/boot"
reason_has 'has KEY and names no instance (ID)'
# White space as the agent takes it.
identity "ID = $UUID
KEY	=	k" "$UUID|k||"
identity "export   ID= $UUID" "$UUID|||"
identity "export	ID=$UUID" "$UUID|||"

# ------------------------------------------------------------------------------------------------------- certificates

# pem WANT TEXT: what powernode_check_pem makes of TEXT.
pem() {
    status 0 powernode_check_pem x "$2"
    is 'certificates' "$PN_VALUE" "$1"
}
pem "$PEM" "$PEM"
pem "$PEM" "$(printf '%s\n' "$PEM" | sed "s/\$/$PN_CR/")"
pem "$PEM" "Certificate:
    Data: Version: 3 (0x2), é
$PEM
# a comment"
pem "$PEM
$PEM" "$PEM
subject=CN = b
$PEM"
pem "$PEM" "$joined"
for bad in '' hello FIXTURE 'FIXT URE' AAAA MIIB 'MIIBszCCAVmgAwIBAgIUQ==' '=' 'MII=' '@@@@' "$PEM"; do
    status 2 powernode_check_pem x "-----BEGIN CERTIFICATE-----
$bad
-----END CERTIFICATE-----"
    reason_has 'x is not a PEM certificate: the body of certificate 1 is not one'
done
# The same bytes with one more behind, or one less.
body=$(printf '%s\n' "$PEM" | sed '/-/d')
for bytes in 303 305; do
    bad=$({ printf '%s' "$body" | base64 -d; printf x; } | head -c $bytes | base64)
    [ $bytes = 305 ] || bad=$(printf '%s' "$body" | base64 -d | head -c 303 | base64)
    status 2 powernode_check_pem x "-----BEGIN CERTIFICATE-----$bad-----END CERTIFICATE-----"
done
for bad in '' hello '-----BEGIN CERTIFICATE-----' "${PEM%-----END*}" '-----BEGIN PUBLIC KEY-----
MIIB
-----END PUBLIC KEY-----'; do
    status 2 powernode_check_pem x "$bad"
    reason_has 'x is not a PEM certificate'
done
status 2 powernode_check_pem x "$PEM
-----BEGIN PRIVATE KEY-----"
reason_has 'holds a private key'
many=$PEM
for times in 2 4 8 16 32; do many="$many
$many"; done
pem "$many" "$many"
status 2 powernode_check_pem x "$many$PEM"
reason_has 'more than 32 certificates'

# ---------------------------------------------------------------------------------------- the command line, in more detail

# cmdline WANT WORDS: 2 and a reason, or what is claimed.
fresh
for ca in "powernode.ca_pem=\"$joined\"" "\"powernode.ca_pem=$joined\"" "powernode.ca_pem=$coded" "powernode.ca=$coded" "powernode.ca_pem=\"$escaped\"" \
    "powernode.ca_pem=\"$PEM\""; do
    fresh
    file cmdline "powernode.boot=1 powernode.instance_uuid=\"$UUID\" $ca quiet"
    status 0 powernode_claim_early
    is "with $ca" "$PN_ID|$PN_CA_PEM" "$UUID|$PEM"
done
# Without quotes, as lines joined by spaces or by nothing, once and twice, and before other words.
bare=$(printf '%s' "$PEM" | tr -d '\n')
for ca in "powernode.ca=$joined" "powernode.ca=$bare" "powernode.ca_pem=$joined" "\"powernode.ca=$bare\""; do
    for more in '' ' quiet console=tty1'; do
        fresh
        file cmdline "powernode.boot=1 powernode.instance_uuid=$UUID $ca$more"
        status 0 powernode_claim_early
        is "with $ca$more" "$PN_ID|$PN_CA_PEM" "$UUID|$PEM"
    done
done
fresh
file cmdline "powernode.instance_uuid=$UUID powernode.ca=$bare$bare quiet"
status 0 powernode_claim_early
is 'two' "$PN_CA_PEM" "$PEM
$PEM"
cmdline() {
    fresh
    file cmdline "$2"
    status 2 powernode_claim_early
    reason_has "$1"
    is 'nothing is claimed' "$PN_SOURCE" none
}
for word in bootstrap_token=t platform_url=https://x "ca=$coded" "ca_pem=$coded" ca_url=https://x/c "ca_sha256=$HEX"; do
    cmdline "the kernel command line has powernode.${word%%=*}= and names no instance (instance_uuid)" "powernode.boot=1 powernode.$word"
done
cmdline 'powernode.ca= and powernode.ca_pem= are both' "powernode.instance_uuid=$UUID powernode.ca=$coded powernode.ca_pem=$coded"
cmdline 'powernode.ca_url= and certificates are both' "powernode.instance_uuid=$UUID powernode.ca=$coded powernode.ca_url=https://x/c"
cmdline 'powernode.ca_pem= is not a whole certificate in PEM' "powernode.instance_uuid=$UUID powernode.ca_pem=-----BEGIN CERTIFICATE----- AAAA quiet"
cmdline 'powernode.ca= is not a whole certificate in PEM' "powernode.instance_uuid=$UUID powernode.ca=-----BEGIN"
cmdline 'needs powernode.ca_sha256=' "powernode.instance_uuid=$UUID powernode.ca_url=http://x/c"
cmdline 'is not 64 lower-case' "powernode.instance_uuid=$UUID powernode.ca_url=http://x/c powernode.ca_sha256=abc"
cmdline 'is there without powernode.ca_url=' "powernode.instance_uuid=$UUID powernode.ca_sha256=$HEX"
cmdline 'needs powernode.platform.http=allow' "powernode.instance_uuid=$UUID powernode.platform_url=http://x"
cmdline "powernode.platform.http= is not 'allow'" "powernode.instance_uuid=$UUID powernode.platform_url=http://x powernode.platform.http=1"
fresh
file cmdline "powernode.instance_uuid=$UUID powernode.platform_url=http://x powernode.platform.http=allow powernode.ca_url=http://x/c powernode.ca_sha256=$HEX"
status 0 powernode_claim_early
is 'http when it is wanted' "$PN_SERVER|$PN_CA_URL|$PN_CA_SHA256" "http://x|http://x/c|$HEX"

# ------------------------------------------------------------------------------------------------- fw_cfg, in more detail

# firmware WANT NAME TEXT: with a value of fw_cfg beside the others.
firmware() {
    fresh
    : >"$tmp/dev/console"
    fw instance_uuid " $UUID$PN_CR
"
    fw bootstrap_token "	tok "
    fw platform_url ' https://p.example'
    fw ca_pem "subject=x
$PEM"
    [ -z "${2:-}" ] || fw "$2" "$3"
    status "$1" powernode_claim_early
}
firmware 0
is 'white space around values' "$PN_SOURCE|$PN_ID|$PN_KEY|$PN_SERVER|$PN_CA_PEM" "fw_cfg|$UUID|tok|https://p.example|$PEM"
# A name that a person typed does not stop the boot.
for name in "Bob's node" 'näme' "$(head -c 1100 /dev/zero | tr '\000' n)" 'a
b' "a\$b"; do
    firmware 0 instance_name "$name"
    is 'the name is left out' "$PN_SOURCE|$PN_NAME" 'fw_cfg|'
    is 'and that is said' "$(cat "$tmp/dev/console")" 'powernode: identity: fw_cfg instance_name is not up to 1024 plain characters, and is left out'
done
firmware 0 instance_name ' web 1
'
is 'the name' "$PN_NAME|$(cat "$tmp/dev/console")" 'web 1|'
firmware 2 platform_url http://p.example
reason_has 'fw_cfg platform_url is an http URL'
firmware 2 bootstrap_token "a'b"
firmware 2 ca_pem '-----BEGIN CERTIFICATE-----
FIXTURE
-----END CERTIFICATE-----'
reason_has 'fw_cfg ca_pem is not a PEM certificate'
for name in bootstrap_token platform_url ca_pem; do
    firmware 0
    PN_SOURCE=none
    rm -r "$tmp/fw/instance_uuid"
    for other in bootstrap_token platform_url ca_pem; do
        [ "$other" = "$name" ] || rm -rf "${tmp:?}/fw/$other"
    done
    status 2 powernode_claim_early
    reason_has "fw_cfg has $name and names no instance (instance_uuid)"
done
fresh
fw agent_url https://p.example/agent
status 0 powernode_claim_early
is 'values that name nobody' "$PN_SOURCE|$PN_AGENT_URL" 'none|'

# ---------------------------------------------------------------------------------------------------- order of sources

# everywhere: another identity in each place.
everywhere() {
    fresh
    file cmdline "powernode.instance_uuid=11111111-1111-4111-8111-111111111111"
    fw instance_uuid 22222222-2222-4222-8222-222222222222
    file root/etc/identity.cfg ID=33333333-3333-4333-8333-333333333333
    file root/etc/powernode/local-id 44444444-4444-4444-8444-444444444444
}
claim() {
    status 0 powernode_claim_early
    status 0 powernode_claim_late
}
everywhere
claim
is 'first the command line' "$PN_SOURCE|${PN_ID%%-*}" 'cmdline|11111111'
everywhere
: >"$tmp/cmdline"
claim
is 'then fw_cfg' "$PN_SOURCE|${PN_ID%%-*}" 'fw_cfg|22222222'
everywhere
: >"$tmp/cmdline"
rm -r "$tmp/fw/instance_uuid"
claim
is 'then the file' "$PN_SOURCE|${PN_ID%%-*}" 'root_file|33333333'
rm "$tmp/root/etc/identity.cfg"
PN_SOURCE=none
claim
is 'then local-id' "$PN_SOURCE|${PN_ID%%-*}" 'local_id|44444444'
fresh
claim
is 'nothing anywhere' "$PN_SOURCE|$PN_ID" 'none|'
everywhere
file cmdline 'powernode.instance_uuid=nope'
status 2 powernode_claim_early
is 'a wrong one does not fall through' "$PN_SOURCE" none

# ---------------------------------------------------------------------------------------------------- nothing is mixed

# mixed: an unclaimed medium with a server and certificates of its own.
mixed() {
    fresh
    file boot/identity.cfg 'ID=
KEY=
SERVER=https://evil.example
CA_PEM_FILE=ca.pem'
    file boot/ca.pem "$PEM"
    PN_ESP=$tmp/boot
}
mixed
file root/etc/identity.cfg "ID=$UUID
KEY=k"
claim
is 'the identity of the root is its own' "$PN_SOURCE|$PN_ID|$PN_KEY|$PN_SERVER|$PN_CA_PEM" "root_file|$UUID|k||"
mixed
file root/etc/powernode/local-id $UUID
claim
is 'local-id is its own' "$PN_SOURCE|$PN_ID|$PN_SERVER|$PN_CA_PEM" "local_id|$UUID||"
mixed
file root/etc/identity.cfg 'SERVER=https://other.example'
claim
is 'the first medium that waits' "$PN_SOURCE|$PN_SERVER|$PN_UNCLAIMED_SERVER|$PN_UNCLAIMED_CA_PEM" "none||https://evil.example|$PEM"
# A source that has no instance leaves nothing behind.
powernode_claim_left_over() {
    PN_ID=x PN_KEY=x PN_SERVER=x PN_NAME=x PN_AGENT_URL=x PN_CA_URL=x PN_CA_SHA256=x PN_CA_PEM=x
    return 1
}
fresh
file root/etc/powernode/local-id $UUID
status 0 powernode_claim 'left_over local_id'
is 'nothing is left' "$PN_SOURCE|$PN_ID|$PN_KEY$PN_SERVER$PN_NAME$PN_AGENT_URL$PN_CA_URL$PN_CA_SHA256$PN_CA_PEM" "local_id|$UUID|"
fresh
status 0 powernode_claim left_over
is 'nor when nobody has one' "$PN_SOURCE|$PN_ID$PN_KEY$PN_SERVER$PN_NAME$PN_AGENT_URL$PN_CA_URL$PN_CA_SHA256$PN_CA_PEM" 'none|'

finish
