//! The log of a running stage.

use super::{Event, Events, PipelineError, placement::RunContext};
use crate::{
    model::{NodeId, visible_log},
    sandbox::LogSink,
};
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufWriter, Write},
    ops::ControlFlow,
    path::Path,
};

/// Number of log lines in the error of a failed stage.
pub(super) const TAIL: usize = 30;
/// Longest shown part of a line, in bytes; the log has the whole line.
const MAX_LINE: usize = 4096;

/// Writes the output of a stage to its log, keeps the last lines, and reports each line as an event.
pub(super) struct Recorder<'a> {
    file: BufWriter<File>,
    line: Vec<u8>,
    tail: VecDeque<String>,
    node: &'a NodeId,
    verbose: bool,
    events: Events<'a>,
}

impl<'a> Recorder<'a> {
    /// A new log at the path `log`.
    pub(super) fn new(context: &RunContext<'a>, log: &Path, node: &'a NodeId) -> Result<Self, PipelineError> {
        Ok(Self {
            file: BufWriter::new(File::create(log).map_err(PipelineError::io("create", log))?),
            line: Vec::new(),
            tail: VecDeque::new(),
            node,
            verbose: context.options.verbose,
            events: context.events,
        })
    }

    fn end_line(&mut self) {
        let line = visible_log(self.line.trim_ascii_end());
        self.line.clear();
        if self.verbose {
            (self.events)(Event::Log {
                node: self.node.clone(),
                line: line.clone(),
            });
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// The last lines, and whether the whole log could be written.
    pub(super) fn finish(mut self) -> (String, io::Result<()>) {
        if !self.line.is_empty() {
            self.end_line();
        }
        let lines: String = self.tail.iter().map(|l| format!("  {l}\n")).collect();
        (lines.trim_end().to_owned(), self.file.flush())
    }
}

impl LogSink for Recorder<'_> {
    fn output(&mut self, bytes: &[u8]) -> io::Result<ControlFlow<()>> {
        self.file.write_all(bytes)?;
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                _ if self.line.len() < MAX_LINE => self.line.push(byte),
                _ => {}
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
