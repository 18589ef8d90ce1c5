//! The groups of system calls that the sandbox refuses and reports.

use super::{ModelError, excerpt};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

macro_rules! groups {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal,)*) => {
        /// A group of system calls that the sandbox refuses and reports. A stage declares by these names the refusals that may happen.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum CallGroup {
            $($(#[doc = $doc])* $variant,)*
        }

        impl CallGroup {
            /// Every group.
            pub const ALL: &[CallGroup] = &[$(CallGroup::$variant),*];

            /// The name in stage files, manifests and messages.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(CallGroup::$variant => $name,)*
                }
            }
        }
    };
}

groups! {
    /// chroot(2), for a stage without the capability.
    Chroot "chroot",
    /// The host's clock.
    Clock "clock",
    /// Device nodes, and the nodes with which overlay file systems mark what was removed.
    Device "device",
    /// Extended attributes: file capabilities, access control lists, labels.
    FileAttribute "file-attribute",
    /// Flags of files: immutable, append-only and the others of chattr(1).
    FileFlag "file-flag",
    /// The names of the host and its domain.
    HostName "host-name",
    /// Modules, kernel programs, ports of the processor, swap, quotas, another kernel, the end of this one.
    Kernel "kernel",
    /// Keys of the kernel's keyrings.
    Keyring "keyring",
    /// Mounts.
    Mount "mount",
    /// Namespaces.
    Namespace "namespace",
    /// Sockets that lead out of the stage.
    Network "network",
    /// Owners beyond the ids that the stage has.
    Owner "owner",
    /// Other execution domains.
    Personality "personality",
    /// Other processes: tracing them, taking their files, changing their limits and priorities.
    Process "process",
    /// Shared memory, semaphores and messages of System V.
    SystemVIpc "system-v-ipc",
    /// The caller's terminal.
    Terminal "terminal",
    /// Watching files: inotify, fanotify, leases, handles.
    Watch "watch",
}

impl fmt::Display for CallGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for CallGroup {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let found = CallGroup::ALL.iter().find(|group| group.as_str() == text);
        found.copied().ok_or_else(|| ModelError::Name {
            kind: "group of system calls",
            value: excerpt(text),
            allowed: CallGroup::ALL.iter().map(|g| g.as_str()).collect::<Vec<_>>().join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_files_and_messages() {
        for group in CallGroup::ALL {
            let json = serde_json::to_string(group).expect("JSON");
            assert_eq!(json, format!("\"{group}\""));
            assert_eq!(group.as_str().parse::<CallGroup>().expect("a name"), *group);
        }
        let mut sorted = CallGroup::ALL.to_vec();
        sorted.sort_by_key(|group| group.as_str());
        assert_eq!(sorted, CallGroup::ALL, "a set is written in the order of the names");
        let error = "swap".parse::<CallGroup>().expect_err("no such group").to_string();
        assert!(error.contains("file-attribute"), "{error}");
    }
}
