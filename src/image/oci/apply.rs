//! Applies the layers of an image, one on top of the other, to a tree.
//!
//! Each layer is read once; while it is read, its bytes are compared with the digest of the blob, and the archive in it with the
//! `diff_id`. Nothing may lead out of the root: a parent that is a link is refused. Removals (`.wh.`) concern what lower layers have, in
//! whatever order the archive lists them. The limits are those of all layers together.

use super::{
    ImageLayer, LayerCompression, LayoutReader, OciImage, layout::bad, layout::wrong_digest, watched::Watched,
};
use crate::{
    debian::{EntryHeader, TarEntryKind, TarError, TarLimits, read_tar},
    image::ImageError,
    model::{Entry, Epoch, Meta, Node, RelPath, Tree, VerityDigest},
};
use flate2::read::MultiGzDecoder;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
};

/// Prefix of a file that removes the file of the rest of its name.
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// A file that removes everything that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Largest window of zstd that is decoded: 2^27 bytes, what other programs allow by default.
const WINDOW_LOG: u32 = 27;
/// Most bytes of the pax records of one entry; the limit of Go's archive/tar, with which most layers are made.
const RECORDS: u64 = 1 << 20;

/// Limits on all layers of one image together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayerLimits {
    /// Most entries, with removals, and directories that no layer describes.
    pub entries: u64,
    /// Most bytes of the archives without compression.
    pub bytes: u64,
    /// Most bytes of names, link targets and extended attributes.
    pub names: u64,
}

impl Default for LayerLimits {
    /// 500,000 entries, 8 GiB, 64 MiB.
    fn default() -> Self {
        Self {
            entries: 500_000,
            bytes: 8 << 30,
            names: 64 << 20,
        }
    }
}

/// The tree that all layers make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppliedLayers {
    /// The tree.
    pub tree: Tree,
    /// Bytes of all archives without compression.
    pub bytes: u64,
}

/// Receives the content of the file at a path, and returns its digest and size. A later layer may replace or remove the file.
pub type PutLayerContent<'a> = &'a mut dyn FnMut(&RelPath, &mut dyn Read) -> io::Result<(VerityDigest, u64)>;

/// Reads all layers of `image`; `put` receives each file. A directory that no layer describes gets mode 0755 and the time `epoch`.
pub fn apply_layers(
    layout: &LayoutReader<'_>,
    image: &OciImage,
    epoch: Epoch,
    limits: &LayerLimits,
    put: PutLayerContent<'_>,
) -> Result<AppliedLayers, ImageError> {
    let mut tree = Tree::new(Meta::root(0o755, epoch));
    let mut used = Used::new(limits);
    for layer in &image.layers {
        let name = layer.digest.to_hex();
        let content = read_layer(layout, layer, &mut used, put, &tree)?;
        if let Some(meta) = &content.root {
            tree.set_root(meta.clone());
        }
        merge(&mut tree, content, epoch, &mut used).map_err(|problem| bad(&name, problem))?;
    }
    let bytes = used.bytes;
    Ok(AppliedLayers { tree, bytes })
}

/// What the layers have used of their limits.
struct Used<'a> {
    limits: &'a LayerLimits,
    entries: u64,
    bytes: u64,
    names: u64,
}

impl<'a> Used<'a> {
    fn new(limits: &'a LayerLimits) -> Self {
        let (entries, bytes, names) = (0, 0, 0);
        Self {
            limits,
            entries,
            bytes,
            names,
        }
    }

    /// Counts an entry with names of so many bytes.
    fn entry(&mut self, names: usize) -> Result<(), String> {
        self.entries += 1;
        self.names += names as u64;
        let LayerLimits { entries, names, .. } = *self.limits;
        if self.entries > entries {
            return Err(format!("the layers have more than {entries} entries together"));
        }
        if self.names > names {
            return Err(format!(
                "the names, link targets and extended attributes of the layers have more than {names} bytes together"
            ));
        }
        Ok(())
    }
}

/// What one layer changes.
#[derive(Default)]
struct LayerContent {
    root: Option<Meta>,
    entries: BTreeMap<RelPath, Entry>,
    removed: BTreeSet<Removal>,
    /// Hard links to files of lower layers, and these files.
    links: Vec<(RelPath, RelPath)>,
}

/// What a layer removes of those below it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Removal {
    /// The contents of a directory; `None` is the root.
    Contents(Option<RelPath>),
    /// An entry.
    Entry(RelPath),
}

