//! The artifacts of every variant of amd64, made at home, taken from a cache, and made on a worker: the same bytes.

use crate::{
    engine::{Casd, CasdOptions, as_user, remote_tools},
    project::text,
};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// The ordinary user, whom tests/sandbox has, too.
const USER: &str = "pnb-test";

#[track_caller]
fn run(command: &mut Command) -> String {
    let done = command.output().expect("starts");
    assert!(done.status.success(), "{command:?}: {}", text(&done));
    text(&done)
}

/// Where somebody builds: a clone of the project, the packages, and a copy of pnb.
struct Place {
    directory: tempfile::TempDir,
    user: Option<&'static str>,
}

impl Place {
    fn new(user: Option<&'static str>) -> Self {
        let directory = tempfile::tempdir().expect("scratch");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("set");
        let place = Self { directory, user };
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        run(Command::new("git")
            .args(["clone", "--quiet", "--depth", "1"])
            .arg(format!("file://{}", source.display()))
            .arg(place.path("project")));
        let mirror = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mirror");
        run(Command::new(env!("CARGO_BIN_EXE_pnb"))
            .args(["--quiet", "--project"])
            .arg(source)
            .arg("vendor")
            .arg(&mirror));
        run(Command::new("cp").arg("-r").arg(&mirror).arg(place.path("mirror")));
        run(Command::new("cp").arg(env!("CARGO_BIN_EXE_pnb")).arg(place.path("pnb")));
        if let Some(user) = user {
            run(Command::new("cp")
                .arg("-a")
                .arg(remote_tools())
                .arg(place.path("tools")));
            run(Command::new("chown")
                .args(["-R", &format!("{user}:")])
                .arg(place.path("")));
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn casd(&self, name: &str, runner: bool) -> Casd {
        let directory = self.path(name);
        fs::create_dir(&directory).expect("made");
        if let Some(user) = self.user {
            run(Command::new("chown").arg(format!("{user}:")).arg(&directory));
        }
        let user = self.user.map(|user| (user.to_owned(), self.path("tools")));
        Casd::start(
            &directory,
            &CasdOptions {
                runner,
                user,
                ..CasdOptions::default()
            },
        )
    }

    /// Builds every variant in a store of its own, which is removed afterwards: the content of each `SHA256SUMS`, whose files are the ones
    /// that it names, and what was printed.
    fn build(&self, options: &[&str]) -> (BTreeMap<String, String>, String) {
        let (store, images) = (self.path("store"), self.path("images"));
        let mut command = Command::new(self.path("pnb"));
        command
            .arg("--project")
            .arg(self.path("project"))
            .arg("--store")
            .arg(&store);
        command
            .arg("--mirror")
            .arg(format!("file://{}", self.path("mirror").display()));
        command.args(["build", "--hermetic", "--arch", "amd64"]).args(options);
        command.arg("--output").arg(&images);
        if let Some(user) = self.user {
            command = as_user(user, &command);
        }
        let said = run(command.current_dir("/"));
        let mut sums = BTreeMap::new();
        for entry in walkdir::WalkDir::new(&images).sort_by_file_name() {
            let entry = entry.expect("listed");
            if entry.file_name() == "SHA256SUMS" {
                let directory = entry.path().parent().expect("in a directory");
                run(Command::new("sha256sum")
                    .args(["--check", "--quiet", "SHA256SUMS"])
                    .current_dir(directory));
                let name = directory.strip_prefix(&images).expect("below").display().to_string();
                sums.insert(name, fs::read_to_string(entry.path()).expect("text"));
            }
        }
        for made in [store, images] {
            fs::remove_dir_all(made).expect("removed");
        }
        (sums, said)
    }
}

/// The numbers of stages that ran, and that a cache gave.
fn counts(said: &str) -> (usize, usize) {
    let count = |verb: &str| said.lines().filter(|line| line.trim_start().starts_with(verb)).count();
    (count("done "), count("shared "))
}

fn everywhere_the_same(user: Option<&'static str>) {
    let place = Place::new(user);
    let cache = place.casd("cache", false);
    let (near, said) = place.build(&["--remote-cache", &cache.url(), "--remote-upload", "always"]);
    let (stages, taken) = counts(&said);
    assert!(stages > 10 && taken == 0, "{said}");
    assert!(near.len() >= 5, "{:?}", near.keys());
    let (shared, said) = place.build(&[
        "--remote-cache",
        &cache.url(),
        "--remote-upload",
        "never",
        "--remote-required",
    ]);
    assert_eq!(counts(&said), (0, stages), "{said}");
    assert_eq!(shared, near);
    drop(cache);
    fs::remove_dir_all(place.path("cache")).expect("removed");
    let engine = place.casd("engine", true);
    // Two stages at once: on a loaded machine others wait for long.
    let (far, said) = place.build(&["--remote", &engine.url(), "--remote-queue-timeout", "3600"]);
    assert_eq!(counts(&said), (stages, 0), "{said}");
    assert_eq!(said.matches(" on grpc://127.0.0.1:").count(), stages, "{said}");
    assert_eq!(far, near);
}

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: every variant three times; cargo test -- --ignored nightly::"]
    fn every_variant_has_the_same_bytes_from_a_cache_and_from_a_worker() {
        everywhere_the_same(None);
    }

    #[test]
    #[ignore = "nightly: every variant three times, as a user that root makes; cargo test -- --ignored nightly::"]
    fn and_so_it_is_for_an_ordinary_user() {
        assert!(
            nix::unistd::Uid::effective().is_root(),
            "only root can become another user"
        );
        if nix::unistd::User::from_name(USER).expect("asked").is_none() {
            run(Command::new("useradd").args(["--create-home", USER]));
        }
        for (file, option) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
            let given = fs::read_to_string(file).unwrap_or_default();
            if !given.lines().any(|line| line.starts_with(&format!("{USER}:"))) {
                run(Command::new("usermod").args([option, "300000-365535", USER]));
            }
        }
        everywhere_the_same(Some(USER));
    }
}
