//! What a build shows while it runs: on terminals of any width, without one, beside another builder, and when it is interrupted.

use crate::project::*;
use nix::{
    pty::{Winsize, openpty},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

/// A stage that takes a second or two and needs no other.
const STAGE: [&str; 3] = ["build", "--stage", "initramfs-root"];

/// The rows of a terminal of some width: as much of one as progress lines need.
struct Screen {
    width: usize,
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

impl Screen {
    fn of(width: usize, text: &str) -> Self {
        let mut screen = Self {
            width,
            rows: vec![Vec::new()],
            row: 0,
            column: 0,
        };
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\r' => screen.column = 0,
                '\n' => screen.down(),
                '\x1b' => {
                    assert_eq!(chars.next(), Some('['), "an unknown sequence");
                    let mut number = String::new();
                    while let Some(digit) = chars.next_if(|c| c.is_ascii_digit() || "?;".contains(*c)) {
                        number.push(digit);
                    }
                    screen.sequence(chars.next().expect("whole"), &number);
                }
                c => screen.put(c),
            }
        }
        screen
    }

    fn down(&mut self) {
        self.row += 1;
        if self.row == self.rows.len() {
            self.rows.push(Vec::new());
        }
    }

    fn put(&mut self, c: char) {
        // The cursor waits behind the last column until the next character.
        if self.column == self.width {
            self.column = 0;
            self.down();
        }
        let row = &mut self.rows[self.row];
        row.resize(row.len().max(self.column + 1), ' ');
        row[self.column] = c;
        self.column += 1;
    }

    fn sequence(&mut self, kind: char, number: &str) {
        let count = number.parse().unwrap_or(1);
        match kind {
            'A' => self.row = self.row.saturating_sub(count),
            'B' => (0..count).for_each(|_| self.down()),
            'K' if number == "2" => self.rows[self.row].clear(),
            'K' => self.rows[self.row].truncate(self.column),
            'J' => {
                self.rows[self.row].truncate(self.column);
                self.rows.truncate(self.row + 1);
            }
            'm' => {}
            other => unreachable!("the sequence {number}{other}"),
        }
    }

    fn text(&self) -> String {
        let rows = self
            .rows
            .iter()
            .map(|row| row.iter().collect::<String>().trim_end().to_owned());
        rows.collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }
}

/// What a build into a new store writes to a terminal.
fn on_terminal(columns: u16, more: impl FnOnce(&mut Command)) -> String {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(Some(&size), None).expect("a terminal");
    let mut command = pnb(repository(), dir.path());
    command.args(STAGE).env("TERM", "xterm").env_remove("NO_COLOR");
    more(&mut command);
    let slave = File::from(pty.slave);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(slave.try_clone().expect("a handle"))
        .stderr(slave)
        .spawn()
        .expect("starts");
    drop(command);
    let mut shown = Vec::new();
    // The terminal ends with an error when the last program has closed it.
    let _ = File::from(pty.master).read_to_end(&mut shown);
    assert!(
        child.wait().expect("ends").success(),
        "{}",
        String::from_utf8_lossy(&shown)
    );
    String::from_utf8(shown).expect("UTF-8")
}

#[test]
fn lines_of_running_work_fit_the_terminal_and_go_when_it_ends() {
    for columns in [40_u16, 80, 133, 0] {
        let shown = on_terminal(columns, |_| {});
        let width = if columns == 0 { 80 } else { usize::from(columns) };
        assert!(
            shown.contains("0 of 1 stages, "),
            "{columns}: the running work is not shown: {shown:?}"
        );
        assert!(
            shown.contains("22.36 MiB/22.36 MiB"),
            "{columns}: the last step is not drawn: {shown:?}"
        );
        let screen = Screen::of(width, &shown).text();
        for gone in ["⠋", "⠙", "█", "0 of 1 stages", "MiB/"] {
            assert!(
                !screen.contains(gone),
                "{columns}: {gone} is left on the screen:\n{screen}"
            );
        }
        // A line that is as long as it is wraps, and is whole.
        let whole = screen.replace('\n', "");
        for part in [
            "build initramfs-root/amd64 (it was never built)",
            "; 1 of 1, ",
            "1 stage: 1 built, ",
            "next: pnb ",
        ] {
            assert!(whole.contains(part), "{columns}: {part} is not in:\n{screen}");
        }
    }
}

#[test]
fn a_terminal_that_only_prints_and_a_pipe_get_plain_lines() {
    let dumb = on_terminal(80, |command| {
        command.env("TERM", "dumb");
    });
    assert!(!dumb.contains('\x1b') && !dumb.contains("of 1 stages"), "{dumb:?}");
    let colourless = on_terminal(80, |command| {
        command.env("NO_COLOR", "1");
    });
    assert!(
        colourless.contains("of 1 stages") && !colourless.contains("\x1b[3") && !colourless.contains("\x1b[1m"),
        "{colourless:?}"
    );
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let piped = good(pnb(repository(), dir.path()).args(STAGE));
    // One line for the download, and one for each ten seconds of running work.
    let fetched = piped.lines().filter(|line| line.contains(" fetch ")).count();
    assert!(fetched <= 2 && !piped.contains('\x1b'), "{piped}");
}

#[test]
fn a_stage_that_another_pnb_builds_is_named() {
    let dir = tempfile::tempdir_in(scratch()).expect("scratch");
    let mut first = pnb(repository(), dir.path());
    let mut first = first
        .args(STAGE)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(first.stderr.take().expect("a pipe")).lines();
    let mut lines = lines.map(|line| line.expect("UTF-8"));
    assert!(
        lines.any(|line| line.contains("build initramfs-root/amd64")),
        "the first has begun"
    );
    let second = good(pnb(repository(), dir.path()).args(STAGE));
    assert_eq!(
        lines.filter(|line| line.contains("done initramfs-root/amd64")).count(),
        1
    );
    assert!(first.wait().expect("ends").success());
    assert!(
        second.contains("waits for another pnb: initramfs-root/amd64\n"),
        "{second}"
    );
    assert!(second.contains("cached initramfs-root/amd64; 1 of 1\n"), "{second}");
}

#[test]
fn an_interrupted_build_says_what_is_kept() {
    for (json, words) in [
        (false, "\ninterrupted; what is finished is kept\n"),
        (true, "{\"event\":\"interrupted\",\"exit\":130}\n"),
    ] {
        let dir = tempfile::tempdir_in(scratch()).expect("scratch");
        let mut build = pnb(repository(), dir.path());
        build.args(STAGE).args(json.then_some("--json"));
        // A signal that whoever started the tests ignores would be ignored by pnb too.
        let mut command = Command::new("env");
        command
            .arg("--default-signal=INT")
            .arg(build.get_program())
            .args(build.get_args());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        // Events are on standard output, and lines for people on standard error.
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let stream: Box<dyn Read> = if json { Box::new(out) } else { Box::new(err) };
        let mut stream = BufReader::new(stream);
        let begins = if json {
            "\"event\":\"started\""
        } else {
            "    build initramfs-root/amd64 "
        };
        let mut said = String::new();
        while !said.contains(begins) {
            assert_ne!(
                stream.read_line(&mut said).expect("UTF-8"),
                0,
                "it did not begin: {said}"
            );
        }
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        kill(pid, Signal::SIGINT).expect("it runs");
        stream.read_to_string(&mut said).expect("UTF-8");
        let status = child.wait().expect("ends");
        assert_eq!(status.signal(), Some(2), "{said}");
        assert!(said.ends_with(words), "{said:?}");
    }
}
