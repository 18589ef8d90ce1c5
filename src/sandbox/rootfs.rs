//! The root of a stage: the helper plans it from the spec, with paths of the host; pid 1 builds it in its own mount namespace.
//!
//! ```text
//! /              tmpfs, read-only in the end: top-level entries of the tree, mount points
//! /build         tmpfs of limited size, or a directory of the host
//! /tmp           tmpfs of limited size
//! /dev           null, zero, full, random, urandom bound from the host; fd, stdin, stdout, stderr as links
//! /proc          processes only
//! /emulator      the emulator for programs of another architecture, where the spec has one
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

/// Attributes of mounts that the stage may only read, of mounts that it may write to, and of device nodes. Device nodes lack `NODEV`, which
/// would forbid to open them; `RDONLY` does not forbid to write to them.
const READ_ONLY: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV;
const WRITABLE: u64 = attr::NOSUID | attr::NODEV;
const DEVICE: u64 = attr::RDONLY | attr::NOSUID | attr::NOEXEC;

/// Device nodes every stage has.
const DEVICES: [&str; 5] = ["full", "null", "random", "urandom", "zero"];

/// Top-level entries of a tree that the sandbox' own mounts cover.
const OWN: [&[u8]; 5] = [b"build", b"dev", b"emulator", b"proc", b"tmp"];

/// A bind mount.
pub(super) struct Bind {
    pub source: PathBuf,
    target: RelPath,
    attributes: u64,
    /// Whether owners are mapped so that the host's root becomes the stage's id 0.
    pub map_owners: bool,
}

/// The mounts and links that the root is made of.
pub(super) struct Plan {
    /// Mounts, each after the mounts that it lies on.
    pub binds: Vec<Bind>,
    /// Symbolic links at top level, with their targets.
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
        let mut plan = Plan {
            binds: Vec::new(),
            links: Vec::new(),
        };
        if let RootFs::Tree(root) = &spec.root {
            plan.add_tree(root)?;
        }
        if let BuildDir::Disk(source) = &spec.build_dir {
            plan.bind(source, rel("build")?, WRITABLE, false);
            if let Some(second) = &spec.variation.work_dir {
                plan.bind(source, second.clone(), WRITABLE, false);
            }
        }
        for mount in &spec.mounts {
            let writable = mount.access == Access::ReadWrite;
            let attributes = if writable { WRITABLE } else { READ_ONLY };
            // The caller named a writable file, which may be its own. In a writable directory the stage makes files, which must not
            // belong to the caller.
            let map_owners = !writable || mount.source.is_file();
            plan.bind(&mount.source, mount.target.clone(), attributes, map_owners);
        }
        if let Some(emulator) = &spec.emulator {
            plan.bind(&emulator.program, emulator::mount_point()?, READ_ONLY, true);
        }
        plan.add_devices(spec)?;
        if let Some(files) = &spec.variation.files {
            let target = rel(VARIATION_DIR)?;
            for dir in &spec.dev_in {
                plan.bind(files, rel("build")?.join(dir).join(&target), READ_ONLY, true);
            }
            plan.bind(files, target, READ_ONLY, true);
        }
        plan.binds.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(plan)
    }

    fn bind(&mut self, source: &Path, target: RelPath, attributes: u64, map_owners: bool) {
        self.binds.push(Bind {
            source: source.to_owned(),
            target,
            attributes,
            map_owners,
        });
    }

    /// The device nodes of `/dev`, and of each `/dev` for a root inside `/build`.
    fn add_devices(&mut self, spec: &Spec) -> Result<(), Fault> {
        let mut device_dirs = vec![rel("dev")?];
        for dir in &spec.dev_in {
            device_dirs.push(rel("build")?.join(dir).join(&rel("dev")?));
        }
        for dir in device_dirs {
            for name in DEVICES {
                let source = Path::new("/dev").join(name);
                self.bind(&source, dir.join(&rel(name)?), DEVICE, false);
            }
        }
        Ok(())
    }

    /// One mount or link for each top-level entry of the tree.
    fn add_tree(&mut self, root: &Path) -> Result<(), Fault> {
        let step = || format!("read the root tree {}", root.display());
        #[expect(clippy::disallowed_methods, reason = "the mounts are sorted by their targets")]
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
                self.bind(&source, target, READ_ONLY, true);
            } else if kind.is_fifo() || kind.is_socket() {
                return Err(Fault::setup(
                    step(),
                    format!("{} is neither a file nor a directory", source.display()),
                ));
            }
        }
        Ok(())
    }

    /// The Landlock rules for the finished root.
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

/// A detached copy of a bind's source with its attributes set. `userns` maps its owners, which only root may do.
pub(super) fn clone_source(bind: &Bind, userns: Option<&OwnedFd>) -> std::io::Result<OwnedFd> {
    let source = CString::new(bind.source.as_os_str().as_bytes())?;
    let mount = sys::clone_mount(None, &source)?;
    let userns = userns.filter(|_| bind.map_owners).map(AsFd::as_fd);
    sys::set_mount_attributes(&mount, bind.attributes, userns)?;
    Ok(mount)
}

/// A detached tmpfs.
fn tmpfs(size: u64, inodes: u64, mode: &str, attributes: u64) -> std::io::Result<OwnedFd> {
    let size = CString::new(size.to_string())?;
    let inodes = CString::new(inodes.to_string())?;
    let mode = CString::new(mode)?;
    let options = [(c"size", &*size), (c"nr_inodes", &*inodes), (c"mode", &*mode)];
    sys::new_filesystem(c"tmpfs", &options, attributes)
}

