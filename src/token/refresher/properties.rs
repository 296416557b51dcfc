//! Invariants of the refresher under arbitrary sequences of events.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use http::{HeaderValue, header};
use proptest::prelude::*;
use tokio::time::{advance, sleep};

use super::{
    tests::{refresher, responded},
    *,
};
use crate::{
    credentials::Scheme,
    token::{
        classify::{FailureClass, TokenFailure},
        scheme::{AuthHeaders, FINICITY_APP_KEY},
        tests::credentials,
    },
};

#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    Respond(Option<FailureClass>, u64, u64),
    ReportRefused,
    Invalidate,
    Quarantine,
    Lift,
    Rotate(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let class = prop::option::weighted(0.5, prop::sample::select(FailureClass::ALL.to_vec()));
    prop_oneof![
        4 => (1_u64..4_000).prop_map(Event::Pass),
        3 => (class, 1_u64..8_000, 0_u64..10).prop_map(|(class, lifetime, delay)| Event::Respond(class, lifetime, delay)),
        1 => Just(Event::ReportRefused),
        1 => Just(Event::Invalidate),
        1 => Just(Event::Quarantine),
        2 => Just(Event::Lift),
        1 => (0_u8..4).prop_map(Event::Rotate),
    ]
}

/// A mock endpoint that responds as last set, and records requests that must not have been made.
#[derive(Clone, Debug, Default)]
struct CheckedEndpoint(Arc<Mutex<Observed>>);

#[derive(Debug, Default)]
struct Observed {
    class: Option<FailureClass>,
    lifetime_s: u64,
    delay_s: u64,
    in_flight: bool,
    rejected: HashMap<String, u32>,
    violations: Vec<String>,
    calls: u64,
}

impl CheckedEndpoint {
    fn lock(&self) -> MutexGuard<'_, Observed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenSource for CheckedEndpoint {
    fn host(&self) -> &str {
        "localhost"
    }

    async fn fetch(&self, credentials: &Credentials, _: Duration) -> Result<AuthHeaders, TokenFailure> {
        let secret = credentials.secret.expose().clone();
        let (class, lifetime_s, delay_s) = {
            let mut observed = self.lock();
            if observed.in_flight {
                observed.violations.push("two requests in flight".to_owned());
            }
            if observed.rejected.contains_key(&secret) {
                observed.violations.push(format!("{secret} was rejected before"));
            }
            observed.in_flight = true;
            observed.calls += 1;
            (observed.class, observed.lifetime_s.max(1), observed.delay_s)
        };
        sleep(Duration::from_secs(delay_s)).await;
        let mut observed = self.lock();
        observed.in_flight = false;
        match class {
            None => {
                let value = HeaderValue::from_str(&secret).unwrap();
                let headers = [(FINICITY_APP_KEY, value.clone()), (header::AUTHORIZATION, value)];
                Ok(AuthHeaders { headers, expires_in: Some(Duration::from_secs(lifetime_s)), untyped: false })
            }
            Some(class) => {
                if class == FailureClass::Rejected {
                    *observed.rejected.entry(secret).or_default() += 1;
                }
                Err(responded(class))
            }
        }
    }

    async fn probe(&self, _: Scheme) -> Result<(), TokenFailure> {
        Ok(())
    }
}

async fn play(events: Vec<Event>) -> Result<(), TestCaseError> {
    let endpoint = CheckedEndpoint::default();
    let (refresher, reader, control) = refresher(endpoint.clone());
    let task = tokio::spawn(refresher.run(CancellationToken::new()));
    let (mut version, mut quarantined) = (0, false);
    for event in events {
        let mut seconds = 1;
        match event {
            Event::Pass(more) => seconds = more,
            Event::Respond(class, lifetime_s, delay_s) => {
                let mut observed = endpoint.lock();
                (observed.class, observed.lifetime_s, observed.delay_s) = (class, lifetime_s, delay_s);
            }
            Event::ReportRefused => control.report_refused(reader.version()),
            Event::Invalidate => drop(tokio::spawn({
                let control = control.clone();
                async move { control.invalidate().await }
            })),
            Event::Quarantine => {
                control.quarantine().await;
                quarantined = true;
            }
            Event::Lift => {
                control.lift().await;
                quarantined = false;
            }
            Event::Rotate(number) => {
                control.rotate(credentials(Scheme::OAuth2, "id", &format!("secret-{number}"))).await;
            }
        }
        for step in 0..seconds.min(50) {
            advance(Duration::from_millis(if step == 0 { 1 } else { seconds * 20 })).await;
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            let usable = reader.usable().map(|token| token.clone().unwrap());
            prop_assert!(
                usable.as_ref().is_none_or(|token| !reader.remaining().is_zero() && token.version() >= version)
            );
            prop_assert!(!quarantined || usable.is_none());
            // A withdrawn token has no version; the versions of usable tokens only grow.
            version = version.max(usable.map_or(0, |token| token.version()));
        }
    }
    prop_assert!(!task.is_finished());
    let observed = endpoint.lock();
    prop_assert!(observed.violations.is_empty(), "{:?}", observed.violations);
    prop_assert!(observed.rejected.values().sum::<u32>() <= 4, "{:?}", observed.rejected);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_refresher_invariants_hold(events in prop::collection::vec(event(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(play(events))?;
    }
}
