//! Finds the root in an artifact: the ext4 file system with `/image.cfs`, and the digest that the artifact states.
//!
//! | artifact | file system | stated digest |
//! |---|---|---|
//! | initramfs of kernel-initrd and ipxe | `powernode/root.ext4` in its last archive | `etc/powernode/root-digest` there |
//! | raw disk | the partition named `powernode-root` | in the last archive of `/powernode/initramfs.cpio.zst` on a FAT partition |
//! | qcow2 | as on the disk inside | as on the disk inside |
//! | ISO 9660 | `/powernode/root.ext4` | in the last archive of `/powernode/initramfs.cpio.zst` |

use super::{
    InspectError,
    budget::Budget,
    detect::{self, Format},
    error::one_line,
    part::{Look, Part, PartKind, SpoolDirectory, open},
    streams::{decoder, spool},
};
use crate::image::{
    ReadCursor, Source, Window,
    cpio::{Compression, CpioReader, segments_until_damage},
    ext4::LABEL,
};
use std::{io::Read, sync::Arc};

/// Path of the root's file system in the last archive, and on ISO 9660 with a slash in front.
const ROOT_IMAGE: &[u8] = b"powernode/root.ext4";
/// Path of the digest with which the initramfs compares the root.
const ROOT_DIGEST: &[u8] = b"etc/powernode/root-digest";
/// Path of the initramfs on media with a boot loader.
const INITRAMFS: &str = "/powernode/initramfs.cpio.zst";
/// Bytes of the digest's file that are read: more than a digest and a line feed.
const MAX_DIGEST: u64 = 4096;

/// The root of an artifact.
#[derive(Clone)]
pub struct FoundRoot {
    /// The ext4 file system with `/image.cfs` and `/objects`.
    pub image: Source,
    /// The root digest that the artifact states: the bytes of `/etc/powernode/root-digest` in its initramfs.
    pub stated: Vec<u8>,
}

impl std::fmt::Debug for FoundRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FoundRoot(stated {:?})", String::from_utf8_lossy(&self.stated))
    }
}

fn none(problem: impl Into<String>) -> InspectError {
    InspectError::NoRoot {
        problem: problem.into(),
    }
}

/// Finds the root in the bytes of `name`: an initramfs, a disk, a qcow2 image or an ISO 9660 image.
pub fn find_root(source: &Source, name: &str, scratch: &SpoolDirectory) -> Result<FoundRoot, InspectError> {
    let part = open(source.clone(), name).map_err(|source| InspectError::Read {
        part: name.to_owned(),
        source,
    })?;
    find_in(&part, scratch, 2)
}

fn find_in(part: &Part, scratch: &SpoolDirectory, depth: usize) -> Result<FoundRoot, InspectError> {
    let format = beginning(part)?;
    // Bytes of an unknown format are read as an archive; the error of that names the problem.
    if matches!(format, Format::Stream(_) | Format::Other) {
        let found = last_archive(part, scratch, true)?;
        let image = found.image.ok_or_else(|| lacks(&part.name, ROOT_IMAGE))?;
        return Ok(FoundRoot {
            image,
            stated: found.stated,
        });
    }
    let look = part.look(scratch);
    if let Some(problem) = &look.problem {
        return Err(none(format!("{:?} is {}, but {problem}", part.name, look.format)));
    }
    match look.format {
        "qcow2" if depth > 0 => {
            let disk = look.children.iter().find(|c| c.kind == PartKind::Content);
            find_in(
                disk.ok_or_else(|| none("the qcow2 image has no readable disk"))?,
                scratch,
                depth - 1,
            )
        }
        "ISO 9660" => {
            let image =
                child(&look, "/powernode/root.ext4").ok_or_else(|| lacks(&part.name, b"/powernode/root.ext4"))?;
            let initramfs = child(&look, INITRAMFS).ok_or_else(|| lacks(&part.name, INITRAMFS.as_bytes()))?;
            let stated = last_archive(initramfs, scratch, false)?.stated;
            Ok(FoundRoot {
                image: image.source().clone(),
                stated,
            })
        }
        "GPT disk" => {
            let named = |c: &&Part| c.fields.get("name").is_some_and(|n| n == LABEL);
            let mut roots = look.children.iter().filter(named);
            let root = roots
                .next()
                .ok_or_else(|| none(format!("{:?} has no partition named {LABEL:?}", part.name)))?;
            if roots.next().is_some() {
                return Err(none(format!("{:?} has two partitions named {LABEL:?}", part.name)));
            }
            let stated = stated_on(&look, part, scratch)?;
            Ok(FoundRoot {
                image: root.source().clone(),
                stated,
            })
        }
        other => Err(none(format!("{:?} is {other}, which cannot carry a root", part.name))),
    }
}

