//! The tasks of the control plane, with names.

use std::collections::HashMap;

use tokio::task::{self, JoinError, JoinSet};

/// A task stopped that must run as long as the process.
#[derive(Debug, thiserror::Error)]
#[error("the {task} task stopped unexpectedly, which is a bug; the process cannot continue without it")]
pub struct TaskEnded {
    pub(super) task: &'static str,
}

/// Owns tasks. Dropping it aborts them.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    set: JoinSet<()>,
    names: HashMap<task::Id, &'static str>,
}

impl Tasks {
    /// Starts `task`. `name` is its name in [`TaskEnded`].
    pub(super) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.names.insert(self.set.spawn(task).id(), name);
    }

    /// Whether no task was started.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Waits for the next task that ends, and returns its name.
    pub(super) async fn next_ended(&mut self) -> &'static str {
        let ended = self.set.join_next_with_id().await;
        let id = ended.map(|ended| ended.map_or_else(|error: JoinError| error.id(), |(id, ())| id));
        id.and_then(|id| self.names.get(&id)).copied().unwrap_or("last")
    }

    /// Waits until all have ended.
    pub(super) async fn all_ended(&mut self) {
        while self.set.join_next().await.is_some() {}
    }
}
