//! Lets requests in that the [`OriginPolicy`] accepts and that have the header field which is asked for.

use http::Version;

use super::{
    config::Config,
    error::{Code, Error},
    exchange::Exchange,
};
use crate::message::{
    guard::{OriginPolicy, Refusal, RequiredHeader},
    transport::Transport,
};

/// Who may call by one door.
#[derive(Debug)]
pub(super) struct Admission {
    door: Transport,
    hosts: OriginPolicy,
    required_header: Option<RequiredHeader>,
}

impl Admission {
    /// The guard of `door`. The upstream's own name is one to answer for.
    pub(super) fn new(config: &Config, door: Transport) -> Self {
        let own_name = config.upstream.url.host().map(str::to_owned);
        let hosts = OriginPolicy::new(own_name.into_iter().chain(config.hosts.iter().cloned()).collect());
        Self { door, hosts, required_header: config.required_header.clone() }
    }

    /// Lets a request through that names an allowed host, was not sent by a web page, and has the required header field, which
    /// ends here.
    ///
    /// # Errors
    ///
    /// [`Code::BadRequest`], [`Code::HostDenied`], [`Code::OriginDenied`] or [`Code::HeaderRequired`].
    pub(super) fn admit<B>(&self, exchange: &mut Exchange<B>) -> Result<(), Error> {
        let request = &mut exchange.request;
        self.hosts.check(request.headers(), self.door).map_err(refused)?;
        if self.door == Transport::Unix && request.version() < Version::HTTP_11 {
            // An answer that breaks off would look complete: HTTP/1.0 has no framing for it, and a Unix socket no reset.
            return Err(Error::new(Code::BadRequest, "On the Unix socket HTTP/1.1 is needed."));
        }
        if let Some(required) = &self.required_header {
            if !required.is_in(request.headers()) {
                return Err(missing(required));
            }
            request.headers_mut().remove(&required.name);
        }
        Ok(())
    }
}

fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::NoHost => Error::new(Code::BadRequest, "The request needs exactly one valid Host header.").closing(),
        Refusal::OtherHost => Error::new(
            Code::HostDenied,
            "The Host header names a host that this proxy does not answer for: call it by a loopback name, or add the name to \
             guard.hosts.",
        ),
        Refusal::WebPage => {
            Error::new(Code::OriginDenied, "Requests from web pages are refused: call the proxy from a server.")
        }
    }
}

fn missing(required: &RequiredHeader) -> Error {
    let (name, value) = (&required.name, required.value.as_ref().and_then(|value| value.to_str().ok()));
    let field = value.map_or_else(|| name.to_string(), |value| format!("{name}: {value}"));
    Error::new(Code::HeaderRequired, format!("The request needs the header that guard.required_header names: {field}."))
}
