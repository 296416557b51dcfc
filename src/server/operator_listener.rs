//! Listeners off the request path: those for probes and administrators.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tokio::{runtime::Handle, select, time::timeout};
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt as _, service_fn};

use super::{
    HeadBudget, HttpService, Limits, Listener,
    acceptor::Acceptor,
    connection::{Connections, ListenerContext},
    evictions::Evictions,
};
use crate::{
    message::{framing::FramingFault, transport::Peer},
    process::drain::Drain,
    telemetry::Metrics,
};

/// The connection limit of a listener for probes or administrators: several times what they use.
pub const MAX_OPERATOR_CONNECTIONS: usize = 64;

/// Settings of an operator listener.
#[derive(Clone, Debug)]
pub struct OperatorListenerConfig {
    /// The listener's name in logs and metrics.
    pub name: &'static str,
    /// The limits of each connection.
    pub limits: Limits,
    /// Whether each response closes its connection.
    pub close_after_response: bool,
    /// How long requests in flight may take once the listener has closed.
    pub drain_timeout: Duration,
    /// The budget for unfinished heads.
    pub head_budget: HeadBudget,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// Wraps `service` for requests from `peer`. Malformed requests get a 400 and unfinished ones a 408 here, because the service would see
/// only a substitute for them.
fn for_peer<S: HttpService>(service: S, peer: Peer) -> impl HttpService {
    service_fn(move |mut request: Request<Incoming>| {
        let fault = request.extensions_mut().remove::<FramingFault>();
        let response = match fault {
            Some(fault) => Err(rejection(fault)),
            None => {
                request.extensions_mut().insert(peer);
                Ok(service.clone().oneshot(request))
            }
        };
        async move {
            match response {
                Ok(response) => response.await.map(|response| response.map(Either::Left)),
                Err(rejection) => Ok(rejection.map(Either::Right)),
            }
        }
    })
}

/// The response to a request with `fault`. It closes the connection.
fn rejection(fault: FramingFault) -> Response<Full<Bytes>> {
    let (status, text) = match fault {
        FramingFault::HeadTimeout | FramingFault::HeadEvicted => {
            (StatusCode::REQUEST_TIMEOUT, "the request head did not arrive in time\n")
        }
        _ => (StatusCode::BAD_REQUEST, "the request is malformed\n"),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Serves the connections of `listener` with `service` on this runtime until `stop` is cancelled. At most 64 are open at once; at the
/// limit, the longest idle one is evicted for a new one. Each request has its [`Peer`] in its extensions.
pub async fn serve(
    config: OperatorListenerConfig,
    listener: Listener,
    service: impl HttpService,
    stop: CancellationToken,
) {
    let OperatorListenerConfig { name, limits, close_after_response, drain_timeout, head_budget, metrics } = config;
    let evictions = Evictions::new(name, Arc::clone(&metrics));
    let context = Arc::new(ListenerContext { head_budget, evictions, close_after_response });
    let connections = Connections::new(limits, context, Drain::default(), Duration::ZERO);
    let acceptor = Acceptor::for_operators(name, MAX_OPERATOR_CONNECTIONS, metrics);
    loop {
        let (stream, slot) = select! {
            () = stop.cancelled() => break,
            accepted = acceptor.accept_with_slot(&listener) => accepted,
        };
        let service = for_peer(service.clone(), stream.peer());
        connections.serve(&Handle::current(), stream, service, slot, ());
    }
    // Closed before the drain, so that no connection is accepted and then not served.
    drop(listener);
    connections.drain();
    // The last response may be the one to the request for the shutdown.
    let _ = timeout(drain_timeout, connections.closed()).await;
}
