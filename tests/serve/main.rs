//! `pnb serve` and its servers, asked by clients that behave, and by some that do not.

mod client;
mod http;
mod program;
mod tftp;
