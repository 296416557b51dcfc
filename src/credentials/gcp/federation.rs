//! Workload identity federation (AIP-4117): exchanges the token of another identity provider for a Google token (RFC 8693), and, if the
//! file requires it, that token for a service account's token.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri};
use serde_json::{Value, json};
use tokio::time::Instant;
use zeroize::{Zeroize as _, Zeroizing};

use super::{
    access_token::{AccessToken, no_token},
    credentials_file::{CredentialSource, ExternalAccount, TokenFormat, read_text, unusable},
    failure::{ErrorReport, Failure},
    http as google_http,
};
use crate::credentials::store::Transport;

/// The scope of a service account's token, and of a federated identity that reads the secret itself.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// The scope of a federated identity that only impersonates a service account.
const IMPERSONATION_SCOPE: &str = "https://www.googleapis.com/auth/iam";

/// The default lifetime of a service account's token, as in Google's SDKs.
const LIFETIME_S: u32 = 3600;

const PROVIDER: &str = "the identity provider of the credentials file";
const STS: &str = "Google's Security Token Service";
const IAM: &str = "the IAM Service Account Credentials API";

/// Obtains a token for `account`. `path` is the path of its file, for errors.
pub(super) async fn token(
    transport: &Transport,
    account: &ExternalAccount,
    path: &Path,
) -> Result<AccessToken, Failure> {
    let subject = subject_token(transport, &account.credential_source, path).await?;
    let impersonation_url = account.service_account_impersonation_url.as_ref();
    let federated = exchange(transport, account, &subject, impersonation_url.is_some()).await?;
    match impersonation_url {
        None => Ok(federated),
        Some(url) => {
            let lifetime_s = account
                .service_account_impersonation
                .as_ref()
                .and_then(|impersonation| impersonation.token_lifetime_seconds);
            let lifetime_s = lifetime_s.unwrap_or(LIFETIME_S);
            impersonate(transport, &federated, url, lifetime_s).await
        }
    }
}

/// Obtains the token of the other identity provider.
async fn subject_token(
    transport: &Transport,
    source: &CredentialSource,
    path: &Path,
) -> Result<Zeroizing<String>, Failure> {
    let text = match source {
        CredentialSource { environment_id: Some(_), .. } => {
            return Err(unusable("credentials file", path, "has AWS as its credential_source, which is not supported"));
        }
        CredentialSource { file: Some(file), .. } => read_text("token file", file)?,
        CredentialSource { url: Some(url), headers, .. } => {
            let mut request = google_http::request(Method::GET, url);
            for (name, value) in headers.iter().flatten() {
                let field = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
                let problem = "has an invalid header field in credential_source.headers";
                let (name, mut value) = field.ok_or_else(|| unusable("credentials file", path, problem))?;
                value.set_sensitive(true);
                request = request.header(name, value);
            }
            let request = request.body(Bytes::new()).expect("the URL was parsed, and the fields are valid");
            request_subject_token(transport, request).await?
        }
        CredentialSource { .. } => {
            let problem = "has an unsupported credential_source: it must be a file or a URL";
            return Err(unusable("credentials file", path, problem));
        }
    };
    let token = match &source.format {
        None | Some(TokenFormat::Text) => Some(Zeroizing::new(text.trim().to_owned())),
        Some(TokenFormat::Json { subject_token_field_name }) => member(&text, subject_token_field_name),
    };
    token.filter(|token| !token.is_empty()).ok_or_else(|| match &source.file {
        Some(file) => unusable("token file", file, "contains no token in the format of credential_source.format"),
        None => no_token(PROVIDER),
    })
}

async fn request_subject_token(
    transport: &Transport,
    request: http::Request<Bytes>,
) -> Result<Zeroizing<String>, Failure> {
    let remedy =
        "check credential_source in the credentials file, and that the machine has an identity with this provider";
    let response = google_http::send(transport, request).await;
    let response = response.map_err(|error| Failure::of_identity_transport(&error, PROVIDER))?;
    if !response.status().is_success() {
        return Err(Failure::of_issuer(&ErrorReport::new(&response), PROVIDER, remedy));
    }
    let text = std::str::from_utf8(response.body()).map_err(|_| no_token(PROVIDER))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// The string in the member `name` of the JSON object `text`.
fn member(text: &str, name: &str) -> Option<Zeroizing<String>> {
    let Value::Object(mut members) = serde_json::from_str(text).ok()? else { return None };
    let found = members.remove(name);
    for (_, other) in members {
        if let Value::String(mut text) = other {
            text.zeroize();
        }
    }
    match found {
        Some(Value::String(token)) => Some(Zeroizing::new(token)),
        _ => None,
    }
}

async fn exchange(
    transport: &Transport,
    account: &ExternalAccount,
    subject: &str,
    impersonates: bool,
) -> Result<AccessToken, Failure> {
    let parameters = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("audience", &account.audience),
        ("scope", if impersonates { IMPERSONATION_SCOPE } else { SCOPE }),
        ("subject_token_type", &account.subject_token_type),
        ("subject_token", subject),
    ];
    let sent = Instant::now();
    let response = google_http::send(transport, google_http::form(&account.token_url, &parameters)).await;
    let response = response.map_err(|error| Failure::of_identity_transport(&error, STS))?;
    if response.status().is_success() {
        return AccessToken::read(&response, sent).ok_or_else(|| no_token(STS));
    }
    let remedy = "check audience and subject_token_type in the credentials file; the issuer, allowed audiences, attribute mapping and \
                  condition of the workload identity provider; and that the token has not expired";
    Err(Failure::of_issuer(&ErrorReport::new(&response), STS, remedy))
}

async fn impersonate(
    transport: &Transport,
    federated: &AccessToken,
    url: &Uri,
    lifetime_s: u32,
) -> Result<AccessToken, Failure> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        access_token: Zeroizing<String>,
    }

    let body = json!({"scope": [SCOPE], "lifetime": format!("{lifetime_s}s")});
    let sent = Instant::now();
    let response = google_http::send(transport, google_http::json(url, &federated.authorization, &body)).await;
    let response = response.map_err(|error| Failure::of_identity_transport(&error, IAM))?;
    if response.status().is_success() {
        let body = serde_json::from_slice::<Body>(response.body()).ok();
        let lifetime = Duration::from_secs(lifetime_s.into());
        let token = body.and_then(|body| AccessToken::new(&body.access_token, sent, lifetime));
        return token.ok_or_else(|| no_token(IAM));
    }
    let remedy = "check that the service account of service_account_impersonation_url exists, and grant this identity \
                  roles/iam.workloadIdentityUser on it";
    Err(Failure::of_issuer(&ErrorReport::new(&response), IAM, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_the_named_member() {
        for (text, expected) in [
            (r#"{"access_token": "t", "other": "x"}"#, Some("t")),
            (r#"{"access_token": 1}"#, None),
            (r#"{"other": "x"}"#, None),
            (r#"["access_token"]"#, None),
            ("t", None),
        ] {
            assert_eq!(member(text, "access_token").as_deref().map(String::as_str), expected, "{text}");
        }
    }
}
