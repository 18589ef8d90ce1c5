//! The sessions of a medium that was written in several turns.
//!
//! ```text
//! block s       a session: 16 unused sectors, volume descriptors, its files; its directories also name files of earlier sessions
//! block 0       on media that can be overwritten: a copy of the newest session's descriptors; on others: the first session
//! ```
//!
//! A disc drive tells where its sessions begin, and the kernel takes the last one. An image file does not tell; so the descriptors are looked
//! for where no file lies. The root that they name must be a directory that names itself: a file that is an image has other addresses.

use super::{
    IsoVolume,
    descriptor::{Descriptors, FIRST_DESCRIPTOR},
    format::{SECTOR, input, read_sector},
    record::{DIRECTORY, DirectoryRecord},
};
use crate::image::{ImageError, ReadAt};
use std::ops::Range;

/// First bytes of a primary volume descriptor: type, identifier, version.
const PRIMARY: &[u8; 7] = b"\x01CD001\x01";
/// Sectors that are read at once.
const CHUNK: u64 = 512;
/// Most sessions that are named; a compact disc has 99.
const MOST: usize = 200;

/// A session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IsoSession {
    /// Its first block, which `mount -o sbsector=` takes.
    pub block: u64,
    /// Its primary descriptor.
    pub volume: IsoVolume,
    /// Offset of its root directory in bytes.
    pub root: u64,
}

/// The sessions whose descriptors lie in `free`, the ranges of bytes in which no file lies, in their order.
///
/// # Errors
/// The image cannot be read.
pub fn sessions<R: ReadAt>(image: &R, free: &[Range<u64>]) -> Result<Vec<IsoSession>, ImageError> {
    let size = image.size().map_err(|e| input(0, e))?;
    let (first, last) = (u64::from(FIRST_DESCRIPTOR), size / SECTOR);
    let mut found = Vec::new();
    let mut buffer = vec![0; (CHUNK * SECTOR) as usize];
    for range in free {
        let mut block = range.start.div_ceil(SECTOR).max(2 * first);
        let end = (range.end / SECTOR).min(last);
        while block < end {
            let data = image.next_data(block * SECTOR).map_err(|e| input(block * SECTOR, e))?;
            let Some(data) = data else { break };
            block = block.max(data.start / SECTOR);
            let blocks = end.saturating_sub(block).min(CHUNK);
            let part = &mut buffer[..(blocks * SECTOR) as usize];
            image
                .read_exact_at(part, block * SECTOR)
                .map_err(|e| input(block * SECTOR, e))?;
            let sectors = part.chunks(SECTOR as usize).zip(block..);
            let here: Vec<u64> = sectors
                .filter(|(sector, _)| sector.starts_with(PRIMARY))
                .map(|(_, block)| block)
                .collect();
            for at in here {
                found.extend(session(image, at));
                if found.len() >= MOST {
                    return Ok(found);
                }
            }
            block += blocks;
        }
    }
    Ok(found)
}

/// The session with the primary descriptor at `block`, unless it is the descriptor of something else.
fn session<R: ReadAt>(image: &R, block: u64) -> Option<IsoSession> {
    let found = Descriptors::alone(image, u32::try_from(block).ok()?).ok()?;
    let (volume, root) = found.primary().ok()?;
    let sector = read_sector(image, root.start).ok()?;
    let own = DirectoryRecord::parse(sector.get(..usize::from(sector[0]))?, root.start).ok()?;
    let itself = own.name == [0] && own.start == root.start && own.flags & DIRECTORY != 0;
    itself.then_some(IsoSession {
        block: block - u64::from(FIRST_DESCRIPTOR),
        volume,
        root: root.start,
    })
}
