//! [`StageFailure`]: why a stage failed on a worker, as the worker leaves it beside the log and as the client tells it.

use super::{BuildContext, PipelineError, recorder::TAIL, resolve::ResolvedStage};
use crate::{
    model::{EXIT_HERMETIC, EXIT_STORE, Hint, NodeId, chain, visible, visible_log, visible_path},
    remote::{BlobDigest, Executed, StageResults},
    sandbox::SandboxError,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name of the file among those that a worker leaves.
pub(super) const FAILURE: &str = "failure.json";
/// Version of the format.
const FAILURE_VERSION: u32 = 1;
/// Most bytes of the file. A list of 64 refused calls has some 40 KB.
const MAX_FAILURE: u64 = 1 << 20;
/// Longest line of the file that is shown, in bytes.
const MAX_LINE: usize = 4096;
/// Most lines of the problem and of the hint that are shown.
const MAX_LINES: usize = 200;

/// What failed on a worker. Each has the exit code that it has where the stage runs at home.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerFault {
    /// The stage: its status, a limit, an output, or calls that the sandbox refused it.
    Stage,
    /// The machine: a layer of the sandbox is missing or weaker.
    Sandbox,
    /// The worker's store: a full disk, for one.
    Store,
    /// Something else.
    Other,
}

/// Why a stage failed on a worker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct StageFailure {
    version: u32,
    /// The stage.
    node: NodeId,
    fault: WorkerFault,
    /// The problem in one line: of a stage, how it ended; else, what completes "failed to …".
    problem: String,
    /// Further lines of the problem: for one, a line for each call that the sandbox refused.
    details: Vec<String>,
    /// The way out.
    hint: Option<String>,
}

impl StageFailure {
    /// The failure of the stage `node`.
    pub(super) fn new(node: &NodeId, error: &PipelineError) -> Self {
        let fault = match error {
            PipelineError::Stage { .. } | PipelineError::Deb(_) => WorkerFault::Stage,
            PipelineError::Sandbox(error) => match **error {
                SandboxError::Weaker { .. } | SandboxError::Unavailable { .. } | SandboxError::Unusable { .. } => {
                    WorkerFault::Sandbox
                }
                SandboxError::Store { .. } => WorkerFault::Store,
                _ => WorkerFault::Stage,
            },
            PipelineError::Host(_) => WorkerFault::Sandbox,
            PipelineError::Store(_) => WorkerFault::Store,
            _ => WorkerFault::Other,
        };
        let (text, hint) = match error {
            PipelineError::Stage { problem, hint, .. } => (problem.clone(), hint.as_deref().map(str::to_owned)),
            other => (chain(other), other.hint().map(std::borrow::Cow::into_owned)),
        };
        let mut lines = text.lines().map(str::to_owned);
        Self {
            version: FAILURE_VERSION,
            node: node.clone(),
            fault,
            problem: lines.next().unwrap_or_default(),
            details: lines.collect(),
            hint,
        }
    }

    /// The content of the file.
    pub(super) fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The failure of `node` in a file of a worker; `None` if it is none, or of another stage. Control characters become visible.
    fn read(bytes: &[u8], node: &NodeId) -> Option<Self> {
        let found: Self = serde_json::from_slice(bytes).ok()?;
        let found = Some(found).filter(|found| found.version == FAILURE_VERSION && found.node == *node)?;
        let line = |text: &str| {
            let mut end = text.len().min(MAX_LINE);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            visible_log(&text.as_bytes()[..end])
        };
        Some(Self {
            problem: line(found.problem.lines().next().unwrap_or_default()),
            // A line of its own cannot begin like one of pnb's.
            details: found
                .details
                .iter()
                .flat_map(|text| text.lines())
                .take(MAX_LINES)
                .map(|text| format!("  {}", line(text.trim_start())))
                .collect(),
            hint: found.hint.map(|hint| {
                let lines: Vec<String> = hint.lines().take(MAX_LINES).map(line).collect();
                lines.join("\n")
            }),
            ..found
        })
    }

