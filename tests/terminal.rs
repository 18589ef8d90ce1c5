//! Text from files of others on its way to a terminal, through the program: nothing in it reaches the terminal as a command, is invisible, or
//! looks like a line of pnb.

mod fixture;

use fixture::{artifact, facts, lock, root_image, write_all};
use nix::pty::openpty;
use pnb::{
    image::cpio::CpioWriter,
    manifest::Statements,
    model::{Epoch, Meta, RelPath, is_visible},
};
use std::{
    ffi::OsString,
    fs,
    io::Read,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// Sets the clipboard and the title, clears the screen, reverses the direction, hides text, and imitates a line.
const HOSTILE: &str =
    "a\x1b]52;c;ZXZpbA==\x07\x1b]0;title\x07\x1b[2J\u{9b}31m\u{202e}\u{200b}\u{e0041}\u{2028}\x7f\r\nerror: forged";

/// The beginning of it as it must be shown.
const SHOWN: &str = "a\\u{1b}]52;c;ZXZpbA==\\u{7}\\u{1b}]0;title\\u{7}\\u{1b}[2J";

fn pnb(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command.current_dir(dir).env("PNB_STORE", dir.join("store"));
    command.args(arguments).output().expect("starts")
}

/// What was printed, in which every character must be visible, and no line forged.
fn said(dir: &Path, arguments: &[&str]) -> String {
    let output = pnb(dir, arguments);
    let text = String::from_utf8([output.stdout, output.stderr].concat());
    let text = text.expect("UTF-8");
    let odd = text.chars().find(|c| !is_visible(*c) && !matches!(c, '\n' | '\t'));
    assert_eq!(odd, None, "{arguments:?}: {text:?}");
    assert!(
        text.lines().all(|line| !line.starts_with("error: forged")),
        "{arguments:?}: {text}"
    );
    text
}

/// The same with the hostile text in it.
fn shows(dir: &Path, arguments: &[&str]) {
    let text = said(dir, arguments);
    // A path of an archive is shown byte by byte.
    let bytes = HOSTILE
        .split('\n')
        .next()
        .expect("a line")
        .as_bytes()
        .escape_ascii()
        .to_string();
    assert!(text.contains(SHOWN) || text.contains(&bytes), "{arguments:?}: {text}");
    // The same as JSON: the values are those of the file.
    let json = said(dir, &[&["--json"], arguments].concat());
    let mut found = false;
    for line in json.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let mut open = vec![&value];
        while let Some(value) = open.pop() {
            match value {
                serde_json::Value::String(text) => found |= text.contains("ZXZpbA=="),
                serde_json::Value::Array(values) => open.extend(values),
                serde_json::Value::Object(fields) => {
                    found |= fields.keys().any(|key| key.contains("ZXZpbA=="));
                    open.extend(fields.values());
                }
                _ => {}
            }
        }
    }
    assert!(found, "{arguments:?}: {json}");
}

fn archive(content: &[u8]) -> Vec<u8> {
    let mut archive = CpioWriter::new(Vec::new());
    let meta = Meta::root(0o644, Epoch::new(0));
    let name = RelPath::new(HOSTILE).expect("a path");
    let mut bytes = content;
    archive
        .file(&name, &meta, content.len() as u64, &mut bytes)
        .expect("written");
    archive.finish().expect("written")
}

#[test]
fn names_and_contents_of_artifacts_are_shown_visibly() {
    let dir = tempfile::tempdir().expect("scratch");
    let dir = dir.path();
    fs::create_dir_all(dir.join("files")).expect("made");
    fs::write(dir.join("files").join(HOSTILE), "x").expect("written");
    fs::write(dir.join("a.cpio"), archive(b"one")).expect("written");
    fs::write(dir.join("b.cpio"), archive(b"two")).expect("written");
    let menu = "menuentry 'a\x1b[31mred' {\n linux /k \x1b[2Jx\n}\n";
    fs::write(dir.join("grub.cfg"), menu).expect("written");
    shows(dir, &["inspect", "files"]);
    shows(dir, &["inspect", "a.cpio"]);
    shows(dir, &["diff", "a.cpio", "b.cpio"]);
    let menu = said(dir, &["inspect", "grub.cfg"]);
    assert!(
        menu.contains("a\\u{1b}[31mred") && menu.contains("\\u{1b}[2Jx"),
        "{menu}"
    );
    for command in ["inspect", "boot", "audit", "serve", "challenge"] {
        let text = said(dir, &[command, HOSTILE]);
        assert!(text.contains("u{202e}"), "{command}: {text}");
    }
    for arguments in [
        &["plan", "--arch", HOSTILE][..],
        &["inspect", HOSTILE, HOSTILE],
        &[HOSTILE],
    ] {
        let text = said(dir, arguments);
        assert!(text.contains("u{202e}"), "{arguments:?}: {text}");
    }
    // A name that is no UTF-8.
    let name = OsString::from_vec(b"bad\xff\x9b\xe2\x80\xae".to_vec());
    fs::write(dir.join("files").join(&name), "x").expect("written");
    let text = said(dir, &["inspect", "files"]);
    assert!(text.contains("bad"), "{text}");
}

