//! The look at all servers: every refusal that can be had before the first write.

use super::{PublishState, PublishStep, Publisher, publisher::repository_name};
use crate::{
    model::Sha256Digest,
    publish::{JournalEntry, PlanError, PublishCause, PublishedDisk, look_at_release},
    registry::{ImageReference, RegistryAccess},
};

impl Publisher<'_> {
    pub(super) fn look_step(&mut self) -> Result<(), PublishCause> {
        self.load_kept()?;
        self.adopt_beside()?;
        if let Some(image) = &self.plan.image {
            self.look_at_repository(&image.repository, Some(image.index), None)?;
        }
        for disk in self.disks() {
            self.look_at_repository(&disk.repository, None, Some(disk))?;
        }
        if let Some(signing) = &self.parts.signing {
            let claims = signing.signer.look()?;
            let what = format!("identity of {}", claims.issuer);
            self.say(PublishStep::Look, PublishState::Done, what);
        }
        if let (Some(gitea), Some(release)) = (&self.parts.gitea, self.planned_release()?) {
            let seen = look_at_release(gitea, &release, self.parts.limits, &self.parts.journal)?;
            let what = format!("release {} on {}", release.tag(), gitea.repository());
            self.say(PublishStep::Look, PublishState::Done, what);
            for doubt in seen.doubts {
                self.say(PublishStep::Look, PublishState::Planned, doubt);
            }
        }
        for hook in &self.parts.webhooks {
            let known = self
                .plan
                .disks
                .iter()
                .any(|disk| disk.platform_name == hook.platform_name);
            if !known {
                return Err(PlanError::Request {
                    problem: format!("a webhook is for {}, and no image has this name", hook.platform_name),
                }
                .into());
            }
        }
        Ok(())
    }

    /// Asks for the login, and for what the commit's tag names. `expected` is the digest that it may name; without one, the journal must
    /// have set it, or it must name `disk` with signatures of the same signer.
    fn look_at_repository(
        &mut self,
        repository: &ImageReference,
        expected: Option<Sha256Digest>,
        disk: Option<&PublishedDisk>,
    ) -> Result<(), PublishCause> {
        let name = repository_name(repository);
        let tags = self.tags(expected.is_some());
        let journal: Vec<JournalEntry> = self.parts.journal.entries().to_vec();
        let client = self.client(repository)?;
        client.ping()?;
        client.login(RegistryAccess::Push)?;
        for tag in tags {
            let Some(actual) = self.client(repository)?.tag_digest(&tag)? else {
                continue;
            };
            let ours = JournalEntry::Tag {
                repository: name.clone(),
                tag: tag.clone(),
                digest: actual,
            };
            if expected == Some(actual) || journal.contains(&ours) {
                continue;
            }
            if let Some(disk) = disk
                && let Some(found) = self.client(repository)?.manifest(&actual)?
                && self.adopt_disk(disk, &found)?
            {
                continue;
            }
            return Err(PublishCause::Taken {
                reference: format!("{name}:{tag}"),
                expected: expected.map_or_else(
                    || "no tag, or this disk signed by the same signer".to_owned(),
                    |d| d.to_string(),
                ),
                actual: actual.to_string(),
            });
        }
        self.say(PublishStep::Look, PublishState::Done, format!("registry {name}"));
        Ok(())
    }

    /// The tags of a repository: the commit, and for the OCI image the tag of the release.
    pub(super) fn tags(&self, image: bool) -> Vec<String> {
        let mut tags = vec![self.plan.commit.to_string()];
        tags.extend(self.plan.release.clone().filter(|tag| image && *tag != tags[0]));
        tags
    }
}
