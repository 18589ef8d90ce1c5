//! What may leave the sandbox.

use crate::host::*;
use pnb::{
    model::{Node, RelPath},
    sandbox::*,
    store::Content,
};
use std::io::{self, Read};

/// A script, what is said about it, and whether declaring set-id bits or devices makes it pass.
struct Case {
    script: &'static str,
    kind: OutputKind,
    says: &'static str,
    passes_when_declared: bool,
}

const fn tree(script: &'static str, says: &'static str, passes_when_declared: bool) -> Case {
    Case {
        script,
        kind: OutputKind::Tree,
        says,
        passes_when_declared,
    }
}
const fn file(script: &'static str, says: &'static str) -> Case {
    Case {
        script,
        kind: OutputKind::File,
        says,
        passes_when_declared: false,
    }
}

#[test]
fn outputs_that_must_not_leave() {
    let cases = [
        tree(
            "mkdir out; echo x > out/a; chmod 4755 out/a",
            "entry \"a\" has mode 4755, and set-id bits are not declared",
            true,
        ),
        tree(
            "mkdir out; echo x > out/a; chmod 2755 out/a",
            "entry \"a\" has mode 2755",
            true,
        ),
        tree(
            "mkdir out; umask 0; perl -e 'use Fcntl; sysopen F, q(out/a), O_CREAT|O_WRONLY, 06777'",
            "entry \"a\" has mode 6777",
            true,
        ),
        tree(
            "mkdir out; perl -e '$p=q(out/a); syscall(133, $p, 0104755, 0)'",
            "entry \"a\" has mode 4755",
            true,
        ),
        tree("mkdir -p out/d; chmod 2755 out/d", "entry \"d\" has mode 2755", true),
        tree(
            "mkdir out; mkfifo out/f",
            "entry \"f\" is a fifo, which is not declared",
            true,
        ),
        tree(
            "mkdir out; perl -e '$p=q(out/c); syscall(133, $p, 020644, 0)'; test -c out/c || mkfifo out/c",
            "is not declared",
            true,
        ),
        tree(
            "mkdir out; perl -MSocket -e 'socket(S,AF_UNIX,SOCK_STREAM,0); bind(S, sockaddr_un(q(out/s)))||die'",
            "entry \"s\" is a socket",
            false,
        ),
        tree("ln -s /usr out", "is a symbolic link", false),
        tree("mkdir real; touch real/a; ln -s real out", "is a symbolic link", false),
        tree("mkdir out", "is an empty directory", false),
        tree("true", "/build/out is missing", false),
        tree("echo x > out", "is not a directory", false),
        file("mkdir out", "is not a regular file"),
        file(": > out", "is an empty file"),
        file("mkfifo out", "is not a regular file"),
        file("ln -s /usr/bin/env out", "is a symbolic link"),
        file("ln -s /proc/self/exe out", "is a symbolic link"),
    ];
    let host = Host::new();
    for case in cases {
        let mut spec = host.shell(case.script);
        spec.outputs.push(output("out", case.kind));
        let text = refused(&spec);
        assert!(
            text.contains(case.says) && text.contains("\"out\""),
            "{}: {text}",
            case.script
        );
        spec.outputs[0].allow_setid = true;
        spec.outputs[0].allow_devices = true;
        assert_eq!(
            run(&spec).0.is_ok(),
            case.passes_when_declared,
            "control: {}",
            case.script
        );
    }
}

#[test]
fn a_symbolic_link_on_the_way_to_an_output_is_not_followed() {
    let host = Host::new();
    let mut spec = host.shell("mkdir -p real/out; echo x > real/out/a; ln -s real a");
    spec.outputs.push(output("a/out", OutputKind::Tree));
    assert!(refused(&spec).contains("a symbolic link is on the way to it"));
    spec.outputs[0].path = rel("real/out");
    printed(&spec);
}

#[test]
fn names_and_links_are_data() {
    let host = Host::new();
    let script = r#"mkdir("out"); for my $n ("-rf", "new\nline", "\e[31m", "not\xffutf8", "n" x 255) { open F, ">", "out/$n"; print F $n; }
        symlink("/etc/passwd", "out/absolute"); symlink("../../../..", "out/escape"); symlink("loop", "out/loop");
        link("out/-rf", "out/zz"); open F, ">", "out/qcow"; print F "QFI\xfb\0\0\0\3backing";"#;
    let mut spec = host.perl(script);
    spec.outputs.push(output("out", OutputKind::Tree));
    let (outcome, contents) = run_into(&spec, true, &mut Vec::new());
    let outcome = outcome.unwrap_or_else(|e| panic!("failed to {e}"));
    let Some(Collected::Tree(tree)) = outcome.outputs.get("out") else {
        panic!("{outcome:?}")
    };
    let at = |name: &[u8]| tree.get(&RelPath::new(name).expect("a name")).map(|e| e.node.clone());
    let long = "n".repeat(255);
    for name in [
        b"-rf".as_slice(),
        b"new\nline",
        b"\x1b[31m",
        b"not\xffutf8",
        long.as_bytes(),
    ] {
        let Some(Node::File { digest, .. }) = at(name) else {
            panic!("{} is missing", name.escape_ascii())
        };
        assert_eq!(contents.0[&digest], name);
    }
    assert_eq!(at(b"zz"), at(b"-rf"), "a hard link is the same file again");
    for (name, target) in [("absolute", "/etc/passwd"), ("escape", "../../../.."), ("loop", "loop")] {
        assert_eq!(at(name.as_bytes()), Some(Node::Symlink { target: target.into() }));
    }
    assert!(
        tree.iter()
            .all(|(_, e)| (e.meta.uid, e.meta.gid, e.meta.mtime) == (0, 0, spec.epoch))
    );
    assert!(
        contents.0.values().any(|c| c.starts_with(b"QFI\xfb")),
        "an image is bytes like any others"
    );
}

