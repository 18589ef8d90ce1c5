//! The comparison of two artifacts: of all their bytes, or of the parts that two variants share.

use super::{
    diff::{Comparison, Difference, Watch, What, diff_watched},
    error::InspectError,
    overview::{Aspect, Overview},
    part::{Part, PartKind, SpoolDirectory, open},
    place::STATEMENTS,
    root::{find_file, find_root},
    stated::Stated,
};

/// Most differences that are kept for the overview; all are counted.
const KEPT: usize = 200_000;
/// The place of the kernel on media.
const ON_MEDIA: &str = "/powernode/vmlinuz";
/// Names of the kernel beside an initramfs.
const KERNEL: &str = "kernel";
/// A smaller file carries neither a root nor a kernel, bytes.
const SMALLEST_ROOT: u64 = 64;

/// A file or directory as [`super::open_path`] opens it.
pub type Opened = (Part, Option<Vec<Part>>);

/// Two artifacts compared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compared {
    /// The differences.
    pub found: Comparison,
    /// The same for people.
    pub overview: Overview,
}

/// Compares two artifacts. Of two different variants, or of two files of different formats that both carry a root, the root and the
/// kernel are compared instead of all bytes, which have nothing in common.
pub fn compare_artifacts(
    a: &Opened,
    b: &Opened,
    scratch: &SpoolDirectory,
    watch: Watch<'_>,
) -> Result<Compared, InspectError> {
    let (stated_a, stated_b) = (Stated::of(a.1.as_deref()), Stated::of(b.1.as_deref()));
    let other = stated_a
        .as_ref()
        .zip(stated_b.as_ref())
        .is_some_and(|(a, b)| a.target != b.target);
    if !other && !other_format(a, b, scratch) {
        let (of_a, of_b) = ((&a.0, a.1.as_deref()), (&b.0, b.1.as_deref()));
        let found = diff_watched(of_a, of_b, scratch, KEPT, watch)?;
        let overview = Overview::new(&found, stated_a.as_ref(), stated_b.as_ref(), true);
        return Ok(Compared { found, overview });
    }
    Shared {
        a,
        b,
        scratch,
        watch,
        found: Comparison::default(),
        notes: Vec::new(),
    }
    .compare(stated_a.as_ref(), stated_b.as_ref())
}

/// Whether both are files, of different formats.
fn other_format(a: &Opened, b: &Opened, scratch: &SpoolDirectory) -> bool {
    let single = |opened: &Opened| opened.1.is_none() && opened.0.kind == PartKind::File;
    if !single(a) || !single(b) || a.0.size.min(b.0.size) < SMALLEST_ROOT {
        return false;
    }
    let format = |part: &Part| part.format_of_beginning();
    format(&a.0) != format(&b.0) && root_of(a, scratch).is_some() && root_of(b, scratch).is_some()
}

/// The file of an artifact that carries its root, and the root.
fn root_of(opened: &Opened, scratch: &SpoolDirectory) -> Option<Part> {
    let one = std::slice::from_ref(&opened.0);
    let files = opened.1.as_deref().unwrap_or(one).iter();
    let statement = |part: &Part| STATEMENTS.contains(&part.name.as_str());
    let mut files = files.filter(|part| part.kind == PartKind::File && part.size >= SMALLEST_ROOT && !statement(part));
    files.find_map(|part| {
        let root = find_root(part.source(), &part.name, scratch).ok()?;
        open(root.image, "root.ext4").ok()
    })
}

/// The kernel of an artifact: a file of its own, or one on its media.
fn kernel_of(opened: &Opened, scratch: &SpoolDirectory) -> Option<Part> {
    let one = std::slice::from_ref(&opened.0);
    let files: Vec<&Part> = opened.1.as_deref().unwrap_or(one).iter().collect();
    let beside = files
        .iter()
        .find(|part| part.name == KERNEL && part.kind == PartKind::File);
    let source = match beside {
        Some(part) => Some(part.source().clone()),
        None => files
            .iter()
            .filter(|part| part.kind == PartKind::File && !STATEMENTS.contains(&part.name.as_str()))
            .filter(|part| part.size >= SMALLEST_ROOT)
            .find_map(|part| find_file(part.source(), &part.name, ON_MEDIA, scratch).ok()),
    };
    open(source?, KERNEL).ok()
}

