//! Writes the eleven index files.

use super::{BuiltinModules, ModuleSet, set::Member, trie::Keys};
use crate::image::ImageError;
use std::{collections::BTreeMap, fmt::Write};

/// Names of the files that [`indexes`] makes, sorted.
pub const INDEX_FILES: [&str; 11] = [
    "modules.alias",
    "modules.alias.bin",
    "modules.builtin.alias.bin",
    "modules.builtin.bin",
    "modules.dep",
    "modules.dep.bin",
    "modules.devname",
    "modules.softdep",
    "modules.symbols",
    "modules.symbols.bin",
    "modules.weakdep",
];

/// The content of every index of `modules`, by file name.
pub fn indexes(modules: &ModuleSet, builtin: &BuiltinModules) -> Result<BTreeMap<&'static str, Vec<u8>>, ImageError> {
    let mut files = BTreeMap::new();
    dependencies(modules, &mut files)?;
    aliases(modules, &mut files)?;
    symbols(modules, &mut files)?;
    let members = modules.members();
    let soft = own_words("Soft", "softdep", members, |m| &m.facts.softdeps);
    let weak = own_words("Weak", "weakdep", members, |m| &m.facts.weakdeps);
    files.insert("modules.softdep", soft.into_bytes());
    files.insert("modules.weakdep", weak.into_bytes());
    files.insert("modules.devname", devices(members).into_bytes());

    let (mut names, mut keys) = (Keys::default(), Keys::default());
    for name in &builtin.names {
        names.add(name.clone(), 0, "");
    }
    for (alias, module) in &builtin.aliases {
        if let Some(alias) = normal_alias(alias) {
            keys.add(alias, 0, module);
        }
    }
    for (name, keys) in [("modules.builtin.bin", names), ("modules.builtin.alias.bin", keys)] {
        files.insert(name, keys.write(name)?);
    }
    Ok(files)
}

type Files = BTreeMap<&'static str, Vec<u8>>;

fn dependencies(modules: &ModuleSet, files: &mut Files) -> Result<(), ImageError> {
    let members = modules.members();
    let lines: Vec<String> = (0..members.len())
        .map(|at| {
            let mut line = format!("{}:", members[at].facts.path);
            for need in modules.all_needs(at) {
                line.push(' ');
                line.push_str(&members[need].facts.path);
            }
            line
        })
        .collect();
    let mut keys = Keys::default();
    let mut text = String::new();
    for (at, (member, line)) in members.iter().zip(&lines).enumerate() {
        keys.add(member.name.clone(), at as u32, line);
        text.push_str(line);
        text.push('\n');
    }
    files.insert("modules.dep", text.into_bytes());
    files.insert("modules.dep.bin", keys.write("modules.dep.bin")?);
    Ok(())
}

fn aliases(modules: &ModuleSet, files: &mut Files) -> Result<(), ImageError> {
    let mut keys = Keys::default();
    let mut text = "# Aliases extracted from modules themselves.\n".to_owned();
    for (at, member) in modules.members().iter().enumerate() {
        for alias in &member.facts.aliases {
            let _ = writeln!(text, "alias {alias} {}", member.name);
            // depmod leaves one with unmatched brackets to the text.
            if let Some(alias) = normal_alias(alias) {
                keys.add(alias, at as u32, &member.name);
            }
        }
    }
    files.insert("modules.alias", text.into_bytes());
    files.insert("modules.alias.bin", keys.write("modules.alias.bin")?);
    Ok(())
}

fn symbols(modules: &ModuleSet, files: &mut Files) -> Result<(), ImageError> {
    let mut keys = Keys::default();
    let mut text = "# Aliases for symbols, used by symbol_request().\n".to_owned();
    for (symbol, owner) in modules.symbols() {
        let name = &modules.members()[owner].name;
        let _ = writeln!(text, "alias symbol:{symbol} {name}");
        keys.add(format!("symbol:{symbol}"), owner as u32, name);
    }
    files.insert("modules.symbols", text.into_bytes());
    files.insert("modules.symbols.bin", keys.write("modules.symbols.bin")?);
    Ok(())
}

fn own_words(title: &str, key: &str, members: &[Member], words: fn(&Member) -> &Vec<String>) -> String {
    let mut text = format!("# {title} dependencies extracted from modules themselves.\n");
    for member in members {
        for value in words(member) {
            let _ = writeln!(text, "{key} {} {value}", member.name);
        }
    }
    text
}

/// The lines of `modules.devname`. The device node and its numbers are two aliases of a module; a module with the node only is
/// skipped.
fn devices(members: &[Member]) -> String {
    let mut text = String::new();
    for member in members {
        let (mut node, mut numbers) = (None, None);
        for alias in &member.facts.aliases {
            if let Some(name) = alias.strip_prefix("devname:") {
                node = Some(name);
            }
            numbers = device_numbers(alias).or(numbers);
            if let (Some(node), Some((kind, major, minor))) = (node, numbers) {
                if text.is_empty() {
                    text.push_str("# Device nodes to trigger on-demand module loading.\n");
                }
                let _ = writeln!(text, "{} {node} {kind}{major}:{minor}", member.name);
                break;
            }
        }
    }
    text
}

fn device_numbers(alias: &str) -> Option<(char, u32, u32)> {
    let (kind, rest) = match alias.strip_prefix("char-major-") {
        Some(rest) => ('c', rest),
        None => ('b', alias.strip_prefix("block-major-")?),
    };
    let (major, rest) = rest.split_once('-')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    Some((kind, major.parse().ok()?, rest[..digits].parse().ok()?))
}

/// The form of an alias in which loaders look it up: `_` for `-`, except in brackets. `None` if a bracket is not paired.
pub(super) fn normal_alias(alias: &str) -> Option<String> {
    let mut normal = String::with_capacity(alias.len());
    let mut within = false;
    for c in alias.chars() {
        match c {
            ']' if !within => return None,
            ']' => within = false,
            '[' => within = true,
            _ => {}
        }
        normal.push(if c == '-' && !within { '_' } else { c });
    }
    (!within).then_some(normal)
}
