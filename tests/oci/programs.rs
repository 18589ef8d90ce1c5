//! umoci and skopeo read what pnb writes, and pnb reads what they write.

use crate::{
    fixture::tools::check_tools::stage_tree::stage_tree,
    layouts::{Put::*, *},
    own_loader::with_own_loader,
};
use pnb::{
    image::oci::{IMAGE_NAME, LayerCompression, OCI_INDEX, OciImage, blob_path, layout_index, multi_index},
    model::{Arch, Node, RelPath, Tree},
    verity::digest_bytes,
};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Runs a program below `dir` to a good end; returns what it printed.
fn run(program: &str, dir: &Path, arguments: &[&str]) -> String {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    let tree = TREE.get_or_init(|| stage_tree("publish-tools"));
    let mut command = with_own_loader(tree, program);
    command.env("HOME", dir).env("TMPDIR", dir).env("XDG_RUNTIME_DIR", dir);
    let done = command.current_dir(dir).args(arguments).output().expect("starts");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(done.stdout).expect("UTF-8")
}

fn umoci(dir: &Path, arguments: &[&str]) -> String {
    run("umoci", dir, arguments)
}

fn skopeo(dir: &Path, arguments: &[&str]) -> String {
    run("skopeo", dir, &[&["--insecure-policy"], arguments].concat())
}

/// An entry as one can see it on disk without privileges: kind, mode, time, and target or digest.
type Seen = (char, u32, i64, Vec<u8>);

/// The entries below `dir`, and of `dir` itself.
fn on_disk(dir: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let walk = walkdir::WalkDir::new(dir)
        .into_iter()
        .map(|entry| entry.expect("readable"));
    let seen = walk.map(|entry| {
        let meta = fs::symlink_metadata(entry.path()).expect("there");
        let (kind, what) = if meta.is_dir() {
            ('d', Vec::new())
        } else if meta.is_symlink() {
            let target = fs::read_link(entry.path()).expect("a link");
            ('l', target.as_os_str().as_bytes().to_vec())
        } else {
            let bytes = fs::read(entry.path()).expect("readable");
            ('f', digest_bytes(&bytes).to_hex().into_bytes())
        };
        let name = entry.path().strip_prefix(dir).expect("below");
        let name = name.as_os_str().as_bytes().to_vec();
        (name, (kind, meta.mode() & 0o7777, meta.mtime(), what))
    });
    seen.collect()
}

/// The same of a tree.
fn in_tree(tree: &Tree) -> BTreeMap<Vec<u8>, Seen> {
    let root = tree.root();
    let root = (
        Vec::new(),
        (
            'd',
            root.mode,
            i64::try_from(root.mtime.seconds()).expect("32 bits"),
            Vec::new(),
        ),
    );
    let entries = tree.iter().map(|(path, entry)| {
        let (kind, what) = match &entry.node {
            Node::Directory => ('d', Vec::new()),
            Node::Symlink { target } => ('l', target.clone()),
            Node::File { digest, .. } => ('f', digest.to_hex().into_bytes()),
            other => unreachable!("{other:?}"),
        };
        let time = i64::try_from(entry.meta.mtime.seconds()).expect("32 bits");
        (path.as_bytes().to_vec(), (kind, entry.meta.mode, time, what))
    });
    entries.chain([root]).collect()
}

/// The image of the layout `dir` as umoci unpacks it, and as pnb applies it.
fn both(dir: &Path, layout: &str, image: &str) -> (BTreeMap<Vec<u8>, Seen>, Tree) {
    let bundle = dir.join("bundle");
    if bundle.exists() {
        umoci_remove(&bundle);
    }
    umoci(
        dir,
        &[
            "unpack",
            "--rootless",
            "--image",
            &format!("{layout}:{image}"),
            "bundle",
        ],
    );
    let (tree, _) = apply(&read(&dir.join(layout))).expect("applied");
    (on_disk(&bundle.join("rootfs")), tree)
}

/// Removes a bundle, whose directories may not be writable.
fn umoci_remove(bundle: &Path) {
    for entry in walkdir::WalkDir::new(bundle) {
        let entry = entry.expect("readable");
        if entry.file_type().is_dir() {
            fs::set_permissions(entry.path(), PermissionsExt::from_mode(0o700)).expect("ours");
        }
    }
    fs::remove_dir_all(bundle).expect("ours");
}

/// A root with everything that a layer can hold and an unprivileged user can see.
fn rich() -> (Tree, Contents) {
    let long = format!("{0}/{0}/{0}", "n".repeat(120));
    let name = "m".repeat(255);
    let target = format!("../{}", "t".repeat(150));
    let (mut tree, contents) = tree_of(&[
        ("bin", Link("usr/bin")),
        ("dev", Dir(0o755)),
        ("etc/empty", File(0o600, b"")),
        ("etc/shadow", File(0o640, b"root:*:1::::::\n")),
        ("long", Link(&target)),
        (&format!("opt/{long}/{name}"), File(0o444, b"deep")),
        ("tmp", Dir(0o1777)),
        ("usr/bin/su", File(0o4755, &[1; 3000])),
        ("usr/lib/large", File(0o644, &[2; 300_000])),
        ("usr/lib/umläut", File(0o644, b"two bytes")),
        ("var/mail", Dir(0o2775)),
    ]);
    let mut entry = tree.get(&path("etc/empty")).expect("there").clone();
    entry.meta.mtime = pnb::model::Epoch::new(1);
    let odd = RelPath::new(b"usr/lib/\xff\xfe not UTF-8").expect("a name");
    tree.insert(odd, entry).expect("free");
    (tree, contents)
}

