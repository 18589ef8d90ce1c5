//! `SigningConfig`: which services sign.
//!
//! The file is JSON of the media type `application/vnd.dev.sigstore.signingconfig.v0.2+json`, the one that cosign 3 reads. Source: the
//! message `SigningConfig` of <https://github.com/sigstore/protobuf-specs>.

use super::error::SignError;
use crate::model::{visible, visible_message};
use sigstore_verify::trust_root::{
    self, SIGSTORE_PRODUCTION_SIGNING_CONFIG, ServiceConfiguration, ServiceEndpoint, ServiceSelector,
};

/// The word with which a user names the public instance of sigstore in place of a file.
pub const PUBLIC_GOOD: &str = "public-good";
/// The most bytes of the file.
const LIMIT: usize = 1 << 20;
/// The most services of one kind that sign one thing.
const MOST: usize = 8;
/// How the issuers of Gitea and Forgejo end.
const FORGE_ISSUER: &str = "/api/actions";

/// A service at its address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceUrl {
    /// The address, without a slash at its end.
    pub url: String,
    /// The major version of its interface.
    pub version: u32,
}

/// The services that sign.
#[derive(Clone, Debug)]
pub struct SigningConfig {
    name: String,
    inner: trust_root::SigningConfig,
    /// The public instance trusts issuers that its file does not list.
    public: bool,
}

impl SigningConfig {
    /// Reads a configuration; `name` is its file in errors.
    ///
    /// # Errors
    ///
    /// If it is no configuration of this form.
    pub fn parse(text: &[u8], name: &str) -> Result<Self, SignError> {
        let bad = |problem: String| SignError::Config {
            name: visible(name),
            problem,
        };
        if text.len() > LIMIT {
            return Err(bad(format!("it has more than {LIMIT} bytes")));
        }
        let text = std::str::from_utf8(text).map_err(|_| bad("it is not UTF-8".to_owned()))?;
        let inner = trust_root::SigningConfig::from_json(text).map_err(|e| bad(visible_message(&e.to_string())))?;
        Ok(Self {
            name: visible(name),
            inner,
            public: false,
        })
    }

    /// The public instance, as it was when the crate that has it was released.
    ///
    /// # Errors
    ///
    /// If the crate's file is not readable.
    pub fn public_good() -> Result<Self, SignError> {
        let config = Self::parse(SIGSTORE_PRODUCTION_SIGNING_CONFIG.as_bytes(), PUBLIC_GOOD)?;
        Ok(Self { public: true, ..config })
    }

    fn bad(&self, problem: impl Into<String>) -> SignError {
        SignError::Config {
            name: self.name.clone(),
            problem: problem.into(),
        }
    }

    /// Whether a token of this issuer can get a certificate, as far as the configuration says; the reason if not.
    pub(super) fn admits(&self, issuer: &str, now: i64) -> Result<(), (String, &'static str)> {
        if self.public {
            if issuer.ends_with(FORGE_ISSUER) {
                let problem = format!(
                    "the public instance of sigstore trusts no Gitea or Forgejo, and the issuer is {}",
                    visible(issuer)
                );
                let hint = "name a certificate authority that trusts this issuer with --signing-config, or bring a token of an issuer \
                            that the public one trusts; docs/signing.md has the ways";
                return Err((problem, hint));
            }
            return Ok(());
        }
        let listed: Vec<&str> = self
            .inner
            .oidc_urls
            .iter()
            .filter(|service| is_valid(service, now))
            .map(|service| service.url.as_str())
            .collect();
        if listed.contains(&issuer) {
            return Ok(());
        }
        let problem = format!(
            "its issuer is {}, and {} lists {}",
            visible(issuer),
            self.name,
            match listed.is_empty() {
                true => "none".to_owned(),
                false => visible(&listed.join(", ")),
            }
        );
        Err((
            problem,
            "take a token of a listed issuer, or add the issuer to oidcUrls if the certificate authority trusts it",
        ))
    }

