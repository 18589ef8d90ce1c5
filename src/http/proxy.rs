//! Proxies: which server of the environment's variables a request goes through.
//!
//! The variables are those of curl and wget: `https_proxy` for https, `http_proxy` for http, `all_proxy` for both, `no_proxy` for hosts
//! that are reached directly; each also in upper case, and in lower case first.

use std::net::IpAddr;
use ureq::{Proxy, http::Uri};

/// The proxies of an environment, and the hosts that are reached without one. The default has none.
#[derive(Clone, Default, Debug)]
pub struct ProxyRules {
    http: Option<Result<ProxyServer, String>>,
    https: Option<Result<ProxyServer, String>>,
    except: Vec<String>,
    /// Whether this machine is reached directly whatever the variables say.
    pub(super) spare_loopback: bool,
}

/// A proxy and the variable that names it.
#[derive(Clone)]
pub struct ProxyServer {
    pub(super) proxy: Proxy,
    /// The address without user name and password, and the variable.
    shown: String,
}

impl std::fmt::Debug for ProxyServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl std::fmt::Display for ProxyServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

/// The way through a proxy to a server: `CONNECT`.
#[cfg(feature = "remote")]
#[derive(Clone)]
pub(crate) struct Tunnel {
    /// Whether the proxy itself is spoken to over TLS.
    pub(crate) tls: bool,
    /// Name or address of the proxy; that of IPv6 without brackets.
    pub(crate) host: String,
    /// Port of the proxy.
    pub(crate) port: u16,
    /// The value of `Proxy-Authorization`, if the proxy's address has a user name or password.
    pub(crate) authorization: Option<String>,
    /// The proxy as messages name it.
    pub(crate) shown: String,
}

#[cfg(feature = "remote")]
impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(feature = "remote")]
impl ProxyServer {
    /// The way through this proxy.
    pub(crate) fn tunnel(&self) -> Tunnel {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let proxy = &self.proxy;
        let (user, password) = (proxy.username(), proxy.password());
        let authorization = (user.is_some() || password.is_some()).then(|| {
            let pair = format!("{}:{}", user.unwrap_or_default(), password.unwrap_or_default());
            format!("Basic {}", STANDARD.encode(pair))
        });
        let host = proxy.host();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Tunnel {
            tls: proxy.uri().scheme_str() == Some("https"),
            host: host.to_owned(),
            port: proxy.port(),
            authorization,
            shown: self.shown.clone(),
        }
    }
}

impl ProxyRules {
    /// Reads the variables with `get`, which returns the value of a variable that is set.
    pub fn from_variables(get: &dyn Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| {
            let upper = name.to_ascii_uppercase();
            [name, &upper]
                .into_iter()
                .find_map(|name| Some((name.to_owned(), get(name)?)).filter(|(_, value)| !value.trim().is_empty()))
        };
        let server = |name: &str| {
            let (variable, value) = set(name).or_else(|| set("all_proxy"))?;
            Some(parse(&variable, value.trim()))
        };
        let except = set("no_proxy").map(|(_, value)| value).unwrap_or_default();
        Self {
            http: server("http_proxy"),
            https: server("https_proxy"),
            except: except
                .split([',', ' ', '\t'])
                .filter(|entry| !entry.is_empty())
                .map(str::to_ascii_lowercase)
                .collect(),
            spare_loopback: false,
        }
    }

    /// The proxy for a scheme, whatever the host.
    pub(super) fn of_scheme(&self, scheme: &str) -> Option<&ProxyServer> {
        let server = if scheme == "https" { &self.https } else { &self.http };
        server.as_ref()?.as_ref().ok()
    }

    /// The proxy for an address; `Err` with the reason if its variable holds no proxy that can be used.
    pub fn proxy_for(&self, uri: &Uri) -> Result<Option<&ProxyServer>, String> {
        let server = match uri.scheme_str() {
            Some("https") => &self.https,
            _ => &self.http,
        };
        let Some(server) = server else { return Ok(None) };
        let host = bare(uri.host().unwrap_or_default());
        if self.spare_loopback && super::is_loopback(&host) {
            return Ok(None);
        }
        let port = uri
            .port_u16()
            .unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        if self.except.iter().any(|entry| excepts(entry, &host, port)) {
            return Ok(None);
        }
        server.as_ref().map(Some).map_err(Clone::clone)
    }
}

