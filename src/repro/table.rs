//! The comparison of several builders, as text.

use super::{Challenge, Divergence, Seen, StageRow};
use crate::model::{Target, visible};
use std::fmt::Write;

fn numbers(builders: &[usize]) -> String {
    let numbers: Vec<String> = builders.iter().map(ToString::to_string).collect();
    numbers.join(", ")
}

fn plural(builders: &[usize]) -> &'static str {
    if builders.len() == 1 { "builder" } else { "builders" }
}

/// Lines `<builders>  <value>` below a heading.
fn list<T>(out: &mut String, indent: &str, seen: &[Seen<T>], show: impl Fn(&T) -> String) {
    let width = seen.iter().map(|s| numbers(&s.builders).len()).max().unwrap_or(0);
    for one in seen {
        let value = one
            .value
            .as_ref()
            .map_or_else(|| "none".to_owned(), |v| visible(&show(v)));
        let _ = writeln!(out, "{indent}{:width$}  {value}", numbers(&one.builders));
    }
}

impl Challenge {
    /// The comparison as text: the builders by number, the inputs, the artifacts, the divergences, the groups that agree.
    pub fn table(&self) -> String {
        let target = Target {
            variant: self.variant,
            arch: self.arch,
        };
        let mut out = format!("{target}\n\nbuilders\n");
        for (index, name) in self.builders.iter().enumerate() {
            let _ = writeln!(out, "  {}  {name}", index + 1);
        }
        if self.inputs.is_empty() {
            out.push_str("\ninputs: equal (lock, revision, times, pnb, agent, platform)\n");
        } else {
            out.push_str("\ninputs that differ, which explains different outputs\n");
            for row in &self.inputs {
                let _ = writeln!(out, "  {}", row.what);
                list(&mut out, "    ", &row.seen, Clone::clone);
            }
        }
        out.push_str("\nartifacts\n");
        let _ = writeln!(out, "  root");
        list(&mut out, "    ", &self.root.seen, |d| format!("fs-verity {d}"));
        for row in &self.artifacts {
            let _ = writeln!(out, "  {}", row.what);
            list(&mut out, "    ", &row.seen, |a| {
                format!("sha256 {}  fs-verity {}  {} bytes", a.sha256, a.fsverity, a.size_bytes)
            });
        }
        self.stage_lines(&mut out);
        for one in &self.divergences {
            self.divergence_lines(one, &mut out);
        }
        let _ = writeln!(out);
        for group in &self.groups {
            let _ = match group.len() {
                1 => writeln!(out, "builder {} stands alone", group[0]),
                _ => writeln!(out, "{} {} agree on everything", plural(group), numbers(group)),
            };
        }
        let largest = self.groups.first().map_or(0, Vec::len);
        let word = if self.met { "agreed" } else { "not agreed" };
        let _ = writeln!(
            out,
            "{word}: {largest} of {} builders, {} must",
            self.builders.len(),
            self.threshold
        );
        out
    }

    fn stage_lines(&self, out: &mut String) {
        let differ: Vec<&StageRow> = self.stages.iter().filter(|s| !s.equal()).collect();
        if differ.is_empty() {
            let _ = writeln!(out, "\nstages: all {} equal", self.stages.len());
            return;
        }
        let _ = writeln!(out, "\nstages that differ, {} of {}", differ.len(), self.stages.len());
        for row in differ {
            let _ = writeln!(out, "  {}", visible(&row.stage.to_string()));
            if row.key.len() > 1 {
                let _ = writeln!(out, "    key");
                list(out, "      ", &row.key, ToString::to_string);
            }
            for output in row.outputs.iter().filter(|o| !o.equal()) {
                let _ = writeln!(out, "    output {:?}", output.what);
                list(out, "      ", &output.seen, |o| o.digest().to_string());
            }
        }
    }

    fn divergence_lines(&self, one: &Divergence, out: &mut String) {
        let _ = writeln!(out, "\nbuilder {} against builder {}", one.builder, one.against);
        if let Some(input) = &one.input {
            let what = match input.inputs.as_slice() {
                [] => "pnb's code, a time or a limit".to_owned(),
                inputs => inputs.join(", "),
            };
            let _ = writeln!(
                out,
                "  inputs differ from {} on: {what}",
                visible(&input.stage.to_string())
            );
        }
        if let Some(output) = &one.output {
            let names: Vec<String> = output.outputs.iter().map(|o| format!("{o:?}")).collect();
            let _ = writeln!(
                out,
                "  diverge first at {}: the same key, but a different {}",
                visible(&output.stage.to_string()),
                names.join(", ")
            );
        }
        if one.input.is_none() && one.output.is_none() {
            out.push_str("  every stage is equal: the stated files or root differ from the output of the last stage\n");
        }
    }
}
