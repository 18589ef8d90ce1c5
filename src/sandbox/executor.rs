//! The executor: obeys a [`Spec`] by way of the helper, and trusts nothing that comes back without checking it.

use super::{
    Console, LogSink, OutputSpec, SandboxError, Spec, StageOutcome,
    helper::send_descriptors,
    outcome::Measured,
    receive::Receiver,
    wire::{self, Exited, Fault, FaultKind, HelperRequest, STOP, Tag, Usage},
};
use crate::{model::VerityDigest, store::Content};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, SigmaskHow, Signal},
    unistd::{getpgrp, tcsetpgrp},
};
use serde::de::DeserializeOwned;
use std::{
    fs::File,
    io::{self, BufReader, IsTerminal, PipeReader, Read, Write},
    net::Shutdown,
    ops::ControlFlow,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Takes the output that a collected file belongs to, whether the file is executable, and its content; returns its digest and
/// how many bytes it read, which must be all.
pub type PutOutput<'a> = dyn FnMut(&OutputSpec, bool, &mut dyn Content) -> io::Result<(VerityDigest, u64)> + 'a;

/// Runs stages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Executor {
    /// The program whose `__sandbox` command is [`super::helper_main`].
    pub helper: PathBuf,
    /// Whether a layer that is missing or weaker than it should be is an error.
    pub strict: bool,
}

/// Bytes that are taken from the helper at once.
const CHUNK: usize = 256 << 10;
/// Ranges of host ids that root maps stages to: from here on, of 65536 each. Above what container managers use.
const FIRST_BASE_ID: u32 = 0x7000_0000;
/// How many ranges there are.
const BASE_IDS: u32 = 4096;

/// Counts runs, so that stages that run at the same time get different ranges.
static RUNS: AtomicU32 = AtomicU32::new(0);

fn next_base_id() -> u32 {
    let slot = std::process::id()
        .wrapping_mul(61)
        .wrapping_add(RUNS.fetch_add(1, Ordering::Relaxed))
        % BASE_IDS;
    FIRST_BASE_ID + slot * 65_536
}

impl Executor {
    /// Runs `spec` to its end. `put` takes the content of every collected file, `log` what the stage prints.
    ///
    /// Everything the run made is gone when this returns, and also when the calling process is killed.
    ///
    /// # Errors
    ///
    /// Any failure of the sandbox, of the stage (a non-zero exit too), or of its outputs; nothing is collected then.
    pub fn run(
        &self,
        spec: &Spec,
        put: &mut PutOutput<'_>,
        log: &mut dyn LogSink,
    ) -> Result<StageOutcome, SandboxError> {
        if let Some(problem) = spec.problem() {
            let stage = spec.stage.clone();
            return Err(SandboxError::Spec { stage, problem });
        }
        let helper_error = |source| SandboxError::Helper {
            path: self.helper.clone(),
            source,
        };
        let (control, remote) = UnixStream::pair().map_err(helper_error)?;
        let (files, sender) = UnixStream::pair().map_err(helper_error)?;
        let mut command = Command::new(&self.helper);
        command
            .arg("__sandbox")
            .env_clear()
            .stdin(OwnedFd::from(remote))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if spec.console == Console::Log {
            // An interrupt from the terminal ends the caller, and with it everything else, in that order.
            command.process_group(0);
        }
        let child = command.spawn().map_err(helper_error)?;
        drop(command);
        let (mut handed, reader) = console(spec).map_err(helper_error)?;
        handed.push(sender.into());
        let request = HelperRequest {
            spec: spec.clone(),
            strict: self.strict,
            base_id: next_base_id(),
        };
        let mut run = RunningStage {
            spec,
            control: BufReader::with_capacity(CHUNK, control),
            files,
            child,
            reader,
            logged: 0,
            over: None,
            stopped: false,
            found: RunReply::default(),
        };
        let control = run.control.get_mut();
        let sent = send_descriptors(control, &handed).and_then(|()| wire::send_value(control, &request));
        // What is left open here would keep an end from being seen.
        drop(handed);
        let result = match sent {
            Ok(()) => run.serve(put, log),
            Err(error) => Err(run.protocol(format!("does not take its request: {error}"))),
        };
        // Whatever happened: nothing of the run may be alive when this returns. On success it has ended already.
        let _ = run.control.get_ref().shutdown(Shutdown::Both);
        let _ = run.files.shutdown(Shutdown::Both);
        let ended = run.child.wait();
        take_terminal_back(spec);
        let outcome = result?;
        match ended {
            Ok(status) if status.success() => Ok(outcome),
            Ok(status) => Err(run.protocol(format!("ended with {status}"))),
            Err(error) => Err(run.protocol(format!("cannot be waited for: {error}"))),
        }
    }
}

