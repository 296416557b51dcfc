//! Listeners that are not on the path of requests: those for probes and for administrators.

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

/// The most connections of a listener for probes or administrators. Some tens are a crowd there.
const MAX_CONNECTIONS: usize = 64;

/// How the connections of such listeners are served.
#[derive(Clone, Debug)]
pub struct OperatorListenerConfig {
    /// What logs and metrics call them.
    pub name: &'static str,
    /// What their connections may do.
    pub limits: Limits,
    /// Whether each response is its connection's last.
    pub close_after_response: bool,
    /// How long requests under way may take once the listener has closed.
    pub drain_timeout: Duration,
    /// Where their unfinished heads count.
    pub head_budget: HeadBudget,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// `service` for the requests of `peer`. Malformed ones get the status 400, and unfinished ones 408, since the service
/// sees no more than a substitute of them.
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

/// The response to a request with `fault`, which is the last one of its connection.
fn rejection(fault: FramingFault) -> Response<Full<Bytes>> {
    let (status, text) = match fault {
        FramingFault::HeadTimeout | FramingFault::HeadEvicted => {
            (StatusCode::REQUEST_TIMEOUT, "the head of the request was not complete in time\n")
        }
        _ => (StatusCode::BAD_REQUEST, "the request is malformed\n"),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Serves the connections of `listener` with `service` on this runtime, until `stop` is cancelled. At most 64 are open at once; at
/// the limit, the longest idle one is evicted for a new one. Each request says in its extensions which
/// [`Peer`] it is from.
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
    let acceptor = Acceptor::for_operators(name, MAX_CONNECTIONS, metrics);
    loop {
        let (stream, slot) = select! {
            () = stop.cancelled() => break,
            accepted = acceptor.accept_with_slot(&listener) => accepted,
        };
        let service = for_peer(service.clone(), stream.peer());
        connections.serve(&Handle::current(), stream, service, slot, ());
    }
    // No connection is taken that would not be served.
    drop(listener);
    connections.drain();
    // A last response may be part of the shutdown, such as the one to the request for it.
    let _ = timeout(drain_timeout, connections.closed()).await;
}