    /// The error of the build: what it would be at home, with the worker.
    fn error(self, worker: &str, tail: String, log: String) -> PipelineError {
        // The lines follow a colon, which ends the sentence.
        let (sentence, colon) = match self.problem.strip_suffix(':') {
            Some(sentence) if !self.details.is_empty() => (sentence, ":"),
            _ => (self.problem.as_str(), ""),
        };
        let details: String = self.details.iter().map(|line| format!("\n{line}")).collect();
        let problem = format!("{sentence} on {worker}{colon}{details}");
        match self.fault {
            WorkerFault::Stage => PipelineError::Stage {
                node: self.node,
                problem,
                tail,
                log,
                hint: self.hint.map(String::into_boxed_str),
            },
            fault => PipelineError::Worker {
                fault,
                problem,
                hint: self.hint.map(|hint| format!("on the worker: {hint}").into_boxed_str()),
            },
        }
    }
}

/// What a worker left of a stage.
#[derive(Clone, Copy)]
pub(super) struct WorkerEnd<'a> {
    /// The worker in messages.
    pub(super) name: &'a str,
    /// The files of the stage.
    pub(super) files: &'a BTreeMap<String, BlobDigest>,
    pub(super) executed: &'a Executed,
}

/// The error of a stage that failed on a worker, with the end of its log, which is kept in the store.
pub(super) fn failed_on_worker(
    context: &BuildContext<'_>,
    results: &StageResults,
    resolved: &ResolvedStage,
    end: &WorkerEnd<'_>,
) -> PipelineError {
    let id = &resolved.id;
    let WorkerEnd { files, executed, .. } = *end;
    let worker = visible(end.name);
    let text = results.read_log(files).unwrap_or_default();
    let kept = context.store.put_log(&resolved.key, &id.stage, id.arch, &text).is_ok();
    let path = context.store.log_of(&resolved.key).filter(|_| kept);
    let log = path.map_or_else(
        || format!("on {}", results.name()),
        |path| visible_path(&path).to_string(),
    );
    let found = results.read_extra(files, FAILURE, MAX_FAILURE).unwrap_or_default();
    if let Some(failure) = StageFailure::read(&found, id) {
        return failure.error(&worker, tail(&text), log);
    }
    // pnb itself did not start, was ended, or could not write the file: the engine knows its exit code and what it printed.
    let shown = if text.is_empty() { &executed.stderr } else { &text };
    let fault = match u8::try_from(executed.exit_code) {
        Ok(EXIT_STORE) => Some(WorkerFault::Store),
        Ok(EXIT_HERMETIC) => Some(WorkerFault::Sandbox),
        _ => None,
    };
    if let Some(fault) = fault {
        return PipelineError::Worker {
            fault,
            problem: format!(
                "build {id} on {worker}: pnb ended with exit code {}\n{}",
                executed.exit_code,
                tail(shown)
            ),
            hint: None,
        };
    }
    PipelineError::Stage {
        node: id.clone(),
        problem: format!("pnb ended with exit code {} on {worker}", executed.exit_code),
        tail: tail(shown),
        log,
        hint: None,
    }
}

