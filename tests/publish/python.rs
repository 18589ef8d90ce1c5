//! The double of Gitea, checked with a client that was generated from Gitea's specification.

use crate::{
    gitea::{COMMIT, Gitea, TOKEN},
    python_packages::python,
};
use std::process::Command;

#[test]
fn a_client_generated_from_the_specification_reads_every_answer_of_the_double() {
    let double = Gitea::start();
    double.state().protected.push("release-*".to_owned());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/publish/gitea_client.py");
    let done = Command::new(python())
        .arg(script)
        .env("NO_PROXY", "127.0.0.1")
        .args([&double.web.url("/api/v1"), TOKEN, COMMIT])
        .output()
        .expect("python starts");
    let said = String::from_utf8_lossy(&[&done.stdout[..], &done.stderr[..]].concat()).into_owned();
    assert!(done.status.success(), "{said}\n{}", double.web.lines().join("\n"));
    assert_eq!(said, "every answer was read\n");
    // The other end: what the client did is what the double has.
    let state = double.state();
    assert_eq!(state.names("v1"), ["kernel"]);
    assert_eq!(state.releases[0].assets[0].content, b"12345");
    assert!(double.web.log().len() > 20);
}
