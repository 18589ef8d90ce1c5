//! A binary package: an `ar` archive of `debian-binary`, `control.tar*` and `data.tar*`, in that order and nothing else.
//!
//! A package is read as a stream; each part is decompressed with bounded memory and passed on directly.
//! Source: deb(5), <https://manpages.debian.org/deb.5>.

use super::ar::{self, ArError, ArReader};
use super::tarball::{self, EntryHeader, TarEntryKind, TarError, TarLimits};
use crate::model::{Entry, Epoch, Meta, ModelError, Node, RelPath, Tree, VerityDigest};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};

/// The content of `debian-binary`: the version of the format, of which there is only one.
const FORMAT: &[u8] = b"2.0\n";
/// Name of the data archive in errors, and the beginning of its name in the package.
const DATA: &str = "data.tar";
/// A larger control file is refused, bytes.
const MAX_CONTROL: u64 = 1 << 20;
/// Memory limit of a decompressor, bytes: twice the need of `xz -9` and `zstd --ultra -22`.
const MAX_MEMORY: u64 = 256 << 20;
/// log2 of the largest zstd window: 128 MiB, which `zstd --ultra -22` uses.
const MAX_WINDOW_LOG: u32 = 27;
/// Bytes of the package that are read at a time.
const BUFFER: usize = 128 << 10;

/// Why a binary package is refused.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// The outer archive is not that of a package.
    #[error("read {package}: {problem}")]
    Archive {
        /// The package's name, as the caller gave it.
        package: String,
        /// The problem, with the name of the member.
        problem: String,
    },
    /// Reading or decompressing failed.
    #[error("read {package}: {place}")]
    Read {
        /// The package's name.
        package: String,
        /// Member and entry that were being read.
        place: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An entry of one of the tar archives is refused.
    #[error("unpack {package}: {member}: {entry} {problem}")]
    Entry {
        /// The package's name.
        package: String,
        /// The member of the package.
        member: String,
        /// The entry, e.g. `entry "./a"`, or its place, e.g. `after entry "./a"`.
        entry: String,
        /// The problem with it.
        problem: String,
    },
    /// The content of a file could not be stored.
    #[error("store {entry:?} of {package}")]
    Put {
        /// The package's name.
        package: String,
        /// Path of the entry.
        entry: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Receives each entry: its path (`None` for the root directory), its header and its content.
pub type Visitor<'v> = dyn FnMut(Option<RelPath>, EntryHeader, &mut dyn Read) -> Result<(), DebError> + 'v;

/// Takes the content of a regular file and returns its fs-verity digest and length.
pub type PutContent<'p> = dyn FnMut(&mut dyn Read) -> io::Result<(VerityDigest, u64)> + 'p;

/// Reads the control file of a package. `name` is the package's name in errors.
pub fn read_control(reader: impl Read, name: &str) -> Result<String, DebError> {
    let package = Package { name };
    let mut ar = package.open(reader)?;
    let member = package.member(&mut ar, "control.tar")?;
    let mut control: Option<Vec<u8>> = None;
    let limits = TarLimits {
        entries: 10_000,
        bytes: 64 << 20,
        ..TarLimits::default()
    };
    package.entries(&mut ar, &member, &limits, &mut |path, header, content| {
        let Some(path) = path.filter(|p| p.as_bytes() == b"control") else {
            return Ok(());
        };
        let bad = |problem: String| package.entry(&member, &path, problem);
        if header.kind != TarEntryKind::File {
            return Err(bad("is not a regular file".to_owned()));
        }
        if header.size > MAX_CONTROL {
            return Err(bad(format!(
                "has {} bytes, more than the limit of {MAX_CONTROL}",
                header.size
            )));
        }
        let mut text = Vec::new();
        content
            .read_to_end(&mut text)
            .map_err(|source| package.read(&member, source))?;
        match control.replace(text) {
            None => Ok(()),
            Some(_) => Err(bad("is there twice".to_owned())),
        }
    })?;
    let control = control.ok_or_else(|| package.archive(format!("{member} holds no file \"control\"")))?;
    String::from_utf8(control).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        package.archive(format!("{member}: file \"control\" is not UTF-8 at byte {at}"))
    })
}

/// Passes every entry of the package's data archive to `visit`, in order; the root directory has no path. The whole package is read
/// and checked to its last byte. Paths and headers are checked, but not relations between entries, which [`deb_tree`] checks.
pub fn unpack_data(reader: impl Read, name: &str, limits: &TarLimits, visit: &mut Visitor<'_>) -> Result<(), DebError> {
    let package = Package { name };
    let mut ar = package.open(reader)?;
    package.member(&mut ar, "control.tar")?;
    let member = package.member(&mut ar, "data.tar")?;
    package.entries(&mut ar, &member, limits, visit)?;
    package.nothing_after(&mut ar, &member)
}

