//! Attacks on the end of a run, on its outputs, on the supervisor that answers calls, and on the caller's terminal.

use crate::ground::{clean, output, own_program, payloads, run, scratch, spec};
use nix::pty::openpty;
use pnb::{model::Node, sandbox::*};
use std::{
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

/// The first argument of this program in a terminal of its own.
pub(crate) const ON_TERMINAL: &str = "on-terminal";

pub(crate) fn set_id_files_by_every_call_do_not_leave() {
    let calls = [
        "chmod",
        "fchmod",
        "fchmodat",
        "fchmodat2",
        "open",
        "creat",
        "openat2",
        "tmpfile",
        "mknod",
        "mkdir",
    ];
    for call in calls {
        let mut made = spec(&["set-id", call]);
        made.outputs.push(output("out", OutputKind::Tree));
        let text = run(&made).0.map(|o| o.outputs).expect_err(call).to_string();
        assert!(
            text.contains("entry \"a\" has mode ") && text.contains("set-id bits are not declared"),
            "{call}: {text}"
        );
        made.outputs[0].allow_setid = true;
        let (outcome, log) = run(&made);
        let outcome = outcome.unwrap_or_else(|e| panic!("control of {call}: failed to {e}\n{log}"));
        let Some(Collected::Tree(tree)) = outcome.outputs.get("out") else {
            panic!("{outcome:?}")
        };
        let entry = tree.get(&"a".parse().expect("a path")).expect("collected");
        assert_ne!(entry.meta.mode & 0o6000, 0, "control of {call}");
        let is_directory = matches!(entry.node, Node::Directory);
        assert_eq!(is_directory, call == "mkdir", "{call}");
    }
    // The table of i386 is closed, whatever the call.
    if cfg!(target_arch = "x86_64") {
        let text = run(&spec(&["set-id", "i386"]))
            .0
            .map(|o| o.outputs)
            .expect_err("killed")
            .to_string();
        assert!(text.contains("signal 31"), "{text}");
        let dir = scratch();
        let outside = Command::new(payloads())
            .args(["set-id", "i386"])
            .current_dir(dir.path())
            .status();
        assert!(outside.expect("runs").success(), "control");
    }
}

pub(crate) fn an_output_that_becomes_a_link_is_not_followed() {
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..16 {
        let mut becoming = spec(&["becoming"]);
        becoming.outputs.push(output("out", OutputKind::Tree));
        let (outcome, log) = run(&becoming);
        assert!(
            log.contains("becoming: both"),
            "control: it changes while it is looked at: {log}"
        );
        match outcome.map_err(|e| e.to_string()) {
            Ok(outcome) => {
                let Some(Collected::Tree(tree)) = outcome.outputs.get("out") else {
                    panic!("{outcome:?}")
                };
                let names: Vec<String> = tree.iter().map(|(path, _)| path.to_string()).collect();
                assert_eq!(names, ["a"], "its own file, and nothing of /inputs");
                taken += 1;
            }
            Err(text) => {
                assert!(text.contains("is a symbolic link"), "{text}");
                refused += 1;
            }
        }
    }
    // Which one it is depends on the moment at which the processes are killed; both ends are right.
    assert_eq!(taken + refused, 16);
}

pub(crate) fn the_answering_supervisor_survives() {
    let mut asking = spec(&["answerer"]);
    asking.variation.shuffle = Some(7);
    asking.variation.kernel = Some("9.9.9-pnb".to_owned());
    let (outcome, log) = run(&asking);
    assert!(outcome.is_ok(), "{:?}\n{log}", outcome.map_err(|e| e.to_string()));
    assert_eq!(log, "answers: 9.9.9-pnb listed\n");
    let outside = Command::new(payloads()).arg("answerer").output().expect("runs");
    let said = String::from_utf8_lossy(&outside.stdout).into_owned();
    let release = nix::sys::utsname::uname()
        .expect("known")
        .release()
        .to_string_lossy()
        .into_owned();
    assert_eq!(
        said,
        format!("answers: {release} listed\n"),
        "control: the kernel answers the same calls so"
    );
}

/// What the program `argv` prints on a new terminal, whose session it leads.
fn on_new_terminal(argv: &[&Path]) -> String {
    let pair = openpty(None, None).expect("a terminal");
    let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("copied"));
    let mut command = Command::new(payloads());
    command.arg("session").args(argv);
    command
        .stdin(end(&pair.slave))
        .stdout(end(&pair.slave))
        .stderr(end(&pair.slave));
    let mut child = command.spawn().expect("runs");
    drop(command);
    drop(pair.slave);
    let mut said = Vec::new();
    // The terminal ends with EIO when its last process is gone.
    let _ = File::from(pair.master).read_to_end(&mut said);
    child.wait().expect("ends");
    String::from_utf8_lossy(&said).into_owned()
}

pub(crate) fn nothing_is_typed_into_the_terminal() {
    let said = on_new_terminal(&[&own_program(), Path::new(ON_TERMINAL)]);
    assert!(said.contains("terminal: no") && !said.contains("PUSHED"), "{said}");
    // The kernel lets its administrator do it, whatever dev.tty.legacy_tiocsti says.
    if crate::ground::is_root() {
        let said = on_new_terminal(&[payloads(), Path::new("terminal")]);
        assert!(said.contains("terminal: GOT"), "control: {said}");
    }
}

/// Runs the attack on the terminal in a sandbox that has it, as `pnb shell` does.
pub(crate) fn on_terminal() -> ExitCode {
    let mut attacking = spec(&["terminal"]);
    attacking.console = Console::Inherit;
    let outcome = run(&attacking).0;
    clean();
    match outcome {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed to {error}");
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn a_deep_tree_is_refused_and_deleted() {
    let disk = scratch();
    for build_dir in [BuildDir::Tmpfs, BuildDir::Disk(disk.path().to_owned())] {
        let mut deep = spec(&["deep"]);
        deep.build_dir = build_dir.clone();
        deep.outputs.push(output("deeper", OutputKind::Tree));
        let (outcome, log) = run(&deep);
        let text = outcome.map(|o| o.outputs).expect_err("too deep").to_string();
        assert!(log.contains("deep: made"), "control: {log}");
        assert!(
            text.contains("depth 64 of output \"out\"") || text.contains("deep below /build"),
            "{build_dir:?}: {text}"
        );
    }
    std::fs::remove_dir(disk.path()).expect("the directory on disk is emptied");
    std::fs::create_dir(disk.path()).expect("again, for its owner to delete it");
}
