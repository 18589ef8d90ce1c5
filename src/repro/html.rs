//! A verdict as one file for a browser, which needs nothing else.
//!
//! No script, no picture, no font and no style comes from elsewhere, and the page itself forbids it. Every name and every byte
//! shown goes through [`text::Text`]. Each state carries its word and a sign, so that the page can be read without colours.

mod findings;
mod graph;
#[cfg(test)]
mod tests;
mod text;

use super::{ArtifactResult, ReproVerdict, State};
use crate::model::Sha256Digest;
use std::{collections::BTreeSet, fmt::Write};
use text::{Text, count, duration, instant, list};

const STYLE: &str = include_str!("html/report.css");
/// Digits of a digest that are shown where the whole one is nearby.
const SHORT: usize = 12;
/// Units of width up to which the picture can be read on upright paper.
const UPRIGHT: usize = 1000;

/// The page. Equal verdicts give equal bytes.
pub fn html(verdict: &ReproVerdict) -> String {
    let headline = headline(verdict);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
        Text(&headline)
    );
    verdict_itself(verdict, &headline, &mut out);
    out.push_str("<main>\n");
    built(verdict, &mut out);
    axes(verdict, &mut out);
    picture(verdict, &mut out);
    findings::findings(verdict, &mut out);
    artifacts(verdict, &mut out);
    stages(verdict, &mut out);
    inputs(verdict, &mut out);
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

/// Class, sign and word of a state.
fn words(state: State) -> (&'static str, &'static str, &'static str) {
    match state {
        State::Equal => ("equal", "=", state.as_str()),
        State::FirstDivergent => ("first", "≠", state.as_str()),
        State::Different => ("differs", "≠", state.as_str()),
    }
}

fn badge(state: State) -> String {
    let (class, sign, word) = words(state);
    format!("<span class=\"state {class}\">{sign} {word}</span>")
}

/// The state of what has no inputs to be told apart by.
const fn state(equal: bool) -> State {
    if equal { State::Equal } else { State::Different }
}

/// The verdict in one sentence.
fn headline(verdict: &ReproVerdict) -> String {
    if verdict.equal {
        return "Everything came out the same".to_owned();
    }
    let outputs = verdict.stages.iter().flat_map(|stage| &stage.outputs);
    let outputs = outputs.filter(|output| output.first != output.second).count() as u64;
    let files = verdict
        .artifacts
        .iter()
        .filter(|file| file.first != file.second)
        .count() as u64;
    let what = match outputs {
        0 => count(files, "file"),
        _ => count(outputs, "output"),
    };
    let verb = if outputs.max(u64::from(outputs == 0) * files) == 1 {
        "differs"
    } else {
        "differ"
    };
    let first = verdict
        .stages
        .iter()
        .filter(|stage| stage.state == State::FirstDivergent);
    let first: Vec<&str> = first.map(|stage| stage.node.as_str()).collect();
    match first.len() {
        0 => format!("{what} {verb}"),
        1 => format!("{what} {verb}; the builds part at stage {}", first[0]),
        _ => format!("{what} {verb}; the builds part at stages {}", list(&first)),
    }
}

fn verdict_itself(verdict: &ReproVerdict, headline: &str, out: &mut String) {
    let files = verdict.artifacts.len() as u64;
    let class = if verdict.equal { "equal" } else { "first" };
    let sign = if verdict.equal { "=" } else { "≠" };
    let _ = writeln!(
        out,
        "<header class=\"{class}\">\n<h1><span aria-hidden=\"true\">{sign}</span> {}.</h1>\n\
         <p>{} of {} and {} were compared.</p>\n\
         <nav><a href=\"#built\">What</a> <a href=\"#axes\">Varied</a> <a href=\"#graph\">Stages</a> \
         <a href=\"#findings\">Differences</a> <a href=\"#artifacts\">Artifacts</a> <a href=\"#outputs\">Outputs</a> \
         <a href=\"#inputs\">Inputs</a></nav>\n</header>",
        Text(headline),
        count(verdict.outputs(), "output"),
        count(verdict.stages.len() as u64, "stage"),
        count(files, "file") + " of artifacts",
    );
}

