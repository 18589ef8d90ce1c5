//! OpenPGP cleartext signatures of archives: keyrings, the frame of `InRelease`, and the judgement of signatures.
//!
//! The frame is [RFC 9580 §7](https://www.rfc-editor.org/rfc/rfc9580.html#section-7). Only a document that is exactly one
//! signed block is accepted, and only the text that was hashed is returned. The crate `pgp` reads packets and checks the mathematics
//! of a signature; whether a key may sign is judged here: bindings, revocations, expiry at a given moment, and the strength of every
//! hash.

use super::MetadataError;
use pgp::{
    armor::BlockType,
    composed::{Deserializable, SignedPublicKey, SignedPublicSubKey},
    crypto::hash::HashAlgorithm,
    packet::{Packet, PacketParser, Signature, SignatureType},
    ser::Serialize,
    types::{KeyDetails, PublicParams, Tag},
};
use std::collections::BTreeSet;

/// A larger keyring is refused, bytes; all keys that Debian ever used have about 130 kB.
const MAX_KEYRING: usize = 4 << 20;
/// A document with more signatures is refused.
const MAX_SIGNATURES: usize = 64;
/// Smallest trusted RSA modulus, in bits.
const MIN_RSA_BITS: u16 = 2048;

const BEGIN_SIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const BEGIN_SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END_SIGNATURE: &str = "-----END PGP SIGNATURE-----";

/// The keys that may sign an archive.
#[derive(Clone, Debug)]
pub struct Keyring {
    keys: Vec<SignedPublicKey>,
}

impl Keyring {
    /// Reads a keyring, binary or armored; `file` names it in errors.
    ///
    /// # Errors
    /// Bytes that are not OpenPGP public keys, an empty or an oversized keyring.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self, MetadataError> {
        let bad = |problem: String| MetadataError::Keyring {
            file: file.to_owned(),
            problem,
        };
        if bytes.len() > MAX_KEYRING {
            return Err(bad(format!("{} bytes, more than 4 MiB", bytes.len())));
        }
        let (found, _) =
            SignedPublicKey::from_reader_many(bytes).map_err(|err| bad(format!("not OpenPGP keys: {err}")))?;
        let keys = found
            .collect::<Result<Vec<_>, _>>()
            .map_err(|err| bad(format!("not OpenPGP keys: {err}")))?;
        if keys.is_empty() {
            return Err(bad("holds no key".to_owned()));
        }
        Ok(Self { keys })
    }

    /// Fingerprints of the primary keys, 40 or 64 upper-case hexadecimal digits.
    pub fn fingerprints(&self) -> Vec<String> {
        self.keys.iter().map(|k| fingerprint(&k.primary_key)).collect()
    }
}

/// A text with a good signature of at least one trusted key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedText {
    /// The hashed text, but with `\n` line ends.
    pub text: String,
    /// Fingerprints of the primary keys behind the good signatures.
    pub signers: BTreeSet<String>,
}

/// Checks the cleartext signatures of `document` at `moment`, in seconds since 1970.
///
/// Every signature by a key of the keyring must match the text, and at least one must be made with a strong hash by a key that was
/// valid at that moment. Signatures by other keys are ignored, because an archive is signed by old and new keys at once.
///
/// # Errors
/// Bytes outside of the signed block; no signature that counts, with a reason for each; a signature that does not match the text.
pub fn verify_cleartext(
    document: &[u8],
    file: &str,
    keyring: &Keyring,
    moment: u32,
) -> Result<SignedText, MetadataError> {
    let frame = Frame::split(document, file)?;
    let signatures = read_signatures(&frame.armor, file)?;
    let hashed = frame.text.replace('\n', "\r\n");
    let mut signers = BTreeSet::new();
    let mut reasons = Vec::new();
    for signature in &signatures {
        match judge(signature, &hashed, keyring, moment) {
            SignatureVerdict::Good(primary) => {
                signers.insert(primary);
            }
            SignatureVerdict::Ignored(reason) => reasons.push(format!("  {reason}")),
            SignatureVerdict::Bad(key) => {
                return Err(MetadataError::BadSignature {
                    file: file.to_owned(),
                    key,
                });
            }
        }
    }
    if signers.is_empty() {
        return Err(MetadataError::Untrusted {
            file: file.to_owned(),
            reasons,
        });
    }
    let mut text = frame.text;
    text.push('\n');
    Ok(SignedText { text, signers })
}

