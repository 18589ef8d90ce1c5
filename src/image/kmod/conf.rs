//! Settings of dracut, as `dracut.conf.d/*.conf` has them: assignments to shell variables that dracut sources.
//!
//! pnb reads the variables that it needs without a shell, so each line must be a comment, empty, or one assignment of a literal text:
//!
//! ```text
//! early_microcode="yes"
//! add_drivers+=" virtio_blk =drivers/nvme "
//! ```
//!
//! `+=` appends to the value so far; dracut's own lists begin and end with a space for that reason. Expansions (`$`, a backquote), escapes and
//! statements are errors, because they would mean something else to dracut. Source: dracut.conf(5).

use super::module::refuse;
use crate::image::ImageError;
use std::collections::BTreeMap;

/// Settings of one or more files, in the order in which they were read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct DracutSettings(BTreeMap<String, String>);

impl DracutSettings {
    /// Reads the text of a file after those read before; `name` is the file's name in messages.
    pub fn read(&mut self, name: &str, text: &str) -> Result<(), ImageError> {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (variable, appends, value) = assignment(line).ok_or_else(|| {
                let problem = format!(
                    "line {} is neither a comment nor NAME=\"TEXT\" or NAME+=\"TEXT\" with a text without $, `, \\ and \"",
                    number + 1
                );
                refuse(name, problem)
            })?;
            let known = self.0.entry(variable.to_owned()).or_default();
            if !appends {
                known.clear();
            }
            known.push_str(value);
        }
        Ok(())
    }

    /// The words of a variable, separated by spaces; none if it was not set.
    pub fn words(&self, variable: &str) -> impl Iterator<Item = &str> {
        self.0
            .get(variable)
            .map(String::as_str)
            .unwrap_or_default()
            .split_whitespace()
    }
}

/// Variable, whether the value is appended, and value.
fn assignment(line: &str) -> Option<(&str, bool, &str)> {
    let (name, value) = line.split_once('=')?;
    let (name, appends) = match name.strip_suffix('+') {
        Some(name) => (name, true),
        None => (name, false),
    };
    let value = value.strip_prefix('"')?.strip_suffix('"')?;
    let plain = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    (plain && !value.contains(['"', '$', '`', '\\'])).then_some((name, appends, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(texts: &[&str]) -> Result<DracutSettings, ImageError> {
        let mut settings = DracutSettings::default();
        for text in texts {
            settings.read("x.conf", text)?;
        }
        Ok(settings)
    }

    #[test]
    fn values_are_replaced_and_appended_to_over_several_files() {
        let read =
            settings(&["# c\n a=\"1\"\na+=\" 2 \"\n\nb=\"x\"", "a+=\"=drivers/x\"\nb=\"y\"\n"]).expect("readable");
        assert_eq!(read.words("a").collect::<Vec<_>>(), ["1", "2", "=drivers/x"]);
        assert_eq!(read.words("b").collect::<Vec<_>>(), ["y"]);
        assert_eq!(read.words("c").count(), 0);
    }

    #[test]
    fn a_line_that_a_shell_would_read_otherwise_is_an_error() {
        for line in [
            "a=1",
            "a=\"1",
            "a=\"$b\"",
            "a=\"`b`\"",
            "a=\"\\\"\"",
            "a=\"1\" b=\"2\"",
            "a =\"1\"",
            "a=\"1\" # c",
            "if true; then",
            "=\"1\"",
            "export a=\"1\"",
        ] {
            let error = settings(&[&format!("b=\"1\"\n{line}\n")]).expect_err(line).to_string();
            assert!(
                error.contains("x.conf") && error.contains("line 2 is neither"),
                "{error}"
            );
        }
    }
}
