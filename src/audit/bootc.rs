//! The lints of bootc, as rules for the root of an OCI image.
//!
//! `bootc container lint` cannot run here: Debian has no bootc, and it inspects the root that it runs in. These are its rules, by its
//! names, its warnings included; where pnb's images are meant to be stricter, the comment says so.
//! Source: <https://github.com/bootc-dev/bootc/blob/534c76ea/crates/lib/src/lints.rs> and `crates/{tmpfiles,sysusers}` beside it.

use super::check::Problems;
use crate::{
    image::oci::{IMAGE_KERNEL, kernel_arguments},
    model::{Arch, Node, RelPath, Tree, chain},
};
use std::collections::{BTreeMap, BTreeSet};

/// The files whose contents the rules read, by path or by directory.
const READ: [&str; 8] = [
    "etc/passwd",
    "etc/group",
    "etc/ostree",
    "etc/tmpfiles.d",
    "usr/lib/bootc/kargs.d",
    "usr/lib/ostree",
    "usr/lib/sysusers.d",
    "usr/lib/tmpfiles.d",
];
/// Directories in which the kernel mounts file systems, or which systemd makes.
const API_DIRECTORIES: [&str; 6] = ["dev", "proc", "sys", "run", "tmp", "var"];

/// The root of an image, and the contents that the rules read.
#[derive(Clone, Debug)]
pub(super) struct LintedRoot<'a> {
    /// The tree of all layers.
    pub(super) tree: &'a Tree,
    /// Contents by path: those for which [`is_read`] holds.
    pub(super) texts: &'a BTreeMap<RelPath, Vec<u8>>,
    /// Architecture of the image.
    pub(super) arch: Arch,
    /// The kernel command line of the manifest, which the image's own arguments must be.
    pub(super) command_line: &'a str,
}

/// Whether the rules read the content of the file `path`.
pub(super) fn is_read(path: &RelPath) -> bool {
    READ.iter().any(|read| {
        let below = path.as_bytes().strip_prefix(read.as_bytes());
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    })
}

/// A rule: adds a line for each fault.
type Rule = fn(&LintedRoot<'_>, &mut Vec<String>);

/// The rules, by bootc's names.
const RULES: [(&str, Rule); 14] = [
    ("var-run", var_run),
    ("etc-usretc", etc_usretc),
    ("bootc-kargs", kargs),
    ("kernel", kernel),
    ("utf8", utf8),
    ("api-base-directories", api_directories),
    ("baseimage-root", baseimage_root),
    ("buildah-injected", buildah_injected),
    ("baseimage-composefs", baseimage_composefs),
    ("nonempty-boot", nonempty_boot),
    ("nonempty-run-tmp", nonempty_run_tmp),
    ("var-log", var_log),
    ("sysusers", sysusers),
    ("var-tmpfiles", var_tmpfiles),
];

/// Checks all rules; returns their number.
pub(super) fn lint(root: &LintedRoot<'_>, problems: &mut Problems) -> usize {
    for (name, rule) in RULES {
        let mut found = Vec::new();
        rule(root, &mut found);
        for problem in found {
            problems.add(format!("bootc's rule {name}: {problem}"));
        }
    }
    RULES.len()
}

impl LintedRoot<'_> {
    fn node(&self, path: &str) -> Option<&Node> {
        let path = RelPath::new(path).ok()?;
        self.tree.get(&path).map(|entry| &entry.node)
    }

    fn is_directory(&self, path: &str) -> bool {
        matches!(self.node(path), Some(Node::Directory))
    }

    /// The paths directly in a directory.
    fn children(&self, path: &str) -> Vec<RelPath> {
        RelPath::new(path)
            .map(|path| self.tree.children(Some(&path)))
            .unwrap_or_default()
    }

    /// The text of a file, if it was read.
    fn text(&self, path: &str) -> Option<String> {
        let path = RelPath::new(path).ok()?;
        self.texts
            .get(&path)
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The texts of the files in a directory with this ending, by path.
    fn texts_in(&self, directory: &str, ending: &str) -> Vec<(RelPath, String)> {
        let files = self.children(directory).into_iter();
        let files = files.filter(|path| path.name().ends_with(ending.as_bytes()));
        files
            .filter_map(|path| {
                let text = String::from_utf8_lossy(self.texts.get(&path)?).into_owned();
                Some((path, text))
            })
            .collect()
    }
}

fn var_run(root: &LintedRoot<'_>, found: &mut Vec<String>) {
    if !matches!(root.node("var/run"), None | Some(Node::Symlink { .. })) {
        found.push("/var/run is not a link".to_owned());
    }
}

fn etc_usretc(root: &LintedRoot<'_>, found: &mut Vec<String>) {
    // bootc refuses /usr/etc only beside /etc; the specification of a container has no place for it at all.
    if root.node("usr/etc").is_some() {
        found.push("there is a /usr/etc".to_owned());
    }
}

fn kargs(root: &LintedRoot<'_>, found: &mut Vec<String>) {
    let files = root.texts_in("usr/lib/bootc/kargs.d", ".toml").into_iter().collect();
    // That they are those with which the other variants boot is no rule of bootc.
    match kernel_arguments(&files, root.arch) {
        Err(error) => found.push(chain(&error)),
        Ok(line) if line != root.command_line => found.push(format!(
            "usr/lib/bootc/kargs.d gives {line:?}, and the manifest's kernel_command_line is {:?}",
            root.command_line
        )),
        Ok(_) => {}
    }
}

fn kernel(root: &LintedRoot<'_>, found: &mut Vec<String>) {
    let kernels = root.children("usr/lib/modules").into_iter().filter(|directory| {
        let kernel = RelPath::new(format!("{directory}/{IMAGE_KERNEL}")).ok();
        kernel.is_some_and(|kernel| root.tree.get(&kernel).is_some())
    });
    // bootc has nothing against an image without a kernel, which could not boot.
    match kernels.count() {
        1 => {}
        count => found.push(format!("there are {count} kernels in /usr/lib/modules, not one")),
    }
}

fn utf8(root: &LintedRoot<'_>, found: &mut Vec<String>) {
    for (path, entry) in root.tree.iter() {
        let target = match &entry.node {
            Node::Symlink { target } => target,
            _ => &Vec::new(),
        };
        if std::str::from_utf8(path.as_bytes()).is_err() || std::str::from_utf8(target).is_err() {
            found.push(format!("the name or the link target of {path} is not UTF-8"));
        }
    }
}

fn api_directories(root: &LintedRoot<'_>, found: &mut Vec<String>) {
    for name in API_DIRECTORIES {
        if !root.is_directory(name) {
            found.push(format!("/{name} is no directory"));
        }
    }
}

fn baseimage_root(root: &LintedRoot<'_>, found: &mut Vec<String>) {
    if !root.is_directory("sysroot") {
        found.push("/sysroot is no directory".to_owned());
    }
    match root.node("ostree") {
        Some(Node::Symlink { target }) if target == b"sysroot/ostree" => {}
        _ => found.push("/ostree is not a link to sysroot/ostree".to_owned()),
    }
}

fn buildah_injected(root: &LintedRoot<'_>, found: &mut Vec<String>) {
    for name in ["etc/hostname", "etc/resolv.conf"] {
        if matches!(root.node(name), Some(Node::File { size: 0, .. })) {
            found.push(format!("/{name} is an empty file, as a builder leaves it"));
        }
    }
}

fn baseimage_composefs(root: &LintedRoot<'_>, found: &mut Vec<String>) {
    let files = ["etc/ostree/prepare-root.conf", "usr/lib/ostree/prepare-root.conf"];
    let Some(text) = files.iter().find_map(|file| root.text(file)) else {
        found.push("there is no prepare-root.conf in /etc/ostree or /usr/lib/ostree".to_owned());
        return;
    };
    let mut section = "";
    let mut enabled = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.split_once('=')
            && section == "composefs"
            && key.trim() == "enabled"
        {
            enabled = Some(value.trim());
        }
    }
    if !enabled.is_some_and(|value| ["true", "yes", "1", "maybe"].contains(&value)) {
        let value = enabled.unwrap_or("not there");
        found.push(format!("[composefs] enabled of prepare-root.conf is {value}"));
    }
}

