//! The kernel command line of a variant: the words of every variant of an architecture, `kernel_cmdline` in `dracut/dracut.conf.d`, and words
//! that the variant adds.
//!
//! The writers put it into the boot menu, and the pipeline states it in the manifest. The first reads the files as inputs of a stage,
//! the second in the project; both join them here.

use super::{WriterError, workspace::is_there};
use crate::{
    image::kmod::DracutSettings,
    model::{Arch, RelPath, Variant, chain},
    source::SourceTree,
};
use std::{fs, path::Path};

/// Directories of the project.
const STAGES: &str = "stages";
const CONF: &str = "dracut/dracut.conf.d";
/// The input that is the second of them.
const SHARED_INPUT: &str = "command-line";
/// dracut's variable with the command line of every variant.
const SHARED: &str = "kernel_cmdline";
/// dracut's variable with the drivers of the initramfs.
pub(super) const DRIVERS: &str = "add_drivers";
/// The variant's own file: its path below the inputs, and its name in the directory of the variant's stage.
const ADDED_INPUT: &str = "added/cmdline";
const ADDED: &str = "cmdline";

/// The settings of dracut for `arch`; `read` gives the text of a file of `dracut/dracut.conf.d`.
pub(super) fn dracut_settings(
    arch: Arch,
    read: impl Fn(&str) -> Result<String, WriterError>,
) -> Result<DracutSettings, WriterError> {
    let mut settings = DracutSettings::default();
    for name in ["powernode.conf".to_owned(), format!("powernode-{arch}.conf")] {
        settings.read(&name, &read(&name)?)?;
    }
    Ok(settings)
}

/// The command line that a writer with the inputs in `inputs` puts into a boot menu, as one line.
pub(super) fn of_inputs(inputs: &Path, arch: Arch) -> Result<String, WriterError> {
    let read = |path: &Path| fs::read_to_string(path).map_err(WriterError::io("read", path));
    let settings = dracut_settings(arch, |name| read(&inputs.join(SHARED_INPUT).join(name)))?;
    let added = inputs.join(ADDED_INPUT);
    let added = if is_there(&added)? {
        read(&added)?
    } else {
        String::new()
    };
    Ok(join(&settings, &added))
}

/// The command line that the manifest of `variant` states, from the project's files, as one line.
pub fn command_line(tree: &SourceTree, variant: Variant, arch: Arch) -> Result<String, WriterError> {
    let file = |path: String| -> Result<(RelPath, Option<String>), WriterError> {
        let path = RelPath::new(path).map_err(|e| WriterError::Missing(e.to_string()))?;
        let text = tree.read_text(&path);
        let text = text.map_err(|e| WriterError::Missing(chain(&e)))?;
        Ok((path, text))
    };
    let settings = dracut_settings(arch, |name| {
        let (path, text) = file(format!("{CONF}/{name}"))?;
        text.ok_or_else(|| WriterError::Missing(format!("read {path}: there is no such file")))
    })?;
    let added = file([STAGES, variant.as_str(), ADDED].join("/"))?.1.unwrap_or_default();
    Ok(join(&settings, &added))
}

/// The shared words and the added ones, with one space between two words.
fn join(settings: &DracutSettings, added: &str) -> String {
    let words: Vec<&str> = settings.words(SHARED).chain(added.split_whitespace()).collect();
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
            ("raw", "raw"),
            ("qcow2", "raw"),
            ("iso", "iso-efi"),
            ("disk-image-arm64-uefi", "disk-image-arm64-uefi"),
            ("disk-image-rpi4", "disk-image-rpi4"),
        ] {
            let variant: Variant = variant.parse().expect("a name");
            let inputs = tempfile::tempdir().expect("a directory");
            lay_out_inputs(project, stage, inputs.path());
            for arch in Arch::ALL {
                let written = of_inputs(inputs.path(), arch).expect("readable");
                let tree = SourceTree::open(project).expect("opens");
                let stated = command_line(&tree, variant, arch).expect("readable");
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
        let shared = project.path().join(CONF);
        fs::create_dir_all(&shared).expect("made");
        let tree = SourceTree::open(project.path()).expect("opens");
        for (name, text) in [("powernode.conf", "a=1 "), ("powernode-amd64.conf", "  b")] {
            fs::write(shared.join(name), format!("{SHARED}+=\"{text}\"\n")).expect("written");
        }
        let line = |arch| command_line(&tree, "oci".parse().expect("a name"), arch);
        assert_eq!(line(Arch::Amd64).expect("readable"), "a=1 b");
        let error = line(Arch::Arm64).expect_err("no file").to_string();
        assert_eq!(
            error,
            "read dracut/dracut.conf.d/powernode-arm64.conf: there is no such file"
        );
    }
}
