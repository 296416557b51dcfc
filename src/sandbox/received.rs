//! A request that has arrived in full.

use bytes::Bytes;
use http::{HeaderName, header, request::Parts};
use serde_json::Value;

/// The header field that chooses the seed of a request, whoever authenticated it.
const SEED: HeaderName = HeaderName::from_static("x-sandbox-seed");

/// A request that has arrived in full.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) parts: Parts,
    pub(super) bytes: Bytes,
    /// The body as JSON; null when it is empty or something else.
    pub(super) body: Value,
}

impl Received {
    pub(super) fn path(&self) -> &str {
        self.parts.uri.path()
    }

    /// The parameters of the query, decoded.
    pub(super) fn query(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(self.parts.uri.query().unwrap_or("").as_bytes()).into_owned().collect()
    }

    /// The seed that the request names itself.
    pub(super) fn seed(&self) -> Option<&str> {
        self.parts.headers.get(SEED)?.to_str().ok().filter(|name| !name.is_empty())
    }

    /// `https://` and the host that the client called.
    pub(super) fn origin(&self) -> String {
        let host = self.parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        format!("https://{}", host.unwrap_or("localhost"))
    }
}
