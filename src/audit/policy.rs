//! A policy: the rules that an artifact must follow beyond truthful statements, read from a TOML file.
//!
//! A manifest that admits a build without `--hermetic`, or packages of an unusual archive, passes the audit. The user of the artifact
//! decides what is acceptable and writes it into this file. `docs/audit.md` lists the rules, and `docs/audit-policy.example.toml` has
//! one of each.

use super::PolicyError;
use crate::{
    lock::{Distribution, line_at},
    manifest::AgentKind,
    model::{Arch, Fingerprint, ModelError, Moment, RelPath, Target, Variant, excerpt, visible_message, visible_path},
    store::open_foreign,
};
use serde::{Deserialize, Deserializer};
use std::{collections::BTreeSet, fmt, hash::Hash, io::Read, ops::Range, path::Path, str::FromStr};
use toml::Spanned;

/// Version of the format this program reads.
pub const POLICY_VERSION: i64 = 1;
/// Largest policy, bytes.
const MAX_POLICY: usize = 256 * 1024;

/// The rules. An absent rule accepts everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// Every stage ran with every layer of its sandbox.
    pub hermetic: bool,
    /// Every file of the repository was committed, and the revision is known.
    pub clean: bool,
    /// Nodes take only signed lists of modules.
    pub signed_modules: bool,
    /// The agent that the root must carry.
    pub agent: Option<AgentKind>,
    /// Whether the artifact must have a recovery, or must have none.
    pub recovery: Option<bool>,
    /// Whether the consoles of a running node must have a shell, or must have none.
    pub debug: Option<bool>,
    /// No stage's outputs came from a remote cache or a worker.
    pub built_here: bool,
    /// The artifact was built twice with equal results.
    pub reproducible: bool,
    /// The names of the axes that must have been varied then.
    pub axes: BTreeSet<String>,
    /// The archives that packages may come from.
    pub archives: Option<Vec<AllowedArchive>>,
    /// Moment of the oldest snapshot that packages may come from.
    pub oldest_snapshot: Option<Moment>,
    /// The variants that a set of artifacts must have.
    pub variants: BTreeSet<RequiredVariant>,
    /// The variants of the form `other` that are accepted although their root is not read.
    pub unread_roots: BTreeSet<Variant>,
    /// The architectures that a set of artifacts must have.
    pub architectures: BTreeSet<Arch>,
}

/// A variant that a set of artifacts must have, written `NAME` or `NAME/ARCH`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequiredVariant {
    /// Its name.
    pub variant: Variant,
    /// The architecture for which it is required; `None` for every one that is required or present.
    pub arch: Option<Arch>,
}

impl fmt::Display for RequiredVariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.arch {
            Some(arch) => {
                let variant = self.variant;
                Target { variant, arch }.fmt(f)
            }
            None => self.variant.fmt(f),
        }
    }
}
impl FromStr for RequiredVariant {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let (variant, arch) = match text.split_once('/') {
            Some((variant, arch)) => (variant, Some(arch.parse()?)),
            None => (text, None),
        };
        Ok(Self {
            variant: variant.parse()?,
            arch,
        })
    }
}
impl<'de> Deserialize<'de> for RequiredVariant {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An archive that packages may come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllowedArchive {
    /// Debian or Ubuntu.
    pub distribution: Distribution,
    /// Suite as in `dists/<suite>/`.
    pub suite: RelPath,
    /// The address below which its snapshots lie; `None` allows every address.
    pub url: Option<String>,
    /// Fingerprints of keys; one of these keys must have signed the suite's release file.
    pub keys: Vec<Fingerprint>,
}

/// An archive as it stands in the file, its fingerprints not yet read.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArchive {
    distribution: Distribution,
    suite: RelPath,
    #[serde(default)]
    url: Option<String>,
    keys: Vec<String>,
}

/// The version alone. It is read first, so that a newer file is reported as newer and not for its unknown rules.
#[derive(Deserialize)]
struct Head {
    version: Spanned<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    #[expect(
        dead_code,
        reason = "read and checked as Head before; named here because unknown fields are refused"
    )]
    version: i64,
    #[serde(default)]
    hermetic: bool,
    #[serde(default)]
    clean: bool,
    #[serde(default)]
    signed_modules: bool,
    agent: Option<AgentKind>,
    recovery: Option<bool>,
    debug: Option<bool>,
    #[serde(default)]
    built_here: bool,
    #[serde(default)]
    reproducible: bool,
    axes: Option<Spanned<Vec<Spanned<String>>>>,
    archives: Option<Spanned<Vec<Spanned<RawArchive>>>>,
    oldest_snapshot: Option<Spanned<String>>,
    variants: Option<Spanned<Vec<Spanned<RequiredVariant>>>>,
    unread_roots: Option<Spanned<Vec<Spanned<Variant>>>>,
    architectures: Option<Spanned<Vec<Spanned<Arch>>>>,
}

