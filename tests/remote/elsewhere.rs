//! Stages on workers of an engine.

use crate::{engine::Casd, ground::Ground};

#[test]
fn stages_on_a_worker_give_what_they_give_here() {
    let (ground, dir) = (Ground::new(), tempfile::tempdir().expect("scratch"));
    let casd = Casd::with_runner(dir.path());
    let far = ground.build("far", &["--remote", &casd.url()]);
    let (ran, shared) = far.well();
    assert_eq!((ran.len(), shared.len()), (4, 0), "{}", far.said);
    assert_eq!(far.said.matches(" on grpc://127.0.0.1:").count(), 4, "{}", far.said);
    ground.build("here", &[]).well();
    assert_eq!(
        ground.output("far", "three", "out"),
        ground.output("here", "three", "out")
    );
    // Only what was asked for came back.
    let ((few, bytes), (many, _)) = (far.objects(), ground.built("here", &["store", "path"]).objects());
    assert!(
        few < 20 && many > 300 && bytes < 100_000,
        "{few} objects of {bytes} bytes, {many}"
    );
    // The results are in the cache of the engine for everybody, and their content is right.
    let reader = ground.build_with("reader", &casd.url(), &["--remote-upload", "never"]);
    assert_eq!(reader.well().1.len(), 4, "{}", reader.said);
    for (stage, output) in [("two", "disk"), ("one", "version")] {
        let built = ground.built("reader", &["build", "--stage", stage, "--remote-cache", &casd.url()]);
        assert_eq!(built.well().0, Vec::<String>::new(), "{}", built.said);
        assert_eq!(
            ground.output("reader", stage, output),
            ground.output("here", stage, output)
        );
    }
}
