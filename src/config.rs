//! The configuration: from what the operator and the container image wrote, in five sources, to what can run.
//!
//! `sources` merges them into a [`Raw`]: text and numbers by key, each with its origin. `resolve` turns that into a [`Config`] of real
//! types, and reports all problems at once. `config/default.toml` is the list of all keys, with their comments and defaults; the calls of
//! `resolve` say what their values have to be. `definition` puts the two together, for `config explain` and the reference in `docs/`.
//!
//! Deliberately absent: secrets, which go straight from their source to [`credentials`](mod@credentials), and, in errors, values of keys
//! that may be secrets in the wrong place: an error repeats what [is plain](crate::secret::is_plain).

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

/// What can run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The addresses.
    pub listen: Listen,
    /// Connections and workers.
    pub server: server::Config,
    /// The data path.
    pub proxy: proxy::Config,
    /// The token.
    pub token: token::Config,
    /// Whom the upstream's certificate must come from.
    pub tls: tls::Config,
    /// Logs.
    pub log: logging::Config,
    /// Reads the configuration again while the process runs.
    pub reloader: Reloader,
    /// When the start has succeeded.
    pub startup: Startup,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// Where to read what the proxy authenticates with. Nothing has been read yet.
    pub credentials: credentials::Config,
    /// Where to read the secrets of webhooks, where they are not those of partner authentication.
    pub webhook_secrets: WebhookSecretSource,
    /// Where rejections are remembered (`auth.state_dir`).
    pub state_dir: Option<PathBuf>,
    /// Whether the credentials are those of the sandbox, whose rejections need not be remembered. Set by `demo`, not by a key.
    pub is_demo: bool,
    /// The administrator's socket (`admin.socket`).
    pub admin_socket: Option<AdminSocket>,
    /// What the administrator's actions need on the port.
    pub admin_token: Option<Secret<String>>,
}

/// When the start of the process has succeeded, and where it says why not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// Only when a token was obtained (`startup.require_token`).
    pub require_token: bool,
    /// Not while the credentials are refused (`startup.fail_on_rejection`).
    pub fail_on_rejection: bool,
    /// The file that gets the reason of that (`startup.termination_message`).
    pub termination_message: Option<PathBuf>,
    /// The socket of the service manager that waits for it: `NOTIFY_SOCKET`, which is no key.
    pub notify_socket: Option<String>,
}

/// The administrator's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSocket {
    /// Where it is.
    pub path: PathBuf,
    /// Whether the container image chose that, so that the process runs without it where it cannot be made.
    pub is_optional: bool,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long new connections are still taken after a stop (`shutdown.drain_delay`).
    pub drain_delay: Duration,
    /// How long requests in flight may take after that (`shutdown.drain_timeout`).
    pub drain_timeout: Duration,
}

/// The addresses of a proxy with this configuration for its operators.
#[derive(Clone, Debug)]
pub struct OperatorEndpoints {
    /// Probes and metrics (`listen.ops`).
    pub ops: Vec<Address>,
    /// The administrator (`listen.admin`) …
    pub admin: Vec<Address>,
    /// … and the socket (`admin.socket`).
    pub admin_socket: Option<PathBuf>,
}

/// The addresses to listen on.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Callers (`listen.proxy`).
    pub proxy: Vec<Address>,
    /// Who may use those of them that are Unix sockets (`listen.socket_mode`, `listen.socket_uids`).
    pub access: SocketAccess,
    /// Probes and metrics (`listen.ops`).
    pub ops: Vec<Address>,
    /// The administrator (`listen.admin`).
    pub admin: Vec<Address>,
    /// The vendor's notifications (`webhook.listen`).
    pub webhook: Vec<Address>,
}

/// A configuration that cannot run.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{problems}")]
pub struct InvalidConfig {
    /// All that is wrong, but for the credentials, which have not been read.
    pub problems: Problems,
    /// Where the credentials come from, where that is known, so that what is wrong with them can be reported together with the rest.
    pub credentials: Option<credentials::Config>,
}

/// Reads, merges and checks everything but the credentials, which are [loaded](credentials::load) afterwards, since that may need a
/// network. From then on no output of this process shows the secrets that it found.
///
/// # Errors
///
/// All problems at once.
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

/// The merged keys with their origins, valid or not.
///
/// # Errors
///
/// What is wrong with the sources themselves: an unreadable file, an unknown key.
pub fn load_raw(inputs: &Inputs) -> Result<Raw, Problems> {
    let (raw, problems) = all_keys(inputs);
    if problems.0.is_empty() { Ok(raw) } else { Err(problems) }
}

/// All keys with their origins, for `config --redacted`, and what is wrong with the sources themselves.
pub fn all_keys(inputs: &Inputs) -> (Raw, Problems) {
    let mut problems = Vec::new();
    let raw = sources::merge(inputs, &mut problems);
    (raw, Problems(problems))
}

/// Reads what callers may call, and the catalogue of the API that this is about. Nothing else: no credential, and no other key's
/// value.
///
/// # Errors
///
/// What is wrong with these keys, or with the sources themselves.
pub fn policy(inputs: &Inputs) -> Result<(&'static Catalogue, Policy), Problems> {
    let mut problems = Vec::new();
    let raw = sources::merge(inputs, &mut problems);
    let catalogue = resolve::catalogue();
    let policy = resolve::policy(&raw, catalogue, &mut problems);
    if problems.is_empty() { Ok((catalogue, policy)) } else { Err(Problems(problems)) }
}

/// Reads where credentials come from, and nothing else: no credential, and no other key's value.
///
/// # Errors
///
/// What is wrong with these keys, or with the sources themselves.
pub fn credentials(inputs: &Inputs) -> Result<credentials::Config, Problems> {
    let mut problems = Vec::new();
    let raw = sources::merge(inputs, &mut problems);
    match resolve::credentials(&raw, &inputs.environment, &mut problems) {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Problems(problems)),
    }
}

/// Reads the addresses for operators, and nothing else: no credential, and no other key's value.
///
/// # Errors
///
/// What is wrong with these keys, or with the sources themselves.
pub fn operator_endpoints(inputs: &Inputs) -> Result<OperatorEndpoints, Problems> {
    let mut problems = Vec::new();
    let raw = sources::merge(inputs, &mut problems);
    let operator_endpoints = resolve::operator_endpoints(&raw, &mut problems);
    if problems.is_empty() { Ok(operator_endpoints) } else { Err(Problems(problems)) }
}

/// Reads what the administrator's actions need on the port, and nothing else. From then on no output of this process shows it.
///
/// # Errors
///
/// When it is set and cannot be used.
pub fn admin_token(inputs: &Inputs) -> Result<Option<Secret<String>>, Problems> {
    let token = credentials::admin_token(inputs.environment.variables())
        .map_err(|problem| Problems(vec![Problem::other(error_chain::one_line(&problem))]))?;
    register_admin_token(token.as_ref());
    Ok(token)
}

#[cfg(test)]
mod tests;
