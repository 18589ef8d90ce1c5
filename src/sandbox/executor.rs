//! The executor: carries out a [`Spec`] with the help of the helper, and checks everything the helper returns.

use super::{
    Console, LogSink, PutOutput, Refusals, SandboxError, Spec, StageOutcome,
    descriptors::send_descriptors,
    outcome::Measured,
    receive::Receiver,
    refusal::Undeclared,
    wire::{self, Exited, Fault, FaultKind, HelperRequest, STOP, Tag, Usage},
};
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
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

/// Runs stages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Executor {
    /// The program whose `__sandbox` command is [`super::helper_main`].
    pub helper: PathBuf,
    /// Whether a layer that is missing or weaker than on a current kernel is an error.
    pub strict: bool,
}

/// Bytes read from the helper at once.
const CHUNK: usize = 256 << 10;
/// Bytes read from the log at once.
const LOG_CHUNK: usize = 64 << 10;
impl Executor {
    /// Runs `spec` to its end. `put` stores the content of every collected file, `log` receives the stage's output.
    ///
    /// All processes, mounts and temporary files of the run are gone when this returns, and also when the calling process is killed.
    ///
    /// # Errors
    ///
    /// Any failure of the sandbox, of the stage (a non-zero exit too), or of its outputs; no output is returned then.
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
        let (mut run, handed) = self.start(spec).map_err(|source| SandboxError::Helper {
            path: self.helper.clone(),
            source,
        })?;
        let request = HelperRequest {
            spec: spec.clone(),
            strict: self.strict,
        };
        let control = run.control.get_mut();
        let sent = send_descriptors(control, &handed).and_then(|()| wire::send_value(control, &request));
        // A copy of a pipe's writing end that is left open here would hide the end of the log.
        drop(handed);
        let result = match sent {
            Ok(()) => run.serve(put, log),
            Err(error) => Err(run.protocol(format!("does not take its request: {error}"))),
        };
        let ended = run.end();
        let outcome = result?;
        match ended {
            Ok(status) if status.success() => Ok(outcome),
            Ok(status) => Err(run.protocol(format!("ended with {status}"))),
            Err(error) => Err(run.protocol(format!("cannot be waited for: {error}"))),
        }
    }

    /// Starts the helper; returns the run and the descriptors to be sent to it.
    fn start<'a>(&self, spec: &'a Spec) -> io::Result<(RunningStage<'a>, Vec<OwnedFd>)> {
        let (control, remote) = UnixStream::pair()?;
        let (files, sender) = UnixStream::pair()?;
        let mut command = Command::new(&self.helper);
        command
            .arg("__sandbox")
            .env_clear()
            .stdin(OwnedFd::from(remote))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if spec.console == Console::Log {
            // The terminal's interrupt reaches the caller only. The caller's end then ends the helper, and so the stage.
            command.process_group(0);
        }
        let child = command.spawn()?;
        // Closes this process' copy of the helper's end of the socket.
        drop(command);
        let (mut handed, reader) = console(spec)?;
        handed.push(sender.into());
        let run = RunningStage {
            spec,
            control: BufReader::with_capacity(CHUNK, control),
            files,
            child,
            reader,
            logged: 0,
            over: None,
            stopped: false,
            reply: HelperReply::default(),
        };
        Ok((run, handed))
    }
}

/// Makes the caller's process group the terminal's foreground again, after an interactive stage.
fn take_terminal_back(spec: &Spec) {
    if spec.console != Console::Inherit || !io::stdin().is_terminal() {
        return;
    }
    let mut terminal_output = SigSet::empty();
    terminal_output.add(Signal::SIGTTOU);
    // Any of this fails only where the stage could not take the terminal.
    if let Ok(before) = terminal_output.thread_swap_mask(SigmaskHow::SIG_BLOCK) {
        let _ = tcsetpgrp(io::stdin(), getpgrp());
        let _ = before.thread_set_mask();
    }
}

/// The stage's standard input, output and error, and the reading end of its log.
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

/// The helper's and pid 1's messages so far.
#[derive(Default)]
struct HelperReply {
    weaker: Vec<String>,
    measured: Option<Measured>,
    refusals: Refusals,
    exited: Option<Exited>,
    fault: Option<Fault>,
    complete: bool,
    usage: Option<Usage>,
}

/// A run whose helper was started.
struct RunningStage<'a> {
    spec: &'a Spec,
    control: BufReader<UnixStream>,
    /// Receives descriptors of large files from pid 1.
    files: UnixStream,
    child: Child,
    /// Reading end of the log; `None` after its end, and for an interactive stage.
    reader: Option<PipeReader>,
    /// Bytes of log so far.
    logged: u64,
    /// The log's error that ended the run.
    over: Option<SandboxError>,
    /// Whether [`STOP`] was sent.
    stopped: bool,
    reply: HelperReply,
}

