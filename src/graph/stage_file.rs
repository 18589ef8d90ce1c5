//! The format of `stage.toml`: the dependencies, the workload and the outputs of a stage. `stages/README.md` explains it to authors.

use super::{
    DeclaredVariant, GraphError, Sandbox,
    stage_input::{Input, InputSource, both},
    units::{parse_duration, parse_size},
    writer_settings::{check_compression, check_sector_size},
};
use crate::model::{Arch, BuildOption, RelPath, SectorSize, ZstdLevel, excerpt, is_visible, visible_message};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use toml::Spanned;

/// Largest stage file accepted, in bytes.
const MAX_FILE: usize = 256 * 1024;

/// Environment variables that pnb sets for every stage, so that a stage file may not.
const FIXED: &[&str] = &["PATH", "HOME", "LANG", "TZ", "SOURCE_DATE_EPOCH"];

/// The machine that the outputs of a stage are made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageArch {
    /// The build machine: tools. `pnb build --tools` uses those of another architecture, under an emulator.
    Build,
    /// The machine that pnb runs on: programs that pnb starts directly, such as emulators and virtual machines.
    Host,
    /// The target, the machine that boots the artifacts.
    #[default]
    Target,
}

/// The work of a stage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StageWorkload {
    /// A program in the stage's root.
    Command {
        /// Program and arguments; the program is an absolute path.
        argv: Vec<String>,
        /// Name of a writer built into pnb that runs before the program, in the same sandbox (`prepare`).
        before: Option<Spanned<String>>,
    },
    /// A writer built into pnb, by name.
    Writer(Spanned<String>),
}

impl StageWorkload {
    /// The name of the writer, if one runs, alone or before a command.
    pub fn writer(&self) -> Option<&Spanned<String>> {
        match self {
            Self::Command { before, .. } => before.as_ref(),
            Self::Writer(name) => Some(name),
        }
    }
}

/// The package set that a stage needs from the lock.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Packages {
    /// Wanted names, each `name` or `name/archive`; `{arch}` stands for the stage's architecture.
    pub want: Vec<Spanned<String>>,
    /// Further names for amd64 only.
    #[serde(default)]
    pub want_amd64: Vec<Spanned<String>>,
    /// Further names for arm64 only.
    #[serde(default)]
    pub want_arm64: Vec<Spanned<String>>,
    /// Whether the packages with `Essential: yes` belong to the set.
    #[serde(default)]
    pub essential: bool,
    /// Whether the dependencies of the packages belong to the set.
    #[serde(default = "yes")]
    pub closure: bool,
    /// Whether `Packages` and `Release` lie beside the files, which makes the directory a repository for apt.
    #[serde(default)]
    pub index: bool,
}

fn yes() -> bool {
    true
}

impl Packages {
    /// The wanted names for `arch`, placeholders filled in, sorted.
    pub fn names(&self, arch: Arch) -> Vec<String> {
        let special = match arch {
            Arch::Amd64 => &self.want_amd64,
            Arch::Arm64 => &self.want_arm64,
        };
        let all = self.want.iter().chain(special);
        let mut names: Vec<String> = all.map(|n| n.get_ref().replace("{arch}", arch.as_str())).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// The kind of an output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageOutputKind {
    /// A directory with all its contents.
    Tree,
    /// One regular file.
    File,
}

/// A declared output.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DeclaredOutput {
    /// Tree or file.
    pub kind: StageOutputKind,
    /// Its path below `/build`; without one, its name.
    pub path: Option<RelPath>,
    /// Name of the input that is passed on unchanged as this output; the stage itself writes nothing for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Spanned<String>>,
    /// Whether the output may have set-id bits.
    #[serde(default)]
    pub allow_setid: bool,
    /// Whether a tree of a variant's stage becomes a directory of its artifact. Files always belong to the artifact.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub export: bool,
    /// The architectures of the stage that have it. It is not in the key, which has only the outputs of its own architecture.
    #[serde(default = "both", skip_serializing)]
    pub only: Vec<Arch>,
}

