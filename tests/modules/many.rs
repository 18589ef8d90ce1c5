//! Hundreds of modules in one stack.

/// What `.ci/nightly` runs, and `.ci/run` does not.
mod nightly {
    use crate::{ground::*, project::*};

    #[test]
    #[ignore = "nightly: a boot; cargo test -- --ignored nightly::"]
    fn three_hundred_modules_are_one_stack() {
        let share = tempfile::tempdir_in(scratch()).expect("scratch");
        let place = share.path().join("modules");
        let lines: Vec<String> = (0..300u32)
            .map(|number| {
                let content = format!("{number}\n{}", "x".repeat(200));
                let files = Files::new()
                    .file("usr/share/which", content.as_bytes())
                    .file(&format!("usr/share/many/{number}"), content.as_bytes());
                line(number, &format!("m{number}"), &files.write(&place))
            })
            .collect();
        sign(&place, &lines);
        let said = good_boot(&mut boot(&ground().artifact, share.path()));
        assert!(
            said.contains("powernode: modules: 300 of 300 stacked, counter=7 key=fleet"),
            "{said}"
        );
    }
}
