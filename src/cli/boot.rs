//! `pnb boot`: an artifact in a machine of its own, judged by its console.

use super::{
    Exit,
    args::{Boot, Common},
    context::{Failure, inputs, project, run_options, store},
    report::Report,
};
use crate::{
    boot::{
        Attach, Firmware, FwCfg, HTTP_PORT, HttpRoot, ImageFormat, Judge, MACHINE, Machine, Media, Medium, Network,
        ServedMachine, Verdict,
    },
    image::{ReadCursor, Source, qcow2::Qcow2},
    inspect::{Scratch, find_file},
    manifest::{MANIFEST_FILE, Manifest},
    model::{Arch, Epoch, RelPath},
    pipeline,
    sandbox::{
        self, Access, BuildDir, Console, Executor, Ids, Limits, Mount, Output, RootFs, SandboxError, Spec, Watch,
        Workload,
    },
    store::{Store, copy_sparse},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// The stage that holds QEMU and its firmware.
const BOOT_TOOLS: &str = "boot-tools";
/// Kernel and initramfs on media.
const DIRECT: [(&str, &str); 2] = [
    ("kernel", "/powernode/vmlinuz"),
    ("initramfs", "/powernode/initramfs.cpio.zst"),
];
/// What QEMU itself needs beside the machine's memory, bytes.
const QEMU_MEMORY: u64 = 1 << 30;
/// Where the machine's sandbox has the artifact.
const ARTIFACT: &str = "/inputs/artifact";
/// What a machine may write to media that are not kept, bytes.
const FORGOTTEN: u64 = 4 << 30;
/// Size of a second disk when none is asked for, bytes.
const SECOND_DISK: u64 = 4 << 30;

fn said(message: String) -> Failure {
    Failure::said(Exit::Boot, message)
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::said(Exit::Usage, message)
}

/// What is booted.
struct Target {
    manifest: Option<Manifest>,
    arch: Arch,
    media: Media,
    /// The image file, if there is one.
    image: Option<PathBuf>,
}

impl Target {
    fn open(path: &Path) -> Result<Self, Failure> {
        if !path.is_dir() {
            let media = Media::of_file(path).ok_or_else(|| {
                usage(format!(
                    "boot {path:?}: it is neither a directory nor a .raw, .img, .qcow2 or .iso file"
                ))
            })?;
            if !path.is_file() {
                return Err(said(format!("boot {path:?}: there is no such file")));
            }
            return Ok(Self {
                manifest: None,
                arch: Arch::Amd64,
                media,
                image: Some(path.to_owned()),
            });
        }
        let file = path.join(MANIFEST_FILE);
        let bytes = fs::read(&file).map_err(|e| {
            said(format!(
                "read {file:?}: {e}\n\nhint: give the directory of an artifact, such as images/raw/amd64"
            ))
        })?;
        let manifest = Manifest::read(&bytes, &file.to_string_lossy()).map_err(|e| said(e.to_string()))?;
        let [variant] = manifest.variants[..] else {
            return Err(said(format!("boot {path:?}: its manifest names not one variant")));
        };
        let (media, name) =
            Media::of(variant).ok_or_else(|| said(format!("boot {path:?}: {variant} does not boot by itself")))?;
        Ok(Self {
            arch: manifest.arch,
            manifest: Some(manifest),
            media,
            image: name.map(|name| path.join(name)),
        })
    }
}

pub(super) fn boot(common: &Common, args: &Boot, report: &Report) -> Result<Exit, Failure> {
    let target = Target::open(&args.path)?;
    let append = Machine::checked_append(&args.append).map_err(|e| usage(e.to_string()))?;
    let fw_cfg: Vec<FwCfg> = args
        .fw_cfg
        .iter()
        .map(|text| FwCfg::parse(text).map_err(|e| usage(e.to_string())))
        .collect::<Result<_, _>>()?;
    let chosen = target.media.choose(args.firmware, args.attach);
    let (firmware, attach) = chosen.map_err(|problem| usage(format!("boot {:?}: {problem}", args.path)))?;
    if firmware != Firmware::Direct && !append.is_empty() {
        return Err(usage(
            "append to the kernel command line: it is on the medium; --firmware direct takes kernel and initramfs off it",
        ));
    }
    if args.keep.is_some() && !matches!(target.media, Media::Disk(_)) {
        return Err(usage("keep a copy of the disk: the artifact is not a disk"));
    }

    let store = store(common)?;
    let mut mounts = vec![mount(&args.path, "inputs/artifact", Access::ReadOnly)?];
    let keys = fw_cfg_files(&store, &fw_cfg, &mut mounts)?;
    let media = media(&target, args, attach, &mut mounts)?;
    if let Some(share) = &args.share {
        mounts.push(mount(share, "inputs/share", Access::ReadWrite)?);
    }
    let kernel = match (firmware, &target.manifest) {
        (Firmware::Direct, Some(manifest)) => {
            let words = [manifest.kernel_command_line.as_str(), &append].join(" ");
            let (kernel, initramfs) = direct_files(&target, &store, &mut mounts)?;
            Some((kernel, initramfs, words.trim_end().to_owned()))
        }
        (Firmware::Direct, None) => {
            return Err(usage(
                "boot a bare image directly: its command line is in the manifest beside it; give the artifact's directory",
            ));
        }
        _ => None,
    };
    let machine = Machine {
        arch: target.arch,
        firmware,
        memory: args.memory,
        kernel,
        media,
        network: (attach == Attach::Net).then(|| Network::of(firmware, ARTIFACT)),
        fw_cfg: keys,
        share: args.share.as_ref().map(|_| "/inputs/share".to_owned()),
    };
    let mut console = BootConsole {
        judge: Judge::default(),
        show: !common.json && !common.quiet,
    };
    let ended = run(common, args, report, &store, &machine, mounts, &mut console)?;
    if args.interactive {
        return match ended {
            Ok(()) => Ok(Exit::Success),
            Err(e) => Err(said(e.to_string())),
        };
    }
    judge(&target, args, firmware, console.judge.verdict(), ended, report)
}

/// Kernel and initramfs for a machine that is started directly: the artifact's own, or copies off its medium.
fn direct_files(target: &Target, store: &Store, mounts: &mut Vec<Mount>) -> Result<(String, String), Failure> {
    let Some(image) = &target.image else {
        return Ok((format!("{ARTIFACT}/kernel"), format!("{ARTIFACT}/initramfs.cpio.zst")));
    };
    let directory = store.scratch_path("direct");
    fs::create_dir(&directory).map_err(|e| said(format!("create {directory:?}: {e}")))?;
    let source: Source = Arc::new(File::open(image).map_err(|e| said(format!("open {image:?}: {e}")))?);
    let scratch = Scratch::new(directory.clone());
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

/// Each value in a file of its own, and its key with the place of that file.
fn fw_cfg_files(store: &Store, fw_cfg: &[FwCfg], mounts: &mut Vec<Mount>) -> Result<Vec<(String, String)>, Failure> {
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
fn media(target: &Target, args: &Boot, attach: Attach, mounts: &mut Vec<Mount>) -> Result<Vec<Medium>, Failure> {
    let mut media = Vec::new();
    if let Some(image) = &target.image {
        let mut format = match target.media {
            Media::Disk(format) => format,
            _ => ImageFormat::Raw,
        };
        let file = match &args.keep {
            None => {
                mounts.push(mount(image, "inputs/medium", Access::ReadOnly)?);
                "/inputs/medium"
            }
            Some(copy) => {
                if Media::of_file(copy) != Some(Media::Disk(ImageFormat::Raw)) {
                    return Err(usage(format!(
                        "keep a copy in {copy:?}: it is a raw disk; name it .raw or .img"
                    )));
                }
                if !copy.exists() {
                    make_disk(copy, Some((image, format)), args.size)?;
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

/// Length of the largest file that the machine may write to.
fn largest_disk(mounts: &[Mount]) -> u64 {
    let writable = mounts.iter().filter(|m| m.access == Access::ReadWrite);
    writable
        .filter_map(|m| m.source.metadata().ok())
        .map(|m| m.len())
        .max()
        .unwrap_or(0)
}

fn run(
    common: &Common,
    args: &Boot,
    report: &Report,
    store: &Store,
    machine: &Machine,
    mounts: Vec<Mount>,
    console: &mut BootConsole,
) -> Result<Result<(), SandboxError>, Failure> {
    let project = project(common)?;
    let options = run_options()?;
    let node = project.graph.node(BOOT_TOOLS, Arch::host())?;
    let nodes = std::slice::from_ref(&node);
    let built = pipeline::build(&project, store, &inputs(common)?, nodes, 1, &options, &|e| {
        report.event(e)
    })?;
    let tools = built.nodes.get(&node).and_then(|done| done.record.outputs.get("tree"));
    let tools = tools.ok_or_else(|| said(format!("find QEMU: {node} gave no tree")))?;
    let argv = machine.command(args.interactive);
    let workload = match &machine.network {
        None => Workload::Command { argv },
        Some(_) => {
            let served = ServedMachine {
                argv,
                http: Some(HttpRoot {
                    dir: ARTIFACT.into(),
                    port: HTTP_PORT,
                }),
            };
            Workload::Builtin {
                name: MACHINE.to_owned(),
                args: serde_json::to_vec(&served).map_err(|e| said(e.to_string()))?,
            }
        }
    };
    let spec = Spec {
        stage: "boot".to_owned(),
        root: RootFs::Tree(store.checkout(tools.digest())?),
        workload,
        // Where QEMU keeps what is written to media that are not kept; it would take /var/tmp for /tmp.
        env: [("TMPDIR".to_owned(), "/build".to_owned())].into(),
        epoch: Epoch::new(0),
        ids: Ids::Single,
        capabilities: BTreeSet::new(),
        limits: Limits {
            memory: (args.memory << 20) + QEMU_MEMORY,
            wall: Duration::from_secs(args.timeout),
            log_bytes: 64 << 20,
            // The length of any file it writes is limited by this too.
            build_bytes: FORGOTTEN.max(largest_disk(&mounts)),
            cpus: 2,
            ..Limits::default()
        },
        mounts,
        outputs: Vec::new(),
        build_dir: BuildDir::Tmpfs,
        keep_failed: false,
        prepare: None,
        dev_in: Vec::new(),
        proc_mount: true,
        console: if args.interactive {
            Console::Inherit
        } else {
            Console::Log
        },
        network: match &machine.network {
            None => sandbox::Network::None,
            Some(_) => sandbox::Network::Loopback,
        },
    };
    report.clear();
    let executor = Executor {
        helper: options.helper,
        strict: false,
    };
    let mut put = |_: &Output, _: bool, _: &mut dyn Read| Err(io::Error::other("a machine has no outputs"));
    Ok(executor.run(&spec, &mut put, console).map(drop))
}

fn judge(
    target: &Target,
    args: &Boot,
    firmware: Firmware,
    verdict: Option<Verdict>,
    ended: Result<(), SandboxError>,
    report: &Report,
) -> Result<Exit, Failure> {
    let pinned = target.manifest.as_ref().map(|m| m.fsverity_root_hash);
    let other = |root| {
        pinned.filter(|pinned| pinned != root).map(|pinned| {
            format!("the machine verified another root than the manifest names\nexpected: {pinned}\n  actual: {root}")
        })
    };
    let problem = match (&verdict, ended) {
        (Some(Verdict::Ready { root, agent, state, .. }), _) => other(root)
            .or_else(|| (agent != "active").then(|| "the agent is not running".to_owned()))
            .or_else(|| unlocked(firmware, state)),
        (Some(Verdict::Installed { root, .. }), Ok(())) => other(root),
        (Some(Verdict::Installed { .. }), Err(error)) => Some(error.to_string()),
        (Some(Verdict::Refused { reason }), _) => Some(format!("the machine refused: {reason}")),
        (Some(Verdict::Rejected { line }), _) => Some(format!("the boot loader refused: {line}")),
        (Some(Verdict::Panicked { line }), _) => Some(line.clone()),
        (None, Err(SandboxError::Limit { limit, .. })) => Some(format!("no verdict on the console, {limit}")),
        (None, Err(error)) => Some(error.to_string()),
        (None, Ok(())) => Some("the machine ended without a verdict on the console".to_owned()),
    };
    if report.json() {
        report.line(serde_json::json!({ "event": "boot", "verdict": verdict, "problem": problem }));
        return Ok(if problem.is_none() { Exit::Success } else { Exit::Boot });
    }
    match &verdict {
        Some(Verdict::Ready {
            instance,
            source,
            root,
            agent,
            state,
        }) => {
            let state: Vec<String> = state.iter().map(|(name, value)| format!("{name} {value}")).collect();
            report.note(format_args!(
                "ready: instance {instance} from {source}, root {root}, agent {agent}; {}",
                state.join(", ")
            ));
        }
        Some(Verdict::Installed { disk, root }) => report.note(format_args!("installed: root {root} on {disk}")),
        _ => {}
    }
    match problem {
        None => Ok(Exit::Success),
        Some(problem) => Err(said(format!("boot {}: {problem}", args.path.display()))),
    }
}

/// What a machine's own account of its lockdown lacks.
fn unlocked(firmware: Firmware, state: &BTreeMap<String, String>) -> Option<String> {
    let get = |name: &str| state.get(name).map_or("unknown", String::as_str);
    if !["integrity", "confidentiality"].contains(&get("lockdown")) {
        return Some(format!("the kernel is not locked down: lockdown={}", get("lockdown")));
    }
    (firmware == Firmware::SecureBoot && get("secure_boot") != "on")
        .then(|| format!("the kernel was not booted securely: secure_boot={}", get("secure_boot")))
}

fn mount(source: &Path, target: &str, access: Access) -> Result<Mount, Failure> {
    let bad = |problem: String| said(format!("open {source:?}: {problem}"));
    let source: PathBuf = source.canonicalize().map_err(|e| bad(e.to_string()))?;
    let target = RelPath::new(target).map_err(|e| bad(e.to_string()))?;
    Ok(Mount { source, target, access })
}

/// Shows the machine's console and ends the machine once there is a verdict.
struct BootConsole {
    judge: Judge,
    show: bool,
}

impl Watch for BootConsole {
    fn output(&mut self, bytes: &[u8]) -> io::Result<ControlFlow<()>> {
        if self.show {
            // Escape sequences of the guest would move the user's cursor.
            let text: Vec<u8> = bytes
                .iter()
                .copied()
                .filter(|b| *b == b'\n' || *b == b'\t' || *b >= 0x20)
                .collect();
            let _ = io::stdout().write_all(&text);
        }
        Ok(match self.judge.take(bytes) {
            // It powers off by itself, once the disk is as it should be.
            None | Some(Verdict::Installed { .. }) => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(()),
        })
    }
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
