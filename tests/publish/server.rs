//! A web server for doubles: HTTP/1.1 on a free port of this machine, with or without TLS, with faults at requests that a test chooses,
//! and a log of everything that it got.

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// A request as the server got it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(n, _)| n == name);
        found.next().map(|(_, value)| value.as_str())
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().expect("a part")
    }

    /// A parameter of the query, decoded.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let query = self.target.split_once('?')?.1;
        let mut found = query.split('&').filter_map(|pair| pair.split_once('='));
        found.find(|(n, _)| *n == name).map(|(_, value)| decoded(value))
    }
}

/// Text of an address with its `%` escapes resolved.
pub(crate) fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail
            .get(..2)
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, code) {
            (b'%', Some(code)) => {
                bytes.push(code);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(status: u16, text: &str) -> Self {
        Self {
            status,
            fields: vec![("Content-Type", "text/plain; charset=utf-8".to_owned())],
            body: text.as_bytes().to_vec(),
        }
    }

    pub(crate) fn json(status: u16, value: &serde_json::Value) -> Self {
        Self {
            status,
            fields: vec![("Content-Type", "application/json;charset=utf-8".to_owned())],
            body: value.to_string().into_bytes(),
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.fields.push((name, value.to_string()));
        self
    }
}

/// What goes wrong at a request.
#[derive(Clone, Debug)]
pub(crate) enum ServerFault {
    /// The connection is closed before the request has an effect.
    Lost,
    /// The request has its effect, and the answer is lost.
    AnswerLost,
    /// This answer instead of an effect.
    Instead(Reply),
    /// The answer comes after this time.
    Late(Duration),
}

type Handler = dyn Fn(&Received) -> Reply + Send + Sync;

/// The part that the threads of a server share.
struct Shared {
    handler: Box<Handler>,
    tls: Option<Arc<ServerConfig>>,
    log: Mutex<Vec<Received>>,
    faults: Mutex<BTreeMap<usize, ServerFault>>,
    down: AtomicBool,
    ended: AtomicBool,
}

/// A running server; it ends when it is dropped.
pub(crate) struct WebServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl WebServer {
    pub(crate) fn start(
        tls: Option<Arc<ServerConfig>>,
        handler: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            tls,
            log: Mutex::default(),
            faults: Mutex::default(),
            down: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if own.ended.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), own) = (stream, Arc::clone(&own)) else {
                    return;
                };
                thread::spawn(move || own.connection(stream));
            }
        });
        Self { address, shared }
    }

    /// The address with this path.
    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// Every request so far.
    pub(crate) fn log(&self) -> Vec<Received> {
        self.shared.log.lock().expect("whole").clone()
    }

    /// Every request so far as method and path.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |r: &Received| format!("{} {}", r.method, r.target);
        self.log().iter().map(line).collect()
    }

    /// Puts a fault at a request: the next one is number 1.
    pub(crate) fn fault(&self, number: usize, fault: ServerFault) {
        let seen = self.shared.log.lock().expect("whole").len();
        self.shared.faults.lock().expect("whole").insert(seen + number, fault);
    }

    /// Closes every new connection, or no longer does.
    pub(crate) fn down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts connections.
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn connection(&self, stream: TcpStream) {
        let limit = Some(Duration::from_secs(60));
        stream.set_read_timeout(limit).expect("set");
        stream.set_nodelay(true).expect("set");
        if self.down.load(Ordering::SeqCst) {
            return;
        }
        let raw = stream.try_clone().expect("a stream");
        match &self.tls {
            None => self.requests(BufReader::new(stream)),
            Some(tls) => {
                let session = ServerConnection::new(Arc::clone(tls)).expect("a session");
                self.requests(BufReader::new(StreamOwned::new(session, stream)));
            }
        }
        let _ = raw.shutdown(Shutdown::Both);
    }

    fn requests<S: Read + Write>(&self, mut stream: BufReader<S>) {
        while let Some(mut received) = read_head(&mut stream) {
            if received.field("expect").is_some() {
                let _ = stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
                let _ = stream.get_mut().flush();
            }
            let size: u64 = received
                .field("content-length")
                .map_or(0, |n| n.parse().expect("a size"));
            assert!(
                received.field("transfer-encoding").is_none(),
                "no test sends a body without its size"
            );
            let mut body = Vec::new();
            let read = (&mut stream).take(size).read_to_end(&mut body);
            if read.is_err() || (body.len() as u64) < size {
                return;
            }
            received.body = body;
            let number = {
                let mut log = self.log.lock().expect("whole");
                log.push(received.clone());
                log.len()
            };
            let fault = self.faults.lock().expect("whole").remove(&number);
            let reply = match fault {
                Some(ServerFault::Lost) => return,
                Some(ServerFault::Instead(reply)) => reply,
                Some(ServerFault::AnswerLost) => {
                    (self.handler)(&received);
                    return;
                }
                Some(ServerFault::Late(time)) => {
                    thread::sleep(time);
                    (self.handler)(&received)
                }
                None => (self.handler)(&received),
            };
            if send(stream.get_mut(), &received, &reply).is_err() {
                return;
            }
        }
    }
}

fn read_head(stream: &mut impl BufRead) -> Option<Received> {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        if stream.read_line(&mut text).ok()? == 0 || text.len() > 64 << 10 {
            return None;
        }
    }
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let fields = lines.filter_map(|line| line.split_once(':'));
    let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    Some(Received {
        method,
        target,
        fields: fields.collect(),
        body: Vec::new(),
    })
}

fn send(stream: &mut impl Write, received: &Received, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Words\r\n", reply.status);
    for (name, value) in &reply.fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if reply.status != 204 {
        head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if received.method != "HEAD" && reply.status != 204 {
        stream.write_all(&reply.body)?;
    }
    stream.flush()
}
