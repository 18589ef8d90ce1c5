//! The root a stage sees: planned from the spec in the host's view, built by pid 1 in its own.
//!
//! ```text
//! /              tmpfs, read-only in the end: top-level entries of the tree, mount points
//! /build         tmpfs of limited size, or a directory of the host
//! /tmp           tmpfs of limited size
//! /dev           null, zero, full, random, urandom bound from the host; fd, stdin, stdout, stderr as links
//! /proc          only what processes see of themselves
//! /emulator      what runs programs of another architecture, where there is such a thing
//! ```

use super::{
    Access, BuildDir, Network, RootFs, Spec, VARIATION_DIR, emulator,
    landlock::Rules,
    sys::{self, attr},
    wire::{Fault, Step},
};
use crate::model::RelPath;
use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, SFlag, fstat, mkdirat},
    unistd::{fchdir, pivot_root, symlinkat},
};
use std::{
    ffi::CString,
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileTypeExt},
    },
    path::{Path, PathBuf},
};

/// Device nodes every stage has.
const DEVICES: [&str; 5] = ["full", "null", "random", "urandom", "zero"];

/// Top-level entries of a tree that the sandbox covers with its own.
const OWN: [&[u8]; 5] = [b"build", b"dev", b"emulator", b"proc", b"tmp"];

/// One bind mount to be.
pub(super) struct Bind {
    pub source: PathBuf,
    target: RelPath,
    attributes: u64,
    /// Whether owners are mapped so that the host's root is the stage's id 0.
    pub map_owners: bool,
}

/// What the root will be made of.
pub(super) struct Plan {
    /// Mounts, each behind those it lies on.
    pub binds: Vec<Bind>,
    links: Vec<(RelPath, Vec<u8>)>,
}

fn rel(path: impl AsRef<[u8]>) -> Result<RelPath, Fault> {
    RelPath::new(path).step("name a mount point")
}

fn slash(path: &RelPath) -> PathBuf {
    Path::new("/").join(path.as_path())
}

impl Plan {
    /// Plans the root of `spec`; reads the top level of its tree.
    pub(super) fn new(spec: &Spec) -> Result<Self, Fault> {
        let read_only = attr::RDONLY | attr::NOSUID | attr::NODEV;
        let mut plan = Plan {
            binds: Vec::new(),
            links: Vec::new(),
        };
        if let RootFs::Tree(root) = &spec.root {
            plan.add_tree(root, read_only)?;
        }
        if let BuildDir::Disk(source) = &spec.build_dir {
            plan.binds.push(Bind {
                source: source.clone(),
                target: rel("build")?,
                attributes: attr::NOSUID | attr::NODEV,
                map_owners: false,
            });
        }
        for mount in &spec.mounts {
            let writable = mount.access == Access::ReadWrite;
            plan.binds.push(Bind {
                source: mount.source.clone(),
                target: mount.target.clone(),
                attributes: if writable {
                    attr::NOSUID | attr::NODEV
                } else {
                    read_only
                },
                // A file that may be written to was named by the caller, whose it may be. In a directory the stage makes files of
                // its own, which must not come to belong to the caller.
                map_owners: !writable || mount.source.is_file(),
            });
        }
        if let Some(emulator) = &spec.emulator {
            plan.binds.push(Bind {
                source: emulator.program.clone(),
                target: emulator::place()?,
                attributes: read_only,
                map_owners: true,
            });
        }
        if let Some(place) = &spec.variation.work_dir
            && let BuildDir::Disk(source) = &spec.build_dir
        {
            plan.binds.push(Bind {
                source: source.clone(),
                target: place.clone(),
                attributes: attr::NOSUID | attr::NODEV,
                map_owners: false,
            });
        }
        let mut device_dirs = vec![rel("dev")?];
        for dir in &spec.dev_in {
            device_dirs.push(rel("build")?.join(dir).join(&rel("dev")?));
        }
        for dir in device_dirs {
            for name in DEVICES {
                plan.binds.push(Bind {
                    source: Path::new("/dev").join(name),
                    target: dir.join(&rel(name)?),
                    attributes: attr::RDONLY | attr::NOSUID | attr::NOEXEC,
                    map_owners: false,
                });
            }
        }
        if let Some(files) = &spec.variation.files {
            let place = rel(VARIATION_DIR)?;
            let inside = spec.dev_in.iter().map(|dir| Ok(rel("build")?.join(dir).join(&place)));
            for target in std::iter::once(Ok(place.clone())).chain(inside) {
                plan.binds.push(Bind {
                    source: files.clone(),
                    target: target?,
                    attributes: read_only,
                    map_owners: true,
                });
            }
        }
        plan.binds.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(plan)
    }

