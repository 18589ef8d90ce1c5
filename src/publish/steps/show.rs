//! The names: tags of registries, then the release, which makes the git tag.

use super::{PublishState, PublishStep, Publisher, publisher::repository_name};
use crate::{
    model::Sha256Digest,
    publish::{
        ArtifactBlob, JournalEntry, PublishCause,
        referrer::{INDEX_TYPE, MANIFEST_TYPE},
        show_release,
    },
    registry::ImageReference,
};

impl Publisher<'_> {
    pub(super) fn show_step(&mut self) -> Result<(), PublishCause> {
        if let Some(image) = &self.plan.image {
            for tag in self.tags(true) {
                self.put_tag(&image.repository, &tag, INDEX_TYPE, &image.document.bytes)?;
            }
        }
        for disk in self.disks() {
            let manifest = self.disk_manifest(disk)?;
            for tag in self.tags(false) {
                self.put_tag(&disk.repository, &tag, MANIFEST_TYPE, &manifest)?;
            }
        }
        let Some(release) = self.planned_release()? else {
            return Ok(());
        };
        let (Some(gitea), Some(answer)) = (&self.parts.gitea, &self.filled) else {
            return Ok(());
        };
        // Names and sizes are compared once more; the bytes were compared when the draft was filled.
        show_release(gitea, &release, answer)?;
        let what = format!("release {} on {}", release.tag(), gitea.repository());
        self.parts.journal.add(JournalEntry::Shown { release: answer.id })?;
        self.say(PublishStep::Show, PublishState::Done, what);
        Ok(())
    }

    /// Sets a tag; one that names another manifest is never moved.
    fn put_tag(
        &mut self,
        repository: &ImageReference,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), PublishCause> {
        let name = repository_name(repository);
        let digest: Sha256Digest = ArtifactBlob::of(bytes).sha256;
        let client = self.client(repository)?;
        if let Some(actual) = client.tag_digest(tag)?.filter(|actual| *actual != digest) {
            return Err(PublishCause::Taken {
                reference: format!("{name}:{tag}"),
                expected: digest.to_string(),
                actual: actual.to_string(),
            });
        }
        let new = client.put_tag(tag, media_type, bytes, false)?;
        let state = if new { PublishState::Done } else { PublishState::There };
        self.say(PublishStep::Show, state, format!("{name}:{tag}"));
        Ok(self.parts.journal.add(JournalEntry::Tag {
            repository: name,
            tag: tag.to_owned(),
            digest,
        })?)
    }
}
