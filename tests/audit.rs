//! The audit of a small whole artifact, and of everything that can be wrong with one.

mod fixture;

use fixture::{DATABASE, artifact, facts, lock, path, record, root_image, root_image_with, write_all};
use pnb::{
    audit::{ArtifactRoot, AuditError, AuditOptions, AuditReport, Class, OpenError, OpenedRoot, Verified, audit},
    manifest::{
        BaseImageFact, Bom, BuildRecord, InputContent, MANIFEST_FILE, Manifest, Origin, PROVENANCE_FILE,
        PrefixedSha256, RECORD_FILE, RecordedWorkload, Role, SBOM_FILE, SUMS_FILE, StageInput, Statement, Statements,
        Sums,
    },
    model::{RelPath, Sha256Digest, VerityDigest},
    verity::digest_bytes,
};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

type Files = BTreeMap<RelPath, Vec<u8>>;

fn good_files() -> Files {
    let (image, root) = root_image();
    artifact(image, format!("{root}\n").as_bytes())
}

fn statements(files: &Files) -> Statements {
    Statements::describe(&facts(&lock(), root_image().1, files)).expect("whole facts")
}

fn run(dir: &Path) -> Result<Verified, AuditError> {
    let opener = ArtifactRoot {
        scratch: std::path::PathBuf::from("/tmp"),
    };
    let options = AuditOptions {
        opener: &opener,
        lock_sha256: Some(Sha256Digest::new([2; 32])),
        policy: None,
    };
    audit(dir, &options)
}

fn failure(result: Result<Verified, AuditError>) -> AuditReport {
    let err = result.expect_err("must fail");
    let AuditError::Failed { report, .. } = err else {
        unreachable!("{err}")
    };
    report
}

/// Writes these files with statements that `change` may alter first, and audits them.
fn audit_of(files: &Files, change: impl FnOnce(&mut Manifest)) -> Result<Verified, AuditError> {
    let mut manifest = statements(files).manifest;
    change(&mut manifest);
    let dir = tempfile::tempdir().expect("scratch");
    write_all(dir.path(), files, &Statements::of(manifest).expect("writable"));
    run(dir.path())
}

fn assert_fails(result: Result<Verified, AuditError>, class: Class, want: &str) {
    let report = failure(result);
    let table = report.table();
    assert_eq!(report.class(), Some(class), "{table}");
    assert!(table.contains(want), "lacks {want:?}:\n{table}");
}

#[test]
fn a_whole_artifact_passes_and_says_what_was_checked() {
    let verified = audit_of(&good_files(), |_| {}).expect("whole");
    let names: Vec<&str> = verified.report().checks.iter().map(|c| c.name).collect();
    let all = "checksum list, files, manifest, artifacts, inputs, lock, root, packages, sandbox, reproducibility, sbom, provenance";
    assert_eq!(names.join(", "), all);
    let root = &verified.report().checks[6];
    assert_eq!(root.detail, format!("{}: 3 objects, 75176 bytes", root_image().1));
    assert!(
        verified
            .report()
            .table()
            .contains("ok    inputs           3 packages and 1 files from 2 archives, 3 stages")
    );
    let json = serde_json::to_value(verified.report()).expect("JSON");
    assert_eq!(json["checks"][0]["class"], "sums");
}

