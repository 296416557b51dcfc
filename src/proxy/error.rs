//! The proxy's own errors, and what a response looks like that tells one.
//!
//! A caller gets `application/problem+json` (RFC 9457) with a stable `code`, the same code in `x-finicity-proxy-error`, and
//! a sentence of this program. `executed` and `x-finicity-proxy-executed` say whether the upstream may have executed the request. The cause stays in the log.

use std::{borrow::Cow, error::Error as StdError, fmt, io, time::Duration};

use http::{HeaderName, StatusCode};

use crate::{
    dns::ResolveError,
    egress, error_chain,
    tls::TlsFailure,
    token::Unavailable,
    upstream::{ConnectError, Disposition, Http1Error, Http2Error, RequestError},
};

/// Marks an answer as the proxy's own and says why it was made.
pub(super) const X_FINICITY_PROXY_ERROR: HeaderName = HeaderName::from_static("x-finicity-proxy-error");

/// Says on such an answer whether the upstream may have executed the request ([`Executed`]).
pub(super) const X_FINICITY_PROXY_EXECUTED: HeaderName = HeaderName::from_static("x-finicity-proxy-executed");

/// What a problem's `type` begins with; the code follows. It names the section of `docs/errors.md`, as a reference from the root of
/// the repository, since that is published nowhere: a URL of it would be a guess. RFC 9457, 3.1.1, asks for the full path in a
/// relative reference, so that it is the same for every request target. Callers compare it, so it stays as it is.
pub(super) const TYPE_PREFIX: &str = "/docs/errors.md#";

/// When an overloaded proxy is worth asking again.
const OVERLOAD_RETRY_AFTER: Duration = Duration::from_secs(1);

/// When rejected credentials may have been replaced: not sooner than a person acts.
const REJECTED_RETRY_AFTER: Duration = Duration::from_secs(60);

labels! {
    /// The kinds of error that the proxy answers with. Their names are a contract with callers, dashboards and alerts.
    pub enum Code {
        /// There is no usable token, and none came in time.
        TokenUnavailable = "token_unavailable",
        /// The vendor rejected the proxy's credentials.
        CredentialsRejected = "credentials_rejected",
        /// An administrator wants no token to be used.
        Quarantined = "quarantined",
        /// More work than the proxy takes on.
        Overloaded = "overloaded",
        /// The proxy is ending, and its time for requests is over.
        Draining = "draining",
        /// The upstream could not be reached, or the connection to it broke.
        UpstreamUnreachable = "upstream_unreachable",
        /// The TLS handshake with the upstream failed.
        UpstreamTls = "upstream_tls",
        /// The upstream's answer is not valid HTTP.
        UpstreamProtocol = "upstream_protocol",
        /// The upstream did not answer in time.
        UpstreamTimeout = "upstream_timeout",
        /// The request was meant for another host.
        HostDenied = "host_denied",
        /// The request comes from a browser.
        OriginDenied = "origin_denied",
        /// The request cannot be understood or must not be forwarded.
        BadRequest = "bad_request",
        /// The method is never forwarded.
        MethodNotAllowed = "method_not_allowed",
        /// This call is not allowed through the proxy.
        RouteDenied = "route_denied",
        /// The calls that may be billed on this day went through.
        BillingBudgetSpent = "billing_budget_spent",
        /// The header field that callers must send is missing.
        HeaderRequired = "header_required",
        /// The request body is larger than the limit.
        BodyTooLarge = "body_too_large",
        /// The request target is longer than the limit.
        TargetTooLong = "target_too_long",
        /// There are more header fields, or longer ones, than the limit.
        HeadersTooLarge = "headers_too_large",
        /// The caller stopped sending its request.
        RequestTimeout = "request_timeout",
        /// The request needs something that this proxy does not do.
        NotImplemented = "not_implemented",
        /// A bug in the proxy.
        Internal = "internal",
    }
}

