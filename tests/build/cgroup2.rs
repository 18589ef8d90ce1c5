//! Limits by control groups of version 2, as most hosts have them: pnb builds in a machine whose kernel has no other.
//!
//! The machine is the artifact with another `/init` in a further segment of its initramfs. Its programs are pnb, stripped, with the
//! libraries and the shell of `check-tools`.

use crate::{project::*, small, tools};
use pnb::{
    image::cpio::CpioWriter,
    model::{Epoch, Meta, RelPath},
};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// Mounts what pnb needs, builds every stage, and prints its answers. Ends with a line that `pnb boot` takes for a verdict.
const INIT: &str = r#"#!/vm/bin/busybox sh
b=/vm/bin/busybox
$b mount -t proc none /proc; $b mount -t sysfs none /sys; $b mount -t devtmpfs none /dev
/usr/sbin/modprobe overlay
$b mkdir /new; $b mount -t tmpfs -o size=1g none /new; $b cp -a /vm/. /new/
for d in proc sys dev tmp run; do $b mkdir -p /new/$d; $b mount --move /$d /new/$d 2>/dev/null; done
exec $b switch_root -c /dev/ttyS0 /new /bin/busybox sh /build.sh
"#;

const BUILD: &str = r#"b=/bin/busybox
export PATH=/bin HOME=/root XDG_CACHE_HOME=/root
$b mount -t tmpfs none /tmp; $b mount -t tmpfs none /run; $b mkdir -p /dev/shm /root; $b mount -t tmpfs none /dev/shm
$b mount -t cgroup2 none /sys/fs/cgroup
echo '+memory +pids' > /sys/fs/cgroup/cgroup.subtree_control
cd /project
for stage in fine memory files processes; do
    /bin/pnb build --offline --stage $stage > /out 2>&1
    echo "group2 $stage ended with $?: $($b tr '\n' ' ' < /out)"
done
echo "group2 mechanism: $($b grep -oh '"limits":"[^"]*"' /root/pnb/records/* | $b head -n 1)"
echo "group2 peak: $($b grep -oh '"peak_memory":[0-9]*' /root/pnb/records/* | $b head -n 1)"
echo "group2 left: $($b ls -d /sys/fs/cgroup/pnb-* 2>/dev/null | $b wc -l)"
echo "powernode: refused: this machine only builds"
$b sleep 60
"#;

/// The program of the stages: uses memory of its own or of files without names, starts processes, or does nothing.
const PROGRAM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int argc, char **argv) {
    const size_t size = 8 << 20;
    if (argc > 1 && !strcmp(argv[1], "memory"))
        for (int n = 0; n < 32; n++) memset(malloc(size), 1, size);
    if (argc > 1 && !strcmp(argv[1], "files")) {
        char *block = malloc(size);
        memset(block, 1, size);
        for (int n = 0; n < 32; n++) write(memfd_create("m", 0), block, size);
    }
    if (argc > 1 && !strcmp(argv[1], "processes"))
        for (int n = 0; n < 64; n++) if (fork() == 0) { pause(); _exit(0); }
    return write(open("/build/out", O_CREAT | O_WRONLY, 0644), "made", 4) != 4;
}
"#;

/// The mini project with four stages that run the program.
fn write_project(dir: &Path) {
    small::write_project(dir);
    let source = dir.join("program.c");
    fs::write(&source, PROGRAM).expect("written");
    let program = dir.join("agent/agent");
    good(
        std::process::Command::new("cc")
            .args(["-static", "-O1", "-o"])
            .arg(&program)
            .arg(&source),
    );
    let bytes = fs::read(&program).expect("compiled");
    fs::write(dir.join("lockfile.toml"), small::lock_with("agent/agent", &bytes)).expect("written");
    for stage in ["fine", "memory", "files", "processes"] {
        let stages = dir.join("stages").join(stage);
        fs::create_dir(&stages).expect("made");
        let text = format!(
            "summary = \"One\"\nroot = \"agent\"\ncommand = [\"/usr/sbin/powernode-agent\", \"{stage}\"]\n\n\
             [limits]\nmemory = \"64MiB\"\nprocesses = 16\n\n[outputs]\nout = {{ kind = \"file\" }}\n"
        );
        fs::write(stages.join("stage.toml"), text).expect("written");
    }
}