impl DeclaredOutput {
    /// Whether the output belongs to the artifact, if the stage is that of a variant.
    pub fn is_exported(&self) -> bool {
        self.kind == StageOutputKind::File || self.export
    }
}

fn size<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    parse_size(&String::deserialize(d)?).map_err(D::Error::custom)
}
fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(d)?).map_err(D::Error::custom)
}
fn seconds<S: serde::Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u64(value.as_secs())
}

/// The resource limits of a stage; a stage that reaches one fails with an error that names it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct StageLimits {
    /// Memory of all its processes and of the files on its tmpfs, in bytes.
    #[serde(deserialize_with = "size")]
    pub memory: u64,
    /// Processes and threads at once.
    pub processes: u32,
    /// Wall-clock time.
    #[serde(deserialize_with = "duration", serialize_with = "seconds")]
    pub wall: Duration,
    /// Size of the log, in bytes.
    #[serde(deserialize_with = "size")]
    pub log: u64,
    /// Size of the build directory, in bytes.
    #[serde(deserialize_with = "size")]
    pub build: u64,
    /// Inodes in the build directory.
    pub inodes: u64,
    /// Apparent size of each output, in bytes.
    #[serde(deserialize_with = "size")]
    pub output: u64,
    /// The number of processors that the stage is told.
    pub cpus: u32,
}

impl Default for StageLimits {
    fn default() -> Self {
        Self {
            memory: 2 << 30,
            processes: 256,
            wall: Duration::from_secs(600),
            log: 16 << 20,
            build: 2 << 30,
            inodes: 400_000,
            output: 4 << 30,
            cpus: 2,
        }
    }
}

/// A stage file that is consistent in itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StageFile {
    /// A description in one line.
    pub summary: String,
    /// The machine that its outputs are made for.
    pub arch: StageArch,
    /// The target architectures it exists for.
    pub only: Vec<Arch>,
    /// The variant that it makes, if it makes one.
    pub variant: Option<DeclaredVariant>,
    /// The program or writer that runs.
    pub workload: StageWorkload,
    /// Stage whose output `tree` is the root directory; `None` for an empty root.
    pub root: Option<Spanned<String>>,
    /// Stage whose output `tree` has qemu-user, used when the target has another architecture than the build machine; `None` for a
    /// stage that runs no program of the target.
    pub emulator: Option<Spanned<String>>,
    /// The logical sectors of the disk that the stage makes.
    pub sector_size: SectorSize,
    /// The level of zstd for what the stage compresses; `None` for the writer's own.
    pub compression_level: Option<ZstdLevel>,
    /// Further environment variables.
    pub env: BTreeMap<String, String>,
    /// The package set that it needs from the lock.
    pub packages: Option<Packages>,
    /// Inputs by name.
    pub inputs: BTreeMap<Spanned<String>, Input>,
    /// The options that an input depends on.
    pub options: BTreeSet<BuildOption>,
    /// Outputs by name.
    pub outputs: BTreeMap<String, DeclaredOutput>,
    /// Differences from the strictest sandbox.
    pub sandbox: Sandbox,
    /// Limits on memory, processes, time and space.
    pub limits: StageLimits,
    /// Byte offset of each line, from which errors get their line numbers.
    pub(super) lines: Vec<usize>,
    /// The name of the file in messages.
    pub(super) file: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawStage {
    summary: Spanned<String>,
    #[serde(default)]
    arch: StageArch,
    #[serde(default = "both")]
    only: Vec<Arch>,
    variant: Option<Spanned<DeclaredVariant>>,
    command: Option<Spanned<Vec<String>>>,
    writer: Option<Spanned<String>>,
    prepare: Option<Spanned<String>>,
    root: Option<Spanned<String>>,
    emulator: Option<Spanned<String>>,
    sector_size: Option<Spanned<SectorSize>>,
    compression_level: Option<Spanned<ZstdLevel>>,
    #[serde(default)]
    env: BTreeMap<Spanned<String>, String>,
    packages: Option<Packages>,
    #[serde(default)]
    inputs: BTreeMap<Spanned<String>, Input>,
    outputs: Spanned<BTreeMap<String, DeclaredOutput>>,
    #[serde(default)]
    sandbox: Sandbox,
    #[serde(default)]
    limits: StageLimits,
}

