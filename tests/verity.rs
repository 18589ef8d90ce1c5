//! The digests pnb computes are those of `fsverity digest`.

#[path = "fixture/tools.rs"]
mod tools;

use pnb::verity::{MerkleTree, digest_bytes};

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
    let dir = tempfile::tempdir().expect("scratch");
    let lengths = [0, 1, 4095, 4096, 4097, 70_000, 128 * 4096, 129 * 4096 + 7, 9_000_000];
    for len in lengths {
        std::fs::write(dir.path().join(len.to_string()), noise(len)).expect("writable");
    }
    let (_, made) = tools::check(
        &[dir.path()],
        "for file in /inputs/0/*; do
            fsverity digest --compact --hash-alg=sha256 --block-size=4096 --out-merkle-tree=out/${file##*/}.tree \\
                --out-descriptor=out/${file##*/}.descriptor $file >out/${file##*/}.digest
        done",
    );
    for len in lengths {
        let data = noise(len);
        let theirs = std::str::from_utf8(&made[&format!("{len}.digest")])
            .expect("text")
            .trim();
        assert_eq!(digest_bytes(&data).to_hex(), theirs, "{len} bytes");

        let baked = MerkleTree::build(&data[..], len as u64).expect("the size is right");
        assert_eq!(baked.digest.to_hex(), theirs, "{len} bytes");
        assert_eq!(baked.tree, made[&format!("{len}.tree")], "{len} bytes");
        assert_eq!(baked.descriptor[..], made[&format!("{len}.descriptor")], "{len} bytes");
    }
}
