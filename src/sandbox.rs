//! A fake Finicity, to try the proxy on and to test it against: real TLS, both token endpoints, some customers.
//!
//! It is as strict as the real thing where that is known, and stricter where a client's mistake would otherwise go unseen: a
//! duplicate credential header is refused, the wrong App Key is refused before anything else, five failed authentications
//! lock the account. State is in memory and gone with the process.

mod api;
mod auth;
mod data;
mod recorder;
mod state;
mod store;
mod tls;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::pki_types::CertificateDer;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

pub use auth::Accounts;
pub use recorder::{Credential, Seen};

use self::state::Shared;

/// How long a client may take for its handshake, or for the head of a request.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most connections at once. It is a sandbox.
const MAX_CONNECTIONS: usize = 4096;

/// What the sandbox is like.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// How long a token lives. The OAuth 2.0 answer names it; the partner answer does not, as the real one.
    pub token_lifetime: Duration,
}

impl Default for Config {
    /// Any free port on the loopback address, and tokens that live two hours.
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 0)), token_lifetime: Duration::from_secs(7200) }
    }
}

/// The credentials that the sandbox knows.
#[derive(Clone, Copy, Debug)]
pub struct Credentials {
    /// OAuth 2.0 client identifier, also taken for the partner id.
    pub client_id: &'static str,
    /// OAuth 2.0 client secret, also taken for the partner secret.
    pub client_secret: &'static str,
    /// App Key.
    pub app_key: &'static str,
}

/// What to call the sandbox with. Public knowledge; they open nothing else.
pub const CREDENTIALS: Credentials = Credentials {
    client_id: "sandbox-client",
    client_secret: "sandbox-Secret-1!",
    app_key: "sandbox-app-key-0123456789abcdef",
};

/// A running sandbox. Dropping it ends it.
#[derive(Debug)]
pub struct Sandbox {
    address: SocketAddr,
    authority: tls::Authority,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

impl Sandbox {
    /// Starts a sandbox on the current runtime.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound.
    pub async fn start(config: &Config) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let authority = tls::Authority::new();
        let acceptor = TlsAcceptor::from(authority.server_config());
        let shared = Arc::new(Shared::new(config.token_lifetime));
        #[expect(clippy::disallowed_methods, reason = "it is aborted when the sandbox is dropped")]
        let task = tokio::spawn(serve(listener, acceptor, Arc::clone(&shared)));
        Ok(Self { address, authority, shared, _task: AbortOnDropHandle::new(task) })
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL to use as `upstream.url`.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The certificate of the authority that signed the sandbox's certificate.
    pub fn ca(&self) -> CertificateDer<'static> {
        self.authority.certificate()
    }

    /// The same in PEM, for `upstream.ca_file`.
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// The accounts: tokens issued, failures counted.
    pub fn accounts(&self) -> &Accounts {
        &self.shared.accounts
    }

    /// Takes out what was received since the last call, in order.
    pub fn take_seen(&self) -> Vec<Seen> {
        self.shared.seen.take()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let app = api::router(shared);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, app) = (acceptor.clone(), app.clone());
        connections.spawn(async move {
            let _ = stream.set_nodelay(true);
            let Ok(Ok(stream)) = timeout(PATIENCE, acceptor.accept(stream)).await else { return };
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            let _ = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).await;
        });
    }
}
