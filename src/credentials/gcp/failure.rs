//! What a response of Google means to an operator. Of what Google sent, error codes alone are kept.

use http::StatusCode;
use serde::Deserialize;

use super::http::Response;
use crate::credentials::{
    store::{TransportError, TransportFailure},
    store_error::StoreFault,
};

/// The role of a read.
pub(super) const ROLE: &str = "roles/secretmanager.secretAccessor";

const STORE: &str = "Google Secret Manager";

/// The longest error code that is shown.
const MAX_CODE_BYTES: usize = 64;

const IDENTITY: &str = "run it on Google Cloud with a service account (GKE: Workload Identity), or name a credentials file in \
                        GOOGLE_APPLICATION_CREDENTIALS";

/// A [`StoreError`](crate::credentials::StoreError) before the name of its secret.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) fault: StoreFault,
    pub(super) reason: String,
    pub(super) remedy: String,
}

/// The body of an error: the form of Google's APIs, or that of OAuth 2.0 (RFC 6749, 5.2).
#[derive(Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    error: ErrorMember,
}

#[derive(Default, Deserialize)]
#[serde(untagged)]
enum ErrorMember {
    Api {
        status: Option<String>,
        message: Option<String>,
        #[serde(default)]
        details: Vec<Detail>,
    },
    OAuth(String),
    #[default]
    None,
}

#[derive(Deserialize)]
struct Detail {
    reason: Option<String>,
}

/// What a response reports.
pub(super) struct ErrorReport {
    status: StatusCode,
    /// Whether the body is that of an error of Google.
    is_known_form: bool,
    /// The code of the error, such as `PERMISSION_DENIED` or `invalid_grant`.
    code: String,
    /// What distinguishes errors of one code, such as `SERVICE_DISABLED`.
    reason: String,
    /// Compared with known texts, and never shown.
    message: String,
}

impl ErrorReport {
    pub(super) fn new(response: &Response) -> Self {
        let ErrorBody { error } = serde_json::from_slice(response.body()).unwrap_or_default();
        let (is_known_form, code, reason, message) = match error {
            ErrorMember::Api { status, message, details } => {
                let reason = details.into_iter().find_map(|detail| detail.reason);
                (status.is_some(), status, reason, message)
            }
            ErrorMember::OAuth(code) => (true, Some(code), None, None),
            ErrorMember::None => (false, None, None, None),
        };
        let [code, reason, message] = [code, reason, message].map(Option::unwrap_or_default);
        Self { status: response.status(), is_known_form, code, reason, message }
    }

    /// Whether the identity is valid and lacks a permission.
    pub(super) fn is_denied(&self) -> bool {
        self.status == StatusCode::FORBIDDEN
    }

    fn mentions(&self, text: &str) -> bool {
        self.message.contains(text)
    }

    /// The codes as they are shown: Google's are words, and anything else is not one of them.
    fn shown(&self) -> String {
        let is_code = |code: &&String| {
            (1..=MAX_CODE_BYTES).contains(&code.len())
                && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte))
        };
        let codes: Vec<&str> = [&self.code, &self.reason].into_iter().filter(is_code).map(String::as_str).collect();
        if codes.is_empty() {
            format!("HTTP status {}, without an error code", self.status.as_u16())
        } else {
            codes.join(", ")
        }
    }
}

impl Failure {
    pub(super) fn new(fault: StoreFault, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { fault, reason: reason.into(), remedy: remedy.into() }
    }

    /// There was no response of Secret Manager.
    pub(super) fn of_transport(error: &TransportError) -> Self {
        Self::from(error.describe(STORE))
    }

    /// There was no response of `peer`, which is part of how the identity is obtained.
    pub(super) fn of_identity_transport(error: &TransportError, peer: &str) -> Self {
        Self::from(error.describe(peer))
    }

    /// There is neither a file nor a metadata server.
    pub(super) fn no_identity() -> Self {
        Self::new(
            StoreFault::NoIdentity,
            "this process has no Google identity: there is no credentials file, and no metadata server responds",
            IDENTITY,
        )
    }