impl StageFile {
    /// The inputs of the stage for `arch`, by name.
    pub fn inputs_for(&self, arch: Arch) -> impl Iterator<Item = (&Spanned<String>, &Input)> {
        self.inputs.iter().filter(move |(_, input)| input.only.contains(&arch))
    }

    /// Removes the inputs that a build with `options` does not have.
    pub(super) fn choose_inputs(&mut self, options: &BTreeSet<BuildOption>) {
        let holds = |input: &Input| input.condition.is_none_or(|condition| condition.holds(options));
        self.inputs.retain(|_, input| holds(input));
    }

    /// The outputs of the stage for `arch`, by name.
    pub fn outputs_for(&self, arch: Arch) -> impl Iterator<Item = (&String, &DeclaredOutput)> {
        self.outputs
            .iter()
            .filter(move |(_, output)| output.only.contains(&arch))
    }

    /// The input that an output passes on unchanged, and the offset of its name in this file.
    pub(super) fn passed_on(&self, output: &DeclaredOutput) -> Option<(usize, &Input)> {
        let from = output.from.as_ref()?;
        let (_, input) = self.inputs.iter().find(|(name, _)| name.get_ref() == from.get_ref())?;
        Some((from.span().start, input))
    }

    /// The error `problem` at byte `offset` of this file.
    pub(super) fn error(&self, offset: usize, problem: String) -> GraphError {
        GraphError::Schema {
            file: self.file.clone(),
            line: line_at(&self.lines, offset),
            problem,
        }
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0)
        .chain(text.match_indices('\n').map(|(i, _)| i + 1))
        .collect()
}

fn line_at(lines: &[usize], offset: usize) -> usize {
    lines.partition_point(|start| *start <= offset).max(1)
}

