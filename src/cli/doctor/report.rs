//! The report: a list of steps, as text or as JSON.

use std::{fmt::Write as _, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use super::RUN_TIMEOUT;
use crate::cli::output::print;

labels! {
    /// The steps, in order. The names are a contract with readers of the JSON.
    pub(super) enum StepName {
        Configuration = "configuration",
        CredentialSource = "credential_source",
        StoreIdentity = "store_identity",
        StateDirectory = "state_directory",
        Dns = "dns",
        EgressProxy = "egress_proxy",
        Tcp = "tcp",
        Tls = "tls",
        Clock = "clock",
        TokenRequest = "token_request",
        RunningProxy = "running_proxy",
    }
}

impl StepName {
    /// The exit code when this is the first failed step: `EX_CONFIG` of sysexits.h for the configuration, 10 to 19 for the others.
    fn exit_code(self) -> u8 {
        match self {
            Self::Configuration => crate::cli::EXIT_CONFIG,
            step => 9 + step as u8,
        }
    }
}

labels! {
    /// The outcome of a step. The names are a contract, too.
    pub(super) enum Outcome {
        Ok = "ok",
        Warning = "warning",
        Failed = "failed",
        Skipped = "skipped",
    }
}

/// The finding of a step.
#[derive(Debug)]
pub(super) struct Finding {
    outcome: Outcome,
    detail: String,
    remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Ok, detail: detail.into(), remedy: None }
    }

    pub(super) fn warning(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { outcome: Outcome::Warning, detail: detail.into(), remedy: None }.with_remedy(remedy)
    }

    pub(super) fn failed(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { outcome: Outcome::Failed, detail: detail.into(), remedy: None }.with_remedy(remedy)
    }

    /// The step was not run, or its result is inconclusive, for the reason `detail`.
    pub(super) fn skipped(detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Skipped, detail: detail.into(), remedy: None }
    }

    /// Sets what an operator has to do; nothing if `remedy` is empty.
    pub(super) fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()).filter(|remedy| !remedy.is_empty()), ..self }
    }
}

/// A completed step.
#[derive(Debug, Serialize)]
struct Step {
    name: &'static str,
    outcome: &'static str,
    duration_ms: u64,
    detail: String,
    remedy: Option<String>,
}

/// The JSON document.
#[derive(Serialize)]
struct Document<'a> {
    version: &'static str,
    outcome: &'static str,
    exit_code: u8,
    failed_step: Option<&'static str>,
    duration_ms: u64,
    steps: &'a [Step],
}

/// The steps completed so far.
#[derive(Debug)]
pub(super) struct Report {
    started: Instant,
    /// Whether each step is printed as text when it completes.
    is_printed: bool,
    in_progress: Option<StepName>,
    first_failed: Option<StepName>,
    has_warning: bool,
    steps: Vec<Step>,
}

impl Report {
    /// An empty report. With `is_printed`, each step is printed as text when it completes.
    pub(super) fn new(is_printed: bool) -> Self {
        let started = Instant::now();
        Self { started, is_printed, in_progress: None, first_failed: None, has_warning: false, steps: Vec::new() }
    }

    /// Runs `work` and adds its finding. Returns its value for later steps.
    pub(super) async fn step<T>(
        &mut self,
        name: StepName,
        work: impl Future<Output = (Finding, Option<T>)>,
    ) -> Option<T> {
        self.in_progress = Some(name);
        let begun = Instant::now();
        let (finding, value) = work.await;
        self.add_timed(name, finding, begun.elapsed());
        value
    }

    /// Adds a step that took no time.
    pub(super) fn add(&mut self, name: StepName, finding: Finding) {
        self.add_timed(name, finding, Duration::ZERO);
    }

    /// Adds a step that took `duration`.
    pub(super) fn add_timed(&mut self, name: StepName, finding: Finding, duration: Duration) {
        self.in_progress = None;
        let Finding { outcome, detail, remedy } = finding;
        match outcome {
            Outcome::Failed => self.first_failed = self.first_failed.or(Some(name)),
            Outcome::Warning => self.has_warning = true,
            Outcome::Ok | Outcome::Skipped => {}
        }
        let duration_ms = millis(duration);
        let step = Step { name: name.as_str(), outcome: outcome.as_str(), duration_ms, detail, remedy };
        if self.is_printed {
            print(lines(&step, outcome));
        }
        self.steps.push(step);
    }

    /// Adds all remaining steps as skipped, for `reason`.
    pub(super) fn skip_rest(&mut self, reason: &str) {
        for name in &StepName::ALL[self.steps.len()..] {
            self.add(*name, Finding::skipped(reason));
        }
    }

