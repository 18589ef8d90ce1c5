//! Exit codes: part of the interface. One table, from which `pnb help` is written and with which docs/exit-codes.md and docs/audit.md
//! are compared.

use pnb::{
    audit::Class,
    model::{EXIT_HERMETIC, EXIT_STORE},
    sign::RefusalClass,
};
use std::process::ExitCode;

/// Why the program ends, as a number on which a script can act.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exit {
    /// The command did everything that was asked for.
    Success,
    /// A failure of no other class.
    Failure,
    /// `pnb diff`: the two differ, with the code that diff(1) has for it.
    Different,
    /// The command line is wrong (clap uses the same code), or a policy.
    Usage,
    /// lockfile.toml is missing, malformed, incomplete or out of date.
    Lock,
    /// A pinned file could not be fetched, or had other bytes.
    Fetch,
    /// The store is damaged, full, or in use.
    Store,
    /// The stages are no graph, or a stage file breaks the schema.
    Graph,
    /// A stage failed.
    Stage,
    /// `--hermetic` cannot be kept: a sandbox layer is missing or weaker, or stage files are uncommitted.
    Hermetic,
    /// An artifact did not boot, or was refused.
    Boot,
    /// Two builds of the same revision and lock have different outputs.
    NotReproducible,
    /// `pnb inspect` or `pnb diff`: a file could not be read.
    Unreadable,
    /// `pnb challenge`, `pnb build --challenge`: fewer builders agree than must.
    Disagree,
    /// A given manifest cannot be read, or is malformed.
    Claim,
    /// A given manifest follows another version of the schema.
    ClaimVersion,
    /// A given manifest was made from another lock than the project has.
    OtherLock,
    /// A given manifest was made from another revision than the project has.
    OtherRevision,
    /// A given manifest was made by another pnb than this.
    OtherBuilder,
    /// Files beside a given manifest are missing or differ from the manifest.
    ClaimFiles,
    /// `pnb publish` refused before anything was written.
    PublishRefused,
    /// `pnb publish`: a registry refused, or was not there. Nothing has its final name.
    PublishRegistry,
    /// `pnb publish`: an identity or a service that signs was not there. Nothing has its final name.
    PublishSigning,
    /// `pnb publish`: the server of the release refused. The release is not visible.
    PublishRelease,
    /// `pnb publish`: everything is published, and the platform did not take the message.
    NotTold,
    /// An audit failed: 40 and up, one code for each [`Class`].
    Audit(Class),
    /// A signature does not count: 65 and up, one code for each [`RefusalClass`].
    Signature(RefusalClass),
    /// `pnb shell --command`: the code with which the command itself ended.
    Command(u8),
}

/// The code of a program that Ctrl-C ended, as a shell reports it: 128 and the number of SIGINT.
const INTERRUPTED: (u8, &str) = (130, "interrupted by Ctrl-C");

impl Exit {
    /// Every exit but those of an audit and of signatures, in the order of the codes. [`Exit::Different`] shares the code of [`Exit::Failure`].
    const ALL: [Exit; 25] = [
        Exit::Success,
        Exit::Failure,
        Exit::Different,
        Exit::Usage,
        Exit::Lock,
        Exit::Fetch,
        Exit::Store,
        Exit::Graph,
        Exit::Stage,
        Exit::Hermetic,
        Exit::Boot,
        Exit::NotReproducible,
        Exit::Unreadable,
        Exit::Disagree,
        Exit::Claim,
        Exit::ClaimVersion,
        Exit::OtherLock,
        Exit::OtherRevision,
        Exit::OtherBuilder,
        Exit::ClaimFiles,
        Exit::PublishRefused,
        Exit::PublishRegistry,
        Exit::PublishSigning,
        Exit::PublishRelease,
        Exit::NotTold,
    ];

