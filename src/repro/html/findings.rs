//! What differs first, and where.

use super::text::{Text, count, parts};
use crate::{
    inspect::{Difference, LikelyCause, What},
    repro::{Finding, ReproVerdict},
};
use std::fmt::Write;

/// Differences of one finding that are seen without a click.
const SHOWN: usize = 8;

pub(super) fn findings(verdict: &ReproVerdict, out: &mut String) {
    out.push_str("<section id=\"findings\">\n<h2>What differs first, and why</h2>\n");
    if verdict.findings.is_empty() {
        let said = if verdict.equal {
            "Nothing differs."
        } else {
            "Nothing was looked into."
        };
        let _ = writeln!(out, "<p>{said}</p>");
    }
    for finding in &verdict.findings {
        one(verdict, finding, out);
    }
    out.push_str("</section>\n");
}

fn one(verdict: &ReproVerdict, finding: &Finding, out: &mut String) {
    let node = match verdict.stages.iter().position(|stage| stage.node == finding.node) {
        Some(n) => format!("<a href=\"#stage-{n}\">{}</a>", Text(&finding.node)),
        None => Text(&finding.node).to_string(),
    };
    let _ = writeln!(
        out,
        "<article>\n<h3>{node}, output {}</h3>\n<p class=\"cause\"><b>Why:</b> {}.</p>",
        Text(&finding.output),
        Text(&finding.cause.sentence())
    );
    let (listed, all) = (finding.differences.len(), count(finding.total, "difference"));
    let (shown, more) = finding.differences.split_at(listed.min(SHOWN));
    let _ = match listed {
        0 => writeln!(out, "<p>{all}, not listed here.</p>"),
        _ => writeln!(out, "<p>{all}:</p>"),
    };
    differences(shown, 1, out);
    if !more.is_empty() {
        let _ = writeln!(out, "<details>\n<summary>{} more</summary>", more.len());
        differences(more, SHOWN + 1, out);
        out.push_str("</details>\n");
    }
    let unlisted = finding.total.saturating_sub(listed as u64);
    if listed > 0 && unlisted > 0 {
        let _ = writeln!(out, "<p>{unlisted} more, not listed here.</p>");
    }
    out.push_str("</article>\n");
}

fn differences(all: &[Difference], first: usize, out: &mut String) {
    if all.is_empty() {
        return;
    }
    let _ = writeln!(out, "<ol class=\"differences\" start=\"{first}\">");
    for difference in all {
        out.push_str("<li>\n");
        if !difference.path.is_empty() {
            let steps: Vec<String> = difference
                .path
                .iter()
                .map(|step| format!("<span>{}</span>", Text(step)))
                .collect();
            let _ = writeln!(out, "<p class=\"path\">{}</p>", steps.join(" <i>›</i> "));
        }
        let (sentence, values) = told(&difference.what);
        let hint = difference.hint.map_or(String::new(), |h| {
            format!(" <span class=\"hint\">looks like {}</span>", looks(h))
        });
        let _ = writeln!(out, "<p>{}.{hint}</p>", Text(&sentence));
        if let Some((a, b)) = values {
            both(a.as_deref(), b.as_deref(), out);
        }
        out.push_str("</li>\n");
    }
    out.push_str("</ol>\n");
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

/// A difference in words, and the two values if it has such.
fn told(what: &What) -> (String, Option<Values>) {
    let size = |bytes: u64| indicatif::HumanBytes(bytes);
    let differ = |bytes: u64| match bytes {
        1 => "1 byte differs".to_owned(),
        _ => format!("{bytes} bytes differ"),
    };
    match what {
        What::OnlyInA { size: bytes } => (format!("Only in the first build ({})", size(*bytes)), None),
        What::OnlyInB { size: bytes } => (format!("Only in the second build ({})", size(*bytes)), None),
        What::Format { a, b } => ("Of another kind".to_owned(), Some((Some(a.clone()), Some(b.clone())))),
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
                    "; it is {} bytes long in the first build, {} in the second",
                    sizes.0, sizes.1
                ),
            };
            let sentence = format!("{}, the first at byte {offset}{lengths}", differ(*bytes));
            (sentence, Some((Some(a.clone()), Some(b.clone()))))
        }
        What::About { offset, bytes } => {
            let sentence = format!("In what describes it {}, the first at byte {offset}", differ(*bytes));
            (sentence, None)
        }
        What::Damaged { problem } => (format!("Cannot be compared: {problem}"), None),
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

/// Two values, one above the other; what they do not share is marked.
fn both(a: Option<&str>, b: Option<&str>, out: &mut String) {
    let [first, second] = match (a, b) {
        (Some(a), Some(b)) => {
            let (before, middles, after) = parts(a, b);
            let marked = |middle: &str| match middle {
                "" => String::new(),
                _ => format!("<mark>{}</mark>", Text(middle)),
            };
            middles.map(|middle| format!("<code>{}{}{}</code>", Text(before), marked(middle), Text(after)))
        }
        _ => [a, b].map(|value| match value {
            Some(value) => format!("<code><mark>{}</mark></code>", Text(value)),
            None => "<em>not there</em>".to_owned(),
        }),
    };
    let _ = writeln!(
        out,
        "<div class=\"values\" tabindex=\"0\"><dl><dt>first</dt><dd>{first}</dd><dt>second</dt><dd>{second}</dd></dl></div>"
    );
}
