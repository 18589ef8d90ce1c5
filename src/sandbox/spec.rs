//! `Spec`: everything a stage's sandbox is made of, as a plain value that can be printed, compared and written down.

use super::Variation;
use crate::model::{Arch, Epoch, RelPath};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

/// One run of one stage. The executor obeys it and adds nothing of the host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The stage's name, for messages.
    pub stage: String,
    /// What the stage sees as `/`.
    pub root: RootFs,
    /// What else it sees. Mount points that the root lacks at top level are made.
    pub mounts: Vec<Mount>,
    /// What runs.
    pub workload: Workload,
    /// A writer of pnb itself that runs before a command, in the same sandbox. The command starts if it succeeds.
    #[serde(default)]
    pub prepare: Option<Preparation>,
    /// Environment beside the fixed `PATH`, `HOME`, `LANG`, `TZ` and `SOURCE_DATE_EPOCH`.
    pub env: BTreeMap<String, String>,
    /// `SOURCE_DATE_EPOCH`, and the modification time of everything collected.
    pub epoch: Epoch,
    /// How many user ids the stage has.
    pub ids: Ids,
    /// Capabilities kept, inside the stage's own user namespace only.
    pub capabilities: BTreeSet<Capability>,
    /// What it may use up.
    pub limits: Limits,
    /// What is taken out of `/build` when it has ended well.
    pub outputs: Vec<OutputSpec>,
    /// Where `/build` lies.
    pub build_dir: BuildDir,
    /// Whether a build directory on disk is left as it is when the stage fails.
    pub keep_failed: bool,
    /// Directories below `/build` in which a small `/dev` is mounted before the stage starts.
    pub dev_in: Vec<RelPath>,
    /// Whether `/proc` is mounted. Links in it work; no file in it can be opened, for `mountinfo` names paths of the host.
    pub proc_mount: bool,
    /// Where standard input, output and error lead.
    pub console: Console,
    /// What network it has.
    #[serde(default)]
    pub network: Network,
    /// What runs programs of another architecture.
    #[serde(default)]
    pub emulator: Option<Emulator>,
    /// What differs from the variation that every stage has.
    #[serde(default)]
    pub variation: Variation,
}

/// An emulator for programs of another architecture.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Emulator {
    /// Architecture of the programs.
    pub arch: Arch,
    /// The program of the host that runs them; static, for it is used from inside a chroot too.
    pub program: PathBuf,
}

/// What network a workload has. The host's is never in reach: every run has a network namespace of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// A loopback that is down, and no socket but AF_UNIX. What every stage has: no key of a stage file asks for more.
    #[default]
    None,
    /// A loopback that is up, with TCP and UDP over IPv4 on it: programs of one run can talk to each other, and to nothing
    /// else. For machines that boot over a network.
    Loopback,
}

impl Network {
    fn is_none(&self) -> bool {
        *self == Network::None
    }
}

/// What the stage sees as `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootFs {
    /// A directory of the host, seen read-only. `dev`, `proc`, `tmp`, `build` of it are covered by the sandbox' own.
    Tree(PathBuf),
    /// Nothing but the mounts.
    Empty,
}

/// One file or directory of the host that the stage sees.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// File or directory of the host. Mounts below it are not seen.
    pub source: PathBuf,
    /// Where the stage sees it, below `/`.
    pub target: RelPath,
    /// Whether the stage may change it.
    pub access: Access,
}

/// Whether a mount can be written to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Never written to; owners are seen as on the host, its root as id 0.
    ReadOnly,
    /// A directory is written to as far as the permissions of the host allow the ids that the stage is mapped to; a single file,
    /// as its owner on the host may.
    ReadWrite,
}

/// What runs in the sandbox.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// A program of the root, by absolute path.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// A writer of pnb itself, run in the same sandbox without an exec.
    Builtin {
        /// Its name in the table given to [`super::helper_main`].
        name: String,
        /// Its arguments, in the writer's own form.
        args: Vec<u8>,
    },
}

/// What runs before a command.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Preparation {
    /// Its name in the table given to [`super::helper_main`].
    pub name: String,
    /// Its arguments, in the writer's own form.
    pub args: Vec<u8>,
}

/// How many user and group ids a stage has. Inside it is always id 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ids {
    /// One id; everything collected belongs to 0:0.
    Single,
    /// Ids 0 to 65535, for maintainer scripts; owners are collected as seen inside.
    Range,
}

