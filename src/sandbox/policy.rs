//! `SandboxPolicy`: the part of a spec that is the same on every host, as records and manifests have it.
//!
//! Field names and values are a format: the tests below pin them.

use super::{
    Access, BuiltinCall, DeclaredRefusals, Ids, Limits, Network, OutputSpec, RootFs, Spec, Workload, landlock, seccomp,
    sys::NAMESPACES,
};
use crate::model::{Arch, Blake3Digest, Capability, RelPath};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The part of a [`Spec`] that is the same on every host. It is written into the manifest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SandboxPolicy {
    /// Mount points, each with whether the stage may write to it.
    pub mounts: BTreeMap<String, Access>,
    /// `tree` for a root made of inputs, `empty` for a root of mounts only.
    pub root: &'static str,
    /// The program or built-in that runs.
    pub workload: PolicyWorkload,
    /// The built-in that runs before a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepare: Option<PolicyCall>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Number of user ids.
    pub ids: Ids,
    /// Capabilities kept inside the stage's own user namespace.
    pub capabilities: BTreeSet<Capability>,
    /// Limits of the run.
    pub limits: PolicyLimits,
    /// Files and directories collected.
    pub outputs: Vec<OutputSpec>,
    /// Directories with a small `/dev`.
    pub dev_in: Vec<RelPath>,
    /// Whether `/proc` is mounted.
    pub proc_mount: bool,
    /// The network; left out where the stage has none.
    #[serde(skip_serializing_if = "Network::is_none")]
    pub network: Network,
    /// Whether the workload has `/dev/kvm`; left out where it has not. No stage has it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kvm: bool,
    /// The architecture whose programs run under an emulator; left out where there is no emulator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emulated: Option<Arch>,
    /// The refused system calls that the workload may ignore, as groups by program; left out where there are none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: DeclaredRefusals,
    /// Namespaces of the stage's own.
    pub namespaces: [&'static str; 7],
    /// Landlock ABI of which every right is handled.
    pub landlock_abi: u32,
    /// BLAKE3 of the seccomp rules in force, as text.
    pub seccomp_rules: Blake3Digest,
}

/// A [`Workload`] without the built-in before a command, which is [`SandboxPolicy::prepare`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyWorkload {
    /// A program of the root.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// A built-in.
    Builtin(PolicyCall),
}

/// A [`BuiltinCall`] for readers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PolicyCall {
    /// The built-in's name.
    pub name: String,
    /// Its arguments: the JSON value that they are; text, if they are no JSON; `{"hex": "…"}`, if they are no text either.
    pub args: Value,
}

impl From<BuiltinCall> for PolicyCall {
    fn from(BuiltinCall { name, args }: BuiltinCall) -> Self {
        let args = match (serde_json::from_slice(&args), String::from_utf8(args)) {
            (Ok(value), _) => value,
            (Err(_), Ok(text)) => Value::String(text),
            (Err(_), Err(bytes)) => json!({ "hex": hex::encode(bytes.as_bytes()) }),
        };
        Self { name, args }
    }
}

/// [`Limits`] for readers: sizes in bytes, the time in milliseconds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PolicyLimits {
    /// [`Limits::memory`].
    pub memory: u64,
    /// [`Limits::processes`].
    pub processes: u32,
    /// [`Limits::wall`] in milliseconds.
    pub wall_ms: u64,
    /// [`Limits::log_bytes`].
    pub log_bytes: u64,
    /// [`Limits::build_bytes`].
    pub build_bytes: u64,
    /// [`Limits::build_inodes`].
    pub build_inodes: u64,
    /// [`Limits::tmp_bytes`].
    pub tmp_bytes: u64,
    /// [`Limits::output_bytes`].
    pub output_bytes: u64,
    /// [`Limits::output_entries`].
    pub output_entries: u64,
    /// [`Limits::output_depth`].
    pub output_depth: u32,
    /// [`Limits::cpus`].
    pub cpus: u32,
}

impl From<&Limits> for PolicyLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            memory: limits.memory,
            processes: limits.processes,
            wall_ms: u64::try_from(limits.wall.as_millis()).unwrap_or(u64::MAX),
            log_bytes: limits.log_bytes,
            build_bytes: limits.build_bytes,
            build_inodes: limits.build_inodes,
            tmp_bytes: limits.tmp_bytes,
            output_bytes: limits.output_bytes,
            output_entries: limits.output_entries,
            output_depth: limits.output_depth,
            cpus: limits.cpus,
        }
    }
}

