//! A comparison in the order in which people read it: a summary, then the changes by part of the artifact, and the statements last.

use super::{
    diff::{Comparison, Difference, What},
    likely_cause::LikelyCause,
    part::PartKind,
    place::{ArtifactPart, Place, place_of},
    stated::{Stated, StatedPackage},
};
use indicatif::HumanBytes;
use serde::Serialize;
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

/// Where an initramfs states the digest of its root.
const ROOT_DIGEST: &str = "etc/powernode/root-digest";
/// From this number of entries on, a directory that only one side has is one row.
const FOLDED: u64 = 8;
/// Of longer values only the words that differ are shown, bytes.
const LONG: usize = 80;

/// A comparison for people.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Overview {
    /// Remarks on what was compared.
    pub notes: Vec<String>,
    /// One line for each part of the artifact.
    pub summary: Vec<Aspect>,
    /// The changes, part by part.
    pub sections: Vec<ChangedPart>,
    /// Number of all differences.
    pub total: u64,
}

/// A line of the summary.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Aspect {
    /// The part: `packages`, `root`, `kernel`, …
    pub name: &'static str,
    /// Whether it is equal on both sides.
    pub equal: bool,
    /// The state in words.
    pub text: String,
    /// Numbers of its files or packages that were added, removed and changed; none for a part without files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
}

/// Numbers of files or packages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counts {
    /// Only in the second.
    pub added: u64,
    /// Only in the first.
    pub removed: u64,
    /// In both, and different.
    pub changed: u64,
}

impl Counts {
    fn add(&mut self, mark: Mark) {
        match mark {
            Mark::Added => self.added += 1,
            Mark::Removed => self.removed += 1,
            Mark::Changed => self.changed += 1,
        }
    }

    fn text(self) -> String {
        format!("+{} -{} ~{}", self.added, self.removed, self.changed)
    }

    const fn any(self) -> bool {
        self.added + self.removed + self.changed > 0
    }
}

/// The changes of one part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ChangedPart {
    /// The part, as in [`Aspect::name`].
    pub name: &'static str,
    /// The changes, by directory or holder.
    pub groups: Vec<ChangeGroup>,
    /// Whether its changes follow from the others, so that a number is enough for most readers.
    pub derived: bool,
    /// Differences that follow from the listed ones: objects, tables of a file system, moved parts.
    pub implied: u64,
}

/// Changes with one place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ChangeGroup {
    /// Directory or holder; empty at the top.
    pub name: String,
    /// The changes.
    pub rows: Vec<ChangeRow>,
}

/// A changed file, package or structure.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ChangeRow {
    /// The kind of change.
    pub mark: Mark,
    /// Name in its group.
    pub name: String,
    /// The change in words; empty where the mark tells all.
    pub detail: String,
    /// The likely cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<LikelyCause>,
}

/// The kind of a change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// Only in the second.
    Added,
    /// Only in the first.
    Removed,
    /// In both, and different.
    Changed,
}

impl Mark {
    /// The sign in front of a row.
    pub const fn sign(self) -> char {
        match self {
            Mark::Added => '+',
            Mark::Removed => '-',
            Mark::Changed => '~',
        }
    }

    /// The word for readers of a page.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mark::Added => "added",
            Mark::Removed => "removed",
            Mark::Changed => "changed",
        }
    }
}

