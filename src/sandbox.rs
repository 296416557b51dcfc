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
pub use recorder::{Credential, RecordedRequest};

use self::state::SandboxState;

/// The timeout of a client's handshake, and of a request's head.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

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
    ca: tls::CertificateAuthority,
    state: Arc<SandboxState>,
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
        let ca = tls::CertificateAuthority::new();
        let acceptor = TlsAcceptor::from(ca.server_config());
        let state = Arc::new(SandboxState::new(config.token_lifetime));
        #[expect(clippy::disallowed_methods, reason = "it is aborted when the sandbox is dropped")]
        let task = tokio::spawn(serve(listener, acceptor, Arc::clone(&state)));
        Ok(Self { address, ca, state, _task: AbortOnDropHandle::new(task) })
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL to use as `upstream.url`.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The certificate of the CA that signed the sandbox's certificate.
    pub fn ca(&self) -> CertificateDer<'static> {
        self.ca.certificate()
    }

    /// The same in PEM, for `upstream.ca_file`.
    pub fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    /// The accounts: tokens issued, failures counted.
    pub fn accounts(&self) -> &Accounts {
        &self.state.accounts
    }

    /// Removes and returns the requests that were received since the last call, in order.
    pub fn take_recorded(&self) -> Vec<RecordedRequest> {
        self.state.recorder.take()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<SandboxState>) {
    let app = api::router(state);
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
            let Ok(Ok(stream)) = timeout(CLIENT_TIMEOUT, acceptor.accept(stream)).await else { return };
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(CLIENT_TIMEOUT);
            let _ = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).await;
        });
    }
}
