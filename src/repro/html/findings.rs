//! The findings: which outputs differ first, where, and why.

use super::text::{Text, count, parts};
use crate::{
    inspect::{Difference, LikelyCause, What},
    repro::{Divergent, Finding, ReproVerdict},
};
use maud::{Markup, html};

/// Differences of one finding that are visible while the rest is folded.
const SHOWN: usize = 8;

pub(super) fn findings(verdict: &ReproVerdict) -> Markup {
    html! {
        section id="findings" {
            h2 { "First differences and their causes" }
            @if verdict.findings.is_empty() {
                p { (if verdict.equal { "Nothing differs." } else { "No difference was examined." }) }
            }
            @for finding in &verdict.findings {
                (article(verdict, finding))
            }
        }
    }
}

fn article(verdict: &ReproVerdict, finding: &Finding) -> Markup {
    let place = verdict.stages.iter().position(|stage| stage.node == finding.node);
    html! {
        article {
            h3 {
                @match place {
                    Some(n) => { a href={ "#stage-" (n) } { (Text(&finding.node)) } },
                    None => { (Text(&finding.node)) },
                }
                @match &finding.found {
                    Divergent::Output(name) => { ", output " (Text(name)) },
                    Divergent::Failed(_) => { " failed in the second build" },
                }
            }
            p class="cause" { b { "Why:" } " " (Text(finding.cause.sentence())) "." }
            @match &finding.found {
                Divergent::Output(_) => {
                    @if !finding.differences.is_empty() { p { "In the list " (finding.cause.compared()) "." } }
                    (listed(finding))
                },
                Divergent::Failed(error) => {
                    @for line in error.lines() { p { code { (Text(line)) } } }
                },
            }
        }
    }
}

/// The differences of an output: the first few open, the rest of the list folded, those beyond the list as a number.
fn listed(finding: &Finding) -> Markup {
    let (listed, all) = (finding.differences.len(), count(finding.total, "difference"));
    let (shown, more) = finding.differences.split_at(listed.min(SHOWN));
    let unlisted = finding.total.saturating_sub(listed as u64);
    html! {
        @if listed == 0 {
            p { (all) ", not listed here." }
        } @else {
            p { (all) ":" }
            (differences(shown, 1))
            @if !more.is_empty() {
                details {
                    summary { (more.len()) " more" }
                    (differences(more, SHOWN + 1))
                }
            }
            @if unlisted > 0 {
                p { (unlisted) " more, not listed here." }
            }
        }
    }
}

fn differences(all: &[Difference], first: usize) -> Markup {
    html! {
        ol class="differences" start=(first) {
            @for difference in all { li { (item(difference)) } }
        }
    }
}

fn item(difference: &Difference) -> Markup {
    let (sentence, values) = in_words(&difference.what);
    html! {
        @if !difference.path.is_empty() {
            p class="path" {
                @for (n, step) in difference.path.iter().enumerate() {
                    @if n > 0 { " " i { "›" } " " }
                    span { (Text(step)) }
                }
            }
        }
        p {
            (Text(sentence)) "."
            @if let Some(hint) = difference.hint {
                " " span class="hint" { "looks like " (looks(hint)) }
            }
        }
        @if let Some((a, b)) = values {
            (both(a.as_deref(), b.as_deref()))
        }
    }
}

const fn looks(hint: LikelyCause) -> &'static str {
    match hint {
        LikelyCause::Time => "a time",
        LikelyCause::Path => "a path",
        LikelyCause::Random => "random bytes",
        LikelyCause::Order => "another order",
    }
}

type Values = (Option<String>, Option<String>);

/// A difference in words, and the two values where it has any.
fn in_words(what: &What) -> (String, Option<Values>) {
    let size = |bytes: u64| indicatif::HumanBytes(bytes);
    let differ = |bytes: u64| match bytes {
        1 => "1 byte differs".to_owned(),
        _ => format!("{bytes} bytes differ"),
    };
    match what {
        What::OnlyInA { size: bytes, .. } => (format!("Only in the first build ({})", size(*bytes)), None),
        What::OnlyInB { size: bytes, .. } => (format!("Only in the second build ({})", size(*bytes)), None),
        What::Format { a, b } => ("The kinds differ".to_owned(), Some((Some(a.clone()), Some(b.clone())))),
        What::Field { field, a, b } => (format!("Its {field} differs"), Some((a.clone(), b.clone()))),
        What::Package { package, a, b } => (format!("Package {package} differs"), Some((a.clone(), b.clone()))),
        What::Content {
            offset,
            bytes,
            sizes,
            a,
            b,
        } => {
            let lengths = match sizes.0 == sizes.1 {
                true => String::new(),
                false => format!(
                    "; the file is {} bytes long in the first build, {} in the second",
                    sizes.0, sizes.1
                ),
            };
            let sentence = format!("{}, the first at byte {offset}{lengths}", differ(*bytes));
            (sentence, Some((Some(a.clone()), Some(b.clone()))))
        }
        What::About { offset, bytes } => {
            let sentence = format!("In its metadata {}, the first at byte {offset}", differ(*bytes));
            (sentence, None)
        }
        What::Compression { a, b, same } => {
            let content = if *same { "equal" } else { "different" };
            let sentence = format!("It is stored in two ways, and its content is {content}");
            (sentence, Some((Some(a.clone()), Some(b.clone()))))
        }
        What::Damaged { problem } => (format!("The contents cannot be compared: {problem}"), None),
        What::Incomplete { problem } => (
            format!("The contents are compared as far as they could be read: {problem}"),
            None,
        ),
        What::Padding { a, b, only } => {
            let sentence = if *only {
                "Only the padding differs"
            } else {
                "The padding differs"
            };
            let sides = (Some(format!("{a} bytes")), Some(format!("{b} bytes")));
            (sentence.to_owned(), Some(sides))
        }
        What::Grown { a, b, partitions } => {
            let equal = count(*partitions, "equal partition");
            (
                format!("The disks have other lengths and {equal}"),
                Some((Some(format!("{a} bytes")), Some(format!("{b} bytes")))),
            )
        }
        What::Moved { parts, first, a, b } => {
            let verb = if *parts == 1 { "lies" } else { "lie" };
            let sentence = format!("{} {verb} elsewhere, the first is {first}", count(*parts, "part"));
            (
                sentence,
                Some((Some(format!("at byte {a}")), Some(format!("at byte {b}")))),
            )
        }
    }
}

/// Two values, one above the other, with their unequal parts marked.
fn both(a: Option<&str>, b: Option<&str>) -> Markup {
    let [first, second] = match (a, b) {
        (Some(a), Some(b)) => {
            let (before, middles, after) = parts(a, b);
            middles.map(|middle| {
                html! {
                    code {
                        (Text(before))
                        @if !middle.is_empty() { mark { (Text(middle)) } }
                        (Text(after))
                    }
                }
            })
        }
        _ => [a, b].map(|value| match value {
            Some(value) => html! { code { mark { (Text(value)) } } },
            None => html! { em { "not there" } },
        }),
    };
    html! {
        div class="values" tabindex="0" {
            dl { dt { "first" } dd { (first) } dt { "second" } dd { (second) } }
        }
    }
}
