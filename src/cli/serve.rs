//! `serve`: the proxy.

use anyhow::bail;
use tracing::{info, warn};

use crate::{
    app::{App, Ending},
    cause,
    config::{self, Inputs},
    process::{self, OpenFiles, Unprotected},
    signal::StopSignals,
    telemetry::logging::{self, Output},
};

/// Serves until a signal says to stop; drains then, unless a second one comes. `unprotected` is what the process could not be
/// protected against.
pub(super) async fn run(inputs: Inputs, unprotected: Vec<Unprotected>) -> anyhow::Result<()> {
    let config = config::load(&inputs)?;
    drop(inputs); // the environment's copy of the secrets with it
    logging::init(&config.log, Output::Stdout)?;
    let mut signals = StopSignals::catch()?;
    let (open_files, connections) = (process::raise_open_files(), config.server.connections);
    let app = App::start(config).await?;
    for problem in unprotected {
        warn!(problem = cause::line(&problem), "the process could not be protected");
    }
    tell_open_files(open_files, connections);
    run_until_stopped(app, &mut signals).await
}

fn tell_open_files(files: OpenFiles, connections: usize) {
    info!(limit = files.limit, before = files.before, "the limit of open files");
    if !files.suffice_for(connections) {
        warn!(
            limit = files.limit,
            needed = process::needed(connections),
            "the limit of open files is too low for limits.connections; raise the hard limit, or lower limits.connections"
        );
    }
}

/// Runs `app` to its end. A cut-off drain is a failure, which the log has told.
pub(super) async fn run_until_stopped(app: App, signals: &mut StopSignals) -> anyhow::Result<()> {
    let signals = tokio::sync::Mutex::new(signals);
    let next = || async { signals.lock().await.next().await };
    match app.run(next(), next()).await? {
        Ending::Drained => Ok(()),
        Ending::CutOff => bail!("connections were cut off before their requests were finished"),
    }
}