impl Policy {
    /// Reads the policy in `path`.
    ///
    /// # Errors
    /// As [`Policy::parse`], and [`PolicyError::Read`].
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let read = |source| PolicyError::Read {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        let file = open_foreign(path).map_err(read)?;
        file.take(MAX_POLICY as u64 + 1)
            .read_to_string(&mut text)
            .map_err(read)?;
        Self::parse(&text, &visible_path(path))
    }

    /// Reads a policy; `file` names it in errors.
    ///
    /// # Errors
    /// [`PolicyError::Version`] for another version of the format; otherwise the line and the value that breaks the schema, or a rule
    /// that could never hold or never fail.
    pub fn parse(text: &str, file: &str) -> Result<Self, PolicyError> {
        let at = |start: usize, problem: String| PolicyError::Line {
            file: file.to_owned(),
            line: line_at(text, start),
            problem,
        };
        let toml = |error: toml::de::Error| {
            let start = error.span().map_or(0, |span| span.start);
            at(start, visible_message(error.message()))
        };
        if text.len() > MAX_POLICY {
            return Err(at(0, format!("it has more than {MAX_POLICY} bytes")));
        }
        let head: Head = toml::from_str(text).map_err(toml)?;
        if *head.version.get_ref() != POLICY_VERSION {
            return Err(PolicyError::Version {
                file: file.to_owned(),
                line: line_at(text, head.version.span().start),
                found: *head.version.get_ref(),
                known: POLICY_VERSION,
            });
        }
        let raw: Raw = toml::from_str(text).map_err(toml)?;
        raw.check().map_err(|(span, problem)| at(span.start, problem))
    }
}

type Problem = (Range<usize>, String);

impl Raw {
    fn check(self) -> Result<Policy, Problem> {
        if let Some(axes) = &self.axes
            && !self.reproducible
        {
            let problem = "axes requires reproducible = true".to_owned();
            return Err((axes.span(), problem));
        }
        let oldest_snapshot = match &self.oldest_snapshot {
            None => None,
            Some(text) => Some(Moment::from_str(text.get_ref()).map_err(|error| {
                let problem = format!("oldest-snapshot: {error}");
                (text.span(), problem)
            })?),
        };
        let archives = match self.archives {
            None => None,
            Some(list) => Some(allowed(list)?),
        };
        let architectures = each_once("architectures", self.architectures)?;
        if let Some(list) = &self.variants
            && !architectures.is_empty()
        {
            let nowhere =
                |v: &&Spanned<RequiredVariant>| v.get_ref().arch.is_some_and(|arch| !architectures.contains(&arch));
            if let Some(variant) = list.get_ref().iter().find(nowhere) {
                let problem = format!(
                    "{} is for an architecture that is not among the architectures",
                    variant.get_ref()
                );
                return Err((variant.span(), problem));
            }
        }
        Ok(Policy {
            hermetic: self.hermetic,
            clean: self.clean,
            signed_modules: self.signed_modules,
            agent: self.agent,
            recovery: self.recovery,
            debug: self.debug,
            built_here: self.built_here,
            reproducible: self.reproducible,
            axes: each_once("axes", self.axes)?,
            archives,
            oldest_snapshot,
            variants: each_once("variants", self.variants)?,
            unread_roots: each_once("unread-roots", self.unread_roots)?,
            architectures,
        })
    }
}

/// The entries of a list. A list that is given must not be empty and must not repeat an entry.
fn each_once<T: Ord + Hash + Clone + ToString>(
    name: &str,
    list: Option<Spanned<Vec<Spanned<T>>>>,
) -> Result<BTreeSet<T>, Problem> {
    let Some(list) = list else {
        return Ok(BTreeSet::new());
    };
    if list.get_ref().is_empty() {
        return Err((list.span(), format!("{name} is empty: leave it out to require nothing")));
    }
    let mut out = BTreeSet::new();
    for word in list.into_inner() {
        if !out.insert(word.get_ref().clone()) {
            let problem = format!("{name} has {:?} twice", word.get_ref().to_string());
            return Err((word.span(), problem));
        }
    }
    Ok(out)
}

