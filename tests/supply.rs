//! pnb's own supply chain: the record in `supply-chain/` against `Cargo.lock` and cargo, and what `.ci/advisories` makes of an answer.
//!
//! `docs/supply-chain.md` says what the record is. cargo-vet reads the same files; it does not know which crates run at build time.

#[path = "fixture/tools.rs"]
mod tools;

use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

/// The systems for which pnb is compiled.
const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];
/// What a crate does at build time, as cargo tells it.
const AT_BUILD_TIME: [&str; 3] = ["script", "macro", "build-library"];
/// What the record says beside that about the code that runs or is compiled.
const BUILD_DETAILS: [&str; 2] = ["runs-programs", "c-code"];
/// Where the bytes come from.
const PARSERS: [&str; 8] = [
    "archives", "images", "network", "openpgp", "git", "text", "terminal", "hashes",
];

/// Name and version of a crate.
type Crate = (String, String);

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).expect(file)
}

/// What cargo prints. It has no network, unless a crate of the lock was never fetched: compiling pnb does not need those of other systems.
fn cargo(arguments: &[&str]) -> String {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command
            .args(arguments)
            .arg("--locked")
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        command.output().expect("cargo starts")
    };
    let offline = [arguments, &["--offline"]].concat();
    let mut done = run(&offline);
    if !done.status.success() {
        let fetched = run(&["fetch"]);
        assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
        done = run(&offline);
    }
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "cargo {arguments:?}: {said}");
    String::from_utf8(done.stdout).expect("UTF-8")
}

/// The crates of `Cargo.lock` that come from a registry.
fn locked() -> BTreeSet<Crate> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
        source: Option<String>,
    }
    let lock: Lock = toml::from_str(&read("Cargo.lock")).expect("TOML");
    let foreign = lock.package.into_iter().filter(|p| p.source.is_some());
    foreign.map(|p| (p.name, p.version)).collect()
}

/// What each foreign crate does at build time, as cargo describes the crates of all systems.
fn at_build_time() -> BTreeMap<Crate, BTreeSet<&'static str>> {
    let text = cargo(&["metadata", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&text).expect("JSON");
    let list = |value: &Value| value.as_array().expect("an array").clone();
    let word = |value: &Value| value.as_str().expect("a string").to_owned();
    let mut found: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    for package in list(&metadata["packages"]) {
        for target in list(&package["targets"]) {
            let kinds = list(&target["kind"]);
            for (kind, ours) in [("custom-build", "script"), ("proc-macro", "macro")] {
                if kinds.iter().any(|k| k == kind) {
                    found.entry(word(&package["id"])).or_default().insert(ours);
                }
            }
        }
    }
    // The libraries of scripts and macros: what a build dependency or a macro needs in turn.
    let nodes = list(&metadata["resolve"]["nodes"]);
    let needs = |node: &Value, wanted: &Value| -> Vec<String> {
        let deps = list(&node["deps"]);
        let of_kind = deps
            .iter()
            .filter(|dep| list(&dep["dep_kinds"]).iter().any(|k| k["kind"] == *wanted));
        of_kind.map(|dep| word(&dep["pkg"])).collect()
    };
    let build = Value::from("build");
    let mut open: Vec<String> = nodes.iter().flat_map(|node| needs(node, &build)).collect();
    let is_macro = |id: &String| found.get(id).is_some_and(|kinds| kinds.contains("macro"));
    let macros: Vec<String> = found.keys().filter(|id| is_macro(id)).cloned().collect();
    open.extend(macros.iter().cloned());
    let by_id: BTreeMap<String, &Value> = nodes.iter().map(|node| (word(&node["id"]), node)).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id.clone()) {
            open.extend(needs(by_id[&id], &Value::Null));
        }
    }
    for id in seen.into_iter().filter(|id| !macros.contains(id)) {
        found.entry(id).or_default().insert("build-library");
    }
    let packages = list(&metadata["packages"]);
    let foreign = packages.iter().filter(|p| !p["source"].is_null());
    foreign
        .map(|p| {
            let kinds = found.remove(&word(&p["id"])).unwrap_or_default();
            ((word(&p["name"]), word(&p["version"])), kinds)
        })
        .collect()
}

/// The files of `supply-chain/`, as cargo-vet writes them.
#[derive(Clone)]
struct Record {
    /// The criteria, and the groups that the first line of the notes names.
    audits: BTreeMap<Crate, (BTreeSet<String>, BTreeSet<String>)>,
    exemptions: BTreeSet<Crate>,
}

