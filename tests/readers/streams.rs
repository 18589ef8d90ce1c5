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

/// lz4(1) is not among the tools; this writes literals only, in both forms.
fn lz4_block(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match bytes.len() {
        short @ ..15 => out.push((short as u8) << 4),
        long => {
            out.push(0xf0);
            out.extend(std::iter::repeat_n(255, (long - 15) / 255));
            out.push(((long - 15) % 255) as u8);
        }
    }
    out.extend(bytes);
    out
}

fn lz4_legacy(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x02, 0x21, 0x4c, 0x18];
    for piece in bytes.chunks(100_000) {
        let block = lz4_block(piece);
        out.extend((block.len() as u32).to_le_bytes());
        out.extend(block);
    }
    out
}

fn lz4_frame(bytes: &[u8]) -> Vec<u8> {
    use xxhash_rust::xxh32::xxh32;
    // Version 1, linked blocks, all sums, blocks of 64 KiB.
    let header = [0x54, 0x40];
    let mut out = [
        &[0x04, 0x22, 0x4d, 0x18][..],
        &header,
        &[(xxh32(&header, 0) >> 8) as u8],
    ]
    .concat();
    for piece in bytes.chunks(60_000) {
        let block = lz4_block(piece);
        out.extend((block.len() as u32).to_le_bytes());
        out.extend(&block);
        out.extend(xxh32(&block, 0).to_le_bytes());
    }
    out.extend(0u32.to_le_bytes());
    out.extend(xxh32(bytes, 0).to_le_bytes());
    out
}

fn lzma(bytes: &[u8]) -> Vec<u8> {
    let options = liblzma::stream::LzmaOptions::new_preset(6).expect("a preset");
    let stream = liblzma::stream::Stream::new_lzma_encoder(&options).expect("an encoder");
    let mut out = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    out.write_all(bytes).expect("in memory");
    out.finish().expect("in memory")
}

const FORMATS: [(&str, Compress); 6] = [
    ("gzip", gzip),
    ("zstd", zst),
    ("xz", xz),
    ("lzma", lzma),
    ("lz4", lz4_frame),
    ("lz4", lz4_legacy),
];

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
    // The legacy form of LZ4 has no end: as the kernel does, all of it is one content.
    let node = looked(&[lz4_legacy(&made["1"]), lz4_legacy(&made["2"])].concat());
    assert_eq!(
        (node.format, child(&node, "content").format),
        (Some("lz4"), Some("initramfs"))
    );
    for (name, compress) in FORMATS.into_iter().take(5) {
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

#[test]
fn padding_is_no_other_content() {
    let (_, made) = check(
        &[],
        "mkdir d; cd d; echo one >a; echo a | cpio -o -H newc >../out/1 2>/dev/null
        echo two >b; echo b | cpio -o -H newc >../out/2 2>/dev/null",
    );
    let said = |a: &[u8], b: &[u8]| {
        let found = compared(a, b);
        let what: Vec<String> = found.differences.iter().map(|d| format!("{:?}", d.what)).collect();
        (found.total, what.join("; "))
    };
    for (name, compress) in FORMATS {
        let (one, two) = (compress(&made["1"]), compress(&made["2"]));
        for len in [1, 2, 3, 4, 511, 4096, 200_000] {
            let padded = [one.clone(), vec![0; len]].concat();
            let node = looked(&padded);
            assert_eq!(problems(&node), Vec::<String>::new(), "{name} {len}");
            assert!(holds(child(child(&node, "content"), "/a"), b"one\n"), "{name} {len}");
            let want = format!("Padding {{ a: 0, b: {len}, only: true }}");
            assert_eq!(said(&one, &padded), (1, want), "{name} {len}");
        }
        // Between two archives. Zeros end the legacy form of LZ4 too, as for the kernel.
        let both = |zeros: usize| [one.clone(), vec![0; zeros], two.clone()].concat();
        let (total, what) = said(&both(8), &both(4000));
        assert_eq!(looked(&both(8)).format, Some("initramfs"), "{name}");
        assert!(
            what.contains("Padding { a: 8, b: 4000, only: true }"),
            "{name} {total} {what}"
        );
        assert!(!what.contains("Content"), "{name} {what}");
        // Other zeros and other content: both are said.
        let other = [compress(&made["2"]), vec![0; 40]].concat();
        let (total, what) = said(&one, &other);
        assert!(total >= 2 && !what.contains("only: true"), "{name} {what}");
    }
    let plain = &made["1"];
    let (total, what) = said(plain, &[&plain[..], &[0; 8192]].concat());
    assert!(total == 1 && what.contains("only: true"), "{what}");
}

#[test]
fn the_beginning_of_a_damaged_initramfs_is_shown() {
    let (_, made) = check(
        &[],
        "mkdir d; cd d; echo one >a; echo a | cpio -o -H newc >../out/1 2>/dev/null
        echo first >b; head -c 300000 /dev/urandom >c; printf 'b\\nc\\n' | cpio -o -H newc >../out/2 2>/dev/null",
    );
    for (name, compress) in FORMATS {
        let (head, main) = (&made["1"], compress(&made["2"]));
        for (len, damage) in [(main.len() / 2, false), (main.len(), true)] {
            let mut main = main[..len].to_vec();
            if damage {
                let middle = main.len() / 2..main.len() / 2 + 64;
                main[middle].fill(0x55);
            }
            let node = looked(&[&head[..], &main].concat());
            let names = names(&node);
            assert_eq!(names, ["segment 1 (cpio)", &format!("segment 2 ({name})")], "{node:#?}");
            let second = child(&node, names[1]);
            // The legacy form of LZ4 has no sums, so wrong literals are content.
            // Neither has zstd as it is written here.
            if damage && matches!(name, "lz4" | "zstd") && problems(&node).is_empty() {
                continue;
            }
            assert!(problem(second).contains("from byte 0 on"), "{name}: {node:#?}");
            // A block sorted or coded as a whole has no beginning of its own.
            if len < main.len() || !problems(second).is_empty() && !second.children.is_empty() {
                let content = child(second, "content");
                assert!(content.size > 0 && content.size <= 301_000, "{name}: {node:#?}");
            }
        }
    }
}

#[test]
fn forms_that_are_not_read_are_named() {
    let (_, made) = check(
        &[],
        "echo a >a; echo a | cpio -o -H odc >out/odc 2>/dev/null
        echo a | cpio -o -H bin >out/bin 2>/dev/null; echo a | cpio -o -H newc >out/newc 2>/dev/null",
    );
    let bzip2 = [&b"BZh91AY&SY"[..], &[0x5a; 40]].concat();
    for (bytes, format, said) in [
        (&bzip2[..], "bzip2", "this compression is not read"),
        (&made["odc"], "cpio (odc)", "this form of cpio is not read"),
        (&made["bin"], "cpio (binary)", "this form of cpio is not read"),
        (b"\x89LZO\0\r\n\x1a\n\x10\x30", "lzo", "this compression is not read"),
    ] {
        let node = looked(bytes);
        assert_eq!((node.format, problem(&node)), (Some(format), said));
    }
    let node = looked(&[&made["newc"][..], &bzip2].concat());
    assert!(
        problem(&node).contains("bzip2-compressed, which is not read"),
        "{node:#?}"
    );
    // Text that begins like bzip2 is text.
    assert_eq!(looked(b"BZh is an abbreviation\n").format, Some("text"));
}
