//! What pnb does on a worker of a Remote Execution engine: `pnb __stage job.json` runs stages, whose lines go to standard error as they are
//! printed, and `pnb __probe` tries the layers of the sandbox.

use super::{
    Exit,
    failure::Failure,
    report::{mark, say},
};
use pnb::{
    model::chain,
    pipeline::{self, Event, PipelineError},
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Runs the job in the current directory.
pub(super) fn stage() -> ExitCode {
    // The modes of files that stages get must not depend on the worker's umask.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let events = |event| match event {
        Event::Log { line, .. } => say(&format!("{line}\n")),
        // With a control character, which no line of a stage keeps.
        Event::Started { node, .. } => mark(&pipeline::stage_line(&node)),
        _ => {}
    };
    ended(helper().and_then(|helper| pipeline::run_job(Path::new("."), helper, &events)))
}

/// Tries the layers of the sandbox, for `pnb remote check`.
pub(super) fn probe() -> ExitCode {
    ended(helper().and_then(|helper| pipeline::write_layers(Path::new("."), &helper)))
}

fn helper() -> Result<PathBuf, PipelineError> {
    std::env::current_exe().map_err(|source| PipelineError::Job {
        problem: format!("the program of pnb is not found: {source}"),
    })
}

fn ended(result: Result<(), PipelineError>) -> ExitCode {
    match result {
        Ok(()) => Exit::Success.into(),
        Err(error) => {
            let failure = Failure::from(error);
            say(&format!("error: failed to {}\n", chain(failure.error())));
            failure.exit().into()
        }
    }
}
