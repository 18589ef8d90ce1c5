//! A tree becomes a composefs image with its objects, and an image is checked.
//!
//! ```text
//! <hex>.cfs        the image; hex is its fs-verity digest
//! .store/ab/cdef…  the content of a file of more than 64 bytes, by fs-verity digest
//! ```

use super::ModuleError;
use crate::{
    image::{
        Open,
        composefs::{Listed, external_objects, list, write_image},
    },
    model::{RelPath, Tree, VerityDigest},
    store::{open_foreign_below, read_foreign},
    verity,
};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Directory of the objects.
const STORE: &str = ".store";
const SUFFIX: &str = ".cfs";
/// Prefix of the older of the two names that the platform gives to images.
const OLD_PREFIX: &str = "sha256_";
/// Largest image, in bytes.
const MAX_IMAGE: u64 = 256 << 20;
/// Most entries of an image.
const MAX_ENTRIES: usize = 400_000;
const TYPE: u16 = 0o170_000;
const CHAR_DEVICE: u16 = 0o020_000;
const BLOCK_DEVICE: u16 = 0o060_000;

/// A module that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrittenModule {
    /// fs-verity digest of the image, the name of the module.
    pub digest: VerityDigest,
    /// The image.
    pub image: PathBuf,
    /// Number of objects.
    pub objects: usize,
    /// Bytes of image and objects.
    pub size: u64,
}

/// A module that was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckedModule {
    /// fs-verity digest of the image.
    pub digest: VerityDigest,
    /// Number of entries, without the hidden ones of composefs.
    pub entries: usize,
    /// Number of objects.
    pub objects: usize,
}

/// Writes the image of `tree` and its objects into the directory `out`, which is made if it is missing. Files that exist and have the right
/// bytes stay. `open` opens the content of a file.
///
/// # Errors
/// The image cannot hold an entry, a content has another digest, or a file cannot be written.
pub fn write_module(tree: &Tree, open: Open<'_>, out: &Path) -> Result<WrittenModule, ModuleError> {
    let (image, digest) = write_image(tree, open).map_err(ModuleError::Image)?;
    let objects = external_objects(tree);
    for object in objects.keys() {
        let content = open(object).map_err(ModuleError::io("read the content of an object for", out))?;
        put(out, &object_path(object)?, object, content)?;
    }
    let name = RelPath::new(format!("{digest}{SUFFIX}")).map_err(ModuleError::Tree)?;
    put(out, &name, &digest, image.as_slice())?;
    Ok(WrittenModule {
        digest,
        image: out.join(name.as_path()),
        objects: objects.len(),
        size: image.len() as u64 + objects.values().sum::<u64>(),
    })
}

/// The path of an object in the directory of a module.
fn object_path(digest: &VerityDigest) -> Result<RelPath, ModuleError> {
    let hex = digest.to_hex();
    let (directory, name) = hex.split_at(2);
    RelPath::new(format!("{STORE}/{directory}/{name}")).map_err(ModuleError::Tree)
}

/// Writes a file that is complete when it has its name.
fn put(out: &Path, name: &RelPath, digest: &VerityDigest, content: impl io::Read) -> Result<(), ModuleError> {
    let path = out.join(name.as_path());
    let there = open_foreign_below(out, name).and_then(verity::digest_reader);
    if there.is_ok_and(|(found, _)| found == *digest) {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(out);
    fs::create_dir_all(parent).map_err(ModuleError::io("create", parent))?;
    let mut part = tempfile::NamedTempFile::new_in(parent).map_err(ModuleError::io("create a file in", parent))?;
    let (actual, _) = verity::copy_digest(content, part.as_file_mut()).map_err(ModuleError::io("write", &path))?;
    if actual != *digest {
        return Err(ModuleError::Digest {
            path,
            expected: *digest,
            actual,
        });
    }
    let done = part.as_file_mut().flush().and_then(|()| readable(part.as_file()));
    done.map_err(ModuleError::io("write", &path))?;
    part.persist(&path)
        .map_err(|e| ModuleError::io("write", &path)(e.error))?;
    Ok(())
}

/// Everybody may read a module: whoever copies it to a node, or serves it.
fn readable(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

/// Checks the image at `path`: its digest is that of its name, and it and its objects, which lie in `.store` beside it, are what a node
/// accepts.
///
/// # Errors
/// The name has no digest, or a check fails.
pub fn verify_image(path: &Path) -> Result<CheckedModule, ModuleError> {
    let refused = |problem: String| ModuleError::Refused {
        path: path.to_owned(),
        problem,
    };
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let hex = name
        .strip_suffix(SUFFIX)
        .map(|hex| hex.strip_prefix(OLD_PREFIX).unwrap_or(hex));
    let named: Option<VerityDigest> = hex.and_then(|hex| hex.parse().ok());
    let expected = named.ok_or_else(|| refused(format!("its name is not <64 hexadecimal digits>{SUFFIX}")))?;
    let image = read_foreign(path, MAX_IMAGE).map_err(ModuleError::io("read", path))?;
    let actual = verity::digest_bytes(&image);
    if actual != expected {
        return Err(ModuleError::Digest {
            path: path.to_owned(),
            expected,
            actual,
        });
    }
    let listed = list(&image, MAX_ENTRIES).map_err(ModuleError::Image)?;
    let mut entries = 0;
    for entry in &listed {
        if let Some(problem) = problem(entry) {
            return Err(refused(problem));
        }
        entries += usize::from(!is_hidden(entry) && entry.path != b"/");
    }
    let mut objects: Vec<(VerityDigest, &Listed)> = listed.iter().filter_map(|e| Some((e.object?, e))).collect();
    objects.sort_by_key(|(digest, _)| *digest);
    objects.dedup_by_key(|(digest, _)| *digest);
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    for (digest, entry) in &objects {
        let name = object_path(digest)?;
        let at = dir.join(name.as_path());
        let file = open_foreign_below(dir, &name).map_err(ModuleError::io("open", &at))?;
        let (actual, size) = verity::digest_reader(file).map_err(ModuleError::io("read", &at))?;
        if actual != *digest || size != entry.size {
            return Err(ModuleError::Digest {
                path: at,
                expected: *digest,
                actual,
            });
        }
    }
    Ok(CheckedModule {
        digest: actual,
        entries,
        objects: objects.len(),
    })
}

/// One of the whiteouts `/00` to `/ff` that every composefs image has.
fn is_hidden(entry: &Listed) -> bool {
    let hex = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    let name = entry.path.strip_prefix(b"/").unwrap_or_default();
    name.len() == 2 && name.iter().all(hex) && entry.mode & TYPE == CHAR_DEVICE && entry.device == 0
}

fn problem(entry: &Listed) -> Option<String> {
    let path = entry.path.escape_ascii();
    if let Some(attribute) = &entry.foreign {
        return Some(format!("\"{path}\" has the foreign attribute {attribute}"));
    }
    let device = matches!(entry.mode & TYPE, CHAR_DEVICE | BLOCK_DEVICE);
    (device && !is_hidden(entry)).then(|| format!("\"{path}\" is a device or a whiteout"))
}
