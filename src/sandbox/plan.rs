//! The mounts and links of a stage's root, planned by the helper from the spec, with paths of the host.

use super::{
    Access, BuildDir, Network, RootFs, Spec, VARIATION_DIR,
    devices::{DEVICES, DeviceNode, KVM},
    emulator,
    landlock::Rules,
    overlay::READ_ONLY,
    rootfs::rel,
    sys::{self, attr},
    wire::{Fault, Step},
};
use crate::model::RelPath;
use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileTypeExt},
    },
    path::{Path, PathBuf},
};

/// Attributes of mounts that the stage may write to, and of device nodes. Device nodes lack `NODEV`, which would forbid to open them;
/// `RDONLY` does not forbid to write to them.
const WRITABLE: u64 = attr::NOSUID | attr::NODEV;
pub(super) const DEVICE: u64 = attr::RDONLY | attr::NOSUID | attr::NOEXEC;

/// Top-level entries of a tree that the sandbox' own mounts cover.
const OWN: [&[u8]; 5] = [b"build", b"dev", b"emulator", b"proc", b"tmp"];

/// The content of a mount.
pub(super) enum Shown {
    /// A file or directory of the host, with the host's inodes.
    Host(HostMount),
    /// A part of the layer of this index, with inodes of the stage's own; `None` is the whole layer.
    Layer(usize, Option<PathBuf>),
    /// A device node.
    Node(DeviceNode),
}

/// A file or directory of the host.
pub(super) struct HostMount {
    pub path: PathBuf,
    /// Whether owners are mapped so that the host's root becomes the stage's id 0.
    map_owners: bool,
}

/// A mount of the stage.
pub(super) struct Bind {
    pub shown: Shown,
    pub target: RelPath,
    attributes: u64,
}

/// The mounts and links that the root is made of.
pub(super) struct Plan {
    /// Directories of the host that mounts are parts of, each with an overlay of its own.
    pub layers: Vec<PathBuf>,
    /// Mounts, each after the mounts that it lies on.
    pub binds: Vec<Bind>,
    /// Symbolic links at top level, with their targets.
    pub links: Vec<(RelPath, Vec<u8>)>,
}

fn slash(path: &RelPath) -> PathBuf {
    Path::new("/").join(path.as_path())
}

impl Plan {
    /// Plans the root of `spec`; reads the top level of its tree.
    pub(super) fn new(spec: &Spec) -> Result<Self, Fault> {
        let mut plan = Plan {
            layers: Vec::new(),
            binds: Vec::new(),
            links: Vec::new(),
        };
        if let RootFs::Tree(root) = &spec.root {
            plan.add_tree(root)?;
        }
        if let BuildDir::Disk(source) = &spec.build_dir {
            plan.bind(source, rel("build")?, false);
            if let Some(second) = &spec.variation.work_dir {
                plan.bind(source, second.clone(), false);
            }
        }
        for mount in &spec.mounts {
            match mount.access {
                Access::ReadOnly => plan.input(&mount.source, mount.target.clone())?,
                // The caller named a writable file, which may be its own. In a writable directory the stage makes files, which must
                // not belong to the caller.
                Access::ReadWrite => plan.bind(&mount.source, mount.target.clone(), mount.source.is_file()),
            }
        }
        if let Some(emulator) = &spec.emulator {
            plan.input(&emulator.program, emulator::mount_point()?)?;
        }
        plan.add_devices(spec)?;
        if let Some(files) = &spec.variation.files {
            let target = rel(VARIATION_DIR)?;
            for dir in &spec.dev_in {
                plan.input(files, rel("build")?.join(dir).join(&target))?;
            }
            plan.input(files, target)?;
        }
        plan.binds.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(plan)
    }

    /// Adds a writable file or directory.
    fn bind(&mut self, source: &Path, target: RelPath, map_owners: bool) {
        self.binds.push(Bind {
            shown: Shown::Host(HostMount {
                path: source.to_owned(),
                map_owners,
            }),
            target,
            attributes: WRITABLE,
        });
    }

    /// Adds a file or directory that is only read: as a layer of its own, or as part of the directory that the file lies in.
    fn input(&mut self, source: &Path, target: RelPath) -> Result<(), Fault> {
        let step = || format!("open {}", source.display());
        // A layer has paths of its own, in which a symbolic link of the host would lead elsewhere.
        let real = source.canonicalize().step(step())?;
        let shown = match (real.parent(), real.file_name()) {
            (Some(parent), Some(name)) if !real.is_dir() => self.part_of(parent, Some(name.into())),
            _ => self.part_of(&real, None),
        };
        self.push(shown, target, READ_ONLY);
        Ok(())
    }

