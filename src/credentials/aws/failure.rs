//! Maps errors of the AWS SDK to operator terms. Of a response's content, only the error code is kept.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::{
    assume_role::AssumeRoleError, assume_role_with_web_identity::AssumeRoleWithWebIdentityError,
};

use crate::{
    credentials::{
        store::{TransportError, TransportFailure},
        store_error::StoreFault,
    },
    error_chain,
};

/// The permission for a poll.
pub(super) const DESCRIBE: &str = "secretsmanager:DescribeSecret";

/// The permission for a read.
pub(super) const READ: &str = "secretsmanager:GetSecretValue";

const STORE: &str = "AWS Secrets Manager";

/// The maximum length of an error code that is shown.
const MAX_CODE_BYTES: usize = 64;

const IDENTITY: &str = "give the process an AWS identity: a service account with a role (IRSA or EKS Pod Identity), an ECS task role, an \
                        instance profile, or a profile in ~/.aws";

/// A [`StoreError`](crate::credentials::StoreError) without the name of its secret.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) fault: StoreFault,
    pub(super) reason: String,
    pub(super) remedy: String,
}

impl Failure {
    fn new(fault: StoreFault, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { fault, reason: reason.into(), remedy: remedy.into() }
    }

    /// The failure of an operation that requires `permission`.
    pub(super) fn of<E>(error: &SdkError<E>, permission: &str) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(service) => {
                let (code, message) = (service.err().code(), service.err().message());
                of_service(code, message, service.raw().status().as_u16(), permission)
            }
            SdkError::TimeoutError(_) => Self::timeout(),
            // The response of an intermediary, which is not in AWS's format.
            SdkError::ResponseError(response) if response.raw().status().as_u16() == 403 => {
                of_service(None, None, 403, permission)
            }
            SdkError::ResponseError(_) => Self::unreadable_response(),
            _ => of_dispatch(error),
        }
    }

    pub(super) fn timeout() -> Self {
        Self::new(
            StoreFault::Unreachable,
            format!("{STORE}, or the service of this process's identity, did not respond in time"),
            "check DNS, firewalls, network policies and credentials.egress_proxy",
        )
    }

    pub(super) fn no_region() -> Self {
        Self::new(
            StoreFault::Unreachable,
            "the AWS region is unknown",
            "set credentials.aws.region or AWS_REGION, or name the secret by its ARN",
        )
    }

    pub(super) fn no_version(stage: &str) -> Self {
        Self::new(
            StoreFault::VersionUnavailable,
            format!("no version of it has the staging label {stage}"),
            "store a value, finish the pending rotation, or correct credentials.aws.stage",
        )
    }

    pub(super) fn deleted() -> Self {
        Self::new(
            StoreFault::VersionUnavailable,
            "it is scheduled for deletion",
            "restore it (aws secretsmanager restore-secret), or set credentials.aws.secret to another one",
        )
    }

    pub(super) fn binary() -> Self {
        Self::new(StoreFault::Malformed, "its value is binary", "store the JSON object as text (--secret-string)")
    }

    pub(super) fn unreadable_response() -> Self {
        Self::new(
            StoreFault::Unreachable,
            format!("the response is not from {STORE}"),
            "check credentials.aws.endpoint, and any intermediary between this process and AWS",
        )
    }
}

