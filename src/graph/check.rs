//! The checked graph: every reference resolves, and no stage depends on itself.

use super::{
    DeclaredOutput, GraphError, InputSource, Packages, StageArch, StageFile, StageOutputKind, parse_stage,
    stage_file::plain_name,
};
use crate::{
    model::{Arch, BuildOption, NodeId, RelPath, Variant},
    source::{SourceEntry, SourceTree},
};
use std::collections::{BTreeMap, BTreeSet};
use toml::Spanned;

/// A node with its stage file.
#[derive(Clone, Debug)]
pub struct StageNode<'a> {
    /// Its name.
    pub id: NodeId,
    /// Its `stage.toml`.
    pub file: &'a StageFile,
}

/// All stages, checked against each other.
#[derive(Debug)]
pub struct StageGraph {
    stages: BTreeMap<String, StageFile>,
    host: Arch,
    build_arch: Arch,
    /// The stage with the emulator for tools of another architecture, if such tools were chosen.
    tools_emulator: Option<String>,
    /// The other architectures whose nodes run on machines of their own.
    native: BTreeSet<Arch>,
}

impl StageGraph {
    /// Reads and checks the files `<dir>/*/stage.toml` of a project; `writers` has the names of the writers that stages may use.
    pub fn load(tree: &SourceTree, dir: &RelPath, host: Arch, writers: &BTreeSet<&str>) -> Result<Self, GraphError> {
        let mut stages = BTreeMap::new();
        for name in tree.names(Some(dir))? {
            let Ok(name) = String::from_utf8(name) else { continue };
            let (Ok(stage), Ok(path)) = (
                RelPath::new(format!("{dir}/{name}")),
                RelPath::new(format!("{dir}/{name}/stage.toml")),
            ) else {
                continue;
            };
            // A link to a directory is refused with the path that leads through it.
            if !matches!(
                tree.entry(&stage)?,
                Some(SourceEntry::Directory | SourceEntry::Symlink { .. })
            ) {
                continue;
            }
            if let Some(text) = tree.read_text(&path)? {
                stages.insert(name, parse_stage(&text, &path.to_string())?);
            }
        }
        Self::new(stages, host, writers)
    }

    /// Checks parsed stages against each other.
    pub fn new(stages: BTreeMap<String, StageFile>, host: Arch, writers: &BTreeSet<&str>) -> Result<Self, GraphError> {
        let mut graph = Self {
            stages,
            host,
            build_arch: host,
            tools_emulator: None,
            native: BTreeSet::new(),
        };
        for (name, file) in &graph.stages {
            plain_name("stage", name).map_err(|problem| file.error(0, problem))?;
            if file.variant.is_some() {
                name.parse::<Variant>().map_err(|e| file.error(0, e.to_string()))?;
            }
            check_writer(file, writers)?;
            graph.check_stage(file)?;
        }
        graph.check_cycles()?;
        graph.narrow_emulated();
        Ok(graph)
    }

    /// The variants that the stages declare, in the order of their names, each with its stage file.
    pub fn variants(&self) -> impl Iterator<Item = (Variant, &StageFile)> {
        let declared = self.stages.iter().filter(|(_, file)| file.variant.is_some());
        // `new` has refused a variant's stage whose name is not that of a variant.
        declared.filter_map(|(name, file)| Some((name.parse().ok()?, file)))
    }

