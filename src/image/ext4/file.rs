//! The bytes of regular files.

use super::{Ext4, Ext4Inode, FileKind, extents::Ext4Extent, volume::corrupt};
use crate::image::{ImageError, ReadAt};
use std::io::{self, Read};

impl<R: ReadAt> Ext4<R> {
    /// Reads a regular file from its first byte.
    pub fn file(&self, inode: &Ext4Inode) -> Result<Ext4File<'_, R>, ImageError> {
        if inode.kind() != FileKind::File {
            return Err(corrupt(
                inode.offset,
                format!("inode {} is not a regular file", inode.number),
            ));
        }
        let (extents, inline) = match inode.is_inline() {
            true => (Vec::new(), Some(self.inline_bytes(inode)?)),
            false => (self.extents(inode)?, None),
        };
        Ok(Ext4File {
            fs: self,
            extents,
            inline,
            size: inode.size,
            position: 0,
        })
    }
}

/// The bytes of a regular file.
#[derive(Debug)]
pub struct Ext4File<'a, R> {
    fs: &'a Ext4<R>,
    extents: Vec<Ext4Extent>,
    /// The data of a file whose inode holds them.
    inline: Option<Vec<u8>>,
    size: u64,
    position: u64,
}

impl<R: ReadAt> Read for Ext4File<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size - self.position;
        let n = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        match &self.inline {
            Some(data) => data.read_exact_at(&mut buffer[..n], self.position)?,
            None => self
                .fs
                .read_mapped(&self.extents, &mut buffer[..n], self.position)
                .map_err(io::Error::other)?,
        }
        self.position += n as u64;
        Ok(n)
    }
}
