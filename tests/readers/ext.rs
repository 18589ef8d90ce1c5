//! ext2, ext3 and ext4 as mke2fs makes them with its sets of options, against the files that debugfs finds in them.

use super::{child, compared, holds, looked, names, problem, problems, tools::Contents, tools::check};
use pnb::inspect::SurveyNode;
use std::collections::BTreeMap;

/// Name, options of mke2fs, size, format that is shown, and a feature that must be among those shown.
const SHAPES: [(&str, &str, &str, &str, &str); 24] = [
    ("ext2-1k", "-t ext2 -b 1024", "14M", "ext2", "filetype"),
    ("ext2-4k", "-t ext2 -b 4096", "14M", "ext2", "filetype"),
    (
        "ext2-old",
        "-t ext2 -b 1024 -O none,sparse_super -I 128",
        "14M",
        "ext2",
        "sparse_super",
    ),
    (
        "ext2-full-copies",
        "-t ext2 -b 1024 -O ^sparse_super,^resize_inode",
        "14M",
        "ext2",
        "filetype",
    ),
    ("ext3", "-t ext3 -b 2048", "16M", "ext3", "has_journal"),
    ("ext3-128", "-t ext3 -I 128 -b 1024", "16M", "ext3", "has_journal"),
    ("ext4", "-t ext4", "16M", "ext4", "metadata_csum"),
    ("ext4-4k", "-t ext4 -b 4096", "16M", "ext4", "metadata_csum"),
    (
        "blocks-of-64k",
        "-t ext4 -b 65536 -O ^has_journal",
        "40M",
        "ext4",
        "extent",
    ),
    (
        "map-of-blocks",
        "-t ext4 -O ^extent,^64bit,^flex_bg -b 1024",
        "16M",
        "ext4",
        "dir_index",
    ),
    ("inline", "-t ext4 -I 256 -O inline_data", "16M", "ext4", "inline_data"),
    (
        "inline-1k",
        "-t ext4 -I 1024 -O inline_data -b 4096",
        "16M",
        "ext4",
        "inline_data",
    ),
    (
        "meta-bg",
        "-t ext4 -b 1024 -O meta_bg,^resize_inode,^flex_bg -N 4000 -g 256",
        "16M",
        "ext4",
        "meta_bg",
    ),
    (
        "meta-bg-32",
        "-t ext4 -b 1024 -O meta_bg,^resize_inode,^64bit,^sparse_super -g 512",
        "16M",
        "ext4",
        "meta_bg",
    ),
    (
        "bigalloc-1k",
        "-t ext4 -b 1024 -O bigalloc,^resize_inode -C 16384",
        "16M",
        "ext4",
        "bigalloc",
    ),
    ("bigalloc-4k", "-t ext4 -b 4096 -O bigalloc", "40M", "ext4", "bigalloc"),
    ("casefold", "-t ext4 -O casefold", "16M", "ext4", "casefold"),
    ("encrypt", "-t ext4 -O encrypt", "16M", "ext4", "encrypt"),
    ("ea-inode", "-t ext4 -O ea_inode", "16M", "ext4", "ea_inode"),
    ("mmp", "-t ext4 -O mmp", "16M", "ext4", "mmp"),
    (
        "sparse-super2",
        "-t ext4 -b 1024 -O sparse_super2,^resize_inode -g 1024",
        "16M",
        "ext4",
        "sparse_super2",
    ),
    ("orphan-file", "-t ext4 -O orphan_file", "16M", "ext4", "orphan_file"),
    (
        "csum-seed",
        "-t ext4 -O metadata_csum_seed,large_dir,quota,project,verity",
        "16M",
        "ext4",
        "metadata_csum_seed",
    ),
    (
        "uninit",
        "-t ext4 -O ^metadata_csum,uninit_bg,^64bit -I 128",
        "16M",
        "ext4",
        "uninit_bg",
    ),
];

/// The files that every image holds: contents of one byte to more than three levels of a block map of 1 KiB, holes, many names, links.
const FILES: &str = "mkdir -p d/many d/few
    printf x >d/few/one; head -c 60 /dev/zero | tr '\\0' i >d/sixty; head -c 140 /dev/zero | tr '\\0' j >d/inside
    : >d/empty; seq 1 120000 >d/long
    for n in $(seq 1 120); do echo $n >d/many/a-name-that-takes-some-room-$n; done
    : >d/holes
    for at in 0 11 12 267 268 65803 65804 68000; do echo at $at | dd of=d/holes bs=1024 seek=$at conv=notrunc status=none; done
    ln -s few/one d/short; ln -s $(head -c 120 /dev/zero | tr '\\0' s) d/far; ln d/long d/again\n";

