//! `credentials test`: tries new credentials exactly once, under the lock-out guard, before they reach any Secret.
//!
//! The guard, its records and their lock are those of the running proxy. Deliberately absent: retries, revocation, and any use of
//! the token.

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};
use tokio::select;

use super::output::{eprint, print};
use crate::{
    app::{self, Loaded},
    config::Inputs,
    credentials::{
        Credentials,
        lockout::{self, Baseline, BeginOutcome, Decision, Fingerprint, LastAttempt, Lockout, Permit},
    },
    dns::Resolver,
    error_chain,
    process::signal::StopSignals,
    telemetry::logging,
    tls,
    token::{
        Clock, TokenEndpoint, TokenSource as _, UNPROVEN_TIMEOUT,
        classify::{Disposition, FailureClass, TokenFailure},
        scheme::AuthHeaders,
    },
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make one token request with the credentials, and say whether they are safe to roll out
    ///
    /// Sends nothing while the lock-out guard forbids it. Exit codes: 0 accepted, 1 rejected, not tried or no answer, 78 wrong
    /// configuration or credentials missing.
    Test {
        /// Take the credentials from the files in this directory, named as for credentials.source = "dir"
        #[arg(long, value_name = "DIR")]
        dir: Option<String>,
    },
}

/// Tries the credentials once. A success prints that they are safe to roll out; anything else is an error.
pub(super) async fn run(mut inputs: Inputs, arguments: Arguments) -> anyhow::Result<()> {
    let Action::Test { dir } = arguments.action;
    let mut signals = StopSignals::catch()?;
    if let Some(dir) = dir {
        let keys = [("credentials.source", "dir".to_owned()), ("credentials.dir", dir)];
        inputs.flags.extend(keys.map(|(key, value)| (key.to_owned(), value)));
    }
    let mut loaded = app::load(&inputs).await?;
    drop(inputs); // the environment's copy of the secrets with it
    let credentials = select! {
        biased;
        credentials = loaded.read_credentials() => credentials?,
        signal = signals.next() => bail!("stopped by {signal}; the credentials were not tried"),
    };
    let Loaded { config, source, .. } = loaded;
    let (_trust_store_writer, trust_store) = tls::trust_store(config.tls)?;
    let endpoint = TokenEndpoint::new(config.token, Resolver::new(), trust_store)?;
    let lockout = Lockout::open(config.state_dir.as_deref())?;
    let fingerprint = lockout.fingerprint_of(endpoint.host(), &credentials);
    print(format_args!("credentials from {}, scheme {}", source.description(), credentials.scheme.as_str()));
    let mut test = Test { endpoint, lockout, fingerprint, credentials };

    let permit = select! {
        biased;
        permit = test.clearance() => permit?,
        signal = signals.next() => bail!("stopped by {signal}; the credentials were not tried"),
    };
    let baseline = test.lockout.baseline(&test.fingerprint, Clock::Boot.unix_time());
    let outcome = select! {
        biased;
        outcome = test.endpoint.fetch(&test.credentials, UNPROVEN_TIMEOUT) => outcome,
        // Dropped, the permit leaves the attempt on record.
        signal = signals.next() => bail!(
            "stopped by {signal} before the outcome was known; the attempt stays recorded and counts like a rejection. {}",
            test.attempts_left()
        ),
    };
    match outcome {
        Ok(auth) => test.accepted(&auth, &baseline),
        Err(failure) => Err(test.failed(&failure, permit)),
    }
}

/// One try of credentials.
struct Test {
    endpoint: TokenEndpoint,
    lockout: Lockout,
    fingerprint: Fingerprint,
    credentials: Credentials,
}

impl Test {
    /// Asks the lock-out guard, which has the attempt on record when this returns a permit. `None` for credentials that are proven.
    ///
    /// # Errors
    ///
    /// Why the credentials must not be tried now. Then nothing was sent with them.
    async fn clearance(&mut self) -> anyhow::Result<Option<Permit>> {
        match self.lockout.decide(&self.fingerprint) {
            Decision::Allowed => {}
            Decision::BudgetSpent if self.lockout.is_proven(&self.fingerprint) => {}
            decision => return Err(self.refused(decision)),
        }
        let last = match self.begin(None)? {
            Ok(permit) => return Ok(permit),
            Err(last) => last,
        };
        // An earlier attempt has an unknown outcome: an endpoint that does not respond must not cost another one.
        self.endpoint.probe(self.credentials.scheme).await.map_err(|failure| {
            anyhow!(
                "not tried: an earlier attempt has an unknown outcome, and the token endpoint does not respond to a request without \
                 credentials either: {failure}"
            )
        })?;
        self.begin(Some(last))?
            .map_err(|_| anyhow!("not tried: another process made an attempt meanwhile; run this again"))
    }

