//! ELF files: the fields that decide whether a program can run in a root.
//!
//! ```text
//! 0x00  "\x7fELF" · class (1: 32 bits, 2: 64) · byte order (1: little, 2: big)
//! 0x10  le16 type · le16 machine
//! 0x20  le64 offset of the program headers (64 bits); le16 at 0x36 and 0x38: size and number of them
//!       PT_INTERP   path of the interpreter, the dynamic loader
//!       PT_DYNAMIC  pairs of tag and value; names in it are offsets into the table of strings at DT_STRTAB
//!       PT_LOAD     the address of a range of the file: DT_STRTAB is an address
//! ```
//!
//! Program headers are read, not sections, as the kernel and the dynamic loader do: a stripped file may have no sections. The crate
//! `object` has the structures. Source: the System V ABI, chapters 4 and 5 (<https://gabi.xinuos.com>), and `elf(5)`.

mod machine;
mod reader;
#[cfg(test)]
#[path = "../../../tests/fixture/elf.rs"]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

pub use machine::{ElfMachine, HEAD_SIZE, MAGIC};
pub use reader::{Elf, ElfKind, read_elf};
