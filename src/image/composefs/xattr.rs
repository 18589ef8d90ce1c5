//! Extended attributes of inodes: those that composefs adds or escapes, sharing, and their encoding.
//!
//! An attribute is stored as the index of a well-known prefix and the rest of its name. An attribute whose name and value
//! several inodes have is stored once, behind the inodes, and referred to. Each inode has a 32-bit filter of its names.
//! Order and sharing follow `libcomposefs/lcfs-writer-erofs.c` of composefs 1.0.8.

use super::format::{XATTR_BODY_SIZE, XATTR_ENTRY_SIZE, XATTR_UNIT, write_xattr_body};
use crate::model::{Meta, VerityDigest};
use std::{borrow::Cow, cmp::Ordering, collections::BTreeMap};

/// Well-known prefixes by index (`EROFS_XATTR_INDEX_*`), longest match first. Index 5, `lustre.`, is not used by
/// composefs; a name without one of these prefixes has index 0 and is stored whole.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (ACL_ACCESS, b"system.posix_acl_access"),
    (ACL_DEFAULT, b"system.posix_acl_default"),
    (TRUSTED, b"trusted."),
    (6, b"security."),
];
/// The prefix with this index; for an unknown one, its number.
pub(super) fn prefix(index: u8) -> String {
    let known = PREFIXES.iter().find(|(known, _)| *known == index);
    match (index, known) {
        (0, _) => String::new(),
        (_, Some((_, prefix))) => prefix.escape_ascii().to_string(),
        (_, None) => format!("(prefix {index})."),
    }
}

const ACL_ACCESS: u8 = 2;
const ACL_DEFAULT: u8 = 3;
const TRUSTED: u8 = 4;
/// `EROFS_XATTR_FILTER_SEED`; the prefix index is added.
const FILTER_SEED: u32 = 0x25bb_e08f;
const FILTER_BITS: u32 = 32;

/// Prefix of the attributes that control overlayfs.
pub(super) const OVERLAY_PREFIX: &[u8] = b"trusted.overlay.";
/// Inserted behind [`OVERLAY_PREFIX`] in the name of an attribute of the tree itself, so that overlayfs shows the attribute
/// under its original name instead of obeying it (`OVERLAY_XATTR_ESCAPE_PREFIX`).
pub(super) const OVERLAY_ESCAPE: &[u8] = b"overlay.";
const METACOPY: &[u8] = b"trusted.overlay.metacopy";
const REDIRECT: &[u8] = b"trusted.overlay.redirect";
const SELINUX: &[u8] = b"security.selinux";
/// Makes the root hide the layer below it in the stack: the directories of the objects.
const ROOT_OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");
/// Attributes of a whiteout of the tree itself, which overlayfs shows instead of obeying it.
const WHITEOUT: [(&[u8], &[u8]); 2] = [
    (b"trusted.overlay.overlay.whiteout", b""),
    (b"user.overlay.whiteout", b""),
];
/// Attributes of a directory with such whiteouts.
const WHITEOUTS: [(&[u8], &[u8]); 4] = [
    (b"trusted.overlay.overlay.whiteouts", b""),
    (b"user.overlay.whiteouts", b""),
    (b"trusted.overlay.overlay.opaque", b"x"),
    (b"user.overlay.opaque", b"x"),
];
/// Prefix index and suffixes with which [`METACOPY`] and [`REDIRECT`] are stored.
pub(super) const OVERLAY_INDEX: u8 = TRUSTED;
pub(super) const OVERLAY_SUFFIX: &[u8] = b"overlay.";
pub(super) const OPAQUE_SUFFIX: &[u8] = b"overlay.opaque";
pub(super) const METACOPY_SUFFIX: &[u8] = b"overlay.metacopy";
pub(super) const REDIRECT_SUFFIX: &[u8] = b"overlay.redirect";
/// `struct ovl_metacopy` (`fs/overlayfs/overlayfs.h` of Linux) up to the digest: version 0, length, no flags,
/// `FS_VERITY_HASH_ALG_SHA256`.
pub(super) const METACOPY_PREFIX: [u8; 4] = [0, 4 + 32, 0, 1];

/// One attribute by full name. The order is that of composefs for shared attributes: name, then length, then value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Attribute<'a> {
    name: Cow<'a, [u8]>,
    value: Cow<'a, [u8]>,
}

impl Ord for Attribute<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let values = || (self.value.len(), &self.value).cmp(&(other.value.len(), &other.value));
        self.name.cmp(&other.name).then_with(values)
    }
}
impl PartialOrd for Attribute<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Attribute<'_> {
    /// Index of the prefix, and the rest of the name.
    fn split(&self) -> (u8, &[u8]) {
        let found = PREFIXES
            .iter()
            .find_map(|(index, prefix)| Some((*index, self.name.strip_prefix(*prefix)?)));
        found.unwrap_or((0, &self.name))
    }

    /// Size on disk, without the padding to [`XATTR_UNIT`].
    fn size(&self) -> u64 {
        XATTR_ENTRY_SIZE + (self.split().1.len() + self.value.len()) as u64
    }

    /// Size on disk, a multiple of [`XATTR_UNIT`].
    pub(super) fn padded_size(&self) -> u64 {
        self.size().next_multiple_of(XATTR_UNIT)
    }

    /// Writes header, rest of the name, value and padding. Names and values are at most 255 and 65,535 bytes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let (index, suffix) = self.split();
        out.extend([suffix.len() as u8, index]);
        out.extend((self.value.len() as u16).to_le_bytes());
        out.extend_from_slice(suffix);
        out.extend_from_slice(&self.value);
        let padding = self.padded_size() - self.size();
        out.resize(out.len() + padding as usize, 0);
    }
}