fn nonempty_boot(root: &LintedRoot<'_>, found: &mut Vec<String>) {
    if !root.is_directory("boot") {
        found.push("there is no /boot".to_owned());
    }
    let others = root.children("boot").into_iter().filter(|path| path.name() != b"EFI");
    found.extend(others.map(|path| format!("/boot has {path}")));
}

fn nonempty_run_tmp(root: &LintedRoot<'_>, found: &mut Vec<String>) {
    let entries = ["run", "tmp"].into_iter().flat_map(|name| root.children(name));
    found.extend(entries.map(|path| format!("the image has /{path}")));
}

fn var_log(root: &LintedRoot<'_>, found: &mut Vec<String>) {
    let Ok(logs) = RelPath::new("var/log") else { return };
    for (path, entry) in root.tree.iter().filter(|(path, _)| path.is_within(&logs)) {
        if matches!(entry.node, Node::File { size, .. } if size > 0) {
            found.push(format!("/{path} is a log that is not empty"));
        }
    }
}

fn sysusers(root: &LintedRoot<'_>, found: &mut Vec<String>) {
    let (mut users, mut groups) = (BTreeSet::new(), BTreeSet::new());
    for (_, text) in root.texts_in("usr/lib/sysusers.d", ".conf") {
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            let (Some(kind), Some(name)) = (words.next(), words.next()) else {
                continue;
            };
            match kind {
                "u" | "u!" => {
                    users.insert(name.to_owned());
                    groups.insert(name.to_owned());
                }
                "g" => {
                    groups.insert(name.to_owned());
                }
                _ => {}
            }
        }
    }
    for (file, known, what) in [("etc/passwd", &users, "user"), ("etc/group", &groups, "group")] {
        let Some(text) = root.text(file) else {
            found.push(format!("there is no /{file}"));
            continue;
        };
        let names = text.lines().filter_map(|line| line.split(':').next());
        for name in names.filter(|name| !name.is_empty() && !known.contains(*name)) {
            found.push(format!("the {what} {name} of /{file} has no entry in sysusers.d"));
        }
    }
}

fn var_tmpfiles(root: &LintedRoot<'_>, found: &mut Vec<String>) {
    let mut made: BTreeSet<String> = BTreeSet::new();
    for directory in ["usr/lib/tmpfiles.d", "etc/tmpfiles.d"] {
        for (_, text) in root.texts_in(directory, ".conf") {
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                if let Some(path) = line.split_whitespace().nth(1) {
                    made.insert(path.trim_end_matches('/').to_owned());
                }
            }
        }
    }
    let Ok(var) = RelPath::new("var") else { return };
    for (path, entry) in root
        .tree
        .iter()
        .filter(|(path, _)| path.is_within(&var) && **path != var)
    {
        if made.contains(&format!("/{path}")) {
            continue;
        }
        found.push(match entry.node {
            Node::Directory | Node::Symlink { .. } => format!("no line of tmpfiles.d makes /{path}"),
            _ => format!("/{path} is a file that no line of tmpfiles.d makes"),
        });
    }
}

#[cfg(test)]
mod tests;