impl LayerContent {
    /// Adds an entry of the archive; `lower` is the tree of the layers below, for hard links.
    fn add(
        &mut self,
        path: Option<RelPath>,
        header: EntryHeader,
        reader: &mut dyn Read,
        (lower, put, used): (&Tree, PutLayerContent<'_>, &mut Used<'_>),
    ) -> Result<(), Problem> {
        let mut names = path.as_ref().map_or(0, |path| path.as_bytes().len());
        names += match &header.kind {
            TarEntryKind::Symlink(target) => target.len(),
            TarEntryKind::HardLink(to) => to.as_bytes().len(),
            TarEntryKind::File | TarEntryKind::Directory => 0,
        };
        let attributes = header.meta.xattrs.iter();
        names += attributes.map(|(name, value)| name.len() + value.len()).sum::<usize>();
        used.entry(names)?;
        let Some(path) = path else {
            return match self.root.replace(header.meta) {
                None => Ok(()),
                Some(_) => Err("the root directory is there twice".to_owned().into()),
            };
        };
        let twice = || format!("{path} is there twice");
        if let Some(removal) = removal(&path)? {
            if header.kind != TarEntryKind::File || header.size != 0 {
                return Err(format!("{path} removes a file by its name, and is no empty file").into());
            }
            return if self.removed.insert(removal) {
                Ok(())
            } else {
                Err(twice().into())
            };
        }
        let meta = header.meta;
        let entry = match header.kind {
            TarEntryKind::Directory => Entry {
                meta,
                node: Node::Directory,
            },
            TarEntryKind::Symlink(target) => Entry {
                meta,
                node: Node::Symlink { target },
            },
            TarEntryKind::File => {
                let (digest, size) = put(&path, reader).map_err(|source| ImageError::Read {
                    path: path.to_string(),
                    source,
                })?;
                Entry {
                    meta,
                    node: Node::File { size, digest },
                }
            }
            // One inode has one owner and one mode, whatever the second header says.
            TarEntryKind::HardLink(to) => {
                let own = self.entries.get(&to);
                if own.is_none() {
                    self.links.push((path.clone(), to.clone()));
                }
                match own.or_else(|| lower.get(&to)) {
                    Some(found) if found.node != Node::Directory => found.clone(),
                    Some(_) => return Err(format!("{path} is a hard link to {to}, which is a directory").into()),
                    None => return Err(format!("{path} is a hard link to {to}, which is not there yet").into()),
                }
            }
        };
        if self.entries.insert(path.clone(), entry).is_some() {
            return Err(twice().into());
        }
        Ok(())
    }
}

/// A problem with an entry, or an error of its own.
enum Problem {
    Entry(String),
    Error(ImageError),
}

impl From<String> for Problem {
    fn from(problem: String) -> Self {
        Self::Entry(problem)
    }
}

impl From<ImageError> for Problem {
    fn from(error: ImageError) -> Self {
        Self::Error(error)
    }
}

/// Reads a layer to its end and compares it with its digests. `lower` is the tree of the layers below.
fn read_layer(
    layout: &LayoutReader<'_>,
    layer: &ImageLayer,
    used: &mut Used<'_>,
    put: PutLayerContent<'_>,
    lower: &Tree,
) -> Result<LayerContent, ImageError> {
    let name = layer.digest.to_hex();
    let unreadable = |source| ImageError::Read {
        path: name.clone(),
        source,
    };
    let problem = format!("it has more than the {} bytes that its descriptor states", layer.size);
    let mut blob = Watched::new(layout.blob(&layer.digest)?, layer.size, problem);
    let decoder: Box<dyn Read> = match layer.compression {
        None => Box::new(blob.clone()),
        Some(LayerCompression::Gzip) => Box::new(MultiGzDecoder::new(blob.clone())),
        Some(LayerCompression::Zstd) => {
            let mut decoder = zstd::Decoder::new(blob.clone()).map_err(unreadable)?;
            decoder.window_log_max(WINDOW_LOG).map_err(unreadable)?;
            Box::new(decoder)
        }
    };
    let LayerLimits { bytes, entries, .. } = *used.limits;
    let problem = format!("the layers have more than {bytes} bytes together without compression");
    let mut archive = Watched::new(decoder, bytes - used.bytes, problem);
    let limits = TarLimits {
        entries,
        bytes,
        header_bytes: RECORDS,
    };
    let mut content = LayerContent::default();
    let mut visit = |path: Option<RelPath>, header: EntryHeader, reader: &mut dyn Read| {
        content.add(path, header, reader, (lower, &mut *put, &mut *used))
    };
    if let Err(error) = read_tar(archive.clone(), &limits, &mut visit) {
        // A damaged blob is the cause of whatever is wrong in it.
        whole(&mut blob, layer)?;
        return Err(match error {
            TarError::Entry { entry, problem } => bad(&name, format!("{entry} {problem}")),
            TarError::Read { source, .. } => unreadable(source),
            TarError::Visit(Problem::Entry(problem)) => bad(&name, problem),
            TarError::Visit(Problem::Error(error)) => error,
        });
    }
    // Nothing may follow the archive; what is left of the compressed bytes is only the end of their format.
    let rest = io::copy(&mut archive, &mut io::sink());
    whole(&mut blob, layer)?;
    rest.map_err(unreadable)?;
    let (diff_id, bytes) = archive.seen();
    if diff_id != layer.diff_id {
        return Err(wrong_digest(
            &format!("the archive in {name}"),
            &layer.diff_id,
            &diff_id,
        ));
    }
    used.bytes += bytes;
    Ok(content)
}

