use std::{
    collections::VecDeque,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::token::{
    Clock, State, TokenReader, channel,
    classify::{Answer, classify},
    scheme::FINICITY_APP_KEY,
};

const DEFAULT_LIFETIME: Duration = Duration::from_secs(7200);

/// An endpoint in memory: takes its time, then gives the scripted answers; the last one is given for ever.
#[derive(Clone, Debug, Default)]
struct Scripted(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    answers: VecDeque<(Duration, u16, String)>,
    calls: Vec<Instant>,
    under_way: usize,
}

impl Scripted {
    fn answering(answers: &[(u64, u16, &str)]) -> Self {
        let answers =
            answers.iter().map(|(s, status, body)| (Duration::from_secs(*s), *status, (*body).to_owned())).collect();
        Self(Arc::new(Mutex::new(Script { answers, ..Script::default() })))
    }

    fn calls(&self) -> usize {
        self.0.lock().unwrap().calls.len()
    }
}

impl Mint for Scripted {
    async fn mint(&self) -> Result<Grant, Failure> {
        let (delay, status, body) = {
            let mut script = self.0.lock().unwrap();
            script.calls.push(Instant::now());
            script.under_way += 1;
            assert_eq!(script.under_way, 1, "two token calls at once");
            if script.answers.len() > 1 { script.answers.pop_front().unwrap() } else { script.answers[0].clone() }
        };
        sleep(delay).await;
        self.0.lock().unwrap().under_way -= 1;
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: &HeaderMap::new(),
            body: Some(body.as_bytes()),
        };
        let minted = classify(&answer, "access_token", SystemTime::UNIX_EPOCH)?;
        let bearer = HeaderValue::from_str(minted.token.expose()).unwrap();
        Ok(Grant {
            headers: [(FINICITY_APP_KEY, HeaderValue::from_static("key")), (header::AUTHORIZATION, bearer)],
            expires_in: minted.expires_in,
            untyped: minted.untyped,
        })
    }
}

fn token(lifetime: u64) -> String {
    format!(r#"{{"access_token":"t","token_type":"Bearer","expires_in":{lifetime}}}"#)
}

fn start(endpoint: &Scripted) -> TokenReader {
    let (writer, reader) = channel(Clock::Tokio(Instant::now()), Duration::from_secs(2));
    let refresher = Refresher::new(writer, endpoint.clone(), DEFAULT_LIFETIME, Arc::new(Metrics::new()));
    tokio::spawn(refresher.run(CancellationToken::new()));
    reader
}

/// Lets the time pass in steps, and looks at `check` after each.
async fn pass(total: Duration, step: Duration, mut check: impl FnMut()) {
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
async fn a_token_is_refreshed_ahead_of_its_expiry_and_requests_never_wait() {
    let endpoint = Scripted::answering(&[(1, 200, &token(3600))]);
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
async fn n04_n05_a_failed_refresh_keeps_the_old_token_until_it_expires_and_the_first_success_heals() {
    let good = token(1000);
    let mut answers = vec![(0, 200, good.as_str())];
    answers.extend([(0, 503, r#"{"code":"1"}"#); 90]);
    answers.push((0, 200, good.as_str()));
    let endpoint = Scripted::answering(&answers);
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
    let endpoint = Scripted::answering(&[(8, 200, &token(300))]);
    let reader = start(&endpoint);
    pass(Duration::from_secs(12), Duration::from_secs(1), || {}).await;
    let sent = endpoint.0.lock().unwrap().calls[0];
    assert_eq!(reader.remaining(), Duration::from_secs(270) - sent.elapsed());
}

#[tokio::test(start_paused = true)]
async fn m17_m18_rejected_credentials_are_tried_once_and_never_again() {
    for (status, body) in [
        (401, ""),
        (400, r#"{"error":"invalid_client"}"#),
        (500, r#"{"code":24302}"#),
        (404, r#"{"code":"12401"}"#),
        (200, r#"{"error":"invalid_client"}"#),
    ] {
        let endpoint = Scripted::answering(&[(0, status, body)]);
        let reader = start(&endpoint);
        pass(Duration::from_secs(3 * 24 * 3600), Duration::from_secs(600), || {}).await;
        assert_eq!((endpoint.calls(), reader.state()), (1, State::Rejected), "{status} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn n07_no_other_failure_is_for_ever() {
    for (status, body) in [(200, "{}"), (400, ""), (403, ""), (404, ""), (429, ""), (500, ""), (302, "")] {
        let good = token(3600);
        let mut answers = vec![(0, status, body); 6];
        answers.push((0, 200, good.as_str()));
        let endpoint = Scripted::answering(&answers);
        let reader = start(&endpoint);
        pass(Duration::from_secs(6 * 3600), Duration::from_secs(60), || {}).await;
        assert!(reader.usable().is_some(), "{status} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn m01_an_answer_without_a_lifetime_gets_the_default() {
    let endpoint = Scripted::answering(&[(0, 200, r#"{"access_token":"t"}"#)]);
    let reader = start(&endpoint);
    reader.wait().await.unwrap();
    assert_eq!(reader.remaining().as_secs(), 7170);
}

#[tokio::test(start_paused = true)]
async fn n19_a_stop_during_a_call_ends_it_at_once() {
    let endpoint = Scripted::answering(&[(9, 200, &token(300))]);
    let (writer, reader) = channel(Clock::Tokio(Instant::now()), Duration::from_secs(2));
    let refresher = Refresher::new(writer, endpoint.clone(), DEFAULT_LIFETIME, Arc::new(Metrics::new()));
    let stop = CancellationToken::new();
    let task = tokio::spawn(refresher.run(stop.clone()));
    tokio::task::yield_now().await;
    stop.cancel();
    task.await.unwrap();
    assert_eq!((endpoint.calls(), reader.state()), (1, State::Stopped));
}
