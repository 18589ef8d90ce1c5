//! Layers that nobody should write: each is refused with its reason, and its innocent neighbour is applied.

use crate::layouts::*;
use pnb::image::oci::{LayerLimits, blob_path};
use std::io::Write;
use tar::EntryType;

#[test]
fn a_flipped_byte_of_any_blob_is_found() {
    let good = raw(&[plain(small()), gzipped(&small()), zstandard(&small())]);
    apply(&good).expect("innocent");
    let blobs = good.keys().filter(|name| name.starts_with("blobs/"));
    for name in blobs.collect::<Vec<_>>() {
        for at in (0..good[name].len()).step_by(if good[name].len() > 1000 { 61 } else { 3 }) {
            let mut bad = good.clone();
            bad.get_mut(name).expect("there")[at] ^= 0x10;
            let said = refusal(&bad);
            assert!(said.contains("wrong SHA-256"), "{name} byte {at}: {said}");
        }
    }
    let flipped = |blob: &[u8]| {
        let mut bad = good.clone();
        let bytes = bad.get_mut(&blob_path(&sha256(blob))).expect("there");
        *bytes.last_mut().expect("some") ^= 0x20;
        refusal(&bad)
    };
    let manifest = with_reader(&good, |layout| {
        let descriptor = &layout.manifests().expect("one")[0];
        layout.document(descriptor).expect("there")
    });
    insta::assert_snapshot!(flipped(&manifest), @r#"
    read the blob "blobs/sha256/<sha256>": wrong SHA-256
    expected: <sha256>
      actual: <sha256>
    "#);
    insta::assert_snapshot!(flipped(&small()), @r#"
    read the blob "<sha256>": wrong SHA-256
    expected: <sha256>
      actual: <sha256>
    "#);
}

#[test]
fn what_is_cut_off_is_refused() {
    let whole = small();
    for layer in [plain(whole.clone()), gzipped(&whole), zstandard(&whole)] {
        for at in (0..layer.blob.len()).step_by(7) {
            let cut = RawLayer {
                blob: layer.blob[..at].to_vec(),
                diff_id: if layer.media_type == TAR {
                    sha256(&layer.blob[..at])
                } else {
                    layer.diff_id
                },
                ..layer.clone()
            };
            apply(&raw(&[cut])).expect_err(layer.media_type);
        }
        apply(&raw(&[layer])).expect("innocent");
    }
    let at = |bytes: usize| refusal(&raw(&[plain(whole[..bytes].to_vec())]));
    let all = [at(0), at(100), at(1024), at(1030), at(1536), at(2048)];
    insta::assert_snapshot!(all.join("\n"), @r#"
    read "<sha256>" of an OCI image: at the start the end-of-archive blocks are missing
    read "<sha256>" of an OCI image: at the start the archive ends within a header (100 of 512 bytes)
    read the content of "etc/passwd": the archive ends 5 bytes before the end of the entry
    read "<sha256>" of an OCI image: entry "etc/passwd" is cut off within its padding
    read "<sha256>" of an OCI image: after entry "etc/passwd" the end-of-archive blocks are missing
    read "<sha256>" of an OCI image: after entry "etc/passwd" the end-of-archive blocks are incomplete
    "#);
    let cut = |mut layer: RawLayer| {
        layer.blob.truncate(40);
        refusal(&raw(&[layer]))
    };
    insta::assert_snapshot!([cut(gzipped(&whole)), cut(zstandard(&whole))].join("\n"), @r#"
    read the content of "<sha256>": incomplete deflate stream
    read the content of "<sha256>": incomplete frame
    "#);
}

#[test]
fn nothing_follows_the_archive() {
    let whole = small();
    let changed = |mut layer: RawLayer, more: &[u8], content: &[u8]| {
        layer.blob.extend(more);
        layer.diff_id = sha256(content);
        raw(&[layer])
    };
    let longer = |more: &[u8]| [&whole[..], more].concat();
    // More zeros, a member without content, and a frame to be skipped are the end of their format.
    for innocent in [
        raw(&[plain(longer(&[0; 8192]))]),
        changed(gzipped(&whole), &gzip(b""), &whole),
        changed(zstandard(&whole), b"\x50\x2a\x4d\x18\x04\0\0\0skip", &whole),
    ] {
        apply(&innocent).expect("innocent");
    }
    let second = archive(&[file("second", b"archive")]);
    let all = [
        refusal(&raw(&[plain(longer(b"x"))])),
        refusal(&raw(&[plain(longer(&second))])),
        refusal(&changed(gzipped(&whole), b"garbage of some length", &whole)),
        refusal(&changed(gzipped(&whole), &gzip(&second), &longer(&second))),
        refusal(&changed(zstandard(&whole), b"garbage of some length", &whole)),
        refusal(&changed(zstandard(&whole), &zstandard(&second).blob, &longer(&second))),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    read "<sha256>" of an OCI image: after entry "etc/passwd" there is data after the end-of-archive block
    read "<sha256>" of an OCI image: after entry "etc/passwd" there is data after the end-of-archive block
    read the content of "<sha256>": invalid gzip header
    read "<sha256>" of an OCI image: after entry "etc/passwd" there is data after the end-of-archive block
    read the content of "<sha256>": Unknown frame descriptor
    read "<sha256>" of an OCI image: after entry "etc/passwd" there is data after the end-of-archive block
    "#);
}

#[test]
fn a_window_larger_than_any_program_takes_is_refused() {
    let with_window = |log: u32| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
        encoder
            .set_parameter(zstd::zstd_safe::CParameter::WindowLog(log))
            .expect("set");
        encoder.write_all(&small()).expect("in memory");
        RawLayer {
            blob: encoder.finish().expect("in memory"),
            ..zstandard(&small())
        }
    };
    assert_eq!(paths(&[with_window(27)]), "etc etc/passwd");
    insta::assert_snapshot!(refusal(&raw(&[with_window(28)])), @r#"read the content of "<sha256>": Frame requires too much memory for decoding"#);
}

/// `count` times 64 MiB of zeros behind an archive, compressed as one.
fn bomb(compress: fn(&[u8]) -> RawLayer, count: usize) -> RawLayer {
    let mut layer = compress(&small());
    let zeros = compress(&vec![0; 64 << 20]).blob;
    for _ in 0..count {
        layer.blob.extend(&zeros);
    }
    layer
}

#[test]
fn a_bomb_goes_off_at_the_limit() {
    for compress in [gzipped, zstandard] {
        let limits = |mib: u64| LayerLimits {
            bytes: mib << 20,
            ..LayerLimits::default()
        };
        let ten_gib = raw(&[bomb(compress, 160)]);
        let error = apply_within(&ten_gib, &limits(100)).expect_err("it goes off");
        assert!(
            error.ends_with("the layers have more than 104857600 bytes together without compression"),
            "{error}"
        );
        // The control reaches the end, and differs by its digest alone.
        let error = apply_within(&raw(&[bomb(compress, 1)]), &limits(100)).expect_err("other bytes");
        assert!(
            error.contains("the archive in") && error.contains("wrong SHA-256"),
            "{error}"
        );
        // Two layers share the limit.
        let half = {
            let zeros = [small(), vec![0; 60 << 20]].concat();
            compress(&zeros)
        };
        apply_within(&raw(std::slice::from_ref(&half)), &limits(100)).expect("one is within");
        let error = apply_within(&raw(&[half.clone(), half]), &limits(100)).expect_err("two are not");
        assert!(error.contains("104857600 bytes together"), "{error}");
    }
    // A file that says how large it would be is not waited for.
    let mut header = tar::Header::new_ustar();
    header.set_path("large").expect("short");
    header.set_size(10 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    insta::assert_snapshot!(of_members(&[header.as_bytes().to_vec()]), @r#"read "<sha256>" of an OCI image: entry "large" says it has 10737418240 bytes, more than the limit of 8589934592"#);
}

#[test]
fn no_path_leads_out_of_the_root() {
    let outside = "/etc";
    assert_eq!(
        paths(&[plain(archive(&[
            symlink("a", outside),
            directory("b/"),
            file("b/passwd", b"x")
        ]))]),
        "a b b/passwd"
    );
    let below = file("a/passwd", b"x");
    let two =
        |first: Vec<Vec<u8>>, second: Vec<Vec<u8>>| refusal(&raw(&[plain(archive(&first)), plain(archive(&second))]));
    let all = [
        of_members(&[symlink("a", outside), below.clone()]),
        of_members(&[below.clone(), symlink("a", outside)]),
        two(vec![symlink("a", outside)], vec![below.clone()]),
        two(
            vec![symlink("a", "b"), directory("b/")],
            vec![directory("a/x/"), file("a/x/y", b"")],
        ),
        of_members(&[file("a", b""), below]),
        of_members(&[file("/etc/passwd", b"x")]),
        of_members(&[file("../x", b"x")]),
        of_members(&[file("a/../../x", b"x")]),
        of_members(&[file("a//x", b"x")]),
        of_members(&[file("./", b"x")]),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    read "<sha256>" of an OCI image: a/passwd lies below a, which is no directory
    read "<sha256>" of an OCI image: a/passwd lies below a, which is no directory
    read "<sha256>" of an OCI image: a/passwd lies below a, which is no directory
    read "<sha256>" of an OCI image: a/x lies below a, which is no directory
    read "<sha256>" of an OCI image: a/passwd lies below a, which is no directory
    read "<sha256>" of an OCI image: entry "/etc/passwd" is absolute
    read "<sha256>" of an OCI image: entry "../x" has a component ".."
    read "<sha256>" of an OCI image: entry "a/../../x" has a component ".."
    read "<sha256>" of an OCI image: entry "a//x" has an empty component
    read "<sha256>" of an OCI image: entry "./" stands at the root but is not a directory
    "#);
}

#[test]
fn only_files_directories_and_links_are_unpacked() {
    let kinds = [
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::GNUSparse,
        EntryType::XGlobalHeader,
        EntryType::new(b'Z'),
    ];
    let all = kinds.map(|kind| of_members(&[member(b"x", kind, b"", b"")]));
    insta::assert_snapshot!(all.join("\n"), @r#"
    read "<sha256>" of an OCI image: entry "x" is a device node, which is not unpacked
    read "<sha256>" of an OCI image: entry "x" is a device node, which is not unpacked
    read "<sha256>" of an OCI image: entry "x" is a named pipe, which is not unpacked
    read "<sha256>" of an OCI image: entry "x" is a sparse file, which is not supported
    read "<sha256>" of an OCI image: entry "x" is a global pax header, which is not supported
    read "<sha256>" of an OCI image: entry "x" has the unknown type "Z"
    "#);
}

#[test]
fn a_hard_link_is_to_a_file_that_is_there() {
    let two = |second: &[Vec<u8>]| raw(&[plain(small()), plain(archive(second))]);
    // To a file of the same layer, of a lower one, and to a symbolic link.
    let members = [
        file("a", b"x"),
        hard_link("b", "a"),
        symlink("s", "a"),
        hard_link("t", "s"),
    ];
    assert_eq!(paths(&[plain(archive(&members))]), "a b s t");
    let (tree, _) = apply(&two(&[hard_link("shadow", "etc/passwd")])).expect("innocent");
    assert_eq!(tree.get(&path("shadow")), tree.get(&path("etc/passwd")));
    // One inode has one owner and mode: those of the first header.
    let mut other = hard_link("b", "a");
    other[100..107].copy_from_slice(b"0004755");
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes().copy_from_slice(&other);
    header.set_cksum();
    let (tree, _) = apply(&raw(&[plain(archive(&[file("a", b"x"), header.as_bytes().to_vec()]))])).expect("innocent");
    assert_eq!(tree.get(&path("b")).expect("there").meta.mode, 0o644);
    let all = [
        of_members(&[directory("d/"), hard_link("b", "d")]),
        of_members(&[hard_link("b", "a"), file("a", b"x")]),
        of_members(&[hard_link("b", "b")]),
        of_members(&[hard_link("b", "../etc/passwd")]),
        of_members(&[hard_link("b", "/etc/passwd")]),
        of_members(&[hard_link("b", "./")]),
        of_members(&[symlink("a", "/etc"), hard_link("b", "a/passwd")]),
        refusal(&two(&[hard_link("b", "etc")])),
        refusal(&two(&[hard_link("b", "etc/passwd"), file("etc/.wh.passwd", b"")])),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    read "<sha256>" of an OCI image: b is a hard link to d, which is a directory
    read "<sha256>" of an OCI image: b is a hard link to a, which is not there yet
    read "<sha256>" of an OCI image: b is a hard link to b, which is not there yet
    read "<sha256>" of an OCI image: entry "b" is a hard link to "../etc/passwd", which has a component ".."
    read "<sha256>" of an OCI image: entry "b" is a hard link to "/etc/passwd", which is absolute
    read "<sha256>" of an OCI image: entry "b" is a hard link to the root directory
    read "<sha256>" of an OCI image: b is a hard link to a/passwd, which is not there yet
    read "<sha256>" of an OCI image: b is a hard link to etc, which is a directory
    read "<sha256>" of an OCI image: b is a hard link to etc/passwd, which the same layer removes
    "#);
}

#[test]
fn a_removal_names_an_entry_beside_it() {
    let two = |second: &[Vec<u8>]| [plain(small()), plain(archive(second))];
    assert_eq!(paths(&two(&[file("etc/.wh.passwd", b"")])), "etc");
    assert_eq!(paths(&two(&[file("etc/.wh..wh..opq", b"")])), "etc");
    assert_eq!(paths(&two(&[file(".wh..wh..opq", b"")])), "");
    assert_eq!(paths(&two(&[file(".wh.etc", b"")])), "");
    assert_eq!(paths(&two(&[file(".wh.nothing", b"")])), "etc etc/passwd");
    // It concerns lower layers only, wherever it stands.
    for members in [
        [file("etc/new", b"x"), file("etc/.wh..wh..opq", b"")],
        [file("etc/.wh..wh..opq", b""), file("etc/new", b"x")],
    ] {
        assert_eq!(paths(&two(&members)), "etc etc/new");
    }
    assert_eq!(
        paths(&two(&[file(".wh.etc", b""), file("etc/new", b"")])),
        "etc etc/new"
    );
    let all = [
        of_members(&[file(".wh.", b"")]),
        of_members(&[file(".wh..", b"")]),
        of_members(&[file(".wh...", b"")]),
        of_members(&[file("a/.wh..", b"")]),
        of_members(&[file(".wh..wh.x", b"")]),
        of_members(&[file(".wh..wh.", b"")]),
        of_members(&[file(".wh..wh..wh..opq", b"")]),
        of_members(&[file(".wh.a", b"content")]),
        of_members(&[directory(".wh.a/")]),
        of_members(&[symlink(".wh.a", "b")]),
        of_members(&[file(".wh.a/b", b"")]),
        of_members(&[file(".wh.a", b""), file(".wh.a", b"")]),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    read "<sha256>" of an OCI image: .wh. removes nothing that can be there
    read "<sha256>" of an OCI image: .wh.. removes nothing that can be there
    read "<sha256>" of an OCI image: .wh... removes nothing that can be there
    read "<sha256>" of an OCI image: a/.wh.. removes nothing that can be there
    read "<sha256>" of an OCI image: .wh..wh.x removes nothing that can be there
    read "<sha256>" of an OCI image: .wh..wh. removes nothing that can be there
    read "<sha256>" of an OCI image: .wh..wh..wh..opq removes nothing that can be there
    read "<sha256>" of an OCI image: .wh.a removes a file by its name, and is no empty file
    read "<sha256>" of an OCI image: .wh.a removes a file by its name, and is no empty file
    read "<sha256>" of an OCI image: .wh.a removes a file by its name, and is no empty file
    read "<sha256>" of an OCI image: .wh.a/b lies below a name that removes a file
    read "<sha256>" of an OCI image: .wh.a is there twice
    "#);
}

#[test]
fn a_path_is_there_once_in_a_layer() {
    let again = [plain(archive(&[file("a", b"1")])), plain(archive(&[file("a", b"2")]))];
    assert_eq!(paths(&again), "a");
    let all = [
        of_members(&[file("a", b"1"), file("a", b"2")]),
        of_members(&[file("a", b"1"), file("./a", b"2")]),
        of_members(&[directory("a/"), symlink("a", "b")]),
        of_members(&[directory("a/"), directory("a/")]),
        of_members(&[directory("./"), directory("./")]),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    read "<sha256>" of an OCI image: a is there twice
    read "<sha256>" of an OCI image: a is there twice
    read "<sha256>" of an OCI image: a is there twice
    read "<sha256>" of an OCI image: a is there twice
    read "<sha256>" of an OCI image: the root directory is there twice
    "#);
}

#[test]
fn entries_and_names_are_counted_over_all_layers() {
    let many = |from: u64, count: u64| {
        let members: Vec<Vec<u8>> = (from..from + count).map(|n| file(&format!("f{n}"), b"")).collect();
        zstandard(&archive(&members))
    };
    let few = LayerLimits {
        entries: 500,
        ..LayerLimits::default()
    };
    let within = |layers: &[RawLayer]| apply_within(&raw(layers), &few).map_err(|error| masked(&error));
    let (first, second, more) = (many(0, 300), many(300, 200), many(500, 1));
    let (tree, _) = within(&[first.clone(), second.clone()]).expect("innocent");
    assert_eq!(tree.len(), 500);
    insta::assert_snapshot!(within(&[first, second, more]).expect_err("one too many"), @r#"read "<sha256>" of an OCI image: the layers have more than 500 entries together"#);
    let limit = LayerLimits::default().entries;
    insta::assert_snapshot!(refusal(&raw(&[many(0, limit + 1)])), @r#"read "<sha256>" of an OCI image: after entry "f499999" there are more than 500000 entries"#);

    // A few deep paths make thousands of directories that no layer lists.
    let deep = |count: usize| {
        let members = (0..count).map(|n| {
            let path = format!("{n}/{}x", "d/".repeat(400));
            let record = format!("{} path={path}\n", path.len() + 10);
            [
                member(b"pax", EntryType::XHeader, record.as_bytes(), b""),
                file(&path[..100], b""),
            ]
            .concat()
        });
        raw(&[plain(archive(&members.collect::<Vec<_>>()))])
    };
    let short = LayerLimits {
        names: 1 << 20,
        ..LayerLimits::default()
    };
    let within = |files: &Files| apply_within(files, &short).map_err(|error| masked(&error));
    let (tree, _) = within(&deep(2)).expect("innocent");
    assert_eq!(tree.len(), 2 * 402);
    insta::assert_snapshot!(within(&deep(20)).expect_err("many directories"), @r#"read "<sha256>" of an OCI image: the names, link targets and extended attributes of the layers have more than 1048576 bytes together"#);

    // Extended attributes stay in memory as names do.
    let attributes = |count: usize| {
        let value = "v".repeat(65_001);
        let record = format!("65028 SCHILY.xattr.user.a={value}\n");
        assert_eq!(record.len(), 65_028);
        let members = (0..count).map(|n| {
            [
                member(b"pax", EntryType::XHeader, record.as_bytes(), b""),
                file(&format!("f{n}"), b""),
            ]
            .concat()
        });
        raw(&[zstandard(&archive(&members.collect::<Vec<_>>()))])
    };
    within(&attributes(15)).expect("innocent");
    insta::assert_snapshot!(within(&attributes(17)).expect_err("many bytes"), @r#"read "<sha256>" of an OCI image: the names, link targets and extended attributes of the layers have more than 1048576 bytes together"#);
}
