//! Tests of the solver on small indexes.

use super::*;
use crate::{
    debian::Automatic,
    lock::{ArchiveRank, IndexScope},
    model::Arch,
};

/// Builds an index from lines `archive name version field: value; field: value`.
fn index(lines: &[&str]) -> Index {
    let mut index = Index::new(Arch::Amd64);
    for line in lines {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (archive, name, version, rest) = (word(), word(), word(), word());
        let digest = "0".repeat(64);
        let mut text = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: pool/{name}.deb\nSize: 1\nSHA256: {digest}\n"
        );
        for field in rest.split(';').filter(|f| !f.trim().is_empty()) {
            text.push_str(field.trim());
            text.push('\n');
        }
        let rank = ArchiveRank {
            default: archive != "other",
            automatic: match archive {
                "backports" => Automatic::Upgrades,
                "experimental" => Automatic::Never,
                _ => Automatic::Always,
            },
        };
        index
            .read(archive, rank, text.as_bytes(), "Packages", IndexScope::OneArchitecture)
            .expect("well-formed");
    }
    index
}

fn pick(lines: &[&str], names: &[&str]) -> Result<String, String> {
    let index = index(lines);
    let wanted = WantedSet {
        node: NodeId::new("s", Arch::Amd64),
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        essential: false,
        closure: true,
    };
    let found = resolve(&index, &wanted).map_err(|err| match err.hint() {
        Some(hint) => format!("{err}; hint: {hint}"),
        None => err.to_string(),
    })?;
    let mut out: Vec<String> = found
        .into_iter()
        .map(|id| format!("{}={}", index.package(id).name, index.package(id).version))
        .collect();
    out.sort();
    Ok(out.join(" "))
}

#[test]
fn alternatives_providers_and_versions() {
    let base = [
        "main a 1 Depends: x (>= 2) | y",
        "main x 1",
        "main y 1",
        "main y 2",
        "main v 1 Depends: virtual",
        "main p1 1 Provides: virtual (= 3)",
        "main p2 1 Provides: virtual; Priority: important",
        "main w 1 Depends: virtual (>= 2)",
        "main q 1 Depends: m:any, n:amd64",
        "main m 1 Multi-Arch: allowed",
        "main n 1",
        "main r 1 Depends: n:any",
    ];
    let pick = |names: &[&str]| pick(&base, names);
    assert_eq!(
        pick(&["a"]),
        Ok("a=1 y=2".to_owned()),
        "the first alternative is too old"
    );
    assert_eq!(pick(&["v"]), Ok("p2=1 v=1".to_owned()), "the more important provider");
    assert_eq!(
        pick(&["v", "p1"]),
        Ok("p1=1 v=1".to_owned()),
        "a chosen provider satisfies"
    );
    assert_eq!(
        pick(&["w"]),
        Ok("p1=1 w=1".to_owned()),
        "only a versioned Provides meets a version"
    );
    assert_eq!(pick(&["q"]), Ok("m=1 n=1 q=1".to_owned()));
    assert!(pick(&["r"]).is_err(), "name:any needs Multi-Arch: allowed");
}

#[test]
fn other_archives_only_fill_gaps() {
    let base = [
        "main a 1 Depends: lib",
        "main lib 1",
        "other a 2 Depends: lib (>= 2), extra",
        "other lib 2",
        "other extra 9",
        "main b 1 Depends: extra",
    ];
    assert_eq!(pick(&base, &["a"]), Ok("a=1 lib=1".to_owned()));
    assert_eq!(pick(&base, &["a/other"]), Ok("a=2 extra=9 lib=2".to_owned()));
    assert_eq!(pick(&base, &["b"]), Ok("b=1 extra=9".to_owned()));
    assert_eq!(
        pick(&base, &["b/other"]),
        Err("resolve the package set s/amd64: no package \"b\" in archive other for amd64".to_owned())
    );
}

#[test]
fn a_failed_alternative_is_undone() {
    let base = [
        "main a 1 Depends: bad | good, c",
        "main bad 1 Depends: c, gone",
        "main good 1 Conflicts: d",
        "main c 1",
        "main d 1",
    ];
    assert_eq!(pick(&base, &["a"]), Ok("a=1 c=1 good=1".to_owned()));
    assert_eq!(
        pick(&base, &["d", "a"]),
        Err(
            "resolve the package set s/amd64: a 1 (main)\n  needs good 1 (main)\n  cannot be met: good 1 (main) and d 1 (main) \
             cannot be installed together (conflicts with d)"
                .to_owned()
        )
    );
}

