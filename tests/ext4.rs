//! The ext4 file system with baked verity: the staged tar against tar(1), the result against debugfs and fsverity-utils.

#[path = "fixture/tools.rs"]
mod tools;

use pnb::{
    image::{
        ImageError,
        ext4::{
            Ext4Layout, IMAGE_PATH, Paths, Staged, ToolCall, ToolOutput, VerityFile, calls, debugfs_script, make, plan,
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
    sync::Mutex,
};
use tools::check;

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

/// For scripts: lays what `fsverity digest` says of each file of `/inputs/1` into `out/verity`.
const VERITY: &str = "mkdir out/verity
    for file in /inputs/1/*; do
        name=out/verity/${file##*/}
        fsverity digest --compact --out-merkle-tree=$name.tree --out-descriptor=$name.descriptor $file >$name.digest
    done
";

/// Each item's content, named by its digest, for [`VERITY`].
fn write_contents<'a>(items: impl Iterator<Item = &'a VerityFile>, contents: &Contents) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("scratch");
    for item in items {
        std::fs::write(dir.path().join(item.digest.to_hex()), &contents[&item.digest]).expect("written");
    }
    dir
}

/// `staged` must be the data, a hole up to 64 KiB, and what fsverity-utils says belongs behind it.
fn check_staged(staged: &[u8], item: &VerityFile, content: &[u8], made: &tools::Contents) {
    let verity = |ending: &str| &made[&format!("verity/{}.{ending}", item.digest.to_hex())];
    assert_eq!(String::from_utf8_lossy(verity("digest")).trim(), item.digest.to_hex());
    let mut wanted = content.to_vec();
    wanted.resize(content.len().next_multiple_of(65_536), 0);
    wanted.extend(verity("tree"));
    wanted.extend(verity("descriptor"));
    wanted.resize((wanted.len() + 4).next_multiple_of(4096) - 4, 0);
    wanted.extend(256u32.to_le_bytes());
    assert!(staged == wanted, "{} of {} bytes", item.path, item.size);
}

