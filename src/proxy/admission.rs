//! Admits requests that the [`OriginPolicy`] accepts and that have the required header field.

use http::Version;

use super::{
    config::Config,
    error::{Code, Error},
    exchange::Exchange,
};
use crate::message::{
    guard::{BrowserAccess, OriginPolicy, Rejection, RequiredHeader},
    host::Host,
    transport::Transport,
};

/// The admission checks for one transport.
#[derive(Debug)]
pub(super) struct Admission {
    transport: Transport,
    origin_policy: OriginPolicy,
    required_header: Option<RequiredHeader>,
}

impl Admission {
    /// The checks for `transport`. The upstream's host name is an allowed `Host`.
    pub(super) fn new(config: &Config, transport: Transport) -> Self {
        let upstream_host = config.upstream.url.host().and_then(Host::parse);
        let hosts = upstream_host.into_iter().chain(config.hosts.iter().cloned()).collect();
        let origin_policy = OriginPolicy::new(hosts, BrowserAccess::Denied);
        Self { transport, origin_policy, required_header: config.required_header.clone() }
    }

    /// Passes a request that names an allowed host, was not sent by a browser, and has the required header field. Removes that field.
    ///
    /// # Errors
    ///
    /// [`Code::BadRequest`], [`Code::HostDenied`], [`Code::OriginDenied`] or [`Code::HeaderRequired`].
    pub(super) fn admit<B>(&self, exchange: &mut Exchange<B>) -> Result<(), Error> {
        let request = &mut exchange.request;
        self.origin_policy.check(request.headers(), self.transport).map_err(rejected)?;
        if self.transport == Transport::Unix && request.version() < Version::HTTP_11 {
            // A truncated response would look complete: HTTP/1.0 does not frame it, and a Unix socket has no reset.
            return Err(Error::new(Code::BadRequest, "HTTP/1.1 is required on the Unix socket."));
        }
        if let Some(required) = &self.required_header {
            if !required.is_in(request.headers()) {
                return Err(missing_header(required));
            }
            request.headers_mut().remove(&required.name);
        }
        Ok(())
    }
}

fn rejected(rejection: Rejection) -> Error {
    match rejection {
        Rejection::InvalidHost => {
            Error::new(Code::BadRequest, "The request must have exactly one valid Host header.").closing_connection()
        }
        Rejection::ForeignHost => Error::new(
            Code::HostDenied,
            "The Host header names a host that this proxy does not serve; use a loopback name, or add the host to guard.hosts.",
        ),
        Rejection::CrossOrigin => {
            Error::new(Code::OriginDenied, "Browser requests are denied; call the proxy from a program.")
        }
    }
}

fn missing_header(required: &RequiredHeader) -> Error {
    let (name, value) = (&required.name, required.value.as_ref().and_then(|value| value.to_str().ok()));
    let field = value.map_or_else(|| name.to_string(), |value| format!("{name}: {value}"));
    Error::new(Code::HeaderRequired, format!("The header required by guard.required_header is missing: {field}."))
}
