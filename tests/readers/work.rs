//! Bytes that would keep a reader for years: each costs at most what its size allows, and the place where reading ended is named.

use super::{child, compared, count, looked, part, pattern, problem, problems, scratch, tools::check};
use pnb::{
    image::{Source, cpio::CpioWriter, qcow2},
    inspect::{SurveyNode, What, find_root, survey},
    model::{Epoch, Meta, RelPath, ZstdLevel},
};
use std::{io::Cursor, num::NonZeroU32, sync::Arc};

/// Surveys hostile bytes. All limits hold, whatever the time of the day; the words of one problem say why reading ended.
fn bounded(bytes: &[u8], why: &str) -> SurveyNode {
    let part = part(bytes);
    let node = survey(&part, &scratch(), 16, true).expect("in memory");
    let (work, size) = (part.work(), bytes.len() as u64);
    assert!(work.parts <= (1 << 18) + size / 4096, "{work:?}");
    assert!(work.examined <= 4096 + size / 512, "{work:?}");
    assert!(work.hashed <= (512 << 20) + 16 * size, "{work:?}");
    assert!(work.read <= (1 << 30) + 64 * size, "{work:?}");
    assert!(work.unpacked <= (1 << 30) + 64 * size, "{work:?}");
    assert!(count(&node) <= 1 + work.parts, "{work:?}");
    let said = problems(&node);
    assert!(said.iter().any(|p| p.contains(why)), "{why:?} is not in {said:#?}");
    node
}

/// A master boot record with four partitions of `sectors` sectors that begin at these sectors.
fn record(begins: [u32; 4], sectors: u32) -> [u8; 512] {
    let mut bytes = [0; 512];
    for (slot, begin) in begins.into_iter().enumerate() {
        let entry = &mut bytes[0x1be + 16 * slot..][..16];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&begin.to_le_bytes());
        entry[12..].copy_from_slice(&sectors.to_le_bytes());
    }
    bytes[510..].copy_from_slice(&[0x55, 0xaa]);
    bytes
}

#[test]
fn a_partition_that_holds_its_own_table_is_refused() {
    let node = bounded(&record([0; 4], 1), "partition 1 holds the record that lists it");
    assert_eq!(node.format, Some("MBR disk"));
    assert_eq!(count(&node), 1);
    // One behind the record is listed, beside one that holds it.
    let disk = [record([1, 0, 1, 0], 1).to_vec(), pattern(512)].concat();
    let node = looked(&disk);
    assert_eq!(super::names(&node), ["partition 1", "partition 3"]);
    assert!(problem(&node).contains("partition 2 holds"), "{node:#?}");
}

#[test]
fn records_within_records_end_at_a_limit() {
    // Each of 20 sectors is a record with four partitions that begin at the next sector: 4^20 parts.
    let mut disk = Vec::new();
    for index in 0..20u32 {
        disk.extend(record([1; 4], 19 - index.min(18)));
    }
    bounded(&disk, "the limit of");
    // Without the fan-out, the depth alone is limited.
    let mut chain = Vec::new();
    for index in 0..40u32 {
        let mut bytes = record([1; 4], 39 - index.min(38));
        bytes[0x1be + 16..0x1fe].fill(0);
        chain.extend(bytes);
    }
    let node = bounded(&chain, "deeper nesting is not examined");
    assert_eq!(count(&node), 17);
    // Depth that was not asked for is no problem.
    let shallow = survey(&part(&chain), &scratch(), 3, true).expect("in memory");
    assert_eq!(problems(&shallow), Vec::<String>::new());
}

/// A cpio archive of files with these contents.
fn archive(contents: &[Vec<u8>]) -> Vec<u8> {
    let meta = Meta::root(0o644, Epoch::new(0));
    let mut out = CpioWriter::new(Vec::new());
    for (index, content) in contents.iter().enumerate() {
        let path: RelPath = format!("f{index:02}").parse().expect("a path");
        out.file(&path, &meta, content.len() as u64, &mut &content[..])
            .expect("written");
    }
    out.finish().expect("written")
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 19).expect("compressed")
}

/// A compressed archive of 48 compressed archives of 48 …, `levels` deep; the innermost holds `seed`.
fn fan(levels: usize, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..levels {
        bytes = zst(&archive(&vec![bytes; 48]));
    }
    bytes
}

