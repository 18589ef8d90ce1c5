//! The directories of a stage as a writer sees them, and its tree inputs.

use super::WriterError;
use crate::model::{Node, Tree, VerityDigest, parse_dump};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Path of an input.
pub(super) fn input(name: &str) -> PathBuf {
    Path::new("/inputs").join(name)
}

/// Path of an output, or of a scratch file.
pub(super) fn build(name: &str) -> PathBuf {
    Path::new("/build").join(name)
}

/// A tree input: its metadata, and the paths of its contents.
pub(super) struct TreeInput {
    pub(super) tree: Tree,
    pub(super) contents: BTreeMap<VerityDigest, PathBuf>,
}

/// Reads the tree input `name`.
pub(super) fn tree_input(name: &str) -> Result<TreeInput, WriterError> {
    let dump = input(&format!("{name}.tree"));
    let text = fs::read_to_string(&dump).map_err(WriterError::io("read", &dump))?;
    let tree = parse_dump(&text).map_err(|source| WriterError::Input {
        path: dump,
        source: Box::new(source),
    })?;
    let base = input(name);
    let mut contents = BTreeMap::new();
    for (path, entry) in tree.iter() {
        if let Node::File { digest, .. } = &entry.node {
            contents.entry(*digest).or_insert_with(|| base.join(path.as_path()));
        }
    }
    Ok(TreeInput { tree, contents })
}

/// A function that opens contents by their digest.
pub(super) fn opener(
    contents: &BTreeMap<VerityDigest, PathBuf>,
) -> impl Fn(&VerityDigest) -> io::Result<Box<dyn Read>> + '_ {
    |digest| {
        let path = contents
            .get(digest)
            .ok_or_else(|| io::Error::other(format!("no input has the object {digest}")))?;
        Ok(Box::new(File::open(path)?))
    }
}

/// Whether there is a file or directory at `path`. A failure to look is an error: as an absence it would change the output.
pub(super) fn is_there(path: &Path) -> Result<bool, WriterError> {
    path.try_exists().map_err(WriterError::io("look for", path))
}

/// The text of the file `path`.
pub(super) fn read_text(path: &Path) -> Result<String, WriterError> {
    fs::read_to_string(path).map_err(WriterError::io("read", path))
}
