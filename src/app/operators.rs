//! Serves the listeners other than the proxy's: probes and metrics, the admin API, and webhooks.

use std::{sync::Arc, time::Duration};

use axum::Router;
use tokio::{sync::watch, time::Instant};

use super::{listeners::Listeners, shared::Shared, shutdown::ShutdownSequence, startup::Durability, tasks::Tasks};
use crate::{
    admin,
    config::Startup,
    credentials::CredentialSource,
    message::transport::Transport,
    ops::{self, OpsState},
    secret::Secret,
    server::{self, Limits, OperatorListenerConfig, Server},
    telemetry::LogLevel,
    token::{Refusal, TokenControl, TokenReader},
};

// Guesses of the admin token cannot occupy all connections of the admin listener.
const _: () = assert!(admin::MAX_DELAYED < server::MAX_OPERATOR_CONNECTIONS);

/// The idle timeout of connections to the admin listener. An administrator makes one request, or a few in a row.
const ADMIN_IDLE: Duration = Duration::from_secs(5);

/// The idle timeout of connections to the webhook listener.
const WEBHOOK_IDLE: Duration = Duration::from_secs(60);

/// The parts of the process that these listeners use.
pub(super) struct Operators<'a> {
    pub(super) token: &'a TokenReader,
    pub(super) control: &'a TokenControl,
    pub(super) shared: &'a Shared,
    pub(super) source: &'a dyn CredentialSource,
    pub(super) durability: Durability,
    pub(super) upstream: String,
    pub(super) log_level: &'a LogLevel,
    pub(super) shutdown: &'a ShutdownSequence,
    pub(super) limits: Limits,
}

impl Operators<'_> {
    /// Serves probes and metrics on `listeners.ops`, and returns the state of the handlers. `refusal` is the refusal that blocks
    /// startup, if any.
    pub(super) fn serve_ops(
        &self,
        tasks: &mut Tasks,
        listeners: &mut Listeners,
        startup: &Startup,
        refusal: watch::Receiver<Option<Refusal>>,
        server: &Arc<Server>,
    ) -> OpsState {
        let server = Arc::clone(server);
        let state = OpsState {
            token: self.token.clone(),
            credentials_description: self.source.description(),
            metrics: Arc::clone(&self.shared.metrics),
            draining: self.shutdown.draining.clone(),
            require_token: startup.require_token,
            fail_on_rejection: self.durability.permits_failure(startup.fail_on_rejection),
            startup_refusal: refusal,
            liveness: Arc::new(move || {
                let server = Arc::clone(&server);
                Box::pin(async move { server.is_alive().await })
            }),
        };
        let router = ops::router(state.clone());
        // A probe makes one request, so the connection is closed after the response.
        let listener_config = self.listener_config("ops", self.limits, true);
        for listener in listeners.ops.drain(..) {
            let stop = self.shutdown.stop_ops.clone();
            tasks.spawn("ops", server::serve(listener_config.clone(), listener, router.clone(), stop));
        }
        state
    }

    /// Serves the admin API on the admin port and the admin socket.
    pub(super) fn serve_admin(
        &self,
        tasks: &mut Tasks,
        listeners: &mut Listeners,
        admin_token: Option<Secret<String>>,
    ) {
        let state = admin::AdminState {
            token: self.token.clone(),
            control: self.control.clone(),
            stop: self.shutdown.requested.clone(),
            draining: self.shutdown.draining.clone(),
            upstream: self.upstream.clone(),
            credentials_source: self.source.kind(),
            credentials_description: self.source.description(),
            lockout_storage: self.durability.as_str(),
            admin_token,
            log_level: self.log_level.clone(),
            started: Instant::now(),
        };
        let listener_config = self.listener_config("admin", self.limits.with_max_idle(ADMIN_IDLE), false);
        let of_each = [(&mut listeners.admin_socket, Transport::Unix), (&mut listeners.admin_port, Transport::Tcp)];
        for (listeners, transport) in of_each {
            let router = admin::router(state.clone(), transport);
            for listener in listeners.drain(..) {
                let stop = self.shutdown.stop_control.clone();
                tasks.spawn("admin", server::serve(listener_config.clone(), listener, router.clone(), stop));
            }
        }
    }

    /// Serves the webhook listener until the proxy's own listeners close. Requests in flight are completed within `drain_timeout`.
    pub(super) fn serve_webhooks(
        &self,
        tasks: &mut Tasks,
        listeners: &mut Listeners,
        router: &Router,
        drain_timeout: Duration,
    ) {
        let listener_config = self.listener_config("webhook", self.limits.with_max_idle(WEBHOOK_IDLE), false);
        let listener_config = OperatorListenerConfig { drain_timeout, ..listener_config };
        for listener in listeners.webhook.drain(..) {
            let stop = self.shutdown.closing.clone();
            tasks.spawn("webhook", server::serve(listener_config.clone(), listener, router.clone(), stop));
        }
    }

    fn listener_config(
        &self,
        name: &'static str,
        limits: Limits,
        close_after_response: bool,
    ) -> OperatorListenerConfig {
        OperatorListenerConfig {
            name,
            limits,
            close_after_response,
            drain_timeout: server::FINAL_RESPONSE_GRACE,
            head_budget: self.shared.head_budget.clone(),
            metrics: Arc::clone(&self.shared.metrics),
        }
    }
}
