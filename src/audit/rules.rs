//! The rules of a policy against the statements: one check for each rule. Nothing here does I/O.

use super::{
    check::{Check, Class, Problems},
    policy::{AllowedArchive, Policy, RequiredVariant},
};
use crate::{
    manifest::{AgentKind, ArchiveFact, BuildRecord, Manifest, Reproducibility},
    model::{Arch, Moment, NodeId, Target, Variant},
};
use std::collections::{BTreeMap, BTreeSet};

/// Checks the record's statement about building twice. Without a statement the check holds, unless `required`.
pub(super) fn check_reproducibility(record: Option<&BuildRecord>, required: bool) -> Check {
    let mut problems = Problems::default();
    let mut found = "no statement".to_owned();
    match record.and_then(|r| r.reproducibility.as_ref()) {
        None if required => problems.add("no statement, and the policy requires one"),
        None => {}
        Some(statement) => {
            judge(statement, &mut problems);
            let axes: Vec<&str> = statement.varied.keys().map(String::as_str).collect();
            found = format!("{} outputs equal under {}", statement.outputs, axes.join(", "));
            if !statement.not_varied.is_empty() {
                let axes: Vec<&str> = statement.not_varied.keys().map(String::as_str).collect();
                found.push_str(&format!("; not varied: {}", axes.join(", ")));
            }
        }
    }
    problems.check("reproducibility", Class::Reproducibility, found)
}

fn judge(statement: &Reproducibility, problems: &mut Problems) {
    if !statement.equal {
        problems.add("it was built twice and came out differently");
    }
    if statement.outputs == 0 {
        problems.add("no output was compared");
    }
    if statement.varied.is_empty() {
        problems.add("no axis was varied in the second build");
    }
    for (axis, values) in &statement.varied {
        if values.first == values.second {
            problems.add(format!(
                "{axis:?} is listed as varied, but was {:?} in both builds",
                values.first
            ));
        }
        if statement.not_varied.contains_key(axis) {
            problems.add(format!("{axis:?} is listed both as varied and as not varied"));
        }
    }
}

/// Checks the rules about one artifact.
pub(super) fn check_policy(policy: &Policy, manifest: &Manifest, record: Option<&BuildRecord>) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut rule = |name, problem: Option<String>, found: String| {
        let mut problems = Problems::default();
        if let Some(problem) = problem {
            problems.add(problem);
        }
        checks.push(problems.check(name, Class::Policy, found));
    };
    if policy.hermetic {
        let problem = (!manifest.hermetic).then(|| "it was not built with --hermetic".to_owned());
        rule("policy: hermetic", problem, "built with --hermetic".to_owned());
    }
    if policy.clean {
        let revision = manifest.git_sha.as_deref();
        let problem = match revision {
            None => Some("the manifest states no revision".to_owned()),
            Some(sha) => manifest
                .source
                .dirty
                .then(|| format!("files that the build read differ from revision {sha}")),
        };
        rule(
            "policy: clean",
            problem,
            format!("revision {}", revision.unwrap_or_default()),
        );
    }
    if policy.signed_modules {
        let problem = manifest
            .unsigned_modules
            .then(|| "its nodes take lists of modules without a signature".to_owned());
        let keys = manifest.modules.as_ref().map_or(0, |trust| trust.keys.len());
        rule(
            "policy: signed-modules",
            problem,
            format!("{keys} keys on the command line"),
        );
    }
    if let Some(wanted) = policy.agent {
        let actual = manifest.agent.kind;
        let (name, sha256) = (&manifest.agent.name, &manifest.agent.sha256);
        let problem = format!("the agent {name:?} is {}, not {}", kind(actual), kind(wanted));
        let problem = (actual != wanted).then_some(problem);
        rule("policy: agent", problem, format!("{name:?}, sha256 {sha256}"));
    }
    if let Some(wanted) = policy.recovery {
        let problem = match manifest.recovery {
            actual if actual == wanted => None,
            true => Some("it was built with the option recovery: anybody at its console gets a shell".to_owned()),
            false => Some("it was built without the option recovery".to_owned()),
        };
        let found = if wanted {
            "built with the option recovery"
        } else {
            "built without the option recovery"
        };
        rule("policy: recovery", problem, found.to_owned());
    }
    if let Some(wanted) = policy.debug {
        let problem = match manifest.debug {
            actual if actual == wanted => None,
            true => {
                Some("it was built with the option debug: the consoles of its nodes have a shell of root".to_owned())
            }
            false => Some("it was built without the option debug".to_owned()),
        };
        let found = if wanted {
            "built with the option debug"
        } else {
            "built without the option debug"
        };
        rule("policy: debug", problem, found.to_owned());
    }
    if policy.built_here {
        let elsewhere = |record: &BuildRecord| {
            let mut stages = record.stages.iter();
            let found = stages.find_map(|run| Some((NodeId::new(&run.stage, run.arch), run.source.as_ref()?)));
            found.map(|(node, source)| format!("the outputs of {node} came from {source:?}"))
        };
        let problem = record.map_or(Some("no record says where its stages ran".to_owned()), elsewhere);
        rule(
            "policy: built-here",
            problem,
            "every stage ran on one machine".to_owned(),
        );
    }
    let statement = record.and_then(|r| r.reproducibility.as_ref());
    if policy.reproducible {
        let problem = match statement {
            None => Some("no statement says that it was built twice".to_owned()),
            Some(s) => (!s.equal).then(|| "it was built twice and came out differently".to_owned()),
        };
        rule("policy: reproducible", problem, "built twice, and equal".to_owned());
    }
    if !policy.axes.is_empty() {
        checks.push(check_axes(policy, statement));
    }
    if let Some(allowed) = &policy.archives {
        checks.push(check_archives(allowed, manifest));
    }
    if let Some(oldest) = policy.oldest_snapshot {
        checks.push(check_snapshots(oldest, manifest));
    }
    checks
}

