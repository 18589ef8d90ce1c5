//! Refusals: the system calls that pid 1 refused to programs of a stage.
//!
//! A program that ignores a refusal makes another output than it makes on a machine, without a word. So pid 1, which answers those calls
//! (`notify`), counts them by program and call, and a stage that ends well has failed all the same unless its [`Spec`] declares each of them.
//! The list is bounded: a stage can neither fill pid 1's memory with it nor hide a refusal behind others.

use super::{Spec, seccomp::Refused, sys};
use crate::model::{CallGroup, visible};
use nix::{
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::File,
    io::Read,
    os::fd::BorrowedFd,
};

/// Pairs of a program and a call that are listed, of undeclared ones and of declared ones each; others are only counted.
const LISTED: usize = 64;
/// Bytes of a command line, and of a text in a program's memory, that are shown.
const SHOWN: usize = 160;
/// The bytes of a program's name that the kernel keeps (`TASK_COMM_LEN` less the NUL byte).
const COMM: usize = 15;
/// Processes between a program and the maintainer script that it works for.
const ANCESTORS: usize = 16;
/// In a declaration: every program.
const ANY: &str = "*";

/// The refusals that a spec declares: groups of calls by the program's name, `*` for every program.
pub type DeclaredRefusals = BTreeMap<String, BTreeSet<CallGroup>>;

/// A system call that was refused to a program, once or more often.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RefusedCall {
    /// The program's name as the kernel keeps it: the first 15 bytes of the name of its file, or of its script.
    pub program: String,
    /// The name of the call.
    pub call: String,
    /// The call's group.
    pub group: CallGroup,
    /// How often.
    pub count: u64,
    /// The arguments of the first call, as far as they tell what was asked; may be empty.
    pub arguments: String,
    /// Command line of the program at the first call.
    pub command: String,
    /// The maintainer script that the program worked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
}

/// Whether the declaration covers calls of this group by this program.
fn covers(declared: &DeclaredRefusals, program: &str, group: CallGroup) -> bool {
    let named = |name: &str| name == ANY || kept(name.as_bytes()) == program.as_bytes();
    declared
        .iter()
        .any(|(name, groups)| named(name) && groups.contains(&group))
}

impl fmt::Display for RefusedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            program,
            call,
            arguments,
            command,
            ..
        } = self;
        write!(
            f,
            "{} to {}",
            visible(&format!("{call}({arguments})")),
            visible(program)
        )?;
        if self.count > 1 {
            write!(f, ", {} times", self.count)?;
        }
        write!(f, ": {}", visible(command))?;
        match &self.script {
            Some(script) => write!(f, ", for {}", visible(script)),
            None => Ok(()),
        }
    }
}

/// The bytes of a name that the kernel keeps.
fn kept(name: &[u8]) -> &[u8] {
    name.get(..COMM).unwrap_or(name)
}

/// The refusals of one run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Refusals {
    /// One for each program and call, in the order in which they came.
    pub list: Vec<RefusedCall>,
    /// Refusals of further pairs, which are not listed and not declared.
    pub further: u64,
    /// Declared refusals of further pairs, which are not listed, by group.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub further_declared: BTreeMap<CallGroup, u64>,
}