fn allowed(list: Spanned<Vec<Spanned<RawArchive>>>) -> Result<Vec<AllowedArchive>, Problem> {
    if list.get_ref().is_empty() {
        let problem = "archives is empty, so no package would be allowed: leave it out to allow every archive";
        return Err((list.span(), problem.to_owned()));
    }
    let mut out = Vec::new();
    for archive in list.into_inner() {
        let (span, archive) = (archive.span(), archive.into_inner());
        if archive.keys.is_empty() {
            return Err((
                span,
                format!("archive {} has no keys, so no archive could match", archive.suite),
            ));
        }
        let keys: Result<Vec<Fingerprint>, ModelError> = archive.keys.iter().map(|key| key.parse()).collect();
        let keys = keys.map_err(|error| (span.clone(), format!("keys of archive {}: {error}", archive.suite)))?;
        if let Some(url) = &archive.url
            && !(url.starts_with("https://") || url.starts_with("http://"))
        {
            let problem = format!(
                "url of archive {} is not an http or https address: {:?}",
                archive.suite,
                excerpt(url)
            );
            return Err((span, problem));
        }
        out.push(AllowedArchive {
            distribution: archive.distribution,
            suite: archive.suite,
            url: archive.url,
            keys,
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Hint;

    const KEY: &str = "04B54C3CDCA79751B16BC6B5225629DF75B188BD";

    fn good() -> String {
        format!(
            "version = 1\nhermetic = true\nclean = true\nagent = \"pinned\"\nreproducible = true\naxes = [\"clock\", \"umask\"]\n\
             oldest-snapshot = \"20261101T000000Z\"\nvariants = [\"raw\", \"disk-image-rpi4/arm64\"]\narchitectures = [\"amd64\", \"arm64\"]\n\
             archives = [\n  {{ distribution = \"debian\", suite = \"trixie\", keys = [\"{KEY}\"] }},\n]\n"
        )
    }

    #[test]
    fn each_rule_is_read_and_none_is_asked_for_by_an_empty_policy() {
        let policy = Policy::parse(&good(), "p.toml").expect("valid");
        assert!(policy.hermetic && policy.clean && policy.reproducible);
        assert_eq!(policy.agent, Some(AgentKind::Pinned));
        assert_eq!(policy.axes.iter().collect::<Vec<_>>(), ["clock", "umask"]);
        assert_eq!(policy.oldest_snapshot, "20261101T000000Z".parse().ok());
        assert_eq!(policy.archives.as_ref().map(Vec::len), Some(1));
        assert_eq!((policy.variants.len(), policy.architectures.len()), (2, 2));
        let none = Policy::parse("version = 1\n", "p.toml").expect("valid");
        assert_eq!(none, Policy::default());
        // The other way to write a list of tables.
        let text =
            format!("version = 1\n[[archives]]\ndistribution = \"ubuntu\"\nsuite = \"noble\"\nkeys = [\"{KEY}\"]\n");
        assert_eq!(
            Policy::parse(&text, "p.toml").expect("valid").archives.map(|a| a.len()),
            Some(1)
        );
    }

    #[test]
    fn each_mistake_is_named_with_its_line() {
        let good = good();
        for (from, to, want) in [
            (
                "clean = true",
                "clean = \"yes\"",
                "line 3: invalid type: string \"yes\", expected a boolean",
            ),
            ("clean = true", "cleanly = true", "line 3: unknown field `cleanly`"),
            ("clean = true", "clean = true\nclean = true", "line 4: duplicate key"),
            ("\"pinned\"", "\"real\"", "line 4: unknown variant `real`"),
            ("version = 1\n", "", "line 1: missing field `version`"),
            ("version = 1\n", "version = \"1\"\n", "line 1: invalid type"),
            ("reproducible = true\n", "", "line 5: axes requires reproducible = true"),
            ("[\"clock\", \"umask\"]", "[]", "line 6: axes is empty"),
            ("\"umask\"]", "\"clock\"]", "line 6: axes has \"clock\" twice"),
            (
                "20261101T000000Z",
                "yesterday",
                "line 7: oldest-snapshot: \"yesterday\" is not a moment of the form YYYYMMDDThhmmssZ",
            ),
            (
                "\"raw\"",
                "\"raw disk\"",
                "line 8: \"raw disk\" is not the name of a variant",
            ),
            ("rpi4/arm64", "rpi4/vax", "line 8: unknown architecture \"vax\""),
            (
                ", \"arm64\"]",
                "]",
                "line 8: disk-image-rpi4/arm64 is for an architecture that is not among",
            ),
            ("\"arm64\"]", "\"vax\"]", "line 9: unknown variant `vax`"),
            ("suite =", "suites =", "line 11: unknown field `suites`"),
            ("\"trixie\"", "\"../x\"", "line 11: "),
            ("\"debian\"", "\"plan9\"", "line 11: unknown variant `plan9`"),
            (
                KEY,
                "04b5",
                "line 11: keys of archive trixie: \"04b5\" is not the fingerprint of a key",
            ),
            (
                "suite =",
                "url = \"ftp://x\", suite =",
                "line 11: url of archive trixie is not an http or https address",
            ),
        ] {
            let text = good.replace(from, to);
            assert_ne!(text, good, "{from}");
            let error = Policy::parse(&text, "p.toml").expect_err(to).to_string();
            assert!(
                error.contains(want) && error.contains("p.toml"),
                "{error:?} lacks {want:?}"
            );
        }
        let empty = good.replace(&format!("[\"{KEY}\"]"), "[]");
        let error = Policy::parse(&empty, "p.toml").expect_err("no key").to_string();
        assert!(error.contains("line 11: archive trixie has no keys"), "{error}");
        let error = Policy::parse("version = 1\narchives = []\n", "p.toml")
            .expect_err("none")
            .to_string();
        assert!(error.contains("line 2: archives is empty"), "{error}");
        let error = Policy::parse("# x\nversion = 2\nnew-rule = 1\n", "p.toml").expect_err("newer");
        assert!(error.to_string().contains("line 2: format version 2"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("docs/audit.md")));
        let large = format!("version = 1\n#{}", " ".repeat(MAX_POLICY));
        assert!(Policy::parse(&large, "p.toml").is_err());
    }
}
