//! The credentials file of Application Default Credentials. It is read for each token, so that no key stays in memory and a replaced file
//! takes effect.
//!
//! Deliberately absent: programs that return a token (`executable`), AWS request signatures, client certificates, and universe domains
//! other than `googleapis.com`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    str,
};

use http::Uri;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::failure::Failure;
use crate::{
    credentials::{config::GcpAmbient, problem::MAX_FILE_BYTES, store_error::StoreFault},
    secret::ShownPath,
};

/// The content of a credentials file.
pub(super) enum CredentialsFile {
    /// The key of a service account.
    ServiceAccount(ServiceAccountKey),
    /// Workload identity federation.
    ExternalAccount(Box<ExternalAccount>),
    /// A user, from `gcloud auth application-default login`.
    AuthorizedUser(AuthorizedUser),
}

/// `service_account`.
#[derive(Deserialize)]
pub(super) struct ServiceAccountKey {
    pub(super) client_email: String,
    pub(super) private_key_id: String,
    /// PKCS #8, in PEM.
    pub(super) private_key: Zeroizing<String>,
}

/// `external_account`.
#[derive(Deserialize)]
pub(super) struct ExternalAccount {
    pub(super) audience: String,
    pub(super) subject_token_type: String,
    #[serde(deserialize_with = "url")]
    pub(super) token_url: Uri,
    #[serde(default, deserialize_with = "optional_url")]
    pub(super) service_account_impersonation_url: Option<Uri>,
    pub(super) service_account_impersonation: Option<Impersonation>,
    pub(super) credential_source: CredentialSource,
}

#[derive(Deserialize)]
pub(super) struct Impersonation {
    pub(super) token_lifetime_seconds: Option<u32>,
}

/// The source of the identity provider's token.
#[derive(Deserialize)]
pub(super) struct CredentialSource {
    pub(super) file: Option<PathBuf>,
    #[serde(default, deserialize_with = "optional_url")]
    pub(super) url: Option<Uri>,
    pub(super) headers: Option<BTreeMap<String, Zeroizing<String>>>,
    /// `None` for plain text.
    pub(super) format: Option<TokenFormat>,
    /// Set for AWS, in which case `url` does not return a token.
    pub(super) environment_id: Option<String>,
}

/// The format of the token.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum TokenFormat {
    Text,
    Json { subject_token_field_name: String },
}

/// `authorized_user`.
#[derive(Deserialize)]
pub(super) struct AuthorizedUser {
    pub(super) client_id: String,
    pub(super) client_secret: Zeroizing<String>,
    pub(super) refresh_token: Zeroizing<String>,
    pub(super) quota_project_id: Option<String>,
    #[serde(default = "user_token_url", deserialize_with = "url")]
    pub(super) token_uri: Uri,
}

/// The path of the file, if there is one: from `GOOGLE_APPLICATION_CREDENTIALS`, or else the file of `gcloud` if it exists.
pub(super) fn path(ambient: &GcpAmbient) -> Option<&Path> {
    let user_file = ambient.user_file.as_deref().filter(|path| path.exists());
    ambient.credentials_file.as_deref().or(user_file)
}

/// Reads the file at `path`.
pub(super) fn read(path: &Path) -> Result<CredentialsFile, Failure> {
    #[derive(Deserialize)]
    struct Header {
        r#type: String,
        universe_domain: Option<String>,
    }

    let text = read_text("credentials file", path)?;
    let Header { r#type, universe_domain } = parse(&text, path)?;
    if universe_domain.is_some_and(|domain| !["", "googleapis.com"].contains(&&*domain)) {
        return Err(unusable("credentials file", path, "has a universe_domain other than googleapis.com"));
    }
    match &*r#type {
        "service_account" => parse(&text, path).map(CredentialsFile::ServiceAccount),
        "external_account" => parse(&text, path).map(|file| CredentialsFile::ExternalAccount(Box::new(file))),
        "authorized_user" => parse(&text, path).map(CredentialsFile::AuthorizedUser),
        _ => Err(unusable(
            "credentials file",
            path,
            "has an unsupported type: it must be service_account, external_account or authorized_user",
        )),
    }
}

/// The text in the file at `path`. Errors call the file `what`.
pub(super) fn read_text(what: &str, path: &Path) -> Result<Zeroizing<String>, Failure> {
    let read = || {
        // Checked before opening, because opening a pipe blocks until it has a writer.
        if !fs::metadata(path)?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES + 1));
        File::open(path)?.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error: io::Error| {
        let problem = match error.kind() {
            io::ErrorKind::NotFound => "does not exist",
            io::ErrorKind::PermissionDenied => "cannot be read: permission denied",
            _ => "cannot be read",
        };
        unusable(what, path, problem)
    })?;
    match str::from_utf8(&bytes) {
        Ok(text) if text.len() <= MAX_FILE_BYTES => Ok(Zeroizing::new(text.to_owned())),
        _ => Err(unusable(what, path, "is not UTF-8 text of at most 64 KiB")),
    }
}

