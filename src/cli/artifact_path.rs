//! Paths of artifacts on the command line: one that is not built yet, one with a slip in it, and one without its last directory.

use super::{
    Exit,
    args::{Common, possible_variants},
    command_text::{CommandText, from_here},
    context::project,
    dispatch::Command,
    failure::{Failure, Fatal},
    servers::variable,
};
use pnb::{
    graph::GraphError,
    manifest::MANIFEST_FILE,
    model::{Arch, Hint, nearest, visible_path},
    pipeline::Project,
};
use std::{
    borrow::Cow,
    fs, io,
    path::{Component, Path, PathBuf},
};

/// Why a path names nothing that a command could use; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub(super) enum ArtifactPathError {
    #[error("find {}: not built yet", visible_path(path))]
    NotBuilt { path: PathBuf, build: CommandText },
    #[error("find {}: there is no such file or directory", visible_path(path))]
    Missing { path: PathBuf, meant: Option<CommandText> },
    #[error(
        "choose the artifact in {}: it has artifacts for {}",
        visible_path(path),
        names(arches)
    )]
    Several {
        path: PathBuf,
        arches: Vec<Arch>,
        commands: Vec<CommandText>,
    },
}

fn names(arches: &[Arch]) -> String {
    arches.iter().map(Arch::to_string).collect::<Vec<_>>().join(" and ")
}

impl Fatal for ArtifactPathError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

impl Hint for ArtifactPathError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let quoted = |command: &CommandText| format!("`{command}`");
        match self {
            Self::NotBuilt { build, .. } => Some(quoted(build).into()),
            Self::Missing { meant, .. } => meant.as_ref().map(|meant| quoted(meant).into()),
            Self::Several { commands, .. } => {
                let commands: Vec<String> = commands.iter().map(quoted).collect();
                Some(commands.join(" or ").into())
            }
        }
    }
}

/// The treatment of a directory that holds one directory for each architecture.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parent {
    /// It needs one artifact.
    Choose,
    /// It takes the only artifact, or the whole directory.
    OnlyOne,
    /// It takes the directory as it is.
    Keep,
}

/// Completes the paths of the artifacts that `command` reads, and refuses those that are not there.
pub(super) fn complete_paths(common: &Common, command: &mut Command) -> Result<(), Failure> {
    let one = |path: &mut PathBuf, parent: Parent| -> Result<(), ArtifactPathError> {
        *path = complete(common, path, parent)?;
        Ok(())
    };
    match command {
        Command::Audit(args) => one(&mut args.dir, Parent::Choose)?,
        Command::Boot(args) if !args.path.as_os_str().as_encoded_bytes().starts_with(b"oci:") => {
            one(&mut args.path, Parent::Choose)?;
        }
        Command::Challenge(args) => {
            for path in &mut args.manifests {
                one(path, Parent::Choose)?;
            }
        }
        Command::Diff(args) => {
            one(&mut args.a, Parent::OnlyOne)?;
            one(&mut args.b, Parent::OnlyOne)?;
        }
        Command::Inspect(args) => one(&mut args.path, Parent::OnlyOne)?,
        Command::Publish(args) => {
            if let Some(path) = &mut args.images {
                one(path, Parent::Choose)?;
            }
        }
        Command::Serve(args) => one(&mut args.dir, Parent::Keep)?,
        Command::VerifyRepro(args) => {
            if let Some(path) = &mut args.against {
                one(path, Parent::Choose)?;
            }
        }
        // Another path can be an image in a registry.
        Command::VerifySignature(args) if is_there(&args.path) || is_local(common, &args.path) => {
            one(&mut args.path, Parent::Choose)?;
        }
        _ => {}
    }
    Ok(())
}

/// The path of the directory `images` of artifacts, if it is there.
pub(super) fn existing(common: &Common, images: &Path) -> Result<PathBuf, ArtifactPathError> {
    complete(common, images, Parent::Choose)
}

/// Whether a path that is not there is one of an artifact, and no name of a host.
fn is_local(common: &Common, path: &Path) -> bool {
    let host = |first: &str| first.contains(['.', ':']) && !first.starts_with('.') || first == "localhost";
    let first = path.components().next();
    let first = first.map(|first| first.as_os_str().to_string_lossy().into_owned());
    artifact_of(common, path).is_some() && !first.is_some_and(|first| host(&first))
}

fn complete(common: &Common, path: &Path, parent: Parent) -> Result<PathBuf, ArtifactPathError> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() && parent != Parent::Keep => below(common, path, parent),
        // The command says what it can do with something else, or why it cannot be read.
        Ok(_) => Ok(path.to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing(common, path)),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(ArtifactPathError::Missing {
            path: path.to_owned(),
            meant: None,
        }),
        Err(_) => Ok(path.to_owned()),
    }
}

/// The artifact in a directory, if it holds those of a variant.
fn below(common: &Common, path: &Path, parent: Parent) -> Result<PathBuf, ArtifactPathError> {
    let has_manifest = |dir: &Path| matches!(dir.join(MANIFEST_FILE).try_exists(), Ok(true));
    if has_manifest(path) {
        return Ok(path.to_owned());
    }
    let arches = Arch::ALL.into_iter();
    let arches: Vec<Arch> = arches.filter(|arch| has_manifest(&path.join(arch.as_str()))).collect();
    match arches[..] {
        [arch] => Ok(path.join(arch.as_str())),
        [_, ..] if parent == Parent::Choose => {
            let with = |arch: &Arch| {
                let whole = path.join(arch.as_str());
                replaced(common, path, &whole)
            };
            Err(ArtifactPathError::Several {
                path: path.to_owned(),
                commands: arches.iter().filter_map(with).collect(),
                arches,
            })
        }
        _ if is_empty(path) => match artifact_of(common, path) {
            Some(artifact) => Err(not_built(common, path, &artifact)),
            None => Ok(path.to_owned()),
        },
        _ => Ok(path.to_owned()),
    }
}

