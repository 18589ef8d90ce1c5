//! `pnb serve` and its servers, asked by clients that behave, and by some that do not.

#[path = "../fixture/check_tools.rs"]
mod check_tools;

mod client;
mod http;
mod link;
mod lossy;
mod names;
mod program;
mod tftp;
