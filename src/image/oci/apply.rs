//! Applies the layers of an image, one on top of the other, to a tree.
//!
//! Each layer is read once; while it is read, its bytes are compared with the digest of the blob, and the archive in it with the
//! `diff_id`. Nothing may lead out of the root: a parent that is a link is refused. Removals (`.wh.`) concern what lower layers have, in
//! whatever order the archive lists them.

use super::{ImageLayer, LayerCompression, LayoutReader, OciImage, layout::bad, layout::wrong_digest};
use crate::{
    debian::{TarEntryKind, TarError, TarLimits, read_tar},
    image::ImageError,
    model::{Entry, Epoch, Meta, Node, RelPath, Sha256Digest, Tree, VerityDigest},
};
use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    rc::Rc,
};

/// Prefix of a file that removes the file of the rest of its name.
const WHITEOUT: &[u8] = b".wh.";
/// A file that removes everything that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Largest window of zstd that is decoded: 2^27 bytes, what other programs allow by default.
const WINDOW_LOG: u32 = 27;

/// Limits on the layers of one image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayerLimits {
    /// Most entries of a layer.
    pub entries: u64,
    /// Most bytes of an uncompressed layer.
    pub bytes: u64,
}

impl Default for LayerLimits {
    /// 500,000 entries, 8 GiB.
    fn default() -> Self {
        let TarLimits { entries, bytes, .. } = TarLimits::default();
        Self { entries, bytes }
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

/// Receives the content of the file at a path, and returns its digest and size.
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
    let mut bytes = 0;
    for layer in &image.layers {
        let name = layer.digest.to_hex();
        let content = read_layer(layout, layer, limits, put, &tree)?;
        bytes += content.bytes;
        if let Some(meta) = content.root {
            tree.set_root(meta);
        }
        merge(&name, &mut tree, content.removed, content.entries, epoch)?;
    }
    Ok(AppliedLayers { tree, bytes })
}

/// What one layer changes.
struct LayerContent {
    root: Option<Meta>,
    entries: BTreeMap<RelPath, Entry>,
    removed: BTreeSet<Removal>,
    bytes: u64,
}

/// What a layer removes of those below it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Removal {
    /// The contents of a directory; `None` is the root.
    Contents(Option<RelPath>),
    /// An entry.
    Entry(RelPath),
}

/// A reader that hashes and counts what passes, and may be asked while another reader has it.
#[derive(Clone)]
struct Watched<'a> {
    inner: Rc<RefCell<Watching<'a>>>,
}

struct Watching<'a> {
    reader: Box<dyn Read + 'a>,
    hash: Sha256,
    size: u64,
    limit: u64,
}

impl<'a> Watched<'a> {
    fn new(reader: Box<dyn Read + 'a>, limit: u64) -> Self {
        let (hash, size) = (Sha256::new(), 0);
        Self {
            inner: Rc::new(RefCell::new(Watching {
                reader,
                hash,
                size,
                limit,
            })),
        }
    }

