//! Options that say which workers of an engine run which stages.

use super::{Exit, args::arch, failure::Fatal};
use clap::{Args, ValueEnum};
use pnb::{
    image::elf::{ElfMachine, HEAD_SIZE},
    model::{Arch, Hint},
    pipeline::{StagePlace, WorkerOptions},
    store::open_foreign,
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// Stages that are given to an engine at once, unless the command line says otherwise.
const REMOTE_JOBS: u16 = 8;
/// Seconds that a stage waits for a worker, unless the command line says otherwise.
const QUEUE_SECONDS: u64 = 120;

/// Options of the workers of an engine.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Workers")]
pub(super) struct WorkerArgs {
    /// Most stages that are given to the engine at once [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    remote_jobs: Option<u16>,
    /// Longest wait of a stage for a worker of the engine [default: 120]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86400))]
    remote_queue_timeout: Option<u64>,
    /// Where a stage runs that could run here too
    #[arg(long, value_name = "PLACE", default_value = "cost")]
    remote_place: PlaceName,
    /// Architectures, comma-separated, whose stages run natively on workers of that architecture, with its tools and without an emulator
    #[arg(long, value_name = "ARCH", value_delimiter = ',', value_parser = arch())]
    remote_native: Vec<Arch>,
    /// The same pnb for workers of another architecture; its ELF header says which
    #[arg(long, value_name = "FILE")]
    remote_program: Vec<PathBuf>,
    /// Names of workers, comma-separated, that are asked for as pnb-builder=NAME; for --challenge
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "challenge")]
    remote_builder: Vec<BuilderName>,
    /// Run every stage on K of the workers that --remote-builder names, and fail if their outputs differ
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(2..=64), requires = "remote_builder")]
    challenge: Option<u16>,
}

/// A place of stages on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum PlaceName {
    /// Here, if the engine and the transfer take longer than the stage's last run; else on a worker
    Cost,
    /// On workers
    Workers,
}

/// The name of a builder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct BuilderName(String);

impl FromStr for BuilderName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        match !text.is_empty() && text.len() <= 64 && text.chars().all(plain) {
            true => Ok(Self(text.to_owned())),
            false => Err("a name has 1 to 64 letters, digits and signs of \"-._\"".to_owned()),
        }
    }
}

/// Why the options of workers cannot be used; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkerChoiceError {
    #[error("run stages natively for {arch}: workers need a pnb for {arch}, and no --remote-program is one")]
    NoProgram { arch: Arch },
    #[error("use {path:?} as a pnb for workers: {problem}")]
    Program { path: PathBuf, problem: String },
    #[error("read {path:?} as a pnb for workers")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("run stages on {wanted} builders: --remote-builder names {named}")]
    Builders { wanted: u16, named: usize },
    #[error("run stages on builders: no engine is named")]
    NoEngine,
    #[error("run stages natively: neither an engine nor a cache is named")]
    Nowhere,
    #[error("run stages natively beside --tools, which names the architecture of all tools")]
    Tools,
    #[error("build a second time natively: --on says where, and --remote-native does not")]
    NotOn,
    #[error("build a second time natively for {arch}: nothing that was asked for is for {arch}")]
    NothingNative { arch: Arch },
}

impl Fatal for WorkerChoiceError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

impl Hint for WorkerChoiceError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::NoProgram { arch } => {
                format!("give the program of the same release for {arch} with --remote-program FILE").into()
            }
            Self::Program { .. } | Self::Read { .. } => {
                "give a program of pnb for Linux on amd64 or arm64 (docs/releasing.md)".into()
            }
            Self::Builders { .. } => "name more of them, or let fewer agree".into(),
            Self::NotOn => "give --on ARCH".into(),
            Self::NothingNative { arch } => format!("give --arch {arch}").into(),
            Self::Tools => "leave --tools out".into(),
            Self::NoEngine => "give --remote URL".into(),
            Self::Nowhere => "give --remote URL, or --remote-cache URL to take their results".into(),
        })
    }
}

impl WorkerArgs {
    /// Refuses `--remote-native` where another option says the same.
    pub(super) fn not_native(&self) -> Result<(), WorkerChoiceError> {
        match self.remote_native.is_empty() {
            true => Ok(()),
            false => Err(WorkerChoiceError::NotOn),
        }
    }

    /// The architectures whose stages run natively elsewhere.
    pub(super) fn native(&self) -> BTreeSet<Arch> {
        self.remote_native.iter().copied().collect()
    }