/// A cpio archive of files, by path, with their modes.
fn archive(files: &BTreeMap<PathBuf, (u32, Vec<u8>)>) -> Vec<u8> {
    let path = |path: &Path| RelPath::new(path.to_str().expect("UTF-8")).expect("a path");
    let meta = |mode| Meta::root(mode, Epoch::new(0));
    let mut writer = CpioWriter::new(Vec::new());
    let mut made = std::collections::BTreeSet::new();
    for (name, (mode, bytes)) in files {
        let mut parents: Vec<&Path> = name.ancestors().skip(1).filter(|p| *p != Path::new("")).collect();
        parents.reverse();
        for parent in parents {
            if made.insert(parent.to_owned()) {
                writer.directory(&path(parent), &meta(0o755)).expect("written");
            }
        }
        let size = bytes.len() as u64;
        writer
            .file(&path(name), &meta(*mode), size, &mut bytes.as_slice())
            .expect("written");
    }
    writer.finish().expect("whole")
}

#[test]
fn limits_hold_where_the_kernel_has_control_groups_of_version_2_only() {
    let project = tempfile::tempdir_in(scratch()).expect("scratch");
    write_project(project.path());
    let tree = tree_of("check-tools");
    let mut files = BTreeMap::new();
    files.insert(PathBuf::from("init"), (0o755, INIT.as_bytes().to_vec()));
    files.insert(PathBuf::from("vm/build.sh"), (0o644, BUILD.as_bytes().to_vec()));
    let mut add = |to: &str, bytes: Vec<u8>| files.insert(Path::new("vm").join(to), (0o755, bytes));
    add("bin/busybox", fs::read(tree.join("usr/bin/busybox")).expect("there"));
    add(
        "lib64/ld-linux-x86-64.so.2",
        fs::read(tree.join("usr/lib64/ld-linux-x86-64.so.2")).expect("there"),
    );
    for library in ["libc.so.6", "libm.so.6", "libgcc_s.so.1"] {
        let from = tree.join("usr/lib/x86_64-linux-gnu").join(library);
        add(
            &format!("lib/x86_64-linux-gnu/{library}"),
            fs::read(from).expect("there"),
        );
    }
    let (_, stripped) = tools::check(&[Path::new(env!("CARGO_BIN_EXE_pnb"))], "strip -o out/pnb /inputs/0");
    add("bin/pnb", stripped["pnb"].clone());
    for entry in walkdir::WalkDir::new(project.path()) {
        let entry = entry.expect("readable");
        if entry.file_type().is_file() {
            let to = Path::new("project").join(entry.path().strip_prefix(project.path()).expect("below"));
            add(to.to_str().expect("UTF-8"), fs::read(entry.path()).expect("readable"));
        }
    }
    let copy = copy_of_artifact();
    let packed = zstd::encode_all(archive(&files).as_slice(), 1).expect("zstd");
    let initramfs = copy.path().join("initramfs.cpio.zst");
    let mut initramfs = fs::File::options().append(true).open(initramfs).expect("opens");
    initramfs.write_all(&packed).expect("written");
    let mut boot = pnb(repository(), &store());
    boot.arg("boot").arg(copy.path()).arg("--no-verify-sums");
    boot.args(["--timeout", &patience(400)]);
    let said = bad(&mut boot, 9);
    for want in [
        "group2 fine ended with 0",
        "group2 memory ended with 7",
        "group2 files ended with 7",
        "group2 processes ended with 7",
        "\"limits\":\"memory: cgroup v2, processes: cgroup v2\"",
        "group2 left: 0",
        "powernode: refused: this machine only builds",
    ] {
        assert!(said.contains(want), "{want} is not in:\n{said}");
    }
    let line = |stage: &str| {
        said.lines()
            .find(|line| line.contains(&format!("group2 {stage} ended")))
            .unwrap_or_default()
    };
    for (stage, limit) in [
        ("memory", "memory of 67108864 bytes"),
        ("files", "memory of 67108864 bytes"),
        ("processes", "16 processes"),
    ] {
        assert!(line(stage).contains(limit), "{stage}: {}", line(stage));
    }
    assert!(said.contains("group2 peak: \"peak_memory\":"), "{said}");
}
