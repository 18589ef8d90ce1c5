//! The workflows in `.gitea/workflows/`: GitHub's parser reads them, and their commands run with a `pnb` that only records its arguments.
//!
//! There is no runner of Gitea or Forgejo here. `runner` does the little of one that these files use.

#[path = "../fixture/tools.rs"]
mod tools;

mod parser;
mod runner;

use parser::{Workflow, errors_of, workflows};
use runner::{Run, accepts};
use std::{collections::BTreeSet, fs, path::Path};

/// Forgejo's key, which asks for tokens of the job's identity. GitHub does not know it.
const FORGEJO: &str = "enable-openid-connect: true";

/// The workflow of that file name.
fn workflow(name: &str) -> Workflow {
    workflows()
        .remove(name)
        .unwrap_or_else(|| unreachable!("there is no {name}"))
}

#[test]
fn github_s_parser_finds_nothing_but_the_key_of_forgejo() {
    let all = workflows();
    assert!(all.len() >= 3, "{:?}", all.keys());
    for (name, workflow) in &all {
        let without: String = workflow
            .text
            .lines()
            .filter(|l| l.trim() != FORGEJO)
            .map(|l| format!("{l}\n"))
            .collect();
        let found = errors_of(&[&workflow.text, &without]);
        let keys = workflow.text.lines().filter(|l| l.trim() == FORGEJO).count();
        assert_eq!(found[0].len(), keys, "{name}: {:?}", found[0]);
        assert!(
            found[0]
                .iter()
                .all(|e| e.ends_with("Unexpected value 'enable-openid-connect'")),
            "{:?}",
            found[0]
        );
        assert_eq!(found[1], Vec::<String>::new(), "{name} without the key of Forgejo");
    }
}

#[test]
fn github_s_parser_finds_what_is_wrong() {
    let text = &workflow("build-disk-image.yaml").text;
    let change = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        let changed = text.replacen(from, to, 1);
        changed
            .lines()
            .filter(|l| l.trim() != FORGEJO)
            .map(|l| format!("{l}\n"))
            .collect::<String>()
    };
    let wrong = [
        (
            change("    runs-on: pnb", "    runs-onn: pnb"),
            "Unexpected value 'runs-onn'",
        ),
        (
            change("matrix.arch", "matrixx.arch"),
            "Unrecognized named-value: 'matrixx'",
        ),
        (
            change("${{ matrix.variant }}", "${{ matrix.variant = 1 }}"),
            "Unexpected symbol",
        ),
        (change("    needs: pnb", "    needs: pnc"), "pnc"),
        (change("contents: ", "content: "), "Unexpected value 'content'"),
    ];
    let texts: Vec<&str> = wrong.iter().map(|(text, _)| text.as_str()).collect();
    for ((_, want), found) in wrong.iter().zip(errors_of(&texts)) {
        assert!(found.iter().any(|e| e.contains(want)), "{want}: {found:?}");
    }
}

#[test]
fn every_action_is_pinned_by_its_commit() {
    let mut seen = 0;
    for (name, workflow) in workflows() {
        for step in workflow.steps() {
            let Some(action) = &step.uses else { continue };
            seen += 1;
            let (_, commit) = action.split_once('@').expect("a version");
            let is_commit = commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
            assert!(is_commit, "{name}: {action}");
            // Of others' code the job that can publish runs no more than this.
            assert!(
                name != "build-disk-image.yaml" || action.starts_with("actions/checkout@"),
                "{action}"
            );
        }
    }
    assert!(seen >= 6, "{seen}");
}

/// The names after `prefix` in a text.
fn names_after(prefix: &str, text: &str) -> BTreeSet<String> {
    let found = text.match_indices(prefix).map(|(at, _)| {
        let rest = &text[at + prefix.len()..];
        rest.chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect::<String>()
    });
    found.filter(|name| !name.is_empty()).collect()
}

#[test]
fn secrets_and_variables_are_listed_at_the_head_and_in_the_documentation() {
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/workflow.md")).expect("readable");
    for (name, workflow) in workflows() {
        let head: String = workflow
            .text
            .lines()
            .take_while(|l| l.starts_with('#'))
            .map(|l| format!("{l}\n"))
            .collect();
        let body = &workflow.text[head.len()..];
        for kind in ["secrets.", "vars."] {
            for used in names_after(kind, body) {
                assert!(head.contains(&used), "{name}: the head does not list {kind}{used}");
                assert!(
                    manual.contains(&used),
                    "docs/workflow.md does not explain {used} of {name}"
                );
            }
        }
        assert!(
            head.to_lowercase().contains("secret"),
            "{name}: the head does not say which secrets are used"
        );
    }
}

