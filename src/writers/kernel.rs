//! `kernel`: the parts of a kernel's package that later stages need, and the indexes of its modules.
//!
//! Inputs: the tree `kernel`; `omitted/omitted-modules`, the list of the modules that no artifact carries; and, with the option `graphics`,
//! settings of dracut whose drivers are carried all the same. Outputs: `vmlinuz`; `version`;
//! the tree `indexes` with the files that depmod would write below `usr/lib/modules/<version>` for the other modules; and `module-facts` of
//! these, so that later stages need not read them again. The modules themselves stay in the package's tree.

use super::{
    Context, WriterError, build, command_line::DRIVERS, input, tree_input, unpack::in_parallel, workspace::is_there,
};
use crate::{
    image::kmod::{
        BuiltinModules, Chooser, DracutSettings, ModuleFacts, ModuleReader, ModuleSet, indexes, is_module,
        parse_wanted, wanted_modules, write_facts,
    },
    model::{Node, RelPath, Tree, refuse_kernel},
};
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The list of the modules that are left out, below the inputs, and dracut's settings with those that are carried all the same.
const OMITTED: &str = "omitted/omitted-modules";
const GRAPHICS: &str = "graphics/powernode-amd64-graphics.conf";
/// Directory of the modules in the package.
pub(super) const MODULES: &str = "usr/lib/modules";

pub(super) fn kernel(context: &Context) -> Result<(), WriterError> {
    let package = tree_input("kernel")?.tree;
    let version = version_of(&package)?;
    refuse_kernel(&version).map_err(WriterError::Missing)?;
    let place = input("kernel").join(MODULES).join(&version);
    let paths = module_paths(&package, &version);
    if paths.is_empty() {
        return Err(WriterError::Missing(format!("find a module in {place:?}")));
    }
    let files: Vec<PathBuf> = paths.iter().map(|p| place.join(p)).collect();
    // A reader is used again for the next module, because it keeps its decompression buffer.
    let readers = Mutex::new(Vec::new());
    let facts = in_parallel(&files, context.threads, |index| {
        let content = fs::read(&files[index]).map_err(WriterError::io("read", &files[index]))?;
        let mut reader: ModuleReader = lock(&readers).pop().unwrap_or_default();
        let facts = reader.read(&paths[index], &content, context.arch);
        lock(&readers).push(reader);
        Ok(facts?)
    })?;
    let set = kept(facts, &list(&place, "modules.order")?)?;
    let out = build("indexes").join(MODULES).join(&version);
    write_indexes(&set, &builtin(&place)?, &out)?;
    let whole: usize = lock(&readers).iter().map(ModuleReader::whole).sum();
    let (count, kept) = (paths.len(), set.facts().count());
    let _ = writeln!(
        io::stdout(),
        "kernel {version}: {kept} of {count} modules, {whole} unpacked to the end"
    );
    for (name, content) in [("module-facts", write_facts(&set)), ("version", format!("{version}\n"))] {
        let path = build(name);
        fs::write(&path, content).map_err(WriterError::io("write", &path))?;
    }
    let (from, to) = (
        input("kernel").join("boot").join(format!("vmlinuz-{version}")),
        build("vmlinuz"),
    );
    fs::copy(&from, &to).map_err(WriterError::io("copy", &from))?;
    Ok(())
}

