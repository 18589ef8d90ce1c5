//! Wrong lists and wrong modules, each in turn in one machine; and mutants of the library, which accept what it refuses.

use crate::{ground::*, hostile::*, project::*};
use pnb::{
    model::{Meta, Node},
    module::{ModuleSecretKey, WrittenModule},
};
use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

const RUNNER: &str = include_str!("cases.sh");
const ID: &str = "11111111-2222-3333-4444-555555555555";

/// The cases and the lines that they print.
#[derive(Default)]
struct Cases {
    expected: BTreeMap<String, String>,
}

impl Cases {
    /// A case whose place `make` fills; `expected` follows `case <name>: `.
    fn add(&mut self, share: &Path, name: &str, expected: &str, make: impl FnOnce(&Path)) {
        let place = share.join("cases").join(name);
        fs::create_dir_all(place.join(".store")).expect("made");
        make(&place);
        self.expected.insert(name.to_owned(), expected.to_owned());
    }

    /// The same case with a changed library, in which it has to be accepted: without the changed line the refusal is not there.
    fn mutant(&mut self, share: &Path, name: &str, script: &str) {
        let (from, to) = (
            share.join("cases").join(name),
            share.join("cases").join(format!("{name}-mutant")),
        );
        good(std::process::Command::new("cp").arg("-a").arg(from).arg(&to));
        fs::write(to.join("mutant"), script).expect("written");
        self.expected.insert(format!("{name}-mutant"), "accepted".to_owned());
    }
}

fn plain(name: &str) -> Files {
    let content = format!("{name}\n{}", "x".repeat(5000));
    Files::new().file(&format!("usr/share/{name}"), content.as_bytes())
}

fn put(place: &Path, name: &str, text: &str) {
    fs::write(place.join(name), text).expect("written");
}

/// A module of `name` and a signed list of it alone.
fn alone(place: &Path, module: &WrittenModule) {
    sign(place, &[line(500, "one", module)]);
}

fn object_of(place: &Path, module: &WrittenModule) -> std::path::PathBuf {
    let image = fs::read(&module.image).expect("an image");
    let objects = pnb::image::composefs::referenced_objects(&image).expect("an image");
    let hex = objects.first().expect("an object").to_hex();
    place.join(".store").join(&hex[..2]).join(&hex[2..])
}