/// A detached procfs of this pid namespace that shows processes only.
fn procfs(attributes: u64) -> std::io::Result<OwnedFd> {
    let attributes = attributes | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    sys::new_filesystem(c"proc", &[(c"subset", c"pid"), (c"hidepid", c"invisible")], attributes)
}

/// Opens `path` below `root`; fails on symbolic links.
fn open_below(root: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, path, how)
}

/// Opens the mount point `target` below `root`; makes the parts of it that are missing.
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

/// Attaches a mount at `target`, which becomes a file or a directory as the mount is.
fn attach(root: &OwnedFd, target: &RelPath, mount: &OwnedFd) -> Result<(), Fault> {
    let kind = fstat(mount).step(format!("read the type of /{target}"))?.st_mode & SFlag::S_IFMT.bits();
    let point = mount_point(root, target, kind == SFlag::S_IFDIR.bits())?;
    sys::attach_mount(mount, &point).step(format!("mount /{target}"))
}

/// Builds the root and makes it this process' root; `sources` are the mounts of `plan.binds`. Returns a procfs that is not attached.
pub(super) fn build(spec: &Spec, plan: &Plan, sources: Vec<OwnedFd>) -> Result<OwnedFd, Fault> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .step("make mounts private")?;
    let root = tmpfs(4 << 20, 16_384, "0755", WRITABLE).step("make a tmpfs in a user namespace")?;
    let proc = procfs(0).step("make a procfs in a user namespace")?;
    // A mount needs a path before pivot_root(2). Any directory serves; /proc exists, because the helper has opened it.
    let any = openat(
        nix::fcntl::AT_FDCWD,
        "/proc",
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .step("open /proc")?;
    sys::attach_mount(&root, &any).step("mount the new root")?;

    for name in ["dev", "tmp", "build"] {
        mount_point(&root, &rel(name)?, true)?;
    }
    for (path, target) in &plan.links {
        let target = Path::new(std::ffi::OsStr::from_bytes(target));
        symlinkat(target, &root, path.as_path()).step(format!("make the link /{path}"))?;
    }
    attach_tmpfs(spec, &root)?;
    attach_binds(spec, plan, sources, &root)?;
    if spec.proc_mount {
        attach_proc(&root)?;
    }

    fchdir(&root).step("enter the new root")?;
    // The old root is then mounted over the new one, at ".", and is detached (pivot_root(2), NOTES).
    pivot_root(".", ".").step("change to the new root")?;
    umount2(".", MntFlags::MNT_DETACH).step("leave the old root")?;
    nix::unistd::chdir("/").step("enter the new root")?;
    sys::set_mount_attributes(&root, attr::RDONLY | WRITABLE, None).step("make / read-only")?;
    Ok(proc)
}

/// `/tmp`, and `/build` where it is in memory.
fn attach_tmpfs(spec: &Spec, root: &OwnedFd) -> Result<(), Fault> {
    let limits = &spec.limits;
    let tmp = tmpfs(limits.tmp_bytes, limits.build_inodes, "1777", WRITABLE).step("make /tmp")?;
    attach(root, &rel("tmp")?, &tmp)?;
    if spec.build_dir == BuildDir::Tmpfs {
        let build = tmpfs(limits.build_bytes, limits.build_inodes, "0755", WRITABLE).step("make /build")?;
        attach(root, &rel("build")?, &build)?;
        if let Some(second) = &spec.variation.work_dir {
            let again = sys::clone_mount(Some(build.as_fd()), c"").step(format!("copy the mount of /{second}"))?;
            attach(root, second, &again)?;
        }
    }
    Ok(())
}

/// The bind mounts, and the small `/dev` of each root inside `/build` before the device nodes that are bound in it.
fn attach_binds(spec: &Spec, plan: &Plan, sources: Vec<OwnedFd>, root: &OwnedFd) -> Result<(), Fault> {
    let build = rel("build")?;
    let mut binds = plan.binds.iter().zip(sources).peekable();
    // A build directory on disk is among the binds, and sorts before the mounts that lie on it.
    while let Some((bind, source)) = binds.next_if(|(b, _)| b.target <= build) {
        attach(root, &bind.target, &source)?;
    }
    let mut inner: Vec<RelPath> = spec.dev_in.clone();
    inner.sort();
    for dir in &inner {
        let path = build.join(dir).join(&rel("dev")?);
        let dev =
            tmpfs(1 << 20, 64, "0755", attr::NOSUID | attr::NODEV | attr::NOEXEC).step(format!("make /{path}"))?;
        attach(root, &path, &dev)?;
    }
    for (bind, source) in binds {
        attach(root, &bind.target, &source)?;
    }
    Ok(())
}

/// `/proc`, and the links of `/dev` that lead into it.
fn attach_proc(root: &OwnedFd) -> Result<(), Fault> {
    let shown = procfs(attr::RDONLY).step("make /proc")?;
    attach(root, &rel("proc")?, &shown)?;
    for (name, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        let target = format!("/proc/self/{target}");
        symlinkat(target.as_str(), root, format!("dev/{name}").as_str()).step(format!("make /dev/{name}"))?;
    }
    Ok(())
}