    /// The options that decide what a build makes and where, for a command that can follow.
    pub(super) fn words(&self) -> Vec<String> {
        let list = |name: &str, values: Vec<String>| match values.is_empty() {
            true => Vec::new(),
            false => vec![name.to_owned(), values.join(",")],
        };
        let native = self.remote_native.iter().map(ToString::to_string).collect();
        let builders = self.remote_builder.iter().map(|name| name.0.clone()).collect();
        let challenge = self.challenge.iter().map(ToString::to_string).collect();
        let programs = self.remote_program.iter();
        let programs = programs.flat_map(|path| ["--remote-program".to_owned(), path.display().to_string()]);
        let lists = [
            list("--remote-native", native),
            list("--challenge", challenge),
            list("--remote-builder", builders),
        ];
        lists.concat().into_iter().chain(programs).collect()
    }

    /// Whether each stage runs on several builders.
    pub(super) fn challenges(&self) -> bool {
        self.challenge.is_some()
    }

    /// The same options for a second build, in which every stage runs on a worker.
    pub(super) fn for_repeat(&self, native: BTreeSet<Arch>) -> Self {
        Self {
            remote_place: PlaceName::Workers,
            remote_native: native.into_iter().collect(),
            ..self.clone()
        }
    }

    /// Refuses stages that run natively where the architecture of the tools was chosen.
    pub(super) fn beside(&self, tools: Option<Arch>) -> Result<(), WorkerChoiceError> {
        match tools.is_some() && !self.remote_native.is_empty() {
            true => Err(WorkerChoiceError::Tools),
            false => Ok(()),
        }
    }

    /// Refuses options that need an engine, or a cache, where there is none.
    pub(super) fn need(&self, engine: bool, cache: bool) -> Result<(), WorkerChoiceError> {
        if self.challenges() && !engine {
            return Err(WorkerChoiceError::NoEngine);
        }
        match self.native().iter().any(|arch| *arch != Arch::host()) && !engine && !cache {
            true => Err(WorkerChoiceError::Nowhere),
            false => Ok(()),
        }
    }

    /// The longest wait of a stage for a worker.
    pub(super) fn queue_timeout(&self) -> Duration {
        Duration::from_secs(self.remote_queue_timeout.unwrap_or(QUEUE_SECONDS))
    }

    /// The options of an engine; workers of this machine's architecture run `own`.
    pub(super) fn options(&self, own: &Path) -> Result<WorkerOptions, WorkerChoiceError> {
        let mut programs = BTreeMap::from([(Arch::host(), own.to_owned())]);
        for path in &self.remote_program {
            programs.insert(arch_of(path)?, path.clone());
        }
        if let Some(arch) = self.native().into_iter().find(|arch| !programs.contains_key(arch)) {
            return Err(WorkerChoiceError::NoProgram { arch });
        }
        let builders: BTreeSet<&BuilderName> = self.remote_builder.iter().collect();
        let wanted = self.challenge.unwrap_or(0);
        if builders.len() < usize::from(wanted) {
            let named = builders.len();
            return Err(WorkerChoiceError::Builders { wanted, named });
        }
        Ok(WorkerOptions {
            programs,
            jobs: usize::from(self.remote_jobs.unwrap_or(REMOTE_JOBS)),
            queue_timeout: self.queue_timeout(),
            place: match self.remote_place {
                PlaceName::Cost => StagePlace::ByCost,
                PlaceName::Workers => StagePlace::Workers,
            },
            builders: builders.into_iter().map(|name| name.0.clone()).collect(),
            agreeing: usize::from(wanted),
        })
    }
}

/// The architecture of a program.
fn arch_of(path: &Path) -> Result<Arch, WorkerChoiceError> {
    let read = |source| WorkerChoiceError::Read {
        path: path.to_owned(),
        source,
    };
    let mut head = Vec::new();
    let file = open_foreign(path).map_err(read)?;
    file.take(HEAD_SIZE as u64).read_to_end(&mut head).map_err(read)?;
    let machine = ElfMachine::of_head(&head).map_err(str::to_owned);
    let arch = machine.and_then(|machine| {
        let arch = Arch::ALL.into_iter().find(|arch| ElfMachine::of(*arch) == machine);
        arch.ok_or_else(|| format!("it is for {machine}"))
    });
    arch.map_err(|problem| WorkerChoiceError::Program {
        path: path.to_owned(),
        problem,
    })
}
