//! The project, a store for these tests, and the artifact built once for all of them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

/// Name of the instance that boots.
pub(crate) const INSTANCE: &str = "6f1c6a4e-6d53-4c8b-9a55-0f3f1c6c2f10";

/// The repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Scratch space that stays, on a file system with room.
pub(crate) fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// A mirror directory with every pinned package, made once from the user's own store.
pub(crate) fn mirror() -> &'static str {
    static MIRROR: OnceLock<String> = OnceLock::new();
    MIRROR.get_or_init(|| {
        let dir = scratch().join("mirror");
        let done = Command::new(env!("CARGO_BIN_EXE_pnb"))
            .arg("--project")
            .arg(repository())
            .arg("vendor")
            .arg(&dir)
            .output();
        let done = done.expect("pnb starts");
        assert!(done.status.success(), "{}", text(&done));
        format!("file://{}", dir.display())
    })
}

/// `pnb` on a project with a store, cut off from the network.
pub(crate) fn pnb(project: &Path, store: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command.arg("--project").arg(project).arg("--store").arg(store);
    command.arg("--offline").arg("--mirror").arg(mirror());
    command
}

/// What a program said on both streams.
pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Machines are booted one at a time: an emulated one takes all processors, and its time is measured on the clock.
fn alone(command: &Command) -> Option<MutexGuard<'static, ()>> {
    static ONE: Mutex<()> = Mutex::new(());
    let boots = command.get_args().any(|a| a == "boot");
    boots.then(|| ONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Runs to its end, alone if it is a machine.
pub(crate) fn one_at_a_time(command: &mut Command) -> Output {
    let _alone = alone(command);
    command.output().expect("starts")
}

/// `seconds` for a machine that has this host to itself, and more where other programs run too: as `--timeout` takes it.
pub(crate) fn patience(seconds: u64) -> String {
    let load = fs::read_to_string("/proc/loadavg").expect("readable");
    let load: f64 = load.split(' ').next().expect("a field").parse().expect("a number");
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let factor = (load / f64::from(u32::try_from(processors).expect("few"))).clamp(1.0, 6.0);
    format!("{:.0}", f64::from(u32::try_from(seconds).expect("few")) * factor)
}

/// Boots to a good end. A machine that is slow starts once more with three times the time. So does one that stands still, as the Raspberry
/// Pi, which has four processors, can on a busy host. A refusal, a panic or a second silence is a failure.
pub(crate) fn good_boot(command: &mut Command) -> String {
    let first = one_at_a_time(command);
    let again = ["the machine is slow", "the machine waits", "the machine stands still"];
    if !again.iter().any(|words| text(&first).contains(words)) {
        assert!(first.status.success(), "{command:?}\n{}", text(&first));
        return text(&first);
    }
    let mut longer = Command::new(command.get_program());
    let mut is_timeout = false;
    for argument in command.get_args() {
        match argument
            .to_str()
            .filter(|_| is_timeout)
            .and_then(|s| s.parse::<u64>().ok())
        {
            Some(seconds) => longer.arg((seconds * 3).to_string()),
            None => longer.arg(argument),
        };
        is_timeout = argument == "--timeout";
    }
    let last = one_at_a_time(&mut longer);
    assert!(
        last.status.success(),
        "{longer:?}\n{}\nthe first time:\n{}",
        text(&last),
        text(&first)
    );
    text(&last)
}

/// Runs to a good end and returns what was said.
pub(crate) fn good(command: &mut Command) -> String {
    let output = one_at_a_time(command);
    assert!(output.status.success(), "{command:?}\n{}", text(&output));
    text(&output)
}

/// Runs to a bad end with `code` and returns what was said.
pub(crate) fn bad(command: &mut Command, code: i32) -> String {
    let output = one_at_a_time(command);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{}", text(&output));
    text(&output)
}

/// The store that the artifact of these tests is built in.
pub(crate) fn store() -> PathBuf {
    scratch().join("store")
}

/// Every amd64 artifact, built once: `<variant>/amd64`.
pub(crate) fn images() -> &'static Path {
    static IMAGES: OnceLock<PathBuf> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let images = scratch().join("images");
        let _ = fs::remove_dir_all(&images);
        good(build(repository(), &store()).arg("--output").arg(&images));
        images
    })
}

/// Directory of the artifact that boots directly.
pub(crate) fn artifact() -> &'static Path {
    static ARTIFACT: OnceLock<PathBuf> = OnceLock::new();
    ARTIFACT.get_or_init(|| images().join("kernel-initrd/amd64"))
}

/// The tree of a stage that has been built for these tests.
pub(crate) fn tree_of(stage: &str) -> PathBuf {
    good(pnb(repository(), &store()).args(["build", "--stage", stage]));
    let path = good(pnb(repository(), &store()).args(["store", "path", stage]));
    PathBuf::from(path.trim())
}

/// `pnb build --hermetic` of every amd64 variant.
pub(crate) fn build(project: &Path, store: &Path) -> Command {
    let mut command = pnb(project, store);
    command.args(["build", "--hermetic", "--allow-dirty", "--arch", "amd64"]);
    command
}

/// A copy of a file, sparse where it is zeros, to be changed.
pub(crate) fn copy_of(file: &Path) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let copy = dir.path().join(file.file_name().expect("a name"));
    good(Command::new("cp").arg("--sparse=always").arg(file).arg(&copy));
    (dir, copy)
}

/// A copy of what belongs to a build, to be changed.
pub(crate) fn copy_of_project(to: &Path) {
    fs::create_dir_all(to).expect("scratch");
    for name in ["stages", "dracut", "agent", "lockfile.toml"] {
        good(Command::new("cp").arg("-a").arg(repository().join(name)).arg(to));
    }
}

/// A copy of the artifact, to be changed.
pub(crate) fn copy_of_artifact() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    for name in [
        "kernel",
        "initramfs.cpio.zst",
        "SHA256SUMS",
        "build-manifest.json",
        "build-record.json",
        "sbom.cdx.json",
        "provenance.slsa.json",
    ] {
        fs::copy(artifact().join(name), dir.path().join(name)).expect(name);
    }
    dir
}

/// Changes one byte of a file.
pub(crate) fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::{FileExt, PermissionsExt};
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("ours");
    let file = fs::File::options().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("in the file");
    file.write_all_at(&[byte[0] ^ 1], at).expect("writable");
}
