//! Modules of a node, in machines: nginx as a module that answers over HTTP, and every way in which a module or a list can be wrong.
//!
//! A test here makes modules with pnb and hostile ones by changing bytes, and lays them into the share of a machine.

#[path = "../fixture/initramfs.rs"]
#[expect(dead_code, reason = "shared with the tests that change the root")]
mod initramfs;
#[path = "../build/project.rs"]
#[expect(dead_code, reason = "shared with the tests of whole builds, which use more of it")]
mod project;

mod arm64;
mod cases;
mod commands;
mod disk;
mod good;
mod ground;
mod hostile;
mod many;
