//! `pnb publish`: verified artifacts to the place where nodes or the platform look for them.

use super::{
    Exit,
    args::{Common, one_of},
    artifact_path::existing,
    closing::{Closing, count},
    command_text::CommandText,
    context::{project_tree_if_any, scratch, store},
    failure::{Failure, Fatal},
    publication::{PublicationArgs, all_artifacts, publication},
    report::{Report, size},
};
use clap::Args;
use pnb::{
    audit::{ArtifactRoot, AuditError, AuditOptions, Policy, Verified, audit, find_artifacts},
    manifest::MANIFEST_FILE,
    model::{Hint, chain, visible_path},
    pipeline::sha256_of,
    publish::{PlaceOptions, PlaceState, PlacedFile, PlatformLayout, place},
    registry::ImageReference,
};
use std::{
    borrow::Cow,
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Options of `pnb publish`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  pnb publish --to dir:/srv/netboot --layout platform --dry-run\n  \
    pnb publish --to dir:/srv/netboot --layout platform images\n  \
    pnb publish --to dir:/srv/netboot --layout platform images/kernel-initrd/amd64 \\\n    \
    --policy policy.toml\n  \
    pnb publish images --to registry:registry.example/powernode/os --release v1.4 \\\n    \
    --gitea https://git.example/acme/images --signing-config signing_config.json \\\n    \
    --trusted-root trusted_root.json --identity … --issuer … --dry-run\n  \
    pnb publish images --to registry:registry.example/powernode/os --sign none\n\n\
    Every artifact is audited first, and nothing is written if a check fails."
)]
pub(super) struct PublishArgs {
    /// Directory of one artifact, or of several as <variant>/<arch> [default: images/ in the project]
    pub(super) images: Option<PathBuf>,
    /// Where to: registry:HOST/NAME, the repository of the OCI image, or dir:PATH, a directory that is made if it is missing
    #[arg(long, value_name = "PLACE", required_unless_present_any = ["release", "platform"])]
    pub(super) to: Option<PublishTo>,
    /// Names of the files in a directory: platform, those that the platform's controllers look for
    #[arg(long, value_parser = one_of::<LayoutName>(["platform"]))]
    pub(super) layout: Option<LayoutName>,
    /// Replace files of an older publication; a file that pnb did not place there is never replaced
    #[arg(long)]
    pub(super) replace: bool,
    /// Audit, look at every name, and print what would be done; write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Lock from which the artifacts must have been built
    #[arg(long, value_name = "FILE")]
    pub(super) lock: Option<PathBuf>,
    /// Further rules for the artifacts: a TOML file with the rules of docs/audit.md
    #[arg(long, value_name = "FILE")]
    pub(super) policy: Option<PathBuf>,
    #[command(flatten)]
    pub(super) servers: PublicationArgs,
}

/// A value of `--to`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum PublishTo {
    /// `dir:PATH`.
    Dir(PathBuf),
    /// `registry:HOST/NAME`.
    Registry(ImageReference),
}

impl FromStr for PublishTo {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("dir", path)) if !path.is_empty() => Ok(PublishTo::Dir(path.into())),
            Some(("registry", name)) => {
                let reference: ImageReference = name.parse().map_err(|e| chain(&e))?;
                match reference.tag().is_none() && reference.digest().is_none() {
                    true => Ok(PublishTo::Registry(reference)),
                    false => Err("the tag is the commit; the form is registry:HOST/NAME".to_owned()),
                }
            }
            _ => Err("the form is registry:HOST/NAME or dir:PATH, such as dir:/srv/netboot".to_owned()),
        }
    }
}

/// A value of `--layout`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LayoutName {
    /// The names that the platform's controllers look for.
    Platform,
}

impl FromStr for LayoutName {
    type Err = std::fmt::Error;
    fn from_str(text: &str) -> Result<Self, std::fmt::Error> {
        match text {
            "platform" => Ok(LayoutName::Platform),
            _ => Err(std::fmt::Error),
        }
    }
}

/// Why there is nothing to publish; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("find the artifacts: there is no project here")]
    NoImages,
    #[error("choose the names in the directory: --layout is not given")]
    NoLayout,
    #[error("use --layout: it is for the directory of --to dir:PATH")]
    LayoutOfServer,
    #[error("find an artifact of the layout in {}", visible_path(path))]
    NoArtifact { path: PathBuf },
    #[error("look at {}", visible_path(path))]
    Look {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Find(#[from] AuditError),
    #[error("read {}", visible_path(path))]
    Lock {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Fatal for PublishError {
    fn exit(&self) -> Exit {
        match self {
            PublishError::NoImages | PublishError::NoLayout | PublishError::LayoutOfServer => Exit::Usage,
            PublishError::Lock { .. } => Exit::Lock,
            PublishError::NoArtifact { .. } | PublishError::Look { .. } | PublishError::Find(_) => Exit::PublishRefused,
        }
    }
}

impl Hint for PublishError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            PublishError::NoLayout => {
                Some("--layout platform gives the names that the platform's controllers look for".into())
            }
            PublishError::NoImages => Some("name the directory of the artifacts".into()),
            PublishError::NoArtifact { .. } => {
                let names = PlatformLayout::targets().map(|target| target.to_string());
                Some(
                    format!(
                        "the layout has files of {}; build one with `pnb build`",
                        names.join(" and ")
                    )
                    .into(),
                )
            }
            _ => None,
        }
    }
}

