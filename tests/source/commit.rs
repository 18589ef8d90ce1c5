//! Whether the files are those of the commit. Each case makes a checkout whose stage differs from the commit in a way that git, as it
//! is configured there, does not show.

use super::project::{Checkout, SCRIPT};

/// Changes of the checkout, and what is said about them. `$E` edits the stage's script.
const DIFFERENT: &[(&str, &str, &str)] = &[
    // What git shows too.
    ("an edited file", "$E", "stages/agent/build.sh: other content"),
    ("a new file", "echo x > stages/agent/new", "stages/agent/new: not committed"),
    ("a file of an input", "echo x > overlay/etc/new", "overlay/etc/new: not committed"),
    ("a removed file", "rm overlay/etc/motd", "overlay/etc/motd: missing"),
    ("a removed directory", "rm -r overlay/etc", "overlay/etc: missing"),
    ("the agent", "echo >> agent/agent; E=", "agent/agent: other content"),
    ("the lock", "echo '# x' >> lockfile.toml", "lockfile.toml: other content"),
    (
        "an ignored file",
        "echo x > stages/agent/extra; echo extra > .git/info/exclude",
        "stages/agent/extra: not committed",
    ),
    ("staged, not committed", "$E; git add -A", "stages/agent/build.sh: other content"),
    ("another link", "ln -sfn /etc/passwd overlay/etc/issue", "overlay/etc/issue: other target"),
    // What git overlooks.
    ("an empty directory", "mkdir overlay/etc/empty.d", "overlay/etc/empty.d: an empty directory"),
    ("empty directories", "mkdir -p stages/agent/a/b", "stages/agent/a/b: an empty directory"),
    (
        "assume-unchanged",
        "$E; git update-index --assume-unchanged $F",
        "stages/agent/build.sh: other content",
    ),
    (
        "skip-worktree",
        "$E; git update-index --skip-worktree $F",
        "stages/agent/build.sh: other content",
    ),
    (
        "skip-worktree, removed",
        "git update-index --skip-worktree overlay/etc/motd; rm overlay/etc/motd",
        "overlay/etc/motd: missing",
    ),
    (
        "sparse checkout",
        "git sparse-checkout set stages agent 2>/dev/null",
        "overlay: missing",
    ),
    (
        "modes ignored",
        "git config core.fileMode false; chmod 755 $F",
        "stages/agent/build.sh: executable",
    ),
    (
        "modes ignored the other way",
        "git config core.fileMode false; chmod 644 agent/agent",
        "agent/agent: not executable",
    ),
    (
        "no symbolic links",
        "git config core.symlinks false; rm overlay/etc/issue; printf motd > overlay/etc/issue",
        "overlay/etc/issue: another kind of file",
    ),
    (
        "another work tree",
        "cp -r . ../$(basename $PWD)-other; git config core.worktree $PWD-other; $E; rm -r $PWD-other",
        "stages/agent/build.sh: other content",
    ),
    (
        "line ends converted",
        "git config core.autocrlf true; sed -i 's/$/\\r/' $F; git add --renormalize . 2>/dev/null",
        "stages/agent/build.sh: other content",
    ),
    (
        "line ends by attribute",
        "echo '* text eol=crlf' > .git/info/attributes; sed -i 's/$/\\r/' $F",
        "stages/agent/build.sh: other content",
    ),
    (
        "keywords expanded",
        "echo '* ident' > .git/info/attributes; printf 'x $Id: 0 $\\n' > $F",
        "stages/agent/build.sh: other content",
    ),
    (
        "a clean filter",
        "echo '* filter=l' > .git/info/attributes; git config filter.l.clean 'git cat-file blob HEAD:'$F' #'; $E",
        "stages/agent/build.sh: other content",
    ),
    (
        "times that git trusts",
        "git config core.trustctime false; git config core.checkStat minimal; touch -d 2020-01-01 $F; git status >/dev/null
         printf 'echo COMMITTED\\n' > $F; touch -d 2020-01-01 $F",
        "stages/agent/build.sh: other content",
    ),
    (
        "a file system monitor",
        "printf '#!/bin/sh\\nprintf \"tok\\\\0\"\\n' > .git/fs; chmod +x .git/fs; git config core.fsmonitor $PWD/.git/fs
         git config core.untrackedCache true; git update-index --fsmonitor; git status >/dev/null; git status >/dev/null; $E",
        "stages/agent/build.sh: other content",
    ),
    (
        "a replaced commit",
        "h=$(git rev-parse HEAD); $E; git commit -qam evil; n=$(git rev-parse HEAD); git reset -q --soft $h; git replace $h $n",
        "stages/agent/build.sh: other content",
    ),
    (
        "a replaced directory",
        "t=$(git rev-parse HEAD:stages/agent); $E; git add -A; git commit -qm evil; n=$(git rev-parse HEAD:stages/agent)
         git reset -q --soft HEAD~1; git replace $t $n",
        "stages/agent/build.sh: other content",
    ),
    (
        "untracked files hidden",
        "git config status.showUntrackedFiles no; echo x > stages/agent/new",
        "stages/agent/new: not committed",
    ),
    (
        "a repository inside",
        "(mkdir overlay/sub; cd overlay/sub; git init -q .; echo x > f; git add .; git commit -qm x)",
        "overlay/sub/f: not committed",
    ),
    (
        "a submodule that is ignored",
        "$SUB; git config -f .gitmodules submodule.sub.ignore all; git add -A; git commit -qm sub; echo EVIL > overlay/sub/f",
        "overlay/sub/f: other content",
    ),
    (
        "a submodule at another commit",
        "$SUB; git config -f .gitmodules submodule.sub.ignore all; git add -A; git commit -qm sub
         (cd overlay/sub; echo EVIL > f; git commit -qam evil)",
        "overlay/sub/f: other content",
    ),
    (
        "a submodule that is not there",
        "$SUB; git add -A; git commit -qm sub; rm -rf overlay/sub; mkdir overlay/sub",
        "overlay/sub: a submodule that is not checked out",
    ),
    (
        "a submodule of somebody else",
        "$SUB; git add -A; git commit -qm sub; rm -rf overlay/sub
         (mkdir overlay/sub; cd overlay/sub; git init -q .; echo other > f; git add .; git commit -qm x)",
        "overlay/sub: a submodule without the commit that the project names",
    ),
];

