//! The reader of ext4 against images of mke2fs, whole and damaged.

#[path = "fixture/tools.rs"]
mod tools;

use pnb::{
    image::{ReadAt, ext4::Ext4},
    model::RelPath,
    verity::{MerkleTree, digest_bytes},
};
use proptest::prelude::*;
use std::{
    fs,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
    sync::OnceLock,
};
use tools::check as check_tools;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// Length of the file with verity: several blocks, and not a multiple of one.
const SEALED: usize = 300 * 4096 + 17;

/// One image with what the reader must understand: a directory with an index, an extent tree of depth two, holes, links,
/// and a file with verity baked in.
fn image() -> &'static [u8] {
    &images()["plain"]
}

/// What debugfs says of [`image`].
fn said(name: &str) -> &'static str {
    std::str::from_utf8(&images()[name]).expect("text")
}

/// That image as `plain`, the same files in another shape as `other`, and what debugfs says of the first.
fn images() -> &'static tools::Contents {
    static IMAGES: OnceLock<tools::Contents> = OnceLock::new();
    IMAGES.get_or_init(build)
}

fn build() -> tools::Contents {
    let dir = tempfile::tempdir().expect("scratch");
    let src = dir.path().join("src");
    fs::create_dir_all(src.join("many")).expect("made");
    for i in 0..1500 {
        fs::write(
            src.join(format!("many/a file with a rather long name number {i}")),
            i.to_string(),
        )
        .expect("written");
    }
    fs::write(src.join("empty"), b"").expect("written");
    fs::write(src.join("data"), pattern(70_000)).expect("written");
    std::os::unix::fs::symlink("data", src.join("link")).expect("linked");
    std::os::unix::fs::symlink("x/".repeat(100), src.join("long-link")).expect("linked");
    let holes = fs::File::create(src.join("holes")).expect("made");
    for i in 0..1500u64 {
        holes.write_all_at(&i.to_le_bytes(), i * 2 * 4096).expect("written");
    }
    write_sealed(&src.join("sealed"), &pattern(SEALED));
    // e2fsck -D gives large directories their index.
    let script = format!(
        "make() {{
            image=$1
            shift
            mke2fs -q -t ext4 -m 0 -N 2000 -d /inputs/0 \"$@\" $image 14M
            e2fsck -fyD $image || test $? = 1
            debugfs -w -R 'sif /sealed size {SEALED}' $image
            debugfs -w -R 'sif /sealed flags 0x180000' $image
            e2fsck -fn $image
        }}
        make out/plain -b 4096 -O verity,^has_journal
        make out/other -b 1024 -O ^64bit,^metadata_csum,^flex_bg,^has_journal,verity -I 128
        debugfs -R 'stat /many' out/plain >out/many
        debugfs -R 'ex /holes' out/plain >out/holes
        debugfs -R 'imap /sealed' out/plain >out/sealed"
    );
    check_tools(&[&src], &script).1
}

/// `data`, then its verity metadata where ext4 keeps it, in a file as long as all that.
fn write_sealed(path: &Path, data: &[u8]) {
    let baked = MerkleTree::build(data, data.len() as u64).expect("in memory");
    let file = fs::File::create(path).expect("made");
    let tree_at = (data.len() as u64).next_multiple_of(65_536);
    let tail_at = tree_at + baked.tree.len() as u64;
    file.write_all_at(data, 0).expect("written");
    file.write_all_at(&baked.tree, tree_at).expect("written");
    file.write_all_at(&baked.descriptor, tail_at).expect("written");
    file.write_all_at(&256u32.to_le_bytes(), tail_at + 4092)
        .expect("written");
}

fn path(p: &str) -> RelPath {
    p.parse().expect("valid")
}

fn content<R: ReadAt>(fs: &Ext4<R>, name: &str) -> Vec<u8> {
    let inode = fs.lookup(&path(name)).expect("readable").expect(name);
    let mut out = Vec::new();
    fs.file(&inode)
        .expect("a file")
        .read_to_end(&mut out)
        .expect("readable");
    out
}

fn check(fs: &Ext4<Vec<u8>>) {
    assert_eq!(content(fs, "empty"), b"");
    assert_eq!(content(fs, "data"), pattern(70_000));
    let many = fs.lookup(&path("many")).expect("readable").expect("there");
    assert_eq!(fs.read_dir(&many).expect("readable").len(), 1500);
    assert_eq!(content(fs, "many/a file with a rather long name number 1234"), b"1234");
    assert!(fs.lookup(&path("many/nothing")).expect("readable").is_none());
    assert!(fs.lookup(&path("data/below")).expect("readable").is_none());
    for (name, target) in [("link", "data".to_owned()), ("long-link", "x/".repeat(100))] {
        let link = fs.lookup(&path(name)).expect("readable").expect("there");
        assert_eq!(fs.read_link(&link).expect("a link"), target.as_bytes());
    }
}

