//! Processes that share a directory start, are killed and rotate credentials while the vendor responds, hangs or fails. In any
//! order of events, the vendor receives few token requests with credentials that it never accepted.

use std::collections::HashMap;

use proptest::prelude::*;
use tokio::time::{Instant, advance};

use super::tests::{Instance, Mode, Vendor};
use crate::{
    credentials::Scheme,
    token::{Clock, tests::credentials},
};
use std::time::Duration;

const SECRETS: [&str; 4] = ["right", "wrong-1", "wrong-2", "wrong-3"];
const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Debug)]
enum Event {
    /// One of two processes starts with one of the secrets, unless it is running already.
    Start(usize, usize),
    Kill(usize),
    Rotate(usize, usize),
    Vendor(Mode),
    /// Seconds pass.
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let mode = prop_oneof![
        Just(Mode::Works),
        (1..40_u64).prop_map(Mode::Slow),
        Just(Mode::Hangs),
        Just(Mode::HangsOnTokens),
        Just(Mode::HangsOnTokens),
        Just(Mode::Unreachable),
        Just(Mode::Fails),
    ];
    prop_oneof![
        3 => (0..2_usize, 0..SECRETS.len()).prop_map(|(process, secret)| Event::Start(process, secret)),
        2 => (0..2_usize).prop_map(Event::Kill),
        2 => (0..2_usize, 0..SECRETS.len()).prop_map(|(process, secret)| Event::Rotate(process, secret)),
        3 => mode.prop_map(Event::Vendor),
        4 => prop_oneof![1..20_u64, 20..200_u64, 3600..100_000_u64].prop_map(Event::Pass),
    ]
}

async fn play(events: Vec<Event>, valid: &[&'static str]) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let vendor = Vendor::new(Mode::HangsOnTokens, valid);
    let clock = Clock::Simulated(Instant::now());
    let mut processes: [Option<Instance>; 2] = [None, None];
    for event in events {
        let mut seconds = 0;
        match event {
            Event::Start(process, secret) => {
                processes[process]
                    .get_or_insert_with(|| Instance::start(&vendor, Some(dir.path()), SECRETS[secret], clock));
            }
            Event::Kill(process) => {
                if let Some(instance) = processes[process].take() {
                    instance.kill().await;
                }
            }
            Event::Rotate(process, secret) => {
                if let Some(instance) = &processes[process] {
                    instance.control.rotate(credentials(Scheme::OAuth2, "id", SECRETS[secret])).await;
                }
            }
            Event::Vendor(mode) => vendor.set(mode),
            Event::Pass(more) => seconds = more,
        }
        // Advance in steps, so timers fire in order; longer times in coarser steps.
        let step = Duration::from_millis(1000 * seconds / 40 + 100);
        for _ in 0..if seconds == 0 { 1 } else { 40 } {
            advance(step).await;
            for _ in 0..6 {
                tokio::task::yield_now().await;
            }
        }
    }
    let requests = vendor.with(|state| state.requests.clone());
    check(&requests, valid)
}

fn check(requests: &[(String, Instant)], valid: &[&'static str]) -> Result<(), TestCaseError> {
    let mut of_secret: HashMap<&str, Vec<Instant>> = HashMap::new();
    let mut since_accepted: Vec<Instant> = Vec::new();
    for (secret, at) in requests {
        if valid.contains(&secret.as_str()) {
            // It may have been accepted, which resets the vendor's count for the account.
            since_accepted.clear();
            continue;
        }
        of_secret.entry(secret).or_default().push(*at);
        since_accepted.push(*at);
        for attempts in [&of_secret[secret.as_str()], &since_accepted] {
            let within_a_day = attempts.iter().filter(|earlier| *at - **earlier < DAY).count();
            prop_assert!(within_a_day <= 3, "{within_a_day} attempts within a day: {requests:?}");
            prop_assert!(attempts.len() <= 4, "{} attempts: {requests:?}", attempts.len());
        }
    }
    Ok(())
}

fn run(events: Vec<Event>, valid: &[&'static str]) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(play(events, valid))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_interleaving_costs_more_than_four_attempts(events in prop::collection::vec(event(), 1..60)) {
        run(events, &[])?;
    }

    #[test]
    fn no_interleaving_with_accepted_credentials_costs_more(events in prop::collection::vec(event(), 1..60)) {
        run(events, &["right"])?;
    }
}
