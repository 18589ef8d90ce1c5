//! The executor's half of collecting: builds checked trees from the entries that pid 1 streams, and refuses every entry that the spec
//! does not allow, although pid 1 has checked it before.

use super::{
    Collected, Ids, OutputKind, OutputSpec, PutOutput, SandboxError, Spec,
    fd_passing::{PASS_FD_FROM, PassedFile},
    wire::{WireEntry, WireEntryKind, shown},
};
use crate::{
    model::{Entry, Meta, Node, RelPath, Tree},
    store::{Content, Once},
};
use std::{
    collections::BTreeMap,
    io::{self, Read},
    os::unix::net::UnixStream,
};

/// Longest target of a symbolic link: PATH_MAX of Linux, less the NUL byte.
const MAX_TARGET: usize = 4095;

/// Collects the outputs of one run.
pub(super) struct Receiver<'a> {
    spec: &'a Spec,
    current: Option<OpenOutput<'a>>,
    done: BTreeMap<String, Collected>,
}

/// The output being received.
struct OpenOutput<'a> {
    output: &'a OutputSpec,
    tree: Option<Tree>,
    file: Option<Collected>,
    entries: u64,
    bytes: u64,
}

impl<'a> Receiver<'a> {
    pub(super) fn new(spec: &'a Spec) -> Self {
        Self {
            spec,
            current: None,
            done: BTreeMap::new(),
        }
    }

    /// The entries of output `index` follow.
    pub(super) fn begin(&mut self, index: usize) -> Result<(), SandboxError> {
        self.close()?;
        let output = self.spec.outputs.get(index).ok_or_else(|| SandboxError::Protocol {
            stage: self.spec.stage.clone(),
            problem: format!("announces output {index}, which the spec does not have"),
        })?;
        self.current = Some(OpenOutput {
            output,
            tree: None,
            file: None,
            entries: 0,
            bytes: 0,
        });
        Ok(())
    }

    /// The current output has no further entries.
    fn close(&mut self) -> Result<(), SandboxError> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let collected = match current.output.kind {
            OutputKind::Tree => current.tree.filter(|t| !t.is_empty()).map(Collected::Tree),
            OutputKind::File => current.file,
        };
        let collected = collected.ok_or_else(|| SandboxError::refusal(self.spec, current.output, "is empty"))?;
        self.done.insert(current.output.name.clone(), collected);
        Ok(())
    }

    /// Returns the outputs; one that was not received is an error.
    pub(super) fn finish(mut self) -> Result<BTreeMap<String, Collected>, SandboxError> {
        self.close()?;
        match self.spec.outputs.iter().find(|o| !self.done.contains_key(&o.name)) {
            None => Ok(self.done),
            Some(missing) => Err(SandboxError::refusal(self.spec, missing, "is missing")),
        }
    }

    /// Takes one entry, and the content of a file from `content`, or by descriptor from `files` if it is large.
    pub(super) fn entry(
        &mut self,
        payload: &[u8],
        content: &mut impl Read,
        files: &UnixStream,
        put: &mut PutOutput<'_>,
    ) -> Result<(), SandboxError> {
        let spec = self.spec;
        let Some(current) = &mut self.current else {
            return Err(SandboxError::Protocol {
                stage: spec.stage.clone(),
                problem: "sends an entry that belongs to no output".to_owned(),
            });
        };
        let output = current.output;
        let wire = WireEntry::decode(payload).map_err(|e| SandboxError::refusal(spec, output, e))?;
        current.count(&wire, spec)?;
        let meta = checked_meta(spec, output, &wire)?;
        let node = match wire.kind {
            WireEntryKind::File => store(spec, output, &wire, content, files, put)?,
            WireEntryKind::Link => current.linked(&wire).ok_or_else(|| {
                refuse(
                    spec,
                    output,
                    &wire,
                    "is a hard link, but not to a file that came before it",
                )
            })?,
            _ => checked_node(spec, output, &wire)?,
        };
        current.add(spec, &wire, meta, node)
    }
}

