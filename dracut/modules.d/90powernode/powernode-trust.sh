#!/bin/sh
# What an identity says about trust: the certificates of the platform's authority, and the addresses that may be asked. Functions only,
# sourced after powernode-lib.sh and under its conventions.

# Bounds of a bundle: bytes of text, and certificates.
PN_PEM_MAX=65536
PN_PEM_MANY=32
PN_PEM_BEGIN='-----BEGIN CERTIFICATE-----'
PN_PEM_END='-----END CERTIFICATE-----'

# powernode_check_pem WHERE TEXT: PN_VALUE is the certificates in TEXT, as PEM in lines of 64 characters. Text before, between and
# after them is left out (`openssl x509 -text` prints some); a private key there is refused. Each body must be base64 of one DER
# SEQUENCE of just that length, which every certificate is and a placeholder is not.
powernode_check_pem() {
    PN_VALUE=''
    PN_REASON="$1 is not a PEM certificate"
    pn_pem_text=$2
    pn_pem_out=''
    pn_pem_count=0
    case $pn_pem_text in
        *'PRIVATE KEY-----'*)
            PN_REASON="$1 holds a private key, and should hold certificates only"
            return 2
            ;;
    esac
    while :; do
        case $pn_pem_text in
            *"$PN_PEM_BEGIN"*) ;;
            *) break ;;
        esac
        pn_pem_text=${pn_pem_text#*"$PN_PEM_BEGIN"}
        case $pn_pem_text in
            *"$PN_PEM_END"*) ;;
            *)
                PN_REASON="$1 is not a PEM certificate: one has no end"
                return 2
                ;;
        esac
        pn_pem_body=$(printf '%s' "${pn_pem_text%%"$PN_PEM_END"*}" | tr -d ' \011\012\015')
        pn_pem_text=${pn_pem_text#*"$PN_PEM_END"}
        pn_pem_count=$((pn_pem_count + 1))
        if [ "$pn_pem_count" -gt "$PN_PEM_MANY" ]; then
            PN_REASON="$1 holds more than $PN_PEM_MANY certificates"
            return 2
        fi
        if ! powernode_is_der "$pn_pem_body"; then
            PN_REASON="$1 is not a PEM certificate: the body of certificate $pn_pem_count is not one"
            return 2
        fi
        pn_pem_out="$pn_pem_out$PN_PEM_BEGIN$PN_NL$(printf '%s\n' "$pn_pem_body" | sed 's/.\{64\}/&\
/g' | sed '/^$/d')$PN_NL$PN_PEM_END$PN_NL"
    done
    [ "$pn_pem_count" -gt 0 ] || return 2
    PN_VALUE=${pn_pem_out%"$PN_NL"}
    PN_REASON=''
}

# powernode_is_der TEXT: base64 of a DER SEQUENCE (30) whose length is that of the rest.
powernode_is_der() {
    case $1 in
        '' | *[!A-Za-z0-9+/=]* | *=?[!=]* | *=??*) return 1 ;;
    esac
    [ $((${#1} % 4)) -eq 0 ] || return 1
    pn_der_size=$(printf '%s' "$1" | base64 -d 2>/dev/null | wc -c) || return 1
    # shellcheck disable=SC2046  # these are numbers
    set -- $(printf '%s' "$1" | base64 -d 2>/dev/null | head -c 5 | od -A n -t u1)
    [ "$#" -ge 4 ] && [ "$1" -eq 48 ] || return 1
    case $2 in
        129) pn_der_length=$(($3 + 3)) ;;
        130) pn_der_length=$(($3 * 256 + $4 + 4)) ;;
        *)
            # 128 and above: a length of another form, which no certificate of these sizes has.
            [ "$2" -lt 128 ] || return 1
            pn_der_length=$(($2 + 2))
            ;;
    esac
    [ "$pn_der_length" -eq "$pn_der_size" ]
}

