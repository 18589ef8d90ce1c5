//! The end of `pnb publish` to servers: the progress of its transfers, what is published, and the commands that verify or boot it.

use super::{
    args::Common,
    closing::{Closing, count},
    command_text::CommandText,
    publication::PublicationArgs,
    report::{Report, size},
};
use indicatif::ProgressBar;
use pnb::{
    manifest::{SIGNATURE_ENDING, SUMS_FILE},
    model::Arch,
    publish::{GiteaRepository, PublishPlan},
    registry::{ImageReference, OnTransfer, TransferStep},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A publication that has ended well.
pub(super) struct PublicationEnd<'a> {
    /// Options of every command.
    pub(super) common: &'a Common,
    /// Options of the publication.
    pub(super) args: &'a PublicationArgs,
    /// Its plan.
    pub(super) plan: &'a PublishPlan,
    /// The repository of the release, if there is a release.
    pub(super) repository: Option<&'a GiteaRepository>,
}

impl PublicationEnd<'_> {
    /// The last lines: what is published where, and the commands that can follow.
    pub(super) fn close(&self, report: &Report) {
        let plan = self.plan;
        let image = self.image();
        if report.json() {
            report.value(serde_json::json!({
                "event": "published", "commit": plan.commit, "image": image, "release": plan.release, "signed": plan.signed,
            }));
        } else {
            image.iter().for_each(|image| report.line(image));
            if let Some(tag) = &plan.release {
                report.line(format_args!("release {tag} of {}", plan.commit));
            }
        }
        let closing = Closing::new(format!("{}, {}", self.sentence(), report.elapsed()))
            .nexts(self.next())
            .field("commit", plan.commit.as_str())
            .field("image", image)
            .field("release", plan.release.clone())
            .field("signed", plan.signed);
        report.close("publish", &closing);
    }

    /// The last lines of a dry run.
    pub(super) fn close_dry_run(&self, report: &Report) {
        let bytes = self.plan.bytes();
        let sentence = format!(
            "nothing was written; a publication of commit {} would send at most {}, {}",
            self.plan.commit,
            size(bytes),
            report.elapsed()
        );
        let closing = Closing::new(sentence)
            .next(self.common.line.without_flag("--dry-run"))
            .field("bytes", bytes);
        report.close("publish", &closing);
    }

    /// Where to, for the line of progress.
    pub(super) fn place(&self) -> String {
        let disk = self.plan.disks.first().map(|disk| &disk.repository);
        let images = self.plan.image.as_ref().map(|image| &image.repository).or(disk);
        match (images, &self.plan.release) {
            (Some(images), _) => images.to_string(),
            (None, release) => format!("release {}", release.as_deref().unwrap_or_default()),
        }
    }

    /// The OCI image by its digest.
    fn image(&self) -> Option<String> {
        let image = self.plan.image.as_ref()?;
        Some(format!("{}@sha256:{}", image.repository, image.index))
    }

    fn sentence(&self) -> String {
        let plan = self.plan;
        let mut parts = Vec::new();
        if let Some(image) = &plan.image {
            let archs: Vec<&str> = image.manifests.iter().map(|manifest| manifest.arch.as_str()).collect();
            parts.push(format!("the image for {}", archs.join(" and ")));
        }
        if !plan.disks.is_empty() {
            parts.push(count(plan.disks.len(), "disk image"));
        }
        if let Some(tag) = &plan.release {
            parts.push(format!("the release {tag}"));
        }
        let what = match &parts[..] {
            [before @ .., last] if !before.is_empty() => format!("{} and {last}", before.join(", ")),
            _ => parts.concat(),
        };
        match plan.signed {
            true => format!("published and signed {what} of commit {}", plan.commit),
            false => format!("published {what} of commit {} by digest", plan.commit),
        }
    }

    /// The commands that can follow: they verify the image, the disk images and the release, and boot the image.
    fn next(&self) -> Vec<CommandText> {
        let plan = self.plan;
        let mut next = Vec::new();
        if let Some((image, name)) = plan.image.as_ref().zip(self.image()) {
            if plan.signed {
                next.push(self.verify(&name, Some(&image.repository)));
            }
            let arch = image.manifests.first().map(|manifest| manifest.arch.as_str());
            let amd64 = image.manifests.iter().any(|manifest| manifest.arch == Arch::Amd64);
            let boot = self.common.command("boot").arg(format!("oci:{name}"));
            let boot = boot.option("--arch", arch.filter(|_| !amd64));
            next.push(self.args.servers.repeated(self.common, &image.repository, boot));
        }
        for disk in &plan.disks {
            let name = format!("{}:{}", disk.repository, plan.commit);
            next.push(self.verify(&name, Some(&disk.repository)));
        }
        if let Some((tag, repository)) = plan.release.as_ref().zip(self.repository) {
            // Every file of a release is in its list of checksums, and has a signature of its own beside it.
            let files = [SUMS_FILE.to_owned(), format!("{SUMS_FILE}{SIGNATURE_ENDING}")];
            let urls = files.map(|file| repository.file_of_release(tag, &file));
            next.push(CommandText::of("curl", ["-fL", "--remote-name-all"]).args(urls));
            next.push(self.verify(SUMS_FILE, None));
            next.push(CommandText::of("sha256sum", ["--check", "--ignore-missing", SUMS_FILE]));
        }
        next
    }

    /// `pnb verify-signature` of a file, or of an image in a registry, with the signer of this publication.
    fn verify(&self, what: &str, image: Option<&ImageReference>) -> CommandText {
        let command = self
            .common
            .command("verify-signature")
            .arg(what)
            .option("--identity", self.args.identity.as_ref())
            .option("--issuer", self.args.issuer.as_ref())
            .option("--trusted-root", self.args.trusted_root.as_ref());
        match image {
            Some(image) => self.args.servers.repeated(self.common, image, command),
            None => command,
        }
    }
}

