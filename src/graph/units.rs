//! Sizes and durations as they are written in `stage.toml`.

use std::time::Duration;

/// Parses a size, such as `"512MiB"`, `"2GiB"` or `"100"` (bytes).
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, unit) = split(text);
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("size {text:?} has no unit B, KiB, MiB or GiB")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("size {text:?} is not a number with a unit"))?;
    number
        .checked_mul(factor)
        .ok_or_else(|| format!("size {text:?} is too large"))
}

/// Parses a duration, such as `"30s"`, `"10min"` or `"1h"`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = split(text);
    let factor = match unit {
        "s" => 1,
        "min" => 60,
        "h" => 3600,
        _ => return Err(format!("duration {text:?} has no unit s, min or h")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("duration {text:?} is not a number with a unit"))?;
    number
        .checked_mul(factor)
        .map(Duration::from_secs)
        .ok_or_else(|| format!("duration {text:?} is too long"))
}

fn split(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_required_where_a_number_alone_says_nothing() {
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("7 KiB"), Ok(7 << 10));
        assert_eq!(parse_duration("10min"), Ok(Duration::from_secs(600)));
        for bad in [
            "",
            "GiB",
            "1GB",
            "-1MiB",
            "99999999999999999999B",
            "18446744073709551615GiB",
        ] {
            assert!(parse_size(bad).is_err(), "{bad:?} was accepted");
        }
        for bad in ["5", "5m", "s"] {
            assert!(parse_duration(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
