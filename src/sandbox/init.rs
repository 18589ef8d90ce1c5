//! Pid 1 of a stage: builds its root, starts it, watches it, ends it, takes its outputs.
//!
//! It is pnb's own code with the privileges of the outer user namespace. The stage, in a user namespace further in,
//! cannot reach it: it is not dumpable, hidden in `/proc`, and outside the stage's Landlock domain.

use super::{
    BuildDir, Ids, Network, Spec, collect, emulator,
    helper::{Job, receive_descriptors},
    notify::Answerer,
    rootfs::{self, Plan},
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

/// The host name every stage sees.
const HOST_NAME: &str = "pnb";
/// The domain name every stage sees: that of a kernel that was given none.
const NO_DOMAIN: &str = "(none)";

/// Pid 1's whole life.
pub(super) fn run(mut job: Job) -> ! {
    let outcome = live(&mut job);
    if let Err(Some(fault)) = outcome {
        // Nobody left to tell when this fails.
        let _ = wire::send(&mut job.control, Tag::Fault, &fault);
    }
    sys::end_process(0)
}

/// Why pid 1 stops early: a fault to tell, or none when the caller has gone.
type Ending = Option<Fault>;

fn live(job: &mut Job) -> Result<(), Ending> {
    sys::die_with_parent().step("bind the sandbox to its parent")?;
    let mut sources = receive_descriptors(&job.sync, job.plan.binds.len()).map_err(|_| None)?;
    become_root_inside(job.request.spec.ids)?;
    if sources.is_empty() {
        for bind in &job.plan.binds {
            sources.push(rootfs::clone_source(bind, None).step(format!("open {}", bind.source.display()))?);
        }
    }
    let names = job.request.spec.variation.names.clone();
    let (host, domain) = names.unwrap_or_else(|| (HOST_NAME.to_owned(), NO_DOMAIN.to_owned()));
    sethostname(host).step("set the host name")?;
    sys::set_domain_name(&domain).step("set the domain name")?;
    if job.request.spec.network == Network::Loopback {
        sys::bring_loopback_up().step("bring the loopback up")?;
    }
    let proc = rootfs::build(&job.request.spec, &job.plan, sources)?;
    // Held until the end of the sandbox: closing it would take the registration back.
    let _formats = job.request.spec.emulator.as_ref().map(emulator::register).transpose()?;

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
    job.console.clear();
    let mut job_end = Supervisor {
        job,
        proc: &proc,
        succeeded: false,
        answerer: None,
    };
    let result = job_end.supervise(stage, reports, &ends);
    let emptied = job_end.empty_build_dir(result.is_ok());
    result?;
    emptied?;
    Ok(())
}

fn become_root_inside(ids: Ids) -> Result<(), Fault> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    if ids == Ids::Range {
        setgroups(&[]).step("drop groups")?;
    }
    setresgid(gid, gid, gid).step("become group 0 inside")?;
    setresuid(uid, uid, uid).step("become user 0 inside")?;
    sys::die_with_parent().step("bind the sandbox to its parent")?;
    // The stage is a copy of this process and its maps must be writable; pid 1 takes this back before the stage starts.
    prctl::set_dumpable(true).step("let the stage be mapped")
}

struct Supervisor<'a> {
    job: &'a mut Job,
    proc: &'a OwnedFd,
    /// Whether the workload ended well.
    succeeded: bool,
    /// Who answers in the kernel's place, where somebody does.
    answerer: Option<Answerer>,
}

