//! A project of three stages that run a compiled program, and builds of it in stores of their own.

use crate::project::{Checkout, lock_with, text};
use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

/// The program of the stages: it does what the name of its stage says.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
static FILE *make(const char *path) { FILE *f = fopen(path, "w"); if (!f) { perror(path); exit(1); } return f; }
static void copy(const char *from, FILE *to) {
    FILE *f = fopen(from, "r"); int c;
    if (!f) { perror(from); exit(1); }
    while ((c = getc(f)) != EOF) putc(c, to);
    fclose(f);
}
int main(void) {
    const char *stage = getenv("PNB_STAGE");
    printf("the log of %s\n", stage);
    if (!strcmp(stage, "one")) {
        char name[64];
        mkdir("/build/tree", 0755); mkdir("/build/tree/small", 0755);
        for (int i = 0; i < 300; i++) {
            sprintf(name, "/build/tree/small/%d", i);
            FILE *f = make(name);
            for (int j = 0; j <= i; j++) fprintf(f, "line %d of %d\n", j, i);
            fclose(f);
            if (i % 7 == 0) chmod(name, 0755);
        }
        FILE *f = make("/build/tree/large");
        for (int i = 0; i < 600000; i++) fprintf(f, "%08d", i * 7);
        fclose(f);
        if (symlink("small/7", "/build/tree/link")) return 1;
        f = make("/build/version"); fprintf(f, "1.0\n"); fclose(f);
    } else if (!strcmp(stage, "two")) {
        FILE *word = fopen("/inputs/word/word", "r");
        char said[16] = "";
        if (!word || !fgets(said, sizeof said, word)) return 1;
        if (!strcmp(said, "wait")) { printf("waiting\n"); fflush(stdout); for (;;) sleep(1000); }
        if (!strcmp(said, "nothing")) return 0;
        if (!strcmp(said, "refuse")) { mknod("/build/null", S_IFCHR | 0666, 259); printf("\033[1mno\r device\n"); }
        if (!strcmp(said, "fail")) { printf("the word is not good\n"); return 3; }
        if (!strncmp(said, "wait ", 5)) sleep(atoi(said + 5));
        FILE *f = make("/build/disk");
        copy("/inputs/tree/large", f);
        for (int i = 0; i < 1000000; i++) putc(0, f);
        copy("/inputs/tree/link", f);
        copy("/inputs/version", f);
        copy("/inputs/word/word", f);
        fclose(f);
    } else {
        FILE *f = make("/build/out");
        FILE *disk = fopen("/inputs/disk", "r");
        for (int i = 0; i < 100; i++) putc(getc(disk), f);
        copy("/inputs/version", f);
        fclose(f);
    }
    return 0;
}
"#;

const ONE: &str = "summary = \"One\"\nroot = \"agent\"\ncommand = [\"/usr/sbin/powernode-agent\"]\n\n[outputs]\n\
                   tree = { kind = \"tree\" }\nversion = { kind = \"file\" }\n";
const TWO: &str = "summary = \"Two\"\nroot = \"agent\"\ncommand = [\"/usr/sbin/powernode-agent\", \"two\"]\n\n[inputs]\n\
                   tree = { stage = \"one\" }\nversion = { stage = \"one\", output = \"version\" }\nword = { files = \"word\" }\n\n\
                   [outputs]\ndisk = { kind = \"file\" }\n";
const THREE: &str = "summary = \"Three\"\nroot = \"agent\"\ncommand = [\"/usr/sbin/powernode-agent\"]\n\n[inputs]\n\
                     disk = { stage = \"two\", output = \"disk\" }\nversion = { stage = \"one\", output = \"version\" }\n\n\
                     [outputs]\nout = { kind = \"file\" }\nversion = { kind = \"file\", from = \"version\" }\n";

/// What the command line of stage `two` has, and no other.
pub(crate) const STAGE_TWO: &str = "/usr/sbin/powernode-agent two";

/// The project.
pub(crate) struct Ground {
    checkout: Checkout,
    stores: tempfile::TempDir,
}

