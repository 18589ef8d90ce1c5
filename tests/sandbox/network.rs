//! A loopback of its own, for machines that boot over a network: what it lets through, and that it leads nowhere.

use crate::host::*;
use pnb::{
    boot::{Forward, ForwardEnd, ForwardListener, HttpRoot, Inlet, MACHINE, NodeNetwork, Outlet, Reach, ServedMachine},
    sandbox::*,
};
use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

fn on_loopback(mut spec: Spec) -> Spec {
    spec.network = Network::Loopback;
    spec
}

#[test]
fn a_run_with_a_loopback_talks_to_itself_and_to_nobody_else() {
    let host = Host::new();
    let own = "use Socket; my $any = sockaddr_in(0, inet_aton('127.0.0.1'));\
        socket(L,AF_INET,SOCK_STREAM,6) && bind(L,$any) && listen(L,1) or die qq(server: $!);\
        socket(C,AF_INET,SOCK_STREAM,0) && connect(C,getsockname(L)) or die qq(client: $!);\
        accept(S,L); syswrite(S,'tcp '); sysread(C,$b,9); print $b;\
        socket(D,AF_INET,SOCK_DGRAM,0) && bind(D,$any) or die qq(udp: $!);\
        socket(E,AF_INET,SOCK_DGRAM,17); send(E,'udp',0,getsockname(D)); recv(D,$b,9,0); print $b";
    assert_eq!(printed(&on_loopback(host.perl(own))), "tcp udp");

    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let everywhere = TcpListener::bind("0.0.0.0:0").expect("listens");
    let ports = [&listener, &everywhere].map(|l| l.local_addr().expect("bound").port());
    for (port, address) in [
        (ports[0], "127.0.0.1"),
        (ports[1], "127.0.0.1"),
        (ports[1], "127.0.0.2"),
    ] {
        let reach = format!(
            "use Socket; socket(S,AF_INET,SOCK_STREAM,0) or print 'no socket';\
            connect(S,sockaddr_in({port},inet_aton('{address}'))) ? print 'GOT' : print $!"
        );
        assert_eq!(
            printed(&on_loopback(host.perl(&reach))),
            "Connection refused",
            "{address}"
        );
        assert_eq!(
            outside(&["/usr/bin/perl", "-e", &reach], Path::new("/")),
            "GOT",
            "control"
        );
    }
    // The host's other addresses do not exist inside, whatever they are.
    let reach = "use Socket; socket(S,AF_INET,SOCK_STREAM,0);\
        connect(S,sockaddr_in(9,inet_aton('192.0.2.1'))) ? print 'GOT' : print $!";
    assert_eq!(printed(&on_loopback(host.perl(reach))), "Network is unreachable");
    // And what is sent to a datagram socket of the host does not arrive.
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("timeout");
    let port = socket.local_addr().expect("bound").port();
    let send = format!(
        "use Socket; socket(S,AF_INET,SOCK_DGRAM,0); send(S,'x',0,sockaddr_in({port},inet_aton('127.0.0.1'))) && print 'sent'"
    );
    assert_eq!(printed(&on_loopback(host.perl(&send))), "sent");
    assert!(socket.recv(&mut [0]).is_err(), "a datagram has left the sandbox");
    outside(&["/usr/bin/perl", "-e", &send], Path::new("/"));
    assert_eq!(socket.recv(&mut [0]).ok(), Some(1), "control");
}

#[test]
fn a_loopback_brings_no_other_sockets() {
    let host = Host::new();
    // Family, type, protocol, whether every Linux has it for this user.
    for (name, family, kind, protocol, everywhere) in [
        ("raw", 2, 3, 1, is_root()),
        ("raw with flags", 2, 0x80803, 1, is_root()),
        ("inet packet", 2, 10, 0x300, false),
        ("datagram congestion control", 2, 6, 33, false),
        ("stream control", 2, 5, 132, false),
        ("stream control as a stream", 2, 1, 132, false),
        ("multipath TCP", 2, 1, 262, false),
        ("echo datagrams", 2, 2, 1, false),
        ("inet6", 10, 1, 0, false),
        ("netlink", 16, 3, 0, true),
        ("packet", 17, 3, 0, is_root()),
        ("vsock", 40, 1, 0, false),
    ] {
        let payload =
            format!("socket(S,{family},{kind},{protocol}) ? print 'GOT' : print $!{{EAFNOSUPPORT}} ? 'no' : $!");
        let payload = format!("use Errno; {payload}");
        assert_eq!(printed(&on_loopback(host.perl(&payload))), "no", "{name}");
        if everywhere {
            let control = outside(&["/usr/bin/perl", "-e", &payload], Path::new("/"));
            assert_eq!(control, "GOT", "control of {name}");
        }
    }
}