    pub(super) fn timeout() -> Self {
        Self::new(
            StoreFault::Unreachable,
            format!("{STORE}, or the service of this process's identity, did not respond in time"),
            "check DNS, firewalls, network policies and credentials.egress_proxy",
        )
    }

    pub(super) fn unreadable_response() -> Self {
        Self::new(
            StoreFault::Unreachable,
            format!("the response is not one of {STORE}"),
            "check credentials.gcp.endpoint, and what is between this process and Google",
        )
    }

    pub(super) fn damaged() -> Self {
        Self::new(
            StoreFault::Unreachable,
            "its value does not have the checksum (CRC32C) that Google sent with it",
            "wait for the next poll; if it lasts, check what is between this process and Google, such as a proxy that intercepts TLS",
        )
    }

    pub(super) fn binary() -> Self {
        Self::new(StoreFault::Malformed, "its value is binary", "add a version with the JSON object as UTF-8 text")
    }

    /// The version is in a state in which it cannot be read.
    pub(super) fn unavailable(state: VersionState, version: Option<&str>) -> Self {
        let version = version.map(|version| format!(" {version}")).unwrap_or_default();
        let remedy = match state {
            VersionState::Disabled => "enable it (gcloud secrets versions enable), or add a new version",
            VersionState::Destroyed => "add a new version; a destroyed one cannot be restored",
        };
        let reason = format!("its version{version} is {}", state.as_str());
        Self::new(StoreFault::VersionUnavailable, reason, remedy)
    }

    /// That of Secret Manager, for a request that needs `permission`.
    pub(super) fn of_store(report: &ErrorReport) -> Self {
        let shown = report.shown();
        match report.status {
            _ if report.status == StatusCode::TOO_MANY_REQUESTS || report.code == "RESOURCE_EXHAUSTED" => {
                throttled(&shown)
            }
            StatusCode::UNAUTHORIZED => Self::new(
                StoreFault::IdentityRefused,
                format!("Google does not accept the identity of this process ({shown})"),
                "check that its service account and key exist and are enabled, and the clock of this machine",
            ),
            StatusCode::FORBIDDEN => denied(report, &shown),
            StatusCode::NOT_FOUND if !report.is_known_form => Self::unreadable_response(),
            StatusCode::NOT_FOUND if report.mentions("/versions/") => Self::new(
                StoreFault::NotFound,
                format!("it has no such version ({shown})"),
                "correct credentials.gcp.version, or add the version",
            ),
            StatusCode::NOT_FOUND => Self::new(
                StoreFault::NotFound,
                format!("there is no such secret, or it has no version ({shown})"),
                "correct credentials.gcp.secret (and credentials.gcp.endpoint for a regional secret), or add a version \
                 (gcloud secrets versions add)",
            ),
            _ if report.code == "FAILED_PRECONDITION" => precondition(report, &shown),
            _ if report.code == "INVALID_ARGUMENT" => Self::new(
                StoreFault::NotFound,
                format!("its name or version is not valid ({shown})"),
                "correct credentials.gcp.secret and credentials.gcp.version",
            ),
            status if status.is_server_error() => Self::new(
                StoreFault::Unreachable,
                format!("{STORE} failed ({shown})"),
                "wait; if it lasts, see the Google Cloud Service Health page",
            ),
            _ if !report.is_known_form => Self::unreadable_response(),
            _ => Self::new(
                StoreFault::Unreachable,
                format!("{STORE} rejected the request ({shown})"),
                "check credentials.gcp.endpoint, and the error code in the documentation of Google",
            ),
        }
    }