# powernode_inline_pem WHERE TEXT: PN_VALUE is the certificates in TEXT, a value of one line: PEM whose lines are joined by spaces or by
# the two characters \n, or the same PEM in base64.
powernode_inline_pem() {
    PN_VALUE=''
    if [ "${#2}" -gt "$PN_PEM_MAX" ]; then
        PN_REASON="$1 is ${#2} characters long, more than $PN_PEM_MAX"
        return 2
    fi
    case $2 in
        *"$PN_PEM_BEGIN"*)
            powernode_check_pem "$1" "$(printf '%s' "$2" | sed 's/\\n/ /g')"
            return
            ;;
        '' | *[!A-Za-z0-9+/=]*)
            PN_REASON="$1 is neither base64 nor PEM in double quotes"
            return 2
            ;;
    esac
    pn_inline_odd=$(printf '%s' "$2" | base64 -d 2>/dev/null | tr -d '\011\012\015\040-\176' | wc -c)
    if ! pn_inline=$(printf '%s' "$2" | base64 -d 2>/dev/null) || [ "$pn_inline_odd" -ne 0 ]; then
        PN_REASON="$1 is not base64 of text"
        return 2
    fi
    powernode_check_pem "$1" "$pn_inline"
}

# powernode_cmdline_pem KEY: powernode_cmdline_get for certificates, which may also be there as PEM without quotes: then the value
# reaches to the end of its last block.
powernode_cmdline_pem() {
    powernode_cmdline_get "$1" || return
    [ "$PN_VALUE" = -----BEGIN ] || return 0
    pn_cmdline_text=$(tr -s ' \011\012' ' ' <"$PN_CMDLINE")
    pn_cmdline_text=${pn_cmdline_text#*"$1="}
    PN_VALUE=''
    while :; do
        case $pn_cmdline_text in
            "$PN_PEM_BEGIN"*"$PN_PEM_END"*) ;;
            *) break ;;
        esac
        PN_VALUE="$PN_VALUE${pn_cmdline_text%%"$PN_PEM_END"*}$PN_PEM_END"
        pn_cmdline_text=${pn_cmdline_text#*"$PN_PEM_END"}
        pn_cmdline_text=${pn_cmdline_text# }
    done
    if [ -z "$PN_VALUE" ]; then
        PN_REASON="$1= is not a whole certificate in PEM"
        return 2
    fi
}

# powernode_check_platform_url WHERE TEXT: an https URL. One with http, over which the bootstrap token would leave the node in the
# clear, is accepted with powernode.platform.http=allow on the command line only.
powernode_check_platform_url() {
    powernode_check_url "$1" "$2" || return
    case $2 in
        https://*) return 0 ;;
    esac
    powernode_cmdline_get powernode.platform.http
    case $? in
        0)
            [ "$PN_VALUE" != allow ] || return 0
            PN_REASON="powernode.platform.http= is not 'allow': '$PN_VALUE'"
            ;;
        1) PN_REASON="$1 is an http URL, which needs powernode.platform.http=allow on the command line: '$2'" ;;
    esac
    return 2
}

# powernode_check_ca_url: whether PN_CA_URL may be fetched: over https, which the certificates of the root vouch for, or with
# PN_CA_SHA256, the digest of the file.
powernode_check_ca_url() {
    if [ -n "$PN_CA_SHA256" ]; then
        if ! powernode_is_hex64 "$PN_CA_SHA256"; then
            PN_REASON="powernode.ca_sha256= is not 64 lower-case hexadecimal digits: '$PN_CA_SHA256'"
            return 2
        fi
        if [ -z "$PN_CA_URL" ]; then
            PN_REASON='powernode.ca_sha256= is there without powernode.ca_url='
            return 2
        fi
    fi
    case $PN_CA_URL in
        http://*)
            [ -n "$PN_CA_SHA256" ] && return 0
            PN_REASON="powernode.ca_url= is an http URL, which needs powernode.ca_sha256=: '$PN_CA_URL'"
            return 2
            ;;
    esac
}