#[test]
fn whether_the_loopback_is_up_is_measured_and_written_only_where_it_is() {
    let host = Host::new();
    for (network, up) in [(Network::None, false), (Network::Loopback, true)] {
        let mut spec = host.shell("true");
        spec.network = network;
        let (outcome, log) = run(&spec);
        let found = outcome.unwrap_or_else(|e| panic!("failed to {e}\n{log}")).measured;
        assert_eq!((found.network, found.loopback_up), (vec!["lo".to_owned()], up));
        assert_eq!((found.seccomp_mode, found.landlock.as_str()), (2, "fully enforced"));
        assert_eq!(found.capabilities_bounding, "0000000000000000");
        let policy = serde_json::to_value(spec.policy()).expect("serializes");
        let written = up.then(|| serde_json::Value::from("loopback"));
        assert_eq!(policy.get("network"), written.as_ref());
    }
    let rules = |spec: Spec| spec.policy().seccomp_rules;
    assert_ne!(rules(host.shell("true")), rules(on_loopback(host.shell("true"))));
}

/// A spec of the built-in `machine` on the host's programs, with `dir` as `/inputs/artifact`.
fn machine(host: &Host, dir: &Path, argv: &[&str], port: u16) -> Spec {
    let mut spec = on_loopback(host.shell(""));
    spec.mounts.push(input(dir, "artifact", Access::ReadOnly));
    let arguments = ServedMachine {
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        inlets: Vec::new(),
        forward: Vec::new(),
        http: Some(HttpRoot {
            dir: PathBuf::from("/inputs/artifact"),
            port,
        }),
        pulse: false,
    };
    spec.workload = Workload::builtin(MACHINE, serde_json::to_vec(&arguments).expect("JSON"));
    spec
}

#[test]
fn a_machine_gets_its_files_from_the_server_beside_it() {
    let host = Host::new();
    let dir = scratch();
    // More than fits into any buffer on the way.
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    fs::write(dir.path().join("kernel"), &content).expect("written");
    let sum = outside(&["sha256sum", "kernel"], dir.path());
    // Exits with 1 unless the server says 200; then come the headers up to an empty line, and the content.
    let wget = |name: &str| {
        format!(
            "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(\"127.0.0.1:8080\") or die; \
             print $s \"GET /{name} HTTP/1.0\\r\\nHost: node\\r\\n\\r\\n\"; <$s> =~ / 200 / or exit 1; \
             1 while <$s> =~ /\\w/; print while read $s, $_, 65536'"
        )
    };
    let fetch = format!(
        "{} | sha256sum; env | cut -d= -f1 | sort | tr '\\n' ' '",
        wget("kernel")
    );
    let spec = machine(&host, dir.path(), &["/bin/sh", "-c", &fetch], 8080);
    // PWD is the shell's own.
    assert_eq!(
        printed(&spec),
        format!(
            "{}\nHOME LANG PATH PWD TMPDIR TZ ",
            sum.trim_end().replace("kernel", "-")
        )
    );

    // A client that goes away in the middle must not take the server with it.
    let half = format!("{} | head -c 10 | wc -c; {} | wc -c", wget("kernel"), wget("kernel"));
    let spec = machine(&host, dir.path(), &["/bin/sh", "-c", &half], 8080);
    let said = printed(&spec);
    assert!(said.contains("10\n") && said.contains("3000000\n"), "{said}");

    let spec = machine(&host, dir.path(), &["/bin/sh", "-c", &wget("initramfs")], 8080);
    let (outcome, said) = run(&spec);
    assert!(matches!(outcome, Err(SandboxError::Failed { .. })), "{said}");
    assert!(
        said.contains(" http GET /initramfs 404 0 bytes\n")
            && said.contains("built-in machine: /bin/sh ended with exit code 1\n"),
        "{said}"
    );
}

