//! Signing with the services of npm's `@sigstore/mock`, and verifying: by pnb, and by the cosigns of versions 2 and 3.

#[path = "../fixture/stage_tree.rs"]
mod stage_tree;

mod attacks;
mod faults;
mod signed;
#[path = "../fixture/sigstore.rs"]
mod work;
