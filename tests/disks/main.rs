//! Machines with disks that are not as they should be: two disks with one root, and damage of /persist. A machine either says why it does not
//! start, and has changed nothing, or starts and says what it found.
//!
//! `tests/dracut/disk_test.sh` has the cases of the library without a machine.

#[path = "../build/project.rs"]
#[expect(dead_code, reason = "shared with the tests of builds, which use more of it")]
mod project;
#[path = "../fixture/tools.rs"]
mod tools;

use project::{bad, build, copy_of, good, good_boot, patience, pnb, repository, scratch, store};
use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};
use tools::check;

/// The directory of the disk, built once.
fn artifact() -> &'static Path {
    static ARTIFACT: OnceLock<PathBuf> = OnceLock::new();
    ARTIFACT.get_or_init(|| {
        let images = scratch().join("disks");
        good(
            build(repository(), &store())
                .args(["--variant", "raw", "--output"])
                .arg(&images),
        );
        images.join("raw/amd64")
    })
}

/// A copy of a disk that may be written to.
struct Disk {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

/// Where /persist is on the disk, in bytes.
struct Place {
    start: u64,
    len: u64,
}

impl Disk {
    /// A disk that has never booted.
    fn fresh() -> Self {
        Self::of(&artifact().join("disk.raw"))
    }

    /// A disk that has booted once, and whose journal is empty.
    fn booted() -> Self {
        static BOOTED: OnceLock<PathBuf> = OnceLock::new();
        let booted = BOOTED.get_or_init(|| {
            let disk = Self::fresh();
            let said = good_boot(&mut disk.boot(&[]));
            assert!(said.contains(" persist=ok boots=1"), "{said}");
            // The machine was switched off: the next boot would write what the journal has over a change of ours.
            disk.change("e2fsck -p persist || [ $? = 1 ]");
            // It replaces the one of an earlier run.
            let path = scratch().join("disks/booted.raw");
            fs::rename(&disk.path, &path).expect("on one file system");
            path
        });
        Self::of(booted)
    }

    fn of(file: &Path) -> Self {
        let (dir, path) = copy_of(file);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
        Self { path, _dir: dir }
    }

    /// `pnb boot` of this disk, with the kernel and the initramfs of the artifact.
    fn boot(&self, arguments: &[&str]) -> Command {
        let mut command = boot(&["--firmware", "direct", "--settle", "2"]);
        command.arg("--keep").arg(&self.path).args(arguments);
        command
    }

    fn file(&self) -> File {
        File::options().read(true).write(true).open(&self.path).expect("opens")
    }

    fn persist(&self) -> Place {
        let (said, _) = check(
            &[&self.path],
            "sfdisk --dump /inputs/0 | grep 'name=\"powernode-persist\"'",
        );
        let number = |name: &str| {
            let (_, rest) = said.split_once(name).expect("a field");
            let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().expect("a number") * 512
        };
        Place {
            start: number("start="),
            len: number("size="),
        }
    }

    /// Everything on /persist.
    fn bytes(&self) -> Vec<u8> {
        let place = self.persist();
        let mut bytes = vec![0; usize::try_from(place.len).expect("fits")];
        self.file().read_exact_at(&mut bytes, place.start).expect("in the disk");
        bytes
    }

    /// Runs `script` on the file `persist`, which is that partition, and puts it back.
    fn change(&self, script: &str) {
        let place = self.persist();
        let script = format!(
            "dd if=/inputs/0 of=out/persist bs=1M iflag=skip_bytes,count_bytes skip={} count={} 2>/dev/null\ncd out\n{script}",
            place.start, place.len
        );
        let (said, mut made) = check(&[&self.path], &script);
        assert!(!said.contains("not found"), "{said}");
        let persist = made.remove("persist").expect("made");
        assert_eq!(persist.len() as u64, place.len);
        self.file().write_all_at(&persist, place.start).expect("in the disk");
    }
}

fn boot(arguments: &[&str]) -> Command {
    let mut command = pnb(repository(), &store());
    command.arg("boot").arg(artifact()).args(["--timeout", &patience(400)]);
    command.args(arguments);
    command
}

/// The machine is refused with this reason, and has left /persist as it was.
#[track_caller]
fn is_refused_and_untouched(disk: &Disk, reason: &str) {
    let before = disk.bytes();
    let said = bad(&mut disk.boot(&[]), 9);
    let line = format!("powernode: refused: {reason}");
    assert!(said.contains(&line), "{line} is not in:\n{said}");
    assert!(disk.bytes() == before, "/persist was written to:\n{said}");
}

#[track_caller]
fn says(said: &str, wanted: &[&str]) {
    for want in wanted {
        assert!(said.contains(want), "{want} is not in:\n{said}");
    }
}

/// What `.ci/nightly` runs.
mod nightly {
    use super::*;

