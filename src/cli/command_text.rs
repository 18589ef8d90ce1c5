//! Commands as text that can be typed: the next step after a command, and a command line with one word put right.

use super::args::Common;
use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::Path,
};

/// A command, of pnb unless it names another program, word by word. Its text can be typed into a shell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct CommandText {
    program: &'static str,
    /// Variables that stand before the program, as `NAME=value`.
    variables: Vec<OsString>,
    words: Vec<OsString>,
}

impl CommandText {
    /// `pnb` with these words.
    pub(super) fn new(words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self::of("pnb", words)
    }

    /// `program` with these words.
    pub(super) fn of(program: &'static str, words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            program,
            variables: Vec::new(),
            words: words.into_iter().map(Into::into).collect(),
        }
    }

    /// The same with a further word.
    pub(super) fn arg(mut self, word: impl Into<OsString>) -> Self {
        self.words.push(word.into());
        self
    }

    /// The same with further words.
    pub(super) fn args(mut self, words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.words.extend(words.into_iter().map(Into::into));
        self
    }

    /// The same with an option, if it has a value.
    pub(super) fn option(self, name: &str, value: Option<impl Into<OsString>>) -> Self {
        match value {
            Some(value) => self.arg(name).arg(value),
            None => self,
        }
    }

    /// The same with a variable before the program.
    pub(super) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push(format!("{name}={value}").into());
        self
    }
}

impl fmt::Display for CommandText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for variable in &self.variables {
            write!(f, "{} ", quoted(variable))?;
        }
        f.write_str(self.program)?;
        self.words.iter().try_for_each(|word| write!(f, " {}", quoted(word)))
    }
}

/// A word as a shell reads it. Bytes that are no text are written as `$'\xff'`.
pub(super) fn quoted(word: &OsStr) -> String {
    let plain = |c: char| c.is_alphanumeric() || "@%+=:,./-_".contains(c);
    match word.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(plain) => text.to_owned(),
        Some(text) if text.chars().all(|c| !c.is_control()) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => {
            let escape = |byte: &u8| match byte {
                b' '..=b'~' if !b"'\\".contains(byte) => char::from(*byte).to_string(),
                _ => format!("\\x{byte:02x}"),
            };
            format!("$'{}'", word.as_encoded_bytes().iter().map(escape).collect::<String>())
        }
    }
}

/// A path as it is typed from the current directory: relative below it, as it is elsewhere.
pub(super) fn from_here(path: &Path) -> &Path {
    let here = std::env::current_dir().ok();
    match here.and_then(|here| path.strip_prefix(here).ok()) {
        Some(below) if below.as_os_str().is_empty() => Path::new("."),
        Some(below) => below,
        None => path.strip_prefix(".").unwrap_or(path),
    }
}

/// The command line as it was typed.
#[derive(Clone, Default, Debug)]
pub(super) struct TypedLine {
    words: Vec<OsString>,
}

impl TypedLine {
    /// The words behind the name of the program.
    pub(super) fn new(words: &[OsString]) -> Self {
        Self { words: words.to_vec() }
    }

    /// The command as it was typed.
    pub(super) fn text(&self) -> CommandText {
        CommandText::new(self.words.clone())
    }

    /// The command without the option `flag`, which has no value.
    pub(super) fn without_flag(&self, flag: &str) -> CommandText {
        CommandText::new(self.words.iter().filter(|word| *word != flag).cloned())
    }

    /// The command without the option `name` and its value.
    pub(super) fn without_option(&self, name: &str) -> CommandText {
        let mut left = Vec::new();
        let mut words = self.words.iter();
        while let Some(word) = words.next() {
            if word == name {
                words.next();
            } else if !starts_with_option(word, name) {
                left.push(word.clone());
            }
        }
        CommandText::new(left)
    }

    /// The command with `value` as the only value of the option `name`.
    pub(super) fn with_option(&self, name: &str, value: &str) -> CommandText {
        self.without_option(name).arg(name).arg(value)
    }

    /// The words with `right` in the place of `wrong`: a word, the value of an option, or one of the values that commas separate. `None`
    /// when no word is or has it: it came from a variable.
    pub(super) fn corrected(&self, wrong: &str, right: &[&str]) -> Option<Vec<OsString>> {
        let mut words = self.words.clone();
        let at = words.iter().rposition(|word| {
            let text = word.to_string_lossy();
            let (name, list) = values(&text);
            text == wrong || name.strip_suffix('=') == Some(wrong) || list.split(',').any(|value| value == wrong)
        })?;
        let text = words[at].to_string_lossy().into_owned();
        let new = if text == wrong {
            right.iter().map(OsString::from).collect()
        } else if let Some(value) = text.strip_prefix(wrong).filter(|rest| rest.starts_with('=')) {
            vec![OsString::from(format!("{}{value}", right.concat()))]
        } else {
            let (name, list) = values(&text);
            let right = right.concat();
            let list: Vec<&str> = list
                .split(',')
                .map(|value| if value == wrong { &right } else { value })
                .collect();
            vec![OsString::from(format!("{name}{}", list.join(",")))]
        };
        words.splice(at..=at, new);
        Some(words)
    }
}

