//! For which machines a medium has boot loaders.

use super::raspi::Card;
use crate::{
    image::{ReadAt, Source, Window, fat::Fat, mbr::SECTOR},
    inspect::{self, Part, PartKind, SpoolDirectory},
    model::RelPath,
};
use std::{io, sync::Arc};

/// Where UEFI looks for a loader on a medium it has not started from before. Source: UEFI 2.10, section 3.5.1.1.
const AMD64: &str = "EFI/BOOT/BOOTX64.EFI";
const ARM64: &str = "EFI/BOOT/BOOTAA64.EFI";
/// A disk in a qcow2 image, and nothing in that.
const MAX_DEPTH: usize = 1;
/// The primary header of a GUID partition table is in sector 1 and says, at byte 32, in which sector the backup is. Source: UEFI
/// 2.10, section 5.3.2.
const GPT_MAGIC: &[u8] = b"EFI PART";
const BACKUP_AT: usize = 32;

/// What was found on a medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Loaders {
    /// A loader for UEFI on amd64.
    pub amd64: bool,
    /// A loader for UEFI on arm64.
    pub arm64: bool,
    /// Settings for the firmware of a Raspberry Pi.
    pub raspberry_pi: bool,
}

impl Loaders {
    /// Looks for loaders on the medium `source`. What is damaged or is no medium has none.
    ///
    /// # Errors
    /// The size of `source` cannot be told.
    pub fn of(source: &Source, name: &str, scratch: &SpoolDirectory) -> io::Result<Self> {
        let mut found = Self::default();
        found.look(&inspect::open(unstretched(source), name)?, scratch, MAX_DEPTH);
        found.raspberry_pi = Card::open(source, name, scratch).is_ok_and(|card| card.has_config());
        Ok(found)
    }

    /// Whether it is the card of a Raspberry Pi 4 and nothing else.
    pub fn is_card(self) -> bool {
        self.raspberry_pi && !self.amd64 && !self.arm64
    }

    fn look(&mut self, part: &Part, scratch: &SpoolDirectory, depth: usize) {
        let look = part.look(scratch);
        for child in &look.children {
            let is = |path: &str| child.kind == PartKind::File && child.name.strip_prefix('/') == Some(path);
            self.amd64 |= is(AMD64);
            self.arm64 |= is(ARM64);
            match child.kind {
                PartKind::Partition => {
                    if let Ok(fat) = Fat::open(child.source().clone()) {
                        let has = |path: &str| {
                            RelPath::new(path).is_ok_and(|path| fat.lookup(&path).is_ok_and(|found| found.is_some()))
                        };
                        self.amd64 |= has(AMD64);
                        self.arm64 |= has(ARM64);
                    }
                }
                PartKind::Content if depth > 0 => self.look(child, scratch, depth - 1),
                _ => {}
            }
        }
    }
}

/// A disk, as long as its partition table says it is. An image that was made longer has the backup of the table where its end
/// was, until a node moves it; a firmware goes by the primary one.
pub(super) fn unstretched(source: &Source) -> Source {
    let mut header = [0; BACKUP_AT + 8];
    if source.read_exact_at(&mut header, SECTOR).is_err() || !header.starts_with(GPT_MAGIC) {
        return source.clone();
    }
    let backup = header.last_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let end = backup.checked_add(1).and_then(|sectors| sectors.checked_mul(SECTOR));
    match end.map(|end| Window::new(source.clone(), 0, end)) {
        Some(Ok(window)) => Arc::new(window),
        _ => source.clone(),
    }
}
