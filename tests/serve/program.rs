//! The program.

use crate::client::*;
use pnb::serve::*;
use std::{
    fs,
    io::{self, BufRead, Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

/// `pnb serve` as a process.
struct Server {
    child: Child,
    /// What it has said at its start.
    lines: Vec<String>,
    output: io::BufReader<ChildStdout>,
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
        let output = io::BufReader::new(child.stdout.take().expect("piped"));
        let mut server = Self {
            child,
            lines: Vec::new(),
            output,
        };
        let both = command.get_args().any(|a| a == "--tftp");
        for _ in 0..if both { 2 } else { 1 } {
            let line = server.line();
            server.lines.push(line);
        }
        server
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line
    }

    fn address(&self, scheme: &str) -> SocketAddr {
        let prefix = format!("{scheme}://");
        let found = self.lines.iter().find_map(|l| l.split_once(&prefix));
        let (_, rest) = found.expect("the address was said");
        rest.split('/').next().expect("an address").parse().expect("an address")
    }

    /// Sends a signal; returns the exit code and what else was said.
    fn end(&mut self, signal: nix::sys::signal::Signal) -> (Option<i32>, String) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("sent");
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("UTF-8");
        (self.child.wait().expect("ends").code(), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pnb_serve(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command.arg("serve").arg(dir);
    command
}

#[test]
fn the_program_serves_until_it_is_told_to_end() {
    use nix::sys::signal::Signal;
    let outer = directory();
    let served = outer.path().join("served");
    let mut server = Server::start(pnb_serve(&served).args(["--http", "0", "--tftp", "127.0.0.1:0"]));
    let (web, tftp) = (server.address("http"), server.address("tftp"));
    assert_eq!(
        server.lines[0],
        format!("serving {} at http://{web}/\n", served.display())
    );
    assert!(web.ip().is_loopback());
    let mut kept = connect(web);
    kept.write_all(b"GET /boot.ipxe HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("sent");
    assert_eq!(response(&mut kept, false).status, 200);
    assert_eq!(
        Tftp::new().get(tftp, &octet("boot.ipxe", &[])).0,
        Got::File(b"#!ipxe\nshell\n".to_vec())
    );
    // Each server has a thread of its own, which prints its line after the client has the file.
    let mut lines = [server.line(), server.line()].map(|line| line.split_once(' ').map(|(_, what)| what.to_owned()));
    lines.sort();
    let want = ["http GET /boot.ipxe 200 13 bytes\n", "tftp RRQ boot.ipxe 13 bytes\n"];
    assert_eq!(lines, want.map(|line| Some(line.to_owned())));
    assert_eq!(server.end(Signal::SIGTERM), (Some(0), String::new()));

    let mut server = Server::start(pnb_serve(&served).args(["--http", "0", "--json"]));
    let web = server.address("http");
    assert_eq!(get(web, "/nothing", "").status, 404);
    let (code, said) = server.end(Signal::SIGINT);
    assert_eq!(code, Some(0));
    let lines: Vec<serde_json::Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect();
    let [mut event, end] = <[_; 2]>::try_from(lines).expect("a request and the end");
    assert_eq!((&end["event"], &end["requests"]), (&"end".into(), &1.into()));
    assert!(
        event["peer"].as_str().is_some_and(|p| p.starts_with("127.0.0.1:")),
        "{event}"
    );
    event["peer"] = "<client>".into();
    insta::assert_snapshot!(event, @r#"{"bytes":0,"event":"served","peer":"<client>","problem":null,"protocol":"http","request":"GET /nothing","status":404}"#);
    let first: serde_json::Value = serde_json::from_str(&server.lines[0]).expect("an object");
    assert_eq!(
        (&first["event"], &first["url"]),
        (&"serving".into(), &format!("http://{web}/").into())
    );
}

/// Exit code and message of a `pnb serve` that cannot start.
fn refused(command: &mut Command) -> String {
    let done = command.output().expect("runs");
    let said = String::from_utf8_lossy(&done.stderr);
    format!("exit {}\n{}", done.status.code().expect("exits"), said.trim_end())
}

#[test]
fn what_keeps_it_from_serving_is_said_with_the_remedy() {
    let outer = directory();
    let served = outer.path().join("served");
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = taken.local_addr().expect("bound").port().to_string();
    let said = refused(pnb_serve(&served).args(["--http", &port]));
    insta::assert_snapshot!(said.replace(&port, "<port>"), @r###"
    exit 1
    error: failed to listen for HTTP on 127.0.0.1:<port>: Address already in use (os error 98)

    hint: another program has this port: end it, or choose another port
    "###);
    let said = refused(pnb_serve(&served).args(["--http", "192.0.2.1:8080"]));
    insta::assert_snapshot!(said, @r###"
    exit 1
    error: failed to listen for HTTP on 192.0.2.1:8080: Cannot assign requested address (os error 99)

    hint: this machine does not have the address; `ip address` lists those that it has, 0.0.0.0 stands for all
    "###);
    let said = refused(&mut pnb_serve(&outer.path().join("nowhere")));
    insta::assert_snapshot!(said.replace(outer.path().to_str().expect("UTF-8"), "<dir>"), @"
    exit 2
    error: failed to find <dir>/nowhere: there is no such file or directory
    ");
    let said = refused(&mut pnb_serve(&outer.path().join("secret")));
    insta::assert_snapshot!(said.replace(outer.path().to_str().expect("UTF-8"), "<dir>"), @r###"
    exit 1
    error: failed to open the directory <dir>/secret: Not a directory (os error 20)

    hint: name a directory, such as images/ipxe/amd64
    "###);
    let said = refused(pnb_serve(&served).args(["--tftp", "here:69"]));
    insta::assert_snapshot!(said, @"
    exit 2
    error: invalid value 'here:69' for '--tftp <[ADDR:]PORT>': the forms are PORT, ADDRESS:PORT and [ADDRESS]:PORT, with an address in numbers

    hint: `pnb serve --help`
    ");
}

#[test]
fn a_file_that_may_not_be_read_is_forbidden() {
    if nix::unistd::Uid::effective().is_root() {
        // Root may read everything; then an ordinary user serves it.
        let outer = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir();
        let outer = outer.expect("scratch");
        fs::write(outer.path().join("file"), "x").expect("written");
        let program = outer.path().join("pnb");
        fs::copy(env!("CARGO_BIN_EXE_pnb"), &program).expect("copied");
        fs::set_permissions(
            outer.path().join("file"),
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .expect("mode");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
        let server = Server::start(
            command
                .arg(program)
                .arg("serve")
                .arg(outer.path())
                .args(["--http", "0"]),
        );
        assert_eq!(get(server.address("http"), "/file", "").status, 403);
        return;
    }
    let outer = tempfile::tempdir().expect("scratch");
    fs::write(outer.path().join("file"), "x").expect("written");
    fs::set_permissions(
        outer.path().join("file"),
        std::os::unix::fs::PermissionsExt::from_mode(0o000),
    )
    .expect("mode");
    http_in(outer.path(), &HttpLimits::default(), |address| {
        assert_eq!(get(address, "/file", "").status, 403);
    });
}