impl Refusals {
    /// Whether nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.further == 0 && self.further_declared.is_empty()
    }

    /// Whether no place is left for a further pair. Declared refusals have their own places: however many they are, they take none of the
    /// places of the others.
    fn is_full(&self, declared: &DeclaredRefusals, is_declared: bool) -> bool {
        let alike = |r: &&RefusedCall| covers(declared, &r.program, r.group) == is_declared;
        self.list.iter().filter(alike).count() >= LISTED
    }

    /// Whether the circumstances of a further refusal are of no use: one of that program and call is listed, or the list is full.
    pub(super) fn has(&self, program: &str, refused: &Refused, declared: &DeclaredRefusals) -> bool {
        let known = |r: &RefusedCall| r.program == program && r.call == refused.call;
        self.list.iter().any(known) || self.is_full(declared, covers(declared, program, refused.group))
    }

    /// Counts a refusal. Of those of one program and call, the circumstances of the first are kept.
    pub(super) fn count(
        &mut self,
        program: String,
        refused: &Refused,
        circumstances: CallContext,
        declared: &DeclaredRefusals,
    ) {
        let mut all = self.list.iter_mut();
        if let Some(known) = all.find(|r| r.program == program && r.call == refused.call) {
            known.count += 1;
            return;
        }
        let is_declared = covers(declared, &program, refused.group);
        if self.is_full(declared, is_declared) {
            match is_declared {
                true => *self.further_declared.entry(refused.group).or_default() += 1,
                false => self.further += 1,
            }
            return;
        }
        let CallContext {
            arguments,
            command,
            script,
        } = circumstances;
        self.list.push(RefusedCall {
            program,
            call: refused.call.to_owned(),
            group: refused.group,
            count: 1,
            arguments,
            command,
            script,
        });
    }

    /// The refusals that make a run with this spec a failure although it ended well. Pid 1 and the executor judge alike: a run that the log
    /// sink has stopped made no output, and is not judged.
    pub(super) fn judge(&self, spec: &Spec, stopped: bool) -> Option<Undeclared> {
        self.undeclared(spec.refused.as_ref().filter(|_| !stopped)?)
    }

    /// The refusals that are not declared, and the way out; `None` if all are.
    fn undeclared(&self, declared: &DeclaredRefusals) -> Option<Undeclared> {
        let mut lines = String::new();
        let mut wanted: DeclaredRefusals = BTreeMap::new();
        for refusal in self.list.iter().filter(|r| !covers(declared, &r.program, r.group)) {
            lines.push_str(&format!("\n  {refusal}"));
            let name = if can_be_named(&refusal.program) {
                &refusal.program
            } else {
                ANY
            };
            wanted.entry(name.to_owned()).or_default().insert(refusal.group);
        }
        if self.further > 0 {
            lines.push_str(&format!("\n  and {} of other programs or calls", self.further));
        }
        if lines.is_empty() {
            return None;
        }
        let programs: Vec<String> = wanted
            .iter()
            .map(|(program, groups)| {
                let groups: Vec<String> = groups.iter().map(|group| format!("\"{group}\"")).collect();
                format!("{} = [{}]", toml_key(program), groups.join(", "))
            })
            .collect();
        Some(Undeclared {
            lines,
            declaration: (!programs.is_empty()).then(|| format!("refused = {{ {} }}", programs.join(", "))),
        })
    }
}

/// Whether a declaration can have the name of a program that a process has given itself: [`problem`] finds nothing wrong with it, it is no
/// longer than the kernel keeps, and TOML and Rust write it alike.
fn can_be_named(program: &str) -> bool {
    let plain = |c: char| matches!(c, '"' | '\\' | '\'') || c.escape_debug().len() == 1;
    !is_no_program(program) && program.len() <= COMM && program.chars().all(plain)
}

/// Whether no file of a program has this name.
fn is_no_program(name: &str) -> bool {
    name.is_empty() || name.contains('/')
}

/// A key of a TOML table.
fn toml_key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) {
        name.to_owned()
    } else {
        format!("{name:?}")
    }
}

/// The refusals that a stage does not declare.
pub(super) struct Undeclared {
    /// Each in a line of its own, with a line feed before it.
    pub lines: String,
    /// The line of `stage.toml` that declares them; `None` if none of them is listed.
    pub declaration: Option<String>,
}

/// The circumstances of a refused call.
#[derive(Default)]
pub(super) struct CallContext {
    pub arguments: String,
    pub command: String,
    pub script: Option<String>,
}

/// An argument of a system call that tells what was asked.
#[derive(Clone, Copy)]
enum Argument {
    /// A string that ends with NUL, at this index.
    Text(usize),
    /// A mode, in octal digits.
    Mode(usize),
    /// An id or a number that is signed.
    Number(usize),
    /// A number of an interface, in hexadecimal digits.
    Hex(usize),
}

use Argument::{Hex, Mode as FileMode, Number, Text};

