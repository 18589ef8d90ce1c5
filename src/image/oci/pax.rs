//! Records of a pax extended header, as a layer needs them: long paths and link targets, extended attributes.
//!
//! Each record is `LENGTH SPACE KEY = VALUE NEWLINE`, `LENGTH` being the decimal length of the whole record.
//! Source: POSIX.1-2017 pax, "pax Extended Header"; extended attributes as star and the image specification name them (`layer.md`).

/// Prefix of a record that carries an extended attribute.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records of one entry.
#[derive(Default)]
pub(super) struct Records(Vec<u8>);

impl Records {
    /// Adds `key` with `value`.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        // A space, an equals sign and a line feed, and the digits of the length, which count themselves.
        let rest = key.len() + value.len() + 3;
        let mut digits = rest.to_string().len();
        while (rest + digits).to_string().len() > digits {
            digits += 1;
        }
        self.0.extend_from_slice(format!("{} ", rest + digits).as_bytes());
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    /// Adds the extended attribute `name`.
    pub(super) fn xattr(&mut self, name: &[u8], value: &[u8]) {
        self.add(&[XATTR, name].concat(), value);
    }

    /// The bytes of the records; empty where the entry needs none.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_counts_itself() {
        let record = |value: usize| {
            let mut records = Records::default();
            records.add(b"path", &vec![b'x'; value]);
            records.bytes().to_vec()
        };
        assert_eq!(record(1), b"9 path=x\n");
        assert_eq!(record(0), b"8 path=\n");
        for size in 0..2000 {
            let bytes = record(size);
            let text = String::from_utf8(bytes.clone()).expect("ASCII");
            let length: usize = text.split(' ').next().expect("a length").parse().expect("a number");
            assert_eq!(length, bytes.len(), "a value of {size} bytes");
        }
    }
}