fn record() -> Record {
    #[derive(Deserialize)]
    struct Audits {
        audits: BTreeMap<String, Vec<Audit>>,
    }
    #[derive(Deserialize)]
    struct Audit {
        criteria: Criteria,
        version: String,
        notes: String,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Criteria {
        One(String),
        Several(BTreeSet<String>),
    }
    #[derive(Deserialize)]
    struct Config {
        exemptions: BTreeMap<String, Vec<Exemption>>,
    }
    #[derive(Deserialize)]
    struct Exemption {
        version: String,
    }
    let audits: Audits = toml::from_str(&read("supply-chain/audits.toml")).expect("TOML");
    let config: Config = toml::from_str(&read("supply-chain/config.toml")).expect("TOML");
    let mut record = Record {
        audits: BTreeMap::new(),
        exemptions: BTreeSet::new(),
    };
    for (name, entries) in audits.audits {
        for Audit {
            criteria,
            version,
            notes,
        } in entries
        {
            let mut lines = notes.trim().lines();
            let groups = lines
                .next()
                .and_then(|line| line.strip_prefix("Groups: "))
                .unwrap_or("");
            let groups = groups.trim_end_matches('.').split(", ").map(str::to_owned).collect();
            assert!(
                lines.count() >= 2,
                "{name} {version}: the notes say nothing about what was seen"
            );
            let criteria = match criteria {
                Criteria::One(one) => BTreeSet::from([one]),
                Criteria::Several(several) => several,
            };
            let twice = record.audits.insert((name.clone(), version), (criteria, groups));
            assert!(twice.is_none(), "{name}: two audits of one version");
        }
    }
    for (name, entries) in config.exemptions {
        record
            .exemptions
            .extend(entries.into_iter().map(|e| (name.clone(), e.version)));
    }
    record
}

/// Where the record does not fit the lock and what cargo says.
fn problems(locked: &BTreeSet<Crate>, kinds: &BTreeMap<Crate, BTreeSet<&'static str>>, record: &Record) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, version) in locked {
        let key = (name.clone(), version.clone());
        let audit = record.audits.get(&key);
        let exempted = record.exemptions.contains(&key);
        let of_cargo = kinds.get(&key).cloned().unwrap_or_default();
        if audit.is_none() && !of_cargo.is_empty() {
            problems.push(format!(
                "{name} {version} runs at build time ({of_cargo:?}) and has no audit"
            ));
        } else if audit.is_none() && !exempted {
            problems.push(format!("{name} {version} has neither an audit nor an exemption"));
        }
        if audit.is_some() && exempted {
            problems.push(format!("{name} {version} has an audit and an exemption"));
        }
        let parses = |of: &Crate| {
            record
                .audits
                .get(of)
                .is_some_and(|(c, _)| c.contains("parses-foreign-bytes"))
        };
        if audit.is_none() && record.audits.keys().any(|other| other.0 == *name && parses(other)) {
            problems.push(format!(
                "{name} {version} has no audit, but another version parses foreign bytes"
            ));
        }
    }
    for key in record
        .audits
        .keys()
        .chain(&record.exemptions)
        .filter(|key| !locked.contains(*key))
    {
        problems.push(format!("{} {} is in the record and not in Cargo.lock", key.0, key.1));
    }
    for ((name, version), (criteria, groups)) in &record.audits {
        let mut expected = BTreeSet::new();
        for group in groups {
            if PARSERS.contains(&group.as_str()) {
                expected.insert("parses-foreign-bytes".to_owned());
            } else if AT_BUILD_TIME.contains(&group.as_str()) {
                expected.insert("runs-at-build-time".to_owned());
            } else if !BUILD_DETAILS.contains(&group.as_str()) {
                problems.push(format!("{name} {version}: no group is called {group:?}"));
            }
        }
        if *criteria != expected {
            problems.push(format!(
                "{name} {version}: criteria {criteria:?}, the groups mean {expected:?}"
            ));
        }
        let of_record: BTreeSet<&str> = groups
            .iter()
            .map(String::as_str)
            .filter(|g| AT_BUILD_TIME.contains(g))
            .collect();
        let of_cargo = kinds.get(&(name.clone(), version.clone())).cloned().unwrap_or_default();
        if of_record != of_cargo {
            problems.push(format!(
                "{name} {version}: the record says {of_record:?}, cargo {of_cargo:?}"
            ));
        }
    }
    problems
}

