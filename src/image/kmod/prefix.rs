//! Finds the tables of a module in a prefix of its bytes, so that a compressed module need not be unpacked to its end.
//!
//! A linker lays a module out in this order, and states the offsets only in the section headers at the very end:
//!
//! ```text
//! header · content of the sections that are loaded, .modinfo among them · … · .symtab · .strtab · relocations · section headers
//! ```
//!
//! The relocations take a third of the time of unpacking and are not needed. So the symbol table is searched by its form while the
//! module is unpacked: an entry of zeros, the symbol of a section, further local symbols, the other symbols, and directly behind them
//! a table of strings with each symbol's name, printable but for the assembler's own labels. `.modinfo` is the section that contains
//! `vermagic=` and that the symbols of one section cover without a gap, because the kernel's build defines each `key=value` as an
//! object.
//!
//! The guess cannot change a result: a module whose tables do not have this form is unpacked to its end and read by its section
//! headers, and the tests compare both ways. The only purpose is the saved time of a kernel stage; docs/dependencies.md has the
//! measured saving, by which to judge whether this file is worth keeping. Without it, `file.rs` reads every module whole.
//!
//! The symbols that a module needs are in `__versions` too, at 14 % of the bytes of Debian's 6.12 for amd64 where the strings end at
//! 59 %. They are not taken from there: the order differs from the symbol table's, and modules.dep depends on it; a symbol that no
//! module exported when the module was built, and that is needed weakly, is missing; and no section in front says that exports are
//! not in one behind.
//!
//! Nor is anything else of `__versions` read: the only symbol in it that is missing in the symbol table is `module_layout`, which the
//! kernel itself has.

use memchr::memmem;
use object::{
    LittleEndian, Pod,
    elf::{self, FileHeader64, Sym64},
    read::elf::{FileHeader, Sym},
};
use std::ops::Range;

const ENDIAN: LittleEndian = LittleEndian;
/// Bytes of a symbol, and of the header of a file.
const SYMBOL: usize = size_of::<Sym64<LittleEndian>>();
const HEADER: usize = size_of::<FileHeader64<LittleEndian>>();
/// First bytes of a symbol table: the empty symbol, and name, type and visibility of the second symbol: none, `STT_SECTION`, local,
/// default.
const TABLE_START: [u8; SYMBOL + 6] = {
    let mut start = [0; SYMBOL + 6];
    start[SYMBOL + 4] = 3;
    start
};
/// Largest offset of a name that is accepted.
const MAX_NAMES: usize = 16 << 20;
/// The symbol of `struct module`, which every module has.
const THIS_MODULE: &[u8] = b"__this_module";
/// A key that the kernel's build puts into every `.modinfo`.
const VERMAGIC: &[u8] = b"vermagic=";

/// A symbol of the table.
pub(super) struct Symbol<'a> {
    /// Name.
    pub(super) name: &'a [u8],
    /// Whether it is undefined.
    pub(super) undefined: bool,
    section: u16,
    value: u64,
    size: u64,
}

/// The tables of a module.
pub(super) struct ModuleTables<'a> {
    /// Content of `.modinfo`.
    pub(super) modinfo: &'a [u8],
    /// Symbols in their order, without the empty first one.
    pub(super) symbols: Vec<Symbol<'a>>,
}

/// Searches the tables of a module while it is unpacked.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Offset in front of which no table begins.
    looked: usize,
    /// Offset of a possible table, and the number of its entries that were accepted so far.
    table: Option<(usize, usize)>,
}

impl Search {
    /// Searches `plain`, the module as far as it is unpacked, which must be longer in each call. Returns the ranges of the symbol table
    /// and of the strings behind it once both are complete.
    pub(super) fn look(&mut self, plain: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
        let header: &FileHeader64<LittleEndian> = at(plain, 0)?;
        let sections = header.e_shnum(ENDIAN);
        loop {
            let (start, mut count) = match self.table {
                Some(table) => table,
                None => (self.next_start(plain)?, 1),
            };
            while let Some(symbol) = at::<Sym64<LittleEndian>>(plain, start + count * SYMBOL) {
                if !is_symbol(symbol, sections) {
                    let strings = start + count * SYMBOL;
                    match strings_end(plain, start, strings) {
                        Strings::Complete(end) => return Some((start..strings, strings..end)),
                        Strings::Cut => {
                            self.table = Some((start, count));
                            return None;
                        }
                        Strings::Other => break,
                    }
                }
                count += 1;
            }
            if at::<Sym64<LittleEndian>>(plain, start + count * SYMBOL).is_none() {
                self.table = Some((start, count));
                return None;
            }
            // This was not a symbol table.
            self.table = None;
            self.looked = start + 1;
        }
    }

    fn next_start(&mut self, plain: &[u8]) -> Option<usize> {
        loop {
            let from = self.looked.max(HEADER);
            let Some(found) = memmem::find(plain.get(from..)?, &TABLE_START) else {
                self.looked = (plain.len() + 1).saturating_sub(TABLE_START.len()).max(from);
                return None;
            };
            if (from + found).is_multiple_of(8) {
                return Some(from + found);
            }
            self.looked = from + found + 1;
        }
    }
}

