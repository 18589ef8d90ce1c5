//! Boots one artifact and judges how it ended.

use super::{
    super::{Exit, args::Common, context::store, failure::Failure, report::Report},
    args::BootArgs,
    console::{BootConsole, ConsoleEnd},
    error::BootError,
    machine::{self, Prepared},
    target::BootTarget,
    verdict::{Ran, judge},
};
use pnb::{
    boot::{
        ARTIFACT, Accelerator, AcceleratorChoice, AskedAccelerator, Attach, BootPhase, CloudService, DirectKernel,
        Expected, Firmware, Forward, FwCfg, Machine, MachineFiles, MediaRequest, NONCE_KEY, NetworkBoot, NodeNetwork,
        Reach, Smbios, about, verify_sums,
    },
    model::{Arch, chain, visible_path},
    sandbox::SandboxError,
};
use std::{cell::Cell, fs::File, io::Read, time::Duration};

/// Memory of a machine when no other is asked for, and the memory of QEMU's Raspberry Pi, MiB.
const MEMORY: u64 = 3072;
const BOARD_MEMORY: u64 = 2048;
/// Processors of QEMU's Raspberry Pi.
const BOARD_PROCESSORS: u32 = 4;

pub(in crate::cli) fn boot(common: &Common, args: &BootArgs, report: &Report) -> Result<Exit, Failure> {
    let append = Machine::checked_append(&args.append)?;
    let fw_cfg = args.fw_cfg.iter().map(|text| FwCfg::parse(text));
    let mut fw_cfg: Vec<FwCfg> = fw_cfg.collect::<Result<_, _>>()?;
    let card = match args.metadata {
        None => NodeNetwork::PRIVATE,
        Some(_) => NodeNetwork::LINK_LOCAL,
    };
    let mut reach = Reach::parse_all(&args.reach, card)?;
    let forward = Forward::parse_all(&args.forward)?;
    let smbios = args.smbios.iter().map(|text| Smbios::parse(text));
    let smbios: Vec<Smbios> = smbios.collect::<Result<_, _>>()?;
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
    if !smbios.is_empty() && (target.arch, firmware) == (Arch::Arm64, Firmware::Direct) {
        return Err(BootError::NoTables.into());
    }
    let metadata = args.metadata.as_deref().map(CloudService::open).transpose();
    let metadata = metadata.map_err(BootError::from)?;
    reach.extend(metadata.iter().map(|service| Reach::metadata(service.address())));

    verify_files(&target, args, firmware, report)?;

    let nonce = match args.no_nonce || firmware == Firmware::RaspberryPi4 {
        true => None,
        false => Some(given_nonce(&mut fw_cfg)?),
    };
    let expected = Expected {
        firmware,
        root: target.root,
        nonce,
        identity: Expected::identity_of(&fw_cfg, &append, metadata.is_some()),
    };
    let mut files = MachineFiles::new(&store, &target.artifact)?;
    // A port that is taken is refused before a disk is copied.
    let listeners = match forward.is_empty() {
        true => None,
        false => Some(files.forward(&forward)?),
    };
    let keys = files.fw_cfg(&fw_cfg)?;
    let media = files.media(&MediaRequest {
        image: target.image.as_deref().map(|image| (image, target.media)),
        attach,
        keep: args.keep.as_deref(),
        disk: args.disk.as_deref(),
        size: args.size,
        firmware,
        sector_size: args.sector_size.unwrap_or_default(),
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
    let capture = args.capture.as_deref().map(|file| files.capture(file)).transpose()?;
    let mut choice = machine::accelerator(args.accel, (target.arch, firmware)).map_err(BootError::from)?;
    let machine = Machine {
        arch: target.arch,
        firmware,
        accelerator: choice.accelerator,
        memory,
        processors: args.cpus.unwrap_or(1),
        kernel,
        media,
        network: (attach == Attach::Net).then(|| NetworkBoot::of(target.arch, firmware, ARTIFACT)),
        card,
        reach,
        forward,
        capture,
        smbios,
        fw_cfg: keys,
        share,
    };
    let outlets = match machine.reach.is_empty() {
        true => None,
        false => Some(files.reach(&machine.reach)?),
    };
    let mut prepared = Prepared {
        machine,
        mounts: files.into_mounts(),
        outlets,
        forward: listeners,
        started: Cell::new(None),
    };
    let (ended, end, about, no_kvm) = loop {
        prepared.machine.accelerator = choice.accelerator;
        let about = match choice.accelerator {
            Accelerator::Tcg => about(target.arch, firmware, attach),
            Accelerator::Kvm => None,
        };
        announce(args, &prepared.machine, &choice, about, report);
        let listeners = prepared.forward.iter().flat_map(|(listeners, _)| listeners);
        listeners.for_each(|listener| say_forward(listener.forward(), report));
        let mut console = BootConsole::new(
            (!common.json && !common.quiet).then_some(report),
            &expected,
            Duration::from_secs(args.settle),
            choice.accelerator,
            about,
        );
        let mut run = || machine::run(common, args, report, &store, &prepared, &mut console);
        let ended = match &metadata {
            None => run()?,
            Some(service) => service.with(run).map_err(BootError::Relay)??,
        };
        let end = console.end();
        let ran = prepared.started.get().map(|at| at.elapsed()).unwrap_or_default();
        match failed_kvm(args.interactive, choice.accelerator, &end, &ended, ran) {
            Some(reason) if args.accel == AskedAccelerator::Auto => {
                report.warning(format_args!(
                    "KVM did not start the machine, which is emulated now: {reason}"
                ));
                choice = AcceleratorChoice::emulated(format!("KVM did not start it: {reason}"));
            }
            no_kvm => break (ended, end, about, no_kvm),
        }
    };
    if args.interactive {
        return match ended {
            Ok(()) => Ok(Exit::Success),
            Err(SandboxError::Limit { limit, .. }) if limit.starts_with("wall time") => {
                Err(BootError::TimeOver { seconds: args.limit() }.into())
            }
            Err(error) => Err(BootError::from(error).into()),
        };
    }
    let ran = Ran {
        end,
        choice,
        about,
        no_kvm,
    };
    judge(&expected, args, ran, ended, report)
}

/// Says what machine starts, by which means, and how long that takes.
fn announce(args: &BootArgs, machine: &Machine, choice: &AcceleratorChoice, about: Option<u64>, report: &Report) {
    let firmware = machine.firmware.name();
    let how = match &choice.reason {
        None => "run by KVM".to_owned(),
        Some(reason) => format!("emulated ({reason})"),
    };
    let time = about.map_or_else(String::new, |about| {
        format!("; about {about} s to the ready line on two busy processors")
    });
    report.note(format_args!(
        "  machine {}, firmware {firmware}, {how}{time}",
        machine.arch
    ));
    if args.interactive {
        let end = match args.timeout {
            None => "it runs without a limit of time".to_owned(),
            Some(seconds) => format!("it runs for at most {seconds} s"),
        };
        report.note(format_args!(
            "  console {end}; Ctrl-A X ends it, Ctrl-A C switches to QEMU's monitor and back"
        ));
    }
}

/// Says how to connect to a port of the machine.
fn say_forward(forward: Forward, report: &Report) {
    let Forward { host, port } = forward;
    if report.json() {
        return report.value(serde_json::json!({ "event": "forward", "host": host, "port": port }));
    }
    let (ip, own) = (host.ip(), host.port());
    let way = match port {
        22 => format!(": `ssh -p {own} USER@{ip}`"),
        80 => format!(": `curl http://{host}/`"),
        _ => String::new(),
    };
    report.note(format_args!(
        "  forward {host} leads to port {port} of the machine{way}"
    ));
}

/// Time within which QEMU says that it cannot start a machine by KVM.
const START: Duration = Duration::from_secs(5);

/// Why KVM did not bring a machine up to its kernel, where that is the reason of its end. Where the console is the terminal's own, nothing
/// is known of it but the time.
fn failed_kvm(
    interactive: bool,
    accelerator: Accelerator,
    end: &ConsoleEnd,
    ended: &Result<(), SandboxError>,
    ran: Duration,
) -> Option<String> {
    if accelerator == Accelerator::Tcg || end.verdict.is_some() || end.phase >= BootPhase::Kernel {
        return None;
    }
    let failed = || match ended {
        Err(error @ SandboxError::Failed { .. }) if !interactive || ran < START => {
            Some(end.kvm.message().map_or_else(|| chain(error), str::to_owned))
        }
        _ => None,
    };
    end.kvm.broken().map(str::to_owned).or_else(failed)
}

/// Compares the artifact's files with its list; says so where nothing vouches for the bytes that boot.
fn verify_files(target: &BootTarget, args: &BootArgs, firmware: Firmware, report: &Report) -> Result<(), BootError> {
    // One that cannot be looked for is an error of the media.
    let kept = args.keep.as_deref().filter(|kept| kept.try_exists().unwrap_or(false));
    if let Some(kept) = kept {
        report.note(format_args!(
            "{} is booted as it is: a kept disk has no SHA256SUMS",
            visible_path(kept)
        ));
    }
    let Some(listed) = &target.listed else {
        return Ok(());
    };
    if args.no_verify_sums {
        report.note("the files are booted without a comparison with SHA256SUMS (--no-verify-sums)");
        return Ok(());
    }
    // A kept disk is the only file that boots, unless the kernel comes from beside it.
    if kept.is_some() && firmware != Firmware::Direct {
        return Ok(());
    }
    let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
    Ok(verify_sums(&target.artifact, &listed)?)
}

/// The nonce among the keys of --fw-cfg; else a new one, which is added to them.
fn given_nonce(keys: &mut Vec<FwCfg>) -> Result<String, BootError> {
    if let Some(own) = keys.iter().find(|cfg| cfg.key == NONCE_KEY) {
        return Ok(String::from_utf8_lossy(&own.value).into_owned());
    }
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(BootError::Nonce)?;
    let nonce = hex::encode(bytes);
    keys.push(FwCfg {
        key: NONCE_KEY.to_owned(),
        value: nonce.clone().into_bytes(),
    });
    Ok(nonce)
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
        (!args.forward.is_empty(), "--forward: it has no network"),
        (args.metadata.is_some(), "--metadata: it has no network"),
        (args.capture.is_some(), "--capture: it has no network"),
        (!args.smbios.is_empty(), "--smbios: it has no DMI tables"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use pnb::boot::{BootVerdict, KvmWatch, Pace};

    fn end(phase: BootPhase, said: &str) -> ConsoleEnd {
        let mut kvm = KvmWatch::default();
        kvm.take(said.as_bytes());
        ConsoleEnd {
            verdict: None,
            contradiction: None,
            settled: false,
            pace: Pace::Silent { processor: 0 },
            phase,
            seconds: 1,
            kvm,
        }
    }

    fn failed() -> Result<(), SandboxError> {
        Err(SandboxError::Failed {
            stage: "boot".to_owned(),
            status: "exit code 1".to_owned(),
            refused: String::new(),
        })
    }

    #[test]
    fn kvm_has_failed_when_the_machine_ends_before_its_kernel() {
        use Accelerator::{Kvm, Tcg};
        use BootPhase::{Kernel, Loader};
        let second = Duration::from_secs(1);
        let judged = |accelerator, phase, said: &str, ended: &_| {
            failed_kvm(false, accelerator, &end(phase, said), ended, Duration::from_secs(60))
        };
        let message = "qemu-system-x86_64: error: failed to set MSR 0x10a to 0xc000069";
        let broken = "KVM internal error. Suberror: 1";
        let lines = format!("{message}\nqemu-system-x86_64: Assertion\n");
        assert_eq!(judged(Kvm, Loader, &lines, &failed()).as_deref(), Some(message));
        let stopped = format!("{broken}\nRAX=0\n");
        assert_eq!(judged(Kvm, Loader, &stopped, &Ok(())).as_deref(), Some(broken));
        let unsaid = judged(Kvm, Loader, "", &failed());
        assert_eq!(unsaid.as_deref(), Some("run stage boot: exit code 1"));

        // What emulation would not have done better.
        assert_eq!(judged(Tcg, Loader, &lines, &failed()), None);
        assert_eq!(judged(Kvm, Kernel, &lines, &failed()), None);
        assert_eq!(judged(Kvm, Loader, &lines, &Ok(())), None);
        let mut refused = end(Loader, &lines);
        refused.verdict = Some(BootVerdict::Rejected { line: "no".to_owned() });
        assert_eq!(failed_kvm(false, Kvm, &refused, &failed(), second), None);

        // At a terminal, QEMU's messages are on the screen, and only its early end is known.
        let seen = |ran| failed_kvm(true, Kvm, &end(BootPhase::default(), ""), &failed(), ran);
        assert!(seen(second).is_some());
        assert_eq!(seen(START), None);
    }
}