/// The parts of a cleartext document.
struct Frame {
    /// Unescaped lines joined by `\n`, without the line end in front of the signature (which is not hashed).
    text: String,
    /// The armored signatures.
    armor: String,
}

/// The lines of a document with their numbers, which errors name.
struct FrameLines<'a> {
    lines: std::str::Split<'a, char>,
    /// Number of the last line that was read, from 1 on.
    number: u64,
    file: &'a str,
}

impl<'a> FrameLines<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let line = self.lines.next()?;
        self.number += 1;
        Some(line.strip_suffix('\r').unwrap_or(line))
    }

    /// An error at the last line that was read.
    fn bad(&self, problem: &'static str) -> MetadataError {
        MetadataError::Frame {
            file: self.file.to_owned(),
            line: self.number.max(1),
            problem,
        }
    }
}

impl Frame {
    fn split(document: &[u8], file: &str) -> Result<Self, MetadataError> {
        let text = std::str::from_utf8(document);
        let document = text.unwrap_or_default();
        let mut lines = FrameLines {
            lines: document.strip_suffix('\n').unwrap_or(document).split('\n'),
            number: 0,
            file,
        };
        if text.is_err() {
            return Err(lines.bad("not UTF-8"));
        }
        Self::skip_header(&mut lines)?;
        Ok(Self {
            text: Self::body(&mut lines)?,
            armor: Self::signatures(&mut lines)?,
        })
    }

    /// Reads up to the empty line in front of the signed text.
    fn skip_header(lines: &mut FrameLines<'_>) -> Result<(), MetadataError> {
        if lines.next().is_none_or(|line| line != BEGIN_SIGNED) {
            return Err(lines.bad("not signed: a signed document begins with BEGIN PGP SIGNED MESSAGE"));
        }
        while let Some(line) = lines.next() {
            match line {
                "" => break,
                // The hashes that are announced here are only a hint; the signature itself names its hash.
                _ if line.starts_with("Hash: ") => {}
                _ => return Err(lines.bad("only Hash lines may stand before the signed text")),
            }
        }
        Ok(())
    }

    /// Reads the signed text up to the signature, and removes the escapes and trailing blanks.
    fn body(lines: &mut FrameLines<'_>) -> Result<String, MetadataError> {
        let mut body = Vec::new();
        while let Some(line) = lines.next() {
            if line == BEGIN_SIGNATURE {
                return Ok(body.join("\n"));
            }
            // A dash at the beginning of a line must be escaped, so that no line of the text can end the text early.
            let line = match line.strip_prefix("- ") {
                Some(unescaped) => unescaped,
                None if line.starts_with('-') => {
                    return Err(lines.bad("a line of the signed text begins with an unescaped dash"));
                }
                None => line,
            };
            if line.contains(['\0', '\r']) {
                return Err(lines.bad("the signed text holds a control character"));
            }
            body.push(line.trim_end_matches([' ', '\t']));
        }
        Err(lines.bad("not signed: the text ends without a signature"))
    }

    /// Reads the armored signatures, with which the document must end.
    fn signatures(lines: &mut FrameLines<'_>) -> Result<String, MetadataError> {
        let mut armor = format!("{BEGIN_SIGNATURE}\n");
        let mut ended = false;
        while let Some(line) = lines.next() {
            if ended {
                return Err(lines.bad("bytes after the signed block"));
            }
            if line.starts_with('-') && line != END_SIGNATURE {
                return Err(lines.bad("a second block within the signature"));
            }
            armor.push_str(line);
            armor.push('\n');
            ended = line == END_SIGNATURE;
        }
        if !ended {
            return Err(lines.bad("the signature is cut off"));
        }
        Ok(armor)
    }
}

