//! The moment at which signatures, keys and release files are judged, and its origin, which decides what a refusal advises.

use crate::model::Epoch;
use std::fmt;

/// A moment, in seconds since 1970, at which signatures and dates are judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JudgedAt {
    /// The present time, which is only as right as the clock of this machine.
    Clock(u32),
    /// The moment of a snapshot that was chosen, which depends on no clock.
    Snapshot(u32),
}

impl JudgedAt {
    /// The moment, in seconds since 1970.
    pub fn seconds(self) -> u32 {
        match self {
            Self::Clock(seconds) | Self::Snapshot(seconds) => seconds,
        }
    }

    /// Whether a wrong clock can be the reason of a refusal.
    pub fn by_clock(self) -> bool {
        matches!(self, Self::Clock(_))
    }
}

impl fmt::Display for JudgedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = Epoch::new(self.seconds()).to_rfc3339();
        match self {
            Self::Clock(_) => write!(f, "{time}, which is now by this machine's clock"),
            Self::Snapshot(_) => write!(f, "{time}, the moment of the snapshot"),
        }
    }
}
