//! The hostile suite: what a stage must not achieve, measured with every layer of the sandbox on, with each layer off, and with each
//! layer alone.
//!
//! - [`table`] lists the attacks, which are functions of `attacks.c`; [`quick`] runs them.
//! - [`bombs`] uses up memory and processes, [`runs`] attacks the end of a run, its outputs, its supervisor and its terminal.
//! - [`matrix`] takes layers off, and writes the result into `docs/threat-model.md`: `UPDATE=1 cargo test --test hostile`.
//! - [`shipped`] shows that no layer of the program that ships can be taken off.
//!
//! This program is its own test harness, because it is also the helper of the sandboxes without a layer: the executor starts it as
//! `without-LAYER+LAYER… __sandbox`.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by a panic, and a harness prints"
)]

mod bombs;
mod ground;
#[cfg(debug_assertions)]
mod matrix;
mod quick;
mod runs;
mod shipped;
mod table;
mod user;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

/// A test: its name, whether it needs root, and what it does.
struct Case(&'static str, bool, fn());

const CASES: &[Case] = &[
    Case("quick::every_attack_is_stopped", false, quick::every_attack_is_stopped),
    Case(
        "bombs::every_bomb_meets_its_limit",
        false,
        bombs::every_bomb_meets_its_limit,
    ),
    Case(
        "runs::set_id_files_by_every_call_do_not_leave",
        false,
        runs::set_id_files_by_every_call_do_not_leave,
    ),
    Case(
        "runs::an_output_that_becomes_a_link_is_not_followed",
        false,
        runs::an_output_that_becomes_a_link_is_not_followed,
    ),
    Case(
        "runs::the_answering_supervisor_survives",
        false,
        runs::the_answering_supervisor_survives,
    ),
    Case(
        "runs::nothing_is_typed_into_the_terminal",
        false,
        runs::nothing_is_typed_into_the_terminal,
    ),
    Case(
        "runs::a_deep_tree_is_refused_and_deleted",
        false,
        runs::a_deep_tree_is_refused_and_deleted,
    ),
    #[cfg(debug_assertions)]
    Case(
        "matrix::outputs_meet_three_walls",
        false,
        matrix::outputs_meet_three_walls,
    ),
    #[cfg(debug_assertions)]
    Case(
        "matrix::the_threat_model_has_what_was_measured",
        true,
        matrix::the_threat_model_has_what_was_measured,
    ),
    Case(
        "shipped::pnb_holds_nothing_that_takes_a_layer_off",
        false,
        shipped::pnb_holds_nothing_that_takes_a_layer_off,
    ),
    Case(
        "shipped::pnb_ignores_the_name_that_takes_a_layer_off",
        false,
        shipped::pnb_ignores_the_name_that_takes_a_layer_off,
    ),
    Case(
        "user::every_attack_is_stopped_for_an_ordinary_user",
        true,
        user::every_attack_is_stopped_for_an_ordinary_user,
    ),
];

/// The arguments that cargo and `.ci/run` give to a test program.
#[derive(Default)]
struct Arguments {
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    list: bool,
    include_ignored: bool,
    ignored: bool,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut found = Self::default();
        while let Some(argument) = given.next() {
            match argument.as_str() {
                "--exact" => found.exact = true,
                "--list" => found.list = true,
                "--include-ignored" => found.include_ignored = true,
                "--ignored" => found.ignored = true,
                "--nocapture" | "--quiet" | "-q" | "--show-output" => {}
                "--skip" => found.skip.extend(given.next()),
                "--test-threads" | "--format" | "--color" => drop(given.next()),
                option if option.starts_with("--") && option.contains('=') => {}
                option if option.starts_with('-') => return Err(format!("unknown option {option}")),
                filter => found.filters.push(filter.to_owned()),
            }
        }
        Ok(found)
    }

    fn wants(&self, name: &str) -> bool {
        let matches = |pattern: &String| match self.exact {
            true => name == pattern,
            false => name.contains(pattern.as_str()),
        };
        (self.filters.is_empty() || self.filters.iter().any(matches)) && !self.skip.iter().any(matches)
    }
}

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    #[cfg(debug_assertions)]
    if given.first().is_some_and(|first| first == "__sandbox") {
        return matrix::helper(&std::env::args().next().unwrap_or_default());
    }
    if given.first().is_some_and(|first| first == runs::ON_TERMINAL) {
        return runs::on_terminal();
    }
    match Arguments::parse(given.into_iter()) {
        Ok(arguments) => run(&arguments),
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> ExitCode {
    let root = nix::unistd::Uid::effective().is_root();
    let chosen: Vec<&Case> = CASES.iter().filter(|Case(name, ..)| arguments.wants(name)).collect();
    if arguments.list {
        for Case(name, ..) in &chosen {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let (mut passed, mut ignored, mut failed) = (0, 0, Vec::new());
    for Case(name, needs_root, test) in chosen {
        let is_ignored = *needs_root && !root;
        if is_ignored && !(arguments.include_ignored || arguments.ignored) || arguments.ignored && !is_ignored {
            println!("test {name} ... ignored, needs-host: root");
            ignored += 1;
            continue;
        }
        let begin = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| {
            assert!(!is_ignored, "run it as root");
            test();
        }));
        let took = begin.elapsed().as_secs_f32();
        match result {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok ({took:.1} s)");
            }
            Err(_) => {
                failed.push(*name);
                println!("test {name} ... FAILED");
            }
        }
    }
    ground::clean();
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\nfailed: {failed:?}\ntest result: {word}. {passed} passed; {} failed; {ignored} ignored",
        failed.len()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
