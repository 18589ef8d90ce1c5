//! `Expected`: what pnb knows of a node before it starts, compared with what the node reports.

use super::{BootVerdict, Firmware, FwCfg};
use crate::model::VerityDigest;
use std::{collections::BTreeMap, fmt::Write as _};

/// The fw_cfg key of the number that a boot is given, which `/usr/lib/powernode/ready` repeats.
pub const NONCE_KEY: &str = "opt/com.powernode/nonce";
/// The fw_cfg key of the instance id.
const INSTANCE_KEY: &str = "opt/com.powernode/instance_uuid";
/// Words of the command line that give the instance id, and that change which source counts.
const INSTANCE_WORD: &str = "powernode.instance_uuid";
const SOURCES_WORD: &str = "powernode.identity.sources";

/// What a node must report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expected {
    /// The firmware that it was started by.
    pub firmware: Firmware,
    /// Its root, if the artifact names one.
    pub root: Option<VerityDigest>,
    /// The number that this boot was given.
    pub nonce: Option<String>,
    /// Its instance id and the source of it, if it was given one.
    pub identity: Option<(String, &'static str)>,
}

impl Expected {
    /// The instance id and its source for a node with these fw_cfg keys and words on its command line; `None` where another source may
    /// come first. `cloud` says whether the node has a metadata service, which comes before fw_cfg.
    pub fn identity_of(fw_cfg: &[FwCfg], append: &str, cloud: bool) -> Option<(String, &'static str)> {
        let words = || append.split_whitespace().filter_map(|word| word.split_once('='));
        if words().any(|(name, _)| name == SOURCES_WORD) {
            return None;
        }
        if let Some((_, id)) = words().find(|(name, _)| *name == INSTANCE_WORD) {
            return Some((id.to_ascii_lowercase(), "cmdline"));
        }
        let given = fw_cfg.iter().find(|cfg| cfg.key == INSTANCE_KEY).filter(|_| !cloud)?;
        let id = String::from_utf8_lossy(&given.value).trim().to_ascii_lowercase();
        (!id.is_empty()).then_some((id, "fw_cfg"))
    }

    /// The first thing in a verdict that is not as expected. Verdicts other than ready and installed are the machine's own failures.
    pub fn problem(&self, verdict: &BootVerdict) -> Option<String> {
        match verdict {
            BootVerdict::Ready {
                instance,
                source,
                root,
                agent,
                nonce,
                state,
            } => self
                .other_root(root)
                .or_else(|| self.other_nonce(nonce.as_deref()))
                .or_else(|| (agent != "active").then(|| not_running(state)))
                .or_else(|| self.other_state(state))
                .or_else(|| self.other_identity(instance, source)),
            BootVerdict::Installed { root, .. } => self.other_root(root),
            BootVerdict::Rejected { .. } | BootVerdict::Refused { .. } | BootVerdict::Panicked { .. } => None,
        }
    }

    fn other_root(&self, root: &VerityDigest) -> Option<String> {
        let pinned = self.root.filter(|pinned| pinned != root)?;
        Some(format!(
            "the machine verified another root than the manifest names\nexpected: {pinned}\n  actual: {root}"
        ))
    }

    fn other_nonce(&self, nonce: Option<&str>) -> Option<String> {
        let given = self.nonce.as_deref()?;
        match nonce {
            Some(said) if said == given => None,
            Some(said) => Some(format!(
                "the ready line has another nonce than this boot was given\nexpected: {given}\n  actual: {said}"
            )),
            None => Some(format!("the ready line lacks the nonce of this boot, {given}")),
        }
    }

    fn other_state(&self, state: &BTreeMap<String, String>) -> Option<String> {
        let get = |name: &str| state.get(name).map_or("unknown", String::as_str);
        if !["integrity", "confidentiality"].contains(&get("lockdown")) {
            return Some(format!("the kernel is not locked down: lockdown={}", get("lockdown")));
        }
        // UEFI without Secure Boot has the variable or lacks it.
        let (firmware, secure_boot) = match self.firmware {
            Firmware::Direct | Firmware::Bios | Firmware::RaspberryPi4 => ("bios", &["unavailable"][..]),
            Firmware::Uefi => ("uefi", &["unavailable", "off"][..]),
            Firmware::SecureBoot => ("uefi", &["on"][..]),
        };
        if get("firmware") != firmware {
            return Some(format!(
                "the machine was started by other firmware than it reports\nexpected: firmware={firmware}\n  actual: firmware={}",
                get("firmware")
            ));
        }
        (!secure_boot.contains(&get("secure_boot"))).then(|| match self.firmware {
            Firmware::SecureBoot => format!("the kernel was not booted securely: secure_boot={}", get("secure_boot")),
            _ => format!(
                "the machine reports secure_boot={}, and its firmware has no Secure Boot in force",
                get("secure_boot")
            ),
        })
    }