/// Makes the caller the terminal's foreground again, after an interactive stage was.
fn take_terminal_back(spec: &Spec) {
    if spec.console != Console::Inherit || !io::stdin().is_terminal() {
        return;
    }
    let mut terminal_output = SigSet::empty();
    terminal_output.add(Signal::SIGTTOU);
    // When any of this fails the terminal was never taken.
    if let Ok(before) = terminal_output.thread_swap_mask(SigmaskHow::SIG_BLOCK) {
        let _ = tcsetpgrp(io::stdin(), getpgrp());
        let _ = before.thread_set_mask();
    }
}

/// The stage's standard input, output, error, and our end of it.
fn console(spec: &Spec) -> io::Result<(Vec<OwnedFd>, Option<PipeReader>)> {
    match spec.console {
        Console::Log => {
            let (reader, writer) = io::pipe()?;
            let null = File::open("/dev/null")?;
            Ok((
                vec![null.into(), writer.try_clone()?.into(), writer.into()],
                Some(reader),
            ))
        }
        Console::Inherit => {
            let input = io::stdin().as_fd().try_clone_to_owned()?;
            let output = io::stdout().as_fd().try_clone_to_owned()?;
            let error = io::stderr().as_fd().try_clone_to_owned()?;
            Ok((vec![input, output, error], None))
        }
    }
}

/// What the helper has told so far.
#[derive(Default)]
struct RunReply {
    weaker: Vec<String>,
    measured: Option<Measured>,
    exited: Option<Exited>,
    fault: Option<Fault>,
    complete: bool,
    usage: Option<Usage>,
}

/// One run.
struct RunningStage<'a> {
    spec: &'a Spec,
    control: BufReader<UnixStream>,
    /// Over which pid 1 lends large files.
    files: UnixStream,
    child: Child,
    reader: Option<PipeReader>,
    logged: u64,
    /// Why the log ended the run.
    over: Option<SandboxError>,
    stopped: bool,
    found: RunReply,
}

