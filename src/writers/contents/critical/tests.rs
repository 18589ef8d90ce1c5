//! Closures of small roots.

use super::*;
use crate::{
    image::elf::sample::{ElfFile, SHARED, X86_64},
    writers::contents::sample::Sample,
};

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// A root, and its contents by digest, since a [`Sample`] keeps only what was recognised.
#[derive(Default)]
struct Root {
    sample: Sample,
    bytes: BTreeMap<VerityDigest, Vec<u8>>,
}

impl Root {
    fn file(&mut self, path: &str, bytes: &[u8]) {
        self.sample.file(path, bytes);
        self.bytes.insert(crate::verity::digest_bytes(bytes), bytes.to_vec());
    }

    fn library(&mut self, name: &str, needed: &[&str]) {
        let mut file = ElfFile::new(X86_64, SHARED);
        file.soname = Some(name);
        file.needed = needed;
        let bytes = file.bytes();
        self.file(&format!("{LIBRARIES}/{name}"), &bytes);
    }

    fn program(&mut self, path: &str, needed: &[&str]) {
        let bytes = ElfFile::program(X86_64, LOADER, needed).bytes();
        self.file(path, &bytes);
    }

    fn closure(&self) -> Result<Vec<String>, WriterError> {
        let read = |digest: &VerityDigest| Ok(self.bytes.get(digest).cloned().expect("of this root"));
        let found = closure(self.sample.view(), Arch::Amd64, &read)?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    /// The closure without the list and the loader, which are always in it.
    fn led(&self) -> Vec<String> {
        let mut found = self.closure().expect("a closure");
        for always in [CRITICAL, &format!("{LIBRARIES}/ld-linux-x86-64.so.2")] {
            let at = found.iter().position(|path| path == always).expect(always);
            found.remove(at);
        }
        found
    }
}

/// A root in which `seeds` is the list: one program of each kind.
fn root(seeds: &str) -> Root {
    let mut root = Root::default();
    for name in ["bin", "sbin", "lib", "lib64"] {
        root.sample.link(name, &format!("usr/{name}"));
    }
    root.library("ld-linux-x86-64.so.2", &[]);
    root.sample
        .link(&format!("usr{LOADER}"), &format!("/{LIBRARIES}/ld-linux-x86-64.so.2"));
    root.file(CRITICAL, seeds.as_bytes());
    root.library("libc.so.6", &["ld-linux-x86-64.so.2"]);
    root.library("libpcre2-8.so.0", &["libc.so.6"]);
    root.library("libselinux.so.1", &["libpcre2-8.so.0", "libc.so.6"]);
    root.program("usr/lib/systemd/systemd", &["libselinux.so.1", "libc.so.6"]);
    root.program("usr/bin/dash", &["libc.so.6"]);
    root.sample.link("usr/bin/sh", "dash");
    root
}

#[test]
fn a_program_leads_to_the_libraries_of_its_libraries() {
    let root = root("usr/lib/systemd/systemd\n");
    assert_eq!(
        root.led(),
        [
            "usr/lib/systemd/systemd".to_owned(),
            format!("{LIBRARIES}/libc.so.6"),
            format!("{LIBRARIES}/libpcre2-8.so.0"),
            format!("{LIBRARIES}/libselinux.so.1"),
        ]
    );
}

#[test]
fn a_library_that_is_opened_by_name_is_led_to() {
    let mut root = root("usr/bin/udevadm\n");
    root.library("libkmod.so.2", &["libzstd.so.1"]);
    root.library("libzstd.so.1", &[]);
    root.library("libother.so.2", &[]);
    let mut bytes = ElfFile::program(X86_64, LOADER, &["libc.so.6"]).bytes();
    bytes.extend_from_slice(b"\0{\"soname\":[\"libkmod.so.2\"]}\0libgone.so.1\0.so.\0libx.so.y\0");
    root.file("usr/bin/udevadm", &bytes);
    let names = ["libc.so.6", "libkmod.so.2", "libzstd.so.1"].map(|name| format!("{LIBRARIES}/{name}"));
    let mut want = vec!["usr/bin/udevadm".to_owned()];
    want.extend(names);
    assert_eq!(root.led(), want);
}

#[test]
fn a_script_leads_to_its_interpreter_and_to_the_programs_it_names() {
    let mut root = root("usr/lib/powernode/ready\n");
    for name in [
        "usr/bin/sed",
        "usr/bin/cut",
        "usr/bin/id",
        "usr/sbin/mkfs",
        "usr/bin/awk",
    ] {
        root.program(name, &["libc.so.6"]);
    }
    root.file(
        "usr/lib/powernode/ready",
        b"#!/bin/sh\n# awk is only spoken of\nx=$(cut -d: -f1 /etc/x|sed s/a/b/)\n/usr/sbin/mkfs \"$x\" || exit\n",
    );
    let led = root.led();
    for want in ["usr/bin/cut", "usr/bin/dash", "usr/bin/sed", "usr/sbin/mkfs"] {
        assert!(led.iter().any(|path| path == want), "{want} is not in {led:?}");
    }
    for not in ["usr/bin/id", "usr/bin/awk"] {
        assert!(!led.iter().any(|path| path == not), "{not} is in {led:?}");
    }
}

#[test]
fn a_unit_leads_to_its_programs_and_to_what_it_starts() {
    let mut root = root("etc/systemd/system/default.target\n");
    let units = "usr/lib/systemd/system";
    root.sample.link(
        "etc/systemd/system/default.target",
        &format!("/{units}/multi-user.target"),
    );
    root.file(
        &format!("{units}/multi-user.target"),
        b"[Unit]\nWants=a.service b.socket\nConflicts=c.service\n",
    );
    root.file(
        &format!("{units}/a.service"),
        b"[Service]\nExecStartPre=-+/bin/a-pre x\nExecStart=a\n#ExecStop=/bin/id\n",
    );
    root.file(&format!("{units}/b.socket"), b"[Socket]\nListenStream=/run/b\n");
    root.file(&format!("{units}/b.service"), b"[Service]\nExecStart=/usr/bin/b\n");
    root.file(&format!("{units}/c.service"), b"[Service]\nExecStart=/usr/bin/c\n");
    root.file(
        &format!("{units}/a.service.d/10.conf"),
        b"[Service]\nExecStartPost=/usr/bin/a-post\n",
    );
    root.sample.link(
        "etc/systemd/system/multi-user.target.wants/d@x.service",
        &format!("/{units}/d@.service"),
    );
    root.file(&format!("{units}/d@.service"), b"[Service]\nExecStart=/usr/bin/d %i\n");
    root.sample.link(
        &format!("{units}/multi-user.target.wants/masked.service"),
        "../masked.service",
    );
    root.file(
        &format!("{units}/masked.service"),
        b"[Service]\nExecStart=/usr/bin/masked\n",
    );
    root.sample.link("etc/systemd/system/masked.service", "/dev/null");
    for name in ["a", "a-pre", "a-post", "b", "c", "d", "masked", "id"] {
        root.program(&format!("usr/bin/{name}"), &["libc.so.6"]);
    }
    let led: Vec<String> = root
        .led()
        .into_iter()
        .filter(|path| path.starts_with("usr/bin/"))
        .collect();
    assert_eq!(
        led,
        ["a", "a-post", "a-pre", "b", "d"].map(|name| format!("usr/bin/{name}"))
    );
}

#[test]
fn the_modules_of_the_name_service_switch_are_led_to() {
    let mut root = root("etc/nsswitch.conf\n");
    root.file(
        "etc/nsswitch.conf",
        b"# comment: dns\npasswd: files systemd\nhosts: resolve [!UNAVAIL=return] files\n",
    );
    for name in ["systemd", "resolve", "dns"] {
        root.library(&format!("libnss_{name}.so.2"), &["libc.so.6"]);
    }
    let led = root.led();
    for (name, wanted) in [("systemd", true), ("resolve", true), ("dns", false)] {
        let path = format!("{LIBRARIES}/libnss_{name}.so.2");
        assert_eq!(led.contains(&path), wanted, "{path} in {led:?}");
    }
}

#[test]
fn a_list_that_names_nothing_is_refused() {
    for (seeds, why) in [
        ("", "it names no file"),
        ("# comment\n\n", "it names no file"),
        ("usr/bin/gone\n", "the root has no file usr/bin/gone"),
        ("usr/bin/dash\nusr/lib/gone/*\n", "the root has no file usr/lib/gone/*"),
        ("usr/lib\n", "the root has no file usr/lib"),
        ("../etc/passwd\n", ".."),
    ] {
        let error = root(seeds).closure().expect_err(seeds).to_string();
        assert!(error.contains(why), "{error}");
    }
    let mut none = root("x");
    none.sample.remove(CRITICAL);
    let error = none.closure().expect_err("no list").to_string();
    assert!(error.contains("there is no such file"), "{error}");
}
