//! The page as text: its contents and their order, and that no value from outside becomes markup.

use super::html;
use crate::{
    inspect::{Difference, LikelyCause, PartKind, What},
    manifest::Host,
    model::{Arch, NodeId, Sha256Digest, VerityDigest},
    repro::{
        ArtifactResult, Axis, BuiltFrom, Cause, Divergent, Finding, OutputResult, ReproSetup, ReproVerdict,
        StageResult, State,
    },
};
use std::collections::BTreeSet;

/// A value that must never reach the page unescaped.
const HOSTILE: &str = "</script><img src=x onerror=alert(1)>\"'&\0\x1b\u{202e}";
const HARMLESS: &str = "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&quot;'&amp;\\0\\u{1b}\\u{202e}";

fn sha(byte: u8) -> Sha256Digest {
    Sha256Digest::new([byte; 32])
}

fn node(text: &str) -> NodeId {
    text.parse().expect("a node")
}

fn stage(name: &str, needs: &[&str], state: State) -> StageResult {
    let second = if state == State::Equal { 1 } else { 2 };
    StageResult {
        node: node(name),
        needs: needs.iter().map(|n| node(n)).collect(),
        state,
        outputs: vec![OutputResult {
            name: "tree".to_owned(),
            kind: "tree",
            first: VerityDigest::new([1; 32]),
            second: VerityDigest::new([second; 32]),
        }],
    }
}

fn equal() -> ReproVerdict {
    let setup = ReproSetup {
        what: vec![node("raw/amd64")],
        against: None,
        second_on: None,
        host: Host {
            name: "host".to_owned(),
            kernel: "Linux 6.12".to_owned(),
            arch: Arch::Amd64,
            cpus: 2,
        },
        started: 1_795_252_544,
        finished: 1_795_252_605,
        axes: vec![Axis::TimeZone.into()],
        not_varied: vec![(Axis::Clock, "there is no libfaketime".to_owned())],
        inputs: BuiltFrom {
            pnb: "0.1.0".to_owned(),
            code_sandbox: "5a".repeat(32),
            code_writers: "77".repeat(32),
            lock: sha(9),
            revision: Some("0123abcd".to_owned()),
            uncommitted: Vec::new(),
            source_date_epoch: 1_795_252_544,
            packages: 12,
        },
    };
    let stages = vec![
        stage("tools/amd64", &[], State::Equal),
        stage("raw/amd64", &["tools/amd64"], State::Equal),
    ];
    let artifacts = vec![ArtifactResult {
        artifact: "raw/amd64".parse().expect("an artifact"),
        file: "disk.raw".parse().expect("a path"),
        first: Some(sha(7)),
        second: Some(sha(7)),
    }];
    ReproVerdict::new(setup, stages, artifacts, Vec::new())
}

fn finding(name: &str, differences: Vec<Difference>) -> Finding {
    Finding {
        node: node(name),
        found: Divergent::Output("tree".to_owned()),
        cause: Cause::Axes {
            axes: vec![Axis::TimeZone],
        },
        total: differences.len() as u64,
        differences,
    }
}

fn difference(what: What) -> Difference {
    Difference {
        path: vec!["disk.raw".to_owned(), "partition 2".to_owned(), "etc/date".to_owned()],
        what,
        hint: Some(LikelyCause::Time),
        structure: false,
    }
}

fn content() -> What {
    What::Content {
        offset: 512,
        bytes: 1,
        sizes: (100, 100),
        a: "built 10:15".to_owned(),
        b: "built 10:35".to_owned(),
    }
}

fn one() -> ReproVerdict {
    let mut verdict = equal();
    verdict.equal = false;
    verdict.stages[1] = stage("raw/amd64", &["tools/amd64"], State::FirstDivergent);
    verdict.artifacts[0].second = Some(sha(8));
    verdict.findings = vec![finding("raw/amd64", vec![difference(content())])];
    verdict
}

fn many() -> ReproVerdict {
    let mut verdict = one();
    let extra: Vec<Difference> = (0..12)
        .map(|size| {
            difference(What::OnlyInB {
                size,
                kind: PartKind::File,
            })
        })
        .collect();
    verdict
        .stages
        .push(stage("iso/amd64", &["tools/amd64"], State::FirstDivergent));
    verdict
        .stages
        .push(stage("ipxe/amd64", &["iso/amd64", "raw/amd64"], State::Different));
    verdict.findings.push(Finding {
        total: 50,
        ..finding("iso/amd64", extra)
    });
    verdict
}

