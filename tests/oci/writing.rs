//! What is written is read again, is the same each time, and changes no more than it must.

use crate::layouts::{Put::*, *};
use pnb::{
    image::{
        ImageError,
        oci::{LayerCompression, LayerEntries, blob_path, write_layer},
    },
    model::{Arch, Entry, Epoch, Meta, Node, RelPath, Tree, VerityDigest, ZstdLevel},
    verity::digest_bytes,
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

const BOTH: [LayerCompression; 2] = [LayerCompression::Zstd, LayerCompression::Gzip];

/// A name of any bytes that a directory can hold and a layer takes for a name.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => b'a'..=b'e', 1 => any::<u8>().prop_filter("no name", |b| !matches!(b, 0 | b'/'))];
    let length = prop_oneof![6 => 1..4usize, 1 => 90..110usize, 1 => 200..=255usize];
    let name = length.prop_flat_map(move |length| prop::collection::vec(byte.clone(), length));
    name.prop_filter("reserved", |name| {
        !matches!(&name[..], b"." | b"..") && !name.starts_with(b".wh.")
    })
}

fn meta() -> impl Strategy<Value = Meta> {
    let attribute = (
        prop::collection::vec(1..=255u8, 1..20).prop_filter("ends the name", |name| !name.contains(&b'=')),
        prop::collection::vec(any::<u8>(), 0..300),
    );
    let attributes =
        prop_oneof![3 => Just(BTreeMap::new()), 1 => prop::collection::btree_map(attribute.0, attribute.1, 1..3)];
    let owner = prop_oneof![Just(0), 0..=0o7_777_777u32];
    (0..=0o7777u32, owner.clone(), owner, any::<u32>(), attributes).prop_map(|(mode, uid, gid, mtime, xattrs)| Meta {
        mode,
        uid,
        gid,
        mtime: Epoch::new(mtime),
        xattrs,
    })
}

#[derive(Clone, Debug)]
enum Kind {
    Directory,
    Link(Vec<u8>),
    File(Vec<u8>),
}