/// A host in lower case, an address of IPv6 without its brackets, a name without a dot at its end.
fn bare(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// The proxy that the value of a variable names.
fn parse(variable: &str, value: &str) -> Result<ProxyServer, String> {
    let whole = match value.contains("://") {
        true => value.to_owned(),
        false => format!("http://{value}"),
    };
    let uri: Option<Uri> = whole.parse().ok();
    let scheme = uri.as_ref().and_then(Uri::scheme_str).map(str::to_ascii_lowercase);
    let shown = match &uri {
        Some(uri) => {
            let authority = uri.authority().map_or("", |a| a.as_str());
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{}://{host} ({variable})", scheme.as_deref().unwrap_or("http"))
        }
        None => variable.to_owned(),
    };
    match scheme.as_deref() {
        Some("http" | "https") => {}
        None => return Err(format!("{variable} is not the address of a proxy")),
        Some(_) => {
            return Err(format!(
                "the proxy {shown} is neither http:// nor https://, and no other kind is supported"
            ));
        }
    }
    match Proxy::new(&whole) {
        Ok(proxy) => Ok(ProxyServer { proxy, shown }),
        Err(_) => Err(format!("{variable} is not the address of a proxy")),
    }
}

/// Whether an entry of `no_proxy` means the host: `*`, a name with all names below it, an address, a network in CIDR form; each perhaps with
/// a port.
fn excepts(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    let (name, only) = match entry.rsplit_once(':') {
        Some((name, digits)) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            // An address of IPv6 has colons of its own; its port follows a bracket.
            match name.contains(':') && !name.ends_with(']') {
                true => (entry, None),
                false => (name, Some(digits.to_owned())),
            }
        }
        _ => (entry, None),
    };
    if only.is_some_and(|only| only.parse() != Ok(port)) {
        return false;
    }
    let name = bare(name);
    if let (Some((network, bits)), Ok(host)) = (name.split_once('/'), host.parse::<IpAddr>()) {
        let network = network
            .strip_prefix('[')
            .and_then(|n| n.strip_suffix(']'))
            .unwrap_or(network);
        return match (network.parse::<IpAddr>(), bits.parse::<u32>()) {
            (Ok(network), Ok(bits)) => in_network(host, network, bits),
            _ => false,
        };
    }
    if let (Ok(entry), Ok(host)) = (name.parse::<IpAddr>(), host.parse::<IpAddr>()) {
        return entry == host;
    }
    let name = name.trim_start_matches('*').trim_start_matches('.');
    !name.is_empty()
        && (host == name
            || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')) && host.parse::<IpAddr>().is_err())
}

fn in_network(host: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (host, network) {
        (IpAddr::V4(host), IpAddr::V4(network)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            host.to_bits() & mask == network.to_bits() & mask
        }
        (IpAddr::V6(host), IpAddr::V6(network)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            host.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(variables: &[(&str, &str)], url: &str) -> String {
        let rules = ProxyRules::from_variables(&|name| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        match rules.proxy_for(&url.parse().expect("address")) {
            Ok(server) => server.map_or("direct".to_owned(), ToString::to_string),
            Err(problem) => problem,
        }
    }

    #[test]
    fn each_scheme_has_its_variable_and_lower_case_is_first() {
        let both = [("http_proxy", "http://a:1"), ("HTTPS_PROXY", "b.example:3128/")];
        assert_eq!(chosen(&both, "http://x/"), "http://a:1 (http_proxy)");
        assert_eq!(chosen(&both, "https://x/"), "http://b.example:3128 (HTTPS_PROXY)");
        assert_eq!(chosen(&[("http_proxy", "http://a:1")], "https://x/"), "direct");
        assert_eq!(chosen(&[("https_proxy", "http://a:1")], "http://x/"), "direct");
        assert_eq!(
            chosen(&[("https_proxy", ""), ("HTTPS_PROXY", "c")], "https://x/"),
            "http://c (HTTPS_PROXY)"
        );
        let all = [("ALL_PROXY", "https://u:secret@p:8443"), ("http_proxy", "a")];
        assert_eq!(chosen(&all, "https://x/"), "https://p:8443 (ALL_PROXY)");
        assert_eq!(chosen(&all, "http://x/"), "http://a (http_proxy)");
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_without_its_password() {
        assert_eq!(
            chosen(&[("all_proxy", "socks5h://u:secret@p:1080")], "https://x/"),
            "the proxy socks5h://p:1080 (all_proxy) is neither http:// nor https://, and no other kind is supported"
        );
        for bad in ["http://", "a b", "http://u:%ff@p"] {
            let text = chosen(&[("https_proxy", bad)], "https://x/");
            assert_eq!(text, "https_proxy is not the address of a proxy", "{bad}");
        }
        // A host that needs no proxy is not held up by the error.
        let spared = [("https_proxy", "socks4://p"), ("no_proxy", "x")];
        assert_eq!(chosen(&spared, "https://x/"), "direct");
    }

    #[test]
    fn no_proxy_has_the_forms_that_are_in_use() {
        let direct = |entry: &str, url: &str| {
            let variables = [("http_proxy", "p"), ("https_proxy", "p"), ("NO_PROXY", entry)];
            chosen(&variables, url) == "direct"
        };
        for (entry, url) in [
            ("*", "http://a/"),
            ("example.org", "http://example.org/"),
            ("example.org", "https://deb.Example.ORG:8443/"),
            (".example.org", "http://a.example.org/"),
            (".example.org", "http://example.org/"),
            ("*.example.org", "http://a.b.example.org/"),
            ("other, example.org ,more", "http://example.org./"),
            ("other example.org", "http://example.org/"),
            ("example.org:8080", "http://example.org:8080/"),
            ("example.org:80", "http://example.org/"),
            ("10.1.2.3", "http://10.1.2.3/"),
            ("10.0.0.0/8", "http://10.200.0.1/"),
            ("0.0.0.0/0", "http://10.200.0.1/"),
            ("::1", "http://[::1]:80/"),
            ("[::1]", "http://[::1]/"),
            ("[::1]:81", "http://[::1]:81/"),
            ("fd00::/8", "https://[fd12::1]/"),
        ] {
            assert!(direct(entry, url), "{entry} for {url}");
        }
        for (entry, url) in [
            ("", "http://a/"),
            ("example.org", "http://notexample.org/"),
            ("example.org", "http://example.org.evil/"),
            ("example.org:8080", "http://example.org/"),
            ("10.0.0.0/8", "http://11.0.0.1/"),
            ("10.0.0.0/33", "http://10.0.0.1/"),
            ("10.0.0.0/8", "http://ten.example/"),
            ("1", "http://10.0.0.1/"),
            ("0.0.1", "http://10.0.0.1/"),
            ("[::1]:81", "http://[::1]/"),
            (".", "http://a/"),
        ] {
            assert!(!direct(entry, url), "{entry} for {url}");
        }
    }
}
