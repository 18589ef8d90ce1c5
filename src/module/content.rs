//! What a tree may have to be a module, and the reading of a directory as such a tree.

use super::ModuleError;
use crate::{
    model::{Entry, Epoch, Meta, Node, RelPath, Tree, VerityDigest},
    store::open_foreign_below,
    verity,
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

/// The paths that no module may change; the file of the root by which 90powernode protects them.
const PROTECTED: &str = include_str!("../../stages/root/overlay/usr/lib/powernode/protected-paths");
/// Directories in which a node mounts another file system: files of a module there are never seen, or only on some nodes.
const COVERED: [&str; 9] = ["boot", "dev", "persist", "proc", "run", "sys", "sysroot", "tmp", "var"];
/// Most entries of a module.
const MAX_ENTRIES: usize = 200_000;
/// Attributes that the file system of the builder adds by itself; they are not taken.
const IGNORED: [&[u8]; 2] = [b"security.selinux", b"security.ima"];

/// The rules that the caller relaxes.
#[derive(Clone, Debug, Default)]
pub struct ContentRules {
    /// Paths that are left out, with everything below them.
    pub without: Vec<RelPath>,
    /// Whether files may have the set-user-id and set-group-id bits.
    pub allow_setid: bool,
}

impl ContentRules {
    fn leaves_out(&self, path: &RelPath) -> bool {
        self.without.iter().any(|base| path.is_within(base))
    }

    /// Removes the paths that are left out, and checks the rest. Each path in [`ContentRules::without`] must exist.
    ///
    /// # Errors
    /// An entry cannot be in a module.
    pub fn apply(&self, tree: &mut Tree) -> Result<(), ModuleError> {
        for path in &self.without {
            if tree.remove(path) == 0 {
                return Err(refuse(
                    path,
                    "is not in the tree, so it cannot be left out".to_owned(),
                    "name a path of the tree with --without, or leave the option out",
                ));
            }
        }
        if tree.is_empty() {
            let root = RelPath::new(".module").map_err(ModuleError::Tree)?;
            return Err(refuse(
                &root,
                "is missing, and so is everything: the tree is empty".to_owned(),
                "put the files of the module into it",
            ));
        }
        tree.iter().try_for_each(|(path, entry)| self.check(path, entry))
    }

    fn check(&self, path: &RelPath, entry: &Entry) -> Result<(), ModuleError> {
        const LEAVE_OUT: &str = "--without PATH leaves a path out";
        let directory = entry.node == Node::Directory;
        match entry.node {
            Node::CharDevice { major: 0, minor: 0 } => {
                return Err(refuse(
                    path,
                    "is a whiteout of overlayfs, which would hide a file of another layer".to_owned(),
                    LEAVE_OUT,
                ));
            }
            Node::CharDevice { .. } | Node::BlockDevice { .. } => {
                return Err(refuse(path, "is a device".to_owned(), LEAVE_OUT));
            }
            Node::Fifo => return Err(refuse(path, "is a named pipe".to_owned(), LEAVE_OUT)),
            _ => {}
        }
        if let Some(name) = entry
            .meta
            .xattrs
            .keys()
            .find(|name| !IGNORED.contains(&name.as_slice()))
        {
            let problem = format!("has the extended attribute \"{}\"", name.escape_ascii());
            return Err(refuse(
                path,
                problem,
                "remove the attribute, or leave the path out with --without PATH",
            ));
        }
        if entry.meta.mode & 0o6000 != 0 && !directory && !self.allow_setid {
            let problem = format!("has the mode {:04o}, with a set-id bit", entry.meta.mode);
            return Err(refuse(path, problem, "--allow-setid takes such files"));
        }
        let name = path.name();
        if path.depth() == 1 && name.len() == 2 && name.iter().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
        {
            let problem = "has the name of a directory of objects, which every image hides".to_owned();
            return Err(refuse(path, problem, "give it another name"));
        }
        let first = path.components().next().unwrap_or_default();
        if !directory && COVERED.iter().any(|dir| dir.as_bytes() == first) {
            let problem = format!(
                "is below /{}, where a node mounts another file system",
                first.escape_ascii()
            );
            return Err(refuse(
                path,
                problem,
                "systemd-tmpfiles or the unit makes it at boot; --without PATH leaves it out",
            ));
        }
        for protected in protected() {
            let protected = protected.map_err(ModuleError::Tree)?;
            // A pattern is left to the node, which knows its root.
            if path.is_within(&protected) || (!directory && protected.is_within(path)) {
                let problem = format!("is at /{protected}, which no module may change");
                return Err(refuse(path, problem, LEAVE_OUT));
            }
        }
        Ok(())
    }
}

/// The protected paths.
fn protected() -> impl Iterator<Item = Result<RelPath, crate::model::ModelError>> {
    let lines = PROTECTED.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(RelPath::new)
}

fn refuse(path: &RelPath, problem: String, hint: &'static str) -> ModuleError {
    ModuleError::Entry {
        path: path.to_string(),
        problem,
        hint,
    }
}

/// Reads the directory `dir` as a tree: owned by root, with the permissions that it has, times set to `epoch`. Also the path of a file
/// with each content. Paths that the rules leave out are not looked at.
///
/// # Errors
/// Something cannot be read, or has extended attributes that a module does not carry.
pub fn read_directory(
    dir: &Path,
    epoch: Epoch,
    rules: &ContentRules,
) -> Result<(Tree, BTreeMap<VerityDigest, PathBuf>), ModuleError> {
    let root = fs::metadata(dir).map_err(ModuleError::io("read", dir))?;
    let mut tree = Tree::new(Meta::root(root.mode() & 0o777, epoch));
    let mut contents = BTreeMap::new();
    let mut waiting: Vec<Option<RelPath>> = vec![None];
    while let Some(place) = waiting.pop() {
        let full = place
            .as_ref()
            .map_or_else(|| dir.to_owned(), |place| dir.join(place.as_path()));
        for name in names(&full)? {
            let name = RelPath::new(name.as_bytes()).map_err(ModuleError::Tree)?;
            let path = place.as_ref().map_or_else(|| name.clone(), |place| place.join(&name));
            if rules.leaves_out(&path) {
                // Kept as an empty directory or file, so that the rules find what they leave out.
                let entry = Entry {
                    meta: Meta::root(0o755, epoch),
                    node: Node::Directory,
                };
                tree.insert(path, entry).map_err(ModuleError::Tree)?;
                continue;
            }
            if tree.len() >= MAX_ENTRIES {
                return Err(refuse(
                    &path,
                    format!("is one entry more than {MAX_ENTRIES}"),
                    "make several modules of the tree",
                ));
            }
            let entry = entry(dir, &path, epoch, &mut contents)?;
            if entry.node == Node::Directory {
                waiting.push(Some(path.clone()));
            }
            tree.insert(path, entry).map_err(ModuleError::Tree)?;
        }
    }
    Ok((tree, contents))
}

/// The names in a directory, sorted.
fn names(dir: &Path) -> Result<Vec<OsString>, ModuleError> {
    #[expect(clippy::disallowed_methods, reason = "the names are sorted below")]
    let entries = fs::read_dir(dir).map_err(ModuleError::io("list", dir))?;
    let names: Result<Vec<OsString>, _> = entries.map(|entry| entry.map(|e| e.file_name())).collect();
    let mut names = names.map_err(ModuleError::io("list", dir))?;
    names.sort();
    Ok(names)
}

fn entry(
    dir: &Path,
    path: &RelPath,
    epoch: Epoch,
    contents: &mut BTreeMap<VerityDigest, PathBuf>,
) -> Result<Entry, ModuleError> {
    let full = dir.join(path.as_path());
    let found = fs::symlink_metadata(&full).map_err(ModuleError::io("read", &full))?;
    let mut meta = Meta::root(found.mode() & 0o7777, epoch);
    for name in xattrs(&full)? {
        meta.xattrs.insert(name, Vec::new());
    }
    meta.xattrs.retain(|name, _| !IGNORED.contains(&name.as_slice()));
    let (major, minor) = (nix::sys::stat::major(found.rdev()), nix::sys::stat::minor(found.rdev()));
    let (major, minor) = (major as u32, minor as u32);
    let node = match found.mode() & nix::libc::S_IFMT {
        nix::libc::S_IFDIR => Node::Directory,
        nix::libc::S_IFLNK => {
            meta.mode = 0o777;
            let target = fs::read_link(&full).map_err(ModuleError::io("read", &full))?;
            Node::Symlink {
                target: target.into_os_string().into_vec(),
            }
        }
        nix::libc::S_IFREG => {
            let file = open_foreign_below(dir, path).map_err(ModuleError::io("open", &full))?;
            let (digest, size) = verity::digest_reader(file).map_err(ModuleError::io("read", &full))?;
            contents.insert(digest, full);
            Node::File { size, digest }
        }
        nix::libc::S_IFBLK => Node::BlockDevice { major, minor },
        nix::libc::S_IFCHR => Node::CharDevice { major, minor },
        _ => Node::Fifo,
    };
    Ok(Entry { meta, node })
}

/// The names of the extended attributes of a file, links not followed.
fn xattrs(path: &Path) -> Result<Vec<Vec<u8>>, ModuleError> {
    let mut buffer = vec![0u8; 64 << 10];
    let listed = rustix::fs::llistxattr(path, &mut buffer[..]);
    match listed {
        Ok(len) => Ok(buffer[..len]
            .split(|b| *b == 0)
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec)
            .collect()),
        Err(rustix::io::Errno::NOTSUP) => Ok(Vec::new()),
        Err(e) => Err(ModuleError::io("list the extended attributes of", path)(e.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(entries: &[(&str, u32, Node)]) -> Tree {
        let mut tree = Tree::new(Meta::root(0o755, Epoch::new(0)));
        for (path, mode, node) in entries {
            let path: RelPath = path.parse().expect("a path");
            tree.make_parents(&path, Epoch::new(0)).expect("parents");
            let meta = Meta::root(*mode, Epoch::new(0));
            tree.insert(
                path,
                Entry {
                    meta,
                    node: node.clone(),
                },
            )
            .expect("free");
        }
        tree
    }

    fn file() -> Node {
        Node::File {
            size: 5,
            digest: verity::digest_bytes(b"hello"),
        }
    }

    #[test]
    fn entries_that_would_harm_a_node_are_refused_by_name() {
        let link = Node::Symlink { target: b"x".to_vec() };
        for (path, mode, node, why) in [
            ("usr/x", 0o644, Node::CharDevice { major: 0, minor: 0 }, "a whiteout"),
            ("usr/x", 0o644, Node::CharDevice { major: 1, minor: 3 }, "a device"),
            ("usr/x", 0o644, Node::BlockDevice { major: 8, minor: 0 }, "a device"),
            ("usr/x", 0o644, Node::Fifo, "a named pipe"),
            ("usr/bin/su", 0o4755, file(), "the mode 4755"),
            ("usr/bin/at", 0o2755, file(), "the mode 2755"),
            ("ab", 0o755, Node::Directory, "directory of objects"),
            ("var/lib/x", 0o644, file(), "below /var"),
            ("run", 0o777, link.clone(), "below /run"),
            ("usr/lib/systemd/system/x.service", 0o644, file(), "/usr/lib/systemd"),
            ("usr/lib/systemd", 0o755, Node::Directory, "/usr/lib/systemd"),
            ("usr", 0o777, link.clone(), "which no module may change"),
            ("bin", 0o755, Node::Directory, "/bin"),
            ("etc/passwd", 0o644, file(), "/etc/passwd"),
            (
                "etc/systemd/system/powernode-agent.service.d/x.conf",
                0o644,
                file(),
                "powernode-agent.service.d",
            ),
        ] {
            let error = ContentRules::default()
                .apply(&mut tree(&[(path, mode, node)]))
                .expect_err(path);
            assert!(error.to_string().contains(why), "{path}: {error}");
        }
    }

    #[test]
    fn an_attribute_of_overlayfs_is_refused_and_ordinary_entries_are_not() {
        let mut plain = tree(&[
            ("usr/sbin/nginx", 0o755, file()),
            ("etc/systemd/system/nginx.service", 0o644, file()),
            ("var/lib/nginx", 0o755, Node::Directory),
            (
                "usr/lib/x86_64-linux-gnu/libx.so.1",
                0o777,
                Node::Symlink {
                    target: b"libx.so.1.2".to_vec(),
                },
            ),
        ]);
        ContentRules::default().apply(&mut plain).expect("a module");
        let mut meta = Meta::root(0o755, Epoch::new(0));
        meta.xattrs.insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
        plain.set_meta(&"usr/sbin".parse().expect("a path"), meta);
        let error = ContentRules::default()
            .apply(&mut plain)
            .expect_err("an attribute")
            .to_string();
        assert!(
            error.contains("usr/sbin") && error.contains("trusted.overlay.opaque"),
            "{error}"
        );
    }

    #[test]
    fn a_path_is_left_out_and_a_set_id_bit_taken_when_asked() {
        let rules = ContentRules {
            without: vec!["usr/lib/systemd".parse().expect("a path")],
            allow_setid: true,
        };
        let mut with = tree(&[
            ("usr/lib/systemd/system/x.service", 0o644, file()),
            ("usr/bin/su", 0o4755, file()),
        ]);
        rules.apply(&mut with).expect("a module");
        assert_eq!(with.len(), 4, "usr, usr/lib, usr/bin, usr/bin/su");
        let error = rules.apply(&mut with).expect_err("nothing to leave out").to_string();
        assert!(error.contains("is not in the tree"), "{error}");
    }
}
