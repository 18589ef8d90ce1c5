//! `buildbox-casd` of the stage `remote-tools` on a free port of the loopback: content-addressable storage, action cache, and with a runner
//! also execution, in one process without a database.

use crate::{
    client::RemoteClient,
    own_loader::with_own_loader,
    process::{READY, ServerProcess, free_address, wait_until},
    stage_tree::stage_tree,
};
use nix::unistd::User;
use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The tree of `remote-tools`.
pub(crate) fn remote_tools() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| stage_tree("remote-tools"))
}

/// A command that runs this program of `remote-tools` with its own loader and libraries. Its environment has a `PATH`, which actions
/// without one of their own do not get.
pub(crate) fn remote_tool(program: &str) -> Command {
    remote_tool_on(program, None)
}

/// The same on one processor of the machine.
pub(crate) fn remote_tool_on(program: &str, processor: Option<u32>) -> Command {
    let mut command = with_own_loader(remote_tools(), program);
    if let Some(number) = processor {
        command = through(Command::new("taskset").arg("-c").arg(number.to_string()), &command);
    }
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command
}

/// The command `inner` as the last arguments of `outer`.
fn through(outer: &mut Command, inner: &Command) -> Command {
    outer.arg(inner.get_program()).args(inner.get_args());
    std::mem::replace(outer, Command::new("true"))
}

/// The same command as another user, without the environment.
pub(crate) fn as_user(user: &str, command: &Command) -> Command {
    let mut become_user = Command::new("setpriv");
    become_user.args(["--reuid", user, "--regid", user, "--init-groups", "--reset-env", "--"]);
    through(&mut become_user, command)
}

/// Writes a program `buildbox-run-hosttools` into `dir` that starts the one of `remote-tools` with its own loader, and returns its path.
pub(crate) fn hosttools(dir: &Path) -> PathBuf {
    hosttools_of(remote_tools(), dir)
}

/// The same with a copy of the tree.
fn hosttools_of(tools: &Path, dir: &Path) -> PathBuf {
    let command = with_own_loader(tools, "buildbox-run-hosttools");
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<&str> = words.map(|word| word.to_str().expect("UTF-8")).collect();
    let script = format!("#!/bin/sh\nexec '{}' \"$@\"\n", words.join("' '"));
    let path = dir.join("buildbox-run-hosttools");
    fs::write(&path, script).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    path
}

/// How `buildbox-casd` is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct CasdOptions {
    /// Whether it runs actions, with `buildbox-run-hosttools` and an environment of the command's variables alone.
    pub(crate) runner: bool,
    /// Most actions at once; 2 unless set.
    pub(crate) jobs: Option<u32>,
    /// Most bytes that are kept, like `20M`; without it, as much as the disk has.
    pub(crate) quota: Option<String>,
    /// Further arguments.
    pub(crate) arguments: Vec<String>,
    /// The user as whom it runs, and a copy of the tree of `remote-tools` that this user can read; the test's own unless set.
    pub(crate) user: Option<(String, PathBuf)>,
}

/// A running `buildbox-casd`; it ends with the value. What it keeps is in the directory, and survives a restart.
pub(crate) struct Casd {
    pub(crate) address: SocketAddr,
    directory: PathBuf,
    options: CasdOptions,
    pub(crate) process: ServerProcess,
}

impl Casd {
    /// Starts it with its cache and its log below `directory`.
    pub(crate) fn start(directory: &Path, options: &CasdOptions) -> Self {
        // A relative path works until the first directory is collected.
        let directory = directory.canonicalize().expect("a directory");
        // Another program may take the port in between; then the server ends at once, and another port is tried.
        let mut log = String::new();
        for _ in 0..10 {
            let address = free_address();
            let mut process = spawn(&directory, options, address);
            if ready(address, &mut process) {
                return Self {
                    address,
                    directory,
                    options: options.clone(),
                    process,
                };
            }
            log = process.log();
        }
        unreachable!("buildbox-casd does not start: {log}");
    }

    /// Starts one that also runs actions.
    pub(crate) fn with_runner(directory: &Path) -> Self {
        let options = CasdOptions {
            runner: true,
            ..CasdOptions::default()
        };
        Self::start(directory, &options)
    }

    /// The address as pnb has it.
    pub(crate) fn url(&self) -> String {
        format!("grpc://{}", self.address)
    }

    /// Stops it as an operator does, and starts it again at the same address with what it kept.
    pub(crate) fn restart(&mut self) {
        self.process.stop();
        self.process = spawn(&self.directory, &self.options, self.address);
        assert!(
            ready(self.address, &mut self.process),
            "buildbox-casd does not start again: {}",
            self.process.log()
        );
    }

    /// Kills it and all actions: the address refuses connections from then on.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Whether a process with this text in its command line runs below it.
    pub(crate) fn runs(&self, text: &str) -> bool {
        !self.process.running(text).is_empty()
    }

    /// Kills the server and the runners of its actions alone, as a kernel without memory does.
    pub(crate) fn kill_with_runners(&mut self) {
        self.process.kill_with("buildbox-run-hosttools");
    }

    /// The processes below it whose command line contains this text.
    pub(crate) fn running(&self, text: &str) -> Vec<i32> {
        self.process.running(text)
    }

    /// Where the blob of this SHA-256 is stored, to take it away or to damage it.
    pub(crate) fn stored(&self, hash: &str) -> PathBuf {
        let (first, rest) = hash.split_at(2);
        self.directory.join("cache/cas/objects").join(first).join(rest)
    }
}

fn spawn(directory: &Path, options: &CasdOptions, address: SocketAddr) -> ServerProcess {
    let tools = options.user.as_ref().map_or(remote_tools(), |(_, tools)| tools);
    let mut command = match &options.user {
        None => remote_tool("buildbox-casd"),
        Some((user, _)) => as_user(user, &with_own_loader(tools, "buildbox-casd")),
    };
    command.arg(format!("--bind={address}")).arg("--log-level=info");
    if options.runner {
        command.arg(format!("--buildbox-run={}", hosttools_of(tools, directory).display()));
        command.args(["--runner-arg=--disable-localcas", "--runner-arg=--clearenv"]);
        let work = directory.join("work");
        fs::create_dir_all(&work).expect("made");
        if let Some((user, _)) = &options.user {
            let user = User::from_name(user).expect("readable").expect("there");
            chown(&work, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("given");
        }
        command.arg(format!("--runner-arg=--workspace-path={}", work.display()));
        command.arg(format!("--jobs={}", options.jobs.unwrap_or(2)));
    }
    command.args(options.quota.iter().map(|quota| format!("--quota-high={quota}")));
    command.args(&options.arguments).arg(directory.join("cache"));
    ServerProcess::start("buildbox-casd", &mut command, &directory.join("casd.log"))
}

/// Waits until the server states its capabilities; `false` if it ended.
pub(crate) fn ready(address: SocketAddr, process: &mut ServerProcess) -> bool {
    let mut ended = false;
    let stated = wait_until(READY, || {
        ended = process.has_ended();
        ended || RemoteClient::connect(&format!("grpc://{address}")).is_ok_and(|client| client.capabilities().is_ok())
    });
    stated && !ended
}
