//! Compares two parts by walking both together, and reports each difference with its place.
//!
//! Bytes are compared first. Where ranges differ, the parts inside are found on both sides and matched by name, and each pair whose
//! bytes differ is walked in turn. The ranges of a pair with a reported difference are explained. The rest is attributed to the
//! headers that describe parts, then to the tables of the format, and finally reported as outside of every part. So no differing byte
//! goes unreported, whatever the formats are.

use super::{
    error::{InspectError, is_damage},
    ext4::shown,
    json,
    likely_cause::{self, LikelyCause},
    part::{Fields, Look, Part, PartExtent, PartKind, SpoolDirectory},
    spans::{self, Span},
    streams::PADDING,
};
use crate::image::{ReadAt, Source};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

/// Formats that hold one part only, or are evident from the names inside: they are left out of the path.
const SILENT: [&str; 8] = ["GPT disk", "MBR disk", "initramfs", "zstd", "gzip", "xz", "lzma", "lz4"];
/// From this size on, both sides are read at the same time, bytes.
const LARGE: u64 = 16 << 20;
/// Bytes that are compared with zeros at a time.
const CHUNK: usize = 1 << 20;
/// Number of bytes that are shown in front of the first differing byte, and from it on.
const BEFORE: u64 = 8;
const AFTER: u64 = 24;
/// Name of the difference between compressed streams or virtual disks with equal content.
const AGAIN: &str = "(the same content, stored in another way)";
/// Name of bytes in no part.
const OUTSIDE: &str = "(outside of every part)";

/// The differences between two parts.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Comparison {
    /// The differences, in the order of the first side's parts, up to the requested number.
    pub differences: Vec<Difference>,
    /// Number of all differences.
    pub total: u64,
}

impl Comparison {
    /// Whether nothing differs.
    pub fn equal(&self) -> bool {
        self.total == 0
    }
}

/// One difference.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Difference {
    /// Names of the parts around the difference, the outermost first.
    pub path: Vec<String>,
    /// The difference.
    #[serde(flatten)]
    pub what: What,
    /// The likely cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<LikelyCause>,
    /// Whether the bytes are a structure of the format, such as a table, or in no part at all, and not those of a file.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub structure: bool,
}

/// A difference at a place.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(tag = "difference", rename_all = "kebab-case")]
pub enum What {
    /// The part exists only in the first side.
    OnlyInA {
        /// Its size in bytes; of a file of a composefs image, the size of its object.
        size: u64,
        /// Its kind.
        kind: PartKind,
    },
    /// The part exists only in the second side.
    OnlyInB {
        /// Its size in bytes; of a file of a composefs image, the size of its object.
        size: u64,
        /// Its kind.
        kind: PartKind,
    },
    /// The part has another kind or format on each side, or is damaged on one side.
    Format {
        /// Kind or format in the first.
        a: String,
        /// Kind or format in the second.
        b: String,
    },
    /// A fact about the part differs.
    Field {
        /// Name of the fact.
        field: String,
        /// Value in the first; `None` when it has none.
        a: Option<String>,
        /// Value in the second.
        b: Option<String>,
    },
    /// The version of a package in a manifest or SBOM differs.
    Package {
        /// Name of the package.
        package: String,
        /// Version in the first; `None` when it is not listed.
        a: Option<String>,
        /// Version in the second.
        b: Option<String>,
    },
    /// The bytes of the part differ.
    Content {
        /// Offset of the first differing byte in the part.
        offset: u64,
        /// Number of differing bytes.
        bytes: u64,
        /// Sizes of the part on both sides.
        sizes: (u64, u64),
        /// The bytes around the first differing byte in the first, unprintable bytes escaped.
        a: String,
        /// The same in the second.
        b: String,
    },
    /// The compression of the part differs.
    Compression {
        /// The compression in the first; another format if it is not compressed.
        a: String,
        /// The compression in the second.
        b: String,
        /// Whether the content is equal.
        same: bool,
    },
    /// Bytes that describe the part differ: a header, an inode.
    About {
        /// Offset of the first differing byte in the holder of the part.
        offset: u64,
        /// Number of differing bytes.
        bytes: u64,
    },
    /// The bytes cannot be read because their holder is damaged on at least one side.
    Damaged {
        /// The reader's error.
        problem: String,
    },
    /// The bytes differ, and both sides are damaged in the same way, or a limit on the work for one artifact was reached on both. The
    /// parts that could still be found are compared, and the other bytes are compared as bytes.
    Incomplete {
        /// The damage, or the limit.
        problem: String,
    },
    /// The zeros between and behind the pieces of a file differ in number or place.
    Padding {
        /// Bytes of padding in the first.
        a: u64,
        /// Bytes of padding in the second.
        b: u64,
        /// Whether the parts themselves are equal.
        only: bool,
    },
    /// One disk is longer, by zeros and copies of the partition table, and all partitions are equal.
    Grown {
        /// Bytes of the first.
        a: u64,
        /// Bytes of the second.
        b: u64,
        /// Number of partitions.
        partitions: u64,
    },
    /// Parts are equal but have another place in their holder.
    Moved {
        /// Number of these parts.
        parts: u64,
        /// Name of the first one.
        first: String,
        /// Its offset in the first.
        a: u64,
        /// Its offset in the second.
        b: u64,
    },
}

