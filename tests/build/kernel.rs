//! The indexes of the kernel's modules against depmod.

use crate::{project::*, tools::in_tools};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// An output of a stage that has been built for these tests.
fn output_of(stage: &str, arch: &str, output: &str) -> PathBuf {
    good(pnb(repository(), &store()).args(["build", "--stage", stage, "--arch", arch]));
    let node = format!("{stage}/{arch}");
    let path = good(pnb(repository(), &store()).args(["store", "path", &node, "--output", output]));
    PathBuf::from(path.trim())
}

/// Runs `script` with the pinned build tools over `files`; what it prints.
fn with_tools(files: &[&Path], script: &str) -> String {
    let (good, said) = in_tools(&tree_of("tools"), files, &format!("set -eu\n{script}"));
    assert!(good, "{script}\n{said}");
    said
}

/// What sha256sum says of each file.
fn sums(said: &str) -> BTreeMap<&str, &str> {
    let lines = said.lines().filter_map(|l| l.split_once("  "));
    lines
        .map(|(sum, name)| (name, sum))
        .filter(|(_, sum)| sum.len() == 64)
        .collect()
}

#[test]
fn the_indexes_are_those_of_depmod() {
    // depmod only reads the modules: those of the other machine too.
    for arch in ["amd64", "arm64"] {
        let package = output_of("kernel-package", arch, "tree");
        let indexes = output_of("kernel", arch, "indexes");
        let said = with_tools(
            &[&package, &indexes],
            "
            version=$(cd /inputs/0/usr/lib/modules && echo *)
            mkdir -p base/lib/modules
            ln -s /inputs/0/usr/lib/modules/$version base/lib/modules/$version
            depmod -b base -o /build -F /inputs/0/boot/System.map-$version $version
            cd lib/modules/$version
            sha256sum *
            echo and
            cd /inputs/1/usr/lib/modules/$version
            sha256sum *
            ",
        );
        let (theirs, ours) = said.split_once("\nand\n").expect("two lists");
        assert_eq!(sums(theirs).len(), 11, "{said}");
        assert_eq!(sums(theirs), sums(ours), "{arch}");
    }
}
