//! The timeline of a build as one HTML file: lanes of parallel work, the critical path, times by the clock and of the processors.

use super::{PALETTE, PROHIBITION};
use crate::model::visible;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::collections::{BTreeMap, BTreeSet};

const STYLE: &str = include_str!("timeline.css");

/// The kind of a span of time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SpanKind {
    /// A stage ran in the sandbox.
    Stage,
    /// Files were fetched.
    Fetch,
}

/// Something that took time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimedSpan {
    /// The stage, or that for which files were fetched.
    pub name: String,
    /// Its kind.
    pub kind: SpanKind,
    /// Begin, in milliseconds since the build began.
    pub start_ms: u64,
    /// End.
    pub end_ms: u64,
    /// Processor time in milliseconds; of stages only.
    pub cpu_ms: u64,
    /// Highest memory use in bytes; of stages only.
    pub peak_memory: u64,
    /// Names of the stages that it needs.
    pub needs: Vec<String>,
    /// The machine that ran it; `None` for this one.
    pub machine: Option<String>,
    /// Where the time on another machine went, as far as it is known: the name of each part and its milliseconds, in their order.
    pub parts: Vec<(&'static str, u64)>,
}

/// The times of a build.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BuildTimes {
    /// What took time, in any order.
    pub spans: Vec<TimedSpan>,
    /// Stages whose results were in the store.
    pub cached: Vec<String>,
    /// Stages whose results a cache gave, with its name.
    pub shared: Vec<(String, String)>,
    /// Stages that may run at the same time.
    pub jobs: usize,
    /// Time of the whole build in milliseconds.
    pub total_ms: u64,
}

impl BuildTimes {
    /// The spans in the order of their begin, each with its lane: of each machine and kind, the first lane that is free.
    fn lanes(&self) -> Vec<(usize, &TimedSpan)> {
        let mut sorted: Vec<&TimedSpan> = self.spans.iter().collect();
        sorted.sort_by_key(|span| (span.start_ms, span.end_ms, &span.name));
        let mut groups: BTreeMap<(&Option<String>, SpanKind), Vec<u64>> = BTreeMap::new();
        let mut placed = Vec::new();
        for span in sorted {
            let ends = groups.entry((&span.machine, span.kind)).or_default();
            let free = ends.iter().position(|end| *end <= span.start_ms);
            let lane = free.unwrap_or_else(|| {
                ends.push(0);
                ends.len() - 1
            });
            ends[lane] = span.end_ms;
            placed.push((lane, span));
        }
        placed
    }

    /// The names of the stages on the critical path: the one that ended last, before it the one that it needs and that ended last, and so on.
    pub fn critical_path(&self) -> Vec<&str> {
        let stages = || self.spans.iter().filter(|span| span.kind == SpanKind::Stage);
        let last = |names: Option<&[String]>| {
            let wanted = stages().filter(|span| names.is_none_or(|names| names.contains(&span.name)));
            wanted.max_by_key(|span| (span.end_ms, &span.name))
        };
        let mut path: Vec<&str> = Vec::new();
        let mut next = last(None);
        while let Some(span) = next.filter(|span| !path.contains(&span.name.as_str())) {
            path.push(&span.name);
            next = last(Some(&span.needs));
        }
        path.reverse();
        path
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1000, ms % 1000 / 10)
}

/// Thousandths of the whole as percent.
fn percent(part: u64, whole: u64) -> String {
    let thousandths = part.saturating_mul(100_000) / whole.max(1);
    format!("{}.{:03}%", thousandths / 1000, thousandths % 1000)
}

