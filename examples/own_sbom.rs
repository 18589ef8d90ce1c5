//! Prints the SBOM of pnb itself: the crates of its `Cargo.lock` from which the program is compiled for Linux, as CycloneDX 1.6.
//!
//! ```text
//! cargo run --locked --example own_sbom > pnb.cdx.json
//! ```
//!
//! It asks cargo for both architectures and prints what either needs. Crates that are linked into the program have the scope
//! `required`; crates that only run while it is compiled (build scripts, macros and their libraries) have `excluded`, as tools have in
//! the SBOM of an artifact. Crates for tests are left out. There is no time stamp, and the serial number is derived from the rest, so
//! one revision has one SBOM. Source: <https://cyclonedx.org/docs/1.6/json/>.

use pnb::{manifest, model::Arch};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    path::Path,
    process::{Command, ExitCode},
};

type Failure = Box<dyn std::error::Error>;

/// Name and version of a crate.
type Crate = (String, String);

/// The parts of `Cargo.lock` that `cargo tree` does not print.
#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// What `cargo tree` prints about the crates.
#[derive(Default)]
struct Crates {
    /// The licence of each.
    licences: BTreeMap<Crate, String>,
    /// What each needs to be compiled.
    needs: BTreeMap<Crate, BTreeSet<Crate>>,
    /// The first one, on which no other depends.
    root: Option<Crate>,
}

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        let _ = writeln!(io::stderr(), "usage: own_sbom");
        return ExitCode::from(2);
    }
    match sbom(Path::new(env!("CARGO_MANIFEST_DIR"))) {
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: failed to {}", pnb::model::chain(&*error));
            ExitCode::FAILURE
        }
    }
}

/// The SBOM of the package in `directory`.
fn sbom(directory: &Path) -> Result<String, Failure> {
    let file = directory.join("Cargo.lock");
    let text = fs::read_to_string(&file).map_err(|e| format!("read {file:?}: {e}"))?;
    let lock: Lock = toml::from_str(&text).map_err(|e| format!("read {file:?}: {e}"))?;
    let (mut all, mut linked) = (Crates::default(), Crates::default());
    for arch in Arch::ALL {
        all.read(&tree(directory, arch, "normal,build")?)?;
        linked.read(&tree(directory, arch, "normal,no-proc-macro")?)?;
    }
    all.describe(&linked, &lock)
}

/// What `cargo tree` prints about a build for `arch`: the depth, name, version and licence of a crate in each line.
fn tree(directory: &Path, arch: Arch, edges: &str) -> Result<String, Failure> {
    let target = match arch {
        Arch::Amd64 => "x86_64-unknown-linux-gnu",
        Arch::Arm64 => "aarch64-unknown-linux-gnu",
    };
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--locked", "--prefix", "depth", "--format", "{p}|{l}|"]);
    command
        .args(["--edges", edges, "--target", target])
        .current_dir(directory);
    let done = command.output().map_err(|e| format!("start {}: {e}", env!("CARGO")))?;
    if !done.status.success() {
        return Err(format!("run cargo tree: {}", String::from_utf8_lossy(&done.stderr)).into());
    }
    String::from_utf8(done.stdout).map_err(|e| format!("read what cargo tree printed: {e}").into())
}

/// Depth, crate and licence in a line such as `2serde v1.0.229 (proc-macro)|MIT OR Apache-2.0| (*)`.
fn parse_line(line: &str) -> Option<(usize, Crate, String)> {
    let digits = line.find(|c: char| !c.is_ascii_digit())?;
    let (depth, rest) = line.split_at(digits);
    let (package, rest) = rest.split_once('|')?;
    let (licence, end) = rest.split_once('|')?;
    let mut words = package.split(' ');
    let name = words.next().filter(|name| !name.is_empty())?;
    let version = words.next()?.strip_prefix('v')?;
    // Old crates write `/` for `OR`.
    let licence: Vec<&str> = licence.split('/').map(str::trim).collect();
    let whole = ["", " (*)"].contains(&end) && !licence.iter().any(|part| part.is_empty());
    let name = (name.to_owned(), version.to_owned());
    whole.then_some((depth.parse().ok()?, name, licence.join(" OR ")))
}

