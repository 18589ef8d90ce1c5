//! What `pnb module` says.

use crate::{ground::*, project::*};
use std::{fs, path::Path, process::Command};

fn module(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command.arg("module").args(arguments);
    command
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in(scratch()).expect("scratch")
}

fn tree(dir: &Path) -> String {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("usr/share/x")).expect("made");
    fs::write(tree.join("usr/share/x/large"), "y".repeat(9000)).expect("written");
    fs::write(tree.join("usr/share/x/small"), "y").expect("written");
    std::os::unix::fs::symlink("large", tree.join("usr/share/x/link")).expect("made");
    tree.display().to_string()
}

/// Every file below `dir` with its digest.
fn content(dir: &Path) -> Vec<(String, String)> {
    let files = walkdir::WalkDir::new(dir)
        .sort_by_file_name()
        .into_iter()
        .map(|e| e.expect("readable"));
    let files = files.filter(|entry| entry.file_type().is_file());
    files
        .map(|entry| {
            let name = entry.path().strip_prefix(dir).expect("below it").display().to_string();
            (
                name,
                pnb::verity::digest_bytes(&fs::read(entry.path()).expect("readable")).to_hex(),
            )
        })
        .collect()
}

#[test]
fn a_directory_gives_the_same_module_twice_and_anywhere() {
    let (one, two) = (dir(), dir());
    let build = |dir: &Path| {
        let (source, out) = (tree(dir), dir.join("out").display().to_string());
        let line = good(&mut module(&["--quiet", "build", &source, "--id", "x", "--out", &out]));
        (
            line.lines().last().expect("a line").to_owned(),
            content(&dir.join("out")),
        )
    };
    let (first, second) = (build(one.path()), build(two.path()));
    assert_eq!(first, second);
    // Another time of the source changes nothing; another mode does.
    let large = one.path().join("tree/usr/share/x/large");
    let touch = Command::new("touch").args(["-d", "2001-01-01"]).arg(&large).status();
    assert!(touch.expect("touch starts").success());
    assert_eq!(build_again(one.path()), first);
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&large, fs::Permissions::from_mode(0o755)).expect("ours");
    assert_ne!(build_again(one.path()).0, first.0);
    assert_eq!(first.1.len(), 2, "the image and one object: {:?}", first.1);
    assert!(
        first.0.starts_with("500 x sha256:") && first.0.ends_with(" required"),
        "{}",
        first.0
    );
}

fn build_again(dir: &Path) -> (String, Vec<(String, String)>) {
    let out = dir.join("again");
    let _ = fs::remove_dir_all(&out);
    let (source, to) = (dir.join("tree").display().to_string(), out.display().to_string());
    let line = good(&mut module(&["--quiet", "build", &source, "--id", "x", "--out", &to]));
    (line.lines().last().expect("a line").to_owned(), content(&out))
}

#[test]
fn a_stage_gives_the_same_module_twice() {
    let out = dir();
    let build = |name: &str| {
        let out = out.path().join(name);
        let mut command = pnb(repository(), &store());
        command.args([
            "--quiet",
            "module",
            "build",
            "nginx",
            "--without",
            "usr/lib/systemd",
            "--out",
        ]);
        good(command.arg(&out))
    };
    assert_eq!(build("one"), build("two"));
    assert_eq!(content(&out.path().join("one")), content(&out.path().join("two")));
    let said = good(module(&["verify"]).arg(out.path().join("one")));
    assert!(
        said.contains("objects") && said.contains("1 module is whole; there is no modules.list"),
        "{said}"
    );
    let mut command = pnb(repository(), &store());
    let said = bad(
        command
            .args(["module", "build", "nginx", "--out"])
            .arg(out.path().join("three")),
        1,
    );
    assert!(
        said.contains("\"usr/lib/systemd\" is at /usr/lib/systemd, which no module may change"),
        "{said}"
    );
    assert!(said.contains("hint: --without PATH leaves a path out"), "{said}");
}