pub(super) fn publish(common: &Common, args: &PublishArgs, report: &Report) -> Result<Exit, Failure> {
    let directory = match (&args.to, args.layout) {
        (Some(PublishTo::Dir(root)), Some(LayoutName::Platform)) => Some(root),
        (Some(PublishTo::Dir(_)), None) => return Err(PublishError::NoLayout.into()),
        (_, Some(_)) => return Err(PublishError::LayoutOfServer.into()),
        (_, None) => None,
    };
    let policy = args.policy.as_deref().map(Policy::load).transpose()?;
    let images = match &args.images {
        Some(images) => images.clone(),
        None => {
            let project = project_tree_if_any(common)?.ok_or(PublishError::NoImages)?;
            existing(common, &project.path().join("images"))?
        }
    };
    let dirs = match directory {
        Some(_) => artifacts(&images, report)?,
        None => all_artifacts(&images)?,
    };
    let store = store(common)?;
    let lock = |path: &PathBuf| {
        sha256_of(path).map_err(|source| PublishError::Lock {
            path: path.clone(),
            source,
        })
    };
    let options = AuditOptions {
        opener: &ArtifactRoot {
            scratch: scratch(&store, "publish")?,
        },
        lock_sha256: args.lock.as_ref().map(lock).transpose()?,
        policy: policy.as_ref(),
    };
    let mut verified: Vec<Verified> = Vec::new();
    for dir in dirs {
        let shown = report.task("audit", dir.display());
        let audited = audit(&dir, &options);
        drop(shown);
        match audited {
            Ok(artifact) => {
                report.note(format_args!("  audited {}", visible_path(&dir)));
                verified.push(artifact);
            }
            Err(AuditError::Failed { report: checks, .. }) => {
                match report.json() {
                    true => report.value(serde_json::json!({ "event": "audit", "dir": dir, "checks": checks.checks })),
                    false => report.text(&format!("{}\n{}", visible_path(&dir), checks.table())),
                }
                return Ok(checks.class().map_or(Exit::Failure, Exit::Audit));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let Some(root) = directory else {
        let image = match &args.to {
            Some(PublishTo::Registry(image)) => Some(image),
            _ => None,
        };
        return publication(common, &args.servers, image, args.dry_run, &verified, report);
    };
    let layout = PlatformLayout::of(&verified)?;
    let options = PlaceOptions {
        replace: args.replace,
        dry_run: args.dry_run,
    };
    let files = place(&layout, root, options)?;
    for placed in &files {
        say(report, placed, args.dry_run);
    }
    let (would, next) = match args.dry_run {
        true => ("would be in", common.line.without_flag("--dry-run")),
        false => ("in", CommandText::new(["serve"]).arg(root)),
    };
    let sentence = format!(
        "{} of {} {would} {}, {}",
        count(files.len(), "file"),
        count(verified.len(), "artifact"),
        visible_path(root),
        report.elapsed()
    );
    let closing = Closing::new(sentence).next(next).field("files", files.len());
    report.close("publish", &closing);
    Ok(Exit::Success)
}

/// The directories of the artifacts that the layout has files of, below `images` or `images` itself. The others are named.
fn artifacts(images: &Path, report: &Report) -> Result<Vec<PathBuf>, PublishError> {
    let has_manifest = |dir: &Path| {
        let path = dir.join(MANIFEST_FILE);
        path.try_exists().map_err(|source| PublishError::Look { path, source })
    };
    if has_manifest(images)? {
        return Ok(vec![images.to_owned()]);
    }
    let mut found = Vec::new();
    for (target, dir) in find_artifacts(images)? {
        match PlatformLayout::targets().contains(&target) {
            true => found.push(dir),
            false if report.json() => report.value(serde_json::json!({ "event": "left-out", "artifact": target })),
            false => report.note(format_args!(
                " left out {target}: the layout has no names for its files"
            )),
        }
    }
    match found.is_empty() {
        true => Err(PublishError::NoArtifact {
            path: images.to_owned(),
        }),
        false => Ok(found),
    }
}

fn say(report: &Report, placed: &PlacedFile, dry_run: bool) {
    if report.json() {
        let mut event = serde_json::json!(placed);
        event["event"] = if dry_run { "would-place" } else { "placed" }.into();
        report.value(event);
        return;
    }
    let done = match (placed.state, dry_run) {
        (PlaceState::New, false) => "placed",
        (PlaceState::New, true) => "would place",
        (PlaceState::Replaced, false) => "replaced",
        (PlaceState::Replaced, true) => "would replace",
        (PlaceState::Unchanged, _) => "unchanged",
    };
    let (name, sha256, bytes) = (&placed.name, placed.sha256, size(placed.size_bytes));
    report.line(format_args!("{done:>13} {name} ({bytes}, sha256 {sha256})"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_a_kind() {
        assert_eq!("dir:a:b".parse(), Ok(PublishTo::Dir("a:b".into())));
        for bad in ["", "dir:", "/srv", "ftp://x", "Dir:/x"] {
            assert!(bad.parse::<PublishTo>().is_err(), "{bad:?}");
        }
    }
}
