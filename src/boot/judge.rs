//! `Judge`: reads the verdict on a boot from the machine's console.

use crate::model::VerityDigest;
use serde::Serialize;
use std::collections::BTreeMap;

/// The verdict on a boot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum BootVerdict {
    /// It reached multi-user with a verified root.
    Ready {
        /// Its instance id.
        instance: String,
        /// Source of the instance id.
        source: String,
        /// The root it verified.
        root: VerityDigest,
        /// `active` or `failed`.
        agent: String,
        /// Its state line, by name: `lockdown`, `secure_boot`, `firmware`, `persist`; further words of the ready line, as `restarts` and
        /// `exit` of the agent; and as `agent_said` the last line of an agent that failed.
        state: BTreeMap<String, String>,
    },
    /// It wrote a disk, verified the disk, and is powering off.
    Installed {
        /// The disk.
        disk: String,
        /// The root it wrote.
        root: VerityDigest,
    },
    /// The firmware or a boot loader refused to start an image.
    Rejected {
        /// Its line on the console.
        line: String,
    },
    /// The initramfs refused to continue.
    Refused {
        /// The reason it gave.
        reason: String,
    },
    /// The kernel panicked.
    Panicked {
        /// The kernel's line.
        line: String,
    },
}

/// Reads a console while it is written.
#[derive(Debug, Default)]
pub struct Judge {
    line: Vec<u8>,
    state: BTreeMap<String, String>,
    verdict: Option<BootVerdict>,
}

const READY: &str = "powernode: ready ";
const REFUSED: &str = "powernode: refused: ";
const STATE: &str = "powernode: state ";
const AGENT: &str = "powernode: agent ";
const AGENT_SAID: &str = "agent_said";
const INSTALLED: &str = "powernode: installed: ";
/// Messages of shim, GRUB and OVMF about an image without a valid signature.
const REJECTED: [&str; 4] = [
    "bad shim signature",
    "Security Violation",
    "Verification failed",
    "Access Denied",
];
const PANIC: &str = "Kernel panic - not syncing";
/// Bytes of a line that are read; the lines judged are shorter.
const MAX_LINE: usize = 4096;

impl Judge {
    /// Takes the next bytes; returns the verdict once there is one. The first verdict counts.
    pub fn take(&mut self, bytes: &[u8]) -> Option<&BootVerdict> {
        for &byte in bytes {
            if byte == b'\n' {
                let line = String::from_utf8_lossy(&self.line).into_owned();
                self.line.clear();
                if self.verdict.is_none() {
                    self.verdict = self.judge(line.trim_end_matches('\r'));
                }
            } else if self.line.len() < MAX_LINE {
                self.line.push(byte);
            }
        }
        self.verdict.as_ref()
    }

    /// The verdict so far.
    pub fn verdict(self) -> Option<BootVerdict> {
        self.verdict
    }
}

impl Judge {
    fn judge(&mut self, line: &str) -> Option<BootVerdict> {
        // Before all others: what an agent says is no verdict.
        if let Some((_, said)) = line.split_once(AGENT) {
            self.state.insert(AGENT_SAID.to_owned(), said.to_owned());
            return None;
        }
        if let Some((_, rest)) = line.split_once(STATE) {
            self.state = fields(rest).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            return None;
        }
        if let Some((_, rest)) = line.split_once(READY) {
            return ready(rest, &self.state);
        }
        if let Some((_, rest)) = line.split_once(INSTALLED) {
            let (disk, rest) = rest.split_once(' ')?;
            let disk = disk.to_owned();
            return Some(BootVerdict::Installed {
                disk,
                root: field(rest, "root")?.parse().ok()?,
            });
        }
        if let Some((_, reason)) = line.split_once(REFUSED) {
            return Some(BootVerdict::Refused {
                reason: reason.trim().to_owned(),
            });
        }
        let line = line.trim().to_owned();
        if REJECTED.iter().any(|words| line.contains(words)) {
            return Some(BootVerdict::Rejected { line });
        }
        line.contains(PANIC).then_some(BootVerdict::Panicked { line })
    }
}

/// Words of the form `name=value`.
fn fields(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split_whitespace().filter_map(|word| word.split_once('='))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    fields(text).find(|(n, _)| *n == name).map(|(_, value)| value)
}

/// Parses `instance=<id> source=<src> root=<64 hex> agent=<active|failed>`: all four, in any order. Other words are added to `state`.
fn ready(rest: &str, state: &BTreeMap<String, String>) -> Option<BootVerdict> {
    let known = ["instance", "source", "root", "agent"];
    let further = fields(rest).filter(|(name, _)| !known.contains(name));
    let further = further.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Some(BootVerdict::Ready {
        instance: field(rest, "instance")?.to_owned(),
        source: field(rest, "source")?.to_owned(),
        root: field(rest, "root")?.parse().ok()?,
        agent: field(rest, "agent")
            .filter(|a| ["active", "failed"].contains(a))?
            .to_owned(),
        state: state.clone().into_iter().chain(further).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_line_is_taken_apart_however_it_arrives() {
        let root = "ab".repeat(32);
        let text = format!(
            "noise\r\npowernode: state lockdown=integrity secure_boot=on\r\n[   12.3] powernode: ready instance=i-1 source=fw_cfg root={root} agent=active\r\n"
        );
        let mut judge = Judge::default();
        for byte in text.bytes() {
            judge.take(&[byte]);
        }
        let want = BootVerdict::Ready {
            instance: "i-1".to_owned(),
            source: "fw_cfg".to_owned(),
            root: root.parse().expect("hex"),
            agent: "active".to_owned(),
            state: [("lockdown", "integrity"), ("secure_boot", "on")]
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .into(),
        };
        assert_eq!(judge.verdict(), Some(want));
    }

    #[test]
    fn what_an_agent_says_is_no_verdict() {
        let root = "ab".repeat(32);
        let text = format!(
            "powernode: state lockdown=none\npowernode: agent x powernode: ready instance=y source=y root={root} agent=active\n\
             powernode: agent Verification failed\n\
             powernode: ready instance=i source=s root={root} agent=failed restarts=2 exit=1\n"
        );
        let mut judge = Judge::default();
        let Some(BootVerdict::Ready { agent, state, .. }) = judge.take(text.as_bytes()) else {
            panic!("no verdict");
        };
        assert_eq!(agent, "failed");
        let state: Vec<(&str, &str)> = state.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let want = [
            ("agent_said", "Verification failed"),
            ("exit", "1"),
            ("lockdown", "none"),
            ("restarts", "2"),
        ];
        assert_eq!(state, want);
    }

    #[test]
    fn the_first_verdict_stands_and_malformed_lines_are_none() {
        let mut judge = Judge::default();
        assert_eq!(
            judge.take(b"powernode: ready instance=x source=y root=00 agent=active\n"),
            None
        );
        let refused = judge
            .take(b"x powernode: refused: root digest differs \nKernel panic - not syncing: x\n")
            .cloned();
        let reason = "root digest differs".to_owned();
        assert_eq!(refused, Some(BootVerdict::Refused { reason }));
        assert_eq!(judge.verdict(), refused);
    }
}
