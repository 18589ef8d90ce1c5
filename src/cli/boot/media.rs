//! What a machine gets of the host: media, kernels, values, each as a mount of its sandbox.

use super::{
    super::failure::Failure,
    args::BootArgs,
    run::{said, usage},
    target::BootTarget,
};
use pnb::{
    boot::{
        Attach, BootMedia, DirectKernel, FwCfg, ImageFormat, Medium,
        raspi::{self, Card},
    },
    image::{ReadCursor, Source, qcow2::Qcow2},
    inspect::{SpoolDirectory, find_file},
    model::RelPath,
    sandbox::{Access, Mount},
    store::{Store, copy_sparse},
};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Kernel and initramfs on media.
const DIRECT: [(&str, &str); 2] = [
    ("kernel", "/powernode/vmlinuz"),
    ("initramfs", "/powernode/initramfs.cpio.zst"),
];
/// Where the machine's sandbox has the artifact.
pub(super) const ARTIFACT: &str = "/inputs/artifact";
/// Size of a second disk when none is asked for, bytes.
const SECOND_DISK: u64 = 4 << 30;

/// Kernel and initramfs for a machine that is started directly: the artifact's own, or copies off its medium.
pub(super) fn direct_files(
    target: &BootTarget,
    store: &Store,
    mounts: &mut Vec<Mount>,
) -> Result<(String, String), Failure> {
    let Some(image) = &target.image else {
        return Ok((format!("{ARTIFACT}/kernel"), format!("{ARTIFACT}/initramfs.cpio.zst")));
    };
    let directory = store.scratch_path("direct");
    fs::create_dir(&directory).map_err(|e| said(format!("create {directory:?}: {e}")))?;
    let source = open(image)?;
    let scratch = SpoolDirectory::new(directory.clone());
    for (name, path) in DIRECT {
        let file = find_file(&source, &image.to_string_lossy(), path, &scratch).map_err(|e| said(e.to_string()))?;
        let to = directory.join(name);
        File::create_new(&to)
            .and_then(|mut out| io::copy(&mut ReadCursor::new(&file), &mut out))
            .map_err(|e| said(format!("copy {path} of {image:?}: {e}")))?;
    }
    mounts.push(mount(&directory, "inputs/direct", Access::ReadOnly)?);
    let [kernel, initramfs] = DIRECT.map(|(name, _)| format!("/inputs/direct/{name}"));
    Ok((kernel, initramfs))
}

/// Kernel, initramfs and device tree as the firmware of a Raspberry Pi takes them off the card, the one that is kept if one is.
pub(super) fn card_files(
    target: &BootTarget,
    args: &BootArgs,
    store: &Store,
    mounts: &mut Vec<Mount>,
) -> Result<DirectKernel, Failure> {
    let image = args.keep.as_ref().or(target.image.as_ref());
    let image = image.ok_or_else(|| said("find the card: the artifact has no image".to_owned()))?;
    let directory = store.scratch_path("card");
    fs::create_dir(&directory).map_err(|e| said(format!("create {directory:?}: {e}")))?;
    let card = Card::open(
        &open(image)?,
        &image.to_string_lossy(),
        &SpoolDirectory::new(directory.clone()),
    );
    let command_line = card.and_then(|card| card.load(&directory));
    let command_line = command_line.map_err(|e| said(e.to_string()))?;
    mounts.push(mount(&directory, "inputs/card", Access::ReadOnly)?);
    let file = |name| format!("/inputs/card/{name}");
    Ok(DirectKernel {
        image: file(raspi::KERNEL),
        initramfs: file(raspi::INITRAMFS),
        device_tree: Some(file(raspi::DEVICE_TREE)),
        command_line,
    })
}

/// The bytes of a file, to be read at any offset.
pub(super) fn open(path: &Path) -> Result<Source, Failure> {
    Ok(Arc::new(
        File::open(path).map_err(|e| said(format!("open {path:?}: {e}")))?,
    ))
}

fn len_of(path: &Path) -> Result<u64, Failure> {
    let meta = fs::metadata(path).map_err(|e| said(format!("open {path:?}: {e}")))?;
    Ok(meta.len())
}

/// The length of a card for `image`: as asked for, or the next power of two, as QEMU takes no other.
fn card_size(image: &Path, asked: Option<u64>) -> Result<u64, Failure> {
    match asked {
        None => Ok(len_of(image)?.next_power_of_two()),
        Some(size) if size.is_power_of_two() => Ok(size),
        Some(size) => Err(usage(format!(
            "use a card of {size} bytes: QEMU's cards have a power of two of them\n\nhint: --size {}",
            size.next_power_of_two()
        ))),
    }
}

/// A copy of a card's image that is as long as QEMU wants, for this run; none when the image is.
fn grown_card(image: &Path, store: &Store) -> Result<Option<PathBuf>, Failure> {
    let size = card_size(image, None)?;
    if size == len_of(image)? {
        return Ok(None);
    }
    let copy = store.scratch_path("card.img");
    make_disk(&copy, Some((image, ImageFormat::Raw)), Some(size))?;
    Ok(Some(copy))
}

