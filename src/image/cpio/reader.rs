//! Reads archives that anybody may have made: nothing is trusted, and memory does not grow with what a header claims.

use super::{
    FORMAT, TRAILER,
    header::{CpioHeader, HEADER_SIZE, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, padding},
};
use crate::{
    image::ImageError,
    model::{EMPTY_FILE, Entry, Epoch, Meta, Node, RelPath, Tree, VerityDigest},
};
use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, ErrorKind, Read},
};

/// Longest name with its NUL, and longest link target plus one (`PATH_MAX`).
const PATH_MAX: u32 = 4096;

/// One entry of an archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpioEntry {
    /// Where it goes; `None` is the root directory, `.`.
    pub path: Option<RelPath>,
    /// File type and permissions, as `st_mode`.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Number of links; files of one archive with the same device, inode and two or more links are one file.
    pub nlink: u32,
    /// Modification time, seconds since the Unix epoch.
    pub mtime: u32,
    /// Length of the content: of a file, or of a link's target.
    pub size: u32,
    /// Device the file was on and its inode number there.
    pub inode: (u32, u32, u32),
    /// Device number, major and minor, of a device.
    pub rdev: (u32, u32),
    /// Where its header begins, in bytes from where reading began.
    pub offset: u64,
}

impl CpioEntry {
    /// The path for people.
    pub fn name(&self) -> String {
        self.path.as_ref().map_or(".".to_owned(), ToString::to_string)
    }
}

enum State {
    /// Before an archive or behind one: zeros may follow.
    Between,
    /// Inside an archive.
    Inside,
}

/// Reads one archive after the other from uncompressed bytes that begin with one.
///
/// [`CpioReader::next_entry`] gives an entry; its content is read through [`CpioReader`]'s own `Read` before the next one
/// is asked for, and what is left of it is skipped.
pub struct CpioReader<R> {
    reader: BufReader<R>,
    offset: u64,
    /// Bytes of the current entry's content that were not read, and zeros behind it.
    left: u64,
    pad: u64,
    state: State,
    archives: u64,
}

impl<R: Read> CpioReader<R> {
    /// Reads from where `reader` stands.
    pub fn new(reader: R) -> Self {
        Self {
            reader: BufReader::with_capacity(64 * 1024, reader),
            offset: 0,
            left: 0,
            pad: 0,
            state: State::Between,
            archives: 0,
        }
    }

    /// Number of archives whose end was reached.
    pub fn archives(&self) -> u64 {
        self.archives
    }

    /// The next entry, of whichever archive; `None` at the end. The end of the input inside an archive is an error.
    pub fn next_entry(&mut self) -> Result<Option<CpioEntry>, ImageError> {
        loop {
            if matches!(self.state, State::Between) && !self.skip_zeros()? {
                return Ok(None);
            }
            self.state = State::Inside;
            if let Some(entry) = self.next_in_archive()? {
                return Ok(Some(entry));
            }
            self.state = State::Between;
        }
    }

