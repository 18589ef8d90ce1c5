//! Which layers stop which attack, measured: the attacks run in user namespaces alone, with each layer alone, and with each layer off.
//!
//! Runs without a layer need root: where the process ids are the host's, the end of a run signals every process of its user, which only
//! for root is a user that nobody else has.

use crate::{
    bombs::{BOMBS, bomb, went_off},
    ground::{HostGround, is_root, output, own_program, results, run, run_with, scratch, spec},
    quick::names,
    table::ATTACKS,
};
use pnb::sandbox::{Collected, Ids, OutputKind, SandboxLayer, helper_main_without};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::ExitCode,
};

const PREFIX: &str = "without-";
/// Longest line of prose in documents.
const WIDTH: usize = 140;
const DOCUMENT: &str = "docs/threat-model.md";
const BEGIN: &str = "<!-- measured by tests/hostile: begin -->\n";
const END: &str = "<!-- measured by tests/hostile: end -->\n";

/// Layers that bombs meet; the others have no part in it.
const LIMITS: [SandboxLayer; 3] = [
    SandboxLayer::ControlGroup,
    SandboxLayer::Watchdog,
    SandboxLayer::ResourceLimits,
];

type Layers = BTreeSet<SandboxLayer>;

/// Every layer that this user may take off.
pub(crate) fn all() -> Layers {
    let allowed = |layer: &SandboxLayer| is_root() || *layer != SandboxLayer::PidNamespace;
    SandboxLayer::ALL.iter().copied().filter(allowed).collect()
}

/// The file name of the helper without `off`.
pub(crate) fn helper_name(off: &Layers) -> String {
    let numbers: Vec<String> = SandboxLayer::ALL
        .iter()
        .enumerate()
        .filter(|(_, layer)| off.contains(layer))
        .map(|(n, _)| n.to_string())
        .collect();
    format!("{PREFIX}{}", numbers.join("+"))
}

/// This program as the helper of a sandbox, started under the name of [`helper_name`].
pub(crate) fn helper(program: &str) -> ExitCode {
    let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    let numbers = name.strip_prefix(PREFIX).unwrap_or_default().split('+');
    let off = numbers
        .filter_map(|n| SandboxLayer::ALL.get(n.parse::<usize>().ok()?))
        .copied();
    helper_main_without(off.collect(), BTreeMap::new())
}

/// Helpers by the layers that they lack.
struct Helpers(tempfile::TempDir);

impl Helpers {
    fn without(&self, off: &Layers) -> PathBuf {
        let path = self.0.path().join(helper_name(off));
        if !path.is_symlink() {
            symlink(own_program(), &path).expect("linked");
        }
        path
    }
}

/// The result of an attack under every condition.
#[derive(Default)]
struct Measured {
    /// With user namespaces alone.
    bare: bool,
    /// Layers that stop it alone.
    walls: Vec<SandboxLayer>,
    /// Layers without which it gets through.
    sole: Vec<SandboxLayer>,
}

/// Runs the attacks of the table with the layers `off` taken off; returns which got through.
fn attack(helpers: &Helpers, off: &Layers) -> BTreeMap<String, bool> {
    let every = names(|_| true);
    let host = HostGround::new();
    assert!(host.hints, "the file system of temporary files keeps no write hints");
    let mut spec = host.spec(&every);
    spec.ids = Ids::Range;
    let (outcome, log) = match off.is_empty() {
        true => run(&spec),
        false => run_with(&helpers.without(off), false, &spec),
    };
    let found = results(&log, &every);
    // Only the last attack may end the run.
    let ended = found["kill-supervisor"];
    assert!(
        outcome.is_ok() || ended,
        "without {off:?}: {:?}\n{log}",
        outcome.map_err(|e| e.to_string())
    );
    let lost = found
        .iter()
        .filter(|(name, _)| !log.contains(&format!("{name}: ")))
        .count();
    assert!(
        lost <= usize::from(ended),
        "without {off:?}: {lost} attacks have no result\n{log}"
    );
    found
}