/// Each value in a file of its own, and its key with the place of that file.
pub(super) fn fw_cfg_files(
    store: &Store,
    fw_cfg: &[FwCfg],
    mounts: &mut Vec<Mount>,
) -> Result<Vec<(String, String)>, Failure> {
    let values = store.scratch_path("fw-cfg");
    fs::create_dir(&values).map_err(|e| said(format!("create {values:?}: {e}")))?;
    let mut keys = Vec::new();
    for (n, cfg) in fw_cfg.iter().enumerate() {
        let file = values.join(n.to_string());
        fs::write(&file, &cfg.value).map_err(|e| said(format!("write {file:?}: {e}")))?;
        keys.push((cfg.key.clone(), format!("/inputs/fw-cfg/{n}")));
    }
    mounts.push(mount(&values, "inputs/fw-cfg", Access::ReadOnly)?);
    Ok(keys)
}

/// The media of the machine: what it boots from, and the second disk.
pub(super) fn media(
    target: &BootTarget,
    args: &BootArgs,
    attach: Attach,
    store: &Store,
    mounts: &mut Vec<Mount>,
) -> Result<Vec<Medium>, Failure> {
    let mut media = Vec::new();
    if let Some(image) = &target.image {
        let mut format = match target.media {
            BootMedia::Disk(format) => format,
            _ => ImageFormat::Raw,
        };
        let file = match &args.keep {
            None => {
                let grown = if attach == Attach::Card {
                    grown_card(image, store)?
                } else {
                    None
                };
                let image = grown.as_ref().unwrap_or(image);
                mounts.push(mount(image, "inputs/medium", Access::ReadOnly)?);
                "/inputs/medium"
            }
            Some(copy) => {
                if BootMedia::of_file(copy) != Some(BootMedia::Disk(ImageFormat::Raw)) {
                    return Err(usage(format!(
                        "keep a copy in {copy:?}: it is a raw disk; name it .raw or .img"
                    )));
                }
                if !copy.exists() {
                    let size = match attach {
                        Attach::Card => Some(card_size(image, args.size)?),
                        _ => args.size,
                    };
                    make_disk(copy, Some((image, format)), size)?;
                } else if attach == Attach::Card {
                    card_size(copy, Some(len_of(copy)?))?;
                }
                format = ImageFormat::Raw;
                mounts.push(mount(copy, "inputs/medium", Access::ReadWrite)?);
                "/inputs/medium"
            }
        };
        media.push(Medium {
            file: file.to_owned(),
            format,
            attach,
            keep: args.keep.is_some(),
        });
    }
    if let Some(disk) = &args.disk {
        if !disk.exists() {
            make_disk(disk, None, Some(args.size.unwrap_or(SECOND_DISK)))?;
        }
        mounts.push(mount(disk, "inputs/disk", Access::ReadWrite)?);
        media.push(Medium {
            file: "/inputs/disk".to_owned(),
            format: ImageFormat::Raw,
            attach: Attach::Disk,
            keep: true,
        });
    }
    Ok(media)
}

/// Makes the sparse file `path`, with the content of `image` at its front; on an error there is no file.
fn make_disk(path: &Path, image: Option<(&Path, ImageFormat)>, size: Option<u64>) -> Result<(), Failure> {
    let made = (|| -> io::Result<()> {
        let out = File::create_new(path)?;
        let mut len = 0;
        if let Some((image, format)) = image {
            let file = File::open(image)?;
            let mut from: Box<dyn Read> = match format {
                ImageFormat::Raw => Box::new(file),
                ImageFormat::Qcow2 => Box::new(ReadCursor::new(Qcow2::open(file).map_err(io::Error::other)?)),
            };
            len = copy_sparse(&mut from, &out, 0)?;
        }
        if size.is_some_and(|size| size < len) {
            return Err(io::Error::other(format!("the disk has {len} bytes, more than --size")));
        }
        out.set_len(size.unwrap_or(len))
    })();
    made.map_err(|e| {
        if e.kind() != io::ErrorKind::AlreadyExists {
            let _ = fs::remove_file(path);
        }
        said(format!("make the disk {path:?}: {e}"))
    })
}

/// What the sandbox has at `target`.
pub(super) fn mount(source: &Path, target: &str, access: Access) -> Result<Mount, Failure> {
    let bad = |problem: String| said(format!("open {source:?}: {problem}"));
    let source: PathBuf = source.canonicalize().map_err(|e| bad(e.to_string()))?;
    let target = RelPath::new(target).map_err(|e| bad(e.to_string()))?;
    Ok(Mount { source, target, access })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_kept_disk_is_the_image_with_holes_and_more_room_or_it_is_not_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let (image, disk) = (dir.path().join("image"), dir.path().join("disk"));
        let mut bytes = vec![0; 9 << 20];
        bytes[5 << 20] = 7;
        fs::write(&image, &bytes).expect("written");
        let from = Some((image.as_path(), ImageFormat::Raw));
        let small = make_disk(&disk, from, Some(9 << 20 | 1)).and_then(|()| make_disk(&disk, from, None));
        assert!(small.is_err(), "a disk that is there is not replaced");
        let made = fs::read(&disk).expect("made");
        assert!(made[..bytes.len()] == bytes && made[bytes.len()..] == [0]);
        File::open(&disk).expect("made").sync_all().expect("synced");
        assert!(fs::metadata(&disk).expect("made").blocks() * 512 < 1 << 20);
        fs::remove_file(&disk).expect("ours");
        make_disk(&disk, from, Some(9 << 20 >> 1)).expect_err("less room than the image has");
        assert!(!disk.exists(), "and nothing is left of it");
        make_disk(&disk, None, Some(1 << 20)).expect("an empty disk");
        assert_eq!(fs::metadata(&disk).expect("made").len(), 1 << 20);
    }
}
