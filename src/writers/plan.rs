//! The plan of `powernode.install=`: the whole disk image as extents, each of them a file of the medium or zeros.
//!
//! ```text
//! powernode-install 1
//! size 419430400
//! sector-size 4096
//! 0 17408 <sha256> install/0.bin
//! 17408 1031168 <sha256> zero
//! …
//! ```
//!
//! The size of a sector is there if it is not 512: the installer writes no other disk. Each further line has offset, length, SHA-256 of the bytes, and the file, relative to the directory of `root.ext4` on the medium. The
//! extents are sorted and leave no gap. Files that the medium has anyway (kernel, initramfs, root) are extents of the disk too, so no
//! bytes are on the medium twice.

use super::WriterError;
use crate::model::SectorSize;
use sha2::{Digest as _, Sha256};
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// First line of the plan.
const HEADER: &str = "powernode-install 1";
/// Name of the plan in its directory.
const PLAN: &str = "plan";
/// Directory of the parts: its name in the plan.
const DIRECTORY: &str = "install";
/// Shortest run of zeros that gets an extent of its own, bytes.
const GRAIN: u64 = 64 << 10;

/// An extent of the disk that is a file of the medium.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct SharedExtent {
    /// Offset on the disk, bytes.
    pub(super) offset: u64,
    /// Length, bytes.
    pub(super) len: u64,
    /// The file on the medium.
    pub(super) file: &'static str,
}

/// Writes the plan of `disk`, and the parts that are no file of the medium, into the new directory `dir`.
pub(super) fn write(
    disk: &Path,
    sector_size: SectorSize,
    mut known: Vec<SharedExtent>,
    dir: &Path,
) -> Result<(), WriterError> {
    known.sort();
    fs::create_dir(dir).map_err(WriterError::io("create", dir))?;
    let mut file = File::open(disk).map_err(WriterError::io("open", disk))?;
    let size = file.metadata().map_err(WriterError::io("open", disk))?.len();
    let mut plan = format!("{HEADER}\nsize {size}\n");
    if sector_size != SectorSize::default() {
        let _ = writeln!(plan, "sector-size {sector_size}");
    }
    let mut at = 0;
    for one in &known {
        scan(&mut file, at, one.offset, dir, &mut plan).map_err(WriterError::io("read", disk))?;
        let sha256 = copy(&mut file, one.offset, one.len, &mut io::sink());
        let sha256 = sha256.map_err(WriterError::io("read", disk))?;
        let _ = writeln!(plan, "{} {} {sha256} {}", one.offset, one.len, one.file);
        let end = one.offset + one.len;
        // The installer needs every extent to begin at a whole sector.
        at = end.next_multiple_of(sector_size.bytes()).min(size);
        if at > end {
            scan(&mut file, end, at, dir, &mut plan).map_err(WriterError::io("read", disk))?;
        }
    }
    scan(&mut file, at, size, dir, &mut plan).map_err(WriterError::io("read", disk))?;
    let path = dir.join(PLAN);
    fs::write(&path, plan).map_err(WriterError::io("write", &path))
}

/// Divides the bytes from `at` to `end` into runs of zeros and parts, and writes the parts.
fn scan(disk: &mut File, at: u64, end: u64, dir: &Path, plan: &mut String) -> io::Result<()> {
    let mut run: Option<(u64, bool)> = None;
    let mut here = at;
    // Comparing slices calls memcmp, which is fast in an unoptimised pnb too.
    let zeros = vec![0; GRAIN as usize];
    let mut grain = zeros.clone();
    disk.seek(SeekFrom::Start(at))?;
    while here < end {
        let len = (GRAIN - here % GRAIN).min(end - here);
        let bytes = &mut grain[..len as usize];
        disk.read_exact(bytes)?;
        let zero = bytes[..] == zeros[..bytes.len()];
        match run {
            Some((_, kind)) if kind == zero => {}
            Some((start, kind)) => {
                emit(disk, start, here, kind, dir, plan)?;
                disk.seek(SeekFrom::Start(here + len))?;
                run = Some((here, zero));
            }
            None => run = Some((here, zero)),
        }
        here += len;
    }
    match run {
        Some((start, kind)) => emit(disk, start, end, kind, dir, plan),
        None => Ok(()),
    }
}