/// A list of facts; the values are HTML.
fn facts(rows: &[(&str, String)], out: &mut String) {
    out.push_str("<dl class=\"facts\">\n");
    for (name, value) in rows {
        let _ = writeln!(out, "<dt>{name}</dt><dd>{value}</dd>");
    }
    out.push_str("</dl>\n");
}

fn built(verdict: &ReproVerdict, out: &mut String) {
    out.push_str("<section id=\"built\">\n<h2>What was built, where and when</h2>\n");
    let host = &verdict.host;
    let time = |seconds| format!("<time>{}</time>", instant(seconds));
    let against = match &verdict.against {
        None => "a first build on this host".to_owned(),
        Some(manifest) => format!("the manifest <code>{}</code>", Text(manifest)),
    };
    let took = verdict.finished.saturating_sub(verdict.started);
    let rows = [
        ("Built", Text(&verdict.what.join(", ")).to_string()),
        ("Compared with", against),
        ("Host", Text(&host.name).to_string()),
        ("Kernel", Text(&host.kernel).to_string()),
        ("Processors", format!("{}, {}", host.cpus, host.arch)),
        ("Began", time(verdict.started)),
        ("Ended", format!("{}, after {}", time(verdict.finished), duration(took))),
    ];
    facts(&rows, out);
    out.push_str("</section>\n");
}

/// Opens a table in a box of its own that scrolls; `columns` are its head.
fn table(columns: &[&str], out: &mut String) {
    out.push_str("<div class=\"scroll\" tabindex=\"0\">\n<table>\n<thead><tr>");
    for column in columns {
        let _ = write!(out, "<th scope=\"col\">{column}</th>");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
}

const END: &str = "</tbody>\n</table>\n</div>\n";

fn axes(verdict: &ReproVerdict, out: &mut String) {
    out.push_str("<section id=\"axes\">\n<h2>What was varied</h2>\n");
    if verdict.axes.is_empty() {
        out.push_str("<p>Nothing was varied.</p>\n");
    } else {
        table(&["What", "First build", "Second build"], out);
        for tried in &verdict.axes {
            let (first, second) = (Text(&tried.first), Text(&tried.second));
            let _ = writeln!(
                out,
                "<tr><th scope=\"row\">{}</th><td data-is=\"first\">{first}</td><td data-is=\"second\">{second}</td></tr>",
                tried.axis
            );
        }
        out.push_str(END);
    }
    if !verdict.not_varied.is_empty() {
        out.push_str("<h3>Not varied</h3>\n");
        table(&["What", "Why not"], out);
        for (axis, why) in &verdict.not_varied {
            let _ = writeln!(out, "<tr><th scope=\"row\">{axis}</th><td>{}</td></tr>", Text(why));
        }
        out.push_str(END);
    }
    out.push_str("</section>\n");
}

fn picture(verdict: &ReproVerdict, out: &mut String) {
    let (picture, width) = graph::svg(&verdict.stages);
    let class = if width > UPRIGHT { " class=\"wide\"" } else { "" };
    let _ = writeln!(
        out,
        "<section id=\"graph\"{class}>\n<h2>Where the builds part</h2>\n\
         <p>Each stage needs those left of it that a line leads to. Lines that follow from others are left out.</p>\n\
         <div class=\"scroll\" tabindex=\"0\">\n{picture}</div>\n</section>"
    );
}

fn artifacts(verdict: &ReproVerdict, out: &mut String) {
    out.push_str("<section id=\"artifacts\">\n<h2>Artifacts</h2>\n");
    if verdict.artifacts.is_empty() {
        out.push_str("<p>No artifact was compared.</p>\n</section>\n");
        return;
    }
    table(&["File", "State", "SHA-256, first build", "Second build"], out);
    let short = |digest: Option<Sha256Digest>| match digest.map(|d| d.to_hex()) {
        Some(hex) => format!("<code title=\"{hex}\">{}…</code>", &hex[..SHORT]),
        None => "<em>not there</em>".to_owned(),
    };
    for file in &verdict.artifacts {
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td data-is=\"first\">{}</td><td data-is=\"second\">{}</td></tr>",
            name(file),
            badge(state(file.first == file.second)),
            short(file.first),
            short(file.second)
        );
    }
    out.push_str(END);
    out.push_str("<details>\n<summary>The digests in full</summary>\n");
    let whole = |digest: Option<Sha256Digest>| digest.map_or("not there".to_owned(), |d| d.to_hex());
    for file in &verdict.artifacts {
        pair(&name(file), &whole(file.first), &whole(file.second), out);
    }
    out.push_str("</details>\n</section>\n");
}