    #[test]
    #[ignore = "nightly: three boots; cargo test -- --ignored nightly::"]
    fn two_disks_with_one_root_are_refused_and_a_word_chooses() {
        let second = Disk::fresh();
        let before = second.bytes();
        let both = |arguments: &[&str]| {
            let mut command = boot(arguments);
            command.arg("--disk").arg(&second.path);
            command
        };
        // GRUB names the partition, and a direct boot the label.
        for (firmware, name) in [("bios", "PARTUUID="), ("direct", "LABEL=powernode-root")] {
            let said = bad(&mut both(&["--firmware", firmware]), 9);
            let line = said.lines().find(|line| line.contains("powernode: refused: "));
            let line = line.expect(&said);
            says(
                line,
                &[
                    " names more than one disk: ",
                    name,
                    " vda",
                    " vdb",
                    "; remove the others, or choose one with powernode.rootdev=/dev/NAME",
                ],
            );
        }
        assert!(second.bytes() == before, "a disk that was refused was written to");
        let said = good_boot(&mut both(&[
            "--firmware",
            "direct",
            "--append",
            "powernode.rootdev=/dev/vdb3",
        ]));
        // The second disk is the one that keeps what it is given.
        says(&said, &["powernode: persist: /persist/var made", " persist=ok boots=1"]);
        assert!(second.bytes() != before, "{said}");
    }

    #[test]
    #[ignore = "nightly: three boots; cargo test -- --ignored nightly::"]
    fn a_fifo_on_persist_keeps_nothing_waiting() {
        let disk = Disk::fresh();
        disk.change("debugfs -w -R 'mknod boots p' persist");
        assert!(
            names(&disk)
                .iter()
                .any(|name| name.starts_with("01") && name.contains("/boots/"))
        );
        let said = good_boot(&mut disk.boot(&[]));
        // It is replaced by a file with a number.
        says(&said, &[" persist=ok boots=1", "agent=active"]);
        assert!(
            names(&disk).contains(&"100644/boots/2".to_owned()),
            "{:?}",
            names(&disk)
        );
        let said = good_boot(&mut disk.boot(&[]));
        says(&said, &[" persist=ok boots=2"]);
        let disk = Disk::fresh();
        disk.change("debugfs -w -R 'mknod var p' persist");
        is_refused_and_untouched_but_for_its_journal(&disk, "/persist/var is not a directory");
    }

    /// A file system that was mounted before the refusal has other times in its superblock; its names are the same.
    #[track_caller]
    fn is_refused_and_untouched_but_for_its_journal(disk: &Disk, reason: &str) {
        let before = names(disk);
        let said = bad(&mut disk.boot(&[]), 9);
        says(&said, &[&format!("powernode: refused: {reason}")]);
        assert_eq!(names(disk), before, "{said}");
    }

    /// The names at the top of /persist, as debugfs has them; what the boot makes there before anything else is left out.
    fn names(disk: &Disk) -> Vec<String> {
        let place = disk.persist();
        let script = format!(
            "dd if=/inputs/0 of=persist bs=1M iflag=skip_bytes,count_bytes skip={} count={} 2>/dev/null
             e2fsck -p persist >/dev/null || [ $? = 1 ]
             debugfs -R 'ls -p /' persist 2>/dev/null | cut -d/ -f3,6,7",
            place.start, place.len
        );
        let said = check(&[&disk.path], &script).0;
        said.lines().map(str::to_owned).collect()
    }

    /// Fills the file system up to this number of blocks: with a large file, then with small ones, because the large one has blocks besides.
    fn fill(left: u32) -> String {
        format!(
            "free() {{ dumpe2fs -h persist 2>/dev/null | sed -n 's/^Free blocks: *//p'; }}
             fill() {{
                 head -c $(($1 * 4096)) /dev/zero | tr '\\000' x >../$2
                 debugfs -w -R \"write ../$2 $2\" persist
             }}
             fill $(($(free) - {left} - 16)) big
             while [ $(free) -gt {left} ]; do fill 1 small$(free); done"
        )
    }

