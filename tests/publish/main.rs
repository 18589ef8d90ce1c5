//! `pnb publish` and the room behind it, judged at the other end: what lies in the directory, what a server got.

#![expect(
    clippy::duplicate_mod,
    reason = "the tools of the sandbox and those beside it have the trees of stages"
)]

#[path = "../fixture/disks.rs"]
mod disks;
#[path = "../fixture/docker_registry.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of registries, which look into its storage"
)]
mod docker_registry;
#[path = "../fixture/fault_proxy.rs"]
#[expect(dead_code, reason = "shared with the tests of registries, which use more of it")]
mod fault_proxy;
#[path = "../fixture/mod.rs"]
mod fixture;
#[path = "../fixture/publish_tools.rs"]
mod publish_tools;
#[path = "../fixture/python_packages.rs"]
mod python_packages;
#[path = "../fixture/sigstore.rs"]
#[expect(dead_code, reason = "shared with the tests of signatures, which use more of it")]
mod sigstore;
#[path = "../fixture/strace.rs"]
#[expect(dead_code, reason = "shared with the tests of exports, which trace calls first")]
mod strace;

mod artifacts;
mod gitea;
mod interrupted;
mod journal;
mod large;
mod layout;
mod platform;
mod python;
mod release;
mod server;
mod site;
#[expect(
    dead_code,
    reason = "shared with the tests of nodes, whose platform issues certificates"
)]
mod tls;
mod unsigned;
mod webhook;
mod whole;

// The services that sign take their tools from there.
use publish_tools::stage_tree;
