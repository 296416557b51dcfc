//! Limits the billable calls of a day (`policy.billable_per_day`).
//!
//! A call counts once it gets a 2xx response. While in progress it holds a reservation, so that concurrent calls do not exceed the budget
//! together. A day is a UTC day.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use humantime::format_rfc3339_seconds;
use serde::{Deserialize, Serialize};
use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    process::shared_state::{Damaged, SharedState},
    telemetry::Metrics,
    token::Clock,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How often the metrics are updated without a call.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// The format version of the file.
const VERSION: u32 = 1;

/// The daily budget, shared by all workers.
pub struct BillingBudget {
    per_day: u64,
    clock: Clock,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The day, in days since the Unix epoch.
    day: u64,
    /// The calls of the day that are in the file, those of other processes included.
    saved: u64,
    /// The calls of this process that are not in the file.
    unsaved: u64,
    /// The part of `unsaved` that the last merge included.
    merged: u64,
    /// The calls of all processes at the last merge.
    total_at_merge: u64,
    /// Calls in progress.
    reserved: u64,
}

impl State {
    fn spent(&self) -> u64 {
        self.saved.saturating_add(self.unsaved)
    }

    /// Resets the counts if `day` is another day. A clock that is set back by one day resets nothing, so that no budget is spent twice.
    fn turn(&mut self, day: u64) {
        if day > self.day || day + 1 < self.day {
            *self = Self { day, reserved: self.reserved, ..Self::default() };
        }
    }
}

/// The content of the file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Layout {
    version: u32,
    /// The day, as `2026-11-28`.
    date: String,
    /// The calls of that day.
    billable_calls: u64,
}

impl BillingBudget {
    /// A budget of `per_day` calls, for each day of `clock`. `metrics` report what is left.
    pub fn new(per_day: u64, clock: Clock, metrics: Arc<Metrics>) -> Arc<Self> {
        let budget = Self { per_day, clock, metrics, state: Mutex::default() };
        drop(budget.state());
        Arc::new(budget)
    }

    /// Updates the metrics until `stop` is cancelled, because a new day begins even without calls.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        loop {
            select! {
                () = stop.cancelled() => return,
                () = sleep(REFRESH_INTERVAL) => drop(self.state()),
            }
        }
    }

    /// Reserves budget for one call. `None` if nothing is left, unless the call `may_exceed` the budget.
    pub(super) fn reserve(self: &Arc<Self>, may_exceed: bool) -> Option<Reservation> {
        let mut state = self.state();
        if !may_exceed && state.spent().saturating_add(state.reserved) >= self.per_day {
            return None;
        }
        state.reserved += 1;
        Some(Reservation(Arc::clone(self)))
    }

    /// Whether the budget is spent or reserved.
    pub(super) fn is_spent(&self) -> bool {
        let state = self.state();
        state.spent().saturating_add(state.reserved) >= self.per_day
    }

    /// The time until the next day begins.
    pub(super) fn until_next_day(&self) -> Duration {
        let today = self.clock.unix_time().as_secs() % DAY.as_secs();
        Duration::from_secs(DAY.as_secs() - today)
    }

    /// The state, reset if a new day has begun. Updates the metrics.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.turn(self.clock.unix_time().as_secs() / DAY.as_secs());
        self.show(&state);
        state
    }

    fn show(&self, state: &State) {
        self.metrics.set_billable_budget(self.per_day, self.per_day.saturating_sub(state.spent()));
    }
}

impl fmt::Debug for BillingBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BillingBudget").field("per_day", &self.per_day).finish_non_exhaustive()
    }
}

/// The reservation of a call in progress. Dropping it releases the reservation.
#[derive(Debug)]
pub(super) struct Reservation(Arc<BillingBudget>);

impl Reservation {
    /// Counts the call as spent, because the vendor may bill it.
    pub(super) fn spend(self) {
        let mut state = self.0.state();
        state.unsaved += 1;
        self.0.show(&state);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.reserved = state.reserved.saturating_sub(1);
    }
}

fn date(day: u64) -> String {
    let mut date = format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(day * DAY.as_secs())).to_string();
    date.truncate("2026-11-28".len());
    date
}

fn parse(found: &[u8]) -> Result<Layout, Damaged> {
    let layout: Layout = serde_json::from_slice(found).map_err(|_| Damaged)?;
    if layout.version == VERSION { Ok(layout) } else { Err(Damaged) }
}

