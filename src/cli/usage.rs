//! A wrong command line: what is wrong, and the whole command with the words that were probably meant.

use super::{
    args::{AskedStage, possible_variants},
    command_text::{CommandText, TypedLine},
    dispatch::Cli,
};
use clap::{
    CommandFactory, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};
use pnb::model::{Arch, nearest, visible};
use std::{ffi::OsString, path::Path};

/// Most corrections of one command line.
const MAX_CORRECTIONS: usize = 6;

/// A command line that cannot be read.
pub(super) struct WrongLine {
    /// What is wrong, in lines.
    pub(super) message: String,
    /// The command that was meant, or the one that lists what is possible.
    pub(super) hint: String,
}

impl WrongLine {
    /// Explains `error`, which came of `words`, the command line without the program's name.
    pub(super) fn new(error: clap::Error, words: &[OsString]) -> Self {
        let hint = match meant(&error, words) {
            Some(command) => command,
            None => help(words),
        };
        Self {
            message: message(error),
            hint: format!("`{hint}`"),
        }
    }
}

/// The message of clap with the possible values or the usage, and without its hints. It quotes arguments, which may be names of files of
/// others.
fn message(mut error: clap::Error) -> String {
    let odd = error.context().filter_map(|(kind, value)| match value {
        ContextValue::String(text) => Some((kind, ContextValue::String(visible(text)))),
        ContextValue::Strings(texts) => {
            let texts = texts.iter().map(|text| visible(text)).collect();
            Some((kind, ContextValue::Strings(texts)))
        }
        _ => None,
    });
    for (kind, value) in odd.collect::<Vec<_>>() {
        error.insert(kind, value);
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let paragraphs = text.split("\n\n").map(str::trim_end);
    let own = paragraphs.filter(|p| !p.trim_start().starts_with("tip:") && !p.starts_with("For more information"));
    own.collect::<Vec<_>>().join("\n\n")
}

/// The command that shows what is possible.
fn help(words: &[OsString]) -> CommandText {
    let program = Cli::command();
    let names = words.iter().filter_map(|word| word.to_str());
    let command = names.filter_map(|word| program.find_subcommand(word)).next();
    CommandText::new(command.map(|command| command.get_name().to_owned())).arg("--help")
}

/// The command that was meant; `None` when it cannot be told, or would not be read either.
fn meant(error: &clap::Error, words: &[OsString]) -> Option<CommandText> {
    let mut next = correction(error, words)?;
    for _ in 0..MAX_CORRECTIONS {
        let words = match next {
            Correction::Variable { name, value } => {
                return Some(CommandText::new(words.to_vec()).variable(name, &value));
            }
            Correction::Words(words) => words,
        };
        let whole = std::iter::once(OsString::from("pnb")).chain(words.iter().cloned());
        match Cli::try_parse_from(whole) {
            Ok(_) => return Some(CommandText::new(words)),
            Err(error) if !error.use_stderr() => return Some(CommandText::new(words)),
            Err(error) => next = correction(&error, &words)?,
        }
    }
    None
}

/// One word put right.
enum Correction {
    Words(Vec<OsString>),
    /// The word came from a variable.
    Variable {
        name: &'static str,
        value: String,
    },
}

fn correction(error: &clap::Error, words: &[OsString]) -> Option<Correction> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let line = TypedLine::new(words);
    let replace = |wrong: &str, right: &str| {
        let right: Vec<&str> = right.split(' ').collect();
        line.corrected(wrong, &right).map(Correction::Words)
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let wrong = text(ContextKind::InvalidSubcommand)?;
            if let Some(right) = text(ContextKind::SuggestedSubcommand) {
                return replace(&wrong, &right);
            }
            replace(&wrong, &format!("build {}", operand(&wrong)?))
        }
        ErrorKind::UnknownArgument => {
            let wrong = text(ContextKind::InvalidArg)?;
            if let Some(right) = text(ContextKind::SuggestedArg) {
                return replace(&wrong, &right);
            }
            let command = words.iter().filter_map(|word| word.to_str());
            let program = Cli::command();
            let selects = command
                .filter_map(|word| program.find_subcommand(word))
                .next()
                .is_some_and(|command| command.get_arguments().any(|a| a.get_id() == "variant"));
            match selects {
                true => with_operand(words, &wrong, &operand(&wrong)?),
                false => None,
            }
        }
        ErrorKind::InvalidValue => {
            let wrong = text(ContextKind::InvalidValue)?;
            let option = text(ContextKind::InvalidArg)?;
            let possible = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(values)) => values.iter().map(String::as_str).collect(),
                _ => Vec::new(),
            };
            let right = value_meant(&wrong, &possible)?;
            if let Some(done) = replace(&wrong, right) {
                return Some(done);
            }
            let name = match option.split(' ').next()? {
                "--arch" => "ARCH",
                "--variant" => "VARIANT",
                _ => return None,
            };
            let value = right.to_owned();
            Some(Correction::Variable { name, value })
        }
        ErrorKind::ValueValidation => {
            let wrong = text(ContextKind::InvalidValue)?;
            let option = text(ContextKind::InvalidArg)?;
            match option.split(' ').next()? {
                "--snapshot" => replace(&wrong, "20261123T000000Z"),
                "--stage" | "<STAGE>" | "[STAGE]" => {
                    let (stage, arch) = wrong.split_once('/')?;
                    replace(&wrong, &format!("{stage}/{}", arch_meant(arch)?))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// The possible value that was meant.
fn value_meant<'a>(wrong: &str, possible: &[&'a str]) -> Option<&'a str> {
    let arches = Arch::ALL.iter().all(|arch| possible.contains(&arch.as_str()));
    let arch = arch_meant(wrong).filter(|_| arches);
    let named = arch.and_then(|arch| possible.iter().copied().find(|value| *value == arch.as_str()));
    named.or_else(|| nearest(wrong, possible.iter().copied()))
}

