//! `efi-image`: the FAT image from which UEFI starts optical media; and the files it shares with the EFI system partition of a disk.

use super::{Context, WriterError, build, command_line, input, tree_input, workspace::is_there};
use crate::{
    image::{
        ImageError,
        fat::{self, FatItem, FatKind, FatLayout, FatVolume, VolumeSize},
    },
    model::{Arch, Node, RelPath, SectorSize, VerityDigest},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Label of the image, which differs from the label of a disk's boot partition because it never holds an identity.
const LABEL: &str = "PNEFI";
/// GRUB's menu: its path on the volume. It is also an output.
const MENU: &str = "EFI/debian/grub.cfg";
/// Placeholders that a menu may contain.
const COMMAND_LINE: &str = "@COMMAND_LINE@";
const RECOVERY: &str = "@RECOVERY_COMMAND_LINE@";
/// What a line begins with that only a menu with a recovery has, and one that only a menu without it has.
const WITH_RECOVERY: &str = "@WITH_RECOVERY@ ";
const WITHOUT_RECOVERY: &str = "@WITHOUT_RECOVERY@ ";
const ROOT_DIGEST: &str = "@ROOT_DIGEST@";
const SERVER: &str = "@SERVER@";
const CA_WORD: &str = "@CA_PEM_FILE@";
/// The input with the template of identity.cfg, and the input with the address and the certificate authority of the platform.
const IDENTITY: &str = "identity";
const PLATFORM: &str = "platform";
const PLATFORM_URL: &str = "url";
const PLATFORM_CA: &str = "ca.pem";
/// Name of the certificate beside identity.cfg, as the platform's contract requires it.
const CA_FILE: &str = "powernode-ca.pem";
/// The kernel parameters with which 90powernode boots the root, and with which it starts the recovery.
const BOOT: &str = "powernode.boot=1";
const NO_BOOT: &str = "powernode.boot=0";

/// The files of a FAT volume: path on the volume, path of the content.
pub(super) type Files = BTreeMap<RelPath, PathBuf>;

pub(super) fn efi_image(context: &Context) -> Result<(), WriterError> {
    let root = root_digest()?;
    let menus = build("menu");
    let mut files = loaders(context.arch)?;
    files.extend(overlay(context, &root, &[], &menus)?);
    let volume = FatVolume {
        kind: FatKind::Fat16,
        sector_size: SectorSize::Bytes512,
        label: LABEL.to_owned(),
        serial: fat::serial("efi image", &root),
        epoch: context.epoch,
        hidden_sectors: 0,
        size: VolumeSize::Content { spare: 0 },
    };
    let layout = lay_out(&volume, &files)?;
    let path = build("efi.img");
    let mut out = File::create_new(&path).map_err(WriterError::io("create", &path))?;
    out.set_len(layout.size()).map_err(WriterError::io("write", &path))?;
    fat::write(&layout, 0, &opener(&files), &mut out)?;
    let menu = files.get(&rel(MENU)?);
    let menu =
        menu.ok_or_else(|| WriterError::Missing(format!("make the EFI image: the input \"esp\" has no {MENU}")))?;
    let to = build("grub.cfg");
    fs::copy(menu, &to).map_err(WriterError::io("copy", menu))?;
    fs::remove_dir_all(&menus).map_err(WriterError::io("remove", &menus))
}

/// The digest of the root, from which all identifiers on a medium are derived.
pub(super) fn root_digest() -> Result<VerityDigest, WriterError> {
    let path = input("root-digest");
    let text = fs::read_to_string(&path).map_err(WriterError::io("read", &path))?;
    text.trim_end().parse().map_err(|source| WriterError::Input {
        path,
        source: Box::new(source),
    })
}

pub(super) fn rel(text: &str) -> Result<RelPath, WriterError> {
    RelPath::new(text).map_err(|e| WriterError::Missing(e.to_string()))
}

/// shim, GRUB and the key manager from the packages in the input `loaders`, at the paths where firmware and shim look for them.
pub(super) fn loaders(arch: Arch) -> Result<Files, WriterError> {
    let (suffix, upper, grub) = match arch {
        Arch::Amd64 => ("x64", "X64", "x86_64-efi-signed"),
        Arch::Arm64 => ("aa64", "AA64", "arm64-efi-signed"),
    };
    let mut files = Files::new();
    for (package, from, to) in [
        (
            "shim-signed",
            format!("shim/shim{suffix}.efi.signed"),
            format!("BOOT{upper}.EFI"),
        ),
        (
            "shim-helpers-*-signed",
            format!("shim/mm{suffix}.efi.signed"),
            format!("mm{suffix}.efi"),
        ),
        (
            "grub-efi-*-signed",
            format!("grub/{grub}/grub{suffix}.efi.signed"),
            format!("grub{suffix}.efi"),
        ),
    ] {
        let path = input("loaders/usr/lib").join(&from);
        if !fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() > 0) {
            return Err(WriterError::Missing(format!(
                "find the boot loader: the package {package} has no /usr/lib/{from}"
            )));
        }
        files.insert(rel(&format!("EFI/BOOT/{to}"))?, path);
    }
    Ok(files)
}

