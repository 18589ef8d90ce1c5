//! The command line where nothing needs to be built: wrong input, errors, output for machines.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `pnb` on the project at `project`, with a store of its own and no network.
fn pnb(project: &Path, arguments: &[&str]) -> Output {
    let store = tempfile::tempdir().expect("scratch");
    command(project, store.path())
        .arg("--offline")
        .args(arguments)
        .output()
        .expect("starts")
}

/// `pnb` in the project at `project`, without the variables of the caller.
fn command(project: &Path, store: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command
        .current_dir(project)
        .env("PNB_STORE", store)
        .env_remove("PNB_PROJECT")
        .env_remove("ARCH")
        .env_remove("VARIANT")
        .env_remove("PNB_MIRROR");
    command
}

/// Exit code and what was said, the project's path replaced.
fn said(project: &Path, arguments: &[&str]) -> String {
    let output = pnb(project, arguments);
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let text = text.replace(project.to_str().expect("UTF-8"), "<project>");
    format!("exit {}\n{}", output.status.code().expect("exits"), text.trim_end())
}

/// A copy of the project in which one file was changed.
fn changed(file: &str, change: impl FnOnce(String) -> String) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("scratch");
    for name in ["stages", "dracut", "agent", "lockfile.toml"] {
        let done = Command::new("cp")
            .arg("-a")
            .arg(repository().join(name))
            .arg(dir.path())
            .status();
        assert!(done.expect("cp").success());
    }
    let path = dir.path().join(file);
    let text = fs::read_to_string(&path).expect("there");
    let new = change(text.clone());
    assert_ne!(new, text, "{file} was not changed");
    fs::write(&path, new).expect("written");
    dir
}

