//! `IdentityToken`: who signs, as an issuer says it. The fields are read to refuse early; they are never trusted.
//!
//! Source: RFC 7519 (JSON Web Token), RFC 7515 §3 (three parts of base64url).

use super::{config::SigningConfig, error::SignError};
use crate::model::visible;
use serde::Deserialize;
use sigstore_verify::types::PayloadBytes;
use std::fmt;

/// The audience of a token for sigstore.
pub const AUDIENCE: &str = "sigstore";
/// The most bytes of a token.
pub(super) const LIMIT: usize = 64 << 10;

/// The fields of a token that pnb looks at, unverified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenClaims {
    /// The issuer, `iss`.
    pub issuer: String,
    /// The subject, `sub`.
    pub subject: String,
    /// The address of a person, `email`.
    pub email: Option<String>,
    /// Whether the issuer says that the address is the person's.
    pub email_verified: Option<bool>,
    /// The audiences, `aud`.
    pub audiences: Vec<String>,
    /// Seconds since 1970 at which it expires, `exp`.
    pub expires: i64,
}

#[derive(Deserialize)]
struct WireClaims {
    iss: String,
    sub: String,
    email: Option<String>,
    email_verified: Option<OneFlag>,
    aud: OneOrSeveral,
    exp: serde_json::Number,
}

/// Some issuers write `"true"`.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneFlag {
    Flag(bool),
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrSeveral {
    One(String),
    Several(Vec<String>),
}

/// A token that stands for an identity. Whoever has it is that identity, so it is shown nowhere.
pub struct IdentityToken {
    text: String,
    claims: TokenClaims,
    origin: String,
}

impl fmt::Debug for IdentityToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityToken({} of {})", self.claims.subject, self.claims.issuer)
    }
}

impl IdentityToken {
    /// Reads a token; spaces and line feeds around it are left out. `origin` says in errors where it comes from.
    ///
    /// # Errors
    ///
    /// If it is no token, or lacks a field.
    pub fn parse(text: &str, origin: &str) -> Result<Self, SignError> {
        let bad = |problem: &str| SignError::Token {
            origin: origin.to_owned(),
            problem: problem.to_owned(),
            hint: None,
        };
        let text = text.trim();
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if text.len() > LIMIT {
            return Err(bad("it has more than 65536 bytes"));
        }
        let parts: Vec<&str> = text.split('.').collect();
        let [head, body, signature] = parts[..] else {
            return Err(bad("it is not three parts with dots between them"));
        };
        if [head, body, signature].iter().any(|part| decode(part).is_none()) {
            return Err(bad("a part of it is not base64"));
        }
        let body = decode(body).unwrap_or_default();
        // The message of the parser could quote the token.
        let wire: WireClaims =
            serde_json::from_slice(&body).map_err(|_| bad("its claims are not JSON with iss, sub, aud and exp"))?;
        // Some issuers write fractions of a second.
        let exp = &wire.exp;
        let expires = exp.as_i64().or_else(|| {
            let rounded = exp.as_f64().map(f64::floor);
            rounded
                .filter(|e| e.abs() < 1e15)
                .and_then(|e| format!("{e}").parse().ok())
        });
        let claims = TokenClaims {
            issuer: wire.iss,
            subject: wire.sub,
            email: wire.email.filter(|email| !email.is_empty()),
            email_verified: wire.email_verified.map(|flag| match flag {
                OneFlag::Flag(flag) => flag,
                OneFlag::Text(text) => text == "true",
            }),
            audiences: match wire.aud {
                OneOrSeveral::One(one) => vec![one],
                OneOrSeveral::Several(several) => several,
            },
            expires: expires.ok_or_else(|| bad("its exp is no time"))?,
        };
        Ok(Self {
            text: text.to_owned(),
            claims,
            origin: origin.to_owned(),
        })
    }

    /// The fields, unverified.
    pub fn claims(&self) -> &TokenClaims {
        &self.claims
    }

    /// The token itself, for the certificate authority and nobody else.
    pub(super) fn secret(&self) -> &str {
        &self.text
    }

    /// The claim that the proof of possession signs: the address if there is one, else the subject.
    pub(super) fn challenge(&self) -> &str {
        self.claims.email.as_deref().unwrap_or(&self.claims.subject)
    }

    /// Refuses a token that cannot get a certificate, before it is sent anywhere.
    ///
    /// # Errors
    ///
    /// If it is expired, is for another audience, is of an issuer that the configuration does not list, or names an address that nobody
    /// has verified.
    pub fn check(&self, config: &SigningConfig, now: i64) -> Result<(), SignError> {
        let claims = &self.claims;
        let bad = |problem: String, hint| SignError::Token {
            origin: self.origin.clone(),
            problem,
            hint: Some(hint),
        };
        if claims.expires <= now {
            let problem = format!("it expired at {}", rfc3339(claims.expires));
            return Err(bad(
                problem,
                "ask for a new one right before signing; it lives for minutes",
            ));
        }
        if !claims.audiences.iter().any(|audience| audience == AUDIENCE) {
            let problem = format!(
                "its audience is {}, not {AUDIENCE}",
                visible(&claims.audiences.join(", "))
            );
            return Err(bad(problem, "ask the issuer for a token with the audience sigstore"));
        }
        config
            .admits(&claims.issuer, now)
            .map_err(|(problem, hint)| bad(problem, hint))?;
        if claims.email.is_some() && claims.email_verified == Some(false) {
            let problem = "its issuer has not verified the e-mail address".to_owned();
            return Err(bad(problem, "verify the address of the account at the issuer"));
        }
        Ok(())
    }
}