/// The files of the inputs `esp` and `identity` with their placeholders filled in, those of `more` too, and the certificate of the
/// platform. Files with filled placeholders are written below the new directory `scratch`.
pub(super) fn overlay(
    context: &Context,
    root: &VerityDigest,
    more: &[(&str, String)],
    scratch: &Path,
) -> Result<Files, WriterError> {
    let words = command_line::of_inputs(&input(""), context.arch)?;
    check_command_line(&words).map_err(|problem| WriterError::Missing(format!("write the boot menu: {problem}")))?;
    let mut filled = vec![
        (RECOVERY, words.replace(BOOT, NO_BOOT)),
        (COMMAND_LINE, words),
        (ROOT_DIGEST, root.to_string()),
    ];
    filled.extend_from_slice(more);
    let mut files = Files::new();
    if is_there(&input(IDENTITY))? {
        let url = input(PLATFORM).join(PLATFORM_URL);
        let url = if is_there(&url)? {
            fs::read_to_string(&url).map_err(WriterError::io("read", &url))?
        } else {
            String::new()
        };
        filled.push((SERVER, url));
        let ca = input(PLATFORM).join(PLATFORM_CA);
        let name = if is_there(&ca)? { CA_FILE } else { "" };
        filled.push((CA_WORD, name.to_owned()));
        if is_there(&ca)? {
            files.insert(rel(CA_FILE)?, ca);
        }
    }
    fs::create_dir(scratch).map_err(WriterError::io("create", scratch))?;
    let recovery = is_there(&input("recovery/recovery"))?;
    for name in ["esp", IDENTITY] {
        if is_there(&input(name))? {
            fill(name, &filled, recovery, scratch, &mut files)?;
        }
    }
    Ok(files)
}

/// Adds the files of the tree `name` to `files`, with their placeholders filled in.
fn fill(
    name: &str,
    words: &[(&str, String)],
    recovery: bool,
    scratch: &Path,
    files: &mut Files,
) -> Result<(), WriterError> {
    let tree = tree_input(name)?;
    for (number, (place, entry)) in tree.tree.iter().enumerate() {
        if let Node::Directory = entry.node {
            continue;
        }
        let from = input(name).join(place.as_path());
        let text = fs::read_to_string(&from).map_err(WriterError::io("read", &from))?;
        let mut text = lines_for(&text, recovery);
        for (word, value) in words {
            text = text.replace(word, value);
        }
        let to = scratch.join(format!("{name}-{number}"));
        fs::write(&to, text).map_err(WriterError::io("write", &to))?;
        files.insert(place.clone(), to);
    }
    Ok(())
}

/// The lines of a file for an image with or without a recovery.
fn lines_for(text: &str, recovery: bool) -> String {
    let (kept, dropped) = match recovery {
        true => (WITH_RECOVERY, WITHOUT_RECOVERY),
        false => (WITHOUT_RECOVERY, WITH_RECOVERY),
    };
    let lines = text.split_inclusive('\n').filter(|line| !line.starts_with(dropped));
    lines.map(|line| line.strip_prefix(kept).unwrap_or(line)).collect()
}