/// The modules of a package without those that the project leaves out.
fn kept(facts: Vec<ModuleFacts>, order: &str) -> Result<ModuleSet, WriterError> {
    let path = input(OMITTED);
    let text = fs::read_to_string(&path).map_err(WriterError::io("read", &path))?;
    let omitted = parse_wanted(&path.to_string_lossy(), &text)?;
    let all = ModuleSet::new(facts, order)?;
    let chooser = Chooser::new(&all);
    let mut kept = chooser.without(&omitted);
    let graphics = input(GRAPHICS);
    if is_there(&graphics)? {
        let mut settings = DracutSettings::default();
        let text = fs::read_to_string(&graphics).map_err(WriterError::io("read", &graphics))?;
        settings.read(GRAPHICS, &text)?;
        let drivers = wanted_modules(DRIVERS, settings.words(DRIVERS))?;
        kept.extend(chooser.choose(&drivers));
    }
    let facts = all
        .facts()
        .filter(|facts| kept.contains(&*facts.path))
        .cloned()
        .collect();
    Ok(ModuleSet::new(facts, order)?)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The version of the kernel: the package must have modules of exactly one.
pub(super) fn version_of(package: &Tree) -> Result<String, WriterError> {
    let failed = |found: Vec<String>| {
        let (count, names) = (found.len(), found.join(", "));
        WriterError::Missing(format!(
            "find the kernel's version: {MODULES} must have exactly one directory, but has {count} ({names})"
        ))
    };
    let place = RelPath::new(MODULES).map_err(|source| WriterError::Merge {
        what: "the modules".to_owned(),
        source,
    })?;
    let within = package.iter().filter(|(path, entry)| {
        path.is_within(&place) && path.depth() == place.depth() + 1 && entry.node == Node::Directory
    });
    let versions: Vec<String> = within
        .map(|(p, _)| String::from_utf8_lossy(p.name()).into_owned())
        .collect();
    match <[String; 1]>::try_from(versions) {
        Ok([version]) => Ok(version),
        Err(found) => Err(failed(found)),
    }
}

/// Paths of the modules, relative to the directory of their version.
pub(super) fn module_paths(package: &Tree, version: &str) -> Vec<String> {
    let place = format!("{MODULES}/{version}/");
    let files = package
        .iter()
        .filter(|(_, entry)| matches!(entry.node, Node::File { .. }));
    let paths = files.filter_map(|(path, _)| Some(path.to_string().strip_prefix(&place)?.to_owned()));
    paths.filter(|p| is_module(p)).collect()
}

/// A list beside the modules.
pub(super) fn list(place: &Path, name: &str) -> Result<String, WriterError> {
    let path = place.join(name);
    fs::read_to_string(&path).map_err(WriterError::io("read", &path))
}

/// The built-in modules, from the lists beside the modules.
pub(super) fn builtin(place: &Path) -> Result<BuiltinModules, WriterError> {
    let modinfo = place.join("modules.builtin.modinfo");
    let modinfo = fs::read(&modinfo).map_err(WriterError::io("read", &modinfo))?;
    Ok(BuiltinModules::parse(&list(place, "modules.builtin")?, &modinfo)?)
}

/// Writes the indexes into the new directory `dir`.
pub(super) fn write_indexes(set: &ModuleSet, builtin: &BuiltinModules, dir: &Path) -> Result<(), WriterError> {
    fs::create_dir_all(dir).map_err(WriterError::io("create", dir))?;
    for (name, content) in indexes(set, builtin)? {
        let path = dir.join(name);
        fs::write(&path, content).map_err(WriterError::io("write", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Entry, Epoch, Meta};

    fn package(paths: &[(&str, bool)]) -> Tree {
        let epoch = Epoch::new(0);
        let mut tree = Tree::new(Meta::root(0o755, epoch));
        for (path, directory) in paths {
            let path = RelPath::new(*path).expect("a path");
            tree.make_parents(&path, epoch).expect("room");
            let node = if *directory {
                Node::Directory
            } else {
                Node::File {
                    size: 0,
                    digest: crate::verity::digest_bytes(b""),
                }
            };
            let meta = Meta::root(0o755, epoch);
            tree.insert(path, Entry { meta, node }).expect("room");
        }
        tree
    }

    #[test]
    fn a_package_has_modules_of_one_version() {
        let one = package(&[
            ("boot/vmlinuz-1", false),
            ("usr/lib/modules/1/kernel/a/x.ko.xz", false),
            ("usr/lib/modules/1/kernel/a/x.ko.xz.sig", false),
            ("usr/lib/modules/1/kernel/y.ko", true),
            ("usr/lib/modules/1/modules.order", false),
            ("usr/lib/modules/1/updates/z.ko", false),
        ]);
        assert_eq!(version_of(&one).expect("one"), "1");
        assert_eq!(module_paths(&one, "1"), ["kernel/a/x.ko.xz", "updates/z.ko"]);
        let two = package(&[("usr/lib/modules/1", true), ("usr/lib/modules/2", true)]);
        for (tree, found) in [(two, "2 (1, 2)"), (package(&[("usr/lib/modules/file", false)]), "0 ()")] {
            let error = version_of(&tree).expect_err("not one").to_string();
            assert!(
                error.ends_with(&format!("exactly one directory, but has {found}")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_list_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["modules.builtin.modinfo", "modules.builtin"] {
            let error = builtin(dir.path()).expect_err("not there").to_string();
            assert_eq!(error, format!("read {:?}", dir.path().join(name)));
            fs::write(dir.path().join(name), "kernel/a.ko\n").expect("written");
        }
        let error = builtin(dir.path()).expect_err("modinfo is no modinfo").to_string();
        assert!(
            error.starts_with("read \"modules.builtin.modinfo\": it has the entry"),
            "{error}"
        );
        assert!(list(dir.path(), "modules.order").is_err());
    }
}
