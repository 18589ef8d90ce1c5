//! composefs images against fsck.erofs, which must be installed, and against mkcomposefs 1.0.8.

use pnb::{
    image::{
        ImageError,
        composefs::{INLINE_MAX, external_objects, write_image},
    },
    model::{Entry, Epoch, Meta, Node, RelPath, Tree, VerityDigest, write_dump},
    verity::digest_bytes,
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{Cursor, Read},
    process::Command,
};

type Contents = BTreeMap<VerityDigest, Vec<u8>>;

fn image(tree: &Tree, contents: &Contents) -> Result<(Vec<u8>, VerityDigest), ImageError> {
    let open = |digest: &VerityDigest| -> std::io::Result<Box<dyn Read>> {
        let bytes = contents.get(digest).ok_or(std::io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(bytes.clone())))
    };
    write_image(tree, &open)
}

struct Sample {
    tree: Tree,
    contents: Contents,
}

impl Sample {
    fn new() -> Self {
        let mut root = Meta::root(0o755, Epoch::new(1_700_000_000));
        root.xattrs.insert(b"security.selinux".to_vec(), b"root_t".to_vec());
        root.xattrs.insert(b"user.note".to_vec(), b"a b=c\0-".to_vec());
        Self {
            tree: Tree::new(root),
            contents: Contents::new(),
        }
    }

    fn add(&mut self, path: impl AsRef<[u8]>, node: Node) -> &mut Self {
        let n = self.tree.len() as u32;
        let mut meta = Meta::root(
            [0o644, 0o755, 0o4755, 0o1777][n as usize % 4],
            Epoch::new(1_700_000_000 + n % 3),
        );
        (meta.uid, meta.gid) = (n % 5 * 33, n % 7 * 20_000);
        if n.is_multiple_of(6) {
            meta.xattrs
                .insert(b"security.capability".to_vec(), vec![1, 0, 0, 2, n as u8, 0]);
        }
        if n.is_multiple_of(11) {
            meta.xattrs.insert(b"user.same".to_vec(), b"shared by many".to_vec());
            meta.xattrs.insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
        }
        if n.is_multiple_of(97) {
            meta.xattrs.insert(b"system.posix_acl_access".to_vec(), vec![2; 28]);
            meta.xattrs.insert(b"lustre.x".to_vec(), vec![n as u8; 300]);
        }
        let path = RelPath::new(path).expect("valid path");
        self.tree.insert(path, Entry { meta, node }).expect("free place");
        self
    }

    fn file(&mut self, path: impl AsRef<[u8]>, content: &[u8]) -> &mut Self {
        let digest = digest_bytes(content);
        self.contents.insert(digest, content.to_vec());
        let size = content.len() as u64;
        self.add(path, Node::File { size, digest })
    }

    fn directory(&mut self, path: impl AsRef<[u8]>) -> &mut Self {
        self.add(path, Node::Directory)
    }

    /// Directories of every shape and every kind of entry, `width` of each.
    fn many(width: usize) -> Self {
        let mut sample = Self::new();
        sample
            .directory("00")
            .directory("dev")
            .directory("etc")
            .directory("usr");
        for i in 0..width {
            let (major, minor) = (i as u32 % 4096, i as u32 * 397 % (1 << 20));
            sample.add(format!("dev/c{i}"), Node::CharDevice { major, minor });
            sample.add(format!("dev/b{i}"), Node::BlockDevice { major, minor });
            sample.file(format!("etc/f{i:05}"), &vec![i as u8; i % 130]);
            let target = format!("../{}", "x/".repeat(i % 2040)).into_bytes();
            sample.add(format!("usr/l{i}"), Node::Symlink { target });
            let name = [b"usr/\xff\xfe \\=\n".as_slice(), i.to_string().as_bytes()].concat();
            sample.directory(&name);
            for j in 0..i % 9 {
                let name = [&name[..], format!("/{}{j}", "n".repeat(i % 240 + 1)).as_bytes()].concat();
                sample.file(&name, format!("{i}.{j}").repeat(40).as_bytes());
            }
        }
        let digest = VerityDigest::new([9; 32]);
        for (name, size) in [("huge", 1 << 43), ("large", 5 << 30), ("small", 65)] {
            sample.add(name, Node::File { size, digest });
        }
        sample.add("gone", Node::CharDevice { major: 0, minor: 0 });
        sample.add("pipe", Node::Fifo);
        sample
    }

    fn image(&self) -> (Vec<u8>, VerityDigest) {
        image(&self.tree, &self.contents).expect("every entry fits")
    }

