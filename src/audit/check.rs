//! Checks and their results.

use crate::model::visible;
use serde::Serialize;
use std::fmt;

/// A class of failed checks, with its own exit code. When several classes fail, the first in this order decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// `SHA256SUMS` is missing, or not in the form that pnb writes.
    Sums,
    /// A file is missing, was changed, or is not listed.
    Files,
    /// The manifest breaks its schema, or is not in canonical form.
    Manifest,
    /// The manifest's artifacts differ from the files beside it.
    Artifacts,
    /// An input of the build has no pin, or the pins contradict each other.
    Pins,
    /// The root in the artifact differs from the root that the manifest states.
    Root,
    /// The build record is missing, contradicts the manifest, or shows a weaker sandbox than the manifest claims.
    Sandbox,
    /// The components of the SBOM, or the installed packages, differ from the manifest.
    Sbom,
    /// The provenance states other files or inputs.
    Provenance,
    /// Artifacts of one architecture carry different roots, or lie in the wrong directory.
    Variants,
    /// The record's statement about building twice contradicts itself, or says that the builds differed.
    Reproducibility,
    /// The artifact breaks a rule of the policy.
    Policy,
    /// The OCI image contradicts the manifest, or breaks a rule of bootc.
    Image,
}

impl Class {
    /// Every class, in order.
    pub const ALL: [Class; 13] = [
        Class::Sums,
        Class::Files,
        Class::Manifest,
        Class::Artifacts,
        Class::Pins,
        Class::Root,
        Class::Sandbox,
        Class::Sbom,
        Class::Provenance,
        Class::Variants,
        Class::Reproducibility,
        Class::Policy,
        Class::Image,
    ];

    /// The name in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Sums => "sums",
            Class::Files => "files",
            Class::Manifest => "manifest",
            Class::Artifacts => "artifacts",
            Class::Pins => "pins",
            Class::Root => "root",
            Class::Sandbox => "sandbox",
            Class::Sbom => "sbom",
            Class::Provenance => "provenance",
            Class::Variants => "variants",
            Class::Reproducibility => "reproducibility",
            Class::Policy => "policy",
            Class::Image => "image",
        }
    }

    /// The exit code of an audit that fails in this class.
    pub const fn exit_code(self) -> u8 {
        match self {
            Class::Sums => 40,
            Class::Files => 41,
            Class::Manifest => 42,
            Class::Artifacts => 43,
            Class::Pins => 44,
            Class::Root => 45,
            Class::Sandbox => 46,
            Class::Sbom => 47,
            Class::Provenance => 48,
            Class::Variants => 49,
            Class::Reproducibility => 50,
            Class::Policy => 51,
            Class::Image => 52,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    /// The name of the check, which never changes.
    pub name: &'static str,
    /// The class of its failure.
    pub class: Class,
    /// Whether it holds.
    pub ok: bool,
    /// The result in words; the problems, one on each line, when the check fails.
    pub detail: String,
}

/// Number of problems of one check that are listed; the rest are only counted.
const MAX_PROBLEMS: usize = 10;

/// The problems of one check.
#[derive(Debug, Default)]
pub(super) struct Problems {
    listed: Vec<String>,
    more: usize,
}

impl Problems {
    pub(super) fn add(&mut self, problem: impl Into<String>) {
        if self.listed.len() < MAX_PROBLEMS {
            self.listed.push(problem.into());
        } else {
            self.more += 1;
        }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// A problem unless `actual` equals `expected`.
    pub(super) fn equal<T: PartialEq + fmt::Display>(&mut self, what: &str, expected: &T, actual: &T) {
        if expected != actual {
            self.add(format!("{what}\nexpected: {expected}\n  actual: {actual}"));
        }
    }

    /// The finished check; `found` is its detail when there is no problem.
    pub(super) fn check(self, name: &'static str, class: Class, found: impl Into<String>) -> Check {
        let ok = self.listed.is_empty();
        let mut detail = if ok { found.into() } else { self.listed.join("\n") };
        if self.more > 0 {
            detail.push_str(&format!("\nand {} more", self.more));
        }
        Check {
            name,
            class,
            ok,
            detail,
        }
    }
}

/// The checks of one directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AuditReport {
    /// The checks, in the order they were made.
    pub checks: Vec<Check>,
}

impl AuditReport {
    /// Whether every check holds.
    pub fn ok(&self) -> bool {
        self.checks.iter().all(|c| c.ok)
    }

    /// The class that decides the exit code; none when every check holds.
    pub fn class(&self) -> Option<Class> {
        self.checks.iter().filter(|c| !c.ok).map(|c| c.class).min()
    }

    /// The checks as a table: `ok` or `FAIL`, name, details.
    pub fn table(&self) -> String {
        let width = self.checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
        let mut out = String::new();
        for check in &self.checks {
            let mark = if check.ok { "ok  " } else { "FAIL" };
            for (i, line) in check.detail.lines().map(visible).enumerate() {
                match i {
                    0 => out.push_str(&format!("{mark}  {:width$}  {line}\n", check.name)),
                    _ => out.push_str(&format!("      {:width$}  {line}\n", "")),
                }
            }
        }
        out
    }
}
