//! The state of one seed: everything that requests of one test suite read and change.
//!
//! All records are JSON values in named collections, so that a fixture is what [`World::dump`] writes. Identifiers are derived from the
//! seed and from what they name, and never from the order of requests.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::value::{Record as _, json};
use super::{faults::Faults, partner::Partner, recorder::Recorder};

/// The world of one seed.
#[derive(Debug)]
pub(super) struct World {
    /// The seed's name; empty for the default one.
    pub(super) name: String,
    pub(super) partner: Partner,
    pub(super) recorder: Recorder,
    pub(super) faults: Faults,
    clock: Clock,
    seed: u64,
    collections: Map<String, Value>,
}

impl World {
    /// The world of the seed `name`, without records. Equal `salt` and `name` give equal identifiers.
    pub(super) fn new(name: &str, salt: u64, token_lifetime: Duration) -> Self {
        Self {
            name: name.to_owned(),
            partner: Partner::new(name, token_lifetime),
            recorder: Recorder::default(),
            faults: Faults::default(),
            clock: Clock::new(),
            seed: hash(salt, &[name]),
            collections: Map::new(),
        }
    }

    /// The current time of this world, in seconds since the epoch.
    #[inline(never)]
    pub(super) fn now(&self) -> i64 {
        self.clock.now_ms().div_euclid(1000)
    }

    /// The same in milliseconds.
    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Moves the clock by `by_ms` milliseconds, forwards or backwards.
    pub(super) fn move_clock(&mut self, by_ms: i64) {
        self.clock.offset_ms = self.clock.offset_ms.saturating_add(by_ms);
    }

    /// A number that depends on the seed and `parts` alone.
    #[inline(never)]
    pub(super) fn hash(&self, parts: &[&str]) -> u64 {
        hash(self.seed, parts)
    }

    /// An identifier of ten digits for what `parts` name, one that `collection` does not have.
    #[inline(never)]
    pub(super) fn new_id(&self, collection: &str, parts: &[&str]) -> String {
        let mut id = 1_000_000_000 + self.hash(parts) % 9_000_000_000;
        while self.get(collection, &id.to_string()).is_some() {
            id += 1;
        }
        id.to_string()
    }

    /// A hexadecimal identifier of 32 digits for what `parts` name.
    pub(super) fn hex_id(&self, parts: &[&str]) -> String {
        format!("{:016x}{:016x}", self.hash(parts), hash(!self.seed, parts))
    }

    /// A UUID (version 4 in form) for what `parts` name.
    pub(super) fn uuid(&self, parts: &[&str]) -> String {
        let hex = self.hex_id(parts);
        format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
    }

    /// The record `id` of `collection`.
    #[inline(never)]
    pub(super) fn get(&self, collection: &str, id: &str) -> Option<&Value> {
        self.collections.get(collection)?.get(id)
    }

    /// A copy of the record `id` of `collection`; null when there is none.
    #[inline(never)]
    pub(super) fn copy(&self, collection: &str, id: &str) -> Value {
        self.get(collection, id).map(Value::copy).unwrap_or_default()
    }

    /// The same, to be changed.
    #[inline(never)]
    pub(super) fn get_mut(&mut self, collection: &str, id: &str) -> Option<&mut Value> {
        self.collections.get_mut(collection)?.get_mut(id)
    }

    /// Every record of `collection`, by identifier.
    #[inline(never)]
    pub(super) fn all(&self, collection: &str) -> impl Iterator<Item = &Value> {
        let records = self.collections.get(collection).and_then(Value::as_object);
        records.map_or_else(Vec::new, |records| records.values().collect()).into_iter()
    }

    /// The records of `collection` whose member `name` is `value`.
    pub(super) fn having<'a>(&'a self, collection: &str, name: &'a str, value: &'a str) -> Vec<&'a Value> {
        self.all(collection).filter(|record| is_text(record.at(name), value)).collect()
    }

    /// Adds or replaces the record `id`.
    pub(super) fn put(&mut self, collection: &str, id: &str, record: Value) {
        let records = self.collections.entry(collection).or_insert_with(|| json!({}));
        if let Some(records) = records.as_object_mut() {
            records.insert(id.to_owned(), record);
        }
    }

    /// Removes the record `id`.
    #[inline(never)]
    pub(super) fn remove(&mut self, collection: &str, id: &str) -> Option<Value> {
        self.collections.get_mut(collection)?.as_object_mut()?.remove(id)
    }

    /// Removes the records of `collection` whose member `name` is `value`; returns how many.
    pub(super) fn remove_having(&mut self, collection: &str, name: &str, value: &str) -> usize {
        let Some(records) = self.collections.get_mut(collection).and_then(Value::as_object_mut) else { return 0 };
        let before = records.len();
        records.retain(|_, record| !is_text(record.at(name), value));
        before - records.len()
    }

    /// How many records `collection` has had so far, for identifiers of what has no name of its own.
    pub(super) fn next(&mut self, collection: &str) -> String {
        let count = self.get("counters", collection).and_then(Value::as_u64).unwrap_or(0) + 1;
        self.put("counters", collection, json!(count));
        count.to_string()
    }

    /// Every collection, as a fixture.
    pub(super) fn dump(&self) -> Value {
        Value::Object(self.collections.clone())
    }

    /// Replaces every collection.
    pub(super) fn replace(&mut self, collections: Map<String, Value>) {
        self.collections = collections;
    }
}

/// Whether `value` is `text`, as a string or as a number.
pub(super) fn is_text(value: &Value, text: &str) -> bool {
    match value {
        Value::String(value) => value == text,
        Value::Number(value) => value.to_string() == text,
        _ => false,
    }
}

/// FNV-1a over `parts`, with a separator after each, then a finaliser that spreads every bit.
fn hash(seed: u64, parts: &[&str]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325 ^ seed;
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    state = (state ^ (state >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    state = (state ^ (state >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    state ^ (state >> 33)
}

/// The wall clock at the start, and what has passed since on the monotonic one, so that a step of the wall clock moves nothing.
#[derive(Debug)]
struct Clock {
    started_at_ms: i64,
    started: Instant,
    offset_ms: i64,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "dates of the API")]
    fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_at_ms = i64::try_from(since_epoch.as_millis()).unwrap_or(0);
        Self { started_at_ms, started: Instant::now(), offset_ms: 0 }
    }

    fn now_ms(&self) -> i64 {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.started_at_ms.saturating_add(elapsed).saturating_add(self.offset_ms)
    }
}