/// Is told the names of the parts around each pair of parts that is going to be compared.
pub type Watch<'a> = &'a dyn Fn(&[String]);

/// Compares two parts; `limit` differences are kept, and all are counted. Directories of the host come with the parts of their files,
/// since they have no bytes of their own.
pub fn diff(
    a: (&Part, Option<&[Part]>),
    b: (&Part, Option<&[Part]>),
    scratch: &SpoolDirectory,
    limit: usize,
) -> Result<Comparison, InspectError> {
    diff_watched(a, b, scratch, limit, &|_| {})
}

/// The same as [`diff`] for callers that show what is being compared.
pub fn diff_watched(
    a: (&Part, Option<&[Part]>),
    b: (&Part, Option<&[Part]>),
    scratch: &SpoolDirectory,
    limit: usize,
    watch: Watch<'_>,
) -> Result<Comparison, InspectError> {
    let mut walk = Walk {
        scratch,
        limit,
        watch,
        structure: false,
        out: Comparison::default(),
        path: Vec::new(),
    };
    match (a, b) {
        ((_, Some(a)), (_, Some(b))) => walk.children(None, a, b, Vec::new())?,
        ((a, None), (b, None)) => {
            walk.path.push(a.name.clone());
            walk.pair(a, b, None)?;
        }
        ((part, in_a), _) => {
            walk.path.push(part.name.clone());
            let say = |directory: bool| if directory { "directory" } else { "file" }.to_owned();
            let (a, b) = (say(in_a.is_some()), say(in_a.is_none()));
            walk.report(What::Format { a, b }, None);
        }
    }
    Ok(walk.out)
}

struct Walk<'a> {
    scratch: &'a SpoolDirectory,
    limit: usize,
    watch: Watch<'a>,
    /// Whether bytes of structures are being reported.
    structure: bool,
    out: Comparison,
    path: Vec<String>,
}