    fn add_tree(&mut self, root: &Path, attributes: u64) -> Result<(), Fault> {
        let step = || format!("read the root tree {}", root.display());
        #[expect(
            clippy::disallowed_methods,
            reason = "the mounts made of the entries are sorted by their targets"
        )]
        let entries = fs::read_dir(root).step(step())?;
        for entry in entries {
            let entry = entry.step(step())?;
            let name = entry.file_name();
            if OWN.contains(&name.as_bytes()) {
                continue;
            }
            let (target, source) = (rel(name.as_bytes())?, entry.path());
            let kind = entry.file_type().step(step())?;
            if kind.is_symlink() {
                let link = fs::read_link(&source).step(step())?;
                self.links.push((target, link.as_os_str().as_bytes().to_vec()));
            } else if kind.is_dir() || kind.is_file() {
                self.binds.push(Bind {
                    source,
                    target,
                    attributes,
                    map_owners: true,
                });
            } else if kind.is_fifo() || kind.is_socket() {
                return Err(Fault::setup(
                    step(),
                    format!("{} is no file or directory", source.display()),
                ));
            }
        }
        Ok(())
    }

    /// What Landlock lets the stage do in the finished root.
    pub(super) fn rules(&self, spec: &Spec) -> Rules {
        let mut rules = Rules {
            read: Vec::new(),
            write: vec![PathBuf::from("/build"), PathBuf::from("/tmp")],
            devices: Vec::new(),
            tcp: spec.network == Network::Loopback,
        };
        for bind in &self.binds {
            let path = slash(&bind.target);
            if bind.attributes & attr::NODEV == 0 {
                rules.devices.push(path);
            } else if bind.attributes & attr::RDONLY == 0 {
                rules.write.push(path);
            } else {
                rules.read.push(path);
            }
        }
        rules.write.extend(spec.variation.work_dir.iter().map(slash));
        for dir in &spec.dev_in {
            rules.read.push(Path::new("/build").join(dir.as_path()).join("dev"));
        }
        rules
    }

    /// The directories in which a `/dev` is mounted for a root inside `/build`.
    pub(super) fn inner_devices(spec: &Spec) -> impl Iterator<Item = PathBuf> + '_ {
        spec.dev_in
            .iter()
            .map(|dir| Path::new("/build").join(dir.as_path()).join("dev"))
    }
}

/// A detached copy of a bind's source with its attributes set. `userns` maps owners, for a caller that may.
pub(super) fn clone_source(bind: &Bind, userns: Option<&OwnedFd>) -> std::io::Result<OwnedFd> {
    let source = CString::new(bind.source.as_os_str().as_bytes())?;
    let mount = sys::clone_mount(None, &source)?;
    let userns = userns.filter(|_| bind.map_owners).map(AsFd::as_fd);
    sys::set_mount_attributes(&mount, bind.attributes, userns)?;
    Ok(mount)
}

fn tmpfs(size: u64, inodes: u64, mode: &str, attributes: u64) -> std::io::Result<OwnedFd> {
    let size = CString::new(size.to_string())?;
    let inodes = CString::new(inodes.to_string())?;
    let mode = CString::new(mode)?;
    let options = [(c"size", &*size), (c"nr_inodes", &*inodes), (c"mode", &*mode)];
    sys::new_filesystem(c"tmpfs", &options, attributes)
}

/// A procfs of this pid namespace that shows processes only.
fn procfs(attributes: u64) -> std::io::Result<OwnedFd> {
    let attributes = attributes | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    sys::new_filesystem(c"proc", &[(c"subset", c"pid"), (c"hidepid", c"invisible")], attributes)
}

