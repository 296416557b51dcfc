//! For every state and every event: the next state, and the number of token requests.

use std::time::Duration;

use super::tests::{FakeEndpoint, hours, pass, start_with};
use crate::{
    credentials::Scheme,
    token::{State, tests::credentials},
};

/// One cell of the table: brings the refresher into `state`, triggers `event`, and checks the next state and the token requests.
async fn cell(state: State, event: &'static str, expected: State, calls: usize) {
    let endpoint = FakeEndpoint::accepting(&["secret-1", "secret-2"]);
    let (reader, control) = match state {
        State::Rejected => {
            endpoint.with(|state| state.valid = vec!["secret-2"]);
            start_with(&endpoint)
        }
        State::Empty => {
            endpoint.with(|state| state.failing = true);
            start_with(&endpoint)
        }
        _ => start_with(&endpoint),
    };
    hours(0).await;
    pass(Duration::from_millis(100), Duration::from_millis(10), || {}).await;
    match state {
        State::Quarantined => assert!(control.quarantine().await),
        State::Degraded => {
            endpoint.with(|state| state.failing = true);
            assert!(!control.replace_refused(1).await);
        }
        State::Expired => {
            // The refresh fails after 39 to 45 minutes, again at 61.5 at the latest, and then not for half an hour: no scheduled
            // request is near the event.
            endpoint.with(|state| state.misconfigured = true);
            pass(Duration::from_secs(65 * 60), Duration::from_secs(5), || {}).await;
        }
        State::Refreshing => {
            endpoint.with(|state| state.delay = Duration::from_secs(9));
            control.report_refused(1);
            pass(Duration::from_millis(100), Duration::from_millis(10), || {}).await;
        }
        _ => {}
    }
    assert_eq!(reader.state(), state, "before {event}");
    let before = endpoint.with(|state| state.calls.len());
    endpoint.with(|state| (state.failing, state.misconfigured) = (false, false));
    let version = reader.version();
    // Not awaited: while a token request is in flight, there is no reply.
    tokio::spawn(async move {
        match event {
            "refused" => drop(control.replace_refused(version).await),
            "invalidate" => drop(control.invalidate().await),
            "quarantine" => drop(control.quarantine().await),
            "lift" => drop(control.lift().await),
            "reset" => drop(control.reset_latch(false).await),
            "same" => control.rotate(credentials(Scheme::OAuth2, "id", "secret-1")).await,
            "rotate" => control.rotate(credentials(Scheme::OAuth2, "id", "secret-2")).await,
            _ => {}
        }
        // Keep the sender alive, as in the process.
        std::future::pending::<()>().await;
    });
    pass(Duration::from_millis(500), Duration::from_millis(10), || {}).await;
    let made = endpoint.with(|state| state.calls.len()) - before;
    assert_eq!((reader.state(), made), (expected, calls), "{state:?} × {event}");
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[tokio::test(start_paused = true)]
async fn every_state_handles_every_event() {
    use State::{Degraded, Empty, Expired, Fresh, Quarantined, Rejected};

    // The state after half a second, and the token requests in that time. The backoff is at least a second, so only the event
    // can cause a request in that time. After an invalidation, the next request is at least five seconds after the last one.
    let table = [
        (
            "refused",
            [
                (Fresh, Fresh, 1),
                (Degraded, Degraded, 0),
                (Empty, Empty, 0),
                (Expired, Expired, 0),
                (Rejected, Rejected, 0),
                (Quarantined, Quarantined, 0),
            ],
        ),
        (
            "invalidate",
            [
                (Fresh, Expired, 0),
                (Degraded, Expired, 0),
                (Empty, Empty, 0),
                (Expired, Fresh, 1),
                (Rejected, Rejected, 0),
                (Quarantined, Quarantined, 0),
            ],
        ),
        (
            "quarantine",
            [
                (Fresh, Quarantined, 0),
                (Degraded, Quarantined, 0),
                (Empty, Quarantined, 0),
                (Expired, Quarantined, 0),
                (Rejected, Quarantined, 0),
                (Quarantined, Quarantined, 0),
            ],
        ),
        (
            "lift",
            [
                (Fresh, Fresh, 0),
                (Degraded, Degraded, 0),
                (Empty, Empty, 0),
                (Expired, Expired, 0),
                (Rejected, Rejected, 0),
                (Quarantined, Expired, 0),
            ],
        ),
        (
            "reset",
            [
                (Fresh, Fresh, 0),
                (Degraded, Degraded, 0),
                (Empty, Empty, 0),
                (Expired, Expired, 0),
                (Rejected, Rejected, 1),
                (Quarantined, Quarantined, 0),
            ],
        ),
        (
            "same",
            [
                (Fresh, Fresh, 0),
                (Degraded, Degraded, 0),
                (Empty, Empty, 0),
                (Expired, Expired, 0),
                (Rejected, Rejected, 0),
                (Quarantined, Quarantined, 0),
            ],
        ),
        (
            "rotate",
            [
                (Fresh, Fresh, 1),
                (Degraded, Fresh, 1),
                (Empty, Fresh, 1),
                (Expired, Fresh, 1),
                (Rejected, Fresh, 1),
                (Quarantined, Quarantined, 0),
            ],
        ),
        (
            "nothing",
            [
                (Fresh, Fresh, 0),
                (Degraded, Degraded, 0),
                (Empty, Empty, 0),
                (Expired, Expired, 0),
                (Rejected, Rejected, 0),
                (Quarantined, Quarantined, 0),
            ],
        ),
    ];
    for (event, cells) in table {
        for (state, expected, calls) in cells {
            cell(state, event, expected, calls).await;
        }
        // A token request in flight is completed before any command.
        cell(State::Refreshing, event, State::Refreshing, 0).await;
    }
}