    /// Bytes read so far, from where reading began.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry of this archive; `None` at its trailer.
    pub(super) fn next_in_archive(&mut self) -> Result<Option<CpioEntry>, ImageError> {
        self.skip(self.left + self.pad)?;
        (self.left, self.pad) = (0, 0);
        let offset = self.offset;
        let corrupt = |problem| corrupt(offset, problem);
        let mut bytes = [0; HEADER_SIZE];
        self.fill(&mut bytes)?;
        let header = CpioHeader::decode(&bytes).map_err(corrupt)?;
        if !(1..=PATH_MAX).contains(&header.namesize) {
            return Err(corrupt(format!(
                "the name has {} bytes, not 1 to {PATH_MAX}",
                header.namesize
            )));
        }
        let mut name = vec![0; header.namesize as usize];
        self.fill(&mut name)?;
        self.skip(padding(self.offset, 4))?;
        let end = name.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        if end == name.len() {
            return Err(corrupt("the name does not end with a NUL byte".to_owned()));
        }
        name.truncate(end);
        if name == TRAILER {
            if header.size != 0 {
                return Err(corrupt("the trailer has content".to_owned()));
            }
            self.archives += 1;
            return Ok(None);
        }
        let path = match name.strip_prefix(b"./").unwrap_or(&name) {
            b"." | b"" if !name.is_empty() => None,
            rest => Some(RelPath::new(rest).map_err(|e| corrupt(e.to_string()))?),
        };
        let kind = header.mode & S_IFMT;
        let problem = match kind {
            S_IFREG => None,
            S_IFLNK if (1..PATH_MAX).contains(&header.size) => None,
            S_IFLNK => Some("has a target that is empty or longer than 4095 bytes"),
            S_IFDIR | S_IFCHR | S_IFBLK | S_IFIFO if header.size == 0 => None,
            S_IFDIR | S_IFCHR | S_IFBLK | S_IFIFO => Some("has content but is not a file"),
            _ => Some("has an unknown type"),
        };
        let problem = match (problem, &path) {
            (None, None) if kind != S_IFDIR => Some("is the root but not a directory"),
            (problem, _) => problem,
        };
        if let Some(problem) = problem {
            let name = name.escape_ascii();
            return Err(corrupt(format!("\"{name}\" (mode {:o}) {problem}", header.mode)));
        }
        self.left = u64::from(header.size);
        self.pad = padding(self.offset + self.left, 4);
        Ok(Some(CpioEntry {
            path,
            mode: header.mode,
            uid: header.uid,
            gid: header.gid,
            nlink: header.nlink,
            mtime: header.mtime,
            size: header.size,
            inode: (header.dev.0, header.dev.1, header.ino),
            rdev: header.rdev,
            offset,
        }))
    }

    /// The whole target of the link just returned.
    pub fn link_target(&mut self) -> Result<Vec<u8>, ImageError> {
        let offset = self.offset;
        if self.left >= u64::from(PATH_MAX) {
            return Err(corrupt(
                offset,
                format!("{} bytes are too long for a link's target", self.left),
            ));
        }
        let mut target = Vec::new();
        self.read_to_end(&mut target).map_err(|source| ImageError::Input {
            format: FORMAT,
            offset,
            source,
        })?;
        if target.contains(&0) {
            return Err(corrupt(offset, "a link's target holds a NUL byte".to_owned()));
        }
        Ok(target)
    }

    /// Skips zeros up to the next archive, which begins at a multiple of 4; `false` at the end of the input.
    fn skip_zeros(&mut self) -> Result<bool, ImageError> {
        self.skip(self.left + self.pad)?;
        (self.left, self.pad) = (0, 0);
        loop {
            let offset = self.offset;
            let available = self.reader.fill_buf().map_err(|source| ImageError::Input {
                format: FORMAT,
                offset,
                source,
            })?;
            if available.is_empty() {
                return Ok(false);
            }
            let zeros = available.iter().position(|b| *b != 0);
            let n = zeros.unwrap_or(available.len());
            self.reader.consume(n);
            self.offset += n as u64;
            if zeros.is_some() {
                if !self.offset.is_multiple_of(4) {
                    return Err(corrupt(self.offset, "something begins off a multiple of 4".to_owned()));
                }
                return Ok(true);
            }
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ImageError> {
        let offset = self.offset;
        self.reader.read_exact(bytes).map_err(|source| match source.kind() {
            ErrorKind::UnexpectedEof => corrupt(offset, "the archive ends in the middle of an entry".to_owned()),
            _ => ImageError::Input {
                format: FORMAT,
                offset,
                source,
            },
        })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn skip(&mut self, mut count: u64) -> Result<(), ImageError> {
        let mut buffer = [0; 4096];
        while count > 0 {
            let n = count.min(buffer.len() as u64);
            self.fill(&mut buffer[..n as usize])?;
            count -= n;
        }
        Ok(())
    }
}

/// Content of the entry that [`CpioReader::next_entry`] returned last. An input that ends too early is an error.
impl<R: Read> Read for CpioReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = self.left.min(buffer.len() as u64) as usize;
        if want == 0 {
            return Ok(0);
        }
        let n = self.reader.read(&mut buffer[..want])?;
        if n == 0 {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the archive ends in the middle of a file",
            ));
        }
        self.left -= n as u64;
        self.offset += n as u64;
        Ok(n)
    }
}

