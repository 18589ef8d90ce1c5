//! What is asked of artifacts beyond being what they claim to be: each rule of a policy kept and broken, policies that cannot be
//! read, and what a record says of building twice.

mod fixture;

use fixture::{artifact, facts, lock, record, root_image, write_all};
use pnb::{
    audit::{ArtifactRoot, AuditError, AuditOptions, AuditReport, Class, Policy, audit},
    lock::Distribution,
    manifest::{AgentKind, BuildRecord, Manifest, RECORD_FILE, Reproducibility, Statements, Varied},
    model::Arch,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const KEY: &str = "0123456789ABCDEF0123456789ABCDEF01234567";

/// A statement of what building twice showed.
fn twice() -> Reproducibility {
    let varied = |first: &str, second: &str| Varied {
        first: first.to_owned(),
        second: second.to_owned(),
    };
    Reproducibility {
        varied: BTreeMap::from([
            ("clock".to_owned(), varied("now", "later")),
            ("umask".to_owned(), varied("022", "027")),
        ]),
        not_varied: BTreeMap::from([("processors".to_owned(), "there is one".to_owned())]),
        host: pnb::manifest::Host {
            name: "builder".to_owned(),
            kernel: "Linux 6.18.0 #1 SMP".to_owned(),
            arch: Arch::Amd64,
            cpus: 1,
        },
        finished: 1_800_000_200,
        outputs: 4,
        equal: true,
    }
}

/// Writes a whole artifact to `dir` as the changes made manifest and record.
fn write(dir: &Path, change: impl FnOnce(&mut Manifest), said: impl FnOnce(&mut BuildRecord)) {
    let (image, root) = root_image();
    let files = artifact(image, format!("{root}\n").as_bytes());
    let lock = lock();
    let mut manifest = Statements::describe(&facts(&lock, *root, &files))
        .expect("whole facts")
        .manifest;
    change(&mut manifest);
    let statements = Statements::of(manifest).expect("writable");
    fs::create_dir_all(dir).expect("made");
    write_all(dir, &files, &statements);
    let mut record = record(&statements.manifest, statements.manifest_sha256);
    said(&mut record);
    fs::write(dir.join(RECORD_FILE), record.to_json().expect("integers only")).expect("written");
}

/// Every check of the artifact in `dir`, under the policy in `text`, whether it holds or not.
fn checks(dir: &Path, text: &str) -> AuditReport {
    let policy = Policy::parse(&format!("version = 1\n{text}\n"), "policy.toml").expect("valid");
    let opener = ArtifactRoot {
        scratch: PathBuf::from("/tmp"),
    };
    let options = AuditOptions {
        opener: &opener,
        lock_sha256: None,
        policy: Some(&policy),
    };
    match audit(dir, &options) {
        Ok(verified) => verified.report().clone(),
        Err(AuditError::Failed { report, .. }) => report,
        Err(error) => unreachable!("{error}"),
    }
}

/// One check of an artifact that these changes made.
fn check(
    text: &str,
    name: &str,
    change: impl FnOnce(&mut Manifest),
    said: impl FnOnce(&mut BuildRecord),
) -> (bool, String, Option<Class>) {
    let dir = tempfile::tempdir().expect("scratch");
    write(dir.path(), change, said);
    let report = checks(dir.path(), text);
    let found: Vec<_> = report.checks.iter().filter(|c| c.name == name).collect();
    assert_eq!(found.len(), 1, "{name}:\n{}", report.table());
    (found[0].ok, found[0].detail.clone(), report.class())
}

fn nothing<T>(_: &mut T) {}

#[test]
fn a_policy_that_asks_for_nothing_adds_nothing() {
    let dir = tempfile::tempdir().expect("scratch");
    write(dir.path(), nothing, nothing);
    let names: Vec<&str> = checks(dir.path(), "").checks.iter().map(|c| c.name).collect();
    assert_eq!(
        names.join(", "),
        "checksum list, files, manifest, artifacts, inputs, root, packages, sandbox, reproducibility, sbom, provenance"
    );
    // Rules about a set say nothing of one artifact.
    let report = checks(dir.path(), "variants = [\"raw\"]\narchitectures = [\"arm64\"]");
    assert!(report.ok() && report.checks.len() == names.len(), "{}", report.table());
    let all = format!(
        "hermetic = true\nclean = true\nagent = \"diagnostic\"\narchives = [{}, {}]\noldest-snapshot = \"20250101T000000Z\"",
        entry("trixie"),
        entry("forky")
    );
    let report = checks(dir.path(), &all);
    assert!(report.ok(), "{}", report.table());
    let rules: Vec<&str> = report.checks[names.len()..].iter().map(|c| c.name).collect();
    assert_eq!(
        rules.join(", "),
        "policy: hermetic, policy: clean, policy: agent, policy: archives, policy: snapshot"
    );
}

fn entry(suite: &str) -> String {
    format!("{{ distribution = \"debian\", suite = \"{suite}\", keys = [\"{KEY}\"] }}")
}

#[test]
fn each_rule_about_the_build_is_kept_and_broken() {
    type Change = fn(&mut Manifest);
    let sha = "0123456789abcdef0123456789abcdef01234567";
    let cases: [(&str, &str, Change, bool, String); 13] = [
        (
            "hermetic = true",
            "policy: hermetic",
            nothing,
            true,
            "built with --hermetic".to_owned(),
        ),
        (
            "hermetic = true",
            "policy: hermetic",
            |m| m.hermetic = false,
            false,
            "it was not built with --hermetic".to_owned(),
        ),
        (
            "clean = true",
            "policy: clean",
            nothing,
            true,
            format!("revision {sha}"),
        ),
        (
            "clean = true",
            "policy: clean",
            |m| {
                m.source.dirty = true;
                m.source.allow_dirty = true;
            },
            false,
            format!("files that the build read differ from revision {sha}"),
        ),
        (
            "clean = true",
            "policy: clean",
            |m| m.git_sha = None,
            false,
            "the manifest states no revision".to_owned(),
        ),
        (
            "agent = \"pinned\"",
            "policy: agent",
            nothing,
            false,
            "the agent \"agent\" is the diagnostic agent, not a pinned agent".to_owned(),
        ),
        (
            "agent = \"pinned\"",
            "policy: agent",
            |m| m.agent.kind = AgentKind::Pinned,
            true,
            format!("\"agent\", sha256 {}", "14".repeat(32)),
        ),
        (
            "recovery = false",
            "policy: recovery",
            |m| m.recovery = true,
            false,
            "it was built with the option recovery: anybody at its console gets a shell".to_owned(),
        ),
        (
            "recovery = false",
            "policy: recovery",
            |m| m.recovery = false,
            true,
            "built without the option recovery".to_owned(),
        ),
        (
            "recovery = true",
            "policy: recovery",
            |m| m.recovery = false,
            false,
            "it was built without the option recovery".to_owned(),
        ),
        (
            "debug = false",
            "policy: debug",
            |m| m.debug = true,
            false,
            "it was built with the option debug: the consoles of its nodes have a shell of root".to_owned(),
        ),
        (
            "debug = false",
            "policy: debug",
            |m| m.debug = false,
            true,
            "built without the option debug".to_owned(),
        ),
        (
            "debug = true",
            "policy: debug",
            |m| m.debug = false,
            false,
            "it was built without the option debug".to_owned(),
        ),
    ];
    for (text, name, change, ok, want) in cases {
        // The root of these files is without the option debug, which the check before the policy's finds.
        let failed = match text {
            "debug = false" => Class::Root,
            _ => Class::Policy,
        };
        let class = (!ok).then_some(failed);
        assert_eq!(check(text, name, change, nothing), (ok, want, class), "{text}");
    }
}

#[test]
fn packages_come_from_allowed_archives_only() {
    let name = "policy: archives";
    let both = format!("archives = [{}, {}]", entry("trixie"), entry("forky"));
    let (ok, detail, class) = check(&both, name, nothing, nothing);
    assert_eq!((ok, detail.as_str(), class), (true, "trixie, forky", None));
    let forky_at = lock().archives[1].snapshot_url.clone();
    let (base, _) = forky_at.rsplit_once('/').expect("an address");
    let below = |base: &str| format!("url = \"{base}\", suite");
    let (ok, ..) = check(&both.replace("suite", &below(base)), name, nothing, nothing);
    assert!(ok);
    let forky = format!("no entry allows \"forky\": debian forky at {forky_at}, signed by {KEY}");
    for text in [
        format!("archives = [{}]", entry("trixie")),
        both.replace("\"forky\"", "\"sid\""),
        format!(
            "archives = [{}, {}]",
            entry("trixie"),
            entry("forky").replace("debian", "ubuntu")
        ),
        format!(
            "archives = [{}, {}]",
            entry("trixie"),
            entry("forky").replace("01234567\"", "76543210\"")
        ),
        format!(
            "archives = [{}, {}]",
            entry("trixie"),
            entry("forky").replace("suite", &below(&base[..base.len() - 1]))
        ),
    ] {
        let (ok, detail, class) = check(&text, name, nothing, nothing);
        assert_eq!(
            (ok, detail.as_str(), class),
            (false, forky.as_str(), Some(Class::Policy)),
            "{text}"
        );
    }
    // One of several signatures is enough, and one of several keys.
    let other = "F".repeat(40);
    let (ok, ..) = check(&both, name, |m| m.archives[1].keys.insert(0, "F".repeat(40)), nothing);
    assert!(ok);
    let (ok, ..) = check(
        &both.replace("keys = [", &format!("keys = [\"{other}\", ")),
        name,
        nothing,
        nothing,
    );
    assert!(ok);
    // Nothing came from an archive that is only in the lock.
    let unused = |m: &mut Manifest| {
        let mut archive = m.archives[0].clone();
        archive.name = "unused".to_owned();
        archive.distribution = Distribution::Ubuntu;
        m.archives.push(archive);
    };
    assert_eq!(check(&both, name, unused, nothing).1, "trixie, forky");
}

#[test]
fn no_package_is_from_an_older_snapshot() {
    let name = "policy: snapshot";
    let (ok, detail, class) = check("oldest-snapshot = \"20250101T000000Z\"", name, nothing, nothing);
    assert_eq!(
        (ok, detail.as_str(), class),
        (true, "the oldest is 20250101T000000Z", None)
    );
    let (ok, detail, class) = check("oldest-snapshot = \"20250101T000001Z\"", name, nothing, nothing);
    let want = "the snapshot 20250101T000000Z of \"trixie\" is older than 20250101T000001Z";
    assert_eq!((ok, detail.as_str(), class), (false, want, Some(Class::Policy)));
    // What is no moment is not new enough either.
    let nonsense = |m: &mut Manifest| m.archives[0].snapshot = "latest".to_owned();
    let (ok, detail, _) = check("oldest-snapshot = \"19700101T000000Z\"", name, nonsense, nothing);
    assert!(!ok && detail.contains("\"trixie\" is older"), "{detail}");
}

#[test]
fn what_is_said_of_building_twice_must_prove_something() {
    let name = "reproducibility";
    let said = |change: fn(&mut Reproducibility)| {
        check("", name, nothing, |r: &mut BuildRecord| {
            let mut statement = twice();
            change(&mut statement);
            r.reproducibility = Some(statement);
        })
    };
    let want = "4 outputs equal under clock, umask; not varied: processors";
    assert_eq!(said(nothing), (true, want.to_owned(), None));
    assert_eq!(
        check("", name, nothing, nothing),
        (true, "no statement".to_owned(), None)
    );
    type Change = fn(&mut Reproducibility);
    let broken: [(Change, &str); 5] = [
        (|s| s.equal = false, "it was built twice and came out differently"),
        (|s| s.outputs = 0, "no output was compared"),
        (|s| s.varied.clear(), "no axis was varied in the second build"),
        (
            |s| s.varied.get_mut("umask").expect("there").second = "022".to_owned(),
            "\"umask\" is listed as varied, but was \"022\" in both builds",
        ),
        (
            |s| drop(s.not_varied.insert("clock".to_owned(), "no reason".to_owned())),
            "\"clock\" is listed both as varied and as not varied",
        ),
    ];
    for (change, want) in broken {
        assert_eq!(said(change), (false, want.to_owned(), Some(Class::Reproducibility)));
    }
}

#[test]
fn a_policy_can_require_that_it_was_built_twice_and_how() {
    let rule = "reproducible = true";
    let with = |change: fn(&mut Reproducibility)| {
        move |r: &mut BuildRecord| {
            let mut statement = twice();
            change(&mut statement);
            r.reproducibility = Some(statement);
        }
    };
    let kept = check(rule, "policy: reproducible", nothing, with(nothing));
    assert_eq!(kept, (true, "built twice, and equal".to_owned(), None));
    // Without a statement both fail, and the code is that of the first.
    let class = Some(Class::Reproducibility);
    let want = "no statement says that it was built twice".to_owned();
    assert_eq!(
        check(rule, "policy: reproducible", nothing, nothing),
        (false, want, class)
    );
    let want = "no statement, and the policy requires one".to_owned();
    assert_eq!(check(rule, "reproducibility", nothing, nothing), (false, want, class));
    let (ok, ..) = check(rule, "policy: reproducible", nothing, with(|s| s.equal = false));
    assert!(!ok);

    let axes = |list: &str| format!("{rule}\naxes = [{list}]");
    let kept = check(&axes("\"clock\", \"umask\""), "policy: axes", nothing, with(nothing));
    assert_eq!(kept, (true, "varied: clock, umask".to_owned(), None));
    for (list, want) in [
        ("\"clock\", \"locale\"", "\"locale\" was not varied"),
        ("\"processors\"", "\"processors\" was not varied: there is one"),
    ] {
        let broken = check(&axes(list), "policy: axes", nothing, with(nothing));
        assert_eq!(broken, (false, want.to_owned(), Some(Class::Policy)));
    }
    let (ok, detail, _) = check(&axes("\"clock\""), "policy: axes", nothing, nothing);
    assert_eq!((ok, detail.as_str()), (false, "\"clock\" was not varied"));
}

#[test]
fn a_policy_can_refuse_what_a_remote_cache_gave() {
    let rule = "built-here = true";
    let name = "policy: built-here";
    let kept = check(rule, name, nothing, nothing);
    assert_eq!(kept, (true, "every stage ran on one machine".to_owned(), None));
    let (ok, said, class) = check(rule, name, nothing, |record| {
        record.stages[0].source = Some("grpc://cache.example:8980".to_owned());
    });
    assert!(!ok && class == Some(Class::Policy), "{said}");
    assert!(said.ends_with(" came from \"grpc://cache.example:8980\""), "{said}");
}

#[test]
fn nothing_in_a_manifest_commands_the_terminal() {
    let dir = tempfile::tempdir().expect("scratch");
    write(dir.path(), |m| m.git_sha = Some("\u{1b}[2J".to_owned()), nothing);
    let report = checks(dir.path(), "clean = true");
    let table = report.table();
    assert!(
        !table.contains('\u{1b}') && table.contains("revision \\u{1b}[2J"),
        "{table:?}"
    );
}

/// Exit code and what was said of `pnb audit` in `dir`.
fn said(dir: &Path, arguments: &[&str]) -> String {
    let store = tempfile::tempdir().expect("scratch");
    let output = Command::new(env!("CARGO_BIN_EXE_pnb"))
        .current_dir(dir)
        .env("PNB_STORE", store.path())
        .args(arguments)
        .output()
        .expect("starts");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    format!("exit {}\n{}", output.status.code().expect("exits"), text.trim_end())
}

#[test]
fn a_set_must_have_the_variants_and_architectures_that_are_asked_for() {
    let dir = tempfile::tempdir().expect("scratch");
    write(&dir.path().join("images/kernel-initrd/amd64"), nothing, nothing);
    write(
        &dir.path().join("images/ipxe/amd64"),
        |m| m.variants = vec!["ipxe".parse().expect("a name")],
        nothing,
    );
    let run = |rules: &str| {
        fs::write(dir.path().join("policy.toml"), format!("version = 1\n{rules}\n")).expect("written");
        let text = said(dir.path(), &["audit", "-v", "images", "--policy", "policy.toml"]);
        let (head, _) = text.split_once('\n').expect("two lines");
        let (_, all) = text.split_once("\nall\n").expect("a last part");
        let all = all.split("\n\n").next().expect("a part");
        let rules: Vec<&str> = all.lines().filter(|l| l.contains("policy")).collect();
        format!("{head}\n{}", rules.join("\n"))
    };
    insta::assert_snapshot!(run("variants = [\"ipxe\", \"kernel-initrd\"]\narchitectures = [\"amd64\"]"), @r###"
    exit 0
    ok    policy: architectures  amd64
    ok    policy: variants       ipxe (amd64), kernel-initrd (amd64)
    "###);
    insta::assert_snapshot!(run("variants = [\"ipxe\", \"raw\"]"), @r###"
    exit 51
    FAIL  policy: variants  there is no raw for amd64
    "###);
    insta::assert_snapshot!(run("variants = [\"ipxe\"]\narchitectures = [\"amd64\", \"arm64\"]"), @r#"
    exit 51
    FAIL  policy: architectures  there is no artifact for arm64
    FAIL  policy: variants       there is no ipxe for arm64 ("ipxe/ARCH" requires it for one architecture only)
    "#);
    insta::assert_snapshot!(run("variants = [\"disk-image-rpi4\"]"), @"
    exit 51
    FAIL  policy: variants  there is no disk-image-rpi4 for amd64
    ");
    assert_eq!(run("hermetic = true"), "exit 0\n");
}

#[test]
fn a_broken_rule_has_an_exit_code_of_its_own() {
    let dir = tempfile::tempdir().expect("scratch");
    write(&dir.path().join("images/kernel-initrd/amd64"), nothing, nothing);
    let policy = dir.path().join("policy.toml");
    fs::write(&policy, "version = 1\nagent = \"pinned\"\n").expect("written");
    for place in ["images", "images/kernel-initrd/amd64"] {
        let text = said(dir.path(), &["audit", place, "--policy", "policy.toml"]);
        assert!(
            text.starts_with("exit 51\n") && text.contains("FAIL  policy: agent"),
            "{text}"
        );
        assert!(said(dir.path(), &["audit", place]).starts_with("exit 0\n"));
    }
    let text = said(
        dir.path(),
        &[
            "--json",
            "audit",
            "images/kernel-initrd/amd64",
            "--policy",
            "policy.toml",
        ],
    );
    assert!(text.contains(r#""class":"policy","detail":"the agent"#), "{text}");
    write(&dir.path().join("images/kernel-initrd/amd64"), nothing, |r| {
        let mut statement = twice();
        statement.equal = false;
        r.reproducibility = Some(statement);
    });
    assert!(said(dir.path(), &["audit", "images"]).starts_with("exit 50\n"));
}

#[test]
fn a_policy_that_cannot_be_read_is_named_with_its_line() {
    let dir = tempfile::tempdir().expect("scratch");
    let run = |text: &str| {
        fs::write(dir.path().join("policy.toml"), text).expect("written");
        said(dir.path(), &["audit", ".", "--policy", "policy.toml"])
    };
    insta::assert_snapshot!(run("version = 1\n\nhermetical = true\n"), @"
    exit 2
    error: failed to read policy.toml, line 3: unknown field `hermetical`, expected one of `version`, `hermetic`, `clean`, `signed-modules`, `agent`, `recovery`, `debug`, `built-here`, `reproducible`, `axes`, `archives`, `oldest-snapshot`, `variants`, `unread-roots`, `architectures`

    hint: did you mean `hermetic`?
    ");
    insta::assert_snapshot!(run("version = 1\nhermetic = \"yes\"\n"), @r###"
    exit 2
    error: failed to read policy.toml, line 2: invalid type: string "yes", expected a boolean
    "###);
    insta::assert_snapshot!(run("# of a later pnb\nversion = 2\nsigned-by = [\"me\"]\n"), @r###"
    exit 2
    error: failed to read policy.toml, line 2: format version 2 (this pnb reads version 1)

    hint: docs/audit.md lists the rules of version 1; a later pnb may read this file
    "###);
    insta::assert_snapshot!(run("version = 1\naxes = [\"clock\"]\n"), @r###"
    exit 2
    error: failed to read policy.toml, line 2: axes requires reproducible = true
    "###);
    insta::assert_snapshot!(run("version = 1\noldest-snapshot = \"last week\"\n"), @r###"
    exit 2
    error: failed to read policy.toml, line 2: oldest-snapshot: "last week" is not a moment of the form YYYYMMDDThhmmssZ
    "###);
    insta::assert_snapshot!(said(dir.path(), &["audit", ".", "--policy", "nowhere.toml"]), @r###"
    exit 2
    error: failed to read "nowhere.toml": No such file or directory (os error 2)
    "###);
}

#[test]
fn the_example_has_every_rule() {
    let text = include_str!("../docs/audit-policy.example.toml");
    let policy = Policy::parse(text, "example").expect("valid");
    assert!(policy.hermetic && policy.clean && policy.built_here && policy.reproducible);
    assert_eq!(policy.agent, Some(AgentKind::Pinned));
    assert!(policy.axes.contains("clock") && policy.oldest_snapshot.is_some());
    assert_eq!(policy.architectures.len(), Arch::ALL.len());
    assert_eq!(policy.variants.len(), 7);
    // Every archive that packages are locked from is allowed, with the keys that signed it.
    let lock = include_str!("../lockfile.toml");
    let lock = pnb::lock::parse_lock(lock, "lockfile.toml").expect("valid");
    let allowed = policy.archives.expect("there");
    for archive in &lock.archives {
        assert!(
            allowed.iter().any(|a| a.distribution == archive.distribution
                && a.suite == archive.suite
                && a.keys.iter().any(|key| archive.keys.contains(key))),
            "{} is not allowed",
            archive.name
        );
    }
}
