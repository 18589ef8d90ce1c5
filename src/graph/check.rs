//! The checked graph: every reference resolves, nothing needs itself.

use super::{
    GraphError, InputSource, OutputKind, OutputSpec, Packages, StageArch, StageFile, parse_stage,
    stage_file::plain_name,
};
use crate::model::Arch;
use serde::{Serialize, Serializer};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::Path,
};

/// A stage for an architecture: what runs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NodeId {
    /// Stage name.
    pub stage: String,
    /// Architecture it is made for; the build machine's for tools.
    pub arch: Arch,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.stage, self.arch))
    }
}
impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A node with its stage file.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    /// Which.
    pub id: NodeId,
    /// What its `stage.toml` says.
    pub file: &'a StageFile,
}

/// All stages, checked against each other.
#[derive(Debug)]
pub struct StageGraph {
    stages: BTreeMap<String, StageFile>,
    build_arch: Arch,
}

impl StageGraph {
    /// Reads `<dir>/*/stage.toml` and checks them; `shown` is what the directory is called in messages.
    pub fn load(dir: &Path, shown: &str, build_arch: Arch) -> Result<Self, GraphError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| GraphError::Io { path, source }
        };
        #[expect(clippy::disallowed_methods, reason = "the names go into a sorted map")]
        let entries = fs::read_dir(dir).map_err(io(dir))?;
        let mut stages = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(io(dir))?;
            let path = entry.path().join("stage.toml");
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if !path.is_file() {
                continue;
            }
            let text = fs::read_to_string(&path).map_err(io(&path))?;
            stages.insert(name.clone(), parse_stage(&text, &format!("{shown}/{name}/stage.toml"))?);
        }
        Self::new(stages, build_arch)
    }

    /// Checks parsed stages against each other.
    pub fn new(stages: BTreeMap<String, StageFile>, build_arch: Arch) -> Result<Self, GraphError> {
        let graph = Self { stages, build_arch };
        for (name, file) in &graph.stages {
            plain_name("stage", name).map_err(|problem| file.error(0, problem))?;
            graph.check_stage(file)?;
        }
        graph.check_cycles()?;
        Ok(graph)
    }

    fn check_stage(&self, file: &StageFile) -> Result<(), GraphError> {
        for (stage, output, offset) in references(file) {
            let Some(target) = self.stages.get(stage) else {
                let known: Vec<&str> = self.stages.keys().map(String::as_str).collect();
                let problem = format!("there is no stage {stage:?} (there are: {})", known.join(", "));
                return Err(file.error(offset, problem));
            };
            let Some(found) = target.outputs.get(output) else {
                let known: Vec<&str> = target.outputs.keys().map(String::as_str).collect();
                let problem = format!(
                    "stage {stage:?} has no output {output:?} (it has: {})",
                    known.join(", ")
                );
                return Err(file.error(offset, problem));
            };
            if file.arch == StageArch::Build && target.arch == StageArch::Target {
                let problem = format!("a stage for the build machine needs {stage:?}, which is for the target");
                return Err(file.error(offset, problem));
            }
            let is_root = file.root.as_ref().is_some_and(|r| r.span().start == offset);
            if is_root && found.kind != OutputKind::Tree {
                return Err(file.error(offset, format!("the root {stage:?} is not a tree")));
            }
        }
        for (name, output) in &file.outputs {
            if let Some((from, (stage, given))) = file.passed_on(output)
                && self.stages[stage].outputs[given].kind != OutputKind::File
            {
                let problem =
                    format!("output {name:?} is a file, and {given:?} of stage {stage:?}, which it should be, is none");
                return Err(file.error(from, problem));
            }
        }
        Ok(())
    }

    fn check_cycles(&self) -> Result<(), GraphError> {
        let mut done = BTreeSet::new();
        for name in self.stages.keys() {
            self.visit(name, &mut Vec::new(), &mut done)?;
        }
        Ok(())
    }

    fn visit<'a>(
        &'a self,
        name: &'a str,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Result<(), GraphError> {
        if done.contains(name) {
            return Ok(());
        }
        if let Some(start) = path.iter().position(|p| *p == name) {
            let cycle = path[start..].iter().copied().chain([name]).map(str::to_owned).collect();
            return Err(GraphError::Cycle { cycle });
        }
        path.push(name);
        for (next, _, _) in references(&self.stages[name]) {
            self.visit(next, path, done)?;
        }
        path.pop();
        done.insert(name);
        Ok(())
    }

    /// Every stage by name.
    pub fn stages(&self) -> &BTreeMap<String, StageFile> {
        &self.stages
    }

    /// Architecture of the machine that builds.
    pub fn build_arch(&self) -> Arch {
        self.build_arch
    }

    /// The node of `stage` when building for `target`.
    pub fn node(&self, stage: &str, target: Arch) -> Result<NodeId, GraphError> {
        let file = self.stages.get(stage).ok_or_else(|| GraphError::UnknownStage {
            name: stage.to_owned(),
            known: self.stages.keys().cloned().collect(),
        })?;
        let arch = match file.arch {
            StageArch::Build => self.build_arch,
            StageArch::Target => target,
        };
        if !file.only.contains(&arch) {
            return Err(GraphError::WrongArch {
                stage: stage.to_owned(),
                arch: arch.to_string(),
                only: file.only.iter().map(Arch::to_string).collect::<Vec<_>>().join(", "),
            });
        }
        Ok(NodeId {
            stage: stage.to_owned(),
            arch,
        })
    }

    /// The stage file of a node.
    pub fn file(&self, id: &NodeId) -> &StageFile {
        &self.stages[&id.stage]
    }

    /// Nodes that `id` needs, each once, in name order.
    pub fn dependencies(&self, id: &NodeId) -> Result<Vec<NodeId>, GraphError> {
        let mut found = BTreeSet::new();
        for (stage, _, _) in references(self.file(id)) {
            found.insert(self.node(stage, id.arch)?);
        }
        Ok(found.into_iter().collect())
    }

    /// How many files of the artifacts of `exported` the output `name` of `id` becomes: its own, and those of stages that pass it on.
    pub fn times_exported(&self, id: &NodeId, name: &str, exported: &BTreeSet<NodeId>) -> usize {
        let of_artifact = self.file(id).outputs.get(name).is_some_and(OutputSpec::is_exported);
        let own = usize::from(of_artifact && exported.contains(id));
        let mut further = BTreeSet::new();
        for (stage, file) in &self.stages {
            for (output, spec) in &file.outputs {
                let passed_on = file.passed_on(spec).map(|(_, from)| from);
                if passed_on != Some((id.stage.as_str(), name)) {
                    continue;
                }
                let from_here = |arch: &Arch| self.node(&id.stage, *arch).is_ok_and(|node| node == *id);
                let nodes = Arch::ALL
                    .iter()
                    .filter(|a| from_here(a))
                    .flat_map(|a| self.node(stage, *a));
                further.extend(nodes.map(|node| (node, output)));
            }
        }
        let further = further
            .iter()
            .map(|(node, output)| self.times_exported(node, output, exported));
        own + further.sum::<usize>()
    }

    /// Every package set the stages ask the lock for: `<stage>/<arch>`, its architecture, and the request.
    pub fn package_sets(&self) -> Vec<(String, Arch, &Packages)> {
        let mut sets = Vec::new();
        for (name, file) in &self.stages {
            let Some(packages) = &file.packages else { continue };
            for arch in Arch::ALL {
                let wanted = match file.arch {
                    StageArch::Build => arch == self.build_arch,
                    StageArch::Target => file.only.contains(&arch),
                };
                if wanted {
                    sets.push((format!("{name}/{arch}"), arch, packages));
                }
            }
        }
        sets
    }
}

