//! The root of an artifact, hashed again from its bytes.
//!
//! An artifact carries its root as an ext4 image: `/image.cfs` is the composefs image, and `/objects/ab/cdef…` are the objects it
//! refers to, each named by its fs-verity digest and stored with its Merkle tree. All of them are hashed again here, because a node
//! trusts them.

use super::{
    check::{Check, Class, Problems},
    installed,
};
use crate::{
    image::{
        ImageError, ReadAt,
        composefs::{list, referenced_objects},
        ext4::{Ext4, Ext4Inode, FileKind},
    },
    manifest::{Manifest, RootFact},
    model::{VerityDigest, chain},
    verity::{MerkleTree, VerityError},
};
use std::{collections::BTreeSet, error::Error, fmt, path::Path};

/// Largest composefs image, bytes: it is read into memory.
const MAX_IMAGE: u64 = 256 << 20;
/// Largest sum of the sizes of all objects, bytes: hashing an object needs 1/127 of its size as memory.
const MAX_CONTENT: u64 = 16 << 30;
const IMAGE: &[u8] = b"image.cfs";
const OBJECTS: &[u8] = b"objects";
/// The file of the root with which a node takes lists of modules without a signature.
const UNSIGNED_MODULES: &str = "etc/powernode/unsigned-modules";
/// The file of a root whose consoles have a shell.
const DEBUG: &str = "etc/powernode/debug";

/// The root of an artifact.
pub struct OpenedRoot {
    /// The ext4 image with `/image.cfs` and `/objects`.
    pub image: Box<dyn ReadAt>,
    /// The root's digest as the artifact itself states it: the bytes of `/etc/powernode/root-digest`.
    pub stated: Vec<u8>,
}

impl fmt::Debug for OpenedRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenedRoot(stated {:?})", String::from_utf8_lossy(&self.stated))
    }
}

/// The reason why the root of an artifact cannot be opened.
pub type OpenError = Box<dyn Error + Send + Sync>;

/// Opens the root inside an artifact, in the way of its family.
pub trait OpenRoot {
    /// Opens the root of the artifact in `dir`, which `manifest` describes.
    fn open_root(&self, dir: &Path, manifest: &Manifest) -> Result<OpenedRoot, OpenError>;
}

impl<F: Fn(&Path, &Manifest) -> Result<OpenedRoot, OpenError>> OpenRoot for F {
    fn open_root(&self, dir: &Path, manifest: &Manifest) -> Result<OpenedRoot, OpenError> {
        self(dir, manifest)
    }
}

/// The reason why a file of the root cannot be checked.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Verity(#[from] VerityError),
}

/// Checks that the root in the artifact is the root that the manifest states, and that the packages installed there are those of the
/// manifest.
pub(super) fn check_root(manifest: &Manifest, dir: &Path, opener: &dyn OpenRoot) -> [Check; 2] {
    let mut problems = Problems::default();
    if manifest.root != RootFact::default() {
        problems.add(format!(
            "the manifest states another way to compute the root digest: {:?}",
            manifest.root
        ));
    }
    let mut found = String::new();
    let mut database = Err("the root could not be read".to_owned());
    match opener.open_root(dir, manifest) {
        Err(e) => problems.add(chain(e.as_ref())),
        Ok(root) => {
            let stated = format!("{:?}", String::from_utf8_lossy(&root.stated));
            let expected = format!("{:?}", format!("{}\n", manifest.fsverity_root_hash));
            problems.equal("root digest stated in the artifact", &expected, &stated);
            match check_image(manifest, root.image, &mut problems, &mut database) {
                Ok(text) => found = text,
                Err(e) => problems.add(chain(&e)),
            }
        }
    }
    [
        problems.check("root", Class::Root, found),
        installed::check_packages(manifest, database),
    ]
}

/// Checks the file system; `database` gets dpkg's database, or the reason why it cannot be read.
fn check_image(
    manifest: &Manifest,
    image: Box<dyn ReadAt>,
    problems: &mut Problems,
    database: &mut Result<Vec<u8>, String>,
) -> Result<String, FileError> {
    let fs = Ext4::open(image)?;
    let mut metadata = None;
    let mut objects = BTreeSet::new();
    let mut bytes = 0u64;
    for entry in fs.read_dir(&fs.root()?)? {
        let inode = fs.inode(entry.inode)?;
        match entry.name.as_slice() {
            IMAGE => metadata = check_metadata(&fs, &inode, &manifest.fsverity_root_hash, problems)?,
            OBJECTS => bytes = check_objects(&fs, &inode, &mut objects, problems)?,
            b"lost+found" if inode.kind() == FileKind::Directory && fs.read_dir(&inode)?.is_empty() => {}
            name => problems.add(format!(
                "the root's file system has an unexpected entry \"{}\"",
                name.escape_ascii()
            )),
        }
    }
    match metadata {
        None => problems.add("the root's file system has no valid \"image.cfs\""),
        Some((referenced, bytes)) => {
            *database = installed::database(&fs, &bytes);
            let listed = list(&bytes, installed::MAX_ENTRIES)?;
            let has = |path: &str| {
                listed
                    .iter()
                    .any(|entry| entry.path.strip_prefix(b"/") == Some(path.as_bytes()))
            };
            compare_options(manifest, &has, problems);
            for digest in referenced.difference(&objects) {
                problems.add(format!("the object {digest} is missing"));
            }
            for digest in objects.difference(&referenced) {
                problems.add(format!("the object {digest} is not referenced by the image"));
            }
        }
    }
    Ok(format!(
        "{}: {} objects, {bytes} bytes",
        manifest.fsverity_root_hash,
        objects.len()
    ))
}

