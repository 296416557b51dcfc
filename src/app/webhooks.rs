//! The keys for verifying webhooks, which follow changes of the credentials, and the listener that receives webhooks.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    select,
    signal::unix::Signal,
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{listeners::Listeners, operators::Operators, state_files::StateFiles, tasks::Tasks};
use crate::{
    credentials::{PartnerCredentials, WebhookSecretSource, WebhookSecrets},
    error_chain,
    proxy::{ReplayWindow, SharedSigningKeys, WebhookConfig, WebhookReceiver, webhook_router},
    secret::Secret,
    telemetry::{AUDIT, Scrubber},
    token::Clock,
    vendor::webhook::SigningKeys,
};

/// The keys, and the secrets that they are derived from.
#[derive(Debug)]
pub(super) struct WebhookKeys {
    keys: SharedSigningKeys,
    source: WebhookSecretSource,
    /// The secrets of the last successful read of `source`.
    secrets: WebhookSecrets,
    /// The partner credentials in use. Their secret is the key if no webhook secret is set.
    partner: watch::Receiver<Option<PartnerCredentials>>,
}

impl WebhookKeys {
    /// Builds the initial keys. `source` has been validated with the configuration.
    pub(super) fn new(source: WebhookSecretSource, partner: watch::Receiver<Option<PartnerCredentials>>) -> Self {
        let secrets = source.read().unwrap_or_default();
        let current = current(&secrets, partner.borrow().as_ref());
        let keys = SigningKeys::new(current, secrets.previous.clone());
        Self { keys: Arc::new(ArcSwap::from_pointee(keys)), source, secrets, partner }
    }

    /// A handle on the keys.
    pub(super) fn shared(&self) -> SharedSigningKeys {
        Arc::clone(&self.keys)
    }

    /// Replaces the keys when the partner credentials change, and at each of `hangups`, until `stop` is cancelled. Each time, the source
    /// is read again.
    pub(super) async fn follow(mut self, scrubber: Scrubber, mut hangups: Signal, stop: CancellationToken) {
        loop {
            let is_over = select! {
                () = stop.cancelled() => true,
                changed = self.partner.changed() => changed.is_err(),
                _ = hangups.recv() => false,
            };
            if is_over {
                // The refresher has stopped, which happens only during shutdown.
                stop.cancelled().await;
                return;
            }
            match self.source.read() {
                Ok(secrets) => self.secrets = secrets,
                Err(problem) => {
                    let problem = error_chain::one_line(&problem);
                    error!(target: AUDIT, problem, "cannot load the webhook secrets; keeping the previous ones");
                }
            }
            // Even if the read failed, the partner secret may have changed.
            self.rotate(self.secrets.clone(), &scrubber);
        }
    }

    fn rotate(&self, secrets: WebhookSecrets, scrubber: &Scrubber) {
        let current = current(&secrets, self.partner.borrow().as_ref());
        let keys = self.keys.load();
        // The first secret replaces none, so it is not logged.
        if !keys.is_current(None) && !keys.is_current(current.as_ref()) {
            info!(target: AUDIT, "the webhook secret has changed; the previous one is accepted for 30 days");
        }
        let keys = keys.rotated(current, secrets.previous, Instant::now());
        scrubber.register("the webhook secrets", keys.secrets());
        self.keys.store(Arc::new(keys));
    }
}

/// The secret that verifies webhooks: the webhook secret if it is set, otherwise the partner secret.
fn current(secrets: &WebhookSecrets, partner: Option<&PartnerCredentials>) -> Option<Secret<String>> {
    let partner_secret = partner.map(|partner| &partner.secret);
    secrets.current.as_ref().or(partner_secret).cloned()
}

/// Receives webhooks on `listeners.webhook`, if configured, and forwards them according to `config`, until the proxy's own listeners
/// close. Then requests in flight are completed within `drain_timeout`.
pub(super) fn serve(
    tasks: &mut Tasks,
    listeners: &mut Listeners,
    operators: &Operators<'_>,
    (config, keys): (&WebhookConfig, &WebhookKeys),
    states: &mut StateFiles,
    drain_timeout: Duration,
) {
    let Some(forward_to) = config.forward_to.clone().filter(|_| !listeners.webhook.is_empty()) else { return };
    let window = ReplayWindow::new(Clock::Boot);
    states.add(Arc::new(window.clone()));
    let metrics = Arc::clone(&operators.shared.metrics);
    let receiver = WebhookReceiver::new(forward_to, config.clone(), keys.shared(), window, metrics);
    operators.serve_webhooks(tasks, listeners, &webhook_router(Arc::clone(&receiver)), drain_timeout);
    let closing = operators.shutdown.closing.clone();
    tasks.spawn("webhook deliveries", async move {
        closing.cancelled().await;
        // A longer delivery is aborted at the end of the process, and the vendor sends it again.
        let _ = timeout(drain_timeout, receiver.delivered()).await;
    });
}