/// A number of bytes for people.
pub(super) fn human(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

impl Overview {
    /// The overview of all differences of a comparison. `a` and `b` are the facts that the manifests of both sides state.
    pub(super) fn new(found: &Comparison, a: Option<&Stated>, b: Option<&Stated>, whole: bool) -> Self {
        let sorted = Sorted::new(found);
        let mut overview = Overview {
            total: found.total,
            ..Overview::default()
        };
        if let (Some(a), Some(b)) = (a, b) {
            let rows = package_rows(&a.packages, &b.packages);
            overview.summary.push(packages_aspect(&rows, b.packages.len()));
            overview.section("packages", vec![group("", rows)], 0);
        }
        // Bytes that could not be read may hide a change, so nothing is called equal then.
        let hidden = found.total > found.differences.len() as u64 || sorted.unreadable;
        for part in ArtifactPart::ALL {
            let files = sorted.rows(part);
            let (differences, implied) = sorted.numbers(part);
            let stated = |get: fn(&Stated) -> &String| Some((get(a?), get(b?)));
            let aspect = match part {
                ArtifactPart::Root => sorted.root_aspect(differences, stated(|s| &s.root)),
                ArtifactPart::Kernel => simple(part, &files, differences, stated(|s| &s.kernel)),
                _ => simple(part, &files, differences, None),
            };
            let known = differences > 0 || (a.is_some() && b.is_some() && !hidden && whole);
            let shown = match part {
                ArtifactPart::Root | ArtifactPart::Kernel | ArtifactPart::Initramfs => known,
                ArtifactPart::Other => differences > 0,
                ArtifactPart::Statements => false,
            };
            if shown {
                overview.summary.push(aspect);
            }
            if part == ArtifactPart::Kernel
                && let Some((a, b)) = stated(|s| &s.command_line)
            {
                overview.summary.push(command_line(a, b));
            }
            let groups = match part {
                ArtifactPart::Root => by_directory(files, &sorted.trees_only_once),
                _ => by_holder(files),
            };
            overview.section(part.as_str(), groups, implied);
        }
        if sorted.unreadable {
            let note = "some parts could not be read on one side; the list below names them";
            overview.notes.push(note.to_owned());
        }
        overview
    }

    fn section(&mut self, name: &'static str, groups: Vec<ChangeGroup>, implied: u64) {
        let groups: Vec<ChangeGroup> = groups.into_iter().filter(|group| !group.rows.is_empty()).collect();
        if !groups.is_empty() || implied > 0 {
            self.sections.push(ChangedPart {
                name,
                groups,
                derived: name == ArtifactPart::Statements.as_str(),
                implied,
            });
        }
    }
}

fn group(name: &str, rows: Vec<ChangeRow>) -> ChangeGroup {
    ChangeGroup {
        name: name.to_owned(),
        rows,
    }
}

/// The differences by place.
struct Sorted<'a> {
    /// The differences at each place that a reader wants to see.
    places: BTreeMap<Place, Vec<&'a Difference>>,
    /// Of each part, the number of all differences, and of those that follow from others.
    numbers: BTreeMap<ArtifactPart, (u64, u64)>,
    /// Sizes of objects that only one side has, by digest.
    objects: BTreeMap<String, u64>,
    /// Directories of the tree that only one side has.
    trees_only_once: BTreeSet<String>,
    unreadable: bool,
}

impl<'a> Sorted<'a> {
    fn new(found: &'a Comparison) -> Self {
        let mut sorted = Sorted {
            places: BTreeMap::new(),
            numbers: BTreeMap::new(),
            objects: BTreeMap::new(),
            trees_only_once: BTreeSet::new(),
            unreadable: false,
        };
        for difference in &found.differences {
            let place = place_of(difference);
            sorted.numbers.entry(place.part).or_default().0 += 1;
            sorted.unreadable |= matches!(difference.what, What::Damaged { .. } | What::Incomplete { .. });
            if place.object
                && let What::OnlyInA { size, .. } | What::OnlyInB { size, .. } = difference.what
            {
                let digest = place.name.trim_start_matches("/objects").replace('/', "");
                sorted.objects.insert(digest, size);
            }
            if place.in_tree
                && let What::OnlyInA { kind, .. } | What::OnlyInB { kind, .. } = difference.what
                && kind == PartKind::Directory
            {
                sorted.trees_only_once.insert(absolute(&place.name));
            }
            sorted.places.entry(place).or_default().push(difference);
        }
        for part in ArtifactPart::ALL {
            sorted.fold(part);
        }
        sorted
    }

    /// Takes away the differences of a part that follow from others of it: its bytes differ because its files do. Where nothing else
    /// differs, they stay.
    fn fold(&mut self, part: ArtifactPart) {
        let told = |(place, differences): (&Place, &Vec<&Difference>)| {
            place.part == part && differences.iter().any(|difference| !follows(place, difference))
        };
        if part == ArtifactPart::Statements || !self.places.iter().any(told) {
            return;
        }
        let mut implied = 0;
        for (place, differences) in self.places.iter_mut().filter(|(place, _)| place.part == part) {
            if differences.iter().all(|difference| follows(place, difference)) {
                implied += differences.len() as u64;
                differences.clear();
            }
        }
        self.places.retain(|_, differences| !differences.is_empty());
        self.numbers.entry(part).or_default().1 = implied;
    }