/// A program of the sandbox reaches a server of this host through the relays, as QEMU's does, and another port of the host not. The
/// directory of the sockets must be writable there: a read-only one is an overlay, and leads nowhere.
#[test]
fn a_machine_reaches_the_server_that_it_is_given() {
    let host = Host::new();
    let dir = scratch();
    let server = TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = server.local_addr().expect("bound");
    let answering = thread::spawn(move || {
        let (mut stream, _) = server.accept().expect("a connection");
        let mut asked = String::new();
        stream.read_to_string(&mut asked).expect("text");
        write!(stream, "you said {asked}").expect("written");
    });
    let reaches = [format!("10.0.2.100:443={address}")];
    let reaches = Reach::parse_all(&reaches, NodeNetwork::PRIVATE).expect("valid");
    let outlets = Outlet::all(&reaches, &dir.path().join("reach")).expect("sockets");
    let ask = "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(\"127.0.0.1:20000\") or die; print $s \"hello\"; \
        $s->flush; shutdown($s, 1); print while <$s>'";
    let spec = |access| {
        let mut spec = machine(&host, dir.path(), &["/bin/sh", "-c", ask], 8080);
        spec.mounts.push(input(&dir.path().join("reach"), "reach", access));
        let served = ServedMachine {
            argv: ["/bin/sh", "-c", ask].map(str::to_owned).to_vec(),
            http: None,
            inlets: Inlet::all(&reaches, "/inputs/reach"),
            forward: Vec::new(),
            pulse: false,
        };
        spec.workload = Workload::builtin(MACHINE, serde_json::to_vec(&served).expect("JSON"));
        spec
    };
    let unreached = |_: SocketAddr, _: &io::Error| {};
    let said = Outlet::with_all(&outlets, &unreached, || {
        (printed(&spec(Access::ReadOnly)), printed(&spec(Access::ReadWrite)))
    });
    let (nowhere, said) = said.expect("relayed");
    assert!(
        nowhere.contains("failed to connect to /inputs/reach/0: Connection refused"),
        "{nowhere}"
    );
    assert_eq!(said, "you said hello");
    answering.join().expect("asked once");
}

/// A client on this host gets through to a port in the sandbox, as QEMU's own ports are, however early it comes.
#[test]
fn a_client_of_this_host_gets_through_to_a_port_of_the_sandbox() {
    let host = Host::new();
    let dir = scratch();
    let forwards = [Forward::parse("0:22").expect("valid")];
    let listeners = ForwardListener::all(&forwards, &dir.path().join("forward")).expect("taken");
    let address = listeners[0].forward().host;
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.write_all(b"hello").expect("written");
        stream.shutdown(Shutdown::Write).expect("ended");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        answer
    });
    let serve = "perl -MIO::Socket::INET -e '$l = IO::Socket::INET->new(LocalAddr => \"127.0.0.1:21000\", Listen => 1) or die; \
        $c = $l->accept; print $c \"you said \", <$c>; $c->flush; shutdown($c, 1); sleep 2'";
    // What the end of a machine cuts off does not arrive; so this one waits a moment.
    let mut spec = machine(&host, dir.path(), &["/bin/sh", "-c", serve], 8080);
    spec.mounts
        .push(input(&dir.path().join("forward"), "forward", Access::ReadWrite));
    let served = ServedMachine {
        argv: ["/bin/sh", "-c", serve].map(str::to_owned).to_vec(),
        http: None,
        inlets: Vec::new(),
        forward: ForwardEnd::all(&forwards, "/inputs/forward"),
        pulse: false,
    };
    spec.workload = Workload::builtin(MACHINE, serde_json::to_vec(&served).expect("JSON"));
    let said = ForwardListener::with_all(&listeners, || printed(&spec)).expect("forwarded");
    assert_eq!(said, "");
    assert_eq!(client.join().expect("whole"), "you said hello");
}

#[test]
fn a_machine_without_its_network_or_its_port_does_not_start() {
    let host = Host::new();
    let dir = scratch();
    let mut spec = machine(&host, dir.path(), &["/bin/echo", "started"], 8080);
    spec.network = Network::None;
    let (outcome, said) = run(&spec);
    assert!(outcome.is_err(), "{said}");
    assert_eq!(
        said,
        "built-in machine: failed to listen on 127.0.0.1:8080: Address family not supported by protocol (os error 97)\n"
    );
    let (_, said) = run(&machine(&host, dir.path(), &["/bin/echo", "started"], 80));
    assert_eq!(
        said,
        "built-in machine: failed to listen on 127.0.0.1:80: Permission denied (os error 13)\n"
    );
}
