//! The step that makes one token request, like `credentials test`, unless there is an obstacle.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    machine::{StateCheck, has_state},
    network::Reached,
    report::{Finding, Report, StepName},
    running_proxy::{Guard, RunningProxy},
};
use crate::{
    cli::{
        output::eprint,
        token_attempt::{NoToken, TokenAttempt},
    },
    config::Config,
    credentials::{Credentials, lockout::Lockout},
    dns::Resolver,
    error_chain, tls,
    token::{TokenEndpoint, UNPROVEN_TIMEOUT},
};

/// The maximum time until the lock-out guard permits the request. The guard may require a probe of the endpoint first, which takes up to
/// 10 s.
const CLEARANCE_TIMEOUT: Duration = Duration::from_secs(12);

/// The time that a token request needs, including one second for the state directory. With less time left, none is started, because one
/// that is cut off counts as a rejection.
const NEEDED_TIME: Duration = UNPROVEN_TIMEOUT.saturating_add(CLEARANCE_TIMEOUT).saturating_add(Duration::from_secs(1));

/// The remedy when only the reason says what to do.
const NAMED: &str = "fix the cause named above";

/// The results of earlier steps that the request depends on.
pub(super) struct Needs<'a> {
    pub(super) credentials: Option<Credentials>,
    pub(super) state: Option<StateCheck>,
    pub(super) responded: Reached,
    pub(super) proxy: &'a RunningProxy,
}

/// Adds the step. The lock-out guard is queried even if no request will be made.
pub(super) async fn examine(report: &mut Report, config: Config, needs: Needs<'_>, may_request: bool) {
    let Needs { credentials, state, responded, proxy } = needs;
    let missing = |step: StepName| Finding::skipped(format!("requires {}", step.as_str()));
    let Some(credentials) = credentials else {
        return report.add(StepName::TokenRequest, missing(StepName::CredentialSource));
    };
    let Some(state) = state else {
        return report.add(StepName::TokenRequest, missing(StepName::StateDirectory));
    };
    let remaining = report.remaining();
    let work = async {
        let obstacle = obstacle(&responded, state, proxy, may_request, remaining);
        let is_on_disk = config.state_dir.as_deref().is_some_and(has_state);
        // Without a state on disk there are no records to query, so none is created.
        let mut attempt = match (obstacle, is_on_disk) {
            (Some(finding), false) => return (finding, None::<()>),
            (obstacle, _) => match prepare(config, credentials) {
                Err(error) => return (Finding::failed(format!("not tried: {error}"), NAMED), None),
                Ok(attempt) => match (attempt.outlook(), obstacle) {
                    (Err(forbidden), _) => return (no_token(forbidden, state), None),
                    (Ok(()), Some(finding)) => return (finding, None),
                    (Ok(()), None) => attempt,
                },
            },
        };
        eprint(format_args!("making one token request to {}, like `credentials test`", attempt.host()));
        let outcome = match timeout(CLEARANCE_TIMEOUT, attempt.clearance()).await {
            Ok(Ok(permit)) => attempt.send(permit).await,
            Ok(Err(forbidden)) => Err(forbidden),
            // `clearance` obtains the permit last, so a timeout loses none.
            Err(_) => Err(NoToken::later("not tried: the token endpoint responds too slowly", "run this again")),
        };
        match outcome {
            Ok(()) => (Finding::ok(format!("{} issued a token, which is not used", attempt.host())), None),
            Err(no_token_obtained) => (no_token(no_token_obtained, state), None),
        }
    };
    report.step(StepName::TokenRequest, work).await;
}

/// Why no request is made, for reasons other than the lock-out guard's records.
fn obstacle(
    responded: &Reached,
    state: StateCheck,
    proxy: &RunningProxy,
    may_request: bool,
    remaining: Duration,
) -> Option<Finding> {
    // Without records on disk, only the running proxy knows about earlier attempts.
    if state == StateCheck::Memory {
        match &proxy.guard {
            Guard::Forbids(reason, remedy) => {
                let detail = format!("not tried: a running proxy has suspended token requests, because {reason}");
                return Some(Finding::failed(detail, remedy));
            }
            Guard::Unknown(reason) => {
                let remedy = "set auth.state_dir to keep records of attempts, or run this again";
                return Some(Finding::skipped(format!("not tried: {reason}")).with_remedy(remedy));
            }
            Guard::Absent | Guard::Clear => {}
        }
    }
    match responded {
        Reached::Not => return Some(Finding::skipped("requires a connection to the upstream")),
        Reached::Silent(reason) => {
            let remedy = "check what listens on host and port of upstream.url, any gateway between this machine and the vendor, and the \
                          vendor's status page";
            return Some(Finding::failed(format!("not tried: {reason}"), remedy));
        }
        Reached::Responded => {}
    }
    if !may_request {
        return Some(Finding::skipped("disabled by --no-token-request"));
    }
    if let StateCheck::OtherUser(owner) = state {
        let remedy = format!("run this as uid {owner}");
        let reason = "not tried: root would own the record of the attempt, and the proxy could not read it";
        return Some(Finding::skipped(reason).with_remedy(remedy));
    }
    (remaining < NEEDED_TIME).then(|| {
        let finding = Finding::skipped(
            "not tried: the earlier steps left too little time, and an attempt that is cut off counts as a rejection",
        );
        finding.with_remedy("run `finicity-proxy credentials test`")
    })
}

/// Prepares an attempt with `credentials`. Creates the state directory if it does not exist.
fn prepare(config: Config, credentials: Credentials) -> Result<TokenAttempt, String> {
    let (_, trust_store) = tls::trust_store(config.tls).map_err(|error| error_chain::one_line(&error))?;
    let endpoint = TokenEndpoint::new(config.token, Resolver::new(), trust_store);
    let endpoint = endpoint.map_err(|error| error_chain::one_line(&error))?;
    let lockout = Lockout::open(config.state_dir.as_deref()).map_err(|error| error_chain::one_line(&error))?;
    Ok(TokenAttempt::new(endpoint, lockout, credentials))
}

/// The finding for a request that obtained no token, or was not made.
fn no_token(no_token: NoToken, state: StateCheck) -> Finding {
    let NoToken { is_temporary, reason, remedy, attempts_left } = no_token;
    if is_temporary {
        return Finding::skipped(reason).with_remedy(remedy);
    }
    let detail = if attempts_left.is_empty() { reason } else { format!("{reason}. {attempts_left}") };
    let warning = match state {
        StateCheck::Memory => {
            "; do not run this again with the same credentials: without auth.state_dir, each run makes another attempt"
        }
        StateCheck::Directory | StateCheck::OtherUser(_) => "",
    };
    let remedy = if remedy.is_empty() { NAMED } else { &remedy };
    Finding::failed(detail, format!("{remedy}{warning}"))
}