#[test]
fn every_crate_of_the_lock_is_in_the_record() {
    let (locked, kinds, record) = (locked(), at_build_time(), record());
    assert!(locked.len() > 200, "only {} crates were found", locked.len());
    let found = problems(&locked, &kinds, &record);
    assert!(
        found.is_empty(),
        "\n{}\ndocs/supply-chain.md says how an entry is made",
        found.join("\n")
    );

    // Whatever entry is lost, or left behind by a new version, is noticed; here each one in turn.
    for (name, version) in &locked {
        let key = (name.clone(), version.clone());
        let mut lost = record.clone();
        lost.audits.remove(&key);
        lost.exemptions.remove(&key);
        let found = problems(&locked, &kinds, &lost);
        let named = found.iter().any(|p| p.starts_with(&format!("{name} {version} ")));
        assert!(named, "{name} {version} was lost, and the problems are {found:?}");

        let mut updated = locked.clone();
        updated.remove(&key);
        updated.insert((name.clone(), format!("{version}-next")));
        let found = problems(&updated, &kinds, &record);
        for version in [version, &format!("{version}-next")] {
            let named = found.iter().any(|p| p.starts_with(&format!("{name} {version} ")));
            assert!(named, "{name} was updated, and the problems are {found:?}");
        }
    }
}

#[test]
fn an_exemption_cannot_stand_in_for_an_audit() {
    let (locked, kinds, record) = (locked(), at_build_time(), record());
    let builds = kinds.iter().filter(|(_, kinds)| !kinds.is_empty());
    let mut seen = 0;
    for (key, _) in builds {
        let mut weaker = record.clone();
        weaker.audits.remove(key);
        weaker.exemptions.insert(key.clone());
        let found = problems(&locked, &kinds, &weaker);
        assert!(
            found.iter().any(|p| p.contains(" runs at build time ")),
            "{key:?}: {found:?}"
        );
        seen += 1;
    }
    assert!(seen > 80, "only {seen} crates run at build time");
}

/// The crates that cargo would compile with `edges` for a target, without pnb.
fn compiled(edges: &str) -> BTreeSet<Crate> {
    let mut found = BTreeSet::new();
    for target in TARGETS {
        let tree = [
            "tree",
            "--edges",
            edges,
            "--target",
            target,
            "--prefix",
            "none",
            "--no-dedupe",
        ];
        let text = cargo(&tree);
        for line in text.lines().filter(|line| !line.starts_with("pnb ")) {
            let mut words = line.split(' ');
            if let (Some(name), Some(version)) = (words.next(), words.next()) {
                let version = version.strip_prefix('v').expect("a version");
                found.insert((name.to_owned(), version.to_owned()));
            }
        }
    }
    found
}

/// The rows of the tables in `docs/supply-chain.md`: group, what it is, in pnb, in tests only, on other systems only, the crates.
#[test]
fn the_document_counts_what_the_record_holds() {
    let record = record();
    let shipped = compiled("normal,build");
    let tested = compiled("normal,build,dev");
    let document = read("docs/supply-chain.md");
    let prose = document.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut problems = Vec::new();
    for group in AT_BUILD_TIME.iter().chain(&BUILD_DETAILS).chain(&PARSERS) {
        let in_group = record.audits.iter().filter(|(_, (_, groups))| groups.contains(*group));
        let (mut counts, mut names) = ([0; 3], BTreeSet::new());
        for (key, _) in in_group {
            let place = match (shipped.contains(key), tested.contains(key)) {
                (true, _) => 0,
                (false, true) => 1,
                (false, false) => 2,
            };
            counts[place] += 1;
            names.insert(&key.0);
        }
        let [shipped, tests, elsewhere] = counts;
        let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
        let end = format!(" | {shipped} | {tests} | {elsewhere} | {} |", names.join(", "));
        let begin = format!("| {group} | ");
        let row = document.lines().find(|line| line.starts_with(&begin));
        if !row.is_some_and(|row| row.ends_with(&end)) {
            problems.push(format!("{begin}…{end}"));
        }
    }
    let total = format!(
        "{} crates, of which {} are compiled into pnb or run while it is compiled, {} are for tests only",
        locked().len(),
        shipped.len(),
        tested.difference(&shipped).count()
    );
    if !prose.contains(&total) {
        problems.push(total);
    }
    let total = format!(
        "{} have an audit, {} an exemption",
        record.audits.len(),
        record.exemptions.len()
    );
    if !prose.contains(&total) {
        problems.push(total);
    }
    assert!(
        problems.is_empty(),
        "docs/supply-chain.md lacks these rows or sentences:\n{}",
        problems.join("\n")
    );
}