impl RunningStage<'_> {
    /// Closes the connection, which ends all processes of the run that are left, and waits for the helper.
    fn end(&mut self) -> io::Result<ExitStatus> {
        let _ = self.control.get_ref().shutdown(Shutdown::Both);
        let _ = self.files.shutdown(Shutdown::Both);
        let ended = self.child.wait();
        take_terminal_back(self.spec);
        ended
    }

    fn protocol(&self, problem: String) -> SandboxError {
        SandboxError::Protocol {
            stage: self.spec.stage.clone(),
            problem,
        }
    }

    fn serve(&mut self, put: &mut PutOutput<'_>, log: &mut dyn LogSink) -> Result<StageOutcome, SandboxError> {
        let mut receiver = Receiver::new(self.spec);
        while self.reply.usage.is_none() {
            let (message, output) = self.wait()?;
            if output {
                self.take_log(log);
            }
            if message && !self.take_frame(&mut receiver, put)? {
                break;
            }
        }
        // All writers of the pipe are gone, so reading the rest of the log comes to an end.
        while self.reader.is_some() && self.over.is_none() {
            self.take_log(log);
        }
        self.conclude(receiver)
    }

    /// Waits for a frame of the helper or for output of the stage; returns which of them is there.
    fn wait(&self) -> Result<(bool, bool), SandboxError> {
        if !self.control.buffer().is_empty() {
            return Ok((true, false));
        }
        let mut fds = vec![PollFd::new(self.control.get_ref().as_fd(), PollFlags::POLLIN)];
        fds.extend(self.reader.as_ref().map(|r| PollFd::new(r.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok((false, false)),
            Err(error) => return Err(self.protocol(format!("cannot be polled: {error}"))),
        }
        let ready = |fd: Option<&PollFd<'_>>| fd.and_then(PollFd::any) == Some(true);
        Ok((ready(fds.first()), ready(fds.get(1))))
    }

    /// Reads a piece of the log and hands it to the log sink. An error of the sink, or a log that is too long, ends the run.
    fn take_log(&mut self, log: &mut dyn LogSink) {
        let Some(reader) = &mut self.reader else { return };
        let mut buffer = vec![0u8; LOG_CHUNK];
        let got = match reader.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            Ok(0) | Err(_) => {
                self.reader = None;
                return;
            }
            Ok(got) => got,
        };
        // The run is ending: the log is read on only so that the stage does not block.
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
                // Fails where the stage has ended by itself and pid 1 with it.
                let _ = self.control.get_mut().write_all(&[STOP]);
            }
            Ok(_) => {}
        }
        if self.over.is_some() {
            // Pid 1 reads the end of the stream, as if the executor were gone, and ends the stage.
            let _ = self.control.get_ref().shutdown(Shutdown::Write);
        }
    }

    fn decode<T: DeserializeOwned>(&self, payload: &[u8]) -> Result<T, SandboxError> {
        serde_json::from_slice(payload).map_err(|e| self.protocol(format!("sent an unreadable message: {e}")))
    }

    /// Takes one frame; returns whether more may follow.
    fn take_frame(&mut self, receiver: &mut Receiver<'_>, put: &mut PutOutput<'_>) -> Result<bool, SandboxError> {
        let frame = match wire::receive(&mut self.control) {
            Ok(frame) => frame,
            Err(error) => return Err(self.protocol(format!("broke off: {error}"))),
        };
        let Some((tag, payload)) = frame else { return Ok(false) };
        match tag {
            Tag::Fault => {
                let fault: Fault = self.decode(&payload)?;
                self.reply.fault.get_or_insert(fault);
            }
            Tag::Weaker => {
                let reason = self.decode(&payload)?;
                self.reply.weaker.push(reason);
            }
            Tag::Measured => self.reply.measured = Some(self.decode(&payload)?),
            Tag::Refused => self.reply.refusals = self.decode(&payload)?,
            Tag::Exited => self.reply.exited = Some(self.decode(&payload)?),
            Tag::Output => receiver.begin(self.decode(&payload)?)?,
            Tag::Entry => receiver.entry(&payload, &mut self.control, &self.files, put)?,
            Tag::Complete => self.reply.complete = true,
            Tag::Usage => self.reply.usage = Some(self.decode(&payload)?),
        }
        Ok(true)
    }

    /// Judges the run after its last frame.
    fn conclude(&mut self, receiver: Receiver<'_>) -> Result<StageOutcome, SandboxError> {
        let stage = self.spec.stage.clone();
        if let Some(error) = self.over.take() {
            return Err(error);
        }
        let HelperReply {
            weaker,
            measured,
            refusals,
            exited,
            fault,
            complete,
            usage,
        } = std::mem::take(&mut self.reply);
        let usage = usage.unwrap_or_default();
        // A reached limit is the cause of all other errors.
        if let Some(limit) = usage.reached.into_iter().next() {
            return Err(SandboxError::Limit { stage, limit });
        }
        if let Some(fault) = fault {
            return Err(explain(stage, fault));
        }
        let (Some(mut measured), Some(exited)) = (measured, exited) else {
            return Err(self.protocol("ended before the stage".to_owned()));
        };
        let undeclared = refusals.judge(self.spec, exited.stopped);
        measured.refused = refusals;
        if exited.code != 0 {
            let status = match exited.code {
                code @ 129..=192 => format!("signal {}", code - 128),
                code => format!("exit code {code}"),
            };
            let refused = undeclared.map(|undeclared| undeclared.lines).unwrap_or_default();
            return Err(SandboxError::Failed { stage, status, refused });
        }
        if let Some(Undeclared { lines, declaration }) = undeclared {
            return Err(SandboxError::Refused {
                stage,
                refused: lines,
                declaration,
            });
        }
        if !complete {
            return Err(self.protocol("ended before every output was collected".to_owned()));
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
        subject,
        problem,
        fix,
    } = fault;
    match kind {
        FaultKind::Unavailable => SandboxError::Unavailable {
            stage,
            layer: subject,
            problem,
            fix,
        },
        FaultKind::Weaker => SandboxError::Weaker { stage, reason: subject },
        FaultKind::Limit => SandboxError::Limit { stage, limit: subject },
        FaultKind::Setup => SandboxError::Setup {
            stage,
            step: subject,
            problem,
        },
        FaultKind::Output => SandboxError::Output {
            stage,
            output: subject,
            problem,
        },
    }
}
