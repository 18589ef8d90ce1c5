//! A certificate request as the platform reads it: RFC 2986, with an Ed25519 key (RFC 8410).

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};

const ED25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];

/// A request whose signature was checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// The name that it asks for.
    pub(crate) common_name: String,
    /// The public key with its algorithm, in DER.
    pub(crate) public_key: Vec<u8>,
}

/// Reads a request in PEM.
pub(crate) fn read(pem: &str) -> Result<Request, &'static str> {
    let body = pem
        .trim()
        .strip_prefix("-----BEGIN CERTIFICATE REQUEST-----")
        .and_then(|rest| rest.strip_suffix("-----END CERTIFICATE REQUEST-----"));
    let bytes = decode(body.ok_or("it is no certificate request in PEM")?).ok_or("its body is not base64")?;
    let (whole, _) = element(&bytes, 0x30).ok_or("it is no SEQUENCE")?;
    let (info, rest) = element(whole.content, 0x30).ok_or("it has no body")?;
    let (algorithm, rest) = element(rest, 0x30).ok_or("it has no algorithm")?;
    let (signature, _) = element(rest, 0x03).ok_or("it has no signature")?;
    let (_, rest) = element(info.content, 0x02).ok_or("it has no version")?;
    let (name, rest) = element(rest, 0x30).ok_or("it has no name")?;
    let (key, _) = element(rest, 0x30).ok_or("it has no key")?;
    let (key_algorithm, rest) = element(key.content, 0x30).ok_or("its key has no algorithm")?;
    let (key_bits, _) = element(rest, 0x03).ok_or("its key has no bits")?;
    if algorithm.content != ED25519_OID || key_algorithm.content != ED25519_OID {
        return Err("its key is not an Ed25519 key");
    }
    // The first byte of a BIT STRING counts unused bits.
    let public = key_bits.content.get(1..).unwrap_or_default();
    let signed = signature.content.get(1..).unwrap_or_default();
    UnparsedPublicKey::new(&ED25519, public)
        .verify(info.whole, signed)
        .map_err(|_| "its signature is not its key's")?;
    // One attribute of one set.
    let common_name = element(name.content, 0x31)
        .filter(|(_, rest)| rest.is_empty())
        .and_then(|(set, _)| element(set.content, 0x30))
        .and_then(|(attribute, _)| attribute.content.strip_prefix(COMMON_NAME))
        .and_then(|value| value.get(2..))
        .and_then(|text| String::from_utf8(text.to_vec()).ok());
    Ok(Request {
        common_name: common_name.ok_or("its name is not one common name")?,
        public_key: key.whole.to_vec(),
    })
}

struct Element<'a> {
    whole: &'a [u8],
    content: &'a [u8],
}

/// The element with this tag at the beginning, and the bytes behind it.
fn element(bytes: &[u8], tag: u8) -> Option<(Element<'_>, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=127 => (usize::from(*length), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (
            usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])),
            rest.get(2..)?,
        ),
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    let whole = &bytes[..bytes.len() - after.len()];
    (*first == tag).then_some((Element { whole, content }, after))
}

/// The bytes of base64 in lines.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let text: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(text).ok()
}