#[test]
fn any_changed_byte_of_the_lists_is_found() {
    let files = good_files();
    let statements = statements(&files);
    let (image, root) = root_image();
    let opener = |_: &Path, _: &Manifest| -> Result<OpenedRoot, OpenError> {
        Ok(OpenedRoot {
            image: Box::new(image.clone()),
            stated: format!("{root}\n").into_bytes(),
        })
    };
    let audited = AtomicUsize::new(0);
    let worker = |part: usize, parts: usize| {
        let dir = tempfile::tempdir().expect("scratch");
        write_all(dir.path(), &files, &statements);
        let options = AuditOptions {
            opener: &opener,
            lock_sha256: None,
            policy: None,
        };
        audit(dir.path(), &options).expect("whole");
        for (name, classes) in [
            (SUMS_FILE, [Class::Sums, Class::Files]),
            (MANIFEST_FILE, [Class::Files, Class::Files]),
        ] {
            let file = dir.path().join(name);
            let good = fs::read(&file).expect("readable");
            for at in (part..good.len()).step_by(parts) {
                let mut bad = good.clone();
                bad[at] ^= 1 << (at % 8);
                fs::write(&file, &bad).expect("writable");
                let report = failure(audit(dir.path(), &options));
                let class = report.class().expect("something failed");
                assert!(
                    classes.contains(&class),
                    "{name} byte {at}: {class}\n{}",
                    report.table()
                );
                let table = report.table();
                assert!(
                    table.contains(name) || table.contains("expected:"),
                    "{name} byte {at}: {table}"
                );
                audited.fetch_add(1, Ordering::Relaxed);
            }
            fs::write(&file, &good).expect("writable");
        }
    };
    std::thread::scope(|scope| {
        for part in 0..2 {
            scope.spawn(move || worker(part, 2));
        }
    });
    let want: usize = [SUMS_FILE, MANIFEST_FILE]
        .iter()
        .map(|n| {
            statements
                .files
                .iter()
                .find(|(name, _)| name == n)
                .expect("made")
                .1
                .len()
        })
        .sum();
    assert_eq!(audited.into_inner(), want);
}

#[test]
fn a_changed_byte_of_any_file_is_named() {
    let files = good_files();
    let dir = tempfile::tempdir().expect("scratch");
    write_all(dir.path(), &files, &statements(&files));
    for name in ["kernel", "initramfs.cpio.zst", SBOM_FILE, PROVENANCE_FILE] {
        let file = dir.path().join(name);
        let good = fs::read(&file).expect("readable");
        for at in [0, good.len() / 3, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            fs::write(&file, &bad).expect("writable");
            assert_fails(run(dir.path()), Class::Files, &format!("sha256 of \"{name}\""));
        }
        fs::write(&file, &good[..good.len() - 1]).expect("writable");
        assert_fails(run(dir.path()), Class::Files, &format!("sha256 of \"{name}\""));
        fs::write(&file, &good).expect("writable");
    }
    run(dir.path()).expect("whole");
}

#[test]
fn files_may_neither_be_missing_nor_too_many() {
    let files = good_files();
    let dir = tempfile::tempdir().expect("scratch");
    write_all(dir.path(), &files, &statements(&files));
    let at = |name: &str| dir.path().join(name);

    fs::write(at("kernel.sigstore.json"), b"{}").expect("writable");
    run(dir.path()).expect("a signature may lie beside its file");
    fs::write(at("other.sigstore.json"), b"{}").expect("writable");
    assert_fails(run(dir.path()), Class::Files, "\"other.sigstore.json\" is not listed");
    fs::remove_file(at("other.sigstore.json")).expect("there");

    fs::create_dir(at("more")).expect("made");
    fs::write(at("more/file"), b"x").expect("writable");
    assert_fails(
        run(dir.path()),
        Class::Files,
        "\"more/file\" is not listed in SHA256SUMS",
    );
    fs::remove_dir_all(at("more")).expect("there");

    std::os::unix::fs::symlink("kernel", at("link")).expect("linked");
    assert_fails(
        run(dir.path()),
        Class::Files,
        "\"link\" is neither a file nor a directory",
    );
    fs::remove_file(at("link")).expect("there");

    fs::rename(at("kernel"), at("gone")).expect("there");
    assert_fails(
        run(dir.path()),
        Class::Files,
        "\"kernel\" is listed in SHA256SUMS but missing",
    );
    fs::rename(at("gone"), at("kernel")).expect("there");

    for (name, class, want) in [
        (RECORD_FILE, Class::Sandbox, "the sandbox was not measured"),
        (SUMS_FILE, Class::Sums, "\"SHA256SUMS\" is not there"),
        (MANIFEST_FILE, Class::Sums, "\"build-manifest.json\" is not there"),
    ] {
        fs::remove_file(at(name)).expect("there");
        assert_fails(run(dir.path()), class, want);
    }
    assert!(matches!(run(&at("nowhere")), Err(AuditError::Io { .. })));
}

