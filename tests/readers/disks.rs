//! Partition tables and file systems: with one damaged part, and in forms that pnb does not write.

use super::{child, compared, holds, looked, names, part, problem, problems, scratch, tools::check};
use pnb::{
    image::fat::Fat,
    inspect::{SurveyNode, survey},
};

/// The disk `made`, with a GPT and two partitions, and what differs from it.
fn gpt_disk() -> Vec<u8> {
    let (_, mut made) = check(
        &[],
        "truncate -s 4M out/disk
        sgdisk -a 8 -n 1:40:+64 -c 1:first -t 1:ef00 -n 2:200:+64 -c 2:second out/disk >/dev/null",
    );
    made.remove("disk").expect("made")
}

fn partitions(node: &SurveyNode) -> Vec<(&str, u64, u64)> {
    node.children
        .iter()
        .map(|c| (c.name.as_str(), c.offset, c.size))
        .collect()
}

const BOTH: [(&str, u64, u64); 2] = [
    ("partition 1 \"first\"", 40 * 512, 64 * 512),
    ("partition 2 \"second\"", 200 * 512, 64 * 512),
];

#[test]
fn one_sound_copy_of_a_table_shows_its_partitions() {
    let disk = gpt_disk();
    let node = looked(&disk);
    assert_eq!((node.format, partitions(&node)), (Some("GPT disk"), BOTH.to_vec()));
    assert_eq!(problems(&node), Vec::<String>::new());
    let last = disk.len() - 512;
    for (at, which, shown) in [
        (512, "the primary copy: no signature", "the backup copy is shown"),
        (
            512 + 60,
            "the primary copy: the header states the CRC-32",
            "the backup copy is shown",
        ),
        (
            1024,
            "the primary copy: the array states the CRC-32",
            "the backup copy is shown",
        ),
        (last, "the backup copy: no signature", "the primary copy is shown"),
        (
            last - 5,
            "the backup copy: the array states the CRC-32",
            "the primary copy is shown",
        ),
    ] {
        let mut damaged = disk.clone();
        damaged[at] ^= 0x40;
        let node = looked(&damaged);
        assert_eq!(
            (node.format, partitions(&node)),
            (Some("GPT disk"), BOTH.to_vec()),
            "{at}"
        );
        let said = problem(&node);
        assert!(said.contains(which) && said.contains(shown), "{at}: {said}");
    }
    // Made longer: the backup is not at the end.
    let longer = [disk.clone(), vec![0; 1 << 20]].concat();
    let node = looked(&longer);
    assert_eq!(partitions(&node), BOTH.to_vec());
    assert!(problem(&node).contains("the backup copy: no signature"), "{node:#?}");
    // Cut: the second partition is gone.
    let node = looked(&disk[..200 * 512]);
    assert_eq!(partitions(&node), BOTH[..1].to_vec());
    assert!(
        problem(&node).contains("entry 2 ends behind the end of the disk"),
        "{node:#?}"
    );
}

#[test]
fn a_record_that_protects_no_table_is_a_problem() {
    let mut disk = gpt_disk();
    let end = disk.len();
    disk[512..1024].fill(0);
    disk[end - 512..].fill(0);
    let node = looked(&disk);
    assert_eq!((node.format, node.children.len()), (Some("GPT disk"), 0));
    assert!(problem(&node).contains("the primary copy: no signature"), "{node:#?}");
    assert!(problem(&node).contains("the backup copy: no signature"), "{node:#?}");
}

#[test]
fn one_damaged_entry_hides_no_other() {
    let disk = gpt_disk();
    // The name of the first entry becomes a lone surrogate, in both copies, whose sums are made anew.
    let mut damaged = disk.clone();
    let last = disk.len() - 512;
    for (header, array) in [(512, 1024), (last, last - 32 * 512)] {
        damaged[array + 56..array + 58].copy_from_slice(&[0x00, 0xd8]);
        let sum = crc32fast::hash(&damaged[array..array + 128 * 128]);
        damaged[header + 88..header + 92].copy_from_slice(&sum.to_le_bytes());
        damaged[header + 16..header + 20].fill(0);
        let sum = crc32fast::hash(&damaged[header..header + 92]);
        damaged[header + 16..header + 20].copy_from_slice(&sum.to_le_bytes());
    }
    let node = looked(&damaged);
    assert_eq!(node.children.len(), 2);
    assert_eq!(node.children[1].name, BOTH[1].0);
    assert!(
        problem(&node).contains("the name of entry 1 is not UTF-16"),
        "{node:#?}"
    );
}

