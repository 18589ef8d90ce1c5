//! `pnb publish` and the room behind it, judged at the other end: what lies in the directory, what a server got.

#[path = "../fixture/mod.rs"]
mod fixture;
#[path = "../fixture/python_packages.rs"]
mod python_packages;
#[path = "../fixture/strace.rs"]
mod strace;

mod gitea;
mod journal;
mod layout;
mod platform;
mod python;
mod release;
mod server;
mod tls;
mod webhook;