/// The images, after debugfs found in each the files that mke2fs put there; it writes 60 bytes of a shorter file with inline data.
fn images() -> Contents {
    let mut script = FILES.to_owned();
    script.push_str("(cd d && find . -type f | LC_ALL=C sort | xargs -d '\\n' sha256sum) >out/sums\n");
    for (name, options, size, ..) in SHAPES {
        script.push_str(&format!(
            "mke2fs -q -F -m 0 -E lazy_itable_init=0 {options} -d d {name} {size} >said 2>&1 || {{ cat said; exit 3; }}
            mkdir r; debugfs -R 'rdump / r' {name} >said 2>&1 || {{ cat said; exit 4; }}
            case {name} in inline*) ;; *) diff -r --no-dereference -x lost+found d r || exit 5;; esac
            debugfs -R 'stat /holes' {name} 2>/dev/null >out/{name}.stat
            rm -r r; mv {name} out/\n"
        ));
    }
    check(&[], &script).1
}

/// The digest of each regular file.
fn sums(node: &SurveyNode) -> BTreeMap<String, String> {
    let files = node.children.iter().filter(|c| c.sha256.is_some());
    files
        .map(|c| (format!(".{}", c.name), c.sha256.expect("hashed").to_string()))
        .collect()
}

#[test]
fn every_shape_of_ext_shows_the_files_that_debugfs_finds() {
    let made = images();
    let said = std::str::from_utf8(&made["sums"]).expect("text").lines();
    let said: BTreeMap<String, String> = said
        .map(|line| (line[66..].to_owned(), line[..64].to_owned()))
        .collect();
    assert!(said.len() > 120, "{}", said.len());
    for (name, _, _, format, feature) in SHAPES {
        let node = looked(&made[name]);
        assert_eq!(problems(&node), Vec::<String>::new(), "{name}");
        assert_eq!(node.format, Some(format), "{name}");
        assert!(node.content["features"].contains(feature), "{name}: {:?}", node.content);
        assert_eq!(sums(&node), said, "{name}");
        let links: Vec<_> = ["/short", "/far"]
            .iter()
            .map(|link| child(&node, link).fields["target"].as_str())
            .collect();
        assert_eq!(links, ["few/one", &"s".repeat(120)], "{name}");
        // A byte of a file is that file's, wherever the format stores it.
        let mut changed = made[name].clone();
        let at = memchr::memmem::rfind(&changed, &[b'j'; 60]).expect("stored") + 3;
        changed[at] = b'k';
        let found = compared(&made[name], &changed);
        let ways: Vec<String> = found.differences.iter().map(|d| d.path.join(" / ")).collect();
        assert!(ways.iter().any(|way| way.contains("/inside")), "{name}: {ways:?}");
    }
    // The shapes show something only where the map has three levels.
    let stat = std::str::from_utf8(&made["ext2-1k.stat"]).expect("text");
    assert!(stat.contains("(TIND)"), "{stat}");
}

#[test]
fn extended_attributes_are_shown_wherever_they_lie() {
    let (_, made) = check(
        &[],
        "mkdir d; echo a >d/a; echo b >d/b; printf v%.0s $(seq 1 2000) >large; head -c 4096 /dev/zero | tr '\\0' w >huge
        mke2fs -q -t ext4 -b 4096 -O ea_inode -d d x 20M
        debugfs -w -R 'ea_set /a user.small value' x; debugfs -w -R 'ea_set /a security.selinux system_u:object_r:etc_t:s0' x
        debugfs -w -R 'ea_set -f large /a trusted.large' x
        debugfs -w -R 'ea_set -f huge /b user.huge' x
        debugfs -R 'ea_list /b' x >out/list; mv x out/",
    );
    let node = looked(&made["x"]);
    assert_eq!(problems(&node), Vec::<String>::new());
    let fields = &child(&node, "/a").fields;
    assert_eq!(fields["attribute user.small"], "value", "{fields:?}");
    assert_eq!(fields["attribute security.selinux"], "system_u:object_r:etc_t:s0");
    let want = format!("2000 bytes, sha256 {}", super::sha256(&[b'v'; 2000]));
    assert_eq!(fields["attribute trusted.large"], want);
    let list = String::from_utf8_lossy(&made["list"]).into_owned();
    assert!(list.contains("user.huge (4096)"), "{list}");
    let want = format!("4096 bytes, sha256 {}", super::sha256(&[b'w'; 4096]));
    assert_eq!(child(&node, "/b").fields["attribute user.huge"], want);
}

/// `debugfs` writes the feature's bit, and the checksum of the superblock with it.
fn with_feature(feature: &str) -> Vec<u8> {
    let script = format!(
        "mkdir d; echo hello >d/greeting
        mke2fs -q -t ext4 -d d out/x 20M; debugfs -w -R 'feature {feature}' out/x >/dev/null"
    );
    check(&[], &script).1.remove("x").expect("made")
}