fn corrupt(offset: u64, problem: String) -> ImageError {
    ImageError::Corrupt {
        format: FORMAT,
        offset,
        problem,
    }
}

/// What [`read_tree`] does with the content of each file: keeps it somewhere and says its digest and length.
pub type Keep<'a> = &'a mut dyn FnMut(&CpioEntry, &mut dyn Read) -> io::Result<(VerityDigest, u64)>;

/// Links of one file; its content comes with one of them.
struct Links {
    content: Node,
    paths: Vec<RelPath>,
}

/// Everything in all archives of `reader`, as the kernel unpacks it: an entry replaces an earlier one of the same path
/// (never a directory by something else), and links of one file share its content. Without an entry for the root, its
/// mode is 0755 and its time 0.
pub fn read_tree(reader: impl Read, keep: Keep<'_>) -> Result<Tree, ImageError> {
    let mut reader = CpioReader::new(reader);
    let mut root = Meta::root(0o755, Epoch::new(0));
    let mut entries: BTreeMap<RelPath, Entry> = BTreeMap::new();
    // By archive and inode.
    let mut links: BTreeMap<(u64, (u32, u32, u32)), Links> = BTreeMap::new();
    while let Some(entry) = reader.next_entry()? {
        let meta = Meta {
            mode: entry.mode & !S_IFMT & 0o7777,
            uid: entry.uid,
            gid: entry.gid,
            mtime: Epoch::new(entry.mtime),
            xattrs: BTreeMap::new(),
        };
        let (major, minor) = entry.rdev;
        let mut node = match entry.mode & S_IFMT {
            S_IFDIR => Node::Directory,
            S_IFLNK => Node::Symlink {
                target: reader.link_target()?,
            },
            S_IFCHR => Node::CharDevice { major, minor },
            S_IFBLK => Node::BlockDevice { major, minor },
            S_IFIFO => Node::Fifo,
            _ if entry.size == 0 => Node::File {
                size: 0,
                digest: EMPTY_FILE,
            },
            _ => {
                let (digest, size) = keep(&entry, &mut reader).map_err(|source| ImageError::Read {
                    path: entry.name(),
                    source,
                })?;
                if size != u64::from(entry.size) {
                    return Err(ImageError::Length {
                        path: entry.name(),
                        expected: u64::from(entry.size),
                        actual: size,
                        more: false,
                    });
                }
                Node::File { size, digest }
            }
        };
        let Some(path) = entry.path else {
            root = meta;
            continue;
        };
        if matches!(node, Node::File { .. }) && entry.nlink > 1 {
            let key = (reader.archives(), entry.inode);
            let links = links.entry(key).or_insert_with(|| Links {
                content: node.clone(),
                paths: Vec::new(),
            });
            if entry.size > 0 {
                links.content = node;
                for other in &links.paths {
                    if let Some(other) = entries.get_mut(other) {
                        other.node = links.content.clone();
                    }
                }
            }
            node = links.content.clone();
            links.paths.push(path.clone());
        }
        let replaces_directory = matches!(
            entries.get(&path),
            Some(Entry {
                node: Node::Directory,
                ..
            })
        );
        if replaces_directory && node != Node::Directory {
            return Err(corrupt(entry.offset, format!("\"{path}\" replaces a directory")));
        }
        entries.insert(path, Entry { meta, node });
    }
    let mut tree = Tree::new(root);
    for (path, entry) in entries {
        tree.insert(path, entry)
            .map_err(|source| ImageError::Tree { format: FORMAT, source })?;
    }
    Ok(tree)
}
