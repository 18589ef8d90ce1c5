//! The stage's own process: enters a nested user namespace, gives up every privilege it does not need, measures the result, and becomes
//! the workload.

use super::{
    BuiltinCall, Console, Measured, Processors, Spec, Workload,
    ablation::{self, SandboxLayer, is_off},
    capability::kernel_capability,
    descriptors::send_descriptors,
    job::Job,
    landlock, notify, seccomp, self_check, sys,
    wire::{self, Fault, FaultKind, StageReport, Step},
};
use caps::CapSet;
use nix::{
    sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare},
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, Signal},
        stat::{Mode, umask},
    },
    unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, getpid, setpgid, setsid, tcsetpgrp},
};
use std::{
    convert::Infallible,
    ffi::CString,
    fs::File,
    io::{self, IsTerminal, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Largest core dump. Below a page none is written to a file. Only this value also keeps the kernel from starting the host's program of
/// a `core_pattern` that begins with `|`, as root; 0 does not (`fs/coredump.c`, core(5)). seccomp keeps the stage from changing it.
const NO_CORE: u64 = 1;
/// Exit code of a built-in that failed.
const BUILTIN_FAILED: i32 = 1;
/// Exit code of a built-in that panicked, which is a defect of it.
const BUILTIN_PANICKED: i32 = 101;
/// Exit code of a workload that could not be started, as of a shell.
const NOT_STARTED: i32 = 127;

/// Runs the stage's process from its start to the end of the workload.
pub(super) fn run(job: &mut Job, mut reports: UnixStream, proc: &OwnedFd) -> ! {
    if let Err(fault) = apply_layers(job, &mut reports, proc) {
        // If this fails, pid 1 reads the end of the stream instead.
        let _ = wire::send_value(&mut reports, &StageReport::Fault(fault));
        sys::end_process(NOT_STARTED)
    }
    let spec = &job.request.spec;
    let code = match &spec.workload {
        Workload::Command { argv, before: None } => {
            let Err(problem) = execute(argv, spec);
            let fault = Fault::setup(format!("run {}", argv[0]), problem);
            let _ = wire::send_value(&mut reports, &StageReport::Fault(fault));
            NOT_STARTED
        }
        Workload::Command {
            argv,
            before: Some(first),
        } => match call(job, reports, first) {
            0 => {
                let Err(problem) = execute(argv, spec);
                // The stream to pid 1 is closed, because the built-in was the beginning of the workload: only the log and the exit
                // code are left.
                let _ = writeln!(io::stderr(), "failed to run {}: {problem}", argv[0]);
                NOT_STARTED
            }
            failed => failed,
        },
        Workload::Builtin(builtin) => call(job, reports, builtin),
    };
    sys::end_process(code)
}

/// Becomes the program `argv`; returns only if that fails.
fn execute(argv: &[String], spec: &Spec) -> Result<Infallible, String> {
    let text = |s: String| CString::new(s).map_err(|e| e.to_string());
    let arguments: Vec<CString> = argv.iter().cloned().map(text).collect::<Result<_, _>>()?;
    let environment = spec
        .whole_environment()
        .into_iter()
        .map(|(k, v)| text(format!("{k}={v}")));
    let environment: Vec<CString> = environment.collect::<Result<_, _>>()?;
    execve(&arguments[0], &arguments, &environment).map_err(|e| e.to_string())
}

/// Runs a built-in; returns its exit code.
fn call(job: &Job, mut reports: UnixStream, BuiltinCall { name, args }: &BuiltinCall) -> i32 {
    let Some(builtin) = job.builtins.get(name.as_str()).copied() else {
        let fault = Fault::setup("start the stage", format!("there is no built-in {name:?}"));
        let _ = wire::send_value(&mut reports, &StageReport::Fault(fault));
        return NOT_STARTED;
    };
    // The end of this stream tells pid 1 that the workload has begun.
    drop(reports);
    let (code, problem) = match catch_unwind(AssertUnwindSafe(|| builtin(args))) {
        Ok(Ok(())) => return 0,
        Ok(Err(problem)) => (BUILTIN_FAILED, problem),
        Err(_) => (BUILTIN_PANICKED, "it panicked".to_owned()),
    };
    // If the log cannot be written, the exit code still reports the failure.
    let _ = writeln!(io::stderr(), "built-in {name}: {problem}");
    code
}

/// Applies every layer of the sandbox to this process and reports the measurements to pid 1.
///
/// The order matters: the new user namespace comes before seccomp forbids to make one, the measurements of `/proc` before Landlock forbids
/// to open it, `no_new_privs` before Landlock and seccomp, which demand it of a process without capabilities, and the notification filter
/// last, because pid 1 answers no calls before the stage is admitted.
fn apply_layers(job: &mut Job, reports: &mut UnixStream, proc: &OwnedFd) -> Result<(), Fault> {
    let strict = job.request.strict;
    sys::die_with_parent().step("bind the stage to its sandbox")?;
    job.group.enter()?;
    if !is_off(SandboxLayer::ResourceLimits) {
        set_resource_limits(&job.request.spec)?;
    }
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).step("enter a user namespace of the stage's own")?;
    // Pid 1 writes the id maps between this report and its answer.
    wire::send_value(reports, &StageReport::Ids).step("ask for ids")?;
    reports.read_exact(&mut [0u8]).step("get ids")?;

    if !is_off(SandboxLayer::Keyring) {
        sys::join_fresh_keyring().step("leave the session keyring")?;
    }
    let offered = set_processors(job.request.spec.processors())?;
    take_console(job)?;
    apply_variation(&job.request.spec)?;
    sys::set_default_signals();
    SigSet::all().thread_unblock().step("unblock signals")?;

    let spec = &job.request.spec;
    let mut found = measure_before(job, proc)?;
    // Pid 1 answers the question for their number, unless the layer with its filter is off.
    found.cpus = match is_off(SandboxLayer::Seccomp) {
        true => offered,
        false => spec.processors().count,
    };
    let status = self_check::ProcStatus::open(proc)?;
    let probe = proc.try_clone().step("copy a descriptor")?;
    if !is_off(SandboxLayer::Capabilities) {
        drop_capabilities(spec)?;
    }
    if !is_off(SandboxLayer::NoNewPrivs) {
        prctl::set_no_new_privs().step("give up new privileges")?;
    }
    if let Some(reason) = ablation::reason() {
        weaker(reports, strict, reason)?;
    }
    let applied = landlock::apply(&job.plan.rules(spec), strict)?;
    if let Some(reason) = &applied.weaker {
        weaker(reports, strict, reason.clone())?;
    }
    let mut programs = seccomp::programs(spec).step("compile the seccomp filters")?;
    let notifying = notify::program(spec).step("compile the seccomp notification filter")?;
    if is_off(SandboxLayer::Seccomp) {
        programs.clear();
    }
    for program in &programs {
        seccompiler::apply_filter(program).step("install the seccomp filters")?;
    }
    found.landlock_abi = applied.abi;
    found.landlock = applied.status;
    found.landlock_leaks = self_check::can_open_forbidden(&probe);
    found.seccomp_programs = Some(seccomp::programs_digest(programs.iter().chain([&notifying])));
    status.read_into(&mut found)?;
    self_check::judge(&found, spec, applied.weaker.is_none(), job.no_overlay.as_deref())
        .map_or(Ok(()), |problem| weaker(reports, strict, problem))?;
    drop(probe);
    found.leaked_descriptors = sys::keep_only(&*reports).step("close descriptors")?;
    if !is_off(SandboxLayer::Seccomp) {
        let listener = notify::install(&notifying)?;
        wire::send_value(reports, &StageReport::Listener).step("report")?;
        send_descriptors(reports, &[listener]).step("hand over the notification descriptor")?;
    }
    wire::send_value(reports, &StageReport::Measured(Box::new(found))).step("report")
}

/// Sets the umask, the memory layout and the working directory, which a variation may change.
fn apply_variation(spec: &Spec) -> Result<(), Fault> {
    let variation = &spec.variation;
    umask(Mode::from_bits_truncate(variation.umask.unwrap_or(0o022)));
    if variation.fixed_layout {
        sys::add_personality(sys::ADDR_NO_RANDOMIZE).step("fix the layout of memory")?;
    }
    let dir = variation
        .work_dir
        .as_ref()
        .map_or("build".to_owned(), ToString::to_string);
    chdir(format!("/{dir}").as_str()).step(format!("enter /{dir}"))
}

/// The measurements that need `/proc`, taken before Landlock forbids to open it.
fn measure_before(job: &Job, proc: &OwnedFd) -> Result<Measured, Fault> {
    let own = sys::namespaces_at(proc)
        .into_iter()
        .filter(|(name, inode)| job.host_namespaces.get(name) != Some(inode));
    Ok(Measured {
        namespaces: own.map(|(name, _)| name).collect(),
        limits: job.group.mechanism(),
        shared_inputs: self_check::shared(job.plan.inputs())?,
        ..self_check::before(proc)?
    })
}

/// Reports a weaker layer, which is a fault in a strict run.
fn weaker(reports: &mut UnixStream, strict: bool, reason: String) -> Result<(), Fault> {
    if strict {
        return Err(Fault::new(FaultKind::Weaker, reason, ""));
    }
    wire::send_value(reports, &StageReport::Weaker(reason)).step("report")
}

/// Sets the resource limits to values that are the same on every host, or to the caller's hard limits where those are lower.
fn set_resource_limits(spec: &Spec) -> Result<(), Fault> {
    let limits = spec.limits_in_force();
    // Counts the processes of the user namespace made next, and pid 1 above it. One more than the limit, so that the control group or
    // the watchdog, which name the limit, notice it before fork(2) fails.
    let processes = u64::from(limits.processes) + 2;
    let file = limits.largest_file();
    let wanted = [
        (Resource::RLIMIT_NPROC, processes, processes),
        (Resource::RLIMIT_NOFILE, 1024, 4096),
        (Resource::RLIMIT_FSIZE, file, file),
        (Resource::RLIMIT_STACK, 8 << 20, 64 << 20),
        (Resource::RLIMIT_CORE, NO_CORE, NO_CORE),
        (Resource::RLIMIT_MEMLOCK, 64 << 10, 64 << 10),
        (Resource::RLIMIT_MSGQUEUE, 0, 0),
        (Resource::RLIMIT_NICE, 0, 0),
        (Resource::RLIMIT_RTPRIO, 0, 0),
        (Resource::RLIMIT_SIGPENDING, 1024, 1024),
    ];
    for (resource, soft, hard) in wanted {
        let (_, most) = getrlimit(resource).step(format!("read {resource:?}"))?;
        setrlimit(resource, soft.min(most), hard.min(most)).step(format!("set {resource:?}"))?;
    }
    if spec.variation.memory_factor.is_some() {
        let (_, most) = getrlimit(Resource::RLIMIT_DATA).step("read the limit of data")?;
        let data = limits.memory.min(most);
        setrlimit(Resource::RLIMIT_DATA, data, data).step("set the limit of data")?;
    }
    Ok(())
}

/// Sets the processors of this process; returns how many of those wanted the host has. With fewer, the stage takes longer and sees no
/// difference.
fn set_processors(wanted: Processors) -> Result<u32, Fault> {
    let own = Pid::from_raw(0);
    let offered = sched_getaffinity(own).step("read the processors")?;
    let mut all: Vec<usize> = (0..CpuSet::count())
        .filter(|cpu| offered.is_set(*cpu) == Ok(true))
        .collect();
    if wanted.last {
        all.reverse();
    }
    let mut chosen = CpuSet::new();
    let mut count = 0;
    for cpu in all.into_iter().take(wanted.count as usize) {
        chosen.set(cpu).step("choose processors")?;
        count += 1;
    }
    sched_setaffinity(own, &chosen).step("set the processors")?;
    Ok(count)
}

fn take_console(job: &mut Job) -> Result<(), Fault> {
    let [stdin, stdout, stderr] = &job.console[..] else {
        return Err(Fault::setup("take the console", "a descriptor is missing"));
    };
    if job.request.spec.console == Console::Log {
        // The executor's is the host's inode of /dev/null.
        dup2_stdin(File::open("/dev/null").step("open /dev/null")?).step("take standard input")?;
    } else {
        dup2_stdin(stdin).step("take standard input")?;
    }
    dup2_stdout(stdout).step("take standard output")?;
    dup2_stderr(stderr).step("take standard error")?;
    if job.request.spec.console == Console::Inherit && io::stdin().is_terminal() {
        // The stage stays in the caller's session, so that a shell has job control; seccomp forbids to inject terminal input.
        let own = getpid();
        setpgid(Pid::from_raw(0), Pid::from_raw(0)).step("make a process group")?;
        let mut terminal_output = SigSet::empty();
        terminal_output.add(Signal::SIGTTOU);
        terminal_output.thread_block().step("block signals")?;
        // Fails where the terminal is not the controlling one; then there is no foreground to take.
        let _ = tcsetpgrp(io::stdin(), own);
    } else {
        setsid().step("make a session")?;
    }
    Ok(())
}

fn drop_capabilities(spec: &Spec) -> Result<(), Fault> {
    let step = "drop capabilities";
    if spec.capabilities.is_empty() {
        sys::lock_no_root().step(step)?;
    }
    let kept: Vec<caps::Capability> = spec.capabilities.iter().copied().map(kernel_capability).collect();
    for capability in caps::all() {
        // The crate may have a capability that this kernel does not know; it cannot be in the set.
        if !kept.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability).step(step)?;
        }
    }
    // Fails on kernels without ambient sets, where there is nothing to clear.
    let _ = caps::clear(None, CapSet::Ambient);
    caps::clear(None, CapSet::Inheritable).step(step)?;
    let kept = kept.into_iter().collect();
    caps::set(None, CapSet::Effective, &kept).step(step)?;
    caps::set(None, CapSet::Permitted, &kept).step(step)
}
