//! The solver against the pinned apt-get, over two suites that are alike, and one that is not automatic.

#[path = "fixture/apt.rs"]
mod apt;
#[path = "fixture/tools.rs"]
mod tools;

use apt::apt_get;
use pnb::{
    debian::Automatic,
    lock::{ArchiveRank, Index, IndexScope, WantedSet, resolve},
    model::{Arch, NodeId, Sha256Digest},
};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeSet, fmt::Write as _, fs};

/// A package of a suite: name, version, and further fields separated by `;`.
type Line = (&'static str, &'static str, &'static str);

/// The suite of a release.
const RELEASE: &[Line] = &[
    ("libc", "2.41-1", "Multi-Arch: same"),
    (
        "base",
        "1",
        "Essential: yes; Priority: required; Depends: libc, shell | dash; Architecture: all",
    ),
    (
        "dash",
        "0.5",
        "Essential: yes; Priority: required; Pre-Depends: libc; Provides: shell",
    ),
    ("mawk", "1.3", "Priority: required; Provides: awk; Depends: libc"),
    ("gawk", "5.2", "Provides: awk; Depends: libc"),
    ("original-awk", "2", "Provides: awk; Depends: libc"),
    (
        "exim4",
        "4.98-1",
        "Provides: default-mta, mail-transport-agent; Conflicts: mail-transport-agent; Depends: libc",
    ),
    (
        "postfix",
        "3.9-1",
        "Provides: mail-transport-agent; Conflicts: mail-transport-agent; Depends: libc, cron-daemon",
    ),
    (
        "nullmailer",
        "2.2-1",
        "Provides: mail-transport-agent; Conflicts: mail-transport-agent; Depends: libc",
    ),
    (
        "cron",
        "3.0-1",
        "Provides: cron-daemon (= 3.0); Depends: libc; Recommends: default-mta | mail-transport-agent",
    ),
    (
        "systemd-cron",
        "2.5-1",
        "Provides: cron-daemon; Conflicts: cron; Depends: libc",
    ),
    ("mailer", "1", "Depends: default-mta | mail-transport-agent"),
    ("mailer-any", "1", "Depends: mail-transport-agent"),
    (
        "perl",
        "5.40.0-1",
        "Provides: libtemp-perl (= 0.2311), perlapi-5.40; Multi-Arch: allowed; Depends: libc, perl-base (= 5.40.0-1)",
    ),
    (
        "perl-base",
        "5.40.0-1",
        "Essential: yes; Priority: required; Pre-Depends: libc",
    ),
    ("libtemp-perl", "0.22-1", "Depends: perl:any"),
    ("needs-temp", "1", "Depends: libtemp-perl (>= 0.231)"),
    ("needs-old-temp", "1", "Depends: libtemp-perl (<< 0.23)"),
    ("needs-api", "1", "Depends: perlapi-5.40, perl:any (>= 5.40)"),
    ("libssl", "3.5.0-1", "Multi-Arch: same; Depends: libc (>= 2.40)"),
    ("openssl", "3.5.0-1", "Depends: libssl (= 3.5.0-1)"),
    ("needs-new-ssl", "1", "Depends: libssl (>= 3.5.1)"),
    ("needs-old-ssl", "1", "Depends: libssl (<< 3.5.1)"),
    ("web", "1", "Depends: missing | httpd-cgi, openssl"),
    ("lighttpd", "1.4", "Provides: httpd, httpd-cgi; Depends: libssl"),
    (
        "nginx",
        "1.26",
        "Provides: httpd, httpd-cgi; Depends: libssl, nginx-common (>= 1.26)",
    ),
    ("nginx-common", "1.26", "Architecture: all"),
    ("breaks-nginx", "1", "Breaks: nginx (<< 2); Depends: httpd"),
    ("either", "1", "Depends: gone (>= 2) | libnew | libc"),
    ("ring-a", "1", "Depends: ring-b"),
    ("ring-b", "1", "Depends: ring-a, awk"),
    (
        "jre",
        "21",
        "Provides: java8-runtime-headless, java-runtime-headless (= 21); Depends: libc",
    ),
    (
        "needs-java",
        "1",
        "Depends: java-runtime-headless (>= 17) | java8-runtime-headless",
    ),
    ("needs-much", "1", "Depends: absent"),
    ("tool", "1.0", "Depends: libc"),
];

/// Its security suite: newer versions, and packages of its own.
const SECURITY: &[Line] = &[
    (
        "exim4",
        "4.98-1+deb13u1",
        "Provides: default-mta, mail-transport-agent; Conflicts: mail-transport-agent; Depends: libc, libnew",
    ),
    (
        "perl",
        "5.40.0-1+deb13u1",
        "Provides: libtemp-perl (= 0.2311), perlapi-5.40; Multi-Arch: allowed; Depends: libc, perl-base (= 5.40.0-1+deb13u1)",
    ),
    (
        "perl-base",
        "5.40.0-1+deb13u1",
        "Essential: yes; Priority: required; Pre-Depends: libc",
    ),
    ("libssl", "3.5.1-1", "Multi-Arch: same; Depends: libc (>= 2.40)"),
    ("openssl", "3.5.1-1", "Depends: libssl (= 3.5.1-1)"),
    ("libnew", "1", "Depends: libc"),
    (
        "nginx",
        "1.26+deb13u1",
        "Provides: httpd, httpd-cgi; Depends: libssl, nginx-common (>= 1.26)",
    ),
    ("mawk", "1.2", "Priority: required; Provides: awk; Depends: libc"),
];

/// A suite with `NotAutomatic: yes`: taken where no other suite has the package.
const BACKPORTS: &[Line] = &[
    ("tool", "2.0~bpo13+1", "Depends: libc"),
    ("openssl", "4.0~bpo13+1", "Depends: libc"),
    ("only-there", "1~bpo13+1", "Depends: tool"),
];

/// A flat archive: name, architecture, version, further fields.
const FLAT: &[(&str, &str, &str, &str)] = &[
    ("driver", "arm64", "9", "Depends: absent\n"),
    ("driver", "amd64", "2", "Depends: libc, driver-data\n"),
    ("driver", "amd64", "1", "Depends: libc\n"),
    ("driver-data", "all", "2", ""),
    ("nginx", "amd64", "2.0", "Depends: libc\n"),
];

/// What is asked for, each on an empty system.
const WANTS: [&str; 28] = [
    "driver",
    "nginx driver",
    "base dash perl-base",
    "mailer",
    "mailer-any",
    "cron",
    "postfix",
    "postfix cron",
    "postfix systemd-cron",
    "systemd-cron mailer",
    "needs-temp",
    "needs-old-temp",
    "needs-api",
    "openssl",
    "needs-new-ssl",
    "needs-old-ssl",
    "web",
    "web lighttpd",
    "web nginx",
    "breaks-nginx",
    "either",
    "ring-a",
    "ring-a gawk",
    "needs-java",
    "needs-much",
    "tool",
    "only-there",
    "mailer postfix",
];

/// The release file of a flat archive without a suite.
fn flat_release(packages: &str) -> String {
    let sha256 = Sha256Digest::new(Sha256::digest(packages).into());
    let size = packages.len();
    format!("Date: Sat, 21 Nov 2026 09:15:44 UTC\nSHA256:\n {sha256} {size} Packages\n")
}

/// The text of `Packages`.
fn packages(lines: &[Line]) -> String {
    let mut text = String::new();
    for (name, version, fields) in lines {
        let fields: Vec<&str> = fields
            .split(';')
            .map(str::trim)
            .filter(|field| !field.is_empty())
            .collect();
        write!(text, "Package: {name}\nVersion: {version}\n").expect("written");
        if !fields.iter().any(|field| field.starts_with("Architecture:")) {
            text.push_str("Architecture: amd64\n");
        }
        if !fields.iter().any(|field| field.starts_with("Priority:")) {
            text.push_str("Priority: optional\n");
        }
        for field in fields {
            writeln!(text, "{field}").expect("written");
        }
        let digest = "00".repeat(32);
        writeln!(text, "Filename: pool/{name}_{version}.deb\nSize: 1\nSHA256: {digest}\n").expect("written");
    }
    text
}

#[test]
fn the_solver_picks_what_apt_get_picks_over_several_suites() {
    let directory = tempfile::tempdir().expect("scratch");
    let repository = directory.path().join("repo");
    let mut index = Index::new(Arch::Amd64);
    let backports = ArchiveRank {
        default: true,
        automatic: Automatic::Never,
    };
    let suites = [
        ("release", RELEASE, ArchiveRank::USUAL, ""),
        ("security", SECURITY, ArchiveRank::USUAL, ""),
        ("backports", BACKPORTS, backports, "NotAutomatic: yes\n"),
    ];
    // A flat archive, with an index for several architectures, and names as dpkg-scanpackages writes them in its directory.
    let flat: String = FLAT.iter().map(|(name, arch, version, fields)| {
        let digest = "00".repeat(32);
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: {arch}\nPriority: optional\n{fields}Filename: ./{name}_{version}.deb\n\
             Size: 1\nSHA256: {digest}\n\n"
        )
    }).collect();
    fs::create_dir_all(repository.join("flat")).expect("made");
    fs::write(repository.join("flat/Packages"), &flat).expect("written");
    fs::write(repository.join("flat/Release"), flat_release(&flat)).expect("written");
    for (suite, lines, rank, head) in suites {
        let text = packages(lines);
        let place = repository.join("dists").join(suite);
        fs::create_dir_all(place.join("main/binary-amd64")).expect("made");
        fs::write(place.join("main/binary-amd64/Packages"), &text).expect("written");
        fs::write(place.join("Release"), apt::release(suite, head, &text)).expect("written");
        index
            .read(suite, rank, text.as_bytes(), "Packages", IndexScope::OneArchitecture)
            .expect("well-formed");
    }
    let scope = IndexScope::AllArchitectures;
    let read = index.read("flat", ArchiveRank::USUAL, flat.as_bytes(), "Packages", scope);
    read.expect("well-formed");
    let asked = WANTS.map(|names| names.split(' ').collect::<Vec<_>>());
    let theirs = apt_get(
        &repository,
        &["release main", "security main", "backports main", "flat/"],
        &asked,
    );
    let (mut refused, mut problems) = (0, Vec::new());
    for (names, theirs) in WANTS.into_iter().zip(theirs) {
        let wanted = WantedSet {
            node: NodeId::new("test", Arch::Amd64),
            names: names.split(' ').map(str::to_owned).collect(),
            essential: false,
            closure: true,
        };
        // Where apt-get refuses, the solver does. The suite that is not automatic counts where no other has the package.
        let picked = resolve(&index, &wanted).unwrap_or_default();
        let picked: BTreeSet<String> = picked
            .into_iter()
            .map(|id| format!("{}={}", index.package(id).name, index.package(id).version))
            .collect();
        refused += usize::from(theirs.is_empty());
        if picked != theirs {
            problems.push(format!("{names}:\n  pnb {picked:?}\n  apt {theirs:?}"));
        }
    }
    assert!((2..8).contains(&refused), "apt refuses {refused} of them");
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}
