//! Classifies a token response: a token, or a class of failure that determines the next step.
//!
//! Pure functions on the parts of the response. The body takes precedence over the status, because the vendor reports a locked
//! account with a 500 (its error 24302) and some OAuth servers report errors with a 200. Every decodable content coding is tried,
//! regardless of the header fields: a rejection that is not recognised is repeated, and five lock the account. Only known error
//! codes ([`vendor`]) are kept from a body, so no failure can carry a secret into a log.

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use crate::{
    secret::Secret,
    vendor::{
        self, Json, Reading,
        coding::{self, CodingError},
    },
};

/// The maximum size of a token response, before and after decompression. A typical one has a few hundred bytes, and one with a signed
/// token of many claims a few thousand.
const MAX_TOKEN_BODY_BYTES: usize = 64 * 1024;

/// How much of a response is read, before and after decompression. More than a token response may have, because a gateway's error
/// page may be long, with a rejection at its end.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// A complete response from a token endpoint.
pub struct TokenResponse<'a> {
    /// The status code.
    pub status: StatusCode,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The body as received, or `None` if it was larger than [`MAX_BODY_BYTES`].
    pub body: Option<&'a [u8]>,
}

/// Shows status and size only: the body contains the token, and header fields may contain anything.
impl fmt::Debug for TokenResponse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.body.map(<[u8]>::len);
        f.debug_struct("TokenResponse").field("status", &self.status).field("bytes", &bytes).finish_non_exhaustive()
    }
}

/// A token from a successful response.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token: visible ASCII that is valid in a header field.
    pub token: Secret<String>,
    /// The lifetime, counted from the request, if the response has one.
    pub expires_in: Option<Duration>,
    /// Whether the response lacks `token_type`, which RFC 6749 requires.
    pub untyped: bool,
}

labels! {
    /// The classes of failure, by what can be done about them.
    pub enum FailureClass {
        /// The credentials are wrong. Each further attempt counts towards the lock-out.
        Rejected = "rejected",
        /// The configured request does not fit the server: an operator has to correct the configuration, or the vendor its side.
        Misconfigured = "config",
        /// Too many requests.
        Throttled = "throttled",
        /// A temporary fault of the network or the server.
        Transient = "transient",
        /// The server's certificate cannot be verified.
        Certificate = "certificate",
        /// A redirect, which is never followed with credentials.
        Redirect = "redirect",
        /// A success status without a usable token.
        Malformed = "malformed",
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the vendor can have counted a token request that obtained no token as a failed authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// No byte of the request was sent: DNS, connect, egress tunnel or TLS handshake failed.
    NotSent,
    /// A complete response was received.
    Responded,
    /// The request may have been processed: there was no complete response.
    Unknown,
}

/// A token request that obtained no token.
#[derive(Clone, Debug)]
pub struct TokenFailure {
    /// The class of the failure.
    pub class: FailureClass,
    /// Whether the vendor can have counted the request.
    pub disposition: Disposition,
    /// What was wrong, in this program's words.
    pub reason: Cow<'static, str>,
    /// What an operator can do, worded to follow a semicolon; may be empty.
    pub remedy: Cow<'static, str>,
    /// Host and port of the token endpoint, if it responded.
    pub endpoint: Option<Arc<str>>,
    /// The status of the response, if there was one.
    pub status: Option<StatusCode>,
    /// The vendor's error code or the OAuth error, if a known one was found.
    pub code: Option<String>,
    /// The wait that the server requested with `Retry-After`.
    pub retry_after: Option<Duration>,
    /// Whether the body was JSON, or contained an error in another of the vendor's formats.
    pub readable: bool,
}

impl TokenFailure {
    /// A failure without a response, with [`Disposition::Unknown`].
    pub fn new(class: FailureClass, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            class,
            disposition: Disposition::Unknown,
            reason: reason.into(),
            remedy: Cow::Borrowed(""),
            endpoint: None,
            status: None,
            code: None,
            retry_after: None,
            readable: true,
        }
    }

    /// Sets what an operator can do.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<Cow<'static, str>>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }

    /// Sets the host and port of the token endpoint that responded.
    #[must_use]
    pub fn from_endpoint(self, endpoint: &Arc<str>) -> Self {
        Self { endpoint: Some(Arc::clone(endpoint)), ..self }
    }

    /// Sets the disposition.
    #[must_use]
    pub fn with_disposition(self, disposition: Disposition) -> Self {
        Self { disposition, ..self }
    }

    /// Whether the server declined to process the request, rather than failing to process it.
    pub fn is_definitive(&self) -> bool {
        matches!(
            self.class,
            FailureClass::Rejected | FailureClass::Misconfigured | FailureClass::Throttled | FailureClass::Redirect
        )
    }

    /// Whether the response is of no use: a success without a usable token, or a server error with an unreadable body. 502, 503 and
    /// 504 do not count: a gateway sends them, without a body from the vendor, whenever its backend is temporarily unavailable.
    pub fn is_unusable(&self) -> bool {
        let unreadable =
            |status: StatusCode| !self.readable && status.is_server_error() && !(502..=504).contains(&status.as_u16());
        self.class == FailureClass::Malformed
            || (self.class == FailureClass::Transient && self.status.is_some_and(unreadable))
    }
}

