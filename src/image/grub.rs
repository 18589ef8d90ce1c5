//! GRUB for a BIOS, embedded into an image without a device.
//!
//! ```text
//! boot.img   512 bytes: jump · … · 0x5c le64 sector of the core image · 0x64 boot drive · 0x66 jump over a check · code · 55 aa
//! core.img   sector 0: code · 0x1f4 one run of the rest: le64 first sector · le16 sectors · le16 segment; the rest behind it
//! ```
//!
//! The BIOS runs the first 440 bytes of boot.img from the master boot record. They load the first sector of the core image, which
//! loads the rest. `grub-bios-setup` sets the same fields, but requires the disk as a device. Source: GRUB's
//! `include/grub/i386/pc/boot.h`, `grub-core/boot/i386/pc/{boot,diskboot}.S`, `util/{mkimage,setup}.c` (2.06 and 2.12).

use super::{
    ImageError,
    mbr::{BOOT_CODE, SECTOR},
};

const FORMAT: &str = "the boot code of GRUB";
const BOOT_IMG: &str = "boot.img";
const CORE_IMG: &str = "core.img";
/// First bytes of boot.img: `jmp` over the BPB, and `nop`.
const JUMP: [u8; 3] = [0xeb, 0x63, 0x90];
/// Offset of `GRUB_BOOT_MACHINE_KERNEL_SECTOR`, whose value is 1 until it is set.
const KERNEL_SECTOR: usize = 0x5c;
/// Offset of `GRUB_BOOT_MACHINE_BOOT_DRIVE`, whose value 0xff, "the drive that the BIOS passes", is kept.
const BOOT_DRIVE: usize = 0x64;
/// Offset of `GRUB_BOOT_MACHINE_DRIVE_CHECK`, a jump over code for BIOSes that pass a wrong drive number. On a disk, unlike on a
/// floppy, that code must run: the jump is replaced by two `nop`.
const DRIVE_CHECK: usize = 0x66;
const SKIP_CHECK: [u8; 2] = [0xeb, 0x05];
const RUN_CHECK: [u8; 2] = [0x90, 0x90];
/// Last bytes of boot.img.
const MAGIC: [u8; 2] = [0x55, 0xaa];
/// Offset in core.img's first sector of the only run; in front of it are 12 zeros, the end of the list of runs.
const RUN: usize = 0x200 - 12;
/// First sector of the run, until it is set.
const RUN_START: u64 = 2;
/// `GRUB_BOOT_MACHINE_KERNEL_SEG + 0x20`: the memory segment into which the run is loaded.
const RUN_SEGMENT: u16 = 0x820;
/// Bytes of memory from 0x8200 to the memory of the BIOS (`mkimage.c` has the same bound).
const MAX_CORE: usize = 0x7_8000;

/// Makes the boot code for the master boot record and the content of the BIOS boot partition, from GRUB's `boot.img` and a
/// `core.img` of `grub-mkimage -O i386-pc`. The partition begins at sector `first_lba` and has `sectors` sectors; the returned
/// content consists of whole sectors. A file with unexpected values in these fields, or a core image that does not fit, is an error
/// with the name of the file.
pub fn embed(
    boot_img: &[u8],
    core_img: &[u8],
    first_lba: u64,
    sectors: u64,
) -> Result<([u8; BOOT_CODE], Vec<u8>), ImageError> {
    let code = boot_code(boot_img, first_lba).map_err(|problem| refuse(BOOT_IMG, problem))?;
    let core = core(core_img, first_lba, sectors).map_err(|problem| refuse(CORE_IMG, problem))?;
    Ok((code, core))
}

fn refuse(path: &str, problem: String) -> ImageError {
    ImageError::Entry {
        format: FORMAT,
        path: path.to_owned(),
        problem,
    }
}

fn boot_code(image: &[u8], first_lba: u64) -> Result<[u8; BOOT_CODE], String> {
    if image.len() != SECTOR as usize {
        return Err(format!("it has {} bytes instead of 512", image.len()));
    }
    for (at, expected) in [
        (0, &JUMP[..]),
        (KERNEL_SECTOR, &1u64.to_le_bytes()),
        (BOOT_DRIVE, &[0xff]),
        (DRIVE_CHECK, &SKIP_CHECK),
        (SECTOR as usize - 2, &MAGIC),
    ] {
        let found = &image[at..at + expected.len()];
        if found != expected {
            let (found, expected) = (hex::encode(found), hex::encode(expected));
            return Err(format!("the value at byte {at:#x} is {found} instead of {expected}"));
        }
    }
    let mut code = [0; BOOT_CODE];
    code.copy_from_slice(&image[..BOOT_CODE]);
    code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&first_lba.to_le_bytes());
    code[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&RUN_CHECK);
    Ok(code)
}

