//! `pnb module`: modules of nodes, lists of them, and keys.

use super::{
    Exit,
    args::{AskedStage, Common, arch},
    closing::{Closing, count},
    context::{origins, project, run_options, store},
    failure::{Failure, Fatal},
    host::processors,
    report::{Report, size},
    selection::stage_node,
};
use clap::{Args, Subcommand};
use pnb::{
    model::{Arch, Epoch, Hint, RelPath, Tree, VerityDigest, visible_path},
    module::{
        ContentRules, MAX_KEY, MAX_LIST, ModuleError, ModuleList, ModulePublicKey, ModuleSecretKey, read_directory,
        verify_image, write_module,
    },
    pipeline::BuildContext,
    store::{Output, open_foreign, read_foreign},
};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Suffixes of the two halves of a key.
const SECRET: &str = "sec";
const PUBLIC: &str = "pub";
const LIST: &str = "modules.list";

/// Options of `pnb module`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  pnb module key fleet\n  pnb module build nginx --without usr/lib/systemd --out modules\n  \
    pnb module sign modules/modules.list --key fleet.sec\n  pnb module verify modules --key fleet.pub"
)]
pub(super) struct ModuleArgs {
    /// The step.
    #[command(subcommand)]
    pub(super) step: ModuleStep,
}

/// The steps.
#[derive(Subcommand, Debug)]
pub(super) enum ModuleStep {
    /// Make the image and the objects of a directory, or of the tree of a stage; print its line for a list
    Build(ModuleBuildArgs),
    /// Check an image with its objects, or a directory of images with their list
    Verify(ModuleVerifyArgs),
    /// Make a key: NAME.sec, with which lists are signed, and NAME.pub for the nodes
    Key(ModuleKeyArgs),
    /// Sign a list in place
    Sign(ModuleSignArgs),
}

/// Options of `pnb module build`.
#[derive(Args, Debug)]
pub(super) struct ModuleBuildArgs {
    /// A directory (a path with `/` in it, such as ./tree), or the name of a stage with an output `tree`
    pub(super) source: String,
    /// Name of the module in the printed line [default: the last component of SOURCE]
    #[arg(long)]
    pub(super) id: Option<String>,
    /// Effective priority in the printed line
    #[arg(long, default_value_t = 500)]
    pub(super) priority: u32,
    /// Directory for the image and the objects
    #[arg(long, value_name = "DIR", default_value = "modules")]
    pub(super) out: PathBuf,
    /// Path in the tree that is left out, with everything below it
    #[arg(long, value_name = "PATH")]
    pub(super) without: Vec<RelPath>,
    /// Take files with set-user-id and set-group-id bits
    #[arg(long)]
    pub(super) allow_setid: bool,
    /// Architecture that a stage is run for
    #[arg(long, default_value = "amd64", env = "ARCH", hide_env_values = true, value_name = "ARCH", value_parser = arch())]
    pub(super) arch: Arch,
}

/// Options of `pnb module verify`.
#[derive(Args, Debug)]
pub(super) struct ModuleVerifyArgs {
    /// An image <hex>.cfs, or a directory of images
    pub(super) path: PathBuf,
    /// Public key that the list in the directory must be signed with
    #[arg(long, value_name = "FILE")]
    pub(super) key: Option<PathBuf>,
}

/// Options of `pnb module key`.
#[derive(Args, Debug)]
pub(super) struct ModuleKeyArgs {
    /// Name of the files, without suffix; neither may exist
    pub(super) name: PathBuf,
}

/// Options of `pnb module sign`.
#[derive(Args, Debug)]
pub(super) struct ModuleSignArgs {
    /// The list; a signature that it has is replaced
    pub(super) list: PathBuf,
    /// The secret key
    #[arg(long, value_name = "FILE")]
    pub(super) key: PathBuf,
}

/// Why `pnb module` fails beside the reasons of the library.
#[derive(Debug, thiserror::Error)]
enum ModuleCommandError {
    #[error("make a module of the stage {node}: it has no output \"tree\"")]
    NoTree { node: String },
    #[error("verify {path:?}: {problem}")]
    List { path: PathBuf, problem: String },
    #[error("{verb} {path:?}")]
    File {
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Hint for ModuleCommandError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::NoTree { .. } => Some("a module is made of a stage whose stage.toml has an output named tree".into()),
            _ => None,
        }
    }
}

impl Fatal for ModuleCommandError {
    fn exit(&self) -> Exit {
        Exit::Failure
    }
}

impl Fatal for ModuleError {
    fn exit(&self) -> Exit {
        Exit::Failure
    }
}

fn file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ModuleCommandError {
    let path = path.to_owned();
    move |source| ModuleCommandError::File { verb, path, source }
}

pub(super) fn module(common: &Common, args: &ModuleArgs, report: &Report) -> Result<Exit, Failure> {
    match &args.step {
        ModuleStep::Build(args) => module_build(common, args, report),
        ModuleStep::Verify(args) => module_verify(args, report),
        ModuleStep::Key(args) => module_key(common, args, report),
        ModuleStep::Sign(args) => module_sign(common, args, report),
    }
}