/// Unpacks a package into a tree. `put` takes the content of each regular file, must read it whole, and returns its
/// fs-verity digest and length. Owners, modes and times are those of the package; hard links become files of the same digest.
pub fn deb_tree(reader: impl Read, name: &str, limits: &TarLimits, put: &mut PutContent<'_>) -> Result<Tree, DebError> {
    let package = Package { name };
    let mut tree = Tree::new(Meta::root(0o755, Epoch::new(0)));
    let mut first = true;
    unpack_data(reader, name, limits, &mut |path, header, content| {
        let was_first = std::mem::take(&mut first);
        let Some(path) = path else {
            if !was_first {
                let problem = "is the root directory but not the first entry";
                return Err(package.shown_entry(DATA, "entry \"./\"", problem.to_owned()));
            }
            tree = Tree::new(header.meta);
            return Ok(());
        };
        let bad = |problem: String| package.entry(DATA, &path, problem);
        let node = match header.kind {
            TarEntryKind::Directory => return add_directory(&mut tree, &path, header.meta).map_err(bad),
            TarEntryKind::Symlink(target) => Node::Symlink { target },
            TarEntryKind::HardLink(target) => {
                let entry = linked(&tree, &target, header.meta).map_err(bad)?;
                return add(&mut tree, &path, entry).map_err(bad);
            }
            TarEntryKind::File => {
                // Checked before the content is stored: the path must be free.
                if tree.get(&path).is_some() {
                    return Err(bad("is there twice".to_owned()));
                }
                package.put_file(&path, header.size, content, put)?
            }
        };
        let meta = header.meta;
        add(&mut tree, &path, Entry { meta, node }).map_err(bad)
    })?;
    Ok(tree)
}

fn add(tree: &mut Tree, path: &RelPath, entry: Entry) -> Result<(), String> {
    tree.insert(path.clone(), entry).map_err(|error| match error {
        ModelError::Tree { problem, .. } => problem,
        other => other.to_string(),
    })
}

/// Adds a directory. A repeated directory is harmless if both entries are equal, and ambiguous otherwise.
fn add_directory(tree: &mut Tree, path: &RelPath, meta: Meta) -> Result<(), String> {
    let node = Node::Directory;
    let entry = Entry { meta, node };
    match tree.get(path) {
        Some(old) if *old == entry => Ok(()),
        Some(old) if old.node == Node::Directory => Err("is there twice with different mode, owner or time".to_owned()),
        _ => add(tree, path, entry),
    }
}

/// The entry of a hard link to `target` with the metadata `meta`.
fn linked(tree: &Tree, target: &RelPath, mut meta: Meta) -> Result<Entry, String> {
    let (node, first) = match tree.get(target) {
        Some(Entry {
            node: node @ Node::File { .. },
            meta,
        }) => (node.clone(), meta),
        Some(_) => return Err(format!("is a hard link to {target}, which is not a regular file")),
        None => {
            return Err(format!(
                "is a hard link to {target}, which is not before it in the package"
            ));
        }
    };
    // Both names have one inode, so their metadata must agree; only the first entry carries the extended attributes.
    meta.xattrs.clone_from(&first.xattrs);
    if meta != *first {
        return Err(format!(
            "is a hard link to {target} but has another mode, owner or time"
        ));
    }
    Ok(Entry { meta, node })
}

/// Writes the same package with both archives uncompressed, for programs that read it more than once. Only the length of the archives
/// is checked, against `limits`; the reader of the result checks their content.
pub fn plain_deb(
    reader: impl Read,
    name: &str,
    limits: &TarLimits,
    out: &mut (impl Write + Seek),
) -> Result<(), DebError> {
    let package = Package { name };
    let mut ar = package.open(reader)?;
    package.put("debian-binary", out.write_all(ar::magic()))?;
    package.put(
        "debian-binary",
        out.write_all(&package.header("debian-binary", FORMAT.len() as u64)?),
    )?;
    package.put("debian-binary", out.write_all(FORMAT))?;
    let mut buffer = vec![0; BUFFER];
    let mut last = String::new();
    for stem in ["control.tar", "data.tar"] {
        let member = package.member(&mut ar, stem)?;
        let start = package.put(stem, out.stream_position())?;
        package.put(stem, out.write_all(&package.header(stem, 0)?))?;
        let mut part = package.part(&mut ar, &member)?;
        let mut size = 0u64;
        loop {
            let n = match part.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(package.read(&member, e)),
            };
            size += n as u64;
            if size > limits.bytes {
                let limit = limits.bytes;
                return Err(package.archive(format!("member {member:?} is larger than the limit of {limit} bytes")));
            }
            package.put(stem, out.write_all(&buffer[..n]))?;
        }
        package.at_end(part.into_inner(), &member)?;
        if size % 2 == 1 {
            package.put(stem, out.write_all(b"\n"))?;
        }
        package.put(stem, out.seek(SeekFrom::Start(start)))?;
        package.put(stem, out.write_all(&package.header(stem, size)?))?;
        package.put(stem, out.seek(SeekFrom::End(0)))?;
        last = member;
    }
    package.nothing_after(&mut ar, &last)
}

