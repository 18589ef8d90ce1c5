//! The name that somebody meant who wrote another one.

/// The candidate that was probably meant by `word`: the nearest by insertions, deletions, replacements and swaps of neighbours, with at most
/// one of them for each three letters, or the only one that `word` begins, or the only one that it is a part of. Upper and lower case,
/// `_` and `-` are the same here.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let word = plain(word);
    // A long word is no slip, and the distance takes time.
    if word.is_empty() || word.chars().count() > MAX_WORD {
        return None;
    }
    let most = (word.chars().count() / 3).max(1);
    let candidates: Vec<&str> = candidates.into_iter().collect();
    let near = candidates
        .iter()
        .map(|name| {
            let other = plain(name);
            // Of two equally near names, one that only goes on was rather meant.
            (
                strsim::damerau_levenshtein(&word, &other),
                !other.starts_with(&word),
                *name,
            )
        })
        .min();
    if let Some((_, _, name)) =
        near.filter(|(distance, _, name)| *distance <= most && *distance < plain(name).chars().count())
    {
        return Some(name);
    }
    let only = |fits: &dyn Fn(&str) -> bool| {
        let mut found = candidates.iter().filter(|name| fits(&plain(name)));
        match (found.next(), found.next()) {
            (Some(name), None) => Some(*name),
            _ => None,
        }
    };
    let long = word.chars().count() >= 3;
    only(&|name| name.starts_with(&word)).or_else(|| only(&|name| long && name.contains(&word)))
}

/// Most letters of a word for which a name is looked for.
const MAX_WORD: usize = 80;

/// The hint for a message that lists what a name could be: of `serde`, ``unknown field `output`, expected one of `inputs`, `outputs` ``,
/// or of pnb, `no stage is called "kernal" (the stages are: kernel, root)` and `unknown architecture "arm46" (one of: amd64, arm64)`.
pub fn hint_at_name(message: &str) -> Option<String> {
    meant_by_message(message).map(|name| format!("did you mean `{name}`?"))
}

fn meant_by_message(message: &str) -> Option<&str> {
    let own = ["(one of: ", " are: "]
        .iter()
        .find_map(|start| message.split_once(start));
    if let Some((before, list)) = own {
        let word = before.rsplit('"').nth(1)?;
        return nearest(word, list.trim_end().trim_end_matches(')').split(", "));
    }
    let rest = ["unknown field `", "unknown variant `"]
        .iter()
        .find_map(|start| message.split_once(start))?
        .1;
    let (word, rest) = rest.split_once("`, expected ")?;
    nearest(word, rest.lines().next()?.split('`').skip(1).step_by(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VARIANTS: [&str; 8] = [
        "kernel-initrd",
        "raw",
        "iso",
        "ipxe",
        "qcow2",
        "oci",
        "disk-image-rpi4",
        "disk-image-arm64-uefi",
    ];

    #[test]
    fn slips_of_the_hand_are_found() {
        for (word, meant) in [
            ("rawe", "raw"),
            ("rwa", "raw"),
            ("RAW", "raw"),
            ("kernel_initrd", "kernel-initrd"),
            ("kernel-initramfs", "kernel-initrd"),
            ("kernel", "kernel-initrd"),
            ("qcow", "qcow2"),
            ("rpi4", "disk-image-rpi4"),
            ("disk-image-rpi", "disk-image-rpi4"),
            ("uefi", "disk-image-arm64-uefi"),
        ] {
            assert_eq!(nearest(word, VARIANTS), Some(meant), "{word}");
        }
        assert_eq!(nearest("rootf", ["root", "rootfs"]), Some("rootfs"));
        for word in ["", "floppy", "x", "disk", "tar", "vmdk", &"raw".repeat(100)] {
            assert_eq!(nearest(word, VARIANTS), None, "{word}");
        }
    }

    #[test]
    fn a_message_of_serde_names_what_is_possible() {
        let message = "unknown field `output`, expected one of `inputs`, `outputs`, `sandbox`\n";
        assert_eq!(meant_by_message(message), Some("outputs"));
        assert_eq!(
            meant_by_message("unknown variant `hots`, expected `host` or `target`"),
            Some("host")
        );
        assert_eq!(meant_by_message("unknown field `zebra`, expected `inputs`"), None);
        for (message, meant) in [
            ("no stage is called \"kernal\" (the stages are: kernel, root)", "kernel"),
            ("unknown architecture \"arm46\" (one of: amd64, arm64)", "arm64"),
        ] {
            assert_eq!(meant_by_message(message), Some(meant), "{message}");
        }
        assert_eq!(
            hint_at_name("unknown field `a-b`, expected `a-c`"),
            Some("did you mean `a-c`?".to_owned())
        );
        assert_eq!(meant_by_message("invalid type"), None);
        assert_eq!(meant_by_message("unknown field `x"), None);
    }
}
