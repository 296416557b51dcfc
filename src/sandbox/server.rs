//! Accepts connections and serves each in its own task.

use std::{error::Error as _, pin::pin, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    api::{self, Reset},
    state::SandboxState,
};

/// Timeout of a TLS handshake, and of a request head.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum number of open connections.
const MAX_CONNECTIONS: usize = 4096;

/// Pause after a failed accept, so that the loop does not spin when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Serves `state` on `listener` until it is aborted.
pub(super) async fn serve(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<SandboxState>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        connections.spawn(async move {
            let _ = stream.set_nodelay(true);
            let Ok(Ok(stream)) = timeout(CLIENT_TIMEOUT, acceptor.accept(stream)).await else { return };
            let service = service_fn(move |request| api::respond(Arc::clone(&state), request));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(CLIENT_TIMEOUT);
            let mut connection = http.serve_connection(TokioIo::new(stream), service);
            let result = pin!(&mut connection).await;
            if result.is_err_and(|error| error.source().is_some_and(<dyn std::error::Error>::is::<Reset>)) {
                let stream = connection.into_parts().io.into_inner();
                let _ = SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO));
            }
        });
    }
}
