//! The steps of a release that write: fill a draft, show it.

use super::{
    answers::{GiteaVersion, ReleaseAnswer, ReleaseAsset},
    client::{GiteaClient, said},
    content::{check_upload, digest_of, entry, is_same},
    look::{check_foreign, check_list, check_shown, check_tag, check_target},
    plan::{LookOptions, PlannedAsset, PlannedRelease, ReleaseJournal, ReleaseState, SeenRelease},
};
use crate::{
    publish::{GiteaError, JournalEntry},
    registry::TransferStep,
};
use std::time::Duration;

/// Most tries of an upload, and of finding a release that another has made at the same time.
const TRIES: u32 = 5;

/// Brings exactly the planned files into a draft, which is created if there is no release. A visible release is left alone.
///
/// # Errors
/// As [`super::look_at_release`]; the server refuses a file or gives back other bytes than it got.
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
            Some(asset) => {
                client.moved(TransferStep::There(planned.sha256, planned.size));
                asset.clone()
            }
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
                client.moved(TransferStep::End(planned.sha256));
                return Ok(asset);
            }
            Err(error) if error.is_temporary() => error,
            Err(error) => return Err(error),
        };
        let assets = client.assets(release)?;
        for asset in assets.into_iter().filter(|asset| asset.name == planned.name) {
            if asset.size == planned.size && digest_of(client, &asset, planned)? == planned.sha256 {
                client.moved(TransferStep::End(planned.sha256));
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

/// The wait after a failed try.
fn pause(tried: u32) -> Duration {
    Duration::from_secs(1 << tried.min(5))
}
