//! The firmware and the device trees on the boot partition of a card for the Raspberry Pi 4.
//!
//! Two lists in the stage's directory name the files, one path on each line: `firmware` those of the package raspi-firmware, and
//! `devicetrees` those of the kernel's package. All files lie at the top of the partition, where the firmware looks for them.

use super::{WriterError, efi, efi::Files, input};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The stage's own directory.
const STAGE: &str = "/stage";

/// The files by their path on the partition.
pub(super) fn files() -> Result<Files, WriterError> {
    let version = input("version");
    let version = fs::read_to_string(&version).map_err(WriterError::io("read", &version))?;
    let trees = format!("usr/lib/linux-image-{}", version.trim_end());
    let mut files = Files::new();
    for (list, package, base) in [
        ("firmware", "raspi-firmware", input("firmware")),
        ("devicetrees", "linux-image", input("kernel").join(trees)),
    ] {
        add(&mut files, &Path::new(STAGE).join(list), package, &base)?;
    }
    Ok(files)
}

/// Adds the files of `base` that the list names.
fn add(files: &mut Files, list: &Path, package: &str, base: &Path) -> Result<(), WriterError> {
    let text = fs::read_to_string(list).map_err(WriterError::io("read", list))?;
    for line in lines(&text) {
        let path: PathBuf = base.join(efi::rel(line)?.as_path());
        if !fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() > 0) {
            let shown = path.strip_prefix("/inputs").unwrap_or(&path).display();
            return Err(WriterError::Missing(format!(
                "find {line:?}, which {} lists: the package {package} has no such file ({shown})",
                list.display()
            )));
        }
        let name = line.rsplit('/').next().unwrap_or(line);
        if files.insert(efi::rel(name)?, path).is_some() {
            return Err(WriterError::Missing(format!(
                "lay out the boot partition: {} lists two files {name:?}",
                list.display()
            )));
        }
    }
    Ok(())
}

/// The entries of a list, without comments and empty lines.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_lie_at_the_top_and_a_missing_one_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let list = dir.path().join("devicetrees");
        fs::create_dir(dir.path().join("broadcom")).expect("made");
        fs::write(dir.path().join("broadcom/a.dtb"), "x").expect("written");
        fs::write(&list, "# comment\n\nbroadcom/a.dtb\n").expect("written");
        let mut files = Files::new();
        add(&mut files, &list, "linux-image", dir.path()).expect("there");
        let names: Vec<String> = files.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["a.dtb"]);
        let twice = add(&mut files, &list, "linux-image", dir.path()).expect_err("twice");
        assert!(twice.to_string().contains("two files \"a.dtb\""), "{twice}");
        for (line, why) in [
            ("broadcom/b.dtb", "the package linux-image has no such file"),
            ("../a.dtb", ".."),
        ] {
            fs::write(&list, line).expect("written");
            let error = add(&mut Files::new(), &list, "linux-image", dir.path())
                .expect_err(line)
                .to_string();
            assert!(error.contains(why) && error.contains(line), "{error}");
        }
    }
}
