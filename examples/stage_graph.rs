//! Prints the stages that a variant needs, each after those that it depends on.
//!
//! ```text
//! cargo run --example stage_graph -- . kernel-initrd amd64
//! ```

use pnb::{
    graph::closure_of,
    model::{Arch, Variant, chain},
    pipeline::Project,
    source::SourceTree,
};
use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, variant, arch] = &arguments[..] else {
        let _ = writeln!(io::stderr(), "usage: stage_graph PROJECT VARIANT ARCH");
        return ExitCode::from(2);
    };
    match list(Path::new(root), variant, arch) {
        Ok(text) => {
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: failed to {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn list(root: &Path, variant: &str, arch: &str) -> Result<String, Box<dyn std::error::Error>> {
    let (variant, arch): (Variant, Arch) = (variant.parse()?, arch.parse()?);
    let graph = Project::load_graph(&SourceTree::open(root)?)?;
    // A variant is built by the stage of its name.
    let node = graph.node(variant.as_str(), arch)?;
    let closure = closure_of(&graph, &[node])?;
    let mut text = String::new();
    for id in &closure.order {
        let needs: Vec<String> = closure.needs[id].iter().map(ToString::to_string).collect();
        text.push_str(&format!("{id}: {}\n", needs.join(" ")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_comes_after_those_that_it_depends_on() {
        let text = list(Path::new(env!("CARGO_MANIFEST_DIR")), "kernel-initrd", "amd64").expect("a graph");
        let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(": ")).collect();
        let place = |node: &str| lines.iter().position(|(name, _)| *name == node);
        for (at, (node, needs)) in lines.iter().enumerate() {
            for need in needs.split_whitespace() {
                assert!(
                    place(need).is_none_or(|before| before < at),
                    "{node} comes before {need}:\n{text}"
                );
            }
        }
        assert_eq!(
            text.lines().last().and_then(|line| line.split(':').next()),
            Some("kernel-initrd/amd64")
        );
        assert!(list(Path::new(env!("CARGO_MANIFEST_DIR")), "floppy", "amd64").is_err());
    }
}
