//! Inputs with a structure, for targets that random bytes do not enter: containers within containers, and documents whose values are odd.

use crate::image_grammar::{image_layout, two_archives};
use arbitrary::{Result, Unstructured};
use pnb::{
    image::{
        Guid, composefs,
        cpio::CpioWriter,
        fat::{self, FatItem, FatKind, FatVolume, VolumeSize},
        gpt::{self, PartitionRequest},
        qcow2,
    },
    manifest::write_value,
    model::{Epoch, Meta, RelPath, SectorSize, VerityDigest, ZstdLevel, parse_dump},
};
use serde_json::Value;
use std::{
    io::{Cursor, Read, Write},
    num::NonZeroU32,
};
use tar::{EntryType, Header};

/// Makes an input of the fuzzer's bytes.
pub(crate) type Grammar = fn(&mut Unstructured<'_>) -> Result<Vec<u8>>;

/// All grammars: name, target, and the function.
pub(crate) const GRAMMARS: &[(&str, &str, Grammar)] = &[
    ("nest", "inspect", nested),
    ("nest-diff", "diff", nested_pair),
    ("nest-root", "root", nested),
    ("files-card", "card", card),
    ("members-layers", "layers", two_archives),
    ("documents-layout", "layout", image_layout),
    ("heads-http", "http", heads),
    ("modules-kmod", "kmod", packed_module),
    ("trees-composefs", "composefs", composefs_image),
    ("packets-tftp", "tftp", packets),
    ("text-archives", "archives", |u| {
        remix(u, include_str!("../../stages/archives.toml"))
    }),
    ("text-config", "config", |u| {
        remix(u, include_str!("../seeds/config/config.txt"))
    }),
    ("text-control", "control", |u| {
        remix(u, include_str!("../seeds/control/control"))
    }),
    ("text-dump", "dump", |u| remix(u, include_str!("../seeds/dump/dump"))),
    ("text-facts", "facts", |u| {
        remix(u, include_str!("../seeds/facts/facts"))
    }),
    ("text-index", "index", |u| {
        remix(u, include_str!("../seeds/control/control"))
    }),
    ("text-lists", "lists", |u| {
        remix(u, include_str!("../seeds/lists/modules"))
    }),
    ("text-lock", "lock", |u| {
        remix(u, include_str!("../seeds/lock/lock.toml"))
    }),
    ("text-mirrors", "mirrors", |u| {
        remix(u, include_str!("../seeds/mirrors/debian.sources"))
    }),
    ("text-policy", "policy", |u| {
        remix(u, include_str!("../../docs/audit-policy.example.toml"))
    }),
    ("text-release", "release", |u| {
        remix(u, include_str!("../seeds/release/Release"))
    }),
    ("text-stage", "stage", |u| {
        remix(u, include_str!("../../stages/raw/stage.toml"))
    }),
    ("values-bundle", "bundle", signed_values),
    ("values-json", "json", values),
    ("values-manifest", "manifest", values),
];

/// A larger container is not put into another one, bytes.
const MAX_INNER: usize = 256 << 10;

fn nested(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let depth = u.int_in_range(0..=20)?;
    let mut bytes = leaf(u)?;
    for _ in 0..depth {
        if bytes.len() > MAX_INNER {
            break;
        }
        let copies = *u.choose(&[1, 1, 2, 3, 48])?;
        bytes = container(u, &bytes, copies)?;
    }
    damage(u, bytes)
}

/// Two nests that share most of their bytes, in the form of the target `diff`.
fn nested_pair(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let a = nested(u)?;
    let b = if u.arbitrary()? {
        damage(u, a.clone())?
    } else {
        nested(u)?
    };
    let whole = a.len() + b.len();
    // The target cuts at this part of 256.
    let at = (a.len() * 256).div_ceil(whole.max(1)).min(255);
    Ok([&[at as u8][..], &a, &b].concat())
}

fn leaf(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const LEAVES: [&[u8]; 9] = [
        b"",
        b"x",
        b"070701",
        b"menuentry 'x' {\n linux /k\n}\n",
        b"{\"a\":[1,2,{\"name\":\"x\"}]}",
        b"\x7fELF\x02\x01\x01",
        b"MZ",
        b"\x5e\x2a\x4d\x18\x01\0\0\0x",
        &[0; 4096],
    ];
    Ok(match u.int_in_range(0..=9)? {
        9 => u.arbitrary::<[u8; 64]>()?.to_vec(),
        known => LEAVES[known].to_vec(),
    })
}

/// Changes a few bytes, cuts or lengthens; mostly does nothing.
pub(crate) fn damage(u: &mut Unstructured<'_>, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    for _ in 0..u.int_in_range(0..=3)? {
        match u.int_in_range(0..=9)? {
            0 if !bytes.is_empty() => {
                let at = u.choose_index(bytes.len())?;
                bytes[at] = u.arbitrary()?;
            }
            1 if !bytes.is_empty() => bytes.truncate(u.choose_index(bytes.len())?),
            2 => bytes.extend(u.arbitrary::<[u8; 8]>()?),
            3 => bytes.resize(bytes.len() + 4096, 0),
            _ => {}
        }
    }
    Ok(bytes)
}

