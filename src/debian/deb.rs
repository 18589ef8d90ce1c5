//! A binary package: an `ar` archive of `debian-binary`, `control.tar*` and `data.tar*`, in that order.
//!
//! A package is read as a stream; each part is decompressed with bounded memory and passed on directly. As in dpkg, members whose names
//! begin with `_` are skipped, and nothing after the data archive is read.
//! Source: deb(5), <https://manpages.debian.org/deb.5>; `src/deb/extract.c` of dpkg.

use super::ar::{self, ArError, ArReader};
use super::tarball::{self, EntryHeader, TarEntryKind, TarError, TarLimits};
use super::{ControlReader, PackageNames, PackedEntry, Paragraph, UnpackedRoot, dpkg_tar};
use crate::model::{Epoch, Meta, Node, RelPath, Tree, VerityDigest};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};

/// The content of `debian-binary` in packages that are written: the version of the format.
const FORMAT: &[u8] = b"2.0\n";
/// The major version of the format that is read, with any minor one.
const MAJOR: &str = "2";
/// A longer `debian-binary` is refused, bytes.
const MAX_FORMAT: u64 = 4096;
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
    package.entries(
        &mut ar,
        &member,
        &limits,
        Unpacker::Tar,
        &mut |path, header, content| {
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
            // tar, with which dpkg unpacks this archive, replaces an earlier file.
            control = Some(text);
            Ok(())
        },
    )?;
    let control = control.ok_or_else(|| package.archive(format!("{member} holds no file \"control\"")))?;
    String::from_utf8(control).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        package.archive(format!("{member}: file \"control\" is not UTF-8 at byte {at}"))
    })
}

/// Reads what a package declares about itself and others. `name` is the package's name in errors.
///
/// # Errors
/// A package that cannot be read, or a control file that dpkg refuses.
pub fn read_names(reader: impl Read, name: &str) -> Result<PackageNames, DebError> {
    let control = read_control(reader, name)?;
    let mut lines = ControlReader::new(control.as_bytes(), "control");
    let mut paragraph = Paragraph::default();
    let bad = |problem: String| Package { name }.archive(problem);
    lines.read(&mut paragraph).map_err(|error| bad(error.to_string()))?;
    let names = PackageNames::of(&paragraph).map_err(bad)?;
    match lines.read(&mut Paragraph::default()) {
        Ok(false) => Ok(names),
        Ok(true) => Err(bad("control has a second paragraph".to_owned())),
        Err(error) => Err(bad(error.to_string())),
    }
}

/// Passes every entry of the package's data archive to `visit`, in order; the root directory has no path. The whole data archive is
/// read. Paths and headers are checked, but not relations between entries, which [`UnpackedRoot`] checks.
pub fn unpack_data(reader: impl Read, name: &str, limits: &TarLimits, visit: &mut Visitor<'_>) -> Result<(), DebError> {
    let package = Package { name };
    let mut ar = package.open(reader)?;
    package.member(&mut ar, "control.tar")?;
    let member = package.member(&mut ar, "data.tar")?;
    package.entries(&mut ar, &member, limits, Unpacker::Dpkg, visit)
}

/// Reads the entries of a package. `put` takes the content of each regular file, must read it whole, and returns its fs-verity digest and
/// length.
///
/// # Errors
/// A package that cannot be read, or an entry that dpkg refuses by itself.
pub fn deb_entries(
    reader: impl Read,
    name: &str,
    limits: &TarLimits,
    put: &mut PutContent<'_>,
) -> Result<Vec<PackedEntry>, DebError> {
    let package = Package { name };
    let mut entries = Vec::new();
    unpack_data(reader, name, limits, &mut |path, header, content| {
        let file = match (&path, &header.kind) {
            (Some(path), TarEntryKind::File) => Some(package.put_file(path, header.size, content, put)?),
            _ => None,
        };
        entries.push(PackedEntry { path, header, file });
        Ok(())
    })?;
    Ok(entries)
}

/// Unpacks a package alone into a tree, as dpkg does into an empty root. `put` takes the content of each regular file, must read it whole,
/// and returns its fs-verity digest and length. Owners, modes and times are those of the package; hard links become files of the same
/// digest.
///
/// # Errors
/// A package that cannot be read, or an entry that dpkg refuses.
pub fn deb_tree(reader: impl Read, name: &str, limits: &TarLimits, put: &mut PutContent<'_>) -> Result<Tree, DebError> {
    let entries = deb_entries(reader, name, limits, put)?;
    let first = entries.iter().find(|entry| entry.path.is_none());
    let meta = first.map_or_else(|| Meta::root(0o755, Epoch::new(0)), |root| root.header.meta.clone());
    let mut root = UnpackedRoot::new(meta);
    root.unpack(name, PackageNames::default(), entries)?;
    Ok(root.into_tree())
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
        if size % 2 == 1 {
            package.put(stem, out.write_all(b"\n"))?;
        }
        package.put(stem, out.seek(SeekFrom::Start(start)))?;
        package.put(stem, out.write_all(&package.header(stem, size)?))?;
        package.put(stem, out.seek(SeekFrom::End(0)))?;
    }
    Ok(())
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