/// One sentence: what happened, where, and what to do. It contains no text from a peer.
impl fmt::Display for TokenFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(status) = self.status {
            let endpoint = self.endpoint.as_deref().map(|endpoint| format!(" {endpoint}")).unwrap_or_default();
            write!(f, "the token endpoint{endpoint} returned {}", status.as_u16())?;
            if let Some(code) = &self.code {
                write!(f, " with code {code}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.reason)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for TokenFailure {}

/// Classifies `response`. `token_field` is the member that holds the token; `now` is the wall-clock time, for an HTTP-date in
/// `Retry-After`.
///
/// # Errors
///
/// A rejection in the body takes precedence, then the class of the status. A success status without a usable token is malformed.
pub fn classify(response: &TokenResponse<'_>, token_field: &str, now: SystemTime) -> Result<IssuedToken, TokenFailure> {
    let status = response.status;
    let (mut body, obstacle) = read_body(response);
    let codes = std::mem::take(&mut body.codes);
    let readable = body.json.is_some() || !codes.is_empty() || body.refuses_app_key;

    // The part that was not read may contain a rejection.
    let unread = obstacle == Some(UNREAD);
    let fail = |class, reason: &'static str| TokenFailure {
        class,
        disposition: if unread { Disposition::Unknown } else { Disposition::Responded },
        reason: Cow::Borrowed(reason),
        remedy: Cow::Borrowed(remedy(class, status)),
        endpoint: None,
        status: Some(status),
        code: codes.first().cloned(),
        retry_after: retry_after(response.headers, now),
        readable,
    };

    if body.refuses_app_key {
        let failure = fail(FailureClass::Rejected, "it does not accept the App Key");
        return Err(failure.with_remedy("correct the App Key"));
    }
    if let Some(code) = codes.iter().find(|code| vendor::rejects_credentials(code)) {
        return Err(TokenFailure {
            code: Some(code.clone()),
            ..fail(FailureClass::Rejected, "it rejected the credentials")
        });
    }
    if let Some((class, reason)) = classify_status(status) {
        return Err(fail(class, reason));
    }
    let issued = match obstacle {
        None => issued_token(body.json.as_mut(), token_field),
        Some(obstacle) => Err(obstacle),
    };
    issued.map_err(|reason| fail(FailureClass::Malformed, reason))
}

/// Parses the body of `response`, and returns why a token in it must not be used, if so. A rejection counts in any decoding of the
/// body; a token counts only if the decoding is intact.
fn read_body(response: &TokenResponse<'_>) -> (Reading, Option<&'static str>) {
    let nothing = || Reading { json: None, codes: Vec::new(), refuses_app_key: false };
    let Some(body) = response.body else { return (nothing(), Some(UNREAD)) };
    let found = coding::find(response.headers, body, MAX_BODY_BYTES, |decoded| {
        let length = body.len().max(decoded.bytes().len());
        let obstacle = match decoded.is_intact() {
            _ if length > MAX_TOKEN_BODY_BYTES => Some(TOO_LARGE),
            true => None,
            false => Some("the token response is damaged: its compressed body is corrupt"),
        };
        vendor::read(decoded.bytes()).map(|reading| (reading, obstacle))
    });
    match found {
        Ok(Some(found)) => found,
        Ok(None) => (nothing(), (body.len() > MAX_TOKEN_BODY_BYTES).then_some(TOO_LARGE)),
        Err(CodingError::TooLarge) => (nothing(), Some(UNREAD)),
        Err(CodingError::NotDecodable) => {
            (nothing(), Some("the token response has a content coding that cannot be decoded"))
        }
    }
}

/// The class of a response by its status; `None` for a success.
fn classify_status(status: StatusCode) -> Option<(FailureClass, &'static str)> {
    Some(match status.as_u16() {
        200..=299 => return None,
        401 => (FailureClass::Rejected, "it rejected the credentials"),
        404 => (FailureClass::Misconfigured, "there is no token endpoint at this path"),
        403 => (FailureClass::Misconfigured, "it forbids the token request, perhaps because of the source country"),
        400 | 405 | 415 => (FailureClass::Misconfigured, "it does not understand the token request"),
        429 => (FailureClass::Throttled, "it limits the rate of token requests"),
        300..=399 => (FailureClass::Redirect, "it redirects, and a request with credentials never follows a redirect"),
        _ => (FailureClass::Transient, "it is failing"),
    })
}

/// What an operator can do about a response.
fn remedy(class: FailureClass, status: StatusCode) -> &'static str {
    match (class, status.as_u16()) {
        (FailureClass::Rejected, _) => "correct id, secret and App Key, and check auth.scheme",
        (_, 403) => {
            "check that the vendor permits this network's address, and that upstream.url points to the vendor, not to a gateway"
        }
        (FailureClass::Misconfigured, 404) | (FailureClass::Malformed | FailureClass::Redirect, _) => {
            "check upstream.url and auth.token_path, and the gateways between this proxy and the vendor"
        }
        (FailureClass::Misconfigured, _) => "check auth.scheme, auth.encoding, auth.scope and auth.token_path",
        (FailureClass::Throttled, _) => "it is retried later; look for other programs that use the same account",
        _ => "it is retried; if the failure persists, see the vendor's status page",
    }
}

/// The token in the body of a success, or the reason why there is no usable one. A member that is `null` counts as absent.
fn issued_token(body: Option<&mut Json>, token_field: &str) -> Result<IssuedToken, &'static str> {
    let body = body.ok_or(NO_TOKEN)?;
    let token_type = body.get("token_type");
    let untyped = token_type.is_none();
    if !token_type.is_none_or(|t| t.as_str().is_some_and(|t| t.eq_ignore_ascii_case("bearer"))) {
        return Err("the token response has a token_type other than Bearer");
    }
    let expires_in = match body.get("expires_in") {
        None => None,
        Some(value) => Some(parse_lifetime(value).ok_or("the token response has no valid expires_in")?),
    };
    let token = body.take_text(token_field).map(Secret::new).filter(|token| !token.expose().is_empty());
    let token = token.ok_or(NO_TOKEN)?;
    if is_sendable(token.expose()) {
        Ok(IssuedToken { token, expires_in, untyped })
    } else {
        Err("the token response has a token that is not valid in a header field")
    }
}