/// A container with `copies` copies of `inner`.
fn container(u: &mut Unstructured<'_>, inner: &[u8], copies: usize) -> Result<Vec<u8>> {
    Ok(match u.int_in_range(0..=13)? {
        0 | 1 => zstd::encode_all(inner, 3).expect("in memory").repeat(copies),
        2 => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(inner).expect("in memory");
            out.finish().expect("in memory").repeat(copies)
        }
        3 => {
            let mut out = liblzma::write::XzEncoder::new(Vec::new(), 0);
            out.write_all(inner).expect("in memory");
            out.finish().expect("in memory").repeat(copies)
        }
        4 | 5 => cpio(inner, copies),
        6 => tar(u, inner, copies)?,
        7 => ar(inner, copies),
        8 | 9 => mbr(u, inner)?,
        10 => iso(u, inner, copies)?,
        11 => gpt_disk(inner),
        12 => fat_volume(&[("file".to_owned(), inner.to_vec())]),
        _ => {
            let mut disk = inner.to_vec();
            disk.resize(disk.len().next_multiple_of(512), 0);
            let mut out = Cursor::new(Vec::new());
            qcow2::write(&disk, &mut out, ZstdLevel::default(), NonZeroU32::MIN).expect("in memory");
            out.into_inner()
        }
    })
}

fn cpio(inner: &[u8], copies: usize) -> Vec<u8> {
    let mut out = CpioWriter::new(Vec::new());
    for n in 0..copies {
        let path: RelPath = format!("f{n}").parse().expect("a path");
        let meta = Meta::root(0o644, Epoch::new(0));
        out.file(&path, &meta, inner.len() as u64, &mut &*inner)
            .expect("in memory");
    }
    out.finish().expect("in memory")
}

/// Plain members and sparse ones, whose maps may be anything.
fn tar(u: &mut Unstructured<'_>, inner: &[u8], copies: usize) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for n in 0..copies {
        let mut header = Header::new_gnu();
        header.set_path(format!("f{n}")).expect("short");
        header.set_size(inner.len() as u64);
        if u.ratio(1, 4)? {
            header.set_entry_type(EntryType::GNUSparse);
            let gnu = header.as_gnu_mut().expect("it is one");
            gnu.realsize = number(u.arbitrary()?);
            for field in gnu.sparse.iter_mut().take(u.int_in_range(0..=4)?) {
                field.offset = number(u.arbitrary()?);
                field.numbytes = number(u.int_in_range(0..=inner.len() as u64 + 1)?);
            }
            gnu.isextended = [u8::from(u.ratio(1, 8)?)];
        }
        header.set_cksum();
        out.extend(header.as_bytes());
        out.extend(inner);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + u.int_in_range(0..=2)? * 512, 0);
    Ok(out)
}

/// A number in the binary form of GNU tar.
fn number(value: u64) -> [u8; 12] {
    let mut field = [0; 12];
    field[0] = 0x80;
    field[4..].copy_from_slice(&value.to_be_bytes());
    field
}

fn ar(inner: &[u8], copies: usize) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for n in 0..copies {
        out.extend(
            format!(
                "{:<16}0           0     0     100644  {:<10}`\n",
                format!("f{n}"),
                inner.len()
            )
            .bytes(),
        );
        out.extend(inner);
        out.resize(out.len().next_multiple_of(2), b'\n');
    }
    out
}

/// A record in front of `inner`, whose entries begin and end anywhere near.
fn mbr(u: &mut Unstructured<'_>, inner: &[u8]) -> Result<Vec<u8>> {
    let mut out = vec![0; 512];
    out.extend(inner);
    out.resize(out.len().next_multiple_of(512), 0);
    let sectors = (out.len() / 512) as u32;
    for slot in 0..u.int_in_range(1..=4)? {
        let entry = &mut out[0x1be + 16 * slot..][..16];
        entry[4] = *u.choose(&[0x83, 0x83, 0x05, 0x0f, 0xee, 0xef])?;
        let first = u.int_in_range(0..=sectors.min(4))?;
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..].copy_from_slice(&sectors.saturating_sub(first).to_le_bytes());
    }
    out[510..512].copy_from_slice(&[0x55, 0xaa]);
    Ok(out)
}

