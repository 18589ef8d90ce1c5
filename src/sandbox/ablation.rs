//! Taking layers off the sandbox, to measure what the other layers stop. For the project's own tests; no release has it.
//!
//! The hostile suite (`tests/hostile/`) runs its attacks with each layer off and with each layer alone, and writes the result into
//! `docs/threat-model.md`. Four properties keep this away from the program that ships:
//!
//! - Only `helper_main_without` takes a layer off. It exists with debug assertions only, which a release build does not have; there
//!   `is_off` is the constant `false`, and no hook is left in the machine code.
//! - `pnb` calls `helper_main` and never this function, so that a debug build of `pnb` does not contain it either.
//! - The choice is an argument of a function. No environment variable, request, spec or file carries it.
//! - A run without a layer is always *weaker*: `--hermetic` refuses it, and nothing that it makes counts as hermetic.

use super::sys::attr;
#[cfg(debug_assertions)]
use super::{BuiltinTable, helper_main};
#[cfg(debug_assertions)]
use nix::unistd::Uid;
#[cfg(debug_assertions)]
use std::{collections::BTreeSet, process::ExitCode, sync::OnceLock};

macro_rules! layers {
    ($($(#[$doc:meta])* $variant:ident $name:literal,)*) => {
        /// A layer of the sandbox that a test can take off. The user namespaces are not among them: nothing runs without them.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[cfg_attr(not(debug_assertions), expect(unreachable_pub, reason = "a debug build exports it for the tests"))]
        pub enum SandboxLayer {
            $($(#[$doc])* $variant,)*
        }

        #[cfg(debug_assertions)]
        impl SandboxLayer {
            /// Every layer.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name in documents.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

layers! {
    /// The root of detached mounts. Without it the host's root is seen at `/host`, with all mounts below it.
    Root "new root",
    /// `ro` of all mounts.
    ReadOnly "read-only mounts",
    /// `nosuid` of all mounts.
    NoSuid "nosuid",
    /// The overlays that give inputs inodes of the run's own.
    Overlays "overlays",
    /// The pid namespace; without it `/proc` is the host's. Only for root.
    PidNamespace "pid namespace",
    /// The network namespace.
    NetworkNamespace "network namespace",
    /// The ipc namespace.
    IpcNamespace "ipc namespace",
    /// The uts namespace; without it the host's names are seen.
    UtsNamespace "uts namespace",
    /// The limits on nested namespaces and on watches.
    NamespaceLimits "user namespace limits",
    /// Pid 1 is not dumpable.
    Hiding "hidden supervisor",
    /// The fresh session keyring.
    Keyring "keyring",
    /// The dropping of capabilities.
    Capabilities "capabilities",
    /// `no_new_privs`, as far as Landlock and seccomp do not set it.
    NoNewPrivs "no_new_privs",
    /// Landlock.
    Landlock "Landlock",
    /// seccomp.
    Seccomp "seccomp",
    /// The control groups; without them the watchdog and resource limits take over.
    ControlGroup "control groups",
    /// The watchdog of pid 1.
    Watchdog "watchdog",
    /// The resource limits.
    ResourceLimits "resource limits",
    /// The checks of pid 1 on set-id bits, extended attributes and writers of outputs.
    Collector "collector",
}

/// The layers that this process and its forks run without, and the message about it.
#[cfg(debug_assertions)]
static OFF: OnceLock<(BTreeSet<SandboxLayer>, String)> = OnceLock::new();

/// Whether this process runs without `layer`.
#[cfg(debug_assertions)]
pub(super) fn is_off(layer: SandboxLayer) -> bool {
    OFF.get().is_some_and(|(off, _)| off.contains(&layer))
}

/// Every layer is on in a release.
#[cfg(not(debug_assertions))]
pub(super) const fn is_off(_: SandboxLayer) -> bool {
    false
}

/// What makes this run weaker than any host does.
pub(super) fn reason() -> Option<String> {
    #[cfg(debug_assertions)]
    return OFF.get().map(|(_, reason)| reason.clone());
    #[cfg(not(debug_assertions))]
    None
}

/// The attributes that a mount gets of those that it should have.
pub(super) fn attributes(wanted: u64) -> u64 {
    let layers = [
        (SandboxLayer::ReadOnly, attr::RDONLY),
        (SandboxLayer::NoSuid, attr::NOSUID),
    ];
    let off = layers.iter().filter(|(layer, _)| is_off(*layer));
    off.fold(wanted, |left, (_, attribute)| left & !attribute)
}

/// [`helper_main`] without the layers `off`. A strict run is refused, any other is reported as weaker, whatever the layers are. Fails where
/// a missing layer could harm the machine.
#[cfg(debug_assertions)]
pub fn helper_main_without(off: BTreeSet<SandboxLayer>, builtins: BuiltinTable) -> ExitCode {
    // Pid 1 ends a run by a signal to every process that it may signal. Without a pid namespace of its own these are all processes of
    // its user, which for an ordinary user are those of the whole session.
    if off.contains(&SandboxLayer::PidNamespace) && !Uid::effective().is_root() {
        return ExitCode::FAILURE;
    }
    let names: Vec<&str> = off.iter().map(|layer| layer.name()).collect();
    let reason = format!("a layer of the sandbox was taken off: {}", names.join(", "));
    let first = OFF.set((off, reason)).is_ok();
    if first {
        helper_main(builtins)
    } else {
        ExitCode::FAILURE
    }
}
