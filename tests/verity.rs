//! The digests pnb computes are those of `fsverity digest` (Debian package fsverity), which must be installed.

use pnb::verity::{MerkleTree, digest_bytes};
use std::{io::Write, process::Command};

/// Bytes of a small linear generator: no two blocks alike.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn agrees_with_fsverity_utils() {
    for len in [0, 1, 4095, 4096, 4097, 70_000, 128 * 4096, 129 * 4096 + 7, 9_000_000] {
        let data = noise(len);
        let dir = tempfile::tempdir().expect("scratch");
        let path = |name: &str| dir.path().join(name);
        std::fs::File::create(path("data"))
            .and_then(|mut f| f.write_all(&data))
            .expect("writable");
        let output = Command::new("fsverity")
            .args(["digest", "--compact", "--hash-alg=sha256", "--block-size=4096"])
            .arg(format!("--out-merkle-tree={}", path("tree").display()))
            .arg(format!("--out-descriptor={}", path("descriptor").display()))
            .arg(path("data"))
            .output()
            .expect("the Debian package fsverity must be installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs = String::from_utf8(output.stdout).expect("text");
        assert_eq!(digest_bytes(&data).to_hex(), theirs.trim(), "{len} bytes");

        let baked = MerkleTree::build(&data[..], len as u64).expect("the size is right");
        assert_eq!(baked.digest.to_hex(), theirs.trim(), "{len} bytes");
        assert_eq!(baked.tree, std::fs::read(path("tree")).expect("written"), "{len} bytes");
        let descriptor = std::fs::read(path("descriptor")).expect("written");
        assert_eq!(baked.descriptor[..], descriptor, "{len} bytes");
    }
}
