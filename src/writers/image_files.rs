//! `image-files`: an OCI image from anywhere as the files that boot it directly, for `pnb boot`.
//!
//! Input: `image`, a layout. The layers of the image for the context's architecture are compared with their digests and applied; the
//! tree without kernel and initramfs becomes a root as `composefs-root` makes it, with the digest that it has, not with the one that a
//! label states; the two must be equal if there is a label. The root goes behind the initramfs as in `kernel-initrd`.
//! Outputs: `kernel`, `initramfs.cpio.zst`, `root-digest`, and `command-line` with the kernel arguments of the image.

use super::{Context, WriterError, build, bundle, input, opener, root};
use crate::{
    image::{
        composefs::write_image,
        oci::{LayerLimits, LayoutReader, OciImage, apply_layers, kernel_arguments, take_kernel},
    },
    model::{Node, RelPath, Tree, VerityDigest},
    store::{open_foreign_below, read_foreign},
    verity,
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// The name of the writer.
pub const IMAGE_FILES: &str = "image-files";
/// The input: the directory of a layout.
pub const IMAGE_INPUT: &str = "image";
/// The output with the digest of the root that was made.
pub const IMAGE_ROOT_DIGEST: &str = "root-digest";
/// The output with the image's kernel command line.
pub const IMAGE_COMMAND_LINE: &str = "command-line";
/// Directory of the image's kernel arguments.
const KARGS: &str = "usr/lib/bootc/kargs.d";
/// Most bytes of a file with kernel arguments.
const MAX_KARGS: u64 = 1 << 20;

pub(super) fn image_files(context: &Context) -> Result<(), WriterError> {
    let open =
        |path: &RelPath| -> io::Result<Box<dyn Read>> { Ok(Box::new(open_foreign_below(&input(IMAGE_INPUT), path)?)) };
    let layout = LayoutReader::new(&open);
    let image = OciImage::find(&layout, context.arch)?;
    let claimed = image.claimed_root()?;

    let spool = build("contents");
    fs::create_dir(&spool).map_err(WriterError::io("create", &spool))?;
    let contents = RefCell::new(BTreeMap::new());
    let mut count = 0u32;
    let mut put = |_: &RelPath, content: &mut dyn Read| {
        let name = spool.join(count.to_string());
        count += 1;
        let (digest, size) = verity::copy_digest(content, File::create_new(&name)?)?;
        contents.borrow_mut().insert(digest, name);
        Ok((digest, size))
    };
    let limits = LayerLimits::default();
    let mut tree = apply_layers(&layout, &image, context.epoch, &limits, &mut put)?.tree;
    let contents = contents.into_inner();
    let kernel = take_kernel(&mut tree)?;
    let arguments = kernel_arguments(&kargs(&tree, &contents)?, context.arch)?;

    let (bytes, digest) = write_image(&tree, &opener(&contents))?;
    if let Some(claimed) = claimed.filter(|claimed| *claimed != digest) {
        return Err(WriterError::Missing(format!(
            "use the image: its layers have another root than its label states\nexpected: {claimed}\n  actual: {digest}"
        )));
    }
    let _ = writeln!(
        io::stdout(),
        "image sha256:{}, root {digest}, kernel {}",
        image.manifest,
        kernel.version
    );
    let write = |name: &str, bytes: &[u8]| {
        let path = build(name);
        fs::write(&path, bytes).map_err(WriterError::io("write", &path))
    };
    write(IMAGE_ROOT_DIGEST, format!("{digest}\n").as_bytes())?;
    write(IMAGE_COMMAND_LINE, format!("{arguments}\n").as_bytes())?;
    write("image.cfs", &bytes)?;
    let at = |digest| {
        let path = contents.get(digest).cloned();
        path.ok_or_else(|| WriterError::Missing(format!("find the content {digest} of the image")))
    };
    let (vmlinuz, initramfs) = (at(&kernel.kernel)?, at(&kernel.initramfs)?);
    let to = build("kernel");
    fs::copy(&vmlinuz, &to).map_err(WriterError::io("copy", &vmlinuz))?;
    let size = bytes.len() as u64;
    let objects = root::in_order(&tree, &[]);
    root::file_system(context.epoch, &objects, contents, &build("image.cfs"), size, digest)?;
    bundle::with_root(context, &initramfs, build(IMAGE_ROOT_DIGEST), build("root.ext4"))
}

/// The files with kernel arguments, as the layers leave them.
fn kargs(tree: &Tree, contents: &BTreeMap<VerityDigest, PathBuf>) -> Result<BTreeMap<RelPath, String>, WriterError> {
    let directory = RelPath::new(KARGS).map_err(|e| WriterError::Missing(e.to_string()))?;
    let mut files = BTreeMap::new();
    for path in tree.children(Some(&directory)) {
        let Some(Node::File { digest, .. }) = tree.get(&path).map(|entry| &entry.node) else {
            continue;
        };
        let from = contents.get(digest);
        let from = from.ok_or_else(|| WriterError::Missing(format!("find the content of {path}")))?;
        let text = read_foreign(from, MAX_KARGS).and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
        let text = text.map_err(WriterError::io("read", Path::new(&path.to_string())))?;
        files.insert(path, text);
    }
    Ok(files)
}