fn module_build(common: &Common, args: &ModuleBuildArgs, report: &Report) -> Result<Exit, Failure> {
    let rules = ContentRules {
        without: args.without.clone(),
        allow_setid: args.allow_setid,
    };
    let written = if args.source.contains('/') {
        let dir = Path::new(&args.source);
        // The times of the files are those of one machine; every module of a directory has the same.
        let (mut tree, contents) = read_directory(dir, Epoch::new(0), &rules)?;
        rules.apply(&mut tree)?;
        let open = |digest: &VerityDigest| open_content(&contents, digest);
        write_module(&tree, &open, &args.out)?
    } else {
        let (mut tree, store) = stage_tree(common, args, report)?;
        rules.apply(&mut tree)?;
        let open = |digest: &VerityDigest| {
            let file = store.open_object(digest).map_err(io::Error::other)?;
            Ok(Box::new(file) as Box<dyn Read>)
        };
        write_module(&tree, &open, &args.out)?
    };
    let default = Path::new(&args.source)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let id = args.id.clone().unwrap_or_else(|| default.into_owned());
    report.clear();
    let line = format!("{} {id} sha256:{} required", args.priority, written.digest);
    // The line that is printed is one that the reader of lists takes.
    let sample = format!("powernode-modules 1\ninstance *\ncounter 0\nexpires 2000-01-01T00:00:00Z\n{line}\nend\n");
    ModuleList::parse(&sample, "the printed line")?;
    let (image, objects) = (visible_path(&written.image), written.objects);
    let value = serde_json::json!({
        "id": id, "priority": args.priority, "digest": written.digest, "image": written.image, "objects": objects, "size": written.size,
        "line": line
    });
    let sentence = format!("{image}, {objects} objects, {}", size(written.size));
    let closing = Closing::new(sentence).next(common.command("module verify").arg(&args.out));
    report.close_with(value, &format!("{line}\n"), &closing);
    Ok(Exit::Success)
}

fn open_content<'a>(
    contents: &BTreeMap<VerityDigest, PathBuf>,
    digest: &VerityDigest,
) -> io::Result<Box<dyn Read + 'a>> {
    let path = contents.get(digest).ok_or(io::ErrorKind::NotFound)?;
    Ok(Box::new(open_foreign(path)?))
}

/// The tree of a stage, which is built if need be, and the store with its objects.
fn stage_tree(
    common: &Common,
    args: &ModuleBuildArgs,
    report: &Report,
) -> Result<(Tree, std::sync::Arc<pnb::store::Store>), Failure> {
    let project = project(common)?;
    let store = store(common)?;
    let origins = origins(common)?;
    project.check_lock()?;
    let asked = AskedStage {
        name: args.source.clone(),
        arch: None,
    };
    let node = stage_node(common, &project, &asked, args.arch)?;
    let options = run_options()?;
    let context = BuildContext {
        project: &project,
        store: &store,
        origins: &origins,
        options: &options,
        shared: None,
        elsewhere: None,
        events: &|event| report.event(event),
    };
    let outcome = context.build(std::slice::from_ref(&node), processors())?;
    let output = outcome
        .nodes
        .get(&node)
        .and_then(|done| done.record.outputs.get("tree"));
    let Some(Output::Tree { digest }) = output else {
        let node = node.to_string();
        return Err(ModuleCommandError::NoTree { node }.into());
    };
    let mut tree = store.tree(digest)?;
    store.verify_tree(digest, &tree)?;
    tree.set_mtimes(project.lock.source_date_epoch);
    Ok((tree, store))
}

fn text(path: &Path, most: u64) -> Result<String, Failure> {
    let bytes = read_foreign(path, most).map_err(file("read", path))?;
    let text = String::from_utf8(bytes).map_err(|e| file("read", path)(io::Error::other(e)))?;
    Ok(text)
}

fn public_key(path: &Path) -> Result<ModulePublicKey, Failure> {
    Ok(ModulePublicKey::parse(&text(path, MAX_KEY)?, &visible_path(path))?)
}

