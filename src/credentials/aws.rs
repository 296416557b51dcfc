//! AWS Secrets Manager, by the AWS SDK.
//!
//! The identity comes from the environment of the process, by the SDK's default chain: variables, profile, web identity (IRSA), container
//! credentials (ECS, EKS Pod Identity) or instance metadata (IMDSv2).
//!
//! A poll is a `DescribeSecret`, which returns the version with the staging label and transfers no secret. If the identity lacks that
//! permission, polls use `GetSecretValue`, so that this one permission is sufficient.
//!
//! Deliberately absent: retries by the SDK (the next poll is the retry), and SSO and `credential_process`, which need a browser or a process.

mod connector;
mod failure;

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, identity::IdentityCache, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_secretsmanager::{
    Client, config,
    error::SdkError,
    operation::{describe_secret::DescribeSecretOutput, get_secret_value::GetSecretValueOutput},
};
use tokio::time::timeout;
use tracing::info;

use self::failure::{DESCRIBE, Failure, READ};
use super::{
    config::{AwsConfig, StoreConfig},
    store::{SecretStore, StoredSecret, Transport},
    store_error::{StoreError, StoreFault},
};
use crate::secret::Secret;

/// The maximum time to obtain an identity. It may take several requests, and outside AWS the metadata service does not respond.
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum time for one operation, including its identity.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);

/// The maximum time for a poll or a read, which may be two operations after determining the region.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(45);

/// One secret in AWS Secrets Manager.
#[derive(Debug)]
pub(super) struct AwsStore {
    config: AwsConfig,
    transport: Transport,
    /// Holds the identity. Created by the first request, and again after a request that failed because of the identity.
    client: Option<Client>,
    /// Whether `DescribeSecret` was denied to the identity of `client`. Not repeated, because a denied request may raise an alarm.
    cannot_describe: bool,
}

impl SecretStore for AwsStore {
    const KIND: &'static str = "aws";

    fn description(&self) -> String {
        format!("secret {} in AWS Secrets Manager", self.config.secret)
    }

    async fn version(&mut self) -> Result<String, StoreError> {
        let result = timeout(TOTAL_TIMEOUT, self.present_version()).await;
        self.finish(result.unwrap_or_else(|_| Err(Failure::timeout())))
    }

    async fn read(&mut self) -> Result<StoredSecret, StoreError> {
        let result = timeout(TOTAL_TIMEOUT, self.present_secret()).await;
        self.finish(result.unwrap_or_else(|_| Err(Failure::timeout())))
    }
}

impl AwsStore {
    pub(super) fn new(store: &StoreConfig, config: AwsConfig) -> Self {
        Self { config, transport: Transport::new(store), client: None, cannot_describe: false }
    }

    async fn present_version(&mut self) -> Result<String, Failure> {
        if !self.cannot_describe {
            let described = self.client().await?.describe_secret().secret_id(&self.config.secret).send().await;
            match described {
                Ok(description) => return version_of(&description, &self.config.stage),
                Err(error) if failure::is_denied(&error) => {
                    info!(secret = %self.config.secret, "secretsmanager:DescribeSecret is not permitted; polling with GetSecretValue");
                    self.cannot_describe = true;
                }
                Err(error) => return Err(Failure::of(&error, DESCRIBE)),
            }
        }
        self.present_secret().await.map(|secret| secret.version)
    }

    async fn present_secret(&mut self) -> Result<StoredSecret, Failure> {
        let client = self.client().await?;
        let request = client.get_secret_value().secret_id(&self.config.secret).version_stage(&self.config.stage);
        match request.send().await {
            Ok(secret) => stored(secret),
            Err(error) if is_without_version(&error) => Err(Failure::no_version(&self.config.stage)),
            Err(error) => Err(Failure::of(&error, READ)),
        }
    }