    /// The code, and its meaning in a few words.
    const fn row(self) -> (u8, &'static str) {
        match self {
            Exit::Success => (0, "done"),
            Exit::Failure => (1, "any other failure"),
            Exit::Different => (1, "diff: the two differ"),
            Exit::Usage => (2, "wrong command line or policy, or no such file"),
            Exit::Lock => (3, "lock missing, malformed or out of date"),
            Exit::Fetch => (4, "a pinned file cannot be fetched"),
            Exit::Store => (EXIT_STORE, "store damaged, full or in use"),
            Exit::Graph => (6, "stage files invalid, or no graph"),
            Exit::Stage => (7, "a stage failed"),
            Exit::Hermetic => (EXIT_HERMETIC, "cannot be hermetic, or runs no stages here"),
            Exit::Boot => (9, "did not boot, or refused to boot"),
            Exit::NotReproducible => (10, "verify-repro: not reproducible"),
            Exit::Unreadable => (11, "inspect, diff: a file, or a part of it, cannot be read"),
            Exit::Disagree => (12, "challenge, build --challenge: too few builders agree"),
            Exit::Claim => (30, "manifest unreadable or malformed"),
            Exit::ClaimVersion => (31, "manifest of another schema version"),
            Exit::OtherLock => (32, "manifest of another lock"),
            Exit::OtherRevision => (33, "manifest of another revision"),
            Exit::OtherBuilder => (34, "manifest of another pnb"),
            Exit::ClaimFiles => (35, "files of a manifest missing or edited"),
            Exit::PublishRefused => (60, "publish: refused, nothing was written"),
            Exit::PublishRegistry => (61, "publish: a registry failed"),
            Exit::PublishSigning => (62, "publish: nothing could be signed"),
            Exit::PublishRelease => (63, "publish: the release failed"),
            Exit::NotTold => (64, "publish: published, platform not told"),
            Exit::Audit(class) => (class.exit_code(), class.as_str()),
            Exit::Signature(class) => (class.exit_code(), class.meaning()),
            Exit::Command(code) => (code, "shell --command: the command's own code"),
        }
    }

    /// The number.
    pub(super) const fn code(self) -> u8 {
        self.row().0
    }
}

