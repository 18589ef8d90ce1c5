//! Prints the stages that a variant needs, each after those that it depends on.
//!
//! ```text
//! cargo run --example stage_graph -- . kernel-initrd amd64
//! ```

use pnb::{
    graph::closure_of,
    model::{Arch, Variant, chain},
    pipeline::Project,
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
    let graph = Project::load_graph(root)?;
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