impl Walk<'_> {
    fn report(&mut self, what: What, hint: Option<LikelyCause>) {
        self.out.total += 1;
        if self.out.differences.len() < self.limit {
            let path = self.path.clone();
            let structure = self.structure;
            self.out.differences.push(Difference {
                path,
                what,
                hint,
                structure,
            });
        }
    }

    fn read<T>(&self, result: io::Result<T>) -> Result<T, InspectError> {
        result.map_err(|source| InspectError::Read {
            part: self.path.join(" / "),
            source,
        })
    }

    fn below<T>(&mut self, name: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(name.to_owned());
        let out = f(self);
        self.path.pop();
        out
    }

    /// Compares two parts of the same name. If `known` is given, the parts differ at most in these ranges.
    fn pair(&mut self, a: &Part, b: &Part, known: Option<Vec<Span>>) -> Result<(), InspectError> {
        let depth = self.path.len();
        (self.watch)(&self.path);
        match self.readable(a, b, known) {
            Err(InspectError::Read { source, .. }) if is_damage(&source) => {
                self.path.truncate(depth);
                self.report(
                    What::Damaged {
                        problem: source.to_string(),
                    },
                    None,
                );
                Ok(())
            }
            other => other,
        }
    }

    fn readable(&mut self, a: &Part, b: &Part, known: Option<Vec<Span>>) -> Result<(), InspectError> {
        self.fields(&a.fields, &b.fields, false);
        if a.problem != b.problem {
            let (field, a, b) = ("problem".to_owned(), a.problem.clone(), b.problem.clone());
            self.report(What::Field { field, a, b }, None);
        }
        if a.kind != b.kind {
            let (a, b) = (a.kind.as_str().to_owned(), b.kind.as_str().to_owned());
            self.report(What::Format { a, b }, None);
        }
        if let (Some(in_a), Some(in_b)) = (&a.parts, &b.parts) {
            return self.children(None, in_a, in_b, Vec::new());
        }
        let spans = known.unwrap_or_else(|| possible(a, b));
        let spans = self.read(spans::scan(&a.source, &b.source, &spans))?;
        if spans.is_empty() {
            return Ok(());
        }
        let (look_a, look_b) = self.look(a, b);
        if let Some((x, y)) = contents(a, &look_a).zip(contents(b, &look_b))
            && look_a.format != look_b.format
        {
            let (a, b) = (look_a.format.to_owned(), look_b.format.to_owned());
            let before = self.out.total;
            self.below("content", |walk| walk.pair(&x, &y, None))?;
            let same = self.out.total == before;
            self.report(What::Compression { a, b, same }, None);
            return Ok(());
        }
        let whole = |look: &Look| look.problem.is_none() && !look.children.is_empty();
        // Of a damaged side that still lists parts, these are compared.
        let lists = |look: &Look| files(&look.children).next().is_some();
        let tolerant = look_a.format == look_b.format && lists(&look_a) && lists(&look_b);
        if look_a.format != look_b.format || (look_a.problem != look_b.problem && !tolerant) {
            let say = |look: &Look| match &look.problem {
                Some(problem) => format!("{}, but {problem}", look.format),
                None => look.format.to_owned(),
            };
            self.report(
                What::Format {
                    a: say(&look_a),
                    b: say(&look_b),
                },
                None,
            );
            // The parts of the undamaged side tell what the differing bytes are.
            let (parts, format) = if whole(&look_a) || !whole(&look_b) {
                (look_a.children, look_a.format)
            } else {
                (look_b.children, look_b.format)
            };
            return self.inside(format, |walk| walk.blame(a, b, &parts, spans));
        }
        if look_a.problem != look_b.problem {
            let (field, a, b) = ("problem".to_owned(), look_a.problem, look_b.problem);
            self.report(What::Field { field, a, b }, None);
        } else if let Some(problem) = look_a.problem {
            self.report(What::Incomplete { problem }, None);
        }
        let before = self.out.total;
        self.fields(
            &look_a.fields,
            &look_b.fields,
            look_a.format == "JSON" && look_b.format == "JSON",
        );
        if look_a.children.is_empty() && look_b.children.is_empty() {
            // JSON has no content beside its fields.
            if look_a.format == "JSON" && self.out.total > before {
                return Ok(());
            }
            // The bytes of a directory are its entries as the file system stores them.
            self.structure = a.kind == PartKind::Directory && b.kind == PartKind::Directory;
            let reported = self.content(a, b, &spans);
            self.structure = false;
            return reported;
        }
        self.inside(look_a.format, |walk| {
            walk.children(Some((a, b)), &look_a.children, &look_b.children, spans)
        })
    }

    fn look(&self, a: &Part, b: &Part) -> (Look, Look) {
        if a.size.max(b.size) < LARGE {
            return (a.look(self.scratch), b.look(self.scratch));
        }
        std::thread::scope(|scope| {
            let other = scope.spawn(|| b.look(self.scratch));
            let first = a.look(self.scratch);
            (first, other.join().unwrap_or_else(|_| b.look(self.scratch)))
        })
    }

    fn inside<T>(&mut self, format: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        if SILENT.contains(&format) {
            f(self)
        } else {
            self.below(format, f)
        }
    }

    fn fields(&mut self, a: &Fields, b: &Fields, packages: bool) {
        if a == b {
            return;
        }
        let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for name in names {
            let (a, b) = (a.get(name), b.get(name));
            if a == b {
                continue;
            }
            let (a, b) = (a.cloned(), b.cloned());
            match json::package(name).filter(|_| packages) {
                Some(package) => self.report(
                    What::Package {
                        package: package.to_owned(),
                        a,
                        b,
                    },
                    None,
                ),
                None => {
                    let hint = likely_cause::of_field(name, a.as_deref(), b.as_deref());
                    self.report(
                        What::Field {
                            field: name.clone(),
                            a,
                            b,
                        },
                        hint,
                    );
                }
            }
        }
    }

    /// Matches the parts inside two holders and compares each pair; `spans` are the ranges in which the holders differ.
    fn children(
        &mut self,
        holders: Option<(&Part, &Part)>,
        a: &[Part],
        b: &[Part],
        spans: Vec<Span>,
    ) -> Result<(), InspectError> {
        let by_key = |parts| files(parts).map(|p: &Part| (p.key.as_str(), p)).collect();
        let (of_a, of_b): (BTreeMap<&str, &Part>, BTreeMap<&str, &Part>) = (by_key(a), by_key(b));
        let mut explained: Vec<Span> = Vec::new();
        let mut quiet: Vec<&Part> = Vec::new();
        let mut moved: Option<What> = None;
        let total = self.out.total;
        for x in files(a) {
            let Some(y) = of_b.get(x.key.as_str()) else {
                let (size, kind) = (real_size(x), x.kind);
                self.below(&x.name, |walk| walk.report(What::OnlyInA { size, kind }, None));
                cover(&mut explained, x);
                continue;
            };
            let before = self.out.total;
            let known = known_spans(x, y, &spans);
            self.below(&x.name, |walk| walk.pair(x, y, known))?;
            let elsewhere = x.extents != y.extents || x.about != y.about;
            if self.out.total > before {
                // The pair reported its differences, which explain its ranges.
                cover(&mut explained, x);
                cover(&mut explained, y);
            } else if elsewhere && (!x.derived || self.stored_alike(holders, x, y)?) {
                if x.derived {
                    // Equal content, and the same bytes as stored: only the padding is elsewhere.
                    cover(&mut explained, x);
                    cover(&mut explained, y);
                    continue;
                }
                // An equal pair at another place. All such pairs are one report: mostly a single change moved the parts behind it.
                cover(&mut explained, x);
                cover(&mut explained, y);
                count_moved(&mut moved, x, y);
            } else {
                // An equal pair at the same place: only the bytes that describe it can differ.
                quiet.push(x);
            }
        }
        for y in files(b).filter(|p| !of_a.contains_key(p.key.as_str())) {
            let (size, kind) = (real_size(y), y.kind);
            self.below(&y.name, |walk| walk.report(What::OnlyInB { size, kind }, None));
            cover(&mut explained, y);
        }
        let alike = self.out.total == total;
        if let Some(moved) = moved {
            self.report(moved, None);
        }
        let Some((holder_a, holder_b)) = holders else {
            return Ok(());
        };
        let partitions = files(a).filter(|part| part.kind == PartKind::Partition).count();
        let only_partitions = partitions > 0 && partitions == files(a).count() && partitions == files(b).count();
        if only_partitions && total == self.out.total && holder_a.size != holder_b.size {
            let (longer, parts) = if holder_a.size > holder_b.size {
                (holder_a, a)
            } else {
                (holder_b, b)
            };
            let tail = holder_a.size.min(holder_b.size)..longer.size;
            if self.read(is_empty_tail(longer, parts, &tail))? {
                let (a, b, partitions) = (holder_a.size, holder_b.size, partitions as u64);
                self.report(What::Grown { a, b, partitions }, None);
                explained.push(tail);
            }
        }
        let explained = spans::normal(explained);
        let rest = spans::subtract(&spans, &explained);
        let rest = self.read(spans::scan(&holder_a.source, &holder_b.source, &rest))?;
        let rest = self.padding(holder_a, holder_b, [a, b], rest, alike)?;
        self.rest(holder_a, holder_b, &quiet, a.iter().chain(b), rest)
    }

    /// Whether the bytes are equal from which two parts are made, wherever they lie.
    fn stored_alike(&self, holders: Option<(&Part, &Part)>, x: &Part, y: &Part) -> Result<bool, InspectError> {
        let Some((a, b)) = holders.filter(|_| x.derived && y.derived) else {
            return Ok(false);
        };
        let stored = |holder: &Part, part: &Part| {
            let size = part.extents.iter().map(|e| e.len).sum();
            Part::scattered("", PartKind::Region, &holder.source, part.extents.clone(), size)
        };
        let (a, b) = (stored(a, x), stored(b, y));
        let whole = [Span { start: 0, end: a.size }];
        Ok(a.size == b.size && self.read(spans::scan(&a.source, &b.source, &whole))?.is_empty())
    }

    /// Reports that padding differs, and returns the ranges of `rest` outside of the padding of both sides.
    /// `alike` tells whether no other difference was reported.
    fn padding(
        &mut self,
        a: &Part,
        b: &Part,
        parts: [&[Part]; 2],
        rest: Vec<Span>,
        alike: bool,
    ) -> Result<Vec<Span>, InspectError> {
        let [of_a, of_b] = parts.map(|parts| {
            let padding = parts.iter().filter(|p| p.kind == PartKind::Region && p.name == PADDING);
            padding.flat_map(|p| p.extents.clone()).collect::<Vec<PartExtent>>()
        });
        let all = [&of_a[..], &of_b].concat();
        let hit = spans::within(&rest, &all);
        if self.read(spans::scan(&a.source, &b.source, &hit))?.is_empty() {
            return Ok(rest);
        }
        let left = self.without(a, b, &rest, &all)?;
        let what = What::Padding {
            a: sum_of(&of_a),
            b: sum_of(&of_b),
            only: alike && left.is_empty(),
        };
        self.report(what, None);
        Ok(left)
    }

    /// Attributes the differing ranges `rest` to the `parts` of the undamaged side.
    fn blame(&mut self, a: &Part, b: &Part, parts: &[Part], mut rest: Vec<Span>) -> Result<(), InspectError> {
        for part in parts.iter().filter(|p| p.kind != PartKind::Region) {
            if rest.is_empty() {
                return Ok(());
            }
            rest = self.claim(a, b, part, &part.extents, rest)?;
        }
        let all: Vec<&Part> = parts.iter().filter(|p| p.kind != PartKind::Region).collect();
        self.rest(a, b, &all, parts.iter(), rest)
    }

    /// Reports `rest`, the differing ranges outside of all parts, by the headers that describe a part and by the tables of the format.
    fn rest<'p>(
        &mut self,
        a: &Part,
        b: &Part,
        described: &[&Part],
        parts: impl Iterator<Item = &'p Part>,
        mut rest: Vec<Span>,
    ) -> Result<(), InspectError> {
        for part in described {
            if rest.is_empty() {
                return Ok(());
            }
            let hit = spans::within(&rest, &part.about);
            let hit = self.read(spans::scan(&a.source, &b.source, &hit))?;
            if let Some(first) = hit.first() {
                let bytes = self.read(spans::count(&a.source, &b.source, &hit))?;
                let what = What::About {
                    offset: first.start,
                    bytes,
                };
                self.below(&part.name, |walk| walk.report(what, None));
                rest = self.without(a, b, &rest, &part.about)?;
            }
        }
        self.structure = true;
        let reported = self.structures(a, b, described, parts, rest);
        self.structure = false;
        reported
    }

    /// Reports `rest` by the tables of the format, and what is in none of them.
    fn structures<'p>(
        &mut self,
        a: &Part,
        b: &Part,
        described: &[&Part],
        parts: impl Iterator<Item = &'p Part>,
        mut rest: Vec<Span>,
    ) -> Result<(), InspectError> {
        for part in parts.filter(|p| p.kind == PartKind::Region) {
            if rest.is_empty() {
                return Ok(());
            }
            rest = self.claim(a, b, part, &part.extents, rest)?;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let again = described.iter().any(|p| p.derived);
        self.below(if again { AGAIN } else { OUTSIDE }, |walk| walk.content(a, b, &rest))
    }

    /// Reports the ranges of `rest` within `extents` as content of `part`, and returns the remaining ranges.
    fn claim(
        &mut self,
        a: &Part,
        b: &Part,
        part: &Part,
        extents: &[PartExtent],
        rest: Vec<Span>,
    ) -> Result<Vec<Span>, InspectError> {
        let hit = spans::within(&rest, extents);
        let hit = self.read(spans::scan(&a.source, &b.source, &hit))?;
        if hit.is_empty() {
            return Ok(rest);
        }
        let holder = |whole: &Part| {
            // A side that ends within the part, or in front of it, has so much less of it.
            let extents = extents.iter().map(|e| PartExtent {
                len: e.len.min(whole.size.saturating_sub(e.from)),
                ..*e
            });
            let extents: Vec<PartExtent> = extents.filter(|e| e.len > 0).collect();
            let cut = extents.len() < part.extents.len() || sum_of(&extents) < sum_of(&part.extents);
            let size = if cut {
                extents.last().map_or(0, |e| e.at + e.len)
            } else {
                part.size
            };
            Part::scattered(part.name.as_str(), PartKind::Region, &whole.source, extents, size)
        };
        if part.derived {
            // A compressed stream has other bytes than its content.
            let name = format!("{} (as stored)", part.name);
            self.below(&name, |walk| walk.content(a, b, &hit))?;
        } else {
            let own = spans::translate(&hit, extents);
            let (own_a, own_b) = (holder(a), holder(b));
            self.below(&part.name, |walk| walk.content(&own_a, &own_b, &own))?;
        }
        self.without(a, b, &rest, extents)
    }

    /// `rest` without the ranges of `extents`. Only ranges that lose bytes are read again: of thousands of parts, each touches a few.
    fn without(&self, a: &Part, b: &Part, rest: &[Span], extents: &[PartExtent]) -> Result<Vec<Span>, InspectError> {
        let covered = spans::normal(extents.iter().map(|e| e.from..e.from.saturating_add(e.len)).collect());
        let (touched, mut left) = spans::touching(rest, &covered);
        let cut = spans::subtract(&touched, &covered);
        left.extend(self.read(spans::scan(&a.source, &b.source, &cut))?);
        Ok(spans::normal(left))
    }

    /// Reports the differing bytes in `spans`, whose first byte differs.
    fn content(&mut self, a: &Part, b: &Part, spans: &[Span]) -> Result<(), InspectError> {
        let bytes = self.read(spans::count(&a.source, &b.source, spans))?;
        let first = spans.first().map_or(0, |s| s.start);
        let around_a = self.read(around(&a.source, first))?;
        let around_b = self.read(around(&b.source, first))?;
        let hint = likely_cause::of_bytes(&around_a, &around_b);
        let what = What::Content {
            offset: first,
            bytes,
            sizes: (a.size, b.size),
            a: shown(&around_a),
            b: shown(&around_b),
        };
        self.report(what, hint);
        Ok(())
    }
}