#[test]
fn umoci_unpacks_the_tree_that_was_written() {
    let (tree, contents) = rich();
    for (compression, name) in [(LayerCompression::Zstd, "zstd"), (LayerCompression::Gzip, "gzip")] {
        let dir = tempfile::tempdir().expect("scratch");
        write(&layout_of(&tree, &contents, compression), &dir.path().join("layout"));
        let (unpacked, applied) = both(dir.path(), "layout", IMAGE_NAME);
        assert_eq!(applied, tree, "{name}");
        assert_eq!(unpacked, in_tree(&tree), "{name}");
        let said = umoci(dir.path(), &["stat", "--image", "layout:latest"]);
        assert!(said.contains("pnb: all"), "{said}");
        umoci_remove(&dir.path().join("bundle"));
    }
}

#[test]
fn skopeo_reads_an_image_and_copies_it_there_and_back() {
    let (tree, contents) = rich();
    for (compression, kind) in [(LayerCompression::Zstd, TAR_ZSTD), (LayerCompression::Gzip, TAR_GZIP)] {
        let dir = tempfile::tempdir().expect("scratch");
        let files = layout_of(&tree, &contents, compression);
        write(&files, &dir.path().join("ours"));
        let said = skopeo(dir.path(), &["inspect", "oci:ours:latest"]);
        let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(said["Architecture"], "amd64");
        assert_eq!(said["Labels"]["containers.bootc"], "1");
        assert_eq!(said["LayersData"][0]["MIMEType"], kind);
        assert_eq!(
            said["LayersData"][0]["Annotations"]["org.opencontainers.image.title"],
            "all"
        );
        skopeo(dir.path(), &["copy", "--all", "oci:ours:latest", "oci:theirs:other"]);
        skopeo(dir.path(), &["copy", "--all", "oci:theirs:other", "oci:back:latest"]);
        let blobs = |files: &Files| -> Files {
            let blobs = files.iter().filter(|(name, _)| name.starts_with("blobs/"));
            blobs.map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
        };
        let (theirs, back) = (read(&dir.path().join("theirs")), read(&dir.path().join("back")));
        assert_eq!(blobs(&theirs), blobs(&files));
        assert_eq!(blobs(&back), blobs(&files));
        assert_eq!(apply(&theirs).expect("applied").0, tree);
        let digest = with_reader(&files, |layout| layout.manifests().expect("one")[0].digest().clone());
        assert_eq!(said["Digest"], digest.to_string());
    }
}

/// Makes an image with umoci whose layers add, replace and remove, and are compressed in several ways.
fn made_by_umoci(dir: &Path) {
    let files = dir.join("files");
    let put = |name: &str, text: &str| {
        let file = files.join(name);
        fs::create_dir_all(file.parent().expect("below")).expect("made");
        fs::write(file, text).expect("written");
    };
    put("base/keep", "kept");
    put("base/gone", "removed by name");
    put("base/hidden/one", "removed with all others");
    put("base/hidden/two", "removed too");
    put("base/replaced/by-file/inside", "a directory becomes a file");
    put("base/file", "a file becomes a directory");
    put("base/linked", "two names");
    put(&format!("base/{0}/{0}", "long".repeat(40)), "long names");
    put("base/umläut é/x", "not ASCII");
    fs::hard_link(files.join("base/linked"), files.join("base/again")).expect("linked");
    symlink("keep", files.join("base/link")).expect("linked");
    symlink("../out/of/it", files.join("base/dangling")).expect("linked");
    fs::set_permissions(files.join("base/keep"), PermissionsExt::from_mode(0o4711)).expect("ours");
    fs::set_permissions(files.join("base/hidden"), PermissionsExt::from_mode(0o1750)).expect("ours");
    put("second/new", "in place of the others");
    put("third/inside", "a file is a directory now");
    put("fourth", "a directory is a file now");
    umoci(dir, &["init", "--layout", "made"]);
    umoci(dir, &["new", "--image", "made:latest"]);
    let insert = |arguments: &[&str]| {
        umoci(
            dir,
            &[&["insert", "--rootless", "--image", "made:latest"], arguments].concat(),
        );
    };
    insert(&["files/base", "/base"]);
    insert(&["--whiteout", "/base/gone"]);
    insert(&["--opaque", "files/second", "/base/hidden"]);
    insert(&["--compress=zstd", "files/third", "/base/file"]);
    insert(&["files/fourth", "/base/replaced/by-file"]);
    insert(&["--whiteout", "/base/link"]);
    umoci(
        dir,
        &[
            "config",
            "--image",
            "made:latest",
            "--config.label",
            "a=b",
            "--author",
            "a test",
        ],
    );
    // A layer of the differences between two trees, with hard links among them.
    umoci(dir, &["unpack", "--rootless", "--image", "made:latest", "changed"]);
    let root = dir.join("changed/rootfs");
    fs::remove_file(root.join("base/dangling")).expect("ours");
    fs::remove_dir_all(root.join(format!("base/{}", "long".repeat(40)))).expect("ours");
    fs::write(root.join("base/more"), "more").expect("written");
    fs::hard_link(root.join("base/more"), root.join("base/still-more")).expect("linked");
    fs::set_permissions(root.join("base/hidden"), PermissionsExt::from_mode(0o700)).expect("ours");
    umoci(dir, &["repack", "--compress=none", "--image", "made:latest", "changed"]);
}

