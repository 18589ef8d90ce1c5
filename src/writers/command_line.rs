//! The kernel command line of a variant: words for every variant of an architecture, and words that the variant adds.
//!
//! The writers put it into the boot menu, and the pipeline states it in the manifest. The first reads the files as inputs of a stage,
//! the second in the project; both join them here.

use super::{WriterError, workspace::is_there};
use crate::{
    model::{Arch, RelPath, Variant, chain},
    source::SourceTree,
};
use std::{fs, path::Path};

/// Directory with one file for each architecture: the name of the input, and of the directory below `stages/`.
const SHARED: &str = "command-line";
/// The variant's own file: its path below the inputs, and its name in the directory of the variant's stage.
const ADDED_INPUT: &str = "added/cmdline";
const ADDED: &str = "cmdline";

/// The command line that a writer with the inputs in `inputs` puts into a boot menu, as one line.
pub(super) fn of_inputs(inputs: &Path, arch: Arch) -> Result<String, WriterError> {
    let read = |path: &Path| fs::read_to_string(path).map_err(WriterError::io("read", path));
    let shared = read(&inputs.join(SHARED).join(arch.as_str()))?;
    let added = inputs.join(ADDED_INPUT);
    let added = if is_there(&added)? {
        read(&added)?
    } else {
        String::new()
    };
    Ok(join(&shared, &added))
}

/// The command line that the manifest of `variant` states, from the project's directory `stages`, as one line.
pub fn command_line(tree: &SourceTree, stages: &RelPath, variant: Variant, arch: Arch) -> Result<String, WriterError> {
    let file = |dir: &str, name: &str| -> Result<(RelPath, Option<String>), WriterError> {
        let path = RelPath::new(format!("{stages}/{dir}/{name}"));
        let path = path.map_err(|e| WriterError::Missing(e.to_string()))?;
        let text = tree.read_text(&path);
        let text = text.map_err(|e| WriterError::Missing(chain(&e)))?;
        Ok((path, text))
    };
    let (path, shared) = file(SHARED, arch.as_str())?;
    let shared = shared.ok_or_else(|| WriterError::Missing(format!("read {path}: there is no such file")))?;
    Ok(join(&shared, &file(variant.as_str(), ADDED)?.1.unwrap_or_default()))
}

/// The words of both texts, with one space between two words.
fn join(shared: &str, added: &str) -> String {
    let words: Vec<&str> = shared.split_whitespace().chain(added.split_whitespace()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lays out the inputs of `stage` that are files of the project, as its stage.toml declares them.
    fn lay_out_inputs(project: &Path, stage: &str, inputs: &Path) {
        let file = project.join("stages").join(stage).join("stage.toml");
        let text = fs::read_to_string(&file).expect("readable");
        let stage: toml::Table = toml::from_str(&text).expect("TOML");
        for (name, input) in stage["inputs"].as_table().expect("a table") {
            let Some(path) = input.get("files").and_then(toml::Value::as_str) else {
                continue;
            };
            let from = project.join(path);
            let to = inputs.join(name);
            // A directory is the input itself; a file lies in the input under its own name.
            if from.is_dir() {
                std::os::unix::fs::symlink(&from, &to).expect("linked");
            } else {
                fs::create_dir(&to).expect("made");
                fs::copy(&from, to.join(from.file_name().expect("a name"))).expect("copied");
            }
        }
    }

    #[test]
    fn the_manifest_states_the_command_line_that_the_boot_menu_has() {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        // The stage that writes the menu of each variant that boots by a menu; qcow2 has the disk of raw.
        for (variant, stage) in [
            (Variant::Raw, "raw"),
            (Variant::Qcow2, "raw"),
            (Variant::Iso, "iso-efi"),
            (Variant::DiskImageArm64Uefi, "disk-image-arm64-uefi"),
            (Variant::DiskImageRpi4, "disk-image-rpi4"),
        ] {
            let inputs = tempfile::tempdir().expect("a directory");
            lay_out_inputs(project, stage, inputs.path());
            for arch in Arch::ALL.into_iter().filter(|arch| variant.supports(*arch)) {
                let written = of_inputs(inputs.path(), arch).expect("readable");
                let tree = SourceTree::open(project).expect("opens");
                let stages = "stages".parse().expect("a path");
                let stated = command_line(&tree, &stages, variant, arch).expect("readable");
                assert_eq!(written, stated, "{variant} {arch}");
                let added = fs::read_to_string(project.join("stages").join(variant.as_str()).join(ADDED));
                let added = added.expect("readable");
                assert!(
                    written.starts_with("powernode.boot=1 ") && written.ends_with(added.trim()),
                    "{variant} {arch}: {written}"
                );
            }
        }
    }

    #[test]
    fn a_variant_may_add_nothing_and_a_missing_architecture_is_named() {
        let project = tempfile::tempdir().expect("a directory");
        let shared = project.path().join("stages").join(SHARED);
        fs::create_dir_all(&shared).expect("made");
        let tree = SourceTree::open(project.path()).expect("opens");
        let stages = "stages".parse().expect("a path");
        fs::write(shared.join("amd64"), "a=1\n  b\n").expect("written");
        let line = |arch| command_line(&tree, &stages, Variant::Oci, arch);
        assert_eq!(line(Arch::Amd64).expect("readable"), "a=1 b");
        let error = line(Arch::Arm64).expect_err("no file").to_string();
        assert_eq!(error, "read stages/command-line/arm64: there is no such file");
    }
}
