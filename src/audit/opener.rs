//! The file of an artifact that carries the root; [`crate::inspect`] takes the root out of it.

use super::root::{OpenError, OpenRoot, OpenedRoot};
use crate::{
    image::Source,
    inspect::{SpoolDirectory, find_root},
    manifest::Manifest,
    model::{ArtifactForm, RelPath},
    store::open_foreign_below,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// The file that carries the root where there is no image.
const INITRAMFS: &str = ArtifactForm::DIRECT_FILES[1];

/// Opens the root of an artifact of any form that carries it as a file system.
#[derive(Clone, Debug)]
pub struct ArtifactRoot {
    /// An existing directory for the root of a compressed archive, several hundred MiB; the file is removed afterwards.
    pub scratch: PathBuf,
}

impl OpenRoot for ArtifactRoot {
    fn open_root(&self, dir: &Path, manifest: &Manifest) -> Result<OpenedRoot, OpenError> {
        let name = match (manifest.form, &manifest.image) {
            (ArtifactForm::KernelInitramfs | ArtifactForm::Network, None) => RelPath::new(INITRAMFS)?,
            (form, Some(image)) if form.has_image() => image.clone(),
            (form, image) => {
                let image = image.as_ref().map(|image| format!(" with the image {image}"));
                let image = image.unwrap_or_default();
                return Err(format!("the form {form}{image} has no root that pnb reads").into());
            }
        };
        let file = open_foreign_below(dir, &name).map_err(|e| format!("open {name}: {e}"))?;
        let source: Source = Arc::new(file);
        let found = find_root(&source, &name.to_string(), &SpoolDirectory::new(&self.scratch))?;
        Ok(OpenedRoot {
            image: Box::new(found.image),
            stated: found.stated,
        })
    }
}
