//! A blob does not have to fit into memory.

use crate::ground::*;
use pnb::{model::Sha256Digest, registry::silent};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    io::{self, Read},
};

/// The most memory that this process has had resident since it began, or since it was asked to forget, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("readable");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("the line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// A file of zeros that takes no space, and its digest.
fn sparse(size: u64) -> (File, Sha256Digest) {
    let file = tempfile::tempfile().expect("scratch");
    file.set_len(size).expect("set");
    let mut hash = Sha256::new();
    let block = vec![0; 1 << 20];
    (0..size >> 20).for_each(|_| hash.update(&block));
    (file, Sha256Digest::new(hash.finalize().into()))
}

/// Uploads and downloads a blob of this size.
fn there_and_back(size: u64) {
    let ground = Ground::new();
    // The proxy is left out: it is in this process.
    let client = Ground::of_direct(&ground);
    let (file, digest) = sparse(size);
    let before = peak();
    let mut open = || -> io::Result<Box<dyn Read + Send>> {
        let mut file = file.try_clone()?;
        io::Seek::rewind(&mut file)?;
        Ok(Box::new(file))
    };
    client
        .upload_blob(&digest, size, &mut open, &silent())
        .expect("uploaded");
    assert!(client.has_blob(&digest, size).expect("asked"));
    let mut got = tempfile::tempfile().expect("scratch");
    client
        .read_blob(&digest, size, &mut got, &silent())
        .expect("downloaded");
    assert_eq!(got.metadata().expect("a file").len(), size);
    // Other tests run in this process at the same time; they hold a few megabytes each.
    let (after, most) = (peak(), 100 << 20);
    assert!(after < before.max(most), "{before} bytes before, {after} after");
}

#[test]
fn a_blob_needs_no_memory_of_its_size() {
    there_and_back(256 << 20);
}

#[test]
#[ignore = "writes 4 GiB"]
fn two_gigabytes_need_no_memory() {
    there_and_back(2 << 30);
}
