//! `ZstdLevel`: how hard zstd tries.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;

/// A level of zstd, from 1 (fastest) to 19 (smallest). Above it the window exceeds the 8 MiB that every decompressor must support.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ZstdLevel(i32);

impl ZstdLevel {
    /// The highest level.
    pub const MAX: ZstdLevel = ZstdLevel(19);
    /// A level for what is made once and fetched often: 4 to 7 % smaller than the default, for three to five times the
    /// processor time (docs/sizes.md).
    pub const HIGH: ZstdLevel = ZstdLevel(9);

    /// The level with this number; `None` for numbers outside of 1 to 19.
    pub fn of(level: i32) -> Option<Self> {
        (1..=Self::MAX.0).contains(&level).then_some(Self(level))
    }

    /// Its number.
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl Default for ZstdLevel {
    /// 3, zstd's own.
    fn default() -> Self {
        Self(3)
    }
}

impl fmt::Display for ZstdLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for ZstdLevel {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i32(self.0)
    }
}

impl<'de> Deserialize<'de> for ZstdLevel {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let level = i32::deserialize(d)?;
        Self::of(level).ok_or_else(|| {
            D::Error::custom(format!(
                "a level of zstd is a number from 1 to {}, not {level}",
                Self::MAX
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_its_number_and_no_other_number_is_read() {
        for level in [1, 3, 19] {
            let text = level.to_string();
            let read: ZstdLevel = serde_json::from_str(&text).expect("a level");
            assert_eq!(read.number(), level);
            assert_eq!(serde_json::to_string(&read).expect("written"), text);
            assert_eq!(read.to_string(), text);
        }
        for bad in ["0", "-1", "20", "2.5", "\"3\"", "4294967299"] {
            assert!(serde_json::from_str::<ZstdLevel>(bad).is_err(), "{bad}");
        }
        assert_eq!(ZstdLevel::default().number(), 3);
    }
}
