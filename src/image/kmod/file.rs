//! Reads a module: a relocatable ELF object, 64-bit and little-endian, plain or in one xz stream, zstd frame or gzip member.
//!
//! | section | holds |
//! |---|---|
//! | `.modinfo` | `key=value`, NUL, one after the other |
//! | `.symtab` | the needed symbols are undefined; each exported symbol has a `__crc_<name>` |
//! | `__ksymtab_strings` | names of exported symbols, for a kernel without symbol versions |
//! | `__versions` | 64 bytes each: le64 checksum, name and NUL of a needed symbol, also of those missing in the symbol table |

use super::{ModuleFacts, module::refuse, prefix};
use crate::{image::ImageError, model::Arch};
use liblzma::stream::{Action, IGNORE_CHECK, Status, Stream};
use object::{
    LittleEndian,
    elf::{self, FileHeader64},
    read::elf::{FileHeader, SectionHeader, SectionTable, Sym},
};
use std::io::Read;

const XZ: &[u8] = b"\xfd7zXZ\0";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const GZIP: &[u8] = b"\x1f\x8b";
/// A module with more bytes, uncompressed, is refused. Debian's largest has 20 MiB.
const MAX_MODULE: usize = 512 << 20;
/// Memory limit of a decoder, bytes; modules are compressed with a dictionary of 1 MiB.
const MAX_MEMORY: u64 = 128 << 20;
/// log2 of the largest window of a zstd frame.
const MAX_WINDOW_LOG: u32 = 27;
/// Bytes that are unpacked before the next check whether they suffice.
const STEP: usize = 8 << 10;
/// The last bytes of an xz stream: a CRC-32 of the six bytes behind it, the length of the index, flags, and the magic [`XZ_END`].
const XZ_FOOTER: usize = 12;
const XZ_END: &[u8] = b"YZ";
/// Initial size of the buffer, bytes.
const FIRST_ROOM: usize = 4 << 20;
/// Bytes of an entry of `__versions`, and the offset of the name in it.
const VERSION: usize = 64;
const VERSION_NAME: usize = 8;

type ElfHeader = FileHeader64<LittleEndian>;
const ENDIAN: LittleEndian = LittleEndian;

/// Reads modules one after the other, with one buffer for all.
#[derive(Debug, Default)]
pub struct ModuleReader {
    plain: Vec<u8>,
    whole: usize,
}

impl ModuleReader {
    /// Reads the facts of the module `path`, relative to `lib/modules/<version>`, from its file `content`. A truncated file, one of
    /// another format, and one for an architecture other than `arch` are errors with the path.
    pub fn read(&mut self, path: &str, content: &[u8], arch: Arch) -> Result<ModuleFacts, ImageError> {
        let facts = ModuleFacts {
            path: path.to_owned(),
            ..ModuleFacts::default()
        };
        self.facts(facts, content, arch)
            .map_err(|problem| refuse(path, problem))
    }

    /// Number of xz streams that were unpacked to their end. For most kernels these are only the smallest modules; unpacking all to
    /// their end takes half as long again.
    pub fn whole(&self) -> usize {
        self.whole
    }

    fn facts(&mut self, facts: ModuleFacts, content: &[u8], arch: Arch) -> Result<ModuleFacts, String> {
        if content.starts_with(XZ) {
            let mut search = prefix::Search::default();
            let (plain, tables) = self.unpack_xz(content, |plain| search.look(plain))?;
            let Some((table, strings)) = tables else {
                let facts = whole_facts(facts, plain, arch);
                self.whole += 1;
                return facts;
            };
            if let Some(found) = prefix::found(plain, table, strings)
                && let Some(facts) = early_facts(facts.clone(), plain, &found, arch)?
            {
                return Ok(facts);
            }
            // The tables do not have the expected form: read the whole module.
            self.whole += 1;
            let (plain, _) = self.unpack_xz(content, |_| None::<()>)?;
            whole_facts(facts, plain, arch)
        } else if content.starts_with(ZSTD) {
            whole_facts(facts, self.unpack_zstd(content)?, arch)
        } else if content.starts_with(GZIP) {
            whole_facts(facts, self.unpack_gzip(content)?, arch)
        } else if content.starts_with(&elf::ELFMAG) {
            whole_facts(facts, content, arch)
        } else {
            Err("it is neither an ELF file nor one compressed with xz, zstd or gzip".to_owned())
        }
    }

