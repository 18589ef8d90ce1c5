//! JSON, taken apart into one field per value, so that a comparison names what changed.
//!
//! A field is named by the way to it, `artifacts/kernel/sha256`. An element of a list is named by what identifies it (its
//! `name`, with architecture and version left out), or else by its number: a package that was inserted does not shift the rest.

use super::part::{Fields, Look};
use serde_json::Value;
use std::collections::BTreeMap;

/// More values than this are not taken apart.
const MAX_VALUES: usize = 500_000;
/// A longer way is cut, bytes: hostile nesting would make the fields quadratic.
const MAX_WAY: usize = 512;

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
    while let Some((way, value)) = waiting.pop() {
        if look.fields.len() + waiting.len() > MAX_VALUES {
            look.problem = Some(format!("it has more than {MAX_VALUES} values"));
            break;
        }
        let below = |name: &str| {
            let mut way = if way.is_empty() {
                name.to_owned()
            } else {
                format!("{way}/{name}")
            };
            if let Some((at, _)) = way.char_indices().find(|(at, _)| *at > MAX_WAY) {
                way.truncate(at);
            }
            way
        };
        match value {
            Value::Object(map) if !map.is_empty() => {
                waiting.extend(map.iter().map(|(name, value)| (below(name), value)))
            }
            Value::Array(list) if !list.is_empty() => {
                let names = names(list);
                waiting.extend(list.iter().zip(&names).map(|(value, name)| (below(name), value)));
            }
            Value::String(text) => insert(&mut look.fields, way, text.clone()),
            other => insert(&mut look.fields, way, other.to_string()),
        }
    }
    Some(look)
}

/// A way that was cut may lead to several values.
fn insert(fields: &mut Fields, way: String, value: String) {
    fields
        .entry(way)
        .and_modify(|old| *old = format!("{old}, {value}"))
        .or_insert(value);
}

/// What the elements of a list are called.
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

/// The versions of packages: fields `packages/<name>/version` of a manifest and `components/<name>/version` of an SBOM.
pub(super) fn package(way: &str) -> Option<&str> {
    let rest = way
        .strip_prefix("packages/")
        .or_else(|| way.strip_prefix("components/"))?;
    rest.strip_suffix("/version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_named_by_the_way_to_them() {
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
