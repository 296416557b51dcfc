//! `[upstream]`: where requests go, and how long they may take.

use std::{path::PathBuf, time::Duration};

use http::Uri;

use super::{super::reader::Reader, HOUR, SECOND};
use crate::{
    cause, proxy,
    tls::{self, Pin},
};

/// The upstream and the connections to it.
pub(super) fn upstream(read: &mut Reader<'_>) -> Option<proxy::UpstreamConfig> {
    let url = read.parsed("upstream.url", upstream_url);
    let connect_timeout = read.duration("upstream.connect_timeout", Duration::from_millis(100)..=60 * SECOND);
    let idle_timeout = read.duration("upstream.idle_timeout", SECOND..=HOUR);
    let pool_idle_timeout = read.duration("upstream.pool_idle_timeout", SECOND..=HOUR);
    let http2 = read.choice("upstream.http2", &[("off", false), ("auto", true)]);
    Some(proxy::UpstreamConfig { url: url?, connect_timeout, idle_timeout, pool_idle_timeout, http2 })
}

/// Whom the upstream's certificate must come from, and which keys it may have.
pub(super) fn tls(read: &mut Reader<'_>) -> tls::Config {
    let tls = tls::Config {
        public_roots: read.flag("upstream.public_roots"),
        ca_file: read.optional("upstream.ca_file", |path| Ok(PathBuf::from(path))),
        extra_roots: Vec::new(),
        pinned_keys: pinned_keys(read),
    };
    if let Err(error) = tls::trust(tls.clone()) {
        let key = if matches!(error, tls::Error::NoRoots) { "upstream.public_roots" } else { "upstream.ca_file" };
        read.problem(key, cause::line(&error));
    }
    tls
}

fn pinned_keys(read: &mut Reader<'_>) -> Vec<Pin> {
    let items = read.list("upstream.pinned_keys");
    items.iter().map(|item| Pin::parse(item)).collect::<Option<_>>().unwrap_or_else(|| {
        let expected = "must be a list of \"sha256/…\", each with the base64 of a key's SHA-256; see docs/tls.md";
        read.problem("upstream.pinned_keys", expected);
        Vec::new()
    })
}

fn upstream_url(text: &str) -> Result<Uri, String> {
    let expected = "must be https:// and a host, such as \"https://api.finicity.com\"";
    let url: Uri = text.parse().map_err(|_| expected.to_owned())?;
    let authority = url.authority().ok_or(expected)?;
    if url.scheme_str() != Some("https") {
        return Err(format!("{expected}: credentials are only ever sent over verified TLS"));
    }
    if authority.as_str().contains('@') {
        return Err(format!("{expected}: without a user name or a password"));
    }
    if url.path() != "/" || url.query().is_some() || text.ends_with(['?', '#']) || text.contains('#') {
        return Err(format!("{expected}: without a path or a query"));
    }
    if authority.host().is_empty() || authority.as_str().ends_with(':') {
        return Err(expected.to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j05_the_upstream_is_https_and_a_host_and_nothing_else() {
        for good in
            ["https://api.finicity.com", "https://api.finicity.com/", "https://localhost:8443", "https://[::1]:1"]
        {
            assert!(upstream_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://api.finicity.com",
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
        ] {
            assert!(upstream_url(bad).is_err(), "{bad}");
        }
    }
}
