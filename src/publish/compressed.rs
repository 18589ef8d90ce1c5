//! A compressed copy of a disk image, for servers that do not take files of its size: `disk.raw.zst` instead of `disk.raw`.
//!
//! The same image makes the same bytes on every machine: level and library are fixed, and the number of threads does not change them.

use super::{ArtifactBlob, CompressError};
use crate::{
    image::zstd::compress,
    model::{Sha256Digest, ZstdLevel},
    store::open_foreign,
};
use sha2::{Digest as _, Sha256};
use std::{
    fs::File,
    io::{self, Read, Write},
    num::NonZeroU32,
    path::Path,
};

/// The level: a disk image is mostly zeros and files that are compressed already, so higher ones cost time and save little.
pub const COMPRESSED_LEVEL: ZstdLevel = ZstdLevel::HIGH;

/// Compresses the file `source`, which must be `image`, into the new file `target`.
///
/// # Errors
/// A file cannot be read or written, or `source` has other bytes than `image`; `target` is removed then.
pub fn compress_image(
    source: &Path,
    image: &ArtifactBlob,
    target: &Path,
    workers: NonZeroU32,
) -> Result<ArtifactBlob, CompressError> {
    let io = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| CompressError::Io { action, path, source }
    };
    let from = open_foreign(source).map_err(io("open", source))?;
    let to = File::create_new(target).map_err(io("create", target))?;
    let written = (|| {
        let mut reader = Hashing::new(from);
        let writer = Hashing::new(to);
        let name = crate::model::visible_path(source);
        let writer = compress(&name, &mut reader, image.size, writer, COMPRESSED_LEVEL, workers)
            .map_err(|error| CompressError::Image(Box::new(error)))?;
        let actual = reader.digest();
        if actual != image.sha256 {
            return Err(CompressError::Changed {
                path: source.to_owned(),
                expected: image.sha256,
                actual,
            });
        }
        writer.inner.sync_all().map_err(io("write", target))?;
        Ok(ArtifactBlob {
            size: writer.count,
            sha256: writer.digest(),
        })
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(target);
    }
    written
}

/// Hashes what passes through.
struct Hashing {
    inner: File,
    hasher: Sha256,
    count: u64,
}

impl Hashing {
    fn new(inner: File) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            count: 0,
        }
    }

    fn digest(self) -> Sha256Digest {
        Sha256Digest::new(self.hasher.finalize().into())
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.count += bytes.len() as u64;
    }
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.pass(&buffer[..n]);
        Ok(n)
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.pass(&bytes[..n]);
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn any_number_of_threads_makes_the_same_bytes_of_the_image() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = |name: &str| dir.path().join(name);
        let mut bytes = vec![0; 20 << 20];
        for (n, block) in bytes.chunks_mut(4096).enumerate().step_by(7) {
            block.fill(n as u8);
        }
        fs::write(path("disk.raw"), &bytes).expect("written");
        let image = ArtifactBlob::of(&bytes);
        let made = [1, 3].map(|workers| {
            let target = path(&format!("disk.raw.zst.{workers}"));
            let blob = compress_image(
                &path("disk.raw"),
                &image,
                &target,
                NonZeroU32::new(workers).expect("not 0"),
            );
            let written = fs::read(target).expect("readable");
            assert_eq!(blob.expect("compressed"), ArtifactBlob::of(&written));
            written
        });
        assert!(made[0] == made[1] && made[0].len() < bytes.len() / 10);
        assert!(zstd::decode_all(&made[0][..]).expect("a frame") == bytes);

        bytes[5] ^= 1;
        fs::write(path("disk.raw"), &bytes).expect("written");
        let one = NonZeroU32::new(1).expect("not 0");
        let error = compress_image(&path("disk.raw"), &image, &path("other"), one).expect_err("changed");
        assert!(
            matches!(error, CompressError::Changed { .. }) && !path("other").exists(),
            "{error}"
        );
        let shorter = ArtifactBlob { size: 5, ..image };
        assert!(compress_image(&path("disk.raw"), &shorter, &path("other"), one).is_err());
        // A file of somebody else is not overwritten.
        fs::write(path("mine"), "mine").expect("written");
        assert!(compress_image(&path("disk.raw"), &image, &path("mine"), one).is_err());
        assert_eq!(fs::read(path("mine")).expect("readable"), b"mine");
    }
}
