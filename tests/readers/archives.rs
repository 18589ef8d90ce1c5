//! tar and cpio as other programs write them, and cut off.

use super::{child, holds, looked, names, pattern, problem, problems, tools::check};
use std::collections::BTreeMap;
use tar::{EntryType, Header};

/// A member with this content, padded.
fn member(name: &str, kind: EntryType, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_path(name).expect("short");
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn ended(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

/// An archive of one GNU sparse member of `size` bytes, of which these ranges are stored, at most four.
pub(crate) fn gnu_sparse(name: &str, size: u64, ranges: &[(u64, &[u8])]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_path(name).expect("short");
    header.set_entry_type(EntryType::GNUSparse);
    let stored: Vec<u8> = ranges.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
    header.set_size(stored.len() as u64);
    let number = |field: &mut [u8; 12], value: u64| {
        // The binary form for numbers above 8 GiB.
        field.fill(0);
        field[0] = 0x80;
        field[4..].copy_from_slice(&value.to_be_bytes());
    };
    let gnu = header.as_gnu_mut().expect("it is one");
    number(&mut gnu.realsize, size);
    for (field, (at, bytes)) in gnu.sparse.iter_mut().zip(ranges) {
        number(&mut field.offset, *at);
        number(&mut field.numbytes, bytes.len() as u64);
    }
    header.set_cksum();
    let mut bytes = [header.as_bytes().to_vec(), stored].concat();
    bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
    bytes
}

/// Sparse files in every format of tar, and what they hold.
fn sparse_archives() -> (BTreeMap<String, Vec<u8>>, Vec<u8>, Vec<u8>) {
    let (_, made) = check(
        &[],
        "truncate -s 1048579 few many
        echo begin | dd of=few conv=notrunc status=none
        echo end | dd of=few bs=1 seek=1048575 conv=notrunc status=none
        for n in $(seq 0 59); do echo $n | dd of=many bs=4096 seek=$((n * 4)) conv=notrunc status=none; done
        echo after >after
        cp few many out/
        tar --sparse --format=gnu -cf out/gnu.tar few many after
        for version in 0.0 0.1 1.0; do tar --sparse --format=pax --sparse-version=$version -cf out/$version.tar few many after; done",
    );
    let (few, many) = (made["few"].clone(), made["many"].clone());
    (
        made.into_iter().filter(|(name, _)| name.ends_with(".tar")).collect(),
        few,
        many,
    )
}

#[test]
fn sparse_members_are_as_long_as_the_file_was() {
    let (archives, few, many) = sparse_archives();
    assert_eq!(archives.len(), 4);
    for (name, bytes) in archives {
        assert!(bytes.len() < 600_000, "{name} is not sparse: {} bytes", bytes.len());
        let node = looked(&bytes);
        assert_eq!(names(&node), ["few", "many", "after"], "{name}");
        assert!(holds(child(&node, "few"), &few), "{name}: {node:#?}");
        assert!(holds(child(&node, "many"), &many), "{name}: {node:#?}");
        assert!(holds(child(&node, "after"), b"after\n"), "{name}: {node:#?}");
        assert_eq!(problems(&node), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_damaged_map_of_a_sparse_member_is_a_problem() {
    let good = gnu_sparse("f", 5000, &[(100, b"one"), (3000, b"two")]);
    let mut content = vec![0; 5000];
    content[100..103].copy_from_slice(b"one");
    content[3000..3003].copy_from_slice(b"two");
    assert!(holds(child(&looked(&good), "f"), &content));
    for (size, ranges, why) in [
        (2000, vec![(100, &b"one"[..]), (3000, b"two")], "behind the end"),
        (5000, vec![(100, &b"one"[..]), (50, b"two")], "backwards"),
        (5000, vec![(100, &b"one"[..]), (101, b"two")], "overlap"),
        (5000, vec![(u64::MAX, &b"one"[..])], "overflow"),
    ] {
        let node = looked(&gnu_sparse("f", size, &ranges));
        let bad = child(&node, "f");
        assert!(
            problem(bad).contains("map of sparse ranges is damaged"),
            "{why}: {node:#?}"
        );
        assert!(problem(&node).contains("1 of its parts"), "{why}");
    }
    const MAJOR: &str = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n28 GNU.sparse.realsize=1000\n";
    for (records, why) in [
        (
            &*MAJOR.replace("major=1", "major=2"),
            "sparse ranges, 2.0, is not supported",
        ),
        (MAJOR, "map of sparse ranges is damaged"),
        (
            "24 GNU.sparse.size=1000\n26 GNU.sparse.map=0,10,90\n",
            "map of sparse ranges is damaged",
        ),
        (
            "24 GNU.sparse.size=1000\n25 GNU.sparse.map=0,10,90\n",
            "malformed pax record",
        ),
    ] {
        let bytes = ended(&[
            member("x", EntryType::XHeader, records.as_bytes()),
            member("f", EntryType::Regular, b"no numbers here"),
        ]);
        let said = problems(&looked(&bytes)).join("; ");
        assert!(said.contains(why), "{why}: {said}");
    }
}

#[test]
fn a_cut_archive_says_where_it_ends() {
    let whole = ended(&[
        member("a", EntryType::Regular, &pattern(700)),
        member("b", EntryType::Regular, &pattern(4096)),
    ]);
    assert_eq!(problems(&looked(&whole)), Vec::<String>::new());
    for (cut, why) in [
        (512, "0 of 700 stored bytes are there"),
        (1000, "488 of 700 stored bytes are there"),
        (1536 + 100, "cut off within the block at byte 1536"),
        (1536 + 512 + 700, "700 of 4096 stored bytes are there"),
        (1536 + 512 + 4096, "the two zero blocks at its end are missing"),
        (1536 + 512 + 4096 + 512, "the second of the two zero blocks"),
        (1536 + 512 + 4096 + 1000, "the second of the two zero blocks"),
    ] {
        let said = problems(&looked(&whole[..cut])).join("; ");
        assert!(said.contains(why), "{cut}: {said:?}");
    }
    // A size that no archive has.
    let mut header = Header::new_gnu();
    header.set_path("huge").expect("short");
    header.set_size(1 << 60);
    header.set_cksum();
    let bytes = [header.as_bytes().to_vec(), pattern(4096)].concat();
    let node = looked(&bytes);
    assert!(
        problem(child(&node, "huge")).contains("4096 of 1152921504606846976"),
        "{node:#?}"
    );
    // A header whose sum is wrong.
    let mut wrong = whole.clone();
    wrong[1536] ^= 1;
    let node = looked(&wrong);
    assert_eq!(names(&node), ["a"]);
    assert!(
        problem(&node).contains("the header at byte 1536 states the checksum"),
        "{node:#?}"
    );
}

#[test]
fn bytes_behind_the_end_are_a_problem() {
    let one = ended(&[member("a", EntryType::Regular, b"x")]);
    let padded = [one.clone(), vec![0; 8192]].concat();
    assert_eq!(problems(&looked(&padded)), Vec::<String>::new());
    let node = looked(&[padded.clone(), one.clone()].concat());
    assert_eq!(names(&node), ["a"]);
    let want = format!("{} bytes from byte {} on lie behind its end", one.len(), padded.len());
    assert!(problem(&node).contains(&want), "{node:#?}");
}

#[test]
fn a_cpio_archive_with_checksums_is_read_and_checked() {
    let (_, made) = check(
        &[],
        "mkdir d; echo one >d/a; ln d/a d/b; head -c 400000 /dev/zero | tr '\\0' x >d/large; ln -s a d/link
        cd d && find . | sort | cpio -o -H crc >../out/crc.cpio 2>/dev/null
        find . | sort | cpio -o -H newc >../out/newc.cpio 2>/dev/null",
    );
    for (name, magic) in [("crc.cpio", "070702"), ("newc.cpio", "070701")] {
        let bytes = &made[name];
        assert!(bytes.starts_with(magic.as_bytes()));
        let node = looked(bytes);
        assert_eq!(problems(&node), Vec::<String>::new(), "{name}");
        assert_eq!(names(&node), ["/", "/a", "/b", "/large", "/link"], "{name}");
        // The content of both names stands at the second one.
        for file in ["/a", "/b"] {
            assert!(holds(child(&node, file), b"one\n"), "{name} {file}: {node:#?}");
            assert_eq!(child(&node, file).fields["links"], "2");
        }
        let mut damaged = bytes.clone();
        let at = memchr::memmem::find(bytes, &[b'x'; 1000]).expect("there") + 300_000;
        damaged[at] ^= 1;
        let said = problems(&looked(&damaged)).join("; ");
        assert_eq!(
            said.contains("the content has the checksum"),
            magic == "070702",
            "{name}: {said}"
        );
    }
}

#[test]
fn an_error_behind_a_large_file_names_the_right_byte() {
    let (_, made) = check(
        &[],
        "mkdir d; head -c 300000 /dev/zero >d/a; head -c 5000000 /dev/zero >d/b; echo end >d/c
        cd d && find . | sort | cpio -o -H newc >../out/x.cpio 2>/dev/null",
    );
    let mut bytes = made["x.cpio"].clone();
    let last = memchr::memmem::rfind(&bytes, b"070701").expect("the trailer");
    bytes[last..last + 6].copy_from_slice(b"070709");
    let node = looked(&bytes);
    assert!(
        problem(&node).contains(&format!("at byte {last}:")),
        "{last}: {node:#?}"
    );
    assert_eq!(names(&node), ["/", "/a", "/b", "/c"]);
    let found = super::compared(&made["x.cpio"], &bytes);
    let said = format!("{:?}", found.differences[0].what);
    assert!(said.contains(&format!("at byte {last}:")), "{said}");
}

/// An entry of a "newc" archive.
fn newc(name: &str, mode: u32, inode: u32, links: u32, content: &[u8]) -> Vec<u8> {
    let fields = [
        inode,
        mode,
        0,
        0,
        links,
        0,
        content.len() as u32,
        0,
        0,
        0,
        0,
        name.len() as u32 + 1,
        0,
    ];
    let mut out = b"070701".to_vec();
    out.extend(fields.iter().flat_map(|f| format!("{f:08x}").into_bytes()));
    out.extend(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(content);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

#[test]
fn names_and_links_of_other_makes_of_cpio_are_read() {
    const FILE: u32 = 0o100_644;
    let trailer = newc("TRAILER!!!", 0, 0, 1, b"");
    let archive = [
        newc("./etc//a", FILE, 1, 1, b"a\n"),
        newc("/init", FILE, 2, 1, b"i\n"),
        // The content stands at the first name.
        newc("x", FILE, 3, 2, b"both\n"),
        newc("y", FILE, 3, 2, b""),
        newc("../outside", FILE, 4, 1, b"o\n"),
        newc("z", FILE, 5, 1, b"z\n"),
    ]
    .concat();
    let node = looked(&[&archive[..], &trailer].concat());
    for (name, content) in [
        ("/etc/a", &b"a\n"[..]),
        ("/init", b"i\n"),
        ("/x", b"both\n"),
        ("/y", b"both\n"),
        ("/z", b"z\n"),
    ] {
        assert!(holds(child(&node, name), content), "{name}: {node:#?}");
    }
    assert!(problem(child(&node, "../outside")).contains("../outside"), "{node:#?}");
    // In the next archive the same number is another file.
    let next = [&newc("n", FILE, 3, 2, b"")[..], &trailer].concat();
    let node = looked(&[&archive[..], &trailer, &next].concat());
    assert_eq!(child(child(&node, "segment 2 (cpio)"), "/n").size, 0, "{node:#?}");
    // Without a trailer.
    let node = looked(&archive);
    assert!(problem(&node).contains("the archive has no trailer"), "{node:#?}");
    assert!(holds(child(&node, "/z"), b"z\n"));
}
