//! `kernel-initrd`: the kernel, and one initramfs made of three segments.
//!
//! ```text
//! early.cpio          microcode, uncompressed: the kernel reads it before it can decompress
//! zstd(dracut.cpio)   modules, programs and the 90powernode hooks
//! zstd(root segment)  /powernode/root.ext4 and /etc/powernode/root-digest
//! ```
//!
//! The kernel unpacks them one after the other. So a changed root costs neither dracut nor the packages' configuration.
//! Source: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.

use super::{Context, WriterError, build, input};
use crate::{
    image::{Counted, ImageError, cpio::CpioWriter, zstd},
    model::{Meta, RelPath},
};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    num::NonZeroU32,
    path::{Path, PathBuf},
};

/// Level for both segments: modules are xz already, and higher levels gain 3 % for four times the work.
const LEVEL: i32 = 3;

pub(super) fn kernel_initrd(context: &Context) -> Result<(), WriterError> {
    let workers = NonZeroU32::new(context.threads).unwrap_or(NonZeroU32::MIN);
    let (from, to) = (input("vmlinuz"), build("kernel"));
    fs::copy(&from, &to).map_err(WriterError::io("copy", &from))?;

    let path = build("initramfs.cpio.zst");
    let mut out = File::create_new(&path).map_err(WriterError::io("create", &path))?;
    let early = input("early.cpio");
    if early.exists() {
        let mut file = File::open(&early).map_err(WriterError::io("open", &early))?;
        io::copy(&mut file, &mut out).map_err(WriterError::io("write", &path))?;
    }
    out = compress(&input("dracut.cpio"), out, workers)?;
    // The segment is written twice: once to learn its length, with zeros for the large file, and once for good.
    let root = Root::open(context)?;
    let size = root.write(io::sink(), &mut io::repeat(0))?;
    let mut content = File::open(&root.image).map_err(WriterError::io("open", &root.image))?;
    out = zstd::compress_with(size, out, LEVEL, workers, |out| root.write(out, &mut content).map(drop))?;
    out.flush().map_err(WriterError::io("write", &path))
}

fn compress(part: &Path, out: File, workers: NonZeroU32) -> Result<File, WriterError> {
    let mut file = File::open(part).map_err(WriterError::io("open", part))?;
    let size = file.metadata().map_err(WriterError::io("open", part))?.len();
    Ok(zstd::compress(
        &part.to_string_lossy(),
        &mut file,
        size,
        out,
        LEVEL,
        workers,
    )?)
}

/// The segment with the root.
struct Root {
    directory: Meta,
    file: Meta,
    digest: Vec<u8>,
    image: PathBuf,
    image_size: u64,
}

impl Root {
    fn open(context: &Context) -> Result<Self, WriterError> {
        let (digest, image) = (input("root-digest"), input("root.ext4"));
        Ok(Self {
            directory: Meta::root(0o755, context.epoch),
            file: Meta::root(0o444, context.epoch),
            digest: fs::read(&digest).map_err(WriterError::io("read", &digest))?,
            image_size: fs::metadata(&image).map_err(WriterError::io("open", &image))?.len(),
            image,
        })
    }

    /// Writes the segment to `out`, with the file system from `content`; returns its length.
    fn write(&self, out: impl Write, content: &mut dyn Read) -> Result<u64, ImageError> {
        let rel = |text: &str| {
            RelPath::new(text).map_err(|e| ImageError::Request {
                format: "a cpio archive",
                problem: e.to_string(),
            })
        };
        let mut archive = CpioWriter::new(Counted::new(out));
        for dir in ["etc", "etc/powernode", "powernode"] {
            archive.directory(&rel(dir)?, &self.directory)?;
        }
        let size = self.digest.len() as u64;
        archive.file(
            &rel("etc/powernode/root-digest")?,
            &self.file,
            size,
            &mut &self.digest[..],
        )?;
        let mut image = content.take(self.image_size);
        archive.file(&rel("powernode/root.ext4")?, &self.file, self.image_size, &mut image)?;
        Ok(archive.finish()?.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Epoch;

    #[test]
    fn the_segment_compressed_as_it_is_made_is_the_segment_compressed() {
        let image: Vec<u8> = (0..2_000_003u32).flat_map(|i| (i / 5).to_le_bytes()).collect();
        let root = Root {
            directory: Meta::root(0o755, Epoch::new(7)),
            file: Meta::root(0o444, Epoch::new(7)),
            digest: b"digest\n".to_vec(),
            image: PathBuf::new(),
            image_size: image.len() as u64,
        };
        let mut plain = Vec::new();
        let size = root.write(&mut plain, &mut &image[..]).expect("written");
        assert_eq!(size, plain.len() as u64);
        assert_eq!(root.write(io::sink(), &mut io::repeat(0)).expect("counted"), size);
        let two = NonZeroU32::new(2).expect("not zero");
        let at_once = zstd::compress("segment", &mut &plain[..], size, Vec::new(), LEVEL, two).expect("packs");
        let streamed = zstd::compress_with(size, Vec::new(), LEVEL, two, |out| {
            root.write(out, &mut &image[..]).map(drop)
        });
        assert!(streamed.expect("packs") == at_once);
    }
}