#[expect(clippy::too_many_lines, reason = "one entry for each case")]
fn cases(share: &Path) -> Cases {
    let mut all = Cases::default();
    all.add(share, "good", "accepted", |place| {
        let (one, two) = (plain("one").write(place), plain("two").write(place));
        sign(place, &[line(500, "one", &one), line(20, "two", &two)]);
        put(
            place,
            "after",
            "cmp=$(head -n 1 \"$PN_NEWROOT/usr/share/one\")$(head -n 1 \"$PN_NEWROOT/usr/share/two\")\n\
             powernode_tell \"case good: reads $cmp\"\n",
        );
    });

    // The list.
    for (name, change, expected) in [
        ("list-cut", "end\n", "is cut off: its last line is not 'end'"),
        ("list-other-form", " required", "has a line 5 of another form"),
    ] {
        all.add(
            share,
            name,
            &format!("refused: /run/powernode/seed/modules/modules.list {expected}"),
            |place| {
                let text = list("*", 7, LATER, &[line(500, "one", &plain("one").write(place))]);
                put(
                    place,
                    "modules.list",
                    &secret().sign(&text.replace(change, ""), "fleet"),
                );
            },
        );
    }
    all.add(
        share,
        "list-other-key",
        "refused: /run/powernode/seed/modules/modules.list has no valid signature",
        |place| {
            let text = list("*", 7, LATER, &[line(500, "one", &plain("one").write(place))]);
            let key = ModuleSecretKey::generate().expect("a key");
            put(place, "modules.list", &key.sign(&text, "fleet"));
        },
    );
    all.mutant(
        share,
        "list-other-key",
        "s/^ *if signify-openbsd .*/if sed 1,2d \"$PN_RUN\\/modules.signed\" >\"$PN_MODULE_TEXT\" \\\\/",
    );
    all.add(
        share,
        "list-line-removed",
        "refused: /run/powernode/seed/modules/modules.list has no valid signature",
        |place| {
            let lines = [
                line(500, "one", &plain("one").write(place)),
                line(20, "two", &plain("two").write(place)),
            ];
            let signed = secret().sign(&list("*", 7, LATER, &lines), "fleet");
            put(place, "modules.list", &signed.replace(&format!("{}\n", lines[1]), ""));
        },
    );
    all.add(
        share,
        "list-unsigned",
        "refused: /run/powernode/seed/modules/modules.list is not signed",
        |place| {
            put(
                place,
                "modules.list",
                &list("*", 7, LATER, &[line(500, "one", &plain("one").write(place))]),
            );
        },
    );
    all.add(
        share,
        "list-of-yesterday",
        "refused: /run/powernode/seed/modules/modules.list has the counter 7, below 8",
        |place| {
            alone(place, &plain("one").write(place));
            put(place, "counter", "8\n");
        },
    );
    all.mutant(
        share,
        "list-of-yesterday",
        "s/\"$PN_MODULE_COUNTER\" -lt/\"$PN_MODULE_COUNTER\" -lt 0 ] \\&\\& [ 1 -lt/",
    );
    all.add(
        share,
        "list-expired",
        "refused: /run/powernode/seed/modules/modules.list expired at 2026-11-30",
        |place| {
            // After the root was built, before any clock of a test.
            let text = list(
                "*",
                7,
                "2026-11-30T00:00:00Z",
                &[line(500, "one", &plain("one").write(place))],
            );
            put(place, "modules.list", &secret().sign(&text, "fleet"));
        },
    );
    all.add(
        share,
        "list-of-another-node",
        "refused: /run/powernode/seed/modules/modules.list is for the instance",
        |place| {
            let text = list(ID, 7, LATER, &[line(500, "one", &plain("one").write(place))]);
            put(place, "modules.list", &secret().sign(&text, "fleet"));
            put(place, "id", INSTANCE);
        },
    );
    all.add(share, "list-of-this-node", "accepted", |place| {
        let text = list(ID, 7, LATER, &[line(500, "one", &plain("one").write(place))]);
        put(place, "modules.list", &secret().sign(&text, "fleet"));
        put(place, "id", ID);
    });

    // Images and objects.
    all.add(share, "image-flipped", "refused: module one: its image is ", |place| {
        let module = plain("one").write(place);
        flip(&module.image, 5000);
        alone(place, &module);
    });
    all.mutant(
        share,
        "image-flipped",
        "s/\\[ \"$pn_measured\" != \"sha256:$2\" \\]/false/",
    );
    all.add(
        share,
        "image-missing",
        "refused: module one: there is no image ",
        |place| {
            let module = plain("one").write(place);
            fs::remove_file(&module.image).expect("ours");
            alone(place, &module);
        },
    );
    all.add(share, "images-swapped", "refused: module ", |place| {
        let (one, two) = (plain("one").write(place), plain("two").write(place));
        let other = place.join("other");
        fs::rename(&one.image, &other).expect("ours");
        fs::rename(&two.image, &one.image).expect("ours");
        fs::rename(&other, &two.image).expect("ours");
        sign(place, &[line(500, "one", &one), line(20, "two", &two)]);
    });
    all.add(
        share,
        "image-is-a-link",
        "refused: module one: there is no image ",
        |place| {
            let module = plain("one").write(place);
            let other = place.join("other");
            fs::rename(&module.image, &other).expect("ours");
            std::os::unix::fs::symlink("other", &module.image).expect("made");
            alone(place, &module);
        },
    );
    all.add(share, "image-of-the-older-name", "accepted", |place| {
        let module = plain("one").write(place);
        fs::rename(&module.image, place.join(format!("sha256_{}.cfs", module.digest))).expect("ours");
        alone(place, &module);
    });
    all.add(share, "object-flipped", "refused: module one: the object ", |place| {
        let module = plain("one").write(place);
        flip(&object_of(place, &module), 4500);
        alone(place, &module);
    });
    all.add(share, "object-missing", "refused: module one: the object ", |place| {
        let module = plain("one").write(place);
        fs::remove_file(object_of(place, &module)).expect("ours");
        alone(place, &module);
    });
    all.add(share, "object-changed-later", "accepted", |place| {
        let module = plain("one").write(place);
        alone(place, &module);
        let path = object_of(place, &module);
        let path = path.strip_prefix(place).expect("below it").display();
        // The file in the store is replaced after the modules were accepted, and before it is first read.
        put(
            place,
            "after",
            &format!(
                "file=$PN_MODULE_STORE/{path}\nhead -c 5004 /dev/zero >\"$file.new\"\nfsverity enable \"$file.new\"\n\
                 mv \"$file.new\" \"$file\"\nif text=$(cat \"$PN_NEWROOT/usr/share/one\" 2>/dev/null); then\n\
                 powernode_tell \"case object-changed-later: served ${{#text}} characters\"\nelse\n\
                 powernode_tell 'case object-changed-later: not served'\nfi\n"
            ),
        );
    });
    all.add(share, "optional", "accepted", |place| {
        let (one, two) = (plain("one").write(place), plain("two").write(place));
        fs::remove_file(&two.image).expect("ours");
        let optional = line(20, "two", &two).replace("required", "optional");
        sign(place, &[line(500, "one", &one), optional]);
    });

    // What an image must not have.
    all.add(
        share,
        "whiteout",
        "refused: module one: /usr/lib/systemd is a device or a whiteout",
        |place| {
            alone(place, &whiteout(place, "usr/lib/systemd"));
        },
    );
    all.add(
        share,
        "device",
        "refused: module one: /usr/share/null is a device or a whiteout",
        |place| {
            let mut files = plain("one");
            files.add(
                "usr/share/null",
                Meta::root(0o666, EPOCH),
                Node::CharDevice { major: 1, minor: 3 },
            );
            alone(place, &files.write(place));
        },
    );
    all.add(
        share,
        "opaque-directory",
        "refused: module one: /usr/share has a foreign attribute",
        |place| {
            alone(place, &attribute(place, plain("one"), "usr/share", "opaque", b"y"));
        },
    );
    all.add(
        share,
        "redirected-directory",
        "refused: module one: /usr/share has a foreign attribute",
        |place| {
            alone(place, &attribute(place, plain("one"), "usr/share", "redirect", b"/etc"));
        },
    );
    all.add(
        share,
        "redirected-file",
        "refused: module one: /usr/share/one has a foreign attribute",
        |place| {
            let files = Files::new().file("usr/share/one", b"short");
            alone(
                place,
                &attribute(place, files, "usr/share/one", "redirect", b"/etc/shadow"),
            );
        },
    );
    all.add(
        share,
        "file-without-a-digest",
        "refused: module one: /usr/share/one has a foreign attribute",
        |place| {
            let files = Files::new().file("usr/share/one", b"short");
            alone(place, &attribute(place, files, "usr/share/one", "metacopy", b""));
        },
    );
    all.add(share, "object-of-nobody", "refused: module one: the object ", |place| {
        let none = pnb::model::VerityDigest::new([0x5a; 32]);
        alone(place, &other_object(place, &plain("one"), "usr/share/one", none));
    });

    // Protected paths.
    all.add(
        share,
        "link-for-sbin",
        "refused: a module replaces /usr/sbin, which is protected",
        |place| {
            alone(place, &Files::new().link("usr/sbin", "share").write(place));
        },
    );
    all.mutant(
        share,
        "link-for-sbin",
        "s/^    powernode_return_mounts || return$/powernode_return_mounts; return/",
    );
    all.add(
        share,
        "directory-for-bin",
        "refused: a module replaces /bin, which is protected",
        |place| {
            alone(place, &Files::new().file("bin/sh", b"x").write(place));
        },
    );
    all.add(
        share,
        "file-for-systemd",
        "refused: a module hides /usr/lib/systemd, which is protected",
        |place| {
            alone(place, &Files::new().file("usr/lib/systemd", b"x").write(place));
        },
    );
    all.add(
        share,
        "other-agent",
        "refused: a module replaces /usr/sbin/powernode-agent, which is protected",
        |place| {
            alone(
                place,
                &Files::new()
                    .file("usr/sbin/powernode-agent", b"#!/bin/sh\n")
                    .write(place),
            );
        },
    );
    all.add(
        share,
        "other-accounts",
        "refused: a module replaces /etc/passwd, which is protected",
        |place| {
            alone(
                place,
                &Files::new().file("etc/passwd", b"root::0:0::/:/bin/sh\n").write(place),
            );
        },
    );
    all.add(
        share,
        "other-libc",
        "refused: a module replaces /usr/lib/x86_64-linux-gnu/libc.so.6, which is protected",
        |place| {
            alone(
                place,
                &Files::new()
                    .file("usr/lib/x86_64-linux-gnu/libc.so.6", b"x")
                    .write(place),
            );
        },
    );
    all.add(
        share,
        "preloaded",
        "refused: a module adds /etc/ld.so.preload, which is protected",
        |place| {
            alone(
                place,
                &Files::new()
                    .file("etc/ld.so.preload", b"/usr/share/x.so\n")
                    .write(place),
            );
        },
    );
    all.add(
        share,
        "drop-in",
        "refused: a module adds /etc/systemd/system/powernode-agent.service.d",
        |place| {
            let path = "etc/systemd/system/powernode-agent.service.d/x.conf";
            alone(place, &Files::new().file(path, b"[Service]\nExecStart=\n").write(place));
        },
    );
    // A unit in the root's directory is covered by the root's own directory, which is read-only.
    for name in ["unit-in-systemd", "unit-in-systemd-unbound"] {
        all.add(share, name, "accepted", |place| {
            alone(
                place,
                &Files::new()
                    .file("usr/lib/systemd/system/evil.service", b"x")
                    .write(place),
            );
            put(
                place,
                "after",
                &format!(
                    "seen=hidden\n[ ! -e \"$PN_NEWROOT/usr/lib/systemd/system/evil.service\" ] || seen=seen\n\
                     kept=kept\n( : >\"$PN_NEWROOT/usr/lib/systemd/new\" ) 2>/dev/null && kept=written\n\
                     powernode_tell \"case {name}: $seen $kept\"\n"
                ),
            );
        });
    }
    let unbound = share.join("cases/unit-in-systemd-unbound");
    put(
        &unbound,
        "mutant",
        "s/! mount --bind \"$PN_RUN\\/root\\/$1\" \"$PN_NEWROOT\\/$1\" 2>\\/dev\\/null/false/\n",
    );
    all
}