fn read_signatures(armor: &str, file: &str) -> Result<Vec<Signature>, MetadataError> {
    let bad = |problem: String| MetadataError::Untrusted {
        file: file.to_owned(),
        reasons: vec![format!("  {problem}")],
    };
    let mut dearmor = pgp::armor::Dearmor::new(armor.as_bytes());
    dearmor
        .read_header()
        .map_err(|err| bad(format!("unreadable signature: {err}")))?;
    if dearmor.typ != Some(BlockType::Signature) {
        return Err(bad("unreadable signature: not a signature block".to_owned()));
    }
    let mut signatures = Vec::new();
    for packet in PacketParser::new(std::io::BufReader::new(dearmor)) {
        match packet.map_err(|err| bad(format!("unreadable signature: {err}")))? {
            Packet::Signature(signature) => signatures.push(signature),
            _ => {
                return Err(bad(
                    "the signature block holds a packet that is not a signature".to_owned()
                ));
            }
        }
        if signatures.len() > MAX_SIGNATURES {
            return Err(bad(format!("more than {MAX_SIGNATURES} signatures")));
        }
    }
    if signatures.is_empty() {
        return Err(bad("the signature block is empty".to_owned()));
    }
    Ok(signatures)
}

enum SignatureVerdict {
    /// Fingerprint of the primary key.
    Good(String),
    /// The reason why it does not count.
    Ignored(String),
    /// Fingerprint of the key whose signature does not match the text.
    Bad(String),
}

fn judge(signature: &Signature, text: &str, keyring: &Keyring, moment: u32) -> SignatureVerdict {
    for key in &keyring.keys {
        if is_issuer(signature, &key.primary_key) {
            return judge_by(signature, text, key, None, moment);
        }
        if let Some(subkey) = key.public_subkeys.iter().find(|s| is_issuer(signature, &s.key)) {
            return judge_by(signature, text, key, Some(subkey), moment);
        }
    }
    let ids: Vec<String> = signature
        .issuer_fingerprint()
        .iter()
        .map(ToString::to_string)
        .chain(signature.issuer_key_id().iter().map(ToString::to_string))
        .collect();
    let id = ids
        .first()
        .map_or("of an unnamed issuer".to_owned(), |id| id.to_uppercase());
    SignatureVerdict::Ignored(format!("key {id}: not in the keyring"))
}

/// Whether the signature names `key` as its issuer. This only selects the key; the check of the signature decides.
fn is_issuer(signature: &Signature, key: &impl KeyDetails) -> bool {
    let fingerprints = signature.issuer_fingerprint();
    if fingerprints.is_empty() {
        let id = key.legacy_key_id();
        return signature.issuer_key_id().into_iter().any(|i| *i == id);
    }
    let own = key.fingerprint();
    fingerprints.into_iter().any(|f| *f == own)
}

fn judge_by(
    signature: &Signature,
    text: &str,
    key: &SignedPublicKey,
    subkey: Option<&SignedPublicSubKey>,
    moment: u32,
) -> SignatureVerdict {
    let primary = fingerprint(&key.primary_key);
    let name = subkey.map_or_else(|| primary.clone(), |s| fingerprint(&s.key));
    let ignored = |reason: String| SignatureVerdict::Ignored(format!("key {name}: {reason}"));
    // The order of the checks matters only for the message: a good signature passes all of them.
    if let Some(reason) = weak(signature) {
        return ignored(reason);
    }
    if signature.typ() != Some(SignatureType::Text) {
        return ignored(format!("signature is of type {:?}, not of a text", signature.typ()));
    }
    let fits = match subkey {
        None => signature.verify(&key.primary_key, text.as_bytes()),
        Some(subkey) => signature.verify(&subkey.key, text.as_bytes()),
    };
    if fits.is_err() {
        return SignatureVerdict::Bad(name);
    }
    let Some(made) = signature.created().map(|t| t.as_secs()) else {
        return ignored("signature has no date".to_owned());
    };
    if made > moment {
        return ignored(format!(
            "signature was made after the moment it is judged at ({})",
            date(made)
        ));
    }
    if let Some(end) = ends(made, signature.signature_expiration_time().map(|d| d.as_secs())).filter(|e| *e <= moment) {
        return ignored(format!("signature expired on {}", date(end)));
    }
    let objection = check_primary(key, subkey.is_none(), made, moment)
        .or_else(|| subkey.and_then(|subkey| check_subkey(key, subkey, made, moment)));
    match objection {
        Some(reason) => ignored(reason),
        None => SignatureVerdict::Good(primary),
    }
}

