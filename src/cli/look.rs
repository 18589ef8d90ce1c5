//! `pnb inspect` and `pnb diff`: what is in an artifact, and what differs between two.

use super::{
    Exit,
    args::{Common, Diff, Inspect},
    context::{Failure, store},
    report::{Report, size},
};
use crate::{
    inspect::{self, Comparison, Difference, InspectError, PartKind, SpoolDirectory, SurveyNode, What, survey},
    manifest::{MANIFEST_FILE, Manifest, is_statement},
    model::RelPath,
    store::Store,
};
use std::{fs, path::Path};

/// Width of the names of fields.
const FIELD: usize = 16;

fn failed(error: &InspectError) -> Failure {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    Failure::said(Exit::Unreadable, text)
}

/// A directory of the store for what compressed streams hold; it goes when the store is let go.
fn scratch(store: &Store) -> Result<SpoolDirectory, Failure> {
    let dir = store.scratch_path("inspect");
    fs::create_dir(&dir).map_err(|e| Failure::said(Exit::Store, format!("create {dir:?}: {e}")))?;
    Ok(SpoolDirectory::new(dir))
}

pub(super) fn inspect(common: &Common, args: &Inspect, report: &Report) -> Result<Exit, Failure> {
    let store = store(common)?;
    let scratch = scratch(&store)?;
    let (part, children) = inspect::open_path(&args.path).map_err(|e| failed(&e))?;
    let Some(files) = children else {
        let node = survey(&part, &scratch, args.depth, args.all).map_err(|e| failed(&e))?;
        if report.json() {
            report.line(serde_json::json!(node));
        } else {
            report.bytes(tree(&node).as_bytes());
        }
        return Ok(Exit::Success);
    };
    let manifest = manifest(&args.path);
    let mut nodes = Vec::new();
    for file in &files {
        // Statements about an artifact are shown as the manifest's facts.
        let statement = RelPath::new(&file.name).is_ok_and(|p| is_statement(&p));
        let depth = if statement { 0 } else { args.depth };
        nodes.push(survey(file, &scratch, depth, args.all).map_err(|e| failed(&e))?);
    }
    if report.json() {
        report.line(
            serde_json::json!({ "name": part.name, "kind": "directory", "manifest": manifest, "children": nodes }),
        );
        return Ok(Exit::Success);
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
    report.bytes(out.as_bytes());
    Ok(Exit::Success)
}

/// The manifest in a directory; none when there is none that can be read, which is for an audit to say.
fn manifest(dir: &Path) -> Option<Manifest> {
    let bytes = fs::read(dir.join(MANIFEST_FILE)).ok()?;
    Manifest::read(&bytes, MANIFEST_FILE).ok()
}

fn line(out: &mut String, indent: usize, name: &str, value: &str) {
    out.push_str(&format!("{:indent$}{name:<FIELD$} {value}\n", ""));
}

fn facts(m: &Manifest) -> String {
    let mut out = String::new();
    let variants: Vec<&str> = m.variants.iter().map(|v| v.as_str()).collect();
    let agent = format!("{} ({:?})", m.agent.name, m.agent.kind).to_lowercase();
    for (name, value) in [
        ("artifact", format!("{}/{}", variants.join(", "), m.arch)),
        ("root digest", m.fsverity_root_hash.to_string()),
        ("kernel", m.kernel_version.clone()),
        ("command line", m.kernel_command_line.clone()),
        ("agent", agent),
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

/// A part and what is in it, for people.
fn tree(node: &SurveyNode) -> String {
    let mut out = String::new();
    branch(&mut out, node, 0);
    out
}

fn branch(out: &mut String, node: &SurveyNode, indent: usize) {
    let format = node.format.unwrap_or(node.kind.as_str());
    let mut head = format!("{:indent$}{}: {format}, {}", "", node.name, size(node.size));
    if node.kind == PartKind::Partition || node.kind == PartKind::Segment {
        head.push_str(&format!(" at {}", node.offset));
    }
    if let Some(target) = node.fields.get("target") {
        head = format!("{:indent$}{} -> {target}", "", node.name);
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
    // Owner, mode and times of files are for machines and for comparing.
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
    // Directories are seen by their files.
    for child in node.children.iter().filter(|c| c.kind != PartKind::Directory) {
        branch(out, child, indent);
    }
}

pub(super) fn diff(common: &Common, args: &Diff, report: &Report) -> Result<Exit, Failure> {
    let store = store(common)?;
    let scratch = scratch(&store)?;
    let a = inspect::open_path(&args.a).map_err(|e| failed(&e))?;
    let b = inspect::open_path(&args.b).map_err(|e| failed(&e))?;
    let found = inspect::diff((&a.0, a.1.as_deref()), (&b.0, b.1.as_deref()), &scratch, args.limit);
    let found = found.map_err(|e| failed(&e))?;
    if report.json() {
        for difference in &found.differences {
            report.line(serde_json::json!(difference));
        }
        report.line(serde_json::json!({ "equal": found.equal(), "total": found.total }));
    } else {
        report.bytes(differences(&found).as_bytes());
    }
    Ok(if found.equal() { Exit::Success } else { Exit::Different })
}

/// The differences for people: one a line, `place: what`, then how many were left out.
fn differences(found: &Comparison) -> String {
    let mut out = String::new();
    for difference in &found.differences {
        out.push_str(&sentence(difference));
        out.push('\n');
    }
    let more = found.total - found.differences.len() as u64;
    if more > 0 {
        out.push_str(&format!("and {more} more\n"));
    }
    out
}

fn differing(bytes: u64) -> String {
    if bytes == 1 {
        "1 byte differs".to_owned()
    } else {
        format!("{bytes} bytes differ")
    }
}

pub(super) fn sentence(difference: &Difference) -> String {
    let value = |v: &Option<String>| v.as_ref().map_or_else(|| "nothing".to_owned(), |v| format!("{v:?}"));
    let what = match &difference.what {
        What::OnlyInA { size: bytes } => format!("only in the first ({})", size(*bytes)),
        What::OnlyInB { size: bytes } => format!("only in the second ({})", size(*bytes)),
        What::Format { a, b } => format!("{a} in the first, {b} in the second"),
        What::Field { field, a, b } => format!("{field} is {} in the first, {} in the second", value(a), value(b)),
        What::Package { package, a, b } => {
            let version = |v: &Option<String>| v.clone().unwrap_or_else(|| "not there".to_owned());
            format!("package {package}: {} -> {}", version(a), version(b))
        }
        What::Content {
            offset,
            bytes,
            sizes,
            a,
            b,
        } => {
            let lengths = if sizes.0 == sizes.1 {
                String::new()
            } else {
                format!(", {} against {} long", sizes.0, sizes.1)
            };
            let bytes = differing(*bytes);
            format!("content differs at byte {offset} ({bytes}{lengths}): \"{a}\" against \"{b}\"")
        }
        What::About { offset, bytes } => format!("what describes it differs at byte {offset} ({})", differing(*bytes)),
        What::Damaged { problem } => format!("cannot be compared: {problem}"),
        What::Moved { parts, first, a, b } => {
            format!("{parts} parts lie elsewhere, the first is {first}: at byte {a} in the first, {b} in the second")
        }
    };
    let hint = difference
        .hint
        .map_or(String::new(), |hint| format!(" [{}]", hint.as_str()));
    match difference.path.is_empty() {
        true => format!("{what}{hint}"),
        false => format!("{}: {what}{hint}", difference.path.join(" / ")),
    }
}
