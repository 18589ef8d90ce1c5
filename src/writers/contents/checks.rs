//! The check of an initramfs, of a root and of an agent.

#[cfg(test)]
mod tests;

use super::{
    linked, modules,
    problem::Problem,
    recognise::look,
    requirements,
    view::{ContentsByDigest, FileContent, View},
};
use crate::{
    image::{
        cpio::{CpioEntry, read_tree},
        elf::{ElfKind, ElfMachine},
    },
    model::{Arch, Node, RelPath, Tree, VerityDigest},
    verity::digest_bytes,
    writers::{TreeInput, WriterError, input, tree_input},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
};

/// Path of the agent in the root.
const AGENT: &str = "usr/sbin/powernode-agent";
/// Longest file of an initramfs, bytes: each file is read whole, for its digest.
const MAX_FILE: u64 = 256 << 20;
/// Shortest ELF file, bytes: its header in the 32-bit format.
const LEAST_ELF: u64 = 52;
/// Number of problems that are listed: a failed stage shows the last 30 lines of its log.
const SHOWN: usize = 20;

/// Refuses the uncompressed archive at `archive` unless its programs, libraries and modules can work on `arch`, it has every file that
/// the list in the input directory `contents` requires, and it has every module that its modules need according to the indexes of the
/// kernel in the input tree `indexes`.
pub(in crate::writers) fn check_initramfs(arch: Arch, archive: &Path) -> Result<(), WriterError> {
    let list = input("contents").join("contents.toml");
    let wanted = requirements::load_wanted(&list, arch)?;
    let (tree, contents) = read_archive(archive)?;
    let whole = kernel_of(&tree_input("indexes")?)?;
    let view = View {
        tree: &tree,
        contents: &contents,
    };
    let mut problems = requirements::missing(view, &wanted);
    problems.extend(modules::missing_drivers(view, &whole.version, &wanted.drivers));
    problems.extend(modules::check(view, arch, Some(&whole), true));
    problems.extend(linked::check(view, arch));
    verdict(view, &format!("the archive that dracut made for {arch}"), &problems)
}

/// Refuses a root unless its programs and libraries can work on `arch` and it has all kernel modules and the interpreter of the agent.
/// `files` has the paths of the contents.
pub(in crate::writers) fn check_root(
    arch: Arch,
    tree: &Tree,
    files: &BTreeMap<VerityDigest, PathBuf>,
) -> Result<(), WriterError> {
    let contents = read_tree_files(tree, files)?;
    let view = View {
        tree,
        contents: &contents,
    };
    let mut problems = linked::check(view, arch);
    problems.extend(modules::check(view, arch, None, false));
    let agent = RelPath::new(AGENT).map_err(|e| WriterError::Missing(e.to_string()))?;
    problems.extend(linked::check_script(view, &agent));
    verdict(view, &format!("the root for {arch}"), &problems)
}

/// Refuses an agent that is neither a static program for `arch` nor a script. The interpreter of a script is checked with the root.
pub(in crate::writers) fn check_agent(arch: Arch, agent: &Path) -> Result<(), WriterError> {
    let refused = |problem: String| Err(WriterError::Missing(format!("install the agent: {problem}")));
    let file = File::open(agent).map_err(WriterError::io("open", agent))?;
    let place = RelPath::new(AGENT).map_err(|e| WriterError::Missing(e.to_string()))?;
    let elf = match look(&place, &file, false).map_err(WriterError::io("read", agent))? {
        Some(FileContent::Script(_)) => return Ok(()),
        Some(FileContent::Elf(elf)) => elf,
        Some(FileContent::Broken(problem)) => return refused(format!("failed to {problem}")),
        _ => {
            return refused(
                "it is neither an ELF program nor a script that begins with #! and an absolute path".to_owned(),
            );
        }
    };
    let target = ElfMachine::of(arch);
    if elf.machine != target {
        return refused(format!("it is for {}, the target is {target}", elf.machine));
    }
    if !matches!(elf.kind, ElfKind::Executable | ElfKind::Shared) {
        return refused("it is an ELF file, but not a program".to_owned());
    }
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    if let Some(interpreter) = &elf.interpreter {
        return refused(format!(
            "it is a dynamic program that needs {}; an agent must be a static program, which any root can start",
            text(interpreter)
        ));
    }
    if let Some(library) = elf.needed.first() {
        return refused(format!(
            "it needs the library {}; an agent must be a static program",
            text(library)
        ));
    }
    Ok(())
}