    /// One answer of the guard: a permit, or the attempt after which the token endpoint has to respond first.
    fn begin(&mut self, responded_after: Option<LastAttempt>) -> anyhow::Result<Result<Option<Permit>, LastAttempt>> {
        match self.lockout.begin(&self.fingerprint, Clock::Boot.unix_time(), responded_after)? {
            BeginOutcome::Proven => Ok(Ok(None)),
            BeginOutcome::Recorded(permit) => Ok(Ok(Some(permit))),
            BeginOutcome::ProbeFirst(last) => Ok(Err(last)),
            BeginOutcome::InProgress => bail!(
                "not tried: a running proxy, or another test, that shares auth.state_dir makes an attempt now; run this again when it \
                 is over, within a minute"
            ),
            BeginOutcome::NotBefore(wait) => bail!(
                "not tried: an earlier attempt has an unknown outcome, and the next one is permitted in {} s; run this again then",
                wait.as_secs() + 1
            ),
            BeginOutcome::Held(_) => Err(self.refused(Decision::Held)),
            BeginOutcome::Rejected(decision) => Err(self.refused(decision)),
        }
    }

    /// The guard forbids the attempt.
    fn refused(&self, decision: Decision) -> anyhow::Error {
        let (reason, remedy) = match decision {
            Decision::Latched => (
                "exactly these credentials were rejected before",
                "correct them and test the corrected ones; if they are right after all, `finicity-proxy lockout reset` allows a running \
                 proxy that has them one more attempt",
            ),
            Decision::BudgetSpent => (
                "too many credentials of this id were rejected",
                "let the vendor confirm id, secret and App Key, then run `finicity-proxy lockout reset --override-budget` for the \
                 running proxy that has them",
            ),
            Decision::Held | Decision::Allowed => (
                "too many attempts for this id have an unknown outcome, and each may count as a rejection",
                "verify the credentials with the vendor, then run `finicity-proxy lockout reset --override-budget` for the running proxy \
                 that has them, or test again after 24 hours",
            ),
        };
        anyhow!("not tried: {reason}; {remedy}. {}", self.attempts_left())
    }

    /// The credentials obtained a token.
    fn accepted(&mut self, auth: &AuthHeaders, baseline: &Baseline) -> anyhow::Result<()> {
        logging::scrubber().register("the token", vec![auth.token()]);
        if let Err(error) = self.lockout.record_success(&self.fingerprint, baseline) {
            eprint(format_args!("the success is not on record: {}", error_chain::one_line(&error)));
        }
        print(format_args!("accepted: {} issued a token, which is not used", self.endpoint.host()));
        print("safe to roll out");
        Ok(())
    }

    /// No token was obtained: records what is known, and says so.
    fn failed(&mut self, failure: &TokenFailure, permit: Option<Permit>) -> anyhow::Error {
        let is_rejected = failure.class == FailureClass::Rejected;
        let is_unknown = !is_rejected && failure.disposition == Disposition::Unknown;
        let counted = if is_rejected { self.lockout.record_rejection(&self.fingerprint) } else { Ok(()) };
        // Only a rejection that is on the disk replaces the record of the attempt.
        let recorded = match permit {
            Some(permit) if counted.is_ok() && !is_unknown => counted.and(self.lockout.resolve(permit)),
            _ => counted,
        };
        if let Err(error) = recorded {
            eprint(format_args!("the outcome is not on record: {}", error_chain::one_line(&error)));
        }
        let advice = self.endpoint.advice(self.credentials.scheme, failure);
        let advice = advice.map(|advice| format!(" ({advice})")).unwrap_or_default();
        let verdict = match failure.disposition {
            _ if is_rejected => "rejected, do not roll out",
            Disposition::NotSent => "not tried, nothing was sent",
            Disposition::Responded => "neither accepted nor rejected",
            Disposition::Unknown => "outcome unknown, which counts like a rejection",
        };
        anyhow!("{verdict}: {failure}{advice}. {}", self.attempts_left())
    }

    /// How close the account is to its lock, as far as that is known.
    fn attempts_left(&self) -> String {
        let (limit, stop) = (lockout::VENDOR_LIMIT, lockout::BUDGET);
        if !self.lockout.is_persistent() {
            return format!(
                "The vendor locks the account after {limit} failed authentications; how many are left is not known without \
                 auth.state_dir, which remembers them"
            );
        }
        let (rejections, unresolved) =
            (self.lockout.rejections(&self.fingerprint), self.lockout.unresolved(&self.fingerprint));
        let used = rejections.saturating_add(unresolved);
        format!(
            "Counted for this id: {rejections} rejected, {unresolved} with an unknown outcome. The vendor locks the account at {limit} ({} \
             left), finicity-proxy stops at {stop} ({} left)",
            limit.saturating_sub(used),
            stop.saturating_sub(used)
        )
    }
}
