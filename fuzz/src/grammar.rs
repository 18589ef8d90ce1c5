//! Inputs with a structure, for targets that random bytes do not enter: containers within containers, and documents whose values are odd.

use crate::targets::sha256;
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
    model::{Epoch, Meta, RelPath, VerityDigest, parse_dump},
};
use serde_json::{Value, json};
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
    ("modules-kmod", "kmod", packed_module),
    ("trees-composefs", "composefs", composefs_image),
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
fn damage(u: &mut Unstructured<'_>, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
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
            qcow2::write(&disk, &mut out, 1, NonZeroU32::MIN).expect("in memory");
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
    let table = gpt::plan(Guid::new(9), &[wanted], None).expect("fits");
    let mut disk = vec![0; table.size() as usize];
    disk[table.partitions[0].offset() as usize..][..inner.len()].copy_from_slice(inner);
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

/// Names of members: below each other, through links, removals, and odd ones.
const NAMES: [&str; 22] = [
    "a",
    "a/",
    "a/b",
    "a/b/",
    "a/b/c",
    "b",
    "./b",
    "b/c/d/e",
    "./",
    ".",
    "/etc",
    "../a",
    "a/../b",
    "a//b",
    ".wh.a",
    ".wh..wh..opq",
    "a/.wh.b",
    "a/.wh..wh..opq",
    ".wh.",
    ".wh.a/b",
    "",
    "usr/lib/modules/1/vmlinuz",
];

const CONTENTS: [&[u8]; 4] = [b"", b"", b"x", &[7; 600]];

/// An archive of members that know each other's names.
fn members(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for _ in 0..u.int_in_range(0..=12)? {
        let mut header = if u.ratio(3, 4)? {
            Header::new_ustar()
        } else {
            Header::new_gnu()
        };
        let name = *u.choose(&NAMES)?;
        let long = u.ratio(1, 6)?.then(|| name.repeat(u.int_in_range(1..=60).unwrap_or(1)));
        if u.ratio(1, 4)? || long.is_some() {
            let mut records = Vec::new();
            let mut add = |key: &str, value: &[u8]| {
                let rest = key.len() + value.len() + 3;
                let digits = (rest + (rest + 3).to_string().len()).to_string().len();
                records.extend(format!("{} {key}=", rest + digits).bytes());
                records.extend(value);
                records.push(b'\n');
            };
            if let Some(long) = &long {
                add("path", long.as_bytes());
            }
            if u.arbitrary()? {
                add("SCHILY.xattr.user.a", &u.arbitrary::<[u8; 6]>()?);
            }
            if u.ratio(1, 4)? {
                add(*u.choose(&["mtime", "size", "uid", "linkpath", "odd"])?, b"1");
            }
            let mut extension = Header::new_ustar();
            extension.set_entry_type(EntryType::XHeader);
            extension.set_size(records.len() as u64);
            extension.set_mode(0o644);
            extension.set_cksum();
            out.extend(extension.as_bytes());
            out.extend(&records);
            out.resize(out.len().next_multiple_of(512), 0);
        }
        let stored = long.as_deref().unwrap_or(name).as_bytes();
        let cut = stored.len().min(100);
        header.as_old_mut().name[..cut].copy_from_slice(&stored[..cut]);
        let kind = *u.choose(b"0000005551122346LKxgS")?;
        header.set_entry_type(EntryType::new(kind));
        if matches!(kind, b'1' | b'2') || u.ratio(1, 30)? {
            let target = u.choose(&NAMES)?.as_bytes();
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
        }
        let content = if kind == b'0' { *u.choose(&CONTENTS)? } else { &b""[..] };
        header.set_size(content.len() as u64);
        header.set_mode(u.int_in_range(0..=0o7777)?);
        header.set_uid(u.arbitrary::<u16>()?.into());
        header.set_gid(0);
        header.set_mtime(u.arbitrary::<u32>()?.into());
        header.set_cksum();
        out.extend(header.as_bytes());
        out.extend(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.extend([0; 1024]);
    damage(u, out)
}

/// Two archives in the form of the target `layers`.
fn two_archives(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let a = members(u)?;
    let b = if u.arbitrary()? { members(u)? } else { Vec::new() };
    let whole = a.len() + b.len();
    // The target cuts at this part of 256; blocks of zeros behind the first archive move its end there.
    for at in (a.len() * 256 / whole.max(1))..256 {
        let padded = (a.len()..a.len() + 64 * 512)
            .step_by(512)
            .find(|end| (end + b.len()) * at / 256 == *end);
        if let Some(end) = padded {
            let mut first = a.clone();
            first.resize(end, 0);
            return Ok([&[at as u8][..], &first, &b].concat());
        }
    }
    Ok([&[255][..], &a].concat())
}

/// A layout in the form of the target `layout`: documents with values changed before their digests are taken.
fn image_layout(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    for _ in 0..u.int_in_range(1..=3)? {
        let archive = members(u)?;
        let (kind, bytes) = match u.int_in_range(0..=2)? {
            0 => ("", archive.clone()),
            1 => ("+gzip", gzip(&archive)),
            _ => ("+zstd", zstd::encode_all(&archive[..], 1).expect("in memory")),
        };
        let bytes = damage(u, bytes)?;
        diff_ids.push(format!("sha256:{}", sha256(&archive)));
        layers.push(blob(
            &mut files,
            &format!("application/vnd.oci.image.layer.v1.tar{kind}"),
            bytes,
        ));
    }
    let config = json!({ "architecture": u.choose(&["amd64", "arm64"])?, "os": "linux", "config": { "Labels": { "a": "b" } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = changed(u, config)?;
    let config = blob(&mut files, "application/vnd.oci.image.config.v1+json", config);
    let manifest = changed(u, json!({ "schemaVersion": 2, "config": config, "layers": layers }))?;
    let mut listed = blob(&mut files, "application/vnd.oci.image.manifest.v1+json", manifest);
    for _ in 0..u.int_in_range(0..=3)? {
        let copies = u.int_in_range(1..=3)?;
        let index = changed(
            u,
            json!({ "schemaVersion": 2, "manifests": vec![listed.clone(); copies] }),
        )?;
        if u.ratio(1, 2)? {
            files.push(("index.json".to_owned(), index.clone()));
        }
        listed = blob(&mut files, "application/vnd.oci.image.index.v1+json", index);
    }
    files.insert(
        0,
        (
            "index.json".to_owned(),
            json!({ "schemaVersion": 2, "manifests": [listed] })
                .to_string()
                .into_bytes(),
        ),
    );
    files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    let mut out = Vec::new();
    for (name, bytes) in files {
        out.push(name.len() as u8);
        out.extend(name.bytes());
        out.extend((bytes.len() as u32).to_le_bytes());
        out.extend(bytes);
    }
    Ok(out)
}

/// A descriptor of `bytes`, which become a blob.
fn blob(files: &mut Vec<(String, Vec<u8>)>, media_type: &str, bytes: Vec<u8>) -> Value {
    let digest = sha256(&bytes);
    let size = bytes.len();
    files.push((format!("blobs/sha256/{digest}"), bytes));
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
}

/// The document, with one value of it changed from time to time.
fn changed(u: &mut Unstructured<'_>, mut value: Value) -> Result<Vec<u8>> {
    if u.ratio(1, 3)? {
        let mut place = &mut value;
        while u.ratio(4, 5)? {
            let keys: Vec<String> = match &*place {
                Value::Object(map) => map.keys().cloned().collect(),
                Value::Array(list) => (0..list.len()).map(|at| at.to_string()).collect(),
                _ => break,
            };
            if keys.is_empty() {
                break;
            }
            let key = u.choose(&keys)?.clone();
            place = place
                .pointer_mut(&format!("/{key}"))
                .unwrap_or_else(|| unreachable!("{key} is there"));
        }
        *place = match u.int_in_range(0..=7)? {
            0 => Value::Null,
            1 => json!(u.arbitrary::<i64>()?),
            2 => json!(*u.choose(&["", "amd64", "sha256:../x", "sha512:ab", "layers", "windows"])?),
            3 => json!([]),
            4 => json!({}),
            5 => json!([place.clone(), place.clone()]),
            6 => json!({ "manifests": place.clone() }),
            _ => json!(true),
        };
    }
    damage(u, value.to_string().into_bytes())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).expect("in memory");
    out.finish().expect("in memory")
}
