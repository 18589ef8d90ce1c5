//! Why this machine runs no stage: one cause and one remedy, from a failed run of the smallest sandbox and what the kernel tells.
//!
//! A container, a chroot, an old kernel or a setting makes many steps fail; what helps is to know which of them it is.

use super::{Executor, Ids, OutputSpec, SandboxError, idmap, probe::smallest, wire::Fault};
use crate::{model::chain, store::Content};
use nix::unistd::Uid;
use std::{fs, io, path::Path};

/// Options with which containers run stages. docs/sandbox.md has the same.
const DOCKER: &str = "--cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt \
                      systempaths=unconfined";
const PODMAN: &str = "--security-opt seccomp=unconfined --security-opt unmask=ALL --security-opt label=disable";

/// What is known about the machine.
#[derive(Clone, Debug, Default)]
pub(super) struct HostFacts {
    /// Whether pnb runs as root.
    pub root: bool,
    /// `user.max_user_namespaces`, 0 where user namespaces are switched off.
    pub most_namespaces: Option<u64>,
    /// `kernel.unprivileged_userns_clone` of Debian's older kernels.
    pub unprivileged: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns` of Ubuntu.
    pub apparmor: Option<u64>,
    /// `/proc/version`.
    pub version: String,
    /// Whether the root is not that of the mount namespace.
    pub chroot: bool,
    /// Whether there is no `/proc`.
    pub no_proc: bool,
    /// The kind of container, if it can be told.
    pub container: Option<&'static str>,
    /// Whether a seccomp filter applies to pnb itself.
    pub filtered: bool,
}

impl HostFacts {
    /// Reads them. What cannot be read is not known.
    pub(super) fn read() -> Self {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let is_there = |path: &str| Path::new(path).try_exists().unwrap_or(false);
        let kinds = [
            ("/.dockerenv", "Docker"),
            ("/run/.containerenv", "Podman"),
            ("/run/systemd/container", "systemd-nspawn or LXC"),
            ("/run/host/container-manager", "systemd-nspawn"),
            ("/dev/.lxc", "LXC"),
        ];
        Self {
            root: Uid::effective().is_root(),
            most_namespaces: number("/proc/sys/user/max_user_namespaces"),
            unprivileged: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            version: fs::read_to_string("/proc/version").unwrap_or_default(),
            chroot: (!mounts.is_empty() && !mounts.lines().any(|line| line.split(' ').nth(4) == Some("/")))
                || is_other_root("/proc/1"),
            no_proc: !is_there("/proc/self/status"),
            container: kinds.iter().find(|(path, _)| is_there(path)).map(|(_, kind)| *kind),
            filtered: status
                .lines()
                .any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2")),
        }
    }

    /// The numbers of the kernel's release.
    fn kernel(&self) -> Option<(u32, u32)> {
        let release = self.version.strip_prefix("Linux version ")?;
        let mut numbers = release.split(['.', '-', ' ']).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    /// The cause and the remedy of a sandbox that failed with `problem`; `None` where nothing explains it.
    pub(super) fn explain(&self, problem: &str) -> Option<(String, String)> {
        let say = |cause: &str, fix: &str| Some((cause.to_owned(), fix.to_owned()));
        // WSL1 names itself with a capital letter, WSL2 is an ordinary kernel.
        if self.version.contains("-Microsoft") {
            return say(
                "this is WSL 1, which has no Linux kernel",
                "convert it to WSL 2, in Windows: wsl --set-version DISTRIBUTION 2",
            );
        }
        if self.version.contains("gVisor")
            || self
                .version
                .starts_with("Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016")
        {
            return say(
                "this container runs under gVisor, which lacks the system calls of mounts and user namespaces",
                "run the container with another runtime (docker run --runtime=runc)",
            );
        }
        if self.kernel().is_some_and(|kernel| kernel < (5, 12)) {
            return say(
                &format!(
                    "the kernel is too old: {}",
                    self.version.split(' ').nth(2).unwrap_or_default()
                ),
                "run Linux 5.12 or newer, 6.12 or newer for --hermetic",
            );
        }
        if self.no_proc {
            return say("/proc is not mounted", "mount it, as root: mount -t proc proc /proc");
        }
        if self.most_namespaces == Some(0) {
            return say(
                "user namespaces are switched off: user.max_user_namespaces is 0",
                "switch them on, as root: sysctl -w user.max_user_namespaces=65536",
            );
        }
        if !self.root && self.unprivileged == Some(0) {
            return say(
                "user namespaces are switched off for ordinary users: kernel.unprivileged_userns_clone is 0",
                "switch them on, as root: sysctl -w kernel.unprivileged_userns_clone=1; or run pnb as root",
            );
        }
        let denied = ["EPERM", "EACCES", "not permitted", "ermission denied"]
            .iter()
            .any(|word| problem.contains(word));
        if !self.root && self.apparmor.is_some_and(|mode| mode > 0) && denied {
            return say(
                "AppArmor takes the permissions away that a user namespace gives: kernel.apparmor_restrict_unprivileged_userns is 1",
                "allow them, as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give pnb an AppArmor profile with \
                 `userns,`; or run pnb as root",
            );
        }
        if self.chroot {
            return say(
                "this is a chroot, in which the kernel makes no user namespaces",
                "enter the directory with a mount namespace of its own (systemd-nspawn, bwrap, or unshare --mount and pivot_root)",
            );
        }
        let options = |docker: &str, podman: &str| match self.container {
            Some("Podman") => format!("podman run {podman}"),
            Some("Docker") => format!("docker run {docker}"),
            _ => format!("docker run {docker}; podman run {podman}; systemd-nspawn and LXC: see docs/sandbox.md"),
        };
        if problem.contains("procfs in a user namespace") {
            return say(
                "paths below /proc are masked, as in a container, and the kernel then makes no other procfs",
                &format!("start the container without masked paths: {}", options(DOCKER, PODMAN)),
            );
        }
        if denied && (self.container.is_some() || self.filtered) {
            return say(
                "the container forbids user namespaces or mounts (its seccomp filter, AppArmor profile or capabilities)",
                &format!("start the container with them allowed: {}", options(DOCKER, PODMAN)),
            );
        }
        None
    }
}

/// Whether a process of the same mount namespace has another root; `false` where that cannot be seen.
fn is_other_root(process: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    let namespace = |process: &str| fs::read_link(format!("{process}/ns/mnt")).ok();
    let root = |path: &str| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let same = namespace(process).is_some_and(|other| Some(other) == namespace("/proc/self"));
    same && root(&format!("{process}/root/")).is_some_and(|other| Some(other) != root("/"))
}

/// Tries whether this machine runs stages at all, and maps a range of ids if `range` asks for it.
///
/// # Errors
///
/// [`SandboxError::Unusable`] with the cause and the remedy.
pub fn check_host(helper: &Path, range: bool) -> Result<(), SandboxError> {
    let nothing = &mut |_: &OutputSpec, _: bool, _: &mut dyn Content| Err(io::Error::other("a check has no output"));
    let executor = Executor {
        helper: helper.to_owned(),
        strict: false,
    };
    if let Err(error) = executor.run(&smallest(Ids::Single), nothing, &mut io::sink()) {
        return Err(unusable(&error));
    }
    if !range {
        return Ok(());
    }
    idmap::check_range().map_err(|fault| {
        let Fault { problem, fix, .. } = fault;
        SandboxError::Unusable { problem, fix }
    })
}

/// The error of a failed try in terms of the machine.
pub(super) fn unusable(error: &SandboxError) -> SandboxError {
    let (text, known) = match error {
        SandboxError::Unavailable {
            problem, fix, layer, ..
        } => (format!("no {layer}: {problem}"), Some(fix.clone())),
        SandboxError::Setup { step, problem, .. } => (format!("{step}: {problem}"), None),
        other => (chain(other), None),
    };
    let known = known.filter(|fix| !fix.is_empty());
    match HostFacts::read().explain(&text) {
        Some((cause, fix)) => SandboxError::Unusable {
            problem: format!("{cause} ({text})"),
            fix,
        },
        None => SandboxError::Unusable {
            problem: text,
            fix: known.unwrap_or_else(|| "see docs/sandbox.md, \"Where it runs\"".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENIED: &str = "no user namespace: EPERM: Operation not permitted";
    const MASKED: &str = "make a procfs in a user namespace: EPERM: Operation not permitted";

    fn good() -> HostFacts {
        HostFacts {
            most_namespaces: Some(65_536),
            version: "Linux version 6.12.5-amd64 (x@y) (gcc) #1 SMP".to_owned(),
            ..HostFacts::default()
        }
    }

    fn cause(facts: &HostFacts, problem: &str) -> String {
        let (cause, fix) = facts.explain(problem).unwrap_or_default();
        format!("{cause} | {fix}")
    }

    #[test]
    fn each_circumstance_is_one_cause_with_its_remedy() {
        let user = good();
        let root = HostFacts { root: true, ..good() };
        let none = HostFacts {
            most_namespaces: Some(0),
            ..root.clone()
        };
        assert!(cause(&none, DENIED).contains("max_user_namespaces is 0 | switch them on"));
        let debian = HostFacts {
            unprivileged: Some(0),
            ..user.clone()
        };
        assert!(cause(&debian, DENIED).contains("unprivileged_userns_clone is 0"));
        assert_eq!(
            HostFacts { root: true, ..debian }.explain(DENIED),
            None,
            "it does not hold for root"
        );
        let ubuntu = HostFacts {
            apparmor: Some(1),
            ..user.clone()
        };
        assert!(cause(&ubuntu, DENIED).contains("AppArmor"));
        assert_eq!(
            ubuntu.explain("ENOSPC: No space left on device"),
            None,
            "another error is not AppArmor's"
        );
        let chroot = HostFacts {
            chroot: true,
            ..root.clone()
        };
        assert!(cause(&chroot, DENIED).starts_with("this is a chroot"));
        let docker = HostFacts {
            container: Some("Docker"),
            filtered: true,
            ..root.clone()
        };
        assert!(
            cause(&docker, DENIED).contains("| start the container with them allowed: docker run --cap-add SYS_ADMIN")
        );
        let podman = HostFacts {
            container: Some("Podman"),
            ..root.clone()
        };
        assert!(cause(&podman, MASKED).ends_with(
            "podman run --security-opt seccomp=unconfined --security-opt unmask=ALL --security-opt label=disable"
        ));
        let bare = HostFacts {
            no_proc: true,
            ..root.clone()
        };
        assert!(cause(&bare, "open /proc: ENOENT").starts_with("/proc is not mounted"));
        let unknown = HostFacts {
            filtered: true,
            ..user.clone()
        };
        assert!(cause(&unknown, DENIED).contains("docker run") && cause(&unknown, DENIED).contains("podman run"));
        for (version, want) in [
            (
                "Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com)",
                "this is WSL 1",
            ),
            (
                "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016",
                "this container runs under gVisor",
            ),
            (
                "Linux version 5.10.0-30-amd64 (debian)",
                "the kernel is too old: 5.10.0-30-amd64",
            ),
            ("Linux version 4.18.0-553.el8.x86_64", "the kernel is too old"),
        ] {
            let facts = HostFacts {
                version: version.to_owned(),
                ..user.clone()
            };
            assert!(
                cause(&facts, DENIED).starts_with(want),
                "{version}: {}",
                cause(&facts, DENIED)
            );
        }
        let wsl2 = HostFacts {
            version: "Linux version 6.6.36.6-microsoft-standard-WSL2 (root@x)".to_owned(),
            ..user
        };
        assert_eq!(wsl2.explain(DENIED), None);
        assert_eq!(root.explain(DENIED), None, "nothing explains it");
    }

    #[test]
    fn this_machine_is_read() {
        let facts = HostFacts::read();
        assert!(facts.kernel().is_some(), "{facts:?}");
        assert!(!facts.chroot, "{facts:?}");
    }
}
