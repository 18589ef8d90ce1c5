//! Boots one artifact and judges how it ended.

use super::{
    super::{Exit, args::Common, context::store, failure::Failure, report::Report},
    args::BootArgs,
    console::BootConsole,
    error::BootError,
    machine,
    target::BootTarget,
};
use pnb::{
    boot::{
        ARTIFACT, Attach, BootVerdict, DirectKernel, Firmware, FwCfg, Machine, MachineFiles, MediaRequest, NetworkBoot,
        NodeNetwork, Pace, Reach,
    },
    model::{Hint, chain},
    sandbox::SandboxError,
};
use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _};

/// Memory of a machine when no other is asked for, and the memory of QEMU's Raspberry Pi, MiB.
const MEMORY: u64 = 3072;
const BOARD_MEMORY: u64 = 2048;
/// Processors of QEMU's Raspberry Pi.
const BOARD_PROCESSORS: u32 = 4;

pub(in crate::cli) fn boot(common: &Common, args: &BootArgs, report: &Report) -> Result<Exit, Failure> {
    let append = Machine::checked_append(&args.append)?;
    let fw_cfg = args.fw_cfg.iter().map(|text| FwCfg::parse(text));
    let fw_cfg: Vec<FwCfg> = fw_cfg.collect::<Result<_, _>>()?;
    let reach = Reach::parse_all(&args.reach, NodeNetwork::PRIVATE)?;
    let store = store(common)?;
    let target = BootTarget::open(common, args, &store, report)?;
    let chosen = target.media.choose(target.arch, args.firmware, args.attach);
    let (firmware, attach) = chosen.map_err(|problem| BootError::Choice {
        path: args.path.clone(),
        problem,
    })?;
    let from_medium = !matches!(firmware, Firmware::Direct | Firmware::RaspberryPi4);
    if from_medium && !append.is_empty() {
        return Err(BootError::Append.into());
    }
    if args.keep.is_some() && !target.is_disk() {
        return Err(BootError::NoDisk.into());
    }
    if firmware == Firmware::RaspberryPi4 {
        fits_board(args)?;
    }

    let mut files = MachineFiles::new(&store, &target.artifact)?;
    let keys = files.fw_cfg(&fw_cfg)?;
    let media = files.media(&MediaRequest {
        image: target.image.as_deref().map(|image| (image, target.media)),
        attach,
        keep: args.keep.as_deref(),
        disk: args.disk.as_deref(),
        size: args.size,
    })?;
    let share = args.share.as_deref().map(|dir| files.share(dir)).transpose()?;
    let kernel = match (firmware, &target.command_line) {
        (Firmware::Direct, Some(command_line)) => {
            let (image, initramfs) = files.direct(target.image.as_deref())?;
            Some(DirectKernel {
                image,
                initramfs,
                device_tree: None,
                command_line: joined(command_line, &append),
            })
        }
        (Firmware::Direct, None) => return Err(BootError::NoCommandLine.into()),
        (Firmware::RaspberryPi4, _) => {
            // A kept card is the one that the machine boots.
            let kernel = files.card(args.keep.as_deref().or(target.image.as_deref()))?;
            let command_line = joined(&kernel.command_line, &append);
            Some(DirectKernel { command_line, ..kernel })
        }
        _ => None,
    };
    let memory = match firmware {
        Firmware::RaspberryPi4 => BOARD_MEMORY,
        _ => args.memory.unwrap_or(MEMORY),
    };
    let machine = Machine {
        arch: target.arch,
        firmware,
        memory,
        processors: args.cpus.unwrap_or(1),
        kernel,
        media,
        network: (attach == Attach::Net).then(|| NetworkBoot::of(target.arch, firmware, ARTIFACT)),
        reach,
        fw_cfg: keys,
        share,
    };
    let outlets = match machine.reach.is_empty() {
        true => None,
        false => Some(files.reach(&machine.reach)?),
    };
    let mut console = BootConsole::new((!common.json && !common.quiet).then_some(report));
    let ended = machine::run(
        common,
        args,
        report,
        &store,
        &machine,
        files.into_mounts(),
        outlets,
        &mut console,
    )?;
    if args.interactive {
        return match ended {
            Ok(()) => Ok(Exit::Success),
            Err(error) => Err(BootError::from(error).into()),
        };
    }
    judge(&target, args, firmware, console.end(), ended, report)
}

/// Refuses options that need a device which QEMU's Raspberry Pi lacks.
fn fits_board(args: &BootArgs) -> Result<(), BootError> {
    let lacks = [
        (
            !args.fw_cfg.is_empty(),
            "--fw-cfg: it has no fw_cfg; write identity.cfg to the boot partition of a kept card (--keep) to name the node",
        ),
        (args.share.is_some(), "--share: it has no 9p"),
        (!args.reach.is_empty(), "--reach: it has no network"),
        (args.disk.is_some(), "--disk: it has no second disk"),
        (
            args.memory.is_some_and(|memory| memory != BOARD_MEMORY),
            "--memory: it has 2048 MiB",
        ),
        (
            args.cpus.is_some_and(|cpus| cpus != BOARD_PROCESSORS),
            "--cpus: it has 4 processors",
        ),
    ];
    match lacks.iter().find(|(asked, _)| *asked) {
        None => Ok(()),
        Some((_, problem)) => Err(BootError::Board(problem)),
    }
}

/// The command line with the words of --append.
fn joined(line: &str, append: &str) -> String {
    [line, append].join(" ").trim_end().to_owned()
}

fn judge(
    target: &BootTarget,
    args: &BootArgs,
    firmware: Firmware,
    (verdict, pace): (Option<BootVerdict>, Pace),
    ended: Result<(), SandboxError>,
    report: &Report,
) -> Result<Exit, Failure> {
    let pinned = target.root;
    let other = |root| {
        pinned.filter(|pinned| pinned != root).map(|pinned| {
            format!("the machine verified another root than the manifest names\nexpected: {pinned}\n  actual: {root}")
        })
    };
    let (mut hint, mut late) = (None, None);
    let mut failed = |error: &SandboxError| {
        hint = error.hint().map(Cow::into_owned);
        Some(chain(error))
    };
    let problem = match (&verdict, &ended) {
        (Some(BootVerdict::Ready { root, agent, state, .. }), _) => other(root)
            .or_else(|| (agent != "active").then(|| not_running(state)))
            .or_else(|| unlocked(firmware, state)),
        (Some(BootVerdict::Installed { root, .. }), Ok(())) => other(root),
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

/// The agent that does not run, with what the machine reports of its end.
fn not_running(state: &BTreeMap<String, String>) -> String {
    let get = |name: &str| state.get(name).map_or("unknown", String::as_str);
    let mut problem = format!(
        "the agent is not running: its exit status is {} after {} restarts",
        get("exit"),
        get("restarts")
    );
    if let Some(said) = state.get("agent_said") {
        _ = write!(problem, "\nlast line: {said}");
    }
    problem
}

/// The lockdown that the machine does not report.
fn unlocked(firmware: Firmware, state: &BTreeMap<String, String>) -> Option<String> {
    let get = |name: &str| state.get(name).map_or("unknown", String::as_str);
    if !["integrity", "confidentiality"].contains(&get("lockdown")) {
        return Some(format!("the kernel is not locked down: lockdown={}", get("lockdown")));
    }
    (firmware == Firmware::SecureBoot && get("secure_boot") != "on")
        .then(|| format!("the kernel was not booted securely: secure_boot={}", get("secure_boot")))
}
