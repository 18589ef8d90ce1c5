//! The machine that a program is for, from the first bytes of an ELF file.

use crate::model::Arch;
use object::elf as abi;
use std::fmt;

/// First bytes of every ELF file.
pub const MAGIC: &[u8; 4] = b"\x7fELF";
/// Bytes that [`ElfMachine::of_head`] needs at most: the header of a 64-bit file.
pub const HEAD_SIZE: usize = 64;
/// Bytes that it needs at least.
const LEAST: usize = 20;

/// Machine, word size and byte order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ElfMachine {
    number: u16,
    bits: u8,
    big_endian: bool,
}

impl ElfMachine {
    /// The machine of an architecture.
    pub const fn of(arch: Arch) -> Self {
        let number = match arch {
            Arch::Amd64 => abi::EM_X86_64.0,
            Arch::Arm64 => abi::EM_AARCH64.0,
        };
        Self {
            number,
            bits: 64,
            big_endian: false,
        }
    }

    /// The machine of the file that begins with these bytes; the error is the problem with them.
    pub fn of_head(head: &[u8]) -> Result<Self, &'static str> {
        if !head.starts_with(MAGIC) {
            return Err("it does not begin with the ELF magic");
        }
        if head.len() < LEAST {
            return Err("its header is cut off");
        }
        let bits = match abi::FileClass(head[4]) {
            abi::ELFCLASS32 => 32,
            abi::ELFCLASS64 => 64,
            _ => return Err("its class is neither 32 nor 64 bits"),
        };
        let number = [head[18], head[19]];
        let (number, big_endian) = match abi::DataEncoding(head[5]) {
            abi::ELFDATA2LSB => (u16::from_le_bytes(number), false),
            abi::ELFDATA2MSB => (u16::from_be_bytes(number), true),
            _ => return Err("its byte order is neither little nor big"),
        };
        Ok(Self {
            number,
            bits,
            big_endian,
        })
    }

    /// Whether words have 64 bits.
    pub const fn is_64_bit(self) -> bool {
        self.bits == 64
    }
}

/// The usual name, with word size and byte order where they are unusual.
impl fmt::Display for ElfMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, usual) = match abi::Machine(self.number) {
            abi::EM_X86_64 => ("x86-64", 64),
            abi::EM_AARCH64 => ("arm64", 64),
            abi::EM_386 => ("x86", 32),
            abi::EM_ARM => ("32-bit Arm", 32),
            abi::EM_RISCV => ("RISC-V", 64),
            abi::EM_BPF => ("BPF", 64),
            _ => ("", self.bits),
        };
        match name {
            "" => write!(f, "machine {}", self.number)?,
            name => f.write_str(name)?,
        }
        if self.bits != usual {
            write!(f, " with {} bits", self.bits)?;
        }
        if self.big_endian {
            f.write_str(", big-endian")?;
        }
        Ok(())
    }
}
