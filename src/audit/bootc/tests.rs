//! Each rule holds for a root that bootc accepts, and names each change that bootc would complain of.

use super::{LintedRoot, RULES, is_read, lint};
use crate::{
    audit::check::{Class, Problems},
    model::{Arch, Entry, Epoch, Meta, Node, RelPath, Tree},
    verity::digest_bytes,
};
use std::collections::BTreeMap;

/// What stands at a path.
#[derive(Clone)]
enum Put {
    Dir,
    Link(&'static str),
    File(&'static str),
}
use Put::{Dir, File, Link};

/// A path, and what stands there instead; `None` removes it.
type Change = (&'static str, Option<Put>);

/// A root that follows every rule.
const GOOD: &[(&str, Put)] = &[
    ("boot", Dir),
    ("boot/EFI", Dir),
    ("dev", Dir),
    ("etc/group", File("root:x:0:\nadm:x:4:\ndaemon:x:1:\n")),
    ("etc/hostname", File("node\n")),
    (
        "etc/passwd",
        File("root:x:0:0::/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\n"),
    ),
    ("etc/resolv.conf", Link("../run/resolv.conf")),
    ("ostree", Link("sysroot/ostree")),
    ("proc", Dir),
    ("run", Dir),
    ("sys", Dir),
    ("sysroot", Dir),
    ("tmp", Dir),
    (
        "usr/lib/bootc/kargs.d/10.toml",
        File("kargs = [\"a=1\", \"b\"]\nmatch-architectures = [\"x86_64\"]\n"),
    ),
    (
        "usr/lib/bootc/kargs.d/20.toml",
        File("kargs = [\"c\"]\nmatch-architectures = [\"aarch64\"]\n"),
    ),
    ("usr/lib/modules/6.1/vmlinuz", File("kernel")),
    (
        "usr/lib/ostree/prepare-root.conf",
        File("[other]\nenabled = no\n[composefs]\nenabled = yes\n"),
    ),
    (
        "usr/lib/sysusers.d/a.conf",
        File("# g nothing -\ng adm 4 -\nu! daemon 1 -\nu root 0 -\n"),
    ),
    (
        "usr/lib/tmpfiles.d/a.conf",
        File("d /var/log 0755 - - -\nL /var/run - - - - ../run\nf /var/.updated\n#d /var/x\n"),
    ),
    ("var/.updated", File("x")),
    ("var/log", Dir),
    ("var/run", Link("../run")),
];

fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a path")
}

/// The problems of a root: [`GOOD`] with `changes`; `None` removes a path.
fn problems(changes: &[Change]) -> String {
    let epoch = Epoch::new(1);
    let mut tree = Tree::new(Meta::root(0o755, epoch));
    let mut texts = BTreeMap::new();
    let mut entries: BTreeMap<&str, Put> = GOOD.iter().map(|(path, put)| (*path, put.clone())).collect();
    for (path, put) in changes {
        match put {
            None => entries.remove(path),
            Some(put) => entries.insert(path, put.clone()),
        };
    }
    for (name, put) in entries {
        let node = match put {
            Dir => Node::Directory,
            Link(target) => Node::Symlink { target: target.into() },
            File(text) => {
                if is_read(&path(name)) {
                    texts.insert(path(name), text.as_bytes().to_vec());
                }
                Node::File {
                    size: text.len() as u64,
                    digest: digest_bytes(text.as_bytes()),
                }
            }
        };
        let meta = Meta::root(0o755, epoch);
        tree.make_parents(&path(name), epoch).expect("parents");
        tree.insert(path(name), Entry { meta, node }).expect("an entry");
    }
    let root = LintedRoot {
        tree: &tree,
        texts: &texts,
        arch: Arch::Amd64,
        command_line: "a=1 b",
    };
    let mut problems = Problems::default();
    assert_eq!(lint(&root, &mut problems), RULES.len());
    let check = problems.check("image", Class::Image, "");
    assert_eq!(check.ok, check.detail.is_empty());
    check.detail
}

#[test]
fn a_root_that_follows_the_rules_has_no_problem() {
    assert_eq!(problems(&[]), "");
}

#[test]
fn each_rule_names_each_fault() {
    const KARGS: &str = "usr/lib/bootc/kargs.d/10.toml";
    const PREPARE: &str = "usr/lib/ostree/prepare-root.conf";
    let cases: &[(&str, &[Change], &str)] = &[
        ("var-run", &[("var/run", Some(Dir))], "/var/run is not a link"),
        ("etc-usretc", &[("usr/etc", Some(Dir))], "there is a /usr/etc"),
        (
            "bootc-kargs",
            &[(KARGS, Some(File("kargs = \"a\"\n")))],
            "10.toml\" of an OCI image: invalid type",
        ),
        (
            "bootc-kargs",
            &[(KARGS, Some(File("kargs = []\nother = 1\n")))],
            "10.toml\" of an OCI image: unknown field `other`",
        ),
        (
            "bootc-kargs",
            &[(KARGS, None)],
            "gives \"\", and the manifest's kernel_command_line is \"a=1 b\"",
        ),
        (
            "bootc-kargs",
            &[(KARGS, Some(File("kargs = [\"b\", \"a=1\"]\n")))],
            "gives \"b a=1\"",
        ),
        ("kernel", &[("usr/lib/modules/6.1/vmlinuz", None)], "0 kernels"),
        (
            "kernel",
            &[("usr/lib/modules/6.2/vmlinuz", Some(File("k")))],
            "2 kernels",
        ),
        ("utf8", &[("usr/link", Some(Link("x")))], ""),
        (
            "api-base-directories",
            &[("proc", Some(Link("sys")))],
            "/proc is no directory",
        ),
        ("api-base-directories", &[("tmp", None)], "/tmp is no directory"),
        ("baseimage-root", &[("sysroot", None)], "/sysroot is no directory"),
        (
            "baseimage-root",
            &[("ostree", Some(Link("/sysroot/ostree")))],
            "/ostree is not a link",
        ),
        (
            "buildah-injected",
            &[("etc/hostname", Some(File("")))],
            "/etc/hostname is an empty file",
        ),
        (
            "buildah-injected",
            &[("etc/resolv.conf", Some(File("")))],
            "/etc/resolv.conf is an empty file",
        ),
        (
            "baseimage-composefs",
            &[(PREPARE, None)],
            "there is no prepare-root.conf",
        ),
        (
            "baseimage-composefs",
            &[(PREPARE, Some(File("[composefs]\nenabled = no\n")))],
            "is no",
        ),
        (
            "baseimage-composefs",
            &[(PREPARE, Some(File("[other]\nenabled = yes\n")))],
            "is not there",
        ),
        (
            "nonempty-boot",
            &[("boot", None), ("boot/EFI", None)],
            "there is no /boot",
        ),
        ("nonempty-boot", &[("boot/grub", Some(Dir))], "/boot has boot/grub"),
        ("nonempty-run-tmp", &[("run/lock", Some(Dir))], "/run/lock"),
        ("nonempty-run-tmp", &[("tmp/x", Some(File("")))], "/tmp/x"),
        (
            "var-log",
            &[("var/log/a", Some(File("line")))],
            "/var/log/a is a log that is not empty",
        ),
        (
            "sysusers",
            &[("usr/lib/sysusers.d/a.conf", Some(File("u root\nu daemon\n")))],
            "the group adm",
        ),
        (
            "sysusers",
            &[("usr/lib/sysusers.d/a.conf", Some(File("g adm\ng daemon\nu root\n")))],
            "the user daemon",
        ),
        ("sysusers", &[("etc/passwd", None)], "there is no /etc/passwd"),
        (
            "var-tmpfiles",
            &[("var/lib", Some(Dir))],
            "no line of tmpfiles.d makes /var/lib",
        ),
        (
            "var-tmpfiles",
            &[("var/x", Some(Link("y")))],
            "no line of tmpfiles.d makes /var/x",
        ),
        ("var-tmpfiles", &[("var/db", Some(File("x")))], "/var/db is a file"),
    ];
    for (rule, changes, expected) in cases {
        let found = problems(changes);
        if expected.is_empty() {
            assert_eq!(found, "", "{rule}: the change is allowed");
            continue;
        }
        assert!(found.contains(&format!("bootc's rule {rule}: ")), "{rule}: {found:?}");
        assert!(found.contains(expected), "{rule}: {found:?} lacks {expected:?}");
        let rules = found.lines().filter(|line| line.starts_with("bootc's rule")).count();
        let other = found
            .lines()
            .filter(|line| !line.contains(&format!("rule {rule}: ")))
            .count();
        // A log in /var is content of /var too.
        assert!(other == 0 || *rule == "var-log", "{rule}: {rules} problems: {found}");
    }
}

#[test]
fn a_name_that_is_not_utf8_is_named() {
    let epoch = Epoch::new(1);
    let mut tree = Tree::new(Meta::root(0o755, epoch));
    let meta = Meta::root(0o644, epoch);
    let name = RelPath::new(b"a\xff").expect("a path");
    tree.insert(
        name,
        Entry {
            meta,
            node: Node::Directory,
        },
    )
    .expect("an entry");
    let root = LintedRoot {
        tree: &tree,
        texts: &BTreeMap::new(),
        arch: Arch::Arm64,
        command_line: "",
    };
    let mut found = Vec::new();
    super::utf8(&root, &mut found);
    assert_eq!(found.len(), 1, "{found:?}");
}
