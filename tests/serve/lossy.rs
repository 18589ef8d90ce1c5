//! Clients that others have written, over a link that loses packets, and over connections that break.

use crate::{check_tools::check_tools, client::*, link::Link};
use pnb::{model::Arch, serve::*};
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

/// A command that runs this program of `check-tools` outside the sandbox, with its own loader and libraries: the loopback of a sandbox
/// reaches the processes of its own run only, and these clients have to reach a server of the test. They get no environment.
fn pinned(program: &str) -> Command {
    let (directory, loader) = match Arch::host() {
        Arch::Amd64 => ("x86_64-linux-gnu", "ld-linux-x86-64.so.2"),
        Arch::Arm64 => ("aarch64-linux-gnu", "ld-linux-aarch64.so.1"),
    };
    let libraries = check_tools().join("usr/lib").join(directory);
    let mut command = Command::new(libraries.join(loader));
    command.arg("--library-path").arg(&libraries);
    command.arg(check_tools().join("usr/bin").join(program));
    command.env_clear();
    command
}

/// Runs a client in `dir`; it must succeed.
fn succeed(dir: &Path, command: &mut Command) {
    let done = command.current_dir(dir).output().expect("starts");
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(done.status.success(), "{command:?}: {}\n{said}", done.status);
}

/// Lets each of these clients get the file `served/file` of `size` bytes as `got`, over a link that loses one of a hundred packets in each
/// direction and takes 2 ms for one.
fn over_a_lossy_link(size: usize, commands: &[&dyn Fn(SocketAddr) -> Command]) {
    let outer = tempfile::tempdir().expect("scratch");
    let served = outer.path().join("served");
    fs::create_dir(&served).expect("made");
    fs::write(served.join("file"), pattern(size)).expect("written");
    let link = Link::new(10, Duration::from_millis(2));
    tftp_in(&served, &TftpLimits::default(), commands.len(), |server| {
        for (number, command) in commands.iter().enumerate() {
            let before = link.losses.load(Ordering::SeqCst);
            link.to(server, |address| {
                let dir = outer.path().join(number.to_string());
                fs::create_dir(&dir).expect("made");
                let mut command = command(address);
                succeed(&dir, &mut command);
                let got = fs::read(dir.join("got")).expect("the file came");
                assert!(got == pattern(size), "{command:?}: {} bytes", got.len());
            });
            let losses = link.losses.load(Ordering::SeqCst) - before;
            assert!(losses > 0, "client {number}: nothing was lost");
        }
    });
}

fn curl_tftp(address: SocketAddr, options: &[&str]) -> Command {
    let mut command = pinned("curl");
    command.args(["--disable", "--silent", "--show-error", "--output", "got"]);
    command.args(options).arg(format!("tftp://{address}/file"));
    command
}

#[test]
fn curl_gets_a_file_by_tftp_over_a_lossy_link() {
    over_a_lossy_link(
        100_000,
        &[&|address| curl_tftp(address, &["--tftp-no-options"]), &|address| {
            curl_tftp(address, &["--tftp-blksize", "1428"])
        }],
    );
}

#[test]
fn tftp_hpa_gets_a_file_over_a_lossy_link() {
    over_a_lossy_link(
        100_000,
        &[&|address| {
            let mut command = pinned("tftp");
            command.args(["-m", "binary", "127.0.0.1", &address.port().to_string()]);
            command.args(["-c", "get", "file", "got"]);
            command
        }],
    );
}

#[test]
fn atftp_gets_a_file_in_windows_over_a_lossy_link() {
    let atftp = |address: SocketAddr, window: &str| {
        let mut command = pinned("atftp");
        command.args(["--option", &format!("windowsize {window}"), "--option", "blksize 1428"]);
        command.args(["--option", "timeout 1"]);
        command.args(["--get", "--remote-file", "file", "--local-file", "got"]);
        command.args(["127.0.0.1", &address.port().to_string()]);
        command
    };
    over_a_lossy_link(
        600_000,
        &[
            &|address| atftp(address, "1"),
            &|address| atftp(address, "4"),
            &|address| atftp(address, "16"),
            &|address| atftp(address, "64"),
        ],
    );
}

/// Carries a connection to the server, but of its answers only this number of bytes before it breaks.
fn breaking(front: &TcpListener, server: SocketAddr, bytes: u64) {
    let (near, _) = front.accept().expect("accepted");
    let far = connect(server);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut request = [0; 4096];
            while let Ok(count @ 1..) = (&near).read(&mut request) {
                if (&far).write_all(&request[..count]).is_err() {
                    break;
                }
            }
        });
        let _ = std::io::copy(&mut (&far).take(bytes), &mut &near);
        for stream in [&near, &far] {
            let _: Result<(), _> = TcpStream::shutdown(stream, std::net::Shutdown::Both);
        }
    });
}

#[test]
fn curl_continues_by_http_when_connections_break() {
    let outer = tempfile::tempdir().expect("scratch");
    let served = outer.path().join("served");
    fs::create_dir(&served).expect("made");
    let content = pattern(3 << 20);
    fs::write(served.join("file"), &content).expect("written");
    let log = http_in(&served, &HttpLimits::default(), |server| {
        let front = TcpListener::bind("127.0.0.1:0").expect("binds");
        let url = format!("http://{}/file", front.local_addr().expect("bound"));
        let curl = || {
            let mut command = pinned("curl");
            command.args(["--disable", "--silent", "--show-error", "--fail"]);
            command.args(["--continue-at", "-", "--output", "got", &url]);
            command.current_dir(outer.path());
            command
        };
        thread::scope(|scope| {
            let relay = scope.spawn(|| {
                for bytes in [1_000_000, 1_000_000, u64::MAX] {
                    breaking(&front, server, bytes);
                }
            });
            for _ in 0..2 {
                // CURLE_PARTIAL_FILE, or CURLE_RECV_ERROR.
                let code = curl().output().expect("starts").status.code();
                assert!(matches!(code, Some(18 | 56)), "{code:?}");
            }
            succeed(outer.path(), &mut curl());
            relay.join().expect("no panic");
        });
        assert!(fs::read(outer.path().join("got")).expect("came") == content);
        // Several at once, on connections that are kept.
        let mut several = pinned("curl");
        several.args(["--disable", "--silent", "--show-error", "--fail", "--parallel"]);
        several.args(["--output", "part_#1", "--range", "0-65535"]);
        several.arg(format!("http://{server}/file?[1-20]"));
        succeed(outer.path(), &mut several);
        for number in 1..=20 {
            let part = fs::read(outer.path().join(format!("part_{number}"))).expect("came");
            assert!(part == content[..65536], "part {number}");
        }
    });
    let statuses: Vec<_> = log.iter().filter_map(|l| l.status).collect();
    assert_eq!(statuses.first(), Some(&200));
    assert_eq!(statuses[1..], [206; 22], "{log:?}");
}