/// Reads a blob to its end; it must have the size and the digest by which the manifest calls it.
fn whole(blob: &mut Watched<'_>, layer: &ImageLayer) -> Result<(), ImageError> {
    let path = layer.digest.to_hex();
    if let Err(source) = io::copy(blob, &mut io::sink()) {
        return Err(ImageError::Read { path, source });
    }
    let (digest, size) = blob.seen();
    if size != layer.size {
        return Err(ImageError::Length {
            path,
            expected: layer.size,
            actual: size,
            more: false,
        });
    }
    if digest != layer.digest {
        return Err(wrong_digest(&path, &layer.digest, &digest));
    }
    Ok(())
}

/// What the entry `path` removes, if its name says that it removes something. Names that begin as those of removals are reserved.
fn removal(path: &RelPath) -> Result<Option<Removal>, String> {
    let reserved = |name: &[u8]| name.starts_with(WHITEOUT);
    let parent = path.parent();
    if parent.as_ref().is_some_and(|parent| parent.components().any(reserved)) {
        return Err(format!("{path} lies below a name that removes a file"));
    }
    let name = path.name();
    if name == OPAQUE {
        return Ok(Some(Removal::Contents(parent)));
    }
    let Some(of) = name.strip_prefix(WHITEOUT) else {
        return Ok(None);
    };
    let mut bytes = parent.map_or_else(Vec::new, |parent| [parent.as_bytes(), b"/"].concat());
    bytes.extend_from_slice(of);
    match RelPath::new(&bytes) {
        Ok(target) if !reserved(of) => Ok(Some(Removal::Entry(target))),
        _ => Err(format!("{path} removes nothing that can be there")),
    }
}

/// Applies the changes of a layer to the tree of those below.
fn merge(tree: &mut Tree, content: LayerContent, epoch: Epoch, used: &mut Used<'_>) -> Result<(), String> {
    for removal in content.removed {
        match removal {
            Removal::Entry(path) => {
                tree.remove(&path);
            }
            Removal::Contents(parent) => {
                for path in tree.children(parent.as_ref()) {
                    tree.remove(&path);
                }
            }
        }
    }
    if let Some((path, to)) = content.links.iter().find(|(_, to)| tree.get(to).is_none()) {
        return Err(format!("{path} is a hard link to {to}, which the same layer removes"));
    }
    for (path, entry) in content.entries {
        // Above a directory of the tree there are only directories.
        for parent in std::iter::successors(path.parent(), RelPath::parent) {
            match tree.get(&parent).map(|entry| &entry.node) {
                Some(Node::Directory) => break,
                Some(_) => return Err(format!("{path} lies below {parent}, which is no directory")),
                None => used.entry(parent.as_bytes().len())?,
            }
        }
        let there = tree.get(&path).map(|entry| entry.node == Node::Directory);
        match (there, entry.node == Node::Directory) {
            // The contents of a directory stay when only its metadata changes.
            (Some(true), true) => {
                tree.set_meta(&path, entry.meta);
                continue;
            }
            (Some(_), _) => {
                tree.remove(&path);
            }
            (None, _) => tree.make_parents(&path, epoch).map_err(|e| e.to_string())?,
        }
        tree.insert(path, entry).map_err(|e| e.to_string())?;
    }
    Ok(())
}