/// Calls `probe` with nothing off, all of `layers` off, all but one of them, and each one.
fn measure(
    layers: &[SandboxLayer],
    mut probe: impl FnMut(&Layers) -> BTreeMap<String, bool>,
) -> BTreeMap<String, Measured> {
    let every: Layers = layers.iter().copied().collect();
    let through: Vec<_> = probe(&Layers::new()).into_iter().filter(|(_, got)| *got).collect();
    assert!(through.is_empty(), "the whole sandbox lets through {through:?}");
    let mut found: BTreeMap<String, Measured> = BTreeMap::new();
    for (name, bare) in probe(&every) {
        found.entry(name).or_default().bare = bare;
    }
    for layer in layers {
        let mut others = every.clone();
        others.remove(layer);
        for (name, got) in probe(&others) {
            let measured = found.entry(name).or_default();
            if measured.bare && !got {
                measured.walls.push(*layer);
            }
        }
        for (name, got) in probe(&[*layer].into()) {
            if got {
                found.entry(name).or_default().sole.push(*layer);
            }
        }
    }
    found
}

fn listed(layers: &[SandboxLayer]) -> String {
    layers.iter().map(|l| l.name()).collect::<Vec<_>>().join(", ")
}

/// A row of the table.
struct Row<'a> {
    name: &'a str,
    tries: String,
    /// What stops it and cannot be taken off.
    always_on: &'a str,
    /// Nothing where this host does not offer what is attacked.
    measured: Option<&'a Measured>,
}

impl Row<'_> {
    /// The row as text; one that this host cannot measure is taken from `before`.
    fn line(&self, before: &str) -> String {
        let Self { name, tries, .. } = self;
        let Some(measured) = self.measured else {
            let kept = before.lines().find(|l| l.starts_with(&format!("| `{name}` |")));
            let unknown = format!("| `{name}` | {tries} | not measured on a host that offers it | — |");
            return kept.map_or(unknown, str::to_owned);
        };
        // A rule about pid 1 stops nothing where the pid namespace is off, so seccomp alone does not count there.
        let (walls, count) = match (measured.bare, &measured.walls[..]) {
            (false, _) => (self.always_on.to_owned(), "—".to_owned()),
            (true, []) => ("several together".to_owned(), "2".to_owned()),
            (true, [wall]) if measured.sole.is_empty() => {
                (format!("{}, or others together", wall.name()), "2".to_owned())
            }
            (true, walls) => (listed(walls), walls.len().to_string()),
        };
        // What gets through without a layer is stopped by that layer alone.
        let agree = measured.sole.is_empty() || measured.sole == measured.walls;
        assert!(
            agree,
            "{name}: {:?} stop it alone, it gets through without {:?}",
            measured.walls, measured.sole
        );
        format!("| `{name}` | {tries} | {walls} | {count} |")
    }
}

