//! The configuration: five sources, written by the operator and the container image, become one validated [`Config`].
//!
//! `sources` merges them into a [`Raw`]: text and numbers by key, each with its origin. `resolve` converts it to a [`Config`] of real
//! types, and reports all problems together. `config/default.toml` lists all keys with their descriptions and defaults; the calls in
//! `resolve` define type and bounds of each value. `definition` combines the two for `config explain` and the reference in `docs/`.
//!
//! Secrets are deliberately absent: they go straight from their source to [`credentials`](mod@credentials). An error message repeats a
//! value only if it [is plain](crate::secret::is_plain), because a secret may have been set for the wrong key.

mod command_line;
mod environment;
mod sources;
mod problem;
mod kind;
mod reader;
mod reload;
mod resolve;
mod definition;

use std::{path::PathBuf, time::Duration};

pub use command_line::command_line_only;
pub use definition::{Definition, Explanation, definitions, explain, find, template};
pub use environment::Environment;
pub use kind::Kind;
pub use problem::{Problem, Problems};
pub use reload::{Changes, Reloader};
pub use sources::{Inputs, Raw};

use crate::{
    credentials::{self, WebhookSecretSource, basic_password},
    error_chain,
    policy::Policy,
    proxy,
    secret::Secret,
    server::{self, Address, SocketAccess},
    telemetry::logging::{self, scrubber},
    tls, token,
    vendor::{catalogue::Catalogue, webhook::SigningKeys},
};

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to listen on.
    pub listen: Listen,
    /// Connections and workers.
    pub server: server::Config,
    /// The data path.
    pub proxy: proxy::Config,
    /// The token.
    pub token: token::Config,
    /// Trusted CAs and pinned keys for the upstream's certificate.
    pub tls: tls::Config,
    /// Logs.
    pub log: logging::Config,
    /// Reloads the configuration at runtime.
    pub reloader: Reloader,
    /// When the startup probe passes.
    pub startup: Startup,
    /// Shutdown timeouts.
    pub shutdown: Shutdown,
    /// Source of the credentials. Nothing has been read from it yet.
    pub credentials: credentials::Config,
    /// Source of the webhook secrets, if they are not the partner secret.
    pub webhook_secrets: WebhookSecretSource,
    /// Directory for authentication attempts and rejections (`auth.state_dir`).
    pub state_dir: Option<PathBuf>,
    /// Whether the credentials are those of the sandbox, so that rejections need not be persisted. Set by `demo`, not by a key.
    pub is_demo: bool,
    /// The admin socket (`admin.socket`).
    pub admin_socket: Option<AdminSocket>,
    /// The token that actions on the admin port require.
    pub admin_token: Option<Secret<String>>,
}

/// When the startup probe passes, and where the reason for a failure is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// Passes only after a token was obtained (`startup.require_token`).
    pub require_token: bool,
    /// Fails while the credentials are rejected (`startup.fail_on_rejection`).
    pub fail_on_rejection: bool,
    /// The file that receives the reason for a failure (`startup.termination_message`).
    pub termination_message: Option<PathBuf>,
    /// The service manager's socket (`NOTIFY_SOCKET`, not a key), which is notified of the start.
    pub notify_socket: Option<String>,
}

/// The admin socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSocket {
    /// Path of the socket.
    pub path: PathBuf,
    /// Whether the path is the container image's default. If so, the process runs without the socket when it cannot be created.
    pub is_optional: bool,
}

/// Shutdown timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long new connections are accepted after a stop (`shutdown.drain_delay`).
    pub drain_delay: Duration,
    /// How long requests in flight may take after `drain_delay` (`shutdown.drain_timeout`).
    pub drain_timeout: Duration,
}

/// Where operators reach a proxy with this configuration.
#[derive(Clone, Debug)]
pub struct OperatorEndpoints {
    /// Probes and metrics (`listen.ops`).
    pub ops: Vec<Address>,
    /// Admin port (`listen.admin`).
    pub admin: Vec<Address>,
    /// Admin socket (`admin.socket`).
    pub admin_socket: Option<PathBuf>,
}

/// The addresses to listen on.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Clients (`listen.proxy`).
    pub proxy: Vec<Address>,
    /// Who may connect to the Unix sockets in `proxy` (`listen.socket_mode`, `listen.socket_uids`).
    pub access: SocketAccess,
    /// Probes and metrics (`listen.ops`).
    pub ops: Vec<Address>,
    /// Admin port (`listen.admin`).
    pub admin: Vec<Address>,
    /// The vendor's notifications (`webhook.listen`).
    pub webhook: Vec<Address>,
}