    /// The dump `mkcomposefs --from-file` reads: pnb's, with small contents inline.
    fn dump(&self) -> String {
        let dump = write_dump(&self.tree);
        let mut lines = dump.lines();
        let mut out = format!("{}\n", lines.next().expect("the root"));
        for ((_, entry), line) in self.tree.iter().zip(lines) {
            match entry.node {
                Node::File { size, digest } if (1..=INLINE_MAX).contains(&size) => {
                    let mut fields: Vec<&str> = line.split(' ').collect();
                    let mut text = String::new();
                    for byte in &self.contents[&digest] {
                        write!(text, "\\x{byte:02x}").expect("to a string");
                    }
                    fields[8..11].copy_from_slice(&["-", &text, "-"]);
                    out += &fields.join(" ");
                }
                _ => out += line,
            }
            out.push('\n');
        }
        out
    }
}

#[test]
fn known_answer() {
    let sample = Sample::many(12);
    let (bytes, digest) = sample.image();
    assert_eq!(digest, digest_bytes(&bytes));
    // What mkcomposefs 1.0.8 --min-version=1 --from-file says of `sample.dump()`.
    assert_eq!(
        (digest.to_hex().as_str(), bytes.len()),
        (
            "f7d299242c6504b6c4016c5f259c52c37f20a09474aee49c2fdcb4683a2f8474",
            40960
        )
    );
}

#[test]
fn fsck_erofs_finds_nothing() {
    let dir = tempfile::tempdir().expect("scratch");
    let path = dir.path().join("image.cfs");
    std::fs::write(&path, Sample::many(300).image().0).expect("written");
    let output = Command::new("fsck.erofs")
        .arg("-d3")
        .arg(&path)
        .output()
        .expect("the Debian package erofs-utils must be installed");
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("No errors found"), "{text}");
}

#[test]
#[ignore = "needs mkcomposefs 1.0.8 or newer (Debian package composefs, forky)"]
fn equals_mkcomposefs() {
    for width in [0, 12, 300, 1500] {
        let sample = Sample::many(width);
        let dir = tempfile::tempdir().expect("scratch");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("dump"), sample.dump()).expect("written");
        let output = Command::new("mkcomposefs")
            .args(["--min-version=1", "--from-file"])
            .args([at("dump"), at("image")])
            .output()
            .expect("mkcomposefs must be installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs = std::fs::read(at("image")).expect("written");
        println!(
            "{} entries, {} bytes, {}",
            sample.tree.len(),
            theirs.len(),
            digest_bytes(&theirs)
        );
        assert!(sample.image().0 == theirs, "{} entries", sample.tree.len());
    }
}

#[test]
fn only_contents_above_the_limit_are_objects() {
    let mut sample = Sample::new();
    for len in [0, 1, 64, 65] {
        sample.file(format!("f{len}"), &vec![b'x'; len]);
    }
    let objects = external_objects(&sample.tree);
    assert_eq!(
        objects.into_iter().collect::<Vec<_>>(),
        [(digest_bytes(&[b'x'; 65]), 65)]
    );
    // Only small contents are asked for, and what is small lies in the image.
    sample.contents.remove(&digest_bytes(&[b'x'; 65]));
    let (bytes, _) = sample.image();
    assert!(bytes.windows(64).any(|w| w == [b'x'; 64]));
}

#[test]
fn a_small_file_with_other_content_is_refused() {
    let mut sample = Sample::new();
    sample.file("etc", b"right");
    for (wrong, what) in [(&b"wrong"[..], "digest"), (b"shor", "length"), (&[0; 99], "or more")] {
        sample.contents.insert(digest_bytes(b"right"), wrong.to_vec());
        let text = image(&sample.tree, &sample.contents)
            .expect_err("wrong content")
            .to_string();
        assert!(text.contains("\"etc\"") && text.contains(what), "{text}");
    }
}

#[test]
fn what_the_image_cannot_hold_is_refused_by_name() {
    let refused = |node: Node, xattr: Option<(Vec<u8>, Vec<u8>)>| {
        let mut tree = Tree::new(Meta::root(0o755, Epoch::new(0)));
        let mut meta = Meta::root(0o644, Epoch::new(0));
        meta.xattrs.extend(xattr);
        let path = RelPath::new("entry").expect("valid path");
        tree.insert(path, Entry { meta, node }).expect("free place");
        let text = image(&tree, &Contents::new()).expect_err("cannot be held").to_string();
        assert!(text.starts_with("store \"entry\" in a composefs image: "), "{text}");
    };
    let digest = VerityDigest::new([1; 32]);
    refused(Node::File { size: 1 << 44, digest }, None);
    refused(Node::CharDevice { major: 4096, minor: 0 }, None);
    refused(
        Node::BlockDevice {
            major: 0,
            minor: 1 << 20,
        },
        None,
    );
    for target in [vec![], b"a\0".to_vec(), vec![b'x'; 4096]] {
        refused(Node::Symlink { target }, None);
    }
    refused(Node::Fifo, Some((vec![b'x'; 256], vec![])));
    refused(Node::Fifo, Some((vec![], vec![])));
    refused(Node::Fifo, Some((b"user.x".to_vec(), vec![0; 65_536])));
}
