//! `Spec`: a stage's whole sandbox as a plain value that can be printed and compared.

use super::{DeclaredRefusals, Limits, Processors, SystemInfo, Variation, refusal};
use crate::model::{Arch, Capability, Epoch, RelPath};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

/// One run of one stage. The executor does what the spec says and adds nothing of the host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The stage's name, for messages.
    pub stage: String,
    /// The stage's `/`.
    pub root: RootFs,
    /// Files and directories of the host that the stage sees too. Mount points that the root lacks at top level are made.
    pub mounts: Vec<Mount>,
    /// The program or built-in that runs.
    pub workload: Workload,
    /// Environment variables beside the fixed `PATH`, `HOME`, `LANG`, `TZ` and `SOURCE_DATE_EPOCH`.
    pub env: BTreeMap<String, String>,
    /// `SOURCE_DATE_EPOCH`, and the modification time of all entries of the outputs.
    pub epoch: Epoch,
    /// Number of user ids the stage has.
    pub ids: Ids,
    /// Capabilities kept, inside the stage's own user namespace only.
    pub capabilities: BTreeSet<Capability>,
    /// Limits of the run.
    pub limits: Limits,
    /// Files and directories collected from `/build` when the stage has succeeded.
    pub outputs: Vec<OutputSpec>,
    /// File system of `/build`.
    pub build_dir: BuildDir,
    /// Whether a build directory on disk keeps its content when the stage fails.
    pub keep_failed: bool,
    /// Directories below `/build` in which a small `/dev` is mounted before the stage starts.
    pub dev_in: Vec<RelPath>,
    /// Whether `/proc` is mounted. Its links work, but no file in it can be opened, for `mountinfo` names paths of the host.
    pub proc_mount: bool,
    /// Standard input, output and error of the stage.
    pub console: Console,
    /// Network of the stage.
    #[serde(default)]
    pub network: Network,
    /// Whether the workload has `/dev/kvm`, with the calls that control it. Only a machine has; stage files have no key for it.
    #[serde(default)]
    pub kvm: bool,
    /// Emulator for programs of another architecture.
    #[serde(default)]
    pub emulator: Option<Emulator>,
    /// The refusals that the workload may ignore: any other makes a run that ends well a failure. `None` where refusals are not judged,
    /// because nothing that the run makes becomes an artifact.
    #[serde(default)]
    pub refused: Option<DeclaredRefusals>,
    /// Differences from the ordinary surroundings of a stage.
    #[serde(default)]
    pub variation: Variation,
}

/// How many times longer a stage may take under an emulator. A stage file states the time that the stage may take with programs of the
/// machine; under qemu-user everything runs about ten times slower (docs/STATUS.md), and `rootfs` of arm64 took 461 s on a busy machine.
const EMULATED_WALL: u32 = 10;

/// An emulator for programs of another architecture.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Emulator {
    /// Architecture of the programs.
    pub arch: Arch,
    /// The emulator, a program of the host; statically linked, because it also has to work inside a chroot.
    pub program: PathBuf,
}

/// Network of a workload. Every run has a network namespace of its own, so the host's network is never in reach.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// A loopback that is down, and AF_UNIX sockets only. Every stage has this; stage files have no key for another.
    #[default]
    None,
    /// A loopback that is up, with TCP and UDP over IPv4: programs of one run can reach each other and nothing else. Used for
    /// machines that boot over a network.
    Loopback,
}

impl Network {
    pub(super) fn is_none(&self) -> bool {
        *self == Network::None
    }
}

/// The stage's `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootFs {
    /// A directory of the host, seen read-only. The sandbox' own `dev`, `proc`, `tmp`, `build` and `emulator` cover those in it.
    Tree(PathBuf),
    /// An empty directory: the stage sees the mounts only.
    Empty,
}

/// A file or directory of the host that the stage sees.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// File or directory of the host. Mounts below it are not seen.
    pub source: PathBuf,
    /// Its path in the stage, below `/`.
    pub target: RelPath,
    /// Whether the stage may change it.
    pub access: Access,
}

/// Whether a mount can be written to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// The mount is never written to. Owners are seen as on the host, its root as id 0.
    ReadOnly,
    /// The stage writes to a directory as far as the host's permissions allow the ids that the stage is mapped to, and to a single
    /// file as the file's owner on the host may.
    ReadWrite,
}

/// The program or built-in that runs in the sandbox.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// A program of the root.
    Command {
        /// Program, by absolute path, and arguments.
        argv: Vec<String>,
        /// A built-in that runs first, in the same sandbox. The command starts only if it succeeds.
        before: Option<BuiltinCall>,
    },
    /// A built-in, run in the same sandbox without an exec.
    Builtin(BuiltinCall),
}

impl Workload {
    /// A command with nothing before it.
    pub fn command(argv: Vec<String>) -> Self {
        Workload::Command { argv, before: None }
    }