/// The last lines of a log.
fn tail(log: &[u8]) -> String {
    let lines: Vec<&[u8]> = log
        .strip_suffix(b"\n")
        .unwrap_or(log)
        .split(|byte| *byte == b'\n')
        .collect();
    let lines = lines[lines.len().saturating_sub(TAIL)..].iter();
    let shown: String = lines
        .map(|line| format!("  {}\n", visible_log(line[..line.len().min(MAX_LINE)].trim_ascii_end())))
        .collect();
    shown.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Arch, store::StoreError};

    fn two() -> NodeId {
        NodeId::new("two", Arch::Amd64)
    }

    /// The error of the client for an error of the worker.
    fn told(error: &PipelineError) -> PipelineError {
        let failure = StageFailure::new(&two(), error);
        let read = StageFailure::read(&failure.bytes(), &two()).expect("a failure");
        read.error("worker 1", "  tail".to_owned(), "/log".to_owned())
    }

    fn shown(error: &PipelineError) -> (String, Option<String>) {
        (error.to_string(), error.hint().map(std::borrow::Cow::into_owned))
    }

    #[test]
    fn the_client_tells_what_the_worker_says_with_its_name() {
        let refused = "it ended well although the sandbox refused system calls:\n  a to b: c\n  d to e: f";
        let (text, hint) = shown(&told(&PipelineError::Stage {
            node: two(),
            problem: refused.to_owned(),
            tail: "  not sent".to_owned(),
            log: "not sent".to_owned(),
            hint: Some("declare it".into()),
        }));
        let expected = "build two/amd64: it ended well although the sandbox refused system calls on worker 1:\n  a to b: c\n  \
                        d to e: f\n  tail\nlog: /log";
        assert_eq!((text.as_str(), hint.as_deref()), (expected, Some("declare it")));
    }

    #[test]
    fn each_kind_of_failure_stays_one() {
        let sandbox = |error| PipelineError::Sandbox(Box::new(error));
        let stage = || "two/amd64".to_owned();
        let weaker = SandboxError::Weaker {
            stage: stage(),
            reason: "no Landlock".to_owned(),
        };
        let full = SandboxError::Store {
            stage: stage(),
            output: "disk".to_owned(),
            path: "x".to_owned(),
            source: std::io::ErrorKind::StorageFull.into(),
        };
        let setup = SandboxError::Setup {
            stage: stage(),
            step: "mount /proc".to_owned(),
            problem: "no".to_owned(),
        };
        let busy = StoreError::Busy { path: "/store".into() };
        let job = PipelineError::Job {
            problem: "it is not whole".to_owned(),
        };
        let cases = [
            (
                sandbox(weaker),
                WorkerFault::Sandbox,
                "run stage two/amd64 hermetically: no Landlock on worker 1",
            ),
            (
                sandbox(full),
                WorkerFault::Store,
                "store \"x\" of output \"disk\" of stage two/amd64: ",
            ),
            (PipelineError::Store(busy), WorkerFault::Store, ""),
            (job, WorkerFault::Other, "run the job: it is not whole on worker 1"),
        ];
        for (error, fault, text) in cases {
            let told = told(&error);
            let PipelineError::Worker {
                fault: found,
                problem,
                hint,
            } = &told
            else {
                panic!("{told:?}")
            };
            assert_eq!(*found, fault, "{told:?}");
            assert!(
                problem.starts_with(text) && problem.ends_with(" on worker 1"),
                "{problem}"
            );
            let own = error.hint().map(|hint| format!("on the worker: {hint}"));
            assert_eq!(hint.as_deref(), own.as_deref());
        }
        assert!(matches!(told(&sandbox(setup)), PipelineError::Stage { .. }));
    }

    #[test]
    fn a_worker_draws_nothing_and_hides_nothing() {
        let failure = StageFailure {
            version: FAILURE_VERSION,
            node: two(),
            fault: WorkerFault::Stage,
            problem: "bad\u{1b}[2J\nerror: another".to_owned(),
            details: vec!["\r\u{202e}x\nerror: y".to_owned(); 5000],
            hint: Some(format!("run\u{7}\n{}", "é".repeat(9000))),
        };
        let read = |failure: &StageFailure| StageFailure::read(&failure.bytes(), &two());
        let found = read(&failure).expect("a failure");
        let all = format!(
            "{}{}{}",
            found.problem,
            found.details.concat(),
            found.hint.as_deref().unwrap_or_default()
        );
        assert!(!all.contains(['\u{1b}', '\r', '\u{202e}', '\u{7}']), "{all:.300}");
        let own = |line: &String| !line.starts_with("  ") || line.contains('\n');
        assert!(!found.details.iter().any(own), "{:?}", &found.details[..2]);
        assert!(
            !found.problem.contains('\n') && found.details.len() == MAX_LINES,
            "{}",
            found.problem
        );
        assert!(found.hint.expect("one").len() < 2 * MAX_LINE);
        let other = StageFailure {
            node: NodeId::new("one", Arch::Amd64),
            ..failure.clone()
        };
        let newer = StageFailure { version: 2, ..failure };
        assert_eq!((read(&other), read(&newer)), (None, None));
        assert_eq!(StageFailure::read(b"{}", &two()), None);
    }
}
