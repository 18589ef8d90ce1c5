//! ext2, ext3 and ext4 file systems: the files with owner, times and fs-verity digest, and the file system's own tables.

use super::{
    error::one_line,
    part::{Fields, Look, Part, PartExtent, PartKind},
};
use crate::{
    image::{
        ImageError, Source,
        ext4::{Ext4, Ext4Inode, ExtKind, FileKind, JournalFacts, Replayed, SuperblockFacts, replay},
    },
    model::Epoch,
};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeSet, sync::Arc};

/// Runs of blocks above this number are not listed: 128 MiB of memory.
const MAX_RUNS: usize = 4 << 20;
/// The part that has the files as they are after the journal.
const REPLAYED: &str = "with its journal";
/// Offset of the superblock.
const SUPERBLOCK: u64 = 1024;
/// Problems of directories that are listed in words.
const MAX_NAMED: usize = 4;
/// A longer value of an extended attribute is shown by its length, bytes.
const MAX_VALUE: usize = 256;
/// Deepest directory that is listed.
const MAX_DEPTH: usize = 256;

pub(super) fn look(source: &Source) -> Look {
    let mut look = Look {
        format: ExtKind::Ext4.as_str(),
        ..Look::default()
    };
    if let Err(error) = fill(source, &mut look) {
        look.add_problem(one_line(&error));
    }
    look
}

fn fill(source: &Source, look: &mut Look) -> Result<(), ImageError> {
    // The superblock is shown whatever else can be read.
    let facts = SuperblockFacts::read(source)?;
    look.format = facts.kind.as_str();
    superblock_fields(&facts, &mut look.fields);
    if facts.kind == ExtKind::JournalDevice {
        return Ok(());
    }
    // A journal that cannot be read leaves the files as they lie there, with the problem that open_any has for them.
    let replayed = replay(source.clone()).unwrap_or_else(|error| {
        look.add_problem(one_line(&error));
        None
    });
    let Some(Replayed { image, facts, problems }) = replayed else {
        return list(source, look);
    };
    problems.iter().for_each(|error| look.add_problem(one_line(error)));
    let JournalFacts {
        transactions,
        blocks,
        revoked,
    } = facts;
    let text = match transactions {
        0 => "empty; the file system was not unmounted".to_owned(),
        _ => format!(
            "replayed in memory: {transactions} transactions, {blocks} blocks, {revoked} revoked; the file system was not unmounted"
        ),
    };
    look.fields.insert("journal".to_owned(), text);
    let image: Source = Arc::new(image);
    if blocks == 0 {
        return list(&image, look);
    }
    // The files are made of the image and its journal, as those of a compressed image are made of its clusters.
    let size = source.size().map_err(|source| ImageError::Input {
        format: "an ext4 image",
        offset: 0,
        source,
    })?;
    let whole = vec![PartExtent {
        at: 0,
        from: 0,
        len: size,
    }];
    look.children.push(Part::derived(REPLAYED, image, size, whole));
    Ok(())
}

