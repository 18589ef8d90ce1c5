//! The judgement on a machine that has ended, and its report.

use super::{
    super::{Exit, failure::Failure, report::Report},
    args::BootArgs,
    console::ConsoleEnd,
    error::BootError,
};
use pnb::{
    boot::{AcceleratorChoice, BootPhase, BootVerdict, Expected, Pace},
    model::{Hint, chain},
    sandbox::SandboxError,
};
use std::borrow::Cow;

/// A machine that has ended.
pub(super) struct Ran {
    pub(super) end: ConsoleEnd,
    pub(super) choice: AcceleratorChoice,
    /// Seconds that such a boot takes, if that is known.
    pub(super) about: Option<u64>,
    /// Why KVM did not start it.
    pub(super) no_kvm: Option<String>,
}

/// Judges the machine by its console, and by how it ended; reports the verdict.
pub(super) fn judge(
    expected: &Expected,
    args: &BootArgs,
    ran: Ran,
    ended: Result<(), SandboxError>,
    report: &Report,
) -> Result<Exit, Failure> {
    let ConsoleEnd {
        verdict,
        contradiction,
        settled,
        pace,
        phase,
        seconds,
        kvm,
    } = ran.end;
    let broken_kvm = kvm.broken().map(|line| format!("KVM stopped the machine: {line}"));
    let no_kvm = ran
        .no_kvm
        .map(|reason| format!("KVM did not start the machine: {reason}"));
    let by_kvm = no_kvm.or(broken_kvm);
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
            let problem = out_of_time(limit, &pace, phase);
            hint = way_on(args, &pace, ran.about);
            late = Some(pace);
            Some(problem)
        }
        (None, Err(SandboxError::Limit { limit, .. })) => Some(format!("no verdict on the console, {limit}")),
        (None, _) if by_kvm.is_some() => {
            hint = Some("--accel tcg emulates the machine".to_owned());
            by_kvm
        }
        (None, Err(error)) => failed(error),
        (None, Ok(())) => Some("the machine ended without a verdict on the console".to_owned()),
    };
    if report.json() {
        report.value(serde_json::json!({
            "event": "boot", "verdict": verdict, "problem": problem, "pace": late,
            "phase": phase, "seconds": seconds, "accelerator": ran.choice,
        }));
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
                "ready after {seconds} s: instance {instance} from {source}, root {root}, agent {agent}; {}",
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

/// A machine without a verdict at the end of its time: slow, waiting, or standing still.
fn out_of_time(limit: &str, pace: &Pace, phase: BootPhase) -> String {
    match pace {
        Pace::Slow { line, seconds } => format!(
            "the machine is slow: no verdict yet, {limit}, and the console still moves\n\
             stage of the boot: {phase}; last line, {seconds} s old: {line}"
        ),
        Pace::Waiting { seconds, job } => format!(
            "the machine waits: no verdict, {limit}, and nothing else on the console for {seconds} s\n\
             stage of the boot: {phase}; systemd waits for this: {job}"
        ),
        Pace::Still {
            seconds,
            line,
            processor,
        } => format!(
            "the machine stands still: no verdict, {limit}, nothing new on the console for {seconds} s, in which it used {processor} s of \
             processor time\nstage of the boot: {phase}; last line: {line}"
        ),
        Pace::Silent { processor } => format!(
            "the machine stands still: no verdict, {limit}, and nothing was ever on the console; it used {processor} s of processor time"
        ),
    }
}

/// What to do about a machine whose time was over.
fn way_on(args: &BootArgs, pace: &Pace, about: Option<u64>) -> Option<String> {
    let time = about.map(|about| format!("such a boot takes about {about} s on two busy processors"));
    let way = match pace {
        Pace::Slow { .. } => format!("--timeout {} gives it twice the time", args.limit() * 2),
        Pace::Waiting { .. } | Pace::Still { .. } | Pace::Silent { .. } => {
            "--interactive connects this terminal to its console".to_owned()
        }
    };
    Some([Some(way), time].into_iter().flatten().collect::<Vec<_>>().join("; "))
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
            format!("--timeout {} gives it twice the time", args.limit() * 2),
        ),
    }
}
