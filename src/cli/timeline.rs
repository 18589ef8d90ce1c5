//! The times of a build, gathered from its events, for `pnb build --timings=FILE`.

use pnb::{
    model::NodeId,
    page::{BuildTimes, SpanKind, TimedSpan},
    pipeline::{BuildOutcome, Event, RanAt},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Beginnings of what is under way, and what has ended.
#[derive(Default)]
struct Running {
    stages: BTreeMap<NodeId, u64>,
    fetches: BTreeMap<String, u64>,
    spans: Vec<TimedSpan>,
}

/// Takes the time of every event.
pub(super) struct Timeline {
    began: Instant,
    running: Mutex<Running>,
}

impl Timeline {
    /// Begins now.
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            running: Mutex::default(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes an event. Called from any thread.
    pub(super) fn event(&self, event: &Event) {
        let now = self.now();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Running { stages, fetches, spans } = &mut *running;
        let span = |name: String, kind, start_ms| TimedSpan {
            name,
            kind,
            start_ms,
            end_ms: now,
            cpu_ms: 0,
            peak_memory: 0,
            needs: Vec::new(),
            machine: None,
            parts: Vec::new(),
        };
        match event {
            Event::Fetching { what, .. } => {
                fetches.insert(what.clone(), now);
            }
            Event::Fetched { what, bytes, total } if bytes >= total => {
                if let Some(start) = fetches.remove(what) {
                    spans.push(span(what.clone(), SpanKind::Fetch, start));
                }
            }
            Event::Started { node, .. } => {
                stages.insert(node.clone(), now);
            }
            Event::Finished {
                node,
                cpu_ms,
                peak_memory,
                at,
                ..
            } => {
                if let Some(start) = stages.remove(node) {
                    let (machine, parts) = match at {
                        RanAt::Here => (None, Vec::new()),
                        // The engine had the result of an equal action: no span, and one of those from a cache.
                        RanAt::Cache { .. } => return,
                        RanAt::Worker { name, times } => (Some(name.clone()), times.parts()),
                    };
                    spans.push(TimedSpan {
                        cpu_ms: *cpu_ms,
                        peak_memory: *peak_memory,
                        machine,
                        parts,
                        ..span(node.to_string(), SpanKind::Stage, start)
                    });
                }
            }
            _ => {}
        }
    }

    /// The times of the finished build.
    pub(super) fn times(
        &self,
        outcome: &BuildOutcome,
        needs: &BTreeMap<NodeId, Vec<NodeId>>,
        jobs: usize,
    ) -> BuildTimes {
        let total_ms = self.now();
        let mut spans = std::mem::take(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner).spans);
        for span in spans.iter_mut().filter(|span| span.kind == SpanKind::Stage) {
            let own = needs.iter().find(|(node, _)| node.to_string() == span.name);
            span.needs = own
                .map(|(_, needs)| needs.iter().map(ToString::to_string).collect())
                .unwrap_or_default();
        }
        let (mut cached, mut shared) = (Vec::new(), Vec::new());
        let ran = |id: &NodeId| {
            spans
                .iter()
                .any(|span| span.kind == SpanKind::Stage && span.name == id.to_string())
        };
        for id in outcome.order.iter().filter(|id| !ran(id)) {
            match outcome.nodes.get(id).map(|done| (done.cached, done.place())) {
                Some((true, RanAt::Cache { server })) => shared.push((id.to_string(), server)),
                Some((true, _)) => cached.push(id.to_string()),
                _ => {}
            }
        }
        BuildTimes {
            spans,
            cached,
            shared,
            jobs,
            total_ms,
        }
    }
}
