use std::{
    collections::VecDeque,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::{
    credentials::Scheme,
    token::{
        CandidateState, Clock, State, TokenControl, TokenReader, channel,
        classify::{Disposition, TokenFailure, TokenResponse, classify},
        command_channel,
        scheme::{AuthHeaders, FINICITY_APP_KEY},
        tests::credentials,
    },
};

const DEFAULT_LIFETIME: Duration = Duration::from_secs(7200);

/// A mock endpoint: returns the scripted responses, each after its delay; the last one repeats.
#[derive(Clone, Debug, Default)]
struct ScriptedEndpoint(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    responses: VecDeque<(Duration, u16, String)>,
    calls: Vec<Instant>,
    in_flight: usize,
}

impl ScriptedEndpoint {
    fn responding(responses: &[(u64, u16, &str)]) -> Self {
        let responses =
            responses.iter().map(|(s, status, body)| (Duration::from_secs(*s), *status, (*body).to_owned())).collect();
        Self(Arc::new(Mutex::new(Script { responses, ..Script::default() })))
    }

    fn calls(&self) -> usize {
        self.0.lock().unwrap().calls.len()
    }
}

impl TokenSource for ScriptedEndpoint {
    fn host(&self) -> &str {
        "localhost"
    }

    async fn fetch(&self, _: &Credentials, _: Duration) -> Result<AuthHeaders, TokenFailure> {
        let (delay, status, body) = {
            let mut script = self.0.lock().unwrap();
            script.calls.push(Instant::now());
            script.in_flight += 1;
            assert_eq!(script.in_flight, 1, "two token requests in flight");
            if script.responses.len() > 1 { script.responses.pop_front().unwrap() } else { script.responses[0].clone() }
        };
        sleep(delay).await;
        self.0.lock().unwrap().in_flight -= 1;
        let response = TokenResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers: &HeaderMap::new(),
            body: Some(body.as_bytes()),
        };
        let issued = classify(&response, "access_token", SystemTime::UNIX_EPOCH)?;
        let bearer = HeaderValue::from_str(issued.token.expose()).unwrap();
        Ok(AuthHeaders {
            headers: [(FINICITY_APP_KEY, HeaderValue::from_static("key")), (header::AUTHORIZATION, bearer)],
            expires_in: issued.expires_in,
            untyped: issued.untyped,
        })
    }

    async fn probe(&self, _: Scheme) -> Result<(), TokenFailure> {
        Ok(())
    }
}

