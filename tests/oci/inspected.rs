//! `pnb inspect` and `pnb diff` of layouts.

use crate::layouts::{Put::*, *};
use pnb::{
    image::oci::{LayerCompression, LayerEntries, OCI_INDEX, blob_path},
    model::Arch,
};
use serde_json::Value;
use std::{
    path::Path,
    process::{Command, Output},
};

/// An image with the layers `rest` and `agent`.
fn image(agent: (u32, &[u8]), arch: Arch, compressions: [LayerCompression; 2]) -> Files {
    let (tree, contents) = tree_of(&[
        ("etc/passwd", File(0o644, b"root:x:0:0::/root:/bin/sh\n")),
        ("usr/sbin/agent", File(agent.0, agent.1)),
        ("sbin", Link("usr/sbin")),
    ]);
    let part = |wanted: &[&str], compression| {
        let paths = tree
            .iter()
            .filter(|(path, _)| wanted.contains(&path.to_string().as_str()));
        let entries = LayerEntries {
            root: None,
            entries: paths.collect(),
        };
        layer(&entries, &contents, compression)
    };
    let layers = vec![
        ("rest", part(&["etc", "etc/passwd", "sbin"], compressions[0])),
        ("agent", part(&["usr", "usr/sbin", "usr/sbin/agent"], compressions[1])),
    ];
    layout_with(&facts(arch), layers).0
}

const ZSTD: [LayerCompression; 2] = [LayerCompression::Zstd; 2];

fn pnb(arguments: &[&str], dirs: &[&Path]) -> Output {
    let store = tempfile::tempdir().expect("scratch");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command.arg("--store").arg(store.path()).args(arguments).args(dirs);
    command.output().expect("runs")
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Writes the layout into a directory `oci` of its own.
fn on_disk(files: &Files) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("scratch");
    write(files, &dir.path().join("oci"));
    dir
}

fn inspected(files: &Files) -> String {
    let dir = on_disk(files);
    let output = pnb(&["inspect"], &[dir.path()]);
    let text = said(&output);
    // A part that cannot be read is the exit code too.
    let code = if text.contains("PROBLEM") { 11 } else { 0 };
    assert_eq!(output.status.code(), Some(code), "{text}");
    masked(&text)
}

/// What `pnb diff` says, and its exit code.
fn diff(a: &Files, b: &Files) -> String {
    let (a, b) = (on_disk(a), on_disk(b));
    let output = pnb(&["diff"], &[a.path(), b.path()]);
    format!(
        "{}\nexit {}",
        masked(&said(&output)),
        output.status.code().expect("ends")
    )
}

#[test]
fn images_layers_and_their_files_are_listed() {
    let files = image(
        (0o755, b"agent"),
        Arch::Amd64,
        [LayerCompression::Gzip, LayerCompression::Zstd],
    );
    insta::assert_snapshot!(inspected(&files), @r#"
    oci/index.json: JSON, 350 B
      sha256           <sha256>

    oci/image amd64: OCI image, 1.59 KiB
      layers           2
      manifest         sha256:<sha256>
      files            4, 1.59 KiB
      manifest: JSON, 742 B
        sha256           <sha256>
      configuration: JSON, 615 B
        sha256           <sha256>
      layer 1 "rest": gzip, 157 B
        sha256           <sha256>
        content: tar, 3.00 KiB
          files            1, 26 B
          etc/passwd: text, 26 B
            sha256           <sha256>
          sbin -> usr/sbin
            mode             0777
            modified         2023-11-14T22:13:20Z
            owner            0:0
      layer 2 "agent": zstd, 113 B
        sha256           <sha256>
        content: tar, 3.00 KiB
          files            1, 5 B
          usr/sbin/agent: text, 5 B
            sha256           <sha256>

    oci/oci-layout: JSON, 30 B
      sha256           <sha256>
    15 parts, no problem
    "#);
    // The directory of a layout itself, in JSON.
    let dir = on_disk(&files);
    let output = pnb(&["--json", "inspect"], &[&dir.path().join("oci")]);
    let node: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let images: Vec<&Value> = node["children"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|n| n["kind"] == "image")
        .collect();
    let [one] = images[..] else { unreachable!("{node}") };
    assert_eq!(
        (&one["name"], &one["format"]),
        (&"image amd64".into(), &"OCI image".into())
    );
    let layer = &one["children"][3];
    assert_eq!(
        (&layer["name"], &layer["format"]),
        (&"layer 2 \"agent\"".into(), &"zstd".into())
    );
    let bytes = files.get(&blob_path(
        &layer["sha256"].as_str().expect("text").parse().expect("a digest"),
    ));
    assert_eq!(layer["size"], bytes.expect("the blob").len());
    let agent = &layer["children"][0]["children"][2];
    assert_eq!((&agent["name"], &agent["size"]), (&"usr/sbin/agent".into(), &5.into()));
    assert_eq!(agent["fields"]["mode"], "0755");
}

#[test]
fn images_of_a_joint_layout_are_told_apart_and_other_blobs_stay() {
    let mut files = image((0o755, b"agent"), Arch::Amd64, ZSTD);
    let other = image((0o755, b"arm"), Arch::Arm64, ZSTD);
    let lists = [&files, &other].map(|files| serde_json::from_slice::<Value>(&files[OCI_INDEX]).expect("JSON"));
    let mut list = lists[0].clone();
    list["manifests"]
        .as_array_mut()
        .expect("a list")
        .push(lists[1]["manifests"][0].clone());
    files.extend(other);
    files.insert(OCI_INDEX.to_owned(), list.to_string().into_bytes());
    blob(&mut files, "x", b"of no image");
    let text = inspected(&files);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("image ") || line.starts_with("oci/blobs"))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    oci/blobs/sha256/<sha256>: text, 11 B
    oci/image amd64: OCI image, 1.58 KiB
    oci/image arm64: OCI image, 1.58 KiB
    "#);
}

