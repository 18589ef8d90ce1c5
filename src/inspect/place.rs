//! The place of a difference in an artifact, as people know its parts: root, kernel, initramfs, boot files, statements.

use super::diff::Difference;

/// A part of an artifact in which people look for a change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArtifactPart {
    /// The root: the composefs image, its objects and the file system around them; of an OCI image, its layers.
    Root,
    /// The kernel.
    Kernel,
    /// The initramfs, without the root in it.
    Initramfs,
    /// Everything else: partition tables, boot loaders, their configuration, the agent's identity.
    Other,
    /// A file that states what the other files are: it differs because they differ.
    Statements,
}

impl ArtifactPart {
    /// All parts, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::Root, Self::Kernel, Self::Initramfs, Self::Other, Self::Statements];

    /// The heading above its differences.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
            Self::Other => "other",
            Self::Statements => "statements",
        }
    }
}

/// Names of the statements that lie beside the files of an artifact, and the ending of signatures.
pub const STATEMENTS: [&str; 5] = [
    "SHA256SUMS",
    "build-manifest.json",
    "build-record.json",
    "provenance.slsa.json",
    "sbom.cdx.json",
];
const SIGNATURE: &str = ".sigstore.json";

/// Names of the kernel in artifacts, without their directory.
const KERNELS: [&str; 3] = ["kernel", "vmlinuz", "Image"];
/// Beginnings of the names of an initramfs.
const INITRAMFS: [&str; 2] = ["initramfs", "initrd"];
/// Files of the root on media, without their directory.
const ROOT_FILES: [&str; 2] = ["root.ext4", "image.cfs"];
/// The partition with the root.
const ROOT_PARTITION: &str = "\"powernode-root\"";

/// A place in an artifact.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub(super) part: ArtifactPart,
    /// Names of the holders around it, without those that the part implies.
    pub(super) within: Vec<String>,
    /// The name of the file or structure.
    pub(super) name: String,
    /// Whether it is a file of the root, named by its path.
    pub(super) in_tree: bool,
    /// Whether it is an object of the root, whose bytes are the content of files that are named elsewhere.
    pub(super) object: bool,
}

/// The last step of a path in a file system.
fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Whether this is the name of an object: `/objects/<2 digits>/<62 digits>`.
fn is_object(name: &str) -> bool {
    let digits = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
    let parts = name.strip_prefix("/objects/").and_then(|rest| rest.split_once('/'));
    parts.is_some_and(|(begin, rest)| digits(begin, 2) && digits(rest, 62))
}

/// The part of an artifact that a difference is in.
pub fn part_of(difference: &Difference) -> ArtifactPart {
    place_of(difference).part
}

/// The place of a difference.
pub(super) fn place_of(difference: &Difference) -> Place {
    let path = &difference.path;
    let place = |part, skip: usize| {
        let rest = &path[skip.min(path.len())..];
        let (name, within) = match rest.split_last() {
            Some((name, within)) => (name.clone(), within.to_vec()),
            None => (path.last().cloned().unwrap_or_default(), Vec::new()),
        };
        Place {
            part,
            within,
            name,
            in_tree: false,
            object: false,
        }
    };
    let is_statement = |name: &str| STATEMENTS.contains(&base(name)) || name.ends_with(SIGNATURE);
    if path.first().is_some_and(|name| is_statement(name)) {
        return place(ArtifactPart::Statements, 0);
    }
    // A file of the root: below the composefs image, or a member of a layer.
    if let Some(at) = path.iter().position(|name| name == "composefs") {
        return tree(place(ArtifactPart::Root, at + 1), difference.structure);
    }
    if let Some(layer) = path.iter().position(|name| name.starts_with("layer ")) {
        return match path[layer..].iter().position(|name| name == "tar") {
            Some(at) => tree(place(ArtifactPart::Root, layer + at + 1), difference.structure),
            None => place(ArtifactPart::Root, layer),
        };
    }
    let root = path
        .iter()
        .position(|name| ROOT_FILES.contains(&base(name)) || name.ends_with(ROOT_PARTITION));
    if let Some(at) = root {
        let mut place = place(ArtifactPart::Root, at);
        place.object = is_object(&place.name);
        return place;
    }
    let starts = |name: &String| INITRAMFS.iter().any(|begin| base(name).starts_with(begin));
    if let Some(at) = path.iter().position(starts) {
        return place(ArtifactPart::Initramfs, at);
    }
    if let Some(at) = path.iter().position(|name| KERNELS.contains(&base(name))) {
        return place(ArtifactPart::Kernel, at);
    }
    place(ArtifactPart::Other, 0)
}

