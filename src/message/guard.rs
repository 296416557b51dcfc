//! Who may call a local port: programs that know where they are calling, not web pages.
//!
//! The port adds credentials to whatever it is sent, so a page in a browser on the same machine must not reach it. A page
//! that uses DNS rebinding is known by its `Host`, any other by `Origin` or `Sec-Fetch-Site`. `Sec-Fetch-Mode` says nothing,
//! since Node's `fetch` sends it from servers. No name leads to a Unix socket, so there the `Host` may be any.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::transport::Transport;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A header field that callers must send, so that a program which was only tricked into a request cannot make one
/// (`guard.required_header`). It is no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredHeader {
    /// Its name.
    pub name: HeaderName,
    /// Its value; `None` lets any through.
    pub value: Option<HeaderValue>,
}

impl RequiredHeader {
    /// Whether `headers` have it.
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
    /// Its `Host` is not an allowed one.
    ForeignHost,
    /// A browser sent it for a web page.
    CrossOrigin,
}

/// The names by which callers may address a port: the loopback names and the configured ones. Only the name decides, with
/// any port.
#[derive(Clone, Debug)]
pub struct OriginPolicy {
    hosts: Vec<String>,
}

impl OriginPolicy {
    /// A policy that allows the loopback names and `hosts`.
    pub fn new(hosts: Vec<String>) -> Self {
        Self { hosts }
    }

    /// Checks the `headers` of a request over `transport`: it must name an allowed host, and no web page may have sent it.
    ///
    /// # Errors
    ///
    /// Why it must be rejected.
    pub fn check(&self, headers: &HeaderMap, transport: Transport) -> Result<(), Rejection> {
        match single_host(headers) {
            None => Err(Rejection::InvalidHost),
            Some(name) if transport == Transport::Tcp && !self.is_allowed_host(name) => Err(Rejection::ForeignHost),
            Some(_) if is_cross_origin(headers) => Err(Rejection::CrossOrigin),
            Some(_) => Ok(()),
        }
    }

    /// Whether `name`, a host name or an address literal without its brackets, is one to answer for.
    fn is_allowed_host(&self, name: &str) -> bool {
        // What nearly every caller says needs no reading.
        name == "127.0.0.1"
            || name.eq_ignore_ascii_case("localhost")
            || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
            || name.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
            || self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }
}

/// The name in the one `Host` field (RFC 9112, 3.2), without port and brackets, or `None` when there is not exactly one that
/// is valid.
fn single_host(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, None) = (hosts.next()?.to_str().ok()?, hosts.next()) else { return None };
    let (name, port) = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => host.find(':').map_or((host, ""), |colon| host.split_at(colon)),
    };
    let port_is_valid =
        port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    let name_is_valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
    (port_is_valid && name_is_valid).then_some(name)
}

fn is_cross_origin(headers: &HeaderMap) -> bool {
    let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    headers.contains_key(header::ORIGIN) || site.is_some_and(|site| !matches!(site, b"none" | b"same-origin"))
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
        OriginPolicy::new(vec!["api.finicity.com".to_owned(), "proxy.internal".to_owned()])
            .check(&fields(headers), transport)
    }

    fn check(headers: &[(&str, &str)]) -> Result<(), Rejection> {
        check_over(Transport::Tcp, headers)
    }

    #[test]
    fn loopback_names_and_configured_ones_are_let_in_with_any_port() {
        for host in [
            "localhost",
            "LocalHost:3464",
            "127.0.0.1:80",
            "127.9.9.9",
            "[::1]:3464",
            "[::1]",
            "api.finicity.com",
            "proxy.internal:1",
        ] {
            assert_eq!(check(&[("host", host)]), Ok(()), "{host}");
        }
    }

    #[test]
    fn k01_other_names_are_refused() {
        for host in ["attacker.example:3464", "10.0.0.1", "localhost.attacker.example", "[::2]", "notlocalhost"] {
            assert_eq!(check(&[("host", host)]), Err(Rejection::ForeignHost), "{host}");
        }
    }

    #[test]
    fn b09_b10_a_missing_double_or_invalid_host_is_a_bad_request() {
        assert_eq!(check(&[]), Err(Rejection::InvalidHost));
        assert_eq!(check(&[("host", "localhost"), ("host", "localhost")]), Err(Rejection::InvalidHost));
        for host in ["", "a b", "u@localhost", "localhost/x", "localhost:x", "[::1", ":80"] {
            assert_eq!(check(&[("host", host)]), Err(Rejection::InvalidHost), "{host}");
        }
    }

    #[test]
    fn k02_web_pages_are_refused_and_servers_are_not() {
        let with = |name, value| check(&[("host", "localhost"), (name, value)]);
        assert_eq!(with("origin", "https://evil.example"), Err(Rejection::CrossOrigin));
        assert_eq!(with("origin", "null"), Err(Rejection::CrossOrigin));
        assert_eq!(with("sec-fetch-site", "cross-site"), Err(Rejection::CrossOrigin));
        assert_eq!(with("sec-fetch-site", "same-site"), Err(Rejection::CrossOrigin));
        assert_eq!(with("sec-fetch-mode", "cors"), Ok(()));
    }

    #[test]
    fn on_a_socket_any_host_is_let_in_but_there_must_be_one_and_no_web_page() {
        let with = |fields: &[(&str, &str)]| check_over(Transport::Unix, fields);
        assert_eq!(with(&[("host", "attacker.example:3464")]), Ok(()));
        assert_eq!(with(&[]), Err(Rejection::InvalidHost));
        assert_eq!(with(&[("host", "a b")]), Err(Rejection::InvalidHost));
        assert_eq!(with(&[("host", "localhost"), ("origin", "null")]), Err(Rejection::CrossOrigin));
    }

    #[test]
    fn k04_a_required_header_must_be_there_with_its_value_where_there_is_one() {
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