#[test]
fn a_damaged_layout_is_listed_with_its_problem() {
    let good = image((0o755, b"agent"), Arch::Amd64, ZSTD);
    let problems = |files: &Files| {
        let text = inspected(files);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("PROBLEM"))
            .map(str::trim)
            .collect();
        lines.join("\n")
    };
    assert_eq!(problems(&good), "");
    let layer_of = |files: &Files| {
        let mut layers = files.iter().filter(|(_, bytes)| bytes.starts_with(b"\x28\xb5\x2f\xfd"));
        layers.next().expect("a layer").0.clone()
    };
    let mut without = good.clone();
    without.remove(&layer_of(&good));
    let mut cut = image((0o755, &[7; 3000]), Arch::Amd64, ZSTD);
    let layer = layer_of(&cut);
    cut.get_mut(&layer).expect("there").truncate(60);
    let mut array = good.clone();
    array.insert(OCI_INDEX.to_owned(), b"[]".to_vec());
    let mut foreign = good.clone();
    foreign.insert(OCI_INDEX.to_owned(), br#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":9,"digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000"}]}"#.to_vec());
    let all = [problems(&without), problems(&cut), problems(&array), problems(&foreign)];
    insta::assert_snapshot!(all.join("\n--\n"), @r#"
    PROBLEM          1 of its parts cannot be read right
    PROBLEM          the layout has no blobs/sha256/<sha256>
    --
    PROBLEM          1 of its parts cannot be read right
    PROBLEM          it has 60 bytes, and its manifest states 114; it is cut off: the zstd data from byte 0 on have no end
    --
    PROBLEM          its images are not listed: read "index.json" of an OCI image: it is no JSON object
    --
    PROBLEM          an image is not listed: read the content of "blobs/sha256/<sha256>": there is no such file
    "#);
}

#[test]
fn a_difference_names_the_layer_and_the_file_in_it() {
    let good = image((0o755, b"agent of 2026-11-23"), Arch::Amd64, ZSTD);
    assert_eq!(diff(&good, &good), "no byte differs\nexit 0");
    let changed = image((0o755, b"agent of 2026-12-23"), Arch::Amd64, ZSTD);
    insta::assert_snapshot!(diff(&good, &changed), @r#"
    root          +0 -0 ~1 files, the same size
    other         +0 -0 ~4 files and structures

    root
      usr/sbin/
        ~ agent  content differs at byte 15 (1 byte differs): "f 2026-11-23" against "f 2026-12-23" [time]

    other
      ~ oci/image amd64  manifest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second
      ~ oci/index.json   manifests/0/digest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second
      oci/image amd64
        ~ configuration  rootfs/diff_ids/1 is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second
        ~ manifest       config/digest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second; layers/1/digest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second
    exit 1
    "#);
    let mode = image((0o4755, b"agent of 2026-11-23"), Arch::Amd64, ZSTD);
    insta::assert_snapshot!(diff(&good, &mode), @r#"
    root          +0 -0 ~1 files, the same size
    other         +0 -0 ~4 files and structures

    root
      usr/sbin/
        ~ agent  mode is "0755" in the first, "4755" in the second

    other
      ~ oci/image amd64  manifest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second
      ~ oci/index.json   manifests/0/digest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second
      oci/image amd64
        ~ configuration  rootfs/diff_ids/1 is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second
        ~ manifest       config/digest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second; layers/1/digest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second; layers/1/size is "124" in the first, "126" in the second
    exit 1
    "#);
    let longer = image((0o755, b"agent of 2026-11-23 and more"), Arch::Amd64, ZSTD);
    insta::assert_snapshot!(diff(&good, &longer), @r#"
    root          +0 -0 ~1 files, the same size
    other         +0 -0 ~4 files and structures

    root
      usr/sbin/
        ~ agent  content differs at byte 19 (9 bytes differ, 19 against 28 long): "26-11-23" against "26-11-23 and more"

    other
      ~ oci/image amd64  manifest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second
      ~ oci/index.json   manifests/0/digest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second
      oci/image amd64
        ~ configuration  rootfs/diff_ids/1 is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second
        ~ manifest       config/digest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second; layers/1/digest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second; layers/1/size is "124" in the first, "132" in the second
    exit 1
    "#);
    let arm64 = image((0o755, b"agent of 2026-11-23"), Arch::Arm64, ZSTD);
    let other = diff(&good, &arm64);
    assert!(
        other.contains("  - oci/image amd64 ") && other.contains("  + oci/image arm64 "),
        "{other}"
    );
}

#[test]
fn another_compression_is_told_from_another_content() {
    let good = image((0o755, b"agent"), Arch::Amd64, ZSTD);
    let gzip = image((0o755, b"agent"), Arch::Amd64, [LayerCompression::Gzip; 2]);
    insta::assert_snapshot!(diff(&good, &gzip), @r#"
    root          changed, but none of its files
    other         +0 -0 ~3 files and structures

    root
      ~ layer 1 "rest"   the same content, as zstd in the first, as gzip in the second
      ~ layer 2 "agent"  the same content, as zstd in the first, as gzip in the second

    other
      ~ oci/image amd64  manifest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second
      ~ oci/index.json   manifests/0/digest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second
      oci/image amd64
        ~ manifest  layers/0/digest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second; layers/0/mediaType is "application/vnd.oci.image.layer.v1.tar+zstd" in the first, "application/vnd.oci.image.layer.v1.tar+gzip" in the second; layers/0/size is "153" in the first, "157" in the second; layers/1/digest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second; layers/1/mediaType is "application/vnd.oci.image.layer.v1.tar+zstd" in the first, "application/vnd.oci.image.layer.v1.tar+gzip" in the second; layers/1/size is "113" in the first, "119" in the second
    exit 1
    "#);
    let both = image(
        (0o755, b"agens"),
        Arch::Amd64,
        [LayerCompression::Zstd, LayerCompression::Gzip],
    );
    insta::assert_snapshot!(diff(&good, &both), @r#"
    root          +0 -0 ~1 files, the same size
    other         +0 -0 ~4 files and structures

    root
      ~ layer 2 "agent"  stored as zstd in the first, as gzip in the second, and the content differs
      usr/sbin/
        ~ agent  content differs at byte 4 (1 byte differs): "agent" against "agens"

    other
      ~ oci/image amd64  manifest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second
      ~ oci/index.json   manifests/0/digest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second
      oci/image amd64
        ~ configuration  rootfs/diff_ids/1 is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second
        ~ manifest       config/digest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second; layers/1/digest is "sha256:<sha256>" in the first, "sha256:<sha256>" in the second; layers/1/mediaType is "application/vnd.oci.image.layer.v1.tar+zstd" in the first, "application/vnd.oci.image.layer.v1.tar+gzip" in the second; layers/1/size is "113" in the first, "120" in the second
    exit 1
    "#);
    let (a, b) = (on_disk(&good), on_disk(&gzip));
    let output = pnb(&["--json", "diff"], &[a.path(), b.path()]);
    let text = said(&output);
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let found: Vec<Value> = lines.filter(|line| line["difference"] == "compression").collect();
    assert_eq!(found.len(), 2, "{text}");
    assert_eq!(found[1]["path"][1], "layer 2 \"agent\"");
    assert_eq!(
        (&found[1]["a"], &found[1]["b"], &found[1]["same"]),
        (&"zstd".into(), &"gzip".into(), &true.into())
    );
}
