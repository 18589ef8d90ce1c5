//! Compressed streams of several frames, with bytes between and behind them, and cut off.

use super::{child, compared, holds, looked, names, pattern, problem, problems, tools::check};
use std::io::Write;

type Compress = fn(&[u8]) -> Vec<u8>;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(bytes).expect("in memory");
    out.finish().expect("in memory")
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("in memory")
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = liblzma::write::XzEncoder::new(Vec::new(), 6);
    out.write_all(bytes).expect("in memory");
    out.finish().expect("in memory")
}

const FORMATS: [(&str, Compress); 3] = [("gzip", gzip), ("zstd", zst), ("xz", xz)];

/// A tar archive with three files, of which the second crosses the borders of pieces.
fn archive() -> Vec<u8> {
    let (_, mut made) = check(
        &[],
        "mkdir d; echo one >d/one; head -c 300000 /dev/zero | tr '\\0' y >d/two; echo three >d/three
        tar -C d -cf out/x.tar one two three",
    );
    made.remove("x.tar").expect("made")
}

/// The pieces of `bytes`, each compressed by itself.
fn frames(bytes: &[u8], compress: Compress) -> Vec<u8> {
    bytes.chunks(bytes.len().div_ceil(5)).flat_map(compress).collect()
}

#[test]
fn frames_of_one_stream_are_one_content() {
    let tar = archive();
    for (name, compress) in FORMATS {
        let node = looked(&frames(&tar, compress));
        assert_eq!(node.format, Some(name));
        assert_eq!(problems(&node), Vec::<String>::new(), "{name}");
        let content = child(&node, "content");
        assert_eq!(
            (content.format, content.size),
            (Some("tar"), tar.len() as u64),
            "{name}"
        );
        assert_eq!(names(content), ["one", "two", "three"]);
        assert!(holds(child(content, "two"), &[b'y'; 300_000]), "{name}");
        let text = looked(&frames(&[b'a'; 5000], compress));
        assert_eq!(
            (child(&text, "content").format, child(&text, "content").size),
            (Some("text"), 5000),
            "{name}"
        );
        // The same content in one frame and in five is the same.
        let found = compared(&frames(&tar, compress), &compress(&tar));
        assert_eq!(
            found.differences[0].path.last().map(String::as_str),
            Some("(the same content, stored in another way)")
        );
    }
}

#[test]
fn frames_that_are_archives_are_segments() {
    let (_, made) = check(
        &[],
        "mkdir d; cd d; echo one >a; echo a | cpio -o -H newc >../out/1 2>/dev/null
        echo two >b; echo b | cpio -o -H crc >../out/2 2>/dev/null",
    );
    for (name, compress) in FORMATS {
        let both = [compress(&made["1"]), compress(&made["2"])].concat();
        let node = looked(&both);
        assert_eq!((node.format, node.children.len()), (Some("initramfs"), 2), "{name}");
        let inner = child(child(&node, &format!("segment 2 ({name})")), "content");
        assert!(holds(child(inner, "/b"), b"two\n"), "{name}: {node:#?}");
        // One archive, compressed in pieces.
        let node = looked(&frames(&made["1"], compress));
        assert_eq!(node.format, Some(name));
        assert!(
            holds(child(child(&node, "content"), "/a"), b"one\n"),
            "{name}: {node:#?}"
        );
        // Bytes that are no archive hide no segment in front of them.
        let node = looked(&[&both[..], b"junk"].concat());
        assert_eq!((node.format, node.children.len()), (Some("initramfs"), 2), "{name}");
        assert!(
            problem(&node).contains("neither the beginning of an archive"),
            "{name}: {node:#?}"
        );
    }
}

#[test]
fn bytes_behind_a_stream_do_not_hide_it() {
    for (name, compress) in FORMATS {
        let stream = compress(b"content\n");
        let padded = [stream.clone(), vec![0; 4096]].concat();
        assert_eq!(problems(&looked(&padded)), Vec::<String>::new(), "{name}");
        let node = looked(&[&padded[..], b"behind"].concat());
        let want = format!("6 bytes from byte {} on are not {name}", padded.len());
        assert!(problem(&node).contains(&want), "{name}: {node:#?}");
        assert_eq!(child(&node, "content").size, 8, "{name}");
    }
}

#[test]
fn a_cut_stream_shows_its_beginning() {
    let content = pattern(500_000)
        .iter()
        .zip(0u64..)
        .map(|(b, i)| b ^ ((i * i) >> 7) as u8)
        .collect::<Vec<u8>>();
    for (name, compress) in FORMATS {
        let stream = compress(&content);
        let node = looked(&stream[..stream.len() / 2]);
        assert_eq!(node.format, Some(name));
        assert!(problem(&node).contains("cut off"), "{name}: {node:#?}");
        assert!(
            (1..500_000).contains(&child(&node, "content").size),
            "{name}: {node:#?}"
        );
    }
}

#[test]
fn a_skippable_frame_is_skipped_anywhere() {
    let skippable = [&[0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let (one, two) = (zst(b"one "), zst(b"two"));
    for bytes in [
        [&skippable[..], &one, &two].concat(),
        [&one[..], &skippable, &skippable, &two].concat(),
        [&one[..], &two, &skippable].concat(),
    ] {
        let node = looked(&bytes);
        assert_eq!(
            (node.format, child(&node, "content").size),
            (Some("zstd"), 7),
            "{node:#?}"
        );
        assert_eq!(problems(&node), Vec::<String>::new());
    }
}