/// The root is whole, but dpkg says there that other packages are in it than the manifest and the SBOM say.
#[test]
fn packages_that_are_installed_in_the_root_are_those_of_the_manifest() {
    let with = |database: Option<&str>, change: fn(&mut Manifest)| {
        let (image, root) = root_image_with(&[fixture::pattern(5000)], database);
        audit_of(&artifact(&image, format!("{root}\n").as_bytes()), |m| {
            m.fsverity_root_hash = root;
            change(m);
        })
    };
    let whole = with(Some(DATABASE), |_| {}).expect("whole");
    let check = whole
        .report()
        .checks
        .iter()
        .find(|c| c.name == "packages")
        .expect("made");
    assert_eq!(check.detail, "2 packages installed in the root");
    let more = format!("{DATABASE}\nPackage: sl\nStatus: install ok installed\nArchitecture: all\nVersion: 5.02-1\n");
    for (database, want) in [
        (
            DATABASE.replace("1.0.8-1", "1.0.7-1"),
            "composefs 1.0.8-1 amd64 is in the manifest, but not installed in the root",
        ),
        (
            DATABASE.replace("1.0.8-1", "1.0.7-1"),
            "composefs 1.0.7-1 amd64 is installed in the root, but not in the manifest",
        ),
        (
            DATABASE.replace("Architecture: amd64\nVersion: 1:", "Architecture: all\nVersion: 1:"),
            "libstdc++6 1:14.2.0-19 all is installed in the root, but not in the manifest",
        ),
        (more, "sl 5.02-1 all is installed in the root, but not in the manifest"),
        (
            DATABASE.replacen("ok installed", "ok half-installed", 1),
            "composefs 1.0.8-1 amd64 has the status \"install ok half-installed\" in the root",
        ),
        (format!("{DATABASE}no field\n"), "not a field: \"no field\""),
        (String::new(), "/var/lib/dpkg/status in the root is empty or not a file"),
    ] {
        let result = with(Some(&database), |_| {});
        let report = failure(result);
        let failed: Vec<&str> = report.checks.iter().filter(|c| !c.ok).map(|c| c.name).collect();
        assert_eq!((failed, report.class()), (vec!["packages"], Some(Class::Sbom)));
        assert!(report.table().contains(want), "lacks {want:?}:\n{}", report.table());
    }
    assert_fails(with(None, |_| {}), Class::Sbom, "the root has no /var/lib/dpkg/status");
    let tool = |m: &mut Manifest| {
        m.packages[0].role = Role::Tool;
        m.base_image_digest = m.derived_base();
    };
    assert_fails(
        with(Some(DATABASE), tool),
        Class::Sbom,
        "composefs 1.0.8-1 amd64 belongs to the package set \"rootfs/amd64\" of the root, but has the role tool",
    );
    let writer = |m: &mut Manifest| m.stages[2].workload = RecordedWorkload::Writer("another".to_owned());
    assert_fails(
        with(Some(DATABASE), writer),
        Class::Sbom,
        "0 stages have the writer \"composefs-root\"",
    );
}

