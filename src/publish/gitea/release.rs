//! The steps of a release: look, fill a draft, show it.

use super::{
    answers::{GiteaVersion, ProtectionAnswer, ReleaseAnswer, ReleaseAsset},
    client::{GiteaClient, said},
};
use crate::{
    model::{GitSha, Sha256Digest},
    publish::{GiteaError, JournalEntry, JournalError},
};
use globset::GlobBuilder;
use sha2::{Digest as _, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

/// Most tries of an upload, and of finding a release that another has made at the same time.
const TRIES: u32 = 5;

/// A file that a release is to have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedAsset {
    /// Its name, `<variant>-<arch>-<file>`: a release is one flat list.
    pub name: String,
    /// The file with its content.
    pub source: PathBuf,
    /// SHA-256 of its content.
    pub sha256: Sha256Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A release as it is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedRelease {
    tag: String,
    commit: GitSha,
    title: String,
    notes: String,
    assets: BTreeMap<String, PlannedAsset>,
}

impl PlannedRelease {
    /// A release of these files.
    ///
    /// # Errors
    /// A tag or name has a character that it must not have, or two files have one name.
    pub fn new(
        tag: &str,
        commit: GitSha,
        title: &str,
        notes: &str,
        assets: Vec<PlannedAsset>,
    ) -> Result<Self, GiteaError> {
        let bad = |value: &str, problem| GiteaError::Plan {
            value: crate::model::visible_message(value),
            problem,
        };
        let plain = |text: &str| {
            let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
            first && text.len() <= 200 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
        };
        if !plain(tag) || tag.contains("..") || tag.ends_with('.') || tag.ends_with(".lock") {
            return Err(bad(tag, "it is no name of a tag"));
        }
        let mut by_name = BTreeMap::new();
        for asset in assets {
            if !plain(&asset.name) {
                return Err(bad(&asset.name, "it is no name of a file in a release"));
            }
            if let Some(twice) = by_name.insert(asset.name.clone(), asset) {
                return Err(bad(&twice.name, "two files have this name"));
            }
        }
        Ok(Self {
            tag: tag.to_owned(),
            commit,
            title: title.to_owned(),
            notes: notes.to_owned(),
            assets: by_name,
        })
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

/// Limits of the look and of comparisons.
#[derive(Clone, Copy, Debug)]
pub struct LookOptions {
    /// Most bytes of a file, instead of what the server states.
    pub max_asset_size: Option<u64>,
    /// A file up to this size is always downloaded and compared, a larger one only if the journal does not have it.
    pub compare_up_to: u64,
}

impl Default for LookOptions {
    fn default() -> Self {
        Self {
            max_asset_size: None,
            compare_up_to: 16 << 20,
        }
    }
}

/// Whether there is a release.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReleaseState {
    /// There is none.
    Absent,
    /// There is a draft.
    Draft(ReleaseAnswer),
    /// It is visible, with exactly the planned files.
    Shown(ReleaseAnswer),
}

/// Whether a draft has a planned file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileState {
    /// It is to be uploaded.
    Absent,
    /// One or more files of this name are there; their content is compared when the draft is filled.
    Present,
}

/// What the look at the server has shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeenRelease {
    /// The server's version.
    pub version: GiteaVersion,
    /// The release.
    pub state: ReleaseState,
    /// Every planned file by name.
    pub files: BTreeMap<String, FileState>,
    /// Rules for tags of which pnb cannot tell whether they forbid the tag.
    pub doubts: Vec<String>,
}

/// The journal's part in the steps: the entries of earlier runs, and a place for new ones.
pub trait ReleaseJournal {
    /// Whether an earlier run has sent these bytes as this file.
    fn has(&self, entry: &JournalEntry) -> bool;
    /// Adds what was done.
    fn note(&mut self, entry: JournalEntry) -> Result<(), JournalError>;
}

impl ReleaseJournal for crate::publish::Journal {
    fn has(&self, entry: &JournalEntry) -> bool {
        self.entries().contains(entry)
    }
    fn note(&mut self, entry: JournalEntry) -> Result<(), JournalError> {
        self.add(entry)
    }
}

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