    /// A built-in and its arguments.
    pub fn builtin(name: impl Into<String>, args: Vec<u8>) -> Self {
        Workload::Builtin(BuiltinCall {
            name: name.into(),
            args,
        })
    }
}

/// A call of a built-in: code of pnb itself that runs in the sandbox.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct BuiltinCall {
    /// The built-in's name in the table given to [`super::helper_main`].
    pub name: String,
    /// The arguments, in the built-in's own format.
    pub args: Vec<u8>,
}

/// Number of user and group ids a stage has. The stage itself runs as id 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ids {
    /// One id; all entries of outputs belong to 0:0.
    Single,
    /// Ids 0 to 65535, for maintainer scripts; entries of outputs keep the owners they have inside.
    Range,
}

impl Ids {
    /// The number of ids.
    pub(super) const fn count(self) -> u32 {
        match self {
            Ids::Single => 1,
            Ids::Range => 65_536,
        }
    }
}

/// A file or directory below `/build` that is collected.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct OutputSpec {
    /// Name in [`super::StageOutcome::outputs`].
    pub name: String,
    /// Path below `/build`.
    pub path: RelPath,
    /// File or tree.
    pub kind: OutputKind,
    /// Whether entries may have set-user-id and set-group-id bits.
    pub allow_setid: bool,
    /// Whether the output may hold device nodes and fifos (as metadata).
    pub allow_devices: bool,
}

/// Whether an output is a file or a directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputKind {
    /// A directory with all entries below it; an empty one is refused.
    Tree,
    /// A regular file; an empty one is refused.
    File,
}

/// File system of `/build`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuildDir {
    /// A tmpfs; its content counts towards [`Limits::memory`].
    Tmpfs,
    /// An empty directory of the host. Its content is deleted at the end.
    Disk(PathBuf),
}

/// Standard input, output and error of a stage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Console {
    /// Input from `/dev/null`; output and error to the [`super::LogSink`] given to the executor.
    Log,
    /// The caller's own terminal or pipes.
    Inherit,
}

impl Spec {
    /// The time on the clock after which the run ends: the limit, or ten times the limit where an emulator runs the programs.
    pub fn wall_limit(&self) -> Duration {
        match self.emulator {
            None => self.limits.wall,
            Some(_) => self.limits.wall.saturating_mul(EMULATED_WALL),
        }
    }

    /// The smallest sandbox for `workload` in `root`: one id, no mounts, no outputs, [`Limits::small`], a build directory in
    /// memory, output to the log, no network.
    pub fn new(stage: impl Into<String>, root: RootFs, workload: Workload) -> Self {
        Self {
            stage: stage.into(),
            root,
            mounts: Vec::new(),
            workload,
            env: BTreeMap::new(),
            epoch: Epoch::new(0),
            ids: Ids::Single,
            capabilities: BTreeSet::new(),
            limits: Limits::small(),
            outputs: Vec::new(),
            build_dir: BuildDir::Tmpfs,
            keep_failed: false,
            dev_in: Vec::new(),
            proc_mount: true,
            console: Console::Log,
            network: Network::None,
            kvm: false,
            emulator: None,
            refused: None,
            variation: Variation::default(),
        }
    }