/// Checks a tree that another machine's sandbox gave for `output`, by the rules for entries that arrive from a sandbox here.
///
/// # Errors
///
/// If the spec does not allow an entry, or the tree is larger than its limits.
pub fn check_tree(spec: &Spec, output: &OutputSpec, tree: &Tree) -> Result<(), SandboxError> {
    let mut open = OpenOutput {
        output,
        tree: None,
        file: None,
        entries: 0,
        bytes: 0,
    };
    if tree.is_empty() {
        return Err(SandboxError::refusal(spec, output, "is empty"));
    }
    let mut check = |path: &[u8], meta: &Meta, node: &Node| {
        let wire = WireEntry::of(path, meta, node);
        open.count(&wire, spec)?;
        if checked_meta(spec, output, &wire)? != *meta {
            let problem = "has another time than the stage's, or extended attributes";
            return Err(refuse(spec, output, &wire, problem));
        }
        let node = match node {
            Node::File { .. } => node.clone(),
            _ => checked_node(spec, output, &wire)?,
        };
        open.add(spec, &wire, meta.clone(), node)
    };
    check(b"", tree.root(), &Node::Directory)?;
    tree.iter()
        .try_for_each(|(path, entry)| check(path.as_bytes(), &entry.meta, &entry.node))
}

/// An entry of `output` is refused because of `problem`.
fn refuse(spec: &Spec, output: &OutputSpec, wire: &WireEntry, problem: impl std::fmt::Display) -> SandboxError {
    SandboxError::refusal(spec, output, format!("entry {:?} {problem}", shown(&wire.path)))
}

/// The owner and mode of an entry, if the spec allows them.
fn checked_meta(spec: &Spec, output: &OutputSpec, wire: &WireEntry) -> Result<Meta, SandboxError> {
    if wire.mode > 0o7777 || (wire.mode & 0o6000 != 0 && !output.allow_setid) {
        return Err(refuse(spec, output, wire, format!("has mode {:o}", wire.mode)));
    }
    let ids = spec.ids.count();
    if wire.uid >= ids || wire.gid >= ids {
        let problem = format!("belongs to {}:{}", wire.uid, wire.gid);
        return Err(refuse(spec, output, wire, problem));
    }
    debug_assert!(spec.ids == Ids::Range || wire.uid == 0);
    Ok(Meta {
        mode: wire.mode,
        uid: wire.uid,
        gid: wire.gid,
        mtime: spec.epoch,
        xattrs: BTreeMap::new(),
    })
}

/// An entry that is no file, if the spec allows it.
fn checked_node(spec: &Spec, output: &OutputSpec, wire: &WireEntry) -> Result<Node, SandboxError> {
    let (major, minor) = ((wire.number >> 32) as u32, wire.number as u32);
    let node = match wire.kind {
        WireEntryKind::Directory => return Ok(Node::Directory),
        WireEntryKind::Symlink => {
            let target = &wire.rest;
            if target.is_empty() || target.contains(&0) || target.len() > MAX_TARGET {
                let problem = "is a symbolic link whose target is empty, too long, or holds a NUL byte";
                return Err(refuse(spec, output, wire, problem));
            }
            let target = target.clone();
            return Ok(Node::Symlink { target });
        }
        WireEntryKind::Fifo => Node::Fifo,
        WireEntryKind::CharDevice => Node::CharDevice { major, minor },
        WireEntryKind::BlockDevice => Node::BlockDevice { major, minor },
        WireEntryKind::File | WireEntryKind::Link => return Err(refuse(spec, output, wire, "is a file")),
    };
    match output.allow_devices {
        true => Ok(node),
        false => Err(refuse(spec, output, wire, "is a device or fifo, which is not declared")),
    }
}

