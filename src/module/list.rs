//! The list of a node's modules.
//!
//! ```text
//! powernode-modules 1
//! instance <uuid>|*
//! counter <n>
//! expires YYYY-MM-DDThh:mm:ssZ
//! <effective_priority> <id> sha256:<hex> required|optional
//! …
//! end
//! ```
//!
//! One space stands between two words, and a newline behind every line. The rules are those of `powernode_parse_list` in
//! powernode-modules.sh, which reads the list on a node.

use super::ModuleError;
use crate::model::VerityDigest;
use jiff::Timestamp;
use std::{collections::BTreeSet, fmt};

/// Largest list, in bytes, with its signature.
pub const MAX_LIST: u64 = 256 << 10;
/// Most modules: overlayfs stacks at most 500 layers, among which are the root and the stores.
const MAX_MODULES: usize = 480;
const HEAD: &str = "powernode-modules 1";
const END: &str = "end";
const MAX_ID: usize = 64;
const MAX_PRIORITY: u32 = 999_999_999;
/// Largest counter: 15 digits, which every shell can compute with.
const MAX_COUNTER: u64 = 999_999_999_999_999;
const FORM: &str = "the form is `<effective_priority> <id> sha256:<hex> required|optional`, or `end` in the last line";

/// One module of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListEntry {
    /// Higher is nearer the top.
    pub priority: u32,
    /// The name of the module.
    pub id: String,
    /// fs-verity digest of its image.
    pub digest: VerityDigest,
    /// Whether a node without it does not start.
    pub required: bool,
}

impl fmt::Display for ListEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let need = if self.required { "required" } else { "optional" };
        write!(f, "{} {} sha256:{} {need}", self.priority, self.id, self.digest)
    }
}

/// A well-formed list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModuleList {
    /// The instance that it is for, in lower case; `None` for every instance.
    pub instance: Option<String>,
    /// No node accepts a list with a lower counter than it has seen.
    pub counter: u64,
    /// The moment from which on no node accepts it.
    pub expires: Timestamp,
    /// The modules, in the order of the file.
    pub entries: Vec<ListEntry>,
}

impl fmt::Display for ModuleList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instance = self.instance.as_deref().unwrap_or("*");
        let expires = self.expires.strftime("%Y-%m-%dT%H:%M:%SZ");
        writeln!(
            f,
            "{HEAD}\ninstance {instance}\ncounter {}\nexpires {expires}",
            self.counter
        )?;
        for entry in &self.entries {
            writeln!(f, "{entry}")?;
        }
        writeln!(f, "{END}")
    }
}

impl ModuleList {
    /// Reads the text of a list, without its signature; `name` is for messages.
    ///
    /// # Errors
    /// A line has another form, the last line is not `end`, or there are too many modules.
    pub fn parse(text: &str, name: &str) -> Result<Self, ModuleError> {
        let mut lines = text.split_inclusive('\n').zip(1usize..);
        let bad = |line: usize, problem: &str| ModuleError::List {
            name: name.to_owned(),
            line,
            problem: problem.to_owned(),
        };
        let mut next = |expected: &str| {
            let (line, number) = lines
                .next()
                .ok_or_else(|| bad(0, &format!("the line {expected} is missing")))?;
            match line.strip_suffix('\n') {
                Some(line) => Ok((line, number)),
                None => Err(bad(number, "the list is cut off: this line has no end")),
            }
        };
        let (head, number) = next(HEAD)?;
        if head != HEAD {
            return Err(bad(number, &format!("the first line is not `{HEAD}`")));
        }
        let value = |(line, number): (&str, usize), key: &str| {
            let value = line.strip_prefix(key).and_then(|rest| rest.strip_prefix(' '));
            value
                .map(str::to_owned)
                .ok_or_else(|| bad(number, &format!("it is not `{key} <value>`")))
        };
        let instance = value(next("instance")?, "instance")?;
        let instance = match instance.as_str() {
            "*" => None,
            uuid => Some(parse_uuid(uuid).ok_or_else(|| bad(2, "the instance is neither `*` nor a UUID"))?),
        };
        let counter = parse_count(&value(next("counter")?, "counter")?).filter(|n| *n <= MAX_COUNTER);
        let counter = counter.ok_or_else(|| bad(3, "the counter is not a number of at most 15 digits"))?;
        let expires = parse_moment(&value(next("expires")?, "expires")?)
            .ok_or_else(|| bad(4, "the moment does not have the form YYYY-MM-DDThh:mm:ssZ"))?;
        let mut entries = Vec::new();
        let (mut ids, mut digests) = (BTreeSet::new(), BTreeSet::new());
        loop {
            let (line, number) = next(END)?;
            if line == END {
                break;
            }
            let entry = parse_entry(line).ok_or_else(|| bad(number, FORM))?;
            if !ids.insert(entry.id.clone()) || !digests.insert(entry.digest) {
                return Err(bad(number, "the module or its image is in the list already"));
            }
            entries.push(entry);
            if entries.len() > MAX_MODULES {
                return Err(bad(number, &format!("there are more than {MAX_MODULES} modules")));
            }
        }
        if let Some((_, number)) = lines.next() {
            return Err(bad(number, "something follows the line `end`"));
        }
        Ok(Self {
            instance,
            counter,
            expires,
            entries,
        })
    }
}

