//! The stage's own process: goes into a user namespace further in, gives up everything it does not need, measures what is
//! left, and becomes the workload.

use super::{
    Console, Preparation, Processors, Spec, Workload,
    helper::{Job, namespaces_at, send_descriptors},
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
    io::{self, IsTerminal, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Exit code of a built-in that failed.
const BUILTIN_FAILED: i32 = 1;
/// Exit code of a built-in that panicked, which is a defect of it.
const BUILTIN_PANICKED: i32 = 101;

/// The stage's process, from its start to the end of the workload.
pub(super) fn run(job: &mut Job, mut reports: UnixStream, proc: &OwnedFd) -> ! {
    if let Err(fault) = prepare(job, &mut reports, proc) {
        // Pid 1 sees the end of the stream when this fails.
        let _ = wire::send_value(&mut reports, &StageReport::Fault(fault));
        sys::end_process(127)
    }
    let spec = &job.request.spec;
    match (&spec.workload, &spec.prepare) {
        (Workload::Command { argv }, None) => match execute(argv, spec) {
            Ok(never) => match never {},
            Err(problem) => {
                let fault = Fault::setup(format!("run {}", argv[0]), problem);
                let _ = wire::send_value(&mut reports, &StageReport::Fault(fault));
                sys::end_process(127)
            }
        },
        (Workload::Command { argv }, Some(Preparation { name, args })) => {
            let code = call(job, reports, name, args);
            if code != 0 {
                sys::end_process(code)
            }
            match execute(argv, spec) {
                Ok(never) => match never {},
                Err(problem) => {
                    // Pid 1 takes the workload for begun; the exit code says it too when the log cannot be written.
                    let _ = writeln!(io::stderr(), "failed to run {}: {problem}", argv[0]);
                    sys::end_process(127)
                }
            }
        }
        (Workload::Builtin { name, args }, _) => sys::end_process(call(job, reports, name, args)),
    }
}

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

/// Runs a built-in; its exit code.
fn call(job: &Job, mut reports: UnixStream, name: &str, args: &[u8]) -> i32 {
    let Some(builtin) = job.builtins.get(name).copied() else {
        let fault = Fault::setup("start the stage", format!("there is no built-in {name:?}"));
        let _ = wire::send_value(&mut reports, &StageReport::Fault(fault));
        return 127;
    };
    // The end of this stream tells pid 1 that the workload has begun.
    drop(reports);
    let (code, problem) = match catch_unwind(AssertUnwindSafe(|| builtin(args))) {
        Ok(Ok(())) => return 0,
        Ok(Err(problem)) => (BUILTIN_FAILED, problem),
        Err(_) => (BUILTIN_PANICKED, "it panicked".to_owned()),
    };
    // The exit code says it too when the log cannot be written.
    let _ = writeln!(io::stderr(), "built-in {name}: {problem}");
    code
}

/// Applies every layer, in the one order that works, and reports what it found.
fn prepare(job: &mut Job, reports: &mut UnixStream, proc: &OwnedFd) -> Result<(), Fault> {
    let spec = &job.request.spec;
    let strict = job.request.strict;
    sys::die_with_parent().step("bind the stage to its sandbox")?;
    job.group.enter()?;
    set_resource_limits(spec)?;
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).step("enter a user namespace of the stage's own")?;
    reports.write_all(b"u").step("ask for ids")?;
    reports.read_exact(&mut [0u8]).step("get ids")?;

    sys::join_fresh_keyring().step("leave the session keyring")?;
    let meant = spec.variation.processors;
    let meant = meant.unwrap_or(Processors {
        count: spec.limits.cpus,
        last: false,
    });
    let cpus = set_processors(meant)?;
    if cpus < meant.count {
        let what = format!("the stage sees {cpus} processors, {} are declared", meant.count);
        weaker(reports, strict, what)?;
    }
    take_console(job)?;
    let variation = &job.request.spec.variation;
    umask(Mode::from_bits_truncate(variation.umask.unwrap_or(0o022)));
    if variation.fixed_layout {
        sys::add_personality(sys::ADDR_NO_RANDOMIZE).step("fix the layout of memory")?;
    }
    let place = variation
        .work_dir
        .as_ref()
        .map_or("build".to_owned(), ToString::to_string);
    chdir(format!("/{place}").as_str()).step(format!("enter /{place}"))?;
    sys::set_default_signals();
    SigSet::all().thread_unblock().step("unblock signals")?;

    let spec = &job.request.spec;
    let mut found = self_check::before(proc)?;
    let inside = namespaces_at(proc);
    found.namespaces = inside
        .into_iter()
        .filter(|(name, id)| job.host_namespaces.get(name) != Some(id))
        .map(|(name, _)| name)
        .collect();
    found.limits = job.group.mechanism();
    found.cpus = cpus;
    let status = self_check::ProcStatus::open(proc)?;
    let probe = proc.try_clone().step("copy a descriptor")?;
    // What follows needs no descriptor but these three, which then are 3, 4 and 5.
    drop_capabilities(spec)?;
    prctl::set_no_new_privs().step("give up new privileges")?;
    let applied = landlock::apply(&job.plan.rules(spec), strict)?;
    if let Some(what) = &applied.weaker {
        weaker(reports, strict, what.clone())?;
    }
    let programs = seccomp::programs(spec).step("compile the seccomp filters")?;
    for program in &programs {
        seccompiler::apply_filter(program).step("install the seccomp filters")?;
    }
    found.landlock_abi = applied.abi;
    found.landlock = applied.status;
    found.landlock_leaks = self_check::can_open_forbidden(&probe);
    found.seccomp_programs = Some(seccomp::programs_digest(&programs));
    status.read_into(&mut found)?;
    self_check::judge(&found, spec, applied.weaker.is_none()).map_or(Ok(()), |what| weaker(reports, strict, what))?;
    drop(probe);
    found.leaked_descriptors = sys::keep_only(&*reports).step("close descriptors")?;
    if let Some(listener) = notify::install(&spec.variation)? {
        wire::send_value(reports, &StageReport::Listener).step("report")?;
        send_descriptors(reports, &[listener]).step("hand over the listener")?;
    }
    wire::send_value(reports, &StageReport::Measured(Box::new(found))).step("report")
}

fn weaker(reports: &mut UnixStream, strict: bool, what: String) -> Result<(), Fault> {
    if strict {
        return Err(Fault::new(FaultKind::Weaker, what, ""));
    }
    wire::send_value(reports, &StageReport::Weaker(what)).step("report")
}

/// Resource limits, as far as the caller's hard limits let them be what they should be on every host.
fn set_resource_limits(spec: &Spec) -> Result<(), Fault> {
    let limits = spec.limits_in_force();
    // Counts the processes of the user namespace made next, and pid 1 above it. One more than the limit: what keeps count,
    // a control group or the watchdog, is to be the first to notice.
    let processes = u64::from(limits.processes) + 2;
    let file = limits.largest_file();
    let wanted = [
        (Resource::RLIMIT_NPROC, processes, processes),
        (Resource::RLIMIT_NOFILE, 1024, 4096),
        (Resource::RLIMIT_FSIZE, file, file),
        (Resource::RLIMIT_STACK, 8 << 20, 64 << 20),
        (Resource::RLIMIT_CORE, 0, 0),
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

/// Lets the stage see the processors that are wanted; returns how many it really has.
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
    dup2_stdin(stdin).step("take standard input")?;
    dup2_stdout(stdout).step("take standard output")?;
    dup2_stderr(stderr).step("take standard error")?;
    if job.request.spec.console == Console::Inherit && io::stdin().is_terminal() {
        // A shell steers its jobs from the caller's session; seccomp keeps it from typing into the terminal.
        let own = getpid();
        setpgid(Pid::from_raw(0), Pid::from_raw(0)).step("make a process group")?;
        let mut terminal_output = SigSet::empty();
        terminal_output.add(Signal::SIGTTOU);
        terminal_output.thread_block().step("block signals")?;
        // Not the controlling terminal: then there is no foreground to take.
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
    let kept: Vec<caps::Capability> = spec.capabilities.iter().map(|c| c.kernel()).collect();
    for capability in caps::all() {
        // A capability the kernel does not know cannot be in the set.
        if !kept.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, capability).step(step)?;
        }
    }
    // Kernels that cannot do ambient sets have nothing in them.
    let _ = caps::clear(None, CapSet::Ambient);
    caps::clear(None, CapSet::Inheritable).step(step)?;
    let kept = kept.into_iter().collect();
    caps::set(None, CapSet::Effective, &kept).step(step)?;
    caps::set(None, CapSet::Permitted, &kept).step(step)
}
