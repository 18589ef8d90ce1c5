//! The work that one artifact may cost, whatever its bytes say.
//!
//! A file of a few bytes can name itself as its own part, list one range a thousand times, or unpack to more than any disk holds. So all
//! parts of one artifact, at every depth, share one [`Budget`], which is set by the size of the artifact. It counts the parts that are
//! found, the parts whose format is examined, the bytes that are read, and the bytes that are decompressed. Bytes are counted where they
//! are read, by [`Metered`], which lies around the artifact and around everything decompressed from it; so no reader of a format
//! counts for itself.

use crate::image::{ReadAt, Source};
use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Deepest nesting of parts that is examined.
pub(super) const MAX_NESTING: usize = 16;
/// Cost of a read beside its bytes, in bytes.
const READ: u64 = 1024;
/// Each limit is a number for every artifact, and a number more for each byte or some bytes of it.
const PARTS: (u64, Share) = (1 << 18, Share::OneFor(4096));
const EXAMINED: (u64, Share) = (4096, Share::OneFor(512));
const HASHED: (u64, Share) = (512 << 20, Share::Times(16));
const READ_BYTES: (u64, Share) = (1 << 30, Share::Times(64));
const UNPACKED: (u64, Share) = (1 << 30, Share::Times(64));

/// The part of a limit that grows with the artifact.
#[derive(Clone, Copy)]
enum Share {
    /// One for this many bytes.
    OneFor(u64),
    /// This many for each byte.
    Times(u64),
}

/// Work that was done for an artifact and the parts in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Work {
    /// Parts that were found.
    pub parts: u64,
    /// Parts whose format was examined.
    pub examined: u64,
    /// Bytes that were hashed for the report.
    pub hashed: u64,
    /// Bytes that were read, with those that were hashed and compared, and a charge for each read.
    pub read: u64,
    /// Bytes that were decompressed.
    pub unpacked: u64,
}

/// One limit, and the amount of it that was used.
#[derive(Debug)]
pub(super) struct Allowance {
    noun: &'static str,
    limit: u64,
    used: AtomicU64,
}

impl Allowance {
    fn new(noun: &'static str, (least, share): (u64, Share), size: u64) -> Self {
        let more = match share {
            Share::OneFor(bytes) => size / bytes,
            Share::Times(times) => size.saturating_mul(times),
        };
        Self {
            noun,
            limit: least.saturating_add(more),
            used: AtomicU64::new(0),
        }
    }

    /// Uses `amount`; the error says which limit has no room for it, and uses nothing.
    pub(super) fn take(&self, amount: u64) -> Result<(), String> {
        let used = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(amount).filter(|sum| *sum <= self.limit)
        });
        match used {
            Ok(_) => Ok(()),
            Err(_) => Err(format!(
                "the limit of {} {} for an artifact of this size is reached",
                self.limit, self.noun
            )),
        }
    }

    /// [`Allowance::take`] with the error of damaged bytes, which is a finding and not an error of the host.
    pub(super) fn spend(&self, amount: u64) -> io::Result<()> {
        self.take(amount)
            .map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem))
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// What the parts of one artifact may cost together.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) parts: Allowance,
    pub(super) examined: Allowance,
    pub(super) hashed: Allowance,
    pub(super) read: Allowance,
    pub(super) unpacked: Allowance,
}

impl Budget {
    /// The budget of an artifact of `size` bytes.
    pub(super) fn new(size: u64) -> Arc<Self> {
        Arc::new(Self {
            parts: Allowance::new("parts", PARTS, size),
            examined: Allowance::new("examined parts", EXAMINED, size),
            hashed: Allowance::new("hashed bytes", HASHED, size),
            read: Allowance::new("read bytes", READ_BYTES, size),
            unpacked: Allowance::new("decompressed bytes", UNPACKED, size),
        })
    }

    pub(super) fn work(&self) -> Work {
        Work {
            parts: self.parts.used(),
            examined: self.examined.used(),
            hashed: self.hashed.used(),
            read: self.read.used(),
            unpacked: self.unpacked.used(),
        }
    }
}

/// Bytes whose reading is counted.
pub(super) struct Metered<R> {
    inner: R,
    budget: Arc<Budget>,
}

impl<R: ReadAt + Send + Sync + 'static> Metered<R> {
    /// Counts the bytes that are read of `inner`.
    pub(super) fn source(inner: R, budget: &Arc<Budget>) -> Source {
        Arc::new(Self {
            inner,
            budget: budget.clone(),
        })
    }
}

impl<R: ReadAt> ReadAt for Metered<R> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.budget.read.spend(buffer.len() as u64 + READ)?;
        self.inner.read_exact_at(buffer, offset)
    }
    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        self.inner.next_data(from)
    }
    fn spend(&self, bytes: u64) -> io::Result<()> {
        self.budget.read.spend(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_uses_nothing() {
        let allowance = Allowance::new("things", (10, Share::OneFor(100)), 250);
        allowance.take(7).expect("room");
        let problem = allowance.take(6).expect_err("no room");
        assert_eq!(
            problem,
            "the limit of 12 things for an artifact of this size is reached"
        );
        allowance.take(5).expect("room");
        assert_eq!(allowance.used(), 12);
        assert!(allowance.take(u64::MAX).is_err());
        assert_eq!(Allowance::new("bytes", (1, Share::Times(3)), u64::MAX).limit, u64::MAX);
    }

    #[test]
    fn each_read_costs_its_bytes_and_more() {
        let budget = Budget::new(0);
        let source = Metered::source(vec![0; 4096], &budget);
        source.read_exact_at(&mut [0; 100], 0).expect("inside");
        source.spend(24).expect("room");
        assert_eq!(budget.work().read, 100 + READ + 24);
        let error = source.spend(u64::MAX).expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
