//! The root of a stage, which pid 1 builds in its own mount namespace as the helper has planned it ([`super::plan`]).
//!
//! ```text
//! /              tmpfs, read-only in the end: top-level entries of the tree, mount points
//! /inputs, …     read-only overlays
//! /build         tmpfs of limited size, or a directory of the host
//! /tmp           tmpfs of limited size
//! /dev           null, zero, full, random, urandom; fd, stdin, stdout, stderr as links
//! /proc          processes only
//! /emulator      the emulator for programs of another architecture, where the spec has one
//! ```

use super::{
    BuildDir, Spec,
    ablation::{SandboxLayer, is_off},
    overlay::Stack,
    plan::{Bind, DEVICE, Plan, Shown, detached},
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
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

const WRITABLE: u64 = attr::NOSUID | attr::NODEV;
/// Bytes and inodes of the root, which `statfs` tells of inputs too, and those of a variation.
const SIZE: (u64, u64) = (4 << 20, 16_384);
const OTHER_SIZE: (u64, u64) = (7 << 20, 20_000);

pub(super) fn rel(path: impl AsRef<[u8]>) -> Result<RelPath, Fault> {
    RelPath::new(path).step("name a mount point")
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
    if is_off(SandboxLayer::PidNamespace) {
        return detached(Path::new("/proc"), attributes, None);
    }
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
pub(super) fn attach(root: &OwnedFd, target: &RelPath, mount: &OwnedFd) -> Result<(), Fault> {
    let kind = fstat(mount).step(format!("read the type of /{target}"))?.st_mode & SFlag::S_IFMT.bits();
    let point = mount_point(root, target, kind == SFlag::S_IFDIR.bits())?;
    sys::attach_mount(mount, &point).step(format!("mount /{target}"))
}

/// The mounts that the root is made of.
pub(super) struct Mounts {
    /// Those of [`Plan::open`].
    pub opened: Vec<OwnedFd>,
    /// Device nodes of the run's own; without them the host's are shown.
    pub devices: Option<OwnedFd>,
}

/// A finished root.
pub(super) struct Built {
    /// A procfs that is not attached.
    pub proc: OwnedFd,
    /// Why inputs have the inodes of the host, where the kernel makes no overlays.
    pub no_overlay: Option<String>,
}

/// Builds the root and makes it this process' root.
pub(super) fn build(spec: &Spec, plan: &Plan, mounts: Mounts) -> Result<Built, Fault> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .step("make mounts private")?;
    let (size, inodes) = match spec.variation.other_inputs {
        true => OTHER_SIZE,
        false => SIZE,
    };
    let root = tmpfs(size, inodes, "0755", WRITABLE).step("make a tmpfs in a user namespace")?;
    let proc = procfs(0).step("make a procfs in a user namespace")?;
    let shown = procfs(attr::RDONLY).step("make /proc")?;
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
    if is_off(SandboxLayer::Root) {
        mount_point(&root, &rel("host")?, true)?;
        let all = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some("/"), "/proc/host", None::<&str>, all, None::<&str>).step("show the host's root")?;
    }
    for (path, target) in &plan.links {
        let target = Path::new(std::ffi::OsStr::from_bytes(target));
        symlinkat(target, &root, path.as_path()).step(format!("make the link /{path}"))?;
    }
    let stack = Stack::new(&root, spec.variation.other_inputs);
    let (sources, no_overlay) = sources(plan, mounts, stack)?;
    attach_tmpfs(spec, &root)?;
    attach_binds(spec, plan, sources, &root)?;
    if spec.proc_mount {
        attach_proc(&root, &shown)?;
    }

    fchdir(&root).step("enter the new root")?;
    // The old root is then mounted over the new one, at ".", and is detached (pivot_root(2), NOTES).
    pivot_root(".", ".").step("change to the new root")?;
    umount2(".", MntFlags::MNT_DETACH).step("leave the old root")?;
    nix::unistd::chdir("/").step("enter the new root")?;
    sys::set_mount_attributes(&root, attr::RDONLY | WRITABLE, None).step("make / read-only")?;
    Ok(Built { proc, no_overlay })
}

/// The detached mount of each bind, in their order, and why inputs have the inodes of the host.
fn sources(plan: &Plan, mounts: Mounts, mut stack: Stack<'_>) -> Result<(Vec<OwnedFd>, Option<String>), Fault> {
    let mut opened = mounts.opened.into_iter();
    let mut all: Vec<Option<OwnedFd>> = plan.binds.iter().map(|_| None).collect();
    let step = |bind: &Bind| format!("mount the content of /{}", bind.target);
    for (index, _) in plan.layers.iter().enumerate() {
        let lower = opened
            .next()
            .ok_or_else(|| Fault::setup("mount inputs", "one is missing"))?;
        let layer = stack.show(lower)?;
        for (bind, source) in plan.binds.iter().zip(&mut all) {
            if let Shown::Layer(of, part) = &bind.shown
                && *of == index
            {
                *source = Some(layer.mount_of(part.as_deref()).step(step(bind))?);
            }
        }
        layer.end()?;
    }
    let nodes = mounts.devices.map(|nodes| stack.show_as_is(nodes)).transpose()?;
    for (bind, source) in plan.binds.iter().zip(&mut all) {
        match &bind.shown {
            Shown::Layer(..) => {}
            Shown::Host(_) => *source = opened.next(),
            Shown::Node(device) => {
                let node = match &nodes {
                    Some(nodes) => nodes.mount_of(Some(Path::new(device.name))).and_then(|node| {
                        sys::set_mount_attributes(&node, DEVICE, None)?;
                        Ok(node)
                    }),
                    None => detached(&Path::new("/dev").join(device.name), DEVICE, None),
                };
                *source = Some(node.step(step(bind))?);
            }
        }
    }
    nodes.map_or(Ok(()), |nodes| nodes.end())?;
    let all: Option<Vec<OwnedFd>> = all.into_iter().collect();
    let all = all.ok_or_else(|| Fault::setup("mount inputs", "one is missing"))?;
    Ok((all, stack.problem))
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
fn attach_proc(root: &OwnedFd, shown: &OwnedFd) -> Result<(), Fault> {
    attach(root, &rel("proc")?, shown)?;
    for (name, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        let target = format!("/proc/self/{target}");
        symlinkat(target.as_str(), root, format!("dev/{name}").as_str()).step(format!("make /dev/{name}"))?;
    }
    Ok(())
}