    fn other_identity(&self, instance: &str, source: &str) -> Option<String> {
        let (id, from) = self.identity.as_ref()?;
        (instance != id || source != *from).then(|| {
            format!(
                "the node has another identity than it was given\nexpected: {id} from {from}\n  actual: {instance} from {source}"
            )
        })
    }
}

/// The agent that does not run, with what the machine reports of its end.
fn not_running(state: &BTreeMap<String, String>) -> String {
    let get = |name: &str| state.get(name).map_or("unknown", String::as_str);
    let mut problem = format!(
        "the agent is not running: its exit status is {} after {} restarts",
        get("exit"),
        get("restarts")
    );
    if let Some(said) = state.get("agent_said") {
        _ = write!(problem, "\nlast line: {said}");
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "6f1c6a4e-6d53-4c8b-9a55-0f3f1c6c2f10";

    fn expected(firmware: Firmware) -> Expected {
        Expected {
            firmware,
            root: Some("ab".repeat(32).parse().expect("hex")),
            nonce: Some("0a".to_owned()),
            identity: Some((ID.to_owned(), "fw_cfg")),
        }
    }

    /// A verdict with `name=value` words in place of those of a good node by UEFI.
    fn ready(changed: &str) -> BootVerdict {
        let root = "ab".repeat(32);
        let good = format!(
            "instance={ID} source=fw_cfg root={root} agent=active nonce=0a lockdown=integrity secure_boot=off firmware=uefi"
        );
        let mut words: BTreeMap<String, String> = BTreeMap::new();
        for word in good.split(' ').chain(changed.split_whitespace()) {
            let (name, value) = word.split_once('=').expect("name=value");
            words.insert(name.to_owned(), value.to_owned());
        }
        let [instance, source, root, agent, nonce] =
            ["instance", "source", "root", "agent", "nonce"].map(|name| words.remove(name).expect("there"));
        BootVerdict::Ready {
            instance,
            source,
            root: root.parse().expect("hex"),
            agent,
            nonce: Some(nonce).filter(|nonce| nonce != "none"),
            state: words,
        }
    }

    #[test]
    fn a_node_is_what_it_was_started_as() {
        assert_eq!(expected(Firmware::Uefi).problem(&ready("")), None);
        assert_eq!(
            expected(Firmware::Uefi).problem(&ready("secure_boot=unavailable")),
            None
        );
        let secure = ready("secure_boot=on");
        assert_eq!(expected(Firmware::SecureBoot).problem(&secure), None);
        for firmware in [Firmware::Bios, Firmware::Direct, Firmware::RaspberryPi4] {
            let bios = ready("firmware=bios secure_boot=unavailable");
            assert_eq!(expected(firmware).problem(&bios), None);
            // The forged line of a boot sector: it says that a disk started by BIOS is a node by UEFI with Secure Boot.
            let problem = expected(firmware).problem(&secure).expect("a problem");
            assert!(problem.contains("other firmware"), "{problem}");
        }
        for (changed, want) in [
            ("root=cd", "verified another root"),
            ("nonce=none", "lacks the nonce of this boot, 0a"),
            ("nonce=0b", "another nonce"),
            ("agent=failed", "the agent is not running"),
            ("lockdown=none", "not locked down: lockdown=none"),
            ("firmware=bios", "actual: firmware=bios"),
            ("secure_boot=on", "reports secure_boot=on"),
            ("instance=f0f0f0f0-0000-4000-8000-00000000f0f0", "another identity"),
            ("source=cloud", "from cloud"),
        ] {
            let changed = changed.replace("root=cd", &format!("root={}", "cd".repeat(32)));
            let problem = expected(Firmware::Uefi).problem(&ready(&changed));
            assert!(
                problem.as_deref().is_some_and(|p| p.contains(want)),
                "{changed}: {problem:?}"
            );
        }
        let problem = expected(Firmware::SecureBoot).problem(&ready("secure_boot=off"));
        assert_eq!(
            problem.as_deref(),
            Some("the kernel was not booted securely: secure_boot=off")
        );
    }

    #[test]
    fn the_first_source_that_was_given_an_identity_is_the_one_expected() {
        let given = [FwCfg::parse(&format!("instance_uuid= {} ", ID.to_uppercase())).expect("valid")];
        let of = |append: &str, cloud| Expected::identity_of(&given, append, cloud);
        assert_eq!(of("", false), Some((ID.to_owned(), "fw_cfg")));
        assert_eq!(
            of("powernode.instance_uuid=X a", false),
            Some(("x".to_owned(), "cmdline"))
        );
        assert_eq!(of("", true), None, "the cloud comes first");
        assert_eq!(of("powernode.identity.sources=fw_cfg", false), None);
        assert_eq!(Expected::identity_of(&[], "", false), None);
    }
}
