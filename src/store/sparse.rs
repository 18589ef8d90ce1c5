//! Sparse files: blocks of zeros become holes, which take no space and no time to write.

use super::buffer::PageBuffer;
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};
use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read},
    os::unix::fs::FileExt,
};

/// Bytes in a block.
const BLOCK: usize = 4096;
/// Bytes that [`copy_sparse`] reads at once.
const COPIED: usize = 1 << 20;
/// Writes of fewer bytes always go through the page cache: uncached, each of them would cost more than its pages.
const PASSED: usize = 64 << 10;
/// `RWF_DONTCACHE` of the kernel's linux/fs.h, since Linux 6.14: the pages read or written do not stay in the page cache.
const UNCACHED: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// The policy for the page cache of bytes that were read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pages {
    /// The pages stay, because the bytes will be read soon.
    Stay,
    /// The kernel may free the pages at once: allocating new pages for a file costs several times as much as copying the bytes. Kernels
    /// and file systems that do not support this keep the pages.
    Drop,
}

/// Writes `bytes` at `offset` of a file that has no data there yet, and skips blocks of zeros. Returns whether the last block was
/// skipped: the caller must then set the file's length.
pub(super) fn write_sparse_at(file: &File, bytes: &[u8], offset: u64, pages: Pages) -> io::Result<bool> {
    let first = (BLOCK - (offset % BLOCK as u64) as usize).min(bytes.len());
    let mut run = 0;
    let mut at = 0;
    while at < bytes.len() {
        let end = if at == 0 { first } else { (at + BLOCK).min(bytes.len()) };
        if is_zero(&bytes[at..end]) {
            write_all_at(file, &bytes[run..at], offset + run as u64, pages)?;
            run = end;
        }
        at = end;
    }
    write_all_at(file, &bytes[run..], offset + run as u64, pages)?;
    Ok(run == bytes.len())
}

fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64, pages: Pages) -> io::Result<()> {
    while pages == Pages::Drop && bytes.len() >= PASSED {
        match pwritev2(file, &[IoSlice::new(bytes)], offset, UNCACHED) {
            Ok(n) if n > 0 => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            // Not supported by this kernel or file system. Any other error comes again from the plain write below.
            _ => break,
        }
    }
    file.write_all_at(bytes, offset)
}

/// Reads at `offset` until `bytes` is full or the file ends, or less; 0 at the end of the file.
pub(super) fn read_at(file: &File, bytes: &mut [u8], offset: u64, pages: Pages) -> io::Result<usize> {
    if pages == Pages::Drop
        && let Ok(n) = preadv2(file, &mut [IoSliceMut::new(bytes)], offset, UNCACHED)
    {
        return Ok(n);
    }
    file.read_at(bytes, offset)
}

/// Copies all bytes of `from` into `to`, which has no data yet from byte `at` on, and skips blocks of zeros. Returns the number of bytes;
/// if they end in zeros, the caller must set the length of `to`.
pub fn copy_sparse(from: &mut impl Read, to: &File, at: u64) -> io::Result<u64> {
    let mut buffer = PageBuffer::new(COPIED);
    let mut copied = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(n) => {
                write_sparse_at(to, &buffer[..n], at + copied, Pages::Stay)?;
                copied += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn is_zero(block: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    *block == ZEROS[..block.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{io::Write, os::unix::fs::MetadataExt};

    const BOTH: [Pages; 2] = [Pages::Stay, Pages::Drop];

    #[test]
    fn zeros_take_no_room() {
        let mut bytes = vec![0; 64 * BLOCK];
        bytes[20 * BLOCK] = 1;
        bytes[30 * BLOCK..52 * BLOCK].fill(2);
        for pages in BOTH {
            let file = tempfile::tempfile().expect("a file");
            assert!(write_sparse_at(&file, &bytes, 0, pages).expect("written"));
            file.set_len(bytes.len() as u64).expect("ended");
            file.sync_all().expect("synced");
            let found = file.metadata().expect("there");
            assert_eq!(found.len(), bytes.len() as u64);
            assert!(found.blocks() * 512 < 30 * BLOCK as u64, "{} sectors", found.blocks());
        }
    }

    #[test]
    fn a_copy_lies_where_it_should_and_has_holes() {
        let mut bytes = vec![0; 3 * COPIED + 5];
        bytes[COPIED - 3..COPIED + 7].fill(1);
        bytes[3 * COPIED + 1] = 2;
        // Not at the start of a block, and from a reader that gives little at a time.
        let (at, file) = (BLOCK as u64 + 9, tempfile::tempfile().expect("a file"));
        let mut reader = io::BufReader::with_capacity(5000, &bytes[..]);
        assert_eq!(copy_sparse(&mut reader, &file, at).expect("copied"), bytes.len() as u64);
        file.set_len(at + bytes.len() as u64).expect("ended");
        file.sync_all().expect("synced");
        let mut back = vec![9; bytes.len()];
        file.read_exact_at(&mut back, at).expect("readable");
        assert!(back == bytes);
        let sectors = file.metadata().expect("there").blocks();
        assert!(sectors * 512 < COPIED as u64, "{sectors} sectors");
    }

    #[test]
    fn an_error_of_the_reader_is_the_copys() {
        struct Worn;
        impl Read for Worn {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("worn out"))
            }
        }
        let file = tempfile::tempfile().expect("a file");
        let err = copy_sparse(&mut (&b"some"[..]).chain(Worn), &file, 0).expect_err("broken");
        assert_eq!(err.to_string(), "worn out");
    }

    #[test]
    fn the_bytes_are_written_where_pages_cannot_be_dropped() {
        // A memfd has no disk to which pages could be written back.
        let name = c"sparse";
        let memory = nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::empty()).expect("memory");
        let mut file = File::from(memory);
        let bytes: Vec<u8> = (0..3 * PASSED).map(|i| (i % 251) as u8 + 1).collect();
        file.write_all(b"x").expect("written");
        write_sparse_at(&file, &bytes, 1, Pages::Drop).expect("written");
        let mut back = vec![0; bytes.len()];
        let mut at = 0;
        while at < back.len() {
            let n = read_at(&file, &mut back[at..], 1 + at as u64, Pages::Drop).expect("readable");
            assert!(n > 0, "it ends at {at}");
            at += n;
        }
        assert!(back == bytes);
        assert_eq!(
            read_at(&file, &mut [0], 1 + at as u64, Pages::Drop).expect("readable"),
            0
        );
    }

    proptest! {
        #[test]
        fn what_is_written_in_pieces_reads_back(
            blocks in proptest::collection::vec((any::<bool>(), prop_oneof![1usize..6000, 60_000usize..90_000]), 0..8),
            cuts in proptest::collection::vec(1usize..200_000, 1..8),
            pages in prop_oneof![Just(Pages::Stay), Just(Pages::Drop)],
        ) {
            let bytes: Vec<u8> = blocks.iter().flat_map(|(full, len)| vec![u8::from(*full); *len]).collect();
            let file = tempfile::tempfile().expect("a file");
            let mut at = 0;
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(bytes.len());
                write_sparse_at(&file, &bytes[at..end], at as u64, pages).expect("written");
                at = end;
                if at == bytes.len() {
                    break;
                }
            }
            file.set_len(bytes.len() as u64).expect("ended");
            let mut back = vec![9; bytes.len()];
            let mut at = 0;
            while at < back.len() {
                let n = read_at(&file, &mut back[at..], at as u64, pages).expect("readable");
                prop_assert!(n > 0);
                at += n;
            }
            prop_assert_eq!(back, bytes);
        }
    }
}
