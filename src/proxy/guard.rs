//! Lets requests in that the [`HostGuard`] accepts.

use super::{Code, Error, Exchange};
use crate::guard::{HostGuard, Refusal};

/// Lets a request through that names an allowed host and was not sent by a web page.
///
/// # Errors
///
/// [`Code::BadRequest`], [`Code::HostDenied`] or [`Code::OriginDenied`].
pub(super) fn admit<B>(guard: &HostGuard, exchange: &mut Exchange<B>) -> Result<(), Error> {
    guard.check(exchange.request.headers()).map_err(|refusal| match refusal {
        Refusal::NoHost => Error::new(Code::BadRequest, "The request needs exactly one valid Host header."),
        Refusal::OtherHost => Error::new(
            Code::HostDenied,
            "The Host header names a host that this proxy does not answer for: call it by a loopback name, or add the name to \
             guard.hosts.",
        ),
        Refusal::WebPage => {
            Error::new(Code::OriginDenied, "Requests from web pages are refused: call the proxy from a server.")
        }
    })
}