enum Strings {
    /// The strings are complete and end at this offset.
    Complete(usize),
    /// Some strings are not unpacked yet.
    Cut,
    /// The bytes are not a table of strings.
    Other,
}

/// Finds the end of the strings of the symbols from `start` to `strings`.
fn strings_end(plain: &[u8], start: usize, strings: usize) -> Strings {
    let last = symbols(plain, start..strings).map(|s| s.st_name(ENDIAN) as usize).max();
    let Some(last) = last.and_then(|last| plain.get(strings + last..)) else {
        return Strings::Cut;
    };
    let Some(length) = memchr::memchr(0, last) else {
        return Strings::Cut;
    };
    let end = plain.len() - last.len() + length + 1;
    let table = &plain[strings..end];
    let sound = table.len() > 1 && table[0] == 0 && table[1] != 0 && table.iter().all(|b| is_in_names(*b));
    if sound { Strings::Complete(end) } else { Strings::Other }
}

/// Whether a table of strings may contain a byte: a NUL, a printable one, or one that GNU as puts into its own names of the labels
/// `1:` and `1$:`, such as `.L14472^B1`. For arm64 those labels are kept in a third of the modules, among them the largest.
fn is_in_names(byte: u8) -> bool {
    matches!(byte, 0..=2) || byte.is_ascii_graphic()
}

fn is_symbol(symbol: &Sym64<LittleEndian>, sections: u16) -> bool {
    let section = symbol.st_shndx(ENDIAN).0;
    symbol.st_name(ENDIAN) as usize <= MAX_NAMES
        && matches!(symbol.st_bind(), elf::STB_LOCAL | elf::STB_GLOBAL | elf::STB_WEAK)
        && matches!(
            symbol.st_type(),
            elf::STT_NOTYPE | elf::STT_OBJECT | elf::STT_FUNC | elf::STT_SECTION | elf::STT_FILE
        )
        && symbol.st_other().0 <= 3
        && (section < sections || [elf::SHN_ABS.0, elf::SHN_COMMON.0].contains(&section))
}

/// Reads the tables that a search found; `None` when they are not those of a module.
pub(super) fn found(plain: &[u8], table: Range<usize>, strings: Range<usize>) -> Option<ModuleTables<'_>> {
    let before = &plain[..table.start];
    let names = &plain[strings];
    let mut known = Vec::new();
    let (mut others, mut this_module) = (false, false);
    for symbol in symbols(plain, table).skip(1) {
        // Local symbols come first.
        let local = symbol.st_bind() == elf::STB_LOCAL;
        if local && others {
            return None;
        }
        others |= !local;
        let name = names.get(symbol.st_name(ENDIAN) as usize..)?;
        let name = &name[..memchr::memchr(0, name)?];
        let undefined = symbol.st_shndx(ENDIAN) == elf::SHN_UNDEF;
        this_module |= name == THIS_MODULE && !undefined && symbol.st_type() == elf::STT_OBJECT;
        known.push(Symbol {
            name,
            undefined,
            section: symbol.st_shndx(ENDIAN).0,
            value: symbol.st_value(ENDIAN),
            size: symbol.st_size(ENDIAN),
        });
    }
    if !this_module {
        return None;
    }
    let modinfo = memmem::find_iter(before, VERMAGIC).find_map(|at| modinfo(before, at, &known))?;
    Some(ModuleTables {
        modinfo,
        symbols: known,
    })
}

/// The section `.modinfo`, if the string at `at` belongs to it.
fn modinfo<'a>(before: &'a [u8], at: usize, symbols: &[Symbol<'_>]) -> Option<&'a [u8]> {
    let length = memchr::memchr(0, &before[at..])? as u64 + 1;
    let candidates = symbols
        .iter()
        .filter(|s| s.size == length && s.section != elf::SHN_UNDEF.0);
    candidates.filter_map(|one| covered(before, at, one, symbols)).next()
}

/// The section of the symbol `one`, whose object is at `at`, if each object of the section is `key=value` with a NUL and follows the
/// previous one directly.
fn covered<'a>(before: &'a [u8], at: usize, one: &Symbol<'_>, symbols: &[Symbol<'_>]) -> Option<&'a [u8]> {
    let start = at.checked_sub(usize::try_from(one.value).ok()?)?;
    let mut objects: Vec<(u64, u64)> = symbols
        .iter()
        .filter(|s| s.section == one.section && s.size > 0)
        .map(|s| (s.value, s.size))
        .collect();
    objects.sort_unstable();
    let mut end = start;
    for (value, size) in objects {
        if start as u64 + value != end as u64 {
            return None;
        }
        let next = end.checked_add(usize::try_from(size).ok()?)?;
        let (nul, text) = before.get(end..next)?.split_last()?;
        if *nul != 0 || text.contains(&0) || !text.contains(&b'=') {
            return None;
        }
        end = next;
    }
    Some(&before[start..end])
}

fn symbols(plain: &[u8], table: Range<usize>) -> impl Iterator<Item = &Sym64<LittleEndian>> {
    table.step_by(SYMBOL).filter_map(|offset| at(plain, offset))
}

fn at<T: Pod>(plain: &[u8], offset: usize) -> Option<&T> {
    let bytes = plain.get(offset..)?;
    object::pod::from_bytes(bytes).ok().map(|(value, _)| value)
}