fn parse_count(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok())?
}

fn parse_uuid(text: &str) -> Option<String> {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let hex = groups.iter().all(|group| group.bytes().all(|b| b.is_ascii_hexdigit()));
    let some = text.bytes().any(|b| !matches!(b, b'0' | b'-'));
    (lengths == [8, 4, 4, 4, 12] && hex && some).then(|| text.to_ascii_lowercase())
}

fn parse_moment(text: &str) -> Option<Timestamp> {
    let moment: Timestamp = text.parse().ok()?;
    // One text for each moment: the shell compares the digits.
    (moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string() == text).then_some(moment)
}

fn parse_entry(line: &str) -> Option<ListEntry> {
    let words: Vec<&str> = line.split(' ').collect();
    let [priority, id, digest, need] = words[..] else {
        return None;
    };
    let priority = u32::try_from(parse_count(priority)?)
        .ok()
        .filter(|p| *p <= MAX_PRIORITY)?;
    let required = match need {
        "required" => true,
        "optional" => false,
        _ => return None,
    };
    Some(ListEntry {
        priority,
        id: is_id(id).then(|| id.to_owned())?,
        digest: digest.strip_prefix("sha256:")?.parse().ok()?,
        required,
    })
}

/// Whether `text` can be the name of a module.
pub(super) fn is_id(text: &str) -> bool {
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    plain && text.len() <= MAX_ID && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> String {
        let hex = "ab".repeat(32);
        let other = "cd".repeat(32);
        format!(
            "powernode-modules 1\ninstance 11111111-2222-3333-4444-555555555555\ncounter 7\nexpires 2027-01-02T03:04:05Z\n\
             500 nginx sha256:{hex} required\n20 tools-2.1 sha256:{other} optional\nend\n"
        )
    }

    #[test]
    fn a_list_reads_back_as_it_was_written() {
        let list = ModuleList::parse(&text(), "list").expect("a list");
        assert_eq!(list.to_string(), text());
        assert_eq!(
            (list.counter, list.entries.len(), list.entries[1].required),
            (7, 2, false)
        );
    }

    #[test]
    fn lines_of_another_form_are_named() {
        let long = format!("5 {} sha256:{} required", "a".repeat(65), "00".repeat(32));
        for (from, to, line, why) in [
            ("powernode-modules 1", "powernode-modules 2", 1, "first line"),
            ("instance 1", "instance  1", 2, "neither"),
            ("11111111-2222", "111111112222", 2, "neither"),
            ("counter 7", "counter 07", 3, "15 digits"),
            ("counter 7", "counter 1000000000000000", 3, "15 digits"),
            ("2027-01-02T", "2027-13-02T", 4, "YYYY"),
            ("05Z", "05+00:00", 4, "YYYY"),
            ("500 nginx", "0500 nginx", 5, "the form"),
            ("500 nginx", "-1 nginx", 5, "the form"),
            ("500 nginx", "500  nginx", 5, "the form"),
            ("500 nginx", "500 -nginx", 5, "the form"),
            ("500 nginx", "500 ng/inx", 5, "the form"),
            ("required", "wanted", 5, "the form"),
            ("sha256:ab", "sha256:AB", 5, "the form"),
            ("sha256:cd", "cd", 6, "the form"),
            ("tools-2.1", "nginx", 6, "already"),
            ("end\n", "end\n\n", 8, "follows"),
            ("end\n", "end", 7, "cut off"),
            ("end\n", "", 0, "missing"),
            ("20 tools-2.1", long.as_str(), 6, "the form"),
        ] {
            let bad = text().replacen(from, to, 1);
            let error = ModuleList::parse(&bad, "list").expect_err(to).to_string();
            assert!(
                error.contains(&format!("line {line}: ")) && error.contains(why),
                "{to:?}: {error}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_parses_prints_the_same(at in any::<proptest::sample::Index>(), with in ".{0,4}") {
            let mut bad = text();
            let at = at.index(bad.len());
            if bad.is_char_boundary(at) {
                bad.replace_range(at..at, &with);
            }
            if let Ok(list) = ModuleList::parse(&bad, "list") {
                prop_assert_eq!(list.to_string().to_lowercase(), bad.to_lowercase());
            }
        }
    }
}
