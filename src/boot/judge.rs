//! `Judge`: reads the verdict on a boot from the machine's console.
//!
//! Anything that runs before or in the node can write to the console, so a line counts in its place only: at the beginning of a line, and
//! after the kernel's banner, except for the messages of boot loaders, which come before it. What follows a ready line can contradict it.

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
        /// The number that this boot was given, as the node repeats it.
        nonce: Option<String>,
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
    /// Whether the kernel has printed its banner.
    kernel: bool,
    state: BTreeMap<String, String>,
    verdict: Option<BootVerdict>,
    contradiction: Option<String>,
}

const BANNER: &str = "Linux version ";
const READY: &str = "powernode: ready ";
const REFUSED: &str = "powernode: refused: ";
const STATE: &str = "powernode: state ";
const AGENT: &str = "powernode: agent ";
const AGENT_SAID: &str = "agent_said";
const INSTALLED: &str = "powernode: installed: ";
/// Messages of shim, GRUB and OVMF about an image without a valid signature, anywhere in a line: the firmware moves its cursor about.
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
                let line = bare(line.trim_end_matches('\r'));
                if self.verdict.is_none() {
                    self.verdict = self.judge(line);
                } else if self.contradiction.is_none() && is_judged(line) {
                    self.contradiction = Some(line.trim().to_owned());
                }
            } else if self.line.len() < MAX_LINE {
                self.line.push(byte);
            }
        }
        self.verdict.as_ref()
    }

    /// The first line after the verdict that is one for a verdict too, or the banner of another kernel.
    pub fn contradiction(&self) -> Option<&str> {
        self.contradiction.as_deref()
    }

    /// Whether there is no verdict yet.
    pub fn is_open(&self) -> bool {
        self.verdict.is_none()
    }

    /// The verdict so far.
    pub fn verdict(self) -> Option<BootVerdict> {
        self.verdict
    }

    fn judge(&mut self, line: &str) -> Option<BootVerdict> {
        let logged = logged(line);
        if logged.starts_with(BANNER) {
            // Everything before a kernel's banner was said by something else.
            self.kernel = true;
            self.state.clear();
            return None;
        }
        if !self.kernel {
            let line = line.trim().to_owned();
            let rejected = REJECTED.iter().any(|words| line.contains(words));
            return rejected.then_some(BootVerdict::Rejected { line });
        }
        // What programs print is not the kernel's, and has no time of the kernel's before it.
        if let Some(said) = line.strip_prefix(AGENT) {
            self.state.insert(AGENT_SAID.to_owned(), said.to_owned());
            return None;
        }
        if let Some(rest) = line.strip_prefix(STATE) {
            self.state = fields(rest).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            return None;
        }
        if let Some(rest) = line.strip_prefix(READY) {
            return ready(rest, &self.state);
        }
        if let Some(rest) = line.strip_prefix(INSTALLED) {
            let (disk, rest) = rest.split_once(' ')?;
            let disk = disk.to_owned();
            return Some(BootVerdict::Installed {
                disk,
                root: field(rest, "root")?.parse().ok()?,
            });
        }
        if let Some(reason) = logged.strip_prefix(REFUSED) {
            let reason = reason.trim().to_owned();
            return Some(BootVerdict::Refused { reason });
        }
        let line = line.trim().to_owned();
        logged.starts_with(PANIC).then_some(BootVerdict::Panicked { line })
    }
}

/// Whether a line is for a verdict, well-formed or not.
fn is_judged(line: &str) -> bool {
    let logged = logged(line);
    [READY, STATE, INSTALLED].iter().any(|words| line.starts_with(words))
        || [REFUSED, PANIC, BANNER].iter().any(|words| logged.starts_with(words))
}

/// The line without the control sequences of a terminal (ECMA-48) that it begins with: systemd ends some of its lines with one, behind the
/// line feed.
fn bare(mut line: &str) -> &str {
    loop {
        let rest = line.trim_start_matches('\r');
        let Some(escaped) = rest.strip_prefix('\x1b') else {
            return rest;
        };
        let mut parameters = escaped.trim_start_matches('[').chars();
        let sequence = escaped.starts_with('[');
        let end = |c: char| !sequence || !(' '..='?').contains(&c);
        if !parameters.by_ref().any(end) {
            return "";
        }
        line = parameters.as_str();
    }
}

/// The line without the kernel's time, `[    1.234567] `, if it has one.
fn logged(line: &str) -> &str {
    let time = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    match time {
        Some((time, rest)) if time.trim_start().chars().all(|c| c.is_ascii_digit() || c == '.') => rest,
        _ => line,
    }
}

/// Words of the form `name=value`.
fn fields(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split_whitespace().filter_map(|word| word.split_once('='))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    fields(text).find(|(n, _)| *n == name).map(|(_, value)| value)
}

