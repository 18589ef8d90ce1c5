//! The files of a project behind a changed input, for the reasons to run a stage.

use super::{
    Project,
    project::below_stages,
    resolve::{ResolvedInput, ResolvedStage, STAGE_DIRECTORY},
};
use crate::{
    graph::{InputSource, Reason},
    model::{Node, RelPath, Tree},
    source::SourceEntry,
    store::Store,
};
use std::collections::BTreeMap;

/// Whether a file is new (`+`), gone (`-`) or another one (`~`), by its path in the project.
type Files = BTreeMap<String, char>;

/// `reasons` with files in place of the inputs that they belong to, wherever the store still has the input as it was in the last run, whose
/// canonical form is `old`.
pub(super) fn name_files(
    project: &Project,
    store: &Store,
    resolved: &ResolvedStage,
    old: &str,
    reasons: Vec<Reason>,
) -> Vec<Reason> {
    let mut files = Files::new();
    let mut named = Vec::new();
    for reason in reasons {
        let found = match &reason {
            Reason::InputChanged { name } => changed_files(project, store, resolved, old, name),
            _ => None,
        };
        match found {
            // A tree that differs in its times alone has another reason beside it.
            Some(found) if !found.is_empty() => files.extend(found),
            _ => named.push(reason),
        }
    }
    if !files.is_empty() {
        let of = |sign| {
            files
                .iter()
                .filter(move |(_, s)| **s == sign)
                .map(|(f, _)| f.clone())
                .collect()
        };
        let (added, removed, changed) = (of('+'), of('-'), of('~'));
        named.insert(
            0,
            Reason::FilesChanged {
                added,
                removed,
                changed,
            },
        );
    }
    named
}

/// What of the files behind the input `name` is not as in the last run. `None` if the input has no files of the project, or if one of its
/// two trees is not in the store.
fn changed_files(project: &Project, store: &Store, resolved: &ResolvedStage, old: &str, name: &str) -> Option<Files> {
    let Some(ResolvedInput::Tree(now)) = resolved.inputs.get(name) else {
        return None;
    };
    let place = place_of(project, resolved, name)?;
    let prefix = format!("input.{name} tree ");
    let was = old.lines().find_map(|line| line.strip_prefix(prefix.as_str()))?;
    let (was, now) = (store.tree(&was.parse().ok()?).ok()?, store.tree(now).ok()?);
    let single = !matches!(project.tree.entry(&place), Ok(Some(SourceEntry::Directory)));
    let path = |below: &RelPath| match single {
        true => place.to_string(),
        false => place.join(below).to_string(),
    };
    let mut files = Files::new();
    for below in was.iter().chain(now.iter()).map(|(below, _)| below) {
        let sign = match (file_at(&was, below), file_at(&now, below)) {
            (None, Some(_)) => '+',
            (Some(_), None) => '-',
            (was, now) if was != now => '~',
            _ => continue,
        };
        files.insert(path(below), sign);
    }
    Some(files)
}

/// The path in the project from which an input's files come.
fn place_of(project: &Project, resolved: &ResolvedStage, name: &str) -> Option<RelPath> {
    if name == STAGE_DIRECTORY {
        return below_stages(&resolved.id.stage).ok();
    }
    let mut inputs = project.graph.file(&resolved.id).inputs_for(resolved.id.arch);
    inputs.find_map(|(input, declared)| match &declared.source {
        InputSource::Files(path) if input.get_ref() == name => Some(path.get_ref().clone()),
        _ => None,
    })
}

/// The content and the permissions of a file or link; directories are there for what is in them.
fn file_at<'a>(tree: &'a Tree, path: &RelPath) -> Option<(&'a Node, u32)> {
    let entry = tree.get(path)?;
    (entry.node != Node::Directory).then_some((&entry.node, entry.meta.mode))
}
