//! qcow2 images against QEMU: what pnb writes, `qemu-img` checks and reads; what `qemu-img` writes, pnb reads.

#[path = "fixture/tools.rs"]
mod tools;

use pnb::{
    image::{
        ImageError, ReadAt,
        qcow2::{Qcow2, Qcow2Summary, needs, write},
    },
    model::ZstdLevel,
};
use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    fs::File,
    io::{self, Cursor},
    num::NonZeroU32,
    os::unix::fs::FileExt,
    sync::OnceLock,
};
use tools::check;

const CLUSTER: usize = 65_536;

/// For scripts: `IMAGE` must be what `RAW` is, for all that QEMU can say, with no count wrong.
const SAME: &str = "same() {
    qemu-img check -f qcow2 $1 | grep 'No errors were found'
    qemu-img compare -f raw -F qcow2 $2 $1
    qemu-img convert -f qcow2 -O raw $1 back
    cmp $2 back
    rm back
}
";

fn workers(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).expect("not zero")
}

/// A disk of each kind of cluster in turn: zeros, random bytes, text, and one with a single byte that is not zero.
fn disk(len: usize) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(7);
    let mut bytes = vec![0; len];
    for (n, cluster) in bytes.chunks_mut(CLUSTER).enumerate() {
        match n * 7 % 11 {
            0 | 1 => {}
            2 | 3 => random.fill(cluster),
            4 => *cluster.last_mut().expect("not empty") = n as u8 | 1,
            kind => {
                let words = random.gen_range(1..40);
                let dictionary: Vec<u32> = (0..1 << (kind + 3)).map(|_| random.r#gen()).collect();
                for word in cluster.chunks_mut(words) {
                    let at = random.gen_range(0..dictionary.len());
                    let value = dictionary[at].to_le_bytes();
                    word.iter_mut()
                        .zip(value.iter().cycle())
                        .for_each(|(to, from)| *to = *from);
                }
            }
        }
    }
    bytes
}

fn pack(source: &(dyn ReadAt + Sync), count: u32) -> Result<(Vec<u8>, Qcow2Summary), ImageError> {
    let mut out = Cursor::new(Vec::new());
    let written = write(source, &mut out, ZstdLevel::default(), workers(count))?;
    Ok((out.into_inner(), written))
}

fn read_all(image: &(impl ReadAt + ?Sized)) -> io::Result<Vec<u8>> {
    let mut all = vec![0; image.size()? as usize];
    image.read_exact_at(&mut all, 0)?;
    Ok(all)
}

#[test]
fn qemu_finds_no_error_and_the_same_disk() {
    let dir = tempfile::tempdir().expect("scratch");
    // An empty disk, less than a sector, a cluster and the clusters around it, and a second L2 table (past 512 MiB).
    let lengths = [
        0,
        1,
        512,
        CLUSTER,
        CLUSTER + 512,
        300 * CLUSTER + 5 * 512,
        8194 * CLUSTER,
    ];
    for len in lengths {
        let at = |ending: &str| dir.path().join(format!("{len}.{ending}"));
        let (raw, image) = (at("raw"), at("qcow2"));
        let bytes = disk(len.min(600 * CLUSTER));
        let source = File::create_new(&raw).expect("new");
        source.set_len(len as u64).expect("sparse");
        // The large one has its data at both ends.
        let tail = if len > bytes.len() { 5 * CLUSTER } else { 0 };
        source.write_all_at(&bytes, 0).expect("written");
        source
            .write_all_at(&bytes[bytes.len() - tail..], (len - tail) as u64)
            .expect("written");
        let source = File::open(&raw).expect("readable");
        let out = File::create_new(&image).expect("new");
        let written = write(&source, &out, ZstdLevel::default(), workers(2)).expect("written");
        assert_eq!(written.file_size, out.metadata().expect("there").len());
        assert_eq!(written.virtual_size, len.next_multiple_of(512) as u64);
        if len > 300 * CLUSTER {
            assert!(written.compressed > 100 && written.plain > 50, "{written:?}");
        }
        // qemu-img compares a raw disk in whole sectors.
        let grown = File::options().write(true).open(&raw).expect("there");
        grown.set_len(written.virtual_size).expect("grown");
        let opened = Qcow2::open(File::open(&image).expect("readable")).expect("valid");
        let wanted = std::fs::read(&raw).expect("readable");
        assert!(read_all(&opened).expect("valid") == wanted, "pnb reads something else");
    }
    let script = "for image in /inputs/0/*.qcow2; do same $image ${image%.qcow2}.raw; qemu-img info $image; done";
    let (said, _) = check(&[dir.path()], &format!("{SAME}{script}"));
    for line in [
        "compression type: zstd",
        "cluster_size: 65536",
        "refcount bits: 16",
        "corrupt: false",
    ] {
        assert_eq!(said.matches(line).count(), lengths.len(), "{line}: {said}");
    }
}

