//! Keys and signatures: Ed25519 in the format of signify, which is the program that a node checks them with.
//!
//! ```text
//! public key   "Ed" ‖ number (8) ‖ public key (32)
//! secret key   "Ed" ‖ "BK" ‖ rounds (4, big endian) ‖ salt (16) ‖ checksum (8) ‖ number (8) ‖ seed (32) ‖ public key (32)
//! signature    "Ed" ‖ number (8) ‖ signature (64)
//! ```
//!
//! Each is a line of base64 behind the line `untrusted comment: …`. A signed list is the lines of its signature and then its own text
//! (`signify -S -e`). The checksum is the beginning of the SHA-512 of seed and public key; 0 rounds stand for a key without a
//! passphrase, the only kind that is used here. Source: `signify.c` of OpenBSD.

use super::ModuleError;
use aws_lc_rs::{
    digest::{SHA512, digest},
    rand,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use base64::{Engine, engine::general_purpose::STANDARD};

/// Largest file of a key, in bytes.
pub const MAX_KEY: u64 = 4096;
const COMMENT: &str = "untrusted comment: ";
const ALGORITHM: &[u8] = b"Ed";
const KDF: &[u8] = b"BK";
const NUMBER: usize = 8;
const PUBLIC: usize = 32;
const SIGNATURE: usize = 64;
const SECRET_FILE: usize = 2 + 2 + 4 + 16 + 8 + NUMBER + 64;

/// A key with which lists are signed.
pub struct ModuleSecretKey {
    number: [u8; NUMBER],
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

/// The key with which a node checks the signature of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModulePublicKey {
    number: [u8; NUMBER],
    key: [u8; PUBLIC],
}

fn bad(name: &str, problem: impl Into<String>) -> ModuleError {
    ModuleError::Key {
        name: name.to_owned(),
        problem: problem.into(),
        hint: None,
    }
}

/// Splits a file into the bytes of its second line and the text behind that.
fn unwrap<'a>(text: &'a str, name: &str) -> Result<(Vec<u8>, &'a str), ModuleError> {
    let parts = text.split_once('\n').and_then(|(comment, rest)| {
        let (line, rest) = rest.split_once('\n')?;
        comment.starts_with(COMMENT).then_some((line, rest))
    });
    let (line, rest) = parts.ok_or_else(|| {
        bad(
            name,
            format!("it does not begin with a line `{COMMENT}…` and a second line"),
        )
    })?;
    let bytes = STANDARD
        .decode(line)
        .map_err(|_| bad(name, "its second line is not base64"))?;
    if !bytes.starts_with(ALGORITHM) {
        return Err(bad(name, "it is not of Ed25519"));
    }
    Ok((bytes, rest))
}

fn wrap(comment: &str, parts: &[&[u8]]) -> String {
    format!("{COMMENT}{comment}\n{}\n", STANDARD.encode(parts.concat()))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

impl ModuleSecretKey {
    /// A new key from the operating system's random numbers.
    ///
    /// # Errors
    /// There are none.
    pub fn generate() -> Result<Self, ModuleError> {
        let failed = |_| bad("the operating system's random numbers", "there are none");
        let (mut number, mut seed) = ([0; NUMBER], [0; 32]);
        rand::fill(&mut number).map_err(failed)?;
        rand::fill(&mut seed).map_err(failed)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|e| bad("a new key", e.to_string()))?;
        Ok(Self { number, seed, pair })
    }

    /// Reads the file of a key; `name` is for messages.
    ///
    /// # Errors
    /// It has another form, a passphrase, or a wrong checksum.
    pub fn parse(text: &str, name: &str) -> Result<Self, ModuleError> {
        let (bytes, rest) = unwrap(text, name)?;
        if bytes.len() != SECRET_FILE || !rest.is_empty() || bytes[2..4] != *KDF {
            return Err(bad(name, "it is not a secret key"));
        }
        if bytes[4..8] != [0; 4] {
            return Err(ModuleError::Key {
                name: name.to_owned(),
                problem: "it has a passphrase".to_owned(),
                hint: Some(
                    "`pnb module key` and `signify -G -n` make keys without one; sign with signify itself: `signify -S -e`",
                ),
            });
        }
        let checksum: Option<[u8; 8]> = array(&bytes, 24);
        let number = array(&bytes, 32);
        let seed: Option<[u8; 32]> = array(&bytes, 40);
        let (Some(checksum), Some(number), Some(seed)) = (checksum, number, seed) else {
            return Err(bad(name, "it is not a secret key"));
        };
        if digest(&SHA512, &bytes[40..]).as_ref()[..8] != checksum {
            return Err(bad(name, "its checksum is wrong"));
        }
        let pair = Ed25519KeyPair::from_seed_and_public_key(&seed, &bytes[72..])
            .map_err(|_| bad(name, "its public half belongs to another key"))?;
        Ok(Self { number, seed, pair })
    }

    /// The file of the key.
    pub fn to_text(&self, comment: &str) -> String {
        let public = self.pair.public_key().as_ref();
        let checksum = digest(&SHA512, &[&self.seed, public].concat());
        let rounds_and_salt = [0; 4 + 16];
        let parts = [
            ALGORITHM,
            KDF,
            &rounds_and_salt,
            &checksum.as_ref()[..8],
            &self.number,
            &self.seed,
            public,
        ];
        wrap(&format!("{comment} secret key"), &parts)
    }

    /// The half that nodes have.
    ///
    /// # Errors
    /// The library has a key of another length.
    pub fn public(&self) -> Result<ModulePublicKey, ModuleError> {
        let key = self.pair.public_key().as_ref().try_into();
        Ok(ModulePublicKey {
            number: self.number,
            key: key.map_err(|_| bad("the public half of a key", "it does not have 32 bytes"))?,
        })
    }

    /// The signed form of `text`: the signature, then the text.
    pub fn sign(&self, text: &str, comment: &str) -> String {
        let signature = self.pair.sign(text.as_bytes());
        let head = wrap(
            &format!("verify with {comment}.pub"),
            &[ALGORITHM, &self.number, signature.as_ref()],
        );
        head + text
    }
}

