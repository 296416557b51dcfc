//! Shared by all secret stores: reads one version of one secret, which is a JSON object, and polls for new versions.
//!
//! Each store implements [`SecretStore`] in a cargo feature of the same name.

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

/// The poll interval varies by ± this fraction, so that the proxies of a fleet do not poll at the same time.
const POLL_JITTER: f64 = 0.1;

/// One version of a secret.
#[derive(Debug)]
pub(super) struct StoredSecret {
    /// Identifies this version among all versions of the secret.
    pub(super) version: String,
    /// The value of the secret: a JSON text.
    pub(super) text: Secret<String>,
}

/// A client of one store, for one secret.
pub(super) trait SecretStore: fmt::Debug + Send + Sync {
    /// The kind of store, as one word, which is also the name of its cargo feature.
    const KIND: &'static str;

    /// The secret and its store: `secret finicity/prod in AWS Secrets Manager`.
    fn description(&self) -> String;

    /// The current version, determined by the store's cheapest request.
    ///
    /// # Errors
    ///
    /// If the store does not return it.
    fn version(&mut self) -> impl Future<Output = Result<String, StoreError>> + Send;

    /// Reads the current version of the secret.
    ///
    /// # Errors
    ///
    /// If the store does not return it.
    fn read(&mut self) -> impl Future<Output = Result<StoredSecret, StoreError>> + Send;

    /// Work between two polls, such as renewing a lease. Never completes; the next poll reports a failure.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is dropped when a poll is due.
    fn keep_alive(&mut self) -> impl Future<Output = ()> + Send {
        future::pending()
    }
}

/// A store as a credential source.
#[derive(Debug)]
pub(super) struct StoreSource<S> {
    store: S,
    poll_interval: Duration,
    /// The version that was last read, whether or not its values were usable.
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
            // If this load fails, the next successful poll triggers another load, which clears the reported error.
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
                        // The next successful poll then triggers a load, which clears the reported error.
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

    /// Returns one entry after another, and the last one repeatedly.
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
    async fn the_version_that_was_read_is_no_change() {
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
    async fn an_unusable_version_is_read_once() {
        let mut source = source(&[Ok(("1", "{}")), Ok(("1", "")), Ok(("2", ""))]);
        let problems = load(&mut source, None).await.unwrap_err();
        assert!(problems[0].to_string().contains("client_id of secret s in a test is not set"), "{problems:?}");
        let started = Instant::now();
        source.changed().await.unwrap();
        assert!(started.elapsed() > Duration::from_secs(100));
    }
}
