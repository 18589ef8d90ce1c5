//! Workflows as GitHub's own parser and a reader of YAML see them; both are npm packages that `tests/publish/npm` pins.

use crate::tools::check_tools::stage_tree::stage_tree;
use pnb::{
    model::RelPath,
    sandbox::{Access, Executor, Limits, Mount, OutputSpec, RootFs, Spec, Workload},
    store::Content,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Values by their names.
pub(crate) type Names = BTreeMap<String, String>;

/// A workflow file.
pub(crate) struct Workflow {
    pub(crate) text: String,
    document: Value,
}

/// A step of a job.
pub(crate) struct Step {
    pub(crate) uses: Option<String>,
    pub(crate) run: Option<String>,
    pub(crate) env: Names,
}

/// The installed packages, and the scripts beside them.
fn installed() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let done = Command::new("sh")
            .arg(tests.join("publish/install.sh"))
            .arg(scratch)
            .output();
        let done = done.expect("sh starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let to = scratch.join("publish-npm");
        for name in ["hook.mjs", "register.mjs", "read.mjs"] {
            fs::copy(tests.join("workflows").join(name), to.join(name)).expect(name);
        }
        to
    })
}

/// What read.mjs prints of these files. The pinned node runs in the sandbox, where its tree is `/`.
fn read(files: &[PathBuf]) -> Vec<Value> {
    let mount = |source: &Path, target: &str| Mount {
        source: source.canonicalize().expect("there"),
        target: RelPath::new(target).expect("a path"),
        access: Access::ReadOnly,
    };
    let mut mounts = vec![mount(installed(), "inputs/npm")];
    // The tree has no link /lib64, so the loader is named.
    let arch = std::env::consts::ARCH;
    let loader = match arch {
        "x86_64" => "/usr/lib64/ld-linux-x86-64.so.2",
        _ => "/usr/lib/ld-linux-aarch64.so.1",
    };
    let libraries = format!("/usr/lib/{arch}-linux-gnu");
    let mut command = [
        loader,
        "--library-path",
        &libraries,
        "/usr/bin/node",
        "--import",
        "/inputs/npm/register.mjs",
    ]
    .map(str::to_owned)
    .to_vec();
    command.push("/inputs/npm/read.mjs".to_owned());
    for (number, file) in files.iter().enumerate() {
        let target = format!("inputs/{number}.yaml");
        mounts.push(mount(file, &target));
        command.push(format!("/{target}"));
    }
    let spec = Spec {
        mounts,
        limits: Limits::small(),
        ..Spec::new(
            "workflows",
            RootFs::Tree(stage_tree("publish-tools")),
            Workload::command(command),
        )
    };
    let executor = Executor {
        helper: env!("CARGO_BIN_EXE_pnb").into(),
        strict: false,
    };
    let mut put = |_: &OutputSpec, _: bool, _: &mut dyn Content| Err(io::Error::other("no output is declared"));
    let mut log = Vec::new();
    let ended = executor.run(&spec, &mut put, &mut log);
    let said = String::from_utf8_lossy(&log);
    ended.unwrap_or_else(|error| unreachable!("{said}\n{error}"));
    serde_json::from_str(&said).unwrap_or_else(|error| unreachable!("{said}\n{error}"))
}

/// The errors that GitHub's parser finds in each of these texts.
pub(crate) fn errors_of(texts: &[&str]) -> Vec<Vec<String>> {
    let dir = tempfile::tempdir().expect("scratch");
    let files: Vec<PathBuf> = texts
        .iter()
        .enumerate()
        .map(|(n, text)| {
            let path = dir.path().join(format!("{n}.yaml"));
            fs::write(&path, text).expect("written");
            path
        })
        .collect();
    let errors = read(&files)
        .into_iter()
        .map(|one| serde_json::from_value(one["errors"].clone()).expect("a list of messages"));
    errors.collect()
}

/// All workflows by file name.
pub(crate) fn workflows() -> BTreeMap<String, Workflow> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(".gitea/workflows");
    let files: Vec<PathBuf> = walkdir::WalkDir::new(dir)
        .min_depth(1)
        .sort_by_file_name()
        .into_iter()
        .map(|entry| entry.expect("readable").into_path())
        .collect();
    let documents = read(&files);
    let each = files.iter().zip(documents).map(|(path, read)| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(path).expect("UTF-8");
        let document = read["document"].clone();
        (name, Workflow { text, document })
    });
    each.collect()
}

fn names(value: &Value) -> Names {
    let Some(map) = value.as_object() else {
        return Names::new();
    };
    map.iter().map(|(name, value)| (name.clone(), plain(value))).collect()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Workflow {
    /// The names of the jobs.
    pub(crate) fn jobs(&self) -> Vec<&str> {
        let jobs = self.document["jobs"].as_object().expect("jobs");
        jobs.keys().map(String::as_str).collect()
    }

    /// The jobs that end before this one begins.
    pub(crate) fn needs(&self, job: &str) -> Vec<String> {
        match &self.document["jobs"][job]["needs"] {
            Value::Null => Vec::new(),
            Value::Array(all) => all.iter().map(plain).collect(),
            one => vec![plain(one)],
        }
    }

    /// The steps of all jobs.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.jobs().into_iter().flat_map(|job| self.steps_of(job)).collect()
    }

    /// The steps of a job.
    pub(crate) fn steps_of(&self, job: &str) -> Vec<Step> {
        let steps = self.document["jobs"][job]["steps"].as_array().expect("steps");
        let steps = steps.iter().map(|step| Step {
            uses: step["uses"].as_str().map(str::to_owned),
            run: step["run"].as_str().map(str::to_owned),
            env: names(&step["env"]),
        });
        steps.collect()
    }

    /// The variables of every step of a job.
    pub(crate) fn env_of(&self, job: &str) -> Names {
        let mut env = names(&self.document["env"]);
        env.extend(names(&self.document["jobs"][job]["env"]));
        env
    }

    /// The combinations of a job's matrix; one without values for a job that has none. An entry of `include` with a new value of every
    /// key is a combination of its own, and no other kind is in use here.
    pub(crate) fn combinations(&self, job: &str) -> Vec<Names> {
        let mut all = vec![Names::new()];
        let Some(matrix) = self.document["jobs"][job]["strategy"]["matrix"].as_object() else {
            return all;
        };
        for (key, values) in matrix.iter().filter(|(key, _)| *key != "include") {
            let values = values.as_array().expect("a list");
            all = all
                .iter()
                .flat_map(|one| {
                    values.iter().map(|value| {
                        let mut one = one.clone();
                        one.insert(key.clone(), plain(value));
                        one
                    })
                })
                .collect();
        }
        let keys: Vec<String> = all[0].keys().cloned().collect();
        for more in matrix.get("include").and_then(Value::as_array).into_iter().flatten() {
            let more = names(more);
            assert!(more.keys().eq(keys.iter()), "{more:?} has other keys than the matrix");
            assert!(!all.contains(&more), "{more:?} is in the matrix already");
            all.push(more);
        }
        all
    }
}
