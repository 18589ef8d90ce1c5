//! The command line: one file per command, named after it. [`dispatch`] reads the line and calls one of them; [`report`] prints.

mod args;
mod audit;
mod boot;
mod build;
mod challenge;
mod claimed;
mod completion;
mod context;
mod diff;
mod dispatch;
mod doctor;
mod exit;
mod failure;
mod fetch;
mod full;
mod graph;
mod host;
mod inspect;
mod lock;
mod log;
mod module;
mod plan;
mod publication;
mod publish;
mod report;
mod serve;
mod servers;
mod shell;
mod signed_image;
mod store;
mod terminal;
mod vendor;
mod verify_repro;
mod verify_signature;

pub(crate) use dispatch::main;
use exit::Exit;
