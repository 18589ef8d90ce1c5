//! A checkout's configuration names many programs that git would run. pnb runs none of them, whichever command looks at the project.

use super::project::{Checkout, SCRIPT};

/// Configures every program that git runs by itself when it looks at a repository, or when an object is missing.
const CONFIGURED: &str = "
printf '#!/bin/sh\\necho \"$0 $*\" >> '$PWD'.ran\\nprintf \"\\\\\\\\0\"\\n' > .git/evil; chmod +x .git/evil; E=$PWD/.git/evil
git config core.fsmonitor $E
git config core.sshCommand $E
git config core.pager $E
git config core.editor $E
git config core.askPass $E
git config core.gitProxy $E
git config core.alternateRefsCommand $E
git config credential.helper \"!$E\"
git config diff.external $E
git config diff.l.textconv $E
git config diff.l.command $E
git config filter.l.clean $E
git config filter.l.smudge $E
git config filter.l.process $E
git config filter.l.required true
git config gpg.program $E
git config alias.status \"!$E\"
git config uploadpack.packObjectsHook $E
git config extensions.partialClone evil
git config remote.evil.url \"ext::$E\"
git config remote.evil.promisor true
git config remote.evil.uploadpack $E
git config protocol.ext.allow always
git config submodule.recurse true
echo '* filter=l diff=l' > .git/info/attributes
for h in post-index-change post-checkout pre-commit reference-transaction fsmonitor-watchman pre-auto-gc; do
    ln -s ../evil .git/hooks/$h 2>/dev/null || { mkdir -p .git/hooks; ln -s ../evil .git/hooks/$h; }
done
";

#[test]
fn looking_at_a_project_runs_no_program_of_its_repository() {
    let checkout = Checkout::committed();
    checkout.sh(CONFIGURED);
    let canary = checkout.path().with_extension("ran");
    let canary = std::path::PathBuf::from(format!("{}.ran", canary.with_extension("").display()));
    // git itself runs them: the configuration is one that would have been noticed.
    checkout.sh(&format!(
        "touch {SCRIPT}; git -c alias.status= status >/dev/null 2>&1 || true"
    ));
    let ran = std::fs::read_to_string(&canary).expect("git runs what the configuration names");
    assert!(ran.contains("evil"), "{ran}");
    std::fs::remove_file(&canary).expect("removed");
    checkout.sh(&format!("touch {SCRIPT}"));
    for arguments in [
        &["build", "--hermetic", "--stage", "agent"][..],
        &["build", "--stage", "agent"],
        &["plan", "--stage", "agent"],
        &["graph", "--stage", "agent"],
        &["fetch", "--stage", "agent"],
        &["store", "path", "agent"],
        &["log", "agent"],
        &["doctor"],
        &["lock", "--check"],
        &["lock"],
        &["verify-repro", "--stage", "agent"],
        &["shell", "agent"],
    ] {
        let (_, said) = checkout.said(arguments);
        assert!(
            !canary.exists(),
            "{arguments:?} ran {:?}\n{said}",
            std::fs::read_to_string(&canary)
        );
    }
    let (code, said) = checkout.said(&["build", "--hermetic", "--stage", "agent"]);
    assert_eq!(code, 0, "{said}");
    // A missing object is not fetched from the remote that promises it.
    checkout.sh("rm -r .git/objects/??");
    let (code, said) = checkout.said(&["plan", "--stage", "agent"]);
    assert!(code == 1 && said.contains("the repository does not have it"), "{said}");
    assert!(!canary.exists(), "{:?}", std::fs::read_to_string(&canary));
    // With git, such an object makes it run the remote's program.
    checkout.sh("git cat-file -p HEAD >/dev/null 2>&1 || true");
    assert!(canary.exists(), "git fetches a promised object");
    std::fs::remove_file(&canary).expect("removed");
}
