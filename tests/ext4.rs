//! The ext4 file system with baked verity: the staged tar against tar(1), the result against debugfs and fsverity-utils.

use pnb::{
    image::{
        ImageError,
        ext4::{
            Ext4Layout, IMAGE_PATH, Paths, Staged, ToolCall, ToolOutput, VerityFile, debugfs_script, make, plan,
            root_items, write_staging_tar,
        },
    },
    model::{Epoch, VerityDigest},
    verity::digest_bytes,
};
use std::{
    collections::BTreeMap,
    io::{self, Cursor, Read},
    path::Path,
    process::Command,
};

type Contents = BTreeMap<VerityDigest, Vec<u8>>;
const EPOCH: Epoch = Epoch::new(1_750_000_000);

fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// An image and objects: sizes around blocks and 64 KiB, blocks of zeros, more runs than an inode has extents, and
/// enough of them for directories of more than one block.
fn sample(small: usize) -> (VerityDigest, Ext4Layout, Contents) {
    let mut contents = Contents::new();
    let mut add = |bytes: Vec<u8>| {
        let digest = digest_bytes(&bytes);
        contents.insert(digest, bytes);
        digest
    };
    let image = add(noise(300_000, 1));
    for len in [65, 4095, 4096, 4097, 65_535, 65_536, 65_537, 600_000, 3_000_000] {
        add(noise(len, 2));
    }
    add(vec![0; 50_000]);
    let mut torn = noise(400_000, 3);
    for block in torn.chunks_mut(8192) {
        let end = block.len().min(4096);
        block[..end].fill(0);
    }
    add(torn);
    for i in 0..small {
        add(noise(70 + i % 5000, i as u32 + 10));
    }
    let mut sizes: BTreeMap<_, _> = contents.iter().map(|(d, c)| (*d, c.len() as u64)).collect();
    let size = sizes.remove(&image).expect("added");
    let items = root_items(image, size, &sizes).expect("valid paths");
    (image, plan(&items).expect("valid items"), contents)
}

fn stage(layout: &Ext4Layout, contents: &Contents) -> Result<(Vec<u8>, Staged), ImageError> {
    let open = |digest: &VerityDigest| -> io::Result<Box<dyn Read>> {
        let bytes = contents.get(digest).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(bytes.clone())))
    };
    let mut tar = Vec::new();
    let staged = write_staging_tar(layout.clone(), EPOCH, &open, &mut tar)?;
    Ok((tar, staged))
}

/// `file` must be the data, a hole up to 64 KiB, and what fsverity-utils says belongs behind it.
fn check_staged(file: &Path, item: &VerityFile, content: &[u8], scratch: &Path) {
    let staged = std::fs::read(file).expect("there");
    let at = |name: &str| scratch.join(name);
    std::fs::write(at("data"), content).expect("written");
    let output = Command::new("fsverity")
        .args(["digest", "--compact"])
        .arg(format!("--out-merkle-tree={}", at("tree").display()))
        .arg(format!("--out-descriptor={}", at("descriptor").display()))
        .arg(at("data"))
        .output()
        .expect("the Debian package fsverity must be installed");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), item.digest.to_hex());
    let mut wanted = content.to_vec();
    wanted.resize(content.len().next_multiple_of(65_536), 0);
    wanted.extend(std::fs::read(at("tree")).expect("written"));
    wanted.extend(std::fs::read(at("descriptor")).expect("written"));
    wanted.resize((wanted.len() + 4).next_multiple_of(4096) - 4, 0);
    wanted.extend(256u32.to_le_bytes());
    assert!(staged == wanted, "{} of {} bytes", item.path, item.size);
}

