//! An OCI image as the files that boot it: a writer in the sandbox applies the layers and makes the root.

use super::{
    super::{
        args::Common,
        context::{project, run_options, scratch},
        failure::Failure,
        report::Report,
    },
    error::BootError,
};
use pnb::{
    image::oci::LAYOUT_FILE,
    model::{Arch, RelPath, SectorSize, VerityDigest, visible_lines},
    sandbox::{Access, Executor, Limits, Mount, OutputKind, OutputSpec, RootFs, SandboxError, Spec, Workload},
    store::{Content, Store},
    verity,
    writers::{Context, IMAGE_COMMAND_LINE, IMAGE_FILES, IMAGE_INPUT, IMAGE_ROOT_DIGEST},
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// The writer's outputs that the machine needs.
const FILES: [&str; 4] = ["kernel", "initramfs.cpio.zst", IMAGE_ROOT_DIGEST, IMAGE_COMMAND_LINE];

/// The files of an image, ready to boot.
pub(super) struct ImageFiles {
    /// The directory with `kernel` and `initramfs.cpio.zst`.
    pub(super) dir: PathBuf,
    /// The digest of the root that the layers make.
    pub(super) root: VerityDigest,
    /// The kernel command line of the image.
    pub(super) command_line: String,
}

/// Whether `dir` is an image layout.
pub(super) fn is_layout(dir: &Path) -> bool {
    dir.join(LAYOUT_FILE).is_file()
}

/// Applies the image for `arch` in the layout `dir`.
pub(super) fn prepare(
    common: &Common,
    report: &Report,
    store: &Store,
    dir: &Path,
    arch: Arch,
) -> Result<ImageFiles, Failure> {
    let project = project(common)?;
    let options = run_options()?;
    let outputs = FILES.map(|name| {
        Ok(OutputSpec {
            name: name.to_owned(),
            path: RelPath::new(name)?,
            kind: OutputKind::File,
            allow_setid: false,
            allow_devices: false,
        })
    });
    let outputs: Result<Vec<OutputSpec>, pnb::model::ModelError> = outputs.into_iter().collect();
    let broken = |problem: String| BootError::Layers {
        path: dir.to_owned(),
        problem,
    };
    let argument = Context {
        arch,
        epoch: project.lock.source_date_epoch,
        threads: 2,
        sector_size: SectorSize::default(),
        compression_level: None,
        outputs: FILES.map(str::to_owned).to_vec(),
    };
    let argument = serde_json::to_vec(&argument).map_err(BootError::Served)?;
    let spec = Spec {
        outputs: outputs.map_err(|e| broken(e.to_string()))?,
        limits: Limits {
            memory: 5 << 30,
            build_bytes: 4 << 30,
            build_inodes: 2_000_000,
            cpus: 2,
            ..Limits::small()
        },
        mounts: vec![Mount {
            source: dir.canonicalize().map_err(|source| BootError::Image {
                path: dir.to_owned(),
                source,
            })?,
            target: RelPath::new(format!("inputs/{IMAGE_INPUT}")).map_err(|e| broken(e.to_string()))?,
            access: Access::ReadOnly,
        }],
        ..Spec::new("image", RootFs::Empty, Workload::builtin(IMAGE_FILES, argument))
    };
    report.note(format_args!("applying the layers of {} for {arch}", dir.display()));
    let executor = Executor {
        helper: options.helper.clone(),
        strict: false,
    };
    let out = scratch(store, "image")?;
    let mut put = |output: &OutputSpec, _: bool, content: &mut dyn Content| {
        verity::copy_digest(content, File::create_new(out.join(&output.name))?)
    };
    let mut log: Vec<u8> = Vec::new();
    if let Err(error) = executor.run(&spec, &mut put, &mut log) {
        return Err(match error {
            SandboxError::Failed { .. } => BootError::Layers {
                path: dir.to_owned(),
                problem: problem(&log),
            },
            error => BootError::Machine(error),
        }
        .into());
    }
    let line = |name: &str| -> Result<String, BootError> {
        let path = out.join(name);
        let text = fs::read_to_string(&path).map_err(|source| BootError::Image { path, source })?;
        Ok(text.trim_end().to_owned())
    };
    let root = line(IMAGE_ROOT_DIGEST)?;
    Ok(ImageFiles {
        root: root.parse().map_err(|e| broken(format!("the root digest: {e}")))?,
        command_line: line(IMAGE_COMMAND_LINE)?,
        dir: out,
    })
}

/// The error of the writer in what it printed: `built-in NAME: failed to …`.
fn problem(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let start = text.rfind(": failed to ").map_or(0, |at| at + 2);
    visible_lines(text[start..].trim_end())
}
