//! The modules that are built into the kernel: `modules.builtin` has a path on each line, and `modules.builtin.modinfo` a sequence of
//! `module.key=value` and NUL.

use super::module::{module_name, refuse};
use crate::image::ImageError;

const LIST: &str = "modules.builtin";
const MODINFO: &str = "modules.builtin.modinfo";

/// Modules that are built into the kernel.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct BuiltinModules {
    /// Names, in the order of the list.
    pub(super) names: Vec<String>,
    /// Aliases, each with its module.
    pub(super) aliases: Vec<(String, String)>,
}

impl BuiltinModules {
    /// Parses both files.
    pub fn parse(list: &str, modinfo: &[u8]) -> Result<Self, ImageError> {
        let mut builtin = Self::default();
        for (number, line) in list.lines().enumerate() {
            if !line.starts_with(|c: char| c.is_ascii_alphabetic()) {
                return Err(refuse(LIST, format!("line {} is {line:?}", number + 1)));
            }
            builtin.names.push(module_name(line));
        }
        if builtin.names.is_empty() {
            return Err(refuse(LIST, "it is empty"));
        }
        for entry in modinfo.split(|b| *b == 0).filter(|e| !e.is_empty()) {
            let bad = || {
                let entry = entry.escape_ascii();
                refuse(
                    MODINFO,
                    format!("it has the entry \"{entry}\", which is not module.key=value"),
                )
            };
            let entry = std::str::from_utf8(entry).map_err(|_| bad())?;
            let (module, rest) = entry.split_once('.').ok_or_else(bad)?;
            let (key, value) = rest.split_once('=').ok_or_else(bad)?;
            if key == "alias" {
                builtin.aliases.push((value.to_owned(), module.to_owned()));
            }
        }
        Ok(builtin)
    }
}
