//! Decides which requests a local port accepts: those of programs that address it by an allowed name, but not those of web pages.
//!
//! The proxy listener adds credentials to every request, so a browser on the same machine must not reach the upstream through it, neither
//! from a page nor from the address bar. `Host` identifies a page that uses DNS rebinding; `Origin`, `Sec-Fetch-Site` or `Sec-Fetch-Mode`
//! identify all others. The mode `cors` proves nothing: Node's `fetch` sends it from servers, without the other fields. No host name
//! resolves to a Unix socket, so any `Host` is accepted there.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{
    host::{Host, HostRef},
    transport::Transport,
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The request modes that only browsers use (Fetch Standard, "request mode", and `nested-navigate` from earlier versions of Fetch
/// Metadata).
const BROWSER_MODES: [&[u8]; 6] =
    [b"navigate", b"nested-navigate", b"no-cors", b"same-origin", b"websocket", b"webtransport"];

/// A header field that clients must send (`guard.required_header`). It stops a program that was tricked into sending a request (SSRF)
/// and controls only the URL. It is not a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredHeader {
    /// Its name.
    pub name: HeaderName,
    /// Its value; `None` accepts any.
    pub value: Option<HeaderValue>,
}

impl RequiredHeader {
    /// Whether `headers` contain it.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let found = headers.get(&self.name);
        found.is_some_and(|found| self.value.as_ref().is_none_or(|value| found == value))
    }
}

/// Why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It has no valid `Host` field, or more than one.
    InvalidHost,
    /// Its `Host` is not allowed.
    ForeignHost,
    /// A browser sent it, and the listener does not accept it.
    CrossOrigin,
}

/// Which browser requests a listener accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrowserAccess {
    /// None.
    Denied,
    /// Those from the address bar and from the listener's own pages.
    SameOrigin,
}

/// The names by which clients may address a port: the loopback names and the configured ones. Port numbers are ignored.
#[derive(Clone, Debug)]
pub struct OriginPolicy {
    hosts: Vec<Host>,
    browsers: BrowserAccess,
}

impl OriginPolicy {
    /// A policy that allows the loopback names and `hosts`, and browser requests according to `browsers`.
    pub fn new(hosts: Vec<Host>, browsers: BrowserAccess) -> Self {
        Self { hosts, browsers }
    }

    /// Checks the `headers` of a request over `transport`: it must name an allowed host, and must not come from a denied browser.
    ///
    /// # Errors
    ///
    /// Why the request must be rejected.
    pub fn check(&self, headers: &HeaderMap, transport: Transport) -> Result<(), Rejection> {
        // One pass costs less than looking up each field.
        let (mut hosts, mut is_denied_browser) = ((None, 0), false);
        for (name, value) in headers {
            if *name == header::HOST {
                hosts = (Some(value), hosts.1 + 1);
            } else {
                is_denied_browser |= self.is_of_denied_browser(name, value);
            }
        }
        match hosts {
            (Some(host), 1) => match parse_host(host) {
                None => Err(Rejection::InvalidHost),
                Some(host) if transport == Transport::Tcp && !self.is_allowed(host) => Err(Rejection::ForeignHost),
                Some(_) if is_denied_browser => Err(Rejection::CrossOrigin),
                Some(_) => Ok(()),
            },
            _ => Err(Rejection::InvalidHost),
        }
    }

    /// Whether clients may address this port as `host`.
    fn is_allowed(&self, host: HostRef<'_>) -> bool {
        host.is_loopback() || self.hosts.iter().any(|allowed| host.is(allowed))
    }

    /// Whether this field identifies a browser request that is not accepted.
    fn is_of_denied_browser(&self, name: &HeaderName, value: &HeaderValue) -> bool {
        *name == header::ORIGIN
            || match self.browsers {
                BrowserAccess::SameOrigin => {
                    *name == SEC_FETCH_SITE && !matches!(value.as_bytes(), b"none" | b"same-origin")
                }
                BrowserAccess::Denied => {
                    let is_browser_mode = |mode: &[u8]| BROWSER_MODES.iter().any(|of| of.eq_ignore_ascii_case(mode));
                    *name == SEC_FETCH_SITE || *name == SEC_FETCH_MODE && is_browser_mode(value.as_bytes())
                }
            }
    }
}

