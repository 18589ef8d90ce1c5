//! The room `registry` against Debian's docker-registry, behind a proxy that makes faults, and beside skopeo.

#[path = "../fixture/docker_registry.rs"]
mod docker_registry;
#[path = "../fixture/fault_proxy.rs"]
mod fault_proxy;
#[path = "../fixture/publish_tools.rs"]
mod publish_tools;

mod blobs;
mod ground;
mod images;
mod login;
mod memory;
mod referrers;
mod tls;
