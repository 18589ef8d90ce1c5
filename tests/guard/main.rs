//! No way round a verified root: each way that a kernel command line, a hypervisor or a boot menu offers is closed on an image without
//! recovery, and open on one with it. The second half is what makes the first one mean something.
//!
//! The canary is a text that only a shell with root's rights prints: the test types a sum, and looks for its result.
//! `tests/dracut/guard_test.sh` has every word without a machine.

#[path = "../fixture/initramfs.rs"]
mod initramfs;
mod machine;
mod menu;
#[path = "../build/project.rs"]
#[expect(dead_code, reason = "shared with the tests of whole builds, which use more of it")]
mod project;
mod segments;
mod shells;
mod ways;