impl OpenOutput<'_> {
    /// Puts a checked entry in its place.
    fn add(&mut self, spec: &Spec, wire: &WireEntry, meta: Meta, node: Node) -> Result<(), SandboxError> {
        let output = self.output;
        match (wire.path.is_empty(), output.kind, node) {
            (true, OutputKind::Tree, Node::Directory) if self.tree.is_none() => self.tree = Some(Tree::new(meta)),
            (true, OutputKind::File, Node::File { size, digest }) if self.file.is_none() => {
                let mode = meta.mode;
                self.file = Some(Collected::File { digest, size, mode });
            }
            (false, OutputKind::Tree, node) => {
                let path = RelPath::new(&wire.path).map_err(|e| SandboxError::refusal(spec, output, e))?;
                if path.depth() > spec.limits.output_depth as usize + 1 {
                    let problem = format!("lies deeper than {}", spec.limits.output_depth);
                    return Err(refuse(spec, output, wire, problem));
                }
                let tree = self
                    .tree
                    .as_mut()
                    .ok_or_else(|| refuse(spec, output, wire, "comes before the root"))?;
                tree.insert(path, Entry { meta, node })
                    .map_err(|e| SandboxError::refusal(spec, output, e))?;
            }
            _ => return Err(refuse(spec, output, wire, "does not belong there")),
        }
        Ok(())
    }

    /// Counts an entry towards the limits of its output.
    fn count(&mut self, wire: &WireEntry, spec: &Spec) -> Result<(), SandboxError> {
        let limits = &spec.limits;
        self.entries += 1;
        if wire.kind == WireEntryKind::File {
            self.bytes = self.bytes.saturating_add(wire.number);
        }
        let over = if self.entries > limits.output_entries {
            format!("{} entries", limits.output_entries)
        } else if self.bytes > limits.output_bytes {
            format!("{} bytes", limits.output_bytes)
        } else {
            return Ok(());
        };
        Err(SandboxError::Limit {
            stage: spec.stage.clone(),
            limit: format!("{over} of output {:?}", self.output.name),
        })
    }

    /// The file that a hard link names.
    fn linked(&self, wire: &WireEntry) -> Option<Node> {
        let first = RelPath::new(&wire.rest).ok()?;
        let node = self.tree.as_ref()?.get(&first)?.node.clone();
        matches!(node, Node::File { .. }).then_some(node)
    }
}

/// At most the announced `size` bytes of `content`.
struct Announced<'a> {
    content: &'a mut dyn Content,
    size: u64,
    left: u64,
}

impl Read for Announced<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = (&mut *self.content).take(self.left).read(buffer)?;
        self.left -= n as u64;
        Ok(n)
    }
}

impl Content for Announced<'_> {
    fn restart(&mut self) -> io::Result<bool> {
        let restarted = self.content.restart()?;
        if restarted {
            self.left = self.size;
        }
        Ok(restarted)
    }
}