/// One run of `.ci/advisories`.
struct Run {
    case: &'static str,
    /// Status of `cargo deny fetch db`.
    fetch: u8,
    /// Time of the newest entry of each earlier copy, as a word of the shell.
    copies: &'static [&'static str],
    /// What `cargo deny check` (0.20.2) prints, and its status.
    said: &'static str,
    status: u8,
    /// The end of what the script prints, and its status; `TODAY` stands for a date at the end of a line.
    expected: &'static str,
}

const NOW: &str = "$(date +%s)";
const OLD: &str = "1763586695";
const NONE_APPLIES: &str = "advisories ok";
const ONE_APPLIES: &str = "error[vulnerability]: A made-up advisory\n    ┌─ Cargo.lock:143:1\n\nadvisories FAILED";

const RUNS: [Run; 8] = [
    Run {
        case: "fetched, none applies",
        fetch: 0,
        copies: &[],
        said: NONE_APPLIES,
        status: 0,
        expected: "advisories: none applies, by the database fetched just now\nstatus 0\n",
    },
    Run {
        case: "fetched, one applies",
        fetch: 0,
        copies: &[OLD],
        said: ONE_APPLIES,
        status: 1,
        expected: "advisories: an advisory applies, by the database fetched just now\nstatus 1\n",
    },
    Run {
        case: "no network, a new copy, none applies",
        fetch: 1,
        copies: &[NOW],
        said: NONE_APPLIES,
        status: 0,
        expected: "advisories: none applies, by a copy of the database whose newest entry is of TODAY\nstatus 0\n",
    },
    Run {
        case: "no network, a new copy, one applies",
        fetch: 1,
        copies: &[NOW],
        said: ONE_APPLIES,
        status: 1,
        expected: "advisories: an advisory applies, by a copy of the database whose newest entry is of TODAY\nstatus 1\n",
    },
    // cargo-deny takes the copy for a new one, because git renews the time of the last fetch although the fetch fails.
    Run {
        case: "no network, an old copy",
        fetch: 1,
        copies: &[OLD],
        said: NONE_APPLIES,
        status: 0,
        expected: "advisories: not checked: the database cannot be fetched, and the newest entry of the copy is of 2025-11-19, \
                   more than 7 days ago; run this again with a network\nstatus 3\n",
    },
    Run {
        case: "no network, two copies, of which one is old",
        fetch: 1,
        copies: &[NOW, OLD],
        said: NONE_APPLIES,
        status: 0,
        expected: "of 2025-11-19, more than 7 days ago; run this again with a network\nstatus 3\n",
    },
    Run {
        case: "no network, no copy",
        fetch: 1,
        copies: &[],
        said: NONE_APPLIES,
        status: 0,
        expected: "advisories: not checked: the database cannot be fetched, and there is no earlier copy; \
                   run this again with a network\nstatus 3\n",
    },
    Run {
        case: "cargo-deny does not get so far",
        fetch: 0,
        copies: &[],
        said: "2026-11-29 21:11:39 [ERROR] failed to parse config from 'deny.toml': unexpected eof encountered",
        status: 1,
        expected: "advisories: not checked: cargo-deny ended with status 1\nstatus 3\n",
    },
];

#[test]
fn advisories_that_were_not_checked_are_no_advisories_that_do_not_apply() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/advisories");
    for run in RUNS {
        let Run {
            fetch, said, status, ..
        } = run;
        let mut stub = format!(
            "mkdir bin cargo
cat >said <<'END'\n{said}\nEND
cat >bin/cargo <<'END'
#!/bin/sh
case \"$*\" in
    'deny --locked --color never fetch db') exit {fetch} ;;
    'deny --locked --offline --color never check advisories') cat /build/said; exit {status} ;;
    *) echo \"cargo $*\"; exit 99 ;;
esac
END
cat >bin/git <<'END'
#!/bin/sh
[ \"$1 $3 $4 $5 $6\" = '--git-dir show -s --format=%ct HEAD' ] && exec cat \"$2/time\"
END
chmod +x bin/cargo bin/git
"
        );
        for (number, time) in run.copies.iter().enumerate() {
            let copy = format!("cargo/advisory-dbs/advisory-db-{number}/.git");
            stub.push_str(&format!("mkdir -p {copy}\necho {time} >{copy}/time\n"));
        }
        stub.push_str(
            "status=0
CARGO_HOME=/build/cargo PATH=/build/bin:$PATH TMPDIR=/build sh /inputs/0 >log 2>&1 || status=$?
echo \"status $status\" >>log
sed 's/ of [-0-9]*$/ of TODAY/' log",
        );
        let (printed, _) = tools::check(&[&script], &stub);
        assert!(printed.ends_with(run.expected), "{}: {printed}", run.case);
    }
}
