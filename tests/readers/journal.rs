//! Journals that the kernel would replay, as debugfs writes them: the files after them, against e2fsck on a copy.

use super::{child, compared, holds, looked, names, problem, problems, sha256, tools::check};
use pnb::{
    image::{
        ReadAt,
        ext4::{JournalFacts, Replayed, replay},
    },
    inspect::SurveyNode,
};
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

/// Name, options of mke2fs, size of a block, options of debugfs's `journal_open`.
const SHAPES: [(&str, &str, usize, &str); 6] = [
    ("ext3", "-t ext3 -b 1024", 1024, ""),
    ("plain", "-t ext4 -b 4096 -O ^metadata_csum,^64bit", 4096, ""),
    ("wide", "-t ext4 -b 1024 -O ^metadata_csum,64bit", 1024, ""),
    ("sums-2", "-t ext4 -b 4096", 4096, "-c -v 2"),
    ("sums-3", "-t ext4 -b 4096", 4096, "-c -v 3"),
    (
        "sums-3-small",
        "-t ext4 -b 1024 -O ^64bit,metadata_csum",
        1024,
        "-c -v 3",
    ),
];

/// The magic of the journal's own blocks, with which a block of a file can begin too.
const MAGIC: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];

/// For each shape: the file system before some changes and after them.
fn before_and_after() -> BTreeMap<String, Vec<u8>> {
    let mut script = "mkdir -p d/dir; echo kept >d/kept; echo gone >d/gone; seq 1 9000 >d/long; echo old >d/dir/changed
        printf '\\300\\073\\071\\230' >magic; seq 1 2000 >>magic; echo new >changed\n"
        .to_owned();
    for (name, options, ..) in SHAPES {
        let changes = "rm /gone\\nwrite magic /magic\\nmkdir /made\\nwrite changed /made/file\\nrm /dir/changed\\nwrite changed /dir/changed";
        let _ = write!(
            script,
            "mke2fs -q -F -m 0 -E lazy_itable_init=0 {options} -J size=4 -d d out/{name}.old 24M
            cp out/{name}.old out/{name}.new; printf '{changes}\\n' >commands; debugfs -w -f commands out/{name}.new >said 2>&1\n"
        );
    }
    check(&[], &script).1
}

/// The transactions that lead from `old` to `new`, as commands of debugfs with the files that they name. Every changed block is in the second
/// one with its new bytes; in the first one some have others, and so has a block that is not changed and that the second one revokes.
fn transactions(name: &str, old: &[u8], new: &[u8], block: usize, open: &str, place: &Path) -> (String, usize) {
    let changed: Vec<usize> = (0..old.len() / block)
        .filter(|at| old[at * block..][..block] != new[at * block..][..block])
        .collect();
    assert!(changed.len() > 6, "{name}: {changed:?}");
    let list = |blocks: &[usize]| blocks.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let kept = memchr::memmem::find(old, b"kept\n").expect("stored") / block;
    assert!(!changed.contains(&kept));
    let first = [&changed[..3], &[kept]].concat();
    let file = |number: usize, bytes: Vec<u8>| {
        fs::write(place.join(format!("{name}.{number}")), bytes).expect("written");
        format!("{name}.{number}")
    };
    let one = file(1, vec![0x5a; first.len() * block]);
    let bytes: Vec<u8> = changed
        .iter()
        .flat_map(|at| &new[at * block..][..block])
        .copied()
        .collect();
    let two = file(2, bytes);
    let commands = format!(
        "jo {open}\njw -b {} /inputs/0/{one}\njw -b {} -r {kept} /inputs/0/{two}\njc\n",
        list(&first),
        list(&changed)
    );
    (commands, changed.len())
}

/// The digest or the target of each part, by its name.
fn content(node: &SurveyNode) -> BTreeMap<String, String> {
    let said = |c: &SurveyNode| {
        let sum = c.sha256.map(|sum| sum.to_string());
        format!("{:?} {:?} {:?}", c.fields.get("mode"), c.fields.get("flags"), sum)
    };
    node.children.iter().map(|c| (c.name.clone(), said(c))).collect()
}

/// The bytes of an image with its journal laid over it.
fn laid_over(bytes: &[u8]) -> (Vec<u8>, Replayed<Vec<u8>>) {
    let replayed = replay(bytes.to_vec())
        .expect("read")
        .expect("there is a journal to replay");
    let mut all = vec![0; bytes.len()];
    // In pieces that begin and end anywhere.
    for (n, piece) in all.chunks_mut(10_007).enumerate() {
        replayed.image.read_exact_at(piece, n as u64 * 10_007).expect("inside");
    }
    (all, replayed)
}

