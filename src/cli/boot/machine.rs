//! Runs the machine: QEMU from its stage, in a sandbox.

use super::{
    super::{
        args::Common,
        context::{origins, project, run_options},
        failure::Failure,
        report::Report,
        terminal::TerminalModes,
    },
    args::BootArgs,
    console::BootConsole,
    error::BootError,
};
use pnb::{
    boot::{
        ARTIFACT, Accelerator, AcceleratorChoice, AskedAccelerator, Firmware, ForwardEnd, ForwardListener, HTTP_PORT,
        HttpRoot, Inlet, MACHINE, Machine, NoKvm, Outlet, ServedMachine,
    },
    model::Arch,
    pipeline::BuildContext,
    sandbox::{
        self, Access, Console, Executor, KVM_DEVICE, Limits, Mount, OutputSpec, RootFs, SandboxError, Spec, Workload,
        probe_kvm,
    },
    store::{Content, Store},
};
use std::{
    cell::Cell,
    fs, io,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

/// Memory that QEMU needs beside that of the machine, bytes.
const QEMU_MEMORY: u64 = 1 << 30;
/// Limit of the writes to media that are not kept, bytes.
const FORGOTTEN: u64 = 4 << 30;

/// The stage that holds QEMU for machines of an architecture, and their firmware.
fn boot_tools(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "boot-tools",
        Arch::Arm64 => "boot-tools-arm64",
    }
}

/// Length of the largest file that the machine may write to.
fn largest_disk(mounts: &[Mount]) -> u64 {
    let writable = mounts.iter().filter(|m| m.access == Access::ReadWrite);
    writable
        .filter_map(|m| m.source.metadata().ok())
        .map(|m| m.len())
        .max()
        .unwrap_or(0)
}

/// Chooses KVM or emulation for a machine on this host.
pub(super) fn accelerator(asked: AskedAccelerator, machine: (Arch, Firmware)) -> Result<AcceleratorChoice, NoKvm> {
    let host = Arch::host();
    asked.choose(machine, host, || {
        // A host without the list has no flag in it.
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        probe_kvm(Path::new(KVM_DEVICE), host, &processor)
    })
}

/// A machine and all that its sandbox needs.
pub(super) struct Prepared {
    pub(super) machine: Machine,
    pub(super) mounts: Vec<Mount>,
    /// The ways to the servers that it reaches, and their directory in the sandbox.
    pub(super) outlets: Option<(Vec<Outlet>, String)>,
    /// The ports of this host that lead to it, and the directory of their sockets in the sandbox.
    pub(super) forward: Option<(Vec<ForwardListener>, String)>,
    /// The moment at which it was started last.
    pub(super) started: Cell<Option<Instant>>,
}

/// Runs the machine in a sandbox of its own, its console connected to `console`. The inner result is how the machine ended, the outer one
/// whether it could be started.
pub(super) fn run(
    common: &Common,
    args: &BootArgs,
    report: &Report,
    store: &Store,
    prepared: &Prepared,
    console: &mut BootConsole<'_>,
) -> Result<Result<(), SandboxError>, Failure> {
    let Prepared {
        machine,
        mounts,
        outlets,
        forward,
        started,
    } = prepared;
    let project = project(common)?;
    let options = run_options()?;
    let node = project.graph.node(boot_tools(machine.arch), Arch::host())?;
    let nodes = std::slice::from_ref(&node);
    let origins = origins(common)?;
    let context = BuildContext {
        project: &project,
        store,
        origins: &origins,
        options: &options,
        shared: None,
        elsewhere: None,
        events: &|event| report.event(event),
    };
    let built = context.build(nodes, 1)?;
    let tools = built.nodes.get(&node).and_then(|done| done.record.outputs.get("tree"));
    let tools = tools.ok_or_else(|| BootError::NoTools { node: node.clone() })?;
    let argv = machine.command(args.interactive);
    // Without a judge, the console is the terminal's own.
    let judged = !args.interactive;
    let networked = machine.network.is_some() || outlets.is_some() || forward.is_some();
    let (outlets, sockets) = match outlets {
        Some((outlets, sockets)) => (&outlets[..], sockets.as_str()),
        None => (&[][..], ""),
    };
    let (listeners, doors) = match forward {
        Some((listeners, doors)) => (&listeners[..], doors.as_str()),
        None => (&[][..], ""),
    };
    let workload = if judged || networked {
        let served = ServedMachine {
            argv,
            http: machine.network.as_ref().map(|_| HttpRoot {
                dir: ARTIFACT.into(),
                port: HTTP_PORT,
            }),
            inlets: Inlet::all(&machine.reach, sockets),
            forward: ForwardEnd::all(&machine.forward, doors),
            pulse: judged,
        };
        Workload::builtin(MACHINE, serde_json::to_vec(&served).map_err(BootError::Served)?)
    } else {
        Workload::command(argv)
    };
    let spec = Spec {
        // QEMU keeps writes to media that are not kept in TMPDIR, and would use /var/tmp instead of /tmp.
        env: [("TMPDIR".to_owned(), "/build".to_owned())].into(),
        limits: Limits {
            memory: (machine.memory << 20) + QEMU_MEMORY,
            wall: Duration::from_secs(args.limit()),
            log_bytes: 64 << 20,
            // This limits the length of every file that QEMU writes, too.
            build_bytes: FORGOTTEN.max(largest_disk(mounts)),
            cpus: 2,
            ..Limits::small()
        },
        mounts: mounts.clone(),
        kvm: machine.accelerator == Accelerator::Kvm,
        console: if args.interactive {
            Console::Inherit
        } else {
            Console::Log
        },
        network: match networked {
            false => sandbox::Network::None,
            true => sandbox::Network::Loopback,
        },
        ..Spec::new("boot", RootFs::Tree(store.checkout(tools.digest())?), workload)
    };
    report.clear();
    let executor = Executor {
        helper: options.helper,
        strict: false,
    };
    let mut put = |_: &OutputSpec, _: bool, _: &mut dyn Content| Err(io::Error::other("a machine has no outputs"));
    let _modes = args.interactive.then(|| TerminalModes::save(report)).flatten();
    let failed = |server: SocketAddr, error: &io::Error| {
        report.warning(format_args!(
            "the machine asked for {server}, which cannot be reached: {error}"
        ));
    };
    started.set(Some(Instant::now()));
    let run = || Outlet::with_all(outlets, &failed, || executor.run(&spec, &mut put, console));
    let ended = ForwardListener::with_all(listeners, run).and_then(|ended| ended);
    Ok(ended.map_err(BootError::Relay)?.map(drop))
}
