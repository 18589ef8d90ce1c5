//! A signed list of modules on an arm64 machine.

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use crate::{ground::*, project::*};
    use std::fs;

    /// A unit of the upper module prints a file that both modules have, so that the console shows which one is on top.
    const UNIT: &str = "[Unit]\nBefore=powernode-ready.service\n\n[Service]\nType=oneshot\n\
                        StandardOutput=journal+console\nExecStart=/bin/cat /usr/share/which\n";

    #[test]
    #[ignore = "nightly: arm64 is built, a boot and a refusal; cargo test -- --ignored nightly::"]
    fn modules_are_stacked_on_an_arm64_node_and_a_changed_list_is_refused() {
        let artifact = artifact_of("arm64", &ground().public);
        let share = tempfile::tempdir_in(scratch()).expect("scratch");
        let place = share.path().join("modules");
        let nonce = |name: &str| format!("{name}-{:016x}", rand::random::<u64>());
        let (top, low) = (nonce("top"), nonce("low"));
        // More than 64 bytes: an object and no content of the image.
        let which = |nonce: &str| format!("{nonce}\n{}\n", "x".repeat(100)).into_bytes();
        let above = Files::new()
            .file("usr/share/which", &which(&top))
            .file("etc/systemd/system/probe.service", UNIT.as_bytes())
            .link(
                "etc/systemd/system/multi-user.target.wants/probe.service",
                "../probe.service",
            )
            .write(&place);
        let below = Files::new().file("usr/share/which", &which(&low)).write(&place);
        sign(&place, &[line(900, "above", &above), line(90, "below", &below)]);

        let node = || boot_within(900, &artifact, share.path());
        let said = good_boot(&mut node());
        assert!(
            said.contains("powernode: modules: 2 of 2 stacked, counter=7 key=fleet"),
            "{said}"
        );
        assert!(said.contains(&top) && !said.contains(&low), "{said}");

        let list = place.join("modules.list");
        let text = fs::read_to_string(&list).expect("signed");
        fs::write(&list, text.replace("counter 7", "counter 8")).expect("written");
        let said = bad(&mut node(), 9);
        assert!(
            said.contains("powernode: refused: ") && said.contains("modules.list has no valid signature"),
            "{said}"
        );
    }
}
