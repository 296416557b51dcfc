//! The HTTP client of the AWS SDK, implemented by [`Transport`]. The program thus has one TLS stack, and a store, its identity and its
//! metadata services share one list of trusted CAs and one egress proxy.

use aws_smithy_runtime_api::client::{
    http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;

use crate::credentials::store::{Limits, Transport, TransportError};

/// Creates a connector for given time limits of the SDK.
#[derive(Clone, Debug)]
pub(super) struct Client(pub(super) Transport);

impl HttpClient for Client {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let limits = Limits::default().at_most(settings.connect_timeout(), settings.read_timeout());
        SharedHttpConnector::new(Connector { transport: self.0.clone(), limits })
    }
}

#[derive(Clone, Debug)]
struct Connector {
    transport: Transport,
    limits: Limits,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = self.clone();
        HttpConnectorFuture::new(async move { connector.send(request).await })
    }
}

impl Connector {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
        let (head, body) = request.into_parts();
        // All operations that are used here have their body in memory.
        let body = body.bytes().map(Bytes::copy_from_slice).unwrap_or_default();
        let response = self.transport.send(http::Request::from_parts(head, body), self.limits).await;
        let response = response.map_err(connector_error)?.map(SdkBody::from);
        HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
    }
}

/// Maps the error to a kind for the SDK, which takes a metadata service that does not respond as absent.
fn connector_error(error: TransportError) -> ConnectorError {
    match &error {
        TransportError::Http(cause) if cause.is_timeout() => ConnectorError::timeout(error.into()),
        TransportError::Http(_) => ConnectorError::io(error.into()),
        TransportError::CaFile(_) | TransportError::Plaintext | TransportError::Request(_) => {
            ConnectorError::user(error.into())
        }
        TransportError::TooLarge => ConnectorError::other(error.into(), None),
    }
}
