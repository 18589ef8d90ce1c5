//! Layers of the sandbox that this host offers, for `pnb doctor`: found by running the smallest sandbox.

use super::{
    Access, Emulator, Executor, Ids, Mount, OutputSpec, RootFs, SandboxError, Spec, StageOutcome, Workload, emulator,
    helper::USERNS_FIX, host_check, idmap, job::NOTHING, landlock::ABI_NUMBER, self_check::NO_OVERLAY,
};
use crate::{
    model::{Arch, RelPath, chain},
    store::Content,
};
use nix::unistd::Uid;
use std::{io, path::Path};

/// One layer of the sandbox on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layer {
    /// Its name.
    pub name: &'static str,
    /// What the host offers, e.g. `ABI 7`.
    pub offered: String,
    /// What is missing; `None` when the layer is complete.
    pub problem: Option<String>,
    /// The way out; empty when the layer is complete.
    pub fix: String,
    /// Whether no stage can run without it, even without `--hermetic`.
    pub required: bool,
}

const LANDLOCK_FIX: &str = "run Linux 6.12 or newer with CONFIG_SECURITY_LANDLOCK=y and \"landlock\" in the lsm= list";
const NETWORK_FIX: &str = "see what configures new network namespaces on this machine (net.core sysctls, a fallback tunnel \
                           module) and switch it off";
const OVERLAY_FIX: &str = "load the kernel's module overlay (modprobe overlay), and keep the store on a local file system that is no \
                           stack of overlays itself";
const LIMITS_FIX: &str = "nothing is wrong: the watchdog and resource limits of pnb take over; with a delegated control \
                          group (systemd-run --user --scope -p Delegate=yes pnb ...) the kernel counts instead";

/// A stage that does nothing.
pub(super) fn smallest(ids: Ids) -> Spec {
    Spec {
        ids,
        ..Spec::new("probe", RootFs::Empty, Workload::builtin(NOTHING, Vec::new()))
    }
}

/// Tries every layer, with `helper` as in [`Executor::helper`].
pub fn probe(helper: &Path) -> Vec<Layer> {
    let executor = Executor {
        helper: helper.to_owned(),
        strict: false,
    };
    // Any file serves as an input.
    let input = RelPath::new("inputs/pnb").map(|target| Mount {
        source: helper.to_owned(),
        target,
        access: Access::ReadOnly,
    });
    let try_out = |ids| {
        let nothing =
            &mut |_: &OutputSpec, _: bool, _: &mut dyn Content| Err(io::Error::other("a probe has no output"));
        let spec = Spec {
            mounts: input.iter().cloned().collect(),
            ..smallest(ids)
        };
        executor.run(&spec, nothing, &mut io::sink())
    };
    let single = try_out(Ids::Single);
    let mut layers = Vec::new();
    layers.push(match &single {
        Ok(outcome) => complete("namespaces", outcome.measured.namespaces.join(", ")),
        Err(error) => {
            // Everything else fails for the same reason, which is told once.
            return vec![missing("namespaces", &host_check::unusable(error), USERNS_FIX, true)];
        }
    });
    layers.push(match try_out(Ids::Range) {
        Ok(_) if idmap::Caller::here() == idmap::Caller::Root => {
            complete("range of ids", "unprivileged host ids, as root".to_owned())
        }
        Ok(_) if Uid::effective().is_root() => complete("range of ids", "the ids of this container".to_owned()),
        Ok(_) => complete("range of ids", "newuidmap, newgidmap".to_owned()),
        Err(error) => missing("range of ids", &error, idmap::REMEDY, true),
    });
    if let Ok(outcome) = single {
        describe(&outcome, &mut layers);
    }
    layers.push(emulation(&executor));
    layers
}

/// Whether programs of the other architecture can be run. The helper stands in for the emulator: a registration needs any program.
fn emulation(executor: &Executor) -> Layer {
    let foreign = Arch::ALL
        .into_iter()
        .find(|arch| *arch != Arch::host())
        .unwrap_or(Arch::Arm64);
    let spec = Spec {
        emulator: Some(Emulator {
            arch: foreign,
            program: executor.helper.clone(),
        }),
        ..smallest(Ids::Single)
    };
    let nothing = &mut |_: &OutputSpec, _: bool, _: &mut dyn Content| Err(io::Error::other("a probe has no output"));
    match executor.run(&spec, nothing, &mut io::sink()) {
        Ok(_) => Layer {
            required: false,
            ..complete("emulation", format!("{foreign}, by a binfmt_misc of the sandbox"))
        },
        Err(error) => missing("emulation", &error, emulator::FIX, false),
    }
}

/// Adds the layers that a run has measured.
fn describe(outcome: &StageOutcome, layers: &mut Vec<Layer>) {
    let found = &outcome.measured;
    let state = if found.loopback_up { "up" } else { "down" };
    layers.push(Layer {
        name: "network",
        offered: format!("{}, {state}", found.network.join(", ")),
        problem: (found.loopback_up || found.network != ["lo"])
            .then(|| "a stage must see a loopback that is down, and no other interface".to_owned()),
        fix: NETWORK_FIX.to_owned(),
        required: false,
    });
    layers.push(Layer {
        name: "overlays",
        offered: "inputs have inodes of their own".to_owned(),
        problem: outcome.weaker.iter().find(|w| w.contains(NO_OVERLAY)).cloned(),
        fix: OVERLAY_FIX.to_owned(),
        required: false,
    });
    layers.push(Layer {
        name: "Landlock",
        offered: format!("ABI {}, {}", found.landlock_abi, found.landlock),
        problem: (found.landlock != "fully enforced").then(|| format!("ABI {ABI_NUMBER} is needed")),
        fix: LANDLOCK_FIX.to_owned(),
        required: false,
    });
    layers.push(complete("seccomp", format!("{} filters", found.seccomp_filters)));
    layers.push(complete(
        "capabilities",
        format!("bounding set {}", found.capabilities_bounding),
    ));
    layers.push(complete("limits", found.limits.clone()));
    if (found.limits.contains("watchdog") || found.limits.contains("rlimit"))
        && let Some(last) = layers.last_mut()
    {
        last.fix = LIMITS_FIX.to_owned();
    }
    for layer in layers
        .iter_mut()
        .filter(|l| ["Landlock", "network", "overlays"].contains(&l.name) && l.problem.is_none())
    {
        layer.fix = String::new();
    }
}

/// A complete layer.
fn complete(name: &'static str, offered: String) -> Layer {
    Layer {
        name,
        offered,
        problem: None,
        fix: String::new(),
        required: true,
    }
}

/// A layer that could not be used because of `error`.
fn missing(name: &'static str, error: &SandboxError, fix: &str, required: bool) -> Layer {
    let (text, fix) = match error {
        SandboxError::Unavailable { problem, fix: own, .. } | SandboxError::Unusable { problem, fix: own } => {
            (problem.clone(), if own.is_empty() { fix } else { own.as_str() })
        }
        other => (chain(other), fix),
    };
    Layer {
        name,
        offered: "none".to_owned(),
        problem: Some(text),
        fix: fix.to_owned(),
        required,
    }
}