const fn kind(agent: AgentKind) -> &'static str {
    match agent {
        AgentKind::Diagnostic => "the diagnostic agent",
        AgentKind::Pinned => "a pinned agent",
    }
}

fn check_axes(policy: &Policy, statement: Option<&Reproducibility>) -> Check {
    let mut problems = Problems::default();
    for axis in &policy.axes {
        let varied = statement.is_some_and(|s| s.varied.contains_key(axis));
        if varied {
            continue;
        }
        match statement.and_then(|s| s.not_varied.get(axis)) {
            Some(why) => problems.add(format!("{axis:?} was not varied: {why}")),
            None => problems.add(format!("{axis:?} was not varied")),
        }
    }
    let axes: Vec<&str> = policy.axes.iter().map(String::as_str).collect();
    problems.check("policy: axes", Class::Policy, format!("varied: {}", axes.join(", ")))
}

/// The archives that packages of the manifest came from. An archive that is only in the lock is not among them; an unknown archive is
/// found by [`Class::Pins`].
fn used(manifest: &Manifest) -> Vec<&ArchiveFact> {
    let names: BTreeSet<&str> = manifest.packages.iter().map(|p| p.archive.as_str()).collect();
    let archives = manifest.archives.iter();
    archives.filter(|a| names.contains(a.name.as_str())).collect()
}

fn check_archives(allowed: &[AllowedArchive], manifest: &Manifest) -> Check {
    let mut problems = Problems::default();
    let archives = used(manifest);
    for archive in &archives {
        if !allowed.iter().any(|a| matches(a, archive)) {
            problems.add(format!(
                "no entry allows {:?}: {} {} at {}, signed by {}",
                archive.name,
                format!("{:?}", archive.distribution).to_lowercase(),
                archive.suite,
                archive.snapshot_url,
                archive.keys.join(", ")
            ));
        }
    }
    let names: Vec<&str> = archives.iter().map(|a| a.name.as_str()).collect();
    problems.check("policy: archives", Class::Policy, names.join(", "))
}

fn matches(allowed: &AllowedArchive, archive: &ArchiveFact) -> bool {
    // A prefix matches only up to the end of a path component.
    let below = |url: &String| {
        let rest = archive.snapshot_url.strip_prefix(url.trim_end_matches('/'));
        rest.is_some_and(|r| r.is_empty() || r.starts_with('/'))
    };
    allowed.distribution == archive.distribution
        && allowed.suite == archive.suite
        && allowed.url.as_ref().is_none_or(below)
        && archive
            .keys
            .iter()
            .any(|key| allowed.keys.iter().any(|allowed| allowed.as_str() == key))
}

fn check_snapshots(oldest: Moment, manifest: &Manifest) -> Check {
    let mut problems = Problems::default();
    let archives = used(manifest);
    for archive in &archives {
        // A snapshot whose moment cannot be read counts as too old.
        if archive
            .snapshot
            .parse::<Moment>()
            .map_or(true, |moment| moment < oldest)
        {
            let (name, snapshot) = (&archive.name, &archive.snapshot);
            problems.add(format!("the snapshot {snapshot} of {name:?} is older than {oldest}"));
        }
    }
    let oldest = archives.iter().map(|a| a.snapshot.as_str()).min().unwrap_or("none");
    problems.check("policy: snapshot", Class::Policy, format!("the oldest is {oldest}"))
}

/// Checks the rules about a set of artifacts; `present` are the artifacts that exist.
pub(super) fn check_set(policy: &Policy, present: &BTreeSet<Target>) -> Vec<Check> {
    let mut checks = Vec::new();
    let there: BTreeSet<Arch> = present.iter().map(|target| target.arch).collect();
    if !policy.architectures.is_empty() {
        let mut problems = Problems::default();
        for arch in policy.architectures.difference(&there) {
            problems.add(format!("there is no artifact for {arch}"));
        }
        let found: Vec<&str> = there.iter().map(|a| a.as_str()).collect();
        checks.push(problems.check("policy: architectures", Class::Policy, found.join(", ")));
    }
    if !policy.variants.is_empty() {
        let mut problems = Problems::default();
        let mut found: BTreeMap<Variant, Vec<&str>> = BTreeMap::new();
        for target in present {
            found.entry(target.variant).or_default().push(target.arch.as_str());
        }
        for RequiredVariant { variant, arch } in &policy.variants {
            let variant = *variant;
            // Without an architecture of its own, a variant must exist for each that is required or present.
            let wanted: BTreeSet<Arch> = match arch {
                Some(arch) => BTreeSet::from([*arch]),
                None => policy.architectures.union(&there).copied().collect(),
            };
            let missing: Vec<&str> = wanted
                .iter()
                .filter(|arch| !present.contains(&Target { variant, arch: **arch }))
                .map(|arch| arch.as_str())
                .collect();
            match (&missing[..], found.contains_key(&variant)) {
                ([], true) => {}
                ([], false) => problems.add(format!("there is no {variant}")),
                (missing, false) => problems.add(format!("there is no {variant} for {}", missing.join(", "))),
                (missing, true) => problems.add(format!(
                    "there is no {variant} for {} (\"{variant}/ARCH\" requires it for one architecture only)",
                    missing.join(", ")
                )),
            }
        }
        let text: Vec<String> = found
            .iter()
            .map(|(v, arches)| format!("{v} ({})", arches.join(", ")))
            .collect();
        checks.push(problems.check("policy: variants", Class::Policy, text.join(", ")));
    }
    checks
}