/// Whether something is known to be at `path`.
fn is_there(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(true))
}

fn is_empty(dir: &Path) -> bool {
    #[expect(clippy::disallowed_methods, reason = "the entries are not listed")]
    let entries = fs::read_dir(dir);
    entries.is_ok_and(|mut entries| entries.next().is_none())
}

/// An artifact by its path.
struct NamedArtifact {
    /// The directory of all artifacts.
    images: PathBuf,
    variant: String,
    arch: Option<Arch>,
}

/// The artifact that a path names: `<images>/<variant>`, `<images>/<variant>/<arch>`, or a file in it.
fn artifact_of(common: &Common, path: &Path) -> Option<NamedArtifact> {
    let parts: Vec<Component<'_>> = path.components().collect();
    let text = |part: &Component<'_>| part.as_os_str().to_str().map(str::to_owned);
    let possible = possible_variants(common.project.as_deref().unwrap_or(Path::new(".")));
    let variant = |part: &Component<'_>| text(part).filter(|name| possible.contains(name));
    let at = parts.iter().rposition(|part| variant(part).is_some())?;
    let arch = match parts.get(at + 1) {
        None => None,
        Some(part) => Some(text(part)?.parse().ok()?),
    };
    Some(NamedArtifact {
        images: parts[..at].iter().collect(),
        variant: variant(&parts[at])?,
        arch,
    })
}

/// Why nothing is at `path`.
fn missing(common: &Common, path: &Path) -> ArtifactPathError {
    if let Some(artifact) = artifact_of(common, path)
        && !artifact_dir(&artifact).is_some_and(|dir| is_there(&dir))
    {
        // A slip in the directory of all artifacts, which is there under the right name.
        let meant = near(path).filter(|meant| holds_artifact(meant));
        return match meant.and_then(|meant| replaced(common, path, &meant)) {
            Some(meant) => ArtifactPathError::Missing {
                path: path.to_owned(),
                meant: Some(meant),
            },
            None => not_built(common, path, &artifact),
        };
    }
    let path = path.to_owned();
    let absolute = std::path::absolute(&path).ok();
    if let Ok(project) = project(common)
        && absolute == Some(project.tree.path().join("images"))
    {
        let build = common.build_command();
        return ArtifactPathError::NotBuilt { path, build };
    }
    let meant = near(&path).and_then(|meant| replaced(common, &path, &meant));
    ArtifactPathError::Missing { path, meant }
}

/// Whether an artifact is at `path`, around it, or below it for some architecture.
fn holds_artifact(path: &Path) -> bool {
    let below = Arch::ALL.map(|arch| path.join(arch.as_str()));
    let around = path.parent().map(Path::to_owned);
    let mut places = below.into_iter().chain(around).chain([path.to_owned()]);
    places.any(|place| place.join(MANIFEST_FILE).is_file())
}

/// The directory of an artifact whose architecture is known.
fn artifact_dir(artifact: &NamedArtifact) -> Option<PathBuf> {
    let arch = artifact.arch?;
    Some(artifact.images.join(&artifact.variant).join(arch.as_str()))
}

fn not_built(common: &Common, path: &Path, artifact: &NamedArtifact) -> ArtifactPathError {
    let project = project(common).ok();
    let mut arch = artifact.arch;
    // A card of a Raspberry Pi is only for arm64, whatever the path says.
    if let Some(project) = &project
        && let Err(GraphError::WrongArch { only, .. }) =
            project.graph.node(&artifact.variant, arch.unwrap_or(Arch::Amd64))
    {
        arch = only.parse().ok().or(arch);
    }
    let shown = arch.filter(|arch| *arch != Arch::Amd64 || variable("ARCH").is_some());
    let build = common
        .build_command()
        .option("--variant", Some(&artifact.variant))
        .option("--arch", shown.map(Arch::as_str));
    let build = match project.is_some_and(|project| is_images(&project, &artifact.images)) {
        true => build,
        false => build.option("--output", Some(as_directory(&artifact.images))),
    };
    let path = path.to_owned();
    ArtifactPathError::NotBuilt { path, build }
}

fn is_images(project: &Project, dir: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).ok();
    let images = project.tree.path().join("images");
    let slip = || {
        dir.file_name()
            .and_then(|name| nearest(name.to_str()?, ["images"]))
            .is_some()
    };
    real(as_directory(dir)) == real(&images) || (!is_there(dir) && slip())
}

fn as_directory(dir: &Path) -> &Path {
    match dir.as_os_str().is_empty() {
        true => Path::new("."),
        false => from_here(dir),
    }
}

/// The path that was meant: the first component that is not there, put right.
fn near(path: &Path) -> Option<PathBuf> {
    let missing = path
        .ancestors()
        .take_while(|part| !part.as_os_str().is_empty() && !is_there(part))
        .last()?;
    let dir = missing.parent()?;
    #[expect(clippy::disallowed_methods, reason = "the names are sorted below")]
    let entries = fs::read_dir(as_directory(dir)).ok()?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    let name = nearest(missing.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    let rest = path.strip_prefix(missing).ok()?;
    let meant = match rest.as_os_str().is_empty() {
        true => dir.join(name),
        false => dir.join(name).join(rest),
    };
    is_there(&meant).then_some(meant)
}

/// The command line with another path in the place of `path`.
fn replaced(common: &Common, path: &Path, right: &Path) -> Option<CommandText> {
    let words = common.line.corrected(path.to_str()?, &[right.to_str()?])?;
    Some(CommandText::new(words))
}
