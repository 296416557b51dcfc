//! Configuration of the credential source.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use http::Uri;

use super::{Scheme, env::Variables};
use crate::secret::Secret;

/// The source and the scheme of the credentials.
#[derive(Clone, Debug)]
pub struct Config {
    /// The source (`[credentials]`).
    pub source: SourceConfig,
    /// The scheme (`auth.scheme`); `None` to select the scheme that has values in the source.
    pub scheme: Option<Scheme>,
}

/// A source and its settings.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    /// Environment variables, or the files that they name.
    Environment(Variables),
    /// The files in this directory: a mounted Secret.
    Directory(PathBuf),
    /// A secret in AWS Secrets Manager.
    #[cfg(feature = "aws")]
    Aws(Box<(StoreConfig, AwsConfig)>),
    /// A secret in Azure Key Vault.
    #[cfg(feature = "azure")]
    Azure(Box<(StoreConfig, AzureConfig)>),
    /// A secret in Google Secret Manager.
    #[cfg(feature = "gcp")]
    Gcp(Box<(StoreConfig, GcpConfig)>),
    /// A secret in HashiCorp Vault or OpenBao.
    #[cfg(feature = "vault")]
    Vault(Box<(StoreConfig, VaultConfig)>),
}

/// The keys that all secret stores share.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The interval between polls of the version (`credentials.poll_interval`).
    pub poll_interval: Duration,
    /// The CA of the store, in place of the public CAs (`credentials.ca_file`).
    pub ca_file: Option<PathBuf>,
    /// The egress proxy for the store (`credentials.egress_proxy`), without credentials. The environment's proxy variables are
    /// ignored.
    pub egress_proxy: Option<Uri>,
}

/// `[credentials.aws]`.
#[derive(Clone, Debug)]
pub struct AwsConfig {
    /// The name or ARN of the secret.
    pub secret: String,
    /// The staging label.
    pub stage: String,
    /// The region; `None` to take it from the ARN or the environment.
    pub region: Option<String>,
    /// An endpoint in place of AWS's own.
    pub endpoint: Option<Uri>,
}

/// `[credentials.azure]`.
#[derive(Clone, Debug)]
pub struct AzureConfig {
    /// The address of the vault.
    pub vault_url: Uri,
    /// The name of the secret.
    pub secret: String,
    /// The version; `None` for the newest.
    pub version: Option<String>,
    /// The identity from the environment.
    pub identity: AzureIdentity,
}

/// The Azure identity of this process, from the environment.
#[derive(Clone, Debug, Default)]
pub struct AzureIdentity {
    /// The client ID of a workload identity or a user-assigned managed identity (`AZURE_CLIENT_ID`).
    pub client_id: Option<String>,
    /// The tenant of a workload identity (`AZURE_TENANT_ID`).
    pub tenant_id: Option<String>,
    /// The token file of a workload identity (`AZURE_FEDERATED_TOKEN_FILE`); `None` for a managed identity.
    pub token_file: Option<PathBuf>,
    /// An origin for instance metadata in place of 169.254.169.254 (`AZURE_POD_IDENTITY_AUTHORITY_HOST`).
    pub imds: Option<Uri>,
}

/// `[credentials.gcp]`.
#[derive(Clone, Debug)]
pub struct GcpConfig {
    /// The resource name of the secret: `projects/P/secrets/S`, or `projects/P/locations/L/secrets/S`.
    pub secret: String,
    /// `latest`, a version number, or a version alias.
    pub version: String,
    /// The endpoint of Secret Manager.
    pub endpoint: Uri,
    /// Where the identity comes from.
    pub ambient: GcpAmbient,
}

/// Google's Application Default Credentials, from the environment.
#[derive(Clone, Debug, Default)]
pub struct GcpAmbient {
    /// The credentials file (`GOOGLE_APPLICATION_CREDENTIALS`).
    pub credentials_file: Option<PathBuf>,
    /// The file that `gcloud auth application-default login` writes. Used if it exists and `credentials_file` is not set.
    pub user_file: Option<PathBuf>,
    /// Host and port of a metadata server in place of Google's own (`GCE_METADATA_HOST`).
    pub metadata_host: Option<String>,
}

/// `[credentials.vault]`.
#[derive(Clone, Debug)]
pub struct VaultConfig {
    /// The address of the server.
    pub address: Uri,
    /// The mount of the KV secrets engine.
    pub mount: String,
    /// The path of the secret in the mount.
    pub path: String,
    /// The version of the engine.
    pub kv: KvVersion,
    /// The namespace.
    pub namespace: Option<String>,
    /// How to log in.
    pub auth: VaultAuth,
}

/// The version of Vault's KV secrets engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvVersion {
    /// Does not keep versions of a secret.
    V1,
    /// Keeps versions of a secret.
    V2,
}

/// How to log in to Vault. Each file is read for each login.
#[derive(Clone, Debug)]
pub enum VaultAuth {
    /// With the service account token in `jwt_file`.
    Kubernetes {
        /// The role.
        role: String,
        /// The file of the token.
        jwt_file: PathBuf,
    },
    /// With a JSON Web Token.
    Jwt {
        /// The role.
        role: String,
        /// The file of the token.
        jwt_file: PathBuf,
    },
    /// With a role id and a secret id.
    AppRole {
        /// The file of the role id.
        role_id_file: PathBuf,
        /// The file of the secret id.
        secret_id_file: PathBuf,
    },
    /// With a token that another program maintains in a file.
    Token {
        /// The file.
        token_file: PathBuf,
    },
}

impl SourceConfig {
    /// The environment as a source: selects the credential variables.
    pub fn environment(environment: &BTreeMap<String, Secret<String>>) -> Self {
        Self::Environment(Variables::new(environment))
    }
}

impl GcpAmbient {
    /// Reads the variables of `environment`. Empty variables count as unset.
    pub fn new(environment: &BTreeMap<String, Secret<String>>) -> Self {
        let variable = |name: &str| environment.get(name).map(Secret::expose).filter(|value| !value.is_empty());
        let gcloud = variable("CLOUDSDK_CONFIG").map(PathBuf::from);
        let gcloud = gcloud.or_else(|| Some(Path::new(variable("HOME")?).join(".config/gcloud")));
        Self {
            credentials_file: variable("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from),
            user_file: gcloud.map(|dir| dir.join("application_default_credentials.json")),
            metadata_host: variable("GCE_METADATA_HOST").cloned(),
        }
    }
}
