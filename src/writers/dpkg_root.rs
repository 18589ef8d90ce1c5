//! `dpkg-root`: prepares `/build/root` for the command of a stage that runs dpkg.
//!
//! Input: `packages`, with an index, and perhaps the tree `base`, on which they are installed. Every package is decompressed once, here, on all processors; dpkg would decompress it each time it
//! opens it. Results: the packages with uncompressed members in `root/debs`; and in `root` the files of the packages that maintainer
//! scripts may call before dpkg has unpacked any package, with owners and modes as packed. Their modification times are the current
//! time; the outputs of the stage get theirs later.

use super::{
    Context, TreeInput, WriterError, build, input, owned::lay_out_owned, tree_input, unpack, workspace::is_there,
};
use crate::debian::{
    ControlReader, DebError, EntryHeader, InstalledPackage, MetadataError, Paragraph, Relations, TarEntryKind,
    TarLimits, plain_deb, read_installed, unpack_data,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{self, BufReader, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, fchown, lchown, symlink},
    },
    path::{Path, PathBuf},
};

/// The database of dpkg in a root.
const DATABASE: &str = "var/lib/dpkg/status";
/// Directories that no script reads, with nearly half of all files.
const UNREAD: [&str; 3] = ["usr/share/doc", "usr/share/locale", "usr/share/man"];

pub(super) fn dpkg_root(context: &Context) -> Result<(), WriterError> {
    let (packages, root) = (input("packages"), build("root"));
    let installed = match is_there(&input("base.tree"))? {
        true => base(&packages.join("Packages"), &root)?,
        false => BTreeSet::new(),
    };
    lay_out(&packages, &installed, &root, context.threads)
}

/// Lays the base image out in `root`; returns the file names of the packages that are installed in it. Each of them must be a package of
/// the index, in the same version.
fn base(index: &Path, root: &Path) -> Result<BTreeSet<Vec<u8>>, WriterError> {
    let TreeInput { tree, contents } = tree_input("base")?;
    lay_out_owned(&tree, &contents, root)?;
    installed(index, &root.join(DATABASE))
}

/// The file names, in the index, of the packages that the database of dpkg lists.
fn installed(index: &Path, database: &Path) -> Result<BTreeSet<Vec<u8>>, WriterError> {
    let file = File::open(database).map_err(WriterError::io("open", database))?;
    let mut locked = BTreeMap::new();
    for_each(index, |paragraph| {
        let field = |name: &str| paragraph.get(name).unwrap_or_default().to_owned();
        let package = InstalledPackage {
            name: field("Package"),
            arch: field("Architecture"),
            version: field("Version"),
        };
        locked.insert(package, field("Filename").trim_start_matches("./").as_bytes().to_vec());
        Ok(())
    })?;
    let installed = read_installed(BufReader::new(file), DATABASE)?.into_iter();
    let installed = installed.map(|package| {
        locked.get(&package).cloned().ok_or_else(|| {
            let InstalledPackage { name, arch, version } = package;
            WriterError::Missing(format!(
                "install packages on the base image: it has {name} {version} ({arch}), which is not in the package set"
            ))
        })
    });
    installed.collect()
}

/// Prepares `root` for the packages that are not among `installed`, which are there already.
fn lay_out(packages: &Path, installed: &BTreeSet<Vec<u8>>, root: &Path, threads: u32) -> Result<(), WriterError> {
    let debs = unpack::packages(packages)?;
    let plain = root.join("debs");
    fs::create_dir_all(&plain).map_err(WriterError::io("create", &plain))?;
    let place = |deb: &Path| plain.join(deb.file_name().unwrap_or_default());
    let name = |deb: &&PathBuf| deb.file_name().unwrap_or_default().as_bytes().to_vec();
    let there: BTreeSet<Vec<u8>> = debs.iter().map(|deb| name(&deb)).collect();
    let debs: Vec<PathBuf> = debs
        .into_iter()
        .filter(|deb| !installed.contains(&name(&deb)))
        .collect();
    unpack::in_parallel(&debs, threads, |index| decompress(&debs[index], &place(&debs[index])))?;
    let index = packages.join("Packages");
    let needed = needed_first(&index)?;
    if let Some(missing) = needed.difference(&there).next() {
        let missing = String::from_utf8_lossy(missing);
        let problem = format!("find {missing:?}, which {index:?} names, in {packages:?}");
        return Err(WriterError::Missing(problem));
    }
    let first: Vec<&PathBuf> = debs.iter().filter(|deb| needed.contains(&name(deb))).collect();
    // One package after the other, so that of two files with the same path always the later one stays.
    for deb in &first {
        extract(&place(deb), root)?;
    }
    let (all, early) = (debs.len(), first.len());
    let _ = writeln!(io::stdout(), "{all} packages decompressed, {early} of them extracted");
    Ok(())
}