#[test]
fn an_archive_within_archives_ends_at_a_limit() {
    let two = fan(2, b"x");
    let node = looked(&two);
    assert_eq!(problems(&node), Vec::<String>::new());
    let inner = child(child(child(&node, "content"), "/f07"), "content");
    assert!(super::holds(child(inner, "/f47"), b"x"), "{inner:#?}");
    let four = fan(4, b"x");
    assert!(four.len() < 8192, "{}", four.len());
    bounded(&four, "the limit of");
}

#[test]
fn frames_of_frames_end_at_a_limit() {
    let mut bytes = b"x".to_vec();
    for _ in 0..4 {
        bytes = zst(&bytes).repeat(48);
    }
    assert!(bytes.len() < 8192, "{}", bytes.len());
    bounded(&bytes, "the limit of");
}

#[test]
fn a_comparison_ends_at_the_same_limits() {
    let (a, b) = (fan(1, b"x"), fan(1, b"y"));
    let found = compared(&a, &b);
    assert_eq!(found.total, 48, "{found:#?}");
    let (a, b) = (fan(4, b"x"), fan(4, b"y"));
    let (part_a, part_b) = (part(&a), part(&b));
    let found = pnb::inspect::diff((&part_a, None), (&part_b, None), &scratch(), 1_000_000).expect("in memory");
    for work in [part_a.work(), part_b.work()] {
        assert!(work.examined <= 4096 + a.len() as u64 / 512 + 1, "{work:?}");
        assert!(work.read <= (1 << 30) + 64 * 8192, "{work:?}");
    }
    assert!(!found.equal());
    let limited = found.differences.iter().any(|d| match &d.what {
        What::Incomplete { problem } | What::Damaged { problem } => problem.contains("the limit of"),
        _ => false,
    });
    assert!(limited, "{:#?}", &found.differences[..found.differences.len().min(20)]);
}

/// A zstd frame of `blocks` blocks of 128 KiB of zeros, in four bytes each.
fn zeros(blocks: usize) -> Vec<u8> {
    frame(b"", blocks)
}