#[test]
fn tar_unpacks_the_staged_files() {
    let (_, layout, contents) = sample(20);
    let (tar, _) = stage(&layout, &contents).expect("staged");
    let file = tempfile::NamedTempFile::new().expect("scratch");
    std::fs::write(file.path(), &tar).expect("written");
    let data = write_contents(layout.items().iter(), &contents);
    let (said, made) = check(
        &[file.path(), data.path()],
        &format!(
            "export TZ=UTC
            tar --numeric-owner --full-time -tvf /inputs/0 >out/list
            # The directories of the archive cannot be written to, so the files are asked for, which makes others.
            grep -v '^d' out/list | sed 's/.* //' >files
            tar --no-same-owner -C out -T files -xf /inputs/0
            {VERITY}"
        ),
    );
    assert_eq!(said, "", "tar has nothing to say");
    for line in std::str::from_utf8(&made["list"]).expect("text").lines() {
        let known = ["dr-xr-xr-x 0/0 ", "-r--r--r-- 0/0 "];
        let known = known.iter().any(|start| line.starts_with(start));
        assert!(known && line.contains(" 2025-06-15 15:06:40 "), "{line}");
    }
    for item in layout.items() {
        check_staged(&made[&item.path.to_string()], item, &contents[&item.digest], &made);
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

/// A word of a shell script that stands for just this text.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Makes the file system of `layout` for each of `roots` and returns the bytes of each, and what `then` left, which is a script
/// that finds the first at `out/0`.
fn build(
    roots: &[VerityDigest],
    layout: &Ext4Layout,
    contents: &Contents,
    data: &Path,
    then: &str,
) -> (Vec<Vec<u8>>, tools::Contents) {
    let (tar, staged) = stage(layout, contents).expect("staged");
    let dir = tempfile::tempdir().expect("scratch");
    std::fs::write(dir.path().join("tar"), tar).expect("written");
    std::fs::write(dir.path().join("debugfs"), debugfs_script(layout)).expect("written");
    let images: Vec<String> = (0..roots.len()).map(|n| format!("out/{n}")).collect();
    let paths = |n: usize| Paths {
        tar: "/inputs/0/tar",
        script: "/inputs/0/debugfs",
        image: &images[n],
    };
    let mut script = String::new();
    for (n, root) in roots.iter().enumerate() {
        for (number, call) in calls(&staged, root, paths(n)).iter().enumerate() {
            let env = call.env.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
            let words: Vec<String> = env.chain(call.argv.iter().map(|word| quoted(word))).collect();
            let (words, log) = (words.join(" "), format!("out/{n}.{number}"));
            script += &format!(
                "status=0; env -i {words} >{log}.stdout 2>{log}.stderr || status=$?; echo $status >{log}.status\n"
            );
        }
    }
    let (_, mut made) = check(&[dir.path(), data], &(script + then));
    let bytes = roots.iter().enumerate().map(|(n, root)| {
        // The programs have run; what is made of what they said is looked at here.
        let number = Mutex::new(0..);
        let tools = |_: &ToolCall| -> io::Result<ToolOutput> {
            let number = number.lock().expect("one thread").next().expect("endless");
            let said = |stream: &str| made[&format!("{n}.{number}.{stream}")].clone();
            Ok(ToolOutput {
                status: String::from_utf8_lossy(&said("status")).trim().parse().ok(),
                stdout: said("stdout"),
                stderr: said("stderr"),
            })
        };
        let result = make(&staged, root, paths(n), &tools).map_err(|e| e.to_string());
        assert_eq!(result, Ok(()));
        assert_eq!(made[&n.to_string()].len() as u64, staged.image_size());
        made[&n.to_string()].clone()
    });
    let bytes = bytes.collect();
    made.retain(|name, _| !name.starts_with(|c: char| c.is_ascii_digit()));
    (bytes, made)
}

#[test]
fn the_file_system_is_tight_reproducible_and_every_file_carries_its_tree() {
    let (root, layout, contents) = sample(15_000);
    let looked_at: Vec<&VerityFile> = layout.items().iter().step_by(500).collect();
    let rebuilt = || {
        let large = layout.items().iter().filter(|i| i.size > 5000);
        large.chain(layout.items().iter().step_by(200))
    };
    let data = write_contents(rebuilt(), &contents);
    let mut then = "debugfs -R 'stats -h' out/0 >out/stats\ncat >commands <<'end'\nstat /objects\n".to_owned();
    for item in &looked_at {
        then += &format!("stat /{}\n", item.path);
    }
    // On a copy the files get back their full length and lose the flag, so that debugfs gives out the tails as well.
    then += "end\ndebugfs -f commands out/0 >out/stat\ncp out/0 copy\nmkdir out/files\ncat >commands <<'end'\n";
    for item in rebuilt() {
        let length = stage_length(item.size);
        then += &format!("sif /{0} size {length}\nsif /{0} flags 0x80000\n", item.path);
        then += &format!("dump /{} out/files/{}\n", item.path, item.digest.to_hex());
    }
    then += &format!("end\ndebugfs -w -f commands copy >log 2>&1\n{VERITY}");
    let other = VerityDigest::new([5; 32]);
    let (images, made) = build(&[root, root, other], &layout, &contents, data.path(), &then);
    assert!(images[0] == images[1], "twice the same bytes");
    assert!(
        images[0][0x468..0x478] != images[2][0x468..0x478],
        "another root has another UUID"
    );

    let view = ext4_view::Ext4::load(Box::new(images[0].clone())).expect("valid");
    assert_eq!(view.label().to_str(), Ok("powernode-root"));
    for item in layout.items().iter().step_by(10) {
        let path = format!("/{}", item.path);
        let content = view.read(path.as_str()).expect("readable");
        assert!(
            content == contents[&item.digest],
            "{path}: another reader finds other bytes"
        );
        assert_eq!(view.metadata(path.as_str()).expect("there").mode(), 0o444, "{path}");
    }

    let stats = String::from_utf8_lossy(&made["stats"]);
    let number = |name: &str| -> u64 {
        let line = stats.lines().find(|l| l.starts_with(name)).expect(name);
        line.split_whitespace().last().and_then(|n| n.parse().ok()).expect(name)
    };
    let free = number("Free blocks:");
    println!("{} blocks, {free} free", number("Block count:"));
    assert!(free <= 40, "{free} blocks are free");
    assert!(stats.contains("powernode-root"), "{stats}");

    let stat = String::from_utf8_lossy(&made["stat"]);
    let mut stat = stat.split("debugfs: stat /").skip(1);
    let objects = stat.next().expect("the directory");
    assert!(
        objects.starts_with("objects\n") && objects.contains("Mode:  0555"),
        "{objects}"
    );
    for item in &looked_at {
        let text = stat.next().expect("one for each");
        assert!(
            text.contains("Flags: 0x180000") && text.contains("Mode:  0444"),
            "{text}"
        );
        assert!(text.contains(&format!("Size: {}\n", item.size)), "{text}");
    }

    for item in rebuilt() {
        let staged = &made[&format!("files/{}", item.digest.to_hex())];
        check_staged(staged, item, &contents[&item.digest], &made);
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