    fn numbers(&self, part: ArtifactPart) -> (u64, u64) {
        self.numbers.get(&part).copied().unwrap_or_default()
    }

    fn rows(&self, part: ArtifactPart) -> Vec<(&Place, ChangeRow)> {
        let places = self.places.iter().filter(|(place, _)| place.part == part);
        places
            .map(|(place, differences)| (place, self.row(place, differences)))
            .collect()
    }

    fn row(&self, place: &Place, differences: &[&Difference]) -> ChangeRow {
        let row = |mark, detail| ChangeRow {
            mark,
            name: place.name.clone(),
            detail,
            hint: differences.iter().find_map(|difference| difference.hint),
        };
        if place.part == ArtifactPart::Statements && !matches!(differences, [only] if only.what.one_sided()) {
            let detail = match differences.len() {
                1 => "1 difference".to_owned(),
                number => format!("{number} differences"),
            };
            return ChangeRow {
                hint: None,
                ..row(Mark::Changed, detail)
            };
        }
        let [only] = differences else {
            return row(Mark::Changed, self.details(place, differences));
        };
        match &only.what {
            What::OnlyInA { size, kind } => row(Mark::Removed, content(*kind, *size)),
            What::OnlyInB { size, kind } => row(Mark::Added, content(*kind, *size)),
            _ => row(Mark::Changed, self.details(place, differences)),
        }
    }

    /// The changes of one place in words.
    fn details(&self, place: &Place, differences: &[&Difference]) -> String {
        let mut said = Vec::new();
        let mut bytes = Vec::new();
        let (mut size, mut content) = (None, None);
        for difference in differences {
            match &difference.what {
                What::Field {
                    field,
                    a: Some(a),
                    b: Some(b),
                } if place.in_tree && field == "size" => {
                    size = a.parse().ok().zip(b.parse().ok());
                }
                What::Field { field, a, b } if place.in_tree && field == "object" => {
                    let known = |digest: &Option<String>| self.objects.get(digest.as_ref()?).copied();
                    content = Some(known(a).zip(known(b)));
                }
                What::Field {
                    field,
                    a: Some(a),
                    b: Some(b),
                } if a.len().max(b.len()) > LONG && a.contains(' ') => {
                    said.push(format!("{field}: {}", changed_words(a, b)));
                }
                // The bytes say nothing more than the facts in them.
                what @ (What::Content { .. } | What::About { .. } | What::Moved { .. } | What::Format { .. }) => {
                    bytes.push(what.sentence());
                }
                what => said.push(what.sentence()),
            }
        }
        if said.is_empty() && size.is_none() && content.is_none() {
            said = bytes;
        }
        match (size, content) {
            (Some((a, b)), _) | (None, Some(Some((a, b)))) if a != b => {
                said.insert(0, format!("{} -> {}", human(a), human(b)));
            }
            (None, Some(Some((a, _)))) => said.insert(0, format!("{}, other content", human(a))),
            (_, Some(_)) => said.insert(0, "other content".to_owned()),
            _ => {}
        }
        said.join("; ")
    }