/// An invalid configuration.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{problems}")]
pub struct InvalidConfig {
    /// All problems except those of the credentials, which have not been read.
    pub problems: Problems,
    /// The source of the credentials, if its keys are valid, so that problems with the credentials can be reported too.
    pub credentials: Option<credentials::Config>,
}

/// Reads, merges and validates everything except the credentials, which are [loaded](credentials::load) later because that may need the
/// network. Registers the secrets found with the scrubber, so that no output of this process shows them.
///
/// # Errors
///
/// All problems together.
pub fn load(inputs: &Inputs) -> Result<Config, InvalidConfig> {
    let mut problems = Vec::new();
    let raw = sources::merge(inputs, &mut problems);
    let reloader = Reloader::new(inputs, &raw);
    let (config, credentials) = resolve::resolve(&raw, &inputs.environment, reloader, &mut problems);
    match config {
        Some(config) if problems.is_empty() => {
            register_secrets(&config);
            Ok(config)
        }
        _ => Err(InvalidConfig { problems: Problems(problems), credentials }),
    }
}

fn register_secrets(config: &Config) {
    register_admin_token(config.admin_token.as_ref());
    let egress = config.proxy.upstream.egress.as_ref().and_then(|egress| egress.authorization.as_ref());
    if let Ok(secrets) = config.webhook_secrets.read() {
        let keys = SigningKeys::new(secrets.current, secrets.previous);
        scrubber().register("the webhook secrets", keys.secrets());
    }
    scrubber().register("the egress proxy's password", egress.and_then(basic_password).into_iter().collect());
}

/// Registers `admin_token` with the scrubber, so that no output of this process shows it.
fn register_admin_token(admin_token: Option<&Secret<String>>) {
    let values = admin_token.iter().map(|token| Secret::new(token.expose().as_bytes().to_vec()));
    scrubber().register("the admin token", values.collect());
}

/// The merged keys with their origins. Values are not validated.
///
/// # Errors
///
/// Problems with the sources themselves: an unreadable file, an unknown key.
pub fn load_raw(inputs: &Inputs) -> Result<Raw, Problems> {
    let (raw, problems) = all_keys(inputs);
    if problems.0.is_empty() { Ok(raw) } else { Err(problems) }
}

/// All keys with their origins, for `config --redacted`, and problems with the sources themselves.
pub fn all_keys(inputs: &Inputs) -> (Raw, Problems) {
    let mut problems = Vec::new();
    let raw = sources::merge(inputs, &mut problems);
    (raw, Problems(problems))
}

/// Reads only the policy, and returns it with the catalogue of the API that it applies to. Ignores credentials and all other keys.
///
/// # Errors
///
/// Problems with these keys, or with the sources themselves.
pub fn policy(inputs: &Inputs) -> Result<(&'static Catalogue, Policy), Problems> {
    let mut problems = Vec::new();
    let raw = sources::merge(inputs, &mut problems);
    let catalogue = resolve::catalogue();
    let policy = resolve::policy(&raw, catalogue, &mut problems);
    if problems.is_empty() { Ok((catalogue, policy)) } else { Err(Problems(problems)) }
}

/// Reads only the source of the credentials. Ignores the credentials themselves and all other keys.
///
/// # Errors
///
/// Problems with these keys, or with the sources themselves.
pub fn credentials(inputs: &Inputs) -> Result<credentials::Config, Problems> {
    let mut problems = Vec::new();
    let raw = sources::merge(inputs, &mut problems);
    match resolve::credentials(&raw, &inputs.environment, &mut problems) {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Problems(problems)),
    }
}

/// Reads only the addresses for operators. Ignores credentials and all other keys.
///
/// # Errors
///
/// Problems with these keys, or with the sources themselves.
pub fn operator_endpoints(inputs: &Inputs) -> Result<OperatorEndpoints, Problems> {
    let mut problems = Vec::new();
    let raw = sources::merge(inputs, &mut problems);
    let operator_endpoints = resolve::operator_endpoints(&raw, &mut problems);
    if problems.is_empty() { Ok(operator_endpoints) } else { Err(Problems(problems)) }
}

/// Reads only the admin token, and registers it with the scrubber, so that no output of this process shows it.
///
/// # Errors
///
/// The token is set and malformed.
pub fn admin_token(inputs: &Inputs) -> Result<Option<Secret<String>>, Problems> {
    let token = credentials::admin_token(inputs.environment.variables())
        .map_err(|problem| Problems(vec![Problem::other(error_chain::one_line(&problem))]))?;
    register_admin_token(token.as_ref());
    Ok(token)
}

#[cfg(test)]
mod tests;
