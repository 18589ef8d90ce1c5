//! Power cuts in the first boot of a disk: QEMU logs every write and every flush, and the disk is judged as it would be after a cut at each
//! of many moments, with the writes that were not flushed kept, lost, or half of them lost.
//!
//! Each write or flush makes four disks, more than 500 in all. The judges are sfdisk, which takes a table as the kernel does, and e2fsck and
//! debugfs, as 90powernode would find the file system.

#[path = "fixture/own_loader.rs"]
mod own_loader;
#[path = "build/project.rs"]
#[expect(dead_code, reason = "shared with the tests of builds, which use more of it")]
mod project;
#[path = "fixture/tools.rs"]
mod tools;

use own_loader::with_own_loader;
use project::*;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const SECTOR: u64 = 512;
/// The size of the disk that the image is written to.
const DISK: u64 = 1 << 30;
/// First bytes of a log of dm-log-writes, and the bits of an entry's flags (drivers/md/dm-log-writes.c).
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// A write, a flush, or both: the flush comes first.
struct Entry {
    offset: u64,
    flags: u64,
    data: Vec<u8>,
}

/// Reads a log of QEMU's `blklogwrites`: a sector with the magic number, and for each entry a sector with first sector, number of sectors, flags and
/// the length of a mark, 64 bits each, followed by the data.
fn read_log(path: &Path) -> Vec<Entry> {
    let log = File::open(path).expect("there");
    let len = log.metadata().expect("there").len();
    let number = |at: u64| {
        let mut bytes = [0; 8];
        log.read_exact_at(&mut bytes, at).expect("in the log");
        u64::from_le_bytes(bytes)
    };
    assert_eq!(number(0), MAGIC, "this is not a log of writes");
    let mut entries = Vec::new();
    let mut at = SECTOR;
    while at + SECTOR <= len {
        let [sector, sectors, flags] = [0, 8, 16].map(|place| number(at + place));
        if (sector, sectors, flags) == (0, 0, 0) {
            break;
        }
        at += SECTOR;
        let mut data = Vec::new();
        if flags & DISCARD == 0 {
            data.resize(usize::try_from(sectors * SECTOR).expect("fits"), 0);
            // The last entry may be cut off, as QEMU was killed.
            if log.read_exact_at(&mut data, at).is_err() {
                break;
            }
            at += sectors * SECTOR;
        }
        entries.push(Entry {
            offset: sector * SECTOR,
            flags,
            data,
        });
    }
    entries
}

/// The image of the disk, built for these tests.
fn image() -> PathBuf {
    let output = scratch().join("power");
    let mut command = build(repository(), &store());
    good(command.args(["--variant", "raw", "--output"]).arg(&output));
    output.join("raw/amd64/disk.raw")
}

