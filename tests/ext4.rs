//! The ext4 file system with baked verity, as other programs find it: e2fsck, dumpe2fs, debugfs and fsverity-utils, the crate ext4-view,
//! and pnb's own reader.

#[path = "fixture/tools.rs"]
mod tools;

use pnb::{
    image::{
        ImageError,
        ext4::{Ext4, Ext4Layout, IMAGE_PATH, VerityFile, plan, root_items, write},
    },
    model::{Epoch, RelPath, VerityDigest},
    verity::digest_bytes,
};
use std::{
    collections::BTreeMap,
    io::{self, Cursor, Read},
    os::unix::fs::FileExt,
};
use tools::check;

type Contents = BTreeMap<VerityDigest, Vec<u8>>;
const EPOCH: Epoch = Epoch::new(1_750_000_000);
const BLOCK: usize = 4096;
/// What `e2fsck -fn` prints of a file system without a fault, but for the last line with its numbers.
const CLEAN: &str = "Pass 1: Checking inodes, blocks, and sizes
Pass 2: Checking directory structure
Pass 3: Checking directory connectivity
Pass 4: Checking reference counts
Pass 5: Checking group summary information
powernode-root: ";

/// Whether e2fsck, which printed `said`, found no fault: its exit status is 0 for some faults that it was not to mend.
fn is_clean(said: &str) -> bool {
    said.strip_prefix(CLEAN).is_some_and(|rest| rest.lines().count() == 1)
}

fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// `len` bytes of which every second block is zeros.
fn torn(len: usize, seed: u32) -> Vec<u8> {
    let mut bytes = noise(len, seed);
    for two in bytes.chunks_mut(2 * BLOCK) {
        let end = two.len().min(BLOCK);
        two[..end].fill(0);
    }
    bytes
}

/// A layout of `objects` in this order, and of the image behind them.
fn layout_of(image: &[u8], objects: &[Vec<u8>]) -> (VerityDigest, Ext4Layout, Contents) {
    let mut contents: Contents = objects
        .iter()
        .map(|bytes| (digest_bytes(bytes), bytes.clone()))
        .collect();
    let sizes: Vec<(VerityDigest, u64)> = objects.iter().map(|b| (digest_bytes(b), b.len() as u64)).collect();
    let digest = digest_bytes(image);
    contents.insert(digest, image.to_vec());
    let items = root_items(digest, image.len() as u64, &sizes).expect("valid paths");
    (digest, plan(items).expect("valid items"), contents)
}

/// An image and objects: sizes around blocks and 64 KiB, blocks of zeros, extent trees of every depth, and enough files for directories
/// of more than one block and for two groups.
fn sample(small: usize) -> (VerityDigest, Ext4Layout, Contents) {
    let mut objects: Vec<Vec<u8>> = [65, 4095, 4096, 4097, 65_535, 65_536, 65_537, 600_000, 3_000_000]
        .into_iter()
        .map(|len| noise(len, 2))
        .collect();
    objects.push(vec![0; 50_000]);
    objects.push(torn(400_000, 3));
    objects.push(torn(1400 * 2 * BLOCK, 4));
    objects.extend((0..small).map(|i| noise(70 + i % 5000, i as u32 + 10)));
    layout_of(&noise(300_000, 1), &objects)
}

fn opener(contents: &Contents) -> impl Fn(&VerityDigest) -> io::Result<Box<dyn Read>> + '_ {
    |digest| {
        let bytes = contents.get(digest).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(bytes.clone())))
    }
}

/// The file system in memory.
fn image(root: &VerityDigest, layout: &Ext4Layout, contents: &Contents) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let mut store = |piece: &[u8], at: u64| {
        let end = at as usize + piece.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        let place: &mut [u8] = &mut bytes[at as usize..end];
        assert!(place.iter().all(|b| *b == 0), "byte {at} is stored once");
        place.copy_from_slice(piece);
        Ok(())
    };
    let size = write(layout, root, EPOCH, &opener(contents), &mut store)?;
    assert!(bytes.len() as u64 <= size, "nothing lies behind the end");
    bytes.resize(size as usize, 0);
    Ok(bytes)
}

fn on_disk(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("scratch");
    std::fs::write(file.path(), bytes).expect("written");
    file
}