impl RunningStage<'_> {
    fn protocol(&self, problem: String) -> SandboxError {
        SandboxError::Protocol {
            stage: self.spec.stage.clone(),
            problem,
        }
    }

    fn serve(&mut self, put: &mut PutOutput<'_>, log: &mut dyn LogSink) -> Result<StageOutcome, SandboxError> {
        let mut receiver = Receiver::new(self.spec);
        while self.found.usage.is_none() {
            let (spoken, printed) = self.wait()?;
            if printed {
                self.take_log(log);
            }
            if spoken && !self.hear(&mut receiver, put)? {
                break;
            }
        }
        // Every writer is gone: what is left in the pipe ends.
        while self.reader.is_some() && self.over.is_none() {
            self.take_log(log);
        }
        self.conclude(receiver)
    }

    /// Waits until the helper has spoken or the stage has printed.
    fn wait(&self) -> Result<(bool, bool), SandboxError> {
        if !self.control.buffer().is_empty() {
            return Ok((true, false));
        }
        let mut fds = vec![PollFd::new(self.control.get_ref().as_fd(), PollFlags::POLLIN)];
        fds.extend(self.reader.as_ref().map(|r| PollFd::new(r.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok((false, false)),
            Err(error) => return Err(self.protocol(format!("cannot be listened to: {error}"))),
        }
        let ready = |fd: Option<&PollFd<'_>>| fd.and_then(PollFd::any) == Some(true);
        Ok((ready(fds.first()), ready(fds.get(1))))
    }

    fn take_log(&mut self, log: &mut dyn LogSink) {
        let Some(reader) = &mut self.reader else { return };
        let mut buffer = vec![0u8; 64 << 10];
        let got = match reader.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            Ok(0) | Err(_) => {
                self.reader = None;
                return;
            }
            Ok(got) => got,
        };
        if self.over.is_some() {
            return;
        }
        let stage = self.spec.stage.clone();
        let most = self.spec.limits.log_bytes;
        let room = usize::try_from(most.saturating_sub(self.logged)).unwrap_or(usize::MAX);
        self.logged += got as u64;
        match log.output(&buffer[..got.min(room)]) {
            Err(source) => self.over = Some(SandboxError::Log { stage, source }),
            Ok(_) if got > room => {
                let limit = format!("{most} bytes of log");
                self.over = Some(SandboxError::Limit { stage, limit });
            }
            Ok(ControlFlow::Break(())) if !self.stopped => {
                self.stopped = true;
                // The stage may have ended by itself meanwhile; then nobody listens.
                let _ = self.control.get_mut().write_all(&[STOP]);
            }
            Ok(_) => {}
        }
        if self.over.is_some() {
            // Pid 1 takes this for the end of its caller and ends the stage.
            let _ = self.control.get_ref().shutdown(Shutdown::Write);
        }
    }

    fn decode<T: DeserializeOwned>(&self, payload: &[u8]) -> Result<T, SandboxError> {
        serde_json::from_slice(payload).map_err(|e| self.protocol(format!("said what cannot be read: {e}")))
    }

    /// Takes one frame; says whether there may be more.
    fn hear(&mut self, receiver: &mut Receiver<'_>, put: &mut PutOutput<'_>) -> Result<bool, SandboxError> {
        let frame = match wire::receive(&mut self.control) {
            Ok(frame) => frame,
            Err(error) => return Err(self.protocol(format!("broke off: {error}"))),
        };
        let Some((tag, payload)) = frame else { return Ok(false) };
        match tag {
            Tag::Fault => {
                let fault: Fault = self.decode(&payload)?;
                self.found.fault.get_or_insert(fault);
            }
            Tag::Weaker => {
                let what = self.decode(&payload)?;
                self.found.weaker.push(what);
            }
            Tag::Measured => self.found.measured = Some(self.decode(&payload)?),
            Tag::Exited => self.found.exited = Some(self.decode(&payload)?),
            Tag::Output => receiver.begin(self.decode(&payload)?)?,
            Tag::Entry => receiver.entry(&payload, &mut self.control, &self.files, put)?,
            Tag::Complete => self.found.complete = true,
            Tag::Usage => self.found.usage = Some(self.decode(&payload)?),
        }
        Ok(true)
    }

    fn conclude(&mut self, receiver: Receiver<'_>) -> Result<StageOutcome, SandboxError> {
        let stage = self.spec.stage.clone();
        if let Some(error) = self.over.take() {
            return Err(error);
        }
        let RunReply {
            weaker,
            measured,
            exited,
            fault,
            complete,
            usage,
        } = std::mem::take(&mut self.found);
        let usage = usage.unwrap_or_default();
        // A limit explains whatever else went wrong.
        if let Some(limit) = usage.reached.into_iter().next() {
            return Err(SandboxError::Limit { stage, limit });
        }
        if let Some(fault) = fault {
            return Err(explain(stage, fault));
        }
        let (Some(measured), Some(exited)) = (measured, exited) else {
            return Err(self.protocol("went away before the stage had ended".to_owned()));
        };
        if exited.code != 0 {
            let status = match exited.code {
                code @ 129..=192 => format!("signal {}", code - 128),
                code => format!("exit code {code}"),
            };
            return Err(SandboxError::Failed { stage, status });
        }
        if !complete {
            return Err(self.protocol("went away before every output was taken".to_owned()));
        }
        Ok(StageOutcome {
            outputs: receiver.finish()?,
            measured,
            weaker,
            cpu: Duration::from_nanos(usage.cpu_nanos),
            wall: Duration::from_nanos(exited.wall_nanos),
            peak_memory: usage.peak_memory.unwrap_or(exited.peak_memory),
            stopped: exited.stopped,
        })
    }
}

fn explain(stage: String, fault: Fault) -> SandboxError {
    let Fault {
        kind,
        what,
        problem,
        fix,
    } = fault;
    match kind {
        FaultKind::Unavailable => SandboxError::Unavailable {
            stage,
            layer: what,
            problem,
            fix,
        },
        FaultKind::Weaker => SandboxError::Weaker { stage, what },
        FaultKind::Limit => SandboxError::Limit { stage, limit: what },
        FaultKind::Setup => SandboxError::Setup {
            stage,
            step: what,
            problem,
        },
        FaultKind::Output => SandboxError::Output {
            stage,
            output: what,
            problem,
        },
    }
}

/// The output a message is about.
pub(super) fn refusal(spec: &Spec, output: &OutputSpec, problem: impl ToString) -> SandboxError {
    SandboxError::Output {
        stage: spec.stage.clone(),
        output: output.name.clone(),
        problem: problem.to_string(),
    }
}
