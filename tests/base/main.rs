//! The base image: its pin, its blobs from mirrors and registries, its refusals, and its application in a stage.
//!
//! The images are made here, layer by layer, and the project has two small stages; tests/build/base.rs has the root on a base image.

#[path = "../fixture/docker_registry.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of registries, which also look at what is stored"
)]
mod docker_registry;
#[path = "../fixture/fault_proxy.rs"]
#[expect(dead_code, reason = "shared with the tests of registries, which use more of it")]
mod fault_proxy;
#[path = "../fixture/publish_tools.rs"]
mod publish_tools;

mod apply;
mod ground;
mod places;
mod refusals;
