//! The draft of the release, with every file and its signature.

use super::{PublishState, PublishStep, Publisher};
use crate::publish::{PublishCause, fill_release, look_at_release};

impl Publisher<'_> {
    pub(super) fn release_step(&mut self) -> Result<(), PublishCause> {
        let Some(release) = self.planned_release()? else {
            return Ok(());
        };
        let Some(gitea) = &self.parts.gitea else { return Ok(()) };
        // The first look did not know the signatures.
        let seen = look_at_release(gitea, &release, self.parts.limits, &self.parts.journal)?;
        let answer = fill_release(gitea, &release, &seen, self.parts.limits, &mut self.parts.journal)?;
        let what = format!("draft {} of {} on {}", answer.id, release.tag(), gitea.repository());
        self.filled = Some(answer);
        self.say(PublishStep::Release, PublishState::Done, what);
        Ok(())
    }
}
