//! The protocol between the executor and the helper, pid 1 included, over one stream socket.
//!
//! The executor sends the console's descriptors ([`super::descriptors`]) and the [`HelperRequest`]; later the single byte [`STOP`] may
//! end the stage early. The helper and pid 1 send frames:
//!
//! ```text
//! tag: u8   length: u64 little endian   payload: length bytes
//! ```
//!
//! The payload is JSON except for [`Tag::Entry`]: `kind u8, mode u32, uid u32, gid u32, number u64, path length u16, path, rest`,
//! integers little endian. The `number` bytes of a regular file's content follow its frame; the content of a large file is passed as
//! a descriptor instead ([`super::fd_passing`]).

use super::{Spec, outcome::Measured};
use crate::model::{Blake3Digest, Meta, Node, RelPath};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};

/// Longest payload of a frame; contents of files are not payload.
const MAX_PAYLOAD: u64 = 1 << 20;

/// The byte that ends a stage early, as if it had exited with code 0.
pub(super) const STOP: u8 = b's';

/// The run that the helper is asked for.
#[derive(Serialize, Deserialize)]
pub(super) struct HelperRequest {
    pub spec: Spec,
    /// Whether a missing or weaker layer is an error.
    pub strict: bool,
}

/// The kind of a frame, and the type of its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tag {
    /// [`Fault`]: the run failed; only `Usage` follows.
    Fault,
    /// `String`: a layer that is weaker than on a current kernel.
    Weaker,
    /// [`Measured`] from inside, before the workload started.
    Measured,
    /// [`super::Refusals`]: the calls that were refused to the workload.
    Refused,
    /// [`Exited`].
    Exited,
    /// `usize`, the index of an output: its entries follow, its root first.
    Output,
    /// [`WireEntry`], in its binary form.
    Entry,
    /// `()`: every output is complete.
    Complete,
    /// [`Usage`]: all processes of the run have ended; no frame follows.
    Usage,
}

const TAGS: [(u8, Tag); 9] = [
    (b'F', Tag::Fault),
    (b'W', Tag::Weaker),
    (b'M', Tag::Measured),
    (b'R', Tag::Refused),
    (b'X', Tag::Exited),
    (b'O', Tag::Output),
    (b'E', Tag::Entry),
    (b'Z', Tag::Complete),
    (b'U', Tag::Usage),
];

/// The end of the workload.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Exited {
    /// Exit code, or 128 plus the signal's number.
    pub code: i32,
    /// Whether [`STOP`] ended it.
    pub stopped: bool,
    pub wall_nanos: u64,
    pub peak_memory: u64,
}

/// Resources the whole run used.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Usage {
    pub cpu_nanos: u64,
    pub peak_memory: Option<u64>,
    /// Limits that the kernel enforced.
    pub reached: Vec<String>,
}

/// The variant of [`super::SandboxError`] that a [`Fault`] becomes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum FaultKind {
    Unavailable,
    Weaker,
    Setup,
    Limit,
    Output,
}

/// An error on its way to the executor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Fault {
    pub kind: FaultKind,
    /// The layer, step, limit or output that is at fault.
    pub subject: String,
    pub problem: String,
    /// The way out; empty where there is none.
    pub fix: String,
}

impl Fault {
    pub(super) fn setup(step: impl Into<String>, problem: impl ToString) -> Self {
        Self::new(FaultKind::Setup, step, problem)
    }
    pub(super) fn new(kind: FaultKind, subject: impl Into<String>, problem: impl ToString) -> Self {
        Self {
            kind,
            subject: subject.into(),
            problem: problem.to_string(),
            fix: String::new(),
        }
    }
    pub(super) fn unavailable(layer: &str, problem: impl ToString, fix: &str) -> Self {
        Self {
            fix: fix.to_owned(),
            ..Self::new(FaultKind::Unavailable, layer, problem)
        }
    }
}

