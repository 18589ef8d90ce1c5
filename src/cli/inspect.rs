//! `pnb inspect`: the content of an artifact.

use super::{
    Exit,
    args::Common,
    closing::{Closing, count},
    context::{spool, store},
    failure::Failure,
    report::{Report, size},
};
use clap::Args;
use pnb::{
    inspect::{self, PartKind, SurveyNode, survey},
    manifest::{MANIFEST_FILE, MAX_SIZE, Manifest, is_statement},
    model::{RelPath, Target, Variant, visible},
    store::read_foreign,
};
use std::path::{Path, PathBuf};

/// Width of the column of field names.
const FIELD: usize = 16;

/// Options of `pnb inspect`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  pnb inspect images/raw/amd64\n  pnb inspect images/raw/amd64/disk.raw --depth 1\n  \
    pnb --json inspect images/iso/amd64/install.iso"
)]
pub(super) struct InspectArgs {
    /// Image, archive or other file, or the directory of an artifact
    pub(super) path: PathBuf,
    /// Number of levels to open: 1 for the partitions of a disk, 2 for the files in them
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(super) depth: usize,
    /// List every file of a directory with many files
    #[arg(long)]
    pub(super) all: bool,
}

pub(super) fn inspect(common: &Common, args: &InspectArgs, report: &Report) -> Result<Exit, Failure> {
    let store = store(common)?;
    let scratch = spool(&store)?;
    let (part, children) = inspect::open_path(&args.path)?;
    let Some(files) = children else {
        let shown = report.task("read", &part.name);
        let node = survey(&part, &scratch, args.depth, args.all)?;
        drop(shown);
        report.close_with(&node, &tree(&node), &closing(std::slice::from_ref(&node)));
        return Ok(exit(std::slice::from_ref(&node)));
    };
    let manifest = manifest(&args.path);
    let mut nodes = Vec::new();
    for file in &files {
        // The facts of the manifest stand for the statements about the artifact.
        let statement = RelPath::new(&file.name).is_ok_and(|p| is_statement(&p));
        let depth = if statement { 0 } else { args.depth };
        let _shown = report.task("read", &file.name);
        nodes.push(survey(file, &scratch, depth, args.all)?);
    }
    let mut out = String::new();
    if let Some(manifest) = &manifest {
        out.push_str(&facts(manifest));
    }
    for node in &nodes {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&tree(node));
    }
    let audit = manifest.is_some().then(|| common.command("audit").arg(&args.path));
    let closing = closing(&nodes).nexts(audit);
    let value = serde_json::json!({ "name": part.name, "kind": "directory", "manifest": manifest, "children": nodes });
    report.close_with(value, &out, &closing);
    Ok(exit(&nodes))
}

/// Whether everything in the nodes could be read.
fn exit(nodes: &[SurveyNode]) -> Exit {
    fn damaged(node: &SurveyNode) -> bool {
        node.problem.is_some() || node.children.iter().any(damaged)
    }
    match nodes.iter().any(damaged) {
        true => Exit::Unreadable,
        false => Exit::Success,
    }
}

/// The number of parts, and of those that have a problem.
fn closing(nodes: &[SurveyNode]) -> Closing {
    let (mut parts, mut problems) = (0, 0);
    let mut open: Vec<&SurveyNode> = nodes.iter().collect();
    while let Some(node) = open.pop() {
        parts += 1;
        problems += usize::from(node.problem.is_some());
        open.extend(&node.children);
    }
    let sentence = match problems {
        0 => format!("{}, no problem", count(parts, "part")),
        _ => format!("{}, {}", count(parts, "part"), count(problems, "problem")),
    };
    Closing::new(sentence).field("parts", parts).field("problems", problems)
}

/// The manifest in a directory, if it can be read; `pnb audit` reports one that cannot.
fn manifest(dir: &Path) -> Option<Manifest> {
    let bytes = read_foreign(&dir.join(MANIFEST_FILE), MAX_SIZE).ok()?;
    Manifest::read(&bytes, MANIFEST_FILE).ok()
}

/// A line of a field. Names and values come from the file.
fn line(out: &mut String, indent: usize, name: &str, value: &str) {
    let (name, value) = (visible(name), visible(value));
    out.push_str(&format!("{:indent$}{name:<FIELD$} {value}\n", ""));
}

fn facts(m: &Manifest) -> String {
    let mut out = String::new();
    let target = |variant: &Variant| Target {
        variant: *variant,
        arch: m.arch,
    };
    let targets: Vec<String> = m.variants.iter().map(|v| target(v).to_string()).collect();
    let agent = format!("{} ({:?})", m.agent.name, m.agent.kind).to_lowercase();
    for (name, value) in [
        ("artifact", targets.join(", ")),
        ("root digest", m.fsverity_root_hash.to_string()),
        ("kernel", m.kernel_version.clone()),
        ("command line", m.kernel_command_line.clone()),
        ("agent", agent),
        ("recovery", recovery(m).to_owned()),
        ("debug", debug(m).to_owned()),
        ("git revision", m.git_sha.clone().unwrap_or_else(|| "none".to_owned())),
        ("snapshot", m.apt_snapshot.clone()),
        ("packages", m.packages.len().to_string()),
        ("stages", m.stages.len().to_string()),
        ("hermetic", if m.hermetic { "yes" } else { "no" }.to_owned()),
        ("epoch", m.source_date_epoch.to_rfc3339()),
    ] {
        line(&mut out, 0, name, &value);
    }
    out
}

/// Whether the artifact has a recovery.
const fn recovery(m: &Manifest) -> &'static str {
    if m.recovery {
        "yes: anybody at the console gets a shell"
    } else {
        "no"
    }
}

/// Whether the consoles of a running node have a shell.
const fn debug(m: &Manifest) -> &'static str {
    if m.debug {
        "yes: the consoles of a running node have a shell of root"
    } else {
        "no"
    }
}

/// A part and its content as indented text.
fn tree(node: &SurveyNode) -> String {
    let mut out = String::new();
    branch(&mut out, node, 0);
    out
}

fn branch(out: &mut String, node: &SurveyNode, indent: usize) {
    let format = node.format.unwrap_or(node.kind.as_str());
    let name = visible(&node.name);
    let mut head = format!("{:indent$}{name}: {format}, {}", "", size(node.size));
    if node.kind == PartKind::Partition || node.kind == PartKind::Segment {
        head.push_str(&format!(" at {}", node.offset));
    }
    if let Some(target) = node.fields.get("target") {
        head = format!("{:indent$}{name} -> {}", "", visible(target));
    }
    out.push_str(&head);
    out.push('\n');
    let indent = indent + 2;
    if let Some(problem) = &node.problem {
        line(out, indent, "PROBLEM", problem);
    }
    if let Some(sha256) = &node.sha256 {
        line(out, indent, "sha256", &sha256.to_string());
    }
    // Owner, mode and times of files are in the JSON output only.
    let own = node
        .fields
        .iter()
        .filter(|(name, _)| node.kind != PartKind::File || name.as_str() == "fs-verity");
    for (name, value) in own.filter(|(name, _)| *name != "target").chain(&node.content) {
        line(out, indent, name, value);
    }
    if let Some((files, bytes)) = node.files {
        let listed = node.children.iter().filter(|c| c.kind == PartKind::File).count() as u64;
        let hidden = if listed < files {
            format!(", {listed} listed")
        } else {
            String::new()
        };
        line(out, indent, "files", &format!("{files}, {}{hidden}", size(bytes)));
    }
    // The paths of the files name the directories.
    for child in node.children.iter().filter(|c| c.kind != PartKind::Directory) {
        branch(out, child, indent);
    }
}