#[test]
#[ignore = "long: a boot"]
fn every_wrong_list_and_module_is_refused_by_name() {
    let share = tempfile::tempdir_in(scratch()).expect("scratch");
    let cases = cases(share.path());
    let artifact = with_files(&[("usr/lib/powernode/powernode-boot", RUNNER.as_bytes())]);
    let said = bad(&mut boot(artifact.path(), share.path()), 9);
    assert!(said.contains("powernode: refused: these were all cases"), "{said}");
    let mut wrong = String::new();
    for (name, expected) in &cases.expected {
        let begin = format!("case {name}: ");
        let lines: Vec<&str> = said
            .lines()
            .filter_map(|line| line.trim_end().strip_prefix(&begin))
            .collect();
        let verdict = lines
            .iter()
            .filter(|line| line.starts_with("accepted") || line.starts_with("refused: "));
        let verdict: Vec<&&str> = verdict.collect();
        if !matches!(verdict[..], [line] if line.starts_with(expected)) {
            writeln!(wrong, "{name}\n  expected: {expected}\n    actual: {lines:?}").expect("a string");
        }
    }
    for line in [
        "case good: reads onetwo",
        "case object-changed-later: not served",
        "powernode: modules: left out: two: there is no image",
        "powernode: modules: 1 of 2 stacked, counter=7 key=fleet",
        "case unit-in-systemd: hidden kept",
        // Without the bind the unit of the module is there.
        "case unit-in-systemd-unbound: seen written",
    ] {
        if !said.contains(line) {
            writeln!(wrong, "missing: {line}").expect("a string");
        }
    }
    assert!(wrong.is_empty(), "{wrong}\n{said}");
}
