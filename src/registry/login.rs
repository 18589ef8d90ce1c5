//! Login: which credentials go where, and tokens.
//!
//! A registry that answers 401 says by a challenge what it wants. User and password go to the registry itself (Basic) or to the token service
//! that it names (Bearer), whose tokens are kept by scope until they expire. Credentials leave this machine over TLS only, and they go to
//! a token service only if the registry named it over TLS, or both are on this machine.
//!
//! Source: distribution's "Token Authentication Specification" (GET) and its OAuth2 variant (POST, for identity tokens).

use super::{AuthChallenge, Credentials, RegistryError, parse_challenges};
use crate::{
    http::{
        Answer, HeaderValue, HttpClient, Method, Request, RequestBody, Retry, Uri, header, is_loopback, is_temporary,
        shown,
    },
    model::lock,
};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Mutex, time::Duration};

/// The life of a token whose service does not say it.
const LIFE: u64 = 60;
/// The longest life that is believed.
const LONGEST_LIFE: u64 = 24 * 3600;
/// A token is not used in the last seconds of its life.
const MARGIN: u64 = 10;
/// Most bytes of the answer of a token service.
const LARGEST: u64 = 256 << 10;

/// The login to one registry.
pub(super) struct Login {
    /// The host of the registry, with its port.
    registry: String,
    /// Its scheme and authority.
    origin: String,
    credentials: Credentials,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    challenge: Option<AuthChallenge>,
    /// Value of `Authorization` by scope, with the moment of the client's clock at which it ends.
    tokens: BTreeMap<String, (HeaderValue, Duration)>,
}