/// Parses `instance=<id> source=<src> root=<64 hex> agent=<active|failed> [nonce=<hex>]`, in any order. Other words are added to `state`.
fn ready(rest: &str, state: &BTreeMap<String, String>) -> Option<BootVerdict> {
    let known = ["instance", "source", "root", "agent", "nonce"];
    let further = fields(rest).filter(|(name, _)| !known.contains(name));
    let further = further.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Some(BootVerdict::Ready {
        instance: field(rest, "instance")?.to_owned(),
        source: field(rest, "source")?.to_owned(),
        root: field(rest, "root")?.parse().ok()?,
        agent: field(rest, "agent")
            .filter(|a| ["active", "failed"].contains(a))?
            .to_owned(),
        nonce: field(rest, "nonce").map(str::to_owned),
        state: state.clone().into_iter().chain(further).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &str = "[    0.000000] Linux version 6.12.0 (gcc) #1 SMP\r\n";

    fn root() -> String {
        "ab".repeat(32)
    }

    fn lines() -> String {
        format!(
            "powernode: state lockdown=integrity secure_boot=on\r\npowernode: ready instance=i-1 source=fw_cfg root={} agent=active nonce=0a\r\n",
            root()
        )
    }

    fn judged(text: &str) -> Judge {
        let mut judge = Judge::default();
        for byte in text.bytes() {
            judge.take(&[byte]);
        }
        judge
    }

    #[test]
    fn a_ready_line_is_taken_apart_however_it_arrives() {
        let want = BootVerdict::Ready {
            instance: "i-1".to_owned(),
            source: "fw_cfg".to_owned(),
            root: root().parse().expect("hex"),
            agent: "active".to_owned(),
            nonce: Some("0a".to_owned()),
            state: [("lockdown", "integrity"), ("secure_boot", "on")]
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .into(),
        };
        let judge = judged(&format!("noise\r\n{KERNEL}noise\r\n\r\n{}", lines()));
        assert_eq!(judge.contradiction(), None);
        assert_eq!(judge.verdict(), Some(want));
    }

    #[test]
    fn a_boot_sector_that_prints_the_lines_is_no_node() {
        assert_eq!(judged(&lines()).verdict(), None);
        // Nor do its lines count once a kernel starts.
        let judge = judged(&format!("{}{KERNEL}", lines()));
        assert_eq!(judge.verdict(), None);
        let mut judge = judged("powernode: state lockdown=integrity\n");
        let bare = lines().lines().next_back().expect("a line").to_owned();
        judge.take(format!("{KERNEL}{bare}\n").as_bytes());
        let Some(BootVerdict::Ready { state, .. }) = judge.verdict() else {
            unreachable!("the line is the node's");
        };
        assert!(state.is_empty(), "the state is not: {state:?}");
    }

    #[test]
    fn words_in_the_middle_of_a_line_are_no_verdict() {
        for line in [
            "usb 1-1: Product: powernode: refused: no",
            "usb 1-1: Product: Kernel panic - not syncing: no",
            "[    1.0] usb 1-1: Product: powernode: refused: no",
            "[a] powernode: refused: no",
            "audit: Access Denied",
            "Verification failed",
        ] {
            assert_eq!(judged(&format!("{KERNEL}{line}\n")).verdict(), None, "{line}");
        }
        let quoted = lines().replace("powernode: ready", "x powernode: ready");
        assert_eq!(judged(&format!("{KERNEL}{quoted}")).verdict(), None);
        let logged = lines().replace("powernode: ready", "[    9.0] powernode: ready");
        assert_eq!(judged(&format!("{KERNEL}{logged}")).verdict(), None);
        for before in ["\x1b[K", "\r\x1b[0m\x1bM\r\x1b[0;31m"] {
            let panic = format!("{KERNEL}{before}[   60.1] Kernel panic - not syncing: x\n");
            let verdict = judged(&panic).verdict();
            assert!(matches!(verdict, Some(BootVerdict::Panicked { .. })), "{before:?}");
        }
        assert_eq!(judged(&format!("{KERNEL}\x1b[12;\n\x1b\n")).verdict(), None);
        let early = judged("BdsDxe: failed to load Boot0001: Access Denied\r\n").verdict();
        assert!(matches!(early, Some(BootVerdict::Rejected { .. })), "{early:?}");
    }

    #[test]
    fn a_second_line_contradicts_the_first() {
        let forged = lines().replace("i-1", "nobody");
        for (second, contradicts) in [
            (lines(), true),
            (forged, true),
            ("powernode: ready instance=\n".to_owned(), true),
            ("[   60.1] powernode: refused: x\n".to_owned(), true),
            ("[   60.1] Kernel panic - not syncing: x\n".to_owned(), true),
            (KERNEL.to_owned(), true),
            (
                "[   60.1] powernode-agent[1]: powernode: refused: x\n".to_owned(),
                false,
            ),
            ("login: powernode: ready \n".to_owned(), false),
        ] {
            let judge = judged(&format!("{KERNEL}{}{second}", lines()));
            assert_eq!(judge.contradiction().is_some(), contradicts, "{second}");
            let Some(BootVerdict::Ready { instance, .. }) = judge.verdict() else {
                unreachable!("the first line is one");
            };
            assert_eq!(instance, "i-1", "the first verdict stands");
        }
    }

    #[test]
    fn what_an_agent_says_is_no_verdict() {
        let root = "ab".repeat(32);
        let text = format!(
            "{KERNEL}powernode: state lockdown=none\npowernode: agent x powernode: ready instance=y source=y root={root} agent=active\n\
             powernode: agent Verification failed\n\
             powernode: ready instance=i source=s root={root} agent=failed restarts=2 exit=1\n"
        );
        let mut judge = Judge::default();
        let Some(BootVerdict::Ready { agent, state, .. }) = judge.take(text.as_bytes()) else {
            unreachable!("no verdict");
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
        let mut judge = judged(KERNEL);
        assert_eq!(
            judge.take(b"powernode: ready instance=x source=y root=00 agent=active\n"),
            None
        );
        let refused = judge
            .take(b"[  1.5] powernode: refused: root digest differs \nKernel panic - not syncing: x\n")
            .cloned();
        let reason = "root digest differs".to_owned();
        assert_eq!(refused, Some(BootVerdict::Refused { reason }));
        assert_eq!(judge.verdict(), refused);
    }
}
