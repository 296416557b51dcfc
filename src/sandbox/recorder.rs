//! Records received requests. Credentials are checked and then redacted.

use std::collections::VecDeque;

use http::{HeaderName, header, request::Parts};
use serde_json::Value;

use super::value::json;
use crate::token::scheme::FINICITY_APP_KEY;

/// Maximum number of recorded requests; beyond it, the oldest is dropped.
const MAX_REQUESTS: usize = 10_000;

pub(super) const FINICITY_APP_TOKEN: HeaderName = HeaderName::from_static("finicity-app-token");

/// The result of checking a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Not sent.
    Missing,
    /// Sent once, and valid.
    Valid,
    /// Sent once, but expired.
    Expired,
    /// Wrong, or sent several times.
    Wrong,
}

impl Credential {
    fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Valid => "valid",
            Self::Expired => "expired",
            Self::Wrong => "wrong",
        }
    }
}

/// A received request, with its credentials redacted.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// Method.
    pub method: String,
    /// Path and query, byte for byte.
    pub target: String,
    /// Headers in the order of arrival. The value of a credential is replaced with the result of its check.
    pub headers: Vec<(String, String)>,
    /// The App Key.
    pub app_key: Credential,
    /// The token; [`Credential::Missing`] on a token request.
    pub token: Credential,
    /// The status of the response.
    pub status: u16,
}

impl RecordedRequest {
    pub(super) fn new(parts: &Parts, app_key: Credential, token: Credential) -> Self {
        let headers = parts.headers.iter().map(|(name, value)| {
            let shown = if name == FINICITY_APP_KEY {
                format!("[redacted, {}]", app_key.as_str())
            } else if name == header::AUTHORIZATION || name == FINICITY_APP_TOKEN {
                format!("[redacted, {}]", token.as_str())
            } else {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            };
            (name.as_str().to_owned(), shown)
        });
        Self {
            method: parts.method.to_string(),
            target: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            headers: headers.collect(),
            app_key,
            token,
            status: 0,
        }
    }

    /// The request as the control API returns it.
    fn shown(&self) -> Value {
        json!({
            "method": self.method, "target": self.target, "headers": self.headers, "appKey": self.app_key.as_str(),
            "token": self.token.as_str(), "status": self.status,
        })
    }
}

/// The recorded requests, in the order of arrival.
#[derive(Debug, Default)]
pub(super) struct Recorder(VecDeque<RecordedRequest>);

impl Recorder {
    pub(super) fn add(&mut self, request: RecordedRequest, status: u16) {
        if self.0.len() == MAX_REQUESTS {
            self.0.pop_front();
        }
        self.0.push_back(RecordedRequest { status, ..request });
    }

    pub(super) fn take(&mut self) -> Vec<RecordedRequest> {
        self.0.drain(..).collect()
    }

    /// All recorded requests, as the control API returns them.
    pub(super) fn shown(&self) -> Value {
        self.0.iter().map(RecordedRequest::shown).collect()
    }
}
