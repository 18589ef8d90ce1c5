//! The look at the server: everything that can be refused before anything is written.

use super::{
    answers::{GiteaVersion, ProtectionAnswer, ReleaseAnswer, ReleaseAsset},
    client::GiteaClient,
    content::is_same,
    plan::{FileState, LookOptions, PlannedRelease, ReleaseJournal, ReleaseState, SeenRelease},
};
use crate::publish::GiteaError;
use globset::GlobBuilder;
use std::collections::{BTreeMap, BTreeSet};

/// Asks everything that can be refused, and writes nothing.
///
/// # Errors
/// The repository or the commit is not there, the token cannot write, a file is too large, the tag is protected or names another commit,
/// a draft has files that are not of the plan, or a visible release has other files than the plan.
pub fn look_at_release(
    client: &GiteaClient<'_>,
    plan: &PlannedRelease,
    options: LookOptions,
    journal: &dyn ReleaseJournal,
) -> Result<SeenRelease, GiteaError> {
    let repository = || client.repository().to_string();
    let version = client.version()?;
    let details = client.details()?;
    if details.empty {
        return Err(GiteaError::Empty {
            repository: repository(),
        });
    }
    if details.archived || details.permissions.is_some_and(|p| !p.push) {
        return Err(GiteaError::ReadOnly {
            repository: repository(),
        });
    }
    if !client.has_commit(plan.commit.as_str())? {
        return Err(GiteaError::NoCommit {
            repository: repository(),
            commit: plan.commit.as_str().to_owned(),
        });
    }
    let doubts = match client.tag(&plan.tag)? {
        Some(actual) => check_tag(plan, actual).map(|()| Vec::new())?,
        // Only a tag that is made is judged by the rules.
        None => check_protections(client, plan)?,
    };
    check_sizes(client, plan, options, &version)?;
    let mut files: BTreeMap<String, FileState> = BTreeMap::new();
    let state = match client.release(&plan.tag)? {
        None => ReleaseState::Absent,
        Some(release) if release.draft => {
            check_target(plan, &release)?;
            let assets = client.assets(release.id)?;
            check_foreign(plan, &assets)?;
            files.extend(assets.into_iter().map(|asset| (asset.name, FileState::Present)));
            ReleaseState::Draft(release)
        }
        Some(release) => {
            check_shown(client, plan, options, journal, &release)?;
            let present = plan.assets.keys().map(|name| (name.clone(), FileState::Present));
            files.extend(present);
            ReleaseState::Shown(release)
        }
    };
    for name in plan.assets.keys() {
        files.entry(name.clone()).or_insert(FileState::Absent);
    }
    Ok(SeenRelease {
        version,
        state,
        files,
        doubts,
    })
}

pub(super) fn check_tag(plan: &PlannedRelease, actual: String) -> Result<(), GiteaError> {
    match actual == plan.commit.as_str() {
        true => Ok(()),
        false => Err(GiteaError::TagElsewhere {
            tag: plan.tag.clone(),
            expected: plan.commit.as_str().to_owned(),
            actual,
        }),
    }
}

pub(super) fn check_target(plan: &PlannedRelease, release: &ReleaseAnswer) -> Result<(), GiteaError> {
    match release.target_commitish == plan.commit.as_str() {
        true => Ok(()),
        false => Err(GiteaError::DraftElsewhere {
            tag: plan.tag.clone(),
            expected: plan.commit.as_str().to_owned(),
            actual: crate::model::visible_message(&release.target_commitish),
        }),
    }
}

/// Refuses a tag that a rule forbids for the token's user. Returns the rules that cannot be judged.
fn check_protections(client: &GiteaClient<'_>, plan: &PlannedRelease) -> Result<Vec<String>, GiteaError> {
    let rules = client.protections()?.unwrap_or_default();
    let mut doubts = Vec::new();
    let mut user = None;
    for rule in rules {
        if !applies(&rule, &plan.tag) {
            continue;
        }
        if user.is_none() {
            user = Some(client.user()?);
        }
        let name = user.clone().flatten();
        let users = rule.whitelist_usernames.unwrap_or_default();
        let listed = name.is_some_and(|name| users.iter().any(|u| u.eq_ignore_ascii_case(&name)));
        let teams = rule.whitelist_teams.is_some_and(|teams| !teams.is_empty());
        let pattern = crate::model::visible_message(&rule.name_pattern);
        match (listed, teams || is_expression(&rule.name_pattern)) {
            (true, _) => {}
            (false, true) => doubts.push(pattern),
            (false, false) => {
                return Err(GiteaError::Protected {
                    tag: plan.tag.clone(),
                    pattern,
                });
            }
        }
    }
    Ok(doubts)
}

/// A regular expression, which pnb does not evaluate.
fn is_expression(pattern: &str) -> bool {
    pattern.len() > 1 && pattern.starts_with('/') && pattern.ends_with('/')
}

/// Whether a rule is about the tag, as far as can be told.
fn applies(rule: &ProtectionAnswer, tag: &str) -> bool {
    if is_expression(&rule.name_pattern) {
        return true;
    }
    let glob = GlobBuilder::new(&rule.name_pattern).literal_separator(false).build();
    glob.is_ok_and(|glob| glob.compile_matcher().is_match(tag))
}