/// Adds the files and the file system's own tables.
fn list(source: &Source, look: &mut Look) -> Result<(), ImageError> {
    let (fs, problems) = Ext4::open_any(source.clone())?;
    for error in &problems {
        look.add_problem(one_line(error));
    }
    // Without a group descriptor, files of other groups can still be read.
    let (regions, unfit) = fs.regions().unwrap_or_else(|error| {
        look.add_problem(one_line(&error));
        Default::default()
    });
    if let Some(first) = unfit.first() {
        look.add_problem(format!(
            "the descriptors of {} groups, of which {first} is the first, do not have their checksum",
            unfit.len()
        ));
    }
    for region in regions {
        look.children.push(Part::slice(
            region.name,
            PartKind::Region,
            source,
            region.offset,
            region.len,
        ));
    }
    walk(&fs, source, look)?;
    // An artifact's root names itself by the digest of this file.
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

fn superblock_fields(facts: &SuperblockFacts, fields: &mut Fields) {
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
    for (name, seconds) in &facts.times {
        field(name, time(*seconds));
    }
    let used = u64::from(facts.inodes.0.saturating_sub(facts.inodes.1));
    field("used inodes", used.to_string());
}

/// Adds every file and directory.
fn walk(fs: &Ext4<Source>, source: &Source, look: &mut Look) -> Result<(), ImageError> {
    let root = fs.root()?;
    // Directories by inode: a circle would have no end.
    let mut seen = BTreeSet::from([root.number()]);
    let mut waiting = vec![(String::new(), root, 0)];
    let mut runs = 0;
    while let Some((path, inode, depth)) = waiting.pop() {
        let name = if path.is_empty() { "/".to_owned() } else { path.clone() };
        if !add(fs, source, look, &mut runs, name, &inode) {
            return Ok(());
        }
        let (entries, damage) = match fs.list_dir(&inode) {
            Ok(found) => found,
            Err(error) => (Vec::new(), vec![error]),
        };
        for error in damage.iter().take(MAX_NAMED) {
            look.add_problem(one_line(error));
        }
        for entry in entries {
            let path = format!("{path}/{}", shown(&entry.name));
            let inode = match fs.inode(entry.inode) {
                Ok(inode) => inode,
                Err(error) => {
                    let part = Part::empty(path, PartKind::Special).damaged(one_line(&error));
                    if !look.list(part) {
                        return Ok(());
                    }
                    continue;
                }
            };
            if runs > MAX_RUNS || depth > MAX_DEPTH {
                look.add_problem(format!(
                    "it has more than {MAX_RUNS} runs of blocks or {MAX_DEPTH} levels"
                ));
                return Ok(());
            }
            if inode.kind() != FileKind::Directory {
                if !add(fs, source, look, &mut runs, path, &inode) {
                    return Ok(());
                }
            } else if seen.insert(inode.number()) {
                waiting.push((path, inode, depth + 1));
            } else {
                look.add_problem(format!("the directory {path} has the inode of another directory"));
            }
        }
    }
    Ok(())
}

/// Adds the part of an inode, and a region for the bytes behind its data; `false` when there are too many parts.
fn add(fs: &Ext4<Source>, source: &Source, look: &mut Look, runs: &mut usize, name: String, inode: &Ext4Inode) -> bool {
    let kind = match inode.kind() {
        FileKind::File => PartKind::File,
        FileKind::Directory => PartKind::Directory,
        FileKind::Symlink => PartKind::Symlink,
        FileKind::Special => PartKind::Special,
    };
    let (mut data, mut behind) = (Vec::new(), Vec::new());
    let mut problem = None;
    let mut fields = Fields::new();
    if let Err(error) = inode_fields(fs, inode, &mut fields) {
        problem = Some(one_line(&error));
    }
    if let Ok(Some(text)) = fs.checksum_problem(inode) {
        problem.get_or_insert(text);
    }
    // The target of a short link lies in the inode, in the place of the extent tree.
    if kind != PartKind::Special && !(kind == PartKind::Symlink && inode.size() < 60) {
        match extents(fs, inode, runs) {
            Ok((data, _)) if data.iter().any(|e| e.from <= SUPERBLOCK) => {
                problem = Some("its blocks hold the superblock of the file system that lists it".to_owned());
            }
            Ok(found) => (data, behind) = found,
            Err(error) => problem = Some(one_line(&error)),
        }
    }
    let size = if data.is_empty() && (kind != PartKind::File || problem.is_some()) {
        0
    } else {
        inode.size()
    };
    let mut part = Part::scattered(name, kind, source, data, size).described_by(inode.offset(), fs.inode_size());
    match fs.attribute_block(inode) {
        Ok(Some(block)) => part = part.described_by(block, fs.block_size()),
        Ok(None) => {}
        Err(error) => drop(problem.get_or_insert_with(|| one_line(&error))),
    }
    part.fields = fields;
    part.problem = problem;
    let len = behind.last().map_or(0, |e: &PartExtent| e.at + e.len);
    if len > 0 {
        // The Merkle tree and the descriptor lie behind the data of a verity file, and the rest of the last block behind others.
        let what = if inode.has_verity() {
            "Merkle tree"
        } else {
            "rest of last block"
        };
        let name = format!("{} ({what})", part.name);
        look.children
            .push(Part::scattered(name, PartKind::Region, source, behind, len));
    }
    look.list(part)
}

/// Mode, owner, times, flags, link target and fs-verity digest of an inode.
fn inode_fields(fs: &Ext4<Source>, inode: &Ext4Inode, fields: &mut Fields) -> Result<(), ImageError> {
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
    if inode.is_encrypted() {
        fields.insert("encrypted".to_owned(), "yes, shown as it is stored".to_owned());
    }
    if inode.kind() == FileKind::Symlink {
        fields.insert("target".to_owned(), shown(&fs.read_link(inode)?));
    }
    match fs.sealed_digest(inode) {
        Ok(None) => {}
        Ok(Some(digest)) => drop(fields.insert("fs-verity".to_owned(), digest.to_string())),
        Err(error) => drop(fields.insert("fs-verity".to_owned(), one_line(&error))),
    }
    for attribute in fs.attributes(inode)? {
        let value = match attribute.value.len() {
            ..=MAX_VALUE => shown(&attribute.value),
            longer => format!(
                "{longer} bytes, sha256 {}",
                hex::encode(Sha256::digest(&attribute.value))
            ),
        };
        fields.insert(format!("attribute {}", shown(&attribute.name)), value);
    }
    Ok(())
}

/// The extents of an inode's data, and those of the bytes behind it, which belong to the inode too.
fn extents(
    fs: &Ext4<Source>,
    inode: &Ext4Inode,
    runs: &mut usize,
) -> Result<(Vec<PartExtent>, Vec<PartExtent>), ImageError> {
    let (mut data, mut behind) = (Vec::new(), Vec::new());
    let mut at = 0;
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
            let len = run.len - inside;
            behind.push(PartExtent {
                at,
                from: from + inside,
                len,
            });
            at += len;
        }
    }
    Ok((data, behind))
}

/// A time as `2026-11-23T00:00:00Z`, or `never` for 0.
pub(super) fn time(seconds: u32) -> String {
    if seconds == 0 {
        "never".to_owned()
    } else {
        Epoch::new(seconds).to_rfc3339()
    }
}

/// Bytes as text; escaped when they are not UTF-8 or have control characters.
pub(super) fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// The text of a UUID from its bytes, which are in the order of the text.
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
