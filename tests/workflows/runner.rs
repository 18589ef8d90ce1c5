//! The little of a runner that these workflows use: the variables of a step, its script under bash, `GITHUB_PATH`.
//!
//! The programs of the scripts are recorders: `pnb` writes down its arguments, and `cargo` leaves such a `pnb` where it would compile one.

use crate::parser::{Names, Workflow};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// A pnb that writes its arguments, each with a NUL behind it and a line end behind the last, and fails at one command.
const RECORDER: &str =
    "#!/bin/sh\nprintf '%s\\0' \"$@\" >>\"$RECORD\"\necho >>\"$RECORD\"\n[ \"$1\" != \"$FAILING\" ]\n";
const CARGO: &str =
    "#!/bin/sh\nset -e\nmkdir -p \"$CARGO_TARGET_DIR/release\"\ncp \"$RECORDER\" \"$CARGO_TARGET_DIR/release/pnb\"\n";

/// A job that runs.
pub(crate) struct Run<'a> {
    workflow: &'a Workflow,
    job: &'a str,
    combination: &'a Names,
    /// Variables that are empty; all others have a value.
    unset: Vec<&'a str>,
    dir: tempfile::TempDir,
}

impl<'a> Run<'a> {
    pub(crate) fn new(workflow: &'a Workflow, job: &'a str, combination: &'a Names) -> Self {
        let dir = tempfile::tempdir().expect("scratch");
        let run = Self {
            workflow,
            job,
            combination,
            unset: Vec::new(),
            dir,
        };
        for (name, text) in [("recorder", RECORDER), ("bin/cargo", CARGO)] {
            let path = run.place(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        // What the job `pnb` has left.
        fs::create_dir_all(run.place("var/lib/pnb/bin/0123abcd")).expect("made");
        fs::copy(run.place("recorder"), run.place("var/lib/pnb/bin/0123abcd/pnb")).expect("copied");
        run
    }

    /// The same job where these variables are empty.
    pub(crate) fn without(mut self, unset: &[&'a str]) -> Self {
        self.unset = unset.to_vec();
        self
    }

    fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The arguments of every pnb of the job.
    pub(crate) fn all(&self) -> Vec<Vec<String>> {
        assert_eq!(self.steps(""), None);
        self.recorded()
    }

    /// The same, where the pnb with this command fails; the job must end there.
    pub(crate) fn failing_at(&self, command: &str) -> Vec<Vec<String>> {
        let failed = self.steps(command);
        assert!(failed.is_some(), "no step has failed");
        self.recorded()
    }

    /// Runs the steps; returns the script that failed.
    fn steps(&self, failing: &str) -> Option<String> {
        let path = |name: &str| fs::read_to_string(self.place(name)).unwrap_or_default();
        for step in self.workflow.steps_of(self.job) {
            let Some(script) = step.run else { continue };
            let file = self.place("step.sh");
            fs::write(&file, &script).expect("written");
            // As GitHub, Gitea and Forgejo run `shell: bash`.
            let mut bash = Command::new("bash");
            bash.args(["--noprofile", "--norc", "-eo", "pipefail"]).arg(&file);
            bash.current_dir(self.dir.path()).env_clear();
            let added: String = path("github-path").lines().map(|line| format!("{line}:")).collect();
            bash.env("PATH", format!("{added}{}:/usr/bin:/bin", self.place("bin").display()));
            let mut env = self.workflow.env_of(self.job);
            env.extend(step.env);
            for (name, value) in env {
                // The directory of the runner is one of ours.
                let value = self
                    .expand(&value)
                    .replace("/var/lib/pnb", self.place("var/lib/pnb").to_str().expect("UTF-8"));
                bash.env(name, value);
            }
            bash.env("GITHUB_SHA", "0123abcd")
                .env("GITHUB_PATH", self.place("github-path"));
            bash.env("GITHUB_SERVER_URL", "https://git.example")
                .env("GITHUB_REPOSITORY", "acme/images");
            bash.env("GITHUB_REF", "refs/tags/v1")
                .env("GITHUB_REF_TYPE", "tag")
                .env("GITHUB_REF_NAME", "v1");
            bash.env("RECORD", self.place("record"))
                .env("RECORDER", self.place("recorder"));
            bash.env("FAILING", failing);
            let done = bash.output().expect("bash starts");
            if !done.status.success() {
                let said = String::from_utf8_lossy(&done.stderr).into_owned();
                assert!(!failing.is_empty(), "{script}\n{said}");
                return Some(script);
            }
        }
        None
    }

    /// A value with its expressions replaced. Those that the workflows use are listed here; another one is a failure.
    fn expand(&self, value: &str) -> String {
        let mut out = String::new();
        let mut rest = value;
        while let Some((before, tail)) = rest.split_once("${{") {
            let (expression, tail) = tail.split_once("}}").expect("a whole expression");
            out.push_str(before);
            let name = expression.trim();
            let known = match name.split_once('.') {
                Some(("matrix", key)) => self.combination.get(key).cloned(),
                // The one variable whose words have a form.
                Some(("vars", "PNB_PLATFORMS")) => Some("raw/amd64=debian-13 disk-image-rpi4/arm64=pi".to_owned()),
                Some(("vars", "PNB_REGISTRY")) => Some("registry.example/acme/os".to_owned()),
                Some(("vars", key)) if self.unset.contains(&key) => Some(String::new()),
                Some(("secrets" | "vars", key)) => Some(format!("value-of-{key}")),
                _ => None,
            };
            out.push_str(&known.unwrap_or_else(|| unreachable!("the runner does not know {name}")));
            rest = tail;
        }
        out + rest
    }

    fn recorded(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.place("record")).unwrap_or_default();
        let words = |line: &str| line.split_terminator('\0').map(str::to_owned).collect();
        text.lines().map(words).collect()
    }
}

/// Runs the real pnb with these arguments where there is nothing to work on: it must end with an error of what is missing, not of the
/// command line (exit code 2). `doctor` needs nothing.
pub(crate) fn accepts(arguments: &[String]) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("scratch");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command.args(arguments).current_dir(dir.path());
    command.env("PNB_STORE", dir.path().join("store"));
    for name in ["ARCH", "VARIANT", "PNB_MIRROR", "PNB_PROJECT"] {
        command.env_remove(name);
    }
    let done = command.output().expect("pnb starts");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    // A path that is not there has the same code, and a message of pnb's own.
    let taken = |code| code != 2 || said.contains("error: failed to ");
    let ran = done.status.code().is_some_and(taken);
    let nothing_is_made = !Path::new(&dir.path().join("images")).exists();
    if ran && nothing_is_made { Ok(()) } else { Err(said) }
}
