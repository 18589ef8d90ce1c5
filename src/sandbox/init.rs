//! Pid 1 of a stage: builds the stage's root, starts the stage, supervises and ends it, collects its outputs.
//!
//! It is pnb's own code with the privileges of the outer user namespace. The stage, in a nested user namespace, cannot reach it: pid 1
//! is not dumpable, hidden in `/proc`, and outside the stage's Landlock domain.

use super::{
    BuildDir, Ids, Network, Spec,
    ablation::{SandboxLayer, is_off},
    collect,
    descriptors::receive_descriptors,
    emulator,
    ending::{Ending, OrDisconnected},
    idmap::parse_map,
    job::Job,
    nesting,
    notify::Answerer,
    plan::Plan,
    refusal::Refusals,
    rootfs::{self, Built, Mounts},
    sys::{self, Cloned},
    watchdog::{Reached, Watchdog},
    wire::{self, Exited, Fault, FaultKind, STOP, StageReport, Step, Tag},
    workload,
};
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    mount::{MntFlags, umount2},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        stat::Mode,
        statvfs::statvfs,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Gid, Pid, Uid, setgroups, sethostname, setresgid, setresuid},
};
use std::{
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

/// The host name of every ordinary stage.
const HOST_NAME: &str = "pnb";
/// The domain name of every ordinary stage: the kernel's own before any is set.
const NO_DOMAIN: &str = "(none)";
/// Longest wait in one poll(2).
const MAX_POLL_MILLIS: u128 = 60_000;

/// Runs pid 1 from its start to its end.
pub(super) fn run(mut job: Job) -> ! {
    if let Err(Ending::Fault(fault)) = run_stage(&mut job) {
        // If this fails, the executor is gone and nothing is left to be told.
        let _ = wire::send(&mut job.control, Tag::Fault, &fault);
    }
    sys::end_process(0)
}

fn run_stage(job: &mut Job) -> Result<(), Ending> {
    sys::die_with_parent().step("bind the sandbox to its parent")?;
    let mut opened = receive_descriptors(&job.sync, job.plan.opened()).or_disconnected()?;
    become_root_inside(job.request.spec.ids)?;
    if opened.is_empty() {
        opened = job.plan.open(None)?;
    }
    nesting::forbid();
    if !is_off(SandboxLayer::UtsNamespace) {
        set_names(&job.request.spec)?;
    }
    if job.request.spec.network == Network::Loopback {
        sys::bring_loopback_up().step("bring the loopback up")?;
    }
    let devices = job.devices.take();
    let Built { proc, no_overlay } = rootfs::build(&job.request.spec, &job.plan, Mounts { opened, devices })?;
    job.no_overlay = no_overlay;
    // Kept open until the end of the sandbox: dropping the mount removes the registration.
    let _binfmt = job.request.spec.emulator.as_ref().map(emulator::register).transpose()?;

    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block().step("block signals")?;
    let ends = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).step("watch for ends")?;
    let (reports, theirs) = UnixStream::pair().step("make a socket pair")?;
    let stage = match sys::clone_process(0).step("start the stage")? {
        Cloned::Child => {
            drop(reports);
            workload::run(job, theirs, &proc)
        }
        Cloned::Parent(pid) => Pid::from_raw(pid),
    };
    drop(theirs);
    // The stage holds the console now: with these open, the executor would never read the end of the log.
    job.console.clear();
    let mut supervisor = Supervisor {
        job,
        proc: &proc,
        succeeded: false,
        answerer: None,
        refusals: Refusals::default(),
    };
    let result = supervisor.supervise(stage, reports, &ends);
    let emptied = supervisor.empty_build_dir(result.is_ok());
    result?;
    emptied?;
    Ok(())
}

fn set_names(spec: &Spec) -> Result<(), Fault> {
    let names = spec.variation.names.clone();
    let (host, domain) = names.unwrap_or_else(|| (HOST_NAME.to_owned(), NO_DOMAIN.to_owned()));
    sethostname(host).step("set the host name")?;
    sys::set_domain_name(&domain).step("set the domain name")
}

