//! Writes the small files of the state directory, at most once a second, on a blocking thread.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    select,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    error_chain,
    process::shared_state::{self, SharedState},
    secret::ShownPath,
    telemetry::AUDIT,
};

/// How often changed states are written.
const INTERVAL: Duration = Duration::from_secs(1);

/// States that are persisted as files of one directory.
pub(super) struct StateFiles {
    /// `None` if the states are in memory only.
    dir: Option<PathBuf>,
    states: Vec<Arc<dyn SharedState>>,
}

impl StateFiles {
    /// Creates an empty set. `dir`, if given, must exist.
    pub(super) fn new(dir: Option<&Path>) -> Self {
        Self { dir: dir.map(Path::to_owned), states: Vec::new() }
    }

    /// Whether the states outlive the process.
    pub(super) fn are_kept(&self) -> bool {
        self.dir.is_some()
    }

    /// Loads `state` from its file, and adds it to those that [`follow`](Self::follow) writes. If the file cannot be loaded, logs a
    /// warning and leaves the state empty.
    pub(super) fn add(&mut self, state: Arc<impl SharedState + 'static>) {
        if let Some(dir) = &self.dir
            && let Err(problem) = shared_state::load(dir, state.as_ref())
        {
            let (file, problem) = (shown(dir, state.as_ref()), error_chain::one_line(&problem));
            warn!(target: AUDIT, file, problem, "cannot load a state file; its content is lost, and it will be replaced");
        }
        self.states.push(state);
    }

    /// Writes changed states until `stop` is cancelled, and then once more.
    pub(super) async fn follow(self, stop: CancellationToken) {
        let Some(dir) = self.dir.clone().filter(|_| !self.states.is_empty()) else {
            return stop.cancelled().await;
        };
        let mut interval = interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_failing = false;
        loop {
            let is_last = select! {
                () = stop.cancelled() => true,
                _ = interval.tick() => false,
            };
            for state in &self.states {
                if state.has_changed() {
                    is_failing = !self.save(&dir, state, is_failing).await;
                }
            }
            if is_last {
                return;
            }
        }
    }

    /// Writes `state`, and returns whether that succeeded. Consecutive failures are logged once.
    #[expect(clippy::disallowed_methods, reason = "writing blocks; only one write runs at a time, and it is awaited")]
    async fn save(&self, dir: &Path, state: &Arc<dyn SharedState>, is_failing: bool) -> bool {
        let file = shown(dir, state.as_ref());
        let (dir, state) = (dir.to_owned(), Arc::clone(state));
        let saved = tokio::task::spawn_blocking(move || shared_state::save(&dir, state.as_ref())).await;
        match &saved {
            Ok(Ok(())) if is_failing => info!(target: AUDIT, file, "the state file can be written again"),
            Ok(Ok(())) => {}
            Ok(Err(problem)) if !is_failing => {
                let problem = error_chain::one_line(problem);
                error!(target: AUDIT, file, problem, "cannot write a state file; its state will be lost at a restart");
            }
            Ok(Err(_)) | Err(_) => {}
        }
        saved.is_ok_and(|saved| saved.is_ok())
    }
}

fn shown(dir: &Path, state: &dyn SharedState) -> String {
    ShownPath::of_new(&dir.join(state.file_name())).to_string()
}