/// The failure if the file at `path` provides no identity. `what` is what the error calls the file.
pub(super) fn unusable(what: &str, path: &Path, problem: &str) -> Failure {
    let path = ShownPath::new(path).to_string().replace(char::is_control, "\u{fffd}");
    Failure::new(
        StoreFault::NoIdentity,
        format!("the {what} {path} {problem}"),
        "correct the file, its volume and permissions, or GOOGLE_APPLICATION_CREDENTIALS",
    )
}

/// Errors show only the position, because the parser's message may quote the file.
fn parse<'a, T: Deserialize<'a>>(text: &'a str, path: &Path) -> Result<T, Failure> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_json::from_str(text).map_err(|error| {
        let problem = format!(
            "is not a Google credentials file, or lacks a member that its type requires (line {}, column {})",
            error.line(),
            error.column()
        );
        unusable("credentials file", path, &problem)
    })
}

/// The token endpoint for users.
fn user_token_url() -> Uri {
    Uri::from_static("https://oauth2.googleapis.com/token")
}

fn url<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
    parse_url(&String::deserialize(deserializer)?)
}

fn optional_url<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Uri>, D::Error> {
    Option::<String>::deserialize(deserializer)?.map(|text| parse_url(&text)).transpose()
}

fn parse_url<E: serde::de::Error>(text: &str) -> Result<Uri, E> {
    let url = text.parse::<Uri>().ok().filter(|url| url.scheme().is_some() && url.host().is_some());
    url.ok_or_else(|| E::custom("not a URL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<CredentialsFile, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adc.json");
        fs::write(&path, text).unwrap();
        super::read(&path)
    }

    #[test]
    fn each_supported_type_is_read() {
        let key =
            r#"{"type": "service_account", "client_email": "e", "private_key_id": "i", "private_key": "a\nb", "x": 1}"#;
        assert!(matches!(read(key), Ok(CredentialsFile::ServiceAccount(key)) if *key.private_key == "a\nb"));
        let user = r#"{"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r"}"#;
        assert!(matches!(read(user), Ok(CredentialsFile::AuthorizedUser(_))));
        let external = r#"{"universe_domain": "googleapis.com", "type": "external_account", "audience": "a", "subject_token_type": "t",
            "token_url": "https://sts.googleapis.com/v1/token", "credential_source": {"file": "/f", "format": {"type": "json",
            "subject_token_field_name": "access_token"}}, "service_account_impersonation": {"token_lifetime_seconds": 600}}"#;
        let Ok(CredentialsFile::ExternalAccount(external)) = read(external) else { panic!() };
        assert_eq!(external.service_account_impersonation.unwrap().token_lifetime_seconds, Some(600));
        assert!(external.service_account_impersonation_url.is_none());
        let nulls = r#"{"type": "external_account", "audience": "a", "subject_token_type": "t", "token_url": "https://h/",
            "service_account_impersonation_url": null, "service_account_impersonation": null, "universe_domain": "",
            "credential_source": {"file": null, "url": "http://h/", "headers": null, "format": null, "environment_id": null}}"#;
        assert!(matches!(read(nulls), Ok(CredentialsFile::ExternalAccount(_))));
    }

    #[test]
    fn an_error_describes_the_file_and_never_shows_its_content() {
        for (text, expected) in [
            ("", "(line 1, column 0)"),
            ("canary", "is not a Google credentials file"),
            (r#"{"type": "canary"}"#, "has an unsupported type"),
            (r#"{"type": "impersonated_service_account"}"#, "has an unsupported type"),
            (r#"{"type": "service_account", "private_key": "canary"}"#, "lacks a member that its type requires"),
            (r#"{"type": "service_account", "universe_domain": "canary.test"}"#, "has a universe_domain other than"),
            (
                r#"{"type": "external_account", "audience": "a", "subject_token_type": "t", "token_url": "canary", "credential_source": {}}"#,
                "lacks a member that its type requires",
            ),
        ] {
            let Err(failure) = read(text) else { panic!("{text}") };
            assert_eq!(failure.fault, StoreFault::NoIdentity);
            assert!(failure.reason.contains(expected), "{text}: {failure:?}");
            assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
        }
        let Err(failure) = super::read(Path::new("/canary/secret")) else { panic!() };
        assert!(failure.reason.contains("does not exist") && !failure.reason.contains("canary"), "{failure:?}");
    }

    #[test]
    fn a_configured_file_overrides_the_file_of_gcloud() {
        let dir = tempfile::tempdir().unwrap();
        let (named, user) = (dir.path().join("named"), dir.path().join("user"));
        let mut ambient = GcpAmbient { credentials_file: None, user_file: Some(user.clone()), metadata_host: None };
        assert_eq!(path(&ambient), None);
        fs::write(&user, "").unwrap();
        assert_eq!(path(&ambient), Some(&*user));
        ambient.credentials_file = Some(named.clone());
        assert_eq!(path(&ambient), Some(&*named));
    }
}
