//! The state of the sandbox: a world for each seed that was used.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;

use super::{delivery::Delivery, faults::Fault, fixtures, world::World};

/// Maximum number of seeds. Further ones are rejected, so that a loop that creates seeds cannot exhaust the memory.
const MAX_SEEDS: usize = 1000;

/// Maximum length of the name of a seed.
const MAX_SEED_LEN: usize = 64;

/// The initial state of every world.
#[derive(Clone, Debug, Default)]
pub(super) struct Initial {
    pub(super) salt: u64,
    pub(super) token_lifetime: Duration,
    pub(super) faults: Vec<Fault>,
    pub(super) fixture: Option<Value>,
    /// The CA certificate.
    pub(super) ca_pem: String,
}

impl Initial {
    /// Checks the fixture.
    #[inline(never)]
    pub(super) fn check(&self) -> Result<(), String> {
        let mut world = World::new("", self.salt, self.token_lifetime);
        self.fixture.as_ref().map_or(Ok(()), |fixture| fixtures::load(&mut world, fixture))
    }

    /// A new world for the seed `name`.
    pub(super) fn world(&self, name: &str) -> World {
        let mut world = World::new(name, self.salt, self.token_lifetime);
        match &self.fixture {
            Some(fixture) => {
                fixtures::load(&mut world, fixture).expect("fixture checked at the start");
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
    /// Sorted by name.
    worlds: Mutex<Vec<World>>,
}

impl SandboxState {
    #[inline(never)]
    pub(super) fn new(initial: Initial, delivery: Delivery) -> Self {
        let worlds = Mutex::new(vec![initial.world("")]);
        Self { initial, delivery, worlds }
    }

    /// Calls `work` with the world of the seed `name`, which is created on first use.
    ///
    /// # Errors
    ///
    /// When the name is invalid or there are [`MAX_SEEDS`] seeds.
    pub(super) fn with<T>(&self, name: &str, work: impl FnOnce(&mut World) -> T) -> Result<T, &'static str> {
        let mut worlds = self.worlds();
        let index = self.index_of(&mut worlds, name)?;
        Ok(work(&mut worlds[index]))
    }

    #[inline(never)]
    fn worlds(&self) -> MutexGuard<'_, Vec<World>> {
        self.worlds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index of the world of the seed `name`, which is created if it does not exist.
    #[inline(never)]
    fn index_of(&self, worlds: &mut Vec<World>, name: &str) -> Result<usize, &'static str> {
        worlds.binary_search_by(|world| world.name.as_str().cmp(name)).or_else(|index| {
            if name.len() > MAX_SEED_LEN
                || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            {
                return Err("the name of a seed must have at most 64 characters of A-Z, a-z, 0-9, - and _");
            }
            if worlds.len() >= MAX_SEEDS {
                return Err("too many seeds (1000); remove one with DELETE /sandbox/seeds/{seed}");
            }
            worlds.insert(index, self.initial.world(name));
            Ok(index)
        })
    }

    /// The seed of the partner that issued `token`.
    pub(super) fn issuer_of(&self, token: &str) -> Option<String> {
        self.worlds().iter().find(|world| world.partner.issued(token)).map(|world| world.name.clone())
    }

    /// The names of all seeds.
    pub(super) fn seeds(&self) -> Vec<String> {
        self.worlds().iter().map(|world| world.name.clone()).collect()
    }

    /// Removes the world of the seed `name`; the default seed is reset. Returns whether it existed.
    pub(super) fn remove(&self, name: &str) -> bool {
        let mut worlds = self.worlds();
        let Some(index) = worlds.iter().position(|world| world.name == name) else { return false };
        worlds.remove(index);
        if name.is_empty() {
            worlds.insert(0, self.initial.world(""));
        }
        true
    }
}