/// The program with which dpkg unpacks a tar archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unpacker {
    /// tar: the control archive.
    Tar,
    /// dpkg itself: the data archive.
    Dpkg,
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
        let mut start = (&mut ar).take(MAX_FORMAT);
        start.read_to_end(&mut version).map_err(|e| self.read(FIRST, e))?;
        let (line, more) = match version.iter().position(|b| *b == b'\n') {
            Some(end) => (&version[..end], true),
            None => (&version[..], false),
        };
        // `2.` and any minor version; further lines are for later ones.
        let numbers = std::str::from_utf8(line).ok().and_then(|line| line.split_once('.'));
        let digits = |text: &str| !text.is_empty() && text.len() < 10 && text.bytes().all(|b| b.is_ascii_digit());
        let read = numbers.is_some_and(|(major, minor)| major == MAJOR && digits(minor));
        if !(read && more) {
            let shown = &version[..version.len().min(20)];
            return Err(self.archive(format!(
                "has format version \"{}\" instead of 2.0",
                shown.escape_ascii()
            )));
        }
        Ok(ar)
    }

    /// Goes to the next member without `_` at its beginning, whose name must be `stem` with or without the ending of a compression;
    /// returns the whole name.
    fn member<R: BufRead>(&self, ar: &mut ArReader<R>, stem: &str) -> Result<String, DebError> {
        loop {
            return match ar.next_member().map_err(|e| self.ar(e, stem))? {
                Some((name, _)) if name.starts_with('_') => continue,
                Some((name, _)) if name == stem || name.strip_prefix(stem).is_some_and(|s| s.starts_with('.')) => {
                    Ok(name)
                }
                Some((name, _)) => Err(self.archive(format!("has member {name:?} where {stem:?} is expected"))),
                None => Err(self.archive(format!("has no member {stem:?}"))),
            };
        }
    }

    /// Reads the current member as a compressed tar archive, to its last byte.
    fn entries<R: BufRead>(
        &self,
        ar: &mut ArReader<R>,
        member: &str,
        limits: &TarLimits,
        by: Unpacker,
        visit: &mut Visitor<'_>,
    ) -> Result<(), DebError> {
        let mut part = self.part(ar, member)?;
        let read = match by {
            Unpacker::Tar => tarball::read(&mut part, limits, visit),
            Unpacker::Dpkg => dpkg_tar::read(&mut part, limits, visit),
        };
        read.map_err(|error| match error {
            TarError::Entry { entry, problem } => self.shown_entry(member, &entry, problem),
            TarError::Read { entry, source } => self.read(&format!("{member}: {entry}"), source),
            TarError::Visit(error) => error,
        })
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

/// A member of a package that is decompressed while it is read. As in dpkg, any number of gzip members are one stream, of the other
/// compressions only the first stream is read, and bytes behind mean nothing.
enum MemberDecoder<B> {
    Plain(B),
    Gzip(GzipMembers<B>),
    Xz(liblzma::bufread::XzDecoder<B>),
    Zstd(zstd::Decoder<'static, B>),
}

/// First bytes of a gzip member (RFC 1952, section 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The gzip members at the beginning of `B`, as one stream.
struct GzipMembers<B>(Option<flate2::bufread::GzDecoder<B>>);

impl<B: BufRead> Read for GzipMembers<B> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.0 {
            let n = decoder.read(buf)?;
            if n != 0 || buf.is_empty() {
                return Ok(n);
            }
            let Some(mut rest) = self.0.take().map(flate2::bufread::GzDecoder::into_inner) else {
                break;
            };
            if rest.fill_buf()?.starts_with(&GZIP) {
                self.0 = Some(flate2::bufread::GzDecoder::new(rest));
            }
        }
        Ok(0)
    }
}

impl<B: BufRead> MemberDecoder<B> {
    /// A decompressor for `member`; `None` when the ending of its name is not a known compression.
    fn new(reader: B, member: &str) -> io::Result<Option<Self>> {
        let ending = member.split_once(".tar").map(|(_, ending)| ending);
        Ok(match ending {
            Some("") => Some(Self::Plain(reader)),
            Some(".gz") => {
                let first = flate2::bufread::GzDecoder::new(reader);
                Some(Self::Gzip(GzipMembers(Some(first))))
            }
            Some(".xz") => {
                // The SHA-256 of the package was checked before, so the checksum of the stream adds nothing; to compute it is a tenth of
                // the work.
                let flags = liblzma::stream::IGNORE_CHECK;
                let stream = liblzma::stream::Stream::new_stream_decoder(MAX_MEMORY, flags)?;
                Some(Self::Xz(liblzma::bufread::XzDecoder::new_stream(reader, stream)))
            }
            Some(".lzma") => {
                let stream = liblzma::stream::Stream::new_lzma_decoder(MAX_MEMORY)?;
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