/// The end of a build.
pub(crate) struct Built {
    pub(crate) code: i32,
    /// Everything that was printed.
    pub(crate) said: String,
    store: PathBuf,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let checkout = Checkout::files();
        let root = checkout.path();
        fs::write(root.join("maker.c"), PROGRAM).expect("written");
        checkout.sh("cc -static -O1 -o maker maker.c");
        let program = fs::read(root.join("maker")).expect("compiled");
        fs::write(root.join("lockfile.toml"), lock_with("maker", &program)).expect("written");
        fs::write(
            root.join("stages/files.toml"),
            "[[file]]\nname = \"agent\"\npath = \"maker\"\n",
        )
        .expect("written");
        for (stage, content) in [("one", ONE), ("two", TWO), ("three", THREE)] {
            fs::create_dir_all(root.join("stages").join(stage)).expect("made");
            fs::write(root.join("stages").join(stage).join("stage.toml"), content).expect("written");
        }
        let ground = Self {
            checkout,
            stores: tempfile::tempdir().expect("scratch"),
        };
        ground.word("first");
        ground
    }

    /// Commits the project, for a hermetic build.
    pub(crate) fn checkout_commit(&self) {
        self.checkout
            .sh("git init -q -b main . && git add -A . && git commit -q -m first");
    }

    /// Gives stage `two` another input. With `wait N` it takes N seconds, with `fail` it fails.
    pub(crate) fn word(&self, word: &str) {
        let dir = self.checkout.path().join("word");
        fs::create_dir_all(&dir).expect("made");
        fs::write(dir.join("word"), word).expect("written");
    }

    /// `pnb` in the project with the store of this name.
    fn pnb(&self, store: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.arg("120").arg(env!("CARGO_BIN_EXE_pnb"));
        self.prepared(command, store, arguments)
    }

    fn prepared(&self, mut command: Command, store: &str, arguments: &[&str]) -> Command {
        command.args(arguments);
        command
            .current_dir(self.checkout.path())
            .env("PNB_STORE", self.store(store));
        for name in [
            "ARCH",
            "VARIANT",
            "PNB_MIRROR",
            "PNB_PROJECT",
            "PNB_REMOTE",
            "PNB_REMOTE_CACHE",
            "PNB_REMOTE_TOKEN_FILE",
        ] {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn store(&self, name: &str) -> PathBuf {
        self.stores.path().join(name)
    }

    /// Builds stage `three` in the store of this name.
    pub(crate) fn build(&self, store: &str, arguments: &[&str]) -> Built {
        let mut all = vec!["build", "--stage", "three"];
        all.extend(arguments);
        self.built(store, &all)
    }

    /// Builds stage `three` with a cache, to which every result is sent.
    pub(crate) fn build_with(&self, store: &str, cache: &str, arguments: &[&str]) -> Built {
        let mut all = vec!["--remote-cache", cache, "--remote-timeout", "2"];
        if !arguments.contains(&"--remote-upload") {
            all.extend(["--remote-upload", "always"]);
        }
        all.extend(arguments);
        self.build(store, &all)
    }

    /// A `pnb` in the project with the store of this name that is still running, for a signal.
    pub(crate) fn spawn(&self, store: &str, arguments: &[&str]) -> Child {
        let mut command = self.prepared(Command::new(env!("CARGO_BIN_EXE_pnb")), store, arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("starts")
    }

    pub(crate) fn built(&self, store: &str, arguments: &[&str]) -> Built {
        let done: Output = self.pnb(store, arguments).output().expect("starts");
        Built {
            code: done.status.code().unwrap_or(-1),
            said: text(&done),
            store: self.store(store),
        }
    }

    /// The content of an output of a stage in the store of this name.
    pub(crate) fn output(&self, store: &str, stage: &str, output: &str) -> Vec<u8> {
        let done = self
            .pnb(store, &["store", "path", stage, "--output", output])
            .output()
            .expect("starts");
        assert!(done.status.success(), "{}", text(&done));
        fs::read(String::from_utf8_lossy(&done.stdout).trim()).expect("there")
    }
}

impl Built {
    /// It ended well; the stages that ran, in order of their names, and those that a cache gave.
    #[track_caller]
    pub(crate) fn well(&self) -> (Vec<String>, Vec<String>) {
        assert_eq!(self.code, 0, "{}", self.said);
        (self.stages("done"), self.stages("shared"))
    }

    fn stages(&self, verb: &str) -> Vec<String> {
        let lines = self.said.lines().map(str::trim_start);
        let named = lines.filter_map(|line| line.strip_prefix(verb)?.strip_prefix(' ')?.split('/').next());
        let mut names: Vec<String> = named.map(str::to_owned).collect();
        names.sort();
        names
    }

    /// The warnings, without the addresses of servers and the digests.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let lines = self.said.lines().filter_map(|line| line.strip_prefix("warning: "));
        lines.map(masked).collect()
    }

    /// Number of objects in the store, and their bytes.
    pub(crate) fn objects(&self) -> (usize, u64) {
        let files = walkdir::WalkDir::new(self.store.join("objects"))
            .into_iter()
            .map(|e| e.expect("listed"));
        let sizes: Vec<u64> = files
            .filter(|e| e.file_type().is_file())
            .map(|e| e.metadata().expect("there").len())
            .collect();
        (sizes.len(), sizes.iter().sum())
    }
}

/// The text with `ADDRESS` and `DIGEST` in place of what differs from run to run.
fn masked(line: &str) -> String {
    let words = line.split(' ').map(|word| {
        let (body, end) = match word.strip_suffix([':', ',', ';']) {
            Some(body) => (body, &word[body.len()..]),
            None => (word, ""),
        };
        let digits = body.bytes().filter(u8::is_ascii_hexdigit).count();
        match body {
            _ if body.contains("://127.0.0.1:") => format!("ADDRESS{end}"),
            _ if digits >= 64 => format!("DIGEST{end}"),
            _ => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}
