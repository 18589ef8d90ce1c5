//! `pnb boot` and `pnb audit`: using what was built.

use super::{
    Exit,
    args::{Audit, Boot, Common},
    context::{Failure, inputs, project, run_options, store},
    inputs::sha256_of,
    report::Report,
};
use crate::{
    audit::{self, ArtifactRoot, AuditError},
    boot::{Firmware, FwCfg, Judge, Machine, Verdict},
    manifest::{MANIFEST_FILE, Manifest},
    model::{Arch, Epoch, RelPath},
    pipeline,
    sandbox::{Access, BuildDir, Console, Executor, Ids, Limits, Mount, RootFs, SandboxError, Spec, Watch, Workload},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    ops::ControlFlow,
    path::PathBuf,
    time::Duration,
};

/// The stage that holds QEMU and its firmware.
const BOOT_TOOLS: &str = "boot-tools";
/// What QEMU itself needs beside the machine's memory, bytes.
const QEMU_MEMORY: u64 = 1 << 30;

pub(super) fn boot(common: &Common, args: &Boot, report: &Report) -> Result<Exit, Failure> {
    let said = |message: String| Failure::said(Exit::Boot, message);
    let path = args.dir.join(MANIFEST_FILE);
    let bytes = fs::read(&path).map_err(|e| {
        said(format!(
            "read {path:?}: {e}\n\nhint: give the directory of an artifact, such as images/kernel-initrd/amd64"
        ))
    })?;
    let manifest = Manifest::read(&bytes, &path.to_string_lossy()).map_err(|e| said(e.to_string()))?;
    let append = Machine::checked_append(&args.append).map_err(|e| Failure::said(Exit::Usage, e.to_string()))?;
    let fw_cfg: Vec<FwCfg> = args
        .fw_cfg
        .iter()
        .map(|text| FwCfg::parse(text).map_err(|e| Failure::said(Exit::Usage, e.to_string())))
        .collect::<Result<_, _>>()?;

    let project = project(common)?;
    let store = store(common)?;
    let options = run_options()?;
    let node = project.graph.node(BOOT_TOOLS, Arch::host())?;
    let built = pipeline::build(
        &project,
        &store,
        &inputs(common)?,
        std::slice::from_ref(&node),
        1,
        &options,
        &|e| report.event(e),
    )?;
    let tools = built.nodes.get(&node).and_then(|done| done.record.outputs.get("tree"));
    let tools = tools.ok_or_else(|| said(format!("find QEMU: {node} gave no tree")))?;

    let values = store.scratch_path("fw-cfg");
    fs::create_dir(&values).map_err(|e| said(format!("create {values:?}: {e}")))?;
    let mut keys = Vec::new();
    for (n, cfg) in fw_cfg.iter().enumerate() {
        let file = values.join(n.to_string());
        fs::write(&file, &cfg.value).map_err(|e| said(format!("write {file:?}: {e}")))?;
        keys.push((cfg.key.clone(), format!("/inputs/fw-cfg/{n}")));
    }
    let machine = Machine {
        arch: manifest.arch,
        firmware: Firmware::Direct,
        memory: args.memory,
        artifact: "/inputs/artifact".to_owned(),
        command_line: [manifest.kernel_command_line.as_str(), &append]
            .join(" ")
            .trim_end()
            .to_owned(),
        fw_cfg: keys,
        share: args.share.as_ref().map(|_| "/inputs/share".to_owned()),
    };
    let mut mounts = vec![
        mount(&args.dir, "inputs/artifact", Access::ReadOnly)?,
        mount(&values, "inputs/fw-cfg", Access::ReadOnly)?,
    ];
    if let Some(share) = &args.share {
        mounts.push(mount(share, "inputs/share", Access::ReadWrite)?);
    }
    let spec = Spec {
        stage: "boot".to_owned(),
        root: RootFs::Tree(store.checkout(tools.digest())?),
        mounts,
        workload: Workload::Command {
            argv: machine.command(args.interactive),
        },
        env: BTreeMap::new(),
        epoch: Epoch::new(0),
        ids: Ids::Single,
        capabilities: BTreeSet::new(),
        limits: Limits {
            memory: (args.memory << 20) + QEMU_MEMORY,
            wall: Duration::from_secs(args.timeout),
            log_bytes: 64 << 20,
            cpus: 2,
            ..Limits::default()
        },
        outputs: Vec::new(),
        build_dir: BuildDir::Tmpfs,
        keep_failed: false,
        dev_in: Vec::new(),
        proc_mount: true,
        console: if args.interactive {
            Console::Inherit
        } else {
            Console::Log
        },
    };
    report.clear();
    let executor = Executor {
        helper: options.helper,
        strict: false,
    };
    let mut put = |_: bool, _: &mut dyn io::Read| Err(io::Error::other("a machine has no outputs"));
    let mut console = BootConsole {
        judge: Judge::default(),
        show: !common.json && !common.quiet,
    };
    let ended = executor.run(&spec, &mut put, &mut console);
    if args.interactive {
        return match ended {
            Ok(_) => Ok(Exit::Success),
            Err(e) => Err(said(e.to_string())),
        };
    }
    let verdict = console.judge.verdict();
    let problem = match (&verdict, ended) {
        (Some(Verdict::Ready { root, .. }), _) if *root != manifest.fsverity_root_hash => Some(format!(
            "the machine verified another root than the manifest names\nexpected: {}\n  actual: {root}",
            manifest.fsverity_root_hash
        )),
        (Some(Verdict::Ready { agent, .. }), _) if agent != "active" => Some("the agent is not running".to_owned()),
        (Some(Verdict::Ready { .. }), _) => None,
        (Some(Verdict::Refused { reason }), _) => Some(format!("the machine refused: {reason}")),
        (Some(Verdict::Panicked { line }), _) => Some(line.clone()),
        (None, Err(SandboxError::Limit { limit, .. })) => Some(format!("no verdict on the console, {limit}")),
        (None, Err(error)) => Some(error.to_string()),
        (None, Ok(_)) => Some("the machine ended without a verdict on the console".to_owned()),
    };
    if report.json() {
        report.line(serde_json::json!({ "event": "boot", "verdict": verdict, "problem": problem }));
    } else if let Some(Verdict::Ready {
        instance,
        source,
        root,
        agent,
    }) = &verdict
    {
        report.note(format_args!(
            "ready: instance {instance} from {source}, root {root}, agent {agent}"
        ));
    }
    match problem {
        None => Ok(Exit::Success),
        Some(_) if report.json() => Ok(Exit::Boot),
        Some(problem) => Err(said(format!("boot {}: {problem}", args.dir.display()))),
    }
}