/// `--name=` and the values behind it; for another word an empty name.
fn values(word: &str) -> (&str, &str) {
    match word.find('=') {
        Some(at) if word.starts_with("--") => word.split_at(at + 1),
        _ => ("", word),
    }
}

fn starts_with_option(word: &OsStr, name: &str) -> bool {
    let word = word.as_encoded_bytes();
    word.strip_prefix(name.as_bytes())
        .is_some_and(|rest| rest.starts_with(b"="))
}

impl Common {
    /// `pnb COMMAND` with the project and the store of this command line.
    pub(super) fn command(&self, command: &str) -> CommandText {
        let typed = |name: &str| self.typed_options.contains(name);
        let project = self.project.as_ref().filter(|_| typed("project"));
        let store = self.store.as_ref().filter(|_| typed("store"));
        CommandText::new(command.split(' '))
            .option("--project", project)
            .option("--store", store)
    }

    /// `pnb build` with the project, the store and the sources of this command line.
    pub(super) fn build_command(&self) -> CommandText {
        let mirror = self.mirror.as_ref().filter(|_| self.typed_options.contains("mirror"));
        let command = self.command("build").option("--mirror", mirror);
        command.args(self.offline.then_some("--offline"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::ffi::OsStrExt, process::Command};

    fn line(words: &[&str]) -> TypedLine {
        TypedLine::new(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_shell_reads_the_words_that_were_meant() {
        let odd: [&[u8]; 9] = [
            b"plain/path_1.x",
            b"with space",
            b"it's",
            b"",
            b"a\nb",
            b"\xff\xfe",
            b"$HOME `id` \"x\"",
            b"*?[a]~#;&|",
            "ümlaut".as_bytes(),
        ];
        for word in odd {
            let text = quoted(OsStr::from_bytes(word));
            // bash, because POSIX sh has $'…' only since 2024.
            let output = Command::new("bash")
                .args(["-c", &format!("printf %s {text}")])
                .output()
                .expect("bash");
            assert_eq!(output.stdout, word, "{text}");
        }
    }

    #[test]
    fn one_word_is_put_right_wherever_it_stands() {
        let fixed = |words: &[&str], wrong, right: &str| {
            let right: Vec<&str> = right.split(' ').collect();
            let words = line(words).corrected(wrong, &right)?;
            Some(CommandText::new(words).to_string())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            fixed(&["build", "--variant", "rawe"], "rawe", "raw"),
            some("pnb build --variant raw")
        );
        assert_eq!(
            fixed(&["build", "--variant=iso,rawe"], "rawe", "raw"),
            some("pnb build --variant=iso,raw")
        );
        assert_eq!(fixed(&["biuld", "-j", "1"], "biuld", "build"), some("pnb build -j 1"));
        assert_eq!(
            fixed(&["build", "raw"], "raw", "--variant raw"),
            some("pnb build --variant raw")
        );
        assert_eq!(
            fixed(&["--hermitic", "build"], "--hermitic", "--hermetic"),
            some("pnb --hermetic build")
        );
        assert_eq!(
            fixed(&["plan", "--varient=raw"], "--varient", "--variant"),
            some("pnb plan --variant=raw")
        );
        assert_eq!(fixed(&["build"], "rawe", "raw"), None, "it came from a variable");
    }

    #[test]
    fn options_are_left_out_and_replaced() {
        let typed = line(&["build", "--variant=raw", "--stage", "agent", "--dry-run"]);
        assert_eq!(
            typed.without_option("--variant").to_string(),
            "pnb build --stage agent --dry-run"
        );
        assert_eq!(
            typed.without_option("--stage").to_string(),
            "pnb build --variant=raw --dry-run"
        );
        assert_eq!(
            typed.without_flag("--dry-run").to_string(),
            "pnb build --variant=raw --stage agent"
        );
        let typed = line(&["plan", "--arch", "amd64", "--variant", "x"]);
        assert_eq!(
            typed.with_option("--arch", "arm64").to_string(),
            "pnb plan --variant x --arch arm64"
        );
    }
}