#[test]
fn the_bytes_depend_on_the_disk_only() {
    let bytes = disk(500 * CLUSTER + 777);
    let (one, written) = pack(&bytes, 1).expect("written");
    for count in [2, 3, 16, 100] {
        assert!(
            pack(&bytes, count).expect("written") == (one.clone(), written),
            "{count} workers"
        );
    }
    // A file whose holes are known, and the same with the zeros written out.
    let file = tempfile::tempfile().expect("scratch");
    for (n, cluster) in bytes
        .chunks(CLUSTER)
        .enumerate()
        .filter(|(_, c)| c.iter().any(|b| *b != 0))
    {
        file.write_all_at(cluster, (n * CLUSTER) as u64).expect("written");
    }
    file.set_len(bytes.len() as u64).expect("grown");
    assert!(pack(&file, 2).expect("written").0 == one);
    let other = write(&bytes, &mut Cursor::new(Vec::new()), ZstdLevel::MAX, workers(2)).expect("written");
    assert!(other.file_size < written.file_size, "level 19 is no smaller");
}

#[test]
fn a_hole_is_not_read() {
    /// 64 TiB of which only the last sector may be read.
    struct Holes;
    impl ReadAt for Holes {
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            assert!(offset >= (64 << 40) - (1 << 20), "read at {offset}");
            buffer.fill(3);
            Ok(())
        }
        fn size(&self) -> io::Result<u64> {
            Ok(64 << 40)
        }
        fn next_data(&self, from: u64) -> io::Result<Option<std::ops::Range<u64>>> {
            let start = (64 << 40) - 512;
            Ok((from < 64 << 40).then_some(from.max(start)..64 << 40))
        }
    }
    let (image, written) = pack(&Holes, 2).expect("written");
    assert_eq!((written.compressed, written.plain), (16, 0));
    let opened = Qcow2::open(&image).expect("valid");
    let mut end = [0; 8];
    opened.read_exact_at(&mut end, (64 << 40) - 8).expect("there");
    assert_eq!(end, [3; 8]);
    opened.read_exact_at(&mut end, 5 << 40).expect("there");
    assert_eq!(end, [0; 8]);
    let error = opened
        .read_exact_at(&mut end, (64 << 40) - 7)
        .expect_err("past the end");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn what_cannot_be_written_is_refused() {
    struct Sized(u64);
    impl ReadAt for Sized {
        fn read_exact_at(&self, _: &mut [u8], offset: u64) -> io::Result<()> {
            Err(io::Error::other(format!("bad sector at {offset}")))
        }
        fn size(&self) -> io::Result<u64> {
            Ok(self.0)
        }
    }
    let text = pack(&Sized(u64::MAX), 1).expect_err("too large").to_string();
    assert!(text.contains("too large"), "{text}");
    for count in [1, 4] {
        let text = pack(&Sized(64 << 20), count).expect_err("unreadable").to_string();
        assert_eq!(text, "read a disk to convert at byte 0");
    }
    // An output that is full ends the threads too.
    let mut full = [0; 300_000];
    let error = write(
        &disk(200 * CLUSTER),
        &mut Cursor::new(&mut full[..]),
        ZstdLevel::default(),
        workers(3),
    )
    .expect_err("full");
    assert_eq!(error.to_string(), "write a qcow2 image");
}

