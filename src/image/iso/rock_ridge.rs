//! Rock Ridge: POSIX names, modes, links and times, stored at the end of a directory record.
//!
//! An entry consists of a signature of two letters, a length, a version, and data. A `CE` entry names a continuation area elsewhere in
//! the image for entries that do not fit. Sources: SUSP 1.12 (`SP`, `CE`, `ST`), RRIP 1.12 (the other entries).

use super::format::{SECTOR, both32, corrupt, input, long_date, short_date};
use crate::image::{ImageError, ReadAt};

/// Most continuation areas of one record.
const MAX_CONTINUATIONS: usize = 32;
/// The reason why the content of a compressed file cannot be read from its extent.
pub(super) const COMPRESSED: &str = "it is compressed";
/// Longest name, `NAME_MAX`, and longest target of a link, `PATH_MAX`.
const MAX_NAME: usize = 255;
const MAX_TARGET: usize = 4095;
/// Flag in `NM` and `SL`: the name, target or component is continued in the next one.
const CONTINUE: u8 = 1;
/// Flags in `NM` and in components of `SL`: the directory itself, and its parent; in `SL` also the root.
const CURRENT: u8 = 2;
const PARENT: u8 = 4;
const ROOT: u8 = 8;
/// Flags in `TF`: the times that are present, and the form of 17 bytes.
const TF_CREATION: u8 = 1;
const TF_MODIFY: u8 = 2;
const TF_LONG: u8 = 128;

/// The `PX` entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Posix {
    /// `st_mode` with the file type.
    pub mode: u32,
    /// Number of links.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The statements of the entries of one record.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct RockRidge {
    pub(super) name: Option<Vec<u8>>,
    pub(super) posix: Option<Posix>,
    pub(super) target: Option<Vec<u8>>,
    /// Seconds since the Unix epoch.
    pub(super) modified: Option<i64>,
    /// Block of the directory for which the record stands, which was moved because of its depth.
    pub(super) moved_to: Option<u32>,
    /// Whether the record is that of a moved directory at its new place, where it is not shown.
    pub(super) moved: bool,
    /// The reason why the content cannot be read from the record's extent, if it cannot.
    pub(super) problem: Option<&'static str>,
}

/// Number of bytes to skip in front of the entries of every record. `area` is the system use area of the root's first record;
/// `None` when it does not announce Rock Ridge.
pub(super) fn announced(area: &[u8]) -> Option<usize> {
    match area {
        [b'S', b'P', 7, 1, 0xbe, 0xef, skip, ..] => Some(usize::from(*skip)),
        _ => None,
    }
}

/// Reads the entries in `area`, which lies at `offset` in the image, and in its continuation areas.
pub(super) fn parse(image: &impl ReadAt, area: &[u8], offset: u64) -> Result<RockRidge, ImageError> {
    let mut found = RockRidgeFields::default();
    let mut next = found.area(area, offset)?;
    for _ in 0..MAX_CONTINUATIONS {
        let Some((at, len)) = next else {
            return found.finish(offset);
        };
        let mut area = vec![0; len];
        image.read_exact_at(&mut area, at).map_err(|e| input(at, e))?;
        next = found.area(&area, at)?;
    }
    let problem = format!("Rock Ridge entries have more than {MAX_CONTINUATIONS} continuation areas");
    next.map_or_else(|| found.finish(offset), |_| Err(corrupt(offset, problem)))
}

#[derive(Default)]
struct RockRidgeFields {
    result: RockRidge,
    /// The name is continued in the next `NM`.
    name_open: bool,
    /// The target is continued in the next `SL`; `component_open`: so is its last component.
    target_open: bool,
    component_open: bool,
}

