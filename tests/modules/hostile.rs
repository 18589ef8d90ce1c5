//! Images that pnb does not write, made by changing bytes of one that it does.

use crate::ground::Files;
use pnb::{
    image::composefs::{Listed, list},
    model::{Meta, Node, VerityDigest},
    module::WrittenModule,
    verity::digest_bytes,
};
use std::{fs, path::Path};

/// Offset of the device number in an inode (`i_u.rdev`), and the lengths of the two forms of an inode.
const RDEV: usize = 16;
const COMPACT: usize = 32;
const EXTENDED: usize = 64;

/// The image of `module` with other bytes, under the digest that it has then, beside the same objects.
pub(crate) fn changed(module: &WrittenModule, change: impl FnOnce(&mut Vec<u8>)) -> WrittenModule {
    let mut image = fs::read(&module.image).expect("an image");
    change(&mut image);
    let digest = digest_bytes(&image);
    assert_ne!(digest, module.digest, "nothing was changed");
    let path = module.image.with_file_name(format!("{digest}.cfs"));
    fs::write(&path, image).expect("written");
    fs::remove_file(&module.image).expect("ours");
    WrittenModule {
        digest,
        image: path,
        ..module.clone()
    }
}

fn entries(image: &[u8]) -> Vec<Listed> {
    list(image, 100_000).expect("an image")
}

fn find(image: &[u8], path: &str) -> Listed {
    let mut found = entries(image).into_iter().filter(|entry| entry.path == path.as_bytes());
    found.next().expect("in the image")
}

/// A module with a whiteout at `path`.
pub(crate) fn whiteout(place: &Path, path: &str) -> WrittenModule {
    let mut files = Files::new();
    files.add(
        path,
        Meta::root(0, crate::ground::EPOCH),
        Node::CharDevice { major: 1, minor: 3 },
    );
    changed(&files.write(place), |image| {
        let at = find(image, &format!("/{path}")).inode.0 as usize;
        image[at + RDEV..at + RDEV + 4].fill(0);
    })
}

/// A module whose entry `path` has the attribute `trusted.overlay.<name>` = `value`.
pub(crate) fn attribute(place: &Path, files: Files, path: &str, name: &str, value: &[u8]) -> WrittenModule {
    let mut files = files;
    let path = path.parse().expect("a path");
    let mut meta = files.tree.get(&path).expect("in the tree").meta.clone();
    // The writer would escape the name as it should be.
    let written = format!("trusted.overlay_{name}");
    meta.xattrs.insert(written.into_bytes(), value.to_vec());
    files.tree.set_meta(&path, meta);
    changed(&files.write(place), |image| {
        // The reader refuses some of what becomes of it.
        let listed = entries(image);
        let (from, to) = (format!("overlay_{name}"), format!("overlay.{name}"));
        let at: Vec<usize> = memchr::memmem::find_iter(image, from.as_bytes()).collect();
        for at in at {
            image[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
        // The filter of names, which the kernel asks first, leaves out no name when its bits are clear.
        for entry in listed {
            let (at, len) = (entry.inode.0 as usize, entry.inode.1 as usize);
            let head = if image[at] & 1 == 1 { EXTENDED } else { COMPACT };
            if len > head {
                image[at + head..at + head + 4].fill(0);
            }
        }
    })
}

/// A module whose file `path` names the object `object` and not its own.
pub(crate) fn other_object(place: &Path, files: &Files, path: &str, object: VerityDigest) -> WrittenModule {
    changed(&files.write(place), |image| {
        let own = find(image, &format!("/{path}")).object.expect("an object");
        let (hex, other) = (own.to_hex(), object.to_hex());
        for (from, to) in [
            (own.as_bytes().to_vec(), object.as_bytes().to_vec()),
            (
                format!("/{}/{}", &hex[..2], &hex[2..]).into_bytes(),
                format!("/{}/{}", &other[..2], &other[2..]).into_bytes(),
            ),
        ] {
            let at = memchr::memmem::find(image, &from).expect("in the image");
            image[at..at + to.len()].copy_from_slice(&to);
        }
    })
}
