//! `Epoch`: the time stamp of every output.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Seconds since 1970-01-01T00:00:00Z; `SOURCE_DATE_EPOCH` of a lock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(u32);

impl Epoch {
    /// The epoch `seconds` after 1970; 32 bits unsigned, because it has to fit the fields of cpio, ext4 and FAT.
    pub const fn new(seconds: u32) -> Self {
        Self(seconds)
    }
    /// Seconds since the Unix epoch.
    pub const fn seconds(self) -> u64 {
        self.0 as u64
    }
    /// RFC 3339 in UTC, e.g. `2026-11-21T09:15:44Z`.
    pub fn to_rfc3339(self) -> String {
        jiff::Timestamp::from_second(i64::from(self.0)).map_or_else(|_| self.0.to_string(), |t| t.to_string())
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
