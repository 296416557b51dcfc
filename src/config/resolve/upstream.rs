//! `[upstream]`: destination of requests, route, trust and timeouts.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use http::{HeaderValue, Uri, uri::Authority};

use super::{super::reader::Reader, HOUR, SECOND};
use crate::{
    credentials, egress, error_chain,
    message::host::Host,
    tls::{self, Pin},
    upstream::{self, UpstreamConfig},
};

/// The upstream and the connections to it. `egress_authorization` is the value of `Proxy-Authorization` for the egress proxy.
pub(super) fn upstream(read: &mut Reader<'_>, egress_authorization: Option<HeaderValue>) -> Option<UpstreamConfig> {
    let allow_plaintext = read.flag("upstream.allow_plaintext");
    let url = read.parsed("upstream.url", |text| upstream_url(text, allow_plaintext));
    let egress = read.optional("upstream.egress_proxy", egress_url);
    if egress.is_some() && url.as_ref().is_some_and(|url| url.scheme_str() == Some("http")) {
        read.problem("upstream.egress_proxy", "must not be set for a plain http:// upstream on this machine");
    }
    if egress.is_none() && egress_authorization.is_some() {
        let variable = credentials::EGRESS_USERNAME;
        read.problem(
            "upstream.egress_proxy",
            format!("is not set, but {variable} is: set this key, or unset the variable"),
        );
    }
    let egress = egress.map(|url| egress::Config { url, authorization: egress_authorization });
    let connect_timeout = read.duration("upstream.connect_timeout", Duration::from_millis(100)..=60 * SECOND);
    let idle_timeout = read.duration("upstream.idle_timeout", SECOND..=HOUR);
    let pool_idle_timeout = read.duration("upstream.pool_idle_timeout", SECOND..=HOUR);
    let connection_age = read.duration("upstream.connection_age", SECOND..=24 * HOUR);
    let http2 = read.choice("upstream.http2", &[("off", false), ("auto", true)]);
    let url = url?;
    Some(UpstreamConfig { url, egress, connect_timeout, idle_timeout, pool_idle_timeout, connection_age, http2 })
}

/// Trusted CAs and pinned keys for the upstream's certificate.
pub(super) fn tls(read: &mut Reader<'_>) -> tls::Config {
    let tls = tls::Config {
        public_roots: read.flag("upstream.public_roots"),
        ca_file: read.optional("upstream.ca_file", |path| Ok(PathBuf::from(path))),
        extra_roots: Vec::new(),
        pinned_keys: pinned_keys(read),
    };
    if let Err(error) = tls::trust_store(tls.clone()) {
        let key = if matches!(error, tls::Error::NoRoots) { "upstream.public_roots" } else { "upstream.ca_file" };
        read.problem(key, error_chain::one_line(&error));
    }
    tls
}

fn pinned_keys(read: &mut Reader<'_>) -> Vec<Pin> {
    let items = read.list("upstream.pinned_keys");
    items.iter().map(|item| Pin::parse(item)).collect::<Option<_>>().unwrap_or_else(|| {
        let expected = "must be a list of \"sha256/…\" items, each with the base64 SHA-256 of an SPKI; see docs/tls.md";
        read.problem("upstream.pinned_keys", expected);
        Vec::new()
    })
}

/// The upstream's URL: HTTPS, or plain HTTP to this machine if that is allowed.
fn upstream_url(text: &str, allow_plaintext: bool) -> Result<Uri, String> {
    let expected = "must be https:// and a host, such as \"https://api.finicity.com\"";
    if !text.contains("://") {
        return Err(format!("{expected}: the scheme is missing; begin it with https://"));
    }
    let url: Uri = text.parse().map_err(|_| expected.to_owned())?;
    let authority = bare_authority(&url, text).map_err(|detail| format!("{expected}{detail}"))?;
    match url.scheme_str() {
        Some("https") if upstream::server_name(authority.host()).is_none() => {
            Err(format!("{expected}: no certificate can be valid for this host"))
        }
        Some("https") => normalized("https", authority).ok_or_else(|| expected.to_owned()),
        Some("http") if !is_loopback(authority.host()) => {
            Err(format!("{expected}: credentials are sent to other machines over verified TLS only"))
        }
        Some("http") if !allow_plaintext => Err(format!(
            "{expected}: plain http:// requires upstream.allow_plaintext = true, and is meant for a mock on this machine"
        )),
        Some("http") => normalized("http", authority).ok_or_else(|| expected.to_owned()),
        _ => Err(expected.to_owned()),
    }
}

/// The normalized URL of `authority`: lower case, no trailing dot, no default port. The HTTP client for token requests normalizes URLs the
/// same way, so all requests name the same host, and the lock-out state does not depend on the spelling. `None` if the port is invalid.
fn normalized(scheme: &str, authority: &Authority) -> Option<Uri> {
    let host = Host::parse(authority.host())?;
    let has_port = authority.as_str().len() > authority.host().len();
    let port = authority.port_u16().filter(|port| *port > 0);
    let authority = match port {
        None if has_port => return None,
        Some(port) if (scheme, port) != ("https", 443) && (scheme, port) != ("http", 80) => format!("{host}:{port}"),
        _ => host.to_string(),
    };
    Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build().ok()
}

