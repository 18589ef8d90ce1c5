//! ELF files that are made for the tests, real ones, and invalid ones.

use super::reader::{MAX_NEEDED, MAX_STRING};
use super::{
    sample::{ARM64, EXECUTABLE, ElfFile, RELOCATABLE, SHARED, X86_64},
    *,
};
use crate::model::Arch;
use proptest::prelude::*;
use std::{fs, sync::OnceLock};

fn read(file: &ElfFile<'_>) -> Elf {
    read_elf(&file.bytes()).unwrap_or_else(|e| panic!("failed to {e}"))
}

fn names(list: &[Vec<u8>]) -> Vec<&str> {
    let names = list.iter().map(|n| std::str::from_utf8(n));
    names.map(|n| n.expect("UTF-8")).collect()
}

#[test]
fn everything_is_read_in_both_widths_and_orders() {
    for (bits, big_endian) in [(64, false), (64, true), (32, false), (32, true)] {
        let file = ElfFile {
            bits,
            big_endian,
            soname: Some("libx.so.1"),
            rpath: Some("/old"),
            runpath: Some("$ORIGIN/../lib:/usr/lib/private:"),
            ..ElfFile::program(X86_64, "/lib64/ld-linux-x86-64.so.2", &["liba.so.1", "libc.so.6"])
        };
        let elf = read(&file);
        assert_eq!(elf.kind, ElfKind::Shared);
        assert_eq!(elf.interpreter.as_deref(), Some(&b"/lib64/ld-linux-x86-64.so.2"[..]));
        assert_eq!(names(&elf.needed), ["liba.so.1", "libc.so.6"]);
        assert_eq!(names(&elf.search), ["$ORIGIN/../lib", "/usr/lib/private"]);
        assert_eq!(elf.soname.as_deref(), Some(&b"libx.so.1"[..]));
        assert_eq!(
            elf.machine == ElfMachine::of(Arch::Amd64),
            (bits, big_endian) == (64, false)
        );
        let older = read(&ElfFile { runpath: None, ..file });
        assert_eq!(names(&older.search), ["/old"]);
    }
    let alone = read(&ElfFile::new(ARM64, EXECUTABLE));
    assert_eq!(
        (alone.kind, alone.machine),
        (ElfKind::Executable, ElfMachine::of(Arch::Arm64))
    );
    assert_eq!((alone.interpreter, alone.needed, alone.search), (None, vec![], vec![]));
    assert_eq!(read(&ElfFile::new(X86_64, RELOCATABLE)).kind, ElfKind::Relocatable);
    assert_eq!(read(&ElfFile::new(X86_64, 4)).kind, ElfKind::Other(4));
}

#[test]
fn machines_have_the_names_people_know() {
    let shown = |machine, bits, big_endian| {
        let file = ElfFile {
            bits,
            big_endian,
            ..ElfFile::new(machine, SHARED)
        };
        read(&file).machine.to_string()
    };
    assert_eq!(shown(X86_64, 64, false), "x86-64");
    assert_eq!(shown(X86_64, 32, false), "x86-64 with 32 bits");
    assert_eq!(shown(ARM64, 64, false), "arm64");
    assert_eq!(shown(ARM64, 64, true), "arm64, big-endian");
    assert_eq!(shown(3, 32, false), "x86");
    assert_eq!(shown(40, 32, false), "32-bit Arm");
    assert_eq!(shown(243, 64, false), "RISC-V");
    assert_eq!(shown(22, 64, true), "machine 22, big-endian");
}

/// A program that every host has, for its own machine.
fn real() -> &'static [u8] {
    static REAL: OnceLock<Vec<u8>> = OnceLock::new();
    REAL.get_or_init(|| fs::read("/bin/true").expect("every host has it"))
}

fn problem(bytes: &[u8]) -> String {
    format!("failed to {}", read_elf(&bytes.to_vec()).expect_err("it lies"))
}