/// Remembers a read error of the package, to distinguish it from an error of the store.
struct Watched<'r> {
    inner: &'r mut dyn Read,
    error: Option<io::Error>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf).map_err(|e| {
            if e.kind() == io::ErrorKind::Interrupted {
                return e;
            }
            let kind = e.kind();
            self.error = Some(e);
            io::Error::new(kind, "the package cannot be read any further")
        })
    }
}

/// The package being read, for errors.
struct Package<'n> {
    name: &'n str,
}

impl Package<'_> {
    /// Stores the content of a file with `put`.
    fn put_file(
        &self,
        path: &RelPath,
        size: u64,
        content: &mut dyn Read,
        put: &mut PutContent<'_>,
    ) -> Result<Node, DebError> {
        let mut watched = Watched {
            inner: content,
            error: None,
        };
        let (digest, stored) = put(&mut watched).map_err(|source| match watched.error.take() {
            Some(place) => self.read(&format!("{DATA}: {path}"), place),
            None => DebError::Put {
                package: self.name.to_owned(),
                entry: path.to_string(),
                source,
            },
        })?;
        if stored != size {
            return Err(self.entry(DATA, path, format!("has {size} bytes but {stored} were stored")));
        }
        Ok(Node::File { size, digest })
    }

    fn archive(&self, problem: String) -> DebError {
        DebError::Archive {
            package: self.name.to_owned(),
            problem,
        }
    }

    fn read(&self, place: &str, source: io::Error) -> DebError {
        DebError::Read {
            package: self.name.to_owned(),
            place: place.to_owned(),
            source,
        }
    }

    fn entry(&self, member: &str, path: &RelPath, problem: String) -> DebError {
        self.shown_entry(member, &format!("entry \"{path}\""), problem)
    }

    fn shown_entry(&self, member: &str, entry: &str, problem: String) -> DebError {
        DebError::Entry {
            package: self.name.to_owned(),
            member: member.to_owned(),
            entry: entry.to_owned(),
            problem,
        }
    }

    fn ar(&self, error: ArError, place: &str) -> DebError {
        match error {
            ArError::Form(problem) => self.archive(problem),
            ArError::Read(source) => self.read(place, source),
        }
    }

    /// Opens the archive and checks the format version.
    fn open<R: Read>(&self, reader: R) -> Result<ArReader<BufReader<R>>, DebError> {
        const FIRST: &str = "debian-binary";
        let buffered = BufReader::with_capacity(BUFFER, reader);
        let mut ar = ArReader::new(buffered).map_err(|e| self.ar(e, "the start of the file"))?;
        match ar.next_member().map_err(|e| self.ar(e, FIRST))? {
            Some((name, _)) if name == FIRST => {}
            Some((name, _)) => return Err(self.archive(format!("begins with member {name:?} instead of {FIRST:?}"))),
            None => return Err(self.archive("has no members".to_owned())),
        }
        let mut version = Vec::new();
        let mut start = (&mut ar).take(FORMAT.len() as u64 + 16);
        start.read_to_end(&mut version).map_err(|e| self.read(FIRST, e))?;
        if version != FORMAT {
            return Err(self.archive(format!(
                "has format version \"{}\" instead of 2.0",
                version.escape_ascii()
            )));
        }
        Ok(ar)
    }

    /// Goes to the next member, whose name must be `stem` with or without the ending of a compression; returns the whole name.
    fn member<R: BufRead>(&self, ar: &mut ArReader<R>, stem: &str) -> Result<String, DebError> {
        match ar.next_member().map_err(|e| self.ar(e, stem))? {
            Some((name, _)) if name == stem || name.strip_prefix(stem).is_some_and(|s| s.starts_with('.')) => Ok(name),
            Some((name, _)) => Err(self.archive(format!("has member {name:?} where {stem:?} is expected"))),
            None => Err(self.archive(format!("has no member {stem:?}"))),
        }
    }

    /// Reads the current member as a compressed tar archive, to its last byte.
    fn entries<R: BufRead>(
        &self,
        ar: &mut ArReader<R>,
        member: &str,
        limits: &TarLimits,
        visit: &mut Visitor<'_>,
    ) -> Result<(), DebError> {
        let mut part = self.part(ar, member)?;
        tarball::read(&mut part, limits, visit).map_err(|error| match error {
            TarError::Entry { entry, problem } => self.shown_entry(member, &entry, problem),
            TarError::Read { entry, source } => self.read(&format!("{member}: {entry}"), source),
            TarError::Visit(error) => error,
        })?;
        self.at_end(part.into_inner(), member)
    }

    /// The decompressed content of the current member.
    fn part<'a, R: BufRead>(
        &self,
        ar: &'a mut ArReader<R>,
        member: &str,
    ) -> Result<MemberDecoder<&'a mut ArReader<R>>, DebError> {
        MemberDecoder::new(ar, member)
            .map_err(|source| self.read(member, source))?
            .ok_or_else(|| self.archive(format!("member {member:?} has an unknown compression")))
    }

    /// Checks that a member was read to its end.
    fn at_end(&self, rest: &mut impl BufRead, member: &str) -> Result<(), DebError> {
        if rest.fill_buf().map_err(|e| self.read(member, e))?.is_empty() {
            return Ok(());
        }
        Err(self.archive(format!(
            "member {member:?} has bytes after the end of its compressed data"
        )))
    }

    /// Checks that `member` is the last one.
    fn nothing_after<R: BufRead>(&self, ar: &mut ArReader<R>, member: &str) -> Result<(), DebError> {
        match ar.next_member().map_err(|e| self.ar(e, member))? {
            None => Ok(()),
            Some((extra, _)) => Err(self.archive(format!("has a member {extra:?} after {member:?}"))),
        }
    }

    /// The header of a member to write.
    fn header(&self, name: &str, size: u64) -> Result<Vec<u8>, DebError> {
        ar::header(name, size).ok_or_else(|| self.archive(format!("member {name:?} of {size} bytes is too large")))
    }

    /// The result of writing a part of the package.
    fn put<T>(&self, entry: &str, result: io::Result<T>) -> Result<T, DebError> {
        result.map_err(|source| DebError::Put {
            package: self.name.to_owned(),
            entry: entry.to_owned(),
            source,
        })
    }
}

