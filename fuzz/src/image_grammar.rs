//! Inputs for the targets of OCI images: archives, and layouts around them.

use crate::{grammar::damage, targets::image_targets::sha256};
use arbitrary::{Result, Unstructured};
use serde_json::{Value, json};
use std::io::Write;
use tar::{EntryType, Header};

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
                add(u.choose(&["mtime", "size", "uid", "linkpath", "odd"])?, b"1");
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
pub(crate) fn two_archives(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
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
pub(crate) fn image_layout(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
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