impl Crates {
    /// Adds what one tree says. A crate's needs are printed where it occurs for the first time.
    fn read(&mut self, tree: &str) -> Result<(), Failure> {
        let mut path: Vec<Crate> = Vec::new();
        for line in tree.lines() {
            let parsed = parse_line(line).filter(|(depth, ..)| *depth <= path.len());
            let Some((depth, name, licence)) = parsed else {
                return Err(format!("read the line {line:?} of cargo tree: not a crate with a licence").into());
            };
            path.truncate(depth);
            match path.last() {
                Some(user) => {
                    self.needs.entry(user.clone()).or_default().insert(name.clone());
                }
                None => self.root = Some(name.clone()),
            }
            self.licences.insert(name.clone(), licence);
            path.push(name);
        }
        Ok(())
    }

    /// The document about these crates, of which `linked` are in the program.
    fn describe(&self, linked: &Crates, lock: &Lock) -> Result<String, Failure> {
        let Some(root) = &self.root else {
            return Err("read what cargo tree printed: nothing".into());
        };
        let (mut components, mut graph) = (Vec::new(), Vec::new());
        for (name, licence) in &self.licences {
            let reference = package_url(name);
            let needs = self.needs.get(name).into_iter().flatten().map(package_url);
            graph.push(json!({ "ref": reference, "dependsOn": needs.collect::<Vec<_>>() }));
            if name == root {
                continue;
            }
            let same = |locked: &&Locked| (&locked.name, &locked.version) == (&name.0, &name.1);
            let Some(checksum) = lock
                .package
                .iter()
                .find(same)
                .and_then(|locked| locked.checksum.as_ref())
            else {
                return Err(format!("describe {} {}: Cargo.lock has no checksum of it", name.0, name.1).into());
            };
            let scope = if linked.licences.contains_key(name) {
                "required"
            } else {
                "excluded"
            };
            let mut component = described("library", name, licence);
            component["scope"] = scope.into();
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
            components.push(component);
        }
        let mut document = json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": "",
            "version": 1,
            "metadata": { "component": described("application", root, &self.licences[root]) },
            "components": components,
            "dependencies": graph,
        });
        document["serialNumber"] = manifest::serial_number(&manifest::write_value(&document)?).into();
        Ok(manifest::write_value(&document)?)
    }
}

/// A component without what `Cargo.lock` says about it.
fn described(kind: &str, name: &Crate, licence: &str) -> Value {
    json!({
        "type": kind,
        "bom-ref": package_url(name),
        "name": name.0,
        "version": name.1,
        "purl": package_url(name),
        "licenses": [{ "expression": licence }],
    })
}

/// `pkg:cargo/<name>@<version>`; a `+` is escaped. Source: <https://github.com/package-url/purl-spec>, type `cargo`.
fn package_url((name, version): &Crate) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