/// An ISO 9660 image without Rock Ridge: all files are `inner`, or anything else in the image.
fn iso(u: &mut Unstructured<'_>, inner: &[u8], copies: usize) -> Result<Vec<u8>> {
    let sectors = 20 + inner.len().div_ceil(2048) as u32;
    let both = |n: u32| [n.to_le_bytes(), n.to_be_bytes()].concat();
    let record = |name: &[u8], start: u32, len: u32, flags: u8| {
        let mut bytes = vec![0; (33 + name.len()).next_multiple_of(2)];
        bytes[0] = bytes.len() as u8;
        bytes[2..10].copy_from_slice(&both(start));
        bytes[10..18].copy_from_slice(&both(len));
        bytes[25] = flags;
        bytes[32] = name.len() as u8;
        bytes[33..33 + name.len()].copy_from_slice(name);
        bytes
    };
    let mut image = vec![0; sectors as usize * 2048];
    let descriptor = &mut image[16 * 2048..][..2048];
    descriptor[..7].copy_from_slice(b"\x01CD001\x01");
    descriptor[80..88].copy_from_slice(&both(sectors));
    descriptor[128..132].copy_from_slice(&[0, 8, 8, 0]);
    descriptor[156..190].copy_from_slice(&record(&[0], 18, 2048, 2));
    image[17 * 2048..][..7].copy_from_slice(b"\xffCD001\x01");
    let mut records = [record(&[0], 18, 2048, 2), record(&[1], 18, 2048, 2)].concat();
    for n in 0..copies.min(40) {
        let start = if u.ratio(1, 8)? {
            u.int_in_range(0..=sectors)?
        } else {
            20
        };
        let len = if u.ratio(1, 8)? {
            u.arbitrary()?
        } else {
            inner.len() as u32
        };
        let flags = *u.choose(&[0, 0, 0, 0, 2, 4, 128])?;
        records.extend(record(format!("F{n}").as_bytes(), start, len, flags));
    }
    image[18 * 2048..][..records.len()].copy_from_slice(&records);
    image[20 * 2048..][..inner.len()].copy_from_slice(inner);
    Ok(image)
}

fn gpt_disk(inner: &[u8]) -> Vec<u8> {
    let wanted = PartitionRequest {
        name: "powernode-root".to_owned(),
        type_guid: gpt::types::LINUX_DATA,
        guid: Guid::new(1),
        size: inner.len().max(1) as u64,
        attributes: 0,
    };
    let table = gpt::plan(Guid::new(9), SectorSize::Bytes512, &[wanted], None).expect("fits");
    let mut disk = vec![0; table.size() as usize];
    disk[table.partitions[0].offset(table.sector_size) as usize..][..inner.len()].copy_from_slice(inner);
    let mut out = Cursor::new(disk);
    gpt::write(&table, None, &mut out).expect("in memory");
    out.into_inner()
}

fn fat_volume(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let path = |name: &str| name.parse::<RelPath>().expect("a path");
    let items = files.iter().map(|(name, bytes)| {
        let size = bytes.len() as u32;
        (path(name), FatItem::File { size })
    });
    let volume = FatVolume {
        kind: FatKind::Fat16,
        sector_size: SectorSize::Bytes512,
        label: "POWERNODE".to_owned(),
        serial: 1,
        epoch: Epoch::new(1_700_000_000),
        hidden_sectors: 0,
        size: VolumeSize::Content { spare: 0 },
    };
    let layout = fat::plan(&volume, &items.collect()).expect("fits");
    let mut out = Cursor::new(vec![0; layout.size() as usize]);
    let open = |wanted: &RelPath| -> std::io::Result<Box<dyn Read>> {
        let found = files.iter().find(|(name, _)| path(name) == *wanted);
        Ok(Box::new(Cursor::new(found.expect("planned").1.clone())))
    };
    fat::write(&layout, 0, &open, &mut out).expect("in memory");
    out.into_inner()
}