impl SharedState for BillingBudget {
    fn file_name(&self) -> &'static str {
        "billing.json"
    }

    fn has_changed(&self) -> bool {
        self.state().unsaved > 0
    }

    fn merge(&self, found: Option<&[u8]>) -> Vec<u8> {
        let mut state = self.state();
        let today = date(state.day);
        let found = found.and_then(|found| parse(found).ok()).filter(|found| found.date == today);
        let saved = found.map_or(state.saved, |found| found.billable_calls.max(state.saved));
        state.merged = state.unsaved;
        state.total_at_merge = saved.saturating_add(state.unsaved);
        let layout = Layout { version: VERSION, date: today, billable_calls: state.total_at_merge };
        serde_json::to_vec(&layout).expect("strings and numbers are always serialisable")
    }

    fn saved(&self) {
        let mut state = self.state();
        // If a new day began since the merge, `turn` has reset both counts to 0.
        state.saved = state.saved.max(std::mem::take(&mut state.total_at_merge));
        state.unsaved -= std::mem::take(&mut state.merged).min(state.unsaved);
        self.show(&state);
    }

    fn load(&self, found: &[u8]) -> Result<(), Damaged> {
        let found = parse(found)?;
        let mut state = self.state();
        if found.date == date(state.day) {
            state.saved = found.billable_calls;
            self.show(&state);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance};

    use super::*;

    fn budget(per_day: u64) -> (Arc<BillingBudget>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new());
        (BillingBudget::new(per_day, Clock::Tokio(Instant::now()), Arc::clone(&metrics)), metrics)
    }

    #[track_caller]
    fn check_left(metrics: &Metrics, left: u64) {
        let line = format!("finicity_proxy_billable_budget_left {left}\n");
        assert!(metrics.render().contains(&line), "{line}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_reserves_budget_and_then_spends_it() {
        let (budget, metrics) = budget(2);
        check_left(&metrics, 2);
        let (one, two) = (budget.reserve(false).unwrap(), budget.reserve(false).unwrap());
        assert!(budget.reserve(false).is_none() && budget.is_spent());
        check_left(&metrics, 2);
        drop(one);
        two.spend();
        check_left(&metrics, 1);
        budget.reserve(false).unwrap().spend();
        assert!(budget.reserve(false).is_none());
        budget.reserve(true).unwrap().spend();
        check_left(&metrics, 0);
        assert_eq!(budget.state().reserved, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn each_utc_day_has_its_own_budget() {
        let (budget, metrics) = budget(1);
        budget.reserve(false).unwrap().spend();
        let midnight = budget.until_next_day();
        assert!(midnight <= DAY);
        advance(midnight - Duration::from_secs(1)).await;
        assert!(budget.is_spent());
        advance(Duration::from_secs(1)).await;
        let under_way = budget.reserve(false).unwrap();
        check_left(&metrics, 1);
        advance(DAY).await;
        assert!(budget.is_spent(), "a call counts on the day on which it ends");
        under_way.spend();
        check_left(&metrics, 0);
    }

    #[test]
    fn setting_the_clock_back_a_day_does_not_reset_the_budget() {
        let mut state = State { day: 100, saved: 7, ..State::default() };
        for (day, spent) in [(100, 7), (99, 7), (100, 7), (101, 0)] {
            state.turn(day);
            assert_eq!(state.spent(), spent, "{day}");
        }
        let mut wrong = State { day: 30_000, saved: 7, ..State::default() };
        wrong.turn(20_000);
        assert_eq!((wrong.day, wrong.spent()), (20_000, 0), "the clock was years ahead");
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_has_the_calls_of_all_processes() {
        let ((one, _), (other, metrics)) = (budget(10), budget(10));
        for _ in 0..3 {
            one.reserve(false).unwrap().spend();
            other.reserve(false).unwrap().spend();
        }
        let first = one.merge(None);
        one.saved();
        assert!(!one.has_changed() && other.has_changed());
        let second = other.merge(Some(&first));
        // A call between merge and write is in the next file.
        other.reserve(false).unwrap().spend();
        other.saved();
        check_left(&metrics, 3);
        assert!(other.has_changed());
        let third = other.merge(Some(&second));
        other.saved();
        assert!(String::from_utf8_lossy(&third).contains(r#""billable_calls":7"#));
        let (next, metrics) = budget(10);
        next.load(&third).unwrap();
        check_left(&metrics, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_write_loses_no_call() {
        let (budget, metrics) = budget(10);
        budget.reserve(false).unwrap().spend();
        for _ in 0..3 {
            budget.merge(None);
            check_left(&metrics, 9);
        }
        let content = budget.merge(None);
        budget.saved();
        check_left(&metrics, 9);
        assert!(String::from_utf8_lossy(&content).contains(r#""billable_calls":1"#));
    }

    #[tokio::test(start_paused = true)]
    async fn a_damaged_or_outdated_file_is_ignored() {
        let (budget, metrics) = budget(10);
        budget.load(br#"{"version":1,"date":"2001-01-01","billable_calls":9}"#).unwrap();
        for damaged in [&b""[..], b"{}", br#"{"version":2,"date":"2001-01-01","billable_calls":9}"#] {
            assert_eq!(budget.load(damaged), Err(Damaged));
        }
        check_left(&metrics, 10);
    }
}
