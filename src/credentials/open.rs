//! Creates a source from its configuration. Separate from `config`, because the sources import that module.

#[cfg(feature = "aws")]
use super::aws::AwsStore;
#[cfg(feature = "azure")]
use super::azure::AzureStore;
#[cfg(feature = "gcp")]
use super::gcp::GcpStore;
#[cfg(feature = "store")]
use super::store::StoreSource;
#[cfg(feature = "vault")]
use super::vault::VaultStore;
use super::{config::SourceConfig, dir::DirectorySource, env::EnvironmentSource, source::CredentialSource};

impl SourceConfig {
    /// Creates the source. Nothing is read before its first load.
    pub fn open(&self) -> Box<dyn CredentialSource> {
        match self {
            Self::Environment(variables) => Box::new(EnvironmentSource::new(variables.clone())),
            Self::Directory(path) => Box::new(DirectorySource::new(path.clone())),
            #[cfg(feature = "aws")]
            Self::Aws(config) => {
                let (store, aws) = config.as_ref();
                Box::new(StoreSource::new(AwsStore::new(store, aws.clone()), store.poll_interval))
            }
            #[cfg(feature = "azure")]
            Self::Azure(config) => {
                let (store, azure) = config.as_ref();
                Box::new(StoreSource::new(AzureStore::new(store, azure.clone()), store.poll_interval))
            }
            #[cfg(feature = "gcp")]
            Self::Gcp(config) => {
                let (store, gcp) = config.as_ref();
                Box::new(StoreSource::new(GcpStore::new(store, gcp.clone()), store.poll_interval))
            }
            #[cfg(feature = "vault")]
            Self::Vault(config) => {
                let (store, vault) = config.as_ref();
                Box::new(StoreSource::new(VaultStore::new(store.clone(), vault.clone()), store.poll_interval))
            }
        }
    }
}
