//! `serve`: the proxy.

use anyhow::bail;
use tracing::{info, warn};

use crate::{
    app::{self, App, ShutdownOutcome},
    config::Inputs,
    error_chain,
    process::{
        self, HardeningError,
        signal::{self, StopSignals},
    },
    telemetry::logging::{self, Output},
};

/// Serves until a signal says to stop; drains then, unless a second one comes. `unprotected` is what the process could not be
/// protected against.
pub(super) async fn run(inputs: Inputs, unprotected: Vec<HardeningError>) -> anyhow::Result<()> {
    // Before all else, since a start may take a while: a SIGHUP would end the process, and the kernel keeps from process 1 of a
    // container what it does not catch, so that a SIGTERM would be lost.
    let mut signals = StopSignals::catch()?;
    let _hangups = signal::hangups()?;
    let loaded = app::load(&inputs).await?;
    drop(inputs); // the environment's copy of the secrets with it
    logging::init(&loaded.config.log, Output::Stdout)?;
    let open_file_limit = process::raise_open_file_limit();
    let app = App::start(loaded).await?;
    for problem in unprotected {
        warn!(problem = error_chain::one_line(&problem), "the process could not be protected");
    }
    info!(limit = open_file_limit.current, initial = open_file_limit.initial, "the limit of open files");
    run_until_stopped(app, &mut signals).await
}

/// Runs `app` to its end. A cut-off drain is a failure, which the log has told.
pub(super) async fn run_until_stopped(app: App, signals: &mut StopSignals) -> anyhow::Result<()> {
    let signals = tokio::sync::Mutex::new(signals);
    let next_signal = || async { signals.lock().await.next().await };
    match app.run(next_signal(), next_signal()).await? {
        ShutdownOutcome::Drained => Ok(()),
        ShutdownOutcome::CutOff => bail!("requests were cut off before they were served to their end"),
    }
}