/// A disk with a boot partition for a Raspberry Pi, whose settings, command line and device tree are anything.
fn card(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let config = remix(u, include_str!("../seeds/config/config.txt"))?;
    let tree = damage(u, include_bytes!("../seeds/dtb/small.dtb").to_vec())?;
    let files = [
        ("config.txt", config),
        ("cmdline.txt", u.arbitrary::<[u8; 32]>()?.to_vec()),
        ("bcm2711-rpi-4-b.dtb", tree),
        ("powernode/kernel", vec![0; 64]),
        ("powernode/initramfs.cpio.zst", b"x".to_vec()),
    ];
    let volume = fat_volume(&files.map(|(name, bytes)| (name.to_owned(), bytes)));
    damage(u, gpt_disk(&volume))
}

/// A kernel module, plain or compressed, with changed bytes inside.
fn packed_module(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const MODULES: [&[u8]; 3] = [
        include_bytes!("../../tests/fixtures/kmod/modules/kernel/a/base-core.ko"),
        include_bytes!("../../tests/fixtures/kmod/modules/kernel/b/top-two.ko"),
        include_bytes!("../../tests/fixtures/kmod/modules/kernel/z/alone.ko"),
    ];
    let mut module = u.choose(&MODULES)?.to_vec();
    for _ in 0..u.int_in_range(0..=8)? {
        // A field of a header, or a byte of a string.
        let at = u.choose_index(module.len() - 8)?;
        match u.int_in_range(0..=2)? {
            0 => module[at] = u.arbitrary()?,
            1 => module[at..at + 4].copy_from_slice(&u.arbitrary::<[u8; 4]>()?),
            _ => module[at / 8 * 8..][..8].copy_from_slice(&u.int_in_range(0..=4096u64)?.to_le_bytes()),
        }
    }
    Ok(match u.int_in_range(0..=2)? {
        0 => module,
        1 => zstd::encode_all(&module[..], 1).expect("in memory"),
        _ => {
            let options = liblzma::stream::LzmaOptions::new_preset(0).expect("a preset");
            let mut filters = liblzma::stream::Filters::new();
            filters.lzma2(&options);
            let stream = liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32);
            let mut out = liblzma::write::XzEncoder::new_stream(Vec::new(), stream.expect("an encoder"));
            out.write_all(&module).expect("in memory");
            out.finish().expect("in memory")
        }
    })
}

/// The image of a tree, whose dump has odd lines.
fn composefs_image(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let dump = remix(u, include_str!("../seeds/dump/dump"))?;
    let tree = String::from_utf8(dump).ok().and_then(|dump| parse_dump(&dump).ok());
    let empty = |_: &VerityDigest| -> std::io::Result<Box<dyn Read>> { Ok(Box::new(std::io::empty())) };
    let image = tree.and_then(|tree| composefs::write_image(&tree, &empty).ok());
    let mut image = image.map_or_else(Vec::new, |(image, _)| image);
    for _ in 0..u.int_in_range(0..=6)? {
        if image.is_empty() {
            break;
        }
        let at = u.choose_index(image.len())?;
        image[at] = u.arbitrary()?;
    }
    Ok(image)
}

/// Values that a document hardly has.
const ODD: [&str; 20] = [
    "",
    "\"\"",
    "[]",
    "{}",
    "0",
    "-1",
    "18446744073709551615",
    "18446744073709551616",
    "1e999",
    "true",
    "null",
    "\"../../x\"",
    "\"\\u0000\"",
    "\"\u{202e}é\"",
    "[[",
    "{ a = 1 }",
    "0x1",
    "nan",
    "2026-01-01T00:00:00Z",
    "'''",
];

