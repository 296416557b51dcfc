//! The step that makes one token request, as `credentials test` does, unless something speaks against it.

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

/// The maximum time until the lock-out guard permits the request: it may ask for a probe of the endpoint first, which takes 10 s.
const CLEARANCE_TIMEOUT: Duration = Duration::from_secs(12);

/// The time that a token request needs. One that is cut off would count as a rejection, so it is not begun with less. The last second is for
/// the state directory.
const NEEDED_TIME: Duration = UNPROVEN_TIMEOUT.saturating_add(CLEARANCE_TIMEOUT).saturating_add(Duration::from_secs(1));

/// The remedy where the reason has it.
const NAMED: &str = "correct what the reason names";

/// What the request needs of the steps before it.
pub(super) struct Needs<'a> {
    pub(super) credentials: Option<Credentials>,
    pub(super) state: Option<StateCheck>,
    pub(super) responded: Reached,
    pub(super) proxy: &'a RunningProxy,
}

/// Adds the step. The lock-out guard is asked even where no request would be made.
pub(super) async fn examine(report: &mut Report, config: Config, needs: Needs<'_>, may_request: bool) {
    let Needs { credentials, state, responded, proxy } = needs;
    let missing = |step: StepName| Finding::skipped(format!("needs {}", step.as_str()));
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
        // A state that would only be created is that of a process that has made no request.
        let mut attempt = match (obstacle, is_on_disk) {
            (Some(finding), false) => return (finding, None::<()>),
            (obstacle, _) => match prepare(config, credentials) {
                Err(error) => return (Finding::failed(format!("not tried: {error}"), NAMED), None),
                Ok(attempt) => match (attempt.outlook(), obstacle) {
                    (Err(refused), _) => return (no_token(refused, state), None),
                    (Ok(()), Some(finding)) => return (finding, None),
                    (Ok(()), None) => attempt,
                },
            },
        };
        eprint(format_args!("making one token request to {}, as `credentials test` does", attempt.host()));
        let outcome = match timeout(CLEARANCE_TIMEOUT, attempt.clearance()).await {
            Ok(Ok(permit)) => attempt.send(permit).await,
            Ok(Err(refused)) => Err(refused),
            // The permit comes at the end, so none is lost here.
            Err(_) => Err(NoToken::later("not tried: the token endpoint responds too slowly", "run this again")),
        };
        match outcome {
            Ok(()) => (Finding::ok(format!("{} issued a token, which is not used", attempt.host())), None),
            Err(no_token_obtained) => (no_token(no_token_obtained, state), None),
        }
    };
    report.step(StepName::TokenRequest, work).await;
}

/// Why no request is made, apart from the lock-out guard.
fn obstacle(
    responded: &Reached,
    state: StateCheck,
    proxy: &RunningProxy,
    may_request: bool,
    remaining: Duration,
) -> Option<Finding> {
    // Without records, the running proxy is the only one that knows.
    if state == StateCheck::Memory {
        match &proxy.guard {
            Guard::Refuses(reason, remedy) => {
                return Some(Finding::failed(format!("not tried: a running proxy makes none, since {reason}"), remedy));
            }
            Guard::Unknown(reason) => {
                let remedy = "set auth.state_dir, so that what was tried is on record, or run this again";
                return Some(Finding::skipped(format!("not tried: {reason}")).with_remedy(remedy));
            }
            Guard::Absent | Guard::Clear => {}
        }
    }
    match responded {
        Reached::Not => return Some(Finding::skipped("needs a connection to the upstream")),
        Reached::Silent(reason) => {
            let remedy = "check what listens at host and port of upstream.url, what stands between this machine and the vendor, and the \
                          vendor's status page";
            return Some(Finding::failed(format!("not tried: {reason}"), remedy));
        }
        Reached::Responded => {}
    }
    if !may_request {
        return Some(Finding::skipped("left out, as --no-token-request says"));
    }
    if let StateCheck::OtherUser(owner) = state {
        let remedy = format!("run this as uid {owner}");
        let reason = "not tried: the record of it would belong to root, and the proxy could not read it";
        return Some(Finding::skipped(reason).with_remedy(remedy));
    }
    (remaining < NEEDED_TIME).then(|| {
        let finding = Finding::skipped(
            "not tried: the steps before it left too little time, and an attempt that is cut off counts",
        );
        finding.with_remedy("run `finicity-proxy credentials test`")
    })
}

/// The lock-out guard and the endpoint, for `credentials`. The state directory is created where there is none.
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
            "; do not run this again with the same credentials: without auth.state_dir, each run is another attempt"
        }
        StateCheck::Directory | StateCheck::OtherUser(_) => "",
    };
    let remedy = if remedy.is_empty() { NAMED } else { &remedy };
    Finding::failed(detail, format!("{remedy}{warning}"))
}