fn become_root_inside(ids: Ids) -> Result<(), Fault> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    if ids == Ids::Range {
        setgroups(&[]).step("drop groups")?;
    }
    setresgid(gid, gid, gid).step("become group 0 inside")?;
    setresuid(uid, uid, uid).step("become user 0 inside")?;
    // A change of ids clears the signal that die_with_parent() has set (prctl(2), PR_SET_PDEATHSIG).
    sys::die_with_parent().step("bind the sandbox to its parent")?;
    // The stage begins as a copy of this process, and its id maps can be written only while it is dumpable. Pid 1 becomes not
    // dumpable again before the stage continues.
    prctl::set_dumpable(true).step("let the stage be mapped")
}

/// Pid 1 while the stage runs, and after.
struct Supervisor<'a> {
    job: &'a mut Job,
    proc: &'a OwnedFd,
    /// Whether the workload ended with exit code 0, and no refusal makes that a failure.
    succeeded: bool,
    /// Answers system calls of the stage that would tell of the host, that the variation changes, or that are refused.
    answerer: Option<Answerer<'a>>,
    /// The refused calls so far.
    refusals: Refusals,
}

impl Supervisor<'_> {
    fn supervise(&mut self, stage: Pid, mut reports: UnixStream, ends: &SignalFd) -> Result<(), Ending> {
        let started = self.admit(stage, &mut reports);
        let begin = Instant::now();
        let mut watchdog = Watchdog::new(&self.job.request.spec, &self.job.group, self.job.meminfo.take());
        let ended = started.and_then(|()| self.watch(stage, ends, begin, &mut watchdog));
        let wall = begin.elapsed();
        // Before any return: no process of the stage may outlive its supervision.
        end_everything()?;
        let (code, stopped) = match ended? {
            Ended::Code(code) => (code, false),
            Ended::Stopped => (0, true),
        };
        if let Some(limit) = full(&self.job.request.spec, code) {
            return Err(Fault::new(FaultKind::Limit, limit, "").into());
        }
        wire::send(&mut self.job.control, Tag::Refused, &self.refusals).or_disconnected()?;
        let exited = Exited {
            code,
            stopped,
            wall_nanos: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
            peak_memory: watchdog.peak(),
        };
        wire::send(&mut self.job.control, Tag::Exited, &exited).or_disconnected()?;
        self.succeeded = code == 0 && self.refusals.judge(&self.job.request.spec, stopped).is_none();
        if self.succeeded {
            self.unmount_inner_devices()?;
            collect::collect(&self.job.request.spec, &mut self.job.control, &self.job.files)?;
        }
        Ok(())
    }

    /// Maps the stage's ids and forwards its measurements to the executor, until it becomes the workload.
    fn admit(&mut self, stage: Pid, reports: &mut UnixStream) -> Result<(), Ending> {
        // Whatever fails before is told in place of the wish for ids.
        match wire::receive_value(reports).step("start the stage")? {
            Some(StageReport::Ids) => self.map_ids(stage)?,
            Some(StageReport::Fault(fault)) => return Err(fault.into()),
            _ => return Err(Fault::setup("start the stage", "it ended before it had a user namespace").into()),
        }
        prctl::set_dumpable(is_off(SandboxLayer::Hiding)).step("hide from the stage")?;
        reports.write_all(&[0]).step("let the stage continue")?;
        let mut measured = false;
        while let Some(report) = wire::receive_value(reports).step("read the stage's report")? {
            match report {
                StageReport::Weaker(reason) => {
                    wire::send(&mut self.job.control, Tag::Weaker, &reason).or_disconnected()?;
                }
                StageReport::Measured(found) => {
                    measured = true;
                    wire::send(&mut self.job.control, Tag::Measured, &found).or_disconnected()?;
                }
                StageReport::Listener => {
                    let received = receive_descriptors(reports, 1).step("receive the notification descriptor")?;
                    let listener = received.into_iter().next();
                    let (spec, proc) = (&self.job.request.spec, self.proc.as_fd());
                    self.answerer = listener.map(|listener| Answerer::new(listener, spec, proc));
                }
                StageReport::Fault(fault) => return Err(fault.into()),
                StageReport::Ids => {
                    return Err(Fault::setup("start the stage", "it asks for its ids a second time").into());
                }
            }
        }
        if measured {
            Ok(())
        } else {
            Err(Fault::setup("start the stage", "it ended before it had measured itself").into())
        }
    }

    /// A map of each id of this namespace to itself, with the lines of its own map.
    fn own_lines(&self, name: &str) -> Result<String, Fault> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let path = format!("self/{name}");
        let file = openat(self.proc, path.as_str(), flags, Mode::empty()).step(format!("open {name}"))?;
        let mut text = String::new();
        File::from(file)
            .read_to_string(&mut text)
            .step(format!("read {name}"))?;
        // Id 0 has a line of its own, as in the map of an ordinary user: the stage's map is then the same for most callers.
        let ranges = parse_map(&text)
            .into_iter()
            .flat_map(|(first, last)| match (first, last) {
                (0, 1..) => vec![(0, 0), (1, last)],
                _ => vec![(first, last)],
            });
        Ok(ranges
            .map(|(first, last)| format!("{first} {first} {}\n", last - first + 1))
            .collect())
    }

    /// Writes the id maps of the stage's own user namespace.
    fn map_ids(&self, stage: Pid) -> Result<(), Fault> {
        let spec = &self.job.request.spec;
        // One line of this map must lie within one line of the outer namespace's map, which has as many as the caller's ids have ranges.
        let map = |name: &str| match spec.ids {
            Ids::Single => Ok(format!("{} 0 1\n", spec.id_inside())),
            Ids::Range => self.own_lines(name),
        };
        let texts = [
            ("setgroups", "deny".to_owned()),
            ("uid_map", map("uid_map")?),
            ("gid_map", map("gid_map")?),
        ];
        for (name, text) in texts {
            if name == "setgroups" && spec.ids == Ids::Range {
                continue;
            }
            let path = format!("{stage}/{name}");
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            let file =
                openat(self.proc, path.as_str(), flags, Mode::empty()).step(format!("open {name} of the stage"))?;
            File::from(file)
                .write_all(text.as_bytes())
                .step(format!("write {name} of the stage"))?;
        }
        Ok(())
    }

    /// Waits until the stage ends, reaches a limit or is stopped by the executor.
    fn watch(&mut self, stage: Pid, ends: &SignalFd, begin: Instant, dog: &mut Watchdog) -> Result<Ended, Ending> {
        let wall = self.job.request.spec.wall_limit();
        // By the clock, not by the number of wakeups: a stage can wake this process as often as it likes.
        let mut next_check = begin + dog.interval();
        loop {
            let left = wall.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Err(Fault::new(FaultKind::Limit, format!("wall time of {wall:?}"), "").into());
            }
            let until_check = next_check.saturating_duration_since(Instant::now());
            let woken = self.poll(ends, until_check.min(left))?;
            if woken.stage_ended {
                while let Ok(Some(_)) = ends.read_signal() {}
                if let Some(code) = reap(stage)? {
                    return Ok(code);
                }
            }
            if woken.executor_sent {
                let mut byte = [0u8];
                return match self.job.control.read(&mut byte) {
                    Ok(1) if byte[0] == STOP => Ok(Ended::Stopped),
                    _ => Err(Ending::Disconnected),
                };
            }
            if Instant::now() < next_check {
                continue;
            }
            if let Some(Reached(limit)) = dog
                .check(self.proc, &self.job.group)
                .filter(|_| !is_off(SandboxLayer::Watchdog))
            {
                return Err(Fault::new(FaultKind::Limit, limit, "").into());
            }
            next_check = Instant::now() + dog.interval();
        }
    }

    /// Waits for at most `time`, and answers a system call of the stage if one waits.
    fn poll(&mut self, ends: &SignalFd, time: Duration) -> Result<Woken, Ending> {
        let time = time.max(Duration::from_millis(1)).as_millis().min(MAX_POLL_MILLIS);
        let timeout = PollTimeout::try_from(time as u64).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![
            PollFd::new(ends.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.job.control.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(answerer) = &self.answerer {
            fds.push(PollFd::new(answerer.listener(), PollFlags::POLLIN));
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Fault::setup("watch the stage", error).into()),
        }
        let woken = Woken {
            stage_ended: fds[0].any() == Some(true),
            executor_sent: fds[1].any() == Some(true),
        };
        let notified = fds.get(2).and_then(PollFd::revents).unwrap_or(PollFlags::empty());
        if let Some(answerer) = &mut self.answerer
            && notified.contains(PollFlags::POLLIN)
        {
            answerer.answer(&mut self.refusals)?;
        }
        // No process is left that the filter applies to.
        if notified.contains(PollFlags::POLLHUP) {
            self.answerer = None;
        }
        Ok(woken)
    }

    /// Deletes the content of a build directory of the host, unless the stage failed and its directory is to be kept.
    fn empty_build_dir(&self, collected: bool) -> Result<(), Fault> {
        let spec = &self.job.request.spec;
        match spec.build_dir {
            BuildDir::Tmpfs => Ok(()),
            BuildDir::Disk(_) if spec.keep_failed && !(collected && self.succeeded) => Ok(()),
            BuildDir::Disk(_) => {
                if !self.succeeded {
                    self.unmount_inner_devices()?;
                }
                super::build_dir::empty("/build").step("delete the build directory")
            }
        }
    }

    fn unmount_inner_devices(&self) -> Result<(), Fault> {
        for dir in Plan::inner_devices(&self.job.request.spec) {
            umount2(&dir, MntFlags::MNT_DETACH).step(format!("unmount {}", dir.display()))?;
        }
        Ok(())
    }
}