/// The reason why the primary key may not vouch for a signature at `moment`; `None` if it may. `signs`: it made the signature itself.
fn check_primary(key: &SignedPublicKey, signs: bool, made: u32, moment: u32) -> Option<String> {
    let primary = &key.primary_key;
    if let Some(reason) = weak_key(primary) {
        return Some(reason);
    }
    let created = primary.created_at().as_secs();
    if created > made {
        return Some("signature is older than the key".to_owned());
    }
    let details = &key.details;
    if details
        .revocation_signatures
        .iter()
        .any(|s| s.verify_key(primary).is_ok())
    {
        return Some("the key is revoked".to_owned());
    }
    // Self-signatures carry the flags and the expiry of a key. Those of a revoked user id, and those with a weak hash, do not count.
    let of_users = details.users.iter().flat_map(|user| {
        let own = |s: &&Signature| s.verify_certification(primary, Tag::UserId, &user.id).is_ok();
        let revoked = user
            .signatures
            .iter()
            .filter(own)
            .any(|s| s.typ() == Some(SignatureType::CertRevocation));
        user.signatures.iter().filter(own).filter(move |_| !revoked)
    });
    let direct = details
        .direct_signatures
        .iter()
        .filter(|s| s.typ() == Some(SignatureType::Key) && s.verify_key(primary).is_ok());
    let newest = of_users
        .chain(direct)
        .filter(|s| weak(s).is_none())
        .max_by_key(|s| s.created().map(|t| t.as_secs()));
    let Some(newest) = newest else {
        return Some("the key has no valid self-signature".to_owned());
    };
    if signs && !newest.key_flags().sign() {
        return Some("the primary key may not sign".to_owned());
    }
    ends(created, newest.key_expiration_time().map(|d| d.as_secs()))
        .filter(|end| *end <= moment)
        .map(|end| format!("the key expired on {}", date(end)))
}

/// The reason why `subkey` may not sign at `moment`; `None` if it may.
fn check_subkey(key: &SignedPublicKey, subkey: &SignedPublicSubKey, made: u32, moment: u32) -> Option<String> {
    let primary = &key.primary_key;
    if let Some(reason) = weak_key(&subkey.key) {
        return Some(reason);
    }
    let created = subkey.key.created_at().as_secs();
    if created > made {
        return Some("signature is older than the subkey".to_owned());
    }
    let own: Vec<&Signature> = subkey
        .signatures
        .iter()
        .filter(|s| s.verify_subkey_binding(primary, &subkey.key).is_ok())
        .collect();
    if own.iter().any(|s| s.typ() == Some(SignatureType::SubkeyRevocation)) {
        return Some("the subkey is revoked".to_owned());
    }
    let binding = own
        .into_iter()
        .filter(|s| s.typ() == Some(SignatureType::SubkeyBinding) && weak(s).is_none())
        .max_by_key(|s| s.created().map(|t| t.as_secs()));
    let Some(binding) = binding else {
        return Some("the subkey is not bound to its primary key".to_owned());
    };
    if !binding.key_flags().sign() {
        return Some("the subkey may not sign".to_owned());
    }
    let backed = binding
        .embedded_signature()
        .is_some_and(|s| weak(s).is_none() && s.verify_primary_key_binding(&subkey.key, primary).is_ok());
    if !backed {
        return Some("the subkey did not sign its primary key".to_owned());
    }
    let binding_made = binding.created().map_or(created, |t| t.as_secs());
    ends(binding_made, binding.signature_expiration_time().map(|d| d.as_secs()))
        .into_iter()
        .chain(ends(created, binding.key_expiration_time().map(|d| d.as_secs())))
        .min()
        .filter(|end| *end <= moment)
        .map(|end| format!("the subkey expired on {}", date(end)))
}