/// For scripts: lays what `fsverity digest` says of each file of `/inputs/1` into `out/verity`.
const VERITY: &str = "mkdir out/verity
    for file in /inputs/1/*; do
        name=out/verity/${file##*/}
        fsverity digest --compact --out-merkle-tree=$name.tree --out-descriptor=$name.descriptor $file >$name.digest
    done
";

/// `stored` must be the data, a hole up to 64 KiB, and what fsverity-utils says belongs behind it.
fn check_stored(stored: &[u8], item: &VerityFile, content: &[u8], made: &tools::Contents) {
    let verity = |ending: &str| &made[&format!("verity/{}.{ending}", item.digest.to_hex())];
    assert_eq!(String::from_utf8_lossy(verity("digest")).trim(), item.digest.to_hex());
    let mut wanted = content.to_vec();
    wanted.resize(content.len().next_multiple_of(65_536), 0);
    wanted.extend(verity("tree"));
    wanted.extend(verity("descriptor"));
    wanted.resize((wanted.len() + 4).next_multiple_of(BLOCK) - 4, 0);
    wanted.extend(256u32.to_le_bytes());
    assert!(stored == wanted, "{} of {} bytes", item.path, item.size);
}

/// Length of data, hole and tail by the rule of `fs/ext4/verity.c`.
fn stored_length(size: u64) -> u64 {
    let (mut blocks, mut tree) = (size.div_ceil(4096), 0);
    while blocks > 1 {
        blocks = blocks.div_ceil(128);
        tree += blocks * 4096;
    }
    size.next_multiple_of(65_536) + tree + 4096
}

/// Every file has its content, its Merkle tree and its digest, and every structure its checksum, to pnb's own reader.
fn check_with_own_reader(bytes: &[u8], layout: &Ext4Layout, contents: &Contents) {
    let fs = Ext4::open(bytes.to_vec()).expect("valid");
    let (regions, unfit) = fs.regions().expect("readable");
    assert!(unfit.is_empty(), "descriptors without their checksum: {unfit:?}");
    assert!(
        regions.windows(2).all(|r| r[0].offset + r[0].len <= r[1].offset),
        "{regions:?}"
    );
    for item in layout.items() {
        let inode = fs.lookup(&item.path).expect("readable").expect("there");
        assert_eq!(fs.checksum_problem(&inode).expect("readable"), None, "{}", item.path);
        assert_eq!(
            (inode.size(), inode.mode(), inode.flags()),
            (item.size, 0o444, 0x18_0000)
        );
        assert_eq!(fs.sealed_digest(&inode).expect("readable"), Some(item.digest));
        let mut data = vec![0; item.size.next_multiple_of(4096) as usize];
        for run in fs.runs(&inode).expect("readable").iter().filter(|r| r.at < item.size) {
            let (at, from) = (run.at as usize, run.from.expect("written") as usize);
            let len = (run.len as usize).min(data.len() - at);
            data[at..at + len].copy_from_slice(&bytes[from..from + len]);
        }
        data.truncate(item.size as usize);
        assert!(data == contents[&item.digest], "{}", item.path);
    }
}

#[test]
fn content_that_is_not_what_its_digest_says_is_refused() {
    let (root, layout, mut contents) = sample(0);
    for (wrong, what) in [
        (noise(300_000, 99), "digest"),
        (noise(10, 1), "length"),
        (noise(300_001, 1), "or more"),
    ] {
        contents.insert(root, wrong);
        let text = image(&root, &layout, &contents).expect_err("wrong content").to_string();
        assert!(text.contains(IMAGE_PATH) && text.contains(what), "{text}");
    }
    contents.remove(&root);
    let text = image(&root, &layout, &contents).expect_err("no content").to_string();
    assert_eq!(text, "read the content of \"image.cfs\"");
}

#[test]
fn a_store_that_fails_ends_the_work() {
    let (root, layout, contents) = sample(0);
    let mut left = 5;
    let mut store = |_: &[u8], _: u64| {
        left -= 1;
        if left > 0 {
            Ok(())
        } else {
            Err(io::ErrorKind::StorageFull.into())
        }
    };
    let error = write(&layout, &root, EPOCH, &opener(&contents), &mut store).expect_err("full");
    assert_eq!(error.to_string(), "write an ext4 file system");
    assert_eq!(left, 0, "nothing is stored behind a failure");
}