#[test]
fn a_feature_that_is_not_known_hides_nothing_and_is_named() {
    for (feature, said) in [
        ("FEATURE_I29", "not supported: incompat:0x20000000"),
        ("compression", "not supported: compression"),
    ] {
        let node = looked(&with_feature(feature));
        assert!(problem(&node).contains(said), "{feature}: {:?}", node.problem);
        assert!(holds(child(&node, "/greeting"), b"hello\n"), "{feature}: {node:#?}");
        assert_eq!(node.content["block size"], "1024", "{feature}: {node:#?}");
    }
    // A journal without a transaction hides nothing.
    let node = looked(&with_feature("needs_recovery"));
    assert_eq!(problems(&node), Vec::<String>::new());
    assert_eq!(
        node.content["journal"], "empty; the file system was not unmounted",
        "{node:#?}"
    );
    assert!(holds(child(&node, "/greeting"), b"hello\n"), "{node:#?}");
    // Features that only forbid writing are no problem for a reader.
    let node = looked(&with_feature("FEATURE_R30"));
    assert_eq!(problems(&node), Vec::<String>::new());
    assert!(node.content["features"].contains("ro_compat:0x40000000"), "{node:#?}");
}

#[test]
fn a_journal_on_a_device_of_its_own_is_named() {
    let (_, made) = check(
        &[],
        "mke2fs -q -O journal_dev -b 4096 -L log out/journal 16M
        mkdir d; echo hello >d/greeting; mke2fs -q -t ext4 -O ^has_journal -d d x 20M
        debugfs -w -R 'feature has_journal needs_recovery' x >/dev/null; mv x out/",
    );
    let node = looked(&made["journal"]);
    assert_eq!(
        (node.format, problems(&node)),
        (Some("ext4 journal"), Vec::new()),
        "{node:#?}"
    );
    assert_eq!(node.content["label"], "log");
    let node = looked(&made["x"]);
    assert!(
        problem(&node).contains("the journal, which is on another device"),
        "{node:#?}"
    );
    assert!(holds(child(&node, "/greeting"), b"hello\n"), "{node:#?}");
}

#[test]
fn structures_with_another_checksum_are_named() {
    let (_, made) = check(
        &[],
        "mkdir d; echo hello >d/greeting; mke2fs -q -t ext4 -b 4096 -d d out/x 20M
        debugfs -R 'imap /greeting' out/x >out/place; dumpe2fs -h out/x >out/said 2>/dev/null",
    );
    assert!(String::from_utf8_lossy(&made["said"]).contains("metadata_csum"));
    // "located at block 12, offset 0x0300"
    let said = String::from_utf8_lossy(&made["place"]).into_owned();
    let place = said
        .split("located at block ")
        .nth(1)
        .and_then(|s| s.trim().split_once(", offset 0x"));
    let (block, offset) = place.expect("a place");
    let inode = block.parse::<usize>().expect("a number") * 4096 + usize::from_str_radix(offset, 16).expect("a number");
    // The label, the free blocks of a group, the owner, and a name.
    let name = memchr::memmem::find(&made["x"], b"greeting").expect("stored");
    for (at, said, part) in [
        (1024 + 0x78, "the superblock does not have its checksum", ""),
        (4096 + 0xc, "the descriptors of 1 groups, of which 0 is the first", ""),
        (inode + 2, "does not have its checksum", "/greeting"),
        (name, "block 0 does not have its checksum", ""),
    ] {
        let mut bytes = made["x"].clone();
        bytes[at] ^= 1;
        let node = looked(&bytes);
        let holder = if part.is_empty() { &node } else { child(&node, part) };
        assert!(problem(holder).contains(said), "{at}: {node:#?}");
        assert!(names(&node).iter().any(|n| n.ends_with("reeting")), "{at}: {node:#?}");
    }
    assert_eq!(problems(&looked(&made["x"])), Vec::<String>::new());
}

#[test]
fn a_map_that_names_its_own_blocks_ends() {
    let (_, made) = check(
        &[],
        "mkdir d; head -c 300000 /dev/zero | tr '\\0' z >d/z; echo hello >d/greeting
        mke2fs -q -t ext2 -b 1024 -d d out/x 4M; debugfs -R 'stat /z' out/x >out/stat; debugfs -R 'imap /z' out/x >out/place",
    );
    let said = String::from_utf8_lossy(&made["place"]).into_owned();
    let place = said
        .split("located at block ")
        .nth(1)
        .and_then(|s| s.trim().split_once(", offset 0x"));
    let (block, offset) = place.expect("a place");
    let inode = block.parse::<usize>().expect("a number") * 1024 + usize::from_str_radix(offset, 16).expect("a number");
    let mut bytes = made["x"].clone();
    let entry = |n: usize| inode + 0x28 + 4 * n;
    let double = u32::from_le_bytes(bytes[entry(13)..][..4].try_into().expect("four")) as usize;
    for (at, to, why) in [
        (double * 1024, double as u32, "is twice in one block map"),
        (entry(0), 0x7fff_ffff, "is said to be at block 2147483647"),
    ] {
        let before = bytes.clone();
        bytes[at..at + 4].copy_from_slice(&to.to_le_bytes());
        let node = looked(&bytes);
        assert!(problem(child(&node, "/z")).contains(why), "{node:#?}");
        assert!(holds(child(&node, "/greeting"), b"hello\n"));
        bytes = before;
    }
}
