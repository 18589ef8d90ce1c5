//! `pnb serve`: a directory for machines that boot over a network.

use super::{Exit, args::parse_listen, failure::Failure, report::Report};
use clap::Args;
use nix::{
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Uid,
};
use pnb::serve::{HttpLimits, ServeError, Served, ServedDirectory, Stop, TftpLimits, Wake, serve_http, serve_tftp};
use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    thread::{self, ScopedJoinHandle},
};

/// Options of `pnb serve`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  pnb serve images/ipxe/amd64\n  \
    pnb serve images/ipxe/amd64 --http 192.0.2.1:8080\n  \
    pnb serve images/ipxe/amd64 --http 192.0.2.1:80 --tftp 192.0.2.1:69 --json\n\n\
    Nothing but this machine can connect unless an address is named; 0.0.0.0 is all of them. Whoever can connect can read \
    every file in the directory.")]
pub(super) struct ServeArgs {
    /// The directory.
    pub(super) dir: PathBuf,
    /// Where HTTP is served.
    #[arg(long, value_name = "[ADDR:]PORT", default_value = "8080", value_parser = parse_listen)]
    pub(super) http: SocketAddr,
    /// Where TFTP is served, for firmware that knows nothing else (its port is 69) [default: not at all].
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = parse_listen)]
    pub(super) tftp: Option<SocketAddr>,
}

pub(super) fn serve(args: &ServeArgs, report: &Report) -> Result<Exit, Failure> {
    let dir = open(&args.dir)?;
    let http = TcpListener::bind(args.http).map_err(|e| unbound("HTTP", args.http, &e))?;
    let tftp = match args.tftp {
        None => None,
        Some(address) => Some(UdpSocket::bind(address).map_err(|e| unbound("TFTP", address, &e))?),
    };
    let prepare = |e: io::Error| Failure::said(Exit::Failure, format!("prepare to serve: {e}"));
    // Before there is any other thread, so that none of them is interrupted instead.
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGINT);
    ends.add(Signal::SIGTERM);
    ends.thread_block().map_err(|e| prepare(e.into()))?;
    let signals = SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
    let signals = signals.map_err(|e| prepare(e.into()))?;
    let stop = Stop::new().map_err(prepare)?;

    announce(report, &args.dir, "http", http.local_addr().map_err(prepare)?);
    if let Some(socket) = &tftp {
        announce(report, &args.dir, "tftp", socket.local_addr().map_err(prepare)?);
    }
    let log = |served: &Served| {
        if report.json() {
            let mut event = serde_json::json!(served);
            event["event"] = "served".into();
            report.line(event);
        } else {
            report.line(served);
        }
    };
    let ended = thread::scope(|scope| {
        let (dir, stop, log) = (&dir, &stop, &log);
        let mut servers: Vec<ScopedJoinHandle<'_, Result<(), ServeError>>> = Vec::new();
        servers.push(scope.spawn(move || ending(stop, || serve_http(&http, dir, &HttpLimits::default(), stop, log))));
        if let Some(socket) = tftp {
            servers.push(
                scope.spawn(move || ending(stop, || serve_tftp(&socket, dir, &TftpLimits::default(), stop, log))),
            );
        }
        // A signal, or a server that has failed and stops the others.
        let waited: io::Result<Wake> = stop.readable(&signals, None);
        stop.request();
        let mut ended = waited.map(drop).map_err(|source| ServeError::Wait { source });
        for server in servers {
            let panicked = |_| ServeError::Wait {
                source: io::Error::other("a server panicked"),
            };
            ended = ended.and(server.join().map_err(panicked).flatten());
        }
        ended
    });
    ended.map_err(|e| Failure::said(Exit::Failure, with_source(&e)))?;
    Ok(Exit::Success)
}

/// Whatever way a server ends, the others end with it.
fn ending<T>(stop: &Stop, server: impl FnOnce() -> T) -> T {
    let done = server();
    stop.request();
    done
}

fn open(dir: &Path) -> Result<ServedDirectory, Failure> {
    ServedDirectory::open(dir).map_err(|error| {
        let hint = "hint: give a directory with what is to be served, such as images/ipxe/amd64";
        Failure::said(Exit::Failure, format!("{}\n\n{hint}", with_source(&error)))
    })
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn unbound(what: &str, address: SocketAddr, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "another program has this port: end it, or choose another one".to_owned(),
        io::ErrorKind::AddrNotAvailable => {
            "that is no address of this machine; `ip address` lists them, 0.0.0.0 is all of them".to_owned()
        }
        io::ErrorKind::PermissionDenied if !Uid::effective().is_root() => format!(
            "ports below 1024 are root's: choose a higher one, or, as root, sysctl -w net.ipv4.ip_unprivileged_port_start={}",
            address.port()
        ),
        _ => "choose another address or port".to_owned(),
    };
    Failure::said(
        Exit::Failure,
        format!("listen for {what} on {address}: {error}\n\nhint: {hint}"),
    )
}

fn announce(report: &Report, dir: &Path, scheme: &str, address: SocketAddr) {
    let url = format!("{scheme}://{address}/");
    if report.json() {
        report.line(serde_json::json!({ "event": "serving", "dir": dir, "url": url }));
    } else {
        report.line(format_args!("serving {} at {url}", dir.display()));
    }
}
