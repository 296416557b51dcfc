//! The refresher before its first credentials have been read.
//!
//! A secret store can be unreachable when the process starts. Until the first credentials have been read, requests and probes fail
//! with the reason, and admin commands are handled.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use tokio::{
    select,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use super::{BootInstant, Command, HEARTBEAT_INTERVAL, Phase, Refresher, TokenSource, TokenWriter, report};
use crate::{
    credentials::{Credentials, PartnerCredentials, lockout::Lockout},
    telemetry::{Metrics, Scrubber},
    token::commands::ResetError,
};

/// A refresher without credentials. It starts with the first ones that [`TokenControl::rotate`](crate::token::TokenControl) sends.
#[derive(Debug)]
pub struct PendingRefresher<S> {
    writer: TokenWriter,
    source: S,
    commands: mpsc::Receiver<Command>,
    lockout: Lockout,
    metrics: Arc<Metrics>,
    scrubber: Scrubber,
    partner: Option<watch::Sender<Option<PartnerCredentials>>>,
    default_lifetime: Duration,
    startup_delay: Duration,
    quarantined: bool,
    /// When the next attempt to read the credentials is due, if known.
    next_load: Option<BootInstant>,
}

impl<S: TokenSource> PendingRefresher<S> {
    /// Creates a refresher that will fetch tokens from `source` if `lockout` allows it, publish them through `writer`, and handle
    /// `commands`.
    pub fn new(
        writer: TokenWriter,
        source: S,
        lockout: Lockout,
        commands: mpsc::Receiver<Command>,
        default_lifetime: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            writer,
            source,
            commands,
            lockout,
            metrics,
            scrubber: Scrubber::default(),
            partner: None,
            default_lifetime,
            startup_delay: Duration::ZERO,
            quarantined: false,
            next_load: None,
        }
    }

    /// Registers every token, and new credentials once they are in use, with `scrubber`.
    #[must_use]
    pub fn with_scrubber(self, scrubber: Scrubber) -> Self {
        Self { scrubber, ..self }
    }

    /// Publishes the partner credentials in use through `partner`.
    #[must_use]
    pub fn with_partner_in_use(self, partner: watch::Sender<Option<PartnerCredentials>>) -> Self {
        Self { partner: Some(partner), ..self }
    }

    /// Delays the first token request by `delay`.
    #[must_use]
    pub fn delayed(self, delay: Duration) -> Self {
        Self { startup_delay: delay, ..self }
    }

    /// Turns this into a [`Refresher`] with `credentials`.
    pub fn with_credentials(self, credentials: Credentials) -> Refresher<S> {
        if let Some(partner) = &self.partner {
            partner.send_replace(credentials.partner());
        }
        let Self { writer, source, commands, lockout, metrics, default_lifetime, .. } = self;
        let mut refresher = Refresher::new(writer, source, credentials, lockout, commands, default_lifetime, metrics)
            .with_scrubber(self.scrubber)
            .delayed(self.startup_delay);
        (refresher.partner, refresher.quarantined) = (self.partner, self.quarantined);
        refresher
    }

    /// Waits for the first credentials, then runs the [`Refresher`] with them until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        self.publish_status();
        let credentials = loop {
            let next_beat = self.writer.clock().now() + HEARTBEAT_INTERVAL;
            self.writer.beat();
            let command = select! {
                biased;
                () = stop.cancelled() => return,
                command = self.commands.recv() => command,
                () = self.writer.clock().sleep_until_capped(next_beat) => continue,
            };
            // All senders are dropped, so no credentials can arrive.
            let Some(command) = command else { return };
            if let ControlFlow::Break(credentials) = self.handle(command) {
                break credentials;
            }
        };
        let mut refresher = self.with_credentials(credentials);
        refresher.publish_status();
        refresher.run(stop).await;
    }

    fn handle(&mut self, command: Command) -> ControlFlow<Credentials> {
        match command {
            Command::Rotate(credentials) => return ControlFlow::Break(*credentials),
            Command::FirstLoadFailed(reason, retry_in) => {
                self.writer.set_last_error(&reason);
                self.next_load = Some(self.writer.clock().now() + retry_in);
            }
            Command::Quarantine(reply) => {
                report::log_quarantine();
                self.quarantined = true;
                let _ = reply.send(());
            }
            Command::Lift(reply) => {
                if self.quarantined {
                    report::log_lift();
                    self.quarantined = false;
                }
                let _ = reply.send(());
            }
            // There is no token to drop, and the first one is fetched as soon as there are credentials.
            Command::Invalidate(reply) => {
                let _ = reply.send(());
            }
            // Without credentials there is no fingerprint to look up rejections by.
            Command::ResetLatch(_, reply) => {
                let _ = reply.send(Err(ResetError::NoCredentials));
            }
            // There is no token that the upstream could refuse.
            Command::ReplaceRefused(..) => {}
        }
        self.publish_status();
        ControlFlow::Continue(())
    }

    fn publish_status(&mut self) {
        let phase = if self.quarantined { Phase::Quarantined } else { Phase::AwaitingCredentials };
        self.writer.set_status_without_credentials(phase, self.next_load);
    }
}

#[cfg(test)]
mod tests;
