//! Listeners that are not on the path of requests: those for probes and for administrators.

use std::{sync::Arc, time::Duration};

use http::Request;
use hyper::body::Incoming;
use tokio::{runtime::Handle, select, time::timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{
    Answers, HeadBudget, LAST_ANSWERS, Limits, Listener,
    acceptor::Acceptor,
    connection::{Connections, Shared},
    evictions::Evictions,
};
use crate::{process::drain::Drain, telemetry::Metrics};

/// The most connections of a listener for probes or administrators. Some tens are a crowd there.
const MAX_SIDE_CONNECTIONS: usize = 64;

/// What a head that is given up gets from a listener that is not on the path of requests.
const SIDE_GIVEN_UP: &str = "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Listeners that are not on the path of requests.
#[derive(Clone, Debug)]
pub struct Side {
    /// What logs and metrics call them.
    pub name: &'static str,
    /// What their connections may do.
    pub limits: Limits,
    /// Whether each response is its connection's last.
    pub closes: bool,
    /// Where their unfinished heads count.
    pub heads: HeadBudget,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// Serves the connections of `listener` with `service` on this runtime, until `stop` is cancelled. At most 64 are open at once; at
/// the limit, the longest idle one gives way to a new one. Each request says in its extensions which
/// [`Peer`](crate::message::transport::Peer) it is from.
pub async fn serve(side: Side, listener: Listener, service: impl Answers, stop: CancellationToken) {
    let Side { name, limits, closes, heads, metrics } = side;
    let evictions = Evictions::new(name, SIDE_GIVEN_UP, None, Arc::clone(&metrics));
    let shared = Arc::new(Shared { heads, evictions, closes });
    let connections = Connections::new(limits, shared, Drain::default(), Duration::ZERO);
    let entrance = Acceptor::side(name, MAX_SIDE_CONNECTIONS, metrics);
    loop {
        let (stream, slot) = select! {
            () = stop.cancelled() => break,
            next = entrance.next(&listener) => next,
        };
        let peer = stream.peer();
        let service = service.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request
        });
        connections.serve(&Handle::current(), stream, service, slot, ());
    }
    connections.drain();
    // What is still being said is part of the end, such as the answer to a wish for it. Nobody else is waited for.
    let _ = timeout(LAST_ANSWERS, connections.finished()).await;
}
