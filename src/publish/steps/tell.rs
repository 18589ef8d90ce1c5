//! Messages to the platform, one for each disk image with a webhook.

use super::{PublishState, PublishStep, Publisher, publisher::repository_name};
use crate::publish::{ArtifactBlob, DiskImageMessage, JournalEntry, MessageState, PublishCause, shown_webhook, tell};

impl Publisher<'_> {
    pub(super) fn tell_step(&mut self) -> Result<(), PublishCause> {
        let mut failed = None;
        for index in 0..self.parts.webhooks.len() {
            // A webhook that is down does not keep the others from being told.
            if let Err(cause) = self.tell_one(index) {
                failed.get_or_insert(cause);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn tell_one(&mut self, index: usize) -> Result<(), PublishCause> {
        let hook = &self.parts.webhooks[index];
        let Some(disk) = self
            .plan
            .disks
            .iter()
            .find(|disk| disk.platform_name == hook.platform_name)
        else {
            return Ok(());
        };
        let message = DiskImageMessage {
            platform_name: disk.platform_name.clone(),
            oci_ref: format!("{}:{}", repository_name(&disk.repository), self.plan.commit),
            sha256: disk.file.sha256,
            size_bytes: disk.file.size,
            git_sha: self.plan.commit.clone(),
            firmware_ref: hook.firmware_ref.clone(),
            arch: disk.file.target.arch,
        };
        let told = JournalEntry::Told {
            platform_name: disk.platform_name.to_string(),
            body: ArtifactBlob::of(&message.to_json()).sha256,
        };
        let what = format!("{} at {}", disk.platform_name, shown_webhook(&hook.address));
        if self.parts.journal.entries().contains(&told) {
            self.say(PublishStep::Tell, PublishState::There, what);
            return Ok(());
        }
        let state =
            tell(&self.parts.http, &hook.address, &hook.key, &message).map_err(|source| PublishCause::Webhook {
                platform_name: disk.platform_name.to_string(),
                source,
            })?;
        let state = match state {
            MessageState::Queued => PublishState::Done,
            MessageState::Known => PublishState::There,
        };
        self.parts.journal.add(told)?;
        self.say(PublishStep::Tell, state, what);
        Ok(())
    }
}