    /// The certificate authority.
    pub(super) fn authority(&self, now: i64) -> Result<ServiceUrl, SignError> {
        let one = ServiceConfiguration::default();
        let chosen = self.choose("caUrls", &self.inner.ca_urls, &one, &[1], now)?;
        chosen
            .into_iter()
            .next()
            .ok_or_else(|| self.bad("no certificate authority in caUrls has the version 1 and is valid now"))
    }

    /// The transparency logs: at least one.
    pub(super) fn logs(&self, now: i64) -> Result<Vec<ServiceUrl>, SignError> {
        let logs = self.choose(
            "rekorTlogUrls",
            &self.inner.rekor_tlog_urls,
            &self.inner.rekor_tlog_config,
            &[1, 2],
            now,
        )?;
        if logs.is_empty() {
            return Err(self.bad("no log in rekorTlogUrls has the version 1 or 2 and is valid now"));
        }
        let stamped = !self.stampers(now)?.is_empty();
        if !stamped && let Some(log) = logs.iter().find(|log| log.version == 2) {
            let problem = format!(
                "the log {} has the version 2, which states no time, and tsaUrls has no authority that does",
                log.url
            );
            return Err(self.bad(problem));
        }
        Ok(logs)
    }

    /// The time-stamping authorities; perhaps none.
    pub(super) fn stampers(&self, now: i64) -> Result<Vec<ServiceUrl>, SignError> {
        self.choose("tsaUrls", &self.inner.tsa_urls, &self.inner.tsa_config, &[1], now)
    }

    /// Checks that every service is there, before anything is sent.
    ///
    /// # Errors
    ///
    /// If a service is missing, or one that needs another is without it.
    pub fn check(&self, now: i64) -> Result<(), SignError> {
        self.authority(now)?;
        self.logs(now)?;
        Ok(())
    }

    /// The services of one kind that a client uses: of each operator the one of the highest version, newest first.
    fn choose(
        &self,
        field: &str,
        services: &[ServiceEndpoint],
        wanted: &ServiceConfiguration,
        versions: &[u32],
        now: i64,
    ) -> Result<Vec<ServiceUrl>, SignError> {
        let mut usable: Vec<&ServiceEndpoint> = services
            .iter()
            .filter(|service| is_valid(service, now) && versions.contains(&service.major_api_version))
            .collect();
        usable.sort_by_key(|service| {
            let start = service.valid_for.start.as_second();
            (std::cmp::Reverse(service.major_api_version), std::cmp::Reverse(start))
        });
        let mut operators = std::collections::BTreeSet::new();
        usable.retain(|service| {
            let operator = service.operator.as_deref().filter(|name| !name.is_empty());
            operators.insert(operator.unwrap_or(&service.url))
        });
        let count = match wanted.selector {
            // Only an authority of time may be absent; the callers insist on the others.
            ServiceSelector::Any => usable.len().min(1),
            ServiceSelector::All => usable.len(),
            ServiceSelector::Exact => wanted.count.unwrap_or(0) as usize,
            _ => return Err(self.bad(format!("the selector of {field} is undefined"))),
        };
        if count > usable.len() {
            let found = usable.len();
            return Err(self.bad(format!(
                "{count} services of {field} are to be used, and {found} are valid now"
            )));
        }
        if count > MOST {
            return Err(self.bad(format!("{count} services of {field} are to be used, more than {MOST}")));
        }
        let url = |service: &ServiceEndpoint| ServiceUrl {
            url: service.url.trim_end_matches('/').to_owned(),
            version: service.major_api_version,
        };
        Ok(usable.into_iter().take(count).map(url).collect())
    }
}