/// Every element is closed where it was opened, every id is there once, and every link within the page leads to one.
fn is_whole(page: &str) {
    const VOID: [&str; 2] = ["meta", "wbr"];
    let (mut open, mut ids, mut links) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let style = page.find("<style>").expect("there") + 7..page.find("</style>").expect("there");
    let mut rest = format!("{}{}", &page[..style.start], &page[style.end..]);
    assert!(rest.starts_with("<!doctype html>\n"));
    rest.drain(..16);
    for tag in rest.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').expect("a tag ends");
        assert!(!text.contains('>') && !text.contains('\0'), "{text}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "{open:?}");
            continue;
        }
        let name = tag.split([' ', '/']).next().expect("a name").to_owned();
        assert!(
            name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()),
            "{tag}"
        );
        for (attribute, value) in tag.split('"').collect::<Vec<_>>().chunks_exact(2).map(|c| (c[0], c[1])) {
            match attribute.trim_start_matches(name.as_str()).trim() {
                "id=" => assert!(ids.insert(value.to_owned()), "{value} is there twice"),
                "href=" => drop(links.insert(value.strip_prefix('#').expect("within the page").to_owned())),
                other => assert!(!other.starts_with("on") && other != "src=", "{tag}"),
            }
        }
        if !VOID.contains(&name.as_str()) && !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert_eq!(open, Vec::<String>::new());
    assert!(links.is_subset(&ids), "{:?}", links.difference(&ids));
}

/// The pieces are on the page, each after the one before.
fn in_order(page: &str, pieces: &[&str]) {
    let mut from = page.find("<body>").expect("a body");
    for piece in pieces {
        let at = page[from..].find(piece);
        from += at.unwrap_or_else(|| panic!("{piece:?} is not there, or too early:\n{}", &page[from..]));
    }
}

#[test]
fn a_good_verdict_says_so_and_what_it_rests_on() {
    let page = html(&equal());
    is_whole(&page);
    in_order(
        &page,
        &[
            "Everything came out the same.",
            "2 outputs of 2 stages and 1 file of artifacts",
            "raw/amd64",
            "Linux 6.12",
            "2026-11-21T09:15:44Z",
            "after 1 min 1 s",
            "time-zone</th><td data-is=\"first\">UTC</td><td data-is=\"second\">13 h 45 min east of it",
            "clock</th><td>there is no libfaketime",
            "<svg",
            "= equal",
            "Nothing differs.",
            "raw/amd64/<wbr>disk.raw".replace("raw/", "raw/<wbr>").as_str(),
            "<code title=\"0707",
            "fs-verity",
            "0123abcd",
            "1795252544",
        ],
    );
    assert!(!page.contains("≠"), "{page}");
    assert_eq!(page, html(&equal()));
}

#[test]
fn one_finding_is_told_down_to_its_byte() {
    let page = html(&one());
    is_whole(&page);
    in_order(
        &page,
        &[
            "1 output differs; the builds part at stage raw/amd64.",
            "<svg",
            "≠ differs first",
            "<a href=\"#stage-1\">raw/amd64</a>, output tree",
            "it depends on time-zone.",
            "1 difference:",
            "<span>disk.raw</span> <i>›</i> <span>partition 2</span> <i>›</i> <span>etc/date</span>",
            "1 byte differs, the first at byte 512.",
            "looks like a time",
            "first</dt><dd><code>built 10:<mark>1</mark>5</code>",
            "second</dt><dd><code>built 10:<mark>3</mark>5</code>",
            "0808080808080808080808080808080808080808080808080808080808080808",
            "<details id=\"stage-1\" open>",
        ],
    );
}

#[test]
fn many_findings_are_counted_and_the_long_lists_folded() {
    let page = html(&many());
    is_whole(&page);
    in_order(
        &page,
        &[
            "3 outputs differ; the builds part at stages raw/amd64 and iso/amd64.",
            "<svg",
            "≠ differs<",
            "50 differences:",
            "Only in the second build (7 B)",
            "<summary>4 more</summary>",
            "start=\"9\"",
            "Only in the second build (11 B)",
            "38 more, not listed here.",
        ],
    );
}

#[test]
fn files_alone_can_differ() {
    let mut verdict = equal();
    verdict.equal = false;
    verdict.artifacts[0].second = None;
    verdict.setup.against = Some("/srv/build-manifest.json".to_owned());
    let page = html(&verdict);
    is_whole(&page);
    in_order(
        &page,
        &[
            "1 file differs.",
            "the manifest <code>/srv/build-manifest.json",
            "<em>not there</em>",
        ],
    );
}

