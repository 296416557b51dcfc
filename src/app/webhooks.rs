//! The keys that webhooks are verified by, as credentials and their sources change, and the listener that receives webhooks.

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

/// What the keys are made from.
#[derive(Debug)]
pub(super) struct WebhookKeys {
    keys: SharedSigningKeys,
    source: WebhookSecretSource,
    /// What the source held when it was last read.
    secrets: WebhookSecrets,
    /// The partner of the credentials in use, whose secret is the key where no other one is set.
    partner: watch::Receiver<Option<PartnerCredentials>>,
}

impl WebhookKeys {
    /// The keys of this moment. The configuration has made sure that `source` can be read.
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

    /// Replaces the keys when other credentials come into use, and reads their source again at each of `hangups`, until `stop` is cancelled.
    pub(super) async fn follow(mut self, scrubber: Scrubber, mut hangups: Signal, stop: CancellationToken) {
        loop {
            let is_over = select! {
                () = stop.cancelled() => true,
                changed = self.partner.changed() => changed.is_err(),
                _ = hangups.recv() => false,
            };
            if is_over {
                // Nothing changes any more once the refresher has ended, which is at the end of the process.
                stop.cancelled().await;
                return;
            }
            match self.source.read() {
                Ok(secrets) => self.secrets = secrets,
                Err(problem) => {
                    let problem = error_chain::one_line(&problem);
                    error!(target: AUDIT, problem, "the webhook secrets cannot be used; keeping the previous ones");
                }
            }
            // The partner secret may have changed all the same.
            self.rotate(self.secrets.clone(), &scrubber);
        }
    }

    fn rotate(&self, secrets: WebhookSecrets, scrubber: &Scrubber) {
        let current = current(&secrets, self.partner.borrow().as_ref());
        let keys = self.keys.load();
        // The first one replaces none.
        if !keys.is_current(None) && !keys.is_current(current.as_ref()) {
            info!(target: AUDIT, "webhooks are verified by another secret; the one before it is accepted for 30 days");
        }
        let keys = keys.rotated(current, secrets.previous, Instant::now());
        scrubber.register("the webhook secrets", keys.secrets());
        self.keys.store(Arc::new(keys));
    }
}

/// The secret that webhooks are signed with: the one that is set for them, or that of partner authentication.
fn current(secrets: &WebhookSecrets, partner: Option<&PartnerCredentials>) -> Option<Secret<String>> {
    let partner_secret = partner.map(|partner| &partner.secret);
    secrets.current.as_ref().or(partner_secret).cloned()
}

/// Receives webhooks on `listeners.webhook`, if there are any, and forwards them as `config` says. They are received until the proxy's own listeners
/// close; then what is under way is finished, within `drain_timeout`.
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
        // A delivery that takes longer is cut off with the process, and sent again by the vendor.
        let _ = timeout(drain_timeout, receiver.delivered()).await;
    });
}