    /// Unpacks until `enough`, which is called after each step with all bytes so far, returns a value; `None` is the end of the stream.
    fn unpack_xz<T>(
        &mut self,
        content: &[u8],
        mut enough: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<(&[u8], Option<T>), String> {
        let failed = |e: liblzma::stream::Error| format!("its xz stream is broken: {e}");
        check_xz_end(content)?;
        // The digest of the file was checked before, so the checksum within it adds nothing.
        let mut stream = Stream::new_stream_decoder(MAX_MEMORY, IGNORE_CHECK).map_err(failed)?;
        let mut done = 0;
        loop {
            if self.plain.len() < done + STEP {
                self.plain.resize((2 * done).max(FIRST_ROOM), 0);
            }
            let rest = &content[stream.total_in() as usize..];
            let room = &mut self.plain[done..done + STEP];
            let status = stream.process(rest, room, Action::Finish).map_err(failed)?;
            let more = stream.total_out() as usize - done;
            done += more;
            if matches!(status, Status::StreamEnd) {
                break;
            }
            if more == 0 {
                return Err("its xz stream is cut off".to_owned());
            }
            if done > MAX_MODULE {
                return Err(format!("it has more than {MAX_MODULE} bytes when unpacked"));
            }
            if let Some(answer) = enough(&self.plain[..done]) {
                return Ok((&self.plain[..done], Some(answer)));
            }
        }
        match content.len() as u64 - stream.total_in() {
            0 => Ok((&self.plain[..done], None)),
            more => Err(format!("it has {more} bytes after its xz stream")),
        }
    }

    fn unpack_zstd(&mut self, content: &[u8]) -> Result<&[u8], String> {
        let failed = |e: std::io::Error| format!("its zstd frame is broken: {e}");
        self.plain.clear();
        let mut decoder = zstd::Decoder::with_buffer(content).map_err(failed)?.single_frame();
        decoder.window_log_max(MAX_WINDOW_LOG).map_err(failed)?;
        let mut limited = (&mut decoder).take(MAX_MODULE as u64);
        limited.read_to_end(&mut self.plain).map_err(failed)?;
        if self.plain.len() == MAX_MODULE {
            return Err(format!("it has {MAX_MODULE} bytes or more when unpacked"));
        }
        match decoder.finish().len() {
            0 => Ok(&self.plain),
            more => Err(format!("it has {more} bytes after its zstd frame")),
        }
    }

    fn unpack_gzip(&mut self, content: &[u8]) -> Result<&[u8], String> {
        self.plain.clear();
        let mut rest = content;
        let mut decoder = flate2::bufread::GzDecoder::new(&mut rest);
        let mut limited = (&mut decoder).take(MAX_MODULE as u64);
        limited
            .read_to_end(&mut self.plain)
            .map_err(|e| format!("its gzip member is broken: {e}"))?;
        if self.plain.len() == MAX_MODULE {
            return Err(format!("it has {MAX_MODULE} bytes or more when unpacked"));
        }
        match rest.len() {
            0 => Ok(&self.plain),
            more => Err(format!("it has {more} bytes after its gzip member")),
        }
    }
}

/// Checks that an xz stream is complete by its footer, since most streams are not unpacked to their end.
fn check_xz_end(content: &[u8]) -> Result<(), String> {
    let footer = content.len().checked_sub(XZ_FOOTER).map(|at| &content[at..]);
    let sound = footer.is_some_and(|f| f.ends_with(XZ_END) && crc32fast::hash(&f[4..10]).to_le_bytes() == f[..4]);
    if sound {
        Ok(())
    } else {
        Err("its xz stream is cut off, or bytes follow it".to_owned())
    }
}

/// Checks that a file is a relocatable object for this architecture.
fn checked_header(elf: &[u8], arch: Arch) -> Result<&ElfHeader, String> {
    let header = ElfHeader::parse(elf).map_err(|e| format!("it is not a 64-bit ELF file: {e}"))?;
    if !header.is_little_endian() {
        return Err("it is not little-endian".to_owned());
    }
    let machine = match arch {
        Arch::Amd64 => elf::EM_X86_64,
        Arch::Arm64 => elf::EM_AARCH64,
    };
    if header.e_machine(ENDIAN) != machine {
        let found = header.e_machine(ENDIAN).0;
        return Err(format!(
            "it is for machine {found}, not for {arch} (machine {})",
            machine.0
        ));
    }
    if header.e_type(ENDIAN) != elf::ET_REL {
        return Err("it is not a relocatable object".to_owned());
    }
    Ok(header)
}

/// The facts from the tables found in a part of a module; `None` if the rest of the module is needed too.
fn early_facts(
    mut facts: ModuleFacts,
    plain: &[u8],
    found: &prefix::ModuleTables<'_>,
    arch: Arch,
) -> Result<Option<ModuleFacts>, String> {
    checked_header(plain, arch)?;
    modinfo(found.modinfo, &mut facts)?;
    for symbol in &found.symbols {
        take_symbol(symbol.name, symbol.undefined, &mut facts)?;
    }
    // Without symbol versions the exported symbols are in a section that only the section headers locate.
    let export = |name: &[u8]| name.starts_with(b"__ksymtab_") || name.starts_with(b"__kstrtab_");
    let exports = found.symbols.iter().any(|s| export(s.name));
    Ok((!exports || !facts.exports.is_empty()).then_some(facts))
}

fn whole_facts(mut facts: ModuleFacts, elf: &[u8], arch: Arch) -> Result<ModuleFacts, String> {
    let broken = |e: object::read::Error| format!("its ELF structures are broken: {e}");
    let header = checked_header(elf, arch)?;
    let sections = header.sections(ENDIAN, elf).map_err(broken)?;
    let section = |name: &str| match sections.section_by_name(ENDIAN, name.as_bytes()) {
        Some((_, section)) => section.data(ENDIAN, elf).map(Some).map_err(broken),
        None => Ok(None),
    };
    modinfo(section(".modinfo")?.ok_or("it has no .modinfo")?, &mut facts)?;
    symbols(&sections, elf, section("__versions")?, &mut facts)?;
    if facts.exports.is_empty() {
        let names = strings(section("__ksymtab_strings")?.unwrap_or_default());
        facts.exports = names.map(text).collect::<Result<_, _>>()?;
    }
    Ok(facts)
}

fn modinfo(section: &[u8], facts: &mut ModuleFacts) -> Result<(), String> {
    for entry in strings(section) {
        let Some(equals) = entry.iter().position(|b| *b == b'=') else {
            continue;
        };
        let list = match &entry[..equals] {
            b"alias" => &mut facts.aliases,
            b"softdep" => &mut facts.softdeps,
            b"weakdep" => &mut facts.weakdeps,
            _ => continue,
        };
        list.push(text(&entry[equals + 1..])?);
    }
    Ok(())
}

fn take_symbol(name: &[u8], undefined: bool, facts: &mut ModuleFacts) -> Result<(), String> {
    if let Some(exported) = name.strip_prefix(b"__crc_") {
        facts.exports.push(text(exported)?);
    }
    if undefined && !name.is_empty() {
        facts.needs.push(text(name)?);
    }
    Ok(())
}

/// Takes exported and needed symbols from the symbol table, and the remaining needed symbols from the versions.
fn symbols(
    sections: &SectionTable<'_, ElfHeader>,
    elf: &[u8],
    versions: Option<&[u8]>,
    facts: &mut ModuleFacts,
) -> Result<(), String> {
    let broken = |e: object::read::Error| format!("its symbol table is broken: {e}");
    let table = sections.symbols(ENDIAN, elf, elf::SHT_SYMTAB).map_err(broken)?;
    if table.is_empty() {
        return Err("it has no symbol table".to_owned());
    }
    let mut needed = Vec::new();
    // The first entry of a symbol table is always empty.
    for symbol in table.iter().skip(1) {
        let name = symbol.name(ENDIAN, table.strings()).map_err(broken)?;
        let undefined = symbol.st_shndx(ENDIAN) == elf::SHN_UNDEF;
        take_symbol(name, undefined, facts)?;
        if undefined {
            needed.push(name);
        }
    }
    needed.sort_unstable();
    let versions = versions.unwrap_or_default();
    if !versions.len().is_multiple_of(VERSION) {
        return Err(format!(
            "its section __versions has {} bytes, which is not a multiple of {VERSION}",
            versions.len()
        ));
    }
    for entry in versions.chunks_exact(VERSION) {
        let name = &entry[VERSION_NAME..];
        let end = name
            .iter()
            .position(|b| *b == 0)
            .ok_or("a name in its section __versions has no NUL")?;
        if needed.binary_search(&&name[..end]).is_err() {
            facts.needs.push(text(&name[..end])?);
        }
    }
    Ok(())
}

/// The strings of a section, separated by any number of NULs.
fn strings(section: &[u8]) -> impl Iterator<Item = &[u8]> {
    section.split(|b| *b == 0).filter(|s| !s.is_empty())
}

/// Text for an index, which must be printable ASCII.
fn text(bytes: &[u8]) -> Result<String, String> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.bytes().all(|b| (b' '..0x7f).contains(&b)) => Ok(text.to_owned()),
        _ => Err(format!(
            "it contains \"{}\", which is not printable ASCII",
            bytes.escape_ascii()
        )),
    }
}