impl Ids {
    /// How many ids that is.
    pub(super) const fn count(self) -> u32 {
        match self {
            Ids::Single => 1,
            Ids::Range => 65_536,
        }
    }
}

macro_rules! capabilities {
    ($($(#[$doc:meta])* $name:ident = $cap:ident,)*) => {
        /// A capability a stage may keep inside its own user namespace (capabilities(7)).
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Capability {
            $($(#[$doc])* $name,)*
        }
        impl Capability {
            /// The kernel's name for it.
            pub(super) const fn kernel(self) -> caps::Capability {
                match self {
                    $(Capability::$name => caps::Capability::$cap,)*
                }
            }
        }
    };
}

capabilities! {
    /// Change owners.
    Chown = CAP_CHOWN,
    /// Pass permission checks.
    DacOverride = CAP_DAC_OVERRIDE,
    /// Pass checks that the owner must be the caller.
    Fowner = CAP_FOWNER,
    /// Keep set-id bits on change.
    Fsetid = CAP_FSETID,
    /// Signal processes of other ids.
    Kill = CAP_KILL,
    /// Become other groups.
    Setgid = CAP_SETGID,
    /// Become other users.
    Setuid = CAP_SETUID,
    /// chroot(2).
    SysChroot = CAP_SYS_CHROOT,
}

/// What a stage may use up. Reaching any of them fails the stage, naming the limit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes, all processes, tmpfs and memfd together.
    pub memory: u64,
    /// Processes and threads at once.
    pub processes: u32,
    /// Time on the clock.
    pub wall: Duration,
    /// Bytes of standard output and error.
    pub log_bytes: u64,
    /// Bytes below `/build`.
    pub build_bytes: u64,
    /// Files and directories below `/build`.
    pub build_inodes: u64,
    /// Bytes below `/tmp`.
    pub tmp_bytes: u64,
    /// Bytes of each output, by length of its files (holes count).
    pub output_bytes: u64,
    /// Entries of each output.
    pub output_entries: u64,
    /// Depth of each output's tree.
    pub output_depth: u32,
    /// Processors the stage sees.
    pub cpus: u32,
}

impl Default for Limits {
    /// Enough for an ordinary stage: 2 GiB, 512 processes, 10 minutes, one processor.
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            memory: 2048 * MIB,
            processes: 512,
            wall: Duration::from_secs(600),
            log_bytes: 64 * MIB,
            build_bytes: 1024 * MIB,
            build_inodes: 500_000,
            tmp_bytes: 256 * MIB,
            output_bytes: 4096 * MIB,
            output_entries: 500_000,
            output_depth: 64,
            cpus: 1,
        }
    }
}

impl Limits {
    /// Length no file may exceed, holes counted.
    pub(super) fn largest_file(&self) -> u64 {
        self.build_bytes.max(self.tmp_bytes)
    }
}

/// One thing taken out of `/build`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct OutputSpec {
    /// Name in [`super::AnswerOutcome::outputs`].
    pub name: String,
    /// Where it lies below `/build`.
    pub path: RelPath,
    /// File or tree.
    pub kind: OutputKind,
    /// Whether set-user-id and set-group-id bits may be in it.
    pub allow_setid: bool,
    /// Whether device nodes and fifos may be in it (as metadata).
    pub allow_devices: bool,
}

/// Whether an output is a file or a directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputKind {
    /// One directory with all below it; it must hold something.
    Tree,
    /// One regular file; it must not be empty.
    File,
}

/// Where `/build` lies.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuildDir {
    /// In memory; counts towards [`Limits::memory`].
    Tmpfs,
    /// An empty directory of the host. Everything in it is deleted at the end.
    Disk(PathBuf),
}

/// Where standard input, output and error lead.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Console {
    /// Input from `/dev/null`; output and error to the [`super::LogSink`] given to the executor.
    Log,
    /// The caller's own terminal or pipes.
    Inherit,
}

