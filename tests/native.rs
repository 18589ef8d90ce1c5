//! Programs of this machine in a root of another architecture (`stages/rootfs/install/native.sh`): its functions under the shell and the
//! tools of a stage, and what `stages/native-programs/programs` lists.

#[path = "fixture/tools.rs"]
mod tools;

use std::{collections::BTreeSet, fs, path::Path};

const STAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/stages");
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/native");

#[test]
fn programs_are_lent_to_a_root_and_nothing_of_it_is_left() {
    let files = [SCRIPTS, STAGES].map(Path::new);
    let script = "dash /inputs/0/native_test.sh /inputs/1/rootfs/install 2>&1";
    let (said, _) = tools::check(&files, script);
    // A script that stopped half way would also fail nothing.
    assert!(said.ends_with(" checks, 0 failed\n"), "{said}");
}

#[test]
fn every_program_that_is_lent_is_explained_and_none_knows_its_architecture() {
    let read = |path: &str| fs::read_to_string(Path::new(STAGES).join(path)).expect("readable");
    let list = read("native-programs/programs");
    let docs = read("../docs/sandbox.md");
    let lines = docs.lines().filter_map(|line| line.strip_prefix("| `"));
    let explained: BTreeSet<&str> = lines
        .filter_map(|line| line.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    let wanted = read("native-programs/stage.toml");
    let mut programs = BTreeSet::new();
    for line in list.lines() {
        let (package, names) = line.split_once(' ').expect("a package and its programs");
        assert!(
            explained.contains(package),
            "docs/sandbox.md does not say why {package} may be lent"
        );
        assert!(
            wanted.contains(&format!("\"{package}\"")),
            "stage.toml does not want {package}"
        );
        programs.extend(names.split(' '));
    }
    assert!(programs.len() > 30, "{programs:?}");
    for knows in [
        "arch",
        "dpkg",
        "dpkg-query",
        "dpkg-trigger",
        "getconf",
        "ldconfig",
        "uname",
    ] {
        assert!(
            !programs.contains(knows),
            "{knows} answers for the architecture that it was compiled for"
        );
    }
}