const TOO_LARGE: &str = "the token response is too large";

/// Part of the response was not read.
const UNREAD: &str = "the token response is too large to be read";

const NO_TOKEN: &str = "the token response has no token";

/// Whether `token` is valid in a header field: visible ASCII without the delimiters that would need quoting. Wider than
/// RFC 6750's `b64token`, because not every issuer follows it.
fn is_sendable(token: &str) -> bool {
    token.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\,".contains(&byte))
}

/// A whole, positive number of seconds, as a number or in a string.
fn parse_lifetime(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => {
            number.as_u64().or_else(|| number.as_f64().filter(|s| *s >= 1.0 && s.fract() == 0.0).map(|s| s as u64))
        }
        Value::String(text) => parse_digits(text),
        _ => None,
    };
    seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// `Retry-After` as seconds or as an HTTP-date (RFC 9110, 10.2.3). The longest wait if the field is repeated; an invalid value counts
/// as absent.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let values = headers.get_all(header::RETRY_AFTER).iter().filter_map(|value| value.to_str().ok()).map(str::trim);
    let waits = values.filter_map(|value| match parse_digits(value) {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => httpdate::parse_http_date(value).ok()?.duration_since(now).ok(),
    });
    waits.max()
}

/// Parses `text`, which must consist of digits only. Saturates at [`u64::MAX`].
fn parse_digits(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