    /// The line of the summary for the root: its files and bytes, and its digest where manifests state it.
    fn root_aspect(&self, differences: u64, stated: Option<(&String, &String)>) -> Aspect {
        let mut counts = Counts::default();
        let (mut more, mut less) = (0u64, 0u64);
        for (place, differences) in &self.places {
            if !place.in_tree {
                continue;
            }
            counts.add(self.row(place, differences).mark);
            for difference in differences {
                match &difference.what {
                    What::OnlyInA { size, .. } => less = less.saturating_add(*size),
                    What::OnlyInB { size, .. } => more = more.saturating_add(*size),
                    What::Field {
                        field,
                        a: Some(a),
                        b: Some(b),
                    } if field == "size" => {
                        let (a, b): (u64, u64) = (a.parse().unwrap_or(0), b.parse().unwrap_or(0));
                        more = more.saturating_add(b.saturating_sub(a));
                        less = less.saturating_add(a.saturating_sub(b));
                    }
                    _ => {}
                }
            }
        }
        let short = |digest: &str| digest.chars().take(12).collect::<String>();
        let digest = match stated {
            Some((a, b)) if a == b => format!(" ({})", short(a)),
            Some((a, b)) => format!(" ({} -> {})", short(a), short(b)),
            None => String::new(),
        };
        if differences == 0 {
            let equal = stated.is_none_or(|(a, b)| a == b);
            let text = if equal { "equal" } else { "stated digests differ" };
            return Aspect {
                name: "root",
                equal,
                text: format!("{text}{digest}"),
                counts: None,
            };
        }
        let text = match counts.any() {
            false => format!("changed, but none of its files{digest}"),
            true => {
                let bytes = match more.cmp(&less) {
                    Ordering::Equal => "the same size".to_owned(),
                    Ordering::Greater => format!("{} more", human(more - less)),
                    Ordering::Less => format!("{} less", human(less - more)),
                };
                format!("{} files, {bytes}{digest}", counts.text())
            }
        };
        Aspect {
            name: "root",
            equal: false,
            text,
            counts: Some(counts),
        }
    }
}

/// Whether a difference follows from differences of files: it is in the tables of a format, in the place of a part, in the objects of a
/// root, or in an inode of which everything that people set is equal.
fn follows(place: &Place, difference: &Difference) -> bool {
    let what = &difference.what;
    if matches!(
        what,
        What::Damaged { .. } | What::Incomplete { .. } | What::Format { .. } | What::Compression { .. }
    ) {
        return false;
    }
    if difference.structure || matches!(what, What::Moved { .. }) {
        return true;
    }
    match (place.part, place.in_tree, place.object) {
        (ArtifactPart::Root, true, _) => matches!(what, What::About { .. }),
        // An object is named by its content, which must not differ.
        (ArtifactPart::Root, _, true) => what.one_sided() || matches!(what, What::About { .. }),
        (ArtifactPart::Root, _, _) => true,
        _ => matches!(what, What::About { .. }),
    }
}

/// A file that only one side has: its size, or its kind.
fn content(kind: PartKind, size: u64) -> String {
    match kind {
        PartKind::Directory | PartKind::Symlink | PartKind::Special if size == 0 => kind.as_str().to_owned(),
        _ => human(size),
    }
}

fn simple(
    part: ArtifactPart,
    files: &[(&Place, ChangeRow)],
    differences: u64,
    stated: Option<(&String, &String)>,
) -> Aspect {
    let value = match stated {
        Some((a, b)) if a == b => format!(" ({a})"),
        Some((a, b)) => format!(" ({a} -> {b})"),
        None => String::new(),
    };
    let mut counts = Counts::default();
    for (_, row) in files {
        counts.add(row.mark);
    }
    let equal = differences == 0;
    let text = match (equal, part) {
        (true, _) => format!("equal{value}"),
        (false, ArtifactPart::Kernel) => format!("changed{value}"),
        (false, ArtifactPart::Initramfs) if files.iter().all(|(place, _)| place.name.ends_with(ROOT_DIGEST)) => {
            "equal beside the digest of the root in it".to_owned()
        }
        (false, ArtifactPart::Initramfs) => format!("{} files beside the root", counts.text()),
        (false, _) => format!("{} files and structures", counts.text()),
    };
    Aspect {
        name: part.as_str(),
        equal,
        text,
        counts: (!equal).then_some(counts),
    }
}

/// The line of the summary for the kernel command line: the words that only one side has.
fn command_line(a: &str, b: &str) -> Aspect {
    let text = if a == b {
        "equal".to_owned()
    } else {
        changed_words(a, b)
    };
    Aspect {
        name: "command line",
        equal: a == b,
        text,
        counts: None,
    }
}

/// The words that only one of two lines has.
fn changed_words(a: &str, b: &str) -> String {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (of_a, of_b) = (words(a), words(b));
    let only = |sign: char, these: &[String], others: &[String]| -> Vec<String> {
        let other: BTreeSet<&String> = others.iter().collect();
        let missing = these.iter().filter(|word| !other.contains(word));
        missing.map(|word| format!("{sign}{word}")).collect()
    };
    let mut changes = only('+', &of_b, &of_a);
    changes.extend(only('-', &of_a, &of_b));
    match changes.is_empty() {
        true => "the same words in another order or number".to_owned(),
        false => changes.join(" "),
    }
}

