//! Artifacts that are hostile, damaged, cut, or written in a way that pnb itself never uses: each is shown right, or its problem is stated,
//! and none costs more than its size allows.

mod archives;
mod corpus;
mod disks;
mod ext;
mod fat;
mod iso;
mod journal;
mod programs;
mod streams;
#[path = "../fixture/tools.rs"]
mod tools;
mod work;

use pnb::{
    image::Source,
    inspect::{Comparison, Part, SpoolDirectory, SurveyNode, diff, open, survey},
};
use std::sync::Arc;

fn scratch() -> SpoolDirectory {
    SpoolDirectory::new("/tmp")
}

fn part(bytes: &[u8]) -> Part {
    let source: Source = Arc::new(bytes.to_vec());
    open(source, "x").expect("in memory")
}

/// Everything in `bytes`.
fn looked(bytes: &[u8]) -> SurveyNode {
    survey(&part(bytes), &scratch(), 16, true).expect("in memory")
}

fn compared(a: &[u8], b: &[u8]) -> Comparison {
    diff((&part(a), None), (&part(b), None), &scratch(), 1000).expect("in memory")
}

fn child<'a>(node: &'a SurveyNode, name: &str) -> &'a SurveyNode {
    let found = node.children.iter().find(|c| c.name == name);
    found.unwrap_or_else(|| unreachable!("no {name:?} in {node:#?}"))
}

fn names(node: &SurveyNode) -> Vec<&str> {
    node.children.iter().map(|c| c.name.as_str()).collect()
}

fn problem(node: &SurveyNode) -> &str {
    node.problem.as_deref().unwrap_or_default()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(bytes))
}

/// Whether this is the content of the node.
fn holds(node: &SurveyNode, content: &[u8]) -> bool {
    node.size == content.len() as u64 && node.sha256.is_some_and(|sum| sum.to_string() == sha256(content))
}

/// All problems, of the whole and of every part.
fn problems(node: &SurveyNode) -> Vec<String> {
    let mut found: Vec<String> = node.problem.iter().cloned().collect();
    found.extend(node.children.iter().flat_map(problems));
    found
}

fn count(node: &SurveyNode) -> u64 {
    1 + node.children.iter().map(count).sum::<u64>()
}

/// Bytes that differ from block to block.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}
