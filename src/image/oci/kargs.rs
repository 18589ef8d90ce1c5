//! Kernel arguments of an image, in files below `usr/lib/bootc/kargs.d`.
//!
//! Each file is TOML with `kargs`, a list of words, and `match-architectures`, the machines that they are for by their names in Rust.
//! Source: <https://bootc.dev/bootc/building/kernel-arguments.html>.

use super::layout::bad;
use crate::{
    image::ImageError,
    model::{Arch, RelPath},
};
use serde::Deserialize;
use std::collections::BTreeMap;

/// One file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct KernelArguments {
    kargs: Vec<String>,
    match_architectures: Option<Vec<String>>,
}

/// The arguments for `arch` of all files, in the order of their names, as one line.
pub fn kernel_arguments(files: &BTreeMap<RelPath, String>, arch: Arch) -> Result<String, ImageError> {
    let machine = match arch {
        Arch::Amd64 => "x86_64",
        Arch::Arm64 => "aarch64",
    };
    let mut words: Vec<String> = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| path.name().ends_with(b".toml")) {
        let file = toml::from_str::<KernelArguments>(text);
        let file = file.map_err(|e| bad(&path.to_string(), e.message().to_owned()))?;
        let matches = file.match_architectures.as_ref();
        if matches.is_none_or(|list| list.iter().any(|name| name == machine)) {
            words.extend(file.kargs);
        }
    }
    Ok(words.join(" "))
}
