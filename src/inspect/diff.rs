//! Two parts walked together: what differs, told where it lies.
//!
//! Bytes are compared first. Where ranges differ, both sides are looked into, the parts inside are matched by name, and each
//! pair whose bytes differ is walked in turn. Ranges in a pair that reported something are explained; what is left is looked
//! for in the headers that describe parts, then in the tables of the format, and what is in none of these is reported as
//! lying outside of every part. So no differing byte goes unreported, whatever the formats are.

use super::{
    error::{InspectError, is_damage},
    ext4::shown,
    json,
    likely_cause::{self, LikelyCause},
    part::{Fields, Look, Part, PartExtent, PartKind, SpoolDirectory},
    spans::{self, Span},
};
use crate::image::{ReadAt, Source};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

/// Formats that hold just one thing or are plain from the names inside: they stay out of the path.
const SILENT: [&str; 6] = ["GPT disk", "MBR disk", "initramfs", "zstd", "gzip", "xz"];
/// How deep one thing is looked for in another.
const MAX_DEPTH: usize = 32;
/// From this size on both sides are looked into at the same time, bytes.
const LARGE: u64 = 16 << 20;
/// Bytes shown before and from the first differing one.
const BEFORE: u64 = 8;
const AFTER: u64 = 24;
/// A compressed stream or a virtual disk whose content is equal.
const AGAIN: &str = "(the same content, stored in another way)";
/// What lies in no part.
const OUTSIDE: &str = "(outside of every part)";

/// What two things differ in.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Comparison {
    /// The differences, in the order of the first one's parts, as many as were asked for.
    pub differences: Vec<Difference>,
    /// How many there are in all.
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
    /// Names of the parts, the outermost first.
    pub path: Vec<String>,
    /// What differs there.
    #[serde(flatten)]
    pub what: What,
    /// What the difference looks like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<LikelyCause>,
}

/// What differs at a place.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(tag = "difference", rename_all = "kebab-case")]
pub enum What {
    /// The part is only in the first.
    OnlyInA {
        /// Its bytes.
        size: u64,
    },
    /// The part is only in the second.
    OnlyInB {
        /// Its bytes.
        size: u64,
    },
    /// It is another kind of thing, has another format, or is damaged on one side.
    Format {
        /// What it is in the first.
        a: String,
        /// What it is in the second.
        b: String,
    },
    /// A fact about it.
    Field {
        /// Which.
        field: String,
        /// Its value in the first; none when it has none there.
        a: Option<String>,
        /// Its value in the second.
        b: Option<String>,
    },
    /// The version of a package that a manifest or SBOM lists.
    Package {
        /// The package.
        package: String,
        /// Its version in the first; none when it is not there.
        a: Option<String>,
        /// Its version in the second.
        b: Option<String>,
    },
    /// Its bytes.
    Content {
        /// The first differing byte, counted from the part's own start.
        offset: u64,
        /// How many bytes differ.
        bytes: u64,
        /// Sizes of both.
        sizes: (u64, u64),
        /// The bytes around the first differing one, in the first, unprintable ones escaped.
        a: String,
        /// The same in the second.
        b: String,
    },
    /// Bytes that describe it rather than its own: a header, an inode.
    About {
        /// The first differing byte, counted in what holds the part.
        offset: u64,
        /// How many bytes differ.
        bytes: u64,
    },
    /// Bytes that cannot be read because what holds them is damaged on at least one side.
    Damaged {
        /// What the reader said.
        problem: String,
    },
    /// Parts that are equal but lie elsewhere in what holds them.
    Moved {
        /// How many.
        parts: u64,
        /// The first of them.
        first: String,
        /// Where it begins in the first.
        a: u64,
        /// Where it begins in the second.
        b: u64,
    },
}

