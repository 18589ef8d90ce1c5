//! What a node's agent gets, judged at the other end: a double of the platform sees who enrolls. The agent is `tests/node/agent`, which looks for
//! an identity where the platform's own agent looks. It runs in emulated machines (`machine`), and without one (`beside`), where
//! agent and double are held against each other.

#[path = "../fixture/initramfs.rs"]
#[expect(dead_code, reason = "shared with the tests that change the root")]
mod initramfs;
#[path = "../fixture/own_loader.rs"]
mod own_loader;
#[path = "../build/project.rs"]
#[expect(dead_code, reason = "shared with the tests of whole builds")]
mod project;
#[path = "../publish/server.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of publishing, which put faults at requests"
)]
mod server;
#[path = "../publish/tls.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of remote caches, whose clients have certificates"
)]
mod tls;

mod beside;
mod csr;
mod machine;
mod platform;
