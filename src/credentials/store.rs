//! What the secret stores have in common: one secret, which is a JSON object, is read in one version or not at all, and its version
//! is polled.
//!
//! Each store is one implementation of [`SecretStore`] behind the cargo feature of its name.

mod document;
mod transport;

use std::{fmt, future, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{select, time::sleep};

pub(super) use transport::{Limits, Transport, TransportError, TransportFailure};

use super::{
    field::Field,
    problem::Problem,
    source::{CredentialSource, Values},
    store_error::StoreError,
};
use crate::secret::Secret;

/// The poll interval varies by this share in both directions, so that a fleet does not poll in step.
const POLL_JITTER: f64 = 0.1;

/// One version of a secret.
#[derive(Debug)]
pub(super) struct StoredSecret {
    /// What distinguishes this version from every other one of the secret.
    pub(super) version: String,
    /// The text of the secret.
    pub(super) text: Secret<String>,
}

/// A client of one store, for one secret.
pub(super) trait SecretStore: fmt::Debug + Send + Sync {
    /// The kind of store, one word, which is also its cargo feature.
    const KIND: &'static str;

    /// The secret and its store: `secret finicity/prod in AWS Secrets Manager`.
    fn description(&self) -> String;

    /// The present version, by the cheapest request that the store has.
    ///
    /// # Errors
    ///
    /// When the store does not give it.
    fn version(&mut self) -> impl Future<Output = Result<String, StoreError>> + Send;

    /// The secret in its present version.
    ///
    /// # Errors
    ///
    /// When the store does not give it.
    fn read(&mut self) -> impl Future<Output = Result<StoredSecret, StoreError>> + Send;

    /// What has to be done between two polls, such as renewing a lease. Never completes; the next poll reports what failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is dropped when a poll is due.
    fn keep_alive(&mut self) -> impl Future<Output = ()> + Send {
        future::pending()
    }
}

/// A store as a source of credentials.
#[derive(Debug)]
pub(super) struct StoreSource<S> {
    store: S,
    poll_interval: Duration,
    /// The version that was read last, whether or not it could be used.
    last_version: Option<String>,
}

impl<S: SecretStore> StoreSource<S> {
    pub(super) fn new(store: S, poll_interval: Duration) -> Self {
        Self { store, poll_interval, last_version: None }
    }
}

impl<S: SecretStore + 'static> CredentialSource for StoreSource<S> {
    fn kind(&self) -> &'static str {
        S::KIND
    }

    fn description(&self) -> String {
        self.store.description()
    }

    fn uses_network(&self) -> bool {
        true
    }

    fn load(&mut self) -> BoxFuture<'_, Result<Values, Problem>> {
        Box::pin(async {
            // After a failure, the first poll leads to another load, which ends the report of it.
            self.last_version = None;
            let StoredSecret { version, text } = self.store.read().await?;
            self.last_version = Some(version);
            Ok(document::parse(&text, &self.store.description())?)
        })
    }

    fn missing(&self, field: Field) -> Problem {
        let origin = document::origin(field, &self.store.description());
        Problem::Missing(origin, "add this member to the JSON object".to_owned())
    }

    fn changed(&mut self) -> BoxFuture<'_, Result<(), Problem>> {
        Box::pin(async {
            loop {
                let factor = 1.0 + POLL_JITTER * (2.0 * fastrand::f64() - 1.0);
                select! {
                    () = sleep(self.poll_interval.mul_f64(factor)) => {}
                    () = self.store.keep_alive() => {}
                }
                let version = match self.store.version().await {
                    Ok(version) => version,
                    Err(error) => {
                        // So that the first poll after the failure leads to a load, which ends the report of it.
                        self.last_version = None;
                        return Err(error.into());
                    }
                };
                if self.last_version.as_ref() != Some(&version) {
                    return Ok(());
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Mutex};

    use tokio::time::Instant;

    use super::*;
    use crate::credentials::{StoreFault, load};

    /// Answers with one entry after another, and with the last one from then on.
    #[derive(Debug)]
    struct Scripted(Mutex<VecDeque<Result<(&'static str, &'static str), StoreFault>>>);

    impl Scripted {
        fn next(&self) -> Result<(&'static str, &'static str), StoreError> {
            let mut entries = self.0.lock().unwrap();
            let next = if entries.len() > 1 { entries.pop_front().unwrap() } else { entries[0] };
            next.map_err(|fault| StoreError {
                fault,
                secret: "secret s in a test".to_owned(),
                reason: "it failed".to_owned(),
                remedy: "retry".to_owned(),
                cause: None,
            })
        }
    }

    impl SecretStore for Scripted {
        const KIND: &'static str = "test";

        fn description(&self) -> String {
            "secret s in a test".to_owned()
        }

        async fn version(&mut self) -> Result<String, StoreError> {
            self.next().map(|(version, _)| version.to_owned())
        }

        async fn read(&mut self) -> Result<StoredSecret, StoreError> {
            self.next()
                .map(|(version, text)| StoredSecret { version: version.to_owned(), text: Secret::new(text.to_owned()) })
        }
    }

    const SECRET: &str = r#"{"client_id": "id", "client_secret": "secret-1", "app_key": "key"}"#;

    fn source(entries: &[Result<(&'static str, &'static str), StoreFault>]) -> StoreSource<Scripted> {
        StoreSource::new(Scripted(Mutex::new(entries.iter().copied().collect())), Duration::from_secs(60))
    }

    #[tokio::test(start_paused = true)]
    async fn a_version_that_was_read_is_no_change() {
        let mut source = source(&[Ok(("1", SECRET)), Ok(("1", "")), Ok(("1", "")), Ok(("2", ""))]);
        load(&mut source, None).await.unwrap();
        let started = Instant::now();
        source.changed().await.unwrap();
        let polled = started.elapsed().as_secs_f64();
        assert!((3.0 * 54.0..=3.0 * 66.0 + 0.1).contains(&polled), "{polled}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_poll_is_reported_and_loses_no_change() {
        let mut source = source(&[Ok(("1", SECRET)), Err(StoreFault::Throttled), Ok(("2", SECRET))]);
        load(&mut source, None).await.unwrap();
        let problem = source.changed().await.unwrap_err();
        assert_eq!(problem.to_string(), "cannot read secret s in a test: it failed; retry");
        source.changed().await.unwrap();
        load(&mut source, None).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_version_that_cannot_be_used_is_read_once() {
        let mut source = source(&[Ok(("1", "{}")), Ok(("1", "")), Ok(("2", ""))]);
        let problems = load(&mut source, None).await.unwrap_err();
        assert!(problems[0].to_string().contains("client_id of secret s in a test is not set"), "{problems:?}");
        let started = Instant::now();
        source.changed().await.unwrap();
        assert!(started.elapsed() > Duration::from_secs(100));
    }
}
