//! Converts the merged keys to a [`Config`]: reads every key with its type and bounds.

mod auth;
mod connect;
mod headers;
mod listen;
mod log;
mod policy;
mod server;
mod stores;
mod upstream;
mod webhook;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use http::HeaderValue;

use super::{Config, Environment, Kind, OperatorEndpoints, Problem, Raw, Reloader, Shutdown, Startup, reader::Reader};
use crate::{
    credentials, error_chain,
    message::{guard::RequiredHeader, host::Host},
    policy::Policy,
    process::service_manager::NOTIFY_SOCKET,
    proxy,
    telemetry::Levels,
    token,
    vendor::catalogue::Catalogue,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Reads every key of `raw` and the operator's secrets. Adds problems to `problems`; the configuration must not be used if there are any.
/// Returns the source of the credentials even if other keys are invalid.
pub(super) fn resolve(
    raw: &Raw,
    environment: &Environment,
    reloader: Reloader,
    problems: &mut Vec<Problem>,
) -> (Option<Config>, Option<credentials::Config>) {
    let mut reader = Reader::new(raw, problems);
    let source = auth::credentials(&mut reader, environment);
    let egress = credentials::egress_authorization(environment.variables());
    let config = keys(&mut reader, source.clone(), reloader, egress.as_ref().ok().cloned().flatten());
    let admin_token = credentials::admin_token(environment.variables());
    let webhook_secrets = credentials::WebhookSecretSource::new(environment.variables());
    let webhook = webhook_secrets.read();
    let wrong = admin_token.as_ref().err().into_iter().chain(egress.as_ref().err()).chain(webhook.as_ref().err());
    problems.extend(wrong.map(|problem| Problem::other(error_chain::one_line(problem))));
    let notify_socket = environment.variables().get(NOTIFY_SOCKET).map(|address| address.expose().clone());
    let config = config.zip(admin_token.ok()).map(|(config, admin_token)| {
        let startup = Startup { notify_socket, ..config.startup };
        Config { admin_token, webhook_secrets, startup, ..config }
    });
    (config, source)
}

/// Reads the keys that select the source of the credentials.
pub(super) fn credentials(
    raw: &Raw,
    environment: &Environment,
    problems: &mut Vec<Problem>,
) -> Option<credentials::Config> {
    auth::credentials(&mut Reader::new(raw, problems), environment)
}

/// Reads the keys with the addresses for operators.
pub(super) fn operator_endpoints(raw: &Raw, problems: &mut Vec<Problem>) -> OperatorEndpoints {
    let mut read = Reader::new(raw, problems);
    let (ops, admin) = (listen::ops(&mut read), listen::admin(&mut read));
    OperatorEndpoints { ops, admin, admin_socket: listen::admin_socket(&mut read).map(|socket| socket.path) }
}

/// The catalogue of the upstream's API. Only one region is supported; to support another one, add a key and read it here.
pub(super) fn catalogue() -> &'static Catalogue {
    Catalogue::us()
}

/// Reads the keys of the policy.
pub(super) fn policy(raw: &Raw, catalogue: &'static Catalogue, problems: &mut Vec<Problem>) -> Policy {
    policy::policy(&mut Reader::new(raw, problems), catalogue)
}

/// The log levels, if all keys are valid. Adds problems to `problems`. Credentials are not checked.
pub(super) fn levels(raw: &Raw, problems: &mut Vec<Problem>) -> Option<Levels> {
    let mut reader = Reader::new(raw, problems);
    let source = auth::credentials(&mut reader, &Environment::default());
    let _config = keys(&mut reader, source, Reloader::default(), None)?;
    if !problems.is_empty() {
        return None;
    }
    log::level(&mut Reader::new(raw, problems))
}

/// Type and bounds of each key. `defaults` are the built-in defaults, with which every key is read.
pub(super) fn kinds(defaults: &Raw) -> BTreeMap<&'static str, Kind> {
    let mut problems = Vec::new();
    let mut reader = Reader::new(defaults, &mut problems);
    let source = auth::credentials(&mut reader, &Environment::default());
    let _config = keys(&mut reader, source, Reloader::default(), None);
    reader.into_kinds()
}

