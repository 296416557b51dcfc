//! What the sandbox received, to show and to check. Credentials are compared and then left out.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use http::{HeaderName, header, request::Parts};

use crate::token::scheme::FINICITY_APP_KEY;

/// Older requests are forgotten.
const MAX_REQUESTS: usize = 10_000;

pub(super) const FINICITY_APP_TOKEN: HeaderName = HeaderName::from_static("finicity-app-token");

/// How a credential was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Not at all.
    Missing,
    /// Once, and right.
    Right,
    /// Once, but expired.
    Expired,
    /// Once, but wrong, or several times.
    Wrong,
}

impl Credential {
    fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Right => "right",
            Self::Expired => "expired",
            Self::Wrong => "wrong",
        }
    }
}

/// One request as it arrived, without the values of its credentials.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Path and query, byte for byte.
    pub target: String,
    /// Header fields in the order of arrival; of a credential, only whether it was right.
    pub headers: Vec<(String, String)>,
    /// The App Key.
    pub app_key: Credential,
    /// The token; [`Credential::Missing`] on a token call.
    pub token: Credential,
}

impl Seen {
    pub(super) fn new(parts: &Parts, app_key: Credential, token: Credential) -> Self {
        let headers = parts.headers.iter().map(|(name, value)| {
            let shown = if name == FINICITY_APP_KEY {
                format!("[redacted: {}]", app_key.as_str())
            } else if name == header::AUTHORIZATION || name == FINICITY_APP_TOKEN {
                format!("[redacted: {}]", token.as_str())
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
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Log(Mutex<VecDeque<Seen>>);

impl Log {
    pub(super) fn add(&self, seen: Seen) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == MAX_REQUESTS {
            log.pop_front();
        }
        log.push_back(seen);
    }

    pub(super) fn take(&self) -> Vec<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}