/// Entries in the order in which they are tried: a path that does not fit is left out.
fn trees() -> impl Strategy<Value = (Tree, Contents)> {
    let target = prop::collection::vec(1..=255u8, 1..150);
    let content = prop_oneof![1 => Just(Vec::new()), 3 => prop::collection::vec(any::<u8>(), 0..2000)];
    let kind = prop_oneof![
        2 => Just(Kind::Directory),
        1 => target.prop_map(Kind::Link),
        4 => content.prop_map(Kind::File),
    ];
    let entry = (prop::collection::vec(name(), 1..5), meta(), kind);
    (meta(), prop::collection::vec(entry, 0..25)).prop_map(|(root, entries)| {
        let (mut tree, mut contents) = (Tree::new(root), Contents::new());
        for (names, meta, kind) in entries {
            let path = RelPath::new(names.join(&b'/')).expect("names");
            let node = match kind {
                Kind::Directory => Node::Directory,
                Kind::Link(target) => Node::Symlink { target },
                Kind::File(bytes) => {
                    let (digest, size) = (digest_bytes(&bytes), bytes.len() as u64);
                    contents.insert(digest, bytes);
                    Node::File { size, digest }
                }
            };
            let _ = tree
                .make_parents(&path, meta.mtime)
                .and_then(|()| tree.insert(path, Entry { meta, node }));
        }
        (tree, contents)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applying_gives_the_tree_again((tree, contents) in trees(), parts in prop::collection::vec(0..3usize, 25), gzip: bool) {
        let compression = BOTH[usize::from(gzip)];
        // Each file in one of three layers, with the directories above it; directories without files in the first.
        let mut groups: [BTreeSet<&RelPath>; 3] = Default::default();
        for (number, (path, entry)) in tree.iter().enumerate() {
            let group = &mut groups[if entry.node == Node::Directory { 0 } else { parts[number % parts.len()] }];
            group.insert(path);
            let parents: Vec<RelPath> = std::iter::successors(path.parent(), RelPath::parent).collect();
            group.extend(tree.iter().map(|(path, _)| path).filter(|path| parents.contains(path)));
        }
        let layers = groups.iter().enumerate().map(|(number, paths)| {
            let entries = LayerEntries {
                root: (number == 0).then(|| tree.root()),
                entries: paths.iter().map(|path| (*path, tree.get(path).expect("ours"))).collect(),
            };
            ("part", layer(&entries, &contents, compression))
        });
        let (files, ..) = layout_with(&facts(Arch::Amd64), layers.collect());
        let (applied, found) = apply(&files).expect("whole");
        prop_assert_eq!(applied, tree);
        prop_assert!(contents.iter().all(|(digest, bytes)| found.get(digest).is_none_or(|found| found == bytes)));
    }
}

/// A root of a few files, of which one is an agent.
fn small(agent: &[u8]) -> (Tree, Contents) {
    tree_of(&[
        ("etc", Dir(0o755)),
        ("etc/passwd", File(0o644, b"root:x:0:0::/root:/bin/sh\n")),
        ("usr/bin/su", File(0o4755, &[1; 3000])),
        ("usr/lib/libc.so.6", File(0o755, &[2; 70_000])),
        ("usr/sbin/agent", File(0o755, agent)),
        ("sbin", Link("usr/sbin")),
        ("tmp", Dir(0o1777)),
    ])
}

/// An image in three layers: one for libraries, one for the rest, one for the agent.
fn small_image(agent: &[u8], compression: LayerCompression) -> Files {
    let (tree, contents) = small(agent);
    let part = |wanted: &[&str], root: bool| {
        let paths = tree
            .iter()
            .filter(|(path, _)| wanted.contains(&path.to_string().as_str()));
        let entries = LayerEntries {
            root: root.then(|| tree.root()),
            entries: paths.collect(),
        };
        layer(&entries, &contents, compression)
    };
    let layers = vec![
        ("libraries", part(&["usr", "usr/lib", "usr/lib/libc.so.6"], true)),
        (
            "rest",
            part(
                &["etc", "etc/passwd", "sbin", "tmp", "usr", "usr/bin", "usr/bin/su"],
                false,
            ),
        ),
        ("agent", part(&["usr", "usr/sbin", "usr/sbin/agent"], false)),
    ];
    layout_with(&facts(Arch::Amd64), layers).0
}

#[test]
fn two_writings_are_equal_and_another_agent_changes_its_layer_and_the_documents() {
    for compression in BOTH {
        let first = small_image(b"one", compression);
        assert_eq!(first, small_image(b"one", compression), "{compression:?}");
        let second = small_image(b"two", compression);
        let gone: Vec<_> = first.keys().filter(|name| !second.contains_key(*name)).collect();
        let come: Vec<_> = second.keys().filter(|name| !first.contains_key(*name)).collect();
        // The layer, the configuration, the manifest; and the index, which keeps its name.
        assert_eq!((gone.len(), come.len()), (3, 3), "{compression:?}");
        let changed = first.iter().filter(|(name, bytes)| second.get(*name) != Some(*bytes));
        assert_eq!(changed.count(), 4);
        let uploaded: usize = come.iter().map(|name| second[*name].len()).sum();
        let whole: usize = second.values().map(Vec::len).sum();
        assert!(uploaded < 3000, "{uploaded} of {whole} bytes are uploaded");
        assert_eq!(apply(&second).expect("whole").0, small(b"two").0);
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_byte() {
    let (tree, contents) = small(&[3; 5_000_000]);
    let open = |digest: &VerityDigest| -> io::Result<Box<dyn io::Read>> {
        Ok(Box::new(io::Cursor::new(contents[digest].clone())))
    };
    for compression in BOTH {
        let made = [1, 2, 5].map(|workers| {
            let mut bytes = Vec::new();
            let workers = std::num::NonZeroU32::new(workers).expect("some");
            write_layer(
                &entries(&tree),
                &open,
                compression,
                ZstdLevel::HIGH,
                workers,
                &mut bytes,
            )
            .expect("written");
            bytes
        });
        assert!(made.iter().all(|bytes| *bytes == made[0]), "{compression:?}");
    }
}

#[test]
fn what_a_layer_cannot_hold_is_refused() {
    let refused = |name: &str, change: &dyn Fn(&mut Entry)| {
        let (mut tree, contents) = tree_of(&[]);
        let mut entry = Entry {
            meta: Meta::root(0o644, EPOCH),
            node: Node::Symlink { target: b"x".to_vec() },
        };
        change(&mut entry);
        tree.insert(path(name), entry).expect("free");
        let open = |digest: &VerityDigest| -> io::Result<Box<dyn io::Read>> {
            Ok(Box::new(io::Cursor::new(contents[digest].clone())))
        };
        let written = write_layer(
            &entries(&tree),
            &open,
            LayerCompression::Gzip,
            ZstdLevel::HIGH,
            ONE,
            &mut Vec::new(),
        );
        match written {
            Ok(_) => "it is written".to_owned(),
            Err(error @ ImageError::Entry { .. }) => error.to_string(),
            Err(other) => format!("{other:?}"),
        }
    };
    let attribute = |name: &str, entry: &mut Entry| {
        entry.meta.xattrs.insert(name.into(), b"v".to_vec());
    };
    assert_eq!(refused("good", &|entry| attribute("user.name", entry)), "it is written");
    let all = [
        refused(".wh.x", &|_| {}),
        refused("a", &|entry| attribute("user.a=b", entry)),
        refused("a", &|entry| attribute("", entry)),
        refused("a", &|entry| entry.node = Node::Fifo),
        refused("a", &|entry| entry.node = Node::CharDevice { major: 1, minor: 3 }),
        refused("a", &|entry| entry.meta.uid = 1 << 21),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    store ".wh.x" in an OCI image: a layer takes such a name for a removal
    store "a" in an OCI image: an extended attribute cannot be called "user.a=b" there
    store "a" in an OCI image: an extended attribute cannot be called "" there
    store "a" in an OCI image: a layer has files, directories and links only
    store "a" in an OCI image: a layer has files, directories and links only
    store "a" in an OCI image: its owner 2097152:0 is above 2097151
    "#);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let (tree, mut contents) = small(b"agent");
    let digest = digest_bytes(b"agent");
    for bytes in [&b"agen"[..], b"agents"] {
        contents.insert(digest, bytes.to_vec());
        for compression in BOTH {
            let open = |digest: &VerityDigest| -> io::Result<Box<dyn io::Read>> {
                Ok(Box::new(io::Cursor::new(contents[digest].clone())))
            };
            let written = write_layer(
                &entries(&tree),
                &open,
                compression,
                ZstdLevel::HIGH,
                ONE,
                &mut Vec::new(),
            );
            let error = written.expect_err("refused").to_string();
            assert!(error.contains("wrong length\nexpected: 5 bytes"), "{error}");
        }
    }
}

#[test]
fn a_blob_is_called_by_its_digest() {
    for (name, bytes) in small_image(b"one", LayerCompression::Zstd) {
        if name.starts_with("blobs/") {
            assert_eq!(name, blob_path(&sha256(&bytes)));
        }
    }
}
