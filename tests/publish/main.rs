//! `pnb publish` and the room behind it, judged at the other end: what lies in the directory, what a server got.

#[path = "../fixture/check_tools.rs"]
mod check_tools;
#[path = "../fixture/mod.rs"]
mod fixture;
#[path = "../fixture/strace.rs"]
mod strace;

mod journal;
mod layout;