fn core(image: &[u8], first_lba: u64, sectors: u64) -> Result<Vec<u8>, String> {
    let sector = SECTOR as usize;
    if image.len() <= sector || image.len() > MAX_CORE + sector {
        let most = MAX_CORE + sector;
        return Err(format!("it has {} bytes, not 513 to {most}", image.len()));
    }
    let mut core = image.to_vec();
    core.resize(image.len().next_multiple_of(sector), 0);
    let whole = (core.len() / sector) as u64;
    if whole > sectors {
        return Err(format!("it takes {whole} sectors, but the partition has {sectors}"));
    }
    let start = first_lba
        .checked_add(1)
        .ok_or_else(|| format!("no partition can begin at sector {first_lba}"))?;
    let length = u16::try_from(whole - 1).map_err(|_| format!("its {whole} sectors do not fit the 16-bit field"))?;
    let run = |start: u64| {
        let mut run = start.to_le_bytes().to_vec();
        run.extend(length.to_le_bytes());
        run.extend(RUN_SEGMENT.to_le_bytes());
        run
    };
    if core[RUN..sector] != run(RUN_START) {
        let (found, expected) = (hex::encode(&core[RUN..sector]), hex::encode(run(RUN_START)));
        return Err(format!("its run at byte {RUN:#x} is {found} instead of {expected}"));
    }
    if core[RUN - 12..RUN] != [0; 12] {
        return Err("its list of runs has more than one run".to_owned());
    }
    core[RUN..sector].copy_from_slice(&run(start));
    Ok(core)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of GRUB 2.12's boot.img, the code between them replaced.
    fn boot_img() -> Vec<u8> {
        let mut image = vec![0xcc; 512];
        image[..3].copy_from_slice(b"\xeb\x63\x90");
        image[0x5a..0x68].copy_from_slice(b"\x00\x80\x01\0\0\0\0\0\0\0\xff\xfa\xeb\x05");
        image[510..].copy_from_slice(b"\x55\xaa");
        image
    }

    /// The fields of a core.img of 108064 bytes, as `grub-mkimage` made one.
    fn core_img() -> Vec<u8> {
        let mut image = vec![0xcc; 108_064];
        image[0x1e0..0x200].fill(0);
        image[0x1f4..0x200].copy_from_slice(b"\x02\0\0\0\0\0\0\0\xd3\0\x20\x08");
        image
    }

    #[test]
    fn sets_the_fields_that_grub_bios_setup_sets_and_no_other() {
        let (code, core) = embed(&boot_img(), &core_img(), 0x1122_3344_5566, 2048).expect("fits");
        let mut wanted = boot_img();
        wanted[0x5c..0x64].copy_from_slice(b"\x66\x55\x44\x33\x22\x11\0\0");
        wanted[0x66..0x68].copy_from_slice(b"\x90\x90");
        assert_eq!(code, wanted[..440]);
        let mut wanted = core_img();
        wanted.resize(212 * 512, 0);
        wanted[0x1f4..0x200].copy_from_slice(b"\x67\x55\x44\x33\x22\x11\0\0\xd3\0\x20\x08");
        assert!(core == wanted);
    }

    #[test]
    fn a_file_that_is_something_else_is_named() {
        let error = |boot: &[u8], core: &[u8], sectors| {
            let error = embed(boot, core, 2048, sectors).expect_err("refused").to_string();
            error
                .strip_prefix("store \"")
                .expect("names the file")
                .replace("\" in the boot code of GRUB", "")
        };
        let (boot, core) = (boot_img(), core_img());
        assert_eq!(
            error(&boot[..511], &core, 2048),
            "boot.img: it has 511 bytes instead of 512"
        );
        for (at, told) in [
            (1, "the value at byte 0x0 is eb9c90"),
            (0x5c, "the value at byte 0x5c is fe00000000000000"),
            (0x64, "the value at byte 0x64 is 00 instead of ff"),
            (0x66, "the value at byte 0x66 is 1405 instead of eb05"),
            (0x1fe, "the value at byte 0x1fe is aaaa instead of 55aa"),
        ] {
            let mut other = boot.clone();
            other[at] ^= 0xff;
            let error = error(&other, &core, 2048);
            assert!(error.starts_with(&format!("boot.img: {told}")), "{error}");
        }
        for (at, told) in [
            (0x1f4, "its run at byte 0x1f4 is fd"),
            (0x1fc, "its run at byte 0x1f4 is 02000000000000002c"),
            (0x1fe, "its run at byte 0x1f4 is 0200000000000000d300df08"),
            (0x1f0, "its list of runs has more than one run"),
        ] {
            let mut other = core.clone();
            other[at] ^= 0xff;
            let error = error(&boot, &other, 2048);
            assert!(error.starts_with(&format!("core.img: {told}")), "{error}");
        }
        assert_eq!(
            error(&boot, &core, 211),
            "core.img: it takes 212 sectors, but the partition has 211"
        );
        assert!(error(&boot, &core[..512], 2048).contains("it has 512 bytes"));
        assert!(error(&boot, &[&core[..], &vec![0; 1 << 20]].concat(), 4096).contains("not 513 to"));
        assert!(embed(&boot, &core, u64::MAX, 2048).is_err());
    }
}
