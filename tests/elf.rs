//! Real programs and libraries, read as readelf reads them.

#[path = "fixture/tools.rs"]
mod tools;

use pnb::{
    image::elf::{ElfMachine, read_elf},
    model::Arch,
};

/// Programs of the pinned tree, on the machine that the tests run on.
const FILES: [&str; 5] = [
    "usr/bin/dash",
    "usr/bin/qemu-img",
    "usr/bin/xorriso",
    "usr/sbin/e2fsck",
    "usr/bin/busybox",
];

#[test]
fn real_programs_are_read_as_readelf_reads_them() {
    let files = FILES.join(" ");
    let (_, made) = tools::check(
        &[],
        &format!(
            "cd /
            for file in {files}; do
                cp $file /build/out/${{file##*/}}
                LC_ALL=C readelf -dlW $file >/build/out/${{file##*/}}.said
            done"
        ),
    );
    let mut dynamic = 0;
    for file in FILES {
        let name = file.rsplit('/').next().expect("a name");
        let elf = read_elf(&made[name]).unwrap_or_else(|e| panic!("failed to {e}"));
        let said = String::from_utf8_lossy(&made[&format!("{name}.said")]);
        let between = |line: &str, from: &str, to: char| {
            let (_, rest) = line.split_once(from)?;
            Some(rest.split(to).next().unwrap_or(rest).to_owned())
        };
        let interpreter = said.lines().find_map(|l| between(l, "program interpreter: ", ']'));
        let needed: Vec<String> = said
            .lines()
            .filter_map(|l| between(l, "Shared library: [", ']'))
            .collect();
        let names = elf.needed.iter().map(|n| String::from_utf8_lossy(n).into_owned());
        assert_eq!(names.collect::<Vec<_>>(), needed, "{file}");
        assert_eq!(elf.interpreter.as_deref(), interpreter.as_ref().map(String::as_bytes));
        assert_eq!(elf.machine, ElfMachine::of(Arch::host()));
        dynamic += usize::from(!needed.is_empty() && interpreter.is_some());
    }
    assert_eq!(dynamic, 4, "all but busybox need libraries");
}
