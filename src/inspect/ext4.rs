//! What an ext4 file system holds: its files with owner, times and fs-verity digest, and its own tables.

use super::{
    error::chain,
    part::{Fields, Look, Part, PartExtent, PartKind},
};
use crate::{
    image::{
        ImageError, Source,
        ext4::{Ext4, Ext4Inode, FileKind},
    },
    model::Epoch,
};
use std::collections::BTreeSet;

const FORMAT: &str = "ext4";
/// More entries than this are not listed.
const MAX_ENTRIES: usize = 200_000;
/// Nor more runs of blocks than this: 128 MiB of memory.
const MAX_RUNS: usize = 4 << 20;
/// Deepest directory that is listed.
const MAX_DEPTH: usize = 256;

pub(super) fn look(source: &Source) -> Look {
    let mut look = Look {
        format: FORMAT,
        ..Look::default()
    };
    if let Err(error) = fill(source, &mut look) {
        look.problem = Some(chain(&error));
    }
    look
}

fn fill(source: &Source, look: &mut Look) -> Result<(), ImageError> {
    let fs = Ext4::open(source.clone())?;
    let facts = fs.facts()?;
    let fields = &mut look.fields;
    let mut field = |name: &str, value: String| fields.insert(name.to_owned(), value);
    field("label", facts.label.escape_ascii().to_string());
    field("uuid", uuid(&facts.uuid));
    field("hash seed", uuid(&facts.hash_seed));
    field("features", facts.features.join(" "));
    field("block size", facts.block_size.to_string());
    field("blocks", facts.blocks.0.to_string());
    field("free blocks", facts.blocks.1.to_string());
    field("inodes", facts.inodes.0.to_string());
    field("free inodes", facts.inodes.1.to_string());
    field("state", facts.state.to_string());
    for (name, seconds) in facts.times {
        field(name, time(seconds));
    }
    let used = u64::from(facts.inodes.0.saturating_sub(facts.inodes.1));
    field("used inodes", used.to_string());

    for place in fs.regions()? {
        look.children.push(Part::slice(
            place.name,
            PartKind::Region,
            source,
            place.offset,
            place.len,
        ));
    }
    let root = fs.root()?;
    let mut seen = BTreeSet::from([root.number()]);
    let mut waiting = vec![(String::new(), root, 0)];
    let mut runs = 0;
    while let Some((path, inode, depth)) = waiting.pop() {
        let name = if path.is_empty() { "/".to_owned() } else { path.clone() };
        let directory = add(&fs, source, look, &mut runs, name, &inode);
        directory?;
        for entry in fs.read_dir(&inode)? {
            let path = format!("{path}/{}", shown(&entry.name));
            let inode = fs.inode(entry.inode)?;
            if look.children.len() > MAX_ENTRIES || runs > MAX_RUNS || depth > MAX_DEPTH {
                look.problem = Some(format!(
                    "it has more than {MAX_ENTRIES} entries or {MAX_RUNS} runs, or is too deep"
                ));
                return Ok(());
            }
            if inode.kind() != FileKind::Directory {
                add(&fs, source, look, &mut runs, path, &inode)?;
            } else if seen.insert(inode.number()) {
                waiting.push((path, inode, depth + 1));
            } else {
                look.problem = Some(format!("the directory {path} is also elsewhere"));
            }
        }
    }
    let sealed = look
        .children
        .iter()
        .find(|c| c.name == "/image.cfs")
        .and_then(|c| c.fields.get("fs-verity"));
    if let Some(root) = sealed.cloned() {
        look.fields.insert("root digest".to_owned(), root);
    }
    look.children
        .sort_by(|a, b| (a.kind == PartKind::Region, &a.name).cmp(&(b.kind == PartKind::Region, &b.name)));
    Ok(())
}

/// Adds what `inode` is, and what lies behind its data.
fn add(
    fs: &Ext4<Source>,
    source: &Source,
    look: &mut Look,
    runs: &mut usize,
    name: String,
    inode: &Ext4Inode,
) -> Result<(), ImageError> {
    let kind = match inode.kind() {
        FileKind::File => PartKind::File,
        FileKind::Directory => PartKind::Directory,
        FileKind::Symlink => PartKind::Symlink,
        FileKind::Special => PartKind::Special,
    };
    let mut fields = Fields::new();
    let [uid, gid, modified, changed, accessed] = fs.owner_and_times(inode)?;
    for (name, value) in [
        ("mode", format!("{:04o}", inode.mode())),
        ("owner", format!("{uid}:{gid}")),
        ("modified", time(modified)),
        ("changed", time(changed)),
        ("accessed", time(accessed)),
        ("flags", format!("{:#x}", inode.flags())),
    ] {
        fields.insert(name.to_owned(), value);
    }
    let (mut data, mut behind) = (Vec::new(), Vec::new());
    if kind == PartKind::Symlink {
        fields.insert("target".to_owned(), shown(&fs.read_link(inode)?));
    }
    // A short link's target lies in the inode, where an extent tree would be.
    if kind != PartKind::Special && !(kind == PartKind::Symlink && inode.size() < 60) {
        for run in fs.runs(inode)? {
            *runs += 1;
            let Some(from) = run.from else { continue };
            let inside = inode.size().saturating_sub(run.at).min(run.len);
            if inside > 0 {
                data.push(PartExtent {
                    at: run.at,
                    from,
                    len: inside,
                });
            }
            if inside < run.len {
                behind.push((from + inside, run.len - inside));
            }
        }
    }
    match fs.sealed_digest(inode) {
        Ok(None) => {}
        Ok(Some(digest)) => drop(fields.insert("fs-verity".to_owned(), digest.to_string())),
        Err(error) => drop(fields.insert("fs-verity".to_owned(), chain(&error))),
    }
    let size = if data.is_empty() && kind != PartKind::File {
        0
    } else {
        inode.size()
    };
    let mut part = Part::scattered(name, kind, source, data, size).described_by(inode.offset(), fs.inode_size());
    part.fields = fields;
    // Behind the data: the Merkle tree and the descriptor, or the rest of the last block.
    let what = if inode.has_verity() {
        "Merkle tree"
    } else {
        "rest of last block"
    };
    let mut at = 0;
    let extents: Vec<PartExtent> = behind
        .iter()
        .map(|(from, len)| {
            let extent = PartExtent {
                at,
                from: *from,
                len: *len,
            };
            at += len;
            extent
        })
        .collect();
    if at > 0 {
        let name = format!("{} ({what})", part.name);
        look.children
            .push(Part::scattered(name, PartKind::Region, source, extents, at));
    }
    look.children.push(part);
    Ok(())
}

/// `2026-11-23T00:00:00Z`; `never` for 0.
pub(super) fn time(seconds: u32) -> String {
    if seconds == 0 {
        "never".to_owned()
    } else {
        Epoch::new(seconds).to_rfc3339()
    }
}

/// Bytes as text; escaped when they are not text that a terminal may show.
pub(super) fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// Sixteen bytes in the order they are shown.
pub(super) fn uuid(bytes: &[u8; 16]) -> String {
    let hex = hex::encode(bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