#[test]
fn a_table_of_large_sectors_is_found() {
    // The same table as for small sectors, each part at eight times its place.
    let small = gpt_disk();
    let sectors = small.len() / 512;
    let mut disk = vec![0; sectors * 4096];
    disk[..512].copy_from_slice(&small[..512]);
    let mut put = |own: usize, other: usize, array: usize, from: usize| {
        let mut header = small[from..from + 92].to_vec();
        header[24..32].copy_from_slice(&(own as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(other as u64).to_le_bytes());
        header[72..80].copy_from_slice(&(array as u64).to_le_bytes());
        header[16..20].fill(0);
        let sum = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        disk[own * 4096..][..92].copy_from_slice(&header);
        disk[array * 4096..][..128 * 128].copy_from_slice(&small[1024..1024 + 128 * 128]);
    };
    put(1, sectors - 1, 2, 512);
    put(sectors - 1, 1, sectors - 5, 512);
    let node = looked(&disk);
    let large: Vec<(&str, u64, u64)> = BOTH.iter().map(|(name, at, size)| (*name, at * 8, size * 8)).collect();
    assert_eq!((node.format, partitions(&node)), (Some("GPT disk"), large.clone()));
    assert_eq!(problems(&node), Vec::<String>::new());
    assert_eq!(node.content["sector size"], "4096");
    disk[4096] ^= 1;
    let node = looked(&disk);
    assert_eq!(partitions(&node), large);
    assert!(problem(&node).contains("the backup copy is shown"), "{node:#?}");
}

#[test]
fn logical_partitions_and_hybrid_entries_are_listed() {
    let (said, made) = check(
        &[],
        "truncate -s 8M out/logical out/hybrid
        printf 'label: dos\\n1 : start=64, size=64, type=83\\n2 : start=1024, size=12000, type=5\\n5 : start=1100, size=100, type=83\\n6 : start=2100, size=200, type=c\\n7 : start=4100, size=300, type=82\\n' |
            sfdisk -q out/logical
        sfdisk -d out/logical
        sgdisk -a 8 -n 1:40:+64 -c 1:first -t 1:ef00 -n 2:200:+64 -c 2:second -h 1:EE out/hybrid >/dev/null",
    );
    let node = looked(&made["logical"]);
    let want = [(1, 64, 64), (5, 1100, 100), (6, 2100, 200), (7, 4100, 300)];
    let want: Vec<(String, u64, u64)> = want
        .into_iter()
        .map(|(n, at, len)| (format!("partition {n}"), at * 512, len * 512))
        .collect();
    let found: Vec<(String, u64, u64)> = node
        .children
        .iter()
        .map(|c| (c.name.clone(), c.offset, c.size))
        .collect();
    assert_eq!(found, want, "{said}");
    assert_eq!(problems(&node), Vec::<String>::new());
    assert_eq!(node.content["extended partition 2"], "type 0x05 at sector 1024");
    // A chain that goes back would have no end.
    let mut circle = made["logical"].clone();
    let at = 1024 * 512 + 0x1be + 16 + 8;
    circle[at..at + 4].fill(0);
    let node = looked(&circle);
    assert!(problem(&node).contains("goes back to byte"), "{node:#?}");
    assert_eq!(names(&node), ["partition 1", "partition 5"]);

    let node = looked(&made["hybrid"]);
    assert_eq!(partitions(&node), BOTH.to_vec());
    assert_eq!(node.content["hybrid entry 1"], "type 0xef, sectors 40 to 103");
}

/// A FAT volume with a directory of several clusters that do not follow each other.
fn fat() -> Vec<u8> {
    let (_, mut made) = check(
        &[],
        "truncate -s 2000k out/fat
        mkfs.fat -F 12 -s 1 out/fat >/dev/null
        export MTOOLS_SKIP_CHECK=1
        mmd -i out/fat ::/dir
        echo x >f
        for n in $(seq 10 29); do mcopy -i out/fat f ::/dir/long-name-$n.txt; mcopy -i out/fat f ::/between$n; done",
    );
    made.remove("fat").expect("made")
}

#[test]
fn a_lone_surrogate_in_a_name_hides_no_file() {
    let volume = fat();
    let whole = looked(&volume);
    assert_eq!(problems(&whole), Vec::<String>::new());
    assert_eq!(whole.children.len(), 41, "{:?}", names(&whole));
    let mut damaged = volume.clone();
    let name: Vec<u8> = "long-".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let at = memchr::memmem::find(&volume, &name).expect("there");
    damaged[at..at + 2].copy_from_slice(&[0x00, 0xd8]);
    let node = looked(&damaged);
    assert_eq!(node.children.len(), 41);
    assert!(problem(&node).contains("a long name is not UTF-16"), "{node:#?}");
    assert!(holds(child(&node, "/dir/LONG-N~1.TXT"), b"x\n"), "{:?}", names(&node));
    assert!(holds(child(&node, "/dir/long-name-11.txt"), b"x\n"));
}

#[test]
fn a_broken_chain_hides_no_other_file() {
    let volume = fat();
    // The chain of the first file in the root, whose entry names its cluster, goes on nowhere.
    let entry = memchr::memmem::find(&volume, b"BETWEE~1   ").or_else(|| memchr::memmem::find(&volume, b"BETWEEN "));
    let entry = entry
        .or_else(|| memchr::memmem::find(&volume, b"BETWEE"))
        .expect("there");
    let mut damaged = volume.clone();
    damaged[entry + 26..entry + 28].copy_from_slice(&[0xe0, 0x0f]);
    let node = looked(&damaged);
    assert_eq!(node.children.len(), 41);
    let bad: Vec<&SurveyNode> = node.children.iter().filter(|c| c.problem.is_some()).collect();
    assert_eq!(bad.len(), 1, "{node:#?}");
    assert!(problem(bad[0]).contains("which does not exist") && bad[0].name.starts_with("/between"));
    assert!(problem(&node).contains("1 of its parts"), "{node:#?}");
}

#[test]
fn an_entry_of_a_fragmented_directory_is_found_at_its_place() {
    let volume = fat();
    let fs = Fat::open(volume.clone()).expect("valid");
    let directory = fs
        .lookup(&"dir".parse().expect("a path"))
        .expect("valid")
        .expect("there");
    let entries = fs.read_dir(&directory).expect("valid");
    let offsets: Vec<usize> = entries.iter().map(|e| e.offset() as usize).collect();
    for (entry, at) in entries.iter().zip(&offsets) {
        // The short name and its attributes, the archive bit.
        assert!(
            volume[*at..].starts_with(b"LO") && volume[at + 11] == 0x20,
            "{entry:?} at {at}"
        );
    }
    assert!(
        offsets.windows(2).any(|pair| pair[1] - pair[0] > 512),
        "it is in one piece: {offsets:?}"
    );
    let mut changed = volume.clone();
    // The time of the last entry.
    let last = offsets[offsets.len() - 1];
    changed[last + 22] ^= 0x20;
    let found = compared(&volume, &changed);
    assert_eq!(found.total, 1, "{found:#?}");
    assert_eq!(found.differences[0].path, ["x", "FAT12", "/dir/long-name-29.txt"]);
}

#[test]
fn fat_volumes_that_are_not_read_are_named() {
    let (_, made) = check(
        &[],
        "for size in 1024 4096; do truncate -s 8M out/$size; mkfs.fat -S $size out/$size >/dev/null; done
        truncate -s 8M out/tables; mkfs.fat -f 4 out/tables >/dev/null
        echo x >f; MTOOLS_SKIP_CHECK=1 mcopy -i out/tables f ::/file",
    );
    for size in ["1024", "4096"] {
        let node = looked(&made[size]);
        assert_eq!(node.format, Some("FAT"));
        assert!(
            problem(&node).contains(&format!("a sector has {size} bytes instead of 512")),
            "{node:#?}"
        );
    }
    let node = looked(&made["tables"]);
    assert!(holds(child(&node, "/file"), b"x\n"), "{node:#?}");
    assert_eq!(problems(&node), Vec::<String>::new());
}

#[test]
fn a_moved_directory_and_a_compressed_file_are_shown_where_they_belong() {
    let deep = "a/b/c/d/e/f/g/h/i/j";
    let (_, made) = check(
        &[],
        &format!(
            "mkdir -p d/{deep}; echo deep >d/{deep}/file; echo top >d/top
            genisoimage -quiet -R -o out/moved d 2>/dev/null
            head -c 200000 /dev/zero | tr '\\0' z >d/zeros
            xorriso -outdev out/packed -map d / -set_filter --zisofs /zeros -- >/dev/null 2>&1"
        ),
    );
    let node = looked(&made["moved"]);
    assert!(
        memchr::memmem::find(&made["moved"], b"CL\x0c\x01").is_some(),
        "nothing was moved"
    );
    assert_eq!(problems(&node), Vec::<String>::new());
    assert!(
        holds(child(&node, &format!("/{deep}/file")), b"deep\n"),
        "{:?}",
        names(&node)
    );
    assert!(holds(child(&node, "/top"), b"top\n"));

    let node = looked(&made["packed"]);
    assert!(
        memchr::memmem::find(&made["packed"], b"ZF\x10\x01").is_some(),
        "nothing was compressed"
    );
    let zeros = child(&node, "/zeros");
    assert!(
        problem(zeros).contains("it is compressed (zisofs), and shown as it is stored"),
        "{zeros:#?}"
    );
    assert!(holds(child(&node, "/top"), b"top\n"));
    assert!(
        holds(child(&node, &format!("/{deep}/file")), b"deep\n"),
        "{:?}",
        names(&node)
    );
    assert!(problem(&node).contains("1 of its parts"), "{node:#?}");
}

#[test]
fn a_damaged_record_of_a_directory_hides_no_other() {
    let (_, made) = check(
        &[],
        "mkdir d; for n in a b c; do echo $n >d/$n; done; genisoimage -quiet -R -o out/x d 2>/dev/null",
    );
    let mut damaged = made["x"].clone();
    // The two forms of the extent of `b` differ.
    let at = memchr::memmem::find(&damaged, b"NM\x06\x01\0b").expect("there");
    let record = (0..at)
        .rev()
        .find(|p| damaged[*p..].starts_with(&[damaged[*p], 0]) && damaged[p + 32..].starts_with(b"\x03B.;"));
    let record = record
        .or_else(|| (0..at).rev().find(|p| damaged[p + 33..].starts_with(b"B.;1")))
        .expect("there");
    damaged[record + 2] ^= 1;
    let node = looked(&damaged);
    assert_eq!(names(&node), ["/a", "/c", "/"]);
    assert!(
        problem(&node).contains("the two forms of its extent differ"),
        "{node:#?}"
    );
}

#[test]
fn ext4_with_clusters_and_blocks_of_1_kib_is_read() {
    let (_, made) = check(
        &[],
        "mkdir d; echo content >d/file; head -c 100000 /dev/zero | tr '\\0' x >d/large
        mke2fs -q -t ext4 -b 1024 -O bigalloc,^resize_inode -C 16384 -d d out/clusters 8M
        e2fsck -fn out/clusters >/dev/null 2>&1",
    );
    let node = looked(&made["clusters"]);
    assert_eq!(problems(&node), Vec::<String>::new());
    assert!(node.content["features"].contains("bigalloc"), "{:?}", node.content);
    assert!(holds(child(&node, "/file"), b"content\n"), "{node:#?}");
    assert!(holds(child(&node, "/large"), &[b'x'; 100_000]), "{node:#?}");
}

#[test]
fn a_damaged_inode_hides_no_other_file() {
    let (_, made) = check(
        &[],
        "mkdir d; for n in a b c; do echo $n >d/$n; done
        mke2fs -q -t ext4 -b 1024 -O ^has_journal,^resize_inode,^metadata_csum -d d out/x 1M
        cp out/x out/bad; debugfs -w -R 'sif /b block[0] 7' out/bad 2>/dev/null",
    );
    assert_eq!(problems(&looked(&made["x"])), Vec::<String>::new());
    let node = looked(&made["bad"]);
    assert!(
        holds(child(&node, "/a"), b"a\n") && holds(child(&node, "/c"), b"c\n"),
        "{node:#?}"
    );
    assert!(
        problem(child(&node, "/b")).contains("a node of the extent tree"),
        "{node:#?}"
    );
    // With more files than are listed, the damaged one is listed.
    let few = survey(&part(&made["bad"]), &scratch(), 16, false).expect("in memory");
    assert!(names(&few).contains(&"/b"));
}

#[test]
fn a_cut_file_system_shows_what_is_there() {
    let (_, made) = check(
        &[],
        "mkdir d; for n in a b c; do echo $n >d/$n; done; head -c 500000 /dev/zero | tr '\\0' z >d/z
        mke2fs -q -t ext4 -b 1024 -O ^has_journal,^resize_inode -m 0 -d d out/ext4 1M
        genisoimage -quiet -R -o out/iso d 2>/dev/null
        truncate -s 2000k out/fat; mkfs.fat -F 12 -s 1 out/fat >/dev/null
        MTOOLS_SKIP_CHECK=1 mcopy -i out/fat d/a d/b d/c d/z ::/",
    );
    for (name, cut, why) in [
        (
            "ext4",
            300_000,
            "the file system has 1024 blocks of 1024 bytes, but the image has 300000 bytes",
        ),
        ("iso", 300_000, "but the image has 300000"),
        ("fat", 300_032, "in an image of 300032"),
    ] {
        let whole = &made[name];
        assert_eq!(problems(&looked(whole)), Vec::<String>::new(), "{name}");
        let node = looked(&whole[..cut]);
        assert!(problem(&node).contains(why), "{name}: {node:#?}");
        for file in ["a", "b", "c"] {
            assert!(
                holds(child(&node, &format!("/{file}")), format!("{file}\n").as_bytes()),
                "{name}: {node:#?}"
            );
        }
        assert!(!problem(child(&node, "/z")).is_empty(), "{name}: {node:#?}");
    }
}
