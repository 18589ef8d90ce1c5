//! Names of stages and variants that the project does not have, or not for the architecture, and the commands that were meant.

use super::{
    Exit,
    args::{AskedStage, Common},
    command_text::CommandText,
    failure::{Failure, Fatal},
};
use pnb::{
    graph::GraphError,
    model::{Arch, Hint, NodeId, Variant, nearest},
    pipeline::Project,
};
use std::{borrow::Cow, collections::BTreeSet};

/// Why nothing can be selected; each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub(super) enum SelectionError {
    #[error("find the stage {name:?}: the project has none of this name")]
    NoStage {
        name: String,
        meant: Option<CommandText>,
        known: Vec<String>,
    },
    #[error("find the variant {variant}: no stage of that name declares one")]
    NoVariant {
        variant: Variant,
        meant: Option<CommandText>,
        known: Vec<String>,
    },
    #[error("build {name} for {arch}: it is only for {only}")]
    OtherArch {
        name: String,
        arch: Arch,
        only: String,
        meant: CommandText,
    },
    #[error("select variants and stages at once: --stage names the stages instead of variants")]
    Both {
        variants: Box<CommandText>,
        stages: Box<CommandText>,
    },
    #[error("select the stage {stage} for {arch}: it names another architecture")]
    TwoArches {
        stage: AskedStage,
        arch: Arch,
        meant: CommandText,
    },
}

impl Fatal for SelectionError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

impl Hint for SelectionError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let way = match self {
            Self::NoStage { meant: Some(meant), .. }
            | Self::NoVariant { meant: Some(meant), .. }
            | Self::OtherArch { meant, .. }
            | Self::TwoArches { meant, .. } => format!("`{meant}`"),
            Self::NoStage { known, .. } => format!("the stages are {}", known.join(", ")),
            Self::NoVariant { known, .. } => format!("the variants are {}", known.join(", ")),
            Self::Both { variants, stages } => format!("`{variants}` or `{stages}`"),
        };
        Some(way.into())
    }
}

/// Refuses variants and stages on one command line. A variable VARIANT beside `--stage` is no contradiction: it may be set for all commands.
pub(super) fn not_both(common: &Common) -> Result<(), SelectionError> {
    let typed = |name: &str| common.typed_options.contains(name);
    if !typed("variant") || !typed("stage") {
        return Ok(());
    }
    Err(SelectionError::Both {
        variants: Box::new(common.line.without_option("--stage")),
        stages: Box::new(common.line.without_option("--variant")),
    })
}

/// The node of a stage that was asked for; `arch` is that of the options.
pub(super) fn stage_node(
    common: &Common,
    project: &Project,
    stage: &AskedStage,
    arch: Arch,
) -> Result<NodeId, Failure> {
    if let Some(own) = stage.arch.filter(|own| *own != arch)
        && common.typed_options.contains("arch")
    {
        return Err(SelectionError::TwoArches {
            stage: stage.clone(),
            arch,
            meant: common.line.with_option("--arch", own.as_str()),
        }
        .into());
    }
    let arch = stage.arch.unwrap_or(arch);
    let line = &common.line;
    project.graph.node(&stage.name, arch).map_err(|error| match error {
        GraphError::UnknownStage { name, known } => {
            let right = nearest(&name, known.iter().map(String::as_str));
            let right = right.map(|right| AskedStage {
                name: right.to_owned(),
                arch: stage.arch,
            });
            let words = right.and_then(|right| line.corrected(&stage.to_string(), &[&right.to_string()]));
            let meant = words.map(CommandText::new);
            SelectionError::NoStage { name, meant, known }.into()
        }
        GraphError::WrongArch { stage: name, only, .. } => {
            let own = AskedStage {
                name: name.clone(),
                arch: only.parse().ok(),
            };
            let words = stage
                .arch
                .and_then(|_| line.corrected(&stage.to_string(), &[&own.to_string()]));
            let meant = words.map_or_else(|| line.with_option("--arch", &only), CommandText::new);
            SelectionError::OtherArch {
                name,
                arch,
                only,
                meant,
            }
            .into()
        }
        other => other.into(),
    })
}

/// The error that no stage declares a variant that was asked for.
pub(super) fn unknown_variant(common: &Common, variant: Variant, declared: &BTreeSet<Variant>) -> Failure {
    let known: Vec<String> = declared.iter().map(ToString::to_string).collect();
    let right = nearest(variant.as_str(), known.iter().map(String::as_str));
    let meant = right.map(|right| match common.line.corrected(variant.as_str(), &[right]) {
        Some(words) => CommandText::new(words),
        None => common.line.text().variable("VARIANT", right),
    });
    SelectionError::NoVariant { variant, meant, known }.into()
}

/// Why the project has no node for a variant that was asked for; `several` when several architectures were.
pub(super) fn no_variant(common: &Common, several: bool, error: GraphError) -> Failure {
    match error {
        GraphError::WrongArch { stage, arch, only } => {
            let right = if several { "all" } else { &only };
            SelectionError::OtherArch {
                name: stage,
                arch,
                meant: common.line.with_option("--arch", right),
                only,
            }
            .into()
        }
        other => other.into(),
    }
}
