//! Digest newtypes: one type per meaning, so that a SHA-256 cannot be passed in place of an fs-verity digest.

use super::{ModelError, excerpt};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

fn parse_hex(kind: &'static str, text: &str) -> Result<[u8; 32], ModelError> {
    let bad = || ModelError::Digest {
        kind,
        value: excerpt(text),
    };
    if text.len() != 64 || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(bad());
    }
    let mut out = [0u8; 32];
    hex::decode_to_slice(text, &mut out).map_err(|_| bad())?;
    Ok(out)
}

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps 32 raw bytes.
            pub const fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
            /// The 32 raw bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
            /// 64 lower-case hexadecimal digits.
            pub fn to_hex(&self) -> String {
                hex::encode(self.0)
            }
        }
        impl FromStr for $name {
            type Err = ModelError;
            fn from_str(text: &str) -> Result<Self, ModelError> {
                parse_hex($kind, text).map(Self)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.to_hex())
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.to_hex())
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

digest!(
    /// SHA-256 of a file's bytes: the digest by which archives, manifests and users name inputs and artifacts.
    Sha256Digest,
    "sha256"
);
digest!(
    /// fs-verity digest of a file (SHA-256, 4 KiB blocks, no salt): the content address of an object in the store, and of the root
    /// of a booted node.
    VerityDigest,
    "fs-verity"
);
digest!(
    /// BLAKE3 of bytes that pnb alone uses, such as a canonical form.
    Blake3Digest,
    "blake3"
);
digest!(
    /// BLAKE3 of a stage's canonical form: the cache key of its outputs.
    StageKey,
    "stage key"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_everything_else() {
        let text = "00".repeat(31) + "ff";
        let digest: Sha256Digest = text.parse().expect("valid");
        assert_eq!(digest.to_string(), text);
        for bad in [
            "",
            "00",
            &"0".repeat(63),
            &"0".repeat(65),
            &"FF".repeat(32),
            &"zz".repeat(32),
        ] {
            let err = bad.parse::<VerityDigest>().expect_err("must be refused");
            assert!(err.to_string().starts_with("fs-verity digest is not"), "{err}");
        }
    }
}