/// The answer of a token service.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Login {
    pub(super) fn new(registry: &str, origin: &str, credentials: Credentials) -> Self {
        Self {
            registry: registry.to_owned(),
            origin: origin.to_owned(),
            credentials,
            state: Mutex::default(),
        }
    }

    /// The value of `Authorization` for these scopes, as far as a challenge was seen before.
    pub(super) fn value(&self, http: &HttpClient, scopes: &[String]) -> Result<Option<HeaderValue>, RegistryError> {
        let challenge = lock(&self.state).challenge.clone();
        challenge
            .map(|challenge| self.respond(http, &challenge, scopes))
            .transpose()
    }

    /// The value of `Authorization` after an answer of 401; a token that was refused is not used again.
    pub(super) fn answer(
        &self,
        http: &HttpClient,
        refusal: &Answer,
        scopes: &[String],
        what: &str,
    ) -> Result<HeaderValue, RegistryError> {
        let unauthorized = |problem: &str| RegistryError::Unauthorized {
            what: what.to_owned(),
            registry: self.registry.clone(),
            problem: problem.to_owned(),
            text: refusal.said(),
        };
        let headers = refusal.headers.get_all(header::WWW_AUTHENTICATE).iter();
        let offered: Vec<AuthChallenge> = headers
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse_challenges)
            .collect();
        let token = offered.iter().find(|c| matches!(c, AuthChallenge::Bearer { .. }));
        let Some(challenge) = token.or(offered.first()).cloned() else {
            return Err(unauthorized("wants a login of a kind that pnb does not know"));
        };
        if challenge == AuthChallenge::Basic && self.credentials == Credentials::Anonymous {
            return Err(unauthorized("wants a user and password"));
        }
        let mut state = lock(&self.state);
        state.tokens.remove(&key(scopes));
        state.challenge = Some(challenge.clone());
        drop(state);
        self.respond(http, &challenge, scopes)
    }

    fn respond(
        &self,
        http: &HttpClient,
        challenge: &AuthChallenge,
        scopes: &[String],
    ) -> Result<HeaderValue, RegistryError> {
        let (realm, service) = match challenge {
            AuthChallenge::Basic => {
                self.check_encrypted(&self.origin)?;
                let basic = self.credentials.basic().ok_or_else(|| RegistryError::Unauthorized {
                    what: "log in".to_owned(),
                    registry: self.registry.clone(),
                    problem: "wants a user and password, and an identity token is given".to_owned(),
                    text: String::new(),
                })?;
                return self.sensitive(&basic, "the user or password");
            }
            AuthChallenge::Bearer { realm, service, .. } => (realm, service.as_deref()),
        };
        if let Some((value, end)) = lock(&self.state).tokens.get(&key(scopes))
            && *end > http.clock().elapsed()
        {
            return Ok(value.clone());
        }
        let begin = http.clock().elapsed();
        let (token, life) = self.token(http, realm, service, scopes)?;
        let value = self.sensitive(&format!("Bearer {token}"), "the token")?;
        let end = begin + Duration::from_secs(life.min(LONGEST_LIFE).saturating_sub(MARGIN));
        lock(&self.state).tokens.insert(key(scopes), (value.clone(), end));
        Ok(value)
    }

    /// Asks the token service for a token; returns it with its life in seconds.
    fn token(
        &self,
        http: &HttpClient,
        realm: &str,
        service: Option<&str>,
        scopes: &[String],
    ) -> Result<(String, u64), RegistryError> {
        self.check_realm(realm)?;
        let what = format!("log in to {}", self.registry);
        let mut fields: Vec<(&str, &str)> = Vec::new();
        fields.extend(service.map(|service| ("service", service)));
        let answer = if let Credentials::Identity(identity) = &self.credentials {
            // One field with all scopes, separated by spaces.
            let scope = scopes.join(" ");
            fields.extend([
                ("scope", scope.as_str()),
                ("grant_type", "refresh_token"),
                ("client_id", "pnb"),
                ("refresh_token", identity.as_str()),
            ]);
            let form = encoded(&fields);
            let mut request =
                Request::new(Method::POST, realm).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            request.body = RequestBody::Bytes(form.as_bytes());
            request.limit = LARGEST;
            request.retry = Retry::Safe;
            http.send(request)
        } else {
            fields.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
            if let Credentials::Password { user, .. } = &self.credentials {
                fields.push(("account", user));
            }
            let mark = if realm.contains('?') { '&' } else { '?' };
            let url = format!("{realm}{mark}{}", encoded(&fields));
            let mut request = Request::new(Method::GET, &url);
            request.limit = LARGEST;
            if let Some(basic) = self.credentials.basic() {
                let value = self.sensitive(&basic, "the user or password")?;
                request.headers.push((header::AUTHORIZATION, value));
            }
            http.send(request)
        };
        let answer = answer.map_err(|source| RegistryError::Http {
            what: what.clone(),
            source,
        })?;
        let service = format!("its token service {}", shown(realm));
        match answer.status {
            200 => {}
            401 | 403 => {
                return Err(RegistryError::Unauthorized {
                    what,
                    registry: self.registry.clone(),
                    problem: format!("refuses the login at {service}"),
                    text: answer.said(),
                });
            }
            status if is_temporary(status) => {
                return Err(RegistryError::Down {
                    what,
                    registry: service,
                    problem: format!("it answered {status}"),
                });
            }
            status => {
                return Err(RegistryError::Refused {
                    what,
                    registry: service,
                    status,
                    text: answer.said(),
                });
            }
        }
        // The parser's own message could quote the token.
        let parsed: Option<TokenAnswer> = serde_json::from_slice(&answer.body).ok();
        let life = parsed.as_ref().and_then(|p| p.expires_in).unwrap_or(LIFE).max(LIFE);
        let token = parsed.and_then(|p| p.token.filter(|t| !t.is_empty()).or(p.access_token));
        match token.filter(|token| !token.is_empty()) {
            Some(token) => Ok((token, life)),
            None => Err(RegistryError::Malformed {
                what,
                problem: format!("{service} gives no token"),
            }),
        }
    }

    /// Whether a token service may be asked, and may see the credentials.
    fn check_realm(&self, realm: &str) -> Result<(), RegistryError> {
        let refuse = |problem| RegistryError::Realm {
            registry: self.registry.clone(),
            realm: shown(realm),
            problem,
        };
        let uri: Uri = realm.parse().map_err(|_| refuse("is no address"))?;
        let local = |uri: &Uri| uri.host().is_some_and(is_loopback);
        let own: Option<Uri> = self.origin.parse().ok();
        let near = own.as_ref().is_some_and(local);
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if local(&uri) && near => {}
            Some("http") => return Err(refuse("is not https")),
            _ => return Err(refuse("is no address")),
        }
        if self.credentials != Credentials::Anonymous && !near && !self.origin.starts_with("https://") {
            return Err(refuse("was named over plain http; credentials are not sent there"));
        }
        Ok(())
    }

    /// Whether what goes to this address is encrypted, or stays on this machine.
    fn check_encrypted(&self, origin: &str) -> Result<(), RegistryError> {
        let uri: Option<Uri> = origin.parse().ok();
        let safe = uri.is_some_and(|uri| uri.scheme_str() == Some("https") || uri.host().is_some_and(is_loopback));
        match safe {
            true => Ok(()),
            false => Err(RegistryError::Realm {
                registry: self.registry.clone(),
                realm: shown(origin),
                problem: "is not https; user and password are not sent there",
            }),
        }
    }

    fn sensitive(&self, text: &str, name: &str) -> Result<HeaderValue, RegistryError> {
        let mut value = HeaderValue::from_str(text).map_err(|_| RegistryError::Malformed {
            what: format!("log in to {}", self.registry),
            problem: format!("{name} has a character that cannot stand in a header"),
        })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn key(scopes: &[String]) -> String {
    scopes.join(" ")
}

/// Fields as `application/x-www-form-urlencoded`.
fn encoded(fields: &[(&str, &str)]) -> String {
    let pairs = fields.iter().map(|(name, value)| format!("{name}={}", percent(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// A value of a query: all characters except the unreserved ones of RFC 3986 are encoded.
pub(super) fn percent(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 8);
    for b in value.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(b)),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(origin: &str, realm: &str, credentials: Credentials) -> Option<String> {
        let checked = Login::new("r.example", origin, credentials).check_realm(realm);
        let error = checked.err()?.to_string();
        let begin = format!("log in to r.example: its token service {} ", shown(realm));
        Some(error.strip_prefix(&begin)?.to_owned())
    }

    #[test]
    fn a_token_service_gets_credentials_over_tls_or_on_this_machine() {
        let user = || Credentials::Password {
            user: "u".to_owned(),
            password: "p".to_owned(),
        };
        let (far, plain, near) = ("https://r.example", "http://r.example", "http://127.0.0.1:5000");
        for (origin, realm, want) in [
            (far, "https://auth.example/token", None),
            (far, "http://auth.example/token", Some("is not https")),
            // A server elsewhere cannot send credentials to a port of this machine.
            (far, "http://127.0.0.1:80/token", Some("is not https")),
            (far, "file:///etc/passwd", Some("is no address")),
            (far, "", Some("is no address")),
            (near, "http://localhost:80/token?x=1", None),
            (near, "https://auth.example/token", None),
            (near, "http://auth.example/token", Some("is not https")),
            (
                plain,
                "https://auth.example/token",
                Some("was named over plain http; credentials are not sent there"),
            ),
            (plain, "http://r.example/token", Some("is not https")),
        ] {
            assert_eq!(problem(origin, realm, user()).as_deref(), want, "{origin} {realm}");
        }
        assert_eq!(
            problem(plain, "https://auth.example/token", Credentials::Anonymous),
            None
        );
    }

    #[test]
    fn a_password_goes_to_a_registry_over_tls_or_on_this_machine() {
        let login = Login::new("r.example", "http://r.example", Credentials::Anonymous);
        for (origin, good) in [
            ("https://r.example", true),
            ("http://[::1]:5000", true),
            ("http://r.example", false),
        ] {
            assert_eq!(login.check_encrypted(origin).is_ok(), good, "{origin}");
        }
    }

    #[test]
    fn a_value_of_a_query_is_encoded() {
        assert_eq!(
            encoded(&[("a", "b c&d=e"), ("f", "ü+/~")]),
            "a=b%20c%26d%3De&f=%C3%BC%2B%2F~"
        );
    }
}
