//! `health`: probes the running proxy, for images without curl.

use std::{fmt, time::Duration};

use anyhow::bail;
use clap::{Args, ValueEnum};
use http::Method;

use super::{
    local_client::{self, Endpoint, LocalError, LocalRequest, LocalResponse, Target},
    output::print,
};
use crate::config::{self, Inputs};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    probe: ProbeArgs,
    /// Maximum time for the response
    #[arg(long, default_value = "2s", value_parser = local_client::time)]
    timeout: Duration,
}

/// Which probe to send, and where to.
#[derive(Debug, Args)]
pub(super) struct ProbeArgs {
    /// Probe to send
    #[arg(value_enum, default_value_t = Probe::Ready)]
    probe: Probe,
    /// URL of the ops listener, such as http://127.0.0.1:3465, if it differs from listen.ops
    #[arg(long, value_parser = Target::from_url)]
    url: Option<Target>,
}

/// The probes.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Probe {
    /// Live: the event loops are responsive
    Live,
    /// Ready for traffic: a token was obtained and the proxy is not shutting down
    Ready,
    /// Started: the startup has succeeded
    Startup,
}

impl Probe {
    fn path(self) -> &'static str {
        match self {
            Self::Live => "/livez",
            Self::Ready => "/readyz",
            Self::Startup => "/startupz",
        }
    }
}

/// A probe, and the addresses to send it to.
#[derive(Debug)]
pub(super) struct ProbeRequest {
    probe: Probe,
    endpoints: Vec<Endpoint>,
}

impl ProbeArgs {
    /// Finds the address of the ops listener.
    ///
    /// # Errors
    ///
    /// When neither `--url` nor the configuration names a port.
    pub(super) fn resolve(self, inputs: &Inputs) -> anyhow::Result<ProbeRequest> {
        let targets: Vec<Target> = match self.url {
            Some(url) => vec![url],
            None => config::operator_endpoints(inputs)?.ops.iter().filter_map(Target::of).collect(),
        };
        if targets.is_empty() {
            bail!("listen.ops has no fixed port: pass the URL of the ops listener with --url");
        }
        Ok(ProbeRequest { probe: self.probe, endpoints: targets.into_iter().map(Endpoint::open).collect() })
    }
}

impl ProbeRequest {
    /// Sends the request. `limit` is the maximum time for the complete response.
    ///
    /// # Errors
    ///
    /// When there is no response.
    pub(super) async fn send(&self, limit: Duration) -> Result<LocalResponse, LocalError> {
        let request = LocalRequest::new(Method::GET, self.probe.path());
        local_client::send(&self.endpoints, &request, limit).await
    }
}

impl fmt::Display for ProbeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.probe.path())
    }
}

/// Sends the request, prints the response, and fails when the probe does not pass.
pub(super) async fn run(inputs: Inputs, arguments: Arguments) -> anyhow::Result<()> {
    let request = arguments.probe.resolve(&inputs)?;
    drop(inputs); // the environment's copy of the secrets with it
    let response = request.send(arguments.timeout).await?;
    print(&response.text);
    if !response.head.status.is_success() {
        bail!("{request} returned {}", response.head.status.as_u16());
    }
    Ok(())
}
