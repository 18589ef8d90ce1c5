//! Downloads of an ordinary user, whom the permissions of a file keep from opening it.

use super::{Server, bytes_of, content, get_in, item, ok, ranged};
use nix::unistd::{Uid, setfsuid};
use pnb::fetch::{FetchError, Silent};
use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    thread,
    time::Duration,
};

/// The user that nobody is.
const NOBODY: u32 = 65534;

/// Does the work as a user who is not root: the thread's own rights to files are those of that user.
fn as_ordinary_user<T: Send>(dir: &Path, work: impl FnOnce() -> T + Send) -> T {
    if Uid::effective().is_root() {
        chown(dir, Some(NOBODY), None).expect("given");
    }
    thread::scope(|scope| {
        let worked = scope.spawn(|| {
            if Uid::effective().is_root() {
                setfsuid(Uid::from_raw(NOBODY));
            }
            work()
        });
        worked.join().expect("an end")
    })
}

/// Writes the file of a download as the one of a builder that has made it an object, and has not renamed it.
fn adopted(part: &Path, bytes: &[u8]) -> File {
    fs::write(part, bytes).expect("written");
    fs::set_permissions(part, Permissions::from_mode(0o444)).expect("set");
    File::open(part).expect("readable")
}

#[test]
fn a_file_that_another_builder_is_about_to_rename_is_waited_for() {
    let server = Server::new(|_, _, s| ok(s, &content()));
    let item = item(&content(), vec![server.place()]);
    let dir = tempfile::tempdir().expect("temporary directory");
    let part = dir.path().join(format!("{}.part", item.sha256));
    let got = as_ordinary_user(dir.path(), || {
        let file = adopted(&part, &content());
        file.lock().expect("locked");
        let got = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(300));
                fs::rename(&part, dir.path().join("object")).expect("renamed");
                drop(file);
            });
            get_in(dir.path(), &item, false, &Silent).0
        });
        bytes_of(got.expect("fetched"))
    });
    assert_eq!(got, content());
    assert_eq!(fs::read(dir.path().join("object")).expect("there"), content());
}

#[test]
fn a_file_that_a_killed_builder_did_not_rename_is_taken_over() {
    let server = Server::new(|a, _, s| ranged(a, "\"1\"", &content(), s, 300_000));
    let item = item(&content(), vec![server.place()]);
    let dir = tempfile::tempdir().expect("temporary directory");
    let part = dir.path().join(format!("{}.part", item.sha256));
    let got = as_ordinary_user(dir.path(), || {
        drop(adopted(&part, &content()[..200_000]));
        bytes_of(get_in(dir.path(), &item, false, &Silent).0.expect("fetched"))
    });
    assert_eq!(got, content());
    let ranges: Vec<_> = server.asked().into_iter().map(|asked| asked.range).collect();
    assert_eq!(ranges, [Some("bytes=200000-".to_owned())]);
}

#[test]
fn a_file_that_cannot_even_be_read_is_refused() {
    let server = Server::new(|_, _, s| ok(s, &content()));
    let item = item(&content(), vec![server.place()]);
    let dir = tempfile::tempdir().expect("temporary directory");
    let part = dir.path().join(format!("{}.part", item.sha256));
    let got = as_ordinary_user(dir.path(), || {
        drop(adopted(&part, &content()));
        fs::set_permissions(&part, Permissions::from_mode(0o0)).expect("set");
        get_in(dir.path(), &item, false, &Silent).0
    });
    let error = got.expect_err("refused");
    assert!(matches!(error, FetchError::Part { action: "open", .. }), "{error}");
}

#[test]
fn a_directory_that_takes_no_file_is_refused() {
    let server = Server::new(|_, _, s| ok(s, &content()));
    let item = item(&content(), vec![server.place()]);
    let dir = tempfile::tempdir().expect("temporary directory");
    let got = as_ordinary_user(dir.path(), || {
        fs::set_permissions(dir.path(), Permissions::from_mode(0o555)).expect("set");
        get_in(dir.path(), &item, false, &Silent).0
    });
    let error = got.expect_err("refused");
    assert!(matches!(error, FetchError::Part { action: "open", .. }), "{error}");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("set");
}
