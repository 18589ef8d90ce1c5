//! The page, section by section.

use super::{
    findings::findings,
    graph,
    text::{Text, count, duration, instant, list},
};
use crate::{
    model::Sha256Digest,
    page::{PALETTE, PROHIBITION},
    repro::{ArtifactResult, OutputResult, ReproVerdict, StageResult, State},
};
use maud::{Markup, PreEscaped, html};
use std::collections::BTreeSet;

const STYLE: &str = include_str!("report.css");
/// Digits shown of a digest that stands in full further down the page.
const SHORT: usize = 12;
/// Width of the graph, in its own units, up to which it can be read on paper in portrait format.
const PORTRAIT: usize = 1000;

/// The page. Equal verdicts give equal bytes.
pub fn html(verdict: &ReproVerdict) -> String {
    let headline = headline(verdict);
    let page = html! {
        (PreEscaped("<!doctype html>\n"))
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(PROHIBITION);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (Text(&headline)) }
                style { (PreEscaped(PALETTE)) (PreEscaped(STYLE)) }
            }
            body {
                (header(verdict, &headline))
                main {
                    (built(verdict))
                    (axes(verdict))
                    (stage_graph(verdict))
                    (findings(verdict))
                    (artifacts(verdict))
                    (stages(verdict))
                    (inputs(verdict))
                }
            }
        }
        "\n"
    };
    page.into_string()
}

/// Class, sign and word of a state.
pub(super) fn words(state: State) -> (&'static str, &'static str, &'static str) {
    match state {
        State::Equal => ("equal", "=", state.as_str()),
        State::FirstDivergent => ("first", "≠", state.as_str()),
        State::Different => ("differs", "≠", state.as_str()),
    }
}

fn badge(state: State) -> Markup {
    let (class, sign, word) = words(state);
    html! { span class={ "state " (class) } { (sign) " " (word) } }
}

/// The state of a file, which has no inputs of its own.
const fn file_state(equal: bool) -> State {
    if equal { State::Equal } else { State::Different }
}

/// The verdict in one sentence, without its full stop.
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
    let (number, thing) = match outputs {
        0 => (files, "file"),
        _ => (outputs, "output"),
    };
    let verb = if number == 1 { "differs" } else { "differ" };
    let differ = format!("{} {verb}", count(number, thing));
    let first = verdict
        .stages
        .iter()
        .filter(|stage| stage.state == State::FirstDivergent);
    let first: Vec<String> = first.map(|stage| stage.node.to_string()).collect();
    match &first[..] {
        [] => differ,
        [stage] => format!("{differ}; the builds part at stage {stage}"),
        stages => format!("{differ}; the builds part at stages {}", list(stages)),
    }
}

fn header(verdict: &ReproVerdict, headline: &str) -> Markup {
    let (class, sign) = if verdict.equal {
        ("equal", "=")
    } else {
        ("first", "≠")
    };
    let outputs = count(verdict.outputs(), "output");
    let stages = count(verdict.stages.len() as u64, "stage");
    let files = count(verdict.artifacts.len() as u64, "file");
    html! {
        header class=(class) {
            h1 { span aria-hidden="true" { (sign) } " " (Text(headline)) "." }
            p { (outputs) " of " (stages) " and " (files) " of artifacts were compared." }
            nav {
                @for (section, name) in [
                    ("built", "Build"),
                    ("axes", "Varied"),
                    ("graph", "Stages"),
                    ("findings", "Differences"),
                    ("artifacts", "Artifacts"),
                    ("outputs", "Outputs"),
                    ("inputs", "Inputs"),
                ] {
                    a href={ "#" (section) } { (name) } " "
                }
            }
        }
    }
}

