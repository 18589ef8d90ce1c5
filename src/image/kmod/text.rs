//! The facts of many modules as text, so that a later stage need not read the modules again.
//!
//! ```text
//! pnb module facts 1
//! module kernel/fs/ext4/ext4.ko.xz
//! alias fs-ext4
//! softdep pre: crc32c
//! needs jbd2_journal_start
//! …
//! ```

use super::{ModuleFacts, ModuleSet, module::refuse};
use crate::image::ImageError;

/// First line.
const HEADER: &str = "pnb module facts 1";
/// Name of the text in messages.
const NAME: &str = "module facts";

/// Writes the facts of all modules. Needed symbols are kept only if one of the modules exports them.
pub fn write_facts(modules: &ModuleSet) -> String {
    let owners = modules.owners();
    let mut out = format!("{HEADER}\n");
    let mut line = |key: &str, value: &str| {
        for part in [key, " ", value, "\n"] {
            out.push_str(part);
        }
    };
    for module in modules.facts() {
        line("module", &module.path);
        for (key, list) in [
            ("alias", &module.aliases),
            ("softdep", &module.softdeps),
            ("weakdep", &module.weakdeps),
            ("exports", &module.exports),
        ] {
            list.iter().for_each(|value| line(key, value));
        }
        let needs = module.needs.iter().filter(|n| owners.get(n).is_some());
        needs.for_each(|value| line("needs", value));
    }
    out
}

/// Reads the text of [`write_facts`].
pub fn parse_facts(text: &str) -> Result<Vec<ModuleFacts>, ImageError> {
    let bad = |number: usize, line: &str| refuse(NAME, format!("line {} is {line:?}", number + 1));
    // Not `str::lines`, which takes a carriage return at the end of a value for a part of the line's end.
    let mut lines = text.split_terminator('\n').enumerate();
    match lines.next() {
        Some((_, HEADER)) => {}
        first => return Err(bad(0, first.map_or("", |(_, line)| line))),
    }
    let mut modules: Vec<ModuleFacts> = Vec::new();
    for (number, line) in lines {
        let (key, value) = line.split_once(' ').ok_or_else(|| bad(number, line))?;
        if key == "module" {
            modules.push(ModuleFacts {
                path: value.to_owned(),
                ..ModuleFacts::default()
            });
            continue;
        }
        let module = modules.last_mut().ok_or_else(|| bad(number, line))?;
        let list = match key {
            "alias" => &mut module.aliases,
            "softdep" => &mut module.softdeps,
            "weakdep" => &mut module.weakdeps,
            "exports" => &mut module.exports,
            "needs" => &mut module.needs,
            _ => return Err(bad(number, line)),
        };
        list.push(value.to_owned());
    }
    Ok(modules)
}