    /// The whole environment of an ordinary stage.
    pub(super) fn environment(&self) -> BTreeMap<String, String> {
        let fixed = [
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("HOME", "/homeless".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("TZ", "UTC".to_owned()),
            ("SOURCE_DATE_EPOCH", self.epoch.to_string()),
        ];
        let mut env: BTreeMap<String, String> = fixed.map(|(k, v)| (k.to_owned(), v)).into();
        env.extend(self.env.clone());
        env
    }

    /// The environment of the workload: that of an ordinary stage and the variation's variables.
    pub(super) fn whole_environment(&self) -> BTreeMap<String, String> {
        let mut env = self.environment();
        env.extend(self.variation.env.clone());
        env
    }

    /// User and group id that a stage with a single id sees itself as.
    pub(super) fn id_inside(&self) -> u32 {
        // Another id than 0 loses its capabilities at execve(2).
        let free = self.ids == Ids::Single && self.capabilities.is_empty();
        self.variation.id.filter(|_| free).unwrap_or(0)
    }

    /// The processors that the stage sees, and runs on as far as the host has them.
    pub(super) fn processors(&self) -> Processors {
        self.variation.processors.unwrap_or(Processors {
            count: self.limits.cpus,
            last: false,
        })
    }

    /// The machine that sysinfo(2) describes: an ordinary stage sees its own memory limit, and nothing of the host.
    pub(super) fn machine(&self) -> SystemInfo {
        self.variation.machine.unwrap_or(SystemInfo {
            uptime: 3600,
            load: 0,
            memory: (self.limits.memory, self.limits.memory),
            processes: 1,
        })
    }

    /// The limits with the variation's factor applied.
    pub(super) fn limits_in_force(&self) -> Limits {
        let factor = self.variation.memory_factor.unwrap_or(1);
        Limits {
            memory: self.limits.memory.saturating_mul(factor),
            ..self.limits.clone()
        }
    }

    /// The first contradiction in the spec.
    pub(super) fn problem(&self) -> Option<String> {
        self.command_problem()
            .or_else(|| self.environment_problem())
            .or_else(|| self.output_problem())
            .or_else(|| self.mount_problem())
            .or_else(|| refusal::problem(self))
            .or_else(|| Some(format!("the limit on {} is zero", self.limits.first_zero()?)))
            .or_else(|| {
                let lost = !self.capabilities.is_empty() && self.ids == Ids::Single;
                lost.then(|| "a stage with capabilities needs a range of ids".to_owned())
            })
    }

    fn command_problem(&self) -> Option<String> {
        let Workload::Command { argv, .. } = &self.workload else {
            return None;
        };
        match argv.first() {
            None => Some("the command is empty".to_owned()),
            Some(program) if !program.starts_with('/') => {
                Some(format!("the path of the program {program:?} is not absolute"))
            }
            Some(_) => {
                let nul = argv.iter().find(|a| a.contains('\0'))?;
                Some(format!("the argument {nul:?} holds a NUL byte"))
            }
        }
    }

    fn environment_problem(&self) -> Option<String> {
        let (name, _) = self
            .env
            .iter()
            .chain(&self.variation.env)
            .find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))?;
        Some(format!(
            "environment variable {name:?} has an empty name, \"=\" in its name, or a NUL byte"
        ))
    }

    fn output_problem(&self) -> Option<String> {
        let mut names = BTreeSet::new();
        let twice = self.outputs.iter().find(|output| !names.insert(&output.name))?;
        Some(format!("output {:?} is declared twice", twice.name))
    }

    fn mount_problem(&self) -> Option<String> {
        let mut targets = BTreeSet::new();
        for mount in &self.mounts {
            let target = &mount.target;
            if let Some(own) = ["dev", "proc", "tmp"]
                .into_iter()
                .find(|own| target.components().next() == Some(own.as_bytes()))
            {
                return Some(format!("/{target} cannot be a mount point: /{own} is the sandbox' own"));
            }
            if !targets.insert(target) {
                return Some(format!("two mounts have the mount point /{target}"));
            }
            if mount.source.is_relative() {
                return Some(format!(
                    "the path of the mount source {:?} is not absolute",
                    mount.source
                ));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(argv: &[&str]) -> Spec {
        let argv = argv.iter().map(|a| (*a).to_owned()).collect();
        Spec::new("stage", RootFs::Empty, Workload::command(argv))
    }

    #[test]
    fn a_limit_of_zero_is_named() {
        let mut zero = spec(&["/bin/true"]);
        assert_eq!(zero.problem(), None);
        zero.limits.tmp_bytes = 0;
        assert_eq!(zero.problem().as_deref(), Some("the limit on bytes below /tmp is zero"));
        zero.limits.wall = std::time::Duration::ZERO;
        assert_eq!(zero.problem().as_deref(), Some("the limit on wall time is zero"));
    }

    #[test]
    fn a_stage_has_ten_times_as_long_under_an_emulator() {
        let mut stage = spec(&["/bin/true"]);
        stage.limits.wall = Duration::from_secs(600);
        assert_eq!(stage.wall_limit(), Duration::from_secs(600));
        stage.emulator = Some(Emulator {
            arch: Arch::Arm64,
            program: "/qemu".into(),
        });
        assert_eq!(stage.wall_limit(), Duration::from_secs(6000));
        assert_eq!(
            stage.limits.wall,
            Duration::from_secs(600),
            "what is declared and stated stays"
        );
    }

    #[test]
    fn mount_points_are_free_and_outside_of_what_the_sandbox_mounts() {
        for (targets, problem) in [
            (&["inputs/a", "inputs/b"][..], None),
            (
                &["inputs/a", "inputs/a"],
                Some("two mounts have the mount point /inputs/a"),
            ),
            (
                &["dev/x"],
                Some("/dev/x cannot be a mount point: /dev is the sandbox' own"),
            ),
        ] {
            let mut mounted = spec(&["/bin/true"]);
            mounted.mounts = targets
                .iter()
                .map(|target| Mount {
                    source: "/host".into(),
                    target: target.parse().expect("a path"),
                    access: Access::ReadOnly,
                })
                .collect();
            assert_eq!(mounted.problem().as_deref(), problem);
        }
    }

    #[test]
    fn a_command_is_an_absolute_path_and_arguments_without_nul() {
        for (argv, problem) in [
            (&[][..], "the command is empty"),
            (&["sh"], "the path of the program \"sh\" is not absolute"),
            (&["/bin/sh", "a\0"], "the argument \"a\\0\" holds a NUL byte"),
        ] {
            assert_eq!(spec(argv).problem().as_deref(), Some(problem));
        }
    }
}
