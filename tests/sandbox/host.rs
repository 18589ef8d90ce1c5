//! What the cases share: a root made of the host's own programs, and ways to run things in and outside of the sandbox.

use pnb::{
    model::{Epoch, RelPath, VerityDigest},
    sandbox::*,
    store::Content,
};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::Duration,
};

pub(crate) fn rel(path: &str) -> RelPath {
    path.parse().expect("a relative path")
}

/// The program under test: beside the test program when that was copied for another user, else where cargo built it.
pub(crate) fn pnb() -> PathBuf {
    let beside = std::env::current_exe().expect("own path").with_file_name("pnb-copied");
    if beside.exists() {
        beside
    } else {
        env!("CARGO_BIN_EXE_pnb").into()
    }
}

/// A directory that every user may enter.
pub(crate) fn scratch() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("pnb-test").tempdir().expect("scratch");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    dir
}

/// A root of the host's own programs.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        let dir = scratch();
        for name in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), dir.path().join(name)).expect("link");
        }
        fs::create_dir(dir.path().join("etc")).expect("etc");
        Self { dir }
    }

    /// A spec that runs `argv` with the host's programs.
    pub(crate) fn command(&self, argv: &[&str]) -> Spec {
        let usr = Mount {
            source: "/usr".into(),
            target: rel("usr"),
            access: Access::ReadOnly,
        };
        let argv = argv.iter().map(|a| (*a).to_owned()).collect();
        Spec {
            mounts: vec![usr],
            epoch: Epoch::new(1_750_000_000),
            limits: Limits {
                wall: Duration::from_secs(30),
                ..Limits::small()
            },
            ..Spec::new(
                "test",
                RootFs::Tree(self.dir.path().to_owned()),
                Workload::command(argv),
            )
        }
    }

    pub(crate) fn shell(&self, script: &str) -> Spec {
        self.command(&["/bin/sh", "-c", script])
    }

    pub(crate) fn perl(&self, script: &str) -> Spec {
        self.command(&["/usr/bin/perl", "-e", script])
    }
}

/// Shows `path` of the host as `/inputs/<name>`.
pub(crate) fn input(path: &Path, name: &str, access: Access) -> Mount {
    Mount {
        source: path.to_owned(),
        target: rel(&format!("inputs/{name}")),
        access,
    }
}

pub(crate) fn output(path: &str, kind: OutputKind) -> OutputSpec {
    OutputSpec {
        name: "out".into(),
        path: rel(path),
        kind,
        allow_setid: false,
        allow_devices: false,
    }
}

/// A stand-in for the store: contents by digest.
#[derive(Default)]
pub(crate) struct Contents(pub(crate) BTreeMap<VerityDigest, Vec<u8>>);

pub(crate) fn run_into(
    spec: &Spec,
    strict: bool,
    log: &mut dyn LogSink,
) -> (Result<StageOutcome, SandboxError>, Contents) {
    let executor = Executor { helper: pnb(), strict };
    let mut contents = Contents::default();
    let mut put = |_: &OutputSpec, _: bool, content: &mut dyn Content| -> io::Result<(VerityDigest, u64)> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        let (digest, size) = (VerityDigest::new(*blake3::hash(&bytes).as_bytes()), bytes.len() as u64);
        contents.0.insert(digest, bytes);
        Ok((digest, size))
    };
    let outcome = executor.run(spec, &mut put, log);
    (outcome, contents)
}

/// Runs a spec with every layer required; returns what it printed too.
pub(crate) fn run(spec: &Spec) -> (Result<StageOutcome, SandboxError>, String) {
    let mut log = Vec::new();
    let (outcome, _) = run_into(spec, true, &mut log);
    (outcome, String::from_utf8_lossy(&log).into_owned())
}

/// Runs a spec that must end well; returns what it printed.
pub(crate) fn printed(spec: &Spec) -> String {
    let (outcome, log) = run(spec);
    let problem = outcome.err().map(|e| e.to_string());
    assert_eq!(problem, None, "{log}");
    log
}

/// Runs a spec that must fail; returns the whole message.
pub(crate) fn refused(spec: &Spec) -> String {
    let (outcome, log) = run(spec);
    outcome.map(|o| o.measured).expect_err(&log).to_string()
}

/// What a command prints outside of the sandbox.
pub(crate) fn outside(argv: &[&str], cwd: &Path) -> String {
    let done = Command::new(argv[0])
        .args(&argv[1..])
        .current_dir(cwd)
        .output()
        .expect("runs");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

pub(crate) fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// For cases that would starve each other of memory or time.
pub(crate) static ALONE: Mutex<()> = Mutex::new(());

/// Command lines of all processes in sight, arguments joined by spaces, without the caller's own.
pub(crate) fn processes() -> Vec<String> {
    #[expect(clippy::disallowed_methods, reason = "the order of processes does not matter")]
    let entries = fs::read_dir("/proc").expect("listed");
    let own = std::process::id().to_string();
    let pids = entries.flatten().filter(|e| e.file_name() != *own);
    let lines = pids.filter_map(|e| fs::read(e.path().join("cmdline")).ok());
    lines
        .map(|l| String::from_utf8_lossy(&l).replace('\0', " "))
        .filter(|l| !l.is_empty())
        .collect()
}