impl RockRidgeFields {
    /// Reads one area; returns offset and length of its continuation area.
    fn area(&mut self, mut area: &[u8], offset: u64) -> Result<Option<(u64, usize)>, ImageError> {
        let mut next = None;
        while let [a, b, len, _, ..] = *area {
            if a == 0 {
                break;
            }
            let broken = |what: &str| {
                let signature = [a, b];
                corrupt(
                    offset,
                    format!("the Rock Ridge entry \"{}\" {what}", signature.escape_ascii()),
                )
            };
            let entry = area.get(..usize::from(len)).filter(|e| e.len() >= 4);
            let entry = entry.ok_or_else(|| broken("has a length that does not fit its area"))?;
            area = &area[entry.len()..];
            let data = &entry[4..];
            let short = || broken("is cut off, or the two forms of a number differ");
            match &[a, b] {
                b"ST" => break,
                b"CE" => {
                    let number = |at| both32(data, at).map(u64::from).ok_or_else(short);
                    let (block, within, len) = (number(0)?, number(8)?, number(16)?);
                    if within >= SECTOR || len > SECTOR - within {
                        return Err(broken("names an area that crosses a sector"));
                    }
                    next = Some((block * SECTOR + within, len as usize));
                }
                b"NM" => self.name(data).map_err(broken)?,
                b"SL" => self.link(data).map_err(broken)?,
                b"PX" => {
                    let number = |at| both32(data, at).ok_or_else(short);
                    self.result.posix = Some(Posix {
                        mode: number(0)?,
                        links: number(8)?,
                        uid: number(16)?,
                        gid: number(24)?,
                    });
                }
                b"TF" => self.result.modified = modified(data).or(self.result.modified),
                b"CL" => self.result.moved_to = Some(both32(data, 0).ok_or_else(short)?),
                b"RE" => self.result.moved = true,
                b"ZF" => self.result.problem = Some(COMPRESSED),
                b"SF" => self.result.problem = Some("it is sparse"),
                // Other entries (SP, ER, RR, PL, PN, AL, …) are not needed.
                _ => {}
            }
        }
        Ok(next)
    }

    fn name(&mut self, data: &[u8]) -> Result<(), &'static str> {
        let (flags, part) = data.split_first().ok_or("is cut off")?;
        if flags & (CURRENT | PARENT) != 0 {
            return Ok(());
        }
        if self.result.name.is_some() && !self.name_open {
            return Err("is repeated");
        }
        let name = self.result.name.get_or_insert_default();
        if name.len() + part.len() > MAX_NAME {
            return Err("has a name of more than 255 bytes");
        }
        name.extend(part);
        self.name_open = flags & CONTINUE != 0;
        Ok(())
    }

    fn link(&mut self, data: &[u8]) -> Result<(), &'static str> {
        let (flags, mut components) = data.split_first().ok_or("is cut off")?;
        if self.result.target.is_some() && !self.target_open {
            return Err("is repeated");
        }
        let target = self.result.target.get_or_insert_default();
        while let [flags, len, rest @ ..] = components {
            let (part, rest) = rest.split_at_checked(usize::from(*len)).ok_or("is cut off")?;
            components = rest;
            if !self.component_open && !target.is_empty() && target != b"/" {
                target.push(b'/');
            }
            match flags & !CONTINUE {
                0 => target.extend(part),
                CURRENT => target.push(b'.'),
                PARENT => target.extend(b".."),
                ROOT => *target = b"/".to_vec(),
                _ => return Err("has a component of an unknown kind"),
            }
            self.component_open = flags & CONTINUE != 0;
            if target.len() > MAX_TARGET {
                return Err("has a target of more than 4095 bytes");
            }
        }
        self.target_open = flags & CONTINUE != 0;
        Ok(())
    }

    fn finish(self, offset: u64) -> Result<RockRidge, ImageError> {
        if self.name_open || self.target_open || self.component_open {
            return Err(corrupt(
                offset,
                "a Rock Ridge name or link target lacks its continuation",
            ));
        }
        Ok(self.result)
    }
}