/// Reads every key except those of `credentials`. Leaves out the admin token, which is not a key.
fn keys(
    read: &mut Reader<'_>,
    credentials: Option<credentials::Config>,
    reloader: Reloader,
    egress_authorization: Option<HeaderValue>,
) -> Option<Config> {
    let listen = listen::listen(read);
    let catalogue = catalogue();
    let Admission { hosts, required_header, policy, billable_per_day, concurrency, queue, queue_timeout } =
        admission(read, catalogue);
    let upstream = upstream::upstream(read, egress_authorization);
    let idle_timeout = upstream.as_ref().map(|upstream| upstream.idle_timeout).unwrap_or_default();
    let server = server::server(read, idle_timeout, concurrency);
    let body_limits = server::body_limits(read, idle_timeout);
    let tls = upstream::tls(read);
    let first_byte_timeout = read.duration("upstream.first_byte_timeout", SECOND..=HOUR);
    let slow_first_byte_timeout = read.duration("upstream.slow_first_byte_timeout", SECOND..=HOUR);
    let replay_buffer = read.number("upstream.replay_buffer", 0..=16 * 1024 * 1024);
    let (connect, webhook) = (connect::connect(read), webhook::webhook(read, &listen.webhook));
    let (token, extra_headers) = (auth::token(read), auth::extra_headers(read));
    let injected_headers = vec![token.app_key_header.clone(), token.token_header.clone()];
    let forwarded_headers = headers::forward(read, &injected_headers);
    let state_dir = read.optional("auth.state_dir", |path| Ok(PathBuf::from(path)));
    let admin_socket = listen::admin_socket(read);
    listen::check_overlaps(read, &listen, admin_socket.as_ref());
    let (startup, shutdown, log) = (startup(read), shutdown(read), log::log(read));

    let (upstream, credentials) = (upstream?, credentials?);
    Some(Config {
        listen,
        proxy: proxy::Config {
            hosts,
            required_header,
            concurrency,
            queue,
            queue_timeout,
            first_byte_timeout,
            slow_first_byte_timeout,
            head_limits: server.limits.head,
            body_limits,
            connect,
            webhook,
            replay_buffer,
            reauth_wait: token.token_wait,
            endpoints: proxy::AuthEndpoints::new(token.token_path.as_deref(), token.revocation_path.as_deref()),
            catalogue,
            policy,
            billable_per_day,
            forwarded_headers,
            injected_headers,
            extra_headers,
            upstream: upstream.clone(),
        },
        server,
        token: token::Config { base: upstream.url, egress: upstream.egress, ..token },
        state_dir,
        is_demo: false,
        admin_socket,
        admin_token: None,
        webhook_secrets: credentials::WebhookSecretSource::default(),
        tls,
        log,
        reloader,
        startup,
        shutdown,
        credentials,
    })
}

/// Which requests are admitted, and how many concurrently.
struct Admission {
    hosts: Vec<Host>,
    required_header: Option<RequiredHeader>,
    policy: Arc<Policy>,
    billable_per_day: Option<u64>,
    concurrency: usize,
    queue: usize,
    queue_timeout: Duration,
}

/// `[guard]`, `[policy]`, and the concurrency limits of `[limits]`.
fn admission(read: &mut Reader<'_>, catalogue: &'static Catalogue) -> Admission {
    Admission {
        hosts: listen::host_names(read),
        required_header: listen::required_header(read),
        policy: Arc::new(policy::policy(read, catalogue)),
        billable_per_day: policy::billable_per_day(read),
        concurrency: read.number("limits.concurrency", 1..=100_000),
        queue: read.number("limits.queue", 0..=100_000),
        queue_timeout: read.duration("limits.queue_timeout", Duration::ZERO..=60 * SECOND),
    }
}

/// `[shutdown]`: shutdown timeouts.
fn shutdown(read: &mut Reader<'_>) -> Shutdown {
    Shutdown {
        drain_delay: read.duration("shutdown.drain_delay", Duration::ZERO..=HOUR),
        drain_timeout: read.duration("shutdown.drain_timeout", Duration::ZERO..=HOUR),
    }
}

/// `[startup]`: when the startup probe passes.
fn startup(read: &mut Reader<'_>) -> Startup {
    Startup {
        require_token: read.flag("startup.require_token"),
        fail_on_rejection: read.flag("startup.fail_on_rejection"),
        termination_message: read.optional("startup.termination_message", |path| Ok(PathBuf::from(path))),
        notify_socket: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sources::{Inputs, merge};

    #[test]
    fn every_default_is_read_and_valid() {
        let mut problems = Vec::new();
        let raw = merge(&Inputs::default(), &mut problems);
        let mut reader = Reader::new(&raw, &mut problems);
        let source = auth::credentials(&mut reader, &Environment::default());
        assert!(keys(&mut reader, source, Reloader::default(), None).is_some());
        let read: Vec<String> = reader.into_kinds().into_keys().map(str::to_owned).collect();
        assert_eq!(raw.keys().cloned().collect::<Vec<_>>(), read);
        assert_eq!(problems, []);
    }
}
