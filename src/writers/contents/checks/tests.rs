//! Trees that work, and trees that lack one thing.

use super::{super::sample::Sample, modules::KernelModules, *};
use crate::image::elf::sample::{ARM64, EXECUTABLE, ElfFile, RELOCATABLE, SHARED, X86_64};

const VERSION: &str = "6.12.1-test";

/// Machine number, directory name and loader of an architecture.
fn names(arch: Arch) -> (u16, &'static str, &'static str) {
    match arch {
        Arch::Amd64 => (X86_64, "x86_64-linux-gnu", "/lib64/ld-linux-x86-64.so.2"),
        Arch::Arm64 => (ARM64, "aarch64-linux-gnu", "/lib/ld-linux-aarch64.so.1"),
    }
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = liblzma::write::XzEncoder::new(Vec::new(), 6);
    out.write_all(bytes).expect("in memory");
    out.finish().expect("in memory")
}

/// A small initramfs in which nothing is missing.
fn whole(arch: Arch) -> Sample {
    let (machine, triplet, loader) = names(arch);
    let mut sample = Sample::default();
    for name in ["bin", "sbin", "lib", "lib64"] {
        sample.link(name, &format!("usr/{name}"));
    }
    let library = |name: &'static str| ElfFile {
        soname: Some(name),
        ..ElfFile::new(machine, SHARED)
    };
    let loader_name = loader.rsplit('/').next().expect("a name");
    // As in Debian's packages: the loader lies with the libraries, and a link is where programs look for it.
    sample.file(
        &format!("usr/lib/{triplet}/{loader_name}"),
        &ElfFile::new(machine, SHARED).bytes(),
    );
    sample.link(&format!("usr{loader}"), &format!("/usr/lib/{triplet}/{loader_name}"));
    let needed = [loader_name];
    let libc = ElfFile {
        needed: &needed,
        ..library("libc.so.6")
    };
    sample.file(&format!("usr/lib/{triplet}/libc.so.6"), &libc.bytes());
    sample.file(
        &format!("usr/lib/{triplet}/libgcc_s.so.1"),
        &library("libgcc_s.so.1").bytes(),
    );
    sample.file(
        &format!("usr/lib/{triplet}/libkmod.so.2.5"),
        &library("libkmod.so.2").bytes(),
    );
    sample.link(&format!("usr/lib/{triplet}/libkmod.so.2"), "libkmod.so.2.5");
    let private = format!("/usr/lib/{triplet}/systemd");
    let udevadm = ElfFile {
        runpath: Some(&private),
        ..ElfFile::program(machine, loader, &["libsystemd-shared-257.so", "libc.so.6"])
    };
    sample.file("usr/bin/udevadm", &udevadm.bytes());
    sample.file(
        &format!("{private}/libsystemd-shared-257.so")[1..],
        &library("shared").bytes(),
    );
    sample.link("usr/lib/systemd/systemd-udevd", "../../bin/udevadm");
    sample.file(
        "usr/sbin/e2fsck",
        &ElfFile::program(machine, loader, &["libc.so.6"]).bytes(),
    );
    sample.file("usr/bin/busybox", &ElfFile::new(machine, EXECUTABLE).bytes());
    sample.file("init", b"#!/bin/sh\nexec busybox\n");

    let module = xz(&ElfFile::new(machine, RELOCATABLE).bytes());
    let packed = zstd::encode_all(&ElfFile::new(machine, RELOCATABLE).bytes()[..], 1).expect("in memory");
    let directory = format!("usr/lib/modules/{VERSION}");
    sample.file(&format!("{directory}/kernel/fs/ext4/ext4.ko.xz"), &module);
    sample.file(&format!("{directory}/kernel/lib/crc16.ko.zst"), &packed);
    let plain = ElfFile::new(machine, RELOCATABLE).bytes();
    sample.file(&format!("{directory}/kernel/drivers/usb/usb-storage.ko"), &plain);
    sample.file(&format!("{directory}/modules.builtin"), b"kernel/fs/fuse/virtiofs.ko\n");
    sample.file(
        &format!("{directory}/modules.dep"),
        b"kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.zst\nkernel/lib/crc16.ko.zst:\nkernel/drivers/usb/usb-storage.ko:\n",
    );
    sample
}

