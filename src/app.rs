//! Builds every part, owns every task, and knows the order in which they end.
//!
//! The main thread runs the control plane: accepting, the refresher, probes, signals. Requests run on the workers of the
//! [`server`], so that neither can starve the other.

mod credential_rotation;
mod load;
mod config_reload;
mod startup;
mod ca_reload;

use std::{collections::HashMap, fmt, io, pin::pin, sync::Arc, time::Duration};

use tokio::{
    select,
    sync::watch,
    task::{self, JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::load::{Checked, Loaded, check, load};
use self::startup::Durability;
use crate::{
    admin,
    config::{self, AdminSocket, Listen},
    credentials::lockout::{self, Lockout},
    error_chain,
    message::guard::{PerTransport, Transport},
    ops,
    policy::{Mode, Policy},
    process::{drain::Drain, signal},
    proxy::{self, ConcurrencyLayer, Pool},
    server::{self, Address, BindError, GivenUp, HeadBudget, Listener, Server, Side, SocketAccess},
    telemetry::{AUDIT, Metrics, logging},
    tls,
    token::{self, Clock, Endpoint, EndpointError, Refresher, TokenReader},
};

/// How long the tasks of the control plane may take to end: what a token request in flight may take, and what follows from its
/// outcome.
const TASKS_END: Duration = token::FINAL_CALL_GRACE.saturating_add(Duration::from_millis(500));

/// How long a connection to the admin listener may be idle. An administrator makes one request, or a few in a row.
const ADMIN_IDLE: Duration = Duration::from_secs(5);

/// How long the last answers to probes may take.
const TELLING_ENDS: Duration = Duration::from_millis(500);

/// Why the process cannot start. Nothing stays bound.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The TLS trust cannot be built.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The token endpoint cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The lock-out state of an earlier run cannot be used.
    #[error(transparent)]
    Lockout(#[from] lockout::OpenError),
    /// A signal cannot be caught.
    #[error("a signal handler cannot be installed")]
    Signal(#[source] io::Error),
    /// A worker thread cannot be started.
    #[error("a worker thread cannot be started")]
    Worker(#[source] io::Error),
    /// The bound address of a listener cannot be read.
    #[error("the address of a listener cannot be read")]
    Address(#[source] io::Error),
}

/// A task ended that must run as long as the process does.
#[derive(Debug, thiserror::Error)]
#[error("the {task} task ended by itself, which is a bug; the process cannot go on without it")]
pub struct TaskEnded {
    task: &'static str,
}

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every request in flight was finished.
    Drained,
    /// The time for that was over, or a second signal came, and requests were cut off.
    CutOff,
}

/// The addresses that were bound, with the real ports where the configuration said 0.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Callers.
    pub proxy: Vec<Address>,
    /// Probes and metrics.
    pub ops: Vec<Address>,
    /// The administrator.
    pub admin: Vec<Address>,
}

/// The running process.
#[derive(Debug)]
pub struct App {
    addresses: Addresses,
    token: TokenReader,
    server: Arc<Server>,
    tasks: Tasks,
    /// The tasks of the ops listener, which tells to the very end how it goes.
    telling: Tasks,
    end: End,
    shutdown: config::Shutdown,
}

/// What tells the parts of the process that it ends, in this order.
#[derive(Debug, Default)]
struct End {
    /// Cancelled by an administrator, to begin it.
    wanted: CancellationToken,
    /// `/readyz` fails, and each answer is the last one of its connection.
    draining: CancellationToken,
    drain: Drain,
    /// No new connections from callers.
    closing: CancellationToken,
    /// The refresher and the admin listener end.
    ended: CancellationToken,
    /// The ops listener ends.
    told: CancellationToken,
}

impl App {
    /// Binds every address, starts every task, and returns while the first token is being fetched.
    ///
    /// # Errors
    ///
    /// When any part cannot be started.
    pub async fn start(loaded: Loaded) -> Result<Self, StartError> {
        let Loaded { config, source, credentials } = loaded;
        let owner = SocketAccess::owner_only();
        let listeners = Listeners {
            proxy: server::bind("listen.proxy", &config.listen.proxy, &config.listen.access)?,
            ops: server::bind("listen.ops", &config.listen.ops, &owner)?,
            admin: server::bind("listen.admin", &config.listen.admin, &owner)?,
        };
        let addresses = listeners.addresses().map_err(StartError::Address)?;
        let admin_sockets = bind_admin_socket(config.admin_socket, &owner)?;
        warn_of_exposure(&config.listen);
        warn_of_policy(&config.proxy.policy);
        let (trust_writer, trust) = tls::trust(config.tls)?;
        let scheme = credentials.scheme;
        let lockout = Lockout::open(config.state_dir.as_deref())?;
        let (default_lifetime, token_wait) = (config.token.default_lifetime, config.token.token_wait);
        let startup_delay = config.token.startup_jitter.mul_f64(fastrand::f64());
        let endpoint = Endpoint::new(config.token, trust.clone())?;
        let metrics = Arc::new(Metrics::new());
        let (writer, token) = token::channel(Clock::Boot, token_wait);
        let (control, commands) = token::control();
        let durability = Durability::of(config.state_dir.as_deref().filter(|_| lockout.is_persistent()));
        if durability == Durability::Memory {
            let why = if config.state_dir.is_none() { "is not set" } else { "is on a read-only file system" };
            warn!("auth.state_dir {why}: a rejection of the credentials is forgotten at the next restart");
        }
        let (source_kind, source_description) = (source.kind(), source.description());
        info!(target: AUDIT, source = source_kind, scheme = scheme.as_str(), "credentials were loaded");
        let (scrubber, log_level) = (logging::scrubber(), logging::level());
        let refresher =
            Refresher::new(writer, endpoint, credentials, lockout, commands, default_lifetime, Arc::clone(&metrics))
                .scrubbed_by(scrubber.clone())
                .delayed(startup_delay);
        let end = End::default();
        let shared = proxy::Shared {
            concurrency: ConcurrencyLayer::new(&config.proxy, Arc::clone(&metrics)),
            token: token.clone(),
            control: control.clone(),
            metrics: Arc::clone(&metrics),
            drain: end.drain.clone(),
        };
        let stack = || {
            let pool = Pool::new(&config.proxy, trust.clone(), Arc::clone(&metrics));
            PerTransport::new(|door| proxy::stack(&config.proxy, door, pool.clone(), shared.clone()))
        };
        let heads = HeadBudget::new(config.server.unfinished_heads_bytes, Arc::clone(&metrics));
        let given_up = GivenUp { response: proxy::UNFINISHED_HEAD, code: proxy::Code::RequestTimeout.as_str() };
        let drain = end.drain.clone();
        let server = Server::start(&config.server, Arc::clone(&metrics), heads.clone(), given_up, drain, stack);
        let server = Arc::new(server.map_err(StartError::Worker)?);

        let ended = &end.ended;
        let (mut tasks, mut telling) = (Tasks::default(), Tasks::default());
        tasks.spawn("token refresher", refresher.run(ended.clone()));
        let hangups = signal::hangups().map_err(StartError::Signal)?;
        let rotation = credential_rotation::follow(
            source,
            config.credentials.scheme,
            control.clone(),
            scrubber,
            Arc::clone(&metrics),
            hangups,
            ended.clone(),
        );
        tasks.spawn("rotation", rotation);
        let hangups = signal::hangups().map_err(StartError::Signal)?;
        tasks.spawn("reload", config_reload::follow(config.reread, log_level.clone(), hangups, ended.clone()));
        let hangups = signal::hangups().map_err(StartError::Signal)?;
        tasks.spawn("trust", ca_reload::follow(trust_writer, Arc::clone(&metrics), hangups, ended.clone()));
        let (refusing, refused) = watch::channel(None);
        let message = config.startup.termination_message;
        tasks.spawn("startup", startup::follow(token.clone(), refusing, message, ended.clone()));
        for listener in listeners.proxy {
            tasks.spawn("accept", Arc::clone(&server).accept(listener, end.closing.clone()));
        }
        let alive = Arc::clone(&server);
        let ops = ops::router(ops::Parts {
            token: token.clone(),
            credentials_description: source_description.clone(),
            metrics: Arc::clone(&metrics),
            draining: end.draining.clone(),
            require_token: config.startup.require_token,
            fail_on_rejection: durability.permits_failure(config.startup.fail_on_rejection),
            refused,
            alive: Arc::new(move || {
                let server = Arc::clone(&alive);
                Box::pin(async move { server.is_alive().await })
            }),
        });
        let limits = config.server.limits;
        // A probe needs one request, and a connection without one is held for nothing.
        let ops_side = Side { name: "ops", limits, closes: true, heads, metrics: Arc::clone(&metrics) };
        let admin_side =
            Side { name: "admin", limits: limits.idle_at_most(ADMIN_IDLE), closes: false, ..ops_side.clone() };
        for listener in listeners.ops {
            let told = end.told.clone();
            telling.spawn("ops", server::serve(ops_side.clone(), listener, ops.clone(), told));
        }
        let admin_parts = admin::Parts {
            token: token.clone(),
            control: control.clone(),
            stop: end.wanted.clone(),
            draining: end.draining.clone(),
            upstream: config.proxy.upstream.url.to_string(),
            source: source_kind,
            source_description,
            scheme,
            lockout_state: durability.as_str(),
            admin_token: config.admin_token,
            log_level,
            started: Instant::now(),
        };
        for (listeners, door) in [(admin_sockets, Transport::Unix), (listeners.admin, Transport::Tcp)] {
            let admin = admin::router(admin_parts.clone(), door);
            for listener in listeners {
                let serving = server::serve(admin_side.clone(), listener, admin.clone(), ended.clone());
                tasks.spawn("admin", serving);
            }
        }
        info!(
            version = env!("CARGO_PKG_VERSION"),
            proxy = joined(&addresses.proxy),
            ops = joined(&addresses.ops),
            admin = joined(&addresses.admin),
            upstream = %config.proxy.upstream.url,
            worker_threads = config.server.worker_threads,
            "listening"
        );
        Ok(Self { addresses, token, server, tasks, telling, end, shutdown: config.shutdown })
    }

    /// The addresses that were bound.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The token, to look at.
    pub fn token(&self) -> &TokenReader {
        &self.token
    }

    /// Runs until `stop` completes and says why, or an administrator has it stop; drains then: callers are told to go elsewhere, no
    /// new connections are taken, requests in flight are finished. A completion of `stop_now` cuts that short.
    ///
    /// # Errors
    ///
    /// When a task ends by itself.
    pub async fn run<R: fmt::Display>(
        mut self,
        stop: impl Future<Output = R>,
        stop_now: impl Future<Output = R>,
    ) -> Result<Ending, TaskEnded> {
        let mut stop = pin!(stop);
        let wanted = self.end.wanted.clone();
        let (reason, stopped) = select! {
            reason = stop.as_mut() => (reason.to_string(), true),
            () = wanted.cancelled() => ("an administrator".to_owned(), false),
            ended = self.ended_by_itself() => return Err(ended),
        };
        let config::Shutdown { drain_delay, drain_timeout } = self.shutdown;
        info!(target: AUDIT, reason, drain_delay_s = drain_delay.as_secs(), drain_timeout_s = drain_timeout.as_secs(), "draining");
        // Who ends what an administrator has told to end already is in no hurry.
        let second = async {
            if !stopped {
                let reason = stop.await;
                info!(target: AUDIT, %reason, "draining already");
            }
            stop_now.await
        };
        select! {
            ending = self.wind_down() => ending,
            reason = second => {
                warn!(target: AUDIT, %reason, "stopping at once");
                Ok(Ending::CutOff)
            }
        }
    }

    /// The whole end, in its order.
    async fn wind_down(&mut self) -> Result<Ending, TaskEnded> {
        self.end.draining.cancel();
        self.end.drain.begin();
        select! {
            () = sleep(self.shutdown.drain_delay) => {}
            ended = self.ended_by_itself() => return Err(ended),
        }
        self.end.closing.cancel();
        let cut_off = self.server.drain(self.shutdown.drain_timeout).await;
        self.end.ended.cancel();
        // A task that does not end in its time is not waited for: nothing is lost with it.
        let _ = timeout(TASKS_END, self.tasks.all_ended()).await;
        self.end.told.cancel();
        let _ = timeout(TELLING_ENDS, self.telling.all_ended()).await;
        if cut_off > 0 {
            warn!(target: AUDIT, requests = cut_off, "the drain timeout is over; requests were cut off");
            return Ok(Ending::CutOff);
        }
        info!(target: AUDIT, "drained");
        Ok(Ending::Drained)
    }

    /// Waits for a task that ends although nobody told it to.
    async fn ended_by_itself(&mut self) -> TaskEnded {
        select! {
            task = self.tasks.next_ended() => TaskEnded { task },
            task = self.telling.next_ended() => TaskEnded { task },
            () = self.server.worker_ended() => TaskEnded { task: "worker" },
        }
    }
}

/// Listens on the administrator's socket, where there is one. One that the container image chose is left out with a warning where
/// it cannot be made.
fn bind_admin_socket(socket: Option<AdminSocket>, access: &SocketAccess) -> Result<Vec<Listener>, BindError> {
    let Some(AdminSocket { path, is_optional }) = socket else { return Ok(Vec::new()) };
    match server::bind("admin.socket", &[Address::Unix(path)], access) {
        Err(error) if is_optional => {
            warn!(
                error = error_chain::one_line(&error),
                "no admin socket, which is the image's default: `finicity-proxy status` uses the admin port, and `finicity-proxy \
                 lockout reset` and `shutdown` need FINICITY_ADMIN_TOKEN; mount a writable directory, or set admin.socket"
            );
            Ok(Vec::new())
        }
        bound => bound,
    }
}

/// The longest time that the end can take from the first signal on.
pub fn longest_end(shutdown: config::Shutdown) -> Duration {
    let config::Shutdown { drain_delay, drain_timeout } = shutdown;
    drain_delay + drain_timeout + server::LAST_ANSWERS + TASKS_END + TELLING_ENDS
}

/// The addresses as text, separated by commas.
pub fn joined(addresses: &[Address]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Says who can use the credentials where that is more than the programs of this machine, or of those whom a socket is for.
fn warn_of_exposure(listen: &Listen) {
    for address in &listen.proxy {
        if address.is_remote() {
            warn!(%address, "other machines can reach this address and use the credentials through it");
        }
        if address.tcp().is_none() && listen.access.is_open_to_all() {
            warn!(%address, "any user of this machine can use the credentials through it: narrow listen.socket_mode");
        }
    }
}

/// Says what of the policy may not be what was meant.
fn warn_of_policy(policy: &Policy) {
    for rule in policy.unknown() {
        warn!("{rule} holds for no operation of the catalogue: see `finicity-proxy routes`");
    }
    if policy.mode() == Mode::Report && !policy.is_open() {
        warn!("policy.mode is \"report\": what the policy denies goes on, and is only told of");
    }
}

struct Listeners {
    proxy: Vec<Listener>,
    ops: Vec<Listener>,
    admin: Vec<Listener>,
}

impl Listeners {
    fn addresses(&self) -> io::Result<Addresses> {
        let addresses = |of: &[Listener]| of.iter().map(Listener::address).collect::<io::Result<Vec<_>>>();
        Ok(Addresses { proxy: addresses(&self.proxy)?, ops: addresses(&self.ops)?, admin: addresses(&self.admin)? })
    }
}

/// The tasks of the control plane, each with its name. Dropping this ends them.
#[derive(Debug, Default)]
struct Tasks {
    set: JoinSet<()>,
    names: HashMap<task::Id, &'static str>,
}

impl Tasks {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.names.insert(self.set.spawn(task).id(), name);
    }

    /// The name of the next task that ends.
    async fn next_ended(&mut self) -> &'static str {
        let ended = self.set.join_next_with_id().await;
        let id = ended.map(|ended| ended.map_or_else(|error: JoinError| error.id(), |(id, ())| id));
        id.and_then(|id| self.names.get(&id)).copied().unwrap_or("last")
    }

    async fn all_ended(&mut self) {
        while self.set.join_next().await.is_some() {}
    }
}
