//! The judgement on a machine that has ended, and its report.

use super::{
    super::{Exit, failure::Failure, report::Report},
    args::BootArgs,
    console::ConsoleEnd,
    error::BootError,
};
use pnb::{
    boot::{BootVerdict, Expected, Pace},
    model::{Hint, chain},
    sandbox::SandboxError,
};
use std::borrow::Cow;

/// Judges the machine by its console, and by how it ended; reports the verdict.
pub(super) fn judge(
    expected: &Expected,
    args: &BootArgs,
    console: ConsoleEnd,
    ended: Result<(), SandboxError>,
    report: &Report,
) -> Result<Exit, Failure> {
    let ConsoleEnd {
        verdict,
        contradiction,
        settled,
        pace,
    } = console;
    let (mut hint, mut late) = (None, None);
    let mut failed = |error: &SandboxError| {
        hint = error.hint().map(Cow::into_owned);
        Some(chain(error))
    };
    let contradicted = contradiction.map(|line| format!("the machine contradicted its verdict: {line}"));
    let problem = match (&verdict, &ended) {
        (Some(ready @ BootVerdict::Ready { .. }), _) => {
            let found = expected.problem(ready).or(contradicted);
            let early = || (!settled).then(|| not_watched(args, &ended));
            found.or_else(|| {
                let (problem, way) = early()?;
                hint = Some(way);
                Some(problem)
            })
        }
        (Some(installed @ BootVerdict::Installed { .. }), Ok(())) => expected.problem(installed).or(contradicted),
        (Some(BootVerdict::Installed { .. }), Err(error)) => failed(error),
        (Some(BootVerdict::Refused { reason }), _) => Some(format!("the machine refused: {reason}")),
        (Some(BootVerdict::Rejected { line }), _) => Some(format!("the boot loader refused: {line}")),
        (Some(BootVerdict::Panicked { line }), _) => Some(line.clone()),
        (None, Err(SandboxError::Limit { limit, .. })) if limit.starts_with("wall time") => {
            let problem = out_of_time(limit, &pace);
            if matches!(pace, Pace::Slow { .. }) {
                hint = Some(format!("--timeout {} gives it twice the time", args.timeout * 2));
            }
            late = Some(pace);
            Some(problem)
        }
        (None, Err(SandboxError::Limit { limit, .. })) => Some(format!("no verdict on the console, {limit}")),
        (None, Err(error)) => failed(error),
        (None, Ok(())) => Some("the machine ended without a verdict on the console".to_owned()),
    };
    if report.json() {
        report.value(serde_json::json!({ "event": "boot", "verdict": verdict, "problem": problem, "pace": late }));
        return Ok(if problem.is_none() { Exit::Success } else { Exit::Boot });
    }
    match &verdict {
        Some(BootVerdict::Ready {
            instance,
            source,
            root,
            agent,
            state,
            ..
        }) => {
            let state: Vec<String> = state.iter().map(|(name, value)| format!("{name} {value}")).collect();
            report.note(format_args!(
                "ready: instance {instance} from {source}, root {root}, agent {agent}; {}",
                state.join(", ")
            ));
        }
        Some(BootVerdict::Installed { disk, root }) => report.note(format_args!("installed: root {root} on {disk}")),
        _ => {}
    }
    match problem {
        None => Ok(Exit::Success),
        Some(problem) => Err(BootError::Judged {
            path: args.path.clone(),
            problem,
            hint,
        }
        .into()),
    }
}

/// A machine without a verdict at the end of its time: slow, or standing still.
fn out_of_time(limit: &str, pace: &Pace) -> String {
    match pace {
        Pace::Slow { line } => {
            format!("the machine is slow: no verdict yet, {limit}, and the console still moves\nlast line: {line}")
        }
        Pace::Still { seconds, line } => {
            format!(
                "the machine stands still: no verdict, {limit}, nothing new on the console for {seconds} s\nlast line: {line}"
            )
        }
        Pace::Silent => format!("the machine stands still: no verdict, {limit}, and nothing was ever on the console"),
    }
}

/// A machine that was ready, and was not watched for the whole time after it; and the way out.
fn not_watched(args: &BootArgs, ended: &Result<(), SandboxError>) -> (String, String) {
    let settle = args.settle;
    match ended {
        Ok(()) => (
            format!("the machine was ready, and ended by itself within {settle} s"),
            "--settle 0 takes the ready line alone".to_owned(),
        ),
        Err(error) => (
            format!(
                "the machine was ready, and could not be watched for {settle} s after it: {}",
                chain(error)
            ),
            format!("--timeout {} gives it twice the time", args.timeout * 2),
        ),
    }
}