    /// Checks the references of one stage, and the outputs that pass an input on.
    fn check_stage(&self, file: &StageFile) -> Result<(), GraphError> {
        // Each check relies on those before it: the stage exists, it has the output, and the architectures fit.
        for Reference {
            stage,
            output,
            offset,
            only,
            emulator,
        } in references(file)
        {
            let Some(target) = self.stages.get(stage) else {
                let known: Vec<&str> = self.stages.keys().map(String::as_str).collect();
                let problem = format!("no stage is called {stage:?} (the stages are: {})", known.join(", "));
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
            // A tool is made once for the machine that builds; it has no target whose node it could depend on.
            if file.arch != StageArch::Target && target.arch == StageArch::Target {
                let problem = format!("a stage for the build machine needs {stage:?}, which is for the target");
                return Err(file.error(offset, problem));
            }
            // Only a stage of the target has a node per target; a tool has one node, which serves every target.
            let lacking =
                |arch: &&Arch| file.only.contains(arch) && !(target.only.contains(arch) && found.only.contains(arch));
            if let (StageArch::Target, Some(arch)) = (target.arch, only.iter().find(lacking)) {
                let problem = format!(
                    "{stage:?} has no output {output:?} for {arch}; add only = [{}] to this input",
                    quoted(file.only.iter().filter(|a| !lacking(a)))
                );
                return Err(file.error(offset, problem));
            }
            if emulator && target.arch != StageArch::Host {
                let problem =
                    format!("the emulator {stage:?} must run on this machine: its stage needs `arch = \"host\"`");
                return Err(file.error(offset, problem));
            }
            // `references` names the output "tree" for roots; the declared kind decides whether it is a directory.
            let is_root = file.root.as_ref().is_some_and(|r| r.span().start == offset);
            if is_root && found.kind != StageOutputKind::Tree {
                return Err(file.error(offset, format!("the root {stage:?} is a file; a root is a directory")));
            }
        }
        // Outputs that pass an input on. The parser knows the names in this file; kinds and architectures need the other stages.
        for (name, output) in &file.outputs {
            let Some((from, input)) = file.passed_on(output) else {
                continue;
            };
            let InputSource::Stage { stage, output: given } = &input.source else {
                continue;
            };
            let (stage, given) = (stage.get_ref(), given.get_ref());
            if self.stages[stage].outputs[given].kind != StageOutputKind::File {
                let problem = format!(
                    "output {name:?} passes on output {given:?} of stage {stage:?}, which is a directory; only files can be passed on"
                );
                return Err(file.error(from, problem));
            }
            let lacking = |arch: &&Arch| file.only.contains(arch) && !input.only.contains(arch);
            if let Some(arch) = output.only.iter().find(lacking) {
                let problem = format!(
                    "output {name:?} passes on an input that does not exist for {arch}; add only = [{}] to this output",
                    quoted(&input.only)
                );
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
        for next in references(&self.stages[name]) {
            self.visit(next.stage, path, done)?;
        }
        path.pop();
        done.insert(name);
        Ok(())
    }

    /// All stages by name.
    pub fn stages(&self) -> &BTreeMap<String, StageFile> {
        &self.stages
    }

    /// The architecture of the tools in a build for `target`: the one of the machine that runs its stages, unless another was chosen.
    pub fn build_arch(&self, target: Arch) -> Arch {
        if self.native.contains(&target) {
            target
        } else {
            self.build_arch
        }
    }

    /// The architecture of the machine that runs the stages of a build for `target`: the one of this machine, unless they run natively
    /// elsewhere.
    pub fn machine(&self, target: Arch) -> Arch {
        if self.native.contains(&target) {
            target
        } else {
            self.host
        }
    }

    /// Leaves out the inputs that a build with `options` does not have.
    pub fn with_options(mut self, options: &BTreeSet<BuildOption>) -> Self {
        for file in self.stages.values_mut() {
            file.choose_inputs(options);
        }
        self
    }

    /// Uses tools of the architecture `arch`. Tools that this machine cannot run are run under the emulator of the stage
    /// `emulator`.
    pub fn with_tools_of(mut self, arch: Arch, emulator: &str) -> Result<Self, GraphError> {
        self.node(emulator, arch)?;
        self.build_arch = arch;
        self.tools_emulator = (arch != self.host).then(|| emulator.to_owned());
        Ok(self)
    }

    /// The architecture of this machine.
    pub fn host(&self) -> Arch {
        self.host
    }

    /// The stages of builds for these architectures run on machines of that architecture: with its tools, and without an emulator.
    pub fn with_native(mut self, arches: &BTreeSet<Arch>) -> Self {
        let others = arches.iter().filter(|arch| **arch != self.host);
        self.native = others.copied().collect();
        self.narrow_emulated();
        self
    }

    /// Leaves inputs that are for emulation only to the architectures whose programs this machine emulates.
    fn narrow_emulated(&mut self) {
        let emulated: Vec<Arch> = Arch::ALL.into_iter().filter(|a| self.machine(*a) != *a).collect();
        let inputs = self.stages.values_mut().flat_map(|file| file.inputs.values_mut());
        for input in inputs.filter(|input| input.emulated) {
            input.only.retain(|arch| emulated.contains(arch));
        }
    }

    /// The node of `stage` in a build for `target`.
    pub fn node(&self, stage: &str, target: Arch) -> Result<NodeId, GraphError> {
        let file = self.stages.get(stage).ok_or_else(|| GraphError::UnknownStage {
            name: stage.to_owned(),
            known: self.stages.keys().cloned().collect(),
        })?;
        let arch = match file.arch {
            StageArch::Build => self.build_arch(target),
            StageArch::Host => self.machine(target),
            StageArch::Target => target,
        };
        if !file.only.contains(&arch) {
            return Err(GraphError::WrongArch {
                stage: stage.to_owned(),
                arch,
                only: file.only.iter().map(Arch::to_string).collect::<Vec<_>>().join(", "),
            });
        }
        Ok(NodeId::new(stage, arch))
    }

    /// The nodes of all stages for all architectures, in order.
    pub fn nodes(&self) -> Vec<NodeId> {
        let arches = Arch::ALL.into_iter();
        let nodes = arches.flat_map(|arch| self.stages.keys().filter_map(move |name| self.node(name, arch).ok()));
        nodes.collect::<BTreeSet<NodeId>>().into_iter().collect()
    }

    /// The graph of a lock without a base image: no stage has the inputs that need one.
    pub fn without_base(mut self) -> Self {
        for file in self.stages.values_mut() {
            file.inputs.retain(|_, input| !input.with_base);
        }
        self
    }

    /// The nodes that have an input only with a base image: their packages are installed on it.
    pub fn on_base(&self) -> Vec<NodeId> {
        let on_base = |file: &StageFile| file.inputs.values().any(|input| input.with_base);
        let stages = self.stages.iter().filter(|(_, file)| on_base(file));
        let nodes = stages.flat_map(|(name, file)| file.only.iter().map(move |arch| NodeId::new(name, *arch)));
        nodes.collect()
    }

    /// The stage file of a node.
    pub fn file(&self, id: &NodeId) -> &StageFile {
        &self.stages[&id.stage]
    }

    /// The direct dependencies of `id`, each once, in the order of their names.
    pub fn dependencies(&self, id: &NodeId) -> Result<Vec<NodeId>, GraphError> {
        let mut found = BTreeSet::new();
        for reference in references(self.file(id)).iter() {
            if !reference.emulator && reference.only.contains(&id.arch) {
                found.insert(self.node(reference.stage, id.arch)?);
            }
        }
        if let Some((stage, _)) = self.emulator(id) {
            found.insert(self.node(stage, id.arch)?);
        }
        Ok(found.into_iter().collect())
    }

    /// The stage with the emulator of a node, and the architecture to emulate; `None` when the node's machine can run all its programs. An emulator is needed for programs of the target, if `stage.toml` names one, and for tools of another architecture.
    pub fn emulator(&self, id: &NodeId) -> Option<(&str, Arch)> {
        let file = self.file(id);
        let of_target = file.emulator.as_ref().filter(|_| id.arch != self.machine(id.arch));
        let of_target = of_target.map(|stage| (stage.get_ref().as_str(), id.arch));
        // There are two architectures, so a node never needs to emulate more than one.
        let of_tools = self.tools_emulator.as_deref();
        let of_tools = of_tools.filter(|_| file.root.is_some() && !self.native.contains(&id.arch));
        of_target.or(of_tools.map(|stage| (stage, self.build_arch)))
    }

    /// The number of files that the output `name` of `id` becomes in the artifacts of `exported`: its own, and those of the stages
    /// that pass it on.
    pub fn times_exported(&self, id: &NodeId, name: &str, exported: &BTreeSet<NodeId>) -> usize {
        let of_artifact = self.file(id).outputs.get(name).is_some_and(DeclaredOutput::is_exported);
        let own = usize::from(of_artifact && exported.contains(id));
        let mut further = BTreeSet::new();
        for (stage, file) in &self.stages {
            for (output, spec) in &file.outputs {
                let passed_on = file.passed_on(spec).is_some_and(|(_, input)| match &input.source {
                    InputSource::Stage { stage, output } => *stage.get_ref() == id.stage && output.get_ref() == name,
                    _ => false,
                });
                if !passed_on {
                    continue;
                }
                let from_here = |arch: &Arch| self.node(&id.stage, *arch).is_ok_and(|node| node == *id);
                let nodes = Arch::ALL
                    .iter()
                    .filter(|a| from_here(a))
                    .flat_map(|a| self.node(stage, *a));
                let given = nodes.filter(|node| spec.only.contains(&node.arch));
                further.extend(given.map(|node| (node, output)));
            }
        }
        let further = further
            .iter()
            .map(|(node, output)| self.times_exported(node, output, exported));
        own + further.sum::<usize>()
    }

    /// The package sets that the lock has to have: the node of each, and the request.
    pub fn package_sets(&self) -> Vec<(NodeId, &Packages)> {
        let mut sets = Vec::new();
        for (name, file) in &self.stages {
            let Some(packages) = &file.packages else { continue };
            for arch in Arch::ALL {
                // Sets of tools are locked for both architectures, because either may be the one of the build machine.
                if file.only.contains(&arch) {
                    sets.push((NodeId::new(name, arch), packages));
                }
            }
        }
        sets
    }
}

/// Architectures as a list of TOML strings.
fn quoted<'a>(arches: impl IntoIterator<Item = &'a Arch>) -> String {
    let quoted: Vec<String> = arches.into_iter().map(|arch| format!("\"{arch}\"")).collect();
    quoted.join(", ")
}

/// Checks that the writer of a stage exists.
fn check_writer(file: &StageFile, writers: &BTreeSet<&str>) -> Result<(), GraphError> {
    match file.workload.writer() {
        Some(name) if !writers.contains(name.get_ref().as_str()) => {
            let known: Vec<&str> = writers.iter().copied().collect();
            let problem = format!(
                "no writer is called {:?} (the writers are: {})",
                name.get_ref(),
                known.join(", ")
            );
            Err(file.error(name.span().start, problem))
        }
        _ => Ok(()),
    }
}

/// A reference to another stage in a stage file.
struct Reference<'a> {
    stage: &'a str,
    output: &'a str,
    /// Its byte offset in the file.
    offset: usize,
    /// The architectures of the stage that have it.
    only: &'a [Arch],
    /// Whether it is the emulator, which not every node needs.
    emulator: bool,
}

fn references(file: &StageFile) -> Vec<Reference<'_>> {
    fn tree<'a>(file: &'a StageFile, stage: &'a Spanned<String>, emulator: bool) -> Reference<'a> {
        Reference {
            stage: stage.get_ref(),
            output: "tree",
            offset: stage.span().start,
            only: &file.only,
            emulator,
        }
    }
    let mut found = Vec::new();
    found.extend(file.root.iter().map(|stage| tree(file, stage, false)));
    found.extend(file.emulator.iter().map(|stage| tree(file, stage, true)));
    found.extend(file.inputs.values().filter_map(|input| match &input.source {
        InputSource::Stage { stage, output } => Some(Reference {
            stage: stage.get_ref(),
            output: output.get_ref(),
            offset: stage.span().start,
            only: &input.only,
            emulator: false,
        }),
        _ => None,
    }));
    found
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
        StageGraph::new(map, Arch::Amd64, &["w"].into())
    }

    #[test]
    fn an_unknown_writer_is_named_with_its_line() {
        let text = "summary = \"a\"\nroot = \"r\"\ncommand = [\"/bin/sh\"]\nprepare = \"dpkg-rot\"\n[outputs]\ntree = { kind = \"tree\" }\n";
        let file = parse_stage(text, "stages/a/stage.toml").expect("well-formed");
        let known = ["dpkg-root", "unpack"].into();
        let error = StageGraph::new([("a".to_owned(), file)].into(), Arch::Amd64, &known).expect_err("no such writer");
        assert_eq!(
            error.to_string(),
            "read stages/a/stage.toml, line 4: no writer is called \"dpkg-rot\" (the writers are: dpkg-root, unpack)"
        );
    }

    #[test]
    fn unknown_stages_outputs_and_cycles_are_named() {
        for (stages, want) in [
            (
                &[("a", "root = \"b\"")][..],
                "stages/a/stage.toml, line 3: no stage is called \"b\" (the stages are: a)",
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
                "stages/b/stage.toml, line 6: output \"f\" passes on output \"tree\" of stage \"a\", which is a directory; only files can be passed on",
            ),
            (
                &[
                    ("a", "[outputs]\ng = { kind = \"file\" }"),
                    (
                        "b",
                        "[inputs]\nx = { stage = \"a\", output = \"g\", only = [\"amd64\"] }\n[outputs]\nf = { kind = \"file\", from = \"x\" }",
                    ),
                ],
                "output \"f\" passes on an input that does not exist for arm64; add only = [\"amd64\"] to this output",
            ),
        ] {
            let err = graph(stages).expect_err(want).to_string();
            assert!(err.contains(want), "{err:?} lacks {want:?}");
        }
    }

    #[test]
    fn an_emulator_is_needed_for_another_architecture_only() {
        let stages = [
            ("tools", "arch = \"build\""),
            ("emulators", "arch = \"host\""),
            ("root", "emulator = \"emulators\""),
            (
                "image",
                "[inputs]\nroot = { stage = \"root\" }\nbios = { stage = \"bios\", only = [\"amd64\"] }",
            ),
            ("bios", "only = [\"amd64\"]\nroot = \"tools\""),
        ];
        let native = graph(&stages).expect("valid");
        let foreign = graph(&stages)
            .expect("valid")
            .with_tools_of(Arch::Arm64, "emulators")
            .expect("there");
        let needs = |graph: &StageGraph, stage: &str, arch| {
            let id = graph.node(stage, arch).expect("exists");
            let needs = graph.dependencies(&id).expect("resolves");
            needs.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(needs(&native, "root", Arch::Amd64), [""; 0]);
        assert_eq!(needs(&native, "root", Arch::Arm64), ["emulators/amd64"]);
        assert_eq!(needs(&native, "image", Arch::Amd64), ["bios/amd64", "root/amd64"]);
        assert_eq!(needs(&native, "image", Arch::Arm64), ["root/arm64"]);
        assert_eq!(needs(&native, "bios", Arch::Amd64), ["tools/amd64"]);
        assert_eq!(needs(&foreign, "root", Arch::Amd64), [""; 0]);
        assert_eq!(needs(&foreign, "bios", Arch::Amd64), ["emulators/amd64", "tools/arm64"]);
        let bios = foreign.node("bios", Arch::Amd64).expect("exists");
        assert_eq!(foreign.emulator(&bios), Some(("emulators", Arch::Arm64)));
    }

    #[test]
    fn what_runs_natively_has_its_own_tools_and_no_emulator() {
        let stages = [
            ("tools", "arch = \"build\""),
            ("emulators", "arch = \"host\""),
            ("root", "emulator = \"emulators\"\nroot = \"tools\""),
            ("image", "[inputs]\nroot = { stage = \"root\" }"),
        ];
        let emulated = graph(&stages).expect("valid");
        let native = graph(&stages)
            .expect("valid")
            .with_native(&[Arch::Amd64, Arch::Arm64].into());
        let order = |graph: &StageGraph, arch| {
            let image = graph.node("image", arch).expect("exists");
            let closure = crate::graph::closure_of(graph, &[image]).expect("resolves");
            closure.order.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            order(&emulated, Arch::Arm64),
            ["emulators/amd64", "tools/amd64", "root/arm64", "image/arm64"]
        );
        assert_eq!(
            order(&native, Arch::Arm64),
            ["tools/arm64", "root/arm64", "image/arm64"]
        );
        assert_eq!(order(&native, Arch::Amd64), order(&emulated, Arch::Amd64));
        let arches = |graph: &StageGraph, arch| (graph.machine(arch), graph.build_arch(arch));
        assert_eq!(arches(&emulated, Arch::Arm64), (Arch::Amd64, Arch::Amd64));
        assert_eq!(arches(&native, Arch::Arm64), (Arch::Arm64, Arch::Arm64));
        assert_eq!(arches(&native, Arch::Amd64), (Arch::Amd64, Arch::Amd64));
        // A program of another architecture needs an emulator on the machine of this one, whatever the other has.
        let root = NodeId::new("root", Arch::Arm64);
        assert_eq!(native.emulator(&root), None);
        assert_eq!(emulated.emulator(&root), Some(("emulators", Arch::Arm64)));
    }

    #[test]
    fn an_input_for_emulation_is_there_where_programs_of_the_target_are_emulated() {
        let stages = [
            ("tools", "arch = \"build\""),
            ("emulators", "arch = \"host\""),
            ("lent", "arch = \"host\""),
            (
                "root",
                "emulator = \"emulators\"\nroot = \"tools\"\n[inputs]\nx = { stage = \"lent\", emulated = true }",
            ),
        ];
        let needs = |graph: &StageGraph, arch| {
            let id = graph.node("root", arch).expect("exists");
            let needs = graph.dependencies(&id).expect("resolves");
            let has = graph.file(&id).inputs_for(arch).count() == 1;
            assert_eq!(has, needs.iter().any(|node| node.stage == "lent"));
            needs.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let lacking = stages.map(|(name, body)| (name, body.replace("emulator = \"emulators\"\n", "")));
        let lacking: Vec<(&str, &str)> = lacking.iter().map(|(name, body)| (*name, body.as_str())).collect();
        let err = graph(&lacking).expect_err("nothing is emulated").to_string();
        assert_eq!(
            err,
            "read stages/root/stage.toml, line 5: the stage has no \"emulator\""
        );
        let here = || graph(&stages).expect("valid");
        assert_eq!(needs(&here(), Arch::Amd64), ["tools/amd64"]);
        assert_eq!(
            needs(&here(), Arch::Arm64),
            ["emulators/amd64", "lent/amd64", "tools/amd64"]
        );
        let native = here().with_native(&[Arch::Arm64].into());
        assert_eq!(needs(&native, Arch::Arm64), ["tools/arm64"]);
        // Emulated tools make no program of the target one: amd64's own still runs as it is.
        let foreign = || here().with_tools_of(Arch::Arm64, "emulators").expect("there");
        assert_eq!(needs(&foreign(), Arch::Amd64), ["emulators/amd64", "tools/arm64"]);
        assert_eq!(
            needs(&foreign(), Arch::Arm64),
            ["emulators/amd64", "lent/amd64", "tools/arm64"]
        );
    }

    #[test]
    fn an_input_can_depend_on_an_option_of_the_build() {
        let stages = [
            ("a", ""),
            ("b", ""),
            (
                "image",
                "[inputs]\nx = { stage = \"a\", option = \"recovery\" }\ny = { stage = \"b\", unless = \"recovery\" }\nz = { files = \"z\" }",
            ),
        ];
        let with = |options: &[BuildOption]| {
            let graph = graph(&stages)
                .expect("valid")
                .with_options(&options.iter().copied().collect());
            let id = graph.node("image", Arch::Amd64).expect("exists");
            let needs = graph.dependencies(&id).expect("resolves");
            let inputs = graph
                .file(&id)
                .inputs
                .keys()
                .map(|name| name.get_ref().clone())
                .collect::<Vec<_>>();
            assert_eq!(graph.file(&id).options, [BuildOption::Recovery].into());
            (
                needs.iter().map(ToString::to_string).collect::<Vec<_>>(),
                inputs.concat(),
            )
        };
        assert_eq!(with(&[]), (vec!["b/amd64".to_owned()], "yz".to_owned()));
        assert_eq!(with(&[BuildOption::Graphics]), with(&[]));
        let recovery = [BuildOption::Recovery, BuildOption::Graphics];
        assert_eq!(with(&recovery), (vec!["a/amd64".to_owned()], "xz".to_owned()));
    }

    #[test]
    fn what_is_not_there_for_an_architecture_is_named_where_it_is_wanted() {
        let stages = [
            ("image", "[inputs]\nbios = { stage = \"bios\" }"),
            ("bios", "only = [\"amd64\"]"),
        ];
        let err = graph(&stages).expect_err("no BIOS on arm64").to_string();
        assert!(
            err.contains("stages/image/stage.toml, line 4: \"bios\" has no output \"tree\" for arm64"),
            "{err}"
        );
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
