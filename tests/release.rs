//! pnb's own static programs, which `.ci/release` makes: `.ci/nightly` runs it before these tests.

#[path = "fixture/check_tools.rs"]
mod check_tools;

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use crate::check_tools::{check_tools, stage_tree::stage_tree};
    use pnb::{
        image::elf::{ElfMachine, read_elf},
        lock::{LOCK_VERSION, Lockfile, PinnedFile, write_lock},
        model::{Arch, Epoch, RelPath},
        sandbox::{Access, Executor, Limits, Mount, Network, OutputSpec, RootFs, Spec, Workload},
        store::Content,
        verity::Both,
    };
    use std::{
        collections::BTreeMap,
        fs, io,
        os::unix::fs::PermissionsExt,
        path::{Path, PathBuf},
        process::{Command, Output},
    };

    fn repository() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    /// The program of this architecture.
    fn program(arch: Arch) -> PathBuf {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .expect("the target directory");
        let name = format!("release-binaries/pnb-{}-{arch}", env!("CARGO_PKG_VERSION"));
        let path = target.join(name);
        assert!(path.is_file(), "{} is missing: .ci/release makes it", path.display());
        path
    }

    /// The pnb of these tests, and each program of a release with what runs it here.
    fn programs() -> BTreeMap<&'static str, Vec<PathBuf>> {
        let emulator = stage_tree("emulators").join("usr/bin/qemu-aarch64");
        BTreeMap::from([
            ("amd64", vec![program(Arch::Amd64)]),
            ("arm64", vec![emulator, program(Arch::Arm64)]),
            ("tested", vec![PathBuf::from(env!("CARGO_BIN_EXE_pnb"))]),
        ])
    }

    fn run(command: &[PathBuf], arguments: &[&str]) -> Output {
        let mut run = Command::new(&command[0]);
        run.args(&command[1..]).args(arguments).current_dir(repository());
        run.output()
            .unwrap_or_else(|error| unreachable!("{command:?}: {error}"))
    }

    #[test]
    #[ignore = "nightly: .ci/release has compiled pnb for both architectures; cargo test -- --ignored nightly::"]
    fn the_programs_of_a_release_are_static() {
        for arch in Arch::ALL {
            let bytes = fs::read(program(arch)).expect("readable");
            let elf = read_elf(&bytes).expect("an ELF file");
            assert_eq!(elf.machine, ElfMachine::of(arch));
            assert_eq!((elf.interpreter, elf.needed), (None, Vec::new()), "{arch}");
            // No path of the machine that compiled it, and none of the sandbox.
            for path in [
                repository().to_str().expect("UTF-8"),
                "/inputs/vendor",
                "/inputs/source",
                "/build/work",
            ] {
                let found = memchr::memmem::find(&bytes, path.as_bytes());
                assert_eq!(found, None, "{path} is in the program for {arch}");
            }
        }
        let tested = fs::read(env!("CARGO_BIN_EXE_pnb")).expect("readable");
        let tested = read_elf(&tested).expect("an ELF file");
        assert!(
            tested.interpreter.is_some() && !tested.needed.is_empty(),
            "the control is dynamic"
        );
    }

    #[test]
    #[ignore = "nightly: .ci/release has compiled pnb for both architectures; cargo test -- --ignored nightly::"]
    fn the_programs_of_a_release_say_what_the_tested_one_says() {
        let images = Path::new(env!("CARGO_TARGET_TMPDIR")).join("release-images");
        let store = Path::new(env!("CARGO_TARGET_TMPDIR")).join("store");
        let built = Command::new(env!("CARGO_BIN_EXE_pnb"))
            .args([
                "build",
                "--hermetic",
                "--allow-dirty",
                "--arch",
                "amd64",
                "--variant",
                "kernel-initrd",
                "--store",
            ])
            .arg(&store)
            .arg("--output")
            .arg(&images)
            .current_dir(repository())
            .output();
        let built = built.expect("starts");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let artifact = images.join("kernel-initrd/amd64");
        let artifact = artifact.to_str().expect("UTF-8");
        for arguments in [
            &["--version"][..],
            &["--json", "inspect", "fuzz/seeds/iso/boot"],
            &["--json", "inspect", "fuzz/seeds/qcow2/compressed"],
            &["--json", "audit", artifact],
            &["audit", "fuzz/seeds/manifest"],
        ] {
            let said: Vec<(&str, Output)> = programs()
                .iter()
                .map(|(name, command)| (*name, run(command, arguments)))
                .collect();
            let (_, tested) = &said[2];
            assert!(!tested.stdout.is_empty() || !tested.stderr.is_empty(), "{arguments:?}");
            for (name, output) in &said[..2] {
                assert_eq!(
                    output.status.code(),
                    tested.status.code(),
                    "{name} {arguments:?}: {output:?}"
                );
                assert!(
                    output.stdout == tested.stdout,
                    "{name} {arguments:?}: {output:?}\n{tested:?}"
                );
            }
        }
    }

    #[test]
    #[ignore = "nightly: .ci/release has compiled pnb for both architectures; cargo test -- --ignored nightly::"]
    fn the_program_for_this_machine_finds_the_layers_of_the_sandbox() {
        let all = programs();
        let layers = |name: &str| {
            let output = run(&all[name], &["--json", "doctor"]);
            (
                output.status.code(),
                String::from_utf8_lossy(&output.stdout).to_lowercase(),
            )
        };
        let (code, said) = layers("amd64");
        assert!(said.contains("landlock") && said.contains("seccomp"), "{said}");
        assert_eq!(code, layers("tested").0, "{said}");
    }

    /// A root with nothing but the program, a shell without libraries and the files that name services read. What nsswitch.conf names
    /// does not exist, and ends a search: a program that asked it would find no host.
    fn small_root(dir: &Path) {
        for (from, to) in [
            (program(Arch::Amd64), "usr/bin/pnb"),
            (check_tools().join("usr/bin/busybox"), "usr/bin/busybox"),
        ] {
            let to = dir.join(to);
            fs::create_dir_all(to.parent().expect("a directory")).expect("made");
            fs::copy(from, &to).expect("copied");
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        fs::create_dir(dir.join("etc")).expect("made");
        fs::write(
            dir.join("etc/nsswitch.conf"),
            "hosts: elsewhere [UNAVAIL=return] files dns\npasswd: elsewhere\n",
        )
        .expect("written");
        fs::write(dir.join("etc/hosts"), "127.0.0.1 localhost\n").expect("written");
    }

    /// A project whose agent is a download.
    fn project(dir: &Path, content: &[u8]) {
        let mut both = Both::new();
        both.update(content);
        let (url, size, sha256) = (
            "http://localhost:8080/agent",
            content.len() as u64,
            both.finish().sha256,
        );
        let lock = Lockfile {
            version: LOCK_VERSION,
            source_date_epoch: Epoch::new(1_795_252_544),
            base: None,
            sets: Vec::new(),
            archives: Vec::new(),
            packages: Vec::new(),
            files: vec![PinnedFile {
                name: "agent".to_owned(),
                arch: None,
                path: None,
                url: Some(url.to_owned()),
                redirects: Vec::new(),
                size,
                sha256,
            }],
        };
        let stage = "summary = \"The agent\"\nwriter = \"install-agent\"\n\n[inputs]\nagent = { lock = \"agent\" }\n\n\
                     [outputs]\ntree = { kind = \"tree\" }\n";
        let file = format!("[[file]]\nname = \"agent\"\nurl = \"{url}\"\nsize = {size}\nsha256 = \"{sha256}\"\n");
        fs::create_dir_all(dir.join("stages/agent")).expect("made");
        fs::write(dir.join("lockfile.toml"), write_lock(&lock).expect("a lock")).expect("written");
        fs::write(dir.join("stages/agent/stage.toml"), stage).expect("written");
        fs::write(dir.join("stages/files.toml"), file).expect("written");
    }

    #[test]
    #[ignore = "nightly: .ci/release has compiled pnb for both architectures; cargo test -- --ignored nightly::"]
    fn a_static_program_finds_a_host_by_name_and_opens_no_library() {
        let dir = tempfile::tempdir().expect("scratch");
        let [root, project_dir, served] = ["root", "project", "served"].map(|name| dir.path().join(name));
        small_root(&root);
        let content = b"#!/bin/sh\necho agent\n";
        project(&project_dir, content);
        fs::create_dir(&served).expect("made");
        fs::write(served.join("agent"), content).expect("written");
        let mount = |source: &Path, target: &str| Mount {
            source: source.to_owned(),
            target: RelPath::new(target).expect("a path"),
            access: Access::ReadOnly,
        };
        let script = "set -eu\npnb serve /inputs/served --http 127.0.0.1:8080 >/build/log 2>&1 &\n\
                      busybox sleep 1\npnb --project /inputs/project --store /build/store fetch --stage agent\n\
                      busybox find /build/store/objects -type f\nbusybox cat /build/log";
        let spec = Spec {
            mounts: vec![mount(&project_dir, "inputs/project"), mount(&served, "inputs/served")],
            limits: Limits::small(),
            network: Network::Loopback,
            ..Spec::new(
                "release",
                RootFs::Tree(root),
                Workload::command(["/usr/bin/busybox", "sh", "-c", script].map(str::to_owned).to_vec()),
            )
        };
        let executor = Executor {
            helper: env!("CARGO_BIN_EXE_pnb").into(),
            strict: false,
        };
        let mut put = |_: &OutputSpec, _: bool, _: &mut dyn Content| Err(io::Error::other("no output is declared"));
        let mut log = Vec::new();
        let ended = executor.run(&spec, &mut put, &mut log);
        let said = String::from_utf8_lossy(&log);
        ended.unwrap_or_else(|error| unreachable!("{said}\n{error}"));
        assert!(said.contains("/build/store/objects/"), "{said}");
    }
}