    /// The digest and the number of the bytes so far.
    fn seen(&self) -> (Sha256Digest, u64) {
        let inner = self.inner.borrow();
        (Sha256Digest::new(inner.hash.clone().finalize().into()), inner.size)
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.inner.borrow_mut();
        let n = inner.reader.read(buf)?;
        inner.size += n as u64;
        if inner.size > inner.limit {
            let message = format!("it has more than the {} bytes that its descriptor states", inner.limit);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        inner.hash.update(&buf[..n]);
        Ok(n)
    }
}

/// Reads a layer to its end and compares it with its digests. `lower` is the tree of the layers below, for hard links.
fn read_layer(
    layout: &LayoutReader<'_>,
    layer: &ImageLayer,
    limits: &LayerLimits,
    put: PutLayerContent<'_>,
    lower: &Tree,
) -> Result<LayerContent, ImageError> {
    let name = layer.digest.to_hex();
    let unreadable = |source| ImageError::Read {
        path: name.clone(),
        source,
    };
    let mut blob = Watched::new(layout.blob(&layer.digest)?, layer.size);
    let decoder: Box<dyn Read> = match layer.compression {
        None => Box::new(blob.clone()),
        Some(LayerCompression::Gzip) => Box::new(MultiGzDecoder::new(blob.clone())),
        Some(LayerCompression::Zstd) => {
            let mut decoder = zstd::Decoder::new(blob.clone()).map_err(unreadable)?;
            decoder.window_log_max(WINDOW_LOG).map_err(unreadable)?;
            Box::new(decoder)
        }
    };
    let mut archive = Watched::new(decoder, limits.bytes);
    let mut content = LayerContent {
        root: None,
        entries: BTreeMap::new(),
        removed: BTreeSet::new(),
        bytes: 0,
    };
    let tar_limits = TarLimits {
        entries: limits.entries,
        bytes: limits.bytes,
        ..TarLimits::default()
    };
    let mut visit = |path: Option<RelPath>, header: crate::debian::EntryHeader, reader: &mut dyn Read| {
        let Some(path) = path else {
            content.root = Some(header.meta);
            return Ok(());
        };
        if let Some(removal) = removal(&name, &path)? {
            content.removed.insert(removal);
            return Ok(());
        }
        let node = match header.kind {
            TarEntryKind::Directory => Node::Directory,
            TarEntryKind::Symlink(target) => Node::Symlink { target },
            TarEntryKind::File => {
                let (digest, size) = put(&path, reader).map_err(|source| ImageError::Read {
                    path: path.to_string(),
                    source,
                })?;
                Node::File { size, digest }
            }
            TarEntryKind::HardLink(to) => {
                let found = content.entries.get(&to).or_else(|| lower.get(&to));
                match found.map(|entry| &entry.node) {
                    Some(node @ Node::File { .. }) => node.clone(),
                    _ => return Err(bad(&name, format!("{path} is a hard link to {to}, which is no file"))),
                }
            }
        };
        let meta = header.meta;
        content.entries.insert(path, Entry { meta, node });
        Ok(())
    };
    read_tar(archive.clone(), &tar_limits, &mut visit).map_err(|error| match error {
        TarError::Entry { entry, problem } => bad(&name, format!("{entry} {problem}")),
        TarError::Read { source, .. } => unreadable(source),
        TarError::Visit(error) => error,
    })?;
    // Nothing may follow the archive; what is left of the compressed bytes is only the end of their format.
    for rest in [&mut archive, &mut blob] {
        io::copy(rest, &mut io::sink()).map_err(unreadable)?;
    }
    let (digest, size) = blob.seen();
    if size != layer.size {
        return Err(ImageError::Length {
            path: name,
            expected: layer.size,
            actual: size,
            more: false,
        });
    }
    if digest != layer.digest {
        return Err(wrong_digest(&name, &layer.digest, &digest));
    }
    let (diff_id, bytes) = archive.seen();
    if diff_id != layer.diff_id {
        return Err(wrong_digest(
            &format!("the archive in {name}"),
            &layer.diff_id,
            &diff_id,
        ));
    }
    content.bytes = bytes;
    Ok(content)
}

/// What the entry `path` removes, if its name says that it removes something.
fn removal(layer: &str, path: &RelPath) -> Result<Option<Removal>, ImageError> {
    let name = path.name();
    if name == OPAQUE {
        return Ok(Some(Removal::Contents(path.parent())));
    }
    let Some(of) = name.strip_prefix(WHITEOUT) else {
        return Ok(None);
    };
    let mut bytes = path
        .parent()
        .map_or_else(Vec::new, |parent| [parent.as_bytes(), b"/"].concat());
    bytes.extend_from_slice(of);
    match RelPath::new(&bytes) {
        Ok(target) if !of.starts_with(WHITEOUT) && Some(&target) != path.parent().as_ref() => {
            Ok(Some(Removal::Entry(target)))
        }
        _ => Err(bad(layer, format!("{path} removes nothing that can be there"))),
    }
}

/// Applies the changes of a layer to the tree of those below.
fn merge(
    layer: &str,
    tree: &mut Tree,
    removed: BTreeSet<Removal>,
    entries: BTreeMap<RelPath, Entry>,
    epoch: Epoch,
) -> Result<(), ImageError> {
    let refuse = |problem: String| bad(layer, problem);
    for removal in removed {
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
    for (path, entry) in entries {
        let parents = std::iter::successors(path.parent(), RelPath::parent);
        for parent in parents {
            match tree.get(&parent).map(|entry| &entry.node) {
                None | Some(Node::Directory) => {}
                Some(_) => return Err(refuse(format!("{path} lies below {parent}, which is no directory"))),
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
            (None, _) => tree.make_parents(&path, epoch).map_err(|e| refuse(e.to_string()))?,
        }
        tree.insert(path, entry).map_err(|e| refuse(e.to_string()))?;
    }
    Ok(())
}