#[test]
fn reads_what_mke2fs_writes() {
    let fs = Ext4::open(image().to_vec()).expect("valid");
    check(&fs);
    let flags = said("many")
        .split("Flags: 0x")
        .nth(1)
        .and_then(|s| s.split_whitespace().next());
    let flags = u32::from_str_radix(flags.expect("flags"), 16).expect("a number");
    assert!(
        flags & 0x1000 != 0,
        "the directory has no index, so the test shows nothing"
    );
    let holes = content(&fs, "holes");
    assert_eq!(holes.len(), 1499 * 2 * 4096 + 8);
    for i in 0..1500usize {
        let at = i * 2 * 4096;
        assert_eq!(holes[at..at + 8], (i as u64).to_le_bytes());
        assert!(holes[at + 8..].iter().take(8184).all(|b| *b == 0));
    }
    let inode = fs.lookup(&path("holes")).expect("readable").expect("there");
    // Levels are written as "0/ 1" for the root of a tree of depth one.
    let depth = said("holes")
        .lines()
        .filter_map(|l| l.trim().strip_prefix("0/")?.split_whitespace().next());
    assert!(
        depth.map(|d| d.parse::<u32>().expect("a depth")).any(|d| d > 0),
        "the extent tree is flat, so the test shows nothing"
    );
    assert_eq!(fs.verity(&inode).expect("readable"), None);
}

#[test]
fn reads_other_shapes() {
    check(&Ext4::open(images()["other"].clone()).expect("valid"));
}

#[test]
fn finds_the_verity_metadata_as_the_kernel_does() {
    let fs = Ext4::open(image().to_vec()).expect("valid");
    let inode = fs.lookup(&path("sealed")).expect("readable").expect("there");
    let data = pattern(SEALED);
    assert!(inode.has_verity());
    assert!(content(&fs, "sealed") == data);
    let tail = fs.verity(&inode).expect("readable").expect("there");
    let baked = MerkleTree::build(&data[..], data.len() as u64).expect("in memory");
    assert_eq!(tail.descriptor, baked.descriptor);
    assert!(tail.tree == baked.tree);
    assert_eq!(baked.digest, digest_bytes(&data));
}

#[test]
fn damage_is_named() {
    let open = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = image().to_vec();
        change(&mut bytes);
        Ext4::open(bytes).map(|_| ()).expect_err("damaged").to_string()
    };
    assert!(open(&|b| b.truncate(1500)).contains("byte 1024: the image ends"));
    assert!(open(&|b| b.truncate(1 << 20)).contains("but the image has 1048576 bytes"));
    assert!(open(&|b| b[1024 + 0x38] = 0).contains("magic is 0xef00"));
    assert!(open(&|b| b[1024 + 0x60] |= 0x4).contains("features"));
    assert!(open(&|b| b[1024 + 0x18] = 9).contains("block size is 2^19"));
    assert!(open(&|b| b[1024 + 0x28..1024 + 0x2c].fill(0)).contains("groups of 0"));

    // "located at block 12, offset 0x0300"
    let place = said("sealed")
        .split("located at block ")
        .nth(1)
        .and_then(|s| s.trim().split_once(", offset 0x"));
    let (block, offset) = place.expect("a place");
    let offset = usize::from_str_radix(offset, 16).expect("a number");
    let at = block.parse::<usize>().expect("a number") * 4096 + offset;
    let sealed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = image().to_vec();
        change(&mut bytes);
        let fs = Ext4::open(bytes).expect("the superblock is whole");
        let inode = fs.lookup(&path("sealed"))?.expect("there");
        fs.verity(&inode).map(|_| ())
    };
    let error = |change: &dyn Fn(&mut Vec<u8>)| sealed(change).expect_err("damaged").to_string();
    assert!(error(&|b| b[at + 0x28] = 0).contains("a node of the extent tree has the magic"));
    assert!(error(&|b| b[at + 0x28 + 6] = 9).contains("the extent tree has the depth 9"));
    assert!(error(&|b| b[at + 0x28 + 12 + 8..at + 0x28 + 24].fill(0xff)).contains("stored at block"));
    assert!(error(&|b| b[at + 0x7] = 0x7f).contains("nothing behind the data"));
    assert!(error(&|b| b[at + 0x1a] = 0).contains("is not in use"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn random_damage_never_panics_nor_hangs(hits in proptest::collection::vec((0usize..600_000, any::<u8>()), 1..40)) {
        let mut bytes = image().to_vec();
        for (at, value) in hits {
            bytes[at] = value;
        }
        let Ok(fs) = Ext4::open(bytes) else { return Ok(()) };
        for number in (1..40).chain([1400, 1520]) {
            let Ok(inode) = fs.inode(number) else { continue };
            let _ = fs.read_dir(&inode);
            let _ = fs.read_link(&inode);
            let _ = fs.verity(&inode);
            if let Ok(mut file) = fs.file(&inode) {
                let _ = io::copy(&mut (&mut file).take(1 << 20), &mut io::sink());
            }
        }
    }
}
