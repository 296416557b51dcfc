//! The proxy's own errors.
//!
//! A caller gets `application/problem+json` (RFC 9457) with a stable `code`, the same code in `x-finicity-proxy-error`, and a `detail`
//! written by this program. `executed` and `x-finicity-proxy-executed` say whether the upstream may have executed the request. The cause
//! goes to the log only.

use std::{borrow::Cow, error::Error as StdError, fmt, io, time::Duration};

use http::{HeaderName, StatusCode};

use crate::{
    dns::ResolveError,
    egress, error_chain,
    tls::TlsFailure,
    token::Unavailable,
    upstream::{ConnectError, Disposition, Http1Error, Http2Error, RequestError},
};

/// Marks a proxy-generated error response; the value is its [`Code`].
pub(super) const X_FINICITY_PROXY_ERROR: HeaderName = HeaderName::from_static("x-finicity-proxy-error");

/// Whether the upstream may have executed the request ([`Executed`]), on a proxy-generated error response.
pub(super) const X_FINICITY_PROXY_EXECUTED: HeaderName = HeaderName::from_static("x-finicity-proxy-executed");

/// The prefix of a problem's `type`; the code follows. It is a relative reference to the section of `docs/errors.md`, from the root of the
/// repository, because the page has no published URL. RFC 9457, 3.1.1, recommends the full path in a relative reference, so that it resolves
/// alike for every request target. Callers compare the type, so it must not change.
pub(super) const TYPE_PREFIX: &str = "/docs/errors.md#";

/// `Retry-After` of an overload: the minimum that the field can express, because 0 would invite an immediate retry.
const OVERLOAD_RETRY_AFTER: Duration = Duration::from_secs(1);

/// `Retry-After` of rejected or quarantined credentials: an operator has to act, so an earlier retry is useless.
const REJECTED_RETRY_AFTER: Duration = Duration::from_secs(60);

labels! {
    /// The kinds of proxy-generated errors. Their names are a contract with callers, dashboards and alerts.
    pub enum Code {
        /// No usable token was available in time.
        TokenUnavailable = "token_unavailable",
        /// The vendor rejected the proxy's credentials.
        CredentialsRejected = "credentials_rejected",
        /// An administrator quarantined the token.
        Quarantined = "quarantined",
        /// A limit on concurrent requests, or on requests that wait for a token, was reached.
        Overloaded = "overloaded",
        /// The proxy is shutting down, and the drain deadline has passed.
        Draining = "draining",
        /// The upstream was unreachable, or the connection to it was lost.
        UpstreamUnreachable = "upstream_unreachable",
        /// The TLS handshake with the upstream failed.
        UpstreamTls = "upstream_tls",
        /// The upstream's response is not valid HTTP.
        UpstreamProtocol = "upstream_protocol",
        /// The upstream did not respond in time.
        UpstreamTimeout = "upstream_timeout",
        /// The `Host` field names a host that the proxy does not serve.
        HostDenied = "host_denied",
        /// The request comes from a browser.
        OriginDenied = "origin_denied",
        /// The request is malformed or ambiguous.
        BadRequest = "bad_request",
        /// The method is never forwarded.
        MethodNotAllowed = "method_not_allowed",
        /// This call is never forwarded, or is denied by the operator's policy.
        RouteDenied = "route_denied",
        /// The daily budget of billable calls is spent.
        BillingBudgetSpent = "billing_budget_spent",
        /// The header field of `guard.required_header` is missing.
        HeaderRequired = "header_required",
        /// The request body is larger than the limit.
        BodyTooLarge = "body_too_large",
        /// The request target is longer than the limit.
        TargetTooLong = "target_too_long",
        /// The header has more fields or bytes than the limits.
        HeadersTooLarge = "headers_too_large",
        /// The request stalled, or arrived too slowly.
        RequestTimeout = "request_timeout",
        /// The request needs something that this proxy does not support.
        NotImplemented = "not_implemented",
        /// A bug in the proxy.
        Internal = "internal",
    }
}

labels! {
    /// Whether the upstream may have executed a request that ended in a proxy-generated error.
    pub enum Executed {
        /// Not executed: the request was not sent, or the upstream reported that it did not process it.
        No = "no",
        /// The request was sent, at least in part, and its outcome is unknown.
        Unknown = "unknown",
    }
}

