//! FAT volumes: of every size of sectors, with one fault each, against mtools and fsck.fat.

use super::{child, compared, holds, looked, names, problem, problems, tools::check};
use pnb::{image::fat::Fat, inspect::SurveyNode};

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
fn fat_of_every_size_of_sectors_and_number_of_tables_is_read() {
    let (said, made) = check(
        &[],
        "export MTOOLS_SKIP_CHECK=1; echo x >f; head -c 100000 /dev/zero | tr '\\0' z >large
        make() { truncate -s $2 out/$1; shift 2; mkfs.fat \"$@\" >/dev/null 2>&1; }
        for size in 512 1024 2048 4096; do
            make 12-$size 2M -F 12 -S $size out/12-$size
            make 16-$size 80M -F 16 -S $size out/16-$size
            make 32-$size 300M -F 32 -S $size out/32-$size
        done
        make tables 8M -f 4 out/tables; make one-table 8M -f 1 out/one-table
        make small32 8M -F 32 -s 1 out/small32
        for disk in out/*; do
            mcopy -i $disk f ::/FILE; mmd -i $disk ::/a-directory; mcopy -i $disk large ::/a-directory/large
            fsck.fat -n $disk >verdict 2>&1 || cat verdict
        done
        cd out; for disk in *; do case $disk in *32*) ;; *) continue;; esac
            mv $disk whole; dd if=whole of=$disk bs=1M count=4 status=none; rm whole; done",
    );
    assert_eq!(made.len(), 15, "{said}");
    for (name, volume) in &made {
        let node = looked(volume);
        let kind = if name.contains("32") {
            "FAT32"
        } else if !name.starts_with("16") {
            "FAT12"
        } else {
            "FAT16"
        };
        assert_eq!(node.format, Some(kind), "{name}");
        assert!(holds(child(&node, "/FILE"), b"x\n"), "{name}: {node:#?}");
        assert!(
            holds(child(&node, "/a-directory/large"), &[b'z'; 100_000]),
            "{name}: {node:#?}"
        );
        match name.as_str() {
            "small32" => assert!(problem(&node).contains("it has the fields of FAT32 and"), "{node:#?}"),
            name if name.starts_with("32") => {
                // Only its first MiB are kept here.
                assert!(problem(&node).contains("in an image of 4194304"), "{name}: {node:#?}");
            }
            _ => assert_eq!(problems(&node), Vec::<String>::new(), "{name}"),
        }
        let sector = name
            .split_once('-')
            .and_then(|(_, size)| size.parse::<u64>().ok())
            .unwrap_or(512);
        let said = node
            .content
            .get("sector size")
            .map_or(512, |size| size.parse().expect("a number"));
        assert_eq!(said, sector, "{name}");
    }
}

/// Each volume has one fault; fsck.fat complains of the same ones.
#[test]
fn faults_that_fsck_mends_are_problems_and_hide_no_file() {
    let (said, made) = check(
        &[],
        "export MTOOLS_SKIP_CHECK=1; echo x >f; head -c 3000 /dev/zero | tr '\\0' z >large
        put() { printf \"$3\" | dd of=out/$1 bs=1 seek=$2 conv=notrunc status=none; }
        truncate -s 8M out/whole; mkfs.fat -F 16 -s 1 -R 1 -f 2 -n LABEL out/whole >/dev/null
        mcopy -i out/whole f ::/FILE; mcopy -i out/whole large ::/LARGE; mmd -i out/whole ::/DIR; mcopy -i out/whole f ::/DIR/INNER
        table=512; size=$(( $(od -An -tu2 -j22 -N2 out/whole) * 512 )); root=$(( table + 2 * size ))
        for fault in dirty tables lost crossed directory deleted signature kind page label media; do cp out/whole out/$fault; done
        put dirty 37 '\\001'
        put tables $(( table + size + 9 )) '\\377'
        put lost $(( table + 2 * 4000 )) '\\377\\377'; put lost $(( table + size + 2 * 4000 )) '\\377\\377'
        # The second entry behind the label is LARGE; it now begins where FILE does, and FILE is as long.
        put crossed $(( root + 32 + 26 )) '\\003'; put crossed $(( root + 32 + 28 )) '\\270\\013'
        put directory $(( root + 96 + 28 )) '\\001'
        put deleted $(( root + 32 )) '\\345'
        put signature 510 '\\000\\000'
        put kind 54 'NOTHING '
        put page $(( root + 32 )) 'F\\204\\201E'
        put label 43 'NO NAME    '
        put media 21 '\\001'
        for fault in whole dirty tables lost crossed directory deleted signature kind page label media; do
            echo \"== $fault\"; fsck.fat -n out/$fault 2>&1 || true; done",
    );
    let verdicts: Vec<(&str, &str)> = said.split("== ").skip(1).filter_map(|s| s.split_once('\n')).collect();
    assert_eq!(verdicts.len(), 12, "{said}");
    for (name, verdict) in verdicts {
        let node = looked(&made[name]);
        assert_eq!(node.format, Some("FAT16"), "{name}");
        let (want, judged) = match name {
            "whole" | "kind" | "page" => ("", ""),
            "dirty" => ("its dirty bit is set", "Dirty bit is set"),
            "tables" => ("a copy of the table differs", "differ"),
            "lost" => (
                "1 clusters are in use but belong to no file",
                "Reclaimed 1 unused cluster",
            ),
            "crossed" => ("shares cluster 3 with another entry", "share clusters"),
            "directory" => ("the size of the directory \"DIR\" is 1 instead of 0", "non-zero size"),
            "deleted" => (
                "1 clusters are in use but belong to no file",
                "Reclaimed 1 unused cluster",
            ),
            "signature" => ("the boot sector does not end with 55aa", ""),
            "media" => ("the media descriptor is 0x01", ""),
            // The label of the root counts for us; fsck.fat mends the other one.
            "label" => ("", ""),
            other => panic!("{other}"),
        };
        assert!(verdict.contains(judged), "{name}: {judged}: {verdict}");
        if want.is_empty() {
            assert_eq!(problems(&node), Vec::<String>::new(), "{name}: {verdict}");
        } else {
            assert!(problem(&node).contains(want), "{name}: {node:#?}\n{verdict}");
        }
        if name != "media" {
            assert_eq!(node.content.get("label").map(String::as_str), Some("LABEL"), "{name}");
        }
        let file = match name {
            "page" => "/FäüE",
            "deleted" => "/LARGE",
            _ => "/FILE",
        };
        assert!(child(&node, file).sha256.is_some(), "{name}: {node:#?}");
        assert!(holds(child(&node, "/DIR/INNER"), b"x\n"), "{name}: {node:#?}");
        assert_eq!(
            names(&node).contains(&"/FILE"),
            !matches!(name, "page" | "deleted"),
            "{name}"
        );
    }
}