/// The page.
pub fn timeline(times: &BuildTimes) -> String {
    let critical: BTreeSet<&str> = times.critical_path().into_iter().collect();
    let ends = times.spans.iter().map(|span| span.end_ms);
    let whole = ends.max().unwrap_or(0).max(times.total_ms).max(1);
    let stages: Vec<&TimedSpan> = times.spans.iter().filter(|span| span.kind == SpanKind::Stage).collect();
    let cpu: u64 = stages.iter().map(|span| span.cpu_ms).sum();
    let on_path: u64 = stages
        .iter()
        .filter(|span| critical.contains(span.name.as_str()))
        .map(|span| span.end_ms.saturating_sub(span.start_ms))
        .sum();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(PROHIBITION);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Timeline of a build" }
                style { (PreEscaped(PALETTE)) (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Timeline of a build" }
                p {
                    "Stages that ran: " (stages.len()) "; that were in the store: " (times.cached.len())
                    @if !times.shared.is_empty() { "; that a cache gave: " (times.shared.len()) }
                    ". It took "
                    (seconds(whole)) " by the clock and " (seconds(cpu)) " of processor time, with at most " (times.jobs)
                    " at the same time."
                }
                p {
                    "The critical path takes " (seconds(on_path)) ": a build with more processors is not faster than that."
                }
                (lanes(times, &critical, whole))
                ul class="legend" {
                    li { span class="key critical" { "◆" } " stage on the critical path" }
                    li { span class="key stage" {} " other stage" }
                    @if stages.iter().any(|span| span.machine.is_some()) {
                        li { span class="key stage worker" {} " double line below: on a worker" }
                    }
                    li { span class="key fetch" {} " fetch" }
                    li { span class="key cpu" {} " its processor time, per clock time" }
                }
                (table(times, &critical, whole))
                @if !times.shared.is_empty() {
                    details {
                        summary { "From a cache: " (times.shared.len()) }
                        ul { @for (name, server) in &times.shared { li { (visible(name)) ", " (visible(server)) } } }
                    }
                }
                @if !times.cached.is_empty() {
                    details {
                        summary { "In the store: " (times.cached.len()) }
                        ul { @for name in &times.cached { li { (visible(name)) } } }
                    }
                }
            }
        }
        "\n"
    };
    page.into_string()
}

/// Class of a span.
fn class(span: &TimedSpan, critical: &BTreeSet<&str>) -> &'static str {
    match span.kind {
        SpanKind::Fetch => "fetch",
        SpanKind::Stage if critical.contains(span.name.as_str()) => "critical",
        SpanKind::Stage => "stage",
    }
}

fn lanes(times: &BuildTimes, critical: &BTreeSet<&str>, whole: u64) -> Markup {
    let mut rows: BTreeMap<(Option<&str>, SpanKind, usize), Vec<&TimedSpan>> = BTreeMap::new();
    for (lane, span) in times.lanes() {
        rows.entry((span.machine.as_deref(), span.kind, lane))
            .or_default()
            .push(span);
    }
    html! {
        div class="lanes" role="img" aria-label="Stages and fetches over time; the table below has the same in words" {
            @for ((machine, kind, lane), spans) in &rows {
                div class="lane" {
                    span class="label" {
                        @match kind { SpanKind::Stage => "slot ", SpanKind::Fetch => "fetch " }
                        (lane + 1)
                        @if let Some(machine) = machine { ", " (visible(machine)) }
                    }
                    div class="track" {
                        @for span in spans { (bar(span, class(span, critical), whole)) }
                    }
                }
            }
        }
    }
}

fn bar(span: &TimedSpan, class: &str, whole: u64) -> Markup {
    let took = span.end_ms.saturating_sub(span.start_ms);
    let place = format!("left:{};width:{}", percent(span.start_ms, whole), percent(took, whole));
    let worker = if span.machine.is_some() { " worker" } else { "" };
    html! {
        div class={ "bar " (class) (worker) } style=(place) title={ (visible(&span.name)) ", " (seconds(took)) } {}
    }
}

fn table(times: &BuildTimes, critical: &BTreeSet<&str>, whole: u64) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "Stage or fetch" }
                    th scope="col" class="time" { "Over time" }
                    th scope="col" class="number" { "Began" }
                    th scope="col" class="number" { "Waited" }
                    th scope="col" class="number" { "Clock" }
                    th scope="col" class="number" { "CPU" }
                    th scope="col" class="number" { "Memory" }
                }
            }
            tbody {
                @for (_, span) in times.lanes() { (row(times, span, class(span, critical), whole)) }
            }
        }
    }
}