/// The egress proxy's URL.
pub(super) fn egress_url(text: &str) -> Result<Uri, String> {
    let expected = "must be http:// and a host, such as \"http://proxy.internal:3128\"";
    if !text.contains("://") {
        return Err(format!("{expected}: the scheme is missing; begin it with http://"));
    }
    let url: Uri = text.parse().map_err(|_| expected.to_owned())?;
    if url.scheme_str() != Some("http") {
        return Err(format!("{expected}: TLS runs through the proxy, not to it"));
    }
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        let (username, password) = (credentials::EGRESS_USERNAME, credentials::EGRESS_PASSWORD);
        return Err(format!("{expected}: set {username} and {password}, not a user name and password in the URL"));
    }
    bare_authority(&url, text).map_err(|detail| format!("{expected}{detail}"))?;
    Ok(url)
}

/// The authority of `url`, which must consist of scheme, host and optional port. The error is the end of the error message.
fn bare_authority<'a>(url: &'a Uri, text: &str) -> Result<&'a Authority, &'static str> {
    let authority = url.authority().ok_or("")?;
    if authority.as_str().contains('@') {
        Err(": remove the user name and password")
    } else if url.path() != "/" || url.query().is_some() || text.contains('#') || text.ends_with('?') {
        Err(": remove the path, query and fragment")
    } else if authority.host().is_empty() || authority.as_str().ends_with(':') {
        Err("")
    } else {
        Ok(authority)
    }
}

/// Whether `host` is literally `localhost` or a loopback address; no name is resolved.
fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j05_the_upstream_is_https_and_a_host_only() {
        for good in
            ["https://api.finicity.com", "https://api.finicity.com/", "https://localhost:8443", "https://[::1]:1"]
        {
            assert!(upstream_url(good, false).is_ok(), "{good}");
        }
        for bad in [
            "http://api.finicity.com",
            "http://localhost:1",
            "api.finicity.com",
            "https://",
            "https://u:p@h",
            "https://h/path",
            "https://h?q",
            "https://h/#f",
            "https://h#f",
            "ftp://h",
            "",
            "https://h:",
            "https://:443",
            "https://a b",
            "https://a..b",
        ] {
            assert!(upstream_url(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_upstream_url_is_normalized() {
        for (written, normalized) in [
            ("https://api.finicity.com", "https://api.finicity.com/"),
            ("HTTPS://API.Finicity.COM/", "https://api.finicity.com/"),
            ("https://api.finicity.com:443", "https://api.finicity.com/"),
            ("https://api.finicity.com.:443/", "https://api.finicity.com/"),
            ("https://api.finicity.com:0443", "https://api.finicity.com/"),
            ("https://api.finicity.com:80", "https://api.finicity.com:80/"),
            ("https://localhost:08443", "https://localhost:8443/"),
            ("https://[0:0:0:0:0:0:0:1]:8443", "https://[::1]:8443/"),
            ("https://[2001:DB8::0:5]", "https://[2001:db8::5]/"),
            ("https://[::ffff:127.0.0.1]", "https://127.0.0.1/"),
            ("http://LOCALHOST:80", "http://localhost/"),
            ("http://127.0.0.1:443", "http://127.0.0.1:443/"),
        ] {
            let url = upstream_url(written, true).unwrap();
            assert_eq!(url.to_string(), normalized, "{written}");
            // The HTTP client for token requests must send the same Host as other requests.
            let token_url = reqwest::Url::parse(&url.to_string()).unwrap();
            let port = token_url.port().map(|port| format!(":{port}")).unwrap_or_default();
            let host = format!("{}{port}", token_url.host_str().unwrap());
            assert_eq!(host, url.authority().unwrap().as_str(), "{written}");
        }
        for bad in [
            "https://h:65536",
            "https://h:0",
            "https://h:99999999999",
            "https://h..",
            "https://.",
            "https://127.1",
            "https://0x7f.1",
        ] {
            assert!(upstream_url(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn j05_plain_http_needs_a_literal_loopback_host_and_permission() {
        for good in
            ["http://localhost:1", "http://LOCALHOST", "http://127.0.0.1:1", "http://127.9.9.9", "http://[::1]:1"]
        {
            assert!(upstream_url(good, true).is_ok(), "{good}");
            let error = upstream_url(good, false).unwrap_err();
            assert!(error.contains("upstream.allow_plaintext"), "{error}");
        }
        for bad in [
            "http://api.finicity.com",
            "http://localhost.example",
            "http://localhost.",
            "http://127.0.0.1.example",
            "http://2130706433",
            "http://0.0.0.0",
            "http://10.0.0.1",
            "http://[::]",
            "http://[::ffff:10.0.0.1]",
            "http://u:p@localhost",
        ] {
            for allow in [true, false] {
                let error = upstream_url(bad, allow).unwrap_err();
                assert!(!error.contains("allow_plaintext"), "{bad}: {error}");
            }
        }
    }

    #[test]
    fn an_egress_proxy_url_is_http_and_a_host_without_credentials() {
        for good in ["http://proxy.internal:3128", "http://10.0.0.1", "http://[::1]:3128/"] {
            assert!(egress_url(good).is_ok(), "{good}");
        }
        for bad in
            ["https://proxy.internal", "proxy.internal:3128", "socks5://h", "http://h/path", "http://h:", "http://"]
        {
            assert!(egress_url(bad).is_err(), "{bad}");
        }
        let error = egress_url("http://canary:canary@proxy.internal").unwrap_err();
        assert!(error.contains("FINICITY_EGRESS_PROXY_PASSWORD") && !error.contains("canary"), "{error}");
    }
}