labels! {
    /// Whether the upstream may have executed a request that the proxy answered by itself.
    pub enum Executed {
        /// Certainly not: it was not sent, or the upstream said that it did nothing with it.
        No = "no",
        /// It was sent, at least in part, and what became of it is unknown.
        Unknown = "unknown",
    }
}

impl Code {
    /// The status of the answer.
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

/// Why the proxy answers by itself.
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
    /// An error whose answer says `detail`: what is wrong and what the caller can do.
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

    /// [`Code::Overloaded`], worth another try soon.
    pub fn overloaded(detail: &'static str) -> Self {
        Self { retry_after: Some(OVERLOAD_RETRY_AFTER), ..Self::new(Code::Overloaded, detail) }
    }

    /// The same, worth another try after `retry_after`. The answer says so only where nothing can have been executed.
    #[must_use]
    pub fn with_retry_after(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }

    /// The same with its cause, which only the log will show.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// The same for a request after which the connection is closed.
    #[must_use]
    pub fn closing_connection(self) -> Self {
        Self { closes_connection: true, ..self }
    }

    /// The same with what is known of the request.
    pub(super) fn with_disposition(self, disposition: Option<Disposition>) -> Self {
        Self { disposition, ..self }
    }

    /// What is known to have become of the request, if anything is.
    pub(super) fn disposition(&self) -> Option<Disposition> {
        self.disposition
    }

    /// The kind of error.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The chain of causes as one line of text, for the log. Only causes whose words are known to be no peer's are told: the
    /// libraries below hyper quote what a server sent.
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
    /// The error of a request that got no token. Its answer says how the last token request failed, if it did.
    pub(super) fn without_token(unavailable: Unavailable, last_error: Option<&str>) -> Self {
        let (code, detail, retry_after) = match unavailable {
            Unavailable::NoToken { retry_after } => (
                Code::TokenUnavailable,
                "The proxy has no valid token at the moment and is fetching one; try again later.",
                retry_after,
            ),
            Unavailable::Rejected => (
                Code::CredentialsRejected,
                "The upstream rejected the proxy's credentials; an operator has to correct them.",
                REJECTED_RETRY_AFTER,
            ),
            Unavailable::Held => (
                Code::TokenUnavailable,
                "Token requests are held to avoid a lock-out of the vendor account; an operator has to act.",
                REJECTED_RETRY_AFTER,
            ),
            Unavailable::Quarantined => (
                Code::Quarantined,
                "An administrator has put the proxy's token in quarantine; it is lifted on the admin port.",
                REJECTED_RETRY_AFTER,
            ),
            Unavailable::TooManyWaiters => {
                return Self::overloaded("Too many requests are waiting for a token already; try again later.");
            }
        };
        let detail = match last_error.filter(|_| unavailable != Unavailable::Quarantined) {
            Some(error) => Cow::Owned(format!("{detail} The last token request failed: {error}.")),
            None => Cow::Borrowed(detail),
        };
        Self { retry_after: Some(retry_after), ..Self::new(code, detail) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sections of `docs/errors.md` that begin with `## name`, up to the next one.
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
    fn the_readme_lists_each_code_with_its_status() {
        let readme = include_str!("../../README.md");
        let table = readme.split_once("| code | status | meaning |\n|---|---|---|\n").unwrap().1;
        let rows = table.lines().take_while(|line| line.starts_with('|'));
        let mut listed: Vec<(String, String)> = rows
            .map(|row| {
                let mut cells = row.split('|').skip(1).map(str::trim);
                (cells.next().unwrap().to_owned(), cells.next().unwrap().to_owned())
            })
            .collect();
        let entry = |code: Code| {
            let name = code.as_str();
            (format!("[`{name}`](docs/errors.md#{name})"), code.status().as_u16().to_string())
        };
        let mut expected = Code::ALL.map(entry).to_vec();
        listed.sort();
        expected.sort();
        assert_eq!(listed, expected);
    }
}
