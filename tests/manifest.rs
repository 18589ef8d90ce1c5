//! The statements about a build: their schema, their bytes, and what they refuse to say.

#[path = "fixture/cyclonedx.rs"]
mod cyclonedx;
mod fixture;

use fixture::{artifact, facts, lock, path, root_image, tools::check, write_all};
use pnb::{
    graph::InputDigest,
    manifest::{
        BaseImageFact, Bom, Facts, InputFact, LISTED_STATEMENTS, MANIFEST_FILE, Manifest, Origin, PROVENANCE_FILE,
        PrefixedSha256, Role, SBOM_FILE, SUMS_FILE, Statement, Statements, write_value,
    },
    model::{Sha256Digest, VerityDigest},
};
use serde_json::{Value, json};

const COMPOSEFS: &str = "pkg:deb/debian/composefs@1.0.8-1?arch=amd64&distro=debian-13";
const LIBSTDCXX: &str =
    "pkg:deb/debian/libstdc%2B%2B6@1:14.2.0-19?arch=amd64&distro=debian-13&upstream=gcc-14%4014.2.0-19";

type Edit = fn(&mut Value);
type Change = fn(&mut Facts<'_>);

fn statements() -> Statements {
    let lock = lock();
    let (image, root) = root_image();
    let files = artifact(image, format!("{root}\n").as_bytes());
    Statements::describe(&facts(&lock, *root, &files)).expect("whole facts")
}

fn text<'a>(statements: &'a Statements, name: &str) -> &'a str {
    statements
        .files
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, t)| t.as_str())
        .expect("made")
}