/// What of a [`Spec`] is the same on every host: written into the manifest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SandboxPolicy {
    /// Where the stage sees what it reads, and what it may write.
    pub mounts: BTreeMap<String, Access>,
    /// Whether `/` is a tree of inputs.
    pub root: &'static str,
    /// What runs.
    pub workload: Workload,
    /// What runs before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepare: Option<Preparation>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// How many user ids it has.
    pub ids: Ids,
    /// Capabilities kept inside its own user namespace.
    pub capabilities: BTreeSet<Capability>,
    /// What it may use up.
    pub limits: Limits,
    /// What is taken out.
    pub outputs: Vec<OutputSpec>,
    /// Directories with a small `/dev`.
    pub dev_in: Vec<RelPath>,
    /// Whether `/proc` is mounted.
    pub proc_mount: bool,
    /// What network it has; not written where it is none.
    #[serde(skip_serializing_if = "Network::is_none")]
    pub network: Network,
    /// The architecture whose programs run under an emulator; not written where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emulated: Option<Arch>,
    /// Namespaces of its own.
    pub namespaces: [&'static str; 7],
    /// Landlock ABI whose every right is handled.
    pub landlock_abi: u32,
    /// BLAKE3 of the seccomp rules in force, as text.
    pub seccomp_rules: crate::model::Blake3Digest,
}

/// The namespaces every stage has for itself.
pub(super) const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

impl Spec {
    /// The least there is for `workload` in `root`: one id, nothing mounted, nothing taken out, default limits, a build directory in
    /// memory, output to the log, no network.
    pub fn new(stage: impl Into<String>, root: RootFs, workload: Workload) -> Self {
        Self {
            stage: stage.into(),
            root,
            mounts: Vec::new(),
            workload,
            prepare: None,
            env: BTreeMap::new(),
            epoch: Epoch::new(0),
            ids: Ids::Single,
            capabilities: BTreeSet::new(),
            limits: Limits::default(),
            outputs: Vec::new(),
            build_dir: BuildDir::Tmpfs,
            keep_failed: false,
            dev_in: Vec::new(),
            proc_mount: true,
            console: Console::Log,
            network: Network::None,
            emulator: None,
            variation: Variation::default(),
        }
    }

    /// The part that does not depend on the host.
    pub fn policy(&self) -> SandboxPolicy {
        SandboxPolicy {
            mounts: self.mounts.iter().map(|m| (m.target.to_string(), m.access)).collect(),
            root: match self.root {
                RootFs::Tree(_) => "tree",
                RootFs::Empty => "empty",
            },
            workload: self.workload.clone(),
            prepare: self.prepare.clone(),
            env: self.environment(),
            ids: self.ids,
            capabilities: self.capabilities.clone(),
            limits: self.limits.clone(),
            outputs: self.outputs.clone(),
            dev_in: self.dev_in.clone(),
            proc_mount: self.proc_mount,
            network: self.network,
            emulated: self.emulator.as_ref().map(|e| e.arch),
            namespaces: NAMESPACES,
            landlock_abi: super::landlock::ABI_NUMBER,
            seccomp_rules: super::seccomp::rules_digest(self),
        }
    }

    /// The whole environment of the stage.
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

    /// The environment of a workload, with what its variation add.
    pub(super) fn whole_environment(&self) -> BTreeMap<String, String> {
        let mut env = self.environment();
        env.extend(self.variation.env.clone());
        env
    }

    /// User and group id that a stage with a single one sees itself as.
    pub(super) fn id_inside(&self) -> u32 {
        // A capability does not outlive execve(2) under another id than 0.
        let free = self.ids == Ids::Single && self.capabilities.is_empty();
        self.variation.id.filter(|_| free).unwrap_or(0)
    }

    /// The limits in force.
    pub(super) fn limits_in_force(&self) -> Limits {
        let factor = self.variation.memory_factor.unwrap_or(1);
        Limits {
            memory: self.limits.memory.saturating_mul(factor),
            ..self.limits.clone()
        }
    }

