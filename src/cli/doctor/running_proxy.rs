//! The step that asks a running proxy with this configuration: its readiness and its status. That none runs is no failure.

use std::time::Duration;

use http::{Method, StatusCode};
use humantime::format_duration;
use tokio::time::{Instant, timeout};

use super::report::Finding;
use crate::{
    admin::Status,
    cli::{
        admin::{Access, admin_target},
        local_client::{self, Endpoint, LocalError, LocalRequest, LocalResponse, Target},
    },
    config::{self, Inputs},
    error_chain,
};

/// The time for a response. A proxy that takes longer hangs, or its machine does.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a running proxy says.
#[derive(Debug)]
pub(super) struct RunningProxy {
    pub(super) finding: Finding,
    /// Why it makes no token request until an operator acts, and what to do, where that is so.
    pub(super) refusal: Option<(String, String)>,
}

/// Asks the proxy at the addresses of `inputs`. Returns what it says, and how long that took.
pub(super) async fn query(inputs: &Inputs) -> (RunningProxy, Duration) {
    let begun = Instant::now();
    let proxy = ask(inputs).await.unwrap_or_else(|finding| RunningProxy { finding, refusal: None });
    (proxy, begun.elapsed())
}

/// The proxy, or what there is in its place.
async fn ask(inputs: &Inputs) -> Result<RunningProxy, Finding> {
    let addresses = config::operator_endpoints(inputs).map(|endpoints| endpoints.ops).unwrap_or_default();
    let endpoints: Vec<Endpoint> = addresses.iter().filter_map(Target::of).map(Endpoint::open).collect();
    if endpoints.is_empty() {
        return Err(Finding::skipped("not known: listen.ops leaves the port to the system"));
    }
    let request = LocalRequest::new(Method::GET, "/readyz?verbose");
    let response = match local_client::send(&endpoints, &request, RESPONSE_TIMEOUT).await {
        Ok(response) => response,
        Err(LocalError::Unreachable(target, _)) => {
            return Err(Finding::skipped(format!("not running: nothing listens at {target}")));
        }
        Err(error @ LocalError::Slow(..)) => {
            let remedy = "look at its log; if `finicity-proxy health live` does not answer either, restart it";
            return Err(Finding::failed(error_chain::one_line(&error), remedy));
        }
        Err(error @ LocalError::Malformed(..)) => return Err(another_program(&error_chain::one_line(&error))),
    };
    let target = &response.target;
    if !response.text.starts_with("ready: ") {
        return Err(another_program(&format!("{target} answers {}", response.head.status.as_u16())));
    }
    let status = status(inputs).await;
    Ok(judge(&response, status.as_ref()))
}

/// Something else listens where the proxy does by this configuration.
fn another_program(what: &str) -> Finding {
    let remedy = "see which program listens there, and give one of the two another address (listen.ops)";
    Finding::warning(format!("{what}, so it is not this proxy"), remedy)
}

/// The status, where the administrator's socket or port gives it.
async fn status(inputs: &Inputs) -> Option<Status> {
    let target = admin_target(inputs.clone(), Access::Read).ok()?;
    let (_, status) = timeout(RESPONSE_TIMEOUT, target.status()).await.ok()?.ok()?;
    Some(status)
}

/// What `response` to `/readyz?verbose` and `status` say.
fn judge(response: &LocalResponse, status: Option<&Status>) -> RunningProxy {
    let value = |name: &str| {
        response.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
    };
    let refused = value("next token call").strip_prefix("never: ").and_then(|text| text.split_once("; "));
    let refusal = refused.map(|(reason, remedy)| (reason.to_owned(), remedy.to_owned()));
    let version = status.map(|status| {
        let uptime = format_duration(Duration::from_secs(status.uptime_s));
        format!(", version {}, up for {uptime}", status.version)
    });
    let token = format!("token {}, usable for {}", value("token state"), value("token usable for"));
    let detail = format!("at {}{}: {token}", response.target, version.unwrap_or_default());
    let finding = match &refusal {
        // It may be ready still, with the token that it has.
        Some((reason, remedy)) => Finding::failed(format!("{detail}; no token request is made: {reason}"), remedy),
        None if response.head.status == StatusCode::OK => Finding::ok(format!("ready {detail}")),
        None if value("draining") == "true" => {
            Finding::failed(format!("not ready, since it shuts down, {detail}"), "see in its log why it was stopped")
        }
        None => {
            let remedy = "correct the first step above that failed; the proxy tries again by itself";
            let error = value("last token error");
            Finding::failed(format!("not ready {detail}; last token error: {error}"), remedy)
        }
    };
    RunningProxy { finding, refusal }
}
