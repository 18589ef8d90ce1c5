//! The sandbox as its callers see it: stages that behave, and stages that do not.

use pnb::model::{Epoch, RelPath, VerityDigest};
use pnb::sandbox::*;
use std::{collections::BTreeMap, io::Read, path::{Path, PathBuf}, time::Duration};

fn rel(path: &str) -> RelPath {
    path.parse().expect("a relative path")
}

/// A root of the host's own programs.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("scratch");
        for name in ["bin", "sbin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), dir.path().join(name)).expect("link");
        }
        std::fs::create_dir(dir.path().join("etc")).expect("etc");
        Self { dir }
    }
    fn spec(&self, script: &str) -> Spec {
        let mount = |path: &str| Mount {
            source: PathBuf::from("/").join(path),
            target: rel(path),
            access: Access::ReadOnly,
        };
        Spec {
            stage: "test".into(),
            root: RootFs::Tree(self.dir.path().to_owned()),
            mounts: vec![mount("usr")],
            workload: Workload::Command { argv: vec!["/bin/sh".into(), "-c".into(), script.into()] },
            env: BTreeMap::new(),
            epoch: Epoch::new(1_750_000_000),
            ids: Ids::Single,
            capabilities: Default::default(),
            limits: Limits { wall: Duration::from_secs(20), ..Limits::default() },
            outputs: vec![],
            build_dir: BuildDir::Tmpfs,
            dev_in: vec![],
            proc_mount: false,
            console: Console::Log,
        }
    }
}

fn run(spec: &Spec, strict: bool) -> (Result<Outcome, SandboxError>, String) {
    let executor = Executor { helper: Path::new(env!("CARGO_BIN_EXE_pnb")).to_owned(), strict };
    let mut log = Vec::new();
    let mut put = |content: &mut dyn Read| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        Ok((VerityDigest::new(*blake3::hash(&bytes).as_bytes()), bytes.len() as u64))
    };
    let outcome = executor.run(spec, &mut put, &mut log);
    (outcome, String::from_utf8_lossy(&log).into_owned())
}

#[test]
fn first() {
    let host = Host::new();
    let (outcome, log) = run(&host.spec("id; ls -l / /dev; cat /proc/self/mountinfo; env; hostname"), true);
    println!("{log}");
    println!("{:#?}", outcome.map_err(|e| e.to_string()));
}