#[test]
fn what_qemu_writes_is_read() {
    let dir = tempfile::tempdir().expect("scratch");
    let raw = dir.path().join("disk.raw");
    let bytes = disk(150 * CLUSTER + 3 * 512);
    std::fs::write(&raw, &bytes).expect("written");
    let mut script = SAME.to_owned();
    for (number, options) in [
        "-o compat=1.1",
        "-o compat=0.10",
        "-c -o compat=0.10",
        "-c -o compression_type=zlib",
        "-c -o compression_type=zstd",
        "-c -o compression_type=zstd,cluster_size=4096",
        "-c -o compression_type=zlib,cluster_size=512",
        "-c -o compression_type=zstd,cluster_size=2M",
        "-o preallocation=metadata,lazy_refcounts=on",
    ]
    .iter()
    .enumerate()
    {
        script += &format!(
            "qemu-img convert {options} -f raw -O qcow2 /inputs/0 out/{number}
            same out/{number} /inputs/0\n"
        );
    }
    // Clusters that were zeroed, with and without room kept for them.
    script += "for discard in unmap ignore; do
        image=out/$discard
        qemu-img convert -f raw -O qcow2 /inputs/0 $image
        qemu-io -d $discard -f qcow2 -c 'write -z 1M 1M' -c 'write -z -u 3M 128k' -c 'write -P 9 0 64k' $image
        qemu-img convert -f qcow2 -O raw $image $image.raw
        if cmp -s /inputs/0 $image.raw; then exit 1; fi
        same $image $image.raw
    done";
    let (said, made) = check(&[&raw], &script);
    assert_eq!(said.matches("No errors were found").count(), 11, "{said}");
    let images = made.iter().filter(|(name, _)| !name.ends_with(".raw"));
    let mut count = 0;
    for (name, image) in images {
        let wanted = made.get(&format!("{name}.raw")).unwrap_or(&bytes);
        let opened = Qcow2::open(image).expect("valid");
        assert!(
            read_all(&opened).expect("valid") == *wanted,
            "{name}: pnb reads something else"
        );
        count += 1;
    }
    assert_eq!(count, 11);
}