#[test]
fn each_lie_is_named_with_its_place() {
    let good = ElfFile {
        soname: Some("libx.so.1"),
        ..ElfFile::program(X86_64, "/lib64/ld.so", &["libc.so.6"])
    };
    let good = good.bytes();
    let changed = |at: usize, bytes: &[u8]| {
        let mut lie = good.clone();
        lie[at..at + bytes.len()].copy_from_slice(bytes);
        problem(&lie)
    };
    let all = [
        problem(b""),
        problem(b"\x7fELF\x02\x01"),
        problem(&good[..63]),
        problem(&good[..100]),
        problem(&good[..good.len() - 12]),
        changed(0, b"MZ"),
        changed(4, &[3]),
        changed(5, &[0]),
        changed(6, &[7]),
        // Number and size of the program headers, and where they are.
        changed(0x38, &[0xff, 0xff]),
        changed(0x36, &[55]),
        changed(0x20, &[0xff; 8]),
        // Of PT_INTERP and PT_DYNAMIC: where, how long. Of PT_LOAD: the address.
        changed(64 + 56 + 8, &[0xff; 8]),
        changed(64 + 56 + 0x20, &[3, 0]),
        changed(64 + 112 + 8, &[0xff; 8]),
        changed(64 + 112 + 0x20, &[0xff; 8]),
        changed(64 + 112 + 0x20, &[0, 0x10]),
        changed(64 + 0x10, &[0xff; 8]),
        // Of DT_NEEDED: the offset of the name. The tag of DT_STRTAB.
        changed(248 + 8, &[0xff; 8]),
        changed(248 + 32, &[6]),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    failed to read an ELF file at byte 0: it does not begin with the ELF magic
    failed to read an ELF file at byte 0: its header is cut off
    failed to read an ELF file at byte 0: its header is cut off
    failed to read an ELF file at byte 64: the file ends before a structure that lies there
    failed to read an ELF file at byte 329: a name has no NUL within 8 bytes
    failed to read an ELF file at byte 0: it does not begin with the ELF magic
    failed to read an ELF file at byte 0: its class is neither 32 nor 64 bits
    failed to read an ELF file at byte 0: its byte order is neither little nor big
    failed to read an ELF file at byte 0: the header has an unknown version
    failed to read an ELF file at byte 64: 65535 program headers of 56 bytes are not a valid table
    failed to read an ELF file at byte 64: 3 program headers of 55 bytes are not a valid table
    failed to read an ELF file at byte 18446744073709551615: the file ends before a structure that lies there
    failed to read an ELF file at byte 18446744073709551615: the file ends before a structure that lies there
    failed to read an ELF file at byte 232: a name has no NUL within 3 bytes
    failed to read an ELF file at byte 18446744073709551615: the file ends before a structure that lies there
    failed to read an ELF file at byte 248: the dynamic section has 18446744073709551615 bytes, more than 262144
    failed to read an ELF file at byte 248: the file ends before a structure that lies there
    failed to read an ELF file at byte 0: the table of strings at address 0x400148 lies in no loaded segment
    failed to read an ELF file at byte 328: a name is at offset 18446744073709551615 of a string table of 21 bytes
    failed to read an ELF file at byte 0: the dynamic section has names, but no table of strings
    "#);
}

#[test]
fn more_libraries_than_anybody_needs_are_refused() {
    let many = vec!["libc.so.6"; MAX_NEEDED];
    let mut file = ElfFile::program(X86_64, "/lib64/ld.so", &many);
    assert_eq!(read(&file).needed.len(), MAX_NEEDED);
    let more = vec!["libc.so.6"; MAX_NEEDED + 1];
    file.needed = &more;
    assert!(problem(&file.bytes()).contains("more than 1024 libraries"));
}

/// Ranges of a real file that the reader evaluates: the headers and the dynamic section.
fn telling() -> Vec<usize> {
    let real = real();
    let word = |at: usize| u64::from_le_bytes(real[at..at + 8].try_into().expect("eight")) as usize;
    let headers = 64..64 + 56 * usize::from(real[0x38]);
    let dynamic = headers.clone().step_by(56).find(|h| real[*h] == 2);
    let dynamic = dynamic.expect("a dynamic program");
    let dynamic = word(dynamic + 8)..word(dynamic + 8) + word(dynamic + 0x20);
    (0..64).chain(headers).chain(dynamic).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_real_program_with_other_bytes_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0), Just(0xff)]), 1..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let places = telling();
        let mut bytes = real().to_vec();
        for (place, byte) in changes {
            bytes[places[place.index(places.len())]] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        match read_elf(&bytes) {
            Ok(elf) => {
                let names = elf.needed.iter().chain(&elf.search).chain(&elf.interpreter).chain(&elf.soname);
                prop_assert!(elf.needed.len() <= MAX_NEEDED);
                prop_assert!(names.into_iter().all(|n| n.len() < MAX_STRING && !n.contains(&0)));
            }
            Err(error) => prop_assert!(error.to_string().starts_with("read an ELF file at byte "), "{error}"),
        }
    }

    #[test]
    fn bytes_of_any_kind_are_read_or_refused(tail in prop::collection::vec(any::<u8>(), 0..600), class in 0u8..4, order in 0u8..4) {
        let bytes = [&b"\x7fELF"[..], &[class, order, 1], &tail].concat();
        let _ = read_elf(&bytes);
        let _ = ElfMachine::of_head(&bytes);
    }
}
