//! [`Presented`]: what the files of an endpoint say of the one who asks, without anything secret.

#[cfg(feature = "remote")]
use super::token;
use super::{Endpoint, RemoteError};
#[cfg(feature = "remote")]
use crate::model::visible_message;

/// What pnb shows a server to prove who it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Presented {
    /// The bearer token.
    pub token: Option<PresentedToken>,
    /// The subject of the certificate of this client.
    pub certificate: Option<String>,
}

/// What a bearer token says of itself; a server may know more, or think otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PresentedToken {
    /// Whether it is a JSON Web Token. Others say nothing.
    pub is_jwt: bool,
    /// The claim `sub`.
    pub subject: Option<String>,
    /// The claim `exp`, in seconds since 1970.
    pub expires: Option<u64>,
}

impl Endpoint {
    /// What is shown to the server, from the files as they are now.
    ///
    /// # Errors
    ///
    /// As [`super::connect()`], for the files.
    pub fn presented(&self) -> Result<Presented, RemoteError> {
        #[cfg(not(feature = "remote"))]
        return Err(RemoteError::NotCompiled {
            url: self.address.to_string(),
        });
        #[cfg(feature = "remote")]
        Ok(Presented {
            token: token::TokenFile::open(self)?.get().map(|token| claims(token.text())),
            certificate: token::identity(self)?.and_then(|identity| identity.subject()),
        })
    }
}

/// What a token says of itself. Its signature is the server's matter.
#[cfg(feature = "remote")]
fn claims(token: &str) -> PresentedToken {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let mut parts = token.split('.');
    let (_, payload, signature) = (parts.next(), parts.next(), parts.next());
    let payload = payload.filter(|_| signature.is_some() && parts.next().is_none());
    let claims = payload.and_then(|payload| {
        let bytes = URL_SAFE_NO_PAD.decode(payload).ok()?;
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes).ok()
    });
    let Some(claims) = claims else {
        return PresentedToken::default();
    };
    let seconds = |value: &serde_json::Value| {
        let number = value.as_f64().filter(|number| *number >= 0.0)?;
        Some(std::time::Duration::try_from_secs_f64(number).ok()?.as_secs())
    };
    PresentedToken {
        is_jwt: true,
        subject: claims.get("sub").and_then(|sub| sub.as_str()).map(visible_message),
        expires: claims.get("exp").and_then(seconds),
    }
}

#[cfg(all(test, feature = "remote"))]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_who_and_until_when() {
        let jwt = |subject: Option<&str>, expires: Option<u64>| PresentedToken {
            is_jwt: true,
            subject: subject.map(str::to_owned),
            expires,
        };
        let opaque = PresentedToken::default();
        // {"sub":"ci","exp":1796000000}, {"exp":1.5e9}, {"sub":"a\nb"}, {"exp":-1,"sub":7}, a list.
        for (token, expected) in [
            (
                "e30.eyJzdWIiOiJjaSIsImV4cCI6MTc5NjAwMDAwMH0.c2ln",
                jwt(Some("ci"), Some(1_796_000_000)),
            ),
            ("e30.eyJleHAiOjEuNWU5fQ.c2ln", jwt(None, Some(1_500_000_000))),
            ("e30.eyJzdWIiOiJhXG5iIn0.c2ln", jwt(Some("a; b"), None)),
            ("e30.eyJleHAiOi0xLCJzdWIiOjd9.c2ln", jwt(None, None)),
            ("e30.WzFd.c2ln", opaque.clone()),
            ("e30.e30", opaque.clone()),
            ("e30.e30.e30.e30", opaque.clone()),
            ("secret", opaque),
        ] {
            assert_eq!(claims(token), expected, "{token}");
        }
    }
}
