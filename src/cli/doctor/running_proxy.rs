//! The step that queries the readiness and status of a running proxy with this configuration. It is not a failure if none runs.

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

/// The maximum time for a response. A proxy that takes longer hangs, or its machine does.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The state of a running proxy.
#[derive(Debug)]
pub(super) struct RunningProxy {
    pub(super) finding: Finding,
    /// Whether its lock-out guard permits a token request by this command.
    pub(super) guard: Guard,
}

/// The lock-out guard of a running proxy, which applies to the credentials of its source.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// No proxy runs.
    Absent,
    /// The guard permits a token request.
    Clear,
    /// The guard forbids token requests. Holds the reason and the remedy.
    Forbids(String, String),
    /// The proxy is making a token request, or its guard could not be queried. Holds the reason.
    Unknown(&'static str),
}

/// Queries the proxy at the addresses of `inputs`. Returns its state, and how long the query took.
pub(super) async fn query(inputs: &Inputs) -> (RunningProxy, Duration) {
    let begun = Instant::now();
    let proxy = try_query(inputs).await.unwrap_or_else(|(finding, guard)| RunningProxy { finding, guard });
    (proxy, begun.elapsed())
}

/// The state of the proxy, or the finding and the guard if none responds as one.
async fn try_query(inputs: &Inputs) -> Result<RunningProxy, (Finding, Guard)> {
    const UNKNOWN: Guard =
        Guard::Unknown("it is unknown whether a running proxy makes token requests with these credentials");
    let addresses = config::operator_endpoints(inputs).map(|endpoints| endpoints.ops).unwrap_or_default();
    let endpoints: Vec<Endpoint> = addresses.iter().filter_map(Target::of).map(Endpoint::open).collect();
    if endpoints.is_empty() {
        // With such a configuration, no running proxy can be found, and none shares a port with another one.
        return Err((Finding::skipped("unknown: listen.ops has no fixed port"), Guard::Absent));
    }
    let request = LocalRequest::new(Method::GET, "/readyz?verbose");
    let response = match local_client::send(&endpoints, &request, RESPONSE_TIMEOUT).await {
        Ok(response) => response,
        Err(LocalError::Unreachable(target, _)) => {
            return Err((Finding::skipped(format!("not running: nothing listens on {target}")), Guard::Absent));
        }
        Err(error @ LocalError::Slow(..)) => {
            let remedy = "look at its log; if `finicity-proxy health live` gets no response either, restart it";
            return Err((Finding::failed(error_chain::one_line(&error), remedy), UNKNOWN));
        }
        Err(error @ LocalError::Malformed(..)) => {
            return Err((another_program(&error_chain::one_line(&error)), UNKNOWN));
        }
    };
    let target = &response.target;
    if !response.text.starts_with("ready: ") {
        return Err((another_program(&format!("{target} returned {}", response.head.status.as_u16())), UNKNOWN));
    }
    let status = status(inputs).await;
    Ok(read_state(&response, status.as_ref()))
}

/// The finding when another program listens on the configured address of the proxy.
fn another_program(what: &str) -> Finding {
    let remedy = "find out which program listens there, and give one of the two another address (listen.ops)";
    Finding::warning(format!("{what}, so it is not this proxy"), remedy)
}

/// The status, if the admin socket or port returns it.
async fn status(inputs: &Inputs) -> Option<Status> {
    let target = admin_target(inputs.clone(), Access::Read).ok()?;
    let (_, status) = timeout(RESPONSE_TIMEOUT, target.status()).await.ok()?.ok()?;
    Some(status)
}