#[test]
fn the_matrix_has_every_artifact_that_has_a_stage() {
    let project = pnb::source::SourceTree::open(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("opens");
    let graph = pnb::pipeline::Project::load_graph(&project).expect("a graph");
    let expected: BTreeSet<(String, String)> = graph
        .variants()
        .flat_map(|(variant, stage)| {
            stage
                .only
                .iter()
                .map(move |arch| (variant.to_string(), arch.to_string()))
        })
        .collect();
    assert!(expected.len() >= 12, "{expected:?}");
    let workflow = workflow("build-disk-image.yaml");
    let matrix: Vec<(String, String)> = workflow
        .combinations("artifact")
        .iter()
        .map(|one| (one["variant"].clone(), one["arch"].clone()))
        .collect();
    assert_eq!(matrix.len(), expected.len(), "{matrix:?}");
    assert_eq!(matrix.into_iter().collect::<BTreeSet<_>>(), expected);
    // What publishes runs once, after all of them.
    let last: Vec<&str> = workflow
        .jobs()
        .into_iter()
        .filter(|job| workflow.needs(job).contains(&"artifact".to_owned()))
        .collect();
    assert_eq!(last.len(), 1, "{last:?}");
    assert_eq!(workflow.combinations(last[0]).len(), 1);
}

#[test]
fn every_command_runs_and_pnb_accepts_its_arguments() {
    let workflow = workflow("build-disk-image.yaml");
    let mut commands = BTreeSet::new();
    for job in workflow.jobs() {
        for combination in workflow.combinations(job) {
            let run = Run::new(&workflow, job, &combination);
            for arguments in run.all() {
                commands.insert(arguments.first().cloned().unwrap_or_default());
                accepts(&arguments).unwrap_or_else(|said| unreachable!("{job}: pnb {arguments:?}\n{said}"));
            }
        }
    }
    let wanted: BTreeSet<String> = ["audit", "build", "doctor", "publish", "verify-repro"]
        .map(str::to_owned)
        .into();
    assert!(commands.is_superset(&wanted), "{commands:?}");
    // What pnb does not accept is found.
    for wrong in [
        &["build", "--hermetik"][..],
        &["audit"],
        &["build", "--variants", "raw"],
        &["biuld"],
    ] {
        let wrong: Vec<String> = wrong.iter().map(|s| (*s).to_owned()).collect();
        assert!(accepts(&wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_tag_is_released_and_without_a_signature_nothing_is() {
    let workflow = workflow("build-disk-image.yaml");
    let combination = Default::default();
    let published = |unset: &[&'static str]| -> String {
        let all = Run::new(&workflow, "whole", &combination).without(unset).all();
        let found = all
            .iter()
            .find(|arguments| arguments[0] == "publish")
            .expect("published");
        accepts(found).unwrap_or_else(|said| unreachable!("{found:?}\n{said}"));
        found.join(" ")
    };
    let signed = published(&[]);
    for part in [
        "--to registry:registry.example/acme/os",
        "--disk-images value-of-PNB_DISK_IMAGES",
        "--platform raw/amd64=debian-13 --platform disk-image-rpi4/arm64=pi",
        "--identity https://git.example/acme/images/.gitea/workflows/build-disk-image.yaml@refs/tags/v1",
        "--issuer value-of-PNB_ISSUER",
        "--release v1 --gitea https://git.example/acme/images",
        "--resume",
    ] {
        assert!(signed.contains(part), "{signed} lacks {part}");
    }
    assert!(!signed.contains("--sign "), "{signed}");
    let unsigned = published(&["PNB_SIGNING_CONFIG"]);
    assert!(unsigned.ends_with("--sign none"), "{unsigned}");
    for part in ["--release", "--disk-images", "--identity"] {
        assert!(!unsigned.contains(part), "{unsigned} has {part}");
    }
}

#[test]
fn a_command_that_fails_ends_its_job() {
    let workflow = workflow("build-disk-image.yaml");
    let combination = workflow.combinations("artifact").remove(0);
    let failed = Run::new(&workflow, "artifact", &combination).failing_at("verify-repro");
    let names: Vec<&str> = failed.iter().map(|arguments| arguments[0].as_str()).collect();
    assert_eq!(names, ["build", "verify-repro"]);
}

#[test]
fn shellcheck_finds_nothing_in_any_command() {
    let mut scripts = Vec::new();
    let dir = tempfile::tempdir().expect("scratch");
    for (name, workflow) in workflows() {
        for step in workflow.steps() {
            let Some(run) = &step.run else { continue };
            // Values of a job come as variables: an expression in a script would be code.
            assert!(!run.contains("${{"), "{name}: {run}");
            let path = dir.path().join(format!("{}.sh", scripts.len()));
            fs::write(&path, format!("#!/bin/bash\n{run}")).expect("written");
            scripts.push(path);
        }
    }
    assert!(scripts.len() >= 8, "{}", scripts.len());
    let wrong = dir.path().join("wrong.sh");
    fs::write(&wrong, "#!/bin/bash\necho $x/*.img\n").expect("written");
    scripts.push(wrong);
    let paths: Vec<&Path> = scripts.iter().map(|path| path.as_path()).collect();
    let last = paths.len() - 1;
    let script = format!(
        "n=0; while [ $n -lt {last} ]; do shellcheck /inputs/$n; n=$((n + 1)); done\n\
         ! shellcheck /inputs/{last} >out/wrong\ngrep -q SC2086 out/wrong"
    );
    let (said, _) = tools::check(&paths, &script);
    assert_eq!(said, "");
}
