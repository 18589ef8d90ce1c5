//! `pnb boot`: an artifact in a machine of its own, judged by its console.

mod args;
mod console;
mod console_text;
mod error;
mod image;
mod machine;
mod run;
mod target;
mod verdict;

pub(super) use args::BootArgs;
pub(super) use run::boot;
