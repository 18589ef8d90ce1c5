//! OpenPGP signatures of archives: the frame of `InRelease`, detached signatures (`Release.gpg`), and the judgement of signatures.
//!
//! The frame of a cleartext signature is [RFC 9580 §7](https://www.rfc-editor.org/rfc/rfc9580.html#section-7). Only a document that is exactly one
//! signed block is accepted, and only the text that was hashed is returned. The crate `pgp` reads packets and checks the mathematics
//! of a signature; whether a key may sign is judged here: bindings, revocations, expiry at a given moment, and the strength of every
//! hash.

use super::{JudgedAt, Keyring, MetadataError, keyring};
use pgp::{
    armor::BlockType,
    composed::{SignedPublicKey, SignedPublicSubKey},
    crypto::hash::HashAlgorithm,
    packet::{Packet, PacketParser, Signature, SignatureType},
    ser::Serialize,
    types::{KeyDetails, PublicParams, Tag},
};
use std::collections::BTreeSet;

/// A document with more signatures is refused.
const MAX_SIGNATURES: usize = 64;
/// Smallest trusted RSA modulus, in bits.
const MIN_RSA_BITS: u16 = 2048;

const BEGIN_SIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const BEGIN_SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END_SIGNATURE: &str = "-----END PGP SIGNATURE-----";

/// A text with a good signature of at least one trusted key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedText {
    /// The hashed text, but with `\n` line ends.
    pub text: String,
    /// Fingerprints of the primary keys behind the good signatures.
    pub signers: BTreeSet<String>,
}

/// Checks the cleartext signatures of `document` at the moment `at`.
///
/// Every signature by a key of the keyring must match the text, and at least one must be made with a strong hash by a key that was
/// valid at that moment. Signatures by other keys are ignored, because an archive is signed by old and new keys at once; so are those that
/// cannot be read.
///
/// # Errors
/// Bytes outside of the signed block; no signature that counts, with a reason for each; a signature that does not match the text.
pub fn verify_cleartext(
    document: &[u8],
    file: &str,
    keyring: &Keyring,
    at: JudgedAt,
) -> Result<SignedText, MetadataError> {
    let frame = Frame::split(document, file)?;
    let signers = check_signatures(
        frame.armor.as_bytes(),
        &frame.text,
        &[SignatureType::Text],
        file,
        keyring,
        at,
    )?;
    let mut text = frame.text;
    text.push('\n');
    Ok(SignedText { text, signers })
}

/// Checks the detached signatures `signatures`, binary or armored, of `document` at the moment `at`, as [`verify_cleartext`] does.
///
/// # Errors
/// A text that is not UTF-8; no signature that counts, with a reason for each; a signature that does not match the text.
pub fn verify_detached(
    document: &[u8],
    signatures: &[u8],
    file: &str,
    keyring: &Keyring,
    at: JudgedAt,
) -> Result<SignedText, MetadataError> {
    let text = std::str::from_utf8(document).map_err(|error| MetadataError::Release {
        file: file.to_owned(),
        problem: format!("not UTF-8 at byte {}", error.valid_up_to()),
    })?;
    let kinds = [SignatureType::Binary, SignatureType::Text];
    let signers = check_signatures(signatures, text, &kinds, file, keyring, at)?;
    // The signature covers the bytes as they are; only the reader of the fields takes lines without carriage returns.
    let text = text.replace("\r\n", "\n");
    Ok(SignedText { text, signers })
}