/// The arguments that are shown, by the name of the call.
fn shown_arguments(call: &str) -> &'static [Argument] {
    match call {
        "chroot" | "umount2" | "swapon" | "swapoff" | "acct" => &[Text(0)],
        "pivot_root" => &[Text(0), Text(1)],
        "mount" => &[Text(0), Text(1), Text(2)],
        "fsopen" => &[Text(0)],
        "open_tree" => &[Text(1)],
        "mknod" => &[Text(0), FileMode(1)],
        "mknodat" => &[Text(1), FileMode(2)],
        "renameat2" => &[Text(1), Text(3)],
        "setxattr" | "lsetxattr" => &[Text(0), Text(1)],
        "fsetxattr" => &[Text(1)],
        "setxattrat" | "removexattrat" => &[Text(1), Text(3)],
        "chown" | "lchown" => &[Text(0), Number(1), Number(2)],
        "fchown" => &[Number(1), Number(2)],
        "fchownat" => &[Text(1), Number(2), Number(3)],
        "ioctl" | "fcntl" => &[Hex(1)],
        "unshare" | "personality" | "clone" => &[Hex(0)],
        "socket" | "socketpair" => &[Number(0), Number(1), Number(2)],
        "add_key" | "request_key" => &[Text(0), Text(1)],
        "keyctl" | "ptrace" | "setpriority" | "bpf" => &[Number(0)],
        _ => &[],
    }
}

/// Reads of a waiting thread what a report says about it. Everything that it reads is the stage's own, and may be nonsense: it is shown, and
/// compared with the declaration of the stage itself, and nothing else depends on it.
pub(super) struct WaitingCaller<'a> {
    /// The procfs of the sandbox.
    pub proc: BorrowedFd<'a>,
    /// The waiting thread.
    pub thread: i32,
}

impl WaitingCaller<'_> {
    fn read(&self, process: i32, name: &str, most: usize) -> Option<Vec<u8>> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let path = format!("{process}/{name}");
        let file = File::from(openat(self.proc, path.as_str(), flags, Mode::empty()).ok()?);
        let mut bytes = Vec::new();
        file.take(most as u64).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// A number in the file `status` of a process.
    fn status(&self, process: i32, field: &str) -> Option<i32> {
        let text = self.read(process, "status", 4096)?;
        let text = String::from_utf8_lossy(&text);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        line.trim().parse().ok()
    }

    /// The process of the thread: a thread can have a name of its own.
    fn process(&self) -> i32 {
        self.status(self.thread, "Tgid").unwrap_or(self.thread)
    }

    /// The name of the program.
    pub(super) fn program(&self) -> String {
        let name = self.read(self.process(), "comm", COMM + 1).unwrap_or_default();
        String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name)).into_owned()
    }

    /// The command line of a process, without an emulator before it.
    fn command(&self, process: i32) -> Vec<String> {
        let bytes = self.read(process, "cmdline", 4 * SHOWN).unwrap_or_default();
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
        let words = bytes
            .split(|b| *b == 0)
            .map(|w| String::from_utf8_lossy(w).into_owned());
        let words: Vec<String> = words.collect();
        // The kernel puts the emulator and the path of the program before the program's own words (flag P of binfmt_misc).
        match words.first() {
            Some(first) if first == "/emulator" => words.into_iter().skip(2).collect(),
            _ => words,
        }
    }

    /// The nearest ancestor that runs a maintainer script: its path and its first argument, which says why dpkg calls it.
    fn script(&self) -> Option<String> {
        let mut process = self.process();
        for _ in 0..ANCESTORS {
            if process <= 1 {
                return None;
            }
            let words = self.command(process);
            if let Some(at) = words.iter().take(3).position(|word| is_maintainer_script(word)) {
                return Some(words.get(at..(at + 2).min(words.len()))?.join(" "));
            }
            process = self.status(process, "PPid")?;
        }
        None
    }

    /// The circumstances of the call.
    pub(super) fn circumstances(&self, call: &str, args: &[u64; 6]) -> CallContext {
        let arg = |n: usize| args.get(n).copied().unwrap_or(0);
        let text = |argument: &Argument| match *argument {
            Text(n) => format!("{:?}", self.text(arg(n))),
            FileMode(n) => format!("{:#o}", arg(n) & 0o17_7777),
            Number(n) => (arg(n) as i32).to_string(),
            Hex(n) => format!("{:#x}", arg(n) & u64::from(u32::MAX)),
        };
        let arguments: Vec<String> = shown_arguments(call).iter().map(text).collect();
        let command = self.command(self.process()).join(" ");
        CallContext {
            arguments: arguments.join(", "),
            command: cut(&command),
            script: self.script().map(|script| cut(&script)),
        }
    }

    /// Whether the call sets an access control list that says no more than a mode does. Programs that copy or edit a file (cp, install, sed)
    /// ask for that first, and set the mode where it is refused: the file is the same.
    pub(super) fn only_sets_mode(&self, call: &str, args: &[u64; 6]) -> bool {
        if !matches!(call, "setxattr" | "lsetxattr" | "fsetxattr") || self.text(args[1]) != ACCESS_LIST {
            return false;
        }
        let size = usize::try_from(args[3]).unwrap_or(usize::MAX);
        size <= SHOWN && is_mode(&sys::read_memory(self.thread, args[2], size))
    }

    /// The text at an address of the caller's memory; empty if there is none.
    fn text(&self, address: u64) -> String {
        let bytes = sys::read_memory(self.thread, address, SHOWN);
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }
}