#[test]
fn tar_unpacks_the_staged_files() {
    let (_, layout, contents) = sample(20);
    let (tar, _) = stage(&layout, &contents).expect("staged");
    let dir = tempfile::tempdir().expect("scratch");
    std::fs::write(dir.path().join("t.tar"), &tar).expect("written");
    let run = |args: &[&str]| {
        let output = Command::new("tar")
            .args(args)
            .current_dir(dir.path())
            .env("TZ", "UTC")
            .output();
        let output = output.expect("tar runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && stderr.is_empty(), "{stderr}");
        String::from_utf8(output.stdout).expect("text")
    };
    let list = run(&["--numeric-owner", "--full-time", "-tvf", "t.tar"]);
    for line in list.lines() {
        let known = ["dr-xr-xr-x 0/0 ", "-r--r--r-- 0/0 "];
        let known = known.iter().any(|start| line.starts_with(start));
        assert!(known && line.contains(" 2025-06-15 15:06:40 "), "{line}");
    }
    run(&["--no-same-permissions", "--mode=u+w", "-xf", "t.tar"]);
    for item in layout.items() {
        check_staged(&dir.path().join(&item.path), item, &contents[&item.digest], dir.path());
    }
}

#[test]
fn content_that_is_not_what_its_digest_says_is_refused() {
    let (image, layout, mut contents) = sample(0);
    for (wrong, what) in [
        (noise(300_000, 99), "digest"),
        (noise(10, 1), "length"),
        (noise(300_001, 1), "or more"),
    ] {
        contents.insert(image, wrong);
        let text = stage(&layout, &contents).expect_err("wrong content").to_string();
        assert!(text.contains(IMAGE_PATH) && text.contains(what), "{text}");
    }
}

#[test]
fn a_tool_that_fails_or_complains_stops_the_work() {
    let (image, layout, contents) = sample(0);
    let (_, staged) = stage(&layout, &contents).expect("staged");
    let paths = Paths {
        tar: "t",
        script: "s",
        image: "i",
    };
    for (broken, status, stderr) in [
        ("mke2fs", Some(1), ""),
        ("mke2fs", None, ""),
        ("debugfs", Some(0), "/x: File not found by ext2_lookup\n"),
        ("e2fsck", Some(4), ""),
    ] {
        let tools = |call: &ToolCall| {
            let mine = call.argv[0] == broken;
            Ok(ToolOutput {
                status: if mine { status } else { Some(0) },
                stdout: Vec::new(),
                stderr: format!("debugfs 1.47.2\n{}", if mine { stderr } else { "" }).into_bytes(),
            })
        };
        let text = make(&staged, &image, paths, &tools).expect_err("broken").to_string();
        assert!(
            text.starts_with(&format!("run {broken}: ")) && text.contains(stderr.trim()),
            "{text}"
        );
    }
    let absent = |_: &ToolCall| Err(io::ErrorKind::NotFound.into());
    let text = make(&staged, &image, paths, &absent).expect_err("absent").to_string();
    assert_eq!(text, "run mke2fs");
}

fn e2fsprogs(call: &ToolCall) -> io::Result<ToolOutput> {
    let env = call.env.iter().filter(|(name, _)| *name != "PATH");
    let output = Command::new(&call.argv[0])
        .args(&call.argv[1..])
        .envs(env.map(|(name, value)| (name, value)))
        .output()?;
    Ok(ToolOutput {
        status: output.status.code(),
        stdout: output.stdout,
        stderr: output.stderr,
    })
}

fn debugfs(args: &[&str], image: &Path) -> String {
    let output = Command::new("debugfs")
        .args(args)
        .arg(image)
        .output()
        .expect("debugfs runs");
    String::from_utf8(output.stdout).expect("text")
}

/// Makes the file system of `layout` at `dir/name` and returns its bytes.
fn build(root: &VerityDigest, layout: &Ext4Layout, contents: &Contents, dir: &Path, name: &str) -> Vec<u8> {
    let (tar, staged) = stage(layout, contents).expect("staged");
    let at = |suffix: &str| dir.join(format!("{name}{suffix}")).display().to_string();
    let (tar_path, script, image) = (at(".tar"), at(".debugfs"), at(""));
    std::fs::write(&tar_path, tar).expect("written");
    std::fs::write(&script, debugfs_script(layout)).expect("written");
    let paths = Paths {
        tar: &tar_path,
        script: &script,
        image: &image,
    };
    let made = make(&staged, root, paths, &e2fsprogs).map_err(|e| e.to_string());
    assert_eq!(made, Ok(()));
    let bytes = std::fs::read(&image).expect("made");
    assert_eq!(bytes.len() as u64, staged.image_size());
    bytes
}

#[test]
#[ignore = "needs mke2fs 1.47.1 or newer with libarchive (Debian package e2fsprogs, trixie)"]
fn the_file_system_is_tight_reproducible_and_every_file_carries_its_tree() {
    let (root, layout, contents) = sample(15_000);
    let dir = tempfile::tempdir().expect("scratch");
    let first = build(&root, &layout, &contents, dir.path(), "one");
    let image = dir.path().join("one");
    assert!(
        build(&root, &layout, &contents, dir.path(), "two") == first,
        "twice the same bytes"
    );
    let other = VerityDigest::new([5; 32]);
    let third = build(&other, &layout, &contents, dir.path(), "three");
    assert!(
        first[0x468..0x478] != third[0x468..0x478],
        "another root has another UUID"
    );

    let stats = debugfs(&["-R", "stats -h"], &image);
    let number = |name: &str| -> u64 {
        let line = stats.lines().find(|l| l.starts_with(name)).expect(name);
        line.split_whitespace().last().and_then(|n| n.parse().ok()).expect(name)
    };
    let free = number("Free blocks:");
    println!("{} blocks, {free} free", number("Block count:"));
    assert!(free <= 40, "{free} blocks are free");
    assert!(stats.contains("powernode-root"), "{stats}");

    let stat = |path: &str| debugfs(&["-R", &format!("stat {path}")], &image);
    for item in layout.items().iter().step_by(500) {
        let text = stat(&format!("/{}", item.path));
        assert!(
            text.contains("Flags: 0x180000") && text.contains("Mode:  0444"),
            "{text}"
        );
        assert!(text.contains(&format!("Size: {}\n", item.size)), "{text}");
    }
    assert!(stat("/objects").contains("Mode:  0555"));

    // On a copy the files get back their full length and lose the flag, so that debugfs gives out the tails as well.
    let copy = dir.path().join("copy");
    std::fs::write(&copy, &first).expect("written");
    let mut script = String::new();
    for item in layout.items() {
        let length = stage_length(item.size);
        script += &format!("sif /{0} size {length}\nsif /{0} flags 0x80000\n", item.path);
    }
    let out = dir.path().join("out");
    std::fs::create_dir(&out).expect("made");
    script += &format!("rdump / {}\n", out.display());
    let script_path = dir.path().join("script");
    std::fs::write(&script_path, script).expect("written");
    debugfs(&["-w", "-f", &script_path.display().to_string()], &copy);
    for item in layout
        .items()
        .iter()
        .filter(|i| i.size > 5000)
        .chain(layout.items().iter().step_by(200))
    {
        check_staged(&out.join(&item.path), item, &contents[&item.digest], dir.path());
    }
}

/// Length of data, hole and tail by the rule of `fs/ext4/verity.c`.
fn stage_length(size: u64) -> u64 {
    let (mut blocks, mut tree) = (size.div_ceil(4096), 0);
    while blocks > 1 {
        blocks = blocks.div_ceil(128);
        tree += blocks * 4096;
    }
    size.next_multiple_of(65_536) + tree + 4096
}
