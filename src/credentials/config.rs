//! Which source credentials are read from.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use http::Uri;

use super::{Scheme, env::Variables};
use crate::secret::Secret;

/// Where credentials come from, and of which scheme they have to be. Nothing has been read yet.
#[derive(Clone, Debug)]
pub struct Config {
    /// The source (`[credentials]`).
    pub source: SourceConfig,
    /// The scheme (`auth.scheme`); `None` for that of the values that are there.
    pub scheme: Option<Scheme>,
}

/// What makes a source.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    /// Variables of the environment, or the files that they name. Values that are variables never change; files may.
    Environment(Variables),
    /// The files of this directory: a mounted Secret.
    Directory(PathBuf),
    /// A secret of AWS Secrets Manager.
    #[cfg(feature = "aws")]
    Aws(Box<(StoreConfig, AwsConfig)>),
    /// A secret of Azure Key Vault.
    #[cfg(feature = "azure")]
    Azure(Box<(StoreConfig, AzureConfig)>),
    /// A secret of Google Secret Manager.
    #[cfg(feature = "gcp")]
    Gcp(Box<(StoreConfig, GcpConfig)>),
    /// A secret of HashiCorp Vault or OpenBao.
    #[cfg(feature = "vault")]
    Vault(Box<(StoreConfig, VaultConfig)>),
}

/// The keys that are the same for every secret store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// How often the version is polled (`credentials.poll_interval`).
    pub poll_interval: Duration,
    /// The CA of the store, instead of the public ones (`credentials.ca_file`).
    pub ca_file: Option<PathBuf>,
    /// The egress proxy to the store (`credentials.egress_proxy`), without credentials. The environment's proxy variables are not
    /// read.
    pub egress_proxy: Option<Uri>,
}

/// `[credentials.aws]`.
#[derive(Clone, Debug)]
pub struct AwsConfig {
    /// The name or ARN of the secret.
    pub secret: String,
    /// The staging label.
    pub stage: String,
    /// The region; `None` for that of the ARN or of the environment.
    pub region: Option<String>,
    /// Another endpoint than AWS's own.
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
    /// The identity that the environment names.
    pub identity: AzureIdentity,
}

/// What the environment says of the identity of this process with Azure.
#[derive(Clone, Debug, Default)]
pub struct AzureIdentity {
    /// The client ID of a workload identity or a user-assigned managed identity (`AZURE_CLIENT_ID`).
    pub client_id: Option<String>,
    /// The tenant of a workload identity (`AZURE_TENANT_ID`).
    pub tenant_id: Option<String>,
    /// The file of a workload identity's token (`AZURE_FEDERATED_TOKEN_FILE`); `None` for a managed identity.
    pub token_file: Option<PathBuf>,
    /// Another origin of instance metadata than 169.254.169.254 (`AZURE_POD_IDENTITY_AUTHORITY_HOST`).
    pub imds: Option<Uri>,
}

/// `[credentials.gcp]`.
#[derive(Clone, Debug)]
pub struct GcpConfig {
    /// The resource name of the secret: `projects/P/secrets/S`, or `projects/P/locations/L/secrets/S`.
    pub secret: String,
    /// `latest`, the number of a version, or an alias of one.
    pub version: String,
    /// The endpoint of Secret Manager.
    pub endpoint: Uri,
    /// Where the identity comes from.
    pub ambient: GcpAmbient,
}

/// What the environment says of Google's Application Default Credentials.
#[derive(Clone, Debug, Default)]
pub struct GcpAmbient {
    /// The credentials file (`GOOGLE_APPLICATION_CREDENTIALS`).
    pub credentials_file: Option<PathBuf>,
    /// The file that `gcloud auth application-default login` writes. It is used where it is there and no other file is named.
    pub user_file: Option<PathBuf>,
    /// Host and port of another metadata server than Google's own (`GCE_METADATA_HOST`).
    pub metadata_host: Option<String>,
}

/// `[credentials.vault]`.
#[derive(Clone, Debug)]
pub struct VaultConfig {
    /// The address of the server.
    pub address: Uri,
    /// The mount of the KV secrets engine.
    pub mount: String,
    /// The path of the secret in it.
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
    /// Without versions of secrets.
    V1,
    /// With them.
    V2,
}

/// How to log in to Vault. Each file is read for each login.
#[derive(Clone, Debug)]
pub enum VaultAuth {
    /// With the service account token of the pod, or that of `jwt_file`.
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
    /// With a token that something else keeps in a file.
    Token {
        /// The file.
        token_file: PathBuf,
    },
}

impl SourceConfig {
    /// The credentials' variables of `environment`.
    pub fn environment(environment: &BTreeMap<String, Secret<String>>) -> Self {
        Self::Environment(Variables::new(environment))
    }
}

impl GcpAmbient {
    /// What `environment` says. Variables that are empty count as not set.
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
