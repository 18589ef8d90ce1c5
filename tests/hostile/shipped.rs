//! The program that ships has no way to take a layer off.

use crate::ground::{own_program, pnb, run_with, scratch, spec};
use std::{fs, os::unix::fs::symlink};

/// Whether a program contains the text that only `helper_main_without` has. It is put together here, so that this file does not.
fn holds_mark(program: &std::path::Path) -> bool {
    let mark = ["a layer of the sandbox ", "was taken off"].concat();
    let bytes = fs::read(program).expect("read");
    memchr::memmem::find(&bytes, mark.as_bytes()).is_some()
}

pub(crate) fn pnb_holds_nothing_that_takes_a_layer_off() {
    assert!(!holds_mark(&pnb()), "pnb contains helper_main_without");
    // A release build of this program has no such helper either.
    assert_eq!(holds_mark(&own_program()), cfg!(debug_assertions), "control");
}

pub(crate) fn pnb_ignores_the_name_that_takes_a_layer_off() {
    let dir = scratch();
    let every: Vec<String> = (0..64).map(|n| n.to_string()).collect();
    let name = dir.path().join(format!("without-{}", every.join("+")));
    symlink(pnb(), &name).expect("linked");
    // Strict: a layer that is missing is an error.
    let (outcome, log) = run_with(&name, true, &spec(&["quick", "mountinfo", "capability"]));
    let found = outcome.unwrap_or_else(|e| panic!("failed to {e}\n{log}")).measured;
    assert_eq!(
        (found.seccomp_mode, found.no_new_privs, found.landlock_leaks),
        (2, true, false)
    );
    assert!(!log.contains("GOT"), "{log}");

    #[cfg(debug_assertions)]
    {
        let name = dir.path().join(crate::matrix::helper_name(&crate::matrix::all()));
        symlink(own_program(), &name).expect("linked");
        let error = run_with(&name, true, &spec(&["quick"]))
            .0
            .map(|o| o.measured)
            .expect_err("control: strict notices it");
        assert!(error.to_string().contains(" was taken off: "), "{error}");
    }
}
