//! Small layouts in memory: made through the library, or by hand where the library refuses to.

use pnb::{
    image::oci::{
        ImageFacts, LAYOUT_FILE, LayerCompression, LayerEntries, LayerLimits, LayoutReader, OCI_INDEX, OciDocument,
        OciImage, WrittenLayer, apply_layers, blob_path, image_documents, layout_file, layout_index, write_layer,
    },
    model::{Arch, Entry, Epoch, Meta, Node, RelPath, Sha256Digest, Tree, VerityDigest, ZstdLevel, chain},
    verity::digest_bytes,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Cursor, Read, Write},
    num::NonZeroU32,
    path::Path,
};
use tar::{EntryType, Header};

pub(crate) const EPOCH: Epoch = Epoch::new(1_700_000_000);
pub(crate) const ONE: NonZeroU32 = NonZeroU32::MIN;

/// The files of a layout by their paths.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;
/// Contents by their digests.
pub(crate) type Contents = BTreeMap<VerityDigest, Vec<u8>>;

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a path")
}

pub(crate) fn sha256(bytes: &[u8]) -> Sha256Digest {
    Sha256Digest::new(Sha256::digest(bytes).into())
}

/// What stands at a path, with its mode.
#[derive(Clone, Copy)]
pub(crate) enum Put<'a> {
    Dir(u32),
    Link(&'a str),
    File(u32, &'a [u8]),
}

/// A tree of these entries, with the directories above them.
pub(crate) fn tree_of(entries: &[(&str, Put<'_>)]) -> (Tree, Contents) {
    let (mut tree, mut contents) = (Tree::new(Meta::root(0o755, EPOCH)), Contents::new());
    for (name, put) in entries {
        let (mode, node) = match put {
            Put::Dir(mode) => (*mode, Node::Directory),
            Put::Link(target) => {
                let target = target.as_bytes().to_vec();
                (0o777, Node::Symlink { target })
            }
            Put::File(mode, bytes) => {
                let digest = digest_bytes(bytes);
                contents.insert(digest, bytes.to_vec());
                let size = bytes.len() as u64;
                (*mode, Node::File { size, digest })
            }
        };
        let meta = Meta::root(mode, EPOCH);
        tree.make_parents(&path(name), EPOCH).expect("directories");
        tree.insert(path(name), Entry { meta, node }).expect("free");
    }
    (tree, contents)
}

/// All entries of a tree, as one layer.
pub(crate) fn entries(tree: &Tree) -> LayerEntries<'_> {
    LayerEntries {
        root: Some(tree.root()),
        entries: tree.iter().collect(),
    }
}

/// Writes a layer; returns its blob too.
pub(crate) fn layer(
    entries: &LayerEntries<'_>,
    contents: &Contents,
    compression: LayerCompression,
) -> (WrittenLayer, Vec<u8>) {
    let open = |digest: &VerityDigest| -> io::Result<Box<dyn Read>> {
        Ok(Box::new(Cursor::new(
            contents.get(digest).ok_or(io::ErrorKind::NotFound)?.clone(),
        )))
    };
    let mut bytes = Vec::new();
    let written = write_layer(entries, &open, compression, ZstdLevel::HIGH, ONE, &mut bytes).expect("written");
    (written, bytes)
}

pub(crate) fn facts(arch: Arch) -> ImageFacts<'static> {
    ImageFacts {
        arch,
        created: EPOCH,
        kernel_version: "6.1",
        root: VerityDigest::new([7; 32]),
    }
}

/// A layout with an image of these layers, and its configuration and manifest.
pub(crate) fn layout_with(
    facts: &ImageFacts<'_>,
    layers: Vec<(&str, (WrittenLayer, Vec<u8>))>,
) -> (Files, OciDocument, OciDocument) {
    let mut files = Files::new();
    let mut written = Vec::new();
    for (name, (layer, bytes)) in layers {
        files.insert(blob_path(&layer.digest), bytes);
        written.push((name.to_owned(), layer));
    }
    let (config, manifest) = image_documents(facts, &written).expect("documents");
    for document in [&config, &manifest] {
        files.insert(blob_path(&document.digest()), document.bytes.clone());
    }
    files.insert(LAYOUT_FILE.to_owned(), layout_file().expect("text"));
    files.insert(
        OCI_INDEX.to_owned(),
        layout_index(&manifest.descriptor).expect("an index"),
    );
    (files, config, manifest)
}

/// A layout with an image of one layer.
pub(crate) fn layout_of(tree: &Tree, contents: &Contents, compression: LayerCompression) -> Files {
    let one = layer(&entries(tree), contents, compression);
    layout_with(&facts(Arch::Amd64), vec![("all", one)]).0
}

/// Writes the files below `dir`.
pub(crate) fn write(files: &Files, dir: &Path) {
    for (name, bytes) in files {
        let file = dir.join(name);
        fs::create_dir_all(file.parent().expect("below dir")).expect("made");
        fs::write(file, bytes).expect("written");
    }
}

/// The files below `dir`.
pub(crate) fn read(dir: &Path) -> Files {
    let files = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter();
    let files = files.map(|entry| entry.expect("readable"));
    let files = files.filter(|entry| entry.file_type().is_file()).map(|entry| {
        let name = entry.path().strip_prefix(dir).expect("below");
        (
            name.to_str().expect("UTF-8").to_owned(),
            fs::read(entry.path()).expect("readable"),
        )
    });
    files.collect()
}

/// Runs `f` with a reader of the layout.
pub(crate) fn with_reader<T>(files: &Files, f: impl FnOnce(&LayoutReader<'_>) -> T) -> T {
    let open = |path: &RelPath| -> io::Result<Box<dyn Read>> {
        let bytes = files.get(&path.to_string()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(bytes.clone())))
    };
    f(&LayoutReader::new(&open))
}

/// The tree of the image for amd64, and its contents; or the whole message of the error.
pub(crate) fn apply_within(files: &Files, limits: &LayerLimits) -> Result<(Tree, Contents), String> {
    let mut contents = Contents::new();
    let mut put = |_: &RelPath, content: &mut dyn Read| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        let (digest, size) = (digest_bytes(&bytes), bytes.len() as u64);
        contents.insert(digest, bytes);
        Ok((digest, size))
    };
    let applied = with_reader(files, |layout| {
        let image = OciImage::find(layout, Arch::Amd64)?;
        apply_layers(layout, &image, EPOCH, limits, &mut put)
    });
    match applied {
        Ok(applied) => Ok((applied.tree, contents)),
        Err(error) => Err(chain(&error)),
    }
}

