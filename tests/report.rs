//! try
use pnb::{
    model::{Epoch, RelPath},
    sandbox::*,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::Path,
    time::Duration,
};

#[test]
fn run() {
    let tree = std::env::var("TREE").unwrap();
    let args: Vec<String> = std::env::var("ARGS").unwrap().split(' ').map(str::to_owned).collect();
    let page = std::env::var("PAGE").unwrap();
    let mut argv = vec!["/usr/lib/chromium/chromium-headless-shell".to_owned()];
    argv.extend(args);
    argv.push("file:///inputs/page.html".into());
    let outs = std::env::var("OUTS").unwrap_or_default();
    let spec = Spec {
        stage: "browser".to_owned(),
        root: RootFs::Tree(tree.into()),
        mounts: vec![Mount {
            source: page.into(),
            target: RelPath::new("inputs/page.html").unwrap(),
            access: Access::ReadOnly,
        }],
        workload: Workload::Command { argv },
        env: BTreeMap::from(
            [("XDG_CONFIG_HOME", "/tmp"), ("XDG_CACHE_HOME", "/tmp")].map(|(a, b)| (a.to_owned(), b.to_owned())),
        ),
        epoch: Epoch::new(0),
        ids: Ids::Single,
        capabilities: BTreeSet::new(),
        limits: Limits {
            wall: Duration::from_secs(60),
            build_bytes: 1 << 30,
            memory: 6 << 30,
            cpus: 2,
            ..Limits::default()
        },
        outputs: outs
            .split(' ')
            .filter(|o| !o.is_empty())
            .map(|o| Output {
                name: o.to_owned(),
                path: RelPath::new(o).unwrap(),
                kind: OutputKind::File,
                allow_setid: false,
                allow_devices: false,
            })
            .collect(),
        build_dir: BuildDir::Tmpfs,
        keep_failed: false,
        prepare: None,
        dev_in: vec![],
        proc_mount: true,
        emulator: None,
        surroundings: Surroundings::default(),
        console: Console::Log,
        network: Network::None,
    };
    let executor = Executor {
        helper: env!("CARGO_BIN_EXE_pnb").into(),
        strict: false,
    };
    let mut log = Vec::new();
    let mut put = |o: &Output, _: bool, r: &mut dyn Read| {
        let mut b = Vec::new();
        r.read_to_end(&mut b)?;
        fs::write(Path::new("/tmp/html-out").join(&o.name), &b)?;
        Ok::<_, io::Error>((pnb::verity::digest_bytes(&b), b.len() as u64))
    };
    let t = std::time::Instant::now();
    let e = executor.run(&spec, &mut put, &mut log);
    println!(
        "{:?} {:?}\n{}",
        t.elapsed(),
        e.map(|_| ()).map_err(|e| e.to_string()),
        String::from_utf8_lossy(&log)
    );
}