/// The tree of an archive, and its recognised files.
fn read_archive(archive: &Path) -> Result<(Tree, ContentsByDigest), WriterError> {
    let file = File::open(archive).map_err(WriterError::io("open", archive))?;
    let mut contents = ContentsByDigest::new();
    let mut bytes = Vec::new();
    let mut keep = |entry: &CpioEntry, reader: &mut dyn Read| -> io::Result<(VerityDigest, u64)> {
        if u64::from(entry.size) > MAX_FILE {
            return Err(io::Error::other(format!("it has more than {MAX_FILE} bytes")));
        }
        bytes.clear();
        reader.read_to_end(&mut bytes)?;
        let digest = digest_bytes(&bytes);
        if let Some(path) = &entry.path
            && let Some(content) = look(path, &bytes, true)?
        {
            contents.insert(digest, content);
        }
        Ok((digest, bytes.len() as u64))
    };
    let tree = read_tree(file, &mut keep)?;
    Ok((tree, contents))
}

/// The recognised files of a tree whose contents lie at the paths in `files`.
pub(super) fn read_tree_files(
    tree: &Tree,
    files: &BTreeMap<VerityDigest, PathBuf>,
) -> Result<ContentsByDigest, WriterError> {
    let mut contents = ContentsByDigest::new();
    for (path, entry) in tree.iter() {
        let Node::File { size, digest } = &entry.node else {
            continue;
        };
        let may_be_elf = *size >= LEAST_ELF && !modules::is_module(path);
        let matters = may_be_elf || modules::is_index(path) || path.as_bytes() == AGENT.as_bytes();
        if !matters || contents.contains_key(digest) {
            continue;
        }
        let place = files.get(digest);
        let place = place.ok_or_else(|| WriterError::Missing(format!("find the content of {path} in the inputs")))?;
        let file = File::open(place).map_err(WriterError::io("open", place))?;
        if let Some(content) = look(path, &file, false).map_err(WriterError::io("read", place))? {
            contents.insert(*digest, content);
        }
    }
    Ok(contents)
}

/// The kernel whose indexes are in a tree input.
fn kernel_of(indexes: &TreeInput) -> Result<modules::KernelModules, WriterError> {
    let contents = read_tree_files(&indexes.tree, &indexes.contents)?;
    let view = View {
        tree: &indexes.tree,
        contents: &contents,
    };
    modules::kernel(view).map_err(|problem| refusal("the indexes of the kernel", &[problem]))
}

/// Refuses a tree with problems; of a good tree it prints the number of files that were checked.
fn verdict(view: View<'_>, what: &str, problems: &[Problem]) -> Result<(), WriterError> {
    if !problems.is_empty() {
        return Err(refusal(what, problems));
    }
    let modules = view.tree.iter().filter(|(path, _)| modules::is_module(path)).count();
    let programs = linked::elfs_of(view).count();
    let _ = writeln!(
        io::stdout(),
        "checked {programs} programs and libraries, {modules} kernel modules"
    );
    Ok(())
}

/// One line for each of the first problems, and the number of the others. Names come from outside, so control characters are escaped.
fn refusal(what: &str, problems: &[Problem]) -> WriterError {
    let plain = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    let lines = problems.iter().take(SHOWN);
    let mut lines: Vec<String> = lines.map(|p| p.to_string().chars().map(plain).collect()).collect();
    if problems.len() > SHOWN {
        lines.push(format!("and {} more", problems.len() - SHOWN));
    }
    WriterError::Contents {
        what: what.to_owned(),
        problems: lines.join("\n    "),
    }
}
