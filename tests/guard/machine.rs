//! A machine at whose console somebody types.

use crate::project::*;
use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

/// What is typed into a shell, and what it prints then. The text that is typed does not hold what is printed.
pub(crate) const CANARY: &str = "echo CANARY-$((6*7))-ROOT\n";
pub(crate) const SUNG: &str = "CANARY-42-ROOT";
/// How a refusal begins on the console.
pub(crate) const REFUSED: &str = "powernode: refused: ";
/// QEMU ends when this is typed.
const QUIT: &[u8] = b"\x01x";
/// Seconds for a machine that is alone; see [`patience`].
const SECONDS: u64 = 240;

/// The variants with and without recovery, built once: `<variant>/amd64` below.
pub(crate) fn images(recovery: bool) -> &'static Path {
    static IMAGES: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
    IMAGES[usize::from(recovery)].get_or_init(|| {
        let images = scratch().join(if recovery { "guard-recovery" } else { "guard" });
        let _ = fs::remove_dir_all(&images);
        let mut build = build(repository(), &store());
        build.args(["--variant", "kernel-initrd,raw", "--output"]).arg(&images);
        if recovery {
            build.args(["--with", "recovery"]);
        }
        good(&mut build);
        images
    })
}

/// The artifact with shells on the consoles of a running node, built once.
pub(crate) fn with_debug() -> PathBuf {
    static IMAGES: OnceLock<PathBuf> = OnceLock::new();
    let images = IMAGES.get_or_init(|| {
        let images = scratch().join("guard-debug");
        let _ = fs::remove_dir_all(&images);
        let mut build = build(repository(), &store());
        build.args(["--variant", "kernel-initrd", "--with", "debug", "--output"]);
        good(build.arg(&images));
        images
    });
    images.join("kernel-initrd/amd64")
}

/// The artifact that boots directly.
pub(crate) fn direct(recovery: bool) -> PathBuf {
    images(recovery).join("kernel-initrd/amd64")
}

/// `pnb boot` of an artifact with a console to type at; some tests change the artifact.
pub(crate) fn at_console(artifact: &Path, arguments: &[&str]) -> Command {
    let mut command = pnb(repository(), &store());
    command
        .arg("boot")
        .arg(artifact)
        .args(["--interactive", "--no-verify-sums"]);
    command.args(["--timeout", &patience(SECONDS + 60)]).args(arguments);
    command
}

/// Starts a machine and types: each pair is a text to wait for behind the last one, and what is typed then. Ends the machine when all was
/// typed and one of `ends` is there, or when it has ended itself, and returns the console. A machine that goes on until its time is over
/// fails the test.
pub(crate) fn typed(command: &mut Command, pairs: &[(&str, &str)], ends: &[&str]) -> String {
    typed_and_waited(command, pairs, ends, Duration::from_secs(3))
}

/// As [`typed`], and waits for an answer that comes late.
pub(crate) fn typed_and_waited(command: &mut Command, pairs: &[(&str, &str)], ends: &[&str], late: Duration) -> String {
    static ONE: Mutex<()> = Mutex::new(());
    let _alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut input = child.stdin.take().expect("piped");
    let console = read_all(&mut child);
    let limit: u64 = patience(SECONDS).parse().expect("a number");
    let end = Instant::now() + Duration::from_secs(limit);
    let (mut text, mut seen, mut left) = (String::new(), 0, pairs.iter());
    let mut next = left.next();
    let reached = loop {
        if next.is_none() && ends.iter().any(|end| text[seen..].contains(end)) {
            break true;
        }
        if let Some((wait, send)) = next
            && let Some(at) = text[seen..].find(wait)
        {
            seen += at + wait.len();
            // A console takes what is typed only when somebody reads it.
            thread::sleep(Duration::from_millis(500));
            for byte in send.bytes() {
                let _ = input.write_all(&[byte]).and_then(|()| input.flush());
                thread::sleep(Duration::from_millis(20));
            }
            next = left.next();
            continue;
        }
        match console.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(more) => text.push_str(&more),
            // A machine that was refused switches itself off.
            Err(mpsc::RecvTimeoutError::Disconnected) => break true,
            Err(mpsc::RecvTimeoutError::Timeout) => break false,
        }
    };
    thread::sleep(late);
    let _ = input.write_all(QUIT).and_then(|()| input.flush());
    drop(input);
    stop(&mut child);
    while let Ok(more) = console.recv_timeout(Duration::from_secs(1)) {
        text.push_str(&more);
    }
    assert!(
        reached,
        "{command:?}\nnone of {ends:?} in {limit} s, and {next:?} was not typed:\n{text}"
    );
    text
}

/// Everything that is printed, as it comes.
fn read_all(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    let streams: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stdout.take().expect("piped")),
        Box::new(child.stderr.take().expect("piped")),
    ];
    for mut stream in streams {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = stream.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

/// Waits for the end of a machine that was told to end, and ends it if it does not.
fn stop(child: &mut Child) {
    for _ in 0..100 {
        if child.try_wait().expect("a child").is_some() {
            return;
        }
        thread::sleep(Duration::from_millis(200));
    }
    let _ = child.kill();
    let _ = child.wait();
}
