//! Listeners that are not on the path of requests: those for probes and for administrators.

use std::{sync::Arc, time::Duration};

use http::Request;
use hyper::body::Incoming;
use tokio::{runtime::Handle, select, time::timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{
    FINAL_RESPONSE_GRACE, HeadBudget, HttpService, Limits, Listener,
    acceptor::Acceptor,
    connection::{Connections, ListenerContext},
    evictions::Evictions,
};
use crate::{process::drain::Drain, telemetry::Metrics};

/// The most connections of a listener for probes or administrators. Some tens are a crowd there.
const MAX_CONNECTIONS: usize = 64;

/// The response to a head that is evicted.
const EVICTION_RESPONSE: &str = "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// How the connections of such listeners are served.
#[derive(Clone, Debug)]
pub struct OperatorListenerConfig {
    /// What logs and metrics call them.
    pub name: &'static str,
    /// What their connections may do.
    pub limits: Limits,
    /// Whether each response is its connection's last.
    pub close_after_response: bool,
    /// Where their unfinished heads count.
    pub head_budget: HeadBudget,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// Serves the connections of `listener` with `service` on this runtime, until `stop` is cancelled. At most 64 are open at once; at
/// the limit, the longest idle one is evicted for a new one. Each request says in its extensions which
/// [`Peer`](crate::message::transport::Peer) it is from.
pub async fn serve(
    config: OperatorListenerConfig,
    listener: Listener,
    service: impl HttpService,
    stop: CancellationToken,
) {
    let OperatorListenerConfig { name, limits, close_after_response, head_budget, metrics } = config;
    let evictions = Evictions::new(name, EVICTION_RESPONSE, None, Arc::clone(&metrics));
    let context = Arc::new(ListenerContext { head_budget, evictions, close_after_response });
    let connections = Connections::new(limits, context, Drain::default(), Duration::ZERO);
    let acceptor = Acceptor::for_operators(name, MAX_CONNECTIONS, metrics);
    loop {
        let (stream, slot) = select! {
            () = stop.cancelled() => break,
            accepted = acceptor.accept_with_slot(&listener) => accepted,
        };
        let peer = stream.peer();
        let service = service.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request
        });
        connections.serve(&Handle::current(), stream, service, slot, ());
    }
    connections.drain();
    // A last response may be part of the shutdown, such as the one to the request for it.
    let _ = timeout(FINAL_RESPONSE_GRACE, connections.closed()).await;
}