#[test]
fn every_program_finds_every_file_and_its_tree() {
    let (root, layout, contents) = sample(17_000);
    let bytes = image(&root, &layout, &contents).expect("made");
    assert!(
        bytes == image(&root, &layout, &contents).expect("made"),
        "twice the same bytes"
    );
    check_with_own_reader(&bytes, &layout, &contents);

    let rebuilt = || {
        let items = layout.items().iter().enumerate();
        items
            .filter(|(n, i)| i.size > 5000 || n % 200 == 0)
            .map(|(_, item)| item)
    };
    let data = tempfile::tempdir().expect("scratch");
    for item in rebuilt() {
        std::fs::write(data.path().join(item.digest.to_hex()), &contents[&item.digest]).expect("written");
    }
    let file = on_disk(&bytes);
    // On a copy the files get back their full length and lose the flag, so that debugfs gives out the tails as well.
    let mut commands = String::new();
    for item in rebuilt() {
        let (path, name, length) = (&item.path, item.digest.to_hex(), stored_length(item.size));
        commands += &format!("dump /{path} out/data/{name}\nsif /{path} size {length}\nsif /{path} flags 0x80000\n");
        commands += &format!("dump /{path} out/files/{name}\n");
    }
    commands += "stat /\nstat /objects\nstat /lost+found\n";
    let commands = on_disk(commands.as_bytes());
    let script = format!(
        "export TZ=UTC
        e2fsck -fn /inputs/0 >out/e2fsck 2>out/e2fsck.stderr
        dumpe2fs /inputs/0 >out/dumpe2fs 2>out/dumpe2fs.stderr
        cp --sparse=always /inputs/0 copy; chmod u+w copy; mkdir out/files out/data
        debugfs -w -f /inputs/2 copy >out/debugfs 2>out/debugfs.stderr
        {VERITY}"
    );
    let (_, made) = check(&[file.path(), data.path(), commands.path()], &script);
    let text = |name: &str| String::from_utf8_lossy(&made[name]).into_owned();

    let said = text("e2fsck");
    let files = layout.items().len() + 256 + 3 + 10 - 1;
    assert!(is_clean(&said), "{said}");
    let numbers = &said[CLEAN.len()..];
    assert!(numbers.starts_with(&format!("{files}/")), "{numbers}");
    // e2fsck says there that the sandbox has no list of mounts.
    for program in ["dumpe2fs", "debugfs"] {
        let said = text(&format!("{program}.stderr"));
        assert!(
            said.lines().all(|line| line.starts_with(&format!("{program} 1."))),
            "{said}"
        );
    }
    let facts = text("dumpe2fs");
    for line in [
        "Filesystem volume name: powernode-root",
        "Filesystem features: filetype extent flex_bg metadata_csum_seed sparse_super large_file huge_file dir_nlink extra_isize \
         metadata_csum verity",
        "Filesystem state: clean",
        "Reserved block count: 0",
        "Free blocks: 0",
        "Block size: 4096",
        "Inode size: 256",
        "Default directory hash: half_md4",
        "Filesystem created: Sun Jun 15 15:06:40 2025",
    ] {
        assert!(
            facts.lines().any(|l| l.split_whitespace().eq(line.split(' '))),
            "{line} is not in:\n{facts}"
        );
    }
    assert!(
        facts.contains("Backup superblock at 32768, Group descriptors at 32769-32769"),
        "{facts}"
    );
    let stat = text("debugfs");
    for (path, what) in [
        ("", "Mode:  0755"),
        ("objects", "Mode:  0555"),
        ("lost+found", "Mode:  0700"),
    ] {
        let at = stat.find(&format!("debugfs: stat /{path}\n")).expect("asked");
        let part = stat[at..].split("debugfs: stat").nth(1).unwrap_or_default();
        assert!(
            part.contains(what) && part.contains("User:     0   Group:     0"),
            "{part}"
        );
        assert!(part.contains("ctime: 0x684ee180:00000000"), "{part}");
    }
    for item in rebuilt() {
        let name = item.digest.to_hex();
        assert!(made[&format!("data/{name}")] == contents[&item.digest], "{}", item.path);
        check_stored(&made[&format!("files/{name}")], item, &contents[&item.digest], &made);
    }

    let view = ext4_view::Ext4::load(Box::new(bytes)).expect("valid");
    assert_eq!(view.label().to_str(), Ok("powernode-root"));
    for item in layout.items().iter().step_by(10) {
        let path = format!("/{}", item.path);
        assert!(
            view.read(path.as_str()).expect("readable") == contents[&item.digest],
            "{path}"
        );
        assert_eq!(view.metadata(path.as_str()).expect("there").mode(), 0o444, "{path}");
    }
}