/// The kernel of [`whole`], which has more modules than it.
fn kernel(needs: &str) -> KernelModules {
    let mut sample = Sample::default();
    sample.file(&format!("usr/lib/modules/{VERSION}/modules.dep"), needs.as_bytes());
    modules::kernel(sample.view()).expect("one kernel")
}

fn shown(problems: &[Problem]) -> String {
    problems.iter().map(|p| format!("{p}\n")).collect()
}

fn check(sample: &Sample, arch: Arch) -> String {
    let mut problems = modules::check(sample.view(), arch, Some(&kernel("")), true);
    problems.extend(linked::check(sample.view(), arch));
    shown(&problems)
}

#[test]
fn nothing_is_wrong_with_what_is_whole() {
    for arch in Arch::ALL {
        assert_eq!(check(&whole(arch), arch), "");
    }
}

#[test]
fn a_tree_for_the_other_architecture_is_wrong_in_every_file() {
    let said = check(&whole(Arch::Amd64), Arch::Arm64);
    insta::assert_snapshot!(said, @r#"
    usr/lib/modules/6.12.1-test/kernel/drivers/usb/usb-storage.ko is for x86-64, the target is arm64
    usr/lib/modules/6.12.1-test/kernel/fs/ext4/ext4.ko.xz is for x86-64, the target is arm64
    usr/lib/modules/6.12.1-test/kernel/lib/crc16.ko.zst is for x86-64, the target is arm64
    usr/bin/busybox is for x86-64, the target is arm64
    usr/bin/udevadm is for x86-64, the target is arm64
    usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 is for x86-64, the target is arm64
    usr/lib/x86_64-linux-gnu/libc.so.6 is for x86-64, the target is arm64
    usr/lib/x86_64-linux-gnu/libgcc_s.so.1 is for x86-64, the target is arm64
    usr/lib/x86_64-linux-gnu/libkmod.so.2.5 is for x86-64, the target is arm64
    usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so is for x86-64, the target is arm64
    usr/sbin/e2fsck is for x86-64, the target is arm64
    "#);
    let said = check(&whole(Arch::Arm64), Arch::Amd64);
    assert!(
        said.contains("usr/bin/udevadm is for arm64, the target is x86-64\n"),
        "{said}"
    );
}

#[test]
fn what_a_program_lacks_is_named() {
    let mut said = String::new();
    for arch in Arch::ALL {
        let (machine, triplet, loader) = names(arch);
        let mut without = |what: &str, change: &dyn Fn(&mut Sample)| {
            let mut sample = whole(arch);
            change(&mut sample);
            said.push_str(&format!("# {arch}, {what}\n{}", check(&sample, arch)));
        };
        without("no loader", &|s| s.remove(&format!("usr{loader}")));
        without("no library", &|s| s.remove(&format!("usr/lib/{triplet}/libc.so.6")));
        without("a link to nothing", &|s| {
            s.link(&format!("usr/lib/{triplet}/libc.so.6"), "libc-2.so")
        });
        without("no private library", &|s| {
            s.remove(&format!("usr/lib/{triplet}/systemd"))
        });
        without("no opened library", &|s| {
            s.remove(&format!("usr/lib/{triplet}/libkmod.so.2.5"))
        });
        without("no libgcc", &|s| s.remove(&format!("usr/lib/{triplet}/libgcc_s.so.1")));
        without("text for a library", &|s| {
            s.file(&format!("usr/lib/{triplet}/libc.so.6"), b"/* GNU ld script */")
        });
        without("an object for a library", &|s| {
            let object = ElfFile::new(machine, RELOCATABLE).bytes();
            s.file(&format!("usr/lib/{triplet}/libc.so.6"), &object);
        });
        without("no program", &|s| s.file("usr/bin/busybox", b"\x7fELF\x02\x01\x01"));
        without("a library of the other architecture", &|s| {
            let other = ElfFile::new(X86_64 + ARM64 - machine, SHARED).bytes();
            s.file(&format!("usr/lib/{triplet}/libgcc_s.so.1"), &other);
        });
    }
    insta::assert_snapshot!(said, @r#"
    # amd64, no loader
    usr/bin/udevadm needs the interpreter /lib64/ld-linux-x86-64.so.2, which is not there
    usr/sbin/e2fsck needs the interpreter /lib64/ld-linux-x86-64.so.2, which is not there
    # amd64, no library
    usr/bin/udevadm needs the library libc.so.6, which is not there (looked for in /usr/lib/x86_64-linux-gnu/systemd, /usr/lib/x86_64-linux-gnu, /usr/lib)
    usr/sbin/e2fsck needs the library libc.so.6, which is not there (looked for in /usr/lib/x86_64-linux-gnu, /usr/lib)
    # amd64, a link to nothing
    usr/bin/udevadm needs the library libc.so.6, which is not there (looked for in /usr/lib/x86_64-linux-gnu/systemd, /usr/lib/x86_64-linux-gnu, /usr/lib)
    usr/sbin/e2fsck needs the library libc.so.6, which is not there (looked for in /usr/lib/x86_64-linux-gnu, /usr/lib)
    # amd64, no private library
    usr/bin/udevadm needs the library libsystemd-shared-257.so, which is not there (looked for in /usr/lib/x86_64-linux-gnu/systemd, /usr/lib/x86_64-linux-gnu, /usr/lib)
    # amd64, no opened library
    usr/bin/udevadm opens the library libkmod.so.2 at run time (it loads kernel modules with it), but the library is not there
    # amd64, no libgcc
    usr/lib/x86_64-linux-gnu/libc.so.6 opens the library libgcc_s.so.1 at run time (a thread that is cancelled or ends itself aborts the program without it), but the library is not there
    # amd64, text for a library
    usr/bin/udevadm needs the library libc.so.6, which is not there (looked for in /usr/lib/x86_64-linux-gnu/systemd, /usr/lib/x86_64-linux-gnu, /usr/lib)
    usr/sbin/e2fsck needs the library libc.so.6, which is not there (looked for in /usr/lib/x86_64-linux-gnu, /usr/lib)
    # amd64, an object for a library
    usr/bin/udevadm needs the library libc.so.6, which is not there (looked for in /usr/lib/x86_64-linux-gnu/systemd, /usr/lib/x86_64-linux-gnu, /usr/lib)
    usr/sbin/e2fsck needs the library libc.so.6, which is not there (looked for in /usr/lib/x86_64-linux-gnu, /usr/lib)
    # amd64, no program
    usr/bin/busybox: failed to read an ELF file at byte 0: its header is cut off
    # amd64, a library of the other architecture
    usr/lib/x86_64-linux-gnu/libgcc_s.so.1 is for arm64, the target is x86-64
    usr/lib/x86_64-linux-gnu/libc.so.6 opens the library libgcc_s.so.1 at run time (a thread that is cancelled or ends itself aborts the program without it), but the library is not there
    # arm64, no loader
    usr/bin/udevadm needs the interpreter /lib/ld-linux-aarch64.so.1, which is not there
    usr/sbin/e2fsck needs the interpreter /lib/ld-linux-aarch64.so.1, which is not there
    # arm64, no library
    usr/bin/udevadm needs the library libc.so.6, which is not there (looked for in /usr/lib/aarch64-linux-gnu/systemd, /usr/lib/aarch64-linux-gnu, /usr/lib)
    usr/sbin/e2fsck needs the library libc.so.6, which is not there (looked for in /usr/lib/aarch64-linux-gnu, /usr/lib)
    # arm64, a link to nothing
    usr/bin/udevadm needs the library libc.so.6, which is not there (looked for in /usr/lib/aarch64-linux-gnu/systemd, /usr/lib/aarch64-linux-gnu, /usr/lib)
    usr/sbin/e2fsck needs the library libc.so.6, which is not there (looked for in /usr/lib/aarch64-linux-gnu, /usr/lib)
    # arm64, no private library
    usr/bin/udevadm needs the library libsystemd-shared-257.so, which is not there (looked for in /usr/lib/aarch64-linux-gnu/systemd, /usr/lib/aarch64-linux-gnu, /usr/lib)
    # arm64, no opened library
    usr/bin/udevadm opens the library libkmod.so.2 at run time (it loads kernel modules with it), but the library is not there
    # arm64, no libgcc
    usr/lib/aarch64-linux-gnu/libc.so.6 opens the library libgcc_s.so.1 at run time (a thread that is cancelled or ends itself aborts the program without it), but the library is not there
    # arm64, text for a library
    usr/bin/udevadm needs the library libc.so.6, which is not there (looked for in /usr/lib/aarch64-linux-gnu/systemd, /usr/lib/aarch64-linux-gnu, /usr/lib)
    usr/sbin/e2fsck needs the library libc.so.6, which is not there (looked for in /usr/lib/aarch64-linux-gnu, /usr/lib)
    # arm64, an object for a library
    usr/bin/udevadm needs the library libc.so.6, which is not there (looked for in /usr/lib/aarch64-linux-gnu/systemd, /usr/lib/aarch64-linux-gnu, /usr/lib)
    usr/sbin/e2fsck needs the library libc.so.6, which is not there (looked for in /usr/lib/aarch64-linux-gnu, /usr/lib)
    # arm64, no program
    usr/bin/busybox: failed to read an ELF file at byte 0: its header is cut off
    # arm64, a library of the other architecture
    usr/lib/aarch64-linux-gnu/libgcc_s.so.1 is for x86-64, the target is arm64
    usr/lib/aarch64-linux-gnu/libc.so.6 opens the library libgcc_s.so.1 at run time (a thread that is cancelled or ends itself aborts the program without it), but the library is not there
    "#);
}

#[test]
fn libraries_are_looked_for_where_the_loader_looks() {
    let (machine, _, loader) = names(Arch::Amd64);
    let found = |place: &str, program: &ElfFile<'_>| {
        let mut sample = whole(Arch::Amd64);
        sample.file(place, &ElfFile::new(machine, SHARED).bytes());
        sample.file("usr/libexec/x/program", &program.bytes());
        check(&sample, Arch::Amd64).is_empty()
    };
    let program = ElfFile::program(machine, loader, &["libown.so.1"]);
    for (place, rpath, runpath, wanted) in [
        ("usr/lib/libown.so.1", None, None, true),
        ("usr/lib/x86_64-linux-gnu/libown.so.1", None, None, true),
        ("usr/lib64/libown.so.1", None, None, false),
        ("usr/lib/aarch64-linux-gnu/libown.so.1", None, None, false),
        ("usr/lib/x86_64-linux-gnu/systemd/libown.so.1", None, None, false),
        ("opt/a/libown.so.1", None, Some("/nowhere:/opt/a"), true),
        ("opt/a/libown.so.1", Some("/opt/a"), None, true),
        // A DT_RPATH beside a DT_RUNPATH is nothing.
        ("opt/a/libown.so.1", Some("/opt/a"), Some("/opt/b"), false),
        ("usr/libexec/lib/libown.so.1", None, Some("$ORIGIN/../lib"), true),
        ("usr/libexec/x/libown.so.1", None, Some("${ORIGIN}"), true),
        ("opt/lib/x86_64-linux-gnu/libown.so.1", None, Some("/opt/$LIB"), true),
        ("opt/x86_64/libown.so.1", None, Some("/opt/$PLATFORM"), false),
        // Relative to wherever it is started.
        ("opt/a/libown.so.1", None, Some("opt/a"), false),
    ] {
        let program = ElfFile {
            rpath,
            runpath,
            ..program
        };
        assert_eq!(found(place, &program), wanted, "{place} {rpath:?} {runpath:?}");
    }
    for (needed, wanted) in [
        ("/opt/libown.so.1", true),
        ("opt/libown.so.1", false),
        ("/opt/other.so", false),
    ] {
        let needed = [needed];
        let program = ElfFile {
            needed: &needed,
            ..program
        };
        assert_eq!(found("opt/libown.so.1", &program), wanted, "{needed:?}");
    }
}

#[test]
fn a_loader_outside_of_the_libraries_is_there_under_its_own_name() {
    let mut sample = whole(Arch::Amd64);
    sample.remove("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2");
    sample.file("usr/lib64/ld-linux-x86-64.so.2", &ElfFile::new(X86_64, SHARED).bytes());
    assert_eq!(check(&sample, Arch::Amd64), "");
}

#[test]
fn a_library_is_there_when_every_program_that_loads_it_has_loaded_it() {
    let (machine, _, loader) = names(Arch::Amd64);
    let private = |name: &'static str, needed: &'static [&'static str]| {
        let library = ElfFile {
            needed,
            soname: Some(name),
            ..ElfFile::new(machine, SHARED)
        };
        library.bytes()
    };
    let program = |needed: &[&str]| {
        let program = ElfFile {
            runpath: Some("/opt/own"),
            ..ElfFile::program(machine, loader, needed)
        };
        program.bytes()
    };
    let beside = |place: &str, programs: &[&[&str]]| {
        let mut sample = whole(Arch::Amd64);
        sample.file(place, &private("libcore.so", &["libshared.so"]));
        sample.file("opt/own/libshared.so.1", &private("libshared.so", &[]));
        sample.link("opt/own/libshared.so", "libshared.so.1");
        sample.link("opt/own/other-name.so", "libshared.so.1");
        for (number, needed) in programs.iter().enumerate() {
            sample.file(&format!("usr/bin/program{number}"), &program(needed));
        }
        check(&sample, Arch::Amd64)
    };
    let with = |programs: &[&[&str]]| beside("opt/own/libcore.so", programs);
    let lacks = "opt/own/libcore.so needs the library libshared.so, which is not there (looked for in \
                 /usr/lib/x86_64-linux-gnu, /usr/lib)\n";
    // The program has loaded its neighbour, under any name.
    assert_eq!(with(&[&["libcore.so", "libshared.so"]]), "");
    assert_eq!(with(&[&["libcore.so", "other-name.so"]]), "");
    // No program has loaded it, or not every program.
    assert_eq!(with(&[&["libcore.so"]]), lacks);
    assert_eq!(with(&[&["libcore.so", "libshared.so"], &["libcore.so"]]), lacks);
    // No program needs it, but it can be opened.
    assert_eq!(with(&[&["libshared.so"]]), "");
    let lacks = lacks.replace("opt/own", "opt/other");
    assert_eq!(beside("opt/other/libcore.so", &[&["libshared.so"]]), lacks);
}

#[test]
fn modules_are_there_with_what_they_need_and_for_the_target() {
    let place = |path: &str| format!("usr/lib/modules/{VERSION}/{path}");
    let ext4 = place("kernel/fs/ext4/ext4.ko.xz");
    let mut said = String::new();
    let mut with = |what: &str, whole_kernel: &str, change: &dyn Fn(&mut Sample)| {
        let mut sample = whole(Arch::Amd64);
        change(&mut sample);
        let problems = modules::check(sample.view(), Arch::Amd64, Some(&kernel(whole_kernel)), true);
        said.push_str(&format!("# {what}\n{}", shown(&problems)));
    };
    with("nothing", "", &|_| {});
    with("a module it needs is gone", "", &|s| {
        s.remove(&place("kernel/lib/crc16.ko.zst"))
    });
    with(
        "gone, and its index does not know",
        "kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.zst\n",
        &|s| {
            s.remove(&place("kernel/lib/crc16.ko.zst"));
            s.file(
                &place("modules.dep"),
                b"kernel/fs/ext4/ext4.ko.xz:\nkernel/drivers/usb/usb-storage.ko:\n",
            );
        },
    );
    with("a module its index does not know", "", &|s| {
        s.file(&place("kernel/new.ko"), &ElfFile::new(X86_64, RELOCATABLE).bytes());
    });
    with("no index", "", &|s| s.remove(&place("modules.dep")));
    with("an index of another form", "", &|s| {
        s.file(&place("modules.dep"), b"kernel/fs/ext4/ext4.ko.xz\n")
    });
    with("for another machine", "", &|s| {
        let other = ElfFile::new(ARM64, RELOCATABLE).bytes();
        s.file(&ext4, &xz(&other));
        s.file(
            &place("kernel/lib/crc16.ko.zst"),
            &zstd::encode_all(&other[..], 1).expect("in memory"),
        );
        s.file(&place("kernel/drivers/usb/usb-storage.ko"), &other);
    });
    with("cut off", "", &|s| {
        s.file(&ext4, &xz(&ElfFile::new(X86_64, RELOCATABLE).bytes())[..40]);
        s.file(&place("kernel/lib/crc16.ko.zst"), b"");
        s.file(&place("kernel/drivers/usb/usb-storage.ko"), b"\x7fELF");
    });
    with("something else", "", &|s| {
        s.file(&ext4, &xz(b"text"));
        s.file(&place("kernel/lib/crc16.ko.zst"), b"text");
        s.file(&place("kernel/drivers/usb/usb-storage.ko"), b"other text");
    });
    insta::assert_snapshot!(said, @r#"
    # nothing
    # a module it needs is gone
    usr/lib/modules/6.12.1-test/kernel/fs/ext4/ext4.ko.xz needs usr/lib/modules/6.12.1-test/kernel/lib/crc16.ko.zst, which is not there
    usr/lib/modules/6.12.1-test/kernel/lib/crc16.ko.zst is listed in usr/lib/modules/6.12.1-test/modules.dep, but not there
    # gone, and its index does not know
    usr/lib/modules/6.12.1-test/kernel/fs/ext4/ext4.ko.xz needs usr/lib/modules/6.12.1-test/kernel/lib/crc16.ko.zst, which is not there
    # a module its index does not know
    usr/lib/modules/6.12.1-test/kernel/new.ko is not listed in usr/lib/modules/6.12.1-test/modules.dep
    # no index
    usr/lib/modules/6.12.1-test/modules.dep is not there
    # an index of another form
    usr/lib/modules/6.12.1-test/modules.dep: failed to read line 1: it has no colon
    # for another machine
    usr/lib/modules/6.12.1-test/kernel/drivers/usb/usb-storage.ko is for arm64, the target is x86-64
    usr/lib/modules/6.12.1-test/kernel/fs/ext4/ext4.ko.xz is for arm64, the target is x86-64
    usr/lib/modules/6.12.1-test/kernel/lib/crc16.ko.zst is for arm64, the target is x86-64
    # cut off
    usr/lib/modules/6.12.1-test/kernel/drivers/usb/usb-storage.ko: failed to read an ELF file at byte 0: its header is cut off
    usr/lib/modules/6.12.1-test/kernel/fs/ext4/ext4.ko.xz: failed to read a compressed ELF file: premature eof
    usr/lib/modules/6.12.1-test/kernel/lib/crc16.ko.zst: failed to read a compressed ELF file: incomplete frame
    # something else
    usr/lib/modules/6.12.1-test/kernel/drivers/usb/usb-storage.ko: failed to read a kernel module: it is not an ELF file
    usr/lib/modules/6.12.1-test/kernel/fs/ext4/ext4.ko.xz: failed to read a compressed ELF file: it does not begin with the ELF magic
    usr/lib/modules/6.12.1-test/kernel/lib/crc16.ko.zst: failed to read a compressed ELF file: Unknown frame descriptor
    "#);
}

#[test]
fn drivers_are_in_the_tree_or_in_the_kernel() {
    let sample = whole(Arch::Amd64);
    let missing = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        shown(&modules::missing_drivers(sample.view(), VERSION, &names))
    };
    assert_eq!(
        missing(&["ext4", "crc16", "usb-storage", "usb_storage", "virtiofs"]),
        ""
    );
    insta::assert_snapshot!(missing(&["ext4", "ext", "nvme", "ext4.ko"]), @r#"
    the driver ext is neither in usr/lib/modules/6.12.1-test nor built into the kernel
    the driver nvme is neither in usr/lib/modules/6.12.1-test nor built into the kernel
    the driver ext4.ko is neither in usr/lib/modules/6.12.1-test nor built into the kernel
    "#);
    let other = modules::missing_drivers(sample.view(), "6.13", &["ext4".to_owned()]);
    assert_eq!(shown(&other), "usr/lib/modules/6.13/modules.builtin is not there\n");
}

#[test]
fn the_indexes_are_those_of_one_kernel() {
    let mut sample = Sample::default();
    let none = modules::kernel(sample.view()).expect_err("none").to_string();
    assert_eq!(
        none,
        "usr/lib/modules must have the modules of exactly one kernel, but has 0"
    );
    for version in ["1", "2"] {
        sample.file(&format!("usr/lib/modules/{version}/modules.dep"), b"");
    }
    let two = modules::kernel(sample.view()).expect_err("two").to_string();
    assert_eq!(
        two,
        "usr/lib/modules must have the modules of exactly one kernel, but has 2"
    );
}

const LIST: &str = r#"
[both]
programs = ["udevadm", "e2fsck"]
files = ["init", "usr/lib/modules/*/modules.dep"]
drivers = ["ext4"]

[arm64]
programs = ["rpi"]
files = ["etc/arm64"]
drivers = ["bcm2835"]
"#;

#[test]
fn what_is_wanted_depends_on_the_architecture() {
    let missing = |list: &str, sample: &Sample, arch| {
        let wanted = requirements::parse_wanted(list, arch).unwrap_or_else(|e| panic!("{e}"));
        let mut problems = requirements::missing(sample.view(), &wanted);
        problems.extend(modules::missing_drivers(sample.view(), VERSION, &wanted.drivers));
        shown(&problems)
    };
    assert_eq!(missing(LIST, &whole(Arch::Amd64), Arch::Amd64), "");
    let mut said = missing(LIST, &whole(Arch::Arm64), Arch::Arm64);
    let mut sample = whole(Arch::Amd64);
    sample.remove("usr/sbin/e2fsck");
    sample.file_of_mode("usr/bin/udevadm", &ElfFile::new(X86_64, EXECUTABLE).bytes(), 0o644);
    sample.link("init", "/usr/lib/gone");
    // One directory, and not any number of them.
    let list = LIST.replace("usr/lib/modules/*/modules.dep", "usr/*/modules.dep");
    said.push_str(&missing(&list, &sample, Arch::Amd64));
    insta::assert_snapshot!(said, @r#"
    usr/bin/rpi or usr/sbin/rpi is not there
    etc/arm64 is not there
    the driver bcm2835 is neither in usr/lib/modules/6.12.1-test nor built into the kernel
    usr/bin/udevadm is not executable
    usr/bin/e2fsck or usr/sbin/e2fsck is not there
    init is not there
    usr/*/modules.dep is not there
    "#);
}

#[test]
fn a_list_with_a_mistake_is_refused() {
    let mut said = String::new();
    for (from, to) in [
        ("drivers = [\"ext4\"]", ""),
        ("[\"udevadm\", \"e2fsck\"]", "[]"),
        ("files = [\"etc/arm64\"]", "file = [\"etc/arm64\"]"),
        ("[arm64]", "[riscv64]"),
        ("[both]", "[all]"),
        ("usr/lib/modules/*/", "usr/lib/modules/[/"),
        ("\"init\", ", "1, "),
    ] {
        let list = LIST.replace(from, to);
        assert_ne!(list, LIST, "{from}");
        let error = requirements::parse_wanted(&list, Arch::Amd64).expect_err(from);
        said.push_str(&format!("{error}\n"));
    }
    insta::assert_snapshot!(said, @r#"
    it requires no drivers
    it requires no programs
    line 9: unknown field `file`, expected one of `programs`, `files`, `drivers`
    line 7: unknown field `riscv64`, expected one of `both`, `amd64`, `arm64`
    line 2: unknown field `all`, expected one of `both`, `amd64`, `arm64`
    error parsing glob 'usr/lib/modules/[/modules.dep': unclosed character class; missing ']'
    line 4: invalid type: integer `1`, expected a string
    "#);
}

#[test]
fn the_list_in_the_repository_can_be_read() {
    let list = include_str!("../../../../stages/initramfs-base/contents.toml");
    let amd64 = requirements::parse_wanted(list, Arch::Amd64).expect("a list");
    let arm64 = requirements::parse_wanted(list, Arch::Arm64).expect("a list");
    assert!(amd64.drivers.contains(&"ata_piix".to_owned()) && arm64.drivers.contains(&"bcm2835".to_owned()));
    assert_eq!((amd64.programs.len(), amd64.files), (45, arm64.files));
}

#[test]
fn a_script_needs_its_interpreter() {
    let agent: RelPath = AGENT.parse().expect("a path");
    let said = |script: &[u8], change: &dyn Fn(&mut Sample)| {
        let mut sample = whole(Arch::Amd64);
        sample.file("usr/bin/dash", &ElfFile::new(X86_64, EXECUTABLE).bytes());
        sample.link("usr/bin/sh", "dash");
        change(&mut sample);
        sample.file(AGENT, script);
        linked::check_script(sample.view(), &agent).map_or(String::new(), |p| p.to_string())
    };
    for script in [
        &b"#!/bin/sh\n"[..],
        b"#! /bin/sh -e\nexit",
        b"#!\t/usr/bin/sh\t",
        b"#!/bin/sh",
    ] {
        assert_eq!(said(script, &|_| {}), "", "{}", script.escape_ascii());
    }
    let elf = ElfFile::new(X86_64, EXECUTABLE).bytes();
    assert_eq!(said(&elf, &|_| {}), "");
    let lacks = "usr/sbin/powernode-agent needs the interpreter /bin/sh, which is not there";
    assert_eq!(said(b"#!/bin/sh\n", &|s| s.remove("usr/bin/dash")), lacks);
    assert_eq!(
        said(b"#!/bin/sh\n", &|s| s.file_of_mode("usr/bin/dash", &elf, 0o644)),
        lacks
    );
    let python = "usr/sbin/powernode-agent needs the interpreter /usr/bin/python3, which is not there";
    assert_eq!(said(b"#!/usr/bin/python3 -I\n", &|_| {}), python);
}

#[test]
fn an_agent_is_a_static_program_for_the_node_or_a_script() {
    let dir = tempfile::tempdir().expect("a directory");
    let said = |bytes: &[u8], arch| {
        let agent = dir.path().join("agent");
        std::fs::write(&agent, bytes).expect("written");
        check_agent(arch, &agent).map_or_else(|e| format!("failed to {e}\n"), |()| "accepted\n".to_owned())
    };
    for arch in Arch::ALL {
        let (machine, _, _) = names(arch);
        for kind in [EXECUTABLE, SHARED] {
            assert_eq!(said(&ElfFile::new(machine, kind).bytes(), arch), "accepted\n");
        }
        assert_eq!(said(b"#!/bin/sh\nexit 0\n", arch), "accepted\n");
    }
    let mut all = String::new();
    for (bytes, arch) in [
        (ElfFile::new(X86_64, EXECUTABLE).bytes(), Arch::Arm64),
        (ElfFile::new(ARM64, EXECUTABLE).bytes(), Arch::Amd64),
        (
            ElfFile {
                bits: 32,
                ..ElfFile::new(3, EXECUTABLE)
            }
            .bytes(),
            Arch::Amd64,
        ),
        (
            ElfFile::program(X86_64, "/lib64/ld-linux-x86-64.so.2", &["libc.so.6"]).bytes(),
            Arch::Amd64,
        ),
        (
            ElfFile {
                needed: &["libc.so.6"],
                ..ElfFile::new(X86_64, SHARED)
            }
            .bytes(),
            Arch::Amd64,
        ),
        (ElfFile::new(X86_64, RELOCATABLE).bytes(), Arch::Amd64),
        (b"\x7fELF\x02\x01".to_vec(), Arch::Amd64),
        (b"#!python3\n".to_vec(), Arch::Amd64),
        (b"#!".to_vec(), Arch::Amd64),
        (b"MZ agent for another system".to_vec(), Arch::Amd64),
        (Vec::new(), Arch::Amd64),
    ] {
        all.push_str(&said(&bytes, arch));
    }
    insta::assert_snapshot!(all, @r#"
    failed to install the agent: it is for x86-64, the target is arm64
    failed to install the agent: it is for arm64, the target is x86-64
    failed to install the agent: it is for x86, the target is x86-64
    failed to install the agent: it is a dynamic program that needs /lib64/ld-linux-x86-64.so.2; an agent must be a static program, which any root can start
    failed to install the agent: it needs the library libc.so.6; an agent must be a static program
    failed to install the agent: it is an ELF file, but not a program
    failed to install the agent: failed to read an ELF file at byte 0: its header is cut off
    failed to install the agent: it is neither an ELF program nor a script that begins with #! and an absolute path
    failed to install the agent: it is neither an ELF program nor a script that begins with #! and an absolute path
    failed to install the agent: it is neither an ELF program nor a script that begins with #! and an absolute path
    failed to install the agent: it is neither an ELF program nor a script that begins with #! and an absolute path
    "#);
}

#[test]
fn so_many_problems_are_said_that_the_first_stay_in_sight() {
    let missing = |n: usize| Problem::NotThere {
        wanted: format!("file {n}"),
    };
    let problems: Vec<Problem> = (1..=SHOWN + 5).map(missing).collect();
    let said = refusal("the root", &problems).to_string();
    assert!(
        said.starts_with("accept the root:\n    file 1 is not there\n"),
        "{said}"
    );
    assert!(said.ends_with("file 20 is not there\n    and 5 more"), "{said}");
}
