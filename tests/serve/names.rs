//! Names as firmware and boot loaders ask for them.

use crate::client::*;
use pnb::serve::*;
use std::{fs, os::unix::ffi::OsStrExt, path::Path};

fn files() -> tempfile::TempDir {
    let outer = directory();
    let served = outer.path().join("served");
    fs::create_dir_all(served.join("EFI/BOOT")).expect("made");
    fs::write(served.join("EFI/BOOT/grubx64.efi"), "grub").expect("written");
    fs::write(served.join("back\\slash"), "literal").expect("written");
    fs::write(served.join("Two"), "upper").expect("written");
    fs::write(served.join("two"), "lower").expect("written");
    fs::create_dir(served.join("back")).expect("made");
    fs::write(served.join("back/slash"), "joined").expect("written");
    fs::write(served.join(Path::new(std::ffi::OsStr::from_bytes(b"end\xff"))), "mark").expect("written");
    outer
}

#[test]
fn http_takes_careless_names_and_no_others() {
    let outer = files();
    let log = http_in(&outer.path().join("served"), &HttpLimits::default(), |address| {
        for (target, want) in [
            ("//boot.ipxe", "#!ipxe\nshell\n"),
            ("///EFI//BOOT/./grubx64.efi", "grub"),
            ("/./boot.ipxe", "#!ipxe\nshell\n"),
            ("/EFI\\BOOT\\grubx64.efi", "grub"),
            ("/\\EFI\\BOOT\\grubx64.efi", "grub"),
            ("/EFI%5cBOOT%2Fgrubx64.efi", "grub"),
            ("http://[::1]:80//EFI/BOOT/grubx64.efi?x=1#y", "grub"),
            ("/boot.ipxe#top", "#!ipxe\nshell\n"),
            // A file of the very name is the one that is meant.
            ("/back\\slash", "literal"),
            ("/back//slash", "joined"),
            ("/end%ff", "mark"),
        ] {
            let answer = get(address, target, "");
            assert_eq!((answer.status, &answer.body[..]), (200, want.as_bytes()), "{target}");
        }
        for target in [
            "/efi/boot/grubx64.efi",
            "/BOOT.IPXE",
            "/boot.ipxe/",
            "/boot.ipxe%ff",
            "/EFI/",
            "/EFI/BOOT/..\\..\\boot.ipxe",
            "/..%5csecret",
            "//../secret",
            "/EFI/%2e%2e/boot.ipxe",
        ] {
            assert_eq!(get(address, target, "").status, 404, "{target}");
        }
        // One answer after the other on one connection.
        let two = "GET //boot.ipxe HTTP/1.1\r\nHost: [::1]:8080\r\n\r\nGET /./empty HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        assert_eq!(ask(address, two).status, 200);
        let raw = ask_bytes(address, b"GET /boot.ipxe\xff\x1b[2J HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(raw.status, 400);
    });
    let last = log.last().expect("lines");
    assert_eq!(last.request, "GET /boot.ipxe\\xff\\u{1b}[2J HTTP/1.1", "{last:?}");
}

#[test]
fn tftp_takes_the_names_of_firmware() {
    let outer = files();
    let served = outer.path().join("served");
    let names: [(&[u8], Option<&str>); 22] = [
        (b"/EFI/BOOT/grubx64.efi", Some("grub")),
        (b"//EFI//BOOT/grubx64.efi", Some("grub")),
        (b"./EFI/./BOOT/grubx64.efi", Some("grub")),
        (b"\\EFI\\BOOT\\grubx64.efi", Some("grub")),
        (b"EFI\\BOOT/grubx64.efi", Some("grub")),
        (b"/efi/boot/GRUBX64.EFI", Some("grub")),
        (b"\\efi\\Boot\\grubx64.EFI\xff", Some("grub")),
        (b"BOOT.ipxe", Some("#!ipxe\nshell\n")),
        (b"boot.ipxe\xff\xff", Some("#!ipxe\nshell\n")),
        (b"end\xff", Some("mark")),
        (b"back\\slash", Some("literal")),
        (b"Two", Some("upper")),
        (b"two", Some("lower")),
        // Which of the two is meant cannot be told.
        (b"TWO", None),
        (b"boot.ipxe/", None),
        (b"EFI", None),
        (b"../secret", None),
        (b"..\\secret", None),
        (b"\\..\\SECRET", None),
        (b"OUT", None),
        (b"boot.ipxe\n", None),
        (b"", None),
    ];
    tftp_in(&served, &TftpLimits::default(), names.len(), |server| {
        for (name, want) in names {
            let request = [b"\0\x01", name, b"\0octet\0"].concat();
            let (got, _) = Tftp::new().get(server, &request);
            match (got, want) {
                (Got::File(bytes), Some(want)) => assert_eq!(bytes, want.as_bytes(), "{}", name.escape_ascii()),
                (Got::File(_), None) => panic!("{} was served", name.escape_ascii()),
                (other, Some(_)) => panic!("{}: {other:?}", name.escape_ascii()),
                (other, None) => assert!(matches!(other, Got::Error(1, _)), "{}: {other:?}", name.escape_ascii()),
            }
        }
    });
}