#[test]
fn entries_that_no_module_may_have_are_refused() {
    for (path, make, why) in [
        (
            "usr/bin/su",
            "install -D -m 4755 /dev/null",
            "has the mode 4755, with a set-id bit",
        ),
        ("usr/share/pipe", "mkfifo", "is a named pipe"),
        (
            "etc/passwd",
            "install -D /dev/null",
            "is at /etc/passwd, which no module may change",
        ),
        (
            "var/lib/file",
            "install -D /dev/null",
            "is below /var, where a node mounts another file system",
        ),
        ("ab", "mkdir", "has the name of a directory of objects"),
    ] {
        let dir = dir();
        let source = tree(dir.path());
        let full = Path::new(&source).join(path);
        fs::create_dir_all(full.parent().expect("below tree")).expect("made");
        let made = Command::new("sh")
            .arg("-c")
            .arg(format!("{make} \"$1\""))
            .arg("sh")
            .arg(&full)
            .status();
        assert!(made.expect("sh starts").success(), "{make}");
        let out = dir.path().join("out").display().to_string();
        let said = bad(&mut module(&["build", &source, "--out", &out]), 1);
        assert!(said.contains(&format!("\"{path}\" {why}")), "{said}");
        // Left out, the rest is a module.
        good(&mut module(&["build", &source, "--without", path, "--out", &out]));
    }
}

#[test]
fn a_changed_module_or_list_does_not_verify() {
    let dir = dir();
    let (source, out) = (tree(dir.path()), dir.path().join("out"));
    let line = good(&mut module(&[
        "--quiet",
        "build",
        &source,
        "--id",
        "x",
        "--out",
        &out.display().to_string(),
    ]));
    let key = dir.path().join("key");
    good(module(&["key"]).arg(&key));
    bad(module(&["key"]).arg(&key), 1);
    let (secret, public) = (key.with_extension("sec"), key.with_extension("pub"));
    let path = out.join("modules.list");
    fs::write(&path, list("*", 1, LATER, &[line.trim_end().to_owned()])).expect("written");
    let verify = || {
        let mut command = module(&["verify"]);
        command.arg(&out).arg("--key").arg(&public);
        command
    };
    let said = bad(&mut verify(), 1);
    assert!(
        said.contains("does not begin with a line `untrusted comment: "),
        "{said}"
    );
    let sign = || good(module(&["sign"]).arg(&path).arg("--key").arg(&secret));
    sign();
    let once = fs::read(&path).expect("readable");
    sign();
    assert_eq!(
        fs::read(&path).expect("readable"),
        once,
        "signing again changes nothing"
    );
    assert!(good(&mut verify()).contains("1 module, counter 1"));
    let text = String::from_utf8(once).expect("text");
    fs::write(&path, text.replace("counter 1", "counter 2")).expect("written");
    let said = bad(&mut verify(), 1);
    assert!(said.contains("the signature is not of this text"), "{said}");
    fs::write(&path, &text).expect("written");

    let image = content(&out)
        .into_iter()
        .find(|(name, _)| name.ends_with(".cfs"))
        .expect("an image")
        .0;
    flip(&out.join(&image), 5000);
    let said = bad(&mut verify(), 1);
    assert!(
        said.contains("wrong fs-verity digest") && said.contains("hint: the file was changed"),
        "{said}"
    );
    flip(&out.join(&image), 5000);
    let object = content(&out)
        .into_iter()
        .find(|(name, _)| name.starts_with(".store/"))
        .expect("an object")
        .0;
    flip(&out.join(&object), 8000);
    let said = bad(&mut verify(), 1);
    assert!(
        said.contains("wrong fs-verity digest") && said.contains(".store/"),
        "{said}"
    );
    flip(&out.join(&object), 8000);
    good(&mut verify());
    fs::remove_file(out.join(&image)).expect("ours");
    let said = bad(&mut verify(), 1);
    assert!(
        said.contains("the image of the required module x is not beside it"),
        "{said}"
    );
}
