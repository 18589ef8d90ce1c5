//! Servers of the Remote Execution API as others run them, and doubles with faults, each at the other end of a small client.

#[path = "../fixture/own_loader.rs"]
mod own_loader;
#[path = "../source/project.rs"]
#[expect(dead_code, reason = "shared with the tests of checkouts, which use more of it")]
mod project;
#[path = "../fixture/stage_tree.rs"]
mod stage_tree;
#[path = "../publish/tls.rs"]
#[expect(dead_code, reason = "shared with the tests of publishing, whose doubles speak TLS")]
mod tls;

mod builders;
mod buildgrid;
mod busy;
mod casd;
mod check;
mod client;
mod clients;
mod double;
mod elsewhere;
mod engine;
mod equal;
mod farm;
mod faults;
mod ground;
mod http_cache;
mod interrupt;
mod lies;
mod planned;
mod process;
mod rivals;
mod shared;
mod workplace;