impl Spec {
    /// The part that is the same on every host.
    pub fn policy(&self) -> SandboxPolicy {
        let (workload, prepare) = match self.workload.clone() {
            Workload::Command { argv, before } => (PolicyWorkload::Command { argv }, before),
            Workload::Builtin(call) => (PolicyWorkload::Builtin(call.into()), None),
        };
        SandboxPolicy {
            mounts: self.mounts.iter().map(|m| (m.target.to_string(), m.access)).collect(),
            root: match self.root {
                RootFs::Tree(_) => "tree",
                RootFs::Empty => "empty",
            },
            workload,
            prepare: prepare.map(PolicyCall::from),
            env: self.environment(),
            ids: self.ids,
            capabilities: self.capabilities.clone(),
            limits: PolicyLimits::from(&self.limits),
            outputs: self.outputs.clone(),
            dev_in: self.dev_in.clone(),
            proc_mount: self.proc_mount,
            network: self.network,
            kvm: self.kvm,
            emulated: self.emulator.as_ref().map(|e| e.arch),
            refused: self.refused.clone().unwrap_or_default(),
            namespaces: NAMESPACES,
            landlock_abi: landlock::ABI_NUMBER,
            seccomp_rules: seccomp::rules_digest(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CallGroup;
    use crate::sandbox::{Emulator, Mount, OutputKind};
    use std::time::Duration;

    /// The policy as it is written into records and manifests, without the digest that depends on the architecture.
    fn written(spec: &Spec) -> String {
        let policy = spec.policy();
        let json = serde_json::to_string(&policy).expect("JSON");
        json.replace(&policy.seccomp_rules.to_hex(), "RULES")
    }

    #[test]
    fn the_policy_of_a_command_with_a_built_in_before_it_can_be_read_by_people() {
        let argv = ["/bin/sh", "/stage/build.sh"].map(str::to_owned).to_vec();
        let workload = Workload::Command {
            argv,
            before: Some(BuiltinCall {
                name: "unpack".to_owned(),
                args: br#"{"arch":"amd64","threads":2}"#.to_vec(),
            }),
        };
        let mut spec = Spec::new("root/amd64", RootFs::Tree("/host".into()), workload);
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
        spec.refused = Some([("setcap".to_owned(), [CallGroup::FileAttribute].into())].into());
        assert_eq!(
            written(&spec),
            concat!(
                r#"{"mounts":{"inputs/debs":"read-only"},"root":"tree","#,
                r#""workload":{"command":{"argv":["/bin/sh","/stage/build.sh"]}},"#,
                r#""prepare":{"name":"unpack","args":{"arch":"amd64","threads":2}},"#,
                r#""env":{"HOME":"/homeless","LANG":"C.UTF-8","PATH":"/usr/sbin:/usr/bin:/sbin:/bin","#,
                r#""SOURCE_DATE_EPOCH":"0","TZ":"UTC"},"#,
                r#""ids":"range","capabilities":["chown","dac-override","sys-chroot"],"#,
                r#""limits":{"memory":2147483648,"processes":512,"wall_ms":90000,"log_bytes":67108864,"#,
                r#""build_bytes":1073741824,"build_inodes":500000,"tmp_bytes":268435456,"output_bytes":4294967296,"#,
                r#""output_entries":500000,"output_depth":64,"cpus":1},"#,
                r#""outputs":[{"name":"tree","path":"root","kind":"tree","allow_setid":true,"allow_devices":false}],"#,
                r#""dev_in":["root"],"proc_mount":true,"#,
                r#""refused":{"setcap":["file-attribute"]},"#,
                r#""namespaces":["cgroup","ipc","mnt","net","pid","user","uts"],"#,
                r#""landlock_abi":7,"seccomp_rules":"RULES"}"#,
            )
        );
    }

    #[test]
    fn arguments_of_a_built_in_are_json_text_or_hexadecimal_digits_and_never_a_list_of_bytes() {
        for (args, written_args) in [
            (
                &br#"{"outputs":["disk.raw"],"epoch":7}"#[..],
                r#"{"epoch":7,"outputs":["disk.raw"]}"#,
            ),
            (b"plain text", r#""plain text""#),
            (b"", r#""""#),
            (&[0xff, 0], r#"{"hex":"ff00"}"#),
        ] {
            let mut spec = Spec::new("efi/arm64", RootFs::Empty, Workload::builtin("efi", args.to_vec()));
            spec.network = Network::Loopback;
            spec.emulator = Some(Emulator {
                arch: Arch::Arm64,
                program: "/host/qemu".into(),
            });
            let text = written(&spec);
            let wanted = r#"{"mounts":{},"root":"empty","workload":{"builtin":{"name":"efi","args":ARGS}},"env":{"#;
            assert!(text.starts_with(&wanted.replace("ARGS", written_args)), "{text}");
            assert!(
                text.contains(r#""proc_mount":true,"network":"loopback","emulated":"arm64","namespaces":["#),
                "{text}"
            );
        }
    }
}