impl Code {
    /// The status of the error response.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TokenUnavailable
            | Self::CredentialsRejected
            | Self::Quarantined
            | Self::Overloaded
            | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamUnreachable | Self::UpstreamTls | Self::UpstreamProtocol => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::HostDenied => StatusCode::MISDIRECTED_REQUEST,
            Self::OriginDenied | Self::RouteDenied | Self::BillingBudgetSpent => StatusCode::FORBIDDEN,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeaderRequired => StatusCode::PRECONDITION_FAILED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Why a request failed in the proxy; becomes an error response.
#[derive(Debug)]
pub struct Error {
    pub(super) code: Code,
    pub(super) detail: Cow<'static, str>,
    pub(super) retry_after: Option<Duration>,
    pub(super) closes_connection: bool,
    disposition: Option<Disposition>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error with a `detail` for the caller: what is wrong, and what the caller can do.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
            retry_after: None,
            closes_connection: false,
            disposition: None,
            source: None,
        }
    }

    /// [`Code::Overloaded`], with a `Retry-After` of one second.
    pub fn overloaded(detail: &'static str) -> Self {
        Self { retry_after: Some(OVERLOAD_RETRY_AFTER), ..Self::new(Code::Overloaded, detail) }
    }

    /// Sets `Retry-After`. It is sent only if the request was certainly not executed.
    #[must_use]
    pub fn with_retry_after(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }

    /// Sets the cause, which is only logged.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// Has the connection closed after the error response.
    #[must_use]
    pub fn closing_connection(self) -> Self {
        Self { closes_connection: true, ..self }
    }

    /// Sets what is known about the processing of the request.
    pub(super) fn with_disposition(self, disposition: Option<Disposition>) -> Self {
        Self { disposition, ..self }
    }

    /// Whether the upstream can have processed the request, if anything is known about that.
    pub(super) fn disposition(&self) -> Option<Disposition> {
        self.disposition
    }

    /// The kind of error.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The chain of causes as one line of text, for the log. Errors of other types than the ones below are omitted: their messages may
    /// quote what a peer sent.
    pub fn cause(&self) -> Option<String> {
        let loggable = |cause: &(dyn StdError + 'static)| {
            if let Some(error) = cause.downcast_ref::<io::Error>() {
                return error
                    .raw_os_error()
                    .map_or_else(|| Some(error.kind().to_string()), |_| Some(error.to_string()));
            }
            if let Some(error) = cause.downcast_ref::<rustls::Error>() {
                return Some(TlsFailure::classify(error).map_or_else(|| error.to_string(), |fault| fault.to_string()));
            }
            let http = cause.is::<RequestError>() || cause.is::<Http1Error>() || cause.is::<Http2Error>();
            let http = http || cause.is::<hyper::Error>();
            let ours = cause.is::<ConnectError>() || cause.is::<ResolveError>() || cause.is::<egress::Error>();
            (http || ours).then(|| cause.to_string())
        };
        let causes: Vec<String> = error_chain::chain(self.source()?).filter_map(loggable).collect();
        (!causes.is_empty()).then(|| causes.join(": "))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.as_str())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

impl Error {
    /// The error of a request that got no token. Its detail includes `last_error`, the last failure to obtain a token or to read the first credentials.
    pub(super) fn without_token(unavailable: Unavailable, last_error: Option<&str>) -> Self {
        let (code, detail, retry_after) = match unavailable {
            Unavailable::NoToken { retry_after } => (
                Code::TokenUnavailable,
                "The proxy has no valid token yet and is fetching one; retry later.",
                retry_after,
            ),
            Unavailable::Rejected => (
                Code::CredentialsRejected,
                "The upstream rejected the proxy's credentials; an operator must correct them.",
                REJECTED_RETRY_AFTER,
            ),
            Unavailable::Held => (
                Code::TokenUnavailable,
                "Token requests are suspended to avoid a lock-out of the vendor account; operator action required.",
                REJECTED_RETRY_AFTER,
            ),
            Unavailable::Quarantined => (
                Code::Quarantined,
                "An administrator quarantined the proxy's token; lift the quarantine through the admin listener.",
                REJECTED_RETRY_AFTER,
            ),
            Unavailable::TooManyWaiters => {
                return Self::overloaded("Too many requests are waiting for a token; retry later.");
            }
        };
        let detail = match last_error.filter(|_| unavailable != Unavailable::Quarantined) {
            Some(error) => Cow::Owned(format!("{detail} Last failure: {error}.")),
            None => Cow::Borrowed(detail),
        };
        Self { retry_after: Some(retry_after), ..Self::new(code, detail) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sections of `docs/errors.md`: the heading and the text of each.
    fn sections(docs: &str) -> Vec<(&str, &str)> {
        docs.split("\n## ").skip(1).filter_map(|section| section.split_once('\n')).collect()
    }

    #[test]
    fn docs_errors_has_one_section_for_each_code() {
        let sections = sections(include_str!("../../docs/errors.md"));
        let codes: Vec<_> = sections.iter().filter(|(name, _)| !name.contains(' ')).collect();
        assert_eq!(codes.iter().map(|(name, _)| *name).collect::<Vec<_>>(), Code::LABELS);
        for (code, (name, text)) in Code::ALL.into_iter().zip(codes) {
            assert!(text.starts_with(&format!("\nStatus {}. ", code.status().as_u16())), "{name}");
            assert_eq!(text.matches("\n**Safe to retry?** ").count(), 1, "{name}");
            for executed in text.match_indices("`executed").map(|(at, _)| &text[at..]) {
                let value = executed.trim_start_matches("`executed").trim_start_matches([':', '`', ' ']);
                let value = value.trim_start_matches("is `");
                assert!(Executed::LABELS.iter().any(|label| value.starts_with(label)), "{name}: {executed}");
            }
        }
    }

    #[test]
    fn docs_errors_lists_each_code_with_its_status() {
        let docs = include_str!("../../docs/errors.md");
        let table = docs.split_once("| code | status | meaning |\n|---|---|---|\n").unwrap().1;
        let rows = table.lines().take_while(|line| line.starts_with('|'));
        let mut listed: Vec<(String, String)> = rows
            .map(|row| {
                let mut cells = row.split('|').skip(1).map(str::trim);
                (cells.next().unwrap().to_owned(), cells.next().unwrap().to_owned())
            })
            .collect();
        let entry = |code: Code| {
            let name = code.as_str();
            (format!("[`{name}`](#{name})"), code.status().as_u16().to_string())
        };
        let mut expected = Code::ALL.map(entry).to_vec();
        listed.sort();
        expected.sort();
        assert_eq!(listed, expected);
    }
}
