//! A sandbox of the Finicity API for development, demos and tests: real TLS, both token endpoints, every operation.
//!
//! It is as strict as the real API where its behaviour is known, and stricter where a client's mistake would otherwise go unnoticed: it
//! rejects duplicate credential headers, checks the App Key before anything else, and locks the partner after five failed
//! authentications. State is kept in memory, separately for each seed. `docs/sandbox.md` is the manual.

mod accounts;
mod api;
mod auth;
mod body;
mod business;
mod call;
mod components;
mod connect;
mod consents;
mod consumers;
mod control;
mod credentials;
mod customers;
mod dates;
mod delivery;
mod examples;
mod faults;
mod fixtures;
mod institutions;
mod microentry;
mod owners;
mod paging;
mod partner;
mod partners;
mod payments;
mod pdf;
mod received;
mod recorder;
mod reply;
mod reports;
mod route;
mod routes;
mod server;
mod state;
mod statements;
mod tls;
mod transactions;
mod transfers;
mod txpush;
mod validate;
mod value;
mod webhooks;
mod world;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

pub use credentials::{CREDENTIALS, Credentials};
pub use recorder::{Credential, RecordedRequest};
pub use tls::CaError;

use self::{
    delivery::Delivery,
    faults::Fault,
    state::{Initial, SandboxState},
};

/// Configuration of the sandbox.
#[derive(Clone, Debug)]
pub struct Config {
    /// Listen address.
    pub listen: SocketAddr,
    /// Lifetime of tokens. The OAuth 2.0 response contains it; the partner response does not, like the real one.
    pub token_lifetime: Duration,
    /// Host names in its certificate, in addition to those of the loopback host.
    pub names: Vec<String>,
    /// Directory of a persistent CA. `None`: a new CA for each run.
    pub ca_dir: Option<PathBuf>,
    /// Identifiers and histories are derived from this number and the name of the seed.
    pub seed: u64,
    /// Initial records of every seed, in place of the built-in customer.
    pub fixtures: Option<Value>,
    /// Initial faults of every seed, in the format of `POST /sandbox/faults`.
    pub faults: Vec<Value>,
    /// CA certificates for webhook receivers, in addition to the public CAs.
    pub webhook_roots: Vec<CertificateDer<'static>>,
}

impl Default for Config {
    /// Any free port on the loopback address; tokens live two hours, like the real ones.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            token_lifetime: Duration::from_secs(7200),
            names: Vec::new(),
            ca_dir: None,
            seed: 0,
            fixtures: None,
            faults: Vec::new(),
            webhook_roots: Vec::new(),
        }
    }
}

/// Why the sandbox cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be bound.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The CA cannot be used, or a name is not a host name.
    #[error("cannot create the certificate")]
    Ca(#[from] CaError),
    /// A fixture or a fault is invalid.
    #[error("{0}")]
    Input(String),
}

/// A running sandbox. It stops when it is dropped.
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
    /// When the address cannot be bound, the CA cannot be used, or a fixture or fault is invalid.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let faults: Result<Vec<Fault>, String> = config.faults.iter().map(Fault::parse).collect();
        let ca = tls::CertificateAuthority::load(config.ca_dir.as_deref())?;
        let initial = Initial {
            salt: config.seed,
            token_lifetime: config.token_lifetime,
            faults: faults.map_err(|error| StartError::Input(format!("fault: {error}")))?,
            fixture: config.fixtures.clone(),
            ca_pem: ca.pem().to_owned(),
        };
        initial.check().map_err(|error| StartError::Input(format!("fixtures: {error}")))?;
        let acceptor = TlsAcceptor::from(ca.server_config(&config.names)?);
        let listener =
            TcpListener::bind(config.listen).await.map_err(|error| StartError::Listen(config.listen, error))?;
        let address = listener.local_addr().map_err(|error| StartError::Listen(config.listen, error))?;
        let roots: Vec<_> = config.webhook_roots.iter().cloned().chain([ca.certificate()]).collect();
        let state = Arc::new(SandboxState::new(initial, Delivery::start(&roots)));
        #[expect(clippy::disallowed_methods, reason = "aborted when the sandbox is dropped")]
        let task = tokio::spawn(server::serve(listener, acceptor, Arc::clone(&state)));
        Ok(Self { address, ca, state, _task: AbortOnDropHandle::new(task) })
    }

    /// The listen address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL to use as `upstream.url` on this machine.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The certificate of the CA that signed the sandbox's certificate.
    pub fn ca(&self) -> CertificateDer<'static> {
        self.ca.certificate()
    }

    /// The same in PEM, for `upstream.ca_file`.
    pub fn ca_pem(&self) -> String {
        self.ca.pem().to_owned()
    }

    /// Removes and returns the requests of the default seed received since the last call, in order.
    pub fn take_recorded(&self) -> Vec<RecordedRequest> {
        self.state.with("", |world| world.recorder.take()).unwrap_or_default()
    }
}