/// Reasons for which [`Supervisor::poll`] returned.
struct Woken {
    /// A process of the sandbox has ended.
    stage_ended: bool,
    /// The executor sent a byte, or is gone.
    executor_sent: bool,
}

/// The end of the workload.
enum Ended {
    /// It exited, or a signal killed it.
    Code(i32),
    /// The executor stopped it.
    Stopped,
}

/// The limit on files that the stage has reached, as far as its file systems and its exit code show.
fn full(spec: &Spec, code: i32) -> Option<String> {
    let limits = &spec.limits;
    let own = spec.build_dir == BuildDir::Tmpfs;
    for (point, bytes) in [("/build", limits.build_bytes), ("/tmp", limits.tmp_bytes)] {
        let Some(left) = statvfs(point).ok().filter(|_| own || point == "/tmp") else {
            continue;
        };
        if left.blocks_available() == 0 {
            return Some(format!("{bytes} bytes below {point}"));
        }
        if left.files_available() == 0 {
            return Some(format!("{} inodes below {point}", limits.build_inodes));
        }
    }
    (code == 128 + Signal::SIGXFSZ as i32).then(|| format!("a file of {} bytes", limits.largest_file()))
}

/// A process and its exit code: its own, or 128 plus the number of the signal.
fn code_of(status: WaitStatus) -> Option<(Pid, i32)> {
    match status {
        WaitStatus::Exited(pid, code) => Some((pid, code)),
        WaitStatus::Signaled(pid, signal, _) => Some((pid, 128 + signal as i32)),
        _ => None,
    }
}

/// Reaps all processes that have ended; returns the stage's end if it is among them.
fn reap(stage: Pid) -> Result<Option<Ended>, Fault> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::StillAlive) => return Ok(None),
            Ok(status) => {
                if let Some((pid, code)) = code_of(status)
                    && pid == stage
                {
                    return Ok(Some(Ended::Code(code)));
                }
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(Fault::setup("wait for the stage", error)),
        }
    }
}

/// Kills every process of this pid namespace but the caller and waits until none is left.
fn end_everything() -> Result<(), Fault> {
    loop {
        match kill(Pid::from_raw(-1), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(Fault::setup("end the stage", error)),
        }
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(error) => return Err(Fault::setup("wait for the end of the stage", error)),
        }
    }
}