#[test]
fn large_files_leave_by_descriptor_and_are_what_they_were() {
    const MIB: usize = 1 << 20;
    let host = Host::new();
    // At, below and above the size from which files are lent, sparse ones, and links to them, with small files between.
    let script = r#"mkdir("out"); my $m = 1 << 20; my %size = (a => 1, b => $m - 1, c => $m, d => 9 * $m + 5, e => 2, f => 64 * $m);
        for my $n (sort keys %size) { open F, ">", "out/$n"; if ($n eq "f") { truncate F, $size{$n}; seek F, 40 * $m, 0; print F "x" }
        else { print F chr(97 + $_ % 26) x 4096 for 0 .. int($size{$n} / 4096) - 1; print F "$n" x ($size{$n} % 4096) } close F }
        link("out/d", "out/g"); chmod 0755, "out/c"; open F, ">", "large"; print F "y" x (3 * $m + 1);"#;
    let mut spec = host.perl(script);
    spec.outputs.push(output("out", OutputKind::Tree));
    let file = OutputSpec {
        name: "file".into(),
        ..output("large", OutputKind::File)
    };
    spec.outputs.push(file);
    let (outcome, contents) = run_into(&spec, true, &mut Vec::new());
    let outputs = outcome.unwrap_or_else(|e| panic!("failed to {e}")).outputs;
    let Some(Collected::Tree(tree)) = outputs.get("out") else {
        panic!("{outputs:?}")
    };
    let content = |name: &str| match tree.get(&rel(name)).map(|e| &e.node) {
        Some(Node::File { size, digest }) => {
            assert_eq!(contents.0[digest].len() as u64, *size, "{name}");
            &contents.0[digest]
        }
        other => panic!("{name}: {other:?}"),
    };
    for (name, size) in [("a", 1), ("b", MIB - 1), ("c", MIB), ("d", 9 * MIB + 5), ("e", 2)] {
        let mut expected: Vec<u8> = (0..size / 4096).flat_map(|n| [b'a' + (n % 26) as u8; 4096]).collect();
        expected.extend(name.repeat(size % 4096).bytes());
        assert!(*content(name) == expected, "{name}");
    }
    let mut sparse = vec![0; 64 * MIB];
    sparse[40 * MIB] = b'x';
    assert!(*content("f") == sparse);
    assert!(content("g") == content("d"));
    assert_eq!(tree.get(&rel("c")).map(|e| e.meta.mode & 0o111), Some(0o111));
    let Some(Collected::File { digest, size, .. }) = outputs.get("file") else {
        panic!("{outputs:?}")
    };
    assert_eq!(*size, 3 * MIB as u64 + 1);
    assert!(contents.0[digest].iter().all(|b| *b == b'y') && contents.0[digest].len() as u64 == *size);
}

#[test]
fn a_store_that_fails_in_the_middle_of_a_large_file_ends_the_run() {
    let host = Host::new();
    let mut spec = host.shell("head -c 3000000 /dev/zero > out");
    spec.outputs.push(output("out", OutputKind::File));
    let executor = Executor {
        helper: pnb(),
        strict: true,
    };
    for (read, says) in [
        (0, "0 of 3000000 bytes were stored"),
        (1_500_000, "1500000 of 3000000 bytes were stored"),
    ] {
        let mut put = |_: &OutputSpec, _: bool, content: &mut dyn Content| {
            let read = io::copy(&mut content.take(read), &mut io::sink())?;
            Ok((pnb::verity::digest_bytes(b""), read))
        };
        let error = executor
            .run(&spec, &mut put, &mut Vec::new())
            .expect_err("not all was taken");
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        assert!(text.contains(says), "{text}");
    }
    let mut put = |_: &OutputSpec, _: bool, _: &mut dyn Content| Err(io::Error::other("the disk is full"));
    let error = executor
        .run(&spec, &mut put, &mut Vec::new())
        .expect_err("nothing is taken");
    assert_eq!(
        std::error::Error::source(&error).map(ToString::to_string).as_deref(),
        Some("the disk is full")
    );
}

#[test]
fn the_same_stage_gives_the_same_tree() {
    let host = Host::new();
    let mut spec = host.shell("mkdir out; for i in $(seq 50); do echo $i > out/f$i; done; mkdir out/d; ln -s f1 out/l");
    spec.outputs.push(output("out", OutputKind::Tree));
    let first = run(&spec).0.expect("ends well").outputs;
    let disk = scratch();
    spec.build_dir = BuildDir::Disk(disk.path().to_owned());
    assert_eq!(
        run(&spec).0.expect("ends well").outputs,
        first,
        "the file system behind /build shows"
    );
}