impl Supervisor<'_> {
    fn supervise(&mut self, stage: Pid, mut reports: UnixStream, ends: &SignalFd) -> Result<(), Ending> {
        let mut started = self.admit(stage, &mut reports);
        let begin = Instant::now();
        let mut ended = None;
        let mut watchdog = Watchdog::new(&self.job.request.spec, &self.job.group, self.job.meminfo.take());
        if started.is_ok() {
            ended = match self.watch(stage, ends, begin, &mut watchdog) {
                Ok(ended) => Some(ended),
                Err(ending) => {
                    started = Err(ending);
                    None
                }
            };
        }
        let wall = begin.elapsed();
        end_everything()?;
        started?;
        let (code, stopped) = match ended {
            Some(Ended::Code(code)) => (code, false),
            Some(Ended::Stopped) => (0, true),
            None => return Ok(()),
        };
        if let Some(limit) = full(&self.job.request.spec, code) {
            return Err(Some(Fault::new(FaultKind::Limit, limit, "")));
        }
        let exited = Exited {
            code,
            stopped,
            wall_nanos: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
            peak_memory: watchdog.peak(),
        };
        wire::send(&mut self.job.control, Tag::Exited, &exited).map_err(|_| None)?;
        self.succeeded = code == 0;
        if self.succeeded {
            self.unmount_inner_devices()?;
            collect::collect(&self.job.request.spec, &mut self.job.control, &self.job.files)?;
        }
        Ok(())
    }

    /// Maps the stage's ids and passes on what it found about itself, until it has become the workload.
    fn admit(&mut self, stage: Pid, reports: &mut UnixStream) -> Result<(), Ending> {
        let mut byte = [0u8];
        reports.read_exact(&mut byte).step("start the stage")?;
        let ids = self.job.request.spec.ids;
        let deny = ids == Ids::Single;
        // A line may not span two lines of the namespace further out, which an ordinary user's map has.
        let map = match ids {
            Ids::Single => format!("{} 0 1\n", self.job.request.spec.id_inside()),
            Ids::Range => format!("0 0 1\n1 1 {}\n", ids.count() - 1),
        };
        for (name, text) in [("setgroups", "deny"), ("uid_map", &map), ("gid_map", &map)] {
            if name == "setgroups" && !deny {
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
        prctl::set_dumpable(false).step("hide from the stage")?;
        reports.write_all(&byte).step("let the stage go on")?;
        let mut measured = false;
        while let Some(report) = wire::receive_value(reports).step("hear from the stage")? {
            match report {
                StageReport::Weaker(what) => wire::send(&mut self.job.control, Tag::Weaker, &what).map_err(|_| None)?,
                StageReport::Measured(found) => {
                    measured = true;
                    wire::send(&mut self.job.control, Tag::Measured, &found).map_err(|_| None)?;
                }
                StageReport::Listener => {
                    let received = receive_descriptors(reports, 1).step("receive a listener")?;
                    let listener = received.into_iter().next();
                    let variation = &self.job.request.spec.variation;
                    self.answerer = listener.map(|listener| Answerer::new(listener, variation));
                }
                StageReport::Fault(fault) => return Err(Some(fault)),
            }
        }
        if measured {
            Ok(())
        } else {
            Err(Some(Fault::setup(
                "start the stage",
                "it ended before it had measured itself",
            )))
        }
    }

    /// Waits until the stage ends, reaches a limit or is ended from outside.
    fn watch(&mut self, stage: Pid, ends: &SignalFd, begin: Instant, dog: &mut Watchdog) -> Result<Ended, Ending> {
        let wall = self.job.request.spec.limits.wall;
        // By the clock, as a stage can wake this process as often as it likes.
        let mut next_check = begin + dog.interval();
        loop {
            let left = wall.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Err(Some(Fault::new(FaultKind::Limit, format!("wall time of {wall:?}"), "")));
            }
            let until_check = next_check.saturating_duration_since(Instant::now());
            let wait = until_check.min(left).max(Duration::from_millis(1));
            let timeout = PollTimeout::try_from(wait.as_millis().min(60_000) as u64).unwrap_or(PollTimeout::MAX);
            let mut fds = vec![
                PollFd::new(ends.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.job.control.as_fd(), PollFlags::POLLIN),
            ];
            if let Some(answerer) = &self.answerer {
                fds.push(PollFd::new(answerer.listener(), PollFlags::POLLIN));
            }
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(Some(Fault::setup("watch the stage", error))),
            }
            let (some_ended, caller_spoke) = (fds[0].any() == Some(true), fds[1].any() == Some(true));
            let asked = fds.get(2).and_then(PollFd::revents).unwrap_or(PollFlags::empty());
            if let Some(answerer) = &mut self.answerer
                && asked.contains(PollFlags::POLLIN)
            {
                answerer.answer()?;
            }
            if asked.contains(PollFlags::POLLHUP) {
                self.answerer = None;
            }
            if some_ended {
                while let Ok(Some(_)) = ends.read_signal() {}
                if let Some(code) = reap(stage)? {
                    return Ok(code);
                }
            }
            if caller_spoke {
                let mut byte = [0u8];
                return match self.job.control.read(&mut byte) {
                    Ok(1) if byte[0] == STOP => Ok(Ended::Stopped),
                    _ => Err(None),
                };
            }
            if Instant::now() < next_check {
                continue;
            }
            if let Some(Reached(limit)) = dog.check(self.proc, &self.job.group) {
                return Err(Some(Fault::new(FaultKind::Limit, limit, "")));
            }
            next_check = Instant::now() + dog.interval();
        }
    }

    /// Deletes what is left in a build directory of the host, unless the stage failed and that is to be looked at.
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

/// How the stage ended.
enum Ended {
    Code(i32),
    Stopped,
}

/// The limit on files that a stage has run into, as far as its remains tell.
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

/// Exit code of a process: its own, or 128 and the signal.
fn code_of(status: WaitStatus) -> Option<(Pid, i32)> {
    match status {
        WaitStatus::Exited(pid, code) => Some((pid, code)),
        WaitStatus::Signaled(pid, signal, _) => Some((pid, 128 + signal as i32)),
        _ => None,
    }
}

/// Reaps whatever has ended; says how the stage did, once it has.
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
