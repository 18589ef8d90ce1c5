//! A small project in a repository of its own: one stage, which a writer builds without any package.

use pnb::{
    lock::{LOCK_VERSION, Lockfile, PinnedFile, write_lock},
    model::Epoch,
    pipeline::Project,
    source::Revision,
    verity::Both,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// The agent of the project; its stage accepts a script.
const AGENT: &str = "#!/bin/sh\necho committed\n";
/// The stage's own script, which no command runs: it is an input.
pub(crate) const SCRIPT: &str = "stages/agent/build.sh";

/// A project in a directory of its own.
pub(crate) struct Checkout {
    dir: TempDir,
}

impl Checkout {
    /// The files of a project, in no repository.
    pub(crate) fn files() -> Self {
        let dir = tempfile::tempdir().expect("scratch");
        let checkout = Self { dir };
        write_project(checkout.path());
        checkout
    }

    /// The same, committed.
    pub(crate) fn committed() -> Self {
        let checkout = Self::files();
        checkout.sh("git init -q -b main . && git add -A . && git commit -q -m first");
        checkout
    }

    /// An empty directory.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().expect("scratch");
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a shell script in the directory; every command of it must end well. git has no configuration but that of the checkout.
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = shell(self.path(), script).output().expect("sh starts");
        assert!(output.status.success(), "{script}\n{}", text(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The revision of the project in the directory `inside`, as the library gives it.
    pub(crate) fn revision_of(&self, inside: &str) -> Revision {
        let tree = Project::find(&self.path().join(inside), true).expect("a project");
        Project::load(tree).expect("a whole project").revision
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision_of(".")
    }

    /// Every difference from the commit, one line each.
    pub(crate) fn dirty(&self) -> String {
        let lines: Vec<String> = self.revision().dirty.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    /// `pnb` in the directory, with a store of its own and no network; killed after a minute.
    pub(crate) fn pnb(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .arg("60")
            .arg(env!("CARGO_BIN_EXE_pnb"))
            .args(arguments)
            .arg("--offline");
        command.current_dir(self.path()).env("PNB_STORE", self.store());
        for name in ["ARCH", "VARIANT", "PNB_MIRROR", "PNB_PROJECT"] {
            command.env_remove(name);
        }
        command
    }

    /// Exit code and all that `pnb` printed.
    pub(crate) fn said(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.pnb(arguments).output().expect("starts");
        (output.status.code().unwrap_or(-1), text(&output))
    }

    /// A store outside the project.
    pub(crate) fn store(&self) -> PathBuf {
        let mut name = self.path().as_os_str().to_owned();
        name.push("-store");
        PathBuf::from(name)
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.store());
    }
}

pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn shell(dir: &Path, script: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-euc").arg(script).current_dir(dir);
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    for (role, name) in [("AUTHOR", "a"), ("COMMITTER", "c")] {
        command.env(format!("GIT_{role}_NAME"), name);
        command.env(format!("GIT_{role}_EMAIL"), format!("{name}@localhost"));
    }
    command
}

/// The lock of a project with the agent at `path`.
pub(crate) fn lock_with(path: &str, content: &[u8]) -> String {
    let mut both = Both::new();
    both.update(content);
    let agent = PinnedFile {
        name: "agent".to_owned(),
        arch: None,
        path: Some(path.parse().expect("a path")),
        url: None,
        redirects: Vec::new(),
        size: content.len() as u64,
        sha256: both.finish().sha256,
    };
    let lock = Lockfile {
        version: LOCK_VERSION,
        source_date_epoch: Epoch::new(1_795_252_544),
        base: None,
        sets: Vec::new(),
        archives: Vec::new(),
        packages: Vec::new(),
        files: vec![agent],
    };
    write_lock(&lock).expect("a lock")
}

/// Writes the files of the project.
pub(crate) fn write_project(dir: &Path) {
    let write = |path: &str, content: &str| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, content).expect("written");
    };
    write("lockfile.toml", &lock_with("agent/agent", AGENT.as_bytes()));
    write("agent/agent", AGENT);
    write(
        "stages/files.toml",
        "[[file]]\nname = \"agent\"\npath = \"agent/agent\"\n",
    );
    let stage = "summary = \"The agent\"\nwriter = \"install-agent\"\n\n[inputs]\nagent = { lock = \"agent\" }\n\
                 overlay = { files = \"overlay\" }\n\n[outputs]\ntree = { kind = \"tree\" }\n";
    write("stages/agent/stage.toml", stage);
    write(SCRIPT, "echo committed\n");
    write("overlay/etc/motd", "hello\n");
    write("README", "not an input\n");
    std::os::unix::fs::symlink("motd", dir.join("overlay/etc/issue")).expect("linked");
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(dir.join("agent/agent"), executable).expect("ours");
}