/// Every statement agrees, but what the artifact holds is not the root they speak of.
#[test]
fn a_root_that_is_not_the_stated_one_is_found_in_the_artifact_itself() {
    let (image, root) = root_image();
    let line = format!("{root}\n");
    let find = |needle: &[u8]| {
        image
            .windows(needle.len())
            .position(|w| w == needle)
            .expect("in the image")
    };
    let content = fixture::pattern(70_000);
    let object = digest_bytes(&content);
    let hex = object.to_hex();
    let (first, rest) = hex.split_at(2);
    let name = format!("objects/{first}/{rest}");
    // The third block: the other object begins with the same two.
    let data = find(&content[8192..12288]) - 8192;
    let tree = find(&{
        use sha2::{Digest as _, Sha256};
        Sha256::digest(&content[8192..12288])
    });
    // EROFS' magic number, 1024 bytes into image.cfs.
    let metadata = find(&0xe0f5_e1e2u32.to_le_bytes());
    for (at, want) in [
        (data + 9000, format!("fs-verity digest of \"{name}\"\n")),
        (data + 65_536 + 100, format!("fs-verity digest of \"{name}\"\n")),
        (
            tree + 3,
            format!("\"{name}\" has a Merkle tree that does not match its content"),
        ),
        (metadata + 1, "fs-verity digest of \"image.cfs\"".to_owned()),
        (1024 + 0x38, "magic is".to_owned()),
    ] {
        let mut bad = image.clone();
        bad[at] ^= 4;
        assert_fails(
            audit_of(&artifact(&bad, line.as_bytes()), |_| {}),
            Class::Root,
            want.trim_end(),
        );
    }
    for stated in [
        "",
        "0".repeat(64).as_str(),
        root.to_hex().as_str(),
        &format!("{line}\n"),
    ] {
        let files = artifact(image, stated.as_bytes());
        assert_fails(
            audit_of(&files, |_| {}),
            Class::Root,
            "root digest stated in the artifact",
        );
    }
    let other = audit_of(&good_files(), |m| m.fsverity_root_hash = VerityDigest::new([7; 32]));
    assert_fails(other, Class::Root, &format!("actual: {root}"));
    let mut plain = good_files();
    plain.insert(path("initramfs.cpio.zst"), b"not an archive".to_vec());
    assert_fails(
        audit_of(&plain, |_| {}),
        Class::Root,
        "is neither the beginning of an archive",
    );
}

/// Everything hashes to what is listed, but the statements contradict themselves or each other.
#[test]
fn statements_that_contradict_each_other_are_found() {
    type Change = fn(&mut Manifest);
    let cases: [(Change, Class, &str); 22] = [
        (|m| m.variants.clear(), Class::Manifest, "it describes 0 variants"),
        (
            |m| m.git_sha = Some("main".to_owned()),
            Class::Manifest,
            "\"main\" is not a git commit",
        ),
        (
            |m| m.source.dirty = true,
            Class::Manifest,
            "uncommitted files without --allow-dirty",
        ),
        (
            |m| m.artifacts.values_mut().for_each(|a| a.size_bytes += 1),
            Class::Artifacts,
            "size of \"kernel\" in bytes",
        ),
        (
            |m| {
                m.artifacts
                    .values_mut()
                    .for_each(|a| a.fsverity = VerityDigest::new([1; 32]))
            },
            Class::Artifacts,
            "fs-verity digest of \"kernel\"",
        ),
        (
            |m| m.packages[0].archive = "sid".to_owned(),
            Class::Pins,
            "is from the unknown archive \"sid\"",
        ),
        (
            |m| m.packages[0].url = "https://example.org/x.deb".to_owned(),
            Class::Pins,
            "is not below the snapshot of its archive",
        ),
        (
            |m| m.packages[0].sha256 = Sha256Digest::new([9; 32]),
            Class::Pins,
            "base_image_digest",
        ),
        (
            |m| drop(m.packages.remove(1)),
            Class::Pins,
            "it differs from the package set \"tools/amd64\"",
        ),
        (
            |m| m.archives[0].snapshot = "latest".to_owned(),
            Class::Pins,
            "\"latest\" is not a moment",
        ),
        (|m| m.archives[0].keys.clear(), Class::Pins, "has no signing key"),
        (|m| m.files.clear(), Class::Pins, "lists no pinned file"),
        (
            |m| m.files[0].sha256 = Sha256Digest::new([7; 32]),
            Class::Pins,
            "lists no pinned file",
        ),
        (
            |m| drop(m.stages.remove(1)),
            Class::Pins,
            "no earlier stage made output \"tree\" of rootfs/amd64",
        ),
        (
            |m| m.stages.swap(0, 1),
            Class::Pins,
            "no earlier stage made output \"tree\" of tools/amd64",
        ),
        (
            |m| {
                let input = m.stages[2].inputs.get_mut("rootfs").expect("there");
                input.content = InputContent::Tree {
                    digest: VerityDigest::new([1; 32]),
                };
            },
            Class::Pins,
            "it differs from output \"tree\" of rootfs/amd64",
        ),
        (
            |m| drop(m.stages[2].inputs.remove("file")),
            Class::Pins,
            "output \"passed-on\" of the stage root/amd64 is neither an output of its sandbox nor one of its inputs",
        ),
        (
            |m| m.stages[0].policy["outputs"] = serde_json::json!([]),
            Class::Pins,
            "output \"tree\" of the stage tools/amd64 is neither an output of its sandbox",
        ),
        (
            |m| m.lockfile.sha256 = Sha256Digest::new([3; 32]),
            Class::Pins,
            "sha256 of the lock",
        ),
        (
            |m| {
                let inputs = m.stages.iter_mut().flat_map(|stage| stage.inputs.values_mut());
                let ours = inputs.filter(|input| matches!(input.origin, Origin::Repository(_)));
                for input in ours {
                    input.origin = Origin::Repository("stages/recovery".parse().expect("a path"));
                }
            },
            Class::Pins,
            "it gives the artifact a recovery, and the manifest states none",
        ),
        (
            |m| {
                let inputs = m.stages.iter_mut().flat_map(|stage| stage.inputs.values_mut());
                let ours = inputs.filter(|input| matches!(input.origin, Origin::Repository(_)));
                for input in ours {
                    input.origin = Origin::Repository("stages/root/debug".parse().expect("a path"));
                }
            },
            Class::Pins,
            "it gives the consoles of a node a shell, and the manifest does not state the option debug",
        ),
        (|m| m.debug = true, Class::Root, "debug\n"),
    ];
    let files = good_files();
    for (change, class, want) in cases {
        assert_fails(audit_of(&files, change), class, want);
    }
}