/// The primary keys behind the good signatures of `text`, at least one.
fn check_signatures(
    signatures: &[u8],
    text: &str,
    kinds: &[SignatureType],
    file: &str,
    keyring: &Keyring,
    at: JudgedAt,
) -> Result<BTreeSet<String>, MetadataError> {
    let mut signers = BTreeSet::new();
    let (mut reasons, mut clock) = (Vec::new(), false);
    for signature in read_signatures(signatures) {
        match signature.map_or_else(SignatureVerdict::Ignored, |s| judge(&s, text, kinds, keyring, at)) {
            SignatureVerdict::Good(primary) => {
                signers.insert(primary);
            }
            SignatureVerdict::Early(reason) => {
                clock |= at.by_clock();
                reasons.push(format!("  {reason}"));
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
        let faults = keyring
            .faults()
            .iter()
            .map(|fault| format!("  in the keyring, {fault}"));
        return Err(MetadataError::Untrusted {
            file: file.to_owned(),
            reasons: reasons.into_iter().chain(faults).collect(),
            clock,
        });
    }
    Ok(signers)
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
        // Blanks at the end of a line are not signed, and a carriage return belongs to the end of the line.
        Some(line.trim_end_matches([' ', '\t', '\r']))
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
            lines: document.trim_end_matches(['\n', '\r', ' ', '\t']).split('\n'),
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
                _ if line.starts_with("Hash:") => {}
                _ => return Err(lines.bad("only Hash lines may stand before the signed text")),
            }
        }
        Ok(())
    }

    /// Reads the signed text up to the signature, and removes the escapes.
    fn body(lines: &mut FrameLines<'_>) -> Result<String, MetadataError> {
        let mut body = Vec::new();
        while let Some(line) = lines.next() {
            if line == BEGIN_SIGNATURE {
                return Ok(body.join("\n"));
            }
            // A dash at the beginning of a line must be escaped, so that no line of the text can end the text early.
            let line = match line.strip_prefix("- ") {
                Some(unescaped) => unescaped,
                // An escaped line without text, whose blank is gone.
                None if line == "-" => "",
                None if line.starts_with('-') => {
                    return Err(lines.bad("a line of the signed text begins with an unescaped dash"));
                }
                None => line,
            };
            if line.contains(['\0', '\r']) {
                return Err(lines.bad("the signed text holds a control character"));
            }
            body.push(line);
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

/// The signatures of a signature block, binary or armored; for each that cannot be read, the reason that it does not count.
fn read_signatures(bytes: &[u8]) -> Vec<Result<Signature, String>> {
    let blocks = match keyring::armored_blocks(bytes) {
        None => vec![Ok((BlockType::Signature, bytes.to_vec()))],
        Some(blocks) => blocks,
    };
    let mut found = Vec::new();
    for block in blocks {
        let packets = match block {
            Ok((BlockType::Signature, packets)) => packets,
            Ok(_) => {
                found.push(Err("unreadable signature: not a signature block".to_owned()));
                continue;
            }
            Err(problem) => {
                found.push(Err(format!("unreadable signature: the block {problem}")));
                continue;
            }
        };
        let (packets, rest) = keyring::split_packets(&packets);
        found.extend(packets.into_iter().map(read_signature));
        if !rest.is_empty() {
            found.push(Err(
                "unreadable signature: it is cut off, or no OpenPGP packet".to_owned()
            ));
        }
    }
    if found.is_empty() {
        found.push(Err("the signature block is empty".to_owned()));
    }
    if found.len() > MAX_SIGNATURES {
        found.truncate(MAX_SIGNATURES);
        found.push(Err(format!(
            "more than {MAX_SIGNATURES} signatures: the others were not read"
        )));
    }
    found
}

fn read_signature(packet: &[u8]) -> Result<Signature, String> {
    match PacketParser::new(packet).next() {
        Some(Ok(Packet::Signature(signature))) => Ok(signature),
        Some(Ok(_)) => Err("a packet in the signature block is no signature".to_owned()),
        Some(Err(_)) | None => Err("unreadable signature: its packet is malformed or of an unknown version".to_owned()),
    }
}

enum SignatureVerdict {
    /// Fingerprint of the primary key.
    Good(String),
    /// The reason why it does not count.
    Ignored(String),
    /// The same, where the reason is that it was made after the moment at which it is judged.
    Early(String),
    /// Fingerprint of the key whose signature does not match the text.
    Bad(String),
}

fn judge(
    signature: &Signature,
    text: &str,
    kinds: &[SignatureType],
    keyring: &Keyring,
    at: JudgedAt,
) -> SignatureVerdict {
    for key in &keyring.keys {
        let subkey = key.public_subkeys.iter().find(|s| is_issuer(signature, &s.key));
        if subkey.is_none() && !is_issuer(signature, &key.primary_key) {
            continue;
        }
        if signature.typ().is_none_or(|kind| !kinds.contains(&kind)) {
            let name = subkey.map_or_else(|| fingerprint(&key.primary_key), |s| fingerprint(&s.key));
            return SignatureVerdict::Ignored(format!("key {name}: the signature is not one of a document"));
        }
        return judge_by(signature, text, key, subkey, at);
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
    at: JudgedAt,
) -> SignatureVerdict {
    let moment = at.seconds();
    let primary = fingerprint(&key.primary_key);
    let name = subkey.map_or_else(|| primary.clone(), |s| fingerprint(&s.key));
    let ignored = |reason: String| SignatureVerdict::Ignored(format!("key {name}: {reason}"));
    // The order of the checks matters only for the message: a good signature passes all of them.
    if let Some(reason) = weak(signature) {
        return ignored(reason);
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
        return SignatureVerdict::Early(format!("key {name}: signature was made at {}, after {at}", date(made)));
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
    let revocations = details.revocation_signatures.iter();
    if let Some(revocation) = revocations.into_iter().find(|s| s.verify_key(primary).is_ok()) {
        return Some(format!("the key was revoked{}", on(revocation)));
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
        // A signature with a weak hash is not even verified, so its own statement of the issuer must do for the message.
        let users = details.users.iter().flat_map(|user| &user.signatures);
        let claimed = users
            .chain(&details.direct_signatures)
            .filter(|s| is_issuer(s, primary));
        return Some(match claimed.into_iter().find_map(weak) {
            Some(reason) => format!("the self-signature of the key does not count: {reason}"),
            None => "the key has no valid self-signature".to_owned(),
        });
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
    if let Some(revocation) = own.iter().find(|s| s.typ() == Some(SignatureType::SubkeyRevocation)) {
        return Some(format!("the subkey was revoked{}", on(revocation)));
    }
    let bindings = own
        .into_iter()
        .filter(|s| s.typ() == Some(SignatureType::SubkeyBinding));
    let bindings: Vec<&Signature> = bindings.collect();
    let binding = bindings
        .iter()
        .filter(|s| weak(s).is_none())
        .max_by_key(|s| s.created().map(|t| t.as_secs()));
    let Some(binding) = binding else {
        let claimed = subkey.signatures.iter().filter(|s| is_issuer(s, primary));
        return Some(match claimed.into_iter().find_map(weak) {
            Some(reason) => format!("the signature that binds the subkey does not count: {reason}"),
            None => "the subkey is not bound to its primary key".to_owned(),
        });
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

/// ` on` and the date of a signature; empty without a date.
fn on(signature: &Signature) -> String {
    signature
        .created()
        .map_or(String::new(), |t| format!(" on {}", date(t.as_secs())))
}

pub(super) fn fingerprint(key: &impl KeyDetails) -> String {
    key.fingerprint().to_string().to_uppercase()
}

fn date(seconds: u32) -> String {
    crate::model::Epoch::new(seconds).to_rfc3339()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECURITY: &[u8] = include_bytes!("../../stages/keys/debian-trixie-security.pgp");

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn damaged_documents_never_panic(text in "(\\PC|\n){0,40}", armor in "([A-Za-z0-9+/=]{0,64}\n){0,4}") {
            let ring = Keyring::parse(SECURITY, "ring").expect("valid");
            let document = format!("{BEGIN_SIGNED}\nHash: SHA256\n\n{text}\n{BEGIN_SIGNATURE}\n\n{armor}{END_SIGNATURE}\n");
            prop_assert!(verify_cleartext(document.as_bytes(), "InRelease", &ring, JudgedAt::Clock(u32::MAX)).is_err());
            prop_assert!(verify_cleartext(text.as_bytes(), "InRelease", &ring, JudgedAt::Clock(u32::MAX)).is_err());
            prop_assert!(verify_detached(text.as_bytes(), armor.as_bytes(), "Release", &ring, JudgedAt::Clock(u32::MAX)).is_err());
        }
    }
}
