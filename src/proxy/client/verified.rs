//! TLS on top of a connection, verified as the trust of this moment asks.

use std::error::Error as StdError;
use std::task::{Context, Poll};

use http::Uri;
use hyper::rt::{Read, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::Connection;
use tower::Service;

use crate::tls::Trust;

/// A connector that asks for the current trust at each connection, since that may change while the process runs.
#[derive(Clone, Debug)]
pub(super) struct VerifiedConnector<T> {
    tcp: T,
    trust: Trust,
    http2: bool,
}

impl<T> VerifiedConnector<T> {
    /// TLS over the connections of `tcp`, with HTTP/2 on offer or not.
    pub(super) fn new(tcp: T, trust: Trust, http2: bool) -> Self {
        Self { tcp, trust, http2 }
    }
}

impl<T> Service<Uri> for VerifiedConnector<T>
where
    T: Service<Uri, Error: Into<Box<dyn StdError + Send + Sync>>, Future: Send + 'static> + Clone,
    T::Response: Connection + Read + Write + Send + Unpin + 'static,
{
    type Response = <HttpsConnector<T> as Service<Uri>>::Response;
    type Error = <HttpsConnector<T> as Service<Uri>>::Error;
    type Future = <HttpsConnector<T> as Service<Uri>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        // The clone stays, the one that is ready is used.
        let tcp = self.tcp.clone();
        let tcp = std::mem::replace(&mut self.tcp, tcp);
        let https = HttpsConnectorBuilder::new().with_tls_config(self.trust.client_config()).https_only();
        let mut https = if self.http2 {
            https.enable_all_versions().wrap_connector(tcp)
        } else {
            https.enable_http1().wrap_connector(tcp)
        };
        https.call(address)
    }
}
