//! Files in which blocks of zeros are holes: they take no room, and no time to write.

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
/// Fewer bytes than this are written through memory in any case: a write for each would cost more than the pages.
const PASSED: usize = 64 << 10;
/// `RWF_DONTCACHE` of the kernel's linux/fs.h, since Linux 6.14: what is read or written does not stay in memory.
const UNCACHED: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// What becomes of the memory that holds what was read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pages {
    /// It stays, because somebody will read it soon.
    Stay,
    /// The kernel may take it back at once: new pages for a file cost several times what the copying does. A hint; the bytes are
    /// written all the same where it is not known.
    Drop,
}

/// Writes `bytes` at `offset` of a file that holds nothing there yet, and leaves out blocks of zeros. Returns whether the last
/// block was left out: then the file still has to get its length.
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
            // A kernel or file system without it; whatever else is wrong the plain way says too.
            _ => break,
        }
    }
    file.write_all_at(bytes, offset)
}

/// Reads at `offset` as much as is there or fits.
pub(super) fn read_at(file: &File, bytes: &mut [u8], offset: u64, pages: Pages) -> io::Result<usize> {
    if pages == Pages::Drop
        && let Ok(n) = preadv2(file, &mut [IoSliceMut::new(bytes)], offset, UNCACHED)
    {
        return Ok(n);
    }
    file.read_at(bytes, offset)
}

/// Copies all that `from` gives to where `to` holds nothing yet, from byte `at` on, and leaves out blocks of zeros. Returns how
/// many bytes it gave; when they end in zeros, `to` still has to get its length.
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
    fn where_pages_cannot_pass_the_bytes_are_written_all_the_same() {
        // A memfd has no disk behind it to which pages could go.
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