/// The table for `pnb help`: a line for each code.
pub(super) fn help() -> String {
    let mut lines: Vec<String> = vec!["Exit codes:".to_owned()];
    let mut last = None;
    for (code, meaning) in Exit::ALL.map(Exit::row) {
        match lines.last_mut() {
            Some(line) if last == Some(code) => line.push_str(&format!("; {meaning}")),
            _ => lines.push(format!("  {code:>3}  {meaning}")),
        }
        last = Some(code);
    }
    for class in Class::ALL {
        let (code, meaning) = Exit::Audit(class).row();
        lines.push(format!("  {code:>3}  audit: {meaning}"));
    }
    for class in RefusalClass::ALL {
        let (code, meaning) = Exit::Signature(class).row();
        lines.push(format!("  {code:>3}  verify-signature: {meaning}"));
    }
    let (code, meaning) = INTERRUPTED;
    lines.push(format!("  {code:>3}  {meaning}"));
    lines.join("\n")
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Every code with the meanings that it has.
    fn table() -> BTreeMap<u8, Vec<&'static str>> {
        let mut rows: BTreeMap<u8, Vec<&str>> = BTreeMap::new();
        let audit = Class::ALL.map(|class| Exit::Audit(class).row());
        let refused = RefusalClass::ALL.map(|class| Exit::Signature(class).row());
        let all = Exit::ALL.map(Exit::row).into_iter().chain(audit).chain(refused);
        for (code, meaning) in all.chain([INTERRUPTED]) {
            rows.entry(code).or_default().push(meaning);
        }
        rows
    }

    /// The words by which a text is recognised as the meaning.
    fn words(text: &str) -> Vec<String> {
        let text = text.to_lowercase().replace('`', "");
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let short = ["a", "an", "the", "of", "or", "and", "any", "be", "as", "is", "by"];
        let words = words.filter(|word| !word.is_empty() && !short.contains(word));
        words.map(str::to_owned).collect()
    }

    /// The codes of a cell: `3`, `32 33 34` or `40–51`.
    fn codes(cell: &str) -> Vec<u8> {
        if let Some((first, last)) = cell.split_once('–')
            && let (Ok(first), Ok(last)) = (first.trim().parse::<u8>(), last.trim().parse::<u8>())
        {
            return (first..=last).collect();
        }
        cell.split_whitespace().map_while(|word| word.parse().ok()).collect()
    }

    #[test]
    fn the_table_is_sorted_and_no_code_is_used_twice_for_failures() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert!(codes.is_sorted(), "{codes:?}");
        let shared: Vec<u8> = table()
            .into_iter()
            .filter(|(_, m)| m.len() > 1)
            .map(|(c, _)| c)
            .collect();
        assert_eq!(shared, [1], "only `pnb diff` shares a code");
    }

    #[test]
    fn the_document_has_every_code_with_its_meaning_and_no_other() {
        let document = include_str!("../../docs/exit-codes.md");
        let section = document.split("\n## Exit codes\n").nth(1).expect("the section");
        let section = section.split("\n## ").next().expect("its end");
        let mut found: BTreeMap<u8, String> = BTreeMap::new();
        for line in section.lines().filter(|line| line.starts_with('|')) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            for pair in cells.windows(2) {
                for code in codes(pair[0]) {
                    let twice = found.insert(code, pair[1].to_owned());
                    assert_eq!(twice, None, "docs/exit-codes.md has the code {code} twice");
                }
            }
        }
        let table = table();
        let listed: Vec<u8> = found.keys().copied().collect();
        let known: Vec<u8> = table.keys().copied().collect();
        assert_eq!(
            listed, known,
            "the codes of docs/exit-codes.md (left) and of this program (right)"
        );
        for (code, meanings) in table {
            let text = words(&found[&code]);
            for meaning in meanings {
                let lost: Vec<String> = words(meaning).into_iter().filter(|word| !text.contains(word)).collect();
                let cell = &found[&code];
                assert!(
                    lost.is_empty(),
                    "docs/exit-codes.md, code {code}: {cell:?} does not say {lost:?} of {meaning:?}"
                );
            }
        }
    }

    #[test]
    fn the_document_of_the_audit_has_every_class_with_its_code() {
        let mut found: BTreeMap<u8, Vec<String>> = BTreeMap::new();
        for line in include_str!("../../docs/audit.md").lines() {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            if let [code, name, ..] = cells[..]
                && let Ok(code) = code.parse()
            {
                found.entry(code).or_default().push(name.trim_matches('`').to_owned());
            }
        }
        let classes: BTreeMap<u8, String> = Class::ALL.map(|c| (c.exit_code(), c.as_str().to_owned())).into();
        let listed: BTreeMap<u8, String> = found
            .into_iter()
            .map(|(code, mut names)| {
                names.dedup();
                (code, names.join(", "))
            })
            .collect();
        assert_eq!(
            listed, classes,
            "the classes of docs/audit.md (left) and of the program (right)"
        );
    }

    #[test]
    fn the_document_of_signatures_has_every_class_with_its_code() {
        let mut found: BTreeMap<u8, String> = BTreeMap::new();
        for line in include_str!("../../docs/signing.md").lines() {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            if let [code, name, ..] = cells[..]
                && let Ok(code) = code.parse()
            {
                found.insert(code, name.trim_matches('`').to_owned());
            }
        }
        let classes: BTreeMap<u8, String> = RefusalClass::ALL
            .map(|class| (class.exit_code(), class.as_str().to_owned()))
            .into();
        assert_eq!(found, classes, "docs/signing.md (left) and the program (right)");
    }

    #[test]
    fn help_has_every_code() {
        let help = help();
        for (code, meanings) in table() {
            let line = help
                .lines()
                .find(|line| line.trim_start().starts_with(&format!("{code} ")));
            let line = line.unwrap_or_else(|| panic!("no code {code} in:\n{help}"));
            assert!(meanings.iter().all(|meaning| line.contains(meaning)), "{line}");
        }
    }
}
