//! Why a stage runs again, by the files of the project.

use crate::project::{Checkout, SCRIPT};

#[test]
fn a_plan_names_the_files_that_are_not_as_in_the_last_run() {
    let checkout = Checkout::files();
    let plan = |change: &str| {
        checkout.sh(change);
        let (code, said) = checkout.said(&["plan", "--stage", "agent"]);
        assert_eq!(code, 0, "{said}");
        said
    };
    let (code, said) = checkout.said(&["build", "--stage", "agent"]);
    assert_eq!(code, 0, "{said}");

    // A new file of an input, one with other permissions, a link that is gone, and another script of the stage.
    let said = plan(&format!(
        "echo new >overlay/etc/new; mkdir overlay/etc/empty; chmod +x overlay/etc/motd; rm overlay/etc/issue; echo more >>{SCRIPT}"
    ));
    let files = format!("files changed: +overlay/etc/new -overlay/etc/issue ~overlay/etc/motd ~{SCRIPT}\n");
    assert!(said.contains(&files) && !said.contains("input "), "{said}");

    // The build says the same, and then nothing is left to be said.
    let (code, said) = checkout.said(&["build", "--stage", "agent"]);
    assert!(code == 0 && said.contains(&files.replace('\n', ")")), "{code} {said}");
    assert!(plan("true").contains("none of 1 stage would run"));

    // A directory that became a file.
    let said = plan("rm -r overlay/etc; echo file >overlay/etc");
    assert!(
        said.contains("files changed: +overlay/etc -overlay/etc/motd -overlay/etc/new\n"),
        "{said}"
    );
}
