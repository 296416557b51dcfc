//! `health`: a probe of the running proxy, for images that have no other program to ask with.

use std::{fmt, time::Duration};

use anyhow::bail;
use clap::{Args, ValueEnum};
use http::Method;

use super::{
    local_client::{self, Endpoint, LocalError, LocalRequest, LocalResponse, Target},
    say,
};
use crate::config::{self, Inputs};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    asked: Asked,
    /// The time for an answer
    #[arg(long, default_value = "2s", value_parser = local_client::time)]
    timeout: Duration,
}

/// Which probe, and where.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// What to ask for
    #[arg(value_enum, default_value_t = Probe::Ready)]
    probe: Probe,
    /// Where the ops listener is, such as http://127.0.0.1:3465, if it is not where listen.ops says
    #[arg(long, value_parser = Target::from_url)]
    url: Option<Target>,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Probe {
    /// Whether the event loops answer
    Live,
    /// Whether callers should come: there was a token, and the proxy does not end
    Ready,
    /// Whether the start has succeeded
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

/// A probe of a proxy whose address is known.
#[derive(Debug)]
pub(super) struct Question {
    probe: Probe,
    endpoints: Vec<Endpoint>,
}

impl Asked {
    /// Finds out where to ask.
    ///
    /// # Errors
    ///
    /// When the configuration does not say.
    pub(super) fn question(self, inputs: &Inputs) -> anyhow::Result<Question> {
        let targets: Vec<Target> = match self.url {
            Some(url) => vec![url],
            None => config::control(inputs)?.ops.iter().filter_map(Target::of).collect(),
        };
        if targets.is_empty() {
            bail!("listen.ops leaves the port to the system: say with --url where the ops listener is");
        }
        Ok(Question { probe: self.probe, endpoints: targets.into_iter().map(Endpoint::open).collect() })
    }
}

impl Question {
    /// Asks once, for `limit` at most.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub(super) async fn ask(&self, limit: Duration) -> Result<LocalResponse, LocalError> {
        let request = LocalRequest::new(Method::GET, self.probe.path());
        local_client::send(&self.endpoints, &request, limit).await
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.probe.path())
    }
}

/// Asks, prints what the probe says, and fails when it does not pass.
pub(super) async fn run(inputs: Inputs, arguments: Arguments) -> anyhow::Result<()> {
    let question = arguments.asked.question(&inputs)?;
    drop(inputs); // the environment's copy of the secrets with it
    let answer = question.ask(arguments.timeout).await?;
    say(&answer.text);
    if !answer.head.status.is_success() {
        bail!("{question} answers {}", answer.head.status.as_u16());
    }
    Ok(())
}