/// Compares the root with the statements that nodes take lists of modules without a signature, and that their consoles have a shell: a
/// project can put these files there itself.
pub(super) fn compare_options(manifest: &Manifest, has: &dyn Fn(&str) -> bool, problems: &mut Problems) {
    problems.equal("unsigned_modules", &manifest.unsigned_modules, &has(UNSIGNED_MODULES));
    problems.equal("debug", &manifest.debug, &has(DEBUG));
}

/// The objects a composefs image refers to, and its bytes.
type Metadata = (BTreeSet<VerityDigest>, Vec<u8>);

/// Checks `image.cfs`; returns the objects it refers to and its bytes, if its digest is the expected one.
fn check_metadata(
    fs: &Ext4<Box<dyn ReadAt>>,
    inode: &Ext4Inode,
    expected: &VerityDigest,
    problems: &mut Problems,
) -> Result<Option<Metadata>, FileError> {
    if inode.kind() != FileKind::File || inode.size() > MAX_IMAGE {
        problems.add(format!("\"image.cfs\" is not a file of at most {MAX_IMAGE} bytes"));
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let actual = check_sealed(fs, inode, "image.cfs", problems, &mut |piece| {
        bytes.extend_from_slice(piece)
    })?;
    problems.equal("fs-verity digest of \"image.cfs\"", expected, &actual);
    if actual != *expected {
        return Ok(None);
    }
    match referenced_objects(&bytes) {
        Ok(referenced) => Ok(Some((referenced, bytes))),
        Err(e) => {
            problems.add(format!("\"image.cfs\" is not a composefs image: {}", chain(&e)));
            Ok(None)
        }
    }
}

/// Checks every object below `objects` and returns the sum of their sizes in bytes.
fn check_objects(
    fs: &Ext4<Box<dyn ReadAt>>,
    directory: &Ext4Inode,
    objects: &mut BTreeSet<VerityDigest>,
    problems: &mut Problems,
) -> Result<u64, FileError> {
    let mut bytes = 0u64;
    for first in fs.read_dir(directory)? {
        let below = fs.inode(first.inode)?;
        for rest in fs.read_dir(&below)? {
            let name = format!("{}/{}", first.name.escape_ascii(), rest.name.escape_ascii());
            let inode = fs.inode(rest.inode)?;
            let digest = (first.name.len() == 2).then(|| name.replacen('/', "", 1).parse::<VerityDigest>());
            let Some(Ok(digest)) = digest else {
                problems.add(format!("\"objects/{name}\" is not the name of an object"));
                continue;
            };
            bytes = bytes.saturating_add(inode.size());
            if inode.kind() != FileKind::File || bytes > MAX_CONTENT {
                problems.add(format!(
                    "\"objects/{name}\" is not a file, or the objects have more than {MAX_CONTENT} bytes"
                ));
                continue;
            }
            let what = format!("objects/{name}");
            match check_sealed(fs, &inode, &what, problems, &mut |_| {}) {
                Ok(actual) => problems.equal(&format!("fs-verity digest of \"{what}\""), &digest, &actual),
                Err(e) => problems.add(format!("\"{what}\": {}", chain(&e))),
            }
            objects.insert(digest);
        }
    }
    Ok(bytes)
}

/// Hashes a file, passes its bytes to `tee`, and compares the verity metadata in its inode with the computed metadata.
fn check_sealed(
    fs: &Ext4<Box<dyn ReadAt>>,
    inode: &Ext4Inode,
    name: &str,
    problems: &mut Problems,
    tee: &mut dyn FnMut(&[u8]),
) -> Result<VerityDigest, FileError> {
    let baked = MerkleTree::build_tee(fs.file(inode)?, inode.size(), |piece| {
        tee(piece);
        Ok::<(), FileError>(())
    })?;
    match fs.verity(inode)? {
        None => problems.add(format!(
            "\"{name}\" has no fs-verity metadata, so a node would not check it"
        )),
        Some(tail) if tail.descriptor != baked.descriptor || tail.tree != baked.tree => {
            problems.add(format!("\"{name}\" has a Merkle tree that does not match its content"));
        }
        Some(_) => {}
    }
    Ok(baked.digest)
}
