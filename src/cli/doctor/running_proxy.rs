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
    /// What it knows of token requests that a request of this command could add to.
    pub(super) guard: Guard,
}

/// What a running proxy knows of token requests with the credentials of its source.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// Nothing: none runs.
    Absent,
    /// Nothing speaks against one more.
    Clear,
    /// It makes none: why, and what to do.
    Refuses(String, String),
    /// It makes one now, or what it knows could not be learned: why.
    Unknown(&'static str),
}

/// Asks the proxy at the addresses of `inputs`. Returns what it says, and how long that took.
pub(super) async fn query(inputs: &Inputs) -> (RunningProxy, Duration) {
    let begun = Instant::now();
    let proxy = ask(inputs).await.unwrap_or_else(|(finding, guard)| RunningProxy { finding, guard });
    (proxy, begun.elapsed())
}

/// The proxy, or what there is in its place.
async fn ask(inputs: &Inputs) -> Result<RunningProxy, (Finding, Guard)> {
    const UNKNOWN: Guard =
        Guard::Unknown("it is not known whether a running proxy makes token requests with these credentials");
    let addresses = config::operator_endpoints(inputs).map(|endpoints| endpoints.ops).unwrap_or_default();
    let endpoints: Vec<Endpoint> = addresses.iter().filter_map(Target::of).map(Endpoint::open).collect();
    if endpoints.is_empty() {
        // With such a configuration each proxy is one of its own.
        return Err((Finding::skipped("not known: listen.ops leaves the port to the system"), Guard::Absent));
    }
    let request = LocalRequest::new(Method::GET, "/readyz?verbose");
    let response = match local_client::send(&endpoints, &request, RESPONSE_TIMEOUT).await {
        Ok(response) => response,
        Err(LocalError::Unreachable(target, _)) => {
            return Err((Finding::skipped(format!("not running: nothing listens at {target}")), Guard::Absent));
        }
        Err(error @ LocalError::Slow(..)) => {
            let remedy = "look at its log; if `finicity-proxy health live` does not answer either, restart it";
            return Err((Finding::failed(error_chain::one_line(&error), remedy), UNKNOWN));
        }
        Err(error @ LocalError::Malformed(..)) => {
            return Err((another_program(&error_chain::one_line(&error)), UNKNOWN));
        }
    };
    let target = &response.target;
    if !response.text.starts_with("ready: ") {
        return Err((another_program(&format!("{target} answers {}", response.head.status.as_u16())), UNKNOWN));
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
    let guard = guard(&value);
    let version = status.map(|status| {
        let uptime = format_duration(Duration::from_secs(status.uptime_s));
        format!(", version {}, up for {uptime}", status.version)
    });
    let token = format!("token {}, usable for {}", value("token state"), value("token usable for"));
    let detail = format!("at {}{}: {token}", response.target, version.unwrap_or_default());
    let finding = match &guard {
        // It may be ready still, with the token that it has.
        Guard::Refuses(reason, remedy) => {
            Finding::failed(format!("{detail}; no token request is made: {reason}"), remedy)
        }
        _ if response.head.status == StatusCode::OK => Finding::ok(format!("ready {detail}")),
        _ if value("draining") == "true" => {
            Finding::failed(format!("not ready, since it shuts down, {detail}"), "see in its log why it was stopped")
        }
        _ => {
            let remedy = "correct the first step above that failed; the proxy tries again by itself";
            let error = value("last token error");
            Finding::failed(format!("not ready {detail}; last token error: {error}"), remedy)
        }
    };
    RunningProxy { finding, guard }
}

/// What the lines of `/readyz?verbose`, each of which `value` gives by its name, say of token requests.
fn guard<'a>(value: &impl Fn(&str) -> &'a str) -> Guard {
    const RESET: &str = "correct the credentials, or run `finicity-proxy lockout reset` if they are right after all";
    const CONFIRMED: &str =
        "let the vendor confirm the credentials, then run `finicity-proxy lockout reset --override-budget`";
    let next = value("next token request");
    if let Some((reason, remedy)) = next.strip_prefix("never: ").and_then(|text| text.split_once("; ")) {
        return Guard::Refuses(reason.to_owned(), remedy.to_owned());
    }
    let refuses = |reason: &str, remedy: &str| Guard::Refuses(reason.to_owned(), remedy.to_owned());
    // A token that is still usable hides none of these.
    let is_true = |name: &str| value(name) == "true";
    if is_true("lock-out budget spent") {
        return refuses("too many credentials of this id were rejected", CONFIRMED);
    }
    if is_true("credentials latched") {
        return refuses("the credentials were rejected", RESET);
    }
    if is_true("token requests held") || next.starts_with("held") {
        return refuses("too many token requests have an unknown outcome", CONFIRMED);
    }
    match value("new credentials") {
        "rejected" => refuses("the new credentials were rejected, and the old ones are in use", RESET),
        "held" => refuses("too many token requests with the new credentials have an unknown outcome", CONFIRMED),
        "waiting" => Guard::Unknown("a running proxy is about to try the new credentials"),
        _ if next == "in progress" => Guard::Unknown("a running proxy makes a token request now"),
        _ => Guard::Clear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guard where these lines are different from those of a proxy that is in order.
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
    fn whatever_forbids_a_token_request_is_seen_while_the_old_token_is_usable() {
        assert_eq!(guard_of(&[]), Guard::Clear);
        let never = guard_of(&[("next token request", "never: the credentials were rejected; correct them")]);
        assert_eq!(never, Guard::Refuses("the credentials were rejected".to_owned(), "correct them".to_owned()));
        for line in [
            ("next token request", "held, one more in 80000 s; or verify the credentials"),
            ("token requests held", "true"),
            ("credentials latched", "true"),
            ("lock-out budget spent", "true"),
            ("new credentials", "rejected"),
            ("new credentials", "held"),
        ] {
            assert!(matches!(guard_of(&[line]), Guard::Refuses(..)), "{line:?}");
        }
        for line in [("new credentials", "waiting"), ("next token request", "in progress")] {
            assert!(matches!(guard_of(&[line]), Guard::Unknown(_)), "{line:?}");
        }
    }
}