/// Dirty images of all shapes, with the number of blocks that they change; and what e2fsck makes of a copy of each.
struct Dirty {
    made: BTreeMap<String, Vec<u8>>,
    images: BTreeMap<String, Vec<u8>>,
    changed: BTreeMap<String, usize>,
}

fn dirty() -> Dirty {
    let made = before_and_after();
    let dir = tempfile::tempdir().expect("scratch");
    let (mut script, mut changed) = (String::new(), BTreeMap::new());
    for (name, _, block, open) in SHAPES {
        let (old, new) = (&made[&format!("{name}.old")], &made[&format!("{name}.new")]);
        let (commands, count) = transactions(name, old, new, block, open, dir.path());
        fs::write(dir.path().join(format!("{name}.commands")), commands).expect("written");
        fs::write(dir.path().join(format!("{name}.old")), old).expect("written");
        changed.insert(name.to_owned(), count);
        let _ = write!(
            script,
            "cp /inputs/0/{name}.old out/{name}; debugfs -w -f /inputs/0/{name}.commands out/{name} >said 2>&1
            ! grep -i 'error\\|unable\\|usage' said >&2 || exit 3
            cp out/{name} out/{name}.only; e2fsck -E journal_only -p out/{name}.only >said 2>&1 || [ $? -le 1 ] || {{ cat said; exit 4; }}
            cp out/{name} out/{name}.fsck; e2fsck -fy out/{name}.fsck >said 2>&1 || [ $? -le 1 ] || {{ cat said; exit 5; }}\n"
        );
    }
    let images = check(&[dir.path()], &script).1;
    Dirty { made, images, changed }
}

#[test]
fn a_journal_is_laid_over_the_files_as_e2fsck_replays_it() {
    let Dirty { made, images, changed } = dirty();
    for (name, _, block, _) in SHAPES {
        let image = &images[name];
        let node = looked(image);
        assert_eq!(problems(&node), Vec::<String>::new(), "{name}");
        let said = format!(
            "replayed in memory: 2 transactions, {} blocks, 1 revoked; the file system was not unmounted",
            changed[name]
        );
        assert_eq!(node.content["journal"], said, "{name}");
        assert_eq!(names(&node), ["with its journal"], "{name}");
        let inside = child(&node, "with its journal");
        let (fsck, new) = (
            looked(&images[&format!("{name}.fsck")]),
            looked(&made[&format!("{name}.new")]),
        );
        assert_eq!(content(inside), content(&fsck), "{name}");
        assert_eq!(content(inside), content(&new), "{name}");
        assert!(
            holds(child(inside, "/made/file"), b"new\n") && holds(child(inside, "/kept"), b"kept\n"),
            "{name}"
        );
        let magic = child(inside, "/magic").sha256.expect("hashed").to_string();
        let lines: String = (1..=2000).map(|n| format!("{n}\n")).collect();
        assert_eq!(magic, sha256(&[&MAGIC[..], lines.as_bytes()].concat()), "{name}");

        // Every byte is the one that e2fsck leaves, but for the superblocks of the file system and of the journal.
        let (all, replayed) = laid_over(image);
        let JournalFacts {
            transactions,
            blocks,
            revoked,
        } = replayed.facts;
        assert_eq!((transactions, blocks, revoked), (2, changed[name], 1), "{name}");
        let only = &images[&format!("{name}.only")];
        let differ: Vec<usize> = (0..all.len() / block)
            .filter(|at| all[at * block..][..block] != only[at * block..][..block])
            .filter(|at| !(*at * block..(at + 1) * block).contains(&1024))
            .collect();
        let journal: Vec<usize> = differ
            .iter()
            .copied()
            .filter(|at| all[at * block..].starts_with(&MAGIC))
            .collect();
        assert_eq!(differ, journal, "{name}: only the journal's own superblock");
        assert!(journal.len() <= 1, "{name}: {journal:?}");
        // Two images that differ in their journals alone differ in the files.
        let found = compared(image, &images[&format!("{name}.fsck")]);
        assert!(found.total > 0, "{name}");
    }
}

/// Offset of the journal's superblock.
fn journal(image: &[u8]) -> usize {
    let at = (0..image.len())
        .step_by(1024)
        .find(|at| image[*at..].starts_with(&MAGIC) && image[at + 7] == 4);
    at.expect("a journal")
}