/// The reason why the hash of a signature is not trusted; `None` if it is.
fn weak(signature: &Signature) -> Option<String> {
    match signature.hash_alg() {
        Some(
            HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512,
        ) => None,
        Some(other) => Some(format!("hash {other} is too weak")),
        None => Some("signature of an unknown version".to_owned()),
    }
}

/// The reason why the algorithm of a key is not trusted; `None` if it is.
fn weak_key(key: &impl KeyDetails) -> Option<String> {
    match key.public_params() {
        PublicParams::DSA(_) => Some("DSA is too weak".to_owned()),
        PublicParams::RSA(rsa) => {
            // In their serialised form, the parameters begin with the modulus, which begins with its length in bits (RFC 9580 §3.2).
            let mut bytes = Vec::new();
            let bits = match (rsa.to_writer(&mut bytes), bytes.as_slice()) {
                (Ok(()), [high, low, ..]) => u16::from_be_bytes([*high, *low]),
                _ => 0,
            };
            (bits < MIN_RSA_BITS).then(|| format!("RSA with {bits} bits is too weak"))
        }
        _ => None,
    }
}

/// The end of a validity of `lasts` seconds from `made` on; `None` if it has no end, which 0 and absence mean.
fn ends(made: u32, lasts: Option<u32>) -> Option<u32> {
    lasts.filter(|l| *l > 0).map(|l| made.saturating_add(l))
}

fn fingerprint(key: &impl KeyDetails) -> String {
    key.fingerprint().to_string().to_uppercase()
}

fn date(seconds: u32) -> String {
    crate::model::Epoch::new(seconds).to_rfc3339()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRIXIE: &[u8] = include_bytes!("../../stages/keys/debian-trixie.pgp");
    const SECURITY: &[u8] = include_bytes!("../../stages/keys/debian-trixie-security.pgp");

    #[test]
    fn the_committed_keyrings_hold_the_keys_their_readme_names() {
        let readme = include_str!("../../stages/keys/README.md");
        let mut count = 0;
        for ring in [TRIXIE, SECURITY] {
            for key in Keyring::parse(ring, "ring").expect("valid").fingerprints() {
                assert!(readme.contains(&format!("`{key}`")), "{key} is not in the table");
                count += 1;
            }
        }
        assert_eq!(count, 3);
    }

    #[test]
    fn what_is_no_keyring_is_refused() {
        for (bytes, problem) in [
            (&b""[..], "keyring ring: "),
            (b"hello\n", "keyring ring: not OpenPGP keys"),
            (&TRIXIE[..200], "keyring ring: "),
        ] {
            let err = Keyring::parse(bytes, "ring").expect_err("refused").to_string();
            assert!(err.starts_with(problem), "{err}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn damaged_keyrings_never_panic(at in 0..TRIXIE.len(), byte in any::<u8>(), end in 0..TRIXIE.len()) {
            let mut bytes = TRIXIE.to_vec();
            bytes[at] = byte;
            bytes.truncate(end.max(at));
            if let Ok(ring) = Keyring::parse(&bytes, "ring") {
                prop_assert!(!ring.fingerprints().is_empty());
            }
        }

        #[test]
        fn damaged_documents_never_panic(text in "(\\PC|\n){0,40}", armor in "([A-Za-z0-9+/=]{0,64}\n){0,4}") {
            let ring = Keyring::parse(SECURITY, "ring").expect("valid");
            let document = format!("{BEGIN_SIGNED}\nHash: SHA256\n\n{text}\n{BEGIN_SIGNATURE}\n\n{armor}{END_SIGNATURE}\n");
            prop_assert!(verify_cleartext(document.as_bytes(), "InRelease", &ring, u32::MAX).is_err());
            prop_assert!(verify_cleartext(text.as_bytes(), "InRelease", &ring, u32::MAX).is_err());
        }
    }
}