    #[test]
    #[ignore = "nightly: four boots; cargo test -- --ignored nightly::"]
    fn a_full_persist_is_refused_at_first_and_said_later() {
        // The kernel keeps 327 of the blocks for itself. No room for a directory, and none for all of /var: the node would come up without
        // what it has to keep.
        for (left, what) in [
            (64, "/persist/cache/modules cannot be made"),
            (335, "the root's /var cannot be copied to /persist/var"),
        ] {
            let disk = Disk::fresh();
            disk.change(&fill(left));
            let said = bad(&mut disk.boot(&[]), 9);
            says(
                &said,
                &[&format!("powernode: refused: {what}: No space left on device")],
            );
        }
        let disk = Disk::booted();
        disk.change(&fill(0));
        let said = good_boot(&mut disk.boot(&[]));
        says(&said, &[" persist=unwritable", "powernode: ready "]);
    }

    #[test]
    #[ignore = "nightly: three boots; cargo test -- --ignored nightly::"]
    fn a_read_only_persist_is_refused_at_first_and_said_later() {
        let disk = Disk::fresh();
        disk.change("debugfs -w -R 'feature read-only' persist");
        is_refused_and_untouched(&disk, "/persist/cache/modules cannot be made: Read-only file system");
        let disk = Disk::booted();
        disk.change("debugfs -w -R 'feature read-only' persist");
        let said = good_boot(&mut disk.boot(&[]));
        says(&said, &[" persist=unwritable", "powernode: ready "]);
    }

    #[test]
    #[ignore = "nightly: five boots that are refused; cargo test -- --ignored nightly::"]
    fn a_persist_without_its_file_system_is_refused_by_name_and_never_formatted() {
        let zeros = "len=$(stat -c %s persist); truncate -s 0 persist; truncate -s $len persist";
        let make = "with powernode.boot=0 type: mke2fs -t ext4 -b 4096 -O verity /dev/vda4";
        let erase = format!("in place of the persist file system; save what you need of it; to erase it, {make}");
        for (script, reason) in [
            // Somebody else's data, none, and bytes that nobody knows.
            (
                "mkfs.fat persist".to_owned(),
                format!("vda4 holds a file system of the type vfat {erase}"),
            ),
            (
                format!("{zeros}; printf 'LUKS\\272\\276\\000\\001' | dd of=persist conv=notrunc status=none"),
                format!("vda4 holds encrypted data (crypto_LUKS) {erase}"),
            ),
            (
                zeros.to_owned(),
                format!("the persist file system on vda4 is blank; to make an empty one, {make}"),
            ),
            (
                format!("{zeros}; echo my own data | dd of=persist bs=5000 seek=1 conv=notrunc status=none"),
                format!(
                    "vda4 holds neither the persist file system nor other known data; save what you need of it; to erase it, {make}"
                ),
            ),
        ] {
            let disk = Disk::fresh();
            disk.change(&script);
            is_refused_and_untouched(&disk, &reason);
        }
        // Without its root directory it is mounted for a moment, and the kernel notes the error in it.
        let disk = Disk::fresh();
        disk.change("debugfs -w -R 'clri <2>' persist");
        let said = bad(&mut disk.boot(&[]), 9);
        let reason = "cannot be mounted; with powernode.boot=0 type: e2fsck -f /dev/vda4";
        says(
            &said,
            &[&format!("powernode: refused: the persist file system on vda4 {reason}")],
        );
    }

    #[test]
    #[ignore = "nightly: two boots; cargo test -- --ignored nightly::"]
    fn a_damaged_table_is_restored_and_a_disk_without_one_has_no_root() {
        let zeros = vec![0; 33 * 512];
        let disk = Disk::fresh();
        let len = fs::metadata(&disk.path).expect("there").len();
        disk.file().write_all_at(&zeros, 512).expect("in the disk");
        let said = good_boot(&mut disk.boot(&[]));
        says(
            &said,
            &[
                "powernode: persist: the partition table of vda was damaged and is restored from its backup",
                " persist=ok boots=1",
            ],
        );
        let (said, _) = check(&[&disk.path], "sgdisk -v /inputs/0");
        says(&said, &["No problems found"]);
        disk.file().write_all_at(&zeros, 512).expect("in the disk");
        disk.file().write_all_at(&zeros, len - 33 * 512).expect("in the disk");
        let said = bad(&mut disk.boot(&[]), 9);
        says(
            &said,
            &[
                "powernode: refused: there is no root: no /powernode/root.ext4 and no file system labelled powernode-root",
            ],
        );
    }
}
