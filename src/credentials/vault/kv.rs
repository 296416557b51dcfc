//! The KV secrets engine: paths and responses.

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use http::StatusCode;
use ring::hmac;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{failure::Failure, response::Response};
use crate::{
    credentials::{KvVersion, StoreFault, VaultAuth, VaultConfig},
    secret::{Secret, ShownPath},
};

/// One version of a secret.
pub(super) struct StoredVersion {
    pub(super) version: String,
    /// The JSON object, as the server sent it.
    pub(super) text: Secret<String>,
}

/// The other possible cause of a forbidden read, in addition to the policy.
const CHECK_PATH: &str =
    "also check credentials.vault.mount and credentials.vault.kv, because the response is the same for a missing mount";

/// The path to read, which the policy must permit.
pub(super) fn path(config: &VaultConfig) -> String {
    let VaultConfig { mount, path, .. } = config;
    match config.kv {
        KvVersion::V1 => format!("{mount}/{path}"),
        KvVersion::V2 => format!("{mount}/data/{path}"),
    }
}

/// The secret in `response` to a read. If the engine has no versions, a hash of the content with `key` serves as one.
pub(super) fn read(response: &Response, config: &VaultConfig, key: &hmac::Key) -> Result<StoredVersion, Failure> {
    if let Some(failure) = Failure::of_server(response) {
        return Err(failure);
    }
    match response.status {
        StatusCode::OK => match config.kv {
            KvVersion::V1 => read_v1(response, key),
            KvVersion::V2 => read_v2(response, config),
        },
        StatusCode::NOT_FOUND => Err(not_found(response, config)),
        status => Err(Failure::not_vault(status)),
    }
}

fn read_v1(response: &Response, key: &hmac::Key) -> Result<StoredVersion, Failure> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }

    let body: Body<'_> = parse(response)?;
    // The server sorts the members, so equal content has equal text.
    let version = BASE64_STANDARD_NO_PAD.encode(hmac::sign(key, body.data.get().as_bytes()));
    Ok(StoredVersion { version, text: body.data.get().into() })
}

/// `data` in a response of KV version 2.
#[derive(Deserialize)]
struct DataV2<'a> {
    /// `null` if the version is deleted or destroyed.
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: MetadataV2<'a>,
}

#[derive(Deserialize)]
struct MetadataV2<'a> {
    version: u64,
    created_time: &'a str,
    destroyed: bool,
}

#[derive(Deserialize)]
struct BodyV2<'a> {
    #[serde(borrow)]
    data: DataV2<'a>,
}

fn read_v2(response: &Response, config: &VaultConfig) -> Result<StoredVersion, Failure> {
    let BodyV2 { data: DataV2 { data, metadata } } = parse(response)?;
    let text = data.ok_or_else(|| unavailable(&metadata, config))?.get().into();
    // With the creation time, because a secret that is deleted with its metadata and written again restarts at version 1.
    Ok(StoredVersion { version: format!("{} of {}", metadata.version, metadata.created_time), text })
}

fn parse<'a, T: Deserialize<'a>>(response: &'a Response) -> Result<T, Failure> {
    serde_json::from_slice(&response.body).map_err(|_| Failure::not_vault(response.status))
}

/// The failure for a 403 response to a read. Vault sends the same response for an invalid token as for one without the permission;
/// `is_accepted` means that the token is valid.
pub(super) fn forbidden(config: &VaultConfig, is_accepted: bool) -> Failure {
    let path = path(config);
    let grant = format!("add this to its policies: path \"{path}\" {{ capabilities = [\"read\"] }}");
    let (reason, remedy) = match &config.auth {
        VaultAuth::Token { token_file } if !is_accepted => (
            format!("the token has expired or was revoked, or its policies do not permit reading {path} (403)"),
            format!("put a valid token in {} (credentials.vault.token_file), or {grant}", ShownPath::new(token_file)),
        ),
        _ => (
            format!("the policies of this identity do not permit reading {path} (403)"),
            format!("{grant}; {CHECK_PATH}"),
        ),
    };
    Failure::new(StoreFault::IdentityRefused, reason, remedy)
}

fn not_found(response: &Response, config: &VaultConfig) -> Failure {
    if let Ok(BodyV2 { data }) = parse(response) {
        return unavailable(&data.metadata, config);
    }
    let not_found = |reason: String, remedy: String| Failure::new(StoreFault::NotFound, reason, remedy);
    let VaultConfig { mount, path: name, .. } = config;
    if response.mentions("no handler for route") {
        return not_found(
            format!("there is no secrets engine at {mount} (404)"),
            "set credentials.vault.mount to the path of the KV secrets engine, and credentials.vault.namespace to its namespace".to_owned(),
        );
    }
    if config.kv == KvVersion::V1 && response.mentions("versioned") {
        return not_found(
            format!("the secrets engine at {mount} is KV version 2 (404)"),
            "set credentials.vault.kv to 2".to_owned(),
        );
    }
    let other = match config.kv {
        KvVersion::V1 => "2",
        KvVersion::V2 => "1",
    };
    not_found(
        format!("there is no secret at {} (404)", path(config)),
        format!(
            "write it (`vault kv put -mount={mount} {name} client_id=… client_secret=… app_key=…`), or correct credentials.vault.path, \
             or set credentials.vault.kv to {other} if that is the version of the engine"
        ),
    )
}

fn unavailable(metadata: &MetadataV2<'_>, config: &VaultConfig) -> Failure {
    let VaultConfig { mount, path, .. } = config;
    let version = metadata.version;
    let write = "write a new version";
    let (state, remedy) = if metadata.destroyed {
        ("destroyed", write.to_owned())
    } else {
        ("deleted", format!("restore it (`vault kv undelete -mount={mount} -versions={version} {path}`), or {write}"))
    };
    Failure::new(StoreFault::VersionUnavailable, format!("its newest version, {version}, is {state} (404)"), remedy)
}
