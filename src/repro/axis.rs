//! The axes: properties of the surroundings of a build that must not influence its outputs.

use crate::{
    model::{Entry, Node, RelPath, VerityDigest},
    sandbox::{SystemInfo, VARIATION_DIR, Variation},
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
        /// A property of the surroundings of a build on which no output may depend.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Axis {
            $($(#[$doc])* $name,)*
        }

        impl Axis {
            /// Every axis, in the order in which axes are tried and reported.
            pub const ALL: &[Axis] = &[$(Axis::$name,)*];

            /// The name in options, tables and JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $(Axis::$name => $text,)* }
            }

            /// Its value in the first build, which is that of every ordinary build.
            pub const fn first(self) -> &'static str {
                match self { $(Axis::$name => $first,)* }
            }

            /// Its value in the second build.
            pub const fn second(self) -> &'static str {
                match self { $(Axis::$name => $second,)* }
            }
        }
    };
}

axes! {
    /// Date and time that programs read.
    Clock = "clock", "the host's", "7 years, 5 months and some hours later (libfaketime)";
    /// Time zone.
    TimeZone = "time-zone", "UTC", "13 h 45 min east of it";
    /// Language, collation, and the form of numbers and dates.
    Locale = "locale", "C.UTF-8", "tr_TR.UTF-8";
    /// Host and domain name.
    HostName = "host-name", "pnb, no domain", "elsewhere, example.org";
    /// User and group id.
    Ids = "ids", "0, another range of the host's", "4321 where a stage has one id, another range of the host's";
    /// File mode creation mask.
    Umask = "umask", "022", "027";
    /// Home directory.
    Home = "home", "/homeless", "/nonexistent/some-one-else";
    /// Paths of the build directory and of the store.
    BuildPath = "build-path", "/build, and the store's own path", "a path of 85 bytes, and a store with a longer one";
    /// File system of the build directory.
    FileSystem = "file-system", "tmpfs", "the store's";
    /// Order of the entries of a directory.
    Listing = "listing", "the file system's", "shuffled";
    /// Number and choice of processors.
    Processors = "processors", "the first, as many as declared", "the last, one where several are declared, two where one is; stages one at a time";
    /// Order in which stages run.
    JobOrder = "job-order", "that of the graph", "by chance, with a seed";
    /// Memory addresses of programs.
    Layout = "memory-layout", "different each time", "always the same";
    /// Memory limit of a stage.
    Memory = "memory-limit", "as declared, not seen by programs", "twice that, seen as a limit on data";
    /// Additional environment variables.
    Environment = "environment", "none", "USER, LOGNAME, TERM, EDITOR, MAKEFLAGS and one without a meaning";
    /// Version of the kernel, as it reports it.
    Kernel = "kernel", "the host's version", "9.8.7-elsewhere";
    /// The machine as sysinfo(2) describes it.
    Machine = "machine", "up for an hour, with the stage's memory", "up for a year, with load and 96 GiB of memory";
    /// File system of inputs, as statfs(2) and stat(2) describe it.
    Inputs = "inputs", "4 MiB, as an overlay numbers files", "7 MiB, other device and inode numbers";
    /// Number of hard links of input files.
    Links = "links", "1", "2 or more: hard links to the store's files";
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

/// A word that is not the name of an axis.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("vary {word:?}: no such axis (known axes: {})", Axis::ALL.iter().map(|a| a.as_str()).collect::<Vec<_>>().join(", "))]
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

/// Offset of the clock, in libfaketime's notation. It is no number of whole days, so the time of day changes too.
const LATER: &str = "+234567890";
/// The time of a clock that stands still, in libfaketime's notation.
const STANDING: &str = "2031-02-03 04:05:06";
/// Path of the varied build directory.
const WORK_DIR: &str = "some-other-place/with-a-longer-name-than-the-usual-one/where-the-build-is-done-again";
/// Seed of random orders. It is fixed, so that a difference it causes can be repeated.
pub const SEED: u64 = 0x706e_6221;

/// Path of the tree with the locale, below [`VARIATION_DIR`].
pub const VARIATION_LOCALE: &str = "locale";

/// For the entry of a tree that is libfaketime: its content, and its path below [`VARIATION_DIR`], as the dynamic linker's `$LIB`
/// requires it.
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

/// The variation of the sandbox in which `axes` have the values of the second build. `files` is the directory with the locale and the
/// libraries. Axes that the pipeline varies itself (file system, processors, order of jobs, links) are not included.
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
            Axis::Machine => {
                all.machine = Some(SystemInfo {
                    uptime: 31_557_600,
                    load: 5 << 16,
                    memory: (96 << 30, 7 << 30),
                    processes: 1234,
                });
            }
            Axis::Inputs => all.other_inputs = true,
            Axis::Kernel => all.kernel = Some("9.8.7-elsewhere".to_owned()),
            Axis::FileSystem | Axis::Processors | Axis::JobOrder | Axis::Links => {}
        }
    }
    all
}

/// The variation that holds an axis fixed, for axes that otherwise differ from run to run; `None` for other axes.
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

/// Loads libfaketime into every program; the dynamic linker replaces `$LIB` by the directory of the program's architecture.
fn set_clock(all: &mut Variation, time: &str, files: &Path) {
    let library = format!("/{VARIATION_DIR}/$LIB/{CLOCK_LIBRARY}");
    set(
        all,
        &[
            ("LD_PRELOAD", &library),
            ("FAKETIME", time),
            // Times of files come from the kernel and differ between two runs anyway.
            ("NO_FAKE_STAT", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            // libfaketime must not use shared memory, because a sandbox has none.
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
