//! Modules on a node with `/persist`: copied there once, and a counter that no list goes below.

mod nightly {
    use crate::{ground::*, project::*};
    use std::{fs, path::Path};

    /// A share with a list with this counter of one module, and the module itself if `whole`.
    fn share(counter: u64, whole: bool) -> tempfile::TempDir {
        let dir = tempfile::tempdir_in(scratch()).expect("scratch");
        let place = dir.path().join("modules");
        let files = Files::new().file("usr/share/one", "x".repeat(5000).as_bytes());
        let module = files.write(&place);
        let text = list("*", counter, LATER, &[line(500, "one", &module)]);
        if !whole {
            fs::remove_dir_all(&place).expect("ours");
            fs::create_dir(&place).expect("made");
        }
        fs::write(place.join("modules.list"), secret().sign(&text, "fleet")).expect("written");
        dir
    }

    #[test]
    #[ignore = "nightly: four boots of a disk"]
    fn a_disk_keeps_modules_and_takes_no_list_of_yesterday() {
        let images = tempfile::tempdir_in(scratch()).expect("scratch");
        let mut build = pnb(repository(), &store());
        build.args(["build", "--arch", "amd64", "--variant", "raw", "--module-key"]);
        good(build.arg(&ground().public).arg("--output").arg(images.path()));
        let disk = images.path().join("kept.raw");
        let boot = |share: Option<&Path>| {
            let mut command = pnb(repository(), &store());
            command.arg("boot").arg(images.path().join("raw/amd64"));
            command.arg("--keep").arg(&disk).args(["--timeout", &patience(500)]);
            if let Some(share) = share {
                command.arg("--share").arg(share);
            }
            command
        };
        let first = share(7, true);
        let said = good_boot(&mut boot(Some(first.path())));
        assert!(
            said.contains("powernode: modules: 1 of 1 stacked, counter=7 key=fleet"),
            "{said}"
        );
        let said = bad(&mut boot(None), 9);
        assert!(
            said.contains("modules.list is gone: this node has had the list with the counter 7"),
            "{said}"
        );
        let said = bad(&mut boot(Some(share(6, true).path())), 9);
        assert!(said.contains("has the counter 6, below 7 of an earlier list"), "{said}");
        // The image and its object are on the disk since the first boot.
        let said = good_boot(&mut boot(Some(share(8, false).path())));
        assert!(
            said.contains("powernode: modules: 1 of 1 stacked, counter=8 key=fleet"),
            "{said}"
        );
    }
}