/// The same with `first` in front of the zeros.
fn frame(first: &[u8], blocks: usize) -> Vec<u8> {
    // No content size, and a window of 128 KiB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
    frame.extend(&((first.len() as u32) << 3).to_le_bytes()[..3]);
    frame.extend(first);
    for index in 1..=blocks {
        let header = u32::from(index == blocks) | 1 << 1 | (128 << 10) << 3;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

#[test]
fn segments_of_zeros_share_one_limit() {
    let small = looked(&zeros(16));
    assert_eq!(child(&small, "content").size, 16 * (128 << 10));
    // Eight segments of 8 GiB behind a plain archive.
    let mut bytes = archive(&[b"early".to_vec()]);
    for _ in 0..8 {
        bytes.extend(zeros(1 << 16));
    }
    let node = bounded(&bytes, "decompressed bytes");
    assert_eq!((node.format, node.children.len()), (Some("initramfs"), 9));
    assert!(super::holds(child(child(&node, "segment 1 (cpio)"), "/f00"), b"early"));
}

/// An ISO 9660 image of `sectors` sectors without Rock Ridge, in whose root these files lie: name, first sector and bytes.
fn iso(sectors: u32, files: &[(&str, u32, u32)]) -> Vec<u8> {
    let both = |n: u32| [n.to_le_bytes(), n.to_be_bytes()].concat();
    let directory_record = |name: &[u8], start: u32, len: u32, flags: u8| {
        let mut bytes = vec![0; (33 + name.len()).next_multiple_of(2)];
        bytes[0] = bytes.len() as u8;
        bytes[2..10].copy_from_slice(&both(start));
        bytes[10..18].copy_from_slice(&both(len));
        bytes[25] = flags;
        bytes[32] = name.len() as u8;
        bytes[33..33 + name.len()].copy_from_slice(name);
        bytes
    };
    let mut image = vec![0; sectors as usize * 2048];
    let descriptor = &mut image[16 * 2048..][..2048];
    descriptor[0] = 1;
    descriptor[1..7].copy_from_slice(b"CD001\x01");
    descriptor[80..88].copy_from_slice(&both(sectors));
    descriptor[128..132].copy_from_slice(&[0, 8, 8, 0]);
    descriptor[156..190].copy_from_slice(&directory_record(&[0], 18, 2048, 2));
    let end = &mut image[17 * 2048..][..7];
    end.copy_from_slice(b"\xffCD001\x01");
    let mut records = [directory_record(&[0], 18, 2048, 2), directory_record(&[1], 18, 2048, 2)].concat();
    for (name, start, len) in files {
        records.extend(directory_record(name.as_bytes(), *start, *len, 0));
    }
    image[18 * 2048..][..records.len()].copy_from_slice(&records);
    image
}

#[test]
fn files_of_an_image_that_are_the_image_itself_are_refused() {
    let names: Vec<String> = (0..41).map(|n| format!("F{n:02}")).collect();
    let whole: Vec<(&str, u32, u32)> = names.iter().map(|name| (name.as_str(), 0, 64 * 2048)).collect();
    let mut image = iso(64, &whole[..40]);
    let node = bounded(&image, "its extent holds the descriptors of the image");
    assert_eq!(count(&node), 42);
    // The same from sector 16 on is no image, since the descriptors are not in its sector 16; it is refused all the same.
    let behind: Vec<(&str, u32, u32)> = names.iter().map(|name| (name.as_str(), 20, 44 * 2048)).collect();
    image = iso(64, &behind[..40]);
    assert_eq!(problems(&looked(&image)), Vec::<String>::new());
}

#[test]
fn files_that_share_their_bytes_end_at_a_limit() {
    // Every file is the same image of 40 files, which are the same image of 40 files, …
    let mut inner = vec![1; 2048];
    for _ in 0..5 {
        let sectors = (inner.len() / 2048) as u32;
        let names: Vec<String> = (0..40).map(|n| format!("F{n:02}")).collect();
        let files: Vec<(&str, u32, u32)> = names.iter().map(|n| (n.as_str(), 20, inner.len() as u32)).collect();
        let mut image = iso(20 + sectors, &files);
        image[20 * 2048..].copy_from_slice(&inner);
        inner = image;
    }
    bounded(&inner, "the limit of");
}

#[test]
fn hard_links_to_one_image_end_at_a_limit() {
    let (_, made) = check(
        &[],
        "mkdir d; echo x >d/f00
        for level in 1 2 3 4; do
            for n in $(seq 1 39); do ln d/f00 d/f$n; done
            mke2fs -q -t ext4 -b 1024 -O ^has_journal,^resize_inode -m 0 -N 64 -d d image$level $((level * 300))k
            rm -r d; mkdir d; cp image$level d/f00
        done
        cp image1 image4 out/",
    );
    let one = looked(&made["image1"]);
    assert!(super::holds(child(&one, "/f39"), b"x\n"), "{one:#?}");
    assert_eq!(problems(&one), Vec::<String>::new());
    bounded(&made["image4"], "the limit of");
}

#[test]
fn virtual_disks_within_virtual_disks_end_at_a_limit() {
    let nested = |levels: usize| {
        let mut bytes = pattern(70_000);
        for _ in 0..levels {
            let disk = {
                bytes.resize(bytes.len().next_multiple_of(512), 0);
                bytes
            };
            let mut out = Cursor::new(Vec::new());
            qcow2::write(&disk, &mut out, ZstdLevel::default(), NonZeroU32::MIN).expect("in memory");
            bytes = out.into_inner();
        }
        bytes
    };
    assert_eq!(problems(&looked(&nested(3))), Vec::<String>::new());
    bounded(&nested(20), "deeper nesting is not examined");
}

#[test]
fn a_hole_costs_its_length() {
    // A sparse member of 4 EiB that begins with an archive: behind the archive, further archives are sought.
    let content = archive(&[b"x".to_vec()]);
    let tar = super::archives::gnu_sparse("hole", 1 << 62, &[(0, &content)]);
    let node = bounded(&tar, "the limit of");
    let hole = child(&node, "hole");
    assert_eq!((hole.size, hole.sha256), (1 << 62, None));
    assert!(problem(hole).contains("not hashed"), "{hole:#?}");
}

#[test]
fn a_root_is_sought_within_the_same_limits() {
    // The last archive of an initramfs, as an audit reads it: a file of zeros whose content alone exceeds the limit of this small file.
    let fields: [u32; 13] = [1, 0o100_644, 0, 0, 1, 0, 0xf000_0000, 0, 0, 0, 0, 2, 0];
    let header: String = fields.iter().map(|field| format!("{field:08x}")).collect();
    let begin = format!("070701{header}f\0");
    let bytes = [archive(&[b"early".to_vec()]), frame(begin.as_bytes(), 30_000)].concat();
    let source: Source = Arc::new(bytes);
    let error = find_root(&source, "x", &scratch()).expect_err("no root").to_string();
    assert!(error.contains("decompressed bytes"), "{error}");
}
