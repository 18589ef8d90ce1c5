//! The fuzzer: runs one target, which the environment variable `PNB_FUZZ` names, with inputs that libFuzzer makes.
//!
//! `PNB_FUZZ=list` prints the names of all targets. `PNB_FUZZ_SAVE=FILE` writes the bytes that a grammar makes of an input: a finding of a
//! grammar is stored as such bytes in `regressions/`, where the tests replay it without the grammar.
#![no_main]

mod grammar;
mod image_grammar;
mod targets;

use arbitrary::Unstructured;
use grammar::{GRAMMARS, Grammar};
use libfuzzer_sys::fuzz_target;
use std::{env, fs, process, sync::OnceLock};
use targets::{TARGETS, Target, target};

/// The selected target, and the grammar that makes its input.
struct Selected {
    grammar: Option<Grammar>,
    target: Target,
}

#[expect(
    clippy::disallowed_methods,
    reason = "libFuzzer takes all arguments of the command line for itself"
)]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

fn select() -> Selected {
    let name = variable("PNB_FUZZ").unwrap_or_default();
    if name == "list" {
        for (name, _) in TARGETS {
            println!("{name}");
        }
        for (name, _, _) in GRAMMARS {
            println!("{name}");
        }
        process::exit(0);
    }
    let grammar = GRAMMARS.iter().find(|(known, _, _)| *known == name);
    let of = grammar.map_or(name.as_str(), |(_, of, _)| of);
    let Some(target) = target(of) else {
        eprintln!("PNB_FUZZ is {name:?}, which is no target; PNB_FUZZ=list prints their names");
        process::exit(2);
    };
    Selected {
        grammar: grammar.map(|(_, _, make)| *make),
        target,
    }
}

static SELECTED: OnceLock<Selected> = OnceLock::new();

fuzz_target!(init: { SELECTED.get_or_init(select); }, |data: &[u8]| {
    let selected = SELECTED.get_or_init(select);
    let Some(make) = selected.grammar else {
        return (selected.target)(data);
    };
    let Ok(bytes) = make(&mut Unstructured::new(data)) else { return };
    if let Some(file) = variable("PNB_FUZZ_SAVE") {
        fs::write(&file, &bytes).expect("PNB_FUZZ_SAVE names a file that can be written");
    }
    (selected.target)(&bytes);
});