/// Brings exactly the planned files into a draft, which is created if there is no release. A visible release is left alone.
///
/// # Errors
/// As [`look_at_release`]; the server refuses a file or gives back other bytes than it got.
pub fn fill_release(
    client: &GiteaClient<'_>,
    plan: &PlannedRelease,
    seen: &SeenRelease,
    options: LookOptions,
    journal: &mut dyn ReleaseJournal,
) -> Result<ReleaseAnswer, GiteaError> {
    let release = match &seen.state {
        ReleaseState::Shown(release) => return Ok(release.clone()),
        ReleaseState::Draft(release) => release.clone(),
        ReleaseState::Absent => create(client, plan)?,
    };
    if !release.draft {
        check_shown(client, plan, options, journal, &release)?;
        return Ok(release);
    }
    check_target(plan, &release)?;
    journal.note(JournalEntry::Release {
        tag: plan.tag.clone(),
        id: release.id,
    })?;
    let assets = client.assets(release.id)?;
    check_foreign(plan, &assets)?;
    for planned in plan.assets.values() {
        let mut kept: Option<&ReleaseAsset> = None;
        for asset in assets.iter().filter(|asset| asset.name == planned.name) {
            match kept.is_none() && is_same(client, asset, planned, options, journal, release.id)? {
                true => kept = Some(asset),
                // Of the wrong size, of another content, or a second one.
                false => client.delete_asset(release.id, asset.id)?,
            }
        }
        let done = match kept {
            Some(asset) => asset.clone(),
            None => upload(client, planned, &seen.version, options, release.id)?,
        };
        journal.note(entry(release.id, &done, planned))?;
    }
    check_list(client, plan, &release)?;
    Ok(release)
}

/// Makes a filled draft visible, and with it the git tag. A release that is visible already is looked at only.
///
/// # Errors
/// The list of files is not that of the plan, the server does not show the release, or the tag names another commit.
pub fn show_release(
    client: &GiteaClient<'_>,
    plan: &PlannedRelease,
    release: &ReleaseAnswer,
) -> Result<(), GiteaError> {
    check_list(client, plan, release)?;
    if client.release_by_id(release.id)?.draft {
        // Once only: a lost answer says nothing about the effect, so the release is looked at again.
        let outcome = match client.show(release.id) {
            Ok(answer) if [401, 403, 404].contains(&answer.status) => {
                return Err(client.refusal("show the release in", &answer));
            }
            Ok(answer) if answer.is_success() => String::new(),
            Ok(answer) => format!("the server answered {} {}", answer.status, said(&answer)),
            Err(GiteaError::Http(error)) if error.is_temporary() => error.to_string(),
            Err(error) => return Err(error),
        };
        if client.release_by_id(release.id)?.draft {
            return Err(GiteaError::NotShown {
                tag: plan.tag.clone(),
                said: outcome.trim_end().to_owned(),
            });
        }
    }
    match client.tag(&plan.tag)? {
        Some(actual) => check_tag(plan, actual),
        None => Err(GiteaError::NotShown {
            tag: plan.tag.clone(),
            said: "the release is visible, and there is no git tag".to_owned(),
        }),
    }
}

fn entry(release: u64, asset: &ReleaseAsset, planned: &PlannedAsset) -> JournalEntry {
    JournalEntry::Asset {
        release,
        id: asset.id,
        name: planned.name.clone(),
        sha256: planned.sha256,
        size: planned.size,
    }
}

fn check_tag(plan: &PlannedRelease, actual: String) -> Result<(), GiteaError> {
    match actual == plan.commit.as_str() {
        true => Ok(()),
        false => Err(GiteaError::TagElsewhere {
            tag: plan.tag.clone(),
            expected: plan.commit.as_str().to_owned(),
            actual,
        }),
    }
}