fn open_below(root: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

/// Opens the mount point `target` below `root`, making what is missing of it.
fn mount_point(root: &OwnedFd, target: &RelPath, directory: bool) -> Result<OwnedFd, Fault> {
    let step = || format!("make the mount point /{target}");
    let mut at = root.try_clone().step(step())?;
    let last = target.depth();
    for (index, name) in target.components().enumerate() {
        let name = Path::new(std::ffi::OsStr::from_bytes(name));
        at = match open_below(&at, name) {
            Ok(fd) => fd,
            Err(nix::Error::ENOENT) if index + 1 < last || directory => {
                mkdirat(&at, name, Mode::from_bits_truncate(0o755)).step(step())?;
                open_below(&at, name).step(step())?
            }
            Err(nix::Error::ENOENT) => {
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
                openat(&at, name, flags, Mode::from_bits_truncate(0o444)).step(step())?;
                open_below(&at, name).step(step())?
            }
            Err(error) => return Err(Fault::setup(step(), error)),
        };
    }
    Ok(at)
}

fn attach(root: &OwnedFd, target: &RelPath, mount: &OwnedFd) -> Result<(), Fault> {
    let kind = fstat(mount).step(format!("look at /{target}"))?.st_mode & SFlag::S_IFMT.bits();
    let point = mount_point(root, target, kind == SFlag::S_IFDIR.bits())?;
    sys::attach_mount(mount, &point).step(format!("mount /{target}"))
}

/// Builds the root and makes it this process' own; `sources` are the mounts of `plan.binds`. Returns the procfs.
pub(super) fn build(spec: &Spec, plan: &Plan, sources: Vec<OwnedFd>) -> Result<OwnedFd, Fault> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .step("make mounts private")?;
    let flags = attr::NOSUID | attr::NODEV;
    let root = tmpfs(4 << 20, 16_384, "0755", flags).step("make a tmpfs in a user namespace")?;
    let proc = procfs(0).step("make a procfs in a user namespace")?;
    // Any directory will do to attach the new root to; this one is there, or pid 1 had not got so far.
    let place = openat(
        nix::fcntl::AT_FDCWD,
        "/proc",
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .step("open /proc")?;
    sys::attach_mount(&root, &place).step("mount the new root")?;

    for name in ["dev", "tmp", "build"] {
        mount_point(&root, &rel(name)?, true)?;
    }
    for (path, target) in &plan.links {
        let target = Path::new(std::ffi::OsStr::from_bytes(target));
        symlinkat(target, &root, path.as_path()).step(format!("make the link /{path}"))?;
    }
    let tmp = tmpfs(spec.limits.tmp_bytes, spec.limits.build_inodes, "1777", flags).step("make /tmp")?;
    attach(&root, &rel("tmp")?, &tmp)?;
    if spec.build_dir == BuildDir::Tmpfs {
        let build = tmpfs(spec.limits.build_bytes, spec.limits.build_inodes, "0755", flags).step("make /build")?;
        attach(&root, &rel("build")?, &build)?;
        if let Some(place) = &spec.variation.work_dir {
            let again = sys::clone_mount(Some(build.as_fd()), c"").step(format!("copy the mount of /{place}"))?;
            attach(&root, place, &again)?;
        }
    }
    let build = rel("build")?;
    let mut inner: Vec<RelPath> = spec.dev_in.clone();
    inner.sort();
    let mut binds = plan.binds.iter().zip(sources).peekable();
    // The build directory of a disk is among the binds and sorts before everything that lies on it.
    while let Some((bind, source)) = binds.next_if(|(b, _)| b.target <= build) {
        attach(&root, &bind.target, &source)?;
    }
    for dir in &inner {
        let path = build.join(dir).join(&rel("dev")?);
        let dev =
            tmpfs(1 << 20, 64, "0755", attr::NOSUID | attr::NODEV | attr::NOEXEC).step(format!("make /{path}"))?;
        attach(&root, &path, &dev)?;
    }
    for (bind, source) in binds {
        attach(&root, &bind.target, &source)?;
    }
    if spec.proc_mount {
        let shown = procfs(attr::RDONLY).step("make /proc")?;
        attach(&root, &rel("proc")?, &shown)?;
        for (name, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
            let target = format!("/proc/self/{target}");
            symlinkat(target.as_str(), &root, format!("dev/{name}").as_str()).step(format!("make /dev/{name}"))?;
        }
    }
    fchdir(&root).step("enter the new root")?;
    pivot_root(".", ".").step("change to the new root")?;
    umount2(".", MntFlags::MNT_DETACH).step("leave the old root")?;
    nix::unistd::chdir("/").step("enter the new root")?;
    sys::set_mount_attributes(&root, attr::RDONLY | flags, None).step("make / read-only")?;
    Ok(proc)
}
