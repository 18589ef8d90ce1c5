//! The form of names and addresses that lockfiles and manifests hold. All of them enter paths, addresses, tables and keys, so each has
//! only the characters that it needs.

use super::RelPath;

/// Most bytes of one pinned file.
pub(crate) const MAX_PINNED: u64 = 1 << 40;

/// Whether a path has letters, digits and `+-._~%:,@=` only: a directory or a file of an archive, or a file of the project.
pub(crate) fn is_plain_path(path: &RelPath) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/+-._~%:,@=".contains(b);
    path.as_bytes().len() <= 1000 && path.as_bytes().iter().all(plain)
}

/// Whether a text is an http or https address of at most 2000 visible ASCII characters.
pub(crate) fn is_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|r| !r.is_empty() && r.len() < 2000) && url.bytes().all(|b| b.is_ascii_graphic())
}

/// Whether a text is a version or a release in 1 to 100 letters, digits and `.+-_~:`.
pub(crate) fn is_release(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".+-_~:".contains(&b);
    (1..=100).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_characters_are_refused() {
        let path = |text: &str| is_plain_path(&RelPath::new(text).expect("a path"));
        assert!(path("pool/main/g/gcc-14/libstdc++6_14.2.0-19_amd64.deb") && path("dists/a~b:1"));
        for bad in [
            "a b",
            "a\nb",
            "a\x1b[2J",
            "dеbian",
            "a\"b",
            "a\\b",
            &"x/".repeat(600)[..1199],
        ] {
            assert!(!path(bad), "{bad:?}");
        }
        assert!(is_url("https://snapshot.debian.org/archive/debian/1") && is_url("http://x"));
        for bad in [
            "",
            "https://",
            "ftp://x",
            "https://a b",
            "https://a\n",
            "https://ä",
            "x",
        ] {
            assert!(!is_url(bad), "{bad:?}");
        }
        assert!(is_release("6.12.43+deb13-amd64") && is_release("1:2~rc1"));
        for bad in ["", "a b", "a\n", "ä", "a/b", &"1".repeat(101)] {
            assert!(!is_release(bad), "{bad:?}");
        }
    }
}
