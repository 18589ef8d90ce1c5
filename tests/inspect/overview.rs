//! The overview of a comparison: what is summed up, what is listed, and what follows.

use super::{disk, large, scratch};
use crate::fixture::{artifact, facts, lock, path, pattern, root_image, root_image_of, write_all};
use pnb::{
    manifest::Statements,
    model::{RelPath, VerityDigest},
};
use std::{collections::BTreeMap, path::Path};

/// Two directories as `pnb build` leaves them: the root's image, the statements, and a kernel.
fn opened(
    dir: &Path,
    files: &BTreeMap<RelPath, Vec<u8>>,
    root: VerityDigest,
    change: impl FnOnce(&mut pnb::manifest::Facts<'_>),
) -> pnb::inspect::Opened {
    let lock = lock();
    let mut facts = facts(&lock, root, files);
    change(&mut facts);
    write_all(dir, files, &Statements::describe(&facts).expect("whole facts"));
    pnb::inspect::open_path(dir).expect("readable")
}

fn overview(a: &pnb::inspect::Opened, b: &pnb::inspect::Opened) -> (pnb::inspect::Overview, BTreeMap<String, String>) {
    let found = pnb::inspect::compare_artifacts(a, b, &scratch(), &|_| {}).expect("readable");
    let summary = found.overview.summary.iter();
    let summary = summary
        .map(|aspect| (aspect.name.to_owned(), aspect.text.clone()))
        .collect();
    assert_eq!(found.overview.total, found.found.total);
    (found.overview, summary)
}

#[test]
fn a_changed_root_is_summed_up_by_files_and_packages_and_what_follows_comes_last() {
    let (dir_a, dir_b) = (
        tempfile::tempdir().expect("scratch"),
        tempfile::tempdir().expect("scratch"),
    );
    let (image_a, root_a) = root_image();
    // The second file has another content and length, the third is text in the image, and the fourth is new.
    let contents = [pattern(70_000), pattern(6_000), b"other".to_vec(), pattern(9_000)];
    let (image_b, root_b) = root_image_of(&contents);
    let files_a = artifact(image_a, format!("{root_a}\n").as_bytes());
    let files_b = artifact(&image_b, format!("{root_b}\n").as_bytes());
    let a = opened(dir_a.path(), &files_a, *root_a, |_| {});
    let b = opened(dir_b.path(), &files_b, root_b, |facts| {
        facts
            .package_sets
            .insert("boot/amd64".to_owned(), pnb::manifest::Role::Target);
        facts.kernel_command_line = "powernode.boot=1 quiet lockdown=integrity".to_owned();
    });
    let (found, summary) = overview(&a, &b);
    let short = |digest: &VerityDigest| digest.to_string()[..12].to_owned();
    let root = format!(
        "+1 -0 ~2 files, 9.77 KiB more ({} -> {})",
        short(root_a),
        short(&root_b)
    );
    let wanted = [
        ("command line", "+quiet"),
        ("initramfs", "equal beside the digest of the root in it"),
        ("kernel", "equal (6.12.43+deb13-amd64)"),
        ("packages", "+1 -0 ~0"),
        ("root", root.as_str()),
    ];
    assert_eq!(
        summary,
        wanted.map(|(name, text)| (name.to_owned(), text.to_owned())).into()
    );
    let names: Vec<&str> = found.sections.iter().map(|section| section.name).collect();
    assert_eq!(names, ["packages", "root", "initramfs", "statements"]);
    let rows = |section: usize| -> Vec<String> {
        let groups = found.sections[section].groups.iter();
        let rows = groups.flat_map(|group| group.rows.iter().map(move |row| (group, row)));
        rows.map(|(group, row)| format!("{} {}{} {}", row.mark.sign(), group.name, row.name, row.detail))
            .collect()
    };
    assert_eq!(rows(0), ["+ unused:amd64 1"]);
    assert_eq!(
        rows(1),
        [
            "~ /file1 4.88 KiB -> 5.86 KiB",
            "~ /file2 content differs at byte 0 (5 bytes differ): \"small\" against \"other\"",
            "+ /file3 8.79 KiB",
        ]
    );
    // Objects, tables and the image of the root are counted, and each statement is one row.
    assert!(found.sections[1].implied > 4, "{found:#?}");
    assert!(rows(3).iter().all(|row| row.starts_with("~ ")), "{:?}", rows(3));
    assert_eq!(rows(3).len(), 5);
    let (same, summary) = overview(&a, &a);
    assert_eq!((same.total, same.sections.len()), (0, 0), "{same:#?}");
    assert!(summary.values().all(|text| text.starts_with("equal")), "{summary:?}");
}

/// An object whose bytes are not those of its name is never taken for a consequence.
#[test]
fn a_damaged_object_is_shown_beside_a_changed_file() {
    let (dir_a, dir_b) = (
        tempfile::tempdir().expect("scratch"),
        tempfile::tempdir().expect("scratch"),
    );
    let (image_a, root_a) = root_image();
    let (mut image_b, root_b) = root_image_of(&[pattern(70_000), pattern(6_000), b"small".to_vec()]);
    let object = large(&image_b);
    image_b[object + 5000] ^= 1;
    let a = opened(dir_a.path(), &artifact(image_a, b"a\n"), *root_a, |_| {});
    let b = opened(dir_b.path(), &artifact(&image_b, b"a\n"), root_b, |_| {});
    let (found, _) = overview(&a, &b);
    let root = found
        .sections
        .iter()
        .find(|section| section.name == "root")
        .expect("changed");
    let rows: Vec<&str> = root
        .groups
        .iter()
        .flat_map(|g| &g.rows)
        .map(|row| row.name.as_str())
        .collect();
    assert!(
        rows.contains(&"file1") && rows.iter().any(|row| row.starts_with("/objects/")),
        "{rows:?}"
    );
}

#[test]
fn two_variants_are_compared_in_the_parts_that_they_share() {
    let (dir_a, dir_b) = (
        tempfile::tempdir().expect("scratch"),
        tempfile::tempdir().expect("scratch"),
    );
    let (image, root) = root_image();
    let stated = format!("{root}\n");
    let a = opened(dir_a.path(), &artifact(image, stated.as_bytes()), *root, |_| {});
    let disk = BTreeMap::from([(path("disk.raw"), disk())]);
    let b = opened(dir_b.path(), &disk, *root, |facts| {
        facts.variant = "raw".parse().expect("a variant");
        facts.form = pnb::model::ArtifactForm::RawDisk;
        facts.image = Some(path("disk.raw"));
    });
    let (found, summary) = overview(&a, &b);
    assert_eq!(
        found.notes[0],
        "kernel-initrd/amd64 and raw/amd64 are different artifacts; root, kernel and command line are compared"
    );
    // The disk of this test has no kernel.
    assert_eq!(found.notes[1], "raw/amd64 has no kernel that can be read as one file");
    assert_eq!(summary["root"], format!("equal ({})", &root.to_string()[..12]));
    assert!(
        summary["kernel"].starts_with("equal, as the manifests state"),
        "{summary:?}"
    );
    assert!(!summary.contains_key("initramfs"), "{summary:?}");
    assert_eq!((found.total, found.sections.len()), (1, 0), "{found:#?}");
    // The same of the files alone, without manifests.
    let one = |dir: &Path, name: &str| pnb::inspect::open_path(&dir.join(name)).expect("readable");
    let (a, b) = (one(dir_a.path(), "initramfs.cpio.zst"), one(dir_b.path(), "disk.raw"));
    let (found, summary) = overview(&a, &b);
    assert!(
        found.notes[0].starts_with("initramfs.cpio.zst and disk.raw are different"),
        "{found:?}"
    );
    assert_eq!(summary["root"], "equal");
}
