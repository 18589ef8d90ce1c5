//! `initramfs-modules`: the kernel modules of the initramfs, in `/build/modules`, where dracut takes them.
//!
//! Inputs: the tree `kernel`; the files `module-facts` and `version` of the stage that read the modules; the directory `dracut`, whose
//! `dracut.conf.d` names the wanted modules in the variable `add_drivers`. Result, below `/build/modules/<version>`: the
//! modules, the lists beside them, and indexes of these modules alone. dracut would run a program for each list and each file and
//! decompress every module twice, with the same result.

use super::{
    Context, WriterError, build,
    command_line::{self, DRIVERS},
    input, kernel,
    workspace::is_there,
};
use crate::image::kmod::{Chooser, ModuleFacts, ModuleSet, parse_facts, wanted_modules};
use std::{
    fs,
    io::{self, Write},
    path::Path,
};

/// The firmware of graphics cards, in builds with the option `graphics`, and dracut's settings with their drivers.
const GRAPHICS: &str = "graphics-firmware";
const GRAPHICS_CONF: &str = "powernode-amd64-graphics.conf";
/// Lists of the package that are copied beside the modules.
const LISTS: [&str; 3] = ["modules.builtin", "modules.builtin.modinfo", "modules.order"];

pub(super) fn initramfs_modules(context: &Context) -> Result<(), WriterError> {
    let version = text(&input("version"))?;
    let version = version.trim_end();
    let place = input("kernel").join(kernel::MODULES).join(version);
    let directory = input("dracut").join("dracut.conf.d");
    let mut settings = command_line::dracut_settings(context.arch, |name| text(&directory.join(name)))?;
    if is_there(&input(GRAPHICS))? {
        settings.read(GRAPHICS_CONF, &text(&directory.join(GRAPHICS_CONF))?)?;
    }
    let wanted = wanted_modules(DRIVERS, settings.words(DRIVERS))?;
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
