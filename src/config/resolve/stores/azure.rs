//! `[credentials.azure]`: Azure Key Vault, and the environment variables of the identity.

use std::path::PathBuf;

use http::{Uri, uri::Scheme};

use super::{
    super::super::{Environment, reader::Reader},
    endpoint,
};
use crate::{
    credentials::{AzureConfig, AzureIdentity, SourceConfig, StoreConfig},
    secret::Secret,
};

/// The variable that overrides the origin of instance metadata. Azure SDKs of other languages use the same name.
const IMDS: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";

/// Azure's limit.
const MAX_SECRET_BYTES: usize = 127;

/// Twice the length of the versions that Azure generates.
const MAX_VERSION_BYTES: usize = 64;

/// The keys and the identity. `None` if a required key is not set; that is a problem if the store is `used`.
pub(in crate::config::resolve) fn config(
    read: &mut Reader<'_>,
    environment: &Environment,
    used: bool,
) -> Option<AzureConfig> {
    let vault_url = read.optional("credentials.azure.vault_url", vault_url);
    let secret = read.optional("credentials.azure.secret", secret);
    let version = read.optional("credentials.azure.version", version);
    if vault_url.is_none() && used {
        read.problem(
            "credentials.azure.vault_url",
            "must be the address of the vault when credentials.source is \"azure\"",
        );
    }
    if secret.is_none() && used {
        read.problem("credentials.azure.secret", "must be the name of the secret when credentials.source is \"azure\"");
    }
    let identity = identity(environment).unwrap_or_else(|| {
        if used {
            read.problem("credentials.source", format!("{IMDS} must be http:// and a host"));
        }
        AzureIdentity::default()
    });
    Some(AzureConfig { vault_url: vault_url?, secret: secret?, version, identity })
}

/// The source, in builds that include it.
#[cfg(feature = "azure")]
pub(in crate::config::resolve) fn source(
    _read: &mut Reader<'_>,
    store: StoreConfig,
    azure: Option<AzureConfig>,
) -> Option<SourceConfig> {
    Some(SourceConfig::Azure(Box::new((store, azure?))))
}

/// Adds a problem, because this build does not include the source.
#[cfg(not(feature = "azure"))]
pub(in crate::config::resolve) fn source(
    read: &mut Reader<'_>,
    _store: StoreConfig,
    _azure: Option<AzureConfig>,
) -> Option<SourceConfig> {
    super::not_compiled(read, "azure")
}

/// The identity from the environment. `None` if a variable is invalid.
fn identity(environment: &Environment) -> Option<AzureIdentity> {
    let variable = |name: &str| {
        let value = environment.variables().get(name).map(Secret::expose);
        value.filter(|value| !value.is_empty()).cloned()
    };
    let imds = match variable(IMDS) {
        Some(origin) => Some(metadata_origin(&origin)?),
        None => None,
    };
    Some(AzureIdentity {
        client_id: variable("AZURE_CLIENT_ID"),
        tenant_id: variable("AZURE_TENANT_ID"),
        token_file: variable("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from),
        imds,
    })
}

/// An `http://` origin without a path. The transport restricts it to loopback and link-local addresses.
fn metadata_origin(text: &str) -> Option<Uri> {
    let origin: Uri = text.parse().ok()?;
    (origin.scheme() == Some(&Scheme::HTTP) && origin.path() == "/" && origin.query().is_none()).then_some(origin)
}

/// `https://` and a host, because the SDK sends no token without TLS.
fn vault_url(text: &str) -> Result<Uri, String> {
    let url = endpoint(text).ok().filter(|url| url.scheme() == Some(&Scheme::HTTPS));
    url.ok_or_else(|| "must be https:// and a host, such as \"https://finicity.vault.azure.net\"".to_owned())
}

fn secret(text: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=MAX_SECRET_BYTES).contains(&text.len()) && text.bytes().all(is_allowed) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "must be the name of a secret: 1 to {MAX_SECRET_BYTES} letters, digits and dashes, without its URL"
        ))
    }
}

fn version(text: &str) -> Result<String, String> {
    if (1..=MAX_VERSION_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        Ok(text.to_owned())
    } else {
        Err("must be the ID of a version, such as \"4387e9f3d6e14c459867679a90fd0f79\", without its URL".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_url_is_https_and_a_host() {
        for good in ["https://finicity.vault.azure.net", "https://finicity.vault.azure.cn/", "https://v.test:8443"] {
            assert!(vault_url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "finicity",
            "finicity.vault.azure.net",
            "http://localhost:1",
            "https://finicity.vault.azure.net/secrets/finicity",
        ] {
            assert!(vault_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_versions_cannot_change_the_path() {
        assert!(secret("finicity-prod-1").is_ok() && version("4387e9f3d6e14c459867679a90fd0f79").is_ok());
        for bad in ["", ".", "..", "a/b", "a?b", "a%2fb", "a b", "a_b", &"a".repeat(MAX_SECRET_BYTES + 1)] {
            assert!(secret(bad).is_err() && version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_identity_is_read_from_the_environment() {
        let mut environment = Environment::default();
        environment.set("AZURE_CLIENT_ID", "id");
        environment.set("AZURE_TENANT_ID", "");
        environment.set("AZURE_FEDERATED_TOKEN_FILE", "/token");
        let AzureIdentity { client_id, tenant_id, token_file, imds } = identity(&environment).unwrap();
        assert_eq!((client_id.as_deref(), tenant_id, imds), (Some("id"), None, None));
        assert_eq!(token_file, Some(PathBuf::from("/token")));
        environment.set(IMDS, "http://127.0.0.1:40342");
        assert!(identity(&environment).unwrap().imds.is_some());
        for bad in ["127.0.0.1", "https://127.0.0.1", "http://127.0.0.1/path", "http://a b"] {
            environment.set(IMDS, bad);
            assert!(identity(&environment).is_none(), "{bad}");
        }
    }
}
