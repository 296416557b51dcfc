//! `[credentials.aws]`, `[credentials.azure]`, `[credentials.gcp]`, `[credentials.vault]`: the secret stores. Every key is validated, even
//! if its store is not the source in use.

pub(super) mod azure;

use std::path::PathBuf;

use http::Uri;

use super::{
    super::{Environment, reader::Reader},
    HOUR, SECOND,
    upstream::egress_url,
};
use crate::credentials::{
    AwsConfig, GcpAmbient, GcpConfig, KvVersion, SourceConfig, StoreConfig, VaultAuth, VaultConfig,
};

/// The service account token that Kubernetes mounts into each pod.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The keys common to all stores.
pub(super) fn common(read: &mut Reader<'_>) -> StoreConfig {
    StoreConfig {
        poll_interval: read.duration("credentials.poll_interval", SECOND..=24 * HOUR),
        ca_file: read.optional("credentials.ca_file", path),
        egress_proxy: read.optional("credentials.egress_proxy", egress_url),
    }
}

/// AWS Secrets Manager. `None` if a required key is not set; that is a problem if the store is `used`.
pub(super) fn aws(read: &mut Reader<'_>, used: bool) -> Option<AwsConfig> {
    let secret = read.optional("credentials.aws.secret", text);
    let stage = read.parsed("credentials.aws.stage", text);
    let region = read.optional("credentials.aws.region", text);
    let endpoint = read.optional("credentials.aws.endpoint", endpoint);
    if secret.is_none() && used {
        read.problem(
            "credentials.aws.secret",
            "must be the name or the ARN of the secret when credentials.source is \"aws\"",
        );
    }
    Some(AwsConfig { secret: secret?, stage: stage?, region, endpoint })
}

/// The source, in builds that include it.
#[cfg(feature = "aws")]
pub(super) fn aws_source(_read: &mut Reader<'_>, store: StoreConfig, aws: Option<AwsConfig>) -> Option<SourceConfig> {
    Some(SourceConfig::Aws(Box::new((store, aws?))))
}

/// Adds a problem, because this build does not include the source.
#[cfg(not(feature = "aws"))]
pub(super) fn aws_source(read: &mut Reader<'_>, _store: StoreConfig, _aws: Option<AwsConfig>) -> Option<SourceConfig> {
    not_compiled(read, "aws")
}

/// Google Secret Manager. `None` if a required key is not set; that is a problem if the store is `used`. [`gcp_source`] adds the identity
/// from the environment.
pub(super) fn gcp(read: &mut Reader<'_>, used: bool) -> Option<GcpConfig> {
    let secret = read.optional("credentials.gcp.secret", gcp_secret);
    let version = read.parsed("credentials.gcp.version", gcp_version);
    let endpoint = read.optional("credentials.gcp.endpoint", endpoint);
    if secret.is_none() && used {
        read.problem("credentials.gcp.secret", "must be set when credentials.source is \"gcp\"");
    }
    let secret = secret?;
    let endpoint = endpoint.unwrap_or_else(|| gcp_endpoint(&secret));
    Some(GcpConfig { secret, version: version?, endpoint, ambient: GcpAmbient::default() })
}

/// The source, in builds that include it.
#[cfg(feature = "gcp")]
pub(super) fn gcp_source(
    _read: &mut Reader<'_>,
    store: StoreConfig,
    gcp: Option<GcpConfig>,
    environment: &Environment,
) -> Option<SourceConfig> {
    let gcp = GcpConfig { ambient: GcpAmbient::new(environment.variables()), ..gcp? };
    Some(SourceConfig::Gcp(Box::new((store, gcp))))
}

/// Adds a problem, because this build does not include the source.
#[cfg(not(feature = "gcp"))]
pub(super) fn gcp_source(
    read: &mut Reader<'_>,
    _store: StoreConfig,
    _gcp: Option<GcpConfig>,
    _environment: &Environment,
) -> Option<SourceConfig> {
    not_compiled(read, "gcp")
}

