use http::header;
use tokio::time::{Instant, advance};

use super::*;
use crate::token::{classify::FailureClass, scheme::FINICITY_APP_KEY};

const WAIT: Duration = Duration::from_secs(2);

fn paused() -> (TokenWriter, TokenReader) {
    channel(Clock::Tokio(Instant::now()), WAIT)
}

fn auth_headers(token: &str) -> AuthHeaders {
    let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    bearer.set_sensitive(true);
    AuthHeaders {
        headers: [(FINICITY_APP_KEY, HeaderValue::from_static("key")), (header::AUTHORIZATION, bearer)],
        expires_in: None,
        untyped: false,
    }
}

fn publish(writer: &mut TokenWriter, token: &str, usable: Duration) -> u64 {
    let now = writer.clock().now();
    let version = writer.publish(auth_headers(token), now + usable);
    writer.set_status(Phase::Idle, Some(now + usable / 2), LockoutStatus::default());
    version
}

fn failed(writer: &mut TokenWriter, class: FailureClass, next: Option<BootInstant>) {
    let phase = if class == FailureClass::Rejected { Phase::Rejected } else { Phase::Failed(class) };
    writer.set_status(phase, next, LockoutStatus::default());
}

#[tokio::test(start_paused = true)]
async fn a_token_is_never_handed_out_past_its_usable_end() {
    let (mut writer, reader) = paused();
    assert!(reader.usable().is_none());
    publish(&mut writer, "one", Duration::from_secs(10));
    advance(Duration::from_millis(9_999)).await;
    assert_eq!(reader.usable().unwrap().as_ref().unwrap().version(), 1);
    advance(Duration::from_millis(1)).await;
    assert!(reader.usable().is_none());
    assert_eq!((reader.state(), reader.version(), reader.remaining()), (State::Expired, 1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn n01_waiting_requests_get_the_token_once_published() {
    let (mut writer, reader) = paused();
    let waiting: Vec<_> = (0..1000)
        .map(|_| {
            let reader = reader.clone();
            tokio::spawn(async move { reader.wait().await.map(|token| token.version()) })
        })
        .collect();
    tokio::task::yield_now().await;
    publish(&mut writer, "one", Duration::from_secs(60));
    let started = Instant::now();
    for request in waiting {
        assert_eq!(request.await.unwrap(), Ok(1));
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_wait_times_out_with_a_retry_after() {
    let (mut writer, reader) = paused();
    let next = writer.clock().now() + Duration::from_secs(30);
    failed(&mut writer, FailureClass::Transient, Some(next));
    let started = Instant::now();
    assert_eq!(reader.wait().await.unwrap_err(), Unavailable::NoToken { retry_after: Duration::from_secs(28) });
    assert!(started.elapsed().abs_diff(WAIT) < Duration::from_millis(5));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_returned_immediately() {
    let (mut writer, reader) = paused();
    failed(&mut writer, FailureClass::Rejected, None);
    let started = Instant::now();
    assert_eq!(reader.wait().await.unwrap_err(), Unavailable::Rejected);
    drop(writer);
    assert!(matches!(reader.wait().await, Err(Unavailable::NoToken { .. })));
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(reader.state(), State::Stopped);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_waiters_is_bounded_and_permits_are_released() {
    let (_writer, reader) = paused();
    let waiting: Vec<_> = (0..MAX_WAITERS)
        .map(|_| {
            let reader = reader.clone();
            tokio::spawn(async move { reader.wait().await })
        })
        .collect();
    for _ in 0..4 * MAX_WAITERS {
        tokio::task::yield_now().await;
    }
    assert_eq!(reader.wait().await.unwrap_err(), Unavailable::TooManyWaiters);
    for request in waiting {
        assert!(matches!(request.await.unwrap(), Err(Unavailable::NoToken { .. })));
    }
    assert!(matches!(reader.wait().await, Err(Unavailable::NoToken { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_state_follows_the_refresher_and_the_time() {
    let (mut writer, reader) = paused();
    assert_eq!(reader.state(), State::Empty);
    writer.set_fetching();
    assert_eq!(reader.state(), State::Empty);
    publish(&mut writer, "one", Duration::from_secs(10));
    assert_eq!(reader.state(), State::Fresh);
    assert_eq!(reader.until_next_attempt(), Some(Duration::from_secs(5)));
    writer.set_fetching();
    assert_eq!(reader.state(), State::Refreshing);
    failed(&mut writer, FailureClass::Transient, None);
    assert_eq!(reader.state(), State::Degraded);
    failed(&mut writer, FailureClass::Rejected, None);
    assert_eq!(reader.state(), State::Degraded);
    advance(Duration::from_secs(10)).await;
    assert_eq!(reader.state(), State::Rejected);
    assert!(reader.status().attempted && reader.status().obtained);
}

#[test]
fn n10_readers_see_consistent_tokens_with_growing_versions() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let (mut writer, reader) = channel(Clock::Boot, WAIT);
    publish(&mut writer, "1", Duration::from_secs(60));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let token = reader.usable().unwrap();
                    let token = token.as_ref().unwrap();
                    assert_eq!(token.headers()[1].1, format!("Bearer {}", token.version()));
                    assert!(token.version() >= last);
                    last = token.version();
                }
            });
        }
        for version in 2..2_000 {
            assert_eq!(publish(&mut writer, &version.to_string(), Duration::from_secs(60)), version);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(reader.version(), 1_999);
}

#[test]
fn n09_no_wake_up_is_lost_between_check_and_wait() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for _ in 0..2_000 {
        let (mut writer, reader) = channel(Clock::Boot, Duration::from_secs(60));
        let publisher = std::thread::spawn(move || {
            publish(&mut writer, "one", Duration::from_secs(60));
            writer
        });
        assert_eq!(runtime.block_on(reader.wait()).unwrap().version(), 1);
        drop(publisher.join().unwrap());
    }
}
