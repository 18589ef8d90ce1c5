//! The sandbox as its callers see it: stages that behave, stages that do not, and hosts that lack a layer.
//!
//! What a hostile stage must not achieve stands in [`hostile`], each case with a positive control: the same payload outside
//! the sandbox, or inside with that one hole, does work. So the programs are the host's own: perl, which git brings, and a C compiler.
//! Everything runs a second time as an ordinary user, for which the host needs the set-user-id programs of the package uidmap.

mod faults;
mod host;
mod hostile;
mod kvm;
mod limits;
mod network;
mod outputs;
mod refusals;
mod shared;
mod user;
mod variation;
mod work;
