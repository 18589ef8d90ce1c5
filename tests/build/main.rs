//! The product as its users meet it: one real build, audited, booted, changed, broken.
//!
//! The packages come from the user's own store, and over the network into it. What takes long is ignored unless asked for:
//! `cargo test --test build -- --include-ignored` adds a second build elsewhere as another user, arm64, and more boots.

#![expect(
    clippy::duplicate_mod,
    reason = "the tools of the sandbox and those beside it have the trees of stages"
)]

mod arm64;
mod audit;
mod base;
mod boot;
mod cgroup2;
mod change;
#[path = "../fixture/docker_registry.rs"]
mod docker_registry;
mod export;
mod formats;
#[path = "../fixture/initramfs.rs"]
#[expect(dead_code, reason = "shared with the tests that add files")]
mod initramfs;
mod kernel;
mod media;
mod oci;
#[path = "../fixture/own_loader.rs"]
mod own_loader;
mod project;
#[path = "../fixture/publish_tools.rs"]
mod publish_tools;
#[path = "../fixture/raw_package.rs"]
#[expect(dead_code, reason = "shared with the tests of packages, which make every kind")]
mod raw_package;
mod repeat;
mod repro;
mod screen;
mod scripts;
#[path = "../source/project.rs"]
#[expect(dead_code, reason = "shared with the tests of checkouts, which use more of it")]
mod small;
#[path = "../fixture/strace.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of faults, which count all calls of a name"
)]
mod strace;
mod together;
#[path = "../fixture/tools.rs"]
mod tools;