/// Path of an object from the root of the objects.
pub(super) fn redirect_to(digest: &VerityDigest) -> Vec<u8> {
    let hex = digest.to_hex();
    let (directory, name) = hex.split_at(2);
    format!("/{directory}/{name}").into_bytes()
}

/// All attributes of one inode. All are local first, in the order of their names; [`share`] moves some to the shared table.
#[derive(Default, Debug)]
pub(super) struct Attributes<'a> {
    /// Bits of the names, local and shared.
    filter: u32,
    /// Indexes into the table of shared attributes, in the order of the names.
    shared: Vec<usize>,
    local: Vec<Attribute<'a>>,
}

impl<'a> Attributes<'a> {
    /// The attributes of an entry of the tree, those of overlayfs escaped.
    pub(super) fn new(meta: &'a Meta) -> Self {
        let mut all = Self::default();
        for (name, value) in &meta.xattrs {
            let name: Cow<'a, [u8]> = match name.strip_prefix(OVERLAY_PREFIX) {
                Some(rest) => [OVERLAY_PREFIX, OVERLAY_ESCAPE, rest].concat().into(),
                None => name.into(),
            };
            all.set(name, value);
        }
        all
    }

    /// Adds the attribute of the root.
    pub(super) fn set_root(&mut self) {
        self.set(ROOT_OPAQUE.0, ROOT_OPAQUE.1);
    }

    /// Adds the attributes of a whiteout of the tree.
    pub(super) fn set_whiteout(&mut self) {
        WHITEOUT.into_iter().for_each(|(name, value)| self.set(name, value));
    }

    /// Adds the attributes of a directory with whiteouts of the tree.
    pub(super) fn set_whiteouts(&mut self) {
        WHITEOUTS.into_iter().for_each(|(name, value)| self.set(name, value));
    }

    /// Adds the digest that the content must have, and the object's path from the root of the objects.
    pub(super) fn set_object(&mut self, digest: &VerityDigest) {
        self.set(METACOPY, [&METACOPY_PREFIX[..], digest.as_bytes()].concat());
        self.set(REDIRECT, redirect_to(digest));
    }

    fn set(&mut self, name: impl Into<Cow<'a, [u8]>>, value: impl Into<Cow<'a, [u8]>>) {
        let (name, value) = (name.into(), value.into());
        match self.local.binary_search_by(|other| other.name.cmp(&name)) {
            Ok(at) => self.local[at].value = value,
            Err(at) => {
                let attribute = Attribute { name, value };
                let (index, suffix) = attribute.split();
                let hash = xxhash_rust::xxh32::xxh32(suffix, FILTER_SEED + u32::from(index));
                self.filter |= 1 << (hash % FILTER_BITS);
                self.local.insert(at, attribute);
            }
        }
    }

    /// Whether an attribute is a POSIX access control list. Valid only before [`share`].
    pub(super) fn has_acl(&self) -> bool {
        let acl = |a: &Attribute<'_>| matches!(a.split().0, ACL_ACCESS | ACL_DEFAULT);
        self.local.iter().any(acl)
    }

    /// Bytes on disk behind the inode's header; 0 without attributes.
    pub(super) fn size(&self) -> u64 {
        if self.filter == 0 {
            return 0;
        }
        let local: u64 = self.local.iter().map(Attribute::padded_size).sum();
        XATTR_BODY_SIZE + XATTR_UNIT * self.shared.len() as u64 + local
    }

    /// `i_xattr_icount` of the inode: 1 for the body header, and the rest in units of 4 bytes. At most 128 attributes of
    /// 128 KiB leave it below 34,000, and the number of shared ones below 256.
    pub(super) fn count(&self) -> u16 {
        match self.size() {
            0 => 0,
            size => (1 + (size - XATTR_BODY_SIZE) / XATTR_UNIT) as u16,
        }
    }

    /// Writes the attributes; `references[i]` is the reference to shared attribute `i`.
    pub(super) fn write(&self, out: &mut Vec<u8>, references: &[u32]) {
        if self.filter == 0 {
            return;
        }
        write_xattr_body(out, self.filter, self.shared.len() as u8);
        for index in &self.shared {
            out.extend(references[*index].to_le_bytes());
        }
        for attribute in &self.local {
            attribute.write(out);
        }
    }
}

/// The attributes of the 256 hidden entries of the root: the root's SELinux label only.
pub(super) fn of_hidden(root: &Meta) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let label = root.xattrs.get_key_value(SELINUX);
    label.map(|(k, v)| (k.clone(), v.clone())).into_iter().collect()
}

/// Moves every attribute that several inodes have into a table in descending order, and returns the table.
pub(super) fn share<'a, 'b>(inodes: impl Iterator<Item = &'b mut Attributes<'a>>) -> Vec<Attribute<'a>>
where
    'a: 'b,
{
    let mut inodes: Vec<_> = inodes.collect();
    let mut users: BTreeMap<&Attribute<'_>, usize> = BTreeMap::new();
    for attribute in inodes.iter().flat_map(|a| &a.local) {
        *users.entry(attribute).or_insert(0) += 1;
    }
    let table: Vec<Attribute<'a>> = users
        .into_iter()
        .rev()
        .filter(|(_, users)| *users > 1)
        .map(|(attribute, _)| attribute.clone())
        .collect();
    for attributes in &mut inodes {
        let shared = &mut attributes.shared;
        attributes
            .local
            .retain(|attribute| match table.binary_search_by(|other| attribute.cmp(other)) {
                Ok(index) => {
                    shared.push(index);
                    false
                }
                Err(_) => true,
            });
    }
    table
}