/// Seconds since 1970 as RFC 3339.
pub(super) fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| format!("second {seconds}"), |time| time.to_string())
}

/// Decodes base64url without padding.
fn decode(part: &str) -> Option<Vec<u8>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if part.is_empty() || !part.chars().all(plain) {
        return None;
    }
    let mut text = part.replace('-', "+").replace('_', "/");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    PayloadBytes::from_base64(&text).ok().map(PayloadBytes::into_bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const NOW: i64 = 1_790_000_000;

    /// A token with these claims.
    pub(in super::super) fn token(claims: &serde_json::Value) -> String {
        let part = |text: &str| {
            let text = PayloadBytes::from_bytes(text.as_bytes()).to_base64();
            text.trim_end_matches('=').replace('+', "-").replace('/', "_")
        };
        format!("{}.{}.c2ln", part("{\"alg\":\"none\"}"), part(&claims.to_string()))
    }

    fn claims() -> serde_json::Value {
        serde_json::json!({"iss": "https://git.example/api/actions", "sub": "repo:a/b", "aud": "sigstore", "exp": NOW + 300})
    }

    fn config() -> SigningConfig {
        let text = serde_json::json!({
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "oidcUrls": [{"url": "https://git.example/api/actions", "majorApiVersion": 1,
                "validFor": {"start": "2020-01-01T00:00:00Z"}}],
        });
        SigningConfig::parse(text.to_string().as_bytes(), "c.json").expect("valid")
    }

    fn checked(edit: impl Fn(&mut serde_json::Value)) -> Result<(), String> {
        let mut claims = claims();
        edit(&mut claims);
        let token = IdentityToken::parse(&format!(" {}\n", token(&claims)), "t").map_err(|e| e.to_string())?;
        token.check(&config(), NOW).map_err(|e| e.to_string())
    }

    #[test]
    fn a_token_that_cannot_work_is_refused_by_name() {
        assert_eq!(checked(|_| ()), Ok(()));
        assert_eq!(checked(|c| c["aud"] = serde_json::json!(["x", "sigstore"])), Ok(()));
        assert_eq!(checked(|c| c["exp"] = serde_json::json!(NOW as f64 + 300.5)), Ok(()));
        for (edit, want) in [
            (
                &(|c: &mut serde_json::Value| c["exp"] = NOW.into()) as &dyn Fn(&mut serde_json::Value),
                "it expired at 2026-09-21T14:13:20Z",
            ),
            (&|c| c["aud"] = "other".into(), "its audience is other, not sigstore"),
            (
                &|c| c["iss"] = "https://x.example".into(),
                "its issuer is https://x.example, and c.json lists https://git.example/api/actions",
            ),
            (
                &|c| {
                    c["email"] = "a@b".into();
                    c["email_verified"] = false.into();
                },
                "its issuer has not verified the e-mail address",
            ),
            (
                &|c| c["sub"] = serde_json::Value::Null,
                "its claims are not JSON with iss, sub, aud and exp",
            ),
            (&|c| c["exp"] = 1e300.into(), "its exp is no time"),
        ] {
            assert_eq!(checked(edit), Err(format!("use the identity token of t: {want}")));
        }
    }

    #[test]
    fn text_that_is_no_token_is_refused_and_not_quoted() {
        let long = "a".repeat(LIMIT + 1);
        for (text, want) in [
            ("", "it is empty"),
            (" \n", "it is empty"),
            ("secret", "it is not three parts with dots between them"),
            ("secret.secret", "it is not three parts with dots between them"),
            ("a.b.c.d", "it is not three parts with dots between them"),
            ("secret!.YQ.YQ", "a part of it is not base64"),
            ("YQ..YQ", "a part of it is not base64"),
            ("YQ.c2VjcmV0.YQ", "its claims are not JSON with iss, sub, aud and exp"),
            (&long, "it has more than 65536 bytes"),
        ] {
            let said = IdentityToken::parse(text, "t").expect_err("refused").to_string();
            assert_eq!(said, format!("use the identity token of t: {want}"), "{text:.20}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let text = token(&claims());
        let token = IdentityToken::parse(&text, "t").expect("a token");
        assert_eq!(
            format!("{token:?}"),
            "IdentityToken(repo:a/b of https://git.example/api/actions)"
        );
        assert_eq!(token.secret(), text);
        assert_eq!(token.challenge(), "repo:a/b");
    }
}