fn module_verify(args: &ModuleVerifyArgs, report: &Report) -> Result<Exit, Failure> {
    let key = args.key.as_deref().map(public_key).transpose()?;
    if !args.path.is_dir() {
        verify_one(&args.path, report)?;
        report.close("module verify", &Closing::new("1 module is whole"));
        return Ok(Exit::Success);
    }
    #[expect(clippy::disallowed_methods, reason = "the names are sorted below")]
    let entries = fs::read_dir(&args.path).map_err(file("list", &args.path))?;
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|e| e.path())).collect();
    let mut images = paths.map_err(file("list", &args.path))?;
    images.retain(|path| path.extension().is_some_and(|e| e == "cfs"));
    images.sort();
    let mut digests = Vec::new();
    for image in &images {
        digests.push(verify_one(image, report)?);
    }
    let path = args.path.join(LIST);
    if key.is_none() && !path.try_exists().map_err(file("read", &path))? {
        let sentence = match images.len() {
            1 => "1 module is whole".to_owned(),
            number => format!("{number} modules are whole"),
        };
        report.close(
            "module verify",
            &Closing::new(format!("{sentence}; there is no {LIST}")),
        );
        return Ok(Exit::Success);
    }
    let name = visible_path(&path);
    let bad = |problem: String| ModuleCommandError::List {
        path: path.clone(),
        problem,
    };
    let signed = text(&path, MAX_LIST)?;
    let list = match &key {
        Some(key) => ModuleList::parse(key.verify(&signed, &name)?, &name)?,
        None if signed.starts_with("untrusted comment: ") => {
            return Err(bad("it is signed, and --key does not say with which key".to_owned()).into());
        }
        None => ModuleList::parse(&signed, &name)?,
    };
    for entry in &list.entries {
        if !digests.contains(&entry.digest) && entry.required {
            let problem = format!(
                "the image of the required module {} is not beside it: {}.cfs",
                entry.id, entry.digest
            );
            return Err(bad(problem).into());
        }
    }
    let state = if key.is_some() { "signed" } else { "not signed" };
    report.close("module verify", &listed(&name, &list, state));
    Ok(Exit::Success)
}

fn verify_one(path: &Path, report: &Report) -> Result<VerityDigest, Failure> {
    let found = verify_image(path)?;
    let (entries, objects) = (found.entries, found.objects);
    if report.json() {
        report.value(
            serde_json::json!({ "image": path, "digest": found.digest, "entries": entries, "objects": objects }),
        );
    } else {
        report.line(format_args!(
            "{}: {entries} entries, {objects} objects",
            visible_path(path)
        ));
    }
    Ok(found.digest)
}

fn module_key(common: &Common, args: &ModuleKeyArgs, report: &Report) -> Result<Exit, Failure> {
    let key = ModuleSecretKey::generate()?;
    let comment = args.name.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let halves = [
        (SECRET, 0o600, key.to_text(&comment)),
        (PUBLIC, 0o644, key.public()?.to_text(&comment)),
    ];
    let path = |suffix: &str| PathBuf::from(format!("{}.{suffix}", args.name.display()));
    for (suffix, mode, text) in halves {
        let path = path(suffix);
        let mut options = fs::OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(mode).open(&path);
        let written = opened.and_then(|mut out| out.write_all(text.as_bytes()).and_then(|()| out.sync_all()));
        written.map_err(file("write", &path))?;
        match report.json() {
            true => report.value(serde_json::json!({ "event": "written", "path": path })),
            false => report.path(&path),
        }
    }
    let public = path(PUBLIC);
    let sentence = format!(
        "keep {} secret; {} goes into the nodes",
        visible_path(&path(SECRET)),
        visible_path(&public)
    );
    let build = common.build_command().arg("--module-key").arg(public);
    report.close("module key", &Closing::new(sentence).next(build));
    Ok(Exit::Success)
}

/// The state of a list in a sentence.
fn listed(name: &str, list: &ModuleList, state: &str) -> Closing {
    let (modules, counter) = (list.entries.len(), list.counter);
    let modules = count(modules, "module");
    Closing::verdict(format!(
        "{name}: {modules}, counter {counter}, expires {}, {state}",
        list.expires
    ))
    .field("modules", list.entries.len())
    .field("counter", counter)
    .field("state", state)
}

fn module_sign(common: &Common, args: &ModuleSignArgs, report: &Report) -> Result<Exit, Failure> {
    let name = visible_path(&args.list);
    let key = ModuleSecretKey::parse(&text(&args.key, MAX_KEY)?, &visible_path(&args.key))?;
    let present = text(&args.list, MAX_LIST)?;
    // A list that is signed already is signed again: the two lines of the old signature go.
    let plain = match present.starts_with("untrusted comment: ") {
        true => present.splitn(3, '\n').nth(2).unwrap_or_default(),
        false => &present,
    };
    let list = ModuleList::parse(plain, &name)?;
    let comment = args.key.file_stem().unwrap_or_default().to_string_lossy();
    let signed = key.sign(&list.to_string(), &comment);
    // What was written is what verifies.
    key.public()?.verify(&signed, &name)?;
    let dir = args
        .list
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut part = tempfile::NamedTempFile::new_in(dir).map_err(file("write", &args.list))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    let done = part
        .write_all(signed.as_bytes())
        .and_then(|()| part.as_file().set_permissions(mode));
    done.map_err(file("write", &args.list))?;
    part.persist(&args.list)
        .map_err(|e| file("write", &args.list)(e.error))?;
    let public = args.key.with_extension(PUBLIC);
    let verify = common.command("module verify").arg(dir).arg("--key").arg(&public);
    let closing = listed(&name, &list, "signed").nexts(public.is_file().then_some(verify));
    report.close("module sign", &closing);
    Ok(Exit::Success)
}