fn emit(disk: &mut File, start: u64, end: u64, zero: bool, dir: &Path, plan: &mut String) -> io::Result<()> {
    let name = if zero {
        "zero".to_owned()
    } else {
        format!("{DIRECTORY}/{start}.bin")
    };
    let sha256 = if zero {
        copy(disk, start, end - start, &mut io::sink())?
    } else {
        copy(
            disk,
            start,
            end - start,
            &mut File::create_new(dir.join(format!("{start}.bin")))?,
        )?
    };
    let _ = writeln!(plan, "{start} {} {sha256} {name}", end - start);
    Ok(())
}

/// Copies `len` bytes from `start` on; returns their SHA-256 in hexadecimal.
fn copy(disk: &mut File, start: u64, len: u64, out: &mut dyn io::Write) -> io::Result<String> {
    disk.seek(SeekFrom::Start(start))?;
    let mut hash = Sha256::new();
    let mut left = len;
    let mut buffer = vec![0; 1 << 20];
    while left > 0 {
        let n = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        disk.read_exact(&mut buffer[..n])?;
        hash.update(&buffer[..n]);
        out.write_all(&buffer[..n])?;
        left -= n as u64;
    }
    out.flush()?;
    Ok(hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extents_cover_the_disk_and_hold_its_bytes() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut disk = vec![0u8; 1 << 20];
        disk[..700].fill(1);
        disk[300_000..500_000].fill(2);
        // In the next sector, but the same grain.
        disk[500_224..500_300].fill(4);
        disk[(1 << 20) - 5..].fill(3);
        let path = dir.path().join("disk");
        fs::write(&path, &disk).expect("written");
        let known = SharedExtent {
            offset: 300_000,
            len: 200_000,
            file: "vmlinuz",
        };
        write(
            &path,
            SectorSize::Bytes512,
            vec![known.clone()],
            &dir.path().join("install"),
        )
        .expect("planned");
        let large = [known.clone()].to_vec();
        write(&path, SectorSize::Bytes4096, large, &dir.path().join("large")).expect("planned");
        let large = fs::read_to_string(dir.path().join("large/plan")).expect("there");
        assert!(
            large.starts_with("powernode-install 1\nsize 1048576\nsector-size 4096\n0 65536 "),
            "{large}"
        );
        // What is no file of the medium begins and ends at a whole sector.
        let fill = large
            .lines()
            .find(|line| line.starts_with("500000 "))
            .expect("a line of its own");
        assert!(fill.starts_with("500000 3808 "), "{large}");
        let plan = fs::read_to_string(dir.path().join("install/plan")).expect("there");
        let mut lines = plan.lines();
        assert_eq!(lines.next(), Some(HEADER));
        assert_eq!(lines.next(), Some("size 1048576"));
        let mut at = 0;
        let mut kinds = Vec::new();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let [offset, len, sha256, name] = words[..] else {
                panic!("{line}")
            };
            let (offset, len): (usize, usize) = (offset.parse().expect("number"), len.parse().expect("number"));
            assert_eq!(offset, at, "{plan}");
            at += len;
            let bytes = &disk[offset..at];
            assert_eq!(sha256, hex::encode(Sha256::digest(bytes)), "{line}");
            match name {
                "zero" => assert!(bytes.iter().all(|b| *b == 0)),
                "vmlinuz" => assert!(bytes.iter().all(|b| *b == 2)),
                part => assert_eq!(fs::read(dir.path().join(part)).expect("there"), bytes),
            }
            kinds.push(name.to_owned());
        }
        assert_eq!(at, disk.len());
        assert_eq!(
            kinds,
            [
                "install/0.bin",
                "zero",
                "vmlinuz",
                "zero",
                "install/500224.bin",
                "zero",
                "install/983040.bin"
            ]
        );
    }
}
