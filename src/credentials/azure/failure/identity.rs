//! Failures of the identity and of the services that issue its tokens.

use std::io;

use super::Failure;
use crate::credentials::store_error::StoreFault;

pub(super) const ENTRA: &str = "Microsoft Entra";

pub(super) const ENDPOINT: &str = "the managed identity endpoint";

const IDENTITY: &str = "give the process an Azure identity: a workload identity (on AKS, the label azure.workload.identity/use of the pod and \
                        the annotation azure.workload.identity/client-id of its service account), or a managed identity";

const ASSIGN: &str = "assign a managed identity to this machine; if it has several, or no system-assigned one, set AZURE_CLIENT_ID to the \
                      client ID of a user-assigned one";

impl Failure {
    /// The environment names the token file of a workload identity, but not its client or tenant.
    pub(in crate::credentials::azure) fn incomplete_workload_identity(missing: &str) -> Self {
        Self::new(
            StoreFault::NoIdentity,
            format!("AZURE_FEDERATED_TOKEN_FILE is set, but {missing} is not"),
            "annotate the service account with azure.workload.identity/client-id, or set the variable",
        )
    }

    pub(in crate::credentials::azure) fn invalid_workload_identity() -> Self {
        Self::new(
            StoreFault::NoIdentity,
            "the environment variables of the workload identity are invalid",
            "correct AZURE_TENANT_ID, which is an ID or a domain, and AZURE_AUTHORITY_HOST, which is an https:// address",
        )
    }

    pub(in crate::credentials::azure) fn unreadable_token_file(error: &io::Error) -> Self {
        Self::new(
            StoreFault::NoIdentity,
            format!("the file in AZURE_FEDERATED_TOKEN_FILE cannot be read: {}", error.kind()),
            "check the volume and the permissions of the file",
        )
    }

    pub(in crate::credentials::azure) fn invalid_token_file() -> Self {
        Self::new(
            StoreFault::NoIdentity,
            "AZURE_FEDERATED_TOKEN_FILE does not name a regular file of at most 64 KiB",
            "set it to the file that contains the token of the service account",
        )
    }

    /// Azure Arc, Service Fabric, Azure ML, Cloud Shell.
    pub(in crate::credentials::azure) fn unsupported_identity() -> Self {
        Self::new(
            StoreFault::NoIdentity,
            "the managed identity in the environment (IDENTITY_ENDPOINT, MSI_ENDPOINT) is of an unsupported kind",
            IDENTITY,
        )
    }
}

/// No managed identity endpoint responds: this machine is not in Azure, or the endpoint is blocked.
pub(super) fn no_endpoint() -> Failure {
    Failure::new(
        StoreFault::NoIdentity,
        "this process has no Azure identity: its environment has no workload identity, and no managed identity endpoint \
         (IDENTITY_ENDPOINT, or 169.254.169.254) responds",
        IDENTITY,
    )
}

pub(super) fn unreadable_response() -> Failure {
    Failure::new(
        StoreFault::Unreachable,
        "cannot parse the response of the service that issues this process's Azure identity",
        "check AZURE_AUTHORITY_HOST and IDENTITY_ENDPOINT, and any intermediary between this process and Azure",
    )
}

/// Microsoft Entra did not issue a token for the workload identity.
pub(super) fn of_entra(status: u16, code: Option<&str>) -> Failure {
    let shown = code.map_or_else(|| format!("HTTP status {status}"), ToOwned::to_owned);
    let refused = |remedy: &str| {
        let reason = format!("{ENTRA} did not issue a token to this process ({shown})");
        Failure::new(StoreFault::IdentityRefused, reason, remedy)
    };
    match code.unwrap_or_default() {
        _ if status == 429 => throttled(ENTRA, &shown),
        "temporarily_unavailable" | "server_error" => failed(ENTRA, &shown),
        _ if status >= 500 => failed(ENTRA, &shown),
        "" => unreadable_response(),
        "AADSTS70021" | "AADSTS700211" | "AADSTS700212" | "AADSTS700213" => refused(
            "add a federated credential to the identity, with the issuer of this cluster, the subject \
             system:serviceaccount:NAMESPACE:NAME and the audience api://AzureADTokenExchange",
        ),
        "AADSTS700016" | "AADSTS90002" | "AADSTS900021" | "AADSTS900023" => refused(
            "correct the client ID (annotation azure.workload.identity/client-id, or AZURE_CLIENT_ID) and the tenant (AZURE_TENANT_ID)",
        ),
        "AADSTS700024" => refused(
            "check that the token in AZURE_FEDERATED_TOKEN_FILE is renewed in time, and check the clock of this machine",
        ),
        _ => refused(
            "check the federated credential of the identity (issuer, subject, audience), AZURE_CLIENT_ID and AZURE_TENANT_ID; see \
             the error code in the Microsoft Entra documentation",
        ),
    }
}

/// The managed identity endpoint did not issue a token.
pub(super) fn of_managed_identity(status: u16, code: Option<&str>) -> Failure {
    let shown = code.map_or_else(|| format!("HTTP status {status}"), |code| format!("{code}, HTTP status {status}"));
    match status {
        429 => throttled(ENDPOINT, &shown),
        // Instance metadata returns 404 and 410 while it is being updated.
        404 | 410 | 500.. => failed(ENDPOINT, &shown),
        400 => Failure::new(
            StoreFault::NoIdentity,
            format!("this machine has no managed identity, or not the one in AZURE_CLIENT_ID ({shown})"),
            ASSIGN,
        ),
        _ => Failure::new(
            StoreFault::NoIdentity,
            format!("{ENDPOINT} rejected the request of this process ({shown})"),
            IDENTITY,
        ),
    }
}

fn throttled(service: &str, shown: &str) -> Failure {
    Failure::new(
        StoreFault::Throttled,
        format!("{service} rate limit exceeded ({shown})"),
        "wait; to send fewer requests, increase credentials.poll_interval or use the identity in fewer processes",
    )
}

fn failed(service: &str, shown: &str) -> Failure {
    Failure::new(
        StoreFault::Unreachable,
        format!("{service} failed ({shown})"),
        "wait; if the problem persists, see the Azure status page",
    )
}