#[test]
fn damage_in_a_journal_ends_it_there_and_is_named() {
    let Dirty { made, images, .. } = dirty();
    // A byte of a block of the second transaction, of its descriptor, and of its commit block.
    let image = &images["sums-3"];
    let log = journal(image);
    let kinds: Vec<(usize, u8)> = (1..200)
        .map(|n| log + n * 4096)
        .filter(|at| image[*at..].starts_with(&MAGIC) && image[at + 8..at + 12] != [0; 4])
        .map(|at| (at, image[at + 7]))
        .collect();
    let descriptors: Vec<usize> = kinds.iter().filter(|(_, kind)| *kind == 1).map(|(at, _)| *at).collect();
    let commits: Vec<usize> = kinds.iter().filter(|(_, kind)| *kind == 2).map(|(at, _)| *at).collect();
    assert!(descriptors.len() >= 2 && commits.len() == 2, "{kinds:?}");
    let damaged = |at: usize| {
        let mut image = image.clone();
        image[at] ^= 1;
        looked(&image)
    };
    let node = damaged(descriptors[1] + 4096 + 100);
    assert!(
        problem(&node).contains(
            "of the journal does not have its checksum: it is left out, and the kernel refuses the file system"
        ),
        "{node:#?}"
    );
    for at in [descriptors[1] + 100, commits[1] + 60] {
        let node = damaged(at);
        let said = "of the journal does not have its checksum: it and all later ones are left out";
        assert!(problem(&node).contains(said), "{at}: {node:#?}");
        assert!(
            node.content["journal"].starts_with("replayed in memory: 1 transactions, 4 blocks, 0 revoked"),
            "{node:#?}"
        );
    }
    // Without its commit block, the second transaction was not finished, which is no damage.
    let mut image = images["sums-3"].clone();
    image[commits[1]..commits[1] + 4096].fill(0);
    let node = looked(&image);
    let said = "replayed in memory: 1 transactions, 4 blocks, 0 revoked";
    assert_eq!(
        (node.content["journal"].starts_with(said), &node.problem),
        (true, &None),
        "{node:#?}"
    );
    // Of a journal that cannot be read, the files are shown as they lie there.
    let node = damaged(log + 0x30);
    assert!(
        problem(&node).contains("the journal does not have the checksum of its superblock"),
        "{node:#?}"
    );
    let old = looked(&made["sums-3.old"]);
    assert_eq!(content(&node).get("/gone"), content(&old).get("/gone"));
    // An asynchronous commit is read as any other, and a feature from the future is not.
    let mut image = images["plain"].clone();
    let log = journal(&image);
    image[log + 0x2b] |= 0x4;
    assert_eq!(problems(&looked(&image)), Vec::<String>::new());
    image[log + 0x2a] |= 0x1;
    assert!(
        problem(&looked(&image)).contains("the journal has the features 0x10"),
        "{:?}",
        looked(&image).problem
    );
}

#[test]
fn fast_commits_are_named() {
    let (_, made) = check(
        &[],
        "mkdir d; echo hello >d/greeting; mke2fs -q -t ext4 -b 4096 -O fast_commit,^metadata_csum -J size=4 -d d x 24M
        head -c 4096 /dev/zero >zeros; printf 'jo\\njw -b 5000 zeros\\njc\\n' >commands; debugfs -w -f commands x >said 2>&1
        dumpe2fs -h x >out/said 2>/dev/null; fast=$(sed -n 's/^Fast commit length: *//p' out/said)
        debugfs -R \"bmap <8> $(($(sed -n 's/^Total journal blocks: *//p' out/said) - fast + 1))\" x >out/place; mv x out/",
    );
    let mut image = made["x"].clone();
    let log = journal(&image);
    // The kernel sets the journal's feature when it mounts the file system.
    image[log + 0x2b] |= 0x20;
    let image = &image;
    let number = |at: usize| u32::from_be_bytes(image[log + at..log + at + 4].try_into().expect("4 bytes"));
    assert!(String::from_utf8_lossy(&made["said"]).contains(" fast_commit "));
    let node = looked(image);
    assert_eq!(problems(&node), Vec::<String>::new(), "{node:#?}");
    // A head of a fast commit behind the one transaction, and one of an older turn.
    let block: usize = String::from_utf8_lossy(&made["place"]).trim().parse().expect("a block");
    let place = block * 4096;
    for (later, said) in [(1, true), (0, false)] {
        let mut image = image.clone();
        image[place..place + 4].copy_from_slice(&[9, 0, 8, 0]);
        image[place + 8..place + 12].copy_from_slice(&(number(0x18) + later).to_le_bytes());
        let node = looked(&image);
        let named = problem(&node).contains("the journal has fast commits behind transaction");
        assert_eq!(named, said, "{node:#?}");
    }
}