#[test]
fn the_manifest_is_valid_by_its_schema_and_keeps_the_platforms_fields() {
    let statements = statements();
    let json: Value = serde_json::from_str(text(&statements, MANIFEST_FILE)).expect("JSON");
    let schema: Value = serde_json::from_str(include_str!("../docs/build-manifest.schema.json")).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<String> = validator
        .iter_errors(&json)
        .map(|e| format!("{}: {e}", e.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    assert_eq!(json["schema_version"], 2);
    assert_eq!(json["arch"], "amd64");
    assert_eq!(json["apt_snapshot"], "20250202T000000Z");
    assert_eq!(json["variants"], json!(["kernel-initrd"]));
    assert_eq!(json["oci_digest"], Value::Null);
    assert_eq!(json["artifacts"]["kernel"]["size_bytes"], 3000);
    // Packages that no stage of this build took are not inputs of it.
    let names: Vec<_> = json["packages"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|p| &p["name"])
        .collect();
    assert_eq!(names, ["composefs", "dracut", "libstdc++6"]);
    let roles: Vec<_> = json["packages"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|p| &p["role"])
        .collect();
    assert_eq!(roles, ["target", "tool", "target"]);

    // What the schema refuses, the reader refuses, and the other way round.
    let cases: [(&str, Edit, bool); 20] = [
        ("nothing changed", |_| {}, true),
        ("an unknown field", |m| m["extra"] = json!(1), false),
        ("an unknown field within", |m| m["builder"]["host"] = json!("x"), false),
        (
            "a missing field",
            |m| drop(m.as_object_mut().expect("object").remove("kernel_version")),
            false,
        ),
        ("another version", |m| m["schema_version"] = json!(3), false),
        ("the version before", |m| m["schema_version"] = json!(1), false),
        (
            "a source as one text",
            |m| m["packages"][0]["source"] = json!("composefs 1.0.8-1"),
            false,
        ),
        (
            "a licence with two forms",
            |m| m["packages"][0]["licenses"][0] = json!({"spdx": "MIT", "name": "x"}),
            false,
        ),
        (
            "an upper-case digest",
            |m| m["fsverity_root_hash"] = json!("AB".repeat(32)),
            false,
        ),
        (
            "a digest without prefix",
            |m| m["base_image_digest"] = json!("ab".repeat(32)),
            false,
        ),
        (
            "a variant of another project",
            |m| m["variants"] = json!(["floppy"]),
            true,
        ),
        (
            "a variant that is no name",
            |m| m["variants"] = json!(["../floppy"]),
            false,
        ),
        ("an unknown form", |m| m["form"] = json!("floppy"), false),
        ("a disk without an image", |m| m["form"] = json!("raw-disk"), false),
        (
            "an image in a form without one",
            |m| m["image"] = json!("kernel"),
            false,
        ),
        (
            "a disk with an image",
            |m| (m["form"], m["image"]) = (json!("raw-disk"), json!("kernel")),
            true,
        ),
        (
            "a negative size",
            |m| m["artifacts"]["kernel"]["size_bytes"] = json!(-1),
            false,
        ),
        (
            "an absolute path",
            |m| m["artifacts"]["/kernel"] = m["artifacts"]["kernel"].clone(),
            false,
        ),
        (
            "an unknown origin",
            |m| m["stages"][0]["inputs"]["debs"]["origin"] = json!({"host": "/usr"}),
            false,
        ),
        ("no revision", |m| m["git_sha"] = Value::Null, true),
    ];
    for (what, change, good) in cases {
        let mut changed = json.clone();
        change(&mut changed);
        assert_eq!(validator.is_valid(&changed), good, "schema: {what}");
        let bytes = write_value(&changed).expect("integers only");
        let read = Manifest::read(bytes.as_bytes(), MANIFEST_FILE);
        assert_eq!(read.is_ok(), good, "reader: {what}: {:?}", read.err());
    }
}

#[test]
fn another_schema_version_is_named_before_anything_else() {
    for version in [1, 3] {
        let bytes = format!("{{\n  \"new\": 1,\n  \"schema_version\": {version}\n}}\n");
        let err = Manifest::read(bytes.as_bytes(), MANIFEST_FILE)
            .expect_err("another")
            .to_string();
        assert_eq!(
            err,
            format!("read \"build-manifest.json\": schema version {version} (this pnb reads version 2)")
        );
    }
}

#[test]
fn equal_facts_give_equal_bytes_that_sha256sum_accepts() {
    let statements = statements();
    assert_eq!(statements.files, self::statements().files);
    let (image, root) = root_image();
    let files = artifact(image, format!("{root}\n").as_bytes());
    let dir = tempfile::tempdir().expect("scratch");
    write_all(dir.path(), &files, &statements);
    let (listed, _) = check(
        &[dir.path()],
        &format!("cd /inputs/0\nsha256sum --check --strict {SUMS_FILE}"),
    );
    assert_eq!(listed.lines().count(), files.len() + LISTED_STATEMENTS.len());
    assert!(!listed.contains("build-record.json"));
}

#[test]
fn the_sbom_tells_the_artifacts_packages_from_the_tools() {
    let statements = statements();
    let bom = Bom::read(text(&statements, SBOM_FILE).as_bytes(), SBOM_FILE).expect("canonical");
    let mut json: Value = serde_json::from_str(text(&statements, SBOM_FILE)).expect("JSON");
    assert_eq!(cyclonedx::schema_problems(&json), [""; 0]);
    json["components"][0]["scope"] = "used".into();
    assert_ne!(cyclonedx::schema_problems(&json), [""; 0]);
    let seen: Vec<(&str, &str)> = bom
        .components
        .iter()
        .map(|c| {
            (
                c.bom_ref.as_deref().expect("named"),
                c.scope.as_deref().expect("scoped"),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("file:agent", "required"),
            ("operating-system", "required"),
            (COMPOSEFS, "required"),
            ("pkg:deb/debian/dracut@106-6?arch=amd64&distro=debian-13", "excluded"),
            (LIBSTDCXX, "required"),
        ]
    );
    // A scanner chooses its advisories by this component, which is the only one of its type.
    let of_type = |kind: &str| bom.components.iter().filter(|c| c.kind == kind).collect::<Vec<_>>();
    let [system] = of_type("operating-system")[..] else {
        panic!("{:?}", of_type("operating-system"));
    };
    assert_eq!(
        (system.name.as_str(), system.version.as_deref()),
        ("debian", Some("13"))
    );
    assert_eq!(bom.metadata.component.kind, "platform");
    let names = |component: &str| -> Vec<&str> {
        let found = bom
            .dependencies
            .iter()
            .find(|d| d.component == component)
            .expect("listed");
        found.depends_on.iter().map(String::as_str).collect()
    };
    assert_eq!(names("artifact"), ["file:agent", "operating-system"]);
    assert_eq!(names("operating-system"), [COMPOSEFS, LIBSTDCXX]);
    assert_eq!(names(COMPOSEFS), [LIBSTDCXX]);
    assert_eq!(names(LIBSTDCXX), [""; 0]);
    let composefs = of_type("library")[0];
    assert_eq!(
        composefs.supplier.as_ref().map(|s| s.name.as_str()),
        Some("Composefs Team")
    );
    assert_eq!(
        serde_json::to_value(&composefs.licenses).expect("JSON"),
        json!([{"expression": "Apache-2.0 AND (GPL-2.0-or-later OR MIT)"}])
    );
    assert_eq!(bom.metadata.timestamp, "2023-11-14T22:13:20Z");
    let uuid = bom.serial_number.strip_prefix("urn:uuid:").expect("a UUID");
    assert_eq!((uuid.len(), &uuid[14..15]), (36, "8"));
}

#[test]
fn the_provenance_is_a_slsa_statement_about_the_files() {
    let statements = statements();
    let json: Value = serde_json::from_str(text(&statements, PROVENANCE_FILE)).expect("JSON");
    assert_eq!(json["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(json["predicateType"], "https://slsa.dev/provenance/v1");
    let names: Vec<_> = json["subject"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|s| &s["name"])
        .collect();
    assert_eq!(names, ["initramfs.cpio.zst", "kernel"]);
    let predicate = &json["predicate"];
    assert_eq!(
        predicate["buildDefinition"]["externalParameters"],
        json!({"arch": "amd64", "variants": ["kernel-initrd"]})
    );
    // Lock, revision, three packages, one file.
    let dependencies = predicate["buildDefinition"]["resolvedDependencies"]
        .as_array()
        .expect("a list");
    assert_eq!(dependencies.len(), 6);
    assert_eq!(
        dependencies[1]["digest"]["gitCommit"],
        "0123456789abcdef0123456789abcdef01234567"
    );
    assert_eq!(
        predicate["runDetails"]["byproducts"][0]["digest"]["sha256"],
        statements.manifest_sha256.to_hex()
    );
    Statement::read(text(&statements, PROVENANCE_FILE).as_bytes(), PROVENANCE_FILE).expect("canonical");
}

#[test]
fn a_base_image_is_in_every_statement() {
    let lock = lock();
    let files = std::collections::BTreeMap::from([(path("kernel"), vec![1])]);
    let mut facts = facts(&lock, VerityDigest::new([1; 32]), &files);
    let digest = |byte: u8| PrefixedSha256(Sha256Digest::new([byte; 32]));
    let input = InputFact {
        origin: Origin::Base,
        digest: InputDigest::Pinned(digest(51).0),
    };
    facts.stages[1].inputs.insert("image".to_owned(), input);
    let error = Statements::describe(&facts).expect_err("no fact").to_string();
    assert!(
        error.contains("is the base image, which the build did not report"),
        "{error}"
    );
    facts.base_image = Some(BaseImageFact {
        name: "registry.example/team/base".to_owned(),
        digest: digest(50),
        manifest: digest(51),
        layers: vec![digest(52), digest(53)],
    });
    let statements = Statements::describe(&facts).expect("whole facts");
    let manifest: Value = serde_json::from_str(text(&statements, MANIFEST_FILE)).expect("JSON");
    assert_eq!(manifest["base_image_digest"], digest(50).to_string());
    let schema: Value = serde_json::from_str(include_str!("../docs/build-manifest.schema.json")).expect("JSON");
    let valid = jsonschema::validate(&schema, &manifest);
    assert!(valid.is_ok(), "{valid:?}");
    for field in ["name", "digest", "manifest", "layers"] {
        let mut lacking = manifest.clone();
        lacking["base_image"].as_object_mut().expect("an object").remove(field);
        assert!(!jsonschema::is_valid(&schema, &lacking), "{field}");
    }
    let bom: Value = serde_json::from_str(text(&statements, SBOM_FILE)).expect("JSON");
    assert_eq!(cyclonedx::schema_problems(&bom), [""; 0]);
    let components = bom["components"].as_array().expect("a list");
    let container = components.iter().find(|c| c["type"] == "container").expect("the image");
    let hex = digest(50).0.to_hex();
    assert_eq!(
        container["purl"],
        format!("pkg:oci/base@sha256:{hex}?repository_url=registry.example%2Fteam%2Fbase")
    );
    assert_eq!(
        (&container["scope"], &container["hashes"][0]["content"]),
        (&json!("required"), &json!(hex))
    );
    let provenance: Value = serde_json::from_str(text(&statements, PROVENANCE_FILE)).expect("JSON");
    let dependencies = provenance["predicate"]["buildDefinition"]["resolvedDependencies"].as_array();
    let named = dependencies
        .expect("a list")
        .iter()
        .map(|d| (d["name"].clone(), d["digest"]["sha256"].clone()));
    let named: Vec<_> = named
        .filter(|(name, _)| name.as_str().is_some_and(|n| n.starts_with("base-image")))
        .collect();
    let wanted = [("", 50), (":manifest", 51), (":layer:0", 52), (":layer:1", 53)];
    let wanted = wanted.map(|(part, byte)| (json!(format!("base-image{part}")), json!(digest(byte).0.to_hex())));
    assert_eq!(named, wanted);
}

#[test]
fn facts_that_contradict_each_other_are_refused() {
    let lock = lock();
    let files = std::collections::BTreeMap::from([(path("kernel"), vec![1])]);
    let cases: [(Change, &str); 11] = [
        (
            |f| f.kernel_version.clear(),
            "the kernel version must be one line of text",
        ),
        (
            |f| f.kernel_command_line.push('\n'),
            "the kernel command line must be one line",
        ),
        (
            |f| f.git_sha = Some("HEAD".to_owned()),
            "the git revision \"HEAD\" is not a git commit, 40 or 64",
        ),
        (|f| f.artifacts.clear(), "the artifact has no file"),
        (|f| f.stages.clear(), "the artifact has no stage"),
        (
            |f| f.dirty = true,
            "is hermetic, but from uncommitted files and without --allow-dirty",
        ),
        (
            |f| f.package_sets.extend([("gone/amd64".to_owned(), Role::Tool)]),
            "the package set \"gone/amd64\" has no",
        ),
        (
            |f| f.package_sets.retain(|set, _| set != "tools/amd64"),
            "input \"debs\" of the stage tools/amd64 is the package set",
        ),
        (
            |f| f.pinned_files.extend([("x".to_owned(), Role::Tool)]),
            "the file \"x\" is not in the lock for amd64",
        ),
        (
            |f| {
                let digests = f.artifacts[&path("kernel")];
                f.artifacts.insert(path("SHA256SUMS"), digests);
            },
            "\"SHA256SUMS\" has the name of a statement",
        ),
        (
            |f| f.stages.extend(f.stages.clone()),
            "the stage tools/amd64 is reported twice",
        ),
    ];
    for (change, want) in cases {
        let mut facts = facts(&lock, VerityDigest::new([1; 32]), &files);
        change(&mut facts);
        let err = Statements::describe(&facts).expect_err(want).to_string();
        assert!(err.contains(want), "{err:?} lacks {want:?}");
    }
    let mut facts = facts(&lock, VerityDigest::new([1; 32]), &files);
    facts.stages[0].policy = json!({"share": 0.5});
    let err = Statements::describe(&facts).expect_err("a fraction").to_string();
    assert!(err.contains("\"/stages/0/policy/share\""), "{err}");
    facts.stages[0].policy = Value::Null;
    facts.stages[0].inputs.get_mut("debs").expect("there").origin = Origin::Lock("x".to_owned());
    assert!(Statements::describe(&facts).is_err());
}