/// HashiCorp Vault and OpenBao. `None` if a required key is not set; that is a problem if the store is `used`.
pub(super) fn vault(read: &mut Reader<'_>, used: bool) -> Option<VaultConfig> {
    let address = read.optional("credentials.vault.address", endpoint);
    let mount = read.parsed("credentials.vault.mount", kv_path);
    let path = read.optional("credentials.vault.path", kv_path);
    let kv = if read.number("credentials.vault.kv", 1..=2) == 1 { KvVersion::V1 } else { KvVersion::V2 };
    let namespace = read.optional("credentials.vault.namespace", text);
    for (key, is_missing) in
        [("credentials.vault.address", address.is_none()), ("credentials.vault.path", path.is_none())]
    {
        if is_missing && used {
            read.problem(key, "must be set when credentials.source is \"vault\"");
        }
    }
    let auth = vault_auth(read, used);
    Some(VaultConfig { address: address?, mount: mount?, path: path?, kv, namespace, auth: auth? })
}

/// The source, in builds that include it.
#[cfg(feature = "vault")]
pub(super) fn vault_source(
    _read: &mut Reader<'_>,
    store: StoreConfig,
    vault: Option<VaultConfig>,
) -> Option<SourceConfig> {
    Some(SourceConfig::Vault(Box::new((store, vault?))))
}

/// Adds a problem, because this build does not include the source.
#[cfg(not(feature = "vault"))]
pub(super) fn vault_source(
    read: &mut Reader<'_>,
    _store: StoreConfig,
    _vault: Option<VaultConfig>,
) -> Option<SourceConfig> {
    not_compiled(read, "vault")
}

#[cfg(not(all(feature = "aws", feature = "azure", feature = "gcp", feature = "vault")))]
fn not_compiled(read: &mut Reader<'_>, store: &str) -> Option<SourceConfig> {
    let message =
        format!("this build does not include {store:?}: use the release image, or build with `--features {store}`");
    read.problem("credentials.source", message);
    None
}

fn vault_auth(read: &mut Reader<'_>, used: bool) -> Option<VaultAuth> {
    #[derive(Clone, Copy)]
    enum Method {
        Kubernetes,
        Jwt,
        AppRole,
        Token,
    }
    let methods = [
        ("kubernetes", Method::Kubernetes),
        ("jwt", Method::Jwt),
        ("approle", Method::AppRole),
        ("token", Method::Token),
    ];
    let method = read.choice("credentials.vault.auth", &methods);
    let role = read.optional("credentials.vault.role", text);
    let [token_file, role_id_file, secret_id_file, jwt_file] = [
        "credentials.vault.token_file",
        "credentials.vault.role_id_file",
        "credentials.vault.secret_id_file",
        "credentials.vault.jwt_file",
    ]
    .map(|key| read.optional(key, path));
    let needed: &[(&'static str, bool)] = match method {
        Method::Kubernetes => &[("credentials.vault.role", role.is_none())],
        Method::Jwt => {
            &[("credentials.vault.role", role.is_none()), ("credentials.vault.jwt_file", jwt_file.is_none())]
        }
        Method::AppRole => &[
            ("credentials.vault.role_id_file", role_id_file.is_none()),
            ("credentials.vault.secret_id_file", secret_id_file.is_none()),
        ],
        Method::Token => &[("credentials.vault.token_file", token_file.is_none())],
    };
    for (key, _) in needed.iter().filter(|(_, is_missing)| *is_missing && used) {
        read.problem(key, "must be set for this value of credentials.vault.auth");
    }
    Some(match method {
        Method::Kubernetes => {
            VaultAuth::Kubernetes { role: role?, jwt_file: jwt_file.unwrap_or_else(|| SERVICE_ACCOUNT_TOKEN.into()) }
        }
        Method::Jwt => VaultAuth::Jwt { role: role?, jwt_file: jwt_file? },
        Method::AppRole => VaultAuth::AppRole { role_id_file: role_id_file?, secret_id_file: secret_id_file? },
        Method::Token => VaultAuth::Token { token_file: token_file? },
    })
}

fn path(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}

/// Visible ASCII, because the value is used in headers and signatures.
fn text(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("must be visible ASCII characters without spaces".to_owned())
    }
}

/// The resource name of a global or regional secret. It is used in a URL without escaping.
fn gcp_secret(text: &str) -> Result<String, String> {
    let is_name = |name: &str, others: &[u8]| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
        name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_') && name.bytes().all(is_allowed)
    };
    // Legacy domain-scoped projects have names such as `example.com:project`.
    let is_project = |name: &str| is_name(name, b"-.:");
    let is_valid = match text.split('/').collect::<Vec<_>>()[..] {
        ["projects", project, "secrets", secret] => is_project(project) && is_name(secret, b"-_"),
        ["projects", project, "locations", location, "secrets", secret] => {
            is_project(project) && is_name(location, b"-") && is_name(secret, b"-_")
        }
        _ => false,
    };
    if is_valid {
        Ok(text.to_owned())
    } else {
        Err("must be the resource name of a secret, such as \"projects/my-project/secrets/finicity\", without a version".to_owned())
    }
}