/// Files of one kind on their way: blobs of images, or files of a release.
#[derive(Clone, Copy, Default, Debug)]
struct Moved {
    /// Bytes of files that arrived whole.
    bytes: u64,
    /// The number of these files.
    files: usize,
    /// Bytes of the file that is on its way.
    current: u64,
    /// Time in which the files that arrived were moved.
    time: Duration,
    /// When the present file began.
    begun: Option<Instant>,
}

impl Moved {
    /// Counts a step; `bar` shows the bytes of all kinds.
    fn step(&mut self, step: TransferStep, bar: &ProgressBar) {
        match step {
            TransferStep::Begin(..) => {
                // A file that begins again is sent from its first byte.
                bar.dec(self.current);
                self.current = 0;
                #[expect(clippy::disallowed_methods, reason = "the rate at which files are sent")]
                let now = Instant::now();
                self.begun = Some(now);
            }
            TransferStep::Bytes(bytes) => {
                self.current += bytes;
                bar.inc(bytes);
            }
            TransferStep::End(_) => {
                self.files += 1;
                self.bytes += self.current;
                self.current = 0;
                self.time += self.begun.take().map_or(Duration::ZERO, |begun| begun.elapsed());
            }
            TransferStep::There(_, size) => bar.inc(size),
        }
    }

    fn text(&self, thing: &str) -> String {
        let rate = self.bytes as f64 / self.time.as_secs_f64().max(0.001);
        // A rate is a positive number; the conversion is saturating.
        let rate = size(rate as u64);
        format!("{} sent, {} at {rate}/s", count(self.files, thing), size(self.bytes))
    }
}

/// The progress of transfers: bytes and rate.
pub(super) struct Transfers {
    bar: ProgressBar,
    blobs: Arc<Mutex<Moved>>,
    files: Arc<Mutex<Moved>>,
}

impl Transfers {
    /// Shown by `bar`.
    pub(super) fn new(bar: ProgressBar) -> Self {
        Self {
            bar,
            blobs: Arc::default(),
            files: Arc::default(),
        }
    }

    fn receiver(&self, moved: &Arc<Mutex<Moved>>) -> OnTransfer {
        let (moved, bar) = (moved.clone(), self.bar.clone());
        Arc::new(move |step| moved.lock().unwrap_or_else(PoisonError::into_inner).step(step, &bar))
    }

    /// Receives the steps of transfers to registries.
    pub(super) fn of_registries(&self) -> OnTransfer {
        self.receiver(&self.blobs)
    }

    /// Receives the steps of uploads to a release.
    pub(super) fn of_release(&self) -> OnTransfer {
        self.receiver(&self.files)
    }

    /// The lines at the end: what was sent, or that nothing was. `plan` says where to.
    pub(super) fn lines(&self, plan: &PublishPlan) -> Vec<String> {
        let moved = |moved: &Mutex<Moved>| *moved.lock().unwrap_or_else(PoisonError::into_inner);
        let (blobs, files) = (moved(&self.blobs), moved(&self.files));
        let mut lines = Vec::new();
        if plan.image.is_some() || !plan.disks.is_empty() {
            lines.push(match blobs.files {
                0 => "no blob was sent: the registries have them all".to_owned(),
                _ => blobs.text("blob"),
            });
        }
        if plan.release.is_some() {
            lines.push(match files.files {
                0 => "no file was sent: the release has them all".to_owned(),
                _ => files
                    .text("file of the release")
                    .replace("file of the releases", "files of the release"),
            });
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pnb::model::Sha256Digest;

    #[test]
    fn bytes_that_are_sent_again_count_once() {
        let digest = Sha256Digest::new([7; 32]);
        let transfers = Transfers::new(ProgressBar::hidden());
        transfers.bar.set_length(100);
        let (blob, file) = (transfers.of_registries(), transfers.of_release());
        for step in [
            TransferStep::Begin(digest, 40),
            TransferStep::Bytes(30),
            TransferStep::Begin(digest, 40),
            TransferStep::Bytes(40),
        ] {
            file(step);
        }
        assert_eq!(transfers.bar.position(), 40);
        file(TransferStep::End(digest));
        blob(TransferStep::There(digest, 50));
        assert_eq!(transfers.bar.position(), 90);
        let files = *transfers.files.lock().expect("whole");
        assert_eq!((files.files, files.bytes, files.current), (1, 40, 0));
        assert_eq!(transfers.blobs.lock().expect("whole").files, 0);
        assert!(
            files.text("file").starts_with("1 file sent, 40 B at "),
            "{}",
            files.text("file")
        );
    }
}
