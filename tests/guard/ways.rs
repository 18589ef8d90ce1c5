//! Words of the kernel command line, and credentials of the hypervisor.

use crate::{machine::*, project::*};

/// A way round: the words, the name by which they are refused, and what is typed on an image with recovery until the canary sings.
pub(crate) struct Way {
    pub(crate) words: &'static str,
    refused: &'static str,
    typed: &'static [(&'static str, &'static str)],
    /// What only root can have printed.
    sung: &'static str,
}

/// A shell that comes with this prompt.
macro_rules! shell {
    ($words:literal, $refused:literal, $prompt:literal) => {
        Way {
            words: $words,
            refused: $refused,
            typed: &[($prompt, CANARY)],
            sung: SUNG,
        }
    };
}

/// The place of a break is the prompt of dracut's shell.
const INIT: Way = shell!("init=/bin/sh", "init= ", "job control turned off");
/// A command that systemd is given. The second word is needed because the root names its default target in /etc, which counts more than
/// the generator's.
pub(crate) const RUN: Way = Way {
    words: "systemd.run=\"/bin/sh -c 'echo CANARY-$((6*7))-ROOT >/dev/ttyS0'\" systemd.unit=kernel-command-line.target",
    refused: "systemd.run= ",
    typed: &[],
    sung: SUNG,
};
const WAYS: [Way; 15] = [
    shell!("rd.break=cmdline", "rd.break= ", "cmdline:/# "),
    shell!("rd.break=pre-udev", "rd.break= ", "pre-udev:/# "),
    shell!("rd.break=pre-trigger", "rd.break= ", "pre-trigger:/# "),
    shell!("rd.break=initqueue", "rd.break= ", "initqueue:/# "),
    shell!("rd.break=pre-mount", "rd.break= ", "pre-mount:/# "),
    shell!("rd.break=mount", "rd.break= ", "mount:/# "),
    shell!("rd.break=pre-pivot", "rd.break= ", "pre-pivot:/# "),
    shell!("rd.break=cleanup", "rd.break= ", "cleanup:/# "),
    shell!("rd.break", "rd.break ", "switch_root:/# "),
    Way {
        words: "rd.cmdline=ask",
        refused: "rd.cmdline= ",
        typed: &[
            ("(end with ctrl-d or .)", "rd.break=pre-mount\n.\n"),
            ("pre-mount:/# ", CANARY),
        ],
        sung: SUNG,
    },
    shell!("powernode.debug=1 powernode.root=no", "powernode.debug ", "powernode# "),
    Way {
        words: "systemd.debug_shell=ttyS0",
        refused: "systemd.debug_shell= ",
        typed: &[("debug-shell.service", "\n"), ("# ", CANARY)],
        sung: SUNG,
    },
    Way {
        words: "systemd.unit=rescue.target systemd.setenv=SYSTEMD_SULOGIN_FORCE=1",
        refused: "systemd.unit= ",
        typed: &[("for system maintenance", "\n"), ("# ", CANARY)],
        sung: SUNG,
    },
    RUN,
    Way {
        words: "emergency systemd.setenv=SYSTEMD_SULOGIN_FORCE=1",
        refused: "emergency ",
        typed: &[("for system maintenance", "\n"), ("# ", CANARY)],
        sung: SUNG,
    },
];

/// Refused by name, before anything else: the canary does not sing although it is fed.
fn is_closed(way: &Way) {
    let said = typed(
        &mut at_console(&direct(false), &["--append", way.words]),
        way.typed,
        &[],
    );
    let refused = format!("{REFUSED}{}", way.refused);
    assert!(said.contains(&refused), "{}: {refused} is not in:\n{said}", way.words);
    assert!(!said.contains(way.sung), "{}:\n{said}", way.words);
}

/// The same words give root on an image with recovery.
fn is_open(way: &Way) {
    let said = typed(
        &mut at_console(&direct(true), &["--append", way.words]),
        way.typed,
        &[way.sung],
    );
    assert!(said.contains(way.sung), "{}:\n{said}", way.words);
}

#[test]
#[ignore = "long: a boot that is refused, and one into a shell; cargo test -- --include-ignored"]
fn a_shell_in_place_of_init_is_refused_and_is_there_with_recovery() {
    is_closed(&INIT);
    is_open(&INIT);
}

/// A line for systemd-tmpfiles, which it takes as a credential: it writes a text to the console as root. A name in fw_cfg has at most 55
/// characters, which leaves room for this one and not for that of a unit's drop-in.
const CREDENTIAL: &str = "opt/io.systemd.credentials/tmpfiles.extra=w /dev/ttyS0 - - - - CANARY-OF-TMPFILES\n";
const WRITTEN: &str = "CANARY-OF-TMPFILES";

#[test]
#[ignore = "long: two boots; cargo test -- --include-ignored"]
fn a_credential_of_the_hypervisor_does_nothing_and_is_taken_with_recovery() {
    let ready = "powernode: ready ";
    let arguments = ["--fw-cfg", CREDENTIAL];
    let said = typed(&mut at_console(&direct(false), &arguments), &[], &[ready]);
    assert!(said.contains(ready) && !said.contains(WRITTEN), "{said}");
    let said = typed(&mut at_console(&direct(true), &arguments), &[], &[WRITTEN, ready]);
    assert!(said.contains(WRITTEN), "{said}");
}

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: twenty-two boots that are refused; cargo test -- --ignored nightly::"]
    fn every_way_is_refused_by_name() {
        for way in &WAYS {
            is_closed(way);
        }
        for word in [
            "single",
            "S",
            "1",
            "rd.shell",
            "systemd.wants=debug-shell.service",
            "systemd.run=/bin/true",
            "powernode.boot=0",
        ] {
            let said = bad(
                pnb(repository(), &store()).arg("boot").arg(direct(false)).args([
                    "--timeout",
                    &patience(120),
                    "--append",
                    word,
                ]),
                9,
            );
            let name = match word.split_once('=') {
                Some((name, _)) if name != "powernode.boot" => format!("{name}= "),
                _ => format!("{word} "),
            };
            assert!(said.contains(&format!("{REFUSED}{name}")), "{word}:\n{said}");
        }
    }

    #[test]
    #[ignore = "nightly: fifteen boots into shells; cargo test -- --ignored nightly::"]
    fn every_way_is_open_with_recovery() {
        for way in &WAYS {
            is_open(way);
        }
    }
}
