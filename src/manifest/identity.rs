//! The names, versions and moments in a manifest, checked when it is read: they are printed, compared and put into paths.

use super::{License, Manifest};
use crate::{
    debian::{Version, is_package_name, is_source},
    model::{Fingerprint, MAX_PINNED, Moment, NodeId, excerpt, is_name, is_plain_path, is_release, is_url, is_visible},
};

/// Longest kernel command line, in bytes; the kernel takes 2048 on amd64 and arm64.
const MAX_COMMAND_LINE: usize = 4096;

/// Longest line of text of a package or of `os-release`, in bytes.
const MAX_TEXT: usize = 1000;

/// A value that has not the form of its field: its JSON pointer, and the problem.
pub(super) type Malformed = (String, String);

/// A check of one value.
struct Place<'a>(&'a str);

impl Place<'_> {
    fn is(&self, field: &str, value: &str, form: &str, holds: bool) -> Result<(), Malformed> {
        if holds {
            return Ok(());
        }
        Err((
            format!("{}/{field}", self.0),
            format!("is not {form}: {:?}", excerpt(value)),
        ))
    }

    fn name(&self, field: &str, value: &str) -> Result<(), Malformed> {
        self.is(
            field,
            value,
            "a name (1 to 64 letters, digits and .+-_)",
            is_name(value),
        )
    }

    fn moment(&self, field: &str, value: &str) -> Result<(), Malformed> {
        let holds = value.parse::<Moment>().is_ok();
        self.is(field, value, "a moment of the form YYYYMMDDThhmmssZ", holds)
    }

    fn url(&self, field: &str, value: &str) -> Result<(), Malformed> {
        self.is(field, value, "an http or https address", is_url(value))
    }

    fn release(&self, field: &str, value: &str) -> Result<(), Malformed> {
        let form = "a version (1 to 100 letters, digits and .+-_~:)";
        self.is(field, value, form, is_release(value))
    }

    fn size(&self, field: &str, value: u64) -> Result<(), Malformed> {
        let text = value.to_string();
        self.is(field, &text, "a size of at most 1 TiB", value <= MAX_PINNED)
    }

    fn some(&self, field: &str, number: usize) -> Result<(), Malformed> {
        match number {
            0 => Err((format!("{}/{field}", self.0), "is empty".to_owned())),
            _ => Ok(()),
        }
    }

    fn text(&self, field: &str, value: &str) -> Result<(), Malformed> {
        let holds = !value.is_empty() && value.len() <= MAX_TEXT && value.chars().all(is_visible);
        self.is(field, value, "a line of at most 1000 visible characters", holds)
    }

    fn digest(&self, field: &str, value: &str) -> Result<(), Malformed> {
        let holds = value.len() == 64 && value.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        self.is(field, value, "64 hexadecimal digits", holds)
    }
}