/// The name of an artifact's file, with places to break a line at.
fn name(file: &ArtifactResult) -> String {
    let whole = format!("{}/{}", file.artifact, file.file);
    let steps: Vec<String> = whole.split('/').map(|step| Text(step).to_string()).collect();
    steps.join("/<wbr>")
}

/// Two digests, one above the other; one where they are equal. `what` is HTML.
fn pair(what: &str, first: &str, second: &str, out: &mut String) {
    let _ = write!(out, "<div class=\"pair\"><p>{what}</p><dl>");
    match first == second {
        true => {
            let _ = write!(out, "<dt>both</dt><dd><code>{first}</code></dd>");
        }
        false => {
            let _ = write!(
                out,
                "<dt>first</dt><dd><code>{first}</code></dd><dt>second</dt><dd><code>{second}</code></dd>"
            );
        }
    }
    out.push_str("</dl></div>\n");
}

fn stages(verdict: &ReproVerdict, out: &mut String) {
    out.push_str(
        "<section id=\"outputs\">\n<h2>Outputs of the stages</h2>\n<p>By their fs-verity digests, SHA-256.</p>\n",
    );
    for (n, stage) in verdict.stages.iter().enumerate() {
        let outputs = count(stage.outputs.len() as u64, "output");
        let _ = writeln!(
            out,
            "<details id=\"stage-{n}\"{}>\n<summary><b>{}</b> {} <small>{outputs}</small></summary>",
            if stage.state == State::Equal { "" } else { " open" },
            Text(&stage.node),
            badge(stage.state),
        );
        let number = |node: &String| verdict.stages.iter().position(|s| s.node == *node);
        let needs: Vec<String> = stage
            .needs
            .iter()
            .map(|need| match number(need) {
                Some(n) => format!("<a href=\"#stage-{n}\">{}</a>", Text(need)),
                None => Text(need).to_string(),
            })
            .collect();
        if !needs.is_empty() {
            let _ = writeln!(out, "<p>Needs {}.</p>", needs.join(", "));
        }
        for output in &stage.outputs {
            let what = format!("{} <small>{}</small>", Text(&output.name), output.kind);
            pair(&what, &output.first.to_hex(), &output.second.to_hex(), out);
        }
        out.push_str("</details>\n");
    }
    out.push_str("</section>\n");
}

fn inputs(verdict: &ReproVerdict, out: &mut String) {
    out.push_str("<section id=\"inputs\">\n<h2>From what it was built</h2>\n");
    let inputs = &verdict.inputs;
    let files: BTreeSet<&String> = inputs.uncommitted.iter().collect();
    let uncommitted = match files.len() {
        0 => "none".to_owned(),
        _ => {
            let items: Vec<String> = files
                .iter()
                .map(|file| format!("<li><code>{}</code></li>", Text(file)))
                .collect();
            format!("<ul>{}</ul>", items.concat())
        }
    };
    let revision = match &inputs.revision {
        Some(revision) => format!("<code>{}</code>", Text(revision)),
        None => "none: the project is not one of git".to_owned(),
    };
    let rows = [
        ("pnb", Text(&inputs.pnb).to_string()),
        (
            "Its code that runs stages",
            format!("<code>{}</code>", Text(&inputs.code_sandbox)),
        ),
        (
            "Its code that writes formats",
            format!("<code>{}</code>", Text(&inputs.code_writers)),
        ),
        ("Revision", revision),
        ("Uncommitted files", uncommitted),
        ("SHA-256 of the lock", format!("<code>{}</code>", inputs.lock)),
        ("Packages", inputs.packages.to_string()),
        (
            "SOURCE_DATE_EPOCH",
            format!(
                "{}, <time>{}</time>",
                inputs.source_date_epoch,
                instant(inputs.source_date_epoch)
            ),
        ),
    ];
    facts(&rows, out);
    out.push_str("</section>\n");
}