/// The state by `response`, which is that of `/readyz?verbose`, and by `status`.
fn read_state(response: &LocalResponse, status: Option<&Status>) -> RunningProxy {
    let value = |name: &str| {
        response.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
    };
    let guard = guard(&value);
    let version = status.map(|status| {
        let uptime = format_duration(Duration::from_secs(status.uptime_s));
        format!(", version {}, up for {uptime}", status.version)
    });
    let token = format!("token {}, usable for {}", value("token state"), value("token usable for"));
    let detail = format!("at {}{}: {token}", response.target, version.unwrap_or_default());
    let finding = match &guard {
        // The proxy may still be ready, with the token that it has.
        Guard::Forbids(reason, remedy) => {
            Finding::failed(format!("{detail}; token requests suspended: {reason}"), remedy)
        }
        _ if response.head.status == StatusCode::OK => Finding::ok(format!("ready {detail}")),
        _ if value("draining") == "true" => {
            Finding::failed(format!("not ready (shutting down) {detail}"), "check its log to see why it was stopped")
        }
        _ => {
            let remedy = "fix the first failed step above; the proxy retries by itself";
            let error = value("last token error");
            Finding::failed(format!("not ready {detail}; last token error: {error}"), remedy)
        }
    };
    RunningProxy { finding, guard }
}

/// The guard by the lines of `/readyz?verbose`. `value` returns the value of the line with a given name.
fn guard<'a>(value: &impl Fn(&str) -> &'a str) -> Guard {
    const RESET: &str = "correct the credentials; if they are correct after all, run `finicity-proxy lockout reset`";
    const CONFIRMED: &str =
        "have the vendor confirm the credentials, then run `finicity-proxy lockout reset --override-budget`";
    let next = value("next token request");
    if let Some((reason, remedy)) = next.strip_prefix("never: ").and_then(|text| text.split_once("; ")) {
        return Guard::Forbids(reason.to_owned(), remedy.to_owned());
    }
    let forbids = |reason: &str, remedy: &str| Guard::Forbids(reason.to_owned(), remedy.to_owned());
    // These lines are present even while a token is usable.
    let is_true = |name: &str| value(name) == "true";
    if is_true("lock-out budget spent") {
        return forbids("too many credentials for this id were rejected", CONFIRMED);
    }
    if is_true("credentials latched") {
        return forbids("the credentials were rejected", RESET);
    }
    if is_true("token requests held") || next.starts_with("held") {
        return forbids("too many token requests have an unknown outcome", CONFIRMED);
    }
    match value("new credentials") {
        "rejected" => forbids("the new credentials were rejected, and the old ones are in use", RESET),
        "held" => forbids("too many token requests with the new credentials have an unknown outcome", CONFIRMED),
        "waiting" => Guard::Unknown("a running proxy is about to try the new credentials"),
        _ if next == "in progress" => Guard::Unknown("a running proxy is making a token request"),
        _ => Guard::Clear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guard when these `lines` replace those of a healthy proxy.
    fn guard_of(lines: &[(&str, &str)]) -> Guard {
        let usual = [
            ("next token request", "in 2400 s"),
            ("credentials latched", "false"),
            ("lock-out budget spent", "false"),
            ("token requests held", "false"),
            ("new credentials", "none"),
        ];
        guard(&|name| lines.iter().chain(&usual).find(|(line, _)| *line == name).map_or("", |(_, value)| *value))
    }

    #[test]
    fn a_forbidden_token_request_is_seen_while_a_token_is_usable() {
        assert_eq!(guard_of(&[]), Guard::Clear);
        let never = guard_of(&[("next token request", "never: the credentials were rejected; correct them")]);
        assert_eq!(never, Guard::Forbids("the credentials were rejected".to_owned(), "correct them".to_owned()));
        for line in [
            ("next token request", "held, one more in 80000 s; or verify the credentials"),
            ("token requests held", "true"),
            ("credentials latched", "true"),
            ("lock-out budget spent", "true"),
            ("new credentials", "rejected"),
            ("new credentials", "held"),
        ] {
            assert!(matches!(guard_of(&[line]), Guard::Forbids(..)), "{line:?}");
        }
        for line in [("new credentials", "waiting"), ("next token request", "in progress")] {
            assert!(matches!(guard_of(&[line]), Guard::Unknown(_)), "{line:?}");
        }
    }
}
