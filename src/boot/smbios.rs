//! `Smbios`: a value of the machine's DMI tables, by the name that Linux gives it below `/sys/class/dmi/id`.

use super::MachineError;

/// A value of the DMI tables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Smbios {
    /// Type of the structure (DMTF DSP0134).
    structure: u8,
    /// QEMU's name of the field.
    field: &'static str,
    value: String,
}

/// Linux's name, type of the structure, QEMU's name of the field.
const FIELDS: [(&str, u8, &str); 18] = [
    ("bios_vendor", 0, "vendor"),
    ("bios_version", 0, "version"),
    ("bios_date", 0, "date"),
    ("sys_vendor", 1, "manufacturer"),
    ("product_name", 1, "product"),
    ("product_version", 1, "version"),
    ("product_serial", 1, "serial"),
    ("product_uuid", 1, "uuid"),
    ("product_sku", 1, "sku"),
    ("product_family", 1, "family"),
    ("board_vendor", 2, "manufacturer"),
    ("board_name", 2, "product"),
    ("board_asset_tag", 2, "asset"),
    ("chassis_vendor", 3, "manufacturer"),
    ("chassis_version", 3, "version"),
    ("chassis_serial", 3, "serial"),
    ("chassis_asset_tag", 3, "asset"),
    ("oem_string", 11, "value"),
];

/// Longest value in bytes.
const MAX_VALUE: usize = 255;

impl Smbios {
    /// Parses `NAME=VALUE`; the names are those of Linux, and `oem_string`, which can be given several times.
    ///
    /// # Errors
    ///
    /// There is no such name, or the value is empty, long, or not printable ASCII.
    pub fn parse(text: &str) -> Result<Self, MachineError> {
        let bad = |problem: String| MachineError::Smbios {
            value: text.to_owned(),
            problem,
        };
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| bad("it is not NAME=VALUE".to_owned()))?;
        let Some((_, structure, field)) = FIELDS.iter().find(|(known, ..)| *known == name) else {
            let names: Vec<&str> = FIELDS.iter().map(|(known, ..)| *known).collect();
            return Err(bad(format!("the names are {}", names.join(", "))));
        };
        if value.is_empty() || value.len() > MAX_VALUE || !value.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            return Err(bad(format!(
                "the value must have 1 to {MAX_VALUE} printable ASCII characters"
            )));
        }
        Ok(Self {
            structure: *structure,
            field,
            value: value.to_owned(),
        })
    }

    /// The value of QEMU's `-smbios` for each structure.
    pub(super) fn arguments(all: &[Self]) -> Vec<String> {
        let mut arguments: Vec<(u8, String)> = Vec::new();
        for one in all {
            let field = format!(",{}={}", one.field, one.value.replace(',', ",,"));
            match arguments.iter_mut().find(|(structure, _)| *structure == one.structure) {
                Some((_, argument)) => *argument += &field,
                None => arguments.push((one.structure, format!("type={}{field}", one.structure))),
            }
        }
        arguments.into_iter().map(|(_, argument)| argument).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_structure_are_one_argument() {
        let texts = [
            "sys_vendor=Amazon EC2",
            "chassis_asset_tag=7783-7084",
            "product_name=a,b=c",
            "oem_string=one",
            "oem_string=two",
        ];
        let all: Vec<Smbios> = texts.map(|text| Smbios::parse(text).expect("valid")).to_vec();
        assert_eq!(
            Smbios::arguments(&all),
            [
                "type=1,manufacturer=Amazon EC2,product=a,,b=c",
                "type=3,asset=7783-7084",
                "type=11,value=one,value=two",
            ]
        );
        for (text, want) in [
            ("sys_vendor", "it is not NAME=VALUE"),
            ("vendor=x", "the names are bios_vendor, "),
            ("sys_vendor=", "1 to 255"),
            ("sys_vendor=ü", "printable ASCII"),
        ] {
            let error = Smbios::parse(text).expect_err("malformed").to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
