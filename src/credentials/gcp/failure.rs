//! Maps Google's error responses to operator terms. Of a response's content, only error codes are shown.

use http::StatusCode;
use serde::Deserialize;

use super::http::Response;
use crate::credentials::{
    store::{TransportError, TransportFailure},
    store_error::StoreFault,
};

/// The role that permits a read.
pub(super) const ROLE: &str = "roles/secretmanager.secretAccessor";

const STORE: &str = "Google Secret Manager";

/// The maximum length of an error code that is shown.
const MAX_CODE_BYTES: usize = 64;

const IDENTITY: &str = "run it on Google Cloud with a service account (GKE: Workload Identity), or set \
                        GOOGLE_APPLICATION_CREDENTIALS to a credentials file";

/// A [`StoreError`](crate::credentials::StoreError) without the name of its secret.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) fault: StoreFault,
    pub(super) reason: String,
    pub(super) remedy: String,
}

/// The body of an error, in the format of Google's APIs or of OAuth 2.0 (RFC 6749, section 5.2).
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

/// The error in a response.
pub(super) struct ErrorReport {
    status: StatusCode,
    /// Whether the body has the format of a Google error.
    is_known_form: bool,
    /// The error code, such as `PERMISSION_DENIED` or `invalid_grant`.
    code: String,
    /// The detail that distinguishes errors with the same code, such as `SERVICE_DISABLED`.
    reason: String,
    /// Compared with known texts and never shown.
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

    /// The codes as they are shown. Google's codes are single words, so any other text is not shown.
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

    /// The failure of a request that got no response from Secret Manager.
    pub(super) fn of_transport(error: &TransportError) -> Self {
        Self::from(error.describe(STORE))
    }

    /// The failure of a request that got no response from `peer`, which is used to obtain the identity.
    pub(super) fn of_identity_transport(error: &TransportError, peer: &str) -> Self {
        Self::from(error.describe(peer))
    }

    /// There is neither a credentials file nor a metadata server.
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
            format!("the response is not from {STORE}"),
            "check credentials.gcp.endpoint, and any intermediary between this process and Google",
        )
    }

    pub(super) fn damaged() -> Self {
        Self::new(
            StoreFault::Unreachable,
            "its value does not match the checksum (CRC32C) that Google sent with it",
            "wait for the next poll; if the problem persists, check any intermediary between this process and Google, such as a \
             proxy that intercepts TLS",
        )
    }

    pub(super) fn binary() -> Self {
        Self::new(StoreFault::Malformed, "its value is binary", "add a version with the JSON object as UTF-8 text")
    }

    /// The version cannot be read in its state.
    pub(super) fn unavailable(state: VersionState, version: Option<&str>) -> Self {
        let version = version.map(|version| format!(" {version}")).unwrap_or_default();
        let remedy = match state {
            VersionState::Disabled => "enable it (gcloud secrets versions enable), or add a new version",
            VersionState::Destroyed => "add a new version; a destroyed version cannot be restored",
        };
        let reason = format!("its version{version} is {}", state.as_str());
        Self::new(StoreFault::VersionUnavailable, reason, remedy)
    }

    /// The failure in an error response of Secret Manager.
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
                format!("it does not have this version ({shown})"),
                "correct credentials.gcp.version, or add the version",
            ),
            StatusCode::NOT_FOUND => Self::new(
                StoreFault::NotFound,
                format!("the secret does not exist or has no version ({shown})"),
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
                "wait; if the problem persists, see the Google Cloud Service Health page",
            ),
            _ if !report.is_known_form => Self::unreadable_response(),
            _ => Self::new(
                StoreFault::Unreachable,
                format!("{STORE} rejected the request ({shown})"),
                "check credentials.gcp.endpoint, and look up the error code in the Google documentation",
            ),
        }
    }

    /// The failure in an error response of `peer`, which issues the identity. `remedy` applies if it rejects the request.
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
                    "wait; if the problem persists, see the Google Cloud Service Health page",
                )
            }
            _ if report.reason == "SERVICE_DISABLED" => service_disabled(peer, &shown),
            status if status.is_client_error() => {
                let reason = format!("{peer} did not issue an identity to this process ({shown})");
                Self::new(StoreFault::IdentityRefused, reason, remedy)
            }
            _ => Self::new(
                StoreFault::Unreachable,
                format!("the response is not from {peer} ({shown})"),
                "check the addresses in the credentials file, and any intermediary between this process and Google",
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
        format!("Google rate limit exceeded ({shown})"),
        "increase credentials.poll_interval, or raise the quota of the project",
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
    let denied = |reason: &str, remedy: &str| {
        Failure::new(StoreFault::IdentityRefused, format!("{reason} ({shown})"), remedy.to_owned())
    };
    match &*report.reason {
        "SERVICE_DISABLED" => service_disabled(STORE, shown),
        "ACCESS_TOKEN_SCOPE_INSUFFICIENT" => denied(
            "the access scopes of this machine do not permit it",
            "grant the VM or node pool the scope cloud-platform (gcloud compute instances set-service-account --scopes=cloud-platform)",
        ),
        "SECURITY_POLICY_VIOLATED" => denied(
            "VPC Service Controls deny the request",
            "admit this identity and network to the perimeter of the project, by an ingress rule or access level",
        ),
        "BILLING_DISABLED" => denied("billing is disabled for the project", "enable billing for the project"),
        "USER_PROJECT_DENIED" => denied(
            "the identity of this process is not permitted to use its quota project",
            "grant it roles/serviceusage.serviceUsageConsumer, or remove quota_project_id from the credentials file",
        ),
        _ => denied(
            "the identity of this process is not permitted to read it",
            &format!(
                "grant it {ROLE} on this secret; also check credentials.gcp.secret, because the response is the same for a missing secret"
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
        format!("the version cannot be read in its current state ({shown})"),
        "check the state of the version (gcloud secrets versions describe), or add a new version",
    )
}

#[cfg(test)]
mod tests;