/// Parses a stage file; `file` names it in errors.
pub fn parse_stage(text: &str, file: &str) -> Result<StageFile, GraphError> {
    let lines = line_starts(text);
    let error = |offset: usize, problem: String| GraphError::Schema {
        file: file.to_owned(),
        line: line_at(&lines, offset),
        problem,
    };
    if text.len() > MAX_FILE {
        return Err(error(
            0,
            format!("the file has {} bytes, more than {MAX_FILE}", text.len()),
        ));
    }
    // Types, unknown fields and single values are checked by the deserializer; the checks below concern several fields at once.
    let raw: RawStage =
        toml::from_str(text).map_err(|e| error(e.span().map_or(0, |s| s.start), visible_message(e.message())))?;
    let summary = raw.summary.get_ref();
    if summary.is_empty() || summary.contains('\n') {
        return Err(error(
            raw.summary.span().start,
            "the summary is not one line".to_owned(),
        ));
    }
    if let Some(odd) = summary.chars().find(|c| !is_visible(*c)) {
        let problem = format!(
            "the summary has a character that is not shown: {}",
            odd.escape_unicode()
        );
        return Err(error(raw.summary.span().start, problem));
    }
    let workload = match (raw.command, raw.writer) {
        (Some(command), None) => {
            let span = command.span().start;
            let argv = command.into_inner();
            // An absolute path names one program of the root, without a search in PATH.
            if !argv.first().is_some_and(|a| a.starts_with('/')) {
                return Err(error(
                    span,
                    "the command does not begin with an absolute path".to_owned(),
                ));
            }
            if raw.root.is_none() {
                return Err(error(span, "a command needs a root to find its program in".to_owned()));
            }
            StageWorkload::Command {
                argv,
                before: raw.prepare,
            }
        }
        (None, Some(writer)) => {
            if let Some(prepare) = raw.prepare {
                let problem = "\"prepare\" goes with a command; this stage has a writer, which does all its work";
                return Err(error(prepare.span().start, problem.to_owned()));
            }
            StageWorkload::Writer(writer)
        }
        (Some(command), Some(writer)) => {
            // The error points at the second of the two: the first one was valid until there.
            let second = command.span().start.max(writer.span().start);
            let problem = "a stage has a command or a writer, not both".to_owned();
            return Err(error(second, problem));
        }
        (None, None) => return Err(error(0, "the stage has neither a command nor a writer".to_owned())),
    };
    if let (StageArch::Build | StageArch::Host, Some(emulator)) = (raw.arch, &raw.emulator) {
        let problem =
            "\"emulator\" is for stages of the target; a stage for the build machine runs its own programs".to_owned();
        return Err(error(emulator.span().start, problem));
    }
    if let Some(size) = &raw.sector_size {
        check_sector_size(*size.get_ref(), &workload, &raw.inputs).map_err(|p| error(size.span().start, p))?;
    }
    if let Some(level) = &raw.compression_level {
        check_compression(&workload).map_err(|p| error(level.span().start, p))?;
    }
    for name in raw.env.keys() {
        // pnb sets these variables itself: a value in the stage file would be lost or mislead its reader.
        if FIXED.contains(&name.get_ref().as_str()) || name.get_ref().starts_with("PNB_") {
            let problem = format!("environment variable {:?} is set by pnb itself", name.get_ref());
            return Err(error(name.span().start, problem));
        }
        let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if name.get_ref().is_empty() || !name.get_ref().chars().all(plain) {
            let problem = format!(
                "environment variable {:?} is not made of A-Z, 0-9 and _",
                name.get_ref()
            );
            return Err(error(name.span().start, problem));
        }
    }
    // Names become file names below /inputs, and parts of lines in the canonical form.
    for (name, input) in &raw.inputs {
        if let Err(problem) = plain_name("input", name.get_ref()) {
            return Err(error(name.span().start, problem));
        }
        if input.source == InputSource::Packages && raw.packages.is_none() {
            return Err(error(name.span().start, "the stage has no [packages]".to_owned()));
        }
        if input.emulated && raw.emulator.is_none() {
            return Err(error(name.span().start, "the stage has no \"emulator\"".to_owned()));
        }
    }
    // The names of outputs have no spans of their own, so errors point at the table.
    let offset = raw.outputs.span().start;
    let outputs = raw.outputs.into_inner();
    // A stage without outputs could never have an effect: nothing else leaves the sandbox.
    if outputs.is_empty() {
        return Err(error(offset, "a stage has at least one output".to_owned()));
    }
    for (name, output) in &outputs {
        plain_name("output", name).map_err(|problem| error(offset, problem))?;
        if let Some(from) = &output.from {
            check_passed_on(name, output, from.get_ref(), &raw.inputs)
                .map_err(|problem| error(from.span().start, problem))?;
        }
    }
    if let Some(variant) = &raw.variant {
        variant
            .get_ref()
            .check(raw.arch, &raw.only, &outputs)
            .map_err(|problem| error(variant.span().start, problem))?;
    }
    Ok(StageFile {
        variant: raw.variant.map(Spanned::into_inner),
        summary: raw.summary.into_inner(),
        arch: raw.arch,
        only: raw.only,
        workload,
        root: raw.root,
        emulator: raw.emulator,
        sector_size: raw.sector_size.map(Spanned::into_inner).unwrap_or_default(),
        compression_level: raw.compression_level.map(Spanned::into_inner),
        env: raw.env.into_iter().map(|(k, v)| (k.into_inner(), v)).collect(),
        packages: raw.packages,
        options: raw
            .inputs
            .values()
            .filter_map(|input| Some(input.condition?.option()))
            .collect(),
        inputs: raw.inputs,
        outputs,
        sandbox: raw.sandbox,
        limits: raw.limits,
        file: file.to_owned(),
        lines,
    })
}

