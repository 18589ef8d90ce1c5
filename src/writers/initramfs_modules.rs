//! `initramfs-modules`: the kernel modules of the initramfs, in `/build/modules`, where dracut takes them.
//!
//! Inputs: the tree `kernel`; the files `module-facts` and `version` of the stage that read the modules; the directory `dracut`, whose
//! `kernel-modules/common` and `kernel-modules/<architecture>` name the wanted modules. Result, below `/build/modules/<version>`: the
//! modules, the lists beside them, and indexes of these modules alone. dracut would run a program for each list and each file and
//! decompress every module twice, with the same result.

use super::{Context, WriterError, build, input, kernel};
use crate::image::kmod::{Chooser, ModuleFacts, ModuleSet, parse_facts, parse_wanted};
use std::{
    fs,
    io::{self, Write},
    path::Path,
};

/// Lists of the package that are copied beside the modules.
const LISTS: [&str; 3] = ["modules.builtin", "modules.builtin.modinfo", "modules.order"];

pub(super) fn initramfs_modules(context: &Context) -> Result<(), WriterError> {
    let version = text(&input("version"))?;
    let version = version.trim_end();
    let place = input("kernel").join(kernel::MODULES).join(version);
    let mut wanted = Vec::new();
    for name in ["common", context.arch.as_str()] {
        let path = input("dracut").join("kernel-modules").join(name);
        wanted.extend(parse_wanted(&path.to_string_lossy(), &text(&path)?)?);
    }
    let order = kernel::list(&place, "modules.order")?;
    let all = ModuleSet::new(parse_facts(&text(&input("module-facts"))?)?, &order)?;
    let chosen = Chooser::new(&all).choose(&wanted);
    let facts: Vec<ModuleFacts> = all.facts().filter(|f| chosen.contains(&*f.path)).cloned().collect();
    let out = build("modules").join(version);
    for path in chosen.iter().copied().chain(LISTS) {
        copy(&place.join(path), &out.join(path))?;
    }
    let _ = writeln!(io::stdout(), "{} kernel modules", chosen.len());
    kernel::write_indexes(&ModuleSet::new(facts, &order)?, &kernel::builtin(&place)?, &out)
}

fn text(path: &Path) -> Result<String, WriterError> {
    fs::read_to_string(path).map_err(WriterError::io("read", path))
}

fn copy(from: &Path, to: &Path) -> Result<(), WriterError> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(WriterError::io("create", parent))?;
    }
    fs::copy(from, to).map_err(WriterError::io("copy", from))?;
    Ok(())
}
