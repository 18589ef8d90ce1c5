//! `[variant]` in a stage file: the stage's outputs are an artifact, which is exported to `images/<stage>/<arch>/`.

use super::{DeclaredOutput, StageArch, StageOutputKind};
use crate::model::{Arch, ArtifactForm, RelPath};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The declaration that a stage makes a variant.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DeclaredVariant {
    /// The form of the artifact.
    pub form: ArtifactForm,
    /// The output that is the image, for the forms that consist of one.
    pub image: Option<RelPath>,
}

impl DeclaredVariant {
    /// Checks the declaration against the rest of the stage file; an error is the problem in words.
    pub(super) fn check(
        &self,
        arch: StageArch,
        only: &[Arch],
        outputs: &BTreeMap<String, DeclaredOutput>,
    ) -> Result<(), String> {
        if arch != StageArch::Target {
            return Err("a variant is made for the target; its stage has no \"arch\"".to_owned());
        }
        let form = self.form;
        if let Some(arch) = only.iter().find(|arch| !form.supports(**arch)) {
            let supported: Vec<String> = Arch::ALL
                .into_iter()
                .filter(|arch| form.supports(*arch))
                .map(|arch| format!("{:?}", arch.as_str()))
                .collect();
            return Err(format!(
                "no {arch} machine boots the form {form}; add only = [{}] to the stage",
                supported.join(", ")
            ));
        }
        let file_for_all = |name: &str| {
            let found = outputs.get(name).filter(|output| output.kind == StageOutputKind::File);
            found.is_some_and(|output| only.iter().all(|arch| output.only.contains(arch)))
        };
        let require = |name: &str| match file_for_all(name) {
            true => Ok(()),
            false => Err(format!(
                "the form {form} needs the file {name:?} among the outputs, for every architecture of the stage"
            )),
        };
        match (&self.image, form.has_image()) {
            (Some(image), true) => require(&image.to_string())?,
            (None, true) => {
                return Err(format!(
                    "the form {form} needs image = \"<the output that is the image>\""
                ));
            }
            (Some(_), false) => return Err(format!("the form {form} has no image; leave out \"image\"")),
            (None, false) => {}
        }
        match form {
            ArtifactForm::KernelInitramfs | ArtifactForm::Network => {
                ArtifactForm::DIRECT_FILES.into_iter().try_for_each(require)
            }
            ArtifactForm::OciImage => match outputs.get(ArtifactForm::LAYOUT_DIRECTORY) {
                Some(output) if output.kind == StageOutputKind::Tree && output.export => Ok(()),
                _ => Err(format!(
                    "the form {form} needs the output oci = {{ kind = \"tree\", export = true }}"
                )),
            },
            _ if outputs.values().any(DeclaredOutput::is_exported) => Ok(()),
            _ => Err(
                "a variant has at least one output that is exported: a file, or a tree with export = true".to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse_stage;

    #[test]
    fn a_declaration_fits_the_outputs_of_its_stage() {
        let stage = |head: &str, variant: &str, outputs: &str| {
            let text = format!("summary = \"x\"\nwriter = \"w\"\n{head}\n[variant]\n{variant}\n[outputs]\n{outputs}\n");
            parse_stage(&text, "stages/x/stage.toml")
                .map(drop)
                .map_err(|e| e.to_string())
        };
        let disk = "\"a.img\" = { kind = \"file\" }";
        let files = "kernel = { kind = \"file\" }\n\"initramfs.cpio.zst\" = { kind = \"file\" }";
        let layout = "oci = { kind = \"tree\", export = true }";
        let only = "only = [\"arm64\"]";
        for (head, variant, outputs) in [
            ("", "form = \"raw-disk\"\nimage = \"a.img\"", disk),
            ("", "form = \"kernel-initramfs\"", files),
            ("", "form = \"oci-image\"", layout),
            ("", "form = \"other\"", disk),
            (only, "form = \"pi-card\"\nimage = \"a.img\"", disk),
        ] {
            assert_eq!(stage(head, variant, outputs), Ok(()), "{variant}");
        }
        for (head, variant, outputs, problem) in [
            (
                "",
                "form = \"vmdk\"",
                disk,
                "line 5: unknown variant `vmdk`, expected one of `kernel-initramfs`, `raw-disk`",
            ),
            (
                "",
                "form = \"raw-disk\"",
                disk,
                "needs image = \"<the output that is the image>\"",
            ),
            (
                "",
                "form = \"raw-disk\"\nimage = \"b.img\"",
                disk,
                "needs the file \"b.img\" among the outputs",
            ),
            (
                "",
                "form = \"raw-disk\"\nimage = \"oci\"",
                layout,
                "needs the file \"oci\" among the outputs",
            ),
            (
                "",
                "form = \"raw-disk\"\nimage = \"a.img\"",
                "\"a.img\" = { kind = \"file\", only = [\"arm64\"] }",
                "for every architecture of the stage",
            ),
            (
                "",
                "form = \"other\"\nimage = \"a.img\"",
                disk,
                "the form other has no image",
            ),
            (
                "",
                "form = \"network\"",
                disk,
                "needs the file \"kernel\" among the outputs",
            ),
            (
                "",
                "form = \"oci-image\"",
                disk,
                "needs the output oci = { kind = \"tree\", export = true }",
            ),
            (
                "",
                "form = \"other\"",
                "a = { kind = \"tree\" }",
                "at least one output that is exported",
            ),
            (
                "",
                "form = \"pi-card\"\nimage = \"a.img\"",
                disk,
                "no amd64 machine boots the form pi-card; add only = [\"arm64\"]",
            ),
            (
                "arch = \"build\"",
                "form = \"other\"",
                disk,
                "a variant is made for the target",
            ),
        ] {
            let error = stage(head, variant, outputs).expect_err(problem);
            assert!(error.contains(problem), "{error}");
        }
    }
}
