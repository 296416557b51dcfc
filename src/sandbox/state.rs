//! The state of the sandbox: a world for each seed that has been named.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;

use super::{delivery::Delivery, faults::Fault, fixtures, world::World};

/// The most seeds. Beyond it a new one is refused, so that a mistake in a loop takes no memory without end.
const MAX_SEEDS: usize = 1000;

/// The longest name of a seed.
const MAX_SEED_LEN: usize = 64;

/// What every new world begins with.
#[derive(Clone, Debug, Default)]
pub(super) struct Initial {
    pub(super) salt: u64,
    pub(super) token_lifetime: Duration,
    pub(super) faults: Vec<Fault>,
    pub(super) fixture: Option<Value>,
    /// The certificate of the CA.
    pub(super) ca_pem: String,
}

impl Initial {
    /// Whether the fixture is one.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut world = World::new("", self.salt, self.token_lifetime);
        self.fixture.as_ref().map_or(Ok(()), |fixture| fixtures::load(&mut world, fixture))
    }

    /// A new world of the seed `name`.
    pub(super) fn world(&self, name: &str) -> World {
        let mut world = World::new(name, self.salt, self.token_lifetime);
        match &self.fixture {
            Some(fixture) => {
                fixtures::load(&mut world, fixture).expect("the fixture was checked when the sandbox started");
            }
            None => fixtures::add_first_customer(&mut world),
        }
        world.faults.add(self.faults.iter().cloned());
        world
    }
}

/// The state that all connections share.
#[derive(Debug)]
pub(super) struct SandboxState {
    pub(super) initial: Initial,
    pub(super) delivery: Delivery,
    worlds: Mutex<BTreeMap<String, World>>,
}

impl SandboxState {
    pub(super) fn new(initial: Initial, delivery: Delivery) -> Self {
        let default = (String::new(), initial.world(""));
        Self { initial, delivery, worlds: Mutex::new(BTreeMap::from([default])) }
    }

    /// Calls `work` with the world of the seed `name`, which is made when it is named for the first time.
    ///
    /// # Errors
    ///
    /// A name that cannot be one, or one seed too many.
    pub(super) fn with<T>(&self, name: &str, work: impl FnOnce(&mut World) -> T) -> Result<T, &'static str> {
        let mut worlds = self.worlds.lock().unwrap_or_else(PoisonError::into_inner);
        if !worlds.contains_key(name) {
            if name.len() > MAX_SEED_LEN
                || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            {
                return Err("a seed is up to 64 letters, digits, - and _");
            }
            if worlds.len() >= MAX_SEEDS {
                return Err("there are 1000 seeds already; DELETE /sandbox/seeds/{seed} removes one");
            }
            worlds.insert(name.to_owned(), self.initial.world(name));
        }
        Ok(work(worlds.get_mut(name).expect("it was just made")))
    }

    /// The seed whose partner issued `token`.
    pub(super) fn issuer_of(&self, token: &str) -> Option<String> {
        let worlds = self.worlds.lock().unwrap_or_else(PoisonError::into_inner);
        worlds.values().find(|world| world.partner.issued(token)).map(|world| world.name.clone())
    }

    /// The names of all seeds.
    pub(super) fn seeds(&self) -> Vec<String> {
        self.worlds.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Removes the world of the seed `name`; the default one begins anew.
    pub(super) fn remove(&self, name: &str) -> bool {
        let mut worlds = self.worlds.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = worlds.remove(name).is_some();
        worlds.entry(String::new()).or_insert_with(|| self.initial.world(""));
        removed
    }
}
