//! Files in which blocks of zeros are holes: they take no room, and no time to write.

use std::{fs::File, io, os::unix::fs::FileExt};

/// Bytes in a block.
const BLOCK: usize = 4096;

/// Writes `bytes` at `offset` of a file that holds nothing there yet, and leaves out blocks of zeros. Returns whether the last
/// block was left out: then the file still has to get its length.
pub fn write_sparse_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<bool> {
    let first = (BLOCK - (offset % BLOCK as u64) as usize).min(bytes.len());
    let mut run = 0;
    let mut at = 0;
    while at < bytes.len() {
        let end = if at == 0 { first } else { (at + BLOCK).min(bytes.len()) };
        if is_zero(&bytes[at..end]) {
            file.write_all_at(&bytes[run..at], offset + run as u64)?;
            run = end;
        }
        at = end;
    }
    file.write_all_at(&bytes[run..], offset + run as u64)?;
    Ok(run == bytes.len())
}

fn is_zero(block: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    *block == ZEROS[..block.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeros_take_no_room() {
        let file = tempfile::tempfile().expect("a file");
        let mut bytes = vec![0; 64 * BLOCK];
        bytes[20 * BLOCK] = 1;
        assert!(write_sparse_at(&file, &bytes, 0).expect("written"));
        file.set_len(bytes.len() as u64).expect("ended");
        let found = file.metadata().expect("there");
        assert_eq!(found.len(), bytes.len() as u64);
        assert!(found.blocks() * 512 < 8 * BLOCK as u64, "{} sectors", found.blocks());
    }

    proptest! {
        #[test]
        fn what_is_written_in_pieces_reads_back(
            blocks in proptest::collection::vec((any::<bool>(), 1usize..6000), 0..8),
            cuts in proptest::collection::vec(1usize..9000, 1..8),
        ) {
            let bytes: Vec<u8> = blocks.iter().flat_map(|(full, len)| vec![u8::from(*full); *len]).collect();
            let file = tempfile::tempfile().expect("a file");
            let mut at = 0;
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(bytes.len());
                write_sparse_at(&file, &bytes[at..end], at as u64).expect("written");
                at = end;
                if at == bytes.len() {
                    break;
                }
            }
            file.set_len(bytes.len() as u64).expect("ended");
            let mut back = vec![9; bytes.len()];
            file.read_exact_at(&mut back, 0).expect("readable");
            prop_assert_eq!(back, bytes);
        }
    }
}
