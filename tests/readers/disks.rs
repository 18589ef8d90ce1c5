//! Partition tables and file systems: with one damaged part, and in forms that pnb does not write.

use super::{child, compared, holds, looked, names, part, problem, problems, scratch, tools::check};
use pnb::inspect::{Difference, SurveyNode, What, survey};

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
}

/// Both numbers of sectors are said, and how the disk came by them.
#[test]
fn a_disk_that_grew_or_was_cut_shows_its_partitions() {
    let disk = gpt_disk();
    let longer = [disk.clone(), vec![0; 1 << 20]].concat();
    let node = looked(&longer);
    assert_eq!((node.format, partitions(&node)), (Some("GPT disk"), BOTH.to_vec()));
    let grew = "the table is for a disk of 8192 sectors of 512 bytes, and the disk has 10240: the disk grew";
    assert!(problem(&node).starts_with(grew), "{node:#?}");
    // Without the primary copy, the end of the protective partition leads to the backup; without its number, the primary header does.
    for (what, from, to) in [
        ("header", 512, 520),
        ("array and record", 440, 510),
        ("array", 1024, 1100),
    ] {
        let mut lost = longer.clone();
        lost[from..to].fill(0);
        if what != "array" {
            assert_eq!(lost[510..512], [0x55, 0xaa]);
        }
        let node = looked(&lost);
        assert_eq!(
            (node.format, partitions(&node)),
            (Some("GPT disk"), BOTH.to_vec()),
            "{what}"
        );
        assert!(problem(&node).contains(grew), "{what}: {node:#?}");
    }
    // The primary copy and the record are gone from a disk of its first length.
    let mut lost = disk.clone();
    lost[..34 * 512].fill(0);
    let node = looked(&lost);
    assert_eq!((node.format, partitions(&node)), (Some("GPT disk"), BOTH.to_vec()));
    assert!(problem(&node).contains("the backup copy is shown"), "{node:#?}");

    // Cut within and in front of the second partition.
    for (sectors, left) in [(230, Some(30)), (200, None)] {
        let node = looked(&disk[..sectors * 512]);
        let said = problem(&node);
        let cut = format!("a disk of 8192 sectors of 512 bytes, and the disk has {sectors}: the disk was cut off");
        assert!(said.starts_with("the table is for") && said.contains(&cut), "{said}");
        let mut want = BOTH[..1].to_vec();
        if let Some(left) = left {
            want.push((BOTH[1].0, BOTH[1].1, left * 512));
            assert!(
                said.contains("entry 2 ends at sector 263, behind the last sector 229"),
                "{said}"
            );
            let part = child(&node, BOTH[1].0);
            assert!(
                problem(part).contains("15360 of its 32768 bytes are on the disk"),
                "{part:#?}"
            );
        } else {
            assert!(
                said.contains("entry 2 begins at sector 200, behind the last sector 199"),
                "{said}"
            );
        }
        assert_eq!(partitions(&node), want);
    }
}