#[test]
fn a_directory_without_a_project_is_named() {
    let dir = tempfile::tempdir().expect("scratch");
    insta::assert_snapshot!(said(dir.path(), &["plan"]), @r#"
    exit 1
    error: failed to find lockfile.toml and stages/ in "<project>" or above it

    hint: run pnb in the project, or give --project DIR
    "#);
}

#[test]
fn wrong_words_on_the_command_line_are_usage_errors() {
    for arguments in [
        &["build", "--variant", "floppy"][..],
        &["build", "--arch", "vax"],
        &["frobnicate"],
        &["boot"],
    ] {
        let output = pnb(repository(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    let text = said(repository(), &["build", "--variant", "floppy"]);
    assert!(text.contains("kernel-initrd, oci, qcow2, raw"), "{text}");
}

#[test]
fn a_lock_of_a_newer_version_says_what_to_do() {
    let dir = changed("lockfile.toml", |t| t.replace("version = 1\n", "version = 99\n"));
    let text = said(dir.path(), &["plan"]);
    assert!(
        text.starts_with("exit 3\n") && text.contains("99") && text.contains("hint: "),
        "{text}"
    );
}

#[test]
fn a_malformed_lock_is_named_by_line() {
    let dir = changed("lockfile.toml", |t| t.replacen("size = ", "size = \"many\" # ", 1));
    let text = said(dir.path(), &["plan"]);
    assert!(
        text.starts_with("exit 3\n") && text.contains("lockfile.toml") && text.contains("line "),
        "{text}"
    );
}

#[test]
fn a_malformed_stage_is_named_by_line() {
    let dir = changed("stages/kernel/stage.toml", |t| t.replace("[outputs]", "[output]"));
    insta::assert_snapshot!(said(dir.path(), &["plan"]), @"
    exit 6
    error: failed to read stages/kernel/stage.toml, line 9: unknown field `output`, expected one of `summary`, `arch`, `only`, `variant`, `command`, `writer`, `prepare`, `root`, `emulator`, `sector-size`, `compression-level`, `env`, `packages`, `inputs`, `outputs`, `sandbox`, `limits`

    hint: did you mean `outputs`?
    ");
    let dir = changed("stages/kernel/stage.toml", |t| {
        t.replace("stage = \"kernel-package\"", "stage = \"kernal\"")
    });
    insta::assert_snapshot!(said(dir.path(), &["graph"]), @r#"
    exit 6
    error: failed to read stages/kernel/stage.toml, line 5: no stage is called "kernal" (the stages are: agent, base, boot-loaders, boot-tools, boot-tools-arm64, bootstrap, bootstrap-image, browser, check-tools, disk-image-arm64-uefi, disk-image-rpi4, dracut-core, emulators, graphics-firmware, grub-bios, image-tools, initramfs, initramfs-base, initramfs-media, initramfs-root, ipxe, iso, iso-efi, kernel, kernel-initrd, kernel-package, microcode, native-programs, nginx, oci, pi-firmware, publish-tools, publish-tools-next, qcow2, raw, release-std, release-tools, remote-tools, root, rootfs, surroundings, surroundings-locale, tools)

    hint: did you mean `kernel`?
    "#);
    let dir = changed("stages/ipxe/stage.toml", |t| {
        t.replace("from = \"kernel\"", "from = \"loaders\"")
    });
    insta::assert_snapshot!(said(dir.path(), &["plan"]), @r#"
    exit 6
    error: failed to read stages/ipxe/stage.toml, line 20: output "kernel" passes on output "tree" of stage "boot-loaders", which is a directory; only files can be passed on
    "#);
}

#[test]
fn a_want_that_is_not_locked_is_found_without_a_network() {
    let dir = changed("stages/rootfs/stage.toml", |t| {
        t.replace("\"procps\"", "\"procps\", \"htop\"")
    });
    insta::assert_snapshot!(said(dir.path(), &["lock", "--check"]), @r###"
    exit 3
    set rootfs/amd64 lacks htop
    set rootfs/arm64 lacks htop
    lockfile.toml lacks 2 things
    next: pnb lock
    "###);
    insta::assert_snapshot!(said(repository(), &["lock", "--check"]), @r###"
    exit 0
    lockfile.toml has everything the stages want
    next: pnb build
    "###);
}

#[test]
fn a_package_that_is_nowhere_is_named_with_the_places_and_the_remedy() {
    let text = said(repository(), &["fetch", "--stage", "microcode"]);
    assert!(
        text.starts_with("exit 4\n") && text.contains("package intel-microcode"),
        "{text}"
    );
    assert!(
        text.contains("snapshot https://snapshot.debian.org/") && text.contains("hint: "),
        "{text}"
    );
}

#[test]
fn the_plan_and_the_graph_are_there_for_machines() {
    let output = pnb(repository(), &["plan", "--variant", "kernel-initrd", "--json"]);
    let lines: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .expect("UTF-8")
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    let first = lines.iter().find(|l| l["node"] == "microcode/amd64").expect("planned");
    assert_eq!(first["reasons"][0]["reason"], "never-built");
    let [.., last, end] = &lines[..] else {
        unreachable!("planned: {lines:?}")
    };
    assert_eq!(
        (&end["event"], &end["next"][0]),
        (&"end".into(), &"pnb build --offline --variant kernel-initrd".into())
    );
    assert_eq!(
        (&last["node"], &last["reasons"][0]["reason"]),
        (&"kernel-initrd/amd64".into(), &"waits".into())
    );
    let dot = String::from_utf8(pnb(repository(), &["graph", "--dot"]).stdout).expect("UTF-8");
    assert!(
        dot.starts_with("digraph pnb {") && dot.contains("\"rootfs/amd64\" -> \"root/amd64\""),
        "{dot}"
    );
    let svg = String::from_utf8(pnb(repository(), &["graph", "--svg"]).stdout).expect("UTF-8");
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
}

#[test]
fn the_doctor_names_layers_suites_and_the_store() {
    let text = said(repository(), &["doctor"]);
    for part in ["Landlock", "seccomp", "trixie", "forky", "store"] {
        assert!(
            text.to_lowercase().contains(&part.to_lowercase()),
            "{part} is not in:\n{text}"
        );
    }
}

#[test]
fn errors_for_machines_are_objects_with_the_exit_code() {
    let dir = tempfile::tempdir().expect("scratch");
    let output = pnb(dir.path(), &["plan", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!((&value["event"], &value["exit"]), (&"error".into(), &1.into()));
}

/// The commands in a hint or behind `next:`, without the name of the program.
fn commands(said: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in said.lines() {
        let quoted = line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|_| line.starts_with("hint: "));
        let next = line.strip_prefix("next: ").or(line.strip_prefix("      "));
        let texts = quoted.chain(next).filter_map(|text| {
            let at = text.find("pnb ")?;
            Some(text[at + 4..].split(' ').map(str::to_owned).collect())
        });
        found.extend(texts);
    }
    found
}

#[test]
fn a_name_that_is_nearly_right_gets_a_command_that_works() {
    for (arguments, meant) in [
        (&["plan", "--arch", "x86_64"][..], "plan --arch amd64"),
        (&["plan", "--arch=aarch64"], "plan --arch=arm64"),
        (&["plan", "--variant", "rawe"], "plan --variant raw"),
        (&["plan", "--stage", "rootf"], "plan --stage rootfs"),
        (
            &["plan", "--stage", "kernel,rotfs/arm64"],
            "plan --stage kernel,rootfs/arm64",
        ),
        (
            &["plan", "--stage", "pi-firmware"],
            "plan --stage pi-firmware --arch arm64",
        ),
        (
            &["plan", "--stage", "pi-firmware/amd64"],
            "plan --stage pi-firmware/arm64",
        ),
        (&["plan", "raw"], "plan --variant raw"),
        (&["plan", "rootfs/arm64"], "plan --stage rootfs/arm64"),
        (
            &["plan", "--variant", "disk-image-rpi4"],
            "plan --variant disk-image-rpi4 --arch arm64",
        ),
        (
            &["plan", "--arch", "amd64,arm64", "--variant", "raw,disk-image-rpi4"],
            "plan --variant raw,disk-image-rpi4 --arch all",
        ),
        (
            &["plan", "--stage", "rootfs/arm64", "--arch", "amd64"],
            "plan --stage rootfs/arm64 --arch arm64",
        ),
        (&["paln"], "plan"),
        (&["graph", "--stage", "surrounding"], "graph --stage surroundings"),
    ] {
        let output = pnb(repository(), arguments);
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        let found: Vec<String> = commands(&text).iter().map(|words| words.join(" ")).collect();
        assert_eq!(found, [format!("--offline {meant}")], "{arguments:?}: {text}");
        let again: Vec<&str> = meant.split(' ').collect();
        assert_eq!(pnb(repository(), &again).status.code(), Some(0), "{meant}");
    }
    // Two commands, of which each works.
    let text = said(repository(), &["plan", "--variant", "raw", "--stage", "agent"]);
    insta::assert_snapshot!(text, @"
    exit 2
    error: failed to select variants and stages at once: --stage names the stages instead of variants

    hint: `pnb --offline plan --variant raw` or `pnb --offline plan --stage agent`
    ");
    // A variable can be set for all commands: beside --stage it has no effect, and a slip in it is named.
    let store = tempfile::tempdir().expect("scratch");
    let mut stage = command(repository(), store.path());
    let stage = stage.args(["plan", "--stage", "agent"]).env("VARIANT", "raw").output();
    assert!(stage.expect("starts").status.success());
    let mut slip = command(repository(), store.path());
    let slip = slip.arg("plan").env("ARCH", "x86_64").output().expect("starts");
    let text = String::from_utf8(slip.stderr).expect("UTF-8");
    assert!(text.ends_with("hint: `ARCH=amd64 pnb plan`\n"), "{text}");
}

#[test]
fn all_architectures_are_those_that_exist() {
    let text = said(
        repository(),
        &["plan", "--variant", "disk-image-rpi4,raw", "--arch", "all"],
    );
    for stage in ["disk-image-rpi4/arm64", "raw/amd64", "raw/arm64"] {
        assert!(text.contains(stage), "{stage}: {text}");
    }
    assert!(!text.contains("disk-image-rpi4/amd64"), "{text}");
    let text = said(repository(), &["plan", "--stage", "pi-firmware", "--arch", "all"]);
    assert!(text.contains("1 of 1 stage would run"), "{text}");
}

#[test]
fn a_path_that_is_not_built_yet_is_the_same_for_every_command() {
    let dir = changed("stages/agent/stage.toml", |text| text + "\n");
    let trust = ["--identity", "a", "--issuer", "b"];
    for (command, more) in [
        ("audit", &[][..]),
        ("inspect", &[]),
        ("boot", &[]),
        ("challenge", &["lockfile.toml"]),
        ("serve", &[]),
        ("diff", &["lockfile.toml"]),
        ("publish", &["--to", "dir:/nowhere", "--layout", "platform"]),
        ("verify-signature", &trust),
        ("verify-repro", &["--against"]),
    ] {
        for (path, build) in [
            ("images/raw", "build --offline --variant raw"),
            ("images/raw/amd64/disk.raw", "build --offline --variant raw"),
            ("./images/iso/arm64", "build --offline --variant iso --arch arm64"),
            (
                "images/disk-image-rpi4",
                "build --offline --variant disk-image-rpi4 --arch arm64",
            ),
            ("other/raw/amd64", "build --offline --variant raw --output other"),
            ("imges/raw/amd64", "build --offline --variant raw"),
        ] {
            let arguments = match command {
                "verify-repro" => [&[command], more, &[path]].concat(),
                _ => [&[command, path], more].concat(),
            };
            let output = pnb(dir.path(), &arguments);
            let text = String::from_utf8(output.stderr).expect("UTF-8");
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
            assert!(text.contains("not built yet"), "{arguments:?}: {text}");
            let found: Vec<String> = commands(&text).iter().map(|words| words.join(" ")).collect();
            assert_eq!(found, [build], "{arguments:?}: {text}");
        }
        let nowhere = match command {
            // It can be an image in a registry.
            "verify-signature" => continue,
            "verify-repro" => [&[command], more, &["nowhere"]].concat(),
            _ => [&[command, "nowhere"], more].concat(),
        };
        let text = said(dir.path(), &nowhere);
        assert!(
            text.starts_with("exit 2\n") && text.contains("nowhere"),
            "{command}: {text}"
        );
    }
    insta::assert_snapshot!(said(dir.path(), &["inspect", "lockfil.toml"]), @"
    exit 2
    error: failed to find lockfil.toml: there is no such file or directory

    hint: `pnb --offline inspect lockfile.toml`
    ");
}

#[test]
fn a_directory_of_one_architecture_is_that_artifact() {
    let dir = changed("stages/agent/stage.toml", |text| text + "\n");
    let artifact = |arch: &str| {
        let place = dir.path().join("images/raw").join(arch);
        fs::create_dir_all(&place).expect("made");
        fs::write(place.join("build-manifest.json"), "{}").expect("written");
    };
    artifact("arm64");
    for command in ["audit", "boot", "challenge"] {
        let more: &[&str] = if command == "challenge" {
            &["lockfile.toml"]
        } else {
            &[]
        };
        let text = said(dir.path(), &[&[command, "images/raw"], more].concat());
        assert!(text.contains("images/raw/arm64"), "{command}: {text}");
    }
    artifact("amd64");
    insta::assert_snapshot!(said(dir.path(), &["audit", "images/raw"]), @"
    exit 2
    error: failed to choose the artifact in images/raw: it has artifacts for amd64 and arm64

    hint: `pnb --offline audit images/raw/amd64` or `pnb --offline audit images/raw/arm64`
    ");
}

#[test]
fn a_command_ends_with_a_sentence_and_commands_that_work() {
    let dir = changed("stages/agent/stage.toml", |text| text + "\n");
    let store = tempfile::tempdir().expect("scratch");
    let run = |arguments: &[&str]| {
        let output = command(dir.path(), store.path())
            .args(arguments)
            .output()
            .expect("starts");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).expect("UTF-8");
        assert!(output.status.success(), "{arguments:?}: {text}");
        text
    };
    let mut waiting = vec![vec!["plan".to_owned(), "--stage".to_owned(), "agent".to_owned()]];
    let mut ran = Vec::new();
    // Each command is followed by those that it names, until nothing new is named.
    while let Some(words) = waiting.pop() {
        if ran.contains(&words) || words.last().is_some_and(|word| word == "build") {
            continue;
        }
        let text = run(&words.iter().map(String::as_str).collect::<Vec<_>>());
        waiting.extend(commands(&text));
        ran.push(words);
    }
    let ran: Vec<String> = ran.iter().map(|words| words.join(" ")).collect();
    assert_eq!(
        ran,
        ["plan --stage agent", "build --stage agent", "store path agent/amd64"]
    );
    let again = run(&["build", "--stage", "agent"]);
    assert!(
        again.contains("   cached agent/amd64; 1 of 1\n1 stage: 1 cached, "),
        "{again}"
    );
    assert!(run(&["plan", "--stage", "agent"]).contains("none of 1 stage would run\n"));
    assert!(run(&["store", "verify"]).contains(" 0 damaged, "));
    let kept = run(&["store", "gc"]);
    assert!(
        kept.contains("the outputs of 1 stage of the project as it is are kept\nnext: pnb plan\n"),
        "{kept}"
    );
    // The same for programs: the last object has the sentence and the commands.
    for arguments in [
        &["build", "--stage", "agent"][..],
        &["plan", "--stage", "agent"],
        &["store", "verify"],
        &["store", "gc"],
        &["lock", "--check"],
        &["inspect", "lockfile.toml"],
    ] {
        let text = run(&[&["--json"], arguments].concat());
        let last = text.lines().last().expect("a line");
        let last: serde_json::Value = serde_json::from_str(last).expect("JSON");
        assert!(
            last["summary"].is_string() && last["next"].is_array(),
            "{arguments:?}: {last}"
        );
    }
    // Damage has a remedy that works.
    let objects = store.path().join("objects");
    let find = Command::new("find")
        .arg(&objects)
        .args(["-type", "f"])
        .output()
        .expect("find");
    let list = String::from_utf8(find.stdout).expect("UTF-8");
    let object = list.lines().next().expect("an object");
    let chmod = Command::new("chmod").args(["u+w", object]).status();
    assert!(chmod.expect("chmod").success());
    fs::write(object, "other").expect("written");
    let damaged = command(dir.path(), store.path())
        .args(["store", "verify"])
        .output()
        .expect("starts");
    let text = String::from_utf8(damaged.stderr).expect("UTF-8");
    assert_eq!(
        (damaged.status.code(), text.as_str()),
        (Some(5), "next: pnb store verify --repair\n")
    );
    // Which object is the first depends on the file system; the record of a damaged output is damage too.
    let text = String::from_utf8(damaged.stdout).expect("UTF-8");
    let found = text.lines().filter(|line| line.starts_with("damaged ")).count();
    assert!(found > 0, "{text}");
    let repaired = run(&["store", "verify", "--repair"]);
    assert!(
        repaired.contains(&format!(" {found} damaged and removed; ")),
        "{repaired}"
    );
    assert!(run(&["store", "verify"]).contains(" 0 damaged, "));
}

#[test]
fn the_store_answers_for_the_project_as_it_is() {
    let dir = changed("stages/agent/stage.toml", |text| text + "\n");
    let store = tempfile::tempdir().expect("scratch");
    let run = |arguments: &[&str]| {
        let output = command(dir.path(), store.path())
            .args(arguments)
            .output()
            .expect("starts");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("UTF-8"))
    };
    let build = || assert_eq!(run(&["build", "--stage", "agent"]).0, Some(0));
    build();
    let (code, first) = run(&["store", "path", "agent"]);
    assert_eq!(code, Some(0), "{first}");
    // Another state of the project is built later in the same store.
    let stage = dir.path().join("stages/agent/stage.toml");
    let before = fs::read_to_string(&stage).expect("read");
    fs::write(&stage, before.clone() + "\n[limits]\nprocesses = 77\n").expect("written");
    let (code, text) = run(&["store", "path", "agent"]);
    assert_eq!(code, Some(5), "{text}");
    assert!(text.contains("hint: `pnb build --stage agent --arch amd64`"), "{text}");
    let (code, text) = run(&["log", "agent"]);
    assert!(code == Some(5) && text.contains("`pnb log agent --last`"), "{text}");
    assert_eq!(run(&["log", "agent", "--last"]).0, Some(0));
    build();
    assert_eq!(run(&["log", "agent"]).0, Some(0));
    fs::write(&stage, before).expect("written");
    // The record of the project as it is, which is not the newest, and so is kept by the collector.
    assert_eq!(run(&["store", "path", "agent"]).1, first);
    assert_eq!(run(&["store", "gc"]).0, Some(0));
    let (_, plan) = run(&["plan", "--stage", "agent"]);
    assert!(plan.starts_with("cached "), "{plan}");
    // The architecture is that of the options, of the variable, or of the name.
    let (code, text) = run(&["store", "path", "agent", "--arch", "arm64"]);
    assert!(code == Some(5) && text.contains("--arch arm64"), "{text}");
    let (code, text) = run(&["store", "path", "agent/arm64"]);
    assert!(code == Some(5) && text.contains("--arch arm64"), "{text}");
    let mut variable = command(dir.path(), store.path());
    let output = variable
        .args(["store", "path", "agent"])
        .env("ARCH", "arm64")
        .output()
        .expect("starts");
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn a_wrong_command_line_for_machines_is_an_object() {
    for arguments in [
        &["--json", "paln"][..],
        &["plan", "--json", "--arch", "vax"],
        &["--json", "boot"],
    ] {
        let output = pnb(repository(), arguments);
        assert_eq!(
            (output.status.code(), output.stderr.len()),
            (Some(2), 0),
            "{arguments:?}"
        );
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
        assert_eq!((&value["event"], &value["exit"]), (&"error".into(), &2.into()));
        assert!(
            value["hints"][0].as_str().is_some_and(|hint| hint.starts_with("`pnb ")),
            "{value}"
        );
    }
}

#[test]
fn a_key_that_is_nearly_right_is_named() {
    for (file, from, to, meant) in [
        ("stages/kernel/stage.toml", "[outputs]", "[output]", "outputs"),
        (
            "stages/kernel/stage.toml",
            "stage = \"kernel-package\"",
            "stage = \"kernel-packages\"",
            "kernel-package",
        ),
        ("lockfile.toml", "[[package]]\nname", "[[package]]\nnam", "name"),
        ("stages/files.toml", "[[file]]\nname", "[[file]]\nnames", "name"),
    ] {
        let dir = changed(file, |text| text.replacen(from, to, 1));
        let text = said(dir.path(), &["plan"]);
        assert!(
            text.contains(&format!("\n\nhint: did you mean `{meant}`?")),
            "{file}: {text}"
        );
    }
    let dir = changed("stages/agent/stage.toml", |text| text + "\n");
    fs::create_dir(dir.path().join("images")).expect("made");
    fs::write(dir.path().join("policy.toml"), "version = 1\nhermetik = true\n").expect("written");
    let text = said(dir.path(), &["audit", "images", "--policy", "policy.toml"]);
    assert!(text.ends_with("hint: did you mean `hermetic`?"), "{text}");
}

#[test]
fn completion_has_the_stages_of_the_project() {
    let text = said(repository(), &["completion", "bash"]);
    assert!(
        text.contains("graphics-firmware") && text.contains("disk-image-rpi4"),
        "no stages in the script"
    );
}