fn token(lifetime: u64) -> String {
    format!(r#"{{"access_token":"t","token_type":"Bearer","expires_in":{lifetime}}}"#)
}

fn start(endpoint: &ScriptedEndpoint) -> TokenReader {
    let (refresher, reader, _) = refresher(endpoint.clone());
    tokio::spawn(refresher.run(CancellationToken::new()));
    reader
}

pub(super) fn refresher<S: TokenSource>(source: S) -> (Refresher<S>, TokenReader, TokenControl) {
    let (writer, reader) = channel(Clock::Tokio(Instant::now()), Duration::from_secs(2));
    let (control, commands) = command_channel();
    let lockout = Lockout::open(None).unwrap();
    let credentials = credentials(Scheme::OAuth2, "id", "secret-1");
    let metrics = Arc::new(Metrics::new());
    (Refresher::new(writer, source, credentials, lockout, commands, DEFAULT_LIFETIME, metrics), reader, control)
}

/// Advances the time in steps, and runs `check` after each.
pub(super) async fn pass(total: Duration, step: Duration, mut check: impl FnMut()) {
    let end = Instant::now() + total;
    while Instant::now() < end {
        advance(step).await;
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        check();
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_ahead_of_expiry_keeps_requests_from_waiting() {
    let endpoint = ScriptedEndpoint::responding(&[(1, 200, &token(3600))]);
    let reader = start(&endpoint);
    reader.wait().await.unwrap();
    pass(Duration::from_secs(36_000), Duration::from_secs(7), || assert!(reader.usable().is_some())).await;
    let calls = endpoint.0.lock().unwrap().calls.clone();
    for pair in calls.windows(2) {
        let gap = (pair[1] - pair[0]).as_secs_f64();
        assert!((2340.0..2720.0).contains(&gap), "{gap}");
    }
    assert!(calls.len() >= 13, "{}", calls.len());
}

#[tokio::test(start_paused = true)]
async fn n04_n05_a_failed_refresh_keeps_the_token_until_expiry() {
    let valid = token(1000);
    let mut responses = vec![(0, 200, valid.as_str())];
    responses.extend([(0, 503, r#"{"code":"1"}"#); 90]);
    responses.push((0, 200, valid.as_str()));
    let endpoint = ScriptedEndpoint::responding(&responses);
    let reader = start(&endpoint);
    let first = reader.wait().await.unwrap().usable_until();
    let start = Clock::Tokio(Instant::now());
    let offset = first.since(start.now());
    let mut seen = Vec::new();
    pass(Duration::from_secs(6000), Duration::from_secs(1), || {
        if reader.version() == 1 {
            assert_eq!(reader.usable().is_some(), start.now().since(first) == Duration::ZERO && start.now() < first);
        }
        if seen.last() != Some(&reader.state()) {
            seen.push(reader.state());
        }
    })
    .await;
    assert!(offset > Duration::from_secs(900));
    assert!(seen.starts_with(&[State::Fresh, State::Degraded, State::Expired, State::Fresh]), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn n14_expiry_counts_from_the_moment_the_request_was_sent() {
    let endpoint = ScriptedEndpoint::responding(&[(8, 200, &token(300))]);
    let reader = start(&endpoint);
    pass(Duration::from_secs(12), Duration::from_secs(1), || {}).await;
    let sent = endpoint.0.lock().unwrap().calls[0];
    assert_eq!(reader.remaining(), Duration::from_secs(270) - sent.elapsed());
}

#[tokio::test(start_paused = true)]
async fn m17_m18_rejected_credentials_are_tried_only_once() {
    for (status, body) in [
        (401, ""),
        (400, r#"{"error":"invalid_client"}"#),
        (500, r#"{"code":24302}"#),
        (404, r#"{"code":"12401"}"#),
        (200, r#"{"error":"invalid_client"}"#),
    ] {
        let endpoint = ScriptedEndpoint::responding(&[(0, status, body)]);
        let reader = start(&endpoint);
        pass(Duration::from_secs(3 * 24 * 3600), Duration::from_secs(600), || {}).await;
        assert_eq!((endpoint.calls(), reader.state()), (1, State::Rejected), "{status} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn n07_all_other_failures_are_retried() {
    for (status, body) in [(200, "{}"), (400, ""), (403, ""), (404, ""), (429, ""), (500, ""), (302, "")] {
        let valid = token(3600);
        let mut responses = vec![(0, status, body); 6];
        responses.push((0, 200, valid.as_str()));
        let endpoint = ScriptedEndpoint::responding(&responses);
        let reader = start(&endpoint);
        pass(Duration::from_secs(6 * 3600), Duration::from_secs(60), || {}).await;
        assert!(reader.usable().is_some(), "{status} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn m01_a_response_without_expires_in_gets_the_default() {
    let endpoint = ScriptedEndpoint::responding(&[(0, 200, r#"{"access_token":"t"}"#)]);
    let reader = start(&endpoint);
    reader.wait().await.unwrap();
    assert_eq!(reader.remaining().as_secs(), 7170);
}

#[tokio::test(start_paused = true)]
async fn n19_a_stop_during_a_token_request_ends_the_refresher() {
    let endpoint = ScriptedEndpoint::responding(&[(9, 200, &token(300))]);
    let (refresher, reader, _) = refresher(endpoint.clone());
    let stop = CancellationToken::new();
    let task = tokio::spawn(refresher.run(stop.clone()));
    tokio::task::yield_now().await;
    stop.cancel();
    task.await.unwrap();
    assert_eq!((endpoint.calls(), reader.state()), (1, State::Stopped));
}

/// A mock endpoint with a list of valid secrets, which counts the requests for each.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeEndpoint(Arc<Mutex<FakeState>>);

#[derive(Debug, Default)]
pub(super) struct FakeState {
    pub(super) valid: Vec<&'static str>,
    pub(super) calls: Vec<String>,
    pub(super) issued: u64,
    pub(super) failing: bool,
    pub(super) panicking: bool,
    pub(super) revocation_panics: bool,
    pub(super) misconfigured: bool,
    pub(super) delay: Duration,
    pub(super) revoked: Vec<String>,
}

impl FakeEndpoint {
    pub(super) fn accepting(valid: &[&'static str]) -> Self {
        Self(Arc::new(Mutex::new(FakeState { valid: valid.to_vec(), ..FakeState::default() })))
    }

    pub(super) fn with<T>(&self, access: impl FnOnce(&mut FakeState) -> T) -> T {
        access(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub(super) fn calls(&self, secret: &str) -> usize {
        self.with(|state| state.calls.iter().filter(|call| *call == secret).count())
    }
}

impl TokenSource for FakeEndpoint {
    fn host(&self) -> &str {
        "localhost"
    }

    async fn fetch(&self, credentials: &Credentials, _: Duration) -> Result<AuthHeaders, TokenFailure> {
        let delay = self.with(|state| {
            state.calls.push(credentials.secret.expose().clone());
            state.delay
        });
        sleep(delay).await;
        self.with(|state| {
            let secret = credentials.secret.expose();
            assert!(!state.panicking, "scripted panic");
            if state.misconfigured {
                return Err(responded(FailureClass::Misconfigured));
            }
            if state.failing {
                return Err(responded(FailureClass::Transient));
            }
            if !state.valid.contains(&secret.as_str()) {
                return Err(responded(FailureClass::Rejected));
            }
            state.issued += 1;
            let bearer = HeaderValue::from_str(&format!("{secret}/{}", state.issued)).unwrap();
            let key = HeaderValue::from_str(secret).unwrap();
            Ok(AuthHeaders {
                headers: [(FINICITY_APP_KEY, key), (header::AUTHORIZATION, bearer)],
                expires_in: Some(Duration::from_secs(3600)),
                untyped: false,
            })
        })
    }

    async fn probe(&self, _: Scheme) -> Result<(), TokenFailure> {
        Ok(())
    }

    async fn revoke(&self, _: &Credentials, token: &HeaderValue) -> Option<Result<(), TokenFailure>> {
        self.with(|state| {
            state.revoked.push(token.to_str().unwrap().to_owned());
            assert!(!state.revocation_panics, "scripted panic");
        });
        Some(Ok(()))
    }
}

/// A failure with a complete response.
pub(super) fn responded(class: FailureClass) -> TokenFailure {
    TokenFailure::new(class, "scripted").with_disposition(Disposition::Responded)
}

/// Starts a refresher with `secret-1`.
pub(super) fn start_with(endpoint: &FakeEndpoint) -> (TokenReader, TokenControl) {
    let (refresher, reader, control) = refresher(endpoint.clone());
    tokio::spawn(refresher.run(CancellationToken::new()));
    (reader, control)
}

/// The values of App Key and token in the current header fields.
fn fields(reader: &TokenReader) -> [String; 2] {
    let token = reader.usable().unwrap();
    token.as_ref().unwrap().headers().each_ref().map(|(_, value)| value.to_str().unwrap().to_owned())
}

pub(super) async fn hours(hours: u64) {
    pass(Duration::from_secs(hours * 3600), Duration::from_secs(5), || {}).await;
}

#[tokio::test(start_paused = true)]
async fn p06_new_credentials_are_used_after_their_first_token() {
    let endpoint = FakeEndpoint::accepting(&["secret-1", "secret-2"]);
    let (mut reader, control) = start_with(&endpoint);
    reader.wait().await.unwrap();
    endpoint.with(|state| state.failing = true);
    control.rotate(credentials(Scheme::OAuth2, "id", "secret-2")).await;
    reader.changed().await;
    assert_eq!(fields(&reader), ["secret-1", "secret-1/1"]);
    endpoint.with(|state| state.failing = false);
    hours(1).await;
    let [key, token] = fields(&reader);
    assert!(key == "secret-2" && token.starts_with("secret-2/"), "{key} {token}");
    hours(5).await;
    assert_eq!(endpoint.calls("secret-1"), 1);
    assert_eq!((reader.state(), reader.status().lockout.candidate), (State::Fresh, None));
}

#[tokio::test(start_paused = true)]
async fn p06_a_wrong_new_secret_is_tried_once_and_the_old_kept() {
    let endpoint = FakeEndpoint::accepting(&["secret-1"]);
    let (reader, control) = start_with(&endpoint);
    reader.wait().await.unwrap();
    // Three wrong secrets spend the id's budget, which does not stop the proven credentials.
    for wrong in ["wrong-1", "wrong-2", "wrong-3", "wrong-4", "wrong-1"] {
        control.rotate(credentials(Scheme::OAuth2, "id", wrong)).await;
        pass(Duration::from_secs(600), Duration::from_secs(5), || assert!(reader.usable().is_some())).await;
        assert_eq!(reader.status().lockout.candidate, Some(CandidateState::Rejected));
    }
    assert_eq!(["wrong-1", "wrong-2", "wrong-3", "wrong-4"].map(|wrong| endpoint.calls(wrong)), [1, 1, 1, 0]);
    hours(10).await;
    assert!(endpoint.calls("secret-1") > 10 && reader.state() == State::Fresh);

    // When the previous secret is restored, the candidate is dropped.
    control.rotate(credentials(Scheme::OAuth2, "id", "secret-1")).await;
    hours(1).await;
    assert_eq!(reader.status().lockout.candidate, None);
}

#[tokio::test(start_paused = true)]
async fn p06_correct_credentials_end_a_rejection() {
    let endpoint = FakeEndpoint::accepting(&["secret-2"]);
    let (reader, control) = start_with(&endpoint);
    hours(24).await;
    assert_eq!((endpoint.calls("secret-1"), reader.state()), (1, State::Rejected));
    assert!(reader.status().lockout.latched);
    control.rotate(credentials(Scheme::OAuth2, "id", "secret-2")).await;
    hours(1).await;
    assert!(reader.version() > 0 && reader.state() == State::Fresh);
}

#[tokio::test(start_paused = true)]
async fn n18_only_a_reset_clears_a_latch_and_an_override_a_budget() {
    let endpoint = FakeEndpoint::accepting(&[]);
    let (reader, control) = start_with(&endpoint);
    hours(1).await;
    for expected in [2, 3, 3, 3] {
        control.reset_latch(false).await.unwrap();
        hours(1).await;
        assert_eq!(endpoint.calls("secret-1"), expected);
    }
    assert!(reader.status().lockout.budget_spent);
    control.reset_latch(true).await.unwrap();
    hours(1).await;
    assert_eq!(endpoint.calls("secret-1"), 4);
}

#[tokio::test(start_paused = true)]
async fn o01_a_refused_token_is_replaced_once_for_all_requests() {
    let endpoint = FakeEndpoint::accepting(&["secret-1"]);
    let (reader, control) = start_with(&endpoint);
    reader.wait().await.unwrap();
    let requests: Vec<_> = (0..50)
        .map(|_| {
            let control = control.clone();
            tokio::spawn(async move { control.replace_refused(1).await })
        })
        .collect();
    for request in requests {
        assert!(request.await.unwrap());
    }
    assert_eq!((endpoint.calls("secret-1"), reader.version()), (2, 2));
    assert!(control.replace_refused(1).await, "a late report of an old version finds the newer token");
    assert_eq!(endpoint.calls("secret-1"), 2);
    assert!(!control.replace_refused(2).await, "not again within 30 s");
    advance(Duration::from_secs(30)).await;
    assert!(control.replace_refused(2).await);
}

#[tokio::test(start_paused = true)]
async fn o02_repeated_refusals_cause_few_token_requests() {
    let endpoint = FakeEndpoint::accepting(&["secret-1"]);
    let (reader, control) = start_with(&endpoint);
    reader.wait().await.unwrap();
    let before = endpoint.calls("secret-1");
    for _ in 0..1800 {
        let _ = control.replace_refused(reader.version()).await;
        advance(Duration::from_secs(1)).await;
    }
    // After 0, 30, 90, 210, 450 and 930 s; the next is due at 1830 s.
    assert_eq!(endpoint.calls("secret-1") - before, 6);
}

#[tokio::test(start_paused = true)]
async fn invalidation_is_immediate_and_replacement_rate_limited() {
    let endpoint = FakeEndpoint::accepting(&["secret-1"]);
    let (reader, control) = start_with(&endpoint);
    reader.wait().await.unwrap();
    assert!(control.invalidate().await);
    assert!(reader.usable().is_none());
    assert_eq!(endpoint.with(|state| state.revoked.clone()), ["secret-1/1"]);
    let started = Instant::now();
    while reader.usable().is_none() {
        let _ = reader.wait().await;
    }
    assert!(started.elapsed() >= Duration::from_secs(4) && reader.version() == 2, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_lasts_until_it_is_lifted() {
    let endpoint = FakeEndpoint::accepting(&["secret-1"]);
    let (reader, control) = start_with(&endpoint);
    reader.wait().await.unwrap();
    assert!(control.quarantine().await);
    let started = Instant::now();
    assert_eq!(reader.wait().await.unwrap_err(), crate::token::Unavailable::Quarantined);
    assert_eq!((started.elapsed(), reader.state()), (Duration::ZERO, State::Quarantined));
    assert!(!control.replace_refused(1).await);
    hours(3).await;
    assert_eq!(endpoint.calls("secret-1"), 1);
    assert!(control.lift().await);
    reader.wait().await.unwrap();
    assert_eq!((endpoint.calls("secret-1"), reader.version()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn n06_a_panic_keeps_the_token_and_three_end_the_task() {
    let endpoint = FakeEndpoint::accepting(&["secret-1"]);
    let (refresher, reader, control) = refresher(endpoint.clone());
    let task = tokio::spawn(refresher.run(CancellationToken::new()));
    reader.wait().await.unwrap();
    endpoint.with(|state| state.panicking = true);
    assert!(!control.replace_refused(1).await);
    assert!(reader.usable().is_some() && !task.is_finished());
    let calls = endpoint.calls("secret-1");
    pass(Duration::from_secs(299), Duration::from_secs(1), || {}).await;
    assert_eq!(endpoint.calls("secret-1"), calls, "a request with an unknown outcome is not repeated immediately");
    endpoint.with(|state| state.panicking = false);
    hours(2).await;
    assert!(reader.version() > 1 && reader.usable().is_some());

    endpoint.with(|state| state.revocation_panics = true);
    for ended in [false, false, true] {
        assert!(reader.usable().is_some() && !task.is_finished());
        control.invalidate().await;
        pass(Duration::from_secs(10), Duration::from_secs(1), || {}).await;
        assert_eq!(task.is_finished(), ended);
    }
    assert_eq!(reader.state(), State::Stopped);
}

#[tokio::test(start_paused = true)]
async fn q10_an_idle_refresher_keeps_its_heartbeat() {
    let endpoint = FakeEndpoint::accepting(&[]);
    let (reader, _control) = start_with(&endpoint);
    pass(Duration::from_secs(600), Duration::from_secs(1), || {
        assert!(reader.heartbeat_age() <= Duration::from_secs(11), "{:?}", reader.heartbeat_age());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn n17_the_first_token_request_can_be_delayed() {
    let endpoint = FakeEndpoint::accepting(&["secret-1"]);
    let (refresher, reader, _control) = refresher(endpoint.clone());
    tokio::spawn(refresher.delayed(Duration::from_secs(90)).run(CancellationToken::new()));
    pass(Duration::from_secs(89), Duration::from_secs(1), || {}).await;
    assert_eq!(endpoint.calls("secret-1"), 0);
    pass(Duration::from_secs(2), Duration::from_secs(1), || {}).await;
    assert!(endpoint.calls("secret-1") == 1 && reader.usable().is_some());
}

#[tokio::test(start_paused = true)]
async fn n02_no_request_gets_the_old_token_once_it_has_expired() {
    // The refresh ahead of the expiry fails, the token expires, and the next token request takes a second.
    let valid = token(1000);
    let mut responses = vec![(0, 200, valid.as_str())];
    responses.extend([(0, 400, ""), (1, 200, valid.as_str())]);
    let endpoint = ScriptedEndpoint::responding(&responses);
    let reader = start(&endpoint);
    let expiry = reader.wait().await.unwrap().usable_until();
    pass(Duration::from_secs(1900), Duration::from_secs(1), || {
        if let Some(token) = reader.usable() {
            let token = token.as_ref().unwrap();
            assert!(token.version() == 2 || token.usable_until() == expiry);
        }
    })
    .await;
    assert_eq!((endpoint.calls(), reader.version()), (3, 2));
}