#[cfg(test)]
#[path = "../tests/fixture/cyclonedx.rs"]
mod cyclonedx;

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Value {
        let text = sbom(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("an SBOM");
        serde_json::from_str(&text).expect("JSON")
    }

    fn list(value: &Value) -> &Vec<Value> {
        value.as_array().expect("a list")
    }

    fn word(value: &Value) -> &str {
        value.as_str().expect("a string")
    }

    #[test]
    fn it_is_valid_by_the_published_schema_and_the_same_each_time() {
        let own = own();
        assert_eq!(cyclonedx::schema_problems(&own), [""; 0]);
        assert_eq!(own, super::tests::own());
        // The schema is one that can fail.
        for (pointer, broken) in [
            ("/components/0/licenses/0/expression", json!(1)),
            ("/components/0/hashes/0/content", json!("ab")),
            ("/components/0/scope", json!("linked")),
            ("/serialNumber", json!("17")),
            ("/metadata/component/type", json!("program")),
        ] {
            let mut wrong = own.clone();
            *wrong.pointer_mut(pointer).expect("it is there") = broken;
            assert_ne!(cyclonedx::schema_problems(&wrong), [""; 0], "{pointer}");
        }
    }

    #[test]
    fn every_component_is_in_the_lock_with_its_checksum() {
        let lock: toml::Table = toml::from_str(include_str!("../Cargo.lock")).expect("TOML");
        let packages = lock["package"].as_array().expect("a list");
        let locked: BTreeSet<[&str; 3]> = packages
            .iter()
            .filter(|package| package.get("checksum").is_some())
            .map(|package| ["name", "version", "checksum"].map(|key| package[key].as_str().expect("a string")))
            .collect();
        let own = own();
        let found: BTreeSet<[&str; 3]> = list(&own["components"])
            .iter()
            .map(|c| [&c["name"], &c["version"], &c["hashes"][0]["content"]].map(word))
            .collect();
        assert_eq!(found.len(), list(&own["components"]).len());
        let strangers: Vec<_> = found.difference(&locked).collect();
        assert!(strangers.is_empty(), "{strangers:?}");
    }

    /// Conditions on a system that Linux fulfils.
    const HERE: [&str; 3] = ["cfg(unix)", "cfg(not(windows))", "cfg(target_os = \"linux\")"];

    /// `cargo metadata` is the second witness: it lists the dependencies in each crate's manifest.
    #[test]
    fn nothing_that_a_component_must_have_is_left_out() {
        let own = own();
        let all = list(&own["components"]).iter().chain([&own["metadata"]["component"]]);
        let present: BTreeSet<(&str, &str)> = all.map(|c| (word(&c["name"]), word(&c["version"]))).collect();
        for target in ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"] {
            let mut command = Command::new(env!("CARGO"));
            command.args(["metadata", "--locked", "--format-version", "1"]);
            command
                .args(["--filter-platform", target])
                .current_dir(env!("CARGO_MANIFEST_DIR"));
            let done = command.output().expect("cargo starts");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            let metadata: Value = serde_json::from_slice(&done.stdout).expect("JSON");
            let packages: BTreeMap<&str, &Value> = list(&metadata["packages"])
                .iter()
                .map(|p| (word(&p["id"]), p))
                .collect();
            let key = |id: &Value| {
                let package = packages[word(id)];
                (word(&package["name"]), word(&package["version"]))
            };
            let mut needed = 0;
            for node in list(&metadata["resolve"]["nodes"])
                .iter()
                .filter(|node| present.contains(&key(&node["id"])))
            {
                let entries = list(&packages[word(&node["id"])]["dependencies"]);
                for dep in list(&node["deps"]) {
                    let name = key(&dep["pkg"]);
                    // At build or run time, not optional, and on every system or plainly on this one.
                    let must = list(&dep["dep_kinds"]).iter().any(|kind| {
                        let same = |e: &&Value| {
                            word(&e["name"]) == name.0 && e["kind"] == kind["kind"] && e["target"] == kind["target"]
                        };
                        let here = kind["target"].as_str().is_none_or(|target| HERE.contains(&target));
                        kind["kind"] != "dev" && here && entries.iter().filter(same).any(|e| e["optional"] == false)
                    });
                    needed += usize::from(must);
                    assert!(
                        !must || present.contains(&name),
                        "{name:?} of {:?} is left out",
                        key(&node["id"])
                    );
                }
            }
            assert!(needed > 400, "only {needed} needs were looked at");
        }
        let root = &own["metadata"]["component"]["bom-ref"];
        let graph: BTreeMap<&str, &Vec<Value>> = list(&own["dependencies"])
            .iter()
            .map(|d| (word(&d["ref"]), list(&d["dependsOn"])))
            .collect();
        let (mut open, mut reached) = (vec![word(root)], BTreeSet::new());
        while let Some(reference) = open.pop() {
            if reached.insert(reference) {
                open.extend(graph[reference].iter().map(word));
            }
        }
        assert_eq!(reached.len(), present.len(), "some component is needed by none");
    }

    #[test]
    fn macros_and_build_scripts_are_not_in_the_program() {
        let own = own();
        let scope = |name: &str| {
            let mut found = list(&own["components"]).iter().filter(|c| c["name"] == name);
            found.next().map(|c| word(&c["scope"]))
        };
        for (name, expected) in [
            ("clap", Some("required")),
            ("zstd-sys", Some("required")),
            ("blake3", Some("required")),
            ("clap_derive", Some("excluded")),
            ("syn", Some("excluded")),
            ("cc", Some("excluded")),
            ("proptest", None),
            ("insta", None),
        ] {
            assert_eq!(scope(name), expected, "{name}");
        }
    }

    #[test]
    fn a_line_that_is_no_crate_is_refused() {
        let good = parse_line("2syn v3.0.10 (proc-macro)|MIT/Apache-2.0| (*)").expect("a crate");
        assert_eq!(
            good,
            (
                2,
                ("syn".to_owned(), "3.0.10".to_owned()),
                "MIT OR Apache-2.0".to_owned()
            )
        );
        for line in [
            "",
            "syn v3.0.10|MIT|",
            "2syn|MIT|",
            "2syn 3.0.10|MIT|",
            "2syn v3.0.10||",
            "2syn v3.0.10|MIT| x",
        ] {
            assert_eq!(parse_line(line), None, "{line:?}");
        }
        let mut crates = Crates::default();
        let error = crates
            .read("0pnb v0.1.0|MIT|\n2syn v3.0.10|MIT|\n")
            .expect_err("a level is left out");
        assert!(error.to_string().contains("2syn"), "{error}");
    }
}