/// Turns an error into a [`Fault`] that names the failed step.
pub(super) trait Step<T> {
    fn step(self, step: impl Into<String>) -> Result<T, Fault>;
}

impl<T, E: ToString> Step<T> for Result<T, E> {
    fn step(self, step: impl Into<String>) -> Result<T, Fault> {
        self.map_err(|e| Fault::setup(step, e.to_string()))
    }
}

/// Message from the stage to pid 1, before the stage becomes the workload.
#[derive(Serialize, Deserialize)]
pub(super) enum StageReport {
    /// The stage has its user namespace, whose ids are mapped now.
    Ids,
    /// A layer that is weaker than on a current kernel.
    Weaker(String),
    /// The seccomp notification descriptor follows.
    Listener,
    Measured(Box<Measured>),
    Fault(Fault),
}

/// An entry of an output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct WireEntry {
    pub kind: WireEntryKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Size of a file; `major << 32 | minor` of a device.
    pub number: u64,
    /// Path below the output; empty for its root.
    pub path: Vec<u8>,
    /// Target of a symlink; for a hard link, the path under which the file came first.
    pub rest: Vec<u8>,
}

/// Kind of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WireEntryKind {
    Directory,
    File,
    Link,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
}

const KINDS: [(u8, WireEntryKind); 7] = [
    (b'd', WireEntryKind::Directory),
    (b'f', WireEntryKind::File),
    (b'h', WireEntryKind::Link),
    (b'l', WireEntryKind::Symlink),
    (b'c', WireEntryKind::CharDevice),
    (b'b', WireEntryKind::BlockDevice),
    (b'p', WireEntryKind::Fifo),
];

fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

impl WireEntry {
    /// The entry of a tree at `path`. A hard link is the file that it names.
    pub(super) fn of(path: &[u8], meta: &Meta, node: &Node) -> Self {
        let device = |major: u32, minor: u32| u64::from(major) << 32 | u64::from(minor);
        let (kind, number, rest) = match node {
            Node::Directory => (WireEntryKind::Directory, 0, Vec::new()),
            Node::File { size, .. } => (WireEntryKind::File, *size, Vec::new()),
            Node::Symlink { target } => (WireEntryKind::Symlink, 0, target.clone()),
            Node::CharDevice { major, minor } => (WireEntryKind::CharDevice, device(*major, *minor), Vec::new()),
            Node::BlockDevice { major, minor } => (WireEntryKind::BlockDevice, device(*major, *minor), Vec::new()),
            Node::Fifo => (WireEntryKind::Fifo, 0, Vec::new()),
        };
        Self {
            kind,
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            number,
            path: path.to_vec(),
            rest,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let kind = KINDS.iter().find(|(_, k)| *k == self.kind).map_or(0, |(byte, _)| *byte);
        let mut out = vec![kind];
        for number in [self.mode, self.uid, self.gid] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.number.to_le_bytes());
        out.extend((self.path.len() as u16).to_le_bytes());
        out.extend(&self.path);
        out.extend(&self.rest);
        out
    }

    pub(super) fn decode(mut bytes: &[u8]) -> io::Result<Self> {
        fn take<const N: usize>(bytes: &mut &[u8]) -> io::Result<[u8; N]> {
            let (head, tail) = bytes
                .split_first_chunk()
                .ok_or_else(|| invalid("an entry ends early"))?;
            *bytes = tail;
            Ok(*head)
        }
        let [kind] = take::<1>(&mut bytes)?;
        let kind = KINDS.iter().find(|(byte, _)| *byte == kind).map(|(_, kind)| *kind);
        let kind = kind.ok_or_else(|| invalid("an entry has an unknown kind"))?;
        let mode = u32::from_le_bytes(take(&mut bytes)?);
        let uid = u32::from_le_bytes(take(&mut bytes)?);
        let gid = u32::from_le_bytes(take(&mut bytes)?);
        let number = u64::from_le_bytes(take(&mut bytes)?);
        let length = usize::from(u16::from_le_bytes(take(&mut bytes)?));
        let (path, rest) = bytes
            .split_at_checked(length)
            .ok_or_else(|| invalid("an entry ends early"))?;
        Ok(Self {
            kind,
            mode,
            uid,
            gid,
            number,
            path: path.to_vec(),
            rest: rest.to_vec(),
        })
    }
}