/// The bytes of the file `path` on boot media `name`: on ISO 9660, or on a FAT partition of a disk or qcow2 image.
pub fn find_file(source: &Source, name: &str, path: &str, scratch: &SpoolDirectory) -> Result<Source, InspectError> {
    let part = open(source.clone(), name).map_err(|source| InspectError::Read {
        part: name.to_owned(),
        source,
    })?;
    let mut waiting = vec![(part, 3)];
    while let Some((part, depth)) = waiting.pop() {
        let look = part.look(scratch);
        if let Some(found) = child(&look, path) {
            return Ok(found.source().clone());
        }
        if depth > 0 {
            let inner = |c: &Part| matches!(c.kind, PartKind::Partition | PartKind::Content);
            waiting.extend(look.children.into_iter().filter(inner).map(|c| (c, depth - 1)));
        }
    }
    Err(none(format!("{name:?} holds no {path}")))
}

/// The root digest that the initramfs on the disk's FAT partition states.
fn stated_on(disk: &Look, part: &Part, scratch: &SpoolDirectory) -> Result<Vec<u8>, InspectError> {
    for partition in disk.children.iter().filter(|c| c.kind == PartKind::Partition) {
        if beginning(partition)? != Format::Fat {
            continue;
        }
        let fat = partition.look(scratch);
        if let Some(initramfs) = child(&fat, INITRAMFS) {
            return Ok(last_archive(initramfs, scratch, false)?.stated);
        }
        if let Some(problem) = fat.problem {
            return Err(none(format!(
                "{} of {:?} is {}, but {problem}",
                partition.name, part.name, fat.format
            )));
        }
    }
    Err(none(format!("{:?} has no FAT partition with {INITRAMFS:?}", part.name)))
}

fn child<'a>(look: &'a Look, name: &str) -> Option<&'a Part> {
    look.children
        .iter()
        .find(|c| c.name == name && c.kind == PartKind::File)
}

fn beginning(part: &Part) -> Result<Format, InspectError> {
    let head = detect::head(part.source(), part.size);
    let head = head.map_err(|source| InspectError::Read {
        part: part.name.clone(),
        source,
    })?;
    Ok(detect::format(&head))
}

fn lacks(name: &str, path: &[u8]) -> InspectError {
    none(format!("{name:?} lacks \"{}\"", path.escape_ascii()))
}

/// A reader of decompressed bytes, which count.
struct Spending<R> {
    inner: R,
    budget: Arc<Budget>,
}

impl<R: Read> Read for Spending<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.budget.unpacked.spend(n as u64)?;
        Ok(n)
    }
}

struct Archive {
    image: Option<Source>,
    stated: Vec<u8>,
}

/// Reads the last archive of an initramfs, which must be one zstd frame. The file system in it is unpacked only if `want_image`.
fn last_archive(part: &Part, scratch: &SpoolDirectory, want_image: bool) -> Result<Archive, InspectError> {
    let name = &part.name;
    let bad = |error: &(dyn std::error::Error + 'static)| none(format!("{name:?}: {}", one_line(error)));
    let budget = part.budget();
    let spend = |bytes: u64| budget.unpacked.spend(bytes);
    let (found, damage) = segments_until_damage(ReadCursor::new(part.source()), &spend);
    if let Some(error) = damage {
        return Err(bad(&error));
    }
    let last = found.last().ok_or_else(|| none(format!("{name:?} holds no archive")))?;
    if last.compression != Compression::Zstd {
        return Err(none(format!(
            "the last archive of {name:?}, at byte {}, is not zstd",
            last.offset
        )));
    }
    let window = Window::new(part.source().clone(), last.offset, last.len).map_err(|e| bad(&e))?;
    let window: Source = Arc::new(window);
    let plain = decoder(&window, Compression::Zstd).map_err(|e| bad(&e))?;
    let plain = Spending { inner: plain, budget };
    let mut archive = CpioReader::new(plain);
    let (mut image, mut stated) = (None, None);
    while let Some(entry) = archive.next_entry().map_err(|e| bad(&e))? {
        match entry.path.as_ref().map(|p| p.as_bytes()) {
            Some(ROOT_IMAGE) if image.is_none() => {
                let source: Source = if want_image {
                    spool(&mut archive, scratch).map_err(|e| bad(&e))?
                } else {
                    Arc::new(Vec::new())
                };
                image = Some(source);
            }
            Some(ROOT_DIGEST) if stated.is_none() => {
                let mut bytes = Vec::new();
                (&mut archive)
                    .take(MAX_DIGEST)
                    .read_to_end(&mut bytes)
                    .map_err(|e| bad(&e))?;
                stated = Some(bytes);
            }
            Some(path @ (ROOT_IMAGE | ROOT_DIGEST)) => {
                return Err(none(format!("\"{}\" is twice in {name:?}", path.escape_ascii())));
            }
            _ => {}
        }
    }
    let stated = stated.ok_or_else(|| {
        none(format!(
            "the last archive of {name:?} lacks \"{}\"",
            ROOT_DIGEST.escape_ascii()
        ))
    })?;
    Ok(Archive { image, stated })
}
