//! `pnb serve`: a directory over HTTP and TFTP, for machines that boot over a network.

use super::{
    Exit,
    args::parse_listen,
    closing::{Closing, count},
    failure::{Failure, Fatal},
    report::{Report, size},
};
use clap::Args;
use nix::{
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Uid,
};
use pnb::{
    model::{Hint, visible_path},
    serve::{HttpLimits, ServeError, Served, ServedDirectory, Stop, TftpLimits, Wake, serve_http, serve_tftp},
};
use std::{
    borrow::Cow,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread::{self, ScopedJoinHandle},
};

/// Options of `pnb serve`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  pnb serve images/ipxe/amd64\n  \
    pnb serve images/ipxe/amd64 --http 192.0.2.1:8080\n  \
    pnb serve images/ipxe/amd64 --http 192.0.2.1:80 --tftp 192.0.2.1:69 --json\n\n\
    Without an address only this machine can connect; the address 0.0.0.0 stands for every address of this machine. Every \
    client that can connect can read every file in the directory.")]
pub(super) struct ServeArgs {
    /// Directory to serve
    pub(super) dir: PathBuf,
    /// Address and port of the HTTP server
    #[arg(long, value_name = "[ADDR:]PORT", default_value = "8080", value_parser = parse_listen)]
    pub(super) http: SocketAddr,
    /// Address and port of a TFTP server, for firmware without HTTP (it asks on port 69) [default: no TFTP]
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = parse_listen)]
    pub(super) tftp: Option<SocketAddr>,
}

/// Why nothing is served; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
enum ServingError {
    #[error(transparent)]
    Directory(ServeError),
    #[error("listen for {protocol} on {address}")]
    Listen {
        protocol: &'static str,
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("prepare to serve")]
    Prepare(#[source] io::Error),
    #[error(transparent)]
    Serve(ServeError),
    #[error("serve: a server ended by a fault of the program")]
    Panicked,
}

impl Fatal for ServingError {
    fn exit(&self) -> Exit {
        Exit::Failure
    }
}

impl Hint for ServingError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let way = match self {
            ServingError::Directory(_) => "name a directory, such as images/ipxe/amd64",
            ServingError::Listen { address, source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => "another program has this port: end it, or choose another port",
                io::ErrorKind::AddrNotAvailable => {
                    "this machine does not have the address; `ip address` lists those that it has, 0.0.0.0 stands for all"
                }
                io::ErrorKind::PermissionDenied if !Uid::effective().is_root() => {
                    let port = address.port();
                    return Some(
                        format!(
                            "ports below 1024 are root's: choose a higher one, or as root \
                             `sysctl -w net.ipv4.ip_unprivileged_port_start={port}`"
                        )
                        .into(),
                    );
                }
                _ => "choose another address or port",
            },
            _ => return None,
        };
        Some(way.into())
    }
}

impl ServingError {
    fn listen(protocol: &'static str, address: SocketAddr) -> impl FnOnce(io::Error) -> Self {
        move |source| ServingError::Listen {
            protocol,
            address,
            source,
        }
    }
}

pub(super) fn serve(args: &ServeArgs, report: &Report) -> Result<Exit, Failure> {
    let dir = ServedDirectory::open(&args.dir).map_err(ServingError::Directory)?;
    let http = TcpListener::bind(args.http).map_err(ServingError::listen("HTTP", args.http))?;
    let tftp = match args.tftp {
        None => None,
        Some(address) => Some(UdpSocket::bind(address).map_err(ServingError::listen("TFTP", address))?),
    };
    let prepare = ServingError::Prepare;
    // Block the signals before another thread starts, because a thread that does not block them would take them.
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
    let (requests, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let log = |served: &Served| {
        requests.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(served.bytes, Ordering::Relaxed);
        if report.json() {
            let mut event = serde_json::json!(served);
            event["event"] = "served".into();
            report.value(event);
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
        let mut ended = waited
            .map(drop)
            .map_err(|source| ServingError::Serve(ServeError::Wait { source }));
        for server in servers {
            let joined = server.join().map_err(|_| ServingError::Panicked);
            ended = ended.and(joined.and_then(|served| served.map_err(ServingError::Serve)));
        }
        ended
    });
    ended?;
    let (requests, bytes) = (requests.into_inner(), bytes.into_inner());
    let sentence = format!(
        "{} answered, {} sent, {}",
        count(usize::try_from(requests).unwrap_or(usize::MAX), "request"),
        size(bytes),
        report.elapsed()
    );
    let closing = Closing::new(sentence).field("requests", requests).field("bytes", bytes);
    report.close("serve", &closing);
    Ok(Exit::Success)
}

/// Runs a server; its end, for any reason, stops the others.
fn ending<T>(stop: &Stop, server: impl FnOnce() -> T) -> T {
    let done = server();
    stop.request();
    done
}

fn announce(report: &Report, dir: &Path, scheme: &str, address: SocketAddr) {
    let url = format!("{scheme}://{address}/");
    if report.json() {
        report.value(serde_json::json!({ "event": "serving", "dir": dir, "url": url }));
    } else {
        report.line(format_args!("serving {} at {url}", visible_path(dir)));
    }
}
