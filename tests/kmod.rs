//! Indexes of kernel modules against depmod's, and modules that lie. `tests/fixtures/kmod/make.sh` made modules and indexes.

use pnb::{
    image::{
        ImageError,
        kmod::{
            BuiltinModules, Chooser, INDEX_FILES, ModuleFacts, ModuleReader, ModuleSet, indexes, parse_facts,
            parse_wanted, write_facts,
        },
    },
    model::Arch,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Every module of the fixture.
const MODULES: [&str; 9] = [
    "extra/late.ko.xz",
    "kernel/a/base-core.ko",
    "kernel/a/mid.ko.xz",
    "kernel/b/top-two.ko",
    "kernel/b/top.ko.zst",
    "kernel/b/user.ko.xz",
    "kernel/lib/lib.ko.xz",
    "kernel/z/alone.ko",
    "updates/other-one.ko",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/kmod")
        .join(name)
}

fn content(name: &str) -> Vec<u8> {
    fs::read(fixture("modules").join(name)).expect(name)
}

fn text(name: &str) -> String {
    String::from_utf8(content(name)).expect("text")
}

fn read(path: &str, content: &[u8]) -> Result<ModuleFacts, ImageError> {
    ModuleReader::default().read(path, content, Arch::Amd64)
}

fn facts() -> Vec<ModuleFacts> {
    let mut reader = ModuleReader::default();
    let mut one = |path: &&str| reader.read(path, &content(path), Arch::Amd64).expect(path);
    MODULES.iter().map(&mut one).collect()
}

fn set() -> ModuleSet {
    ModuleSet::new(facts(), &text("modules.order")).expect("a set")
}

fn builtin() -> BuiltinModules {
    BuiltinModules::parse(&text("modules.builtin"), &content("modules.builtin.modinfo")).expect("lists")
}

fn compare(set: &ModuleSet) {
    let made = indexes(set, &builtin()).expect("indexes");
    assert!(made.keys().eq(&INDEX_FILES));
    for name in INDEX_FILES {
        let expected = fs::read(fixture("expected").join(name)).expect(name);
        let (made, expected) = (
            made[name].escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
        );
        assert_eq!(made.replace("\\n", "\n"), expected.replace("\\n", "\n"), "{name}");
    }
    #[expect(clippy::disallowed_methods, reason = "they are only counted")]
    let there = fs::read_dir(fixture("expected")).expect("there").count();
    assert_eq!(there, INDEX_FILES.len(), "depmod made something else too");
}

#[test]
fn the_indexes_are_those_of_depmod() {
    compare(&set());
}

#[test]
fn facts_come_back_from_their_text() {
    let text_of_facts = write_facts(&set());
    let back = parse_facts(&text_of_facts).expect("parses");
    assert!(!text_of_facts.contains("printk"), "nobody here exports it");
    compare(&ModuleSet::new(back, &text("modules.order")).expect("a set"));
    let odd = parse_facts("pnb module facts 1\nmodule a.ko\nalias x\r").expect("parses");
    assert_eq!(odd[0].aliases, ["x\r"], "a carriage return is no end of a line");
    for (bad, told) in [
        ("", r#"line 1 is """#),
        ("pnb module facts 2\n", "line 1 is"),
        ("pnb module facts 1\nalias x\n", r#"line 2 is "alias x""#),
        ("pnb module facts 1\nmodule a.ko\nodd x\n", "line 3 is"),
        ("pnb module facts 1\nmodule\n", "line 2 is"),
    ] {
        let error = parse_facts(bad).expect_err(bad).to_string();
        assert!(error.contains("module facts") && error.contains(told), "{error}");
    }
}

#[test]
fn what_a_module_says_of_itself() {
    let mid = read("kernel/a/mid.ko.xz", &content("kernel/a/mid.ko.xz")).expect("sound");
    let list = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        mid,
        ModuleFacts {
            path: "kernel/a/mid.ko.xz".to_owned(),
            aliases: list(&[
                "usb:v[0-9-]p-*",
                "bad]bracket-alias",
                "pci:v00008086d00001234sv*sd*bc*sc*i*"
            ]),
            softdeps: list(&["pre: base-core lib post: late", "pre: other-one"]),
            weakdeps: Vec::new(),
            exports: list(&["mid_run"]),
            needs: list(&["base_init", "base_exit"]),
        }
    );
    let base = read("x.ko", &content("kernel/a/base-core.ko")).expect("sound");
    assert_eq!(
        base.needs,
        ["printk", "module_layout"],
        "symbols first, then what has only a version"
    );
    let lib = read("x.ko", &content("kernel/lib/lib.ko.xz")).expect("sound");
    assert_eq!(lib.exports, ["lib_one", "lib_two"]);
}

#[test]
fn a_module_that_is_cut_off_or_something_else_is_named() {
    for path in ["kernel/a/base-core.ko", "kernel/a/mid.ko.xz", "kernel/b/top.ko.zst"] {
        let whole = content(path);
        for length in 0..whole.len() {
            let error = read(path, &whole[..length]).expect_err("cut off").to_string();
            assert!(error.starts_with(&format!("read {path:?}: ")), "{length}: {error}");
        }
    }
    let told = |bytes: &[u8], arch| {
        let error = ModuleReader::default().read("m.ko", bytes, arch).expect_err("refused");
        error.to_string().split_once(": ").expect("a path").1.to_owned()
    };
    assert_eq!(
        told(b"BZh9 bzip2", Arch::Amd64),
        "it is neither an ELF file nor one compressed with xz, zstd or gzip"
    );
    let plain = content("kernel/a/base-core.ko");
    assert_eq!(
        told(&plain, Arch::Arm64),
        "it is for machine 62, not for arm64 (machine 183)"
    );
    let changed = |at: usize, value: u8| {
        let mut bytes = plain.clone();
        bytes[at] = value;
        told(&bytes, Arch::Amd64)
    };
    assert!(changed(4, 1).starts_with("it is not a 64-bit ELF file"), "class");
    assert!(changed(5, 2).contains("little-endian"), "byte order");
    assert_eq!(changed(16, 2), "it is not a relocatable object");
    for (path, problem) in [
        ("kernel/a/mid.ko.xz", "its xz stream is cut off, or bytes follow it"),
        ("kernel/b/top.ko.zst", "it has 4 bytes after its zstd frame"),
    ] {
        let more = [&content(path)[..], b"more"].concat();
        assert_eq!(told(&more, Arch::Amd64), problem);
    }
    // Some kernels have modules in gzip.
    let packed = {
        use std::io::Write;
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        out.write_all(&plain).expect("in memory");
        out.finish().expect("in memory")
    };
    let facts = |path: &str, bytes: &[u8]| ModuleFacts {
        path: String::new(),
        ..read(path, bytes).expect("sound")
    };
    assert_eq!(facts("m.ko.gz", &packed), facts("m.ko", &plain));
    assert!(pnb::image::kmod::is_module("m.ko.gz"));
    for length in 2..packed.len() {
        let said = told(&packed[..length], Arch::Amd64);
        assert!(said.starts_with("its gzip member is broken: "), "{length}: {said}");
    }
    let more = [&packed[..], b"more"].concat();
    assert_eq!(told(&more, Arch::Amd64), "it has 4 bytes after its gzip member");
    // An alias whose text is no text: the index could not hold it.
    let at = plain.windows(10).position(|w| w == b"base-alias").expect("there");
    assert_eq!(
        changed(at, 0xe4),
        r#"it contains "\xe4ase-alias", which is not printable ASCII"#
    );
}

fn xz(plain: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(plain).expect("packed");
    encoder.finish().expect("packed")
}

fn unpacked(packed: &[u8]) -> Vec<u8> {
    liblzma::decode_all(packed).expect("unpacked")
}

#[test]
fn a_module_is_unpacked_as_far_as_it_says_all_and_to_its_end_when_it_is_unusual() {
    let mid = unpacked(&content("kernel/a/mid.ko.xz"));
    let with = |from: &[u8], to: &[u8]| {
        let at = mid.windows(from.len()).position(|w| w == from).expect("there");
        [&mid[..at], to, &mid[at + from.len()..]].concat()
    };
    for (what, plain, whole) in [
        ("as the kernel's build makes it", mid.clone(), 0),
        ("no vermagic", with(b"vermagic=", b"vermagik="), 1),
        ("no struct module", with(b"__this_module", b"__that_module"), 1),
        (
            "something that is no key=value",
            with(b"alias=usb:v[0-9-]p-*", b"alias-usb:v[0-9-]p-*"),
            1,
        ),
        (
            "a name that is no text",
            with(b"__UNIQUE_ID_info1\0", b"__UNIQUE_ID_info\x03\0"),
            1,
        ),
        (
            "the assembler's names of the labels 1$ and 1",
            with(b"__UNIQUE_ID_info1\0", b".L14472\x011\0.L23\x0212\0"),
            0,
        ),
        (
            "a string without a symbol",
            unpacked(&content("kernel/b/user.ko.xz")),
            1,
        ),
        (
            "exports without versions",
            unpacked(&content("kernel/lib/lib.ko.xz")),
            1,
        ),
    ] {
        let mut reader = ModuleReader::default();
        let packed = xz(&plain);
        let early = reader.read("m.ko.xz", &packed, Arch::Amd64).expect(what);
        assert_eq!(reader.whole(), whole, "{what}");
        let plain = reader.read("m.ko.xz", &plain, Arch::Amd64).expect(what);
        assert_eq!(early, plain, "{what}");
        for length in (0..packed.len()).rev().take(2000) {
            assert!(
                reader.read("m.ko.xz", &packed[..length], Arch::Amd64).is_err(),
                "{what}: {length}"
            );
        }
    }
}

#[test]
fn no_changed_byte_does_more_than_fail() {
    let plain = content("kernel/a/base-core.ko");
    let mut reader = ModuleReader::default();
    for at in 0..plain.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = plain.clone();
            bytes[at] = value;
            let _ = reader.read("m.ko", &bytes, Arch::Amd64);
        }
    }
    let mid = unpacked(&content("kernel/a/mid.ko.xz"));
    let tables = mid.windows(4).position(|w| w == b"soft").expect("there");
    let relocations = mid.windows(10).rposition(|w| w == b"base_exit\0").expect("there") + 10;
    for at in (0..64).chain(tables..relocations) {
        let mut bytes = mid.clone();
        bytes[at] ^= 0x81;
        let _ = reader.read("m.ko.xz", &xz(&bytes), Arch::Amd64);
    }
}