    /// The client; created if there is none.
    async fn client(&mut self) -> Result<Client, Failure> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let limits = TimeoutConfig::builder().operation_timeout(OPERATION_TIMEOUT).build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(connector::Client(self.transport.clone()))
            .identity_cache(IdentityCache::lazy().load_timeout(IDENTITY_TIMEOUT).build())
            .retry_config(RetryConfig::disabled())
            .timeout_config(limits);
        if let Some(region) = self.config.region.as_deref().or_else(|| region_of(&self.config.secret)) {
            loader = loader.region(Region::new(region.to_owned()));
        }
        let shared = loader.load().await;
        if shared.region().is_none() {
            return Err(Failure::no_region());
        }
        let mut builder = config::Builder::from(&shared);
        if let Some(endpoint) = &self.config.endpoint {
            builder = builder.endpoint_url(endpoint.to_string());
        }
        let client = Client::from_conf(builder.build());
        self.client = Some(client.clone());
        Ok(client)
    }

    /// Adds the name of the secret to an error. Discards an identity that caused the error, so that the next request obtains another one.
    fn finish<T>(&mut self, result: Result<T, Failure>) -> Result<T, StoreError> {
        result.map_err(|failure| {
            if matches!(failure.fault, StoreFault::NoIdentity | StoreFault::IdentityRefused) {
                self.client = None;
                self.cannot_describe = false;
            }
            let Failure { fault, reason, remedy } = failure;
            StoreError { fault, secret: self.description(), reason, remedy, cause: None }
        })
    }
}

/// The region in an ARN; `None` for a name.
fn region_of(secret: &str) -> Option<&str> {
    let mut parts = secret.split(':');
    let is_arn = parts.next() == Some("arn") && parts.nth(1) == Some("secretsmanager");
    parts.next().filter(|region| is_arn && !region.is_empty())
}

/// The version with the label `stage`.
fn version_of(description: &DescribeSecretOutput, stage: &str) -> Result<String, Failure> {
    if description.deleted_date().is_some() {
        return Err(Failure::deleted());
    }
    let versions = description.version_ids_to_stages().into_iter().flatten();
    let mut labelled = versions.filter(|(_, stages)| stages.iter().any(|label| label == stage));
    labelled.next().map(|(version, _)| version.clone()).ok_or_else(|| Failure::no_version(stage))
}

/// The secret in the response. Moves the text out of it, so that no other copy remains.
fn stored(secret: GetSecretValueOutput) -> Result<StoredSecret, Failure> {
    let GetSecretValueOutput { version_id, secret_string, .. } = secret;
    match (version_id, secret_string) {
        (Some(version), Some(text)) => Ok(StoredSecret { version, text: Secret::new(text) }),
        (Some(_), None) => Err(Failure::binary()),
        (None, text) => {
            drop(text.map(Secret::new));
            Err(Failure::unreadable_response())
        }
    }
}

/// Whether the secret exists but no version has the staging label. The error code is the same as for a missing secret.
fn is_without_version<E>(error: &SdkError<E>) -> bool
where
    E: aws_sdk_secretsmanager::error::ProvideErrorMetadata,
{
    let error = error.as_service_error();
    error.is_some_and(|error| error.message().is_some_and(|message| message.contains("staging label")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_that_of_the_arn() {
        let arn = "arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:finicity/prod-AbCdEf";
        assert_eq!(region_of(arn), Some("us-gov-west-1"));
        for name in ["finicity/prod", "arn:aws:iam:eu-west-1:1:x", "arn:aws:secretsmanager::1:secret:x", "arn", ""] {
            assert_eq!(region_of(name), None, "{name}");
        }
    }

    #[test]
    fn the_version_is_the_one_with_the_label() {
        let description = DescribeSecretOutput::builder()
            .version_ids_to_stages("1", vec!["AWSPREVIOUS".to_owned()])
            .version_ids_to_stages("2", vec!["other".to_owned(), "AWSCURRENT".to_owned()])
            .build();
        assert_eq!(version_of(&description, "AWSCURRENT").unwrap(), "2");
        assert_eq!(version_of(&description, "AWSPENDING").unwrap_err().fault, StoreFault::VersionUnavailable);
        let empty = DescribeSecretOutput::builder().build();
        assert_eq!(version_of(&empty, "AWSCURRENT").unwrap_err().fault, StoreFault::VersionUnavailable);
    }
}
