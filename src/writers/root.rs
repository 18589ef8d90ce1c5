//! `composefs-root`: the one root that all variants of an architecture carry.
//!
//! Inputs: the trees `rootfs`, `modules`, `agent` and `overlay` (in this order; only the overlay may replace files). Outputs:
//! `root.ext4` with the composefs image and its objects, `root-digest` with the image's fs-verity digest in hexadecimal,
//! and `root.dump`, the merged tree as text.

use super::{Context, TreeInput, WriterError, build, opener, tree_input};
use crate::{
    image::{
        ImageError,
        composefs::{external_objects, write_image},
        ext4::{self, Paths, ToolCall, ToolOutput},
    },
    model::{Epoch, Tree, VerityDigest, write_dump},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where the tools tree has the programs of e2fsprogs.
const SBIN: &str = "/usr/sbin";

pub(super) fn composefs_root(context: &Context) -> Result<(), WriterError> {
    let TreeInput { mut tree, mut contents } = tree_input("rootfs")?;
    for (name, replace) in [("modules", false), ("agent", false), ("overlay", true)] {
        let other = tree_input(name)?;
        tree.merge(&other.tree, replace).map_err(|source| WriterError::Merge {
            what: format!("the input {name:?}"),
            source,
        })?;
        contents.extend(other.contents);
    }
    tree.set_mtimes(context.epoch);
    write(&build("root.dump"), write_dump(&tree).as_bytes())?;

    let open = opener(&contents);
    let (image, digest) = write_image(&tree, &open)?;
    write(&build("root-digest"), format!("{digest}\n").as_bytes())?;
    let image_path = build("image.cfs");
    write(&image_path, &image)?;
    let _ = writeln!(
        io::stdout(),
        "root {digest}: {} entries, image of {} bytes",
        tree.len(),
        image.len()
    );
    drop(open);
    file_system(context.epoch, &tree, contents, &image_path, image.len() as u64, digest)?;
    fs::remove_file(&image_path).map_err(WriterError::io("remove", &image_path))
}

fn file_system(
    epoch: Epoch,
    tree: &Tree,
    mut contents: BTreeMap<VerityDigest, PathBuf>,
    image: &Path,
    image_size: u64,
    digest: VerityDigest,
) -> Result<(), WriterError> {
    contents.insert(digest, image.to_owned());
    let items = ext4::root_items(digest, image_size, &external_objects(tree))?;
    let layout = ext4::plan(&items)?;
    let (tar, script, out) = (build("root.tar"), build("root.debugfs"), build("root.ext4"));
    write(&script, ext4::debugfs_script(&layout).as_bytes())?;
    let file = File::create_new(&tar).map_err(WriterError::io("create", &tar))?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    let staged = ext4::write_staging_tar(layout, epoch, &opener(&contents), &mut writer)?;
    writer.flush().map_err(WriterError::io("write", &tar))?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (tar_name, script_name, out_name) = (text(&tar), text(&script), text(&out));
    let paths = Paths {
        tar: &tar_name,
        script: &script_name,
        image: &out_name,
    };
    ext4::make(&staged, &digest, paths, &run_tool).map_err(|error: ImageError| WriterError::from(error))?;
    for path in [&tar, &script] {
        fs::remove_file(path).map_err(WriterError::io("remove", path))?;
    }
    Ok(())
}

/// Runs a program of the tools tree, with nothing but the call's own environment.
pub(super) fn run_tool(call: &ToolCall) -> io::Result<ToolOutput> {
    let (program, arguments) = call
        .argv
        .split_first()
        .ok_or_else(|| io::Error::other("the call is empty"))?;
    let output = Command::new(Path::new(SBIN).join(program))
        .args(arguments)
        .env_clear()
        .envs(call.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .output()?;
    Ok(ToolOutput {
        status: output.status.code(),
        stdout: output.stdout,
        stderr: output.stderr,
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), WriterError> {
    fs::write(path, bytes).map_err(WriterError::io("write", path))
}