/// The extended attribute with the access control list of a file.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// Whether an access control list has the entries of a mode only: owner, group and others. As linux/posix_acl_xattr.h has it: the version 2 in
/// 32 bits; for each entry its tag and its permissions in 16 bits each, and an id in 32, little endian.
fn is_mode(list: &[u8]) -> bool {
    /// `ACL_USER_OBJ`, `ACL_GROUP_OBJ`, `ACL_OTHER`.
    const TAGS: [u16; 3] = [0x01, 0x04, 0x20];
    let Some((version, entries)) = list.split_first_chunk::<4>() else {
        return false;
    };
    let tags: Vec<u16> = entries
        .chunks(8)
        .map(|e| e.first_chunk::<2>().map_or(0, |t| u16::from_le_bytes(*t)))
        .collect();
    u32::from_le_bytes(*version) == 2 && entries.len() == 8 * TAGS.len() && tags == TAGS
}

/// Whether dpkg runs this file as a script of a package: from its database, or from where it unpacks a new package's control files.
fn is_maintainer_script(word: &str) -> bool {
    let name = word.rsplit('/').next().unwrap_or(word);
    let kinds = ["preinst", "postinst", "prerm", "postrm"];
    let of_database = word.contains("/dpkg/info/") && kinds.iter().any(|kind| name.ends_with(&format!(".{kind}")));
    of_database || (word.contains("/dpkg/tmp.ci/") && kinds.contains(&name))
}