#[test]
fn a_bomb_is_given_up() {
    let zeros = std::io::Read::take(std::io::repeat(0), 513 << 20);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("starts");
    std::io::copy(&mut { zeros }, &mut encoder).expect("packed");
    let error = read("m.ko", &encoder.finish().expect("packed"))
        .expect_err("too large")
        .to_string();
    assert!(error.ends_with("bytes or more when unpacked"), "{error}");
}

#[test]
fn sets_and_lists_that_cannot_be_indexed_are_refused() {
    let refused =
        |modules: Vec<ModuleFacts>, order: &str| ModuleSet::new(modules, order).expect_err("refused").to_string();
    let module = |path: &str, exports: &str, needs: &str| ModuleFacts {
        path: path.to_owned(),
        exports: vec![exports.to_owned()],
        needs: vec![needs.to_owned()],
        ..ModuleFacts::default()
    };
    assert_eq!(
        refused(
            vec![module("kernel/a-b.ko", "x", ""), module("updates/a_b.ko.xz", "y", "")],
            ""
        ),
        "read \"updates/a_b.ko.xz\": it has the same module name as kernel/a-b.ko: a_b; modprobe loads one of them only, so the stage that \
         makes this tree must remove the other"
    );
    let cycle = vec![
        module("a.ko", "a", "b"),
        module("b.ko", "b", "a"),
        module("c.ko", "c", "a"),
    ];
    assert_eq!(
        refused(cycle, ""),
        r#"read "a.ko": modules need each other in a circle, among a.ko, b.ko"#
    );
    assert_eq!(
        refused(Vec::new(), "kernel/a.ko\nkernel/b.k"),
        "read \"modules.order\": its last line does not end with a newline: the file is cut off"
    );
    let lists = |list: &str, modinfo: &[u8]| BuiltinModules::parse(list, modinfo).expect_err("refused").to_string();
    assert_eq!(lists("", b""), "read \"modules.builtin\": it is empty");
    assert_eq!(lists("a.ko\n\nb.ko\n", b""), "read \"modules.builtin\": line 2 is \"\"");
    for entry in ["noname", "a.nokey", "\u{e4}"] {
        let error = lists("a.ko\n", format!("a.license=GPL\0{entry}\0").as_bytes());
        assert!(
            error.starts_with("read \"modules.builtin.modinfo\": it has the entry "),
            "{error}"
        );
    }
    let odd = BuiltinModules::parse("a.ko\n", "a.alias=\u{e4}\0".as_bytes()).expect("parses");
    let error = indexes(&set(), &odd).expect_err("no ASCII").to_string();
    assert!(
        error.starts_with("read \"modules.builtin.alias.bin\": it cannot hold the key"),
        "{error}"
    );
}

