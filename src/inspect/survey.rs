//! A part and the parts inside, down to a given depth, as plain values to print.

use super::{
    budget::MAX_NESTING,
    error::{InspectError, is_damage},
    part::{Fields, Part, PartKind, SpoolDirectory},
};
use crate::model::Sha256Digest;

/// In a part with more parts than this, only those that matter for booting or have a problem are listed; all are counted.
const MANY: usize = 48;
/// Endings of names that matter for booting.
const MATTERS: [&str; 12] = [
    ".cfg",
    ".cfs",
    ".cpio",
    ".cpio.zst",
    ".efi",
    ".EFI",
    ".ext4",
    ".img",
    "/kernel",
    "/root-digest",
    "/vmlinuz",
    ".signed",
];

/// A part and the findings in it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SurveyNode {
    /// Name, unique within the holder.
    pub name: String,
    /// Kind within the holder.
    pub kind: PartKind,
    /// Format of the bytes; `None` when it was not determined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<&'static str>,
    /// Offset in the holder.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of a file or partition; `None` when the limit of hashed bytes was reached, which the problem says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256Digest>,
    /// Facts from the holder.
    #[serde(skip_serializing_if = "Fields::is_empty")]
    pub fields: Fields,
    /// Facts from the bytes themselves.
    #[serde(skip_serializing_if = "Fields::is_empty")]
    pub content: Fields,
    /// The damaged or unsupported structure, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Number and total size of all files inside; `None` without files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<(u64, u64)>,
    /// The parts inside; of many, only those that matter for booting.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<SurveyNode>,
}

/// Surveys `part` down to `depth` levels; 0 gives only the facts from its holder. With `all` every file is listed. From a depth of 16
/// on, parts that are nested deeper are a problem of the part that holds them.
pub fn survey(part: &Part, scratch: &SpoolDirectory, depth: usize, all: bool) -> Result<SurveyNode, InspectError> {
    let depth = if depth >= MAX_NESTING { MAX_NESTING + 1 } else { depth };
    Survey { scratch, all }.node(part, depth)
}

struct Survey<'a> {
    scratch: &'a SpoolDirectory,
    all: bool,
}

impl Survey<'_> {
    fn node(&self, part: &Part, depth: usize) -> Result<SurveyNode, InspectError> {
        let mut node = SurveyNode {
            name: part.name.clone(),
            kind: part.kind,
            format: None,
            offset: part.offset,
            size: part.size,
            sha256: None,
            fields: part.fields.clone(),
            content: Fields::new(),
            problem: part.problem.clone(),
            files: None,
            children: Vec::new(),
        };
        if matches!(part.kind, PartKind::File | PartKind::Partition) {
            match part.budgeted_digest() {
                Ok(Ok(digest)) => node.sha256 = Some(digest),
                // Damage is a finding; a read error of the host is not.
                Ok(Err(error)) if is_damage(&error) => add(&mut node, format!("its bytes cannot be read: {error}")),
                Ok(Err(source)) => {
                    return Err(InspectError::Read {
                        part: part.name.clone(),
                        source,
                    });
                }
                Err(limit) => add(&mut node, format!("its bytes are not hashed: {limit}")),
            }
        }
        if depth == 0 || !part.kind.can_hold_parts() {
            return Ok(node);
        }
        let look = part.look(self.scratch);
        node.format = Some(look.format);
        if let Some(problem) = look.problem {
            add(&mut node, problem);
        }
        // JSON is not listed: it is readable itself.
        if look.format != "JSON" {
            node.content = look.fields;
        }
        let children: Vec<&Part> = look.children.iter().filter(|c| c.kind != PartKind::Region).collect();
        let files = children.iter().filter(|c| c.kind == PartKind::File);
        let (count, bytes) = files.fold((0u64, 0u64), |(n, sum), c| (n + 1, sum.saturating_add(bytes_of(c))));
        node.files = (count > 0).then_some((count, bytes));
        let few = self.all || children.len() <= MANY;
        for child in children {
            let boots = child.kind == PartKind::File && MATTERS.iter().any(|end| child.name.ends_with(end));
            let matters = boots || child.problem.is_some();
            if few || matters && node.children.len() < MANY {
                node.children.push(self.node(child, depth - 1)?);
            }
        }
        Ok(node)
    }
}

fn add(node: &mut SurveyNode, problem: String) {
    node.problem = Some(match node.problem.take() {
        Some(before) => format!("{before}; {problem}"),
        None => problem,
    });
}

/// Size of a file; of a file whose content is an object, the size of the object.
fn bytes_of(part: &Part) -> u64 {
    part.fields
        .get("size")
        .and_then(|s| s.parse().ok())
        .unwrap_or(part.size)
}