/// Refuses a command line with characters that a menu of GRUB may read as syntax, or without the word that asks for a boot.
fn check_command_line(line: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "=,._/: -".contains(c);
    if let Some(odd) = line.chars().find(|c| !plain(*c)) {
        return Err(format!(
            "the kernel command line has {odd:?}, which GRUB may read as syntax"
        ));
    }
    if !line.split(' ').any(|word| word == BOOT) {
        return Err(format!("the kernel command line has no {BOOT}"));
    }
    Ok(())
}

pub(super) fn lay_out(volume: &FatVolume, files: &Files) -> Result<FatLayout, WriterError> {
    let mut items = BTreeMap::new();
    for (place, path) in files {
        let len = fs::metadata(path).map_err(WriterError::io("open", path))?.len();
        let size = u32::try_from(len).map_err(|_| ImageError::Entry {
            format: "a FAT volume",
            path: place.to_string(),
            problem: format!("{len} bytes are 4 GiB or more"),
        })?;
        items.insert(place.clone(), FatItem::File { size });
    }
    Ok(fat::plan(volume, &items)?)
}

/// A function that opens contents by their path on the volume.
pub(super) fn opener(files: &Files) -> impl Fn(&RelPath) -> io::Result<Box<dyn Read>> + '_ {
    |place| {
        let path = files.get(place).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(File::open(path)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_menu_has_the_lines_of_its_kind() {
        let text = "a\n@WITH_RECOVERY@ b\n@WITHOUT_RECOVERY@     c\nx @WITH_RECOVERY@ d";
        assert_eq!(lines_for(text, true), "a\nb\nx @WITH_RECOVERY@ d");
        assert_eq!(lines_for(text, false), "a\n    c\nx @WITH_RECOVERY@ d");
    }

    /// GRUB asks for a password that nobody has before it edits an entry or opens its own command line.
    #[test]
    fn the_menus_of_the_repository_are_locked_or_have_a_recovery() {
        let stages = Path::new(env!("CARGO_MANIFEST_DIR")).join("stages");
        for menu in [
            "raw/esp/EFI/debian/grub.cfg",
            "iso-efi/esp/EFI/debian/grub.cfg",
            "ipxe/files/grub.cfg",
        ] {
            let text = fs::read_to_string(stages.join(menu)).expect("readable");
            let locked = lines_for(&text, false);
            assert!(
                locked.lines().any(|line| line.starts_with("set superusers=")),
                "{menu}:\n{locked}"
            );
            for forbidden in ["\npassword", "ecovery", "boot=0", "RECOVERY", "submenu"] {
                assert!(!locked.contains(forbidden), "{menu}: {forbidden}:\n{locked}");
            }
            let open = lines_for(&text, true);
            assert!(
                !open.contains("superusers") && open.contains(RECOVERY),
                "{menu}:\n{open}"
            );
            for text in [locked, open] {
                let entries = text.lines().filter(|line| line.starts_with("menuentry "));
                for entry in entries {
                    assert!(entry.contains(" --unrestricted {"), "{menu}: {entry}");
                }
            }
        }
    }

    /// A script that fails goes on to the firmware.
    #[test]
    fn no_script_of_ipxe_opens_a_shell() {
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("stages/ipxe/files");
        for script in ["boot.ipxe", "autoexec.ipxe", "template.ipxe", "template.ipxe.erb"] {
            let text = fs::read_to_string(files.join(script)).expect("readable");
            assert!(text.trim_end().ends_with("exit 1"), "{script}");
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let mut words = lines.flat_map(|line| line.split_whitespace());
            let opens =
                words.find(|word| ["shell", "prompt", "menu", "choose", "login", "config", "read"].contains(word));
            assert_eq!(opens, None, "{script}");
        }
    }

    #[test]
    fn a_command_line_that_a_menu_would_read_otherwise_is_refused() {
        assert_eq!(check_command_line("powernode.boot=1 a=b,c:1"), Ok(()));
        for (text, why) in [
            ("powernode.boot=1 a=$b", "'$'"),
            ("powernode.boot=1 a=\"b\"", "'\"'"),
            ("powernode.boot=1 a;b", "';'"),
            ("powernode.boot=10", "no powernode.boot=1"),
        ] {
            let problem = check_command_line(text).expect_err(why);
            assert!(problem.contains(why), "{problem}");
        }
    }
}