/// Boots the disk at `disk` until it is ready, and logs its writes at `log`; the console's text.
fn first_boot(disk: &Path, log: &Path) -> String {
    let tools = tree_of("boot-tools");
    let output = |stage: &str, output: &str| {
        let node = format!("{stage}/amd64");
        let path = good(pnb(repository(), &store()).args(["store", "path", &node, "--output", output]));
        PathBuf::from(path.trim())
    };
    let node = |name: &str, file: &Path| format!("driver=file,filename={},node-name={name}", file.display());
    let mut qemu = with_own_loader(&tools, "qemu-system-x86_64");
    for directory in ["usr/share/qemu", "usr/share/seabios"] {
        qemu.arg("-L").arg(tools.join(directory));
    }
    qemu.args("-nodefaults -no-user-config -machine q35 -accel tcg,thread=multi -cpu max -smp 1 -m 2048".split(' '));
    qemu.args("-display none -no-reboot -serial stdio -device virtio-rng-pci -nic none".split(' '));
    qemu.arg("-kernel").arg(output("kernel", "vmlinuz"));
    qemu.arg("-initrd").arg(output("initramfs-media", "initramfs.cpio.zst"));
    qemu.args([
        "-append",
        "powernode.boot=1 lockdown=integrity console=ttyS0,115200 gpt",
    ]);
    qemu.arg("-blockdev").arg(node("file", disk));
    qemu.arg("-blockdev").arg(node("log", log));
    qemu.args([
        "-blockdev",
        "driver=blklogwrites,node-name=disk,file=file,log=log,log-sector-size=512",
    ]);
    qemu.args(["-device", "virtio-blk-pci,drive=disk"]);
    let mut child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("QEMU starts");
    let mut console = BufReader::new(child.stdout.take().expect("piped"));
    let mut said = String::new();
    // A machine that stands still is ended by the limit of time of the whole test.
    loop {
        let mut line = Vec::new();
        if console.read_until(b'\n', &mut line).expect("a console") == 0 {
            break;
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        said.push_str(&line);
        if ["powernode: ready ", "powernode: refused: ", "Kernel panic"]
            .iter()
            .any(|end| line.contains(end))
        {
            break;
        }
    }
    child.kill().expect("ours");
    child.wait().expect("ours");
    said
}

/// The disk at some moment.
struct Disk {
    file: File,
    path: PathBuf,
}

impl Disk {
    fn write(&self, entry: &Entry) {
        self.file.write_all_at(&entry.data, entry.offset).expect("in the disk");
    }

    /// Writes `entries`; what to write to take them back, last first.
    fn write_all<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Vec<Entry> {
        let mut before = Vec::new();
        for entry in entries {
            let mut data = vec![0; entry.data.len()];
            self.file.read_exact_at(&mut data, entry.offset).expect("in the disk");
            before.push(Entry {
                offset: entry.offset,
                flags: 0,
                data,
            });
            self.write(entry);
        }
        before.reverse();
        before
    }

    /// What the next boot would find: `SIZE FSCK [NAMES] MACHINE-ID [NAMES IN /var/lib]`, or why there is nothing.
    fn judged(&self) -> String {
        let script = r#"
            disk=/inputs/0
            table=$(sfdisk --dump $disk 2>/dev/null) || { echo 'no table'; exit 0; }
            line=$(printf '%s\n' "$table" | grep 'name="powernode-persist"') || { echo 'no /persist in the table'; exit 0; }
            printf '%s\n' "$table" | grep -q 'name="powernode-root"' || { echo 'no root in the table'; exit 0; }
            start=$(printf '%s\n' "$line" | sed 's/.*start= *\([0-9]*\).*/\1/')
            size=$(printf '%s\n' "$line" | sed 's/.*size= *\([0-9]*\).*/\1/')
            dd if=$disk of=persist bs=1M iflag=skip_bytes,count_bytes conv=sparse skip=$((start * 512)) count=$((size * 512)) 2>/dev/null
            truncate -s $((size * 512)) persist
            status=0
            e2fsck -p persist >/dev/null 2>&1 || status=$?
            if [ $status = 2 ] || [ $status = 3 ]; then e2fsck -p persist >/dev/null 2>&1 && status=1 || status=$?; fi
            names=$(debugfs -R 'ls -p /' persist 2>/dev/null | cut -d/ -f6 | tr '\n' ' ')
            id=$(debugfs -R 'cat /var/lib/dbus/machine-id' persist 2>/dev/null | wc -c)
            lib=$(debugfs -R 'ls -p /var/lib' persist 2>/dev/null | cut -d/ -f6 | tr '\n' ' ')
            echo "$((size / 2048)) $status [$names] $id [$lib]"
        "#;
        tools::check(&[&self.path], script).0.trim().to_owned()
    }
}

/// Whether a boot can go on from what was judged: a file system that e2fsck repairs without asking, and either no /persist/var or a whole
/// one, with a machine id and with every directory of /var/lib of the root (`wanted`).
fn is_right(judged: &str, wanted: &[String]) -> bool {
    let fields: Vec<&str> = judged.split(['[', ']']).collect();
    let [numbers, names, id, lib, ""] = fields[..] else {
        return false;
    };
    let (names, lib): (Vec<&str>, Vec<&str>) = (names.split_whitespace().collect(), lib.split_whitespace().collect());
    let [size, status] = numbers.split_whitespace().collect::<Vec<_>>()[..] else {
        return false;
    };
    size.parse::<u64>().is_ok_and(|size| size >= 64)
        && ["0", "1"].contains(&status)
        && if names.contains(&"var") {
            id.trim() == "33" && wanted.iter().all(|name| lib.contains(&name.as_str()))
        } else {
            lib.is_empty()
        }
}

/// The entries of /var/lib of the root.
fn wanted() -> Vec<String> {
    let dump = good(pnb(repository(), &store()).args(["store", "path", "root/amd64", "--output", "root.dump"]));
    let dump = fs::read_to_string(dump.trim()).expect("a dump");
    let paths = dump
        .lines()
        .filter_map(|line| line.split(' ').next()?.strip_prefix("/var/lib/"));
    let names: Vec<String> = paths.filter(|name| !name.contains('/')).map(str::to_owned).collect();
    assert!(names.len() > 3, "{names:?}");
    names
}

#[test]
fn the_judge_knows_what_is_wrong() {
    let wanted = ["dbus".to_owned(), "systemd".to_owned()];
    for right in [
        "692 0 [. .. lost+found cache var ] 33 [. .. dbus systemd other ]",
        "64 0 [. .. lost+found ] 0 []",
        "692 1 [. .. lost+found cache .var.new ] 0 []",
    ] {
        assert!(is_right(right, &wanted), "{right}");
    }
    for wrong in [
        "no table",
        "no /persist in the table",
        "692 4 [. .. ] 0 []",
        "63 0 [. .. lost+found ] 0 []",
        "692 0 [. .. lost+found cache var ] 0 [. .. dbus systemd ]",
        "692 0 [. .. lost+found cache var ] 33 [. .. dbus ]",
        "692 8 [] 0 []",
    ] {
        assert!(!is_right(wrong, &wanted), "{wrong}");
    }
}

mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: a boot, and 500 disks to judge; cargo test -- --ignored nightly::"]
    fn a_power_cut_in_the_first_boot_leaves_a_disk_that_boots_on() {
        let dir = tempfile::tempdir_in(scratch()).expect("scratch");
        let [path, log] = ["disk.raw", "log"].map(|name| dir.path().join(name));
        let copied = Command::new("cp")
            .arg("--sparse=always")
            .arg(image())
            .arg(&path)
            .status();
        assert!(copied.expect("cp").success());
        let file = File::options().read(true).write(true).open(&path).expect("there");
        file.set_len(DISK).expect("longer");
        let before = dir.path().join("before.raw");
        let copied = Command::new("cp")
            .arg("--sparse=always")
            .arg(&path)
            .arg(&before)
            .status();
        assert!(copied.expect("cp").success());
        File::create(&log).expect("made");
        let said = first_boot(&path, &log);
        assert!(
            said.contains("powernode: ready ") && said.contains("persist=ok boots=1"),
            "{said}"
        );

        let entries = read_log(&log);
        let flushes = entries.iter().filter(|entry| entry.flags & FLUSH != 0).count();
        assert!(
            entries.len() > 100 && flushes > 10,
            "{} entries, {flushes} flushes",
            entries.len()
        );
        fs::remove_file(&path).expect("ours");
        let disk = Disk {
            file: File::options().read(true).write(true).open(&before).expect("there"),
            path: before,
        };
        // Positive control: all writes give a disk that has booted, none give the image.
        let wanted = wanted();
        let image = disk.judged();
        let all = disk.write_all(entries.iter());
        let whole = disk.judged();
        drop(disk.write_all(all.iter()));
        assert_eq!(disk.judged(), image);
        assert!(
            whole.contains(" var ") && is_right(&whole, &wanted) && is_right(&image, &wanted),
            "{image}\n{whole}"
        );
        assert!(!image.contains(" var "), "{image}");

        let mut pending: Vec<&Entry> = Vec::new();
        let (mut judged, mut seen, mut random) = (0, BTreeSet::new(), 1u32);
        for (at, entry) in entries.iter().enumerate() {
            // A flush puts on the disk what came before it.
            if entry.flags & FLUSH != 0 {
                for write in pending.drain(..) {
                    disk.write(write);
                }
            }
            if entry.flags & FUA != 0 {
                disk.write(entry);
            } else {
                pending.push(entry);
            }
            let half: Vec<bool> = pending
                .iter()
                .map(|_| {
                    // xorshift32.
                    random ^= random << 13;
                    random ^= random >> 17;
                    random ^= random << 5;
                    random & 1 == 1
                })
                .collect();
            for mode in ["all", "none", "half", "the other half"] {
                let chosen = pending.iter().zip(&half).filter(|(_, half)| match mode {
                    "all" => true,
                    "half" => **half,
                    "the other half" => !**half,
                    _ => false,
                });
                let back = disk.write_all(chosen.map(|(write, _)| *write));
                let found = disk.judged();
                assert!(
                    is_right(&found, &wanted),
                    "cut after {at} of {}, {mode} of {} unflushed: {found}",
                    entries.len(),
                    pending.len()
                );
                drop(disk.write_all(back.iter()));
                judged += 1;
                seen.insert(found);
            }
        }
        assert!(judged >= 500, "{judged} disks");
        // The cuts met the growing of the partition, the growing of the file system, and the copy of /var.
        assert!(
            seen.len() >= 4 && seen.iter().any(|found| found.contains(".var.new")),
            "{seen:?}"
        );
    }
}
