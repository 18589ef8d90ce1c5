//! Trees laid out with their owners and modes, for stages that have a range of user ids.

use super::WriterError;
use crate::model::{Entry, Meta, Node, RelPath, Tree, VerityDigest};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, fchown, lchown, symlink},
    },
    path::{Path, PathBuf},
};

/// Largest owner: a stage has 65,536 user ids.
const MAX_ID: u32 = 65_535;

/// Lays `tree` out in the directory `target`, in which a directory of the tree may be already. Contents are copied from the paths that
/// `contents` has.
///
/// # Errors
/// An entry cannot be made, or has an owner or an extended attribute that no stage can give it.
pub(super) fn lay_out_owned(
    tree: &Tree,
    contents: &BTreeMap<VerityDigest, PathBuf>,
    target: &Path,
) -> Result<(), WriterError> {
    match fs::create_dir(target) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(WriterError::io("create", target)(e)),
        _ => {}
    }
    for (rel, entry) in tree.iter() {
        check(rel, &entry.meta)?;
        let path = target.join(rel.as_path());
        make(rel, entry, contents, &path)?;
    }
    // The modes of directories come last: one that may not be written to could take no entries.
    for (rel, entry) in tree.iter().filter(|(_, entry)| entry.node == Node::Directory) {
        let path = target.join(rel.as_path());
        let set = lchown(&path, Some(entry.meta.uid), Some(entry.meta.gid))
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(entry.meta.mode)));
        set.map_err(WriterError::io("set the owner and the mode of", &path))?;
    }
    Ok(())
}

fn check(rel: &RelPath, meta: &Meta) -> Result<(), WriterError> {
    if meta.uid > MAX_ID || meta.gid > MAX_ID {
        let (uid, gid) = (meta.uid, meta.gid);
        let problem = format!("lay out {rel}: its owner {uid}:{gid} is above {MAX_ID}");
        return Err(WriterError::Missing(problem));
    }
    match meta.xattrs.keys().next() {
        None => Ok(()),
        Some(name) => Err(WriterError::Missing(format!(
            "lay out {rel}: it has the extended attribute \"{}\", and a root has none",
            name.escape_ascii()
        ))),
    }
}

fn make(
    rel: &RelPath,
    entry: &Entry,
    contents: &BTreeMap<VerityDigest, PathBuf>,
    path: &Path,
) -> Result<(), WriterError> {
    let (uid, gid) = (Some(entry.meta.uid), Some(entry.meta.gid));
    let made = match &entry.node {
        Node::Directory => match fs::create_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        },
        Node::Symlink { target } => symlink(OsStr::from_bytes(target), path).and_then(|()| lchown(path, uid, gid)),
        Node::File { digest, .. } => {
            let from = contents.get(digest);
            let from = from.ok_or_else(|| WriterError::Missing(format!("find the content of {rel}")))?;
            File::open(from).and_then(|mut content| {
                let mut file = File::create_new(path)?;
                io::copy(&mut content, &mut file)?;
                // The owner first, because a change of owner clears set-id bits.
                fchown(&file, uid, gid)?;
                file.set_permissions(Permissions::from_mode(entry.meta.mode))
            })
        }
        Node::CharDevice { .. } | Node::BlockDevice { .. } | Node::Fifo => {
            return Err(WriterError::Missing(format!(
                "lay out {rel}: it is neither a file nor a directory nor a link"
            )));
        }
    };
    made.map_err(WriterError::io("create", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Epoch;

    #[test]
    fn owners_and_attributes_that_no_root_has_are_named() {
        let scratch = tempfile::tempdir().expect("a directory");
        let made = |change: &dyn Fn(&mut Meta)| {
            let mut tree = Tree::new(Meta::root(0o755, Epoch::new(1)));
            let mut meta = Meta::root(0o755, Epoch::new(1));
            (meta.uid, meta.gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
            change(&mut meta);
            let node = Node::Directory;
            tree.insert("a".parse().expect("a path"), Entry { meta, node })
                .expect("fits");
            lay_out_owned(&tree, &BTreeMap::new(), &scratch.path().join("root"))
        };
        made(&|_| {}).expect("laid out");
        // A directory that is there already stays, with the owner and mode of the tree.
        made(&|meta| meta.mode = 0o700).expect("laid out");
        let mode = fs::metadata(scratch.path().join("root/a"))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o700);
        let error = made(&|meta| meta.gid = 65_536).expect_err("no such id").to_string();
        assert!(
            error.contains("lay out a: its owner ") && error.contains(":65536 is above 65535"),
            "{error}"
        );
        let capability = |meta: &mut Meta| _ = meta.xattrs.insert(b"security.capability".to_vec(), vec![1]);
        let error = made(&capability).expect_err("an attribute").to_string();
        assert_eq!(
            error,
            "lay out a: it has the extended attribute \"security.capability\", and a root has none"
        );
    }
}
