//! The state of one seed, which the requests of one test suite share.
//!
//! All records are JSON values in named collections, and a fixture is the output of [`World::dump`]. Identifiers are derived from the seed
//! and the identified resource, so they do not depend on the order of requests. Accessors are not inlined: they have hundreds of callers,
//! and the code would be 40 KB larger.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::value::{Record as _, json};
use super::{faults::Faults, partner::Partner, recorder::Recorder};

/// The state of one seed.
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
    /// A world without records. Equal `salt` and `name` give equal identifiers.
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

    /// A pseudo-random number that depends only on the seed and `parts`.
    #[inline(never)]
    pub(super) fn hash(&self, parts: &[&str]) -> u64 {
        hash(self.seed, parts)
    }

    /// An identifier of ten digits derived from `parts`, unique in `collection`.
    #[inline(never)]
    pub(super) fn new_id(&self, collection: &str, parts: &[&str]) -> String {
        let mut id = 1_000_000_000 + self.hash(parts) % 9_000_000_000;
        while self.get(collection, &id.to_string()).is_some() {
            id += 1;
        }
        id.to_string()
    }

    /// An identifier of 32 hexadecimal digits derived from `parts`.
    pub(super) fn hex_id(&self, parts: &[&str]) -> String {
        format!("{:016x}{:016x}", self.hash(parts), hash(!self.seed, parts))
    }

    /// A UUID (in the form of version 4) derived from `parts`.
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

    /// The record `id` of `collection`, mutable.
    #[inline(never)]
    pub(super) fn get_mut(&mut self, collection: &str, id: &str) -> Option<&mut Value> {
        self.collections.get_mut(collection)?.get_mut(id)
    }

    /// All records of `collection`, in the order of their identifiers.
    #[inline(never)]
    pub(super) fn all(&self, collection: &str) -> impl Iterator<Item = &Value> {
        let records = self.collections.get(collection).and_then(Value::as_object);
        records.map_or_else(Vec::new, |records| records.values().collect()).into_iter()
    }

    /// The records of `collection` that have `value` in the member `name`.
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

    /// Removes the records of `collection` that have `value` in the member `name`; returns their number.
    pub(super) fn remove_having(&mut self, collection: &str, name: &str, value: &str) -> usize {
        let Some(records) = self.collections.get_mut(collection).and_then(Value::as_object_mut) else { return 0 };
        let before = records.len();
        records.retain(|_, record| !is_text(record.at(name), value));
        before - records.len()
    }

    /// Increments the counter of `collection` and returns it, for identifiers of resources without a name.
    pub(super) fn next(&mut self, collection: &str) -> String {
        let count = self.get("counters", collection).and_then(Value::as_u64).unwrap_or(0) + 1;
        self.put("counters", collection, json!(count));
        count.to_string()
    }

    /// All collections, as a fixture.
    pub(super) fn dump(&self) -> Value {
        Value::Object(self.collections.clone())
    }

    /// Replaces all collections.
    pub(super) fn replace(&mut self, collections: Map<String, Value>) {
        self.collections = collections;
    }
}

/// Whether `value` is the string `text` or the number that `text` represents.
pub(super) fn is_text(value: &Value, text: &str) -> bool {
    match value {
        Value::String(value) => value == text,
        Value::Number(value) => value.to_string() == text,
        _ => false,
    }
}

/// FNV-1a over `parts`, with a separator after each, and the finaliser of MurmurHash3, because FNV-1a alone mixes the high bits poorly.
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

/// The wall clock at the start plus the time since then on the monotonic clock, so steps of the wall clock have no effect.
#[derive(Debug)]
struct Clock {
    started_at_ms: i64,
    started: Instant,
    offset_ms: i64,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the dates in responses")]
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