pub(crate) fn apply(files: &Files) -> Result<(Tree, Contents), String> {
    apply_within(files, &LayerLimits::default())
}

/// A member of an archive, as a header states it.
pub(crate) fn member(name: &[u8], kind: EntryType, content: &[u8], link: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(EPOCH.seconds());
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

pub(crate) fn file(name: &str, content: &[u8]) -> Vec<u8> {
    member(name.as_bytes(), EntryType::Regular, content, b"")
}

pub(crate) fn directory(name: &str) -> Vec<u8> {
    member(name.as_bytes(), EntryType::Directory, b"", b"")
}

pub(crate) fn symlink(name: &str, target: &str) -> Vec<u8> {
    member(name.as_bytes(), EntryType::Symlink, b"", target.as_bytes())
}

pub(crate) fn hard_link(name: &str, target: &str) -> Vec<u8> {
    member(name.as_bytes(), EntryType::Link, b"", target.as_bytes())
}

/// An archive of these members.
pub(crate) fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

/// A layer that is not made by the library.
#[derive(Clone)]
pub(crate) struct RawLayer {
    pub(crate) blob: Vec<u8>,
    pub(crate) media_type: &'static str,
    pub(crate) diff_id: Sha256Digest,
}

pub(crate) const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const TAR_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

/// A layer of this archive, without compression.
pub(crate) fn plain(archive: Vec<u8>) -> RawLayer {
    RawLayer {
        diff_id: sha256(&archive),
        blob: archive,
        media_type: TAR,
    }
}

/// A layer of this archive, compressed with gzip.
pub(crate) fn gzipped(archive: &[u8]) -> RawLayer {
    RawLayer {
        diff_id: sha256(archive),
        blob: gzip(archive),
        media_type: TAR_GZIP,
    }
}

/// A layer of this archive, compressed with zstd.
pub(crate) fn zstandard(archive: &[u8]) -> RawLayer {
    RawLayer {
        diff_id: sha256(archive),
        blob: zstd::encode_all(archive, 1).expect("compressed"),
        media_type: TAR_ZSTD,
    }
}

/// A descriptor of these bytes, which become a blob.
pub(crate) fn blob(files: &mut Files, media_type: &str, bytes: &[u8]) -> Value {
    let digest = sha256(bytes);
    files.insert(blob_path(&digest), bytes.to_vec());
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() })
}

/// A layout with an image of these layers. `change` may alter each document before its digest is taken: first the configuration, then the
/// manifest, then `index.json`, as the first member says.
pub(crate) fn raw_layout(layers: &[RawLayer], change: impl Fn(&str, &mut Value)) -> Files {
    let mut files = Files::new();
    let diff_ids: Vec<String> = layers.iter().map(|l| format!("sha256:{}", l.diff_id)).collect();
    let mut config =
        json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    change("config", &mut config);
    let descriptors = layers.iter().map(|l| blob(&mut files, l.media_type, &l.blob));
    let descriptors: Vec<Value> = descriptors.collect();
    let config = blob(&mut files, CONFIG, config.to_string().as_bytes());
    let mut manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": descriptors });
    change("manifest", &mut manifest);
    let manifest = blob(&mut files, MANIFEST, manifest.to_string().as_bytes());
    let mut index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest] });
    change("index", &mut index);
    files.insert(OCI_INDEX.to_owned(), index.to_string().into_bytes());
    files.insert(LAYOUT_FILE.to_owned(), layout_file().expect("text"));
    files
}

/// The same, unchanged.
pub(crate) fn raw(layers: &[RawLayer]) -> Files {
    raw_layout(layers, |_, _| {})
}

/// The message of the refusal, with digests and long runs of names cut.
pub(crate) fn refusal(files: &Files) -> String {
    masked(&apply(files).expect_err("it is applied"))
}

/// Digests are shown by their first digits only where they are equal on each run, which those of compressed bytes need not be.
pub(crate) fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut run = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_hexdigit() {
            run.push(c);
            continue;
        }
        out.push_str(if run.len() == 64 { "<sha256>" } else { &run });
        run.clear();
        out.push(c);
    }
    out.trim_end().to_owned()
}

/// The refusal of a layout whose one layer has these members.
pub(crate) fn of_members(members: &[Vec<u8>]) -> String {
    refusal(&raw(&[plain(archive(members))]))
}

/// The paths that an image of these layers has.
pub(crate) fn paths(layers: &[RawLayer]) -> String {
    let (tree, _) = apply(&raw(layers)).expect("innocent");
    tree.iter()
        .map(|(path, _)| path.to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

pub(crate) fn small() -> Vec<u8> {
    archive(&[directory("etc/"), file("etc/passwd", b"root\n")])
}