/// Writes one frame.
pub(super) fn send_bytes(out: &mut impl Write, tag: Tag, payload: &[u8]) -> io::Result<()> {
    let byte = TAGS.iter().find(|(_, t)| *t == tag).map_or(0, |(byte, _)| *byte);
    let mut frame = Vec::with_capacity(payload.len() + 9);
    frame.push(byte);
    frame.extend((payload.len() as u64).to_le_bytes());
    frame.extend(payload);
    out.write_all(&frame)
}

/// Writes one frame with a value as JSON.
pub(super) fn send(out: &mut impl Write, tag: Tag, value: &impl Serialize) -> io::Result<()> {
    send_bytes(out, tag, &serde_json::to_vec(value)?)
}

/// Reads one frame; `None` at the end of the stream.
pub(super) fn receive(from: &mut impl Read) -> io::Result<Option<(Tag, Vec<u8>)>> {
    let mut head = [0u8; 9];
    let got = loop {
        match from.read(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if got == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[got..])?;
    let tag = TAGS.iter().find(|(byte, _)| *byte == head[0]).map(|(_, tag)| *tag);
    let tag = tag.ok_or_else(|| invalid("a frame has an unknown tag"))?;
    let mut length = [0u8; 8];
    length.copy_from_slice(&head[1..]);
    let length = u64::from_le_bytes(length);
    if length > MAX_PAYLOAD {
        return Err(invalid(&format!(
            "a frame of {length} bytes is too long, the limit is {MAX_PAYLOAD}"
        )));
    }
    let mut payload = vec![0; length as usize];
    from.read_exact(&mut payload)?;
    Ok(Some((tag, payload)))
}

/// Writes the length of a value's JSON, and the JSON.
pub(super) fn send_value(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(value)?;
    let mut frame = (bytes.len() as u64).to_le_bytes().to_vec();
    frame.extend(bytes);
    out.write_all(&frame)
}

/// Reads a value that [`send_value`] wrote; `None` at the end of the stream.
pub(super) fn receive_value<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0u8; 8];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u64::from_le_bytes(length);
    if length > MAX_PAYLOAD {
        return Err(invalid(&format!(
            "a message of {length} bytes is too long, the limit is {MAX_PAYLOAD}"
        )));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

/// BLAKE3 of bytes.
pub(super) fn blake3(bytes: &[u8]) -> Blake3Digest {
    Blake3Digest::new(*blake3::hash(bytes).as_bytes())
}

/// Path of an entry below its output, escaped for a message.
pub(super) fn shown(path: &[u8]) -> String {
    RelPath::new(path).map_or_else(|_| path.escape_ascii().to_string(), |p| p.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_the_wire_and_a_cut_one_does_not() {
        let entry = WireEntry {
            kind: WireEntryKind::Symlink,
            mode: 0o777,
            uid: 7,
            gid: 65_535,
            number: 1 << 40,
            path: b"a\n\xff/-b".to_vec(),
            rest: b"../../etc".to_vec(),
        };
        let bytes = entry.encode();
        assert_eq!(WireEntry::decode(&bytes).expect("whole"), entry);
        for cut in 0..bytes.len() - entry.rest.len() {
            assert!(WireEntry::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_frame_is_bounded_before_memory_is_taken() {
        let mut bytes = vec![b'F'];
        bytes.extend(u64::MAX.to_le_bytes());
        let error = receive(&mut &bytes[..]).expect_err("too long");
        assert!(error.to_string().contains("too long"), "{error}");
    }
}
