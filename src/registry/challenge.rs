//! The header `WWW-Authenticate`: what a server wants before it answers.
//!
//! Source: RFC 9110, §11.2 (challenges), §5.6.4 (quoted strings). Every scheme begins a challenge of its own; parameters are separated by
//! commas, and so are challenges.

/// Longest header that is read, in bytes.
const LONGEST: usize = 8 << 10;
/// Most parameters in one header.
const MOST: usize = 32;

/// A challenge that pnb can answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AuthChallenge {
    /// User and password for the server itself.
    Basic,
    /// A token of the service at `realm`.
    Bearer {
        /// The address of the token service.
        realm: String,
        /// The name by which the token service knows the server.
        service: Option<String>,
        /// `insufficient_scope`, `invalid_token`, …
        error: Option<String>,
    },
}

/// The challenges of one header that pnb can answer, in its order. A header that is not well-formed has the challenges before its fault.
pub fn parse_challenges(header: &str) -> Vec<AuthChallenge> {
    let mut found = Vec::new();
    let Some(mut rest) = (header.len() <= LONGEST).then_some(header) else {
        return found;
    };
    let mut open: Option<(String, Vec<(String, String)>)> = None;
    for _ in 0..=MOST {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            break;
        }
        let next = after.trim_start_matches([' ', '\t']);
        if let Some(value) = next.strip_prefix('=').filter(|_| open.is_some()) {
            let Some((value, after)) = value_of(value.trim_start_matches([' ', '\t'])) else {
                break;
            };
            let Some((_, parameters)) = &mut open else { break };
            // The first of two wins; a second one would be an attempt at confusion.
            if !parameters.iter().any(|(name, _)| name.eq_ignore_ascii_case(word)) {
                parameters.push((word.to_owned(), value));
            }
            let after = after.trim_start_matches([' ', '\t']);
            if !after.is_empty() && !after.starts_with(',') {
                break;
            }
            rest = after;
        } else {
            found.extend(open.take().and_then(challenge));
            if !(after.is_empty() || after.starts_with([' ', '\t', ','])) {
                break;
            }
            open = Some((word.to_owned(), Vec::new()));
            rest = after;
        }
    }
    found.extend(open.and_then(challenge));
    found
}

/// The challenge of a scheme with its parameters.
fn challenge((scheme, parameters): (String, Vec<(String, String)>)) -> Option<AuthChallenge> {
    let get = |wanted: &str| {
        let mut values = parameters.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        values.next().map(|(_, value)| value.clone())
    };
    match scheme.to_ascii_lowercase().as_str() {
        "basic" => Some(AuthChallenge::Basic),
        "bearer" => Some(AuthChallenge::Bearer {
            realm: get("realm").filter(|realm| !realm.is_empty())?,
            service: get("service"),
            error: get("error"),
        }),
        _ => None,
    }
}

/// A token at the start of the text, perhaps an empty one, and the rest.
fn token(text: &str) -> (&str, &str) {
    let inside = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    text.split_at(text.find(|c| !inside(c)).unwrap_or(text.len()))
}

/// A token or a quoted string at the start of the text, and the rest.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(inner) = text.strip_prefix('"') else {
        let (value, rest) = token(text);
        return (!value.is_empty()).then(|| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &inner[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> AuthChallenge {
        AuthChallenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            error: None,
        }
    }

    #[test]
    fn challenges_of_common_servers_are_read() {
        let hub =
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        assert_eq!(
            parse_challenges(hub),
            [bearer("https://auth.example/token", Some("registry.example"))]
        );
        assert_eq!(parse_challenges("Basic realm=\"a, b\""), [AuthChallenge::Basic]);
        assert_eq!(parse_challenges("basic"), [AuthChallenge::Basic]);
        assert_eq!(
            parse_challenges("Negotiate, BEARER Realm = \"https://a/\" , Basic realm=\"x\""),
            [bearer("https://a/", None), AuthChallenge::Basic]
        );
        assert_eq!(
            parse_challenges("Bearer realm=\"https://a/\\\"b\",error=insufficient_scope"),
            [AuthChallenge::Bearer {
                realm: "https://a/\"b".into(),
                service: None,
                error: Some("insufficient_scope".into())
            }]
        );
    }

    #[test]
    fn a_malformed_header_has_no_challenge_behind_its_fault() {
        for bad in [
            "",
            "Bearer",
            "Bearer realm",
            "Bearer realm=\"https://a/",
            "Bearer realm=\"\"",
            "=x",
            "Digest a=b",
            "\"Basic\"",
        ] {
            assert_eq!(parse_challenges(bad), [], "{bad}");
        }
        let twice = "Bearer realm=\"https://a/\",realm=\"https://b/\"";
        assert_eq!(parse_challenges(twice), [bearer("https://a/", None)]);
        assert_eq!(
            parse_challenges("Bearer realm=\"https://a/\"x, Basic"),
            [bearer("https://a/", None)]
        );
        assert_eq!(parse_challenges(&format!("Basic {}", "x".repeat(LONGEST))), []);
    }
}