/// What sgdisk and sfdisk say of the same disks: the partitions are equal, and where they complain, so does pnb.
#[test]
fn tables_are_read_as_sgdisk_and_sfdisk_read_them() {
    let (said, made) = check(
        &[],
        "new() { truncate -s 4M out/$1; sgdisk ${2:-} -a 8 -n 1:72:+64 -c 1:first -t 1:ef00 -n 2:200:+64 -c 2:second out/$1 >/dev/null; }
        zero() { dd if=/dev/zero of=out/$1 bs=$2 seek=$3 count=$4 conv=notrunc status=none; }
        new born; new few -S56; new many -S256
        cp out/born out/hybrid; sgdisk -h 1 out/hybrid >/dev/null
        cp out/born out/grown; truncate -s 5M out/grown
        cp out/born out/no-primary; zero no-primary 512 1 33
        cp out/born out/no-backup; zero no-backup 512 8159 33
        cp out/born out/no-record; zero no-record 512 0 1
        cp out/born out/header; printf x | dd of=out/header bs=1 seek=560 conv=notrunc status=none
        cp out/born out/array; printf x | dd of=out/array bs=1 seek=1100 conv=notrunc status=none
        cp out/born out/mixed; printf x | dd of=out/mixed bs=1 seek=560 conv=notrunc status=none; zero mixed 512 8159 1
        cp out/born out/size; printf '\\001' | dd of=out/size bs=1 seek=458 conv=notrunc status=none
        cp out/born out/ends; sgdisk -e out/ends >/dev/null; truncate -s 6M out/ends; sgdisk -e out/ends >/dev/null
        for disk in born few many hybrid grown no-primary no-backup no-record header array mixed size ends; do
            echo \"== $disk\"; sfdisk -d out/$disk 2>&1 || true
            sgdisk -v out/$disk >out/$disk.verdict 2>&1 || true
        done",
    );
    let sections: Vec<(&str, &str)> = said.split("== ").skip(1).filter_map(|s| s.split_once('\n')).collect();
    assert_eq!(sections.len(), 13, "{said}");
    let parts = [("partition 1 \"first\"", 72 * 512, 64 * 512), BOTH[1]];
    for (name, sfdisk) in sections {
        let node = looked(&made[name]);
        let verdict = String::from_utf8_lossy(&made[&format!("{name}.verdict")]).into_owned();
        assert_eq!(
            (node.format, partitions(&node)),
            (Some("GPT disk"), parts.to_vec()),
            "{name}: {node:#?}"
        );
        if !matches!(name, "no-record" | "mixed") {
            for place in [
                "start=          72, size=          64",
                "start=         200, size=          64",
            ] {
                assert!(sfdisk.contains(place), "{name}: {place}: {sfdisk}");
            }
        }
        let sound = matches!(name, "born" | "few" | "many" | "hybrid" | "ends");
        assert_eq!(problems(&node).is_empty(), sound, "{name}: {node:#?}");
        // sgdisk does not look at the length of the protective partition; sfdisk does.
        match name {
            "size" => assert!(sfdisk.contains("PMBR size mismatch"), "{sfdisk}"),
            "no-record" => {}
            _ => {
                let complains = ["Caution", "ERROR"].iter().any(|word| verdict.contains(word));
                let good = verdict.contains("No problems found") && !complains;
                assert_eq!(good, sound, "{name}: {verdict}");
            }
        }
    }
    for (name, want) in [
        (
            "no-primary",
            "the primary copy: no signature \"EFI PART\"; the backup copy is sound; the backup copy is shown",
        ),
        (
            "no-backup",
            "the primary copy is sound; the backup copy: no signature \"EFI PART\"; the primary copy is shown",
        ),
        ("no-record", "the record ends with 0000 instead of 55aa"),
        (
            "mixed",
            "the header of the backup copy and the array of the primary copy are shown",
        ),
        ("size", "the protective partition has 7937 sectors instead of 8191"),
    ] {
        assert!(
            problem(&looked(&made[name])).contains(want),
            "{name}: {:#?}",
            looked(&made[name])
        );
    }
}

/// Partitions that no tool lists side by side, with the numbers of both.
#[test]
fn entries_that_contradict_each_other_are_named_and_shown() {
    let disk = gpt_disk();
    let entry = |disk: &mut Vec<u8>, number: usize, at: usize, value: &[u8]| {
        let last = disk.len() - 512;
        for (header, array) in [(512, 1024), (last, last - 32 * 512)] {
            disk[array + (number - 1) * 128 + at..][..value.len()].copy_from_slice(value);
            let sum = crc32fast::hash(&disk[array..array + 128 * 128]);
            disk[header + 88..header + 92].copy_from_slice(&sum.to_le_bytes());
            disk[header + 16..header + 20].fill(0);
            let sum = crc32fast::hash(&disk[header..header + 92]);
            disk[header + 16..header + 20].copy_from_slice(&sum.to_le_bytes());
        }
    };
    let guid = disk[1024 + 16..1024 + 32].to_vec();
    for (number, at, value, count, why) in [
        (2, 32, 100u64.to_le_bytes().to_vec(), 2, "partitions 1 and 2 overlap"),
        (
            2,
            40,
            199u64.to_le_bytes().to_vec(),
            1,
            "entry 2 begins at sector 200, behind its end 199",
        ),
        (
            2,
            40,
            8180u64.to_le_bytes().to_vec(),
            2,
            "entry 2 with the sectors 200 to 8180 does not lie within the usable sectors 34 to 8158",
        ),
        (
            2,
            40,
            u64::MAX.to_le_bytes().to_vec(),
            2,
            "entry 2 ends at sector 18446744073709551615, behind the last sector 8191",
        ),
        (
            1,
            32,
            0u64.to_le_bytes().to_vec(),
            1,
            "entry 1 begins at sector 0, in the table itself",
        ),
        (2, 16, guid, 2, "partitions 1 and 2 have the GUID"),
        (2, 16, disk[512 + 56..512 + 72].to_vec(), 2, "of the disk"),
    ] {
        let mut changed = disk.clone();
        entry(&mut changed, number, at, &value);
        let node = looked(&changed);
        assert!(problem(&node).contains(why), "{why}: {node:#?}");
        assert_eq!(node.children.len(), count, "{why}: {node:#?}");
    }
}

#[test]
fn a_record_that_protects_no_table_is_a_problem() {
    let mut disk = gpt_disk();
    let end = disk.len();
    disk[512..1024].fill(0);
    disk[end - 512..].fill(0);
    let node = looked(&disk);
    assert_eq!((node.format, node.children.len()), (Some("GPT disk"), 0));
    let said = problem(&node);
    assert!(
        said.contains("none in sector 1 and none at the end, for sectors of 512 and of 4096 bytes"),
        "{said}"
    );
}

