//! composefs images, and ar archives, of which Debian packages consist.

use super::{
    error::one_line,
    ext4::{shown, time},
    part::{Fields, Look, Part, PartExtent, PartKind},
    streams::unique,
};
use crate::{
    image::{ReadAt, Source, composefs},
    verity::digest_bytes,
};

/// A larger composefs image is not read, since it is held in memory, bytes.
const MAX_IMAGE: u64 = 128 << 20;
/// Entries above this number are not listed.
const MAX_ENTRIES: usize = 200_000;

/// A composefs image: its root digest, and every entry with the digest of its content.
pub(super) fn composefs(source: &Source, size: u64) -> Look {
    let mut look = Look {
        format: "composefs",
        ..Look::default()
    };
    if size > MAX_IMAGE {
        look.problem = Some(format!("it has {size} bytes, more than {MAX_IMAGE}"));
        return look;
    }
    let mut image = vec![0; size as usize];
    if let Err(error) = source.read_exact_at(&mut image, 0) {
        look.problem = Some(error.to_string());
        return look;
    }
    look.fields
        .insert("root digest".to_owned(), digest_bytes(&image).to_string());
    let listed = match composefs::list(&image, MAX_ENTRIES) {
        Ok(listed) => listed,
        Err(error) => {
            look.problem = Some(one_line(&error));
            return look;
        }
    };
    look.fields.insert("entries".to_owned(), listed.len().to_string());
    for entry in &listed {
        if !look.list(composefs_entry(source, entry)) {
            break;
        }
    }
    look.children
        .push(Part::slice("superblock", PartKind::Region, source, 0, size.min(1152)));
    look.children
        .sort_by(|a, b| (a.kind == PartKind::Region, &a.name).cmp(&(b.kind == PartKind::Region, &b.name)));
    unique(&mut look.children);
    look
}

/// The part of an entry of a composefs image.
fn composefs_entry(source: &Source, entry: &composefs::Listed) -> Part {
    let kind = match entry.mode & 0o170_000 {
        0o100_000 => PartKind::File,
        0o040_000 => PartKind::Directory,
        0o120_000 => PartKind::Symlink,
        _ => PartKind::Special,
    };
    // The 256 entries that hide the directories of objects from overlayfs belong to the format, not to the tree.
    if kind == PartKind::Special
        && matches!(entry.path[..], [b'/', a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
    {
        let name = format!("hidden entry {}", shown(&entry.path));
        return Part::slice(name, PartKind::Region, source, entry.inode.0, entry.inode.1);
    }
    let mut fields = Fields::new();
    let mut field = |name: &str, value: String| fields.insert(name.to_owned(), value);
    field("mode", format!("{:04o}", entry.mode & 0o7777));
    field("owner", format!("{}:{}", entry.uid, entry.gid));
    field(
        "modified",
        u32::try_from(entry.mtime).map_or_else(|_| entry.mtime.to_string(), time),
    );
    if kind == PartKind::File {
        field("size", entry.size.to_string());
    }
    if let Some(object) = entry.object {
        field("object", object.to_string());
    }
    if let Some(attributes) = &entry.attributes {
        field("attributes", attributes.clone());
    }
    if let Some(target) = &entry.target {
        field("target", shown(target));
    }
    let (from, len) = entry.inline.filter(|_| kind == PartKind::File).unwrap_or((0, 0));
    let extents = if len > 0 {
        vec![PartExtent { at: 0, from, len }]
    } else {
        Vec::new()
    };
    let part = Part::scattered(shown(&entry.path), kind, source, extents, len);
    let mut part = part.described_by(entry.inode.0, entry.inode.1);
    part.fields = fields;
    part
}

/// Bytes of the header of an ar member, and the magic in front of the first; `ar(5)`.
const AR_HEADER: u64 = 60;
pub(super) const AR_MAGIC: &[u8] = b"!<arch>\n";

/// An ar archive, such as a Debian package.
pub(super) fn ar(source: &Source, size: u64) -> Look {
    let mut look = Look {
        format: "ar",
        ..Look::default()
    };
    let mut at = AR_MAGIC.len() as u64;
    while at < size {
        let mut header = [0; AR_HEADER as usize];
        if source.read_exact_at(&mut header, at).is_err() {
            look.problem = Some(format!("the header at byte {at} is cut off"));
            break;
        }
        let text = |range: std::ops::Range<usize>| shown(&header[range]).trim_end().to_owned();
        let len = text(48..58).parse::<u64>();
        let Some(len) = len
            .ok()
            .filter(|len| *len <= size - at - AR_HEADER && header[58..] == *b"`\n")
        else {
            look.problem = Some(format!("there is no valid header at byte {at}"));
            break;
        };
        let name = text(0..16).trim_end_matches('/').to_owned();
        if name == "debian-binary" && look.children.is_empty() {
            look.format = "deb";
        }
        let part = Part::slice(name, PartKind::File, source, at + AR_HEADER, len).described_by(at, AR_HEADER);
        let seconds = text(16..28).parse().map_or_else(|_| text(16..28), time);
        if !look.list(part.with("modified", seconds).with("mode", text(40..48))) {
            break;
        }
        at = (at + AR_HEADER + len).next_multiple_of(2);
    }
    unique(&mut look.children);
    look
}
