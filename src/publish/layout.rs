//! The platform's layout: the names under which its controllers look for the files of a direct boot.
//!
//! ```text
//! <arch>/kernel-initrd/kernel              the libvirt provider
//! <arch>/kernel-initrd/initramfs.cpio.zst
//! <arch>/kernel                            the iPXE script that the netboot controller renders
//! <arch>/initramfs.cpio.zst
//! ```
//!
//! An iPXE script writes `<arch>` as `${buildarch}`, which is `x86_64` for amd64, while the libvirt provider has `amd64`. So the files of
//! amd64 have both names. This file does no I/O.

use super::LayoutError;
use crate::{
    audit::Verified,
    manifest::Artifact,
    model::{Arch, RelPath, Sha256Digest, Target, Variant},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The files that a direct boot needs.
const FILES: [&str; 2] = ["initramfs.cpio.zst", "kernel"];

/// A file of a layout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LayoutFile {
    /// The verified file that it is a copy of.
    pub source: PathBuf,
    /// SHA-256 of its content.
    pub sha256: Sha256Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// The names of the platform's layout with the files that belong there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlatformLayout {
    pub(super) files: BTreeMap<RelPath, LayoutFile>,
}

impl PlatformLayout {
    /// The artifacts of which the layout has files.
    pub fn targets() -> [Target; 2] {
        Arch::ALL.map(|arch| Target {
            variant: Variant::KERNEL_INITRD,
            arch,
        })
    }

    /// The layout of these artifacts.
    ///
    /// # Errors
    /// [`LayoutError::NoPlace`] for an artifact that is not one of [`PlatformLayout::targets`], [`LayoutError::Twice`] for two of one
    /// architecture, [`LayoutError::NoFile`] for one without kernel or initramfs.
    pub fn of(artifacts: &[Verified]) -> Result<Self, LayoutError> {
        let mut files = BTreeMap::new();
        for verified in artifacts {
            let manifest = verified.manifest();
            let target = manifest.target().filter(|target| Self::targets().contains(target));
            let target = target.ok_or_else(|| LayoutError::NoPlace {
                path: verified.dir().to_owned(),
            })?;
            add(&mut files, verified.dir(), target, &manifest.artifacts)?;
        }
        Ok(Self { files })
    }

    /// Every file by its name, sorted.
    pub fn files(&self) -> &BTreeMap<RelPath, LayoutFile> {
        &self.files
    }
}

/// The directories of an architecture: pnb's own name, and iPXE's where it differs.
const fn directories(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::Amd64 => &["amd64", "x86_64"],
        Arch::Arm64 => &["arm64"],
    }
}

fn add(
    files: &mut BTreeMap<RelPath, LayoutFile>,
    dir: &Path,
    target: Target,
    artifacts: &BTreeMap<RelPath, Artifact>,
) -> Result<(), LayoutError> {
    let path = |text: &str| RelPath::new(text).map_err(|source| LayoutError::Name { source });
    for name in FILES {
        let file = path(name)?;
        let artifact = artifacts
            .get(&file)
            .ok_or_else(|| LayoutError::NoFile { path: dir.join(name) })?;
        for directory in directories(target.arch) {
            let directory = path(directory)?;
            for place in [
                directory.join(&file),
                directory.join(&path(target.variant.as_str())?).join(&file),
            ] {
                let placed = LayoutFile {
                    source: dir.join(name),
                    sha256: artifact.sha256,
                    size: artifact.size_bytes,
                };
                if files.insert(place, placed).is_some() {
                    return Err(LayoutError::Twice { target });
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::VerityDigest;

    fn artifacts(names: &[&str]) -> BTreeMap<RelPath, Artifact> {
        let artifact = |byte: u8| Artifact {
            sha256: Sha256Digest::new([byte; 32]),
            size_bytes: byte.into(),
            fsverity: VerityDigest::new([byte; 32]),
        };
        let named = names.iter().zip(1..);
        named
            .map(|(name, byte)| (name.parse().expect("a path"), artifact(byte)))
            .collect()
    }

    #[test]
    fn each_architecture_has_the_names_that_its_clients_use() {
        let mut files = BTreeMap::new();
        let given = artifacts(&["kernel", "initramfs.cpio.zst"]);
        for target in PlatformLayout::targets() {
            add(&mut files, &Path::new("images").join(target.path()), target, &given).expect("whole");
        }
        let names: Vec<String> = files
            .iter()
            .map(|(name, file)| format!("{name} <- {} {}", file.source.display(), file.size))
            .collect();
        insta::assert_snapshot!(names.join("\n"), @r"
        amd64/initramfs.cpio.zst <- images/kernel-initrd/amd64/initramfs.cpio.zst 2
        amd64/kernel <- images/kernel-initrd/amd64/kernel 1
        amd64/kernel-initrd/initramfs.cpio.zst <- images/kernel-initrd/amd64/initramfs.cpio.zst 2
        amd64/kernel-initrd/kernel <- images/kernel-initrd/amd64/kernel 1
        arm64/initramfs.cpio.zst <- images/kernel-initrd/arm64/initramfs.cpio.zst 2
        arm64/kernel <- images/kernel-initrd/arm64/kernel 1
        arm64/kernel-initrd/initramfs.cpio.zst <- images/kernel-initrd/arm64/initramfs.cpio.zst 2
        arm64/kernel-initrd/kernel <- images/kernel-initrd/arm64/kernel 1
        x86_64/initramfs.cpio.zst <- images/kernel-initrd/amd64/initramfs.cpio.zst 2
        x86_64/kernel <- images/kernel-initrd/amd64/kernel 1
        x86_64/kernel-initrd/initramfs.cpio.zst <- images/kernel-initrd/amd64/initramfs.cpio.zst 2
        x86_64/kernel-initrd/kernel <- images/kernel-initrd/amd64/kernel 1
        ");
    }

    #[test]
    fn a_second_artifact_of_an_architecture_and_a_missing_file_are_refused() {
        let mut files = BTreeMap::new();
        let [target, _] = PlatformLayout::targets();
        let given = artifacts(&["kernel", "initramfs.cpio.zst"]);
        add(&mut files, Path::new("a"), target, &given).expect("whole");
        let twice = add(&mut files, Path::new("b"), target, &given).expect_err("twice");
        assert_eq!(
            twice.to_string(),
            "lay out kernel-initrd/amd64: two of the given artifacts have this name"
        );
        let error = add(&mut BTreeMap::new(), Path::new("a"), target, &artifacts(&["kernel"])).expect_err("incomplete");
        assert_eq!(
            error.to_string(),
            "lay out a/initramfs.cpio.zst: the artifact has no such file"
        );
    }
}