#[test]
fn every_kind_of_difference_has_its_words() {
    let some = |text: &str| Some(text.to_owned());
    let (a, b) = ("a".to_owned(), "b".to_owned());
    let kinds = [
        (
            What::OnlyInA {
                size: 1024,
                kind: PartKind::File,
            },
            vec!["Only in the first build (1.00 KiB)."],
        ),
        (
            What::Format { a, b },
            vec!["The kinds differ.", "<mark>a</mark>", "<mark>b</mark>"],
        ),
        (
            What::Field {
                field: "mode".to_owned(),
                a: some("0644"),
                b: None,
            },
            vec!["Its mode differs.", "<mark>0644</mark>", "not there"],
        ),
        (
            What::Package {
                package: "dash".to_owned(),
                a: None,
                b: some("1.0"),
            },
            vec!["Package dash differs.", "not there", "<mark>1.0</mark>"],
        ),
        (
            What::Compression {
                a: "gzip".to_owned(),
                b: "zstd".to_owned(),
                same: true,
            },
            vec![
                "It is stored in two ways, and its content is equal.",
                "<mark>gzip</mark>",
                "<mark>zstd</mark>",
            ],
        ),
        (
            What::About { offset: 4, bytes: 2 },
            vec!["In its metadata 2 bytes differ, the first at byte 4."],
        ),
        (
            What::Damaged {
                problem: "a bad sum".to_owned(),
            },
            vec!["The contents cannot be compared: a bad sum."],
        ),
        (
            What::Incomplete {
                problem: "a limit".to_owned(),
            },
            vec!["The contents are compared as far as they could be read: a limit."],
        ),
        (
            What::Moved {
                parts: 2,
                first: "x".to_owned(),
                a: 10,
                b: 20,
            },
            vec![
                "2 parts lie elsewhere, the first is x.",
                "at byte <mark>1</mark>0",
                "at byte <mark>2</mark>0",
            ],
        ),
    ];
    for (what, pieces) in kinds {
        let mut verdict = one();
        verdict.findings = vec![finding("raw/amd64", vec![difference(what)])];
        let page = html(&verdict);
        is_whole(&page);
        let article = &page[page.find("<article>").expect("there")..page.find("</article>").expect("there")];
        for piece in pieces {
            assert!(article.contains(piece), "{piece:?}: {article}");
        }
    }
}

#[test]
fn whatever_a_name_holds_is_text() {
    let mut verdict = many();
    let hostile = || HOSTILE.to_owned();
    let hostile_node = || NodeId::new(HOSTILE, Arch::Amd64);
    verdict.setup.what = vec![hostile_node()];
    verdict.setup.against = Some(hostile());
    verdict.setup.host.name = hostile();
    verdict.setup.host.kernel = hostile();
    verdict.setup.axes[0].first = hostile();
    verdict.setup.axes[0].second = hostile();
    verdict.setup.not_varied[0].1 = hostile();
    verdict.stages[1].node = hostile_node();
    verdict.stages[1].outputs[0].name = hostile();
    verdict.stages[2].needs = vec![hostile_node(), NodeId::new(format!("{HOSTILE} not there"), Arch::Amd64)];
    // A path cannot hold NUL.
    verdict.artifacts[0].file = HOSTILE.replace(['\0', '/'], "").parse().expect("a path");
    verdict.findings[0].node = hostile_node();
    verdict.findings[0].found = Divergent::Output(hostile());
    let (a, b) = (Some(hostile()), None);
    let field = hostile();
    let path = vec![hostile(), hostile()];
    let what = What::Field { field, a, b };
    let hint = None;
    verdict.findings[0].differences = vec![Difference {
        path,
        what,
        hint,
        structure: false,
    }];
    verdict.setup.inputs.pnb = hostile();
    verdict.setup.inputs.revision = Some(hostile());
    verdict.setup.inputs.uncommitted = vec![hostile()];
    let page = html(&verdict);
    is_whole(&page);
    assert!(!page.contains("<img") && !page.contains("<script"), "{page}");
    assert!(
        page.chars().all(|c| c == '\n' || !c.is_control()),
        "a control character"
    );
    let times = page.matches(HARMLESS).count();
    assert!(times >= 20, "{times} of the names are there:\n{page}");
}

#[test]
fn a_failed_stage_is_reported_with_the_lines_of_its_error() {
    let mut verdict = one();
    verdict.findings[0].found = Divergent::Failed(format!("exit code 9\nlog: {HOSTILE}"));
    verdict.findings[0].differences.clear();
    let page = html(&verdict);
    is_whole(&page);
    let log = format!("<code>log: {HARMLESS}</code>");
    in_order(
        &page,
        &[
            "raw/amd64</a> failed in the second build",
            "it depends on",
            "<code>exit code 9</code>",
            &log,
        ],
    );
    assert!(!page.contains("not listed here"), "{page}");
}

#[test]
fn nothing_comes_from_elsewhere() {
    for verdict in [equal(), one(), many()] {
        let page = html(&verdict);
        for word in ["http:", "https:", "//", "@import", "url(", "<script", "<link"] {
            assert!(!page.contains(word), "{word}");
        }
    }
}

#[test]
fn a_finding_without_a_list_still_counts() {
    let mut verdict = one();
    verdict.findings[0].differences.clear();
    let page = html(&verdict);
    is_whole(&page);
    in_order(&page, &["1 difference, not listed here."]);
    assert!(!page.contains("<ol"), "{page}");
}