#[test]
fn values_of_manifests_policies_and_locks_are_shown_visibly() {
    let scratch = tempfile::tempdir().expect("scratch");
    let dir = scratch.path();
    let (image, root) = root_image();
    let files = artifact(image, format!("{root}\n").as_bytes());
    let pins = lock();
    let described = Statements::describe(&facts(&pins, *root, &files)).expect("whole facts");
    let whole = serde_json::to_value(&described.manifest).expect("JSON");
    let fields = [
        "/arch",
        "/agent/kind",
        "/archives/0/distribution",
        "/kernel_version",
        "/git_sha",
    ];
    for field in fields {
        let mut value = whole.clone();
        *value.pointer_mut(field).expect("there") = HOSTILE.into();
        let text = pnb::manifest::write_value(&value).expect("integers only");
        fs::write(dir.join("hostile.json"), &text).expect("written");
        fs::write(dir.join("whole.json"), described.manifest.to_json().expect("JSON")).expect("written");
        let text = said(dir, &["challenge", "hostile.json", "whole.json"]);
        assert!(text.starts_with("error: failed to read "), "{field}: {text}");
        assert!(text.contains("ZXZpbA=="), "{field}: {text}");
        said(dir, &["diff", "hostile.json", "whole.json"]);
        said(dir, &["--json", "diff", "hostile.json", "whole.json"]);
        // A value of a megabyte is not repeated.
        *value.pointer_mut(field).expect("there") = "x".repeat(1 << 20).into();
        let text = pnb::manifest::write_value(&value).expect("integers only");
        fs::write(dir.join("hostile.json"), &text).expect("written");
        let text = said(dir, &["challenge", "hostile.json", "whole.json"]);
        assert!(text.len() < 100_000, "{field}: {} bytes", text.len());
    }
    let escape = |c: char| match is_visible(c) {
        true => c.to_string(),
        false => format!("\\U{:08x}", u32::from(c)),
    };
    let escaped = format!("\"{}\"", HOSTILE.chars().map(escape).collect::<String>());
    fs::write(dir.join("policy.toml"), format!("version = 1\n{escaped} = 1\n")).expect("written");
    write_all(&dir.join("artifact"), &files, &described);
    assert!(said(dir, &["audit", "artifact", "-v"]).contains("ok    manifest"));
    shows(dir, &["audit", "artifact", "--policy", "policy.toml"]);

    let project = project(dir);
    let lock = fs::read_to_string(project.join("lockfile.toml")).expect("read");
    let toml = |text: &str| text.replace("\"debian\"\nsuite", "PLACE\nsuite");
    assert_ne!(toml(&lock), lock);
    for value in [escaped.clone(), format!("\"{}\"", "x".repeat(1 << 20))] {
        let hostile = toml(&lock).replace("PLACE", &value);
        fs::write(project.join("lockfile.toml"), &hostile).expect("written");
        let text = said(&project, &["lock", "--check"]);
        assert!(text.len() < 2000, "{} bytes", text.len());
        assert!(text.starts_with("error: failed to read "), "{text}");
        let hostile = lock.replace("distribution = \"debian\"", &format!("distribution = {value}"));
        fs::write(project.join("lockfile.toml"), &hostile).expect("written");
        let text = said(&project, &["lock", "--check"]);
        assert!(text.len() < 2000, "{} bytes", text.len());
        assert!(text.starts_with("error: failed to read "), "{text}");
    }
    fs::write(project.join("lockfile.toml"), &lock).expect("written");
    let stage = project.join("stages/check-tools/stage.toml");
    let text = fs::read_to_string(&stage).expect("read");
    for (field, hostile) in [
        (
            "writer",
            text.replace("writer = \"unpack\"", &format!("writer = {escaped}")),
        ),
        ("arch", text.replace("arch = \"host\"", &format!("arch = {escaped}"))),
        (
            "summary",
            text.replace("summary = \"The", "summary = \"\\u001b[2J\\u202eThe"),
        ),
    ] {
        assert_ne!(hostile, text);
        fs::write(&stage, hostile).expect("written");
        let said = said(&project, &["graph"]);
        assert!(said.starts_with("error: failed to read "), "{field}: {said}");
        assert!(said.contains("\\u{1b}"), "{field}: {said}");
    }
}

