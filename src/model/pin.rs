//! The pins of an input beside its digest: the moment of a snapshot, the key that signed it, the revision of the project.

use super::{Epoch, ModelError, excerpt};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// The moment of an archive's snapshot, to the second: `YYYYMMDDThhmmssZ`, as snapshot services have it in their addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Moment(u32);

impl Moment {
    /// The moment `seconds` after 1970.
    pub const fn new(seconds: u32) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970.
    pub const fn seconds(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&Epoch::new(self.0).to_rfc3339().replace(['-', ':'], ""))
    }
}
impl FromStr for Moment {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let shape = text.len() == 16
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 => byte == b'T',
                15 => byte == b'Z',
                _ => byte.is_ascii_digit(),
            });
        let moment = shape
            .then(|| jiff::Timestamp::strptime("%Y%m%dT%H%M%S %z", format!("{} +0000", &text[..15])).ok())
            .flatten();
        let seconds = moment.and_then(|m| u32::try_from(m.as_second()).ok());
        seconds
            .map(Self)
            .ok_or_else(|| ModelError::Moment { value: excerpt(text) })
    }
}

/// Fingerprint of an OpenPGP primary key: 40 (version 4) or 64 (version 6) upper-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
impl FromStr for Fingerprint {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
        match matches!(text.len(), 40 | 64) && digits {
            true => Ok(Self(text.to_owned())),
            false => Err(ModelError::Fingerprint { value: excerpt(text) }),
        }
    }
}

/// A git commit: 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GitSha(String);

impl GitSha {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GitSha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
impl FromStr for GitSha {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match matches!(text.len(), 40 | 64) && digits {
            true => Ok(Self(text.to_owned())),
            false => Err(ModelError::GitSha { value: excerpt(text) }),
        }
    }
}

macro_rules! as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_text!(Moment, Fingerprint, GitSha);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_round_trip() {
        let moment: Moment = "20261101T000000Z".parse().expect("a moment");
        assert_eq!(moment, Moment::new(1_793_491_200));
        assert_eq!(moment.to_string(), "20261101T000000Z");
        for bad in [
            "",
            "20261101",
            "20261101T000000",
            "20261101T000000z",
            "2026-101T000000Z",
            "20261301T000000Z",
            "99991231T000000Z",
        ] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
        let error = "now".parse::<Moment>().expect_err("a word");
        assert_eq!(
            error.to_string(),
            "\"now\" is not a moment of the form YYYYMMDDThhmmssZ"
        );
    }

    #[test]
    fn fingerprints_and_revisions_have_their_own_digits() {
        for length in [40, 64] {
            assert!("A1".repeat(length / 2).parse::<Fingerprint>().is_ok());
            assert!("a1".repeat(length / 2).parse::<GitSha>().is_ok());
            assert!("a1".repeat(length / 2).parse::<Fingerprint>().is_err());
            assert!("A1".repeat(length / 2).parse::<GitSha>().is_err());
        }
        for bad in ["", "A1", &"0".repeat(41), &"g".repeat(40)] {
            assert!(
                bad.parse::<Fingerprint>().is_err() && bad.parse::<GitSha>().is_err(),
                "{bad}"
            );
        }
    }
}