fn package_rows(a: &BTreeMap<String, StatedPackage>, b: &BTreeMap<String, StatedPackage>) -> Vec<ChangeRow> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let mut rows = Vec::new();
    for name in names {
        let (a, b) = (a.get(name), b.get(name));
        let tool = |package: &StatedPackage| if package.tool { " (tool)" } else { "" };
        let (mark, detail) = match (a, b) {
            (Some(a), None) => (Mark::Removed, format!("{}{}", a.version, tool(a))),
            (None, Some(b)) => (Mark::Added, format!("{}{}", b.version, tool(b))),
            (Some(a), Some(b)) if a.version != b.version => {
                (Mark::Changed, format!("{} -> {}{}", a.version, b.version, tool(b)))
            }
            (Some(a), Some(b)) if a.tool != b.tool => {
                let now = if b.tool { "a tool only" } else { "in the artifact" };
                (Mark::Changed, format!("{}, now {now}", b.version))
            }
            _ => continue,
        };
        rows.push(ChangeRow {
            mark,
            name: name.clone(),
            detail,
            hint: None,
        });
    }
    rows
}

fn packages_aspect(rows: &[ChangeRow], all: usize) -> Aspect {
    let mut counts = Counts::default();
    for row in rows {
        counts.add(row.mark);
    }
    let equal = !counts.any();
    Aspect {
        name: "packages",
        equal,
        text: match equal {
            true => format!("equal ({all})"),
            false => counts.text(),
        },
        counts: (!equal).then_some(counts),
    }
}

/// A path of a tree with its leading slash.
fn absolute(name: &str) -> String {
    format!("/{}", name.trim_start_matches('/').trim_end_matches('/'))
}

/// The rows of a tree by directory. A directory with many entries that only one side has is one row.
fn by_directory(files: Vec<(&Place, ChangeRow)>, only_once: &BTreeSet<String>) -> Vec<ChangeGroup> {
    // The outermost directory around each entry that is new or gone as a whole.
    let outermost = |path: &str| -> Option<String> {
        let steps = path.match_indices('/').skip(1).map(|(at, _)| &path[..at]);
        steps.chain([path]).find(|p| only_once.contains(*p)).map(str::to_owned)
    };
    let mut inside: BTreeMap<String, u64> = BTreeMap::new();
    for (place, _) in files.iter().filter(|(place, _)| place.in_tree) {
        if let Some(top) = outermost(&absolute(&place.name)) {
            *inside.entry(top).or_default() += 1;
        }
    }
    let mut groups: BTreeMap<String, Vec<ChangeRow>> = BTreeMap::new();
    for (place, mut row) in files {
        if !place.in_tree {
            groups.entry(place.within.join(" / ")).or_default().push(row);
            continue;
        }
        let path = absolute(&place.name);
        if let Some(top) = outermost(&path)
            && let Some(entries @ FOLDED..) = inside.get(&top).copied()
        {
            if top != path {
                continue;
            }
            row.detail = format!("directory with {} entries", entries - 1);
        }
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
        row.name = match row.detail.starts_with("directory") {
            true => format!("{name}/"),
            false => name.to_owned(),
        };
        if row.detail == "directory" {
            row.detail.clear();
        }
        if path == "/" {
            row.name = "/".to_owned();
        }
        let directory = directory.trim_start_matches('/');
        groups.entry(format!("{directory}/")).or_default().push(row);
    }
    groups.into_iter().map(|(name, rows)| group(&name, rows)).collect()
}

fn by_holder(files: Vec<(&Place, ChangeRow)>) -> Vec<ChangeGroup> {
    let mut groups: BTreeMap<String, Vec<ChangeRow>> = BTreeMap::new();
    for (place, row) in files {
        groups.entry(place.within.join(" / ")).or_default().push(row);
    }
    groups.into_iter().map(|(name, rows)| group(&name, rows)).collect()
}
