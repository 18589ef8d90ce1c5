//! What must not matter, one by one.

use crate::{
    model::{Entry, Node, RelPath, VerityDigest},
    sandbox::{VARIATION_DIR, Variation},
};
use serde::{Serialize, Serializer};
use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

macro_rules! axes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $first:literal, $second:literal;)*) => {
        /// One thing about the variation of a build that no output may depend on.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Axis {
            $($(#[$doc])* $name,)*
        }

        impl Axis {
            /// Every axis, in the order they are tried and told.
            pub const ALL: &[Axis] = &[$(Axis::$name,)*];

            /// The name in options, tables and JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $(Axis::$name => $text,)* }
            }

            /// What it is in the first build, which is as every build.
            pub const fn first(self) -> &'static str {
                match self { $(Axis::$name => $first,)* }
            }

            /// What it is in the second.
            pub const fn second(self) -> &'static str {
                match self { $(Axis::$name => $second,)* }
            }
        }
    };
}

axes! {
    /// Date and time that programs are told.
    Clock = "clock", "the host's", "7 years, 5 months and some hours later (libfaketime)";
    /// Time zone.
    TimeZone = "time-zone", "UTC", "13 h 45 min east of it";
    /// Language, order of letters, form of numbers and dates.
    Locale = "locale", "C.UTF-8", "tr_TR.UTF-8";
    /// Host and domain name.
    HostName = "host-name", "pnb, no domain", "elsewhere, example.org";
    /// User and group id.
    Ids = "ids", "0, another range of the host's", "4321 where a stage has one id, another range of the host's";
    /// File mode creation mask.
    Umask = "umask", "022", "027";
    /// Home directory.
    Home = "home", "/homeless", "/nonexistent/some-one-else";
    /// Where a stage works, and where the store lies.
    BuildPath = "build-path", "/build, and the store's own path", "a path of 85 bytes, and a store with a longer one";
    /// What file system a stage works on.
    FileSystem = "file-system", "tmpfs", "the store's";
    /// In what order directories are listed.
    Listing = "listing", "the file system's", "shuffled";
    /// Number of processors, and which.
    Processors = "processors", "the first, as many as declared", "the last, one where several are declared, two where one is; stages one at a time";
    /// In what order stages run.
    JobOrder = "job-order", "that of the graph", "by chance, with a seed";
    /// Where programs lie in memory.
    Layout = "memory-layout", "different each time", "always the same";
    /// How much memory a stage may use.
    Memory = "memory-limit", "as declared, not seen by programs", "twice that, seen as a limit on data";
    /// Further variables of the environment.
    Environment = "environment", "none", "USER, LOGNAME, TERM, EDITOR, MAKEFLAGS and one without a meaning";
    /// What the kernel calls itself.
    Kernel = "kernel", "the host's version", "9.8.7-elsewhere";
    /// Whether files of inputs have other names too.
    Links = "links", "hard links to the store's files", "copies";
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Axis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A word that names no axis.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("vary {word:?}: there is no such axis (there are: {})", Axis::ALL.iter().map(|a| a.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownAxis {
    word: String,
}

impl FromStr for Axis {
    type Err = UnknownAxis;
    fn from_str(text: &str) -> Result<Self, UnknownAxis> {
        let found = Axis::ALL.iter().find(|axis| axis.as_str() == text).copied();
        found.ok_or_else(|| UnknownAxis { word: text.to_owned() })
    }
}

/// How far the clock is moved, in the words of libfaketime: whole days would leave the time of day alone.
const LATER: &str = "+234567890";
/// An instant at which the clock stands still, in the words of libfaketime.
const STANDING: &str = "2031-02-03 04:05:06";
/// Where a stage works.
const WORK_DIR: &str = "some-other-place/with-a-longer-name-than-the-usual-one/where-the-build-is-done-again";
/// The seed of orders that are made by chance. One that everybody has makes what it finds repeatable.
pub const SEED: u64 = 0x706e_6221;

/// Where the tree with the locale lies below [`VARIATION_DIR`].
pub const VARIATION_LOCALE: &str = "locale";

/// The content of libfaketime, if an entry of a tree is that, and where it lies below [`VARIATION_DIR`]: as the dynamic linker's `$LIB` says.
pub fn clock_library(path: &RelPath, entry: &Entry) -> Option<(VerityDigest, PathBuf)> {
    let directory = path.as_path().strip_prefix("usr").ok()?.parent()?;
    let ours = path.as_path().file_name()? == CLOCK_LIBRARY && directory.file_name()? == "faketime";
    match entry.node {
        Node::File { digest, .. } if ours => Some((digest, directory.parent()?.join(CLOCK_LIBRARY))),
        _ => None,
    }
}

const CLOCK_LIBRARY: &str = "libfaketime.so.1";
const LOCALE: &str = "tr_TR.UTF-8";

/// The variation in which `axes` are as in the second build. `files` is where the locale and the libraries lie. What the pipeline
/// does itself (file system, processors, order of jobs, links) is not among them.
pub fn variation(axes: &BTreeSet<Axis>, files: &Path) -> Variation {
    let mut all = Variation::default();
    for axis in axes {
        match axis {
            Axis::Clock => set_clock(&mut all, LATER, files),
            Axis::TimeZone => set(&mut all, &[("TZ", "<+1345>-13:45")]),
            Axis::Locale => {
                let path = format!("/{VARIATION_DIR}/{VARIATION_LOCALE}");
                set(&mut all, &[("LANG", LOCALE), ("LC_ALL", LOCALE), ("LOCPATH", &path)]);
                all.files = Some(files.to_owned());
            }
            Axis::HostName => all.names = Some(("elsewhere".to_owned(), "example.org".to_owned())),
            Axis::Ids => all.id = Some(4321),
            Axis::Umask => all.umask = Some(0o027),
            Axis::Home => set(&mut all, &[("HOME", "/nonexistent/some-one-else")]),
            Axis::BuildPath => all.work_dir = RelPath::new(WORK_DIR).ok(),
            Axis::Listing => all.shuffle = Some(SEED),
            Axis::Layout => all.fixed_layout = true,
            Axis::Memory => all.memory_factor = Some(2),
            Axis::Environment => set(
                &mut all,
                &[
                    ("USER", "someone"),
                    ("LOGNAME", "someone"),
                    ("TERM", "dumb"),
                    ("EDITOR", "/bin/ed"),
                    ("MAKEFLAGS", "-j17"),
                    ("CAUGHT_FROM_THE_ENVIRONMENT", "i-was-not-meant-to-be-seen"),
                ],
            ),
            Axis::Kernel => all.kernel = Some("9.8.7-elsewhere".to_owned()),
            Axis::FileSystem | Axis::Processors | Axis::JobOrder | Axis::Links => {}
        }
    }
    all
}

/// Variation in which an axis that differs from run to run by itself always is the same; none for the others.
pub fn standing_still(axis: Axis, files: &Path) -> Option<Variation> {
    let mut all = Variation::default();
    match axis {
        Axis::Clock => set_clock(&mut all, STANDING, files),
        Axis::Layout => all.fixed_layout = true,
        _ => return None,
    }
    Some(all)
}

fn set(all: &mut Variation, variables: &[(&str, &str)]) {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    all.env.extend(variables.iter().map(owned));
}

/// libfaketime of the architecture of each program: the dynamic linker fills in `$LIB`.
fn set_clock(all: &mut Variation, time: &str, files: &Path) {
    let library = format!("/{VARIATION_DIR}/$LIB/{CLOCK_LIBRARY}");
    set(
        all,
        &[
            ("LD_PRELOAD", &library),
            ("FAKETIME", time),
            // Times of files are the kernel's, and differ between two runs anyway.
            ("NO_FAKE_STAT", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            // No memory that is shared between processes: a sandbox has no place for it.
            ("FAKETIME_DISABLE_SHM", "1"),
        ],
    );
    all.files = Some(files.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Epoch, Meta};

    #[test]
    fn names_are_read_back_and_others_are_told_what_there_is() {
        for axis in Axis::ALL {
            assert_eq!(axis.as_str().parse(), Ok(*axis));
            assert_ne!(axis.first(), axis.second());
        }
        let err = "moon".parse::<Axis>().expect_err("no axis").to_string();
        assert!(err.contains("\"moon\"") && err.contains("clock, time-zone"), "{err}");
    }

    #[test]
    fn every_axis_changes_something_here_or_is_the_pipelines() {
        let ours = [Axis::FileSystem, Axis::Processors, Axis::JobOrder, Axis::Links];
        for axis in Axis::ALL {
            let changed = variation(&[*axis].into(), Path::new("/variation")) != Variation::default();
            assert_eq!(changed, !ours.contains(axis), "{axis}");
        }
    }

    #[test]
    fn a_library_lies_where_the_linker_of_its_architecture_looks() {
        let entry = |node| Entry {
            meta: Meta::root(0o644, Epoch::new(0)),
            node,
        };
        let digest = VerityDigest::new([7; 32]);
        let file = entry(Node::File { digest, size: 1 });
        let at = |path: &str, entry: &Entry| clock_library(&path.parse().expect("a path"), entry);
        for triplet in ["x86_64-linux-gnu", "aarch64-linux-gnu"] {
            let found = at(&format!("usr/lib/{triplet}/faketime/{CLOCK_LIBRARY}"), &file);
            assert_eq!(
                found,
                Some((digest, PathBuf::from(format!("lib/{triplet}/{CLOCK_LIBRARY}"))))
            );
        }
        assert_eq!(at("usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", &file), None);
        assert_eq!(at("usr/lib/x86_64-linux-gnu/faketime", &entry(Node::Directory)), None);
    }

    #[test]
    fn the_paths_are_as_long_as_is_said() {
        assert!(
            Axis::BuildPath
                .second()
                .contains(&format!("{} bytes", WORK_DIR.len() + 1))
        );
    }
}