fn check_target(plan: &PlannedRelease, release: &ReleaseAnswer) -> Result<(), GiteaError> {
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
fn check_foreign(plan: &PlannedRelease, assets: &[ReleaseAsset]) -> Result<(), GiteaError> {
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

fn check_list(client: &GiteaClient<'_>, plan: &PlannedRelease, release: &ReleaseAnswer) -> Result<(), GiteaError> {
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
fn check_shown(
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

/// Whether a file on the server has the planned content.
fn is_same(
    client: &GiteaClient<'_>,
    asset: &ReleaseAsset,
    planned: &PlannedAsset,
    options: LookOptions,
    journal: &dyn ReleaseJournal,
    release: u64,
) -> Result<bool, GiteaError> {
    if asset.size != planned.size {
        return Ok(false);
    }
    if planned.size > options.compare_up_to && journal.has(&entry(release, asset, planned)) {
        return Ok(true);
    }
    Ok(digest_of(client, asset, planned)? == planned.sha256)
}

/// SHA-256 of a file's content on the server.
fn digest_of(
    client: &GiteaClient<'_>,
    asset: &ReleaseAsset,
    planned: &PlannedAsset,
) -> Result<Sha256Digest, GiteaError> {
    let mut hasher = Hashed(Sha256::new());
    client.download(asset, planned.size, &mut hasher)?;
    Ok(Sha256Digest::new(hasher.0.finalize().into()))
}

struct Hashed(Sha256);

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Creates a draft, or finds the one that another has made at the same time or whose answer was lost.
fn create(client: &GiteaClient<'_>, plan: &PlannedRelease) -> Result<ReleaseAnswer, GiteaError> {
    for tried in 1..=TRIES {
        let made = client.create_draft(&plan.tag, plan.commit.as_str(), &plan.title, &plan.notes)?;
        let found = match made {
            Some(release) => Some(release),
            None => client.release(&plan.tag)?,
        };
        if let Some(release) = found {
            return Ok(release);
        }
        client.wait(pause(tried));
    }
    Err(GiteaError::NotCreated {
        tag: plan.tag.clone(),
        tries: TRIES,
    })
}

/// Uploads a file. After a failed try it may be there wholly, in part, or not at all: so the list is looked at before the next one.
fn upload(
    client: &GiteaClient<'_>,
    planned: &PlannedAsset,
    version: &GiteaVersion,
    options: LookOptions,
    release: u64,
) -> Result<ReleaseAsset, GiteaError> {
    let mut tried = 1;
    loop {
        let error = match client.upload(release, planned, version.takes_raw_uploads()) {
            Ok(asset) => {
                check_upload(client, &asset, planned, options)?;
                return Ok(asset);
            }
            Err(error) if error.is_temporary() => error,
            Err(error) => return Err(error),
        };
        let assets = client.assets(release)?;
        for asset in assets.into_iter().filter(|asset| asset.name == planned.name) {
            if asset.size == planned.size && digest_of(client, &asset, planned)? == planned.sha256 {
                return Ok(asset);
            }
            client.delete_asset(release, asset.id)?;
        }
        if tried == TRIES {
            return Err(error);
        }
        client.wait(pause(tried));
        tried += 1;
    }
}

/// Checks the answer to an upload, and the bytes of a small file.
fn check_upload(
    client: &GiteaClient<'_>,
    asset: &ReleaseAsset,
    planned: &PlannedAsset,
    options: LookOptions,
) -> Result<(), GiteaError> {
    let lying = |expected: String, actual: String| GiteaError::Lying {
        name: planned.name.clone(),
        expected,
        actual,
    };
    let named = |asset: &str, size: u64| format!("{} of {size} bytes", crate::model::visible_message(asset));
    if asset.name != planned.name || asset.size != planned.size {
        let expected = named(&planned.name, planned.size);
        return Err(lying(expected, named(&asset.name, asset.size)));
    }
    if planned.size <= options.compare_up_to {
        let actual = digest_of(client, asset, planned)?;
        if actual != planned.sha256 {
            return Err(lying(planned.sha256.to_string(), actual.to_string()));
        }
    }
    Ok(())
}

/// The wait after a failed try.
fn pause(tried: u32) -> Duration {
    Duration::from_secs(1 << tried.min(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(name: &str) -> PlannedAsset {
        PlannedAsset {
            name: name.to_owned(),
            source: PathBuf::new(),
            sha256: Sha256Digest::new([1; 32]),
            size: 5,
        }
    }

    fn plan(tag: &str, names: &[&str]) -> Result<PlannedRelease, GiteaError> {
        let commit: GitSha = "0123456789abcdef0123456789abcdef01234567".parse().expect("a commit");
        PlannedRelease::new(tag, commit, "", "", names.iter().map(|n| planned(n)).collect())
    }

    #[test]
    fn names_are_plain_and_unique() {
        plan("v1.0-rc.1+x", &["raw-amd64-disk.raw.zst", "SHA256SUMS"]).expect("good");
        for (tag, names) in [
            ("", &["a"][..]),
            ("-v1", &["a"]),
            ("v1/x", &["a"]),
            ("v1..2", &["a"]),
            ("v1.lock", &["a"]),
            ("v 1", &["a"]),
            ("v1", &["a", "a"]),
            ("v1", &["a\"b"]),
            ("v1", &["../a"]),
            ("v1", &["a\r\nb"]),
        ] {
            assert!(plan(tag, names).is_err(), "{tag:?} {names:?}");
        }
    }

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