pub(super) fn audit(common: &Common, args: &Audit, report: &Report) -> Result<Exit, Failure> {
    let store = store(common)?;
    let scratch = store.scratch_path("audit");
    let io = |e: io::Error| Failure::said(Exit::Store, format!("create {scratch:?}: {e}"));
    fs::create_dir(&scratch).map_err(io)?;
    let lock = match &args.lock {
        None => None,
        Some(path) => {
            let digest = sha256_of(path);
            Some(digest.map_err(|e| Failure::said(Exit::Lock, format!("read {path:?}: {e}")))?)
        }
    };
    let options = audit::Options {
        opener: &ArtifactRoot {
            scratch: scratch.clone(),
        },
        lock_sha256: lock,
    };
    let failed = |error: &AuditError, source: &io::Error| Failure::said(Exit::Failure, format!("{error}: {source}"));
    if args.dir.is_dir() && !args.dir.join(MANIFEST_FILE).exists() {
        let set = audit::audit_set(&args.dir, &options).map_err(|error| match &error {
            AuditError::Io { source, .. } => failed(&error, source),
            AuditError::Failed { .. } => Failure::said(Exit::Failure, error.to_string()),
        })?;
        if let Some(set) = set {
            if report.json() {
                report.line(serde_json::json!(set));
            } else {
                report.bytes(set.table().as_bytes());
            }
            return Ok(set.class().map_or(Exit::Success, Exit::Audit));
        }
    }
    let result = audit::audit(&args.dir, &options);
    let (checks, exit) = match &result {
        Ok(verified) => (verified.report(), Exit::Success),
        Err(AuditError::Failed { report: checks, .. }) => (checks, checks.class().map_or(Exit::Failure, Exit::Audit)),
        Err(error @ AuditError::Io { source, .. }) => {
            return Err(failed(error, source));
        }
    };
    if report.json() {
        report.line(serde_json::json!(checks));
    } else {
        report.bytes(checks.table().as_bytes());
    }
    Ok(exit)
}

fn mount(source: &std::path::Path, target: &str, access: Access) -> Result<Mount, Failure> {
    let bad = |problem: String| Failure::said(Exit::Boot, format!("open {source:?}: {problem}"));
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
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        })
    }
}