/// Stage, output and byte offset of each reference in a stage file.
fn references(file: &StageFile) -> Vec<(&str, &str, usize)> {
    let root = file.root.iter().map(|r| (r.get_ref().as_str(), "tree", r.span().start));
    let inputs = file.inputs.values().filter_map(|input| match &input.source {
        InputSource::Stage { stage, output } => {
            Some((stage.get_ref().as_str(), output.get_ref().as_str(), stage.span().start))
        }
        _ => None,
    });
    root.chain(inputs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(stages: &[(&str, &str)]) -> Result<StageGraph, GraphError> {
        let mut map = BTreeMap::new();
        for (name, body) in stages {
            let outputs = if body.contains("[outputs]") { "" } else { "[outputs]" };
            let text =
                format!("summary = \"{name}\"\nwriter = \"w\"\n{body}\n{outputs}\ntree = {{ kind = \"tree\" }}\n");
            map.insert(
                (*name).to_owned(),
                parse_stage(&text, &format!("stages/{name}/stage.toml"))?,
            );
        }
        StageGraph::new(map, Arch::Amd64)
    }

    #[test]
    fn unknown_stages_outputs_and_cycles_are_named() {
        for (stages, want) in [
            (
                &[("a", "root = \"b\"")][..],
                "stages/a/stage.toml, line 3: there is no stage \"b\" (there are: a)",
            ),
            (
                &[("a", ""), ("b", "[inputs]\nx = { stage = \"a\", output = \"y\" }")],
                "stages/b/stage.toml, line 4: stage \"a\" has no output \"y\" (it has: tree)",
            ),
            (
                &[("a", "root = \"c\""), ("b", "root = \"a\""), ("c", "root = \"b\"")],
                "order the stages: a → c → b → a need each other",
            ),
            (
                &[("a", "arch = \"build\"\nroot = \"b\""), ("b", "")],
                "a stage for the build machine needs \"b\", which is for the target",
            ),
            (
                &[
                    ("a", ""),
                    (
                        "b",
                        "[inputs]\nx = { stage = \"a\" }\n[outputs]\nf = { kind = \"file\", from = \"x\" }",
                    ),
                ],
                "stages/b/stage.toml, line 6: output \"f\" is a file, and \"tree\" of stage \"a\", which it should be, is none",
            ),
        ] {
            let err = graph(stages).expect_err(want).to_string();
            assert!(err.contains(want), "{err:?} lacks {want:?}");
        }
    }

    #[test]
    fn an_output_is_exported_as_often_as_it_is_passed_on_to_what_is_exported() {
        let graph = graph(&[
            ("made", "[outputs]\nf = { kind = \"file\" }\ng = { kind = \"file\" }"),
            (
                "first",
                "[inputs]\nx = { stage = \"made\", output = \"f\" }\n[outputs]\na = { kind = \"file\", from = \"x\" }",
            ),
            (
                "second",
                "[inputs]\ny = { stage = \"first\", output = \"a\" }\n[outputs]\nb = { kind = \"file\", from = \"y\" }",
            ),
        ])
        .expect("valid");
        let node = |stage: &str| graph.node(stage, Arch::Amd64).expect("exists");
        let times = |exported: &[&str], output: &str| {
            let exported = exported.iter().map(|stage| node(stage)).collect();
            graph.times_exported(&node("made"), output, &exported)
        };
        assert_eq!(times(&[], "f"), 0);
        assert_eq!(times(&["made"], "f"), 1);
        assert_eq!(times(&["second"], "f"), 1);
        assert_eq!(times(&["made", "first", "second"], "f"), 3);
        assert_eq!(times(&["made", "first", "second"], "g"), 1);
        assert_eq!(times(&["made"], "tree"), 0, "a tree that is not exported");
        let other = [graph.node("second", Arch::Arm64).expect("exists")].into();
        assert_eq!(
            graph.times_exported(&node("made"), "f", &other),
            0,
            "another architecture"
        );
    }

    #[test]
    fn tools_are_for_the_build_machine_whatever_the_target() {
        let graph = graph(&[("tools", "arch = \"build\""), ("image", "root = \"tools\"")]).expect("valid");
        let image = graph.node("image", Arch::Arm64).expect("exists");
        let needs = graph.dependencies(&image).expect("resolves");
        assert_eq!(
            needs.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["tools/amd64"]
        );
        assert!(matches!(
            graph.node("disk", Arch::Amd64),
            Err(GraphError::UnknownStage { .. })
        ));
    }
}