/// Endless noise, the same each time.
struct Noise(Vec<u8>, u64);

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let from = (self.1 % self.0.len() as u64) as usize;
        let len = buffer.len().min(self.0.len() - from);
        buffer[..len].copy_from_slice(&self.0[from..from + len]);
        self.1 += len as u64;
        Ok(len)
    }
}

/// A file that reaches from the first group into the fourth goes around both copies. Its data are never stored: e2fsck does not look at
/// them, and 400 MiB would have to be written.
#[test]
fn e2fsck_finds_no_fault_in_four_groups() {
    const SIZE: u64 = (400 << 20) + 1;
    let open = |_: &VerityDigest| -> io::Result<Box<dyn Read>> { Ok(Box::new(Noise(noise(1 << 20, 1), 0).take(SIZE))) };
    let (digest, size) = pnb::verity::digest_reader(open(&VerityDigest::new([0; 32])).expect("open")).expect("hashed");
    let items = root_items(digest, size, &[]).expect("valid");
    let layout = plan(items).expect("valid");
    let file = tempfile::NamedTempFile::new().expect("scratch");
    let mut store = |bytes: &[u8], at: u64| match bytes.len() {
        0x2_0000 => Ok(()),
        _ => file.as_file().write_all_at(bytes, at),
    };
    let size = write(&layout, &digest, EPOCH, &open, &mut store).expect("written");
    file.as_file().set_len(size).expect("ended");
    let script = "e2fsck -fn /inputs/0 >out/said
        dumpe2fs /inputs/0 >out/groups 2>&1
        debugfs -R 'ex /image.cfs' /inputs/0 >out/extents 2>&1";
    let (_, made) = check(&[file.path()], script);
    let text = |name: &str| String::from_utf8_lossy(&made[name]).into_owned();
    assert!(is_clean(&text("said")), "{}", text("said"));
    for copy in [32_768, 3 * 32_768] {
        assert!(
            text("groups").contains(&format!("Backup superblock at {copy},")),
            "{}",
            text("groups")
        );
    }
    // A block of extents, and in it more than the inode holds.
    assert!(
        text("extents").contains(" 0/ 1   1/  1 ") && text("extents").contains(" 1/ 1   1/  5 "),
        "{}",
        text("extents")
    );
}

/// The judge sees what it is here for.
#[test]
fn e2fsck_finds_every_fault() {
    let (root, layout, contents) = sample(20);
    let bytes = image(&root, &layout, &contents).expect("made");
    let file = on_disk(&bytes);
    let path = |n: usize| layout.items()[n].path.to_string();
    let by_debugfs = [
        ("a block used twice", format!("copy_inode /{} /{}", path(8), path(7))),
        ("another number of blocks", format!("sif /{} blocks 800", path(8))),
        ("a file without a name", format!("unlink /{}", path(8))),
        (
            "a block that is in use and free",
            format!(
                "freeb $(debugfs -R 'blocks /{}' image 2>/dev/null | cut -d' ' -f1)",
                path(8)
            ),
        ),
        ("other free blocks", "ssv free_blocks_count 7".to_owned()),
        ("a directory's link", "sif /objects links_count 9".to_owned()),
    ];
    let by_bytes = [
        ("checksum of the superblock", 1024 + 0x3fc),
        ("free blocks of a group", 4096 + 0xc),
        ("checksum of a descriptor", 4096 + 0x1e),
        ("block bitmap", 2 * 4096),
        ("inode bitmap", 3 * 4096),
        ("inode of the root", 4 * 4096 + 256 + 0x4),
        ("checksum of the root's inode", 4 * 4096 + 256 + 0x7c),
    ];
    let mut script = String::new();
    let mut add = |number: usize, change: &str| {
        script += &format!("cp /inputs/0 image; chmod u+w image; {change}\n");
        script += &format!("e2fsck -fn image >out/{number} || :\n");
    };
    add(0, ":");
    for (number, (_, command)) in by_debugfs.iter().enumerate() {
        add(1 + number, &format!("debugfs -w -R \"{command}\" image 2>/dev/null"));
    }
    for (number, (_, at)) in by_bytes.iter().enumerate() {
        let byte = bytes[*at] ^ 0x40;
        let change = format!("printf '\\{byte:03o}' | dd of=image bs=1 seek={at} conv=notrunc status=none");
        add(1 + by_debugfs.len() + number, &change);
    }
    let (_, made) = check(&[file.path()], &script);
    let said = |number: usize| String::from_utf8_lossy(&made[&number.to_string()]).into_owned();
    assert!(is_clean(&said(0)), "{}", said(0));
    let names = by_debugfs.iter().map(|m| m.0).chain(by_bytes.iter().map(|m| m.0));
    for (number, name) in names.enumerate() {
        let text = said(1 + number);
        assert!(!text.is_empty() && !is_clean(&text), "{name}: {text}");
    }
}

