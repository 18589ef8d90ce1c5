//! Portable executables and unified kernel images: sections, padding, profiles, damage, and kernels.

use super::{child, compared, looked, names, part, problem, problems, scratch, tools::check};
use pnb::inspect::survey;

/// A section: name, virtual size, data.
type Section<'a> = (&'a str, u32, &'a [u8]);

/// A program for EFI on x86-64 with these sections, each at a multiple of 512.
fn program(sections: &[Section<'_>]) -> Vec<u8> {
    let table = 0x40 + 24 + 240;
    let first = (table + 40 * sections.len()).next_multiple_of(512);
    let mut out = vec![0; first];
    out[..2].copy_from_slice(b"MZ");
    out[0x3c] = 0x40;
    out[0x40..0x44].copy_from_slice(b"PE\0\0");
    out[0x44..0x46].copy_from_slice(&0x8664u16.to_le_bytes());
    out[0x46..0x48].copy_from_slice(&(sections.len() as u16).to_le_bytes());
    out[0x54..0x56].copy_from_slice(&240u16.to_le_bytes());
    out[0x58..0x5a].copy_from_slice(&0x20bu16.to_le_bytes());
    out[0x58 + 108] = 16;
    for (number, (name, virtual_size, data)) in sections.iter().enumerate() {
        let header = table + 40 * number;
        let place = out.len() as u32;
        out[header..header + name.len()].copy_from_slice(name.as_bytes());
        for (at, value) in [
            (8, *virtual_size),
            (12, 0x1000 * (number as u32 + 1)),
            (16, data.len() as u32),
            (20, place),
        ] {
            out[header + at..header + at + 4].copy_from_slice(&value.to_le_bytes());
        }
        out.extend(*data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out
}

fn whole<'a>(name: &'a str, data: &'a [u8]) -> Section<'a> {
    (name, data.len() as u32, data)
}

fn ways(a: &[u8], b: &[u8]) -> Vec<String> {
    let found = compared(a, b);
    found.differences.iter().map(|d| d.path.join(" / ")).collect()
}

#[test]
fn a_unified_kernel_image_shows_its_payloads_and_its_profiles() {
    let (_, made) = check(
        &[],
        "echo hello >greeting; echo greeting | cpio -o -H newc >out/cpio 2>/dev/null",
    );
    let osrel = whole(".osrel", b"ID=debian\nNAME=Debian\n");
    let image = |command: &'static [u8]| {
        program(&[
            whole(".text", &[0x90; 700]),
            whole(
                ".sbat",
                b"sbat,1,SBAT,sbat,1,https://example.org\nsystemd,1,The systemd Developers,systemd,257,x\n",
            ),
            osrel,
            whole(".cmdline", b"quiet"),
            whole(".linux", b"KERNELXX"),
            whole(".initrd", &made["cpio"]),
            whole(".profile", b"ID=main\nTITLE=Main\n"),
            whole(".profile", b"ID=debug\n"),
            whole(".cmdline", command),
        ])
    };
    let a = image(b"debug");
    let node = looked(&a);
    assert_eq!((node.format, problems(&node)), (Some("UKI"), Vec::new()), "{node:#?}");
    let initrd = child(&node, "section .initrd");
    assert_eq!(child(initrd, "/greeting").size, 6, "{node:#?}");
    assert_eq!(child(&node, "section .cmdline").format, Some("text"));
    assert_eq!(node.content["SBAT"], "sbat 1, systemd 1");
    assert_eq!(node.content["profiles"], "2");
    assert!(
        names(&node).contains(&"profile 1 \"debug\" section .cmdline"),
        "{:?}",
        names(&node)
    );
    assert!(
        node.content["section .text"].starts_with("700 bytes at "),
        "{:?}",
        node.content
    );
    let found = ways(&a, &image(b"DEBUG"));
    assert_eq!(found, ["x / UKI / profile 1 \"debug\" section .cmdline"]);
    // Without a kernel it adds to another image.
    let addon = looked(&program(&[osrel, whole(".cmdline", b"debug")]));
    assert_eq!(addon.format, Some("UKI addon"));
}

#[test]
fn bytes_behind_the_virtual_size_are_padding() {
    let with = |tail: &[u8]| {
        let data = [b"ABCD", tail].concat();
        program(&[(".linux", 4, &data), whole(".osrel", b"ID=x\n")])
    };
    let node = looked(&with(b"EFGH"));
    assert_eq!(child(&node, "section .linux").size, 4, "{node:#?}");
    let found = ways(&with(b"EFGH"), &with(b"xxxx"));
    assert_eq!(found, ["x / UKI / section .linux (padding)"]);
    // A virtual size beyond the data is memory, not bytes of the file.
    let node = looked(&program(&[(".data", u32::MAX, b"some data"), whole(".text", b"x")]));
    assert_eq!(problems(&node), Vec::<String>::new());
    assert!(
        node.content["section .data"].starts_with("9 bytes at "),
        "{:?}",
        node.content
    );
}

#[test]
fn no_number_of_sections_hides_one() {
    let texts: Vec<(String, String)> = (0..300).map(|i| (format!(".s{i}"), format!("section {i}"))).collect();
    let many = |change: Option<usize>| {
        let mut texts = texts.clone();
        if let Some(change) = change {
            texts[change].1 = texts[change].1.to_uppercase();
        }
        let sections: Vec<Section<'_>> = texts.iter().map(|(name, data)| whole(name, data.as_bytes())).collect();
        program(&sections)
    };
    let a = many(None);
    let node = looked(&a);
    assert_eq!(node.content["sections"], "300, of which 64 are listed");
    assert_eq!(problems(&node), Vec::<String>::new());
    assert_eq!(ways(&a, &many(Some(290))), ["x / EFI program / section .s290"]);
    // A table that says more than is there.
    let mut cut = a[..0x40 + 24 + 240 + 40 * 10].to_vec();
    cut.extend([0; 20]);
    assert!(
        problem(&looked(&cut)).contains("table of sections is cut off: 10 of 300"),
        "{:?}",
        looked(&cut).problem
    );
}

#[test]
fn sections_that_overlap_or_go_past_the_end_are_named() {
    let good = program(&[whole(".text", &[1; 600]), whole(".data", &[2; 600])]);
    let place = |number: usize| 0x40 + 24 + 240 + 40 * number + 20;
    for (at, to, said) in [
        (
            place(1),
            512 + 512u32,
            "1 pairs of its sections overlap: .text and .data",
        ),
        (
            place(1),
            1 << 30,
            "1 of its sections goes past the end of the file: .data",
        ),
    ] {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&to.to_le_bytes());
        let node = looked(&bytes);
        assert!(problem(&node).contains(said), "{node:#?}");
        assert!(node.content.contains_key("section .text"));
    }
    assert_eq!(problems(&looked(&good)), Vec::<String>::new());
}

#[test]
fn who_signed_a_program_is_shown() {
    // A SignedData with one certificate, of which only the fields in front of the key are read.
    let der = |tag: u8, parts: &[&[u8]]| {
        let content = parts.concat();
        let mut out = vec![tag];
        match content.len() {
            short @ ..0x80 => out.push(short as u8),
            long => out.extend([0x82, (long >> 8) as u8, long as u8]),
        }
        out.extend(content);
        out
    };
    let name = |common: &str| {
        let value = der(0x0c, &[common.as_bytes()]);
        der(0x30, &[&der(0x31, &[&der(0x30, &[&der(6, &[&[0x55, 4, 3]]), &value])])])
    };
    let (issuer, subject, serial) = (name("Test CA"), name("Test Signer"), der(2, &[&[7]]));
    let validity = der(0x30, &[]);
    let body = der(
        0x30,
        &[
            &der(0xa0, &[&der(2, &[&[2]])]),
            &serial,
            &der(0x30, &[]),
            &issuer,
            &validity,
            &subject,
        ],
    );
    let info = der(0x30, &[&der(2, &[&[1]]), &der(0x30, &[&issuer, &serial])]);
    let signed = der(
        0x30,
        &[
            &der(2, &[&[1]]),
            &der(0x31, &[]),
            &der(0x30, &[]),
            &der(0xa0, &[&der(0x30, &[&body])]),
            &der(0x31, &[&info]),
        ],
    );
    let pkcs7 = der(0x30, &[&der(6, &[&[0x2a]]), &der(0xa0, &[&signed])]);
    let mut bytes = program(&[whole(".text", b"x")]);
    let at = bytes.len() as u32;
    let len = 8 + pkcs7.len() as u32;
    bytes.extend(len.to_le_bytes());
    bytes.extend([0, 2, 2, 0]);
    bytes.extend(pkcs7);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let table = (bytes.len() as u32 - at).to_le_bytes();
    let directory = 0x58 + 112 + 32;
    bytes[directory..directory + 4].copy_from_slice(&at.to_le_bytes());
    bytes[directory + 4..directory + 8].copy_from_slice(&table);
    let node = looked(&bytes);
    assert_eq!(node.content["signed"], "yes");
    assert_eq!(
        node.content["signature 1"], "by \"Test Signer\", issued by \"Test CA\"",
        "{:?}",
        node.content
    );
    // Damage of the signature at any byte is no panic.
    for at in at as usize + 8..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] = 0xff;
        let node = survey(&part(&damaged), &scratch(), 1, false).expect("in memory");
        assert!(node.content.contains_key("signature 1"), "{at}");
    }
    bytes[directory + 4..directory + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(problem(&looked(&bytes)).contains("its certificate table of 4294967295 bytes"));
}

#[test]
fn a_compressed_kernel_names_its_payload() {
    let mut zboot = program(&[whole(".text", &[0; 100])]);
    zboot[4..8].copy_from_slice(b"zimg");
    zboot[8..12].copy_from_slice(&512u32.to_le_bytes());
    zboot[12..16].copy_from_slice(&90u32.to_le_bytes());
    zboot[0x18..0x1c].copy_from_slice(b"zstd");
    let node = looked(&zboot);
    assert_eq!(node.format, Some("Linux kernel (EFI zboot)"));
    assert_eq!(node.content["payload"], "zstd, 90 bytes at 512");
    zboot[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(
        problem(&looked(&zboot)).contains("its compressed kernel goes past the end"),
        "{:?}",
        looked(&zboot)
    );
}