#[test]
fn the_worked_example_of_the_header_ends_as_it_says() {
    let lines = [
        "main a 1",
        "main lib 1 Depends: d, gone",
        "main d 1 Depends: e",
        "main e 1",
        "main extra 1",
        "other a 2 Depends: extra (>= 2), lib",
        "other extra 2",
        "other lib 2",
    ];
    assert_eq!(
        pick(&lines, &["a/other", "d"]),
        Ok("a=2 d=1 e=1 extra=2 lib=2".to_owned())
    );
}

#[test]
fn errors_name_the_chain_and_both_sides() {
    let base = [
        "main a 1 Depends: b",
        "main b 1 Depends: c",
        "main c 1 Depends: gone (>= 4)",
        "main x 1 Breaks: y (<< 2)",
        "main y 1",
        "main mawk 1 Provides: virtual",
        "main gawk 1 Provides: virtual, gawk-compat",
        "backports gawk 2 Provides: virtual",
        "experimental busybox 1 Provides: only",
        "main old 1 Provides: only-old",
        "main old 2",
    ];
    assert_eq!(
        pick(&base, &["a"]),
        Err(
            "resolve the package set s/amd64: a 1 (main)\n  needs b 1 (main)\n  needs c 1 (main)\n  cannot be met: gone (>= 4)"
                .to_owned()
        )
    );
    assert_eq!(
        pick(&base, &["y", "x"]),
        Err(
            "resolve the package set s/amd64: x 1 (main) and y 1 (main) cannot be installed together (conflicts with y << 2)"
                .to_owned()
        )
    );
    let refusal = |name: &str| pick(&base, &[name]).expect_err(name);
    assert_eq!(
        refusal("virtual"),
        "resolve the package set s/amd64: no package \"virtual\" in any archive for amd64; hint: virtual is a virtual package; \
         name one of its providers: gawk, mawk"
    );
    assert_eq!(
        refusal("y:amd64"),
        "resolve the package set s/amd64: no package \"y:amd64\" in any archive for amd64; hint: a package is wanted without an \
         architecture, which is that of the stage: \"y\"; a package for amd64 alone belongs to `want-amd64` (here \"amd64\" was given)"
    );
    assert_eq!(
        refusal("only-old"),
        "resolve the package set s/amd64: no package \"only-old\" in any archive for amd64"
    );
    assert_eq!(pick(&base, &["only"]), Ok("busybox=1".to_owned()), "the only provider");
}

#[test]
fn archives_that_are_not_automatic_are_taken_where_nothing_else_is_or_by_name() {
    let lines = [
        "main a 1 Depends: lib",
        "main lib 1",
        "main b 1 Depends: lib (>= 2~)",
        "backports a 2~bpo Depends: lib (>= 2~), new",
        "backports lib 2~bpo",
        "backports new 2~bpo",
        "experimental a 3 Depends: lib (>= 3)",
        "experimental lib 3",
        "experimental new 3",
    ];
    assert_eq!(pick(&lines, &["a"]), Ok("a=1 lib=1".to_owned()));
    assert_eq!(pick(&lines, &["new"]), Ok("new=2~bpo".to_owned()), "100 is more than 1");
    assert_eq!(
        pick(&lines, &["a/backports"]),
        Ok("a=2~bpo lib=2~bpo new=2~bpo".to_owned())
    );
    assert_eq!(pick(&lines, &["a/experimental"]), Ok("a=3 lib=3".to_owned()));
    assert_eq!(
        pick(&lines, &["b"]),
        Err("resolve the package set s/amd64: b 1 (main)\n  cannot be met: lib (>= 2~)".to_owned()),
        "nobody named a version of backports"
    );
    assert_eq!(pick(&lines, &["b", "lib/backports"]), Ok("b=1 lib=2~bpo".to_owned()));
}

#[test]
fn a_hostile_chain_is_an_error_and_not_a_crash() {
    let lines: Vec<String> = (0..3000).map(|n| format!("main p{n} 1 Depends: p{}", n + 1)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let err = pick(&lines, &["p0"]).expect_err("refused");
    assert!(
        err.starts_with("resolve the package set s/amd64: dependencies are nested more than 1000 deep at p"),
        "{err}"
    );
}
