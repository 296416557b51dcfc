//! Checks whether a configuration can start on this machine, without binding, creating, writing or locking anything.
//!
//! Both `serve` and `check` use it, so they report the same problems with the same messages.

use std::path::Path;

use super::listeners::join_addresses;
use crate::{
    config::{Config, Problem},
    credentials::{
        Scheme, WEBHOOK_SECRET,
        lockout::{self, StateOutlook},
    },
    error_chain,
    secret::ShownPath,
    server::{self, Address, BindError},
};

/// The results of the checks.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Problems that prevent startup until the configuration or the machine is changed.
    pub(super) problems: Vec<Problem>,
    /// Notes for the operator, including problems that may be gone when the process starts.
    pub(super) notes: Vec<String>,
}

impl Findings {
    /// Adds bind errors. An address in use is only a note, because the running proxy may be using it.
    fn add_bind_errors(&mut self, errors: Vec<BindError>) {
        for error in errors {
            let text = error_chain::one_line(&error);
            if error.is_configuration() {
                self.problems.push(Problem::other(text));
            } else {
                self.notes.push(text);
            }
        }
    }
}

/// Checks the addresses, the sockets and the state directory of `config`, and whether webhooks can be verified with credentials of
/// `scheme`, if that is known.
pub(super) fn inspect(config: &Config, scheme: Option<Scheme>) -> Findings {
    let mut findings = inspect_listeners(config);
    let has_webhook_secret = config.webhook_secrets.read().is_ok_and(|secrets| secrets.current.is_some());
    if !config.listen.webhook.is_empty() && scheme == Some(Scheme::OAuth2) && !has_webhook_secret {
        let text = format!(
            "webhook.listen: OAuth 2.0 credentials cannot verify webhooks: set {WEBHOOK_SECRET} or {WEBHOOK_SECRET}_FILE to the partner secret"
        );
        findings.problems.push(Problem::other(text));
    }
    if let Some(dir) = &config.state_dir {
        match lockout::inspect(dir) {
            Ok(outlook) => findings.notes.extend(state_note(dir, outlook)),
            Err(error) => {
                let text = error_chain::one_line(&error);
                findings.problems.push(Problem::other(format!("auth.state_dir: {text}")));
            }
        }
    }
    findings
}

/// Checks the addresses and the sockets of `config`.
fn inspect_listeners(config: &Config) -> Findings {
    let mut findings = Findings::default();
    let listen = &config.listen;
    for (key, addresses) in [
        ("listen.proxy", &listen.proxy),
        ("listen.ops", &listen.ops),
        ("listen.admin", &listen.admin),
        ("webhook.listen", &listen.webhook),
    ] {
        findings.add_bind_errors(server::inspect(key, addresses));
        if addresses.iter().any(|address| address.tcp().is_some_and(|tcp| tcp.port() == 0)) {
            let addresses = join_addresses(addresses);
            findings.notes.push(format!(
                "{key}: {addresses} has port 0, so each start binds another free port, which only the log line `listening` shows"
            ));
        }
    }
    if let Some(socket) = &config.admin_socket {
        let errors = server::inspect("admin.socket", &[Address::Unix(socket.path.clone())]);
        if socket.is_optional {
            let lines = errors.iter().map(|error| error_chain::one_line(error) + "; startup skips this socket");
            findings.notes.extend(lines);
        } else {
            findings.add_bind_errors(errors);
        }
    }
    findings
}

/// The problems that prevent binding the addresses and sockets of `config` until the configuration or the machine is changed.
pub fn listener_problems(config: &Config) -> Vec<Problem> {
    inspect_listeners(config).problems
}

/// The note for the operator about the state directory `dir`, if any.
fn state_note(dir: &Path, outlook: StateOutlook) -> Option<String> {
    let what = match outlook {
        StateOutlook::Found => return None,
        StateOutlook::Created => "has no lock-out state yet; startup creates it",
        StateOutlook::NotWritable => {
            "is not writable by this user: credentials that have not obtained a token are not tried"
        }
        StateOutlook::ReadOnly => {
            "is on a read-only file system: a rejection of the credentials is lost at the next restart"
        }
    };
    Some(format!("auth.state_dir: {} {what}", ShownPath::of_new(dir)))
}