/// The comparison of the parts that two variants share.
struct Shared<'a> {
    a: &'a Opened,
    b: &'a Opened,
    scratch: &'a SpoolDirectory,
    watch: Watch<'a>,
    found: Comparison,
    notes: Vec<String>,
}

impl Shared<'_> {
    fn compare(mut self, a: Option<&Stated>, b: Option<&Stated>) -> Result<Compared, InspectError> {
        let name = |opened: &Opened, stated: Option<&Stated>| match stated {
            Some(stated) => stated.target.to_string(),
            None => opened.0.name.clone(),
        };
        let (name_a, name_b) = (name(self.a, a), name(self.b, b));
        self.notes.push(format!(
            "{name_a} and {name_b} are different artifacts; root, kernel and command line are compared"
        ));
        // Two variants are never equal.
        let field = "variant".to_owned();
        let (of_a, of_b) = (Some(name_a.clone()), Some(name_b.clone()));
        self.found.total += 1;
        self.found.differences.push(Difference {
            path: Vec::new(),
            what: What::Field {
                field,
                a: of_a,
                b: of_b,
            },
            hint: None,
            structure: false,
        });
        let mut lacking = Vec::new();
        for (what, find) in [
            ("root", root_of as fn(&Opened, &SpoolDirectory) -> Option<Part>),
            ("kernel", kernel_of),
        ] {
            (self.watch)(&[what.to_owned()]);
            match (find(self.a, self.scratch), find(self.b, self.scratch)) {
                (Some(a), Some(b)) => {
                    let left = KEPT.saturating_sub(self.found.differences.len());
                    let found = diff_watched((&a, None), (&b, None), self.scratch, left, self.watch)?;
                    self.found.total += found.total;
                    self.found.differences.extend(found.differences);
                }
                (None, _) => lacking.push((what, name_a.clone())),
                (_, None) => lacking.push((what, name_b.clone())),
            }
        }
        for (what, name) in &lacking {
            self.notes
                .push(format!("{name} has no {what} that can be read as one file"));
        }
        let mut shared = self.found.clone();
        shared.differences.remove(0);
        shared.total -= 1;
        let mut overview = Overview::new(&shared, a, b, true);
        overview.total = self.found.total;
        overview.notes.splice(0..0, self.notes);
        overview.summary.retain(|aspect| aspect.name != "initramfs");
        for (what, _) in &lacking {
            overview.summary.retain(|aspect| aspect.name != *what);
            if let (Some(a), Some(b)) = (a, b) {
                let stated = if *what == "root" {
                    (&a.root, &b.root)
                } else {
                    (&a.kernel, &b.kernel)
                };
                overview.summary.push(by_statement(what, stated));
            }
        }
        if a.is_none() || b.is_none() {
            overview.equal_unless_listed(&lacking);
        }
        Ok(Compared {
            found: self.found,
            overview,
        })
    }
}

/// What the manifests say about a part that cannot be compared.
fn by_statement(name: &'static str, (a, b): (&String, &String)) -> Aspect {
    let equal = a == b;
    let text = match equal {
        true => format!("equal, as the manifests state ({a})"),
        false => format!("changed, as the manifests state ({a} -> {b})"),
    };
    Aspect {
        name,
        equal,
        text,
        counts: None,
    }
}

impl Overview {
    /// Adds the parts that were compared and are equal, where no manifest states them.
    fn equal_unless_listed(&mut self, lacking: &[(&str, String)]) {
        for name in ["root", "kernel"] {
            let known = self.summary.iter().any(|aspect| aspect.name == name);
            if !known && !lacking.iter().any(|(what, _)| *what == name) {
                self.summary.push(Aspect {
                    name,
                    equal: true,
                    text: "equal".to_owned(),
                    counts: None,
                });
            }
        }
    }
}