/// A member of a package that is decompressed while it is read.
enum MemberDecoder<B> {
    Plain(B),
    Gzip(flate2::bufread::GzDecoder<B>),
    Xz(liblzma::bufread::XzDecoder<B>),
    Zstd(zstd::Decoder<'static, B>),
}

impl<B: BufRead> MemberDecoder<B> {
    /// A decompressor for `member`; `None` when the ending of its name is not a known compression.
    fn new(reader: B, member: &str) -> io::Result<Option<Self>> {
        let ending = member.split_once(".tar").map(|(_, ending)| ending);
        Ok(match ending {
            Some("") => Some(Self::Plain(reader)),
            Some(".gz") => Some(Self::Gzip(flate2::bufread::GzDecoder::new(reader))),
            Some(".xz") => {
                // The SHA-256 of the package was checked before, so the checksum of the stream adds nothing; to compute it is a tenth of
                // the work.
                let flags = liblzma::stream::IGNORE_CHECK;
                let stream = liblzma::stream::Stream::new_stream_decoder(MAX_MEMORY, flags)?;
                Some(Self::Xz(liblzma::bufread::XzDecoder::new_stream(reader, stream)))
            }
            Some(".zst") => {
                let mut decoder = zstd::Decoder::with_buffer(reader)?.single_frame();
                decoder.window_log_max(MAX_WINDOW_LOG)?;
                Some(Self::Zstd(decoder))
            }
            _ => None,
        })
    }

    fn into_inner(self) -> B {
        match self {
            Self::Plain(reader) => reader,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Xz(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.into_inner(),
        }
    }
}

impl<B: BufRead> Read for MemberDecoder<B> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(reader) => reader.read(buf),
            Self::Gzip(decoder) => decoder.read(buf),
            Self::Xz(decoder) => decoder.read(buf),
            Self::Zstd(decoder) => decoder.read(buf),
        }
    }
}
