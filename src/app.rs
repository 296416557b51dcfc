//! Builds all parts of the process, owns their tasks, and stops them in order.
//!
//! The main thread runs the control plane: accepting connections, the refresher, probes, signals. Requests run on the workers of
//! the [`server`](crate::server), so neither can starve the other.

mod ca_reload;
mod config_reload;
mod credential_rotation;
mod data_plane;
mod listeners;
mod load;
mod operators;
mod preflight;
mod shared;
mod shutdown;
mod startup;
mod state_files;
mod tasks;
mod token_refresh;
mod webhooks;

use std::{fmt, io, num::NonZeroUsize, pin::pin, sync::Arc};

use http::Uri;
use tokio::{
    join, select,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::{
    credential_rotation::Rotation,
    listeners::Listeners,
    operators::Operators,
    shared::Shared,
    shutdown::{OPS_GRACE, ShutdownSequence, TASK_GRACE},
    state_files::StateFiles,
    tasks::Tasks,
    token_refresh::TokenRefresh,
    webhooks::WebhookKeys,
};
pub use self::{
    listeners::{Addresses, join_addresses},
    load::{Checked, Loaded, check, load},
    preflight::listener_problems,
    shutdown::{ShutdownOutcome, max_shutdown_time},
    tasks::TaskEnded,
};
use crate::{
    config::{self, Config, Reloader},
    credentials::lockout,
    ops::OpsState,
    policy::{Mode, Policy},
    process::{build_info, service_manager::ServiceManager, signal},
    server::{BindError, Server},
    telemetry::{AUDIT, LogLevel, logging},
    tls::{self, TrustStoreWriter},
    token::{EndpointError, Refusal, TokenReader},
};

/// Why the process cannot start. No listener stays bound.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The trust store cannot be built.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The client for the token endpoint cannot be built.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The lock-out state of an earlier run cannot be used.
    #[error(transparent)]
    Lockout(#[from] lockout::OpenError),
    /// A signal handler cannot be installed.
    #[error("cannot install a signal handler")]
    Signal(#[source] io::Error),
    /// A worker thread cannot be started.
    #[error("cannot start a worker thread")]
    Worker(#[source] io::Error),
    /// The bound address of a listener cannot be read.
    #[error("cannot read the address of a listener")]
    Address(#[source] io::Error),
}

impl StartError {
    /// Whether the configuration is at fault, so a retry would not help.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Bind(error) => error.is_configuration(),
            Self::Lockout(error) => error.is_configuration(),
            Self::Tls(_) | Self::Endpoint(_) => true,
            Self::Signal(_) | Self::Worker(_) | Self::Address(_) => false,
        }
    }
}

/// The running process.
#[derive(Debug)]
pub struct App {
    addresses: Addresses,
    token: TokenReader,
    server: Arc<Server>,
    tasks: Tasks,
    /// The tasks of the ops listener, which serves probes until the process ends.
    ops_tasks: Tasks,
    /// The tasks of the webhook listener, which drains.
    webhook_tasks: Tasks,
    sequence: ShutdownSequence,
    shutdown: config::Shutdown,
}

impl App {
    /// Binds all addresses and starts all tasks. Does not wait for the first token.
    ///
    /// # Errors
    ///
    /// Fails when any part cannot be started.
    pub async fn start(loaded: Loaded) -> Result<Self, StartError> {
        let Loaded { config, source, credentials } = loaded;
        let Config { listen, server: limits, proxy, startup, .. } = config;
        let mut listeners = Listeners::bind(&listen, config.admin_socket)?;
        let addresses = listeners.addresses().map_err(StartError::Address)?;
        listeners::warn_of_exposure(&listen);
        warn_of_policy(&proxy.policy);

        let (trust_store_writer, trust_store) = tls::trust_store(config.tls)?;
        let sequence = ShutdownSequence::default();
        let shared = Shared::new(trust_store, sequence.drain.clone(), &limits);
        let (state_dir, is_loaded) = (config.state_dir.as_deref(), credentials.is_some());
        let refresh = token_refresh::build(config.token, credentials, source.as_ref(), state_dir, &shared)?;
        if !config.is_demo {
            token_refresh::warn_of_memory(refresh.durability, state_dir);
        }
        let webhook_keys = WebhookKeys::new(config.webhook_secrets, refresh.partner.clone());
        let mut states = StateFiles::new(state_dir);
        let billing = data_plane::billing_budget(&proxy, &shared, &mut states);
        let server = data_plane::start(&limits, &proxy, (&refresh, &webhook_keys, billing.as_ref()), &shared)?;
        let TokenRefresh { refresher, token, control, durability, .. } = refresh;
        let log_level = logging::level();
        let (mut tasks, mut ops_tasks, mut webhook_tasks) = (Tasks::default(), Tasks::default(), Tasks::default());
        let (refusal_writer, refusal) = watch::channel(None);
        let operators = Operators {
            token: &token,
            control: &control,
            shared: &shared,
            source: source.as_ref(),
            durability,
            upstream: proxy.upstream.url.to_string(),
            log_level: &log_level,
            shutdown: &sequence,
            limits: limits.limits,
        };
        let probes = operators.serve_ops(&mut ops_tasks, &mut listeners, &startup, refusal, &server);
        operators.serve_admin(&mut tasks, &mut listeners, config.admin_token);
        let (webhook, drain_timeout) = ((&proxy.webhook, &webhook_keys), config.shutdown.drain_timeout);
        webhooks::serve(&mut webhook_tasks, &mut listeners, &operators, webhook, &mut states, drain_timeout);

        let stop = &sequence.stop_control;
        refresher.spawn(&mut tasks, stop);
        tasks.spawn("state files", states.follow(stop.clone()));
        billing.into_iter().for_each(|billing| tasks.spawn("billing budget", billing.follow(stop.clone())));
        let (scheme, scrubber) = (config.credentials.scheme, logging::scrubber());
        let rotation = Rotation { source, is_loaded, scheme, control, scrubber, metrics: Arc::clone(&shared.metrics) };
        spawn_reloads(&mut tasks, stop, (rotation, webhook_keys), (config.reloader, log_level), trust_store_writer)?;
        for listener in listeners.proxy {
            tasks.spawn("accept", Arc::clone(&server).accept(listener, sequence.closing.clone()));
        }
        let callers = join_addresses(&addresses.proxy);
        spawn_startup(&mut tasks, &sequence, (startup, callers), (probes, refusal_writer));
        log_listening(&addresses, &proxy.upstream.url, limits.worker_threads);
        Ok(Self { addresses, token, server, tasks, ops_tasks, webhook_tasks, sequence, shutdown: config.shutdown })
    }

    /// The bound addresses.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// A reader of the current token.
    pub fn token(&self) -> &TokenReader {
        &self.token
    }

    /// Runs until `stop` completes with its reason, or an administrator requests the shutdown. Then drains: new connections are no
    /// longer accepted, and requests in flight are completed. When `stop_now` completes, requests in flight are aborted.
    ///
    /// # Errors
    ///
    /// Fails when a task stops unexpectedly.
    pub async fn run<R: fmt::Display>(
        mut self,
        stop: impl Future<Output = R>,
        stop_now: impl Future<Output = R>,
    ) -> Result<ShutdownOutcome, TaskEnded> {
        let mut stop = pin!(stop);
        let requested = self.sequence.requested.clone();
        let (reason, by_signal) = select! {
            biased;
            // Checked first: if both are ready, the signal only repeats the request.
            () = requested.cancelled() => ("an administrator".to_owned(), false),
            reason = stop.as_mut() => (reason.to_string(), true),
            ended = self.task_ended() => return Err(ended),
        };
        let config::Shutdown { drain_delay, drain_timeout } = self.shutdown;
        info!(target: AUDIT, reason, drain_delay_s = drain_delay.as_secs(), drain_timeout_s = drain_timeout.as_secs(), "draining");
        // After an administrator's request, the first signal only repeats it, and the second one forces the shutdown.
        let second = async {
            if !by_signal {
                let reason = stop.await;
                info!(target: AUDIT, %reason, "already draining");
            }
            stop_now.await
        };
        select! {
            outcome = self.shut_down() => outcome,
            reason = second => Ok(self.force_shutdown(&reason).await),
        }
    }

    /// Aborts the requests in flight, and logs their number.
    async fn force_shutdown(&mut self, reason: &impl fmt::Display) -> ShutdownOutcome {
        self.sequence.closing.cancel();
        let aborted = self.server.abort().await;
        warn!(target: AUDIT, %reason, requests = aborted, "forced shutdown");
        if aborted > 0 { ShutdownOutcome::CutOff } else { ShutdownOutcome::Drained }
    }

    /// Runs the phases of the shutdown.
    async fn shut_down(&mut self) -> Result<ShutdownOutcome, TaskEnded> {
        self.sequence.draining.cancel();
        self.sequence.drain.begin();
        select! {
            () = sleep(self.shutdown.drain_delay) => {}
            ended = self.task_ended() => return Err(ended),
        }
        self.sequence.closing.cancel();
        let (cut_off, ()) = join!(self.server.drain(self.shutdown.drain_timeout), self.webhook_tasks.all_ended());
        self.sequence.stop_control.cancel();
        // Tasks that exceed their grace time are abandoned: nothing is lost with them.
        let _ = timeout(TASK_GRACE, self.tasks.all_ended()).await;
        self.sequence.stop_ops.cancel();
        let _ = timeout(OPS_GRACE, self.ops_tasks.all_ended()).await;
        if cut_off > 0 {
            warn!(target: AUDIT, requests = cut_off, "drain timeout expired; requests in flight were aborted");
            return Ok(ShutdownOutcome::CutOff);
        }
        info!(target: AUDIT, "drained");
        Ok(ShutdownOutcome::Drained)
    }

    /// Waits for a task that stops before the shutdown stops it.
    async fn task_ended(&mut self) -> TaskEnded {
        select! {
            task = self.tasks.next_ended() => TaskEnded { task },
            task = self.ops_tasks.next_ended() => TaskEnded { task },
            task = self.webhook_tasks.next_ended(), if !self.webhook_tasks.is_empty() => TaskEnded { task },
            () = self.server.worker_ended() => TaskEnded { task: "worker" },
        }
    }
}

/// Starts the tasks that follow changes of credentials, configuration and CAs.
fn spawn_reloads(
    tasks: &mut Tasks,
    stop: &CancellationToken,
    (rotation, webhook_keys): (Rotation, WebhookKeys),
    (reloader, log_level): (Reloader, LogLevel),
    trust_store: TrustStoreWriter,
) -> Result<(), StartError> {
    let hangups = || signal::hangups().map_err(StartError::Signal);
    let (scrubber, metrics) = (rotation.scrubber.clone(), Arc::clone(&rotation.metrics));
    tasks.spawn("webhook keys", webhook_keys.follow(scrubber, hangups()?, stop.clone()));
    tasks.spawn("rotation", credential_rotation::follow(rotation, hangups()?, stop.clone()));
    tasks.spawn("reload", config_reload::follow(reloader, log_level, hangups()?, stop.clone()));
    tasks.spawn("trust", ca_reload::follow(trust_store, metrics, hangups()?, stop.clone()));
    Ok(())
}

/// Starts the tasks that report the progress of startup: to `startup.termination_message`, the log, and a service manager.
fn spawn_startup(
    tasks: &mut Tasks,
    sequence: &ShutdownSequence,
    (startup, callers): (config::Startup, String),
    (probes, refusal_writer): (OpsState, watch::Sender<Option<Refusal>>),
) {
    let (draining, stop) = (&sequence.draining, &sequence.stop_control);
    let token = probes.token.clone();
    tasks.spawn("startup", startup::follow(token, refusal_writer, startup.termination_message, callers, stop.clone()));
    if let Some(address) = startup.notify_socket {
        let manager = ServiceManager::new(Some(&address));
        tasks.spawn("notify", startup::notify(manager, probes, (draining.clone(), stop.clone())));
    }
}

fn log_listening(addresses: &Addresses, upstream: &Uri, worker_threads: NonZeroUsize) {
    let Addresses { proxy, ops, admin, webhook } = addresses;
    let [proxy, ops, admin] = [proxy, ops, admin].map(|addresses| join_addresses(addresses));
    let webhook = (!webhook.is_empty()).then(|| join_addresses(webhook));
    info!(version = build_info::VERSION, proxy, ops, admin, webhook, %upstream, worker_threads, "listening");
}

/// Warns of policy settings that are probably mistakes.
fn warn_of_policy(policy: &Policy) {
    for rule in policy.unknown() {
        warn!("{rule} matches no known operation: see `finicity-proxy routes`");
    }
    if policy.mode() == Mode::Report && !policy.is_open() {
        warn!("policy.mode is \"report\": requests that the policy denies are forwarded, and only reported");
    }
}