/// Compares two parts; `limit` differences are kept, all are counted. `children` are given where the parts are directories of
/// the host, whose bytes nothing holds.
pub fn diff(
    a: (&Part, Option<&[Part]>),
    b: (&Part, Option<&[Part]>),
    scratch: &SpoolDirectory,
    limit: usize,
) -> Result<Comparison, InspectError> {
    let mut walk = Walk {
        scratch,
        limit,
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
    out: Comparison,
    path: Vec<String>,
}

impl Walk<'_> {
    fn report(&mut self, what: What, hint: Option<LikelyCause>) {
        self.out.total += 1;
        if self.out.differences.len() < self.limit {
            let path = self.path.clone();
            self.out.differences.push(Difference { path, what, hint });
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

    /// Compares two parts with one name. `known`: the only ranges where they may differ.
    fn pair(&mut self, a: &Part, b: &Part, known: Option<Vec<Span>>) -> Result<(), InspectError> {
        let depth = self.path.len();
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
        if a.kind != b.kind {
            let (a, b) = (a.kind.as_str().to_owned(), b.kind.as_str().to_owned());
            self.report(What::Format { a, b }, None);
        }
        let spans = known.unwrap_or_else(|| possible(a, b));
        let spans = self.read(spans::scan(&a.source, &b.source, &spans))?;
        if spans.is_empty() {
            return Ok(());
        }
        if self.path.len() > MAX_DEPTH {
            return self.content(a, b, &spans);
        }
        let (look_a, look_b) = self.look(a, b);
        let whole = |look: &Look| look.problem.is_none() && !look.children.is_empty();
        if look_a.format != look_b.format || look_a.problem != look_b.problem {
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
            // The whole side says what the bytes are that differ.
            let (parts, format) = if whole(&look_a) || !whole(&look_b) {
                (look_a.children, look_a.format)
            } else {
                (look_b.children, look_b.format)
            };
            return self.inside(format, |walk| walk.blame(a, b, &parts, spans));
        }
        let before = self.out.total;
        self.fields(
            &look_a.fields,
            &look_b.fields,
            look_a.format == "JSON" && look_b.format == "JSON",
        );
        if look_a.children.is_empty() && look_b.children.is_empty() {
            // The fields of JSON are all there is in it.
            if look_a.format == "JSON" && self.out.total > before {
                return Ok(());
            }
            return self.content(a, b, &spans);
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

    /// Matches the parts of two things; `spans` are where the things differ.
    fn children(
        &mut self,
        holders: Option<(&Part, &Part)>,
        a: &[Part],
        b: &[Part],
        spans: Vec<Span>,
    ) -> Result<(), InspectError> {
        let of_b: BTreeMap<&str, &Part> = b
            .iter()
            .filter(|p| p.kind != PartKind::Region)
            .map(|p| (p.key.as_str(), p))
            .collect();
        let keys_of_a: BTreeSet<&str> = a
            .iter()
            .filter(|p| p.kind != PartKind::Region)
            .map(|p| p.key.as_str())
            .collect();
        let mut explained: Vec<Span> = Vec::new();
        let mut quiet: Vec<&Part> = Vec::new();
        let mut moved: Option<What> = None;
        for x in a.iter().filter(|p| p.kind != PartKind::Region) {
            let Some(y) = of_b.get(x.key.as_str()) else {
                self.below(&x.name, |walk| walk.report(What::OnlyInA { size: x.size }, None));
                cover(&mut explained, x);
                continue;
            };
            let same_place = x.extents == y.extents && x.size == y.size;
            let in_holder = !x.extents.is_empty() && !y.extents.is_empty();
            let known = match (x.derived, same_place && in_holder) {
                (false, true) => Some(spans::translate(&spans, &x.extents)),
                // What the same bytes decompress to is the same.
                (true, true) if spans::within(&spans, &x.extents).is_empty() => Some(Vec::new()),
                _ => None,
            };
            let before = self.out.total;
            self.below(&x.name, |walk| walk.pair(x, y, known))?;
            let elsewhere = x.extents != y.extents || x.about != y.about;
            if self.out.total > before {
                cover(&mut explained, x);
                cover(&mut explained, y);
            } else if elsewhere && !x.derived {
                cover(&mut explained, x);
                cover(&mut explained, y);
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
            } else {
                quiet.push(x);
            }
        }
        for y in b
            .iter()
            .filter(|p| p.kind != PartKind::Region && !keys_of_a.contains(p.key.as_str()))
        {
            self.below(&y.name, |walk| walk.report(What::OnlyInB { size: y.size }, None));
            cover(&mut explained, y);
        }
        if let Some(moved) = moved {
            self.report(moved, None);
        }
        let Some((holder_a, holder_b)) = holders else {
            return Ok(());
        };
        let explained = spans::normal(explained);
        let rest = spans::subtract(&spans, &explained);
        let rest = self.read(spans::scan(&holder_a.source, &holder_b.source, &rest))?;
        self.rest(holder_a, holder_b, &quiet, a.iter().chain(b), rest)
    }

    /// Tells where the differing ranges `rest` lie by what the whole side's `parts` say.
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

    /// Reports `rest`, the differing ranges in no part, by the headers of parts and the tables they lie in.
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

    /// Reports what of `rest` lies in `extents` as content of `part`, and returns what is left.
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
            let size = whole.size;
            let extents = extents
                .iter()
                .copied()
                .filter(|e| e.from.checked_add(e.len).is_some_and(|end| end <= size));
            Part::scattered(
                part.name.as_str(),
                PartKind::Region,
                &whole.source,
                extents.collect(),
                part.size,
            )
        };
        if part.derived {
            // The bytes of a compressed stream are not those of its content.
            let name = format!("{} (as stored)", part.name);
            self.below(&name, |walk| walk.content(a, b, &hit))?;
        } else {
            let own = spans::translate(&hit, extents);
            let (own_a, own_b) = (holder(a), holder(b));
            self.below(&part.name, |walk| walk.content(&own_a, &own_b, &own))?;
        }
        self.without(a, b, &rest, extents)
    }

    fn without(&self, a: &Part, b: &Part, rest: &[Span], extents: &[PartExtent]) -> Result<Vec<Span>, InspectError> {
        let covered = extents.iter().map(|e| e.from..e.from.saturating_add(e.len)).collect();
        let left = spans::subtract(rest, &spans::normal(covered));
        self.read(spans::scan(&a.source, &b.source, &left))
    }

    /// Reports that bytes differ in `spans`, which begin with a differing one.
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

/// Where two parts may differ: all of them, but holes in both.
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