    /// Whether step `name` is running.
    pub(super) fn is_in(&self, name: StepName) -> bool {
        self.in_progress == Some(name)
    }

    /// The remaining time of the run.
    pub(super) fn remaining(&self) -> Duration {
        RUN_TIMEOUT.saturating_sub(self.started.elapsed())
    }

    /// The exit code; `None` when no step failed.
    pub(super) fn exit_code(&self) -> Option<u8> {
        self.first_failed.map(StepName::exit_code)
    }

    /// All steps as one JSON document.
    pub(super) fn to_json(&self) -> String {
        let outcome = match (self.first_failed, self.has_warning) {
            (Some(_), _) => Outcome::Failed,
            (None, true) => Outcome::Warning,
            (None, false) => Outcome::Ok,
        };
        let document = Document {
            version: env!("CARGO_PKG_VERSION"),
            outcome: outcome.as_str(),
            exit_code: self.exit_code().unwrap_or(0),
            failed_step: self.first_failed.map(StepName::as_str),
            duration_ms: millis(self.started.elapsed()),
            steps: &self.steps,
        };
        serde_json::to_string_pretty(&document).expect("strings and numbers are always serialisable")
    }

    /// The last line of the text.
    pub(super) fn conclusion(&self) -> String {
        match (self.first_failed, self.has_warning) {
            (Some(step), _) => format!("failed: {} (exit code {})", step.as_str(), step.exit_code()),
            (None, true) => "no step failed; see the warnings".to_owned(),
            (None, false) => "no step failed".to_owned(),
        }
    }
}

/// The column where the detail of a step begins.
const INDENT: usize = 33;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A step as text: mark, name, time and detail, then the remedy.
fn lines(step: &Step, outcome: Outcome) -> String {
    let mark = match outcome {
        Outcome::Ok => "ok",
        Outcome::Warning => "WARN",
        Outcome::Failed => "FAIL",
        Outcome::Skipped => "-",
    };
    let next_line = format!("\n{:INDENT$}", "");
    let indented = |text: &str| text.replace('\n', &next_line);
    // A skipped step has no time.
    let time = if outcome == Outcome::Skipped { String::new() } else { format!("{} ms", step.duration_ms) };
    let mut text = format!("{mark:<5}{:<18}{time:>8}  {}", step.name, indented(&step.detail));
    if let Some(remedy) = &step.remedy {
        let _ = write!(text, "{next_line}-> {}", remedy.replace('\n', &format!("{next_line}   ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_match_the_help_and_the_docs() {
        for step in StepName::ALL {
            let entry = format!("{} {}", step.exit_code(), step.as_str());
            assert!(super::super::EXIT_CODES.contains(&entry), "{entry}");
            let row = format!("| {} | `{}` |", step.exit_code(), step.as_str());
            assert!(include_str!("../../../docs/doctor.md").contains(&row), "{row}");
        }
        assert_eq!(StepName::CredentialSource.exit_code(), 10);
        assert_eq!(StepName::RunningProxy.exit_code(), 19);
    }

    #[test]
    fn the_first_failed_step_decides_the_exit_code() {
        let mut report = Report::new(false);
        report.add(StepName::Configuration, Finding::ok("fine"));
        report.add(StepName::CredentialSource, Finding::warning("old", "renew"));
        assert_eq!((report.exit_code(), report.conclusion().as_str()), (None, "no step failed; see the warnings"));
        report.add(StepName::StoreIdentity, Finding::failed("no", "do"));
        report.add(StepName::StateDirectory, Finding::failed("no", "do"));
        report.skip_rest("needs more");
        assert_eq!(report.exit_code(), Some(11));
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(
            (&json["outcome"], &json["exit_code"], &json["failed_step"]),
            (&"failed".into(), &11.into(), &"store_identity".into())
        );
        let names: Vec<_> =
            json["steps"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect();
        assert_eq!(names, StepName::LABELS);
        assert_eq!(json["steps"][4]["detail"], "needs more");
        assert!(json["steps"][0]["remedy"].is_null());
    }

    #[test]
    fn a_step_is_one_line_and_its_remedy_the_next() {
        let step = |remedy: Option<&str>| Step {
            name: "dns",
            outcome: "failed",
            duration_ms: 12,
            detail: "one\ntwo".to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        let indent = " ".repeat(INDENT);
        assert_eq!(
            lines(&step(Some("do this")), Outcome::Failed),
            format!("FAIL dns                  12 ms  one\n{indent}two\n{indent}-> do this")
        );
        assert_eq!(lines(&step(None), Outcome::Skipped), format!("-    dns{}one\n{indent}two", &indent[8..]));
    }
}