fn is_valid(service: &ServiceEndpoint, now: i64) -> bool {
    let range = &service.valid_for;
    range.start.as_second() <= now && range.end.is_none_or(|end| now <= end.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_790_000_000;

    fn config(edit: impl Fn(&mut serde_json::Value)) -> Result<SigningConfig, SignError> {
        let service = |url: &str, version: u32| {
            serde_json::json!([{"url": url, "majorApiVersion": version,
                "validFor": {"start": "2020-01-01T00:00:00Z"}, "operator": "o"}])
        };
        let mut value = serde_json::json!({
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": service("https://ca.example/", 1),
            "oidcUrls": service("https://git.example/api/actions", 1),
            "rekorTlogUrls": service("https://log.example", 1),
            "tsaUrls": [],
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaConfig": {"selector": "ANY"},
        });
        edit(&mut value);
        SigningConfig::parse(value.to_string().as_bytes(), "c.json")
    }

    fn problem(edit: impl Fn(&mut serde_json::Value)) -> String {
        let checked = config(edit).and_then(|config| config.check(NOW));
        checked.err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn services_are_chosen_as_the_file_says() {
        let config = config(|_| ()).expect("valid");
        assert_eq!(config.authority(NOW).expect("one").url, "https://ca.example");
        assert_eq!(config.logs(NOW).expect("one")[0].version, 1);
        assert!(config.stampers(NOW).expect("none").is_empty());
        assert_eq!(config.admits("https://git.example/api/actions", NOW), Ok(()));
        let (problem, _) = config.admits("https://other.example", NOW).expect_err("refused");
        assert_eq!(
            problem,
            "its issuer is https://other.example, and c.json lists https://git.example/api/actions"
        );
    }

    #[test]
    fn a_configuration_that_cannot_work_is_refused_by_name() {
        let begin = "use the signing configuration c.json: ";
        let two = |value: &mut serde_json::Value| value["rekorTlogUrls"][0]["majorApiVersion"] = 2.into();
        for (edit, want) in [
            (
                &two as &dyn Fn(&mut serde_json::Value),
                "the log https://log.example has the version 2, which states no time, and tsaUrls has no authority that does",
            ),
            (
                &|v| v["rekorTlogUrls"][0]["validFor"]["end"] = "2021-01-01T00:00:00Z".into(),
                "no log in rekorTlogUrls has the version 1 or 2 and is valid now",
            ),
            (
                &|v| v["caUrls"] = serde_json::json!([]),
                "no certificate authority in caUrls has the version 1 and is valid now",
            ),
            (
                &|v| v["rekorTlogConfig"] = serde_json::json!({"selector": "EXACT", "count": 2}),
                "2 services of rekorTlogUrls are to be used, and 1 are valid now",
            ),
            (
                &|v| v["tsaConfig"]["selector"] = "SERVICE_SELECTOR_UNDEFINED".into(),
                "the selector of tsaUrls is undefined",
            ),
        ] {
            assert_eq!(problem(edit), format!("{begin}{want}"));
        }
        assert!(problem(|v| v["mediaType"] = "x".into()).starts_with(begin));
        assert!(SigningConfig::parse(b"\xff", "c").is_err());
        assert!(SigningConfig::parse(&vec![b' '; LIMIT + 1], "c").is_err());
    }

    #[test]
    fn the_newest_version_of_an_operator_is_used() {
        let config = config(|v| {
            let mut newer = v["rekorTlogUrls"][0].clone();
            newer["majorApiVersion"] = 2.into();
            newer["url"] = "https://log2.example".into();
            v["tsaUrls"] = v["caUrls"].clone();
            v["rekorTlogUrls"] = serde_json::json!([v["rekorTlogUrls"][0], newer]);
            v["rekorTlogConfig"] = serde_json::json!({"selector": "ALL"});
        });
        let logs = config.expect("valid").logs(NOW).expect("one");
        assert_eq!(logs.len(), 1);
        assert_eq!(logs[0].url, "https://log2.example");
    }

    #[test]
    fn the_public_instance_is_there_and_refuses_a_forge() {
        let config = SigningConfig::public_good().expect("valid");
        config.check(NOW).expect("complete");
        assert_eq!(
            config.admits("https://token.actions.githubusercontent.com", NOW),
            Ok(())
        );
        let (problem, _) = config
            .admits("https://git.example/api/actions", NOW)
            .expect_err("refused");
        assert_eq!(
            problem,
            "the public instance of sigstore trusts no Gitea or Forgejo, and the issuer is https://git.example/api/actions"
        );
    }
}
