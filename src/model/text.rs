//! Text from outside, shortened and escaped for people.

/// A value from outside as a cell of a table: one line, with control characters escaped.
pub(crate) fn plain(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c.is_control() {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// Cuts a value from outside so that an error message stays one readable line.
pub(crate) fn excerpt(value: &str) -> String {
    let mut out: String = value.chars().take(80).collect();
    if out.len() < value.len() {
        out.push('…');
    }
    out
}