/// Checks every value of `manifest` that identifies something.
pub(super) fn check(manifest: &Manifest) -> Result<(), Malformed> {
    let top = Place("");
    top.moment("apt_snapshot", &manifest.apt_snapshot)?;
    top.release("kernel_version", &manifest.kernel_version)?;
    if let Some(sha) = &manifest.git_sha {
        // Whether it is a commit is a statement of its own, which an audit checks.
        top.name("git_sha", sha)?;
    }
    let line = &manifest.kernel_command_line;
    let holds = line.len() <= MAX_COMMAND_LINE && line.chars().all(is_visible);
    top.is(
        "kernel_command_line",
        line,
        "a line of at most 4096 visible characters",
        holds,
    )?;
    let system = &manifest.operating_system;
    let place = Place("/operating_system");
    place.name("id", &system.id)?;
    for (field, value) in [
        ("version", &system.version),
        ("name", &system.name),
        ("cpe", &system.cpe),
    ] {
        if let Some(value) = value {
            place.text(field, value)?;
        }
    }
    Place("/agent").name("name", &manifest.agent.name)?;
    top.some("archives", manifest.archives.len())?;
    for (at, archive) in manifest.archives.iter().enumerate() {
        let pointer = format!("/archives/{at}");
        let place = Place(&pointer);
        place.name("name", &archive.name)?;
        let suite = archive.suite.to_string();
        place.is("suite", &suite, "a plain path", is_plain_path(&archive.suite))?;
        for component in &archive.components {
            place.name("components", component)?;
        }
        place.moment("snapshot", &archive.snapshot)?;
        place.url("snapshot_url", &archive.snapshot_url)?;
        place.some("keys", archive.keys.len())?;
        for key in &archive.keys {
            place.is(
                "keys",
                key,
                "a fingerprint of a key",
                key.parse::<Fingerprint>().is_ok(),
            )?;
        }
    }
    if let Some(base) = &manifest.base_image {
        let place = Place("/base_image");
        let shown = base.name.len() <= 512 && base.name.chars().all(|c| c.is_ascii_graphic() && c != '@');
        place.is(
            "name",
            &base.name,
            "the name of an image",
            shown && !base.name.is_empty(),
        )?;
        place.some("layers", base.layers.len())?;
    }
    let builder = &manifest.builder;
    let place = Place("/builder");
    place.name("name", &builder.name)?;
    place.release("version", &builder.version)?;
    place.release("zstd", &builder.zstd)?;
    let place = Place("/builder/code");
    place.digest("sandbox", &builder.code.sandbox)?;
    place.digest("writers", &builder.code.writers)?;
    for (at, file) in manifest.files.iter().enumerate() {
        let pointer = format!("/files/{at}");
        let place = Place(&pointer);
        place.name("name", &file.name)?;
        if let Some(path) = &file.path {
            place.is("path", &path.to_string(), "a plain path", is_plain_path(path))?;
        }
        if let Some(url) = &file.url {
            place.url("url", url)?;
        }
        place.size("size", file.size)?;
    }
    for (at, package) in manifest.packages.iter().enumerate() {
        let pointer = format!("/packages/{at}");
        let place = Place(&pointer);
        place.is("name", &package.name, "a package name", is_package_name(&package.name))?;
        let arch = &package.arch;
        place.is(
            "arch",
            arch,
            "amd64, arm64 or all",
            matches!(arch.as_str(), "amd64" | "arm64" | "all"),
        )?;
        let version = &package.version;
        place.is(
            "version",
            version,
            "a Debian version",
            version.parse::<Version>().is_ok(),
        )?;
        let source = format!("{} {}", package.source.name, package.source.version);
        place.is(
            "source",
            &source,
            "a source package and its version",
            is_source(&source),
        )?;
        if let Some(maintainer) = &package.maintainer {
            place.text("maintainer", maintainer)?;
        }
        for other in &package.depends {
            let form = "the name and the architecture of a package";
            let holds = other
                .split_once(':')
                .is_some_and(|(name, arch)| is_package_name(name) && is_name(arch));
            place.is("depends", other, form, holds)?;
        }
        for License::Spdx(text) | License::Name(text) in &package.licenses {
            place.text("licenses", text)?;
        }
        place.name("archive", &package.archive)?;
        place.url("url", &package.url)?;
        place.size("size", package.size)?;
        for set in &package.sets {
            place.is(
                "sets",
                set,
                "a stage and an architecture",
                set.parse::<NodeId>().is_ok(),
            )?;
        }
    }
    if let Some(url) = manifest.platform.as_ref().and_then(|platform| platform.url.as_ref()) {
        let holds = url.len() <= 2000 && url.chars().all(is_visible);
        Place("/platform").is("url", url, "an address of at most 2000 visible characters", holds)?;
    }
    for (at, stage) in manifest.stages.iter().enumerate() {
        let pointer = format!("/stages/{at}");
        Place(&pointer).name("stage", &stage.stage)?;
    }
    Ok(())
}