/// The place of a file of a tree, if the path leads to one.
fn tree(mut place: Place, structure: bool) -> Place {
    if structure {
        return place;
    }
    if place.within.is_empty() {
        place.in_tree = place.name != "composefs" && place.name != "tar";
    } else if let Some(file) = place.within.first().filter(|name| !name.starts_with('(')) {
        // A part of a file: a member of an archive in the root.
        place.in_tree = true;
        place.name = file.clone();
        place.within.clear();
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::What;

    fn placed(path: &[&str]) -> (ArtifactPart, String, bool, bool) {
        let path = path.iter().map(|p| (*p).to_owned()).collect();
        let what = What::About { offset: 0, bytes: 1 };
        let place = place_of(&Difference {
            path,
            what,
            hint: None,
            structure: false,
        });
        (place.part, place.name, place.in_tree, place.object)
    }

    #[test]
    fn differences_are_placed_by_the_names_around_them() {
        let root = |name: &str, tree, object| (ArtifactPart::Root, name.to_owned(), tree, object);
        let initramfs = ["initramfs.cpio.zst", "segment 3", "content", "cpio"];
        let inside = |more: &[&'static str]| [&initramfs[..], more].concat();
        let object: &'static str = "/objects/ab/cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";
        for (path, wanted) in [
            (
                inside(&["/powernode/root.ext4", "ext4", "/image.cfs", "composefs", "/usr/bin/x"]),
                root("/usr/bin/x", true, false),
            ),
            (
                inside(&["/powernode/root.ext4", "ext4", object]),
                root(object, false, true),
            ),
            (
                inside(&["/powernode/root.ext4", "ext4", "/objects/ab"]),
                root("/objects/ab", false, false),
            ),
            (
                vec!["disk.raw", "partition 3 \"powernode-root\"", "ext4", "superblock"],
                root("superblock", false, false),
            ),
            (
                vec![
                    "oci/image amd64",
                    "layer 7 \"agent\"",
                    "content",
                    "tar",
                    "usr/sbin/agent",
                ],
                root("usr/sbin/agent", true, false),
            ),
            (
                inside(&["/etc/powernode/root-digest"]),
                (
                    ArtifactPart::Initramfs,
                    "/etc/powernode/root-digest".to_owned(),
                    false,
                    false,
                ),
            ),
            (
                vec![
                    "disk.raw",
                    "partition 1 \"powernode-esp\"",
                    "FAT16",
                    "/powernode/kernel",
                ],
                (ArtifactPart::Kernel, "/powernode/kernel".to_owned(), false, false),
            ),
            (
                vec![
                    "disk.raw",
                    "partition 1 \"powernode-esp\"",
                    "FAT16",
                    "/EFI/debian/grub.cfg",
                ],
                (ArtifactPart::Other, "/EFI/debian/grub.cfg".to_owned(), false, false),
            ),
            (
                vec!["raw/amd64/SHA256SUMS"],
                (
                    ArtifactPart::Statements,
                    "raw/amd64/SHA256SUMS".to_owned(),
                    false,
                    false,
                ),
            ),
            (
                vec!["disk.raw.sigstore.json"],
                (
                    ArtifactPart::Statements,
                    "disk.raw.sigstore.json".to_owned(),
                    false,
                    false,
                ),
            ),
            (
                vec!["root.ext4", "ext4", "/image.cfs", "composefs", "/boot/vmlinuz"],
                root("/boot/vmlinuz", true, false),
            ),
            (vec![], (ArtifactPart::Other, String::new(), false, false)),
        ] {
            assert_eq!(placed(&path), wanted, "{path:?}");
        }
    }
}