    /// What of the spec contradicts itself.
    pub(super) fn problem(&self) -> Option<String> {
        if let Workload::Command { argv } = &self.workload {
            match argv.first() {
                None => return Some("the command is empty".to_owned()),
                Some(program) if !program.starts_with('/') => {
                    return Some(format!("the program {program:?} is not an absolute path"));
                }
                Some(_) if argv.iter().any(|a| a.contains('\0')) => {
                    return Some("an argument holds a NUL byte".to_owned());
                }
                Some(_) => {}
            }
        }
        if self.prepare.is_some() && !matches!(self.workload, Workload::Command { .. }) {
            return Some("only a command can be prepared for".to_owned());
        }
        for (name, value) in self.env.iter().chain(&self.variation.env) {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Some(format!("environment variable {name:?} cannot be passed on"));
            }
        }
        let mut names = BTreeSet::new();
        for output in &self.outputs {
            if !names.insert(&output.name) {
                return Some(format!("output {:?} is there twice", output.name));
            }
        }
        let mut targets = BTreeSet::new();
        for mount in &self.mounts {
            let own = ["dev", "proc", "tmp"]
                .iter()
                .any(|d| mount.target.components().next() == Some(d.as_bytes()));
            if own || !targets.insert(&mount.target) {
                return Some(format!("nothing can be mounted on /{}", mount.target));
            }
            if mount.source.is_relative() {
                return Some(format!("mount source {:?} is not an absolute path", mount.source));
            }
        }
        let limits = &self.limits;
        let least = [
            limits.memory,
            limits.build_bytes,
            limits.build_inodes,
            limits.tmp_bytes,
            u64::from(limits.processes),
        ];
        if least.contains(&0) || limits.cpus == 0 || limits.wall.is_zero() {
            return Some("a limit is zero".to_owned());
        }
        if !self.capabilities.is_empty() && self.ids == Ids::Single {
            return Some("capabilities need a range of ids".to_owned());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy as it is written into records and manifests, without the digest that depends on the architecture.
    fn written(spec: &Spec) -> String {
        let policy = spec.policy();
        let json = serde_json::to_string(&policy).expect("JSON");
        json.replace(&policy.seccomp_rules.to_hex(), "RULES")
    }

    #[test]
    fn the_policy_of_a_command_with_a_built_in_before_it_is_written_as_it_always_was() {
        let argv = ["/bin/sh", "/stage/build.sh"].map(str::to_owned).to_vec();
        let mut spec = Spec::new("root/amd64", RootFs::Tree("/host".into()), Workload::Command { argv });
        spec.prepare = Some(Preparation {
            name: "unpack".to_owned(),
            args: b"{}".to_vec(),
        });
        spec.mounts.push(Mount {
            source: "/host/debs".into(),
            target: "inputs/debs".parse().expect("a path"),
            access: Access::ReadOnly,
        });
        spec.ids = Ids::Range;
        spec.capabilities = [Capability::Chown, Capability::DacOverride, Capability::SysChroot].into();
        spec.outputs.push(OutputSpec {
            name: "tree".to_owned(),
            path: "root".parse().expect("a path"),
            kind: OutputKind::Tree,
            allow_setid: true,
            allow_devices: false,
        });
        spec.dev_in.push("root".parse().expect("a path"));
        spec.limits.wall = Duration::from_secs(90);
        assert_eq!(
            written(&spec),
            concat!(
                r#"{"mounts":{"inputs/debs":"read-only"},"root":"tree","#,
                r#""workload":{"command":{"argv":["/bin/sh","/stage/build.sh"]}},"#,
                r#""prepare":{"name":"unpack","args":[123,125]},"#,
                r#""env":{"HOME":"/homeless","LANG":"C.UTF-8","PATH":"/usr/sbin:/usr/bin:/sbin:/bin","#,
                r#""SOURCE_DATE_EPOCH":"0","TZ":"UTC"},"#,
                r#""ids":"range","capabilities":["chown","dac-override","sys-chroot"],"#,
                r#""limits":{"memory":2147483648,"processes":512,"wall":{"secs":90,"nanos":0},"log_bytes":67108864,"#,
                r#""build_bytes":1073741824,"build_inodes":500000,"tmp_bytes":268435456,"output_bytes":4294967296,"#,
                r#""output_entries":500000,"output_depth":64,"cpus":1},"#,
                r#""outputs":[{"name":"tree","path":"root","kind":"tree","allow_setid":true,"allow_devices":false}],"#,
                r#""dev_in":["root"],"proc_mount":true,"#,
                r#""namespaces":["cgroup","ipc","mnt","net","pid","user","uts"],"#,
                r#""landlock_abi":7,"seccomp_rules":"RULES"}"#,
            )
        );
    }

    #[test]
    fn the_policy_of_a_built_in_is_written_as_it_always_was() {
        let workload = Workload::Builtin {
            name: "efi".to_owned(),
            args: vec![7],
        };
        let mut spec = Spec::new("efi/arm64", RootFs::Empty, workload);
        spec.network = Network::Loopback;
        spec.emulator = Some(Emulator {
            arch: Arch::Arm64,
            program: "/host/qemu".into(),
        });
        let text = written(&spec);
        assert!(
            text.starts_with(r#"{"mounts":{},"root":"empty","workload":{"builtin":{"name":"efi","args":[7]}},"env":{"#),
            "{text}"
        );
        assert!(
            text.contains(r#""proc_mount":true,"network":"loopback","emulated":"arm64","namespaces":["#),
            "{text}"
        );
    }
}