/// The host in a `Host` field (RFC 9112, 3.2), without its port. `None` when the field is invalid.
fn parse_host(field: &HeaderValue) -> Option<HostRef<'_>> {
    let field = field.to_str().ok()?;
    // The colons of an IPv6 address come before its closing bracket.
    let after_address = field.find(']').unwrap_or(0);
    let host_end = field[after_address..].find(':').map_or(field.len(), |colon| after_address + colon);
    let (host, port) = field.split_at(host_end);
    let port_is_valid = port.bytes().skip(1).all(|b| b.is_ascii_digit());
    HostRef::parse(host).filter(|_| port_is_valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn check_over(transport: Transport, headers: &[(&str, &str)]) -> Result<(), Rejection> {
        let hosts = ["api.finicity.com", "proxy.internal", "[2001:db8::5]"].map(|host| Host::parse(host).unwrap());
        OriginPolicy::new(hosts.into(), BrowserAccess::Denied).check(&fields(headers), transport)
    }

    fn check(headers: &[(&str, &str)]) -> Result<(), Rejection> {
        check_over(Transport::Tcp, headers)
    }

    #[test]
    fn loopback_and_configured_names_are_allowed_with_any_port() {
        for host in [
            "localhost",
            "LocalHost:3464",
            "127.0.0.1:80",
            "127.9.9.9",
            "[::1]:3464",
            "[::1]",
            "localhost.",
            "[::ffff:127.0.0.1]:3464",
            "api.finicity.com",
            "API.finicity.com.",
            "proxy.internal:1",
            "proxy.internal.:1",
            "[2001:DB8:0:0::5]:3464",
        ] {
            assert_eq!(check(&[("host", host)]), Ok(()), "{host}");
        }
    }

    #[test]
    fn k01_other_host_names_are_rejected() {
        for host in
            ["attacker.example:3464", "10.0.0.1", "localhost.attacker.example", "[::2]", "127.1", "notlocalhost"]
        {
            assert_eq!(check(&[("host", host)]), Err(Rejection::ForeignHost), "{host}");
        }
    }

    #[test]
    fn b09_b10_a_missing_repeated_or_malformed_host_is_invalid() {
        assert_eq!(check(&[]), Err(Rejection::InvalidHost));
        assert_eq!(check(&[("host", "localhost"), ("host", "localhost")]), Err(Rejection::InvalidHost));
        for host in
            ["", "a b", "u@localhost", "localhost/x", "localhost:x", "localhost..", "[::1", "[localhost]", ":80"]
        {
            assert_eq!(check(&[("host", host)]), Err(Rejection::InvalidHost), "{host}");
        }
    }

    #[test]
    fn k02_web_pages_are_rejected_and_servers_are_not() {
        let with = |name, value| check(&[("host", "localhost"), (name, value)]);
        assert_eq!(with("origin", "https://evil.example"), Err(Rejection::CrossOrigin));
        assert_eq!(with("origin", "null"), Err(Rejection::CrossOrigin));
        assert_eq!(with("sec-fetch-site", "cross-site"), Err(Rejection::CrossOrigin));
        assert_eq!(with("sec-fetch-site", "same-site"), Err(Rejection::CrossOrigin));
        for site in ["none", "same-origin", "anything"] {
            assert_eq!(with("sec-fetch-site", site), Err(Rejection::CrossOrigin), "{site}");
        }
        for mode in ["navigate", "nested-navigate", "no-cors", "same-origin", "websocket", "webtransport", "Navigate"] {
            assert_eq!(with("sec-fetch-mode", mode), Err(Rejection::CrossOrigin), "{mode}");
        }
        // Node's `fetch` sends it from servers.
        assert_eq!(with("sec-fetch-mode", "cors"), Ok(()));
    }

    #[test]
    fn a_listener_with_pages_accepts_address_bar_and_own_pages() {
        let policy = OriginPolicy::new(Vec::new(), BrowserAccess::SameOrigin);
        let check = |site, mode| {
            let headers = fields(&[("host", "localhost"), ("sec-fetch-site", site), ("sec-fetch-mode", mode)]);
            policy.check(&headers, Transport::Tcp)
        };
        for (site, mode) in
            [("none", "navigate"), ("same-origin", "navigate"), ("same-origin", "cors"), ("none", "no-cors")]
        {
            assert_eq!(check(site, mode), Ok(()), "{site} {mode}");
        }
        for (site, mode) in
            [("cross-site", "navigate"), ("same-site", "cors"), ("cross-site", "no-cors"), ("", "navigate")]
        {
            assert_eq!(check(site, mode), Err(Rejection::CrossOrigin), "{site} {mode}");
        }
        let twice = fields(&[("host", "localhost"), ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")]);
        assert_eq!(policy.check(&twice, Transport::Tcp), Err(Rejection::CrossOrigin));
    }

    #[test]
    fn a_socket_accepts_any_host_but_no_web_page() {
        let with = |fields: &[(&str, &str)]| check_over(Transport::Unix, fields);
        assert_eq!(with(&[("host", "attacker.example:3464")]), Ok(()));
        assert_eq!(with(&[]), Err(Rejection::InvalidHost));
        assert_eq!(with(&[("host", "a b")]), Err(Rejection::InvalidHost));
        assert_eq!(with(&[("host", "localhost"), ("origin", "null")]), Err(Rejection::CrossOrigin));
    }

    #[test]
    fn k04_a_required_header_must_match_its_value_if_one_is_set() {
        let name = HeaderName::from_static("x-caller");
        let any = RequiredHeader { name: name.clone(), value: None };
        let one = RequiredHeader { name, value: Some(HeaderValue::from_static("payments")) };
        for (headers, expected) in [
            (&[][..], (false, false)),
            (&[("x-other", "payments")], (false, false)),
            (&[("x-caller", "")], (true, false)),
            (&[("x-caller", "Payments")], (true, false)),
            (&[("X-Caller", "payments")], (true, true)),
        ] {
            let headers = fields(headers);
            assert_eq!((any.is_in(&headers), one.is_in(&headers)), expected, "{headers:?}");
        }
    }
}