    fn push(&mut self, shown: Shown, target: RelPath, attributes: u64) {
        self.binds.push(Bind {
            shown,
            target,
            attributes,
        });
    }

    /// A part of the directory `directory`, which becomes a layer if it is none.
    fn part_of(&mut self, directory: &Path, part: Option<PathBuf>) -> Shown {
        let known = self.layers.iter().position(|layer| layer == directory);
        let index = known.unwrap_or_else(|| {
            self.layers.push(directory.to_owned());
            self.layers.len() - 1
        });
        Shown::Layer(index, part)
    }

    /// The device nodes of `/dev`, and of each `/dev` for a root inside `/build`.
    fn add_devices(&mut self, spec: &Spec) -> Result<(), Fault> {
        let mut device_dirs = vec![rel("dev")?];
        for dir in &spec.dev_in {
            device_dirs.push(rel("build")?.join(dir).join(&rel("dev")?));
        }
        for dir in device_dirs {
            for device in DEVICES {
                self.push(Shown::Node(device), dir.join(&rel(device.name)?), DEVICE);
            }
        }
        if spec.kvm {
            self.push(Shown::Node(KVM), rel("dev")?.join(&rel(KVM.name)?), DEVICE);
        }
        Ok(())
    }

    /// One mount or link for each top-level entry of the tree.
    fn add_tree(&mut self, root: &Path) -> Result<(), Fault> {
        let step = || format!("read the root tree {}", root.display());
        let root = root.canonicalize().step(step())?;
        #[expect(clippy::disallowed_methods, reason = "the mounts are sorted by their targets")]
        let entries = fs::read_dir(&root).step(step())?;
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
                let shown = self.part_of(&root, Some(name.into()));
                self.push(shown, target, READ_ONLY);
            } else if kind.is_fifo() || kind.is_socket() {
                return Err(Fault::setup(
                    step(),
                    format!("{} is neither a file nor a directory", source.display()),
                ));
            }
        }
        Ok(())
    }

    /// The mount points of the finished root that show parts of layers.
    pub(super) fn inputs(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let inputs = self.binds.iter().filter(|bind| matches!(bind.shown, Shown::Layer(..)));
        inputs.map(|bind| slash(&bind.target))
    }

    /// The Landlock rules for the finished root.
    pub(super) fn rules(&self, spec: &Spec) -> Rules {
        let mut rules = Rules {
            read: Vec::new(),
            write: vec![PathBuf::from("/build"), PathBuf::from("/tmp")],
            devices: Vec::new(),
            controlled: spec.kvm.then(|| Path::new("/dev").join(KVM.name)),
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

    /// The mounts of the host that the root needs, detached: the layers, then those that binds show as they are. `userns` maps their
    /// owners, which only root may do.
    pub(super) fn open(&self, userns: Option<&OwnedFd>) -> Result<Vec<OwnedFd>, Fault> {
        let layers = self.layers.iter().map(|path| (path, READ_ONLY, true));
        let hosts = self
            .host_mounts()
            .map(|mount| (&mount.path, WRITABLE, mount.map_owners));
        layers
            .chain(hosts)
            .map(|(path, attributes, map)| {
                let userns = userns.filter(|_| map);
                detached(path, attributes, userns).step(format!("open {}", path.display()))
            })
            .collect()
    }

    fn host_mounts(&self) -> impl Iterator<Item = &HostMount> {
        self.binds.iter().filter_map(|bind| match &bind.shown {
            Shown::Host(mount) => Some(mount),
            _ => None,
        })
    }

    /// The number of mounts that [`Plan::open`] returns.
    pub(super) fn opened(&self) -> usize {
        self.layers.len() + self.host_mounts().count()
    }
}

/// A detached copy of the mount at a path of the host, with its attributes set.
pub(super) fn detached(path: &Path, attributes: u64, userns: Option<&OwnedFd>) -> io::Result<OwnedFd> {
    let mount = sys::clone_mount(None, &sys::path_text(path)?)?;
    sys::set_mount_attributes(&mount, attributes, userns.map(AsFd::as_fd))?;
    Ok(mount)
}