/// The text between the marks.
fn section(rows: &[Row<'_>], before: &str) -> String {
    let lines: Vec<String> = rows.iter().map(|row| row.line(before)).collect();
    // Attacks that one layer stops, by layer.
    let mut single: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in &lines {
        if let [_, name, _, wall, "1", _] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] {
            single.entry(wall).or_default().push(name);
        }
    }
    let count: usize = single.values().map(Vec::len).sum();
    let mut text = format!("{} attacks; {count} of them one layer alone stops:\n\n", rows.len());
    for (wall, names) in single {
        let mut line = format!("- {wall}:");
        for (n, name) in names.iter().enumerate() {
            let word = format!(" {name}{}", if n + 1 < names.len() { "," } else { "" });
            if line.len() + word.len() > WIDTH {
                text.push_str(&line);
                text.push('\n');
                line = " ".to_owned();
            }
            line.push_str(&word);
        }
        text.push_str(&line);
        text.push('\n');
    }
    text.push_str("\n| attack | tries to | each of these stops it alone | layers |\n|---|---|---|---|\n");
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn quick_rows(helpers: &Helpers) -> BTreeMap<String, Measured> {
    let found = measure(SandboxLayer::ALL, |off| attack(helpers, off));
    let outside_names = names(|a| !found[a.name].bare);
    let outside = HostGround::new().outside(&outside_names);
    let mut problems = Vec::new();
    for attack in ATTACKS {
        let bare = found[attack.name].bare;
        let works = bare || outside[attack.name];
        if !attack.control.needs_offer() && (!works || bare == attack.control.always_on().is_some()) {
            problems.push(format!(
                "{}: with user namespaces alone {bare}, works {works}",
                attack.name
            ));
        }
    }
    assert!(problems.is_empty(), "controls:\n{}", problems.join("\n"));
    // A row that shows nothing here: neither without the layers nor outside does it get through.
    found
        .into_iter()
        .filter(|(name, measured)| measured.bare || outside[name])
        .collect()
}

/// What one wall lets through, the next one behind it refuses: seccomp, pid 1's half of the collector, the executor's half.
pub(crate) fn outputs_meet_three_walls() {
    use SandboxLayer::{Capabilities, Collector, Seccomp};
    let helpers = Helpers(scratch());
    let collect = |arguments: &[&str], off: &[SandboxLayer]| {
        let mut spec = spec(arguments);
        spec.outputs.push(output("out", OutputKind::Tree));
        let (outcome, log) = run_with(&helpers.without(&off.iter().copied().collect()), false, &spec);
        outcome.map(|o| o.outputs).map_err(|e| format!("{e}{log}"))
    };
    let refused = |arguments: &[&str], off: &[SandboxLayer]| collect(arguments, off).expect_err("refused");
    let text = refused(&["set-id", "chmod"], &[]);
    assert!(
        text.contains("entry \"a\" has mode 4755, and set-id bits are not declared"),
        "{text}"
    );
    let text = refused(&["set-id", "chmod"], &[Collector]);
    assert!(
        text.ends_with("entry \"a\" has mode 4755"),
        "the executor refuses it, too: {text}"
    );

    for (name, setter) in [
        ("user.x", &[Seccomp][..]),
        ("security.capability", &[Seccomp, Capabilities]),
    ] {
        let set = ["labelled", name];
        let text = refused(&set, &[]);
        assert!(text.contains("exit code 4"), "it cannot be set: {text}");
        let text = refused(&set, setter);
        assert!(
            text.contains(&format!("entry \"a\" has the extended attribute {name:?}")),
            "{text}"
        );
        // Nothing carries it to the executor.
        let outputs = collect(&set, &[setter, &[Collector]].concat()).expect("collected");
        let Some(Collected::Tree(tree)) = outputs.get("out") else {
            panic!("{outputs:?}")
        };
        assert!(tree.iter().all(|(_, entry)| entry.meta.xattrs.is_empty()), "{tree:?}");
    }
}

fn bomb_rows(helpers: &Helpers) -> BTreeMap<String, Measured> {
    measure(&LIMITS, |off| {
        let helper = match off.is_empty() {
            true => crate::ground::pnb(),
            false => helpers.without(off),
        };
        let one = |kind: &str| {
            went_off(&helper, off.is_empty(), &bomb(kind)).unwrap_or_else(|e| panic!("{kind} without {off:?}: {e}"))
        };
        BOMBS.iter().map(|(kind, _)| ((*kind).to_owned(), one(kind))).collect()
    })
}

pub(crate) fn the_threat_model_has_what_was_measured() {
    assert!(is_root());
    let helpers = Helpers(scratch());
    let quick = quick_rows(&helpers);
    // The rows of bombs say which of three mechanisms stop them; a host without control groups has two.
    let limits = run(&spec(&["quick"])).0.expect("runs").measured.limits;
    let counted = limits.contains("memory: cgroup") && limits.contains("processes: cgroup");
    let bombs = if counted { bomb_rows(&helpers) } else { BTreeMap::new() };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    let document = fs::read_to_string(&path).expect("read");
    let (head, rest) = document.split_once(BEGIN).expect("the mark of the beginning");
    let (before, tail) = rest.split_once(END).expect("the mark of the end");
    let mut rows: Vec<Row<'_>> = ATTACKS
        .iter()
        .map(|attack| Row {
            name: attack.name,
            tries: attack.tries.to_owned(),
            always_on: attack.control.always_on().unwrap_or_default(),
            measured: quick.get(attack.name),
        })
        .collect();
    rows.extend(BOMBS.iter().map(|(kind, fills)| Row {
        name: kind,
        tries: format!("fill {fills}"),
        always_on: "the kernel's quota of one user",
        measured: bombs.get(*kind),
    }));
    for row in rows.iter().filter(|row| row.measured.is_none()) {
        println!("    {}: this host does not offer it, its row stays", row.name);
    }
    let measured = section(&rows, before);
    #[expect(
        clippy::disallowed_methods,
        reason = "the wish of the caller, not an input of a build"
    )]
    let update = std::env::var_os("UPDATE").is_some();
    if update {
        fs::write(&path, format!("{head}{BEGIN}{measured}{END}{tail}")).expect("written");
    } else {
        let different: Vec<_> = measured.lines().filter(|l| !before.contains(*l)).collect();
        assert_eq!(
            before,
            measured,
            "{DOCUMENT} differs from what was measured; UPDATE=1 cargo test --test hostile writes it. New lines:\n{}",
            different.join("\n")
        );
    }
}
