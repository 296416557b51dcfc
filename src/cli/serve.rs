//! `serve`: runs the proxy.

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

/// Serves until a stop signal, then drains. A second signal cuts the drain short. `unprotected` lists the hardening steps that failed.
pub(super) async fn run(inputs: Inputs, unprotected: Vec<HardeningError>) -> anyhow::Result<()> {
    // First of all, because a startup may take a while: an uncaught SIGHUP would end the process, and the kernel does not deliver an
    // uncaught SIGTERM to process 1 of a container.
    let mut signals = StopSignals::catch()?;
    let _hangups = signal::hangups()?;
    let loaded = app::load(&inputs).await?;
    drop(inputs); // the environment's copy of the secrets with it
    logging::init(&loaded.config.log, Output::Stdout)?;
    let open_file_limit = process::raise_open_file_limit();
    let app = App::start(loaded).await?;
    for problem in unprotected {
        warn!(problem = error_chain::one_line(&problem), "cannot harden the process");
    }
    info!(limit = open_file_limit.current, initial = open_file_limit.initial, "open file limit");
    run_until_stopped(app, &mut signals).await
}

/// Runs `app` until it has shut down. A drain that was cut off is an error; the log has the details.
pub(super) async fn run_until_stopped(app: App, signals: &mut StopSignals) -> anyhow::Result<()> {
    let signals = tokio::sync::Mutex::new(signals);
    let next_signal = || async { signals.lock().await.next().await };
    match app.run(next_signal(), next_signal()).await? {
        ShutdownOutcome::Drained => Ok(()),
        ShutdownOutcome::CutOff => bail!("shutdown: in-flight requests were aborted"),
    }
}