/// Stores the content of a file.
fn store(
    spec: &Spec,
    output: &OutputSpec,
    wire: &WireEntry,
    content: &mut impl Read,
    files: &UnixStream,
    put: &mut PutOutput<'_>,
) -> Result<Node, SandboxError> {
    let failed = |source| SandboxError::Store {
        stage: spec.stage.clone(),
        output: output.name.clone(),
        path: shown(&wire.path),
        source,
    };
    let size = wire.number;
    let mut take = |content: &mut dyn Content| {
        let mut announced = Announced {
            content,
            size,
            left: size,
        };
        let (digest, stored) = put(output, wire.mode & 0o111 != 0, &mut announced).map_err(failed)?;
        if stored != size || announced.left != 0 {
            let problem = format!("{stored} of {size} bytes were stored");
            return Err(failed(io::Error::new(io::ErrorKind::UnexpectedEof, problem)));
        }
        Ok(Node::File { size, digest })
    };
    if size < PASS_FD_FROM {
        return take(&mut Once(content));
    }
    let mut passed = PassedFile::receive(files).map_err(failed)?;
    passed
        .check(size)
        .map_err(|problem| SandboxError::refusal(spec, output, format!("entry {:?} {problem}", shown(&wire.path))))?;
    let node = take(&mut passed)?;
    passed.release(files).map_err(failed)?;
    Ok(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{descriptors::send_descriptors, probe::smallest};
    use crate::verity;
    use std::{
        fs::File,
        io::Write,
        os::{fd::OwnedFd, unix::fs::FileExt},
    };

    const SIZE: u64 = 3 * PASS_FD_FROM + 1;

    /// The result for a pid 1 that announces a file of [`SIZE`] bytes and passes `passed`, and whether the descriptor was released.
    fn given(passed: Vec<OwnedFd>) -> (Result<Collected, SandboxError>, bool) {
        let output = OutputSpec {
            name: "out".to_owned(),
            path: "out".parse().expect("a path"),
            kind: OutputKind::File,
            allow_setid: false,
            allow_devices: false,
        };
        let spec = Spec {
            outputs: vec![output],
            ..smallest(Ids::Single)
        };
        let entry = WireEntry {
            kind: WireEntryKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            number: SIZE,
            path: Vec::new(),
            rest: Vec::new(),
        };
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        send_descriptors(&theirs, &passed).expect("sent");
        let mut put = |_: &OutputSpec, _: bool, content: &mut dyn Content| {
            // As a store that hashes the content before it stores it.
            verity::digest_reader(&mut *content)?;
            assert!(content.restart()?, "it is a file");
            verity::digest_reader(content)
        };
        let mut receiver = Receiver::new(&spec);
        receiver.begin(0).expect("the output is declared");
        // The stream is empty: the content comes by descriptor only.
        let taken = receiver.entry(&entry.encode(), &mut io::empty(), &ours, &mut put);
        drop(ours);
        let answered = (&theirs).read(&mut [0]).is_ok_and(|n| n == 1);
        let collected = taken.and_then(|()| receiver.finish());
        (collected.map(|mut all| all.remove("out").expect("taken")), answered)
    }

    fn file(size: u64) -> File {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(size).expect("room");
        file.write_all_at(b"content", 0).expect("written");
        file
    }

    fn for_reading(file: &File) -> OwnedFd {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
        File::open(path).expect("there").into()
    }

    #[test]
    fn a_passed_file_is_stored_whole_from_its_start_and_released() {
        let file = file(SIZE);
        let passed = for_reading(&file);
        io::Seek::seek(
            &mut File::from(passed.try_clone().expect("a copy")),
            io::SeekFrom::End(0),
        )
        .expect("moved");
        let (collected, released) = given(vec![passed]);
        let mut bytes = vec![0; SIZE as usize];
        bytes[..7].copy_from_slice(b"content");
        let digest = verity::digest_bytes(&bytes);
        let expected = Collected::File {
            digest,
            size: SIZE,
            mode: 0o644,
        };
        assert_eq!((collected.expect("taken"), released), (expected, true));
    }

    #[test]
    fn descriptors_other_than_one_readable_file_of_the_size_are_refused() {
        let whole = file(SIZE);
        let directory = File::open("/").expect("there");
        let (pipe, mut end) = io::pipe().expect("a pipe");
        end.write_all(b"content").expect("written");
        let cases: [(&str, Vec<OwnedFd>); 6] = [
            ("nothing", vec![]),
            ("two files", vec![for_reading(&whole), for_reading(&whole)]),
            ("a shorter file", vec![for_reading(&file(SIZE - 1))]),
            ("a longer file", vec![for_reading(&file(SIZE + 1))]),
            ("a file that can be written to", vec![whole.into()]),
            ("no file", vec![directory.into()]),
        ];
        for (name, passed) in cases {
            let (collected, released) = given(passed);
            assert!(collected.is_err() && !released, "{name}: {collected:?}");
        }
        let (collected, released) = given(vec![pipe.into()]);
        assert!(collected.is_err() && !released, "a pipe: {collected:?}");
    }
}
