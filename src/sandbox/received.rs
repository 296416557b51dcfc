//! A completely received request.

use bytes::Bytes;
use http::{HeaderName, header, request::Parts};
use serde_json::Value;

/// The header that selects the seed of a request, regardless of its token.
const SEED: HeaderName = HeaderName::from_static("x-sandbox-seed");

/// A request with its complete body.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) parts: Parts,
    pub(super) bytes: Bytes,
    /// The body as JSON; null when it is empty or not JSON.
    pub(super) body: Value,
}

impl Received {
    pub(super) fn path(&self) -> &str {
        self.parts.uri.path()
    }

    /// The decoded query parameters.
    pub(super) fn query(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(self.parts.uri.query().unwrap_or("").as_bytes()).into_owned().collect()
    }

    /// The seed in the header of the request.
    pub(super) fn seed(&self) -> Option<&str> {
        self.parts.headers.get(SEED)?.to_str().ok().filter(|name| !name.is_empty())
    }

    /// `https://` and the `Host` of the request.
    pub(super) fn origin(&self) -> String {
        let host = self.parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        format!("https://{}", host.unwrap_or("localhost"))
    }
}
