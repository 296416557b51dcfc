use http::{HeaderValue, header};
use tokio::time::Instant;

use super::*;
use crate::{
    credentials::Scheme,
    token::{
        Clock, State, TokenControl, TokenReader, Unavailable, channel,
        classify::TokenFailure,
        command_channel,
        scheme::{AuthHeaders, FINICITY_APP_KEY},
        tests::credentials,
    },
};

/// A mock endpoint that issues a token immediately.
#[derive(Debug)]
struct Endpoint;

impl TokenSource for Endpoint {
    fn host(&self) -> &str {
        "localhost"
    }

    async fn fetch(&self, credentials: &Credentials, _: Duration) -> Result<AuthHeaders, TokenFailure> {
        assert_eq!(credentials.secret.expose(), "secret-1");
        let value = HeaderValue::from_static("value");
        let headers = [(FINICITY_APP_KEY, value.clone()), (header::AUTHORIZATION, value)];
        Ok(AuthHeaders { headers, expires_in: Some(Duration::from_secs(3600)), untyped: false })
    }

    async fn probe(&self, _: Scheme) -> Result<(), TokenFailure> {
        Ok(())
    }
}

fn start() -> (TokenReader, TokenControl, CancellationToken) {
    let (writer, reader) = channel(Clock::Tokio(Instant::now()), Duration::from_secs(2));
    let (control, commands) = command_channel();
    let (lockout, metrics, stop) = (Lockout::open(None).unwrap(), Arc::new(Metrics::new()), CancellationToken::new());
    let refresher = PendingRefresher::new(writer, Endpoint, lockout, commands, Duration::from_secs(7200), metrics);
    tokio::spawn(refresher.run(stop.clone()));
    (reader, control, stop)
}

fn new_credentials() -> Credentials {
    credentials(Scheme::OAuth2, "id", "secret-1")
}

#[tokio::test(start_paused = true)]
async fn requests_fail_with_the_reason_until_credentials_arrive() {
    let (mut reader, control, _stop) = start();
    reader.changed().await;
    assert_eq!((reader.status().phase, reader.status().scheme), (Phase::AwaitingCredentials, None));
    control.report_failed_first_load("the store is sealed".to_owned(), Duration::from_secs(30)).await;
    let error = reader.wait().await.unwrap_err();
    assert_eq!(error, Unavailable::NoToken { retry_after: Duration::from_secs(28) });
    assert_eq!(reader.unresolved_error().as_deref(), Some("the store is sealed"));
    assert_eq!((reader.state(), reader.status().attempted), (State::Empty, false));

    control.rotate(new_credentials()).await;
    reader.wait().await.unwrap();
    assert_eq!((reader.state(), reader.status().scheme), (State::Fresh, Some(Scheme::OAuth2)));
    assert_eq!(reader.unresolved_error(), None);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_gets_the_first_token() {
    let (reader, control, _stop) = start();
    let waiting = tokio::spawn(async move { reader.wait().await.map(|token| token.version()) });
    tokio::task::yield_now().await;
    control.rotate(new_credentials()).await;
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_outlasts_the_wait_for_credentials() {
    let (mut reader, control, _stop) = start();
    assert!(control.quarantine().await);
    assert_eq!(reader.wait().await.unwrap_err(), Unavailable::Quarantined);
    assert!(!reader.status().attempted, "startup has not succeeded");
    control.rotate(new_credentials()).await;
    while reader.status().scheme.is_none() {
        reader.changed().await;
    }
    assert_eq!(reader.wait().await.unwrap_err(), Unavailable::Quarantined);
    assert!(control.lift().await);
    reader.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn commands_are_handled_without_credentials() {
    let (reader, control, stop) = start();
    assert!(control.invalidate().await);
    assert!(!control.replace_refused(0).await);
    assert_eq!(control.reset_latch(true).await, Err(ResetError::NoCredentials));
    assert!(control.quarantine().await && control.lift().await);
    assert_eq!(reader.status().phase, Phase::AwaitingCredentials);
    stop.cancel();
    while reader.state() != State::Stopped {
        tokio::task::yield_now().await;
    }
    assert_eq!(control.reset_latch(false).await, Err(ResetError::Ended));
}

#[tokio::test(start_paused = true)]
async fn the_heartbeat_continues_while_waiting() {
    let (reader, _control, _stop) = start();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(reader.is_refresher_alive(crate::token::HEARTBEAT_LIMIT).await);
}
