//! What this host offers, for `pnb doctor`: found by running the smallest sandbox there is, not by guessing.

use super::{
    Emulator, Executor, Ids, OutputSpec, RootFs, SandboxError, Spec, StageOutcome, Workload, emulator,
    helper::{NOTHING, USERNS_FIX},
    idmap,
    landlock::ABI_NUMBER,
};
use crate::{model::Arch, store::Content};
use nix::unistd::Uid;
use std::{io, path::Path};

/// One layer of the sandbox on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layer {
    /// What it is.
    pub name: &'static str,
    /// What was found, e.g. `ABI 7`.
    pub offered: String,
    /// What is lacking; none when the layer is whole.
    pub problem: Option<String>,
    /// What to do about it; empty when the layer is whole.
    pub fix: String,
    /// Whether no stage can run without it, with or without `--hermetic`.
    pub required: bool,
}

const LANDLOCK_FIX: &str = "run Linux 6.12 or newer with CONFIG_SECURITY_LANDLOCK=y and \"landlock\" in the lsm= list";
const NETWORK_FIX: &str = "see what configures new network namespaces on this machine (net.core sysctls, a fallback tunnel \
                           module) and switch it off";
const LIMITS_FIX: &str = "nothing is wrong: the watchdog and resource limits of pnb take over; with a delegated control \
                          group (systemd-run --user --scope -p Delegate=yes pnb ...) the kernel counts instead";

/// A stage that does nothing.
pub(super) fn smallest(ids: Ids) -> Spec {
    Spec {
        ids,
        ..Spec::new(
            "probe",
            RootFs::Empty,
            Workload::Builtin {
                name: NOTHING.to_owned(),
                args: Vec::new(),
            },
        )
    }
}

/// Tries every layer, with `helper` as in [`Executor::helper`].
pub fn probe(helper: &Path) -> Vec<Layer> {
    let executor = Executor {
        helper: helper.to_owned(),
        strict: false,
    };
    let try_out = |ids| {
        let nothing =
            &mut |_: &OutputSpec, _: bool, _: &mut dyn Content| Err(io::Error::other("a probe has no output"));
        executor.run(&smallest(ids), nothing, &mut io::sink())
    };
    let single = try_out(Ids::Single);
    let mut layers = Vec::new();
    layers.push(match &single {
        Ok(outcome) => whole("namespaces", outcome.measured.namespaces.join(", ")),
        Err(error) => lacking("namespaces", error, USERNS_FIX, true),
    });
    layers.push(match try_out(Ids::Range) {
        Ok(_) if Uid::effective().is_root() => whole("range of ids", "unprivileged host ids, as root".to_owned()),
        Ok(_) => whole("range of ids", "newuidmap, newgidmap".to_owned()),
        Err(error) => lacking("range of ids", &error, idmap::REMEDY, true),
    });
    if let Ok(outcome) = single {
        describe(&outcome, &mut layers);
    }
    layers.push(emulation(&executor));
    layers
}

/// Whether programs of the other architecture could be run. To be registered, the emulator only has to be there.
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
            ..whole("emulation", format!("{foreign}, by a binfmt_misc of the sandbox"))
        },
        Err(error) => lacking("emulation", &error, emulator::FIX, false),
    }
}

fn describe(outcome: &StageOutcome, layers: &mut Vec<Layer>) {
    let found = &outcome.measured;
    let state = if found.loopback_up { "up" } else { "down" };
    layers.push(Layer {
        name: "network",
        offered: format!("{}, {state}", found.network.join(", ")),
        problem: (found.loopback_up || found.network != ["lo"])
            .then(|| "nothing but a loopback that is down is wanted".to_owned()),
        fix: NETWORK_FIX.to_owned(),
        required: false,
    });
    layers.push(Layer {
        name: "Landlock",
        offered: format!("ABI {}, {}", found.landlock_abi, found.landlock),
        problem: (found.landlock != "fully enforced").then(|| format!("ABI {ABI_NUMBER} is wanted")),
        fix: LANDLOCK_FIX.to_owned(),
        required: false,
    });
    layers.push(whole("seccomp", format!("{} filters", found.seccomp_filters)));
    layers.push(whole(
        "capabilities",
        format!("bounding set {}", found.capabilities_bounding),
    ));
    layers.push(whole("limits", found.limits.clone()));
    if (found.limits.contains("watchdog") || found.limits.contains("rlimit"))
        && let Some(last) = layers.last_mut()
    {
        last.fix = LIMITS_FIX.to_owned();
    }
    for layer in layers
        .iter_mut()
        .filter(|l| ["Landlock", "network"].contains(&l.name) && l.problem.is_none())
    {
        layer.fix = String::new();
    }
}

fn whole(name: &'static str, offered: String) -> Layer {
    Layer {
        name,
        offered,
        problem: None,
        fix: String::new(),
        required: true,
    }
}

fn lacking(name: &'static str, error: &SandboxError, fix: &str, required: bool) -> Layer {
    let text = match error {
        SandboxError::Unavailable { problem, .. } => problem.clone(),
        other => other.to_string(),
    };
    Layer {
        name,
        offered: "none".to_owned(),
        problem: Some(text),
        fix: fix.to_owned(),
        required,
    }
}