/// A named pipe, a device or a directory in the place of a file of others: an error, and no waiting.
#[test]
fn no_command_waits_for_a_named_pipe() {
    let scratch = tempfile::tempdir().expect("scratch");
    let dir = scratch.path();
    let project = project(dir);
    nix::unistd::mkfifo(&dir.join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    fs::create_dir_all(dir.join("artifact")).expect("made");
    nix::unistd::mkfifo(&dir.join("artifact/build-manifest.json"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    for (name, problem) in [
        (dir.join("fifo"), "it is a named pipe, not a regular file"),
        (PathBuf::from("/dev/zero"), "it is a device, not a regular file"),
        (dir.join("store"), "it is a directory, not a regular file"),
    ] {
        fs::create_dir_all(dir.join("store")).expect("made");
        let name = name.to_str().expect("UTF-8");
        for arguments in [
            &["audit", ".", "--policy", name][..],
            &["build", "--agent", name],
            &["build", "--ca-pem", name],
            &["challenge", name, name],
            &["verify-repro", "--against", name],
        ] {
            if problem.contains("directory") && ["challenge", "verify-repro"].contains(&arguments[0]) {
                continue;
            }
            let output = pnb(&project, arguments);
            let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
            assert!(
                !output.status.success() && text.contains(problem),
                "{arguments:?}: {text}"
            );
        }
    }
    for command in ["challenge", "boot", "audit", "inspect"] {
        let output = pnb(
            &project,
            &[command, "../artifact", "../artifact"][..if command == "challenge" { 3 } else { 2 }],
        );
        assert!(
            output
                .status
                .code()
                .is_some_and(|code| command == "inspect" || code != 0),
            "{command}"
        );
    }
}

/// The stages and the lock of the repository.
fn project(dir: &Path) -> PathBuf {
    let project = dir.join("project");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir(&project).expect("made");
    for name in ["stages", "dracut", "agent", "lockfile.toml"] {
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(repository.join(name)).arg(&project);
        assert!(copy.status().expect("starts").success());
    }
    project
}

#[test]
fn the_log_of_a_stage_is_visible_on_a_terminal_and_unchanged_elsewhere() {
    let scratch = tempfile::tempdir().expect("scratch");
    let project = project(scratch.path());
    let logs = project.join("store/logs");
    assert!(pnb(&project, &["store", "verify"]).status.success());
    fs::create_dir_all(&logs).expect("made");
    let log = [HOSTILE.as_bytes(), b"\n\xff\x00tab\there\r\nlast\n"].concat();
    fs::write(logs.join("one.log"), &log).expect("written");
    let arch = pnb::model::Arch::host();
    fs::write(logs.join(format!("latest-check-tools-{arch}")), "one.log").expect("written");
    let piped = pnb(&project, &["log", "check-tools", "--last"]);
    assert_eq!(piped.stdout, log, "{}", String::from_utf8_lossy(&piped.stderr));

    let pty = openpty(None, None).expect("a terminal");
    let mut child = Command::new(env!("CARGO_BIN_EXE_pnb"))
        .current_dir(&project)
        .env("PNB_STORE", project.join("store"))
        .args(["log", "check-tools", "--last"])
        .stdin(Stdio::null())
        .stdout(pty.slave)
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let mut shown = Vec::new();
    // The terminal ends with an error when the last program has closed it.
    let _ = fs::File::from(pty.master).read_to_end(&mut shown);
    assert!(child.wait().expect("ends").success());
    let shown = String::from_utf8(shown).expect("UTF-8").replace("\r\n", "\n");
    let odd = shown.chars().find(|c| !is_visible(*c) && !matches!(c, '\n' | '\t'));
    assert_eq!(odd, None, "{shown:?}");
    assert!(shown.starts_with(SHOWN), "{shown}");
    assert!(
        shown.ends_with("\n\\xff\\0tab\there\nlast\n") || shown.contains("\\xff\\0tab"),
        "{shown}"
    );
}