#[test]
fn what_umoci_makes_is_applied_as_umoci_unpacks_it() {
    let dir = tempfile::tempdir().expect("scratch");
    made_by_umoci(dir.path());
    let (unpacked, mut applied) = both(dir.path(), "made", "latest");
    let files = read(&dir.path().join("made"));
    let image = with_reader(&files, |layout| OciImage::find(layout, Arch::Amd64).expect("one"));
    assert_eq!(image.layers.len(), 7);
    let kinds: Vec<_> = image.layers.iter().map(|layer| layer.compression).collect();
    assert!(
        kinds.contains(&None) && kinds.contains(&Some(LayerCompression::Zstd)),
        "{kinds:?}"
    );
    // No layer describes the root: umoci takes the time of unpacking.
    let mut root = applied.root().clone();
    let (_, mode, time, _) = unpacked[&Vec::new()];
    root.mode = mode;
    root.mtime = pnb::model::Epoch::new(u32::try_from(time).expect("32 bits"));
    applied.set_root(root);
    let seen = in_tree(&applied);
    for gone in [
        "gone",
        "link",
        "dangling",
        "hidden/one",
        "hidden/two",
        "replaced/by-file/inside",
    ] {
        assert!(!seen.contains_key(format!("base/{gone}").as_bytes()), "{gone}");
    }
    assert_eq!(seen, unpacked);
    assert_eq!(seen[&b"base/again"[..]], seen[&b"base/linked"[..]]);
}

#[test]
fn what_skopeo_compresses_again_is_applied_to_the_same_tree() {
    let (tree, contents) = rich();
    let dir = tempfile::tempdir().expect("scratch");
    write(
        &layout_of(&tree, &contents, LayerCompression::Zstd),
        &dir.path().join("ours"),
    );
    skopeo(
        dir.path(),
        &["copy", "--dest-decompress", "oci:ours:latest", "dir:plain"],
    );
    for format in ["gzip", "zstd", "zstd:chunked"] {
        skopeo(
            dir.path(),
            &[
                "copy",
                "--dest-compress-format",
                format,
                "dir:plain",
                &format!("oci:made-{}:latest", format.replace(':', "-")),
            ],
        );
        let made = read(&dir.path().join(format!("made-{}", format.replace(':', "-"))));
        assert_eq!(apply(&made).expect(format).0, tree, "{format}");
    }
}

#[test]
fn skopeo_copies_a_joint_index_as_it_is() {
    let (tree, contents) = rich();
    for (compression, annotated) in [(LayerCompression::Zstd, true), (LayerCompression::Gzip, false)] {
        let (mut files, mut images) = (Files::new(), Vec::new());
        for arch in Arch::ALL {
            let one = layer(&entries(&tree), &contents, compression);
            let (layout, ..) = layout_with(&facts(arch), vec![("all", one)]);
            images.push(with_reader(&layout, |reader| {
                let descriptor = reader.manifests().expect("one").remove(0);
                let image = OciImage::read(reader, &descriptor).expect("whole");
                (descriptor, image)
            }));
            files.extend(layout);
        }
        let index = multi_index(images).expect("an index");
        let text = String::from_utf8(index.bytes.clone()).expect("JSON");
        assert_eq!(text.contains("compression.zstd"), annotated, "{text}");
        files.insert(blob_path(&index.digest()), index.bytes);
        files.insert(OCI_INDEX.to_owned(), layout_index(&index.descriptor).expect("an index"));
        let dir = tempfile::tempdir().expect("scratch");
        write(&files, &dir.path().join("ours"));
        skopeo(
            dir.path(),
            &[
                "copy",
                "--all",
                "--preserve-digests",
                "oci:ours:latest",
                "oci:theirs:latest",
            ],
        );
        let theirs = read(&dir.path().join("theirs"));
        let blobs = |files: &Files| -> Vec<String> {
            let names = files.keys().filter(|name| name.starts_with("blobs/"));
            names.cloned().collect()
        };
        assert_eq!(blobs(&theirs), blobs(&files));
        assert_eq!(apply(&theirs).expect("applied").0, tree);
    }
}
