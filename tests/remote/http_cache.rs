//! A double of a cache that speaks Bazel's HTTP protocol: GET, HEAD and PUT of `/ac/HASH` and `/cas/HASH`, below any prefix, in this
//! process, with faults.
//!
//! Source: Bazel's documentation, "Remote caching", HTTP caching protocol. The name of a blob under `/cas/` is its SHA-256; what is
//! under `/ac/` is an encoded `ActionResult`, and its name is that of the action.

use crate::{
    client::digest_of,
    faults::{Faults, Kept, SharedKept},
};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// The double; it ends with the value.
pub(crate) struct HttpCache {
    pub(crate) address: SocketAddr,
    kept: SharedKept,
    ended: Arc<AtomicBool>,
}

impl HttpCache {
    /// Starts it on a free port.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let cache = Self {
            address: listener.local_addr().expect("bound"),
            kept: SharedKept::default(),
            ended: Arc::default(),
        };
        let (kept, ended) = (cache.kept.clone(), Arc::clone(&cache.ended));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let kept = kept.clone();
                thread::spawn(move || {
                    let _ = connection(&stream, &kept);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        cache
    }

    /// The address as pnb has it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it keeps and does wrong. The double waits as long as the guard lives.
    pub(crate) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock()
    }
}

impl Drop for HttpCache {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts connections.
        drop(TcpStream::connect(self.address));
    }
}

/// A request without its body.
struct Head {
    method: String,
    path: String,
    length: usize,
    authorization: Option<String>,
    /// Whether the client waits for a word before it sends the body.
    expects: bool,
}

fn read_head(stream: &mut impl BufRead) -> Option<Head> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let mut head = Head {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        length: 0,
        authorization: None,
        expects: false,
    };
    loop {
        line.clear();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Some(head);
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = value.trim().parse().ok()?,
            "authorization" => head.authorization = Some(value.trim().to_owned()),
            "expect" => head.expects = true,
            "transfer-encoding" => unreachable!("no test sends a body without its size"),
            _ => {}
        }
    }
}

fn connection(stream: &TcpStream, kept: &SharedKept) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(head) = read_head(&mut reader) {
        if head.expects {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut body = vec![0; head.length];
        reader.read_exact(&mut body)?;
        let (refused, admitted, faults) = {
            let mut kept = kept.lock();
            let refused = kept.call(format!("{} {}", head.method, head.path));
            (refused, kept.admits(head.authorization.as_deref()), kept.faults.clone())
        };
        if let Some(time) = faults.slow_first_byte {
            thread::sleep(time);
        }
        if refused {
            status(writer, 503, "Service Unavailable")?;
            continue;
        }
        if !admitted {
            status(writer, 401, "Unauthorized")?;
            continue;
        }
        let mut parts = head.path.rsplit('/');
        let hash = parts.next().unwrap_or_default().to_owned();
        let of_results = match parts.next() {
            Some("ac") => true,
            Some("cas") => false,
            _ => {
                status(writer, 404, "Not Found")?;
                continue;
            }
        };
        match head.method.as_str() {
            "GET" | "HEAD" => {
                let found = {
                    let kept = kept.lock();
                    let of_head = head.method == "HEAD";
                    match (of_results, of_head) {
                        (true, _) => kept.results.get(&hash).cloned(),
                        (false, true) => kept.blobs.get(&hash).cloned(),
                        (false, false) => kept.blob(&hash),
                    }
                };
                let Some(bytes) = found else {
                    status(writer, 404, "Not Found")?;
                    continue;
                };
                let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
                writer.write_all(text.as_bytes())?;
                if head.method == "GET" && !send(writer, &bytes, &hash, &faults)? {
                    return Ok(());
                }
            }
            "PUT" if faults.reader_only => status(writer, 403, "Forbidden")?,
            "PUT" if faults.full => status(writer, 507, "Insufficient Storage")?,
            "PUT" => {
                if of_results {
                    kept.lock().results.insert(hash, body);
                } else if digest_of(&body).hash == hash {
                    kept.lock().blobs.insert(hash, body);
                } else {
                    status(writer, 400, "Bad Request")?;
                    continue;
                }
                status(writer, 200, "OK")?;
            }
            _ => status(writer, 405, "Method Not Allowed")?,
        }
    }
    Ok(())
}

/// Sends a body with the faults of a transfer; `false` if the connection ends.
fn send(mut writer: &TcpStream, bytes: &[u8], hash: &str, faults: &Faults) -> io::Result<bool> {
    let closes = faults.closes_in_the_middle.contains(hash);
    let sent = if closes { &bytes[..bytes.len() / 2] } else { bytes };
    match faults.trickle {
        None => writer.write_all(sent)?,
        Some(time) => {
            for byte in sent {
                thread::sleep(time);
                writer.write_all(&[*byte])?;
            }
        }
    }
    Ok(!closes)
}

fn status(mut writer: &TcpStream, number: u16, words: &str) -> io::Result<()> {
    let text = format!("HTTP/1.1 {number} {words}\r\nContent-Length: 0\r\n\r\n");
    writer.write_all(text.as_bytes())
}