/// The content of a compressed stream; of an archive, which may be compressed on the other side, the archive itself.
fn contents(part: &Part, look: &Look) -> Option<Part> {
    if look.problem.is_some() {
        return None;
    }
    match (look.format, &look.children[..]) {
        ("zstd" | "gzip" | "xz" | "lzma" | "lz4", [content, rest @ ..])
            if rest.iter().all(|p| p.kind == PartKind::Region) =>
        {
            Some(content.clone())
        }
        ("tar" | "cpio", _) => {
            let mut archive = part.clone();
            archive.fields = Fields::new();
            archive.problem = None;
            Some(archive)
        }
        _ => None,
    }
}

/// Whether the bytes `tail` of a disk are zeros, except for copies of its partition table.
fn is_empty_tail(disk: &Part, parts: &[Part], tail: &Span) -> io::Result<bool> {
    let tables = parts.iter().filter(|part| part.kind == PartKind::Region);
    let tables = tables
        .flat_map(|part| &part.extents)
        .map(|e| e.from..e.from.saturating_add(e.len));
    let zeros = vec![0; CHUNK];
    let mut bytes = zeros.clone();
    for span in spans::subtract(std::slice::from_ref(tail), &spans::normal(tables.collect())) {
        let mut at = span.start;
        while at < span.end {
            let n = (span.end - at).min(CHUNK as u64) as usize;
            disk.source.read_exact_at(&mut bytes[..n], at)?;
            if bytes[..n] != zeros[..n] {
                return Ok(false);
            }
            at += n as u64;
        }
    }
    Ok(true)
}