fn check_sizes(
    client: &GiteaClient<'_>,
    plan: &PlannedRelease,
    options: LookOptions,
    version: &GiteaVersion,
) -> Result<(), GiteaError> {
    let limits = client.limits()?;
    if limits.as_ref().is_some_and(|limits| !limits.enabled) {
        return Err(GiteaError::Disabled {
            repository: client.repository().to_string(),
        });
    }
    let stated = limits.and_then(|limits| u64::try_from(limits.max_size).ok());
    let stated = stated.filter(|mib| *mib > 0 && version.limits_uploads());
    let Some(limit) = options.max_asset_size.or(stated.map(|mib| mib.saturating_mul(1 << 20))) else {
        return Ok(());
    };
    match plan.assets.values().find(|asset| asset.size > limit) {
        None => Ok(()),
        Some(asset) => Err(GiteaError::TooLarge {
            name: asset.name.clone(),
            size: asset.size,
            limit: Some(limit),
            said: String::new(),
        }),
    }
}

/// Refuses files in a draft that are not of the plan: somebody put them there, and only they know why.
pub(super) fn check_foreign(plan: &PlannedRelease, assets: &[ReleaseAsset]) -> Result<(), GiteaError> {
    let foreign: BTreeSet<&str> = assets
        .iter()
        .map(|asset| asset.name.as_str())
        .filter(|name| !plan.assets.contains_key(*name))
        .collect();
    match foreign.is_empty() {
        true => Ok(()),
        false => Err(GiteaError::Foreign {
            tag: plan.tag.clone(),
            names: foreign.into_iter().map(crate::model::visible_message).collect(),
        }),
    }
}

/// The differences of a list of files from the plan, by name and size.
fn differences(plan: &PlannedRelease, assets: &[ReleaseAsset]) -> Vec<String> {
    let mut problems = Vec::new();
    for asset in assets {
        let name = crate::model::visible_message(&asset.name);
        match plan.assets.get(&asset.name) {
            None => problems.push(format!("{name} is not of this publication")),
            Some(planned) if planned.size != asset.size => {
                problems.push(format!("{name} has {} bytes instead of {}", asset.size, planned.size));
            }
            Some(_) => {}
        }
    }
    for name in plan.assets.keys() {
        match assets.iter().filter(|asset| asset.name == *name).count() {
            0 => problems.push(format!("{name} is missing")),
            1 => {}
            more => problems.push(format!("{name} is there {more} times")),
        }
    }
    problems
}

pub(super) fn check_list(
    client: &GiteaClient<'_>,
    plan: &PlannedRelease,
    release: &ReleaseAnswer,
) -> Result<(), GiteaError> {
    let problems = differences(plan, &client.assets(release.id)?);
    other_content(plan, problems)
}

fn other_content(plan: &PlannedRelease, problems: Vec<String>) -> Result<(), GiteaError> {
    match problems.is_empty() {
        true => Ok(()),
        false => Err(GiteaError::OtherContent {
            tag: plan.tag.clone(),
            problems,
        }),
    }
}

/// Checks that a visible release is exactly the planned one. It is never changed.
pub(super) fn check_shown(
    client: &GiteaClient<'_>,
    plan: &PlannedRelease,
    options: LookOptions,
    journal: &dyn ReleaseJournal,
    release: &ReleaseAnswer,
) -> Result<(), GiteaError> {
    let assets = client.assets(release.id)?;
    let mut problems = differences(plan, &assets);
    if problems.is_empty() {
        for asset in &assets {
            let Some(planned) = plan.assets.get(&asset.name) else {
                continue;
            };
            if !is_same(client, asset, planned, options, journal, release.id)? {
                problems.push(format!("{} has other content", planned.name));
            }
        }
    }
    other_content(plan, problems)
}

#[cfg(test)]
mod tests {
    use super::{super::plan::tests::plan, *};

    #[test]
    fn a_list_of_files_is_compared_by_name_and_size() {
        let asset = |id, name: &str, size| ReleaseAsset {
            id,
            name: name.to_owned(),
            size,
            uuid: String::new(),
        };
        let plan = plan("v1", &["a", "b", "c"]).expect("good");
        let all = [asset(1, "a", 5), asset(2, "b", 5), asset(3, "c", 5)];
        assert_eq!(differences(&plan, &all), [""; 0]);
        let other = [
            asset(1, "a", 4),
            asset(2, "b", 5),
            asset(3, "b", 5),
            asset(4, "x\u{1b}", 5),
        ];
        insta::assert_snapshot!(differences(&plan, &other).join("\n"), @r#"
        a has 4 bytes instead of 5
        x\u{1b} is not of this publication
        b is there 2 times
        c is missing
        "#);
    }

    #[test]
    fn a_rule_for_tags_is_a_glob_or_an_expression() {
        let rule = |pattern: &str| ProtectionAnswer {
            name_pattern: pattern.to_owned(),
            whitelist_usernames: None,
            whitelist_teams: None,
        };
        for (pattern, applied) in [
            ("v*", true),
            ("v1", true),
            ("*", true),
            ("w*", false),
            ("/^w/", true),
            ("[", false),
        ] {
            assert_eq!(applies(&rule(pattern), "v1"), applied, "{pattern}");
        }
    }
}
