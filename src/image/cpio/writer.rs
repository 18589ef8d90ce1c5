//! Writes archives whose bytes depend only on the entries and their contents.

use super::format::{
    ALIGN, ARCHIVE_ALIGN, CpioHeader, FORMAT, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, TRAILER, padding,
};
use crate::{
    image::{ImageError, copy_exact},
    model::{Meta, RelPath},
};
use std::io::{Read, Write};

/// Longest name or link target that the kernel accepts, with its NUL (`PATH_MAX`).
const PATH_MAX: usize = 4096;

/// A special file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Device {
    /// Character device, major and minor number.
    Char(u32, u32),
    /// Block device, major and minor number.
    Block(u32, u32),
    /// Named pipe.
    Fifo,
}

/// Writes one archive. Inode numbers are 1, 2, 3, … in the order in which entries are added; the device number is 0:0; every file
/// has one link. The caller adds parents before their children.
pub struct CpioWriter<W> {
    writer: W,
    offset: u64,
    inode: u32,
}

impl<W: Write> CpioWriter<W> {
    /// An archive that begins at the position of `writer`, which must be a multiple of 4 in the whole initramfs.
    pub fn new(writer: W) -> Self {
        Self {
            writer,
            offset: 0,
            inode: 0,
        }
    }

    /// Adds a directory; its link count is written as 2.
    pub fn directory(&mut self, path: &RelPath, meta: &Meta) -> Result<(), ImageError> {
        self.directory_linked(Some(path), meta, 2)
    }

    /// Adds a directory with a link count; `None` is the root.
    pub(super) fn directory_linked(
        &mut self,
        path: Option<&RelPath>,
        meta: &Meta,
        nlink: u32,
    ) -> Result<(), ImageError> {
        self.begin(path, S_IFDIR, meta, nlink, 0, (0, 0))
    }

    /// Adds a file of exactly `size` bytes.
    pub fn file(&mut self, path: &RelPath, meta: &Meta, size: u64, content: &mut dyn Read) -> Result<(), ImageError> {
        let Ok(short) = u32::try_from(size) else {
            return Err(entry(
                Some(path),
                format!("{size} bytes are more than the 4294967295 that the header can state"),
            ));
        };
        self.begin(Some(path), S_IFREG, meta, 1, short, (0, 0))?;
        copy_exact(FORMAT, &path.to_string(), size, content, &mut self.writer)?;
        self.offset += size;
        self.pad(ALIGN)
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &RelPath, meta: &Meta, target: &[u8]) -> Result<(), ImageError> {
        if target.is_empty() || target.contains(&0) || target.len() >= PATH_MAX {
            return Err(entry(
                Some(path),
                format!(
                    "the link target \"{}\" is empty, longer than 4095 bytes or holds a NUL byte",
                    target[..target.len().min(80)].escape_ascii()
                ),
            ));
        }
        self.begin(Some(path), S_IFLNK, meta, 1, target.len() as u32, (0, 0))?;
        self.put(target)?;
        self.pad(ALIGN)
    }

    /// Adds a device or a named pipe.
    pub fn device(&mut self, path: &RelPath, meta: &Meta, device: Device) -> Result<(), ImageError> {
        let (kind, rdev) = match device {
            Device::Char(major, minor) => (S_IFCHR, (major, minor)),
            Device::Block(major, minor) => (S_IFBLK, (major, minor)),
            Device::Fifo => (S_IFIFO, (0, 0)),
        };
        self.begin(Some(path), kind, meta, 1, 0, rdev)
    }

    /// Ends the archive and returns the writer. The length of the archive is a multiple of 512.
    pub fn finish(mut self) -> Result<W, ImageError> {
        let trailer = CpioHeader {
            nlink: 1,
            namesize: TRAILER.len() as u32 + 1,
            ..CpioHeader::default()
        };
        self.put(&trailer.encode())?;
        self.put(TRAILER)?;
        self.put(&[0])?;
        self.pad(ARCHIVE_ALIGN)?;
        self.writer
            .flush()
            .map_err(|source| ImageError::Write { format: FORMAT, source })?;
        Ok(self.writer)
    }

    /// Writes the header and the name of an entry, padded.
    fn begin(
        &mut self,
        path: Option<&RelPath>,
        kind: u32,
        meta: &Meta,
        nlink: u32,
        size: u32,
        rdev: (u32, u32),
    ) -> Result<(), ImageError> {
        let name = path.map_or(&b"."[..], RelPath::as_bytes);
        if name == TRAILER {
            return Err(entry(path, "this name marks the end of an archive".to_owned()));
        }
        if meta.mode > 0o7777 {
            return Err(entry(path, format!("mode {:o} is above 7777", meta.mode)));
        }
        if let Some(xattr) = meta.xattrs.keys().next() {
            let xattr = xattr.escape_ascii();
            return Err(entry(
                path,
                format!("the format cannot hold its extended attribute \"{xattr}\""),
            ));
        }
        self.inode += 1;
        let header = CpioHeader {
            ino: self.inode,
            mode: kind | meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            nlink,
            // No overflow: an epoch has 32 bits.
            mtime: meta.mtime.seconds() as u32,
            size,
            rdev,
            namesize: name.len() as u32 + 1,
            ..CpioHeader::default()
        };
        self.put(&header.encode())?;
        self.put(name)?;
        self.put(&[0])?;
        self.pad(ALIGN)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.offset += bytes.len() as u64;
        self.writer
            .write_all(bytes)
            .map_err(|source| ImageError::Write { format: FORMAT, source })
    }

    fn pad(&mut self, align: u64) -> Result<(), ImageError> {
        const ZEROS: [u8; ARCHIVE_ALIGN as usize] = [0; ARCHIVE_ALIGN as usize];
        self.put(&ZEROS[..padding(self.offset, align) as usize])
    }
}

fn entry(path: Option<&RelPath>, problem: String) -> ImageError {
    ImageError::Entry {
        format: FORMAT,
        path: path.map_or(".".to_owned(), ToString::to_string),
        problem,
    }
}