/// The ranges in which two parts may differ: everything except holes in both.
fn possible(a: &Part, b: &Part) -> Vec<Span> {
    let (common, end) = (a.size.min(b.size), a.size.max(b.size));
    if a.derived || b.derived {
        return spans::normal(vec![Span { start: 0, end }]);
    }
    let stored = a
        .extents
        .iter()
        .chain(&b.extents)
        .map(|e| e.at..e.at.saturating_add(e.len).min(end));
    let longer = Span { start: common, end };
    spans::normal(stored.chain([longer]).collect())
}

fn sum_of(extents: &[PartExtent]) -> u64 {
    extents.iter().map(|e| e.len).sum()
}

/// The size of a part: what its holder states, where its bytes lie elsewhere, as those of a file of a composefs image do.
fn real_size(part: &Part) -> u64 {
    let stated = part.fields.get("size").and_then(|size| size.parse().ok());
    stated.unwrap_or(part.size)
}

/// The parts that are not structures of the format itself.
fn files(parts: &[Part]) -> impl Iterator<Item = &Part> {
    parts.iter().filter(|p| p.kind != PartKind::Region)
}

/// The ranges in which a pair can differ at most, in offsets of the parts, if the differing ranges `spans` of the holders tell them.
fn known_spans(x: &Part, y: &Part, spans: &[Span]) -> Option<Vec<Span>> {
    let same_place = x.extents == y.extents && x.size == y.size;
    let in_holder = !x.extents.is_empty() && !y.extents.is_empty();
    match (x.derived, same_place && in_holder) {
        (false, true) => Some(spans::translate(spans, &x.extents)),
        // Equal compressed bytes have equal content.
        (true, true) if spans::within(spans, &x.extents).is_empty() => Some(Vec::new()),
        _ => None,
    }
}

/// Adds an equal pair with different places to the report of them.
fn count_moved(moved: &mut Option<What>, x: &Part, y: &Part) {
    let place = |p: &Part| p.extents.first().or(p.about.first()).map_or(0, |e| e.from);
    let first = What::Moved {
        parts: 0,
        first: x.name.clone(),
        a: place(x),
        b: place(y),
    };
    if let What::Moved { parts, .. } = moved.get_or_insert(first) {
        *parts += 1;
    }
}

fn cover(explained: &mut Vec<Span>, part: &Part) {
    let extents = part.extents.iter().chain(&part.about);
    explained.extend(extents.map(|e| e.from..e.from.saturating_add(e.len)));
}

fn around(source: &Source, at: u64) -> io::Result<Vec<u8>> {
    let size = source.size()?;
    let (from, to) = (at.saturating_sub(BEFORE).min(size), at.saturating_add(AFTER).min(size));
    let mut bytes = vec![0; (to - from) as usize];
    source.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}
