//! `shutdown`: has the running proxy end, for Jobs whose pod is done only when all its containers are.

use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use http::{HeaderValue, Method, StatusCode};
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use super::{
    call::{self, Answer, Call, Place},
    say,
};
use crate::{
    config::{self, Inputs},
    credentials,
    secret::Secret,
};

/// The time for the answer. What follows it takes longer.
const ANSWER: Duration = Duration::from_secs(5);

/// How often to look whether the proxy has ended.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Wait until the proxy has served its requests and ended
    #[arg(long)]
    wait: bool,
    /// How long to wait for that
    #[arg(long, default_value = "60s", value_parser = call::time, requires = "wait")]
    timeout: Duration,
}

/// Tells the proxy to end: at the socket, where one is configured, and else at the admin port.
pub(super) async fn run(inputs: Inputs, arguments: Arguments) -> anyhow::Result<()> {
    let control = config::control(&inputs)?;
    let admin_token = credentials::admin_token(inputs.environment.variables())?;
    drop(inputs); // the environment's copy of the secrets with it
    // Whoever listens there may repeat it in an answer, which is shown.
    config::keep_secret_token(admin_token.as_ref());
    let (places, authorization) = way_in(control, admin_token.as_ref())?;
    drop(admin_token);
    let call = Call { method: Method::POST, target: "/api/shutdown", authorization };
    let answer = call::call(&places, &call, ANSWER).await?;
    said(&answer)?;
    say(&answer.text);
    if arguments.wait {
        ended(&places, arguments.timeout).await?;
        say("it has ended");
    }
    Ok(())
}

/// Where to go, and what to show there.
fn way_in(
    control: config::Control,
    admin_token: Option<&Secret<String>>,
) -> anyhow::Result<(Vec<Place>, Option<HeaderValue>)> {
    if let Some(socket) = control.admin_socket {
        return Ok((vec![Place::Unix(socket)], None));
    }
    let Some(token) = admin_token else {
        bail!(
            "neither admin.socket nor FINICITY_ADMIN_TOKEN (or FINICITY_ADMIN_TOKEN_FILE) is set: the proxy is told to end over \
             the one, or with the other; set the same for the proxy and for this command"
        );
    };
    let places: Vec<Place> = control.admin.iter().filter_map(Place::of).collect();
    if places.is_empty() {
        bail!("listen.admin leaves the port to the system: name it, or use admin.socket");
    }
    let bearer = Zeroizing::new([b"Bearer ", token.expose().as_bytes()].concat());
    let bearer = credentials::sensitive(bearer).ok_or_else(|| anyhow!("the admin token is not legal in a header"))?;
    Ok((places, Some(bearer)))
}

/// What the answer means.
fn said(answer: &Answer) -> anyhow::Result<()> {
    match answer.status {
        status if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED => {
            bail!("the proxy has another admin token than this command: give both the same FINICITY_ADMIN_TOKEN")
        }
        StatusCode::FORBIDDEN => bail!("the proxy refuses: {}", answer.text),
        status => bail!("the proxy answers {}: {}", status.as_u16(), answer.text),
    }
}

/// Waits until nobody listens at any of `places`. The admin listener is one of the last that go.
async fn ended(places: &[Place], limit: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + limit;
    loop {
        let mut is_there = false;
        for place in places {
            is_there |= timeout(ANSWER, call::is_there(place)).await.unwrap_or(true);
        }
        if !is_there {
            return Ok(());
        }
        if Instant::now() + PAUSE > end {
            bail!("the proxy has not ended within {}", humantime::format_duration(limit));
        }
        sleep(PAUSE).await;
    }
}