/// The time of modification in the data of a `TF` entry.
fn modified(data: &[u8]) -> Option<i64> {
    let (flags, times) = data.split_first()?;
    let before = usize::from(flags & TF_CREATION != 0);
    if flags & TF_MODIFY == 0 {
        None
    } else if flags & TF_LONG != 0 {
        long_date(times.get(before * 17..)?)
    } else {
        short_date(times.get(before * 7..)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(value: u32) -> Vec<u8> {
        [value.to_le_bytes(), value.to_be_bytes()].concat()
    }
    fn entry(signature: &[u8; 2], data: &[u8]) -> Vec<u8> {
        let mut bytes = signature.to_vec();
        bytes.extend([data.len() as u8 + 4, 1]);
        bytes.extend(data);
        bytes
    }
    fn goes_on(block: u32, within: u32, len: u32) -> Vec<u8> {
        entry(b"CE", &[both(block), both(within), both(len)].concat())
    }
    fn problem(image: &Vec<u8>, area: &[u8]) -> String {
        parse(image, area, 0).expect_err("broken").to_string()
    }

    #[test]
    fn names_and_links_are_put_together_over_several_places() {
        let mut image = vec![0; 2 * SECTOR as usize];
        let rest = [
            entry(b"NM", b"\x00lo"),
            entry(b"SL", b"\x00\x01\x02ab\x00\x01c\x04\x00\x00\x01d"),
        ]
        .concat();
        image[2048 + 100..][..rest.len()].copy_from_slice(&rest);
        let first = [
            entry(b"NM", b"\x01hel"),
            entry(b"SL", b"\x01\x08\x00"),
            goes_on(1, 100, rest.len() as u32),
        ]
        .concat();
        let found = parse(&image, &first, 0).expect("valid");
        assert_eq!(found.name.as_deref(), Some(&b"hello"[..]));
        assert_eq!(found.target.as_deref(), Some(&b"/abc/../d"[..]));
        // Without the continuation area, both are incomplete.
        let alone = &first[..first.len() - 28];
        assert!(problem(&image, alone).contains("lacks its continuation"));
    }

    #[test]
    fn a_circle_and_a_place_outside_are_refused() {
        let mut image = vec![0; 2 * SECTOR as usize];
        let circle = goes_on(1, 0, 28);
        image[2048..][..28].copy_from_slice(&circle);
        assert!(problem(&image, &circle).contains("more than 32 continuation areas"));
        assert!(problem(&image, &goes_on(1, 2000, 49)).contains("names an area that crosses a sector"));
        assert!(problem(&image, &goes_on(1, 0, u32::MAX)).contains("names an area that crosses a sector"));
        assert!(problem(&image, &goes_on(u32::MAX, 0, 28)).starts_with("read an ISO 9660 image"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let image = Vec::new();
        let long = [
            entry(b"NM", &[&[1][..], &[b'n'; 200]].concat()),
            entry(b"NM", &[&[0][..], &[b'n'; 56]].concat()),
        ]
        .concat();
        for (area, text) in [
            (b"NM\x03\x01".to_vec(), "does not fit its area"),
            (b"NM\x07\x01\x00a".to_vec(), "does not fit its area"),
            (entry(b"NM", b""), "cut off"),
            ([entry(b"NM", b"\x00a"), entry(b"NM", b"\x00b")].concat(), "is repeated"),
            (long, "more than 255 bytes"),
            (entry(b"SL", b"\x00\x00\x02a"), "cut off"),
            (entry(b"SL", b"\x00\x10\x00"), "unknown kind"),
            (entry(b"PX", &[0; 31]), "cut off"),
            (entry(b"PX", &[1; 32]), ""),
        ] {
            if text.is_empty() {
                assert_eq!(
                    parse(&image, &area, 0).expect("valid").posix.map(|p| p.uid),
                    Some(0x0101_0101)
                );
            } else {
                assert!(problem(&image, &area).contains(text), "{}", area.escape_ascii());
            }
        }
        let link = [&[0][..], &[&[0, 100][..], &[b'a'; 100]].concat().repeat(2)].concat();
        let links = entry(b"SL", &[&[1], &link[1..]].concat()).repeat(21);
        assert!(problem(&image, &links).contains("more than 4095 bytes"));
    }

    #[test]
    fn the_time_of_modification_is_found_behind_that_of_creation() {
        let short = [125, 6, 15, 15, 6, 40, 0];
        assert_eq!(modified(&[&[3][..], &[0; 7], &short].concat()), Some(1_750_000_000));
        assert_eq!(modified(&[&[2][..], &short].concat()), Some(1_750_000_000));
        assert_eq!(
            modified(&[&[0x82][..], b"2025061515064000\0"].concat()),
            Some(1_750_000_000)
        );
        for none in [
            &[][..],
            &[1, 125, 6, 15, 15, 6, 40, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[2, 1, 1],
        ] {
            assert_eq!(modified(none), None);
        }
    }
}