    /// That of `peer`, which issues the identity. `remedy` is for an identity that it refuses.
    pub(super) fn of_issuer(report: &ErrorReport, peer: &str, remedy: &str) -> Self {
        let shown = report.shown();
        match report.status {
            _ if report.status == StatusCode::TOO_MANY_REQUESTS || report.code == "RESOURCE_EXHAUSTED" => {
                throttled(&shown)
            }
            status
                if status.is_server_error() || matches!(&*report.code, "server_error" | "temporarily_unavailable") =>
            {
                Self::new(
                    StoreFault::Unreachable,
                    format!("{peer} failed ({shown})"),
                    "wait; if it lasts, see the Google Cloud Service Health page",
                )
            }
            _ if report.reason == "SERVICE_DISABLED" => service_disabled(peer, &shown),
            status if status.is_client_error() => {
                let reason = format!("{peer} does not issue the identity of this process ({shown})");
                Self::new(StoreFault::IdentityRefused, reason, remedy)
            }
            _ => Self::new(
                StoreFault::Unreachable,
                format!("the response is not one of {peer} ({shown})"),
                "check the addresses in the credentials file, and what is between this process and Google",
            ),
        }
    }
}

impl From<TransportFailure> for Failure {
    fn from(TransportFailure { fault, reason, remedy }: TransportFailure) -> Self {
        Self::new(fault, reason, remedy)
    }
}

/// The states in which a version cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VersionState {
    Disabled,
    Destroyed,
}

impl VersionState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Destroyed => "destroyed",
        }
    }
}

fn throttled(shown: &str) -> Failure {
    Failure::new(
        StoreFault::Throttled,
        format!("Google limits the rate of requests ({shown})"),
        "make credentials.poll_interval longer, or raise the quota of the project",
    )
}

fn service_disabled(service: &str, shown: &str) -> Failure {
    Failure::new(
        StoreFault::IdentityRefused,
        format!("the API of {service} is not enabled in the project ({shown})"),
        "enable it (gcloud services enable), and wait a few minutes",
    )
}

fn denied(report: &ErrorReport, shown: &str) -> Failure {
    let refused = |reason: &str, remedy: &str| {
        Failure::new(StoreFault::IdentityRefused, format!("{reason} ({shown})"), remedy.to_owned())
    };
    match &*report.reason {
        "SERVICE_DISABLED" => service_disabled(STORE, shown),
        "ACCESS_TOKEN_SCOPE_INSUFFICIENT" => refused(
            "the access scopes of this machine do not permit it",
            "give the VM or node pool the scope cloud-platform (gcloud compute instances set-service-account --scopes=cloud-platform)",
        ),
        "SECURITY_POLICY_VIOLATED" => refused(
            "VPC Service Controls forbid the request",
            "admit this identity and network to the perimeter of the project, by an ingress rule or access level",
        ),
        "BILLING_DISABLED" => refused("the project has no billing", "enable billing for the project"),
        "USER_PROJECT_DENIED" => refused(
            "the identity of this process may not use its quota project",
            "grant it roles/serviceusage.serviceUsageConsumer, or remove quota_project_id from the credentials file",
        ),
        _ => refused(
            "the identity of this process may not read it",
            &format!(
                "grant it {ROLE} on this secret; check credentials.gcp.secret, too: the response is the same for a secret that is not there"
            ),
        ),
    }
}

fn precondition(report: &ErrorReport, shown: &str) -> Failure {
    if report.mentions("DISABLED state") {
        return Failure::unavailable(VersionState::Disabled, None);
    }
    if report.mentions("DESTROYED state") {
        return Failure::unavailable(VersionState::Destroyed, None);
    }
    if report.mentions("KMS") || report.mentions("cloudkms") || report.mentions("cryptoKeys") {
        return Failure::new(
            StoreFault::VersionUnavailable,
            format!("its Cloud KMS key cannot decrypt it ({shown})"),
            "enable the key version, and grant roles/cloudkms.cryptoKeyEncrypterDecrypter on the key to the service agent of Secret Manager",
        );
    }
    Failure::new(
        StoreFault::VersionUnavailable,
        format!("the version cannot be read in its state ({shown})"),
        "see the state of the version (gcloud secrets versions describe), or add a new one",
    )
}

#[cfg(test)]
mod tests;