/// A package in the index.
struct Indexed {
    file: Vec<u8>,
    essential: bool,
    pre_depends: Relations,
    depends: Relations,
}

/// The file names of the packages that a script may rely on before any package is unpacked: essential packages, the `Pre-Depends` of
/// every package, and the dependencies of those. All alternatives and all providers of a name are included.
/// Source: Debian Policy 6.5 and 7.2.
fn needed_first(index: &Path) -> Result<BTreeSet<Vec<u8>>, WriterError> {
    let mut packages = Vec::new();
    let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for_each(index, |paragraph| {
        let field = |name: &str| paragraph.get(name).unwrap_or_default();
        let relations = |name: &str| {
            Relations::parse(field(name)).map_err(|problem| MetadataError::Package {
                file: index.display().to_string(),
                line: paragraph.line_of(name),
                package: field("Package").to_owned(),
                problem: format!("field {name}: {problem}"),
            })
        };
        let provides = relations("Provides")?;
        for name in std::iter::once(field("Package")).chain(provides.iter().map(|provided| provided.name)) {
            by_name.entry(name.to_owned()).or_default().push(packages.len());
        }
        packages.push(Indexed {
            file: field("Filename").trim_start_matches("./").into(),
            essential: field("Essential") == "yes",
            pre_depends: relations("Pre-Depends")?,
            depends: relations("Depends")?,
        });
        Ok(())
    })?;
    let named = |relations: &Relations| -> Vec<usize> {
        let found = relations.iter().filter_map(|relation| by_name.get(relation.name));
        found.flatten().copied().collect()
    };
    let essential = (0..packages.len()).filter(|n| packages[*n].essential);
    let mut pending: Vec<usize> = essential
        .chain(packages.iter().flat_map(|p| named(&p.pre_depends)))
        .collect();
    let mut needed = BTreeSet::new();
    while let Some(n) = pending.pop() {
        if needed.insert(n) {
            pending.extend(named(&packages[n].depends));
        }
    }
    Ok(needed.into_iter().map(|n| packages[n].file.clone()).collect())
}

/// Calls `work` with each paragraph of the index.
fn for_each(index: &Path, mut work: impl FnMut(&Paragraph) -> Result<(), WriterError>) -> Result<(), WriterError> {
    let file = File::open(index).map_err(WriterError::io("open", index))?;
    let mut reader = ControlReader::new(BufReader::new(file), index.display().to_string());
    let mut paragraph = Paragraph::default();
    while reader.read(&mut paragraph)? {
        work(&paragraph)?;
    }
    Ok(())
}

fn decompress(deb: &Path, plain: &Path) -> Result<(), WriterError> {
    let name = deb.file_name().unwrap_or_default().to_string_lossy();
    let from = File::open(deb).map_err(WriterError::io("open", deb))?;
    let mut to = File::create_new(plain).map_err(WriterError::io("create", plain))?;
    Ok(plain_deb(from, &name, &TarLimits::default(), &mut to)?)
}

fn extract(deb: &Path, root: &Path) -> Result<(), WriterError> {
    let name = deb.file_name().unwrap_or_default().to_string_lossy();
    let file = File::open(deb).map_err(WriterError::io("open", deb))?;
    unpack_data(file, &name, &TarLimits::default(), &mut |path, header, content| {
        let Some(path) = path.filter(|path| !UNREAD.iter().any(|dir| path.as_path().starts_with(dir))) else {
            return Ok(());
        };
        place(root, &root.join(path.as_path()), &header, content).map_err(|source| DebError::Put {
            package: name.clone().into_owned(),
            entry: path.to_string(),
            source,
        })
    })?;
    Ok(())
}

