//! Where the root lies in the families that carry it in their initramfs: `kernel-initrd` and `ipxe`.
//!
//! Their `initramfs.cpio.zst` is several archives one after the other; pnb's own is the last, one zstd frame, and holds
//! `powernode/root.ext4` and `etc/powernode/root-digest`.

use super::root::{OpenError, OpenRoot, OpenedRoot};
use crate::{
    image::cpio::{Compression, CpioReader, segments},
    manifest::Manifest,
};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Name of the file in the artifact's directory.
const INITRAMFS: &str = "initramfs.cpio.zst";
/// The root's file system in the last archive.
const ROOT_IMAGE: &[u8] = b"powernode/root.ext4";
/// The digest that the initramfs compares with.
const ROOT_DIGEST: &[u8] = b"etc/powernode/root-digest";
/// More than a digest and a line feed is not read.
const MAX_DIGEST: u64 = 4096;
/// The last archive may not be larger than this when decompressed, bytes.
const MAX_ARCHIVE: u64 = 8 << 30;

/// Takes the root out of the last archive of the initramfs.
#[derive(Clone, Debug)]
pub struct InitramfsRoot {
    /// An existing directory for the root's file system, several hundred MiB; nothing stays there.
    pub scratch: PathBuf,
}

impl OpenRoot for InitramfsRoot {
    fn open_root(&self, dir: &Path, _manifest: &Manifest) -> Result<OpenedRoot, OpenError> {
        let mut file = File::open(dir.join(INITRAMFS)).map_err(|e| format!("open {INITRAMFS:?}: {e}"))?;
        let found = segments(&file)?;
        let last = found.last().ok_or_else(|| format!("{INITRAMFS:?} holds no archive"))?;
        if last.compression != Compression::Zstd {
            return Err(format!(
                "the last archive of {INITRAMFS:?}, at byte {}, is not zstd",
                last.offset
            )
            .into());
        }
        file.seek(SeekFrom::Start(last.offset))?;
        let plain = zstd::Decoder::new(file.take(last.len))?.take(MAX_ARCHIVE);
        let mut archive = CpioReader::new(plain);
        let (mut image, mut stated) = (None, None);
        while let Some(entry) = archive.next_entry()? {
            match entry.path.as_ref().map(|p| p.as_bytes()) {
                Some(ROOT_IMAGE) if image.is_none() => {
                    let mut file = tempfile::tempfile_in(&self.scratch)?;
                    io::copy(&mut archive, &mut file)?;
                    image = Some(file);
                }
                Some(ROOT_DIGEST) if stated.is_none() => {
                    let mut bytes = Vec::new();
                    (&mut archive).take(MAX_DIGEST).read_to_end(&mut bytes)?;
                    stated = Some(bytes);
                }
                Some(path @ (ROOT_IMAGE | ROOT_DIGEST)) => {
                    return Err(format!("\"{}\" is twice in {INITRAMFS:?}", path.escape_ascii()).into());
                }
                _ => {}
            }
        }
        let lacks = |path: &[u8]| format!("the last archive of {INITRAMFS:?} lacks \"{}\"", path.escape_ascii());
        Ok(OpenedRoot {
            image: Box::new(image.ok_or_else(|| lacks(ROOT_IMAGE))?),
            stated: stated.ok_or_else(|| lacks(ROOT_DIGEST))?,
        })
    }
}
