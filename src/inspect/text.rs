//! Text: GRUB menus, digests, scripts and other text.

use super::{
    json,
    part::{Fields, Look},
};
use crate::image::{ReadAt, Source};

/// A longer text is shown as data, bytes.
const MAX_TEXT: u64 = 16 << 20;
/// Boot entries above this number are not listed.
const MAX_MENU: usize = 64;

/// The findings in `source` if it is text.
pub(super) fn look(source: &Source, size: u64, head: &[u8]) -> Option<Look> {
    let printable = |b: &u8| matches!(b, b'\n' | b'\t' | b'\r' | 0x1b) || *b >= 0x20;
    if size == 0 || size > MAX_TEXT || !head.iter().all(printable) {
        return None;
    }
    let mut bytes = vec![0; size as usize];
    source.read_exact_at(&mut bytes, 0).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    if text.contains('\0') {
        return None;
    }
    let mut fields = Fields::new();
    if let Some(found) = json::look(&text) {
        return Some(found);
    }
    let trimmed = text.trim_end_matches('\n');
    let format = if text.contains("menuentry ") {
        menu(&text, &mut fields);
        "GRUB configuration"
    } else if trimmed.len() == 64 && trimmed.bytes().all(|b| b.is_ascii_hexdigit()) {
        fields.insert("digest".to_owned(), trimmed.to_owned());
        "digest"
    } else if text.starts_with("#!") {
        "script"
    } else {
        "text"
    };
    Some(Look {
        format,
        fields,
        ..Look::default()
    })
}

/// Adds the entries of a GRUB menu: titles, and the lines that load a kernel.
fn menu(text: &str, fields: &mut Fields) {
    let mut entry = 0;
    for line in text.lines().map(str::trim) {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match word {
            "menuentry" => {
                entry += 1;
                if entry > MAX_MENU {
                    return;
                }
                fields.insert(format!("entry {entry}"), title(rest.trim_start()));
            }
            "linux" | "linuxefi" | "linux16" | "initrd" | "initrdefi" | "chainloader" if entry > 0 => {
                let name = word.trim_end_matches("efi").trim_end_matches("16");
                fields.insert(format!("entry {entry} {name}"), rest.trim().to_owned());
            }
            _ => {}
        }
    }
}

/// A title without its quotes and the options behind them.
fn title(text: &str) -> String {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'));
    match quote {
        Some(quote) => text[1..].split(quote).next().unwrap_or_default().to_owned(),
        None => text.split(char::is_whitespace).next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn looked(text: &str) -> Look {
        let source: Source = Arc::new(text.as_bytes().to_vec());
        look(&source, text.len() as u64, text.as_bytes()).expect("text")
    }

    #[test]
    fn a_menu_says_its_titles_and_kernels() {
        let look = looked(
            "set timeout=3\nmenuentry 'Powernode node' --id a {\n  linux /k powernode.boot=1  quiet\n  initrd /i\n}\n\
             menuentry \"Recovery\" {\n linuxefi /k powernode.boot=0\n}\n",
        );
        let fields: Vec<String> = look.fields.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(look.format, "GRUB configuration");
        assert_eq!(
            fields,
            [
                "entry 1=Powernode node",
                "entry 1 initrd=/i",
                "entry 1 linux=/k powernode.boot=1  quiet",
                "entry 2=Recovery",
                "entry 2 linux=/k powernode.boot=0"
            ]
        );
    }

    #[test]
    fn a_digest_is_known_by_its_form() {
        let hex = "0f".repeat(32);
        assert_eq!(looked(&format!("{hex}\n")).fields["digest"], hex);
        assert_eq!(looked("hello\n").format, "text");
    }
}