/// Subclusters that are allocated, zeroed and neither; snapshots, of which the present disk counts; an image that was not closed.
#[test]
fn subclusters_snapshots_and_images_that_were_not_closed_are_read() {
    let dir = tempfile::tempdir().expect("scratch");
    let raw = dir.path().join("disk.raw");
    std::fs::write(&raw, disk(40 * CLUSTER + 512)).expect("written");
    let (_, made) = check(
        &[&raw],
        "for size in 16k 64k 2M; do
            image=out/extended-$size
            qemu-img convert -f raw -O qcow2 -o extended_l2=on,cluster_size=$size /inputs/0 $image
            qemu-io -f qcow2 -c 'write -P 7 3k 1k' -c 'write -z 70k 4k' -c 'write -z -u 200k 64k' -c 'write -P 9 2500k 512' $image >/dev/null
        done
        qemu-img create -q -f qcow2 -o extended_l2=on out/extended-empty 1M
        qemu-io -f qcow2 -c 'write -P 5 6k 2k' -c 'write -P 6 70k 1k' out/extended-empty >/dev/null
        qemu-img convert -c -f raw -O qcow2 -o extended_l2=on,compression_type=zstd /inputs/0 out/extended-compressed
        qemu-img convert -f raw -O qcow2 /inputs/0 out/snapshot
        qemu-img snapshot -c one out/snapshot; qemu-io -f qcow2 -c 'write -P 8 0 128k' out/snapshot >/dev/null
        for image in out/*; do qemu-img convert -f qcow2 -O raw $image $image.raw; done
        qemu-img convert -f raw -O qcow2 -o lazy_refcounts=on /inputs/0 out/dirty; cp /inputs/0 out/dirty.raw
        printf '\\001' | dd of=out/dirty bs=1 seek=79 conv=notrunc status=none; qemu-img info out/dirty.raw >/dev/null",
    );
    let mut count = 0;
    for (name, image) in made.iter().filter(|(name, _)| !name.ends_with(".raw")) {
        let opened = Qcow2::open(image).expect(name);
        assert!(
            read_all(&opened).expect("valid") == made[&format!("{name}.raw")],
            "{name}: pnb reads something else"
        );
        assert_eq!(
            (opened.snapshots() > 0, opened.is_dirty()),
            (name == "snapshot", name == "dirty"),
            "{name}"
        );
        assert_eq!(needs(image).expect("a header"), None, "{name}");
        count += 1;
    }
    assert_eq!(count, 7);
}

#[test]
fn what_is_not_in_the_file_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("scratch");
    let base = dir.path().join("base.raw");
    std::fs::write(&base, disk(10 * CLUSTER)).expect("written");
    let (_, made) = check(
        &[&base],
        "qemu-img create -f qcow2 -b /inputs/0 -F raw out/backing
        qemu-img create -f qcow2 -o data_file=/build/data.raw out/data 1M
        for method in luks aes; do
            qemu-img create -q -f qcow2 --object secret,id=k,data=x -o encrypt.format=$method,encrypt.key-secret=k out/$method 1M || true
        done",
    );
    for (name, problem) in [
        ("backing", "it has a backing file \"/inputs/0\", which is not opened"),
        (
            "data",
            "it has an external data file \"/build/data.raw\", which is not opened",
        ),
        ("luks", "it is encrypted with LUKS, and no key is given"),
    ] {
        assert_eq!(needs(&made[name]).expect("a header").as_deref(), Some(problem));
        let text = Qcow2::open(&made[name]).expect_err(problem).to_string();
        assert!(text.contains(problem), "{text}");
    }
    let (good, _) = pack(&disk(10 * CLUSTER), 1).expect("written");
    for (offset, value, problem) in [
        (3, 0, "magic"),
        (7, 4, "version 4"),
        (23, 8, "2^8 bytes"),
        (23, 22, "2^22 bytes"),
        (24, 1, "needs"),
        (35, 1, "encrypted"),
        (36, 255, "L1 table has"),
        (47, 1, "L1 table of"),
        (40, 1, "L1 table of"),
        (79, 10, "marked corrupt"),
        (79, 0, "compression type 1"),
        (72, 128, "unknown"),
        (103, 100, "its header has 100 bytes"),
        (103, 104, "compression type 0"),
        (104, 2, "compression type 2"),
    ] {
        let mut image = good.clone();
        image[offset] = value;
        let text = Qcow2::open(image).expect_err(problem).to_string();
        assert!(text.contains(problem), "{problem}: {text}");
    }
}

/// Reads all of the image, if it says it is of a sane size; only errors may come of it.
fn exercise(image: &[u8]) {
    if let Ok(opened) = Qcow2::open(image.to_vec()) {
        let size = opened.size().expect("known");
        let mut buffer = vec![0; 100_000];
        for at in (0..size.min(4 << 20)).step_by(buffer.len()) {
            let n = (size - at).min(buffer.len() as u64) as usize;
            drop(opened.read_exact_at(&mut buffer[..n], at));
        }
        drop(opened.read_exact_at(&mut buffer[..1], size.saturating_sub(1)));
    }
}

/// A disk and its image.
fn sample() -> &'static (Vec<u8>, Vec<u8>) {
    static SAMPLE: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let disk = disk(25 * CLUSTER);
        let (image, _) = pack(&disk, 1).expect("written");
        (disk, image)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn mutated_images_never_panic(
        header in prop::collection::vec((0..200usize, any::<u8>()), 0..4),
        table in prop::collection::vec((0..400usize, any::<u8>()), 0..6),
        anywhere in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut image = sample().1.clone();
        // The only L2 table is behind the clusters, before a refcount block and the refcount table.
        let l2 = image.len() - 3 * CLUSTER;
        for (at, value) in header {
            image[at] = value;
        }
        for (at, value) in table {
            image[if at < 200 { l2 + at } else { CLUSTER + at - 200 }] = value;
        }
        for (at, value) in anywhere {
            let at = at.index(image.len());
            image[at] = value;
        }
        if let Some(cut) = cut {
            let len = cut.index(image.len());
            image.truncate(len);
        }
        exercise(&image);
    }

    #[test]
    fn every_part_of_the_disk_is_read_as_it_was(from in 0..25 * CLUSTER, len in 0..3 * CLUSTER) {
        let (wanted, image) = sample();
        let to = (from + len).min(wanted.len());
        let mut found = vec![1; to - from];
        Qcow2::open(image).expect("valid").read_exact_at(&mut found, from as u64).expect("there");
        prop_assert!(found == wanted[from..to]);
    }
}

#[test]
fn every_truncation_of_the_tables_is_an_error_or_the_disk() {
    let (_, image) = sample();
    for len in (0..300).chain((CLUSTER..image.len()).step_by(9973)) {
        exercise(&image[..len]);
    }
    let cut = &image[..image.len() - 3 * CLUSTER].to_vec();
    let error = read_all(&Qcow2::open(cut).expect("its tables are looked at later")).expect_err("no L2 table");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