/// Makes the stage `rootfs` one on a base image.
fn on_base(manifest: &mut Manifest) {
    let digest = |byte: u8| PrefixedSha256(Sha256Digest::new([byte; 32]));
    manifest.base_image = Some(BaseImageFact {
        name: "registry.example/team/base".to_owned(),
        digest: digest(50),
        manifest: digest(51),
        layers: vec![digest(52)],
    });
    manifest.base_image_digest = digest(50);
    let input = StageInput {
        origin: Origin::Base,
        content: InputContent::Pinned { sha256: digest(51).0 },
    };
    manifest.stages[1].inputs.insert("image".to_owned(), input);
}

#[test]
fn a_base_image_is_the_one_that_a_stage_had() {
    let files = good_files();
    assert!(audit_of(&files, on_base).is_ok());
    type Change = fn(&mut Manifest);
    let cases: [(Change, &str); 5] = [
        (
            |m| m.base_image_digest = PrefixedSha256(Sha256Digest::new([51; 32])),
            "base_image_digest",
        ),
        (
            |m| {
                m.base_image = None;
                m.base_image_digest = m.derived_base();
            },
            "input \"image\" of the stage rootfs/amd64: the manifest states no base image",
        ),
        (
            |m| {
                let base = m.base_image.as_mut().expect("there");
                base.manifest = PrefixedSha256(Sha256Digest::new([9; 32]));
            },
            "it differs from the manifest of the base image",
        ),
        (
            |m| drop(m.stages[1].inputs.remove("image")),
            "base_image states an image that no stage has as an input",
        ),
        (|m| m.base_image.as_mut().expect("there").layers.clear(), "layers"),
    ];
    for (change, want) in cases {
        let audited = audit_of(&files, |m| {
            on_base(m);
            change(m);
        });
        assert_fails(audited, Class::Pins, want);
    }
}

/// Writes a whole artifact, replaces one statement, lists the new digest, and audits it.
fn with_file(name: &str, text: &str) -> Result<Verified, AuditError> {
    let files = good_files();
    let statements = statements(&files);
    let dir = tempfile::tempdir().expect("scratch");
    write_all(dir.path(), &files, &statements);
    fs::write(dir.path().join(name), text).expect("writable");
    if name != RECORD_FILE {
        let old = fs::read(dir.path().join(SUMS_FILE)).expect("readable");
        let mut sums = Sums::parse(&old).expect("valid");
        sums.insert(path(name), fixture::digests(text.as_bytes()).sha256)
            .expect("plain");
        fs::write(dir.path().join(SUMS_FILE), sums.to_text()).expect("writable");
    }
    run(dir.path())
}