/// A list of facts: name and value.
fn facts(rows: impl IntoIterator<Item = (&'static str, Markup)>) -> Markup {
    html! {
        dl class="facts" {
            @for (name, value) in rows { dt { (name) } dd { (value) } }
        }
    }
}

fn built(verdict: &ReproVerdict) -> Markup {
    let host = &verdict.setup.host;
    let time = |seconds| html! { time { (instant(seconds)) } };
    let against = match &verdict.setup.against {
        None => html! { "a first build on this host" },
        Some(manifest) => html! { "the manifest " code { (Text(manifest)) } },
    };
    let nodes: Vec<String> = verdict.setup.what.iter().map(ToString::to_string).collect();
    let took = duration(verdict.setup.finished.saturating_sub(verdict.setup.started));
    html! {
        section id="built" {
            h2 { "What was built, where and when" }
            (facts([
                ("Built", html! { (Text(nodes.join(", "))) }),
                ("Compared with", against),
                ("Host", html! { (Text(&host.name)) }),
                ("Kernel", html! { (Text(&host.kernel)) }),
                ("Processors", html! { (host.cpus) ", " (host.arch) }),
                ("Began", time(verdict.setup.started)),
                ("Ended", html! { (time(verdict.setup.finished)) ", after " (took) }),
            ]))
        }
    }
}

/// A table in a box of its own that scrolls.
fn table(columns: &[&str], rows: impl IntoIterator<Item = Markup>) -> Markup {
    html! {
        div class="scroll" tabindex="0" {
            table {
                thead { tr { @for column in columns { th scope="col" { (column) } } } }
                tbody { @for row in rows { tr { (row) } } }
            }
        }
    }
}

fn axes(verdict: &ReproVerdict) -> Markup {
    let tried = verdict.setup.axes.iter().map(|tried| {
        html! {
            th scope="row" { (tried.axis) }
            td data-is="first" { (Text(&tried.first)) }
            td data-is="second" { (Text(&tried.second)) }
        }
    });
    let untried = verdict.setup.not_varied.iter().map(|(axis, why)| {
        html! {
            th scope="row" { (axis) }
            td { (Text(why)) }
        }
    });
    html! {
        section id="axes" {
            h2 { "What was varied" }
            @if verdict.setup.axes.is_empty() {
                p { "Nothing was varied." }
            } @else {
                (table(&["Axis", "First build", "Second build"], tried))
            }
            @if !verdict.setup.not_varied.is_empty() {
                h3 { "Not varied" }
                (table(&["Axis", "Why not"], untried))
            }
        }
    }
}

fn stage_graph(verdict: &ReproVerdict) -> Markup {
    let (picture, width) = graph::svg(&verdict.stages);
    let class = (width > PORTRAIT).then_some("wide");
    html! {
        section id="graph" class=[class] {
            h2 { "Where the builds part" }
            p { "A line joins each stage to the stages on its left that it needs. Lines that follow from other lines are left out." }
            div class="scroll" tabindex="0" { (picture) }
        }
    }
}

fn artifacts(verdict: &ReproVerdict) -> Markup {
    let short = |digest: Option<Sha256Digest>| match digest.map(|d| d.to_hex()) {
        Some(hex) => html! { code title=(hex) { (hex[..SHORT]) "…" } },
        None => html! { em { "not there" } },
    };
    let rows = verdict.artifacts.iter().map(|file| {
        html! {
            th scope="row" { (file_name(file)) }
            td { (badge(file_state(file.first == file.second))) }
            td data-is="first" { (short(file.first)) }
            td data-is="second" { (short(file.second)) }
        }
    });
    let whole = |digest: Option<Sha256Digest>| digest.map_or("not there".to_owned(), |d| d.to_hex());
    html! {
        section id="artifacts" {
            h2 { "Artifacts" }
            @if verdict.artifacts.is_empty() {
                p { "No artifact was compared." }
            } @else {
                (table(&["File", "State", "SHA-256, first build", "Second build"], rows))
                details {
                    summary { "The digests in full" }
                    @for file in &verdict.artifacts {
                        (pair(&file_name(file), &whole(file.first), &whole(file.second)))
                    }
                }
            }
        }
    }
}

/// The name of an artifact's file, with a place to break the line behind each slash.
fn file_name(file: &ArtifactResult) -> Markup {
    let whole = format!("{}/{}", file.artifact, file.file);
    html! {
        @for (n, step) in whole.split('/').enumerate() {
            @if n > 0 { "/" wbr; }
            (Text(step))
        }
    }
}

/// Two digests, one above the other; only one where they are equal.
fn pair(name: &Markup, first: &str, second: &str) -> Markup {
    html! {
        div class="pair" {
            p { (name) }
            dl {
                @if first == second {
                    dt { "both" } dd { code { (first) } }
                } @else {
                    dt { "first" } dd { code { (first) } }
                    dt { "second" } dd { code { (second) } }
                }
            }
        }
    }
}

fn stages(verdict: &ReproVerdict) -> Markup {
    html! {
        section id="outputs" {
            h2 { "Outputs of the stages" }
            p { "Each output with its fs-verity digest (SHA-256)." }
            @for (n, stage) in verdict.stages.iter().enumerate() {
                (outputs_of(n, stage, verdict))
            }
        }
    }
}

/// The stage with number `n`: its state, the stages it needs, and its outputs.
fn outputs_of(n: usize, stage: &StageResult, verdict: &ReproVerdict) -> Markup {
    let name = |output: &OutputResult| html! { (Text(&output.name)) " " small { (output.kind) } };
    html! {
        details id={ "stage-" (n) } open[stage.state != State::Equal] {
            summary {
                b { (Text(&stage.node)) } " " (badge(stage.state)) " "
                small { (count(stage.outputs.len() as u64, "output")) }
            }
            @if !stage.needs.is_empty() {
                p {
                    "Needs "
                    @for (n, need) in stage.needs.iter().enumerate() {
                        @if n > 0 { ", " }
                        @match verdict.stages.iter().position(|s| s.node == *need) {
                            Some(n) => { a href={ "#stage-" (n) } { (Text(need)) } },
                            None => { (Text(need)) },
                        }
                    }
                    "."
                }
            }
            @for output in &stage.outputs {
                (pair(&name(output), &output.first.to_hex(), &output.second.to_hex()))
            }
        }
    }
}

fn inputs(verdict: &ReproVerdict) -> Markup {
    let inputs = &verdict.setup.inputs;
    let files: BTreeSet<&String> = inputs.uncommitted.iter().collect();
    let uncommitted = html! {
        @if files.is_empty() {
            "none"
        } @else {
            ul { @for file in files { li { code { (Text(file)) } } } }
        }
    };
    let revision = match &inputs.revision {
        Some(revision) => html! { code { (Text(revision)) } },
        None => html! { "none: the project is not in git" },
    };
    let epoch = inputs.source_date_epoch;
    html! {
        section id="inputs" {
            h2 { "Inputs of the build" }
            (facts([
                ("pnb", html! { (Text(&inputs.pnb)) }),
                ("Digest of pnb's code that runs stages", html! { code { (Text(&inputs.code_sandbox)) } }),
                ("Digest of pnb's code that writes formats", html! { code { (Text(&inputs.code_writers)) } }),
                ("Revision", revision),
                ("Uncommitted files", uncommitted),
                ("SHA-256 of the lock", html! { code { (inputs.lock) } }),
                ("Packages", html! { (inputs.packages) }),
                ("SOURCE_DATE_EPOCH", html! { (epoch) ", " time { (instant(epoch)) } }),
            ]))
        }
    }
}
