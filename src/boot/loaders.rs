//! The boot loaders on a medium, which tell the machines it boots on.

use super::raspi::Card;
use crate::{
    image::{Source, fat::Fat},
    inspect::{self, Part, PartKind, SpoolDirectory},
    model::RelPath,
};
use std::io;

/// Paths of the loader that UEFI starts from a removable medium. Source: UEFI 2.10, section 3.5.1.1.
const AMD64: &str = "EFI/BOOT/BOOTX64.EFI";
const ARM64: &str = "EFI/BOOT/BOOTAA64.EFI";
/// Levels of images in images: a disk in a qcow2 image is searched, an image on that disk is not.
const MAX_DEPTH: usize = 1;

/// Boot loaders found on a medium.
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
    /// Searches the medium `source` for loaders. A damaged medium, or a file that is not a medium, has none.
    ///
    /// # Errors
    /// The size of `source` cannot be read.
    pub fn of(source: &Source, name: &str, scratch: &SpoolDirectory) -> io::Result<Self> {
        let mut found = Self::default();
        found.search(&inspect::open(source.clone(), name)?, scratch, MAX_DEPTH);
        found.raspberry_pi = Card::open(source, name, scratch).is_ok_and(|card| card.has_config());
        Ok(found)
    }

    /// Whether the medium boots on a Raspberry Pi 4 only.
    pub fn is_card(self) -> bool {
        self.raspberry_pi && !self.amd64 && !self.arm64
    }

    fn search(&mut self, part: &Part, scratch: &SpoolDirectory, depth: usize) {
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
                PartKind::Content if depth > 0 => self.search(child, scratch, depth - 1),
                _ => {}
            }
        }
    }
}