#[test]
fn other_statements_must_say_what_the_manifest_says() {
    let statements = statements(&good_files());
    let bom = || Bom::describe(&statements.manifest).expect("describable");
    let change = |f: &dyn Fn(&mut Bom)| {
        let mut bom = bom();
        f(&mut bom);
        bom.serial_number = bom.derived_serial().expect("writable");
        with_file(SBOM_FILE, &bom.to_json().expect("writable"))
    };
    assert!(change(&|_| {}).is_ok());
    assert_fails(
        change(&|b| drop(b.components.remove(2))),
        Class::Sbom,
        "lacks pkg:deb/debian/composefs@1.0.8-1",
    );
    assert_fails(
        change(&|b| b.components[2].scope = None),
        Class::Sbom,
        "which the manifest lacks",
    );
    assert_fails(
        change(&|b| b.components[2].hashes[0].content = "0".repeat(64)),
        Class::Sbom,
        "00000",
    );
    // What has no line of its own in a report: licences, suppliers, dependencies.
    for hidden in [
        (|b| b.components[2].licenses.clear()) as fn(&mut Bom),
        |b| b.components[2].supplier = None,
        |b| b.dependencies[2].depends_on.clear(),
        |b| b.components[1].version = Some("12".to_owned()),
    ] {
        assert_fails(
            change(&hidden),
            Class::Sbom,
            "is not the one that follows from the manifest",
        );
    }
    let mut wrong = bom();
    wrong.serial_number = "urn:uuid:0".to_owned();
    assert_fails(
        with_file(SBOM_FILE, &wrong.to_json().expect("writable")),
        Class::Sbom,
        "serialNumber",
    );
    let loose = bom().to_json().expect("writable").replace("\": ", "\" : ");
    assert_fails(
        with_file(SBOM_FILE, &loose),
        Class::Sbom,
        "line 2 (byte 15) is not in canonical form",
    );

    let change = |f: &dyn Fn(&mut Statement)| {
        let mut statement = Statement::describe(&statements.manifest, &statements.manifest_sha256);
        f(&mut statement);
        with_file(PROVENANCE_FILE, &statement.to_json().expect("writable"))
    };
    assert!(change(&|_| {}).is_ok());
    assert_fails(
        change(&|s| drop(s.subject.pop())),
        Class::Provenance,
        "lacks the subject \"kernel\"",
    );
    assert_fails(
        change(&|s| drop(s.predicate.build_definition.resolved_dependencies.remove(0))),
        Class::Provenance,
        "lacks the resolved dependency \"lockfile.toml\"",
    );
    assert_fails(
        change(&|s| s.predicate.build_definition.internal_parameters.hermetic = false),
        Class::Provenance,
        "other parameters",
    );

    let change = |f: &dyn Fn(&mut BuildRecord)| {
        let mut record = record(&statements.manifest, statements.manifest_sha256);
        f(&mut record);
        with_file(RECORD_FILE, &record.to_json().expect("writable"))
    };
    assert!(change(&|r| r.host.name = "another".to_owned()).is_ok());
    assert_fails(
        change(&|r| r.stages[1].weaker.push("landlock".to_owned())),
        Class::Sandbox,
        "with weaker layers: landlock",
    );
    assert_fails(
        change(&|r| drop(r.stages.remove(1))),
        Class::Sandbox,
        "lacks the stage rootfs/amd64",
    );
    assert_fails(
        change(&|r| r.stages[1].measured["network"] = serde_json::json!(["lo", "eth0"])),
        Class::Sandbox,
        "in the sandbox of the stage rootfs/amd64 the network interface \"eth0\" was visible",
    );
    assert_fails(
        change(&|r| r.stages[1].measured = serde_json::json!({})),
        Class::Sandbox,
        "was not measured",
    );
    assert_fails(
        change(&|r| r.manifest_sha256 = Sha256Digest::new([1; 32])),
        Class::Sandbox,
        "manifest_sha256",
    );
    assert_fails(change(&|r| r.schema_version = 9), Class::Sandbox, "schema version 9");
}