/// Writes one entry. It replaces an existing entry at its path, unless both are directories.
fn place(root: &Path, path: &Path, header: &EntryHeader, content: &mut dyn Read) -> io::Result<()> {
    if let Some(parent) = path.parent()
        && !parent.is_dir()
    {
        fs::create_dir_all(parent)?;
    }
    let meta = &header.meta;
    let mode = Permissions::from_mode(meta.mode);
    match &header.kind {
        TarEntryKind::Directory => {
            match fs::create_dir(path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                result => result?,
            }
            // A link to a directory stays, as it does when dpkg unpacks: the target has its own owner and mode.
            if fs::symlink_metadata(path)?.is_dir() {
                lchown(path, Some(meta.uid), Some(meta.gid))?;
                fs::set_permissions(path, mode)?;
            }
            Ok(())
        }
        TarEntryKind::File => {
            make_room(path)?;
            let mut file = File::create_new(path)?;
            io::copy(content, &mut file)?;
            // The owner first, because a change of owner clears set-id bits.
            fchown(&file, Some(meta.uid), Some(meta.gid))?;
            file.set_permissions(mode)
        }
        TarEntryKind::Symlink(target) => {
            make_room(path)?;
            symlink(OsStr::from_bytes(target), path)?;
            lchown(path, Some(meta.uid), Some(meta.gid))
        }
        TarEntryKind::HardLink(target) => {
            let target = root.join(target.as_path());
            // A file of another package at this path must not stay: the link would fail.
            make_room(path)?;
            fs::hard_link(target, path)
        }
    }
}