/// Numbers of the blocks in which two images differ, as far as both go.
fn differing(a: &[u8], b: &[u8]) -> Vec<usize> {
    let blocks = a.chunks(BLOCK).zip(b.chunks(BLOCK));
    blocks
        .enumerate()
        .filter(|(_, (a, b))| a != b)
        .map(|(n, _)| n)
        .collect()
}

#[test]
fn another_root_changes_nothing_but_the_superblocks() {
    let (root, layout, contents) = sample(17_000);
    let one = image(&root, &layout, &contents).expect("made");
    let two = image(&VerityDigest::new([5; 32]), &layout, &contents).expect("made");
    assert_eq!(one.len(), two.len());
    assert_eq!(differing(&one, &two), [0, 32_768]);
    assert!(one[0x468..0x478] != two[0x468..0x478], "another UUID");
}

#[test]
fn a_changed_object_moves_only_what_lies_behind_it() {
    let object = |n: u32| noise(5000 + n as usize * 7, n);
    let mut objects: Vec<Vec<u8>> = (0..3000).map(object).collect();
    let make = |objects: &[Vec<u8>], image_size: usize| {
        let (root, layout, contents) = layout_of(&noise(image_size, 1), objects);
        let bytes = image(&root, &layout, &contents).expect("made");
        let fs = Ext4::open(&bytes).expect("valid");
        let place = |path: &RelPath| {
            let inode = fs.lookup(path).expect("readable").expect("there");
            fs.runs(&inode).expect("readable")[0].from.expect("written") as usize / BLOCK
        };
        let places: Vec<usize> = layout.items().iter().map(|item| place(&item.path)).collect();
        (bytes, places)
    };
    let (before, places) = make(&objects, 100_000);
    assert!(places.is_sorted(), "the order of the bytes is that of the layout");

    // One object of the same length: its data and digest, its names in two directories, and the image's blocks.
    objects[1000][77] ^= 1;
    let (after, _) = make(&objects, 100_000);
    let changed = differing(&before, &after);
    assert!(changed.len() <= 8, "{changed:?}");

    // A longer one: nothing moves that lies in front of it, but for the tables.
    objects[2900].resize(200_000, 3);
    let (longer, moved) = make(&objects, 100_000);
    assert_eq!(places[..=2900], moved[..=2900]);
    let changed = differing(&after, &longer);
    let data = changed
        .iter()
        .filter(|n| (places[0]..places[2900]).contains(*n))
        .count();
    assert_eq!(data, 0, "{changed:?}");
    let tables = changed.iter().filter(|n| **n < places[0]).count();
    assert!(
        tables <= 1 + 1 + 1 + (100 / 16 + 2) + 256 / 16 + 2,
        "{tables} blocks of tables"
    );

    // One more file within the same step of the tables.
    objects.push(object(9999));
    let (_, more) = make(&objects, 100_000);
    assert_eq!(moved[..3000], more[..3000]);
}

#[test]
fn zeros_take_no_room_in_the_file_either() {
    let zeros = vec![0; 40 << 20];
    let (root, layout, contents) = layout_of(&zeros, &[]);
    let size = image(&root, &layout, &contents).expect("made").len();
    // 81 blocks of the Merkle tree, and the descriptor, behind 40 MiB of which nothing is stored.
    assert!(size < 110 * 4096, "{size} bytes");
}