/// The beginning of a text.
fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What is wrong with the declaration of a spec.
pub(super) fn problem(spec: &Spec) -> Option<String> {
    let (name, _) = spec.refused.as_ref()?.iter().find(|(name, _)| is_no_program(name))?;
    Some(format!("refusals are declared by the name of a program, not {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(call: &'static str, group: CallGroup) -> Refused {
        Refused {
            call,
            group,
            errno: libc::EPERM,
        }
    }

    fn circumstances() -> CallContext {
        CallContext {
            arguments: "\"a\"".to_owned(),
            command: "mknod a c 1 3".to_owned(),
            script: None,
        }
    }

    fn declared(all: &[(&str, CallGroup)]) -> DeclaredRefusals {
        let mut declared = DeclaredRefusals::new();
        for (program, group) in all {
            declared.entry((*program).to_owned()).or_default().insert(*group);
        }
        declared
    }

    #[test]
    fn refusals_are_counted_by_program_and_call_and_bounded() {
        let mut refusals = Refusals::default();
        assert!(refusals.is_empty() && refusals.undeclared(&declared(&[])).is_none());
        for _ in 0..3 {
            refusals.count(
                "mknod".to_owned(),
                &refused("mknodat", CallGroup::Device),
                circumstances(),
                &declared(&[]),
            );
        }
        let text = refusals.undeclared(&declared(&[])).expect("one").lines;
        assert_eq!(text, "\n  mknodat(\"a\") to mknod, 3 times: mknod a c 1 3");
        for n in 0..200 {
            refusals.count(
                format!("p{n}"),
                &refused("mount", CallGroup::Mount),
                circumstances(),
                &declared(&[]),
            );
        }
        assert_eq!(
            (refusals.list.len(), refusals.further),
            (LISTED, 200 - (LISTED as u64 - 1))
        );
        // What is only counted cannot be declared.
        let all = declared(&[("*", CallGroup::Device), ("*", CallGroup::Mount)]);
        let found = refusals.undeclared(&all).expect("the further ones");
        assert_eq!(found.lines, "\n  and 137 of other programs or calls");
        assert_eq!(found.declaration, None);
    }

    #[test]
    fn declared_refusals_take_no_place_of_others() {
        let all = declared(&[("*", CallGroup::Mount)]);
        let mut refusals = Refusals::default();
        for n in 0..200 {
            let (program, mount) = (format!("p{n}"), refused("mount", CallGroup::Mount));
            assert_eq!(refusals.has(&program, &mount, &all), n >= LISTED, "{n}");
            refusals.count(program, &mount, circumstances(), &all);
        }
        assert_eq!((refusals.list.len(), refusals.further), (LISTED, 0));
        assert_eq!(
            refusals.further_declared,
            [(CallGroup::Mount, 200 - LISTED as u64)].into()
        );
        assert!(refusals.undeclared(&all).is_none());
        let device = refused("mknodat", CallGroup::Device);
        assert!(!refusals.has("mknod", &device, &all));
        refusals.count("mknod".to_owned(), &device, circumstances(), &all);
        let found = refusals.undeclared(&all).expect("one").declaration;
        assert_eq!(found.as_deref(), Some("refused = { mknod = [\"device\"] }"));
    }

    #[test]
    fn a_name_that_no_declaration_can_have_is_offered_as_every_program() {
        for (program, offered) in [
            ("a/b", "*"),
            ("", "*"),
            ("*", "*"),
            ("a\nb", "*"),
            ("\u{1b}[31m", "*"),
            ("\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}", "*"),
            ("a\u{301}", "*"),
            ("it's", "it's"),
            ("a \"b\" \\", "a \"b\" \\"),
            ("é", "é"),
        ] {
            let mut refusals = Refusals::default();
            let mount = refused("mount", CallGroup::Mount);
            refusals.count(program.to_owned(), &mount, circumstances(), &declared(&[]));
            let found = refusals.undeclared(&declared(&[])).expect("one").declaration;
            let line = found.expect("a declaration");
            let parsed: BTreeMap<String, DeclaredRefusals> = toml::from_str(&line).expect("TOML");
            assert_eq!(parsed["refused"], declared(&[(offered, CallGroup::Mount)]), "{line}");
            assert!(refusals.undeclared(&parsed["refused"]).is_none(), "{line}");
        }
    }

    #[test]
    fn pid_1_and_the_executor_judge_alike() {
        use crate::sandbox::{RootFs, Workload};
        let mut spec = Spec::new("s", RootFs::Empty, Workload::command(vec!["/a".to_owned()]));
        let mut refusals = Refusals::default();
        let mount = refused("mount", CallGroup::Mount);
        refusals.count("a".to_owned(), &mount, circumstances(), &declared(&[]));
        for (given, stopped, fails) in [
            (None, false, false),
            (Some(declared(&[])), false, true),
            (Some(declared(&[])), true, false),
            (Some(declared(&[("a", CallGroup::Mount)])), false, false),
        ] {
            spec.refused = given;
            assert_eq!(refusals.judge(&spec, stopped).is_some(), fails, "{:?}", spec.refused);
        }
    }

    #[test]
    fn a_command_is_shown_in_place_of_its_descriptor() {
        for call in ["ioctl", "fcntl"] {
            assert!(matches!(shown_arguments(call), [Hex(1)]), "{call}");
        }
    }

    #[test]
    fn a_declaration_covers_a_group_of_calls_of_one_program() {
        let mut refusals = Refusals::default();
        refusals.count(
            "setcap".to_owned(),
            &refused("setxattr", CallGroup::FileAttribute),
            circumstances(),
            &declared(&[]),
        );
        refusals.count(
            "deb-systemd-hel".to_owned(),
            &refused("mount", CallGroup::Mount),
            circumstances(),
            &declared(&[]),
        );
        refusals.count(
            "two words".to_owned(),
            &refused("mount", CallGroup::Mount),
            circumstances(),
            &declared(&[]),
        );
        for (given, left) in [
            (
                &[][..],
                Some(
                    "refused = { deb-systemd-hel = [\"mount\"], setcap = [\"file-attribute\"], \"two words\" = [\"mount\"] }",
                ),
            ),
            (
                &[
                    ("setcap", CallGroup::Mount),
                    ("*", CallGroup::FileAttribute),
                    ("deb-systemd-helper", CallGroup::Mount),
                ],
                Some("refused = { \"two words\" = [\"mount\"] }"),
            ),
            (
                &[("set", CallGroup::FileAttribute), ("*", CallGroup::Mount)],
                Some("refused = { setcap = [\"file-attribute\"] }"),
            ),
            (&[("*", CallGroup::FileAttribute), ("*", CallGroup::Mount)], None),
        ] {
            let found = refusals.undeclared(&declared(given)).and_then(|u| u.declaration);
            assert_eq!(found.as_deref(), left, "{given:?}");
        }
    }

    #[test]
    fn what_a_stage_wrote_is_shown_visibly_and_cut() {
        let mut refusals = Refusals::default();
        refusals.count(
            "\u{1b}[31m".to_owned(),
            &refused("mount", CallGroup::Mount),
            CallContext {
                arguments: String::new(),
                command: cut(&"é".repeat(1000)),
                script: Some("/var/lib/dpkg/info/a.postinst configure".to_owned()),
            },
            &declared(&[]),
        );
        let text = refusals.undeclared(&declared(&[])).expect("one").lines;
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(
            text.ends_with(&format!(
                "{}…, for /var/lib/dpkg/info/a.postinst configure",
                "é".repeat(SHOWN)
            )),
            "{text}"
        );
    }

    #[test]
    fn maintainer_scripts_are_known_by_their_place() {
        for (word, is) in [
            ("/var/lib/dpkg/info/iputils-ping.postinst", true),
            ("/var/lib/dpkg/info/libc6:amd64.preinst", true),
            ("/build/root/var/lib/dpkg/tmp.ci/preinst", true),
            ("/var/lib/dpkg/info/a.list", false),
            ("/tmp/postinst", false),
            ("postinst", false),
        ] {
            assert_eq!(is_maintainer_script(word), is, "{word}");
        }
    }

    #[test]
    fn an_access_control_list_without_names_is_a_mode() {
        let entry = |tag: u16| [tag.to_le_bytes().to_vec(), vec![6, 0, 0xff, 0xff, 0xff, 0xff]].concat();
        let list = |tags: &[u16]| [vec![2, 0, 0, 0], tags.iter().flat_map(|t| entry(*t)).collect()].concat();
        assert!(is_mode(&list(&[1, 4, 0x20])));
        for other in [
            list(&[]),
            list(&[1, 4]),
            list(&[1, 2, 4, 0x20]),
            list(&[1, 4, 0x10, 0x20]),
            list(&[1, 2, 0x20]),
            Vec::new(),
        ] {
            assert!(!is_mode(&other), "{other:?}");
        }
        let mut other_version = list(&[1, 4, 0x20]);
        other_version[0] = 1;
        assert!(!is_mode(&other_version));
        assert!(!is_mode(&list(&[1, 4, 0x20])[..27]));
    }
}