/// The default endpoint for the secret: regional if the secret is.
fn gcp_endpoint(secret: &str) -> Uri {
    let location = secret.split_once("/locations/").and_then(|(_, rest)| rest.split('/').next());
    let endpoint = location.map(|location| format!("https://secretmanager.{location}.rep.googleapis.com"));
    let endpoint = endpoint.unwrap_or_else(|| "https://secretmanager.googleapis.com".to_owned());
    endpoint.parse().expect("a valid location is a valid part of a host name")
}

/// `latest`, a number, or an alias.
fn gcp_version(text: &str) -> Result<String, String> {
    let is_valid = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_valid && (1..=63).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err("must be \"latest\", the number of a version, or an alias of one".to_owned())
    }
}

/// A path of segments, such as `team/finicity`. It is used in a URL without escaping.
fn kv_path(text: &str) -> Result<String, String> {
    let is_segment = |segment: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(is_allowed)
    };
    if text.split('/').all(is_segment) {
        Ok(text.to_owned())
    } else {
        Err("must be a path such as \"team/finicity\": segments of letters, digits, -, _, . and ~, without a leading or trailing slash".to_owned())
    }
}

/// `https://` and a host, or plain `http://` to a loopback address.
fn endpoint(text: &str) -> Result<Uri, String> {
    let expected =
        "must be https:// and a host, such as \"https://vault.internal:8200\"; http:// only to a loopback address";
    let url: Uri = text.parse().map_err(|_| expected.to_owned())?;
    let is_bare = url.path() == "/" && url.query().is_none() && !text.contains('@');
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    let is_permitted = match url.scheme_str() {
        Some("https") => true,
        Some("http") => is_loopback,
        _ => false,
    };
    if is_bare && is_permitted && !host.is_empty() { Ok(url) } else { Err(expected.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_https_or_loopback_http() {
        for good in [
            "https://vault.internal:8200",
            "https://10.0.0.1",
            "http://127.0.0.1:8200",
            "http://[::1]:1",
            "http://localhost/",
        ] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "vault.internal",
            "http://vault.internal",
            "http://127.0.0.1.evil.test",
            "https://a@b",
            "https://h/v1",
            "https://h?x",
            "ftp://h",
        ] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_google_secret_is_a_resource_name_with_an_endpoint() {
        for (name, host) in [
            ("projects/my-project/secrets/finicity_prod", "secretmanager.googleapis.com"),
            ("projects/123456789012/secrets/F-1", "secretmanager.googleapis.com"),
            ("projects/example.com:old/secrets/f", "secretmanager.googleapis.com"),
            ("projects/my-project/locations/europe-west3/secrets/f", "secretmanager.europe-west3.rep.googleapis.com"),
        ] {
            assert_eq!(gcp_secret(name).as_deref(), Ok(name));
            assert_eq!(gcp_endpoint(name).host(), Some(host));
        }
        for bad in [
            "",
            "finicity",
            "projects/p/secrets/",
            "projects//secrets/f",
            "projects/../secrets/f",
            "projects/p/secrets/..",
            "projects/p/secrets/f/versions/latest",
            "/projects/p/secrets/f",
            "projects/p/secrets/f?x",
            "projects/p/secrets/a b",
            "projects/p/locations/evil.test/secrets/f",
            "projects/p/locations/-/secrets/f",
        ] {
            assert!(gcp_secret(bad).is_err(), "{bad}");
        }
        for good in ["latest", "1", "blue-2_x"] {
            assert!(gcp_version(good).is_ok(), "{good}");
        }
        for bad in ["", "1:access", "a/b", "1 ", &"1".repeat(64)] {
            assert!(gcp_version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_kv_path_is_plain_segments() {
        for good in ["secret", "team/finicity", "a.b/c_d-e~"] {
            assert!(kv_path(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "a/../b", ".", "a b", "a?b", "a%2fb"] {
            assert!(kv_path(bad).is_err(), "{bad}");
        }
    }
}