/// Whether the identity is valid and lacks the permission.
pub(super) fn is_denied<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    let status = error.raw_response().map(|response| response.status().as_u16());
    match error.as_service_error().and_then(ProvideErrorMetadata::code) {
        Some(code) => code.starts_with("AccessDenied"),
        None => status == Some(403),
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn of_service(code: Option<&str>, message: Option<&str>, status: u16, permission: &str) -> Failure {
    let mentions = |text: &str| message.is_some_and(|message| message.contains(text));
    let shown = shown(code, status);
    match code.unwrap_or_default() {
        "ResourceNotFoundException" => Failure::new(
            StoreFault::NotFound,
            format!("the secret does not exist in this account and region ({shown})"),
            "correct credentials.aws.secret and credentials.aws.region; a secret in another account requires its full ARN",
        ),
        "InvalidRequestException" if mentions("deletion") || mentions("deleted") => Failure::deleted(),
        "InvalidParameterException" | "ValidationException" | "InvalidRequestException" => Failure::new(
            StoreFault::NotFound,
            format!("its name or staging label is not valid ({shown})"),
            "correct credentials.aws.secret and credentials.aws.stage",
        ),
        "DecryptionFailure" => Failure::new(
            StoreFault::VersionUnavailable,
            format!("its KMS key cannot decrypt it ({shown})"),
            "enable the KMS key, and permit kms:Decrypt on it to this identity",
        ),
        code if code.starts_with("AccessDenied") || (code.is_empty() && status == 403) => {
            let permission = if mentions("KMS") || mentions("kms:") { "kms:Decrypt on its key" } else { permission };
            Failure::new(
                StoreFault::IdentityRefused,
                format!("the identity of this process is not permitted to read it ({shown})"),
                format!("permit {permission} on this secret in the policy of its role")
                    .replace("key on this secret", "key"),
            )
        }
        "ExpiredTokenException"
        | "ExpiredToken"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "OptInRequired"
        | "NotAuthorized"
        | "AuthFailure" => Failure::new(
            StoreFault::IdentityRefused,
            format!("AWS does not accept the identity of this process ({shown})"),
            "replace its access key or session, and check the clock of this machine and credentials.aws.region",
        ),
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "SlowDown" => throttled(&shown),
        _ if status == 429 => throttled(&shown),
        _ if status >= 500 => Failure::new(
            StoreFault::Unreachable,
            format!("{STORE} failed ({shown})"),
            "wait; if the problem persists, see the AWS Health Dashboard",
        ),
        _ => Failure::new(
            StoreFault::Unreachable,
            format!("{STORE} rejected the request ({shown})"),
            "check credentials.aws.endpoint, and look up the error code in the AWS documentation",
        ),
    }
}

fn throttled(shown: &str) -> Failure {
    Failure::new(
        StoreFault::Throttled,
        format!("AWS rate limit exceeded ({shown})"),
        "increase credentials.poll_interval, or raise the quota of the account",
    )
}

/// The failure of a request that got no response from the store: the identity, the connection or the request itself failed.
fn of_dispatch(error: &(dyn Error + 'static)) -> Failure {
    if let Some(code) = sts_code(error) {
        return of_sts(code);
    }
    let identity = error_chain::find::<CredentialsError>(error);
    if let Some(transport) = error_chain::find::<TransportError>(error) {
        let peer = if identity.is_some() { "the service that issues this process's AWS identity" } else { STORE };
        if matches!(identity, None | Some(CredentialsError::ProviderError(_))) {
            let TransportFailure { fault, reason, remedy } = transport.describe(peer);
            return Failure::new(fault, reason, remedy);
        }
    }
    let reason = match identity {
        Some(CredentialsError::CredentialsNotLoaded(_)) => "this process has no AWS identity",
        Some(CredentialsError::InvalidConfiguration(_)) => {
            "the configuration of this process's AWS identity is not valid"
        }
        _ => "this process's AWS identity cannot be obtained",
    };
    Failure::new(StoreFault::NoIdentity, reason, IDENTITY)
}

/// The error code of STS, if STS did not issue the identity.
fn sts_code<'a>(error: &'a (dyn Error + 'static)) -> Option<Option<&'a str>> {
    let web_identity = error_chain::find::<AssumeRoleWithWebIdentityError>(error).map(ProvideErrorMetadata::code);
    web_identity.or_else(|| error_chain::find::<AssumeRoleError>(error).map(ProvideErrorMetadata::code))
}

fn of_sts(code: Option<&str>) -> Failure {
    let shown = shown(code, 0);
    match code.unwrap_or_default() {
        "Throttling" | "ThrottlingException" => throttled(&shown),
        "IDPCommunicationError" | "InternalFailure" | "ServiceUnavailable" => Failure::new(
            StoreFault::Unreachable,
            format!("AWS STS failed ({shown})"),
            "check that AWS can reach the identity provider; if the problem persists, see the AWS Health Dashboard",
        ),
        _ => Failure::new(
            StoreFault::IdentityRefused,
            format!("AWS STS did not issue an identity to this process ({shown})"),
            "check AWS_ROLE_ARN, the role's trust policy (sts:AssumeRoleWithWebIdentity or sts:AssumeRole for this service account), \
             and the IAM OIDC provider of the cluster",
        ),
    }
}

/// The error code as it is shown. AWS's codes are single words, so any other text is not shown.
fn shown(code: Option<&str>, status: u16) -> String {
    let is_code = |code: &&str| {
        (1..=MAX_CODE_BYTES).contains(&code.len())
            && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte))
    };
    match code.filter(is_code) {
        Some(code) => code.to_owned(),
        None if status == 0 => "without an error code".to_owned(),
        None => format!("HTTP status {status}, without an error code"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_code_maps_to_its_fault_and_remedy() {
        for (code, message, status, fault, remedy) in [
            (
                "AccessDeniedException",
                "User x",
                400,
                StoreFault::IdentityRefused,
                "permit secretsmanager:GetSecretValue on this secret",
            ),
            (
                "AccessDeniedException",
                "Access to KMS is not allowed",
                400,
                StoreFault::IdentityRefused,
                "permit kms:Decrypt on its key in",
            ),
            ("UnrecognizedClientException", "", 400, StoreFault::IdentityRefused, "access key"),
            ("ExpiredTokenException", "", 400, StoreFault::IdentityRefused, "clock"),
            ("ResourceNotFoundException", "", 400, StoreFault::NotFound, "credentials.aws.secret"),
            ("ValidationException", "", 400, StoreFault::NotFound, "credentials.aws.stage"),
            ("InvalidRequestException", "marked for deletion", 400, StoreFault::VersionUnavailable, "restore-secret"),
            ("DecryptionFailure", "", 400, StoreFault::VersionUnavailable, "kms:Decrypt"),
            ("ThrottlingException", "", 400, StoreFault::Throttled, "poll_interval"),
            ("", "", 403, StoreFault::IdentityRefused, "permit secretsmanager:GetSecretValue on this secret"),
            ("", "", 429, StoreFault::Throttled, "poll_interval"),
            ("InternalServiceError", "", 500, StoreFault::Unreachable, "wait"),
            ("Whatever", "", 400, StoreFault::Unreachable, "credentials.aws.endpoint"),
        ] {
            let code = Some(code).filter(|code| !code.is_empty());
            let failure = of_service(code, Some(message), status, READ);
            assert_eq!(failure.fault, fault, "{failure:?}");
            assert!(failure.remedy.contains(remedy), "{failure:?}");
        }
    }

    #[test]
    fn only_error_codes_are_shown() {
        for code in ["canary value", "canary\n", "canary{\"", &"a".repeat(MAX_CODE_BYTES + 1)] {
            let failure = of_service(Some(code), Some("canary"), 400, READ);
            assert!(
                failure.reason.contains("HTTP status 400, without") && !failure.reason.contains("canary"),
                "{failure:?}"
            );
        }
    }
}