fn chosen(wanted: &str) -> BTreeSet<String> {
    let set = set();
    let wanted = parse_wanted("list", wanted).expect("a list");
    Chooser::new(&set)
        .choose(&wanted)
        .into_iter()
        .map(str::to_owned)
        .collect()
}

#[test]
fn an_initramfs_gets_what_was_asked_for_and_what_belongs_to_it() {
    let all = |paths: &[&str]| paths.iter().map(|p| (*p).to_owned()).collect::<BTreeSet<_>>();
    let (base, late, lib) = ("kernel/a/base-core.ko", "extra/late.ko.xz", "kernel/lib/lib.ko.xz");
    let (mid, top, two) = ("kernel/a/mid.ko.xz", "kernel/b/top.ko.zst", "kernel/b/top-two.ko");
    let (other, user, alone) = ("updates/other-one.ko", "kernel/b/user.ko.xz", "kernel/z/alone.ko");
    // By either spelling of its name; what is not there is passed over.
    assert_eq!(chosen("base_core missing # alone"), all(&[base]));
    assert_eq!(chosen("base-core\n\n  alone"), all(&[base, alone, late]));
    // With what it needs, and its first softdep only.
    assert_eq!(chosen("mid"), all(&[base, mid, late, lib]));
    // A weak dependency, which needs something itself.
    assert_eq!(chosen("top"), all(&[top, mid, base, late, lib, other]));
    // An alias that two have, and one with wildcards, which a third has in general.
    assert_eq!(chosen("base-alias"), all(&[top, mid, base, late, lib, other]));
    assert_eq!(
        chosen("pci:v00008086d00009999sv1sd2bc3sc4i5"),
        all(&[base, user, lib, late, two, mid])
    );
    assert_eq!(chosen("usb:v7p-x"), all(&[mid, base, late, lib]));
    assert_eq!(chosen("usb:vxp-x"), all(&[]));
    // Directories of kernel, extra and updates.
    assert_eq!(chosen("=z"), all(&[alone, late]));
    assert_eq!(chosen("=lib =nowhere"), all(&[lib]));
    assert_eq!(chosen("=b"), all(&[top, two, user, mid, base, late, lib, other]));
    for (bad, told) in [
        ("# nothing\n", "it names no module"),
        ("a = b", "a \"=\" has no directory"),
    ] {
        let error = parse_wanted("list", bad).expect_err(bad).to_string();
        assert!(error.starts_with("read \"list\": ") && error.contains(told), "{error}");
    }
}