/// Checks an output that passes an input on, as far as one file allows; [`super::StageGraph`] checks the rest.
fn check_passed_on(
    name: &str,
    output: &DeclaredOutput,
    from: &str,
    inputs: &BTreeMap<Spanned<String>, Input>,
) -> Result<(), String> {
    if output.kind != StageOutputKind::File {
        return Err(format!("output {name:?} is a directory; only files can be passed on"));
    }
    if output.path.is_some() || output.allow_setid {
        return Err(format!(
            "output {name:?} passes an input on; \"path\" and \"allow-setid\" are for files that the stage writes"
        ));
    }
    match inputs.iter().find(|(n, _)| n.get_ref() == from) {
        Some((_, input)) if input.condition.is_some() || input.emulated => Err(format!(
            "input {from:?} depends on a build option or on the machine, and every build has this output"
        )),
        Some((_, input)) if matches!(input.source, InputSource::Stage { .. }) => Ok(()),
        Some(_) => Err(format!("input {from:?} is not an output of another stage")),
        None => {
            let known: Vec<&str> = inputs.keys().map(|n| n.get_ref().as_str()).collect();
            Err(format!("there is no input {from:?} (there are: {})", known.join(", ")))
        }
    }
}

/// Checks a name that becomes a file name and part of a line of the canonical form.
pub(super) fn plain_name(kind: &str, name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('.') || name.len() > 64 || !name.chars().all(plain) {
        return Err(format!(
            "{kind} name {:?} is not 1 to 64 of a-z, 0-9, \"-\", \"_\", \".\"",
            excerpt(name)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
summary = "Configured root"
root = "tools"
command = ["/bin/sh", "/stage/build.sh"]
[packages]
want = ["systemd", "linux-image-{arch}"]
want-amd64 = ["intel-microcode"]
essential = true
[inputs]
debs = { packages = true }
other = { stage = "kernel", output = "vmlinuz" }
[outputs]
tree = { kind = "tree", path = "root" }
kernel = { kind = "file", from = "other" }
[limits]
memory = "3GiB"
"#;

    #[test]
    fn a_whole_stage_file_parses() {
        let stage = parse_stage(GOOD, "stages/x/stage.toml").expect("valid");
        assert_eq!(stage.limits.memory, 3 << 30);
        let packages = stage.packages.expect("declared");
        assert_eq!(
            packages.names(Arch::Amd64),
            ["intel-microcode", "linux-image-amd64", "systemd"]
        );
        assert_eq!(packages.names(Arch::Arm64), ["linux-image-arm64", "systemd"]);
        let from = |name: &str| stage.outputs[name].from.as_ref().map(|f| f.get_ref().as_str());
        assert_eq!((from("tree"), from("kernel")), (None, Some("other")));
    }

    #[test]
    fn each_mistake_is_named_with_its_line() {
        for (from, to, want) in [
            (
                "memory = \"3GiB\"",
                "memory = \"3GB\"",
                "line 16: size \"3GB\" has no unit",
            ),
            (
                "memory = \"3GiB\"",
                "memroy = \"3GiB\"",
                "line 16: unknown field `memroy`",
            ),
            ("kind = \"tree\"", "kind = \"disk\"", "line 13: unknown variant `disk`"),
            (
                "path = \"root\"",
                "path = \"../root\"",
                "line 13: path \"../root\" has a component",
            ),
            (
                "packages = true",
                "packages = true, files = \"x\"",
                "line 10: an input has exactly one source",
            ),
            (
                "packages = true",
                "packages = true, option = \"recover\"",
                "line 10: unknown variant `recover`, expected one of `recovery`, `unsigned-modules`, `graphics`, `debug`",
            ),
            (
                "packages = true",
                "packages = true, option = \"recovery\", unless = \"graphics\"",
                "line 10: an input has \"option\" or \"unless\", not both",
            ),
            (
                "output = \"vmlinuz\"",
                "output = \"vmlinuz\", unless = \"graphics\"",
                "line 14: input \"other\" depends on a build option or on the machine, and every build has this output",
            ),
            ("root = \"tools\"\n", "", "line 3: a command needs a root"),
            (
                "command = [\"/bin/sh\", \"/stage/build.sh\"]",
                "writer = \"w\"\nprepare = \"p\"",
                "line 5: \"prepare\" goes with a command; this stage has a writer",
            ),
            (
                "command = [",
                "writer = \"w\"\ncommand = [",
                "line 5: a stage has a command or a writer, not both",
            ),
            (
                "command = [\"/bin/sh\", \"/stage/build.sh\"]\n",
                "",
                "line 1: the stage has neither a command nor a writer",
            ),
            ("\"/bin/sh\"", "\"sh\"", "line 4: the command does not begin"),
            (
                "root = \"tools\"\n",
                "root = \"tools\"\nsector-size = 2048\n",
                "line 4: a sector has 512 or 4096 bytes, not 2048",
            ),
            (
                "root = \"tools\"\n",
                "root = \"tools\"\nsector-size = 4096\n",
                "line 4: \"sector-size\" goes with the writer \"disk-image\"",
            ),
            (
                "root = \"tools\"\n",
                "root = \"tools\"\ncompression-level = 20\n",
                "line 4: a level of zstd is a number from 1 to 19, not 20",
            ),
            (
                "root = \"tools\"\n",
                "root = \"tools\"\ncompression-level = 9\n",
                "line 4: \"compression-level\" goes with the writers \"initramfs\"",
            ),
            (
                "root = \"tools\"\n",
                "root = \"tools\"\narch = \"build\"\nemulator = \"e\"\n",
                "line 5: \"emulator\" is for stages of the target",
            ),
            (
                "[limits]",
                "[sandbox]\ncapabilities = [\"chwon\"]\n[limits]",
                "line 16: unknown variant `chwon`, expected one of `chown`",
            ),
            (
                "[limits]",
                "[sandbox]\nrefused = { setcap = [\"setxattr\"] }\n[limits]",
                "line 16: unknown variant `setxattr`, expected one of `chroot`",
            ),
            (
                "[limits]",
                "[sandbox]\nrefused = { \"/sbin/setcap\" = [\"file-attribute\"] }\n[limits]",
                "line 16: refused calls of \"/sbin/setcap\": give the name of a program without its directory",
            ),
            (
                "[limits]",
                "[sandbox]\nrefused = { setcap = [] }\n[limits]",
                "line 16: refused calls of \"setcap\": none is named",
            ),
            ("debs =", "\"a b\" =", "line 10: input name \"a b\""),
            (
                "[limits]",
                "[env]\nTZ = \"x\"\n[limits]",
                "line 16: environment variable \"TZ\" is set by pnb",
            ),
            (
                "from = \"other\"",
                "from = \"others\"",
                "line 14: there is no input \"others\" (there are: debs, other)",
            ),
            (
                "from = \"other\"",
                "from = \"debs\"",
                "line 14: input \"debs\" is not an output of another stage",
            ),
            (
                "from = \"other\"",
                "from = \"other\", path = \"x\"",
                "line 14: output \"kernel\" passes an input on; \"path\"",
            ),
            (
                "from = \"other\"",
                "from = \"other\", allow-setid = true",
                "line 14: output \"kernel\" passes an input on",
            ),
            (
                "kind = \"file\", from",
                "kind = \"tree\", from",
                "line 14: output \"kernel\" is a directory; only files can be passed on",
            ),
            (
                "summary = \"Configured root\"",
                "summary = \"a\\nb\"",
                "line 2: the summary is not one line",
            ),
            (
                "[outputs]\ntree = { kind = \"tree\", path = \"root\" }\nkernel = { kind = \"file\", from = \"other\" }",
                "",
                "missing field `outputs`",
            ),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD, "{from:?} is not in the sample");
            let err = parse_stage(&text, "stages/x/stage.toml").expect_err(to).to_string();
            assert!(err.contains(want), "{err:?} lacks {want:?}");
        }
    }
}
