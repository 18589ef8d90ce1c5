//! The same hand-over on arm64 machines, from two sources to the double.

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use crate::{machine::*, platform::Platform, project::*};
    use std::process::Command;

    const ARCH: &str = "arm64";
    /// Seconds for a machine that is alone.
    const SECONDS: u64 = 900;

    /// Boots what `command` gives for the double, and compares what the double saw.
    fn enrolls(source: &str, command: impl FnOnce(&Platform) -> Command) {
        let platform = platform();
        platform.expect(TOKEN, INSTANCE);
        let said = good_boot(&mut command(&platform));
        ready(&said, INSTANCE, source);
        saw(&platform, TOKEN, INSTANCE, &said);
    }

    #[test]
    #[ignore = "nightly: arm64 is built, and two boots; cargo test -- --ignored nightly::"]
    fn command_line_and_fw_cfg_name_an_arm64_node() {
        let artifact = built(repository(), ("kernel-initrd", ARCH), "plain", &[]);
        enrolls("cmdline", |platform| {
            let mut command = boot_within(SECONDS, &artifact, platform);
            command.arg("--append").arg(words(platform));
            command
        });
        enrolls("fw_cfg", |platform| {
            let mut command = boot_within(SECONDS, &artifact, platform);
            command.args(fw_cfg(platform));
            command
        });
    }
}