impl ModulePublicKey {
    /// Reads the file of a key; `name` is for messages.
    ///
    /// # Errors
    /// It has another form.
    pub fn parse(text: &str, name: &str) -> Result<Self, ModuleError> {
        let (bytes, rest) = unwrap(text, name)?;
        let parts = (array(&bytes, 2), array(&bytes, 2 + NUMBER));
        match parts {
            (Some(number), Some(key)) if bytes.len() == 2 + NUMBER + PUBLIC && rest.is_empty() => {
                Ok(Self { number, key })
            }
            _ => Err(bad(name, "it is not a public key")),
        }
    }

    /// The file of the key.
    pub fn to_text(&self, comment: &str) -> String {
        wrap(&format!("{comment} public key"), &[ALGORITHM, &self.number, &self.key])
    }

    /// The text behind a valid signature of this key.
    ///
    /// # Errors
    /// `signed` is not signed, or by another key, or is not what was signed.
    pub fn verify<'a>(&self, signed: &'a str, name: &str) -> Result<&'a str, ModuleError> {
        let (bytes, text) = unwrap(signed, name)?;
        if bytes.len() != 2 + NUMBER + SIGNATURE {
            return Err(bad(name, "it does not begin with a signature"));
        }
        if bytes[2..2 + NUMBER] != self.number {
            return Err(bad(name, "it is signed by another key"));
        }
        UnparsedPublicKey::new(&ED25519, &self.key)
            .verify(text.as_bytes(), &bytes[2 + NUMBER..])
            .map_err(|_| bad(name, "the signature is not of this text"))?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_signs_its_other_half_verifies_and_no_other() {
        let key = ModuleSecretKey::generate().expect("a key");
        let read = ModuleSecretKey::parse(&key.to_text("k"), "k.sec").expect("reads back");
        let signed = read.sign("text\n", "k");
        let public = key.public().expect("a half");
        let public = ModulePublicKey::parse(&public.to_text("k"), "k.pub").expect("reads back");
        assert_eq!(public.verify(&signed, "list").expect("verifies"), "text\n");
        let other = ModuleSecretKey::generate().expect("a key").public().expect("a half");
        let renumbered = ModulePublicKey {
            number: public.number,
            key: other.key,
        };
        for (key, signed, why) in [
            (&other, signed.clone(), "another key"),
            (&renumbered, signed.clone(), "not of this text"),
            (&public, signed.replace("text", "test"), "not of this text"),
            (&public, "text\n".to_owned(), "does not begin with a line"),
            (&public, signed.replacen('\n', "\n!", 1), "not base64"),
            (
                &public,
                public.to_text("k") + "text\n",
                "does not begin with a signature",
            ),
        ] {
            let error = key.verify(&signed, "list").expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn wrong_key_files_are_refused() {
        let key = ModuleSecretKey::generate().expect("a key");
        let text = key.to_text("k");
        let line = text.lines().nth(1).expect("a second line");
        let changed = |at: usize, to: u8| {
            let mut bytes = STANDARD.decode(line).expect("base64");
            bytes[at] = to;
            wrap("k secret key", &[&bytes])
        };
        let flipped = STANDARD.decode(line).expect("base64")[50] ^ 1;
        for (text, why) in [
            (changed(7, 42), "has a passphrase"),
            (changed(50, flipped), "checksum"),
            (changed(0, b'X'), "not of Ed25519"),
            (key.public().expect("a half").to_text("k"), "not a secret key"),
            (text.clone() + "x", "not a secret key"),
        ] {
            let error = ModuleSecretKey::parse(&text, "k.sec").err().expect(why).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