/// The architecture that has another name elsewhere: in uname, Go, Docker, Rust and LLVM.
pub(super) fn arch_meant(name: &str) -> Option<Arch> {
    match name.to_lowercase().as_str() {
        "amd64" | "x86_64" | "x86-64" | "x64" | "x86_64-v1" | "em64t" | "intel64" | "linux/amd64" => Some(Arch::Amd64),
        "arm64" | "aarch64" | "arm" | "armv8" | "arm64v8" | "arm64/v8" | "armv8-a" | "linux/arm64" => Some(Arch::Arm64),
        other => nearest(other, Arch::ALL.map(Arch::as_str)).and_then(|name| name.parse().ok()),
    }
}

/// The options that an operand stands for: a variant, an artifact's directory, an architecture, or a stage of the project here.
fn operand(word: &str) -> Option<String> {
    let possible = possible_variants(Path::new("."));
    let names: Vec<&str> = possible.iter().map(String::as_str).collect();
    let parts: Vec<&str> = word.split('/').filter(|part| !part.is_empty()).collect();
    let variant = |part: &str| names.iter().copied().find(|name| *name == part);
    match parts[..] {
        [.., name, arch] if variant(name).is_some() => {
            let arch = arch_meant(arch)?;
            return Some(format!("--variant {name} --arch {arch}"));
        }
        [.., name] if variant(name).is_some() => return Some(format!("--variant {name}")),
        _ => {}
    }
    let stages = stage_names(Path::new("."));
    let asked: Option<AskedStage> = word.parse().ok();
    if let Some(stage) = asked.filter(|stage| stages.contains(&stage.name)) {
        return Some(format!("--stage {stage}"));
    }
    if let Some(arch) = arch_meant(word) {
        return Some(format!("--arch {arch}"));
    }
    if let Some(name) = nearest(word, names) {
        return Some(format!("--variant {name}"));
    }
    let name = nearest(word, stages.iter().map(String::as_str))?;
    Some(format!("--stage {name}"))
}

/// The command line with `options` in the place of the operand `wrong`; a value is added to an option that is there already.
fn with_operand(words: &[OsString], wrong: &str, options: &str) -> Option<Correction> {
    let mut words = words.to_vec();
    let at = words.iter().rposition(|word| word == wrong)?;
    let mut new = Vec::new();
    let parts: Vec<&str> = options.split(' ').collect();
    for (name, value) in parts.chunks_exact(2).map(|pair| (pair[0], pair[1])) {
        let there = words.iter().position(|word| word == name);
        match there.filter(|there| *there + 1 < words.len()) {
            Some(there) => {
                let mut list = words[there + 1].clone();
                list.push(",");
                list.push(value);
                words[there + 1] = list;
            }
            None => new.extend([OsString::from(name), OsString::from(value)]),
        }
    }
    words.splice(at..=at, new);
    Some(Correction::Words(words))
}

/// The stages of the project in `start` or above it, in order; empty where there is no project.
pub(super) fn stage_names(start: &Path) -> Vec<String> {
    let Ok(tree) = pnb::pipeline::Project::find(start, false) else {
        return Vec::new();
    };
    let stages = tree.path().join("stages");
    #[expect(clippy::disallowed_methods, reason = "the names are sorted below")]
    let Ok(entries) = std::fs::read_dir(&stages) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| stages.join(name).join("stage.toml").is_file())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let whole = std::iter::once(OsString::from("pnb")).chain(words.iter().cloned());
        let error = Cli::try_parse_from(whole).expect_err("wrong");
        WrongLine::new(error, &words).hint
    }

    #[test]
    fn the_command_that_was_meant_is_given_whole() {
        for (typed, meant) in [
            ("build --arch x86_64", "build --arch amd64"),
            ("build --arch aarch64", "build --arch arm64"),
            ("build --arch arm", "build --arch arm64"),
            ("plan --arch amd64,AARCH64", "plan --arch amd64,arm64"),
            ("log kernel --arch=x64", "log kernel --arch=amd64"),
            ("build --tools aarch64", "build --tools arm64"),
            ("build raw", "build --variant raw"),
            ("build rwa", "build --variant raw"),
            ("build raw iso", "build --variant raw,iso"),
            ("build --variant raw iso", "build --variant raw,iso"),
            ("build raw arm64", "build --variant raw --arch arm64"),
            ("build raw/arm64", "build --variant raw --arch arm64"),
            ("plan images/raw/amd64/", "plan --variant raw --arch amd64"),
            ("build rootfs", "build --stage rootfs"),
            ("build rootfs/arm64", "build --stage rootfs/arm64"),
            ("build rotfs", "build --stage rootfs"),
            ("raw", "build --variant raw"),
            ("biuld", "build"),
            ("biuld --hermitic rawe", "build --hermetic --variant raw"),
            ("build --with recovry", "build --with recovery"),
            ("lock --snapshot yesterday", "lock --snapshot 20261123T000000Z"),
            ("store path rootfs/x86_64", "store path rootfs/amd64"),
            ("plan --stage rootfs/aarch64", "plan --stage rootfs/arm64"),
            ("verify-repro --vary clok", "verify-repro --vary clock"),
            // Nothing can be told.
            ("build --arch vax", "build --help"),
            ("boot", "boot --help"),
            ("build extra words here", "build --help"),
            ("frobnicate", "--help"),
            ("audit a b", "audit --help"),
        ] {
            assert_eq!(hint(typed), format!("`pnb {meant}`"), "{typed}");
        }
    }
}