/// The lines of a document, some of them left out, repeated, moved, joined, or with another value.
fn remix(u: &mut Unstructured<'_>, document: &str) -> Result<Vec<u8>> {
    let lines: Vec<&str> = document.lines().collect();
    let mut out = String::new();
    for line in &lines {
        match if u.is_empty() { 15 } else { u.int_in_range(0..=15)? } {
            0 => continue,
            1 => out.push_str(&format!("{line}\n{line}")),
            2 | 3 => {
                let (key, _) = line.split_once(['=', ':']).unwrap_or((line, ""));
                let mark = if line.contains('=') { "=" } else { ":" };
                out.push_str(&format!("{key}{mark} {}", u.choose(&ODD)?));
            }
            4 => out.push_str(u.choose(&lines)?),
            5 => {
                out.push_str(line);
                continue;
            }
            6 => {
                let at = u.choose_index(line.len() + 1)?;
                let at = (0..=at).rev().find(|at| line.is_char_boundary(*at)).unwrap_or_default();
                out.push_str(&format!("{}{}{}", &line[..at], u.arbitrary::<char>()?, &line[at..]));
            }
            7 => out.push_str(&line.repeat(u.int_in_range(1..=200)?)),
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    Ok(out.into_bytes())
}

/// A statement of an artifact in canonical form, some of whose values are others.
fn values(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const DOCUMENTS: [&str; 4] = [
        include_str!("../seeds/manifest/build-manifest.json"),
        include_str!("../seeds/manifest/sbom.cdx.json"),
        include_str!("../seeds/manifest/provenance.slsa.json"),
        include_str!("../seeds/manifest/build-record.json"),
    ];
    let mut value: Value = serde_json::from_str(u.choose(&DOCUMENTS)?).expect("a seed");
    for _ in 0..u.int_in_range(0..=4)? {
        change(u, &mut value, 0)?;
    }
    if u.ratio(1, 8)? {
        return damage(u, serde_json::to_vec(&value).expect("a value"));
    }
    Ok(write_value(&value).map(String::into_bytes).unwrap_or_default())
}

/// A bundle with a few changed values.
fn signed_values(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const BUNDLES: [&str; 4] = [
        include_str!("../seeds/bundle/file-log-1"),
        include_str!("../seeds/bundle/file-log-2"),
        include_str!("../seeds/bundle/file-stamped"),
        include_str!("../seeds/bundle/statement-log-1"),
    ];
    let mut value: Value = serde_json::from_str(u.choose(&BUNDLES)?).expect("a seed");
    // Parts of another bundle are what an attacker has.
    let other: Value = serde_json::from_str(u.choose(&BUNDLES)?).expect("a seed");
    for part in ["tlogEntries", "certificate", "timestampVerificationData"] {
        if u.ratio(1, 8)? {
            value["verificationMaterial"][part] = other["verificationMaterial"][part].clone();
        }
    }
    for _ in 0..u.int_in_range(0..=3)? {
        change(u, &mut value, 0)?;
    }
    Ok(serde_json::to_vec(&value).expect("a value"))
}

/// Changes one value somewhere in `value`.
fn change(u: &mut Unstructured<'_>, value: &mut Value, depth: usize) -> Result<()> {
    let inner = match value {
        Value::Object(map) if !map.is_empty() && (depth == 0 || u.ratio(4, 5)?) => {
            let key = map.keys().nth(u.choose_index(map.len())?).cloned().unwrap_or_default();
            match u.int_in_range(0..=9)? {
                0 => {
                    map.remove(&key);
                    return Ok(());
                }
                1 => {
                    map.insert(u.arbitrary::<char>()?.to_string(), Value::Null);
                    return Ok(());
                }
                _ => map.get_mut(&key),
            }
        }
        Value::Array(list) if !list.is_empty() && u.ratio(4, 5)? => {
            let at = u.choose_index(list.len())?;
            if u.ratio(1, 6)? {
                let again = list[at].clone();
                list.push(again);
                return Ok(());
            }
            list.get_mut(at)
        }
        _ => None,
    };
    if let Some(inner) = inner {
        return change(u, inner, depth + 1);
    }
    *value = match u.int_in_range(0..=6)? {
        0 => Value::Null,
        1 => Value::from(u.arbitrary::<i64>()?),
        2 => Value::from(u.arbitrary::<f64>()?),
        3 => Value::String(u.arbitrary::<[char; 3]>()?.iter().collect()),
        4 => Value::Array(vec![value.clone()]),
        5 => serde_json::from_str(u.choose(&ODD)?).unwrap_or_default(),
        _ => Value::String("a".repeat(u.int_in_range(0..=5000)?)),
    };
    Ok(())
}

/// Requests of a connection, whose targets and fields are odd.
fn heads(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const METHODS: [&str; 7] = ["GET", "GET", "GET", "HEAD", "POST", "get", "BREW"];
    const PIECES: [&str; 26] = [
        "/",
        "/",
        "/",
        "kernel",
        "amd64",
        "a%20b",
        "link",
        "tree",
        "up",
        "out",
        "absolute",
        "loop",
        "..",
        ".",
        "%2e%2E",
        "%2F",
        "%00",
        "%",
        "%4",
        "%zz",
        "?",
        "#",
        "http://host",
        "\\",
        "\u{e9}",
        "%ff",
    ];
    const FIELDS: [&str; 14] = [
        "Host: x",
        "host:y",
        "Connection: close",
        "Connection: te, Keep-Alive",
        "Content-Length: 0",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "If-Range: \"x\"",
        "Range: bytes=0-",
        "Range: bytes=-18446744073709551616",
        "Range: bytes=1-2,3-4",
        "A:",
        " folded",
        "B: \u{ff}",
    ];
    let mut out = String::new();
    for _ in 0..u.int_in_range(1..=4)? {
        out.push_str(u.choose(&METHODS)?);
        out.push(' ');
        if u.ratio(7, 8)? {
            out.push('/');
        }
        for _ in 0..u.int_in_range(0..=8)? {
            out.push_str(u.choose(&PIECES)?);
        }
        out.push_str(u.choose(&[
            " HTTP/1.1\r\n",
            " HTTP/1.1\r\n",
            " HTTP/1.0\r\n",
            " HTTP/1.1\n",
            " HTTP/3.0\r\n",
            "\r\n",
        ])?);
        if u.ratio(7, 8)? {
            out.push_str("Host: h\r\n");
        }
        for _ in 0..u.int_in_range(0..=5)? {
            if u.ratio(1, 3)? {
                let (first, last) = (u.int_in_range(0..=16u64)?, u.arbitrary::<u16>()?);
                out.push_str(&format!("Range: bytes={first}-{last}"));
            } else {
                out.push_str(u.choose(&FIELDS)?);
            }
            out.push_str(u.choose(&["\r\n", "\r\n", "\r\n", "\n", "\r"])?);
        }
        if u.ratio(1, 16)? {
            out.push_str(&"C: d\r\n".repeat(u.int_in_range(0..=80)?));
        }
        out.push_str("\r\n");
    }
    damage(u, out.into_bytes())
}

/// A transfer with options, acknowledgements near the blocks under way, and time that passes, in the form of the target `tftp`.
fn packets(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const NAMES: [&[u8]; 6] = [b"kernel", b"/amd64/a b", b"link", b"out", b"../outside", b"a\x1b[2J"];
    const OPTIONS: [&[u8]; 7] = [
        b"blksize",
        b"BLKSIZE",
        b"timeout",
        b"tsize",
        b"windowsize",
        b"WindowSize",
        b"multicast",
    ];
    let size = match u.int_in_range(0..=3)? {
        0 => u.arbitrary()?,
        1 => 65_540 * 8,
        _ => u.int_in_range(0..=100_000u32)?,
    };
    let mut request = vec![0, *u.choose(&[1, 1, 1, 1, 1, 1, 1, 2])?];
    request.extend(*u.choose(&NAMES)?);
    request.extend(*u.choose(&[&b"\0octet\0"[..], b"\0OCTET\0", b"\0octet\0", b"\0netascii\0"])?);
    for _ in 0..u.int_in_range(0..=5)? {
        request.extend(*u.choose(&OPTIONS)?);
        request.push(0);
        let value = match u.int_in_range(0..=3)? {
            0 => u
                .choose(&[
                    "0",
                    "7",
                    "8",
                    "65464",
                    "65465",
                    "65535",
                    "65536",
                    "-1",
                    "+8",
                    "",
                    "99999999999999999999",
                ])?
                .to_string(),
            1 => u.arbitrary::<u16>()?.to_string(),
            _ => u.int_in_range(1..=70u8)?.to_string(),
        };
        request.extend(value.bytes());
        request.push(0);
    }
    if u.ratio(1, 8)? {
        request = damage(u, request)?;
    }
    let mut out = size.to_be_bytes().to_vec();
    let frame = |out: &mut Vec<u8>, packet: &[u8]| {
        out.extend((packet.len() as u16).to_be_bytes());
        out.extend(packet);
    };
    frame(&mut out, &request);
    // The acknowledgement of the options, where there are any.
    let mut block = 0u16;
    for _ in 0..u.int_in_range(0..=400)? {
        match u.int_in_range(0..=9)? {
            0 => out.push(0),
            1 | 2 => out.push(1),
            3 => {
                out.push(2);
                frame(&mut out, &u.arbitrary::<[u8; 6]>()?);
            }
            _ => {
                let number = match u.int_in_range(0..=7)? {
                    0 => u.arbitrary()?,
                    1 => block.wrapping_sub(u.int_in_range(0..=70)?),
                    _ => {
                        let now = block;
                        block = block.wrapping_add(*u.choose(&[0, 1, 1, 1, 2, 4, 8, 64])?);
                        now
                    }
                };
                out.push(2);
                let [high, low] = number.to_be_bytes();
                frame(&mut out, &[0, 4, high, low]);
            }
        }
    }
    Ok(out)
}
