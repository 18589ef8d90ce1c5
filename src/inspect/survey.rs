//! A part and what is in it, as far as somebody wants to see: plain values to print.

use super::{
    error::{InspectError, is_damage},
    part::{Fields, Part, PartKind, SpoolDirectory},
};
use crate::model::Sha256Digest;

/// Things that hold more parts than this are counted, and only what matters for booting is listed.
const MANY: usize = 48;
/// How deep one thing is looked for in another, whatever is asked for.
const MAX_DEPTH: usize = 32;
/// Bytes that are hashed at most: this many times the whole, and as many as that.
const HASHED: u64 = 16;
const HASHED_AT_LEAST: u64 = 1 << 30;
/// Ends of the names that are listed of many.
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

/// A part and what was found in it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SurveyNode {
    /// Its name among its neighbours.
    pub name: String,
    /// What it is to them.
    pub kind: PartKind,
    /// What its bytes are; none when nobody looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<&'static str>,
    /// Where it begins in what holds it.
    pub offset: u64,
    /// Its bytes.
    pub size: u64,
    /// SHA-256 of them, of files and partitions; none of what is far larger than what holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256Digest>,
    /// What its holder says of it.
    #[serde(skip_serializing_if = "Fields::is_empty")]
    pub fields: Fields,
    /// What its bytes say of themselves.
    #[serde(skip_serializing_if = "Fields::is_empty")]
    pub content: Fields,
    /// What is damaged or not understood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How many files it holds in all, and how many bytes these have; none when it holds none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<(u64, u64)>,
    /// What it holds; where there are many, only what matters for booting.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<SurveyNode>,
}

/// Looks into `part`, `depth` levels deep: 0 says only what its holder says. With `all` every file is listed.
pub fn survey(part: &Part, scratch: &SpoolDirectory, depth: usize, all: bool) -> Result<SurveyNode, InspectError> {
    let budget = part.size.saturating_mul(HASHED).saturating_add(HASHED_AT_LEAST);
    Survey { scratch, all, budget }.node(part, depth)
}

struct Survey<'a> {
    scratch: &'a SpoolDirectory,
    all: bool,
    /// Bytes that may still be hashed: hostile images hold one range many times, or holes without end.
    budget: u64,
}

impl Survey<'_> {
    fn node(&mut self, part: &Part, depth: usize) -> Result<SurveyNode, InspectError> {
        let mut node = SurveyNode {
            name: part.name.clone(),
            kind: part.kind,
            format: None,
            offset: part.offset,
            size: part.size,
            sha256: None,
            fields: part.fields.clone(),
            content: Fields::new(),
            problem: None,
            files: None,
            children: Vec::new(),
        };
        if matches!(part.kind, PartKind::File | PartKind::Partition) && part.size <= self.budget {
            self.budget -= part.size;
            match part.digest() {
                Ok(digest) => node.sha256 = Some(digest),
                // What is damaged is a finding; that the host cannot read is not.
                Err(error) if is_damage(&error) => node.problem = Some(format!("its bytes cannot be read: {error}")),
                Err(source) => {
                    return Err(InspectError::Read {
                        part: part.name.clone(),
                        source,
                    });
                }
            }
        }
        if depth == 0
            || !matches!(
                part.kind,
                PartKind::File | PartKind::Partition | PartKind::Segment | PartKind::Content
            )
        {
            return Ok(node);
        }
        let look = part.look(self.scratch);
        node.format = Some(look.format);
        node.problem = node.problem.or(look.problem);
        // JSON is its own best listing.
        if look.format != "JSON" {
            node.content = look.fields;
        }
        let children: Vec<&Part> = look.children.iter().filter(|c| c.kind != PartKind::Region).collect();
        let files = children.iter().filter(|c| c.kind == PartKind::File);
        let (count, bytes) = files.fold((0u64, 0u64), |(n, sum), c| (n + 1, sum.saturating_add(bytes_of(c))));
        node.files = (count > 0).then_some((count, bytes));
        let few = self.all || children.len() <= MANY;
        for child in children {
            let matters = child.kind == PartKind::File && MATTERS.iter().any(|end| child.name.ends_with(end));
            if few || matters && node.children.len() < MANY {
                node.children.push(self.node(child, depth.min(MAX_DEPTH) - 1)?);
            }
        }
        Ok(node)
    }
}

/// The bytes a file has: of one whose content is an object, the object's.
fn bytes_of(part: &Part) -> u64 {
    part.fields
        .get("size")
        .and_then(|s| s.parse().ok())
        .unwrap_or(part.size)
}
