//! The sandbox as its callers see it: stages that behave, stages that do not, and hosts that lack a layer.
//!
//! What a hostile stage must not achieve stands in [`hostile`], each case with a positive control: the same payload outside
//! the sandbox, or inside with that one hole, does work. Everything runs a second time as an ordinary user.

mod faults;
mod host;
mod hostile;
mod limits;
mod network;
mod outputs;
mod user;
mod variation;
mod work;