fn row(times: &BuildTimes, span: &TimedSpan, class: &str, whole: u64) -> Markup {
    let took = span.end_ms.saturating_sub(span.start_ms);
    // From the moment at which everything that it needs was there.
    let needed = times.spans.iter().filter(|other| span.needs.contains(&other.name));
    let ready = needed.map(|other| other.end_ms).max().unwrap_or(0);
    let waited = span.start_ms.saturating_sub(ready);
    let busy = percent(span.cpu_ms.min(took), took);
    html! {
        tr {
            th scope="row" {
                @if class == "critical" { span class="sign" title="on the critical path" { "◆ " } }
                @if span.kind == SpanKind::Fetch { "fetch for " }
                (visible(&span.name))
                @if span.kind == SpanKind::Stage {
                    div class="place" {
                        @match &span.machine {
                            None => "here",
                            Some(machine) => { "on " (visible(machine)) }
                        }
                        @for (index, (part, ms)) in span.parts.iter().enumerate() {
                            @if index == 0 { ": " } @else { ", " }
                            (part) " " (seconds(*ms))
                        }
                    }
                }
            }
            td class="time" {
                div class="track" {
                    (bar(span, class, whole))
                    @if span.kind == SpanKind::Stage {
                        div class="within" style={ "left:" (percent(span.start_ms, whole)) ";width:" (percent(took, whole)) } {
                            div class="cpu" style={ "width:" (busy) } {}
                        }
                    }
                }
            }
            td class="number" data-is="began" { (seconds(span.start_ms)) }
            td class="number" data-is="waited" { @if span.kind == SpanKind::Stage { (seconds(waited)) } }
            td class="number" data-is="clock" { (seconds(took)) }
            td class="number" data-is="CPU" { @if span.kind == SpanKind::Stage { (seconds(span.cpu_ms)) } }
            td class="number" data-is="memory" {
                @if span.kind == SpanKind::Stage { (indicatif::HumanBytes(span.peak_memory)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(name: &str, start_ms: u64, end_ms: u64, needs: &[&str]) -> TimedSpan {
        TimedSpan {
            name: name.to_owned(),
            kind: SpanKind::Stage,
            start_ms,
            end_ms,
            cpu_ms: (end_ms - start_ms) / 2,
            peak_memory: 1 << 20,
            needs: needs.iter().map(|n| (*n).to_owned()).collect(),
            machine: None,
            parts: Vec::new(),
        }
    }

    fn times() -> BuildTimes {
        BuildTimes {
            spans: vec![
                span("tools", 0, 100, &[]),
                span("kernel", 10, 300, &[]),
                span("rootfs", 120, 500, &["tools"]),
                span("root", 520, 600, &["rootfs", "kernel"]),
            ],
            cached: vec!["<agent>".to_owned()],
            shared: Vec::new(),
            jobs: 2,
            total_ms: 650,
        }
    }

    #[test]
    fn the_critical_path_goes_back_over_what_ended_last() {
        assert_eq!(times().critical_path(), ["tools", "rootfs", "root"]);
        assert_eq!(BuildTimes::default().critical_path(), [""; 0]);
        let circle = BuildTimes {
            spans: vec![span("a", 0, 1, &["b"]), span("b", 1, 2, &["a"])],
            ..BuildTimes::default()
        };
        assert_eq!(circle.critical_path(), ["a", "b"]);
    }

    #[test]
    fn work_at_the_same_time_has_lanes_of_its_own() {
        let times = times();
        let lanes: Vec<(usize, &str)> = times
            .lanes()
            .into_iter()
            .map(|(lane, s)| (lane, s.name.as_str()))
            .collect();
        assert_eq!(lanes, [(0, "tools"), (1, "kernel"), (0, "rootfs"), (0, "root")]);
    }

    #[test]
    fn the_page_has_each_stage_its_times_and_no_markup_from_names() {
        let page = timeline(&times());
        for text in [
            "Stages that ran: 4; that were in the store: 1. It took 0.65 s by the clock",
            "The critical path takes 0.56 s",
            "&lt;agent&gt;",
            "left:18.461%;width:58.461%",
        ] {
            assert!(page.contains(text), "{text}\n{page}");
        }
        assert_eq!(page.matches("◆ </span>").count(), 3);
        assert_eq!(page.matches(r#"<div class="place">here</div>"#).count(), 4);
        assert!(
            !page.contains("on a worker") && !page.contains("a cache gave"),
            "{page}"
        );
        assert_eq!(page, timeline(&times()));
    }

    #[test]
    fn the_page_says_where_each_stage_ran_and_where_the_time_went() {
        let mut times = times();
        times.spans[1].machine = Some("<w> of grpc://farm:1".to_owned());
        times.spans[1].parts = vec![("queued", 20), ("inputs", 30), ("ran", 200), ("outputs", 40)];
        times.shared = vec![("image".to_owned(), "grpc://cache:1".to_owned())];
        let page = timeline(&times);
        for text in [
            "that were in the store: 1; that a cache gave: 1. It took",
            "on &lt;w&gt; of grpc://farm:1: queued 0.02 s, inputs 0.03 s, ran 0.20 s, outputs 0.04 s</div>",
            "slot 1, &lt;w&gt; of grpc://farm:1</span>",
            "on a worker</li>",
            "<summary>From a cache: 1</summary><ul><li>image, grpc://cache:1</li></ul>",
        ] {
            assert!(page.contains(text), "{text}\n{page}");
        }
        assert_eq!(page.matches(r#"class="place">here</div>"#).count(), 3);
        // Its bar twice, and the key of the legend.
        assert_eq!(page.matches("stage worker\"").count(), 3, "{page}");
    }
}