#[test]
fn a_comparison_says_that_the_disk_grew_and_its_partitions_are_equal() {
    let born = gpt_disk();
    let grown = [born.clone(), vec![0; 1 << 20]].concat();
    let found = compared(&born, &grown);
    let told = found.differences.iter().any(|one| {
        matches!(one.what, What::Grown { a, b, partitions: 2 } if (a, b) == (born.len() as u64, grown.len() as u64))
    });
    assert!(told, "{found:#?}");
    assert!(
        !found
            .differences
            .iter()
            .any(|one| one.path.iter().any(|name| name.contains("partition"))),
        "{found:#?}"
    );
    assert!(
        !found
            .differences
            .iter()
            .any(|one| matches!(one.what, What::Content { .. })),
        "{found:#?}"
    );
    // A changed byte in a partition, and one behind the old end, are still found.
    let mut changed = grown.clone();
    changed[200 * 512 + 3] = 1;
    changed[(4 << 20) + 700_000] = 1;
    let found = compared(&born, &changed);
    assert!(
        !found
            .differences
            .iter()
            .any(|one| matches!(one.what, What::Grown { .. })),
        "{found:#?}"
    );
    assert!(
        found
            .differences
            .iter()
            .any(|one| one.path.contains(&"partition 2 \"second\"".to_owned())),
        "{found:#?}"
    );
    let outside = |one: &Difference| matches!(one.what, What::Content { offset, .. } if offset == 4 << 20);
    assert!(found.differences.iter().any(outside), "{found:#?}");
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
    // A chain that comes back has no end; one that goes back once has.
    let link = 1024 * 512 + 0x1be + 16 + 8;
    let mut circle = made["logical"].clone();
    circle[link..link + 4].fill(0);
    let node = looked(&circle);
    assert!(
        problem(&node).contains("goes in a circle: it comes back to byte 524288"),
        "{node:#?}"
    );
    assert_eq!(names(&node), ["partition 1", "partition 5"]);

    let node = looked(&made["hybrid"]);
    assert_eq!(partitions(&node), BOTH.to_vec());
    assert_eq!(node.content["hybrid entry 1"], "type 0xef, sectors 40 to 103");
}

#[test]
fn other_file_systems_and_disks_of_other_hypervisors_are_named() {
    let (_, made) = check(
        &[],
        "for format in vmdk vdi vhdx; do qemu-img create -q -f $format out/$format 4M; done
        qemu-img create -q -f vpc out/dynamic 4M
        truncate -s 4M disk; sgdisk -n 1:2048:+64 -c 1:first disk >/dev/null
        qemu-img convert -f raw -O vpc -o subformat=fixed,force_size=on disk out/fixed
        qemu-img create -q -f vmdk -o subformat=monolithicFlat out/flat 1M; rm -f out/flat-flat.vmdk
        truncate -s 1M out/swap; mkswap out/swap >/dev/null 2>&1 || printf SWAPSPACE2 | dd of=out/swap bs=1 seek=4086 conv=notrunc status=none
        for name in ntfs exfat; do dd if=/dev/zero of=out/$name bs=4096 count=4 status=none
            printf '\\125\\252' | dd of=out/$name bs=1 seek=510 conv=notrunc status=none; done
        printf '\\353\\122\\220NTFS    ' | dd of=out/ntfs conv=notrunc status=none
        printf '\\353\\166\\220EXFAT   ' | dd of=out/exfat conv=notrunc status=none
        qemu-img create -q -f luks --object secret,id=k,data=x -o key-secret=k,iter-time=10 out/luks 1M",
    );
    for (name, format, why) in [
        ("vmdk", "VMDK", "qemu-img convert"),
        ("flat", "VMDK", "a disk in other files"),
        ("vdi", "VDI", "qemu-img convert"),
        ("vhdx", "VHDX", "qemu-img convert"),
        ("dynamic", "VHD", "qemu-img convert"),
        ("swap", "swap space", "not read here"),
        ("ntfs", "NTFS", "not read here"),
        ("exfat", "exFAT", "not read here"),
        ("luks", "LUKS", "encrypted"),
    ] {
        let node = looked(&made[name]);
        assert_eq!(
            (node.format, node.children.len()),
            (Some(format), 0),
            "{name}: {node:#?}"
        );
        assert!(problem(&node).contains(why), "{name}: {node:#?}");
    }
    let node = looked(&made["fixed"]);
    assert_eq!((node.format, problems(&node)), (Some("VHD"), Vec::new()), "{node:#?}");
    assert_eq!(child(child(&node, "disk"), "partition 1 \"first\"").size, 64 * 512);
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