/// Shell words for the cases.
fn prepared(script: &str) -> String {
    let sub = "(mkdir overlay/sub; cd overlay/sub; git init -q .; echo good > f; git add .; git commit -qm s); \
               printf '[submodule \"sub\"]\\n path = overlay/sub\\n url = ./sub\\n' > .gitmodules";
    let script = script.replace("$SUB", sub).replace("$E", "echo EVIL > $F");
    format!("F={SCRIPT}\n{script}")
}

#[test]
fn what_differs_from_the_commit_is_named_whatever_git_was_told() {
    let mut wrong = Vec::new();
    for (name, script, want) in DIFFERENT {
        let checkout = Checkout::committed();
        assert_eq!(checkout.dirty(), "", "{name}: the checkout is clean before");
        checkout.sh(&prepared(script));
        let dirty = checkout.dirty();
        if !dirty.lines().any(|line| line.starts_with(want)) || dirty.lines().count() != 1 {
            wrong.push(format!("{name}: wanted {want:?}, got {dirty:?}"));
        }
        assert!(checkout.revision().sha.is_some(), "{name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_kind_of_repository_is_read() {
    // Each script leaves the project in the directory of the second word; it is clean there.
    for (name, script, inside) in [
        ("packed", "git gc -q --prune=now; git pack-refs --all", "."),
        ("a detached HEAD", "git checkout -q --detach", "."),
        ("a linked worktree", "git worktree add -q ../$(basename $PWD)-store/tree 2>/dev/null", "../STORE/tree"),
        ("borrowed objects", "git clone -q -s . ../$(basename $PWD)-store/shared", "../STORE/shared"),
        ("a shallow clone", "git commit -q --allow-empty -m x; git clone -q --depth 1 file://$PWD ../$(basename $PWD)-store/c", "../STORE/c"),
        (
            "a partial clone",
            "git config uploadpack.allowFilter true
             git clone -q --filter=blob:none file://$PWD ../$(basename $PWD)-store/c",
            "../STORE/c",
        ),
        (
            "a directory of a repository",
            "mkdir in; mv agent lockfile.toml overlay stages in; git add -A; git commit -qm moved",
            "in",
        ),
        (
            "a submodule",
            "git init -q ../$(basename $PWD)-store/top; cp -r . ../$(basename $PWD)-store/top/sub
             cd ../$(basename $PWD)-store/top; git -c advice.addEmbeddedRepo=false add sub; git commit -qm top
             git submodule absorbgitdirs 2>/dev/null || true",
            "../STORE/top/sub",
        ),
        (
            "SHA-256",
            "rm -rf .git; git init -q --object-format=sha256 .; git add -A; git commit -qm x",
            ".",
        ),
        (
            "many commits, packed as differences",
            "for n in 1 2 3 4 5 6 7 8 9; do echo $n >> README; mkdir -p d$n; echo $n > d$n/f; git add -A; git commit -qm $n; done
             git repack -q -a -d -f --depth=50",
            ".",
        ),
    ] {
        let checkout = Checkout::committed();
        std::fs::create_dir(checkout.store()).expect("made");
        checkout.sh(script);
        let store = checkout.store();
        let inside = inside.replace("STORE", &store.file_name().expect("a name").to_string_lossy());
        let revision = checkout.revision_of(&inside);
        let head = checkout.sh(&format!("git -C {inside} rev-parse HEAD"));
        assert_eq!(revision.sha.as_ref().map(|sha| sha.as_str()), Some(head.as_str()), "{name}");
        assert_eq!(revision.dirty, [], "{name}");
        // The same repository shows a change.
        checkout.sh(&format!("echo EVIL > {inside}/{SCRIPT}"));
        assert_eq!(checkout.revision_of(&inside).dirty.len(), 1, "{name}");
    }
}

#[test]
fn a_project_without_a_commit_has_no_revision() {
    for (name, script) in [
        ("no repository", ""),
        ("no commit yet", "git init -q ."),
        (
            "a repository that does not have the project",
            "git init -q .; git add README; git commit -qm x",
        ),
    ] {
        let checkout = Checkout::files();
        checkout.sh(script);
        let revision = checkout.revision();
        assert!(
            revision.sha.is_none() && revision.dirty.is_empty(),
            "{name}: {revision:?}"
        );
        let (code, said) = checkout.said(&["build", "--hermetic", "--stage", "agent"]);
        assert!(code == 8 && said.contains("in no git commit"), "{name}: {said}");
    }
}

#[test]
fn objects_that_do_not_have_their_digest_are_refused() {
    // Somebody else's database can hold another directory under the name that the commit states.
    let checkout = Checkout::committed();
    let script = "t=$(git rev-parse HEAD:stages/agent); echo EVIL > stages/agent/build.sh; git add -A
                  n=$(git write-tree); n=$(git rev-parse $n:stages/agent)
                  at() { echo .git/objects/$(echo $1 | cut -c1-2)/$(echo $1 | cut -c3-); }
                  rm -f $(at $t); cp $(at $n) $(at $t)";
    checkout.sh(script);
    let (code, said) = checkout.said(&["plan", "--stage", "agent"]);
    assert!(code == 1 && said.contains("its content has another digest"), "{said}");
}

#[test]
fn a_damaged_repository_is_an_error_that_names_it() {
    for (name, script, want) in [
        (
            "a missing object",
            "rm -r .git/objects/??",
            "the repository does not have it",
        ),
        (
            "a HEAD of nonsense",
            "echo nonsense > .git/HEAD",
            "it names neither a commit nor a reference",
        ),
        (
            "a HEAD that leads out",
            "echo 'ref: refs/../../x' > .git/HEAD",
            "it names the reference",
        ),
        (
            "references in a circle",
            "echo 'ref: refs/heads/a' > .git/HEAD; echo 'ref: refs/heads/b' > .git/refs/heads/a
             echo 'ref: refs/heads/a' > .git/refs/heads/b",
            "leads through more than 5 references",
        ),
        ("no HEAD", "rm .git/HEAD", "no repository"),
        (
            "a pointer of nonsense",
            "rm -rf .git; echo nonsense > .git",
            "gitdir: PATH",
        ),
        ("a FIFO", "rm .git/HEAD; mkfifo .git/HEAD", "it is no regular file"),
        (
            "references that are not read",
            "mkdir .git/reftable; echo 'ref: refs/heads/.invalid' > .git/HEAD",
            "git refs migrate",
        ),
    ] {
        let checkout = Checkout::committed();
        checkout.sh(script);
        let (code, said) = checkout.said(&["plan", "--stage", "agent"]);
        assert!(
            code == 1 && said.contains(want) && said.contains(".git"),
            "{name}: {code} {said}"
        );
    }
}

#[test]
fn a_hermetic_build_takes_the_commit_and_nothing_else() {
    let checkout = Checkout::committed();
    let build = ["build", "--hermetic", "--stage", "agent"];
    let (code, said) = checkout.said(&build);
    assert_eq!(code, 0, "{said}");
    // An empty directory would be in the tree that the stage gets.
    checkout.sh("mkdir overlay/etc/empty.d; git status --short | wc -l | grep -qx 0");
    let (code, said) = checkout.said(&build);
    assert!(
        code == 8 && said.contains("overlay/etc/empty.d: an empty directory"),
        "{said}"
    );
    // The repository of a submodule is no input: its file `.git` differs from clone to clone.
    let with_submodule = Checkout::committed();
    with_submodule.sh(&prepared("$SUB; git add -A; git commit -qm sub"));
    let (code, said) = with_submodule.said(&build);
    assert_eq!(code, 0, "{said}");
    let plan = with_submodule.said(&["plan", "--stage", "agent", "--json"]).1;
    with_submodule.sh("mv overlay/sub/.git .git/sub; echo 'gitdir: ../../.git/sub' > overlay/sub/.git");
    assert_eq!(with_submodule.dirty(), "");
    assert_eq!(with_submodule.said(&["plan", "--stage", "agent", "--json"]).1, plan);
    let many = Checkout::committed();
    many.sh("for n in $(seq 100 160); do echo x > overlay/$n; done");
    let (code, said) = many.said(&build);
    assert!(
        code == 8 && said.contains("overlay/119: not committed\n  and 41 more"),
        "{said}"
    );
}
