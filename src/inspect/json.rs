//! JSON as one field for each value, so that a comparison names the values that changed.
//!
//! A field is named by its path, e.g. `artifacts/kernel/sha256`. An element of a list is named by its identifier (its `name`, with the
//! architecture but without the version), or else by its index, so that an inserted package does not rename the elements behind it.

use super::part::{Fields, Look};
use serde_json::Value;
use std::collections::BTreeMap;

/// Values above this number are not listed.
const MAX_VALUES: usize = 500_000;
/// A longer path is cut, bytes: with hostile nesting the paths would need quadratic memory.
const MAX_PATH: usize = 512;

/// `None` when `text` is not one JSON object or list.
pub(super) fn look(text: &str) -> Option<Look> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let value: Value = serde_json::from_str(text).ok()?;
    let mut look = Look {
        format: "JSON",
        ..Look::default()
    };
    let mut waiting = vec![(String::new(), &value)];
    while let Some((path, value)) = waiting.pop() {
        if look.fields.len() + waiting.len() > MAX_VALUES {
            look.problem = Some(format!("it has more than {MAX_VALUES} values"));
            break;
        }
        let below = |name: &str| {
            let mut path = if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}/{name}")
            };
            if let Some((at, _)) = path.char_indices().find(|(at, _)| *at > MAX_PATH) {
                path.truncate(at);
            }
            path
        };
        match value {
            Value::Object(map) if !map.is_empty() => {
                waiting.extend(map.iter().map(|(name, value)| (below(name), value)))
            }
            Value::Array(list) if !list.is_empty() => {
                let names = names(list);
                waiting.extend(list.iter().zip(&names).map(|(value, name)| (below(name), value)));
            }
            Value::String(text) => insert(&mut look.fields, path, text.clone()),
            other => insert(&mut look.fields, path, other.to_string()),
        }
    }
    Some(look)
}

/// Inserts a field; the values of one cut path are joined.
fn insert(fields: &mut Fields, path: String, value: String) {
    fields
        .entry(path)
        .and_modify(|old| *old = format!("{old}, {value}"))
        .or_insert(value);
}

/// The names of the elements of a list.
fn names(list: &[Value]) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut out = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let id = text("name")
            .or_else(|| text("stage"))
            .or_else(|| text("ref"))
            .or_else(|| text("bom-ref"));
        let Some(id) = id else {
            out.push(index.to_string());
            continue;
        };
        let mut name = id.to_owned();
        if let Some(arch) = text("arch") {
            name = format!("{name}:{arch}");
        }
        let count = seen.entry(name.clone()).or_default();
        *count += 1;
        out.push(if *count > 1 { format!("{name}#{count}") } else { name });
    }
    out
}

/// The name of the package whose version a field holds: `packages/<name>/version` of a manifest, `components/<name>/version` of an
/// SBOM.
pub(super) fn package(path: &str) -> Option<&str> {
    let rest = path
        .strip_prefix("packages/")
        .or_else(|| path.strip_prefix("components/"))?;
    rest.strip_suffix("/version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_named_by_their_paths() {
        let text = r#"{"a":{"b":[1,{"name":"libc6","arch":"amd64","version":"2.41"}],"e":[]},"n":null}"#;
        let look = look(text).expect("JSON");
        let fields: Vec<String> = look.fields.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            fields,
            [
                "a/b/0=1",
                "a/b/libc6:amd64/arch=amd64",
                "a/b/libc6:amd64/name=libc6",
                "a/b/libc6:amd64/version=2.41",
                "a/e=[]",
                "n=null"
            ]
        );
        assert_eq!(package("packages/libc6:amd64/version"), Some("libc6:amd64"));
    }
}