fn make_room(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// A package with these entries: path, kind, mode, and content or target.
    fn deb(dir: &Path, name: &str, entries: &[(&str, tar::EntryType, u32, &str)]) {
        let mut archive = tar::Builder::new(Vec::new());
        let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
        for (path, kind, mode, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_uid(uid.as_raw().into());
            header.set_gid(gid.as_raw().into());
            header.set_mtime(1);
            if *kind == tar::EntryType::Regular {
                header.set_size(text.len() as u64);
                archive.append_data(&mut header, path, text.as_bytes()).expect("packed");
            } else {
                header.set_size(0);
                if !text.is_empty() {
                    header.set_link_name(text).expect("fits");
                }
                archive.append_data(&mut header, path, io::empty()).expect("packed");
            }
        }
        let data = archive.into_inner().expect("packed");
        let packed = zstd::encode_all(&data[..], 1).expect("packed");
        let mut out = b"!<arch>\n".to_vec();
        for (name, bytes) in [
            ("debian-binary", &b"2.0\n"[..]),
            ("control.tar.zst", &packed),
            ("data.tar.zst", &packed),
        ] {
            let length = bytes.len();
            out.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{length:<10}`\n", 0, 0, 0, 100_644).bytes());
            out.extend(bytes);
            out.resize(out.len().next_multiple_of(2), b'\n');
        }
        fs::write(dir.join(name), out).expect("written");
    }

    /// A package index: each name with its other fields; the file is `<name>_1_all.deb`.
    fn index(dir: &Path, packages: &[(&str, &str)]) -> PathBuf {
        let paragraphs = packages
            .iter()
            .map(|(name, more)| format!("Package: {name}\nVersion: 1\n{more}Filename: ./{name}_1_all.deb\n\n"));
        let path = dir.join("Packages");
        fs::write(&path, paragraphs.collect::<String>()).expect("written");
        path
    }

    #[test]
    fn what_scripts_count_on_is_what_is_essential_or_needed_beforehand_and_what_that_needs() {
        let scratch = tempfile::tempdir().expect("a directory");
        let path = index(
            scratch.path(),
            &[
                ("base", "Essential: yes\nDepends: library (>= 2), awk\n"),
                ("library", "Depends: deep | elsewhere\n"),
                ("deep", ""),
                ("mawk", "Provides: awk\n"),
                ("gawk", "Provides: awk (= 1)\n"),
                ("service", "Pre-Depends: init-helpers\nDepends: daemon\n"),
                ("init-helpers", "Depends: base\n"),
                ("daemon", "Essential: no\n"),
            ],
        );
        let needed = needed_first(&path).expect("read");
        let names: Vec<String> = needed
            .iter()
            .map(|file| String::from_utf8_lossy(file).replace("_1_all.deb", ""))
            .collect();
        assert_eq!(names, ["base", "deep", "gawk", "init-helpers", "library", "mawk"]);
        let path = index(scratch.path(), &[("base", "Depends: (>= 2)\n")]);
        let error = needed_first(&path).expect_err("no relation").to_string();
        assert!(
            error.contains("line 3: package \"base\": field Depends: relation"),
            "{error}"
        );
    }

    #[test]
    fn what_a_base_image_has_is_not_installed_again_and_must_be_in_the_package_set() {
        use tar::EntryType::Regular;
        let scratch = tempfile::tempdir().expect("a directory");
        let packages = scratch.path().join("packages");
        fs::create_dir(&packages).expect("made");
        for name in ["base", "late"] {
            let path = format!("etc/{name}");
            deb(&packages, &format!("{name}_1_all.deb"), &[(&path, Regular, 0o644, "x")]);
        }
        let fields = "Essential: yes\nArchitecture: all\n";
        let list = index(&packages, &[("base", fields), ("late", fields)]);
        let database = scratch.path().join("status");
        let status = |name: &str, version: &str| {
            let text =
                format!("Package: {name}\nStatus: install ok installed\nArchitecture: all\nVersion: {version}\n");
            fs::write(&database, text).expect("written");
            installed(&list, &database)
        };
        let there = status("base", "1").expect("in the set");
        assert_eq!(there, [b"base_1_all.deb".to_vec()].into());
        let root = scratch.path().join("root");
        lay_out(&packages, &there, &root, 1).expect("laid out");
        assert!(!root.join("debs/base_1_all.deb").exists() && root.join("debs/late_1_all.deb").exists());
        assert!(!root.join("etc/base").exists() && root.join("etc/late").exists());
        for (name, version) in [("base", "2"), ("apt", "1")] {
            let error = status(name, version).expect_err("not in the set").to_string();
            assert_eq!(
                error,
                format!(
                    "install packages on the base image: it has {name} {version} (all), which is not in the package set"
                )
            );
        }
    }

    #[test]
    fn files_lie_as_packed_beside_packages_that_dpkg_need_not_decompress() {
        use tar::EntryType::{Directory, Link, Regular, Symlink};
        // As every writer is run; a login of Debian has 002.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(super::super::table::UMASK));
        let scratch = tempfile::tempdir().expect("a directory");
        let (packages, root) = (scratch.path().join("packages"), scratch.path().join("root"));
        fs::create_dir(&packages).expect("made");
        deb(
            &packages,
            "a_1_all.deb",
            &[
                ("usr/", Directory, 0o755, ""),
                ("usr/bin/", Directory, 0o2751, ""),
                ("usr/bin/su", Regular, 0o4755, "old"),
                ("usr/bin/same", Link, 0o4755, "usr/bin/su"),
                ("bin", Symlink, 0o777, "usr/bin"),
                ("usr/share/man/man1/su.1", Regular, 0o644, "read by people"),
            ],
        );
        deb(
            &packages,
            "b_1_all.deb",
            &[
                ("bin/", Directory, 0o700, ""),
                ("bin/su", Regular, 0o2711, "new"),
                ("etc/deep/file", Regular, 0o600, "x"),
            ],
        );
        deb(&packages, "late_1_all.deb", &[("etc/late", Regular, 0o644, "y")]);
        let essential = "Essential: yes\n";
        index(&packages, &[("a", essential), ("b", essential), ("late", "")]);
        lay_out(&packages, &BTreeSet::new(), &root, 2).expect("laid out");
        assert!(!root.join("etc/late").exists(), "dpkg will unpack it");
        assert!(!root.join("usr/share").exists(), "no script reads it");
        let mode = |path: &str| fs::symlink_metadata(root.join(path)).expect("there").mode();
        let text = |path: &str| fs::read_to_string(root.join(path)).expect("there");
        assert_eq!(mode("bin"), 0o120_777, "the link stays");
        assert_eq!(
            mode("usr/bin"),
            0o042_751,
            "and what it leads to is as its package has it"
        );
        assert_eq!((mode("usr/bin/su"), text("usr/bin/su")), (0o102_711, "new".to_owned()));
        assert_eq!(
            (mode("usr/bin/same"), text("usr/bin/same")),
            (0o104_755, "old".to_owned())
        );
        assert_eq!((mode("etc/deep"), mode("etc/deep/file")), (0o040_755, 0o100_600));
        for name in ["a_1_all.deb", "b_1_all.deb", "late_1_all.deb"] {
            let plain = fs::read(root.join("debs").join(name)).expect("there");
            let members: Vec<_> = [8, 72].map(|at| plain[at..at + 16].trim_ascii().to_vec()).into();
            assert_eq!(members, [&b"debian-binary"[..], b"control.tar"], "{name}");
        }
        let error = lay_out(&packages, &BTreeSet::new(), &root, 2).expect_err("nothing may be there before");
        assert!(error.to_string().starts_with("create"), "{error}");
        index(&packages, &[("a", essential), ("gone", essential)]);
        let error =
            lay_out(&packages, &BTreeSet::new(), &scratch.path().join("other"), 2).expect_err("a package is missing");
        assert!(
            error.to_string().starts_with("find \"gone_1_all.deb\", which"),
            "{error}"
        );
    }
}
