//! The page of a verdict in a real browser: on a phone, on a desk, on paper.
//!
//! The browser is the stage `browser`, built in the store of whoever runs the tests and run in the sandbox. What it is shown
//! is the page with a script added, which measures what the browser laid out and writes that into the document; the page's own
//! prohibition of scripts is taken out for that, so that hostile names would have their way if they were not text.

use pnb::{
    inspect::{Difference, LikelyCause, PartKind, What},
    manifest::Host,
    model::{Arch, NodeId, RelPath, Sha256Digest, VerityDigest},
    repro::{
        ArtifactResult, Axis, BuiltFrom, Cause, Divergent, Finding, OutputResult, ReproSetup, ReproVerdict,
        StageResult, State, Tried, html,
    },
    sandbox::{Access, Executor, Limits, Mount, OutputKind, OutputSpec, RootFs, Spec, Workload},
    store::Content,
    verity::digest_bytes,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

/// Ends what it stands in and takes the document over, if it is taken for markup.
const HOSTILE: &str = "</title></style></script><img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>\u{1b}[2J";
const PROHIBITION: &str =
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">";

/// Writes into the document, a line each: widths of the window and of the page; how many states there are, how many lack their
/// word, and how many names in the picture are wider than their box; how many boxes hold more than they show.
const MEASURE: &str = r#"<script>
addEventListener("load", () => {
  const words = { equal: "= equal", first: "≠ differs first", differs: "≠ differs" };
  const states = [...document.querySelectorAll(".state")];
  const wordless = states.filter(e => {
    const kind = Object.keys(words).find(k => e.classList.contains(k));
    return !kind || !e.textContent.includes(words[kind]) || !e.getClientRects().length;
  });
  const boxes = [...document.querySelectorAll("svg g.state")];
  const wide = boxes.filter(g => [...g.querySelectorAll("text")].some(t => {
    const [text, box] = [t.getBBox(), g.querySelector("rect").getBBox()];
    return text.x < box.x || text.x + text.width > box.x + box.width;
  }));
  const scrolling = [...document.querySelectorAll(".scroll, .values")].filter(e => e.scrollWidth > e.clientWidth);
  const facts = {
    window: innerWidth, page: document.documentElement.scrollWidth,
    states: states.length, wordless: wordless.length, boxes: boxes.length, wide: wide.length, scrolling: scrolling.length,
    images: document.images.length, scripts: document.scripts.length,
    ground: getComputedStyle(document.documentElement).backgroundColor,
  };
  const pre = document.createElement("pre");
  pre.id = "facts";
  pre.textContent = Object.entries(facts).map(([k, v]) => k + "=" + v).join("\n");
  document.body.append(pre);
});
</script>"#;

/// The same for the other pages and pictures: boxes on each other, lines through boxes, parts outside of the picture, names wider than
/// their boxes, and the lowest contrast of a text with the ground behind it, in hundredths.
const PICTURE: &str = r#"<script>
addEventListener("load", () => {
  const boxes = [...document.querySelectorAll("svg g.node")];
  const rects = boxes.map(g => g.querySelector("rect").getBBox());
  const wide = boxes.filter((g, n) => [...g.querySelectorAll("text")].some(t => {
    const [text, box] = [t.getBBox(), rects[n]];
    return text.x < box.x + 2 || text.x + text.width > box.x + box.width - 2;
  }));
  const overlaps = rects.flatMap((a, n) => rects.slice(n + 1).filter(b =>
    a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height));
  const inside = (p, b) => p.x > b.x + 1 && p.x < b.x + b.width - 1 && p.y > b.y + 1 && p.y < b.y + b.height - 1;
  const crossing = [...document.querySelectorAll("svg path.line")].filter(line => {
    for (let at = 0; at <= line.getTotalLength(); at += 2) {
      const point = line.getPointAtLength(at);
      if (rects.some(box => inside(point, box))) return true;
    }
    return false;
  });
  const outside = [...document.querySelectorAll("svg")].flatMap(svg => {
    const view = svg.viewBox.baseVal;
    return [...svg.querySelectorAll("rect, text, path.line")].filter(e => {
      const box = e.getBBox();
      return box.x < 0 || box.y < 0 || box.x + box.width > view.width || box.y + box.height > view.height;
    });
  });
  const parse = text => (text.match(/[\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const solid = colour => colour && colour !== "none" && (parse(colour).length < 4 || parse(colour)[3] > 0);
  const ground = e => {
    for (let at = e; at; at = at.parentElement) {
      const rect = at.matches("g.node") && at.querySelector("rect");
      if (rect && solid(getComputedStyle(rect).fill)) return getComputedStyle(rect).fill;
      if (solid(getComputedStyle(at).backgroundColor)) return getComputedStyle(at).backgroundColor;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = [...document.querySelectorAll("body *")].filter(e =>
    !e.matches("style, script, title, desc") && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.getClientRects().length);
  const contrast = texts.map(e => {
    const style = getComputedStyle(e);
    const [a, b] = [light(parse(e.closest("svg") ? style.fill : style.color)), light(parse(ground(e)))].sort((x, y) => y - x);
    return Math.round(100 * (a + 0.05) / (b + 0.05));
  });
  const facts = {
    window: innerWidth, page: document.documentElement.scrollWidth, boxes: boxes.length, wide: wide.length,
    overlaps: overlaps.length, crossing: crossing.length, outside: outside.length, lines: document.querySelectorAll("path.line").length,
    contrast: Math.min(...contrast), texts: texts.length, images: document.images.length, scripts: document.scripts.length,
    ground: getComputedStyle(document.querySelector("svg[role]") || document.documentElement).backgroundColor,
  };
  const pre = document.createElement("pre");
  pre.id = "facts";
  pre.textContent = Object.entries(facts).map(([k, v]) => k + "=" + v).join("\n");
  document.body.append(pre);
});
</script>"#;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `pnb` prints on the project.
fn pnb(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    let output = command
        .arg("--project")
        .arg(repository())
        .args(arguments)
        .output()
        .expect("pnb starts");
    assert!(
        output.status.success(),
        "{arguments:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The browser's tree.
fn browser() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        pnb(&["build", "--stage", "browser"]);
        PathBuf::from(pnb(&["store", "path", "browser"]).trim())
    })
}

/// How a page is looked at.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Look {
    Phone,
    Desk,
    Dark,
    /// A4 with the page's own margins, laid out as it is printed.
    Paper,
}

/// What the browser made of a page.
struct Seen {
    document: String,
    facts: BTreeMap<String, String>,
    picture: Vec<u8>,
    print: Vec<u8>,
}

impl Seen {
    fn number(&self, fact: &str) -> u64 {
        self.facts[fact].parse().expect("a number")
    }
}

fn see(name: &str, page: &str, look: Look) -> Seen {
    measured(name, page, look, MEASURE)
}

/// The same with another script.
fn measured(name: &str, page: &str, look: Look, measure: &str) -> Seen {
    assert!(page.contains(PROHIBITION) && page.contains("@media print"));
    let page = page
        .replace(PROHIBITION, "")
        .replace("</body>", &format!("{measure}</body>"));
    let (page, width) = match look {
        Look::Phone => (page, 360),
        Look::Desk | Look::Dark => (page, 1280),
        Look::Paper => (page.replace("@media print", "@media all"), 688),
    };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("scratch");
    let file = dir.path().join("page.html");
    fs::write(&file, page).expect("written");
    let mut argv = vec![
        "/usr/lib/chromium/chromium-headless-shell".to_owned(),
        format!("--window-size={width},4000"),
    ];
    // pnb's sandbox is around it; its own wants namespaces, and its helpers a /dev/shm.
    argv.extend(
        [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
        ]
        .map(str::to_owned),
    );
    argv.extend(["--log-level=3", "--disable-logging", "--no-pdf-header-footer"].map(str::to_owned));
    argv.extend(
        [
            "--dump-dom",
            "--screenshot=/build/picture.png",
            "--print-to-pdf=/build/print",
        ]
        .map(str::to_owned),
    );
    if look == Look::Dark {
        argv.push("--blink-settings=preferredColorScheme=0".to_owned());
    }
    argv.push("file:///inputs/page.html".to_owned());
    let path = |text: &str| RelPath::new(text).expect("a path");
    let output = |name: &str| OutputSpec {
        name: name.to_owned(),
        path: path(name),
        kind: OutputKind::File,
        allow_setid: false,
        allow_devices: false,
    };
    let spec = Spec {
        mounts: vec![Mount {
            source: file,
            target: path("inputs/page.html"),
            access: Access::ReadOnly,
        }],
        env: ["XDG_CONFIG_HOME", "XDG_CACHE_HOME"]
            .map(|name| (name.to_owned(), "/tmp".to_owned()))
            .into(),
        limits: Limits {
            wall: Duration::from_secs(120),
            cpus: 2,
            ..Limits::small()
        },
        outputs: vec![output("picture.png"), output("print")],
        ..Spec::new("browser", RootFs::Tree(browser().to_owned()), Workload::command(argv))
    };
    let executor = Executor {
        helper: env!("CARGO_BIN_EXE_pnb").into(),
        strict: false,
    };
    let (mut taken, mut log) = (BTreeMap::new(), Vec::new());
    let mut put = |output: &OutputSpec, _: bool, content: &mut dyn Content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        let taken_in = (digest_bytes(&bytes), bytes.len() as u64);
        taken.insert(output.name.clone(), bytes);
        Ok::<_, io::Error>(taken_in)
    };
    let ended = executor.run(&spec, &mut put, &mut log);
    let document = String::from_utf8_lossy(&log).into_owned();
    let error = ended.err().map(|e| e.to_string());
    assert_eq!(error, None, "{name}, {look:?}:\n{document}");
    let mut take = |what: &str| taken.remove(what).expect("taken");
    let (picture, print) = (take("picture.png"), take("print"));
    keep(&format!("{name}-{look:?}.png"), &picture);
    keep(&format!("{name}-{look:?}.pdf"), &print);
    let begin = document.find("<pre id=\"facts\">");
    assert!(begin.is_some(), "{name}, {look:?}, no facts:\n{document}");
    let begin = begin.expect("there") + 16;
    let facts = document[begin..].split("</pre>").next().expect("an end").lines();
    let facts = facts.filter_map(|line| line.split_once('='));
    let facts = facts.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    Seen {
        document,
        facts,
        picture,
        print,
    }
}

/// Lays down what people may want to look at, too.
fn keep(name: &str, bytes: &[u8]) {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    fs::create_dir_all(&kept).expect("scratch");
    fs::write(kept.join(name), bytes).expect("written");
}

/// Looks at a page in every way, checks what holds for each page, and returns what was seen on the desk.
fn look(name: &str, verdict: &ReproVerdict) -> Seen {
    let page = html(verdict);
    assert_eq!(page, html(verdict));
    keep(&format!("{name}.html"), page.as_bytes());
    let mut grounds = BTreeMap::new();
    let mut desk = None;
    for look in [Look::Phone, Look::Desk, Look::Dark, Look::Paper] {
        let seen = see(name, &page, look);
        let (facts, number) = (&seen.facts, |fact| seen.number(fact));
        let width = match look {
            Look::Phone => 360,
            Look::Desk | Look::Dark => 1280,
            Look::Paper => 688,
        };
        assert_eq!(number("window"), width, "{name}, {look:?}: {facts:?}");
        assert!(
            number("page") <= width,
            "{name}, {look:?}: it scrolls sideways: {facts:?}"
        );
        assert_eq!(
            number("boxes"),
            verdict.stages.len() as u64,
            "{name}, {look:?}: {facts:?}"
        );
        let states = 2 * verdict.stages.len() + verdict.artifacts.len();
        assert_eq!(number("states"), states as u64, "{name}, {look:?}: {facts:?}");
        for none in ["wordless", "wide", "images"] {
            assert_eq!(number(none), 0, "{name}, {look:?}, {none}: {facts:?}");
        }
        assert_eq!(number("scripts"), 1, "{name}, {look:?}: {facts:?}");
        if look == Look::Paper {
            assert_eq!(number("scrolling"), 0, "{name}: paper does not scroll: {facts:?}");
        }
        assert!(
            !seen.document.contains("<title>taken"),
            "{name}, {look:?}: a name was taken for markup"
        );
        not_blank(&seen.picture, width as usize);
        let pages = pages(&seen.print);
        assert!(pages >= 1, "{name}, {look:?}: {pages} pages");
        grounds.insert(format!("{look:?}"), facts["ground"].clone());
        if look == Look::Desk {
            desk = Some(seen);
        }
    }
    assert_ne!(grounds["Dark"], grounds["Desk"]);
    assert_eq!(grounds["Paper"], "rgb(255, 255, 255)");
    desk.expect("it was looked at")
}

/// Pages of a PDF as Skia writes it: page objects are not compressed.
fn pages(pdf: &[u8]) -> usize {
    assert!(pdf.starts_with(b"%PDF-") && pdf.trim_ascii_end().ends_with(b"%%EOF"));
    let text = String::from_utf8_lossy(pdf);
    text.matches("/Type /Page\n").count()
}

/// A PNG of this width, of which many rows hold more than one colour.
fn not_blank(png: &[u8], width: usize) {
    let mut rest = png.strip_prefix(b"\x89PNG\r\n\x1a\n").expect("a PNG");
    let (mut packed, mut header) = (Vec::new(), Vec::new());
    // A chunk: length, name, content, checksum.
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (name, after) = after.split_at(4);
        let (content, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        match name {
            b"IHDR" => header = content.to_vec(),
            b"IDAT" => packed.extend_from_slice(content),
            _ => {}
        }
        rest = &after[4..];
    }
    assert_eq!(header[..4], (width as u32).to_be_bytes());
    let mut rows = Vec::new();
    flate2::read::ZlibDecoder::new(packed.as_slice())
        .read_to_end(&mut rows)
        .expect("whole");
    // 8 bits a sample; of colour with or without transparency. A row begins with the number of its filter, and filters make
    // rows of one colour, and rows like the one above, few different bytes.
    let samples = if header[9] == 6 { 4 } else { 3 };
    let full = |row: &&[u8]| row.iter().collect::<BTreeSet<_>>().len() > 12;
    let full = rows.chunks(1 + width * samples).filter(full).count();
    assert!(full > 300, "{full} rows hold something");
}

const RAW: &str = "raw/amd64";

/// The project's own stages for both architectures; of `first` the outputs differ, and of all that need them.
fn stages(first: &[&str]) -> Vec<StageResult> {
    let graph: serde_json::Value = serde_json::from_str(&pnb(&["graph", "--json", "--arch", "all"])).expect("JSON");
    let mut states: BTreeMap<NodeId, State> = BTreeMap::new();
    let mut out = Vec::new();
    for (n, node) in graph["nodes"].as_array().expect("nodes").iter().enumerate() {
        let id = |value: &serde_json::Value| value.as_str().expect("text").parse().expect("a node");
        let name: NodeId = id(&node["node"]);
        let needs: Vec<NodeId> = node["needs"].as_array().expect("names").iter().map(id).collect();
        let state = match needs.iter().any(|need| states[need] != State::Equal) {
            true => State::Different,
            false if first.contains(&name.to_string().as_str()) => State::FirstDivergent,
            false => State::Equal,
        };
        states.insert(name.clone(), state);
        let digest = |byte: usize| VerityDigest::new([byte as u8; 32]);
        let second = if state == State::Equal { n } else { n + 100 };
        let output = |name: &str, kind| OutputResult {
            name: name.to_owned(),
            kind,
            first: digest(n),
            second: digest(second),
        };
        let outputs = vec![output("tree", "tree"), output("root-digest", "file")];
        out.push(StageResult {
            node: name,
            needs,
            state,
            outputs,
        });
    }
    let differs_first = |name: &&str| states[&name.parse::<NodeId>().expect("a node")] == State::FirstDivergent;
    assert!(first.iter().all(differs_first));
    out
}

fn equal() -> ReproVerdict {
    let variants = ["ipxe", "iso", "kernel-initrd", "qcow2", "raw"];
    let files = [
        "SHA256SUMS",
        "build-manifest.json",
        "sbom.cdx.json",
        "a-file-with-quite-a-long-name.img",
    ];
    let digest = |n: usize| Some(Sha256Digest::new([n as u8; 32]));
    let artifact = |(n, (variant, file)): (usize, (&str, &str))| ArtifactResult {
        artifact: format!("{variant}/amd64").parse().expect("an artifact"),
        file: RelPath::new(file).expect("a path"),
        first: digest(n * 7),
        second: digest(n * 7),
    };
    let pairs = variants.iter().flat_map(|v| files.iter().map(move |f| (*v, *f)));
    let (tried, left): (Vec<Axis>, Vec<Axis>) = Axis::ALL.iter().partition(|axis| **axis != Axis::Processors);
    let setup = ReproSetup {
        what: variants.map(|v| NodeId::new(v, Arch::Amd64)).to_vec(),
        against: None,
        second_on: None,
        host: Host {
            name: "build-7".to_owned(),
            kernel: "Linux 6.12.57+deb13-amd64 #1 SMP PREEMPT_DYNAMIC Debian 6.12.57-1 (2026-11-05)".to_owned(),
            arch: Arch::Amd64,
            cpus: 8,
        },
        started: 1_795_252_544,
        finished: 1_795_254_001,
        axes: tried.into_iter().map(Tried::from).collect(),
        not_varied: left
            .into_iter()
            .map(|axis| (axis, "the host lets pnb use one only".to_owned()))
            .collect(),
        inputs: BuiltFrom {
            pnb: "0.1.0".to_owned(),
            code_sandbox: "5a".repeat(32),
            code_writers: "77".repeat(32),
            lock: Sha256Digest::new([0xa7; 32]),
            revision: Some("6b1097252fb83f9a0ad2a04bd4bd4e4fbb5fa3b1".to_owned()),
            uncommitted: Vec::new(),
            source_date_epoch: 1_795_252_544,
            packages: 469,
        },
    };
    let artifacts = pairs.enumerate().map(artifact).collect();
    ReproVerdict::new(setup, stages(&[]), artifacts, Vec::new())
}

fn difference(path: &[&str], what: What, hint: Option<LikelyCause>) -> Difference {
    let path = path.iter().map(|p| (*p).to_owned()).collect();
    Difference {
        path,
        what,
        hint,
        structure: false,
    }
}

fn one() -> ReproVerdict {
    let mut verdict = equal();
    verdict.equal = false;
    verdict.stages = stages(&[RAW]);
    for file in verdict
        .artifacts
        .iter_mut()
        .filter(|a| ["raw/amd64", "qcow2/amd64"].contains(&a.artifact.to_string().as_str()))
    {
        file.second = Some(Sha256Digest::new([0xee; 32]));
    }
    let place = ["disk.raw", "partition 3 (powernode-root)", "ext4", "etc/issue"];
    let what = What::Content {
        offset: 1_048_576,
        bytes: 2,
        sizes: (4096, 4096),
        a: "Powernode built 2026-11-21 09:15:44 UTC\\n on host build-7\\x00\\x00".to_owned(),
        b: "Powernode built 2026-11-21 09:17:02 UTC\\n on host build-7\\x00\\x00".to_owned(),
    };
    verdict.findings = vec![Finding {
        node: RAW.parse().expect("a node"),
        found: Divergent::Output("disk.raw".to_owned()),
        cause: Cause::Axes {
            axes: vec![Axis::Clock],
        },
        differences: vec![difference(&place, what, Some(LikelyCause::Time))],
        total: 1,
    }];
    verdict
}

/// With names that want to be more than names.
fn many() -> ReproVerdict {
    let mut verdict = one();
    verdict.stages = stages(&["rootfs/amd64", "kernel/arm64"]);
    verdict.setup.against = Some(format!("/srv/{HOSTILE}/build-manifest.json"));
    verdict.artifacts[0].second = None;
    let hostile = || HOSTILE.to_owned();
    let place = ["tree", "var", HOSTILE];
    let some = |text: &str| Some(text.to_owned());
    let (a, b) = (some("0644"), some("0640"));
    let field = "mode".to_owned();
    let mut differences = vec![
        difference(&place, What::Field { field, a, b }, None),
        difference(
            &place,
            What::OnlyInA {
                size: 70_000,
                kind: PartKind::File,
            },
            None,
        ),
        difference(
            &["tree", "usr/bin/thing"],
            What::Content {
                offset: 12,
                bytes: 1,
                sizes: (10, 12),
                a: hostile(),
                b: format!("{HOSTILE}-"),
            },
            Some(LikelyCause::Random),
        ),
    ];
    for n in 0..20 {
        let first = format!("directory-{n}/{}", "long".repeat(30));
        let (parts, a, b) = (n, 4096, 8192);
        differences.push(difference(
            &["tree"],
            What::Moved { parts, first, a, b },
            Some(LikelyCause::Order),
        ));
    }
    verdict.findings = vec![
        Finding {
            node: NodeId::new("rootfs", Arch::Amd64),
            found: Divergent::Output("tree".to_owned()),
            cause: Cause::Together {
                axes: vec![Axis::Umask, Axis::Locale],
            },
            differences,
            total: 4711,
        },
        Finding {
            node: NodeId::new("kernel", Arch::Arm64),
            found: Divergent::Output(hostile()),
            cause: Cause::ByItself { still: None },
            differences: Vec::new(),
            total: 1,
        },
    ];
    verdict.stages.push(StageResult {
        node: NodeId::new(HOSTILE, Arch::Amd64),
        needs: vec![NodeId::new("rootfs", Arch::Amd64)],
        state: State::Different,
        outputs: Vec::new(),
    });
    verdict.setup.inputs.uncommitted = vec![hostile(), "stages/rootfs/build.sh".to_owned()];
    verdict
}

#[test]
fn all_the_same() {
    let seen = look("equal", &equal());
    for text in ["Everything came out the same.", "Nothing differs.", "time-zone", "469"] {
        assert!(seen.document.contains(text), "{text}");
    }
    assert!(!seen.document.contains("≠ differs</"), "{}", seen.document);
}

#[test]
fn one_difference() {
    let seen = look("one", &one());
    for text in [
        "the builds part at stage raw/amd64.",
        "it depends on clock.",
        "the first at byte 1048576",
        "≠ differs first",
    ] {
        assert!(seen.document.contains(text), "{text}");
    }
}

#[test]
fn many_differences_and_hostile_names() {
    let seen = look("many", &many());
    for text in [
        "at stages rootfs/amd64 and kernel/arm64.",
        "4711 differences:",
        "15 more",
        "4688 more, not listed here.",
    ] {
        assert!(seen.document.contains(text), "{text}");
    }
    let shown = "&lt;/title&gt;&lt;/style&gt;&lt;/script&gt;&lt;img src=x onerror=";
    assert!(seen.document.matches(shown).count() >= 8, "{}", seen.document);
}

/// Looks at a page in every way, and checks what holds for each; returns what was seen on the desk.
fn look_at(name: &str, page: &str) -> Seen {
    keep(&format!("{name}.html"), page.as_bytes());
    let mut grounds = BTreeMap::new();
    let mut desk = None;
    for look in [Look::Phone, Look::Desk, Look::Dark, Look::Paper] {
        let seen = measured(name, page, look, PICTURE);
        let (facts, number) = (&seen.facts, |fact| seen.number(fact));
        assert!(
            number("page") <= number("window"),
            "{name}, {look:?}: it scrolls sideways: {facts:?}"
        );
        for none in ["wide", "overlaps", "crossing", "outside", "images"] {
            assert_eq!(number(none), 0, "{name}, {look:?}, {none}: {facts:?}");
        }
        assert!(number("texts") > 10, "{name}, {look:?}: {facts:?}");
        // WCAG 2.1, 1.4.3: at least 4.5 to 1.
        assert!(number("contrast") >= 450, "{name}, {look:?}: {facts:?}");
        assert!(!seen.document.contains("<title>taken"), "{name}, {look:?}");
        assert!(pages(&seen.print) >= 1, "{name}, {look:?}");
        grounds.insert(format!("{look:?}"), facts["ground"].clone());
        if look == Look::Desk {
            desk = Some(seen);
        }
    }
    assert_ne!(grounds["Dark"], grounds["Desk"], "{name}");
    assert_eq!(grounds["Paper"], "rgb(255, 255, 255)", "{name}");
    desk.expect("it was looked at")
}

/// A page around a picture, as a browser makes one; the picture may scroll in it.
fn page_around(svg: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head>{PROHIBITION}<style>@media print {{ svg {{ width: 100%; height: auto }} }} \
         main {{ overflow: auto }}</style></head><body><main>{svg}</main></body></html>"
    )
}

#[test]
fn the_graph_of_both_architectures_and_of_one() {
    for (name, arch) in [("graph-all", "all"), ("graph-amd64", "amd64")] {
        let svg = pnb(&["graph", "--svg", "--arch", arch]);
        assert_eq!(svg, pnb(&["graph", "--svg", "--arch", arch]));
        let json: serde_json::Value = serde_json::from_str(&pnb(&["graph", "--json", "--arch", arch])).expect("JSON");
        let nodes = json["nodes"].as_array().expect("nodes");
        let seen = look_at(name, &page_around(&svg));
        assert_eq!(seen.number("boxes"), nodes.len() as u64, "{:?}", seen.facts);
        assert!(seen.number("lines") >= nodes.len() as u64 - 10, "{:?}", seen.facts);
        assert!(svg.contains("arrows that follow from others are left out."), "{svg}");
        assert!(svg.contains("marker-end=\"url(#arrow)\""), "{svg}");
        assert!(
            svg.contains("class=\"node artifact\"") && svg.contains("class=\"node tool\""),
            "{svg}"
        );
    }
}

#[test]
fn the_timeline_of_a_build() {
    use pnb::page::{BuildTimes, SpanKind, TimedSpan, timeline};
    let span = |n: u64| TimedSpan {
        name: if n == 3 {
            HOSTILE.to_owned()
        } else {
            format!("stage-number-{n}/amd64")
        },
        kind: if n % 5 == 4 { SpanKind::Fetch } else { SpanKind::Stage },
        start_ms: n * 700,
        end_ms: n * 700 + 900 + (n % 3) * 800,
        cpu_ms: 500 + n * 10,
        peak_memory: n << 24,
        needs: n
            .checked_sub(2)
            .map(|before| format!("stage-number-{before}/amd64"))
            .into_iter()
            .collect(),
        machine: (n % 7 == 6).then(|| "builder-2".to_owned()),
        parts: match n % 14 {
            6 => vec![("queued", 10), ("inputs", 20), ("ran", 700), ("outputs", 30)],
            _ => Vec::new(),
        },
    };
    let times = BuildTimes {
        spans: (0..24).map(span).collect(),
        cached: (0..9).map(|n| format!("cached-{n}/arm64")).collect(),
        shared: (0..3)
            .map(|n| (format!("shared-{n}/arm64"), HOSTILE.to_owned()))
            .collect(),
        jobs: 2,
        total_ms: 18_500,
    };
    let seen = look_at("timeline", &timeline(&times));
    for text in [
        "slot 1, builder-2",
        "critical path takes",
        "In the store: 9",
        "From a cache: 3",
        "double line below: on a worker",
        "on builder-2: queued 0.01 s, inputs 0.02 s, ran 0.70 s, outputs 0.03 s",
    ] {
        assert!(seen.document.contains(text), "{text}");
    }
}

#[test]
fn the_changes_between_two_artifacts() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("scratch");
    let (a, b, page) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("page.html"));
    for (at, word) in [(&a, "quiet"), (&b, "debug")] {
        fs::create_dir(at).expect("made");
        fs::write(
            at.join("grub.cfg"),
            format!("menuentry 'Node' {{\n linux /kernel {word}\n}}\n"),
        )
        .expect("written");
        for n in 0..40 {
            fs::write(at.join(format!("kernel-{n}")), format!("{word} {n}")).expect("written");
        }
        fs::write(at.join(format!("<b>{word}")), "x").expect("written");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_pnb"));
    command
        .arg("--store")
        .arg(dir.path().join("store"))
        .arg("diff")
        .args([&a, &b]);
    let output = command.arg("--html").arg(&page).output().expect("pnb starts");
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let seen = look_at("changes", &fs::read_to_string(&page).expect("written"));
    for text in ["&lt;b&gt;debug", "kernel-39", "Every difference"] {
        assert!(seen.document.contains(text), "{text}");
    }
}
