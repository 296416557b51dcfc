//! Logging in: the request for each auth method, and its response.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
    str,
};

use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{failure::Failure, response::Response};
use crate::{
    credentials::{VaultAuth, VaultConfig, problem::MAX_FILE_BYTES, sensitive, store_error::StoreFault},
    secret::ShownPath,
};

/// How to get a token.
pub(super) enum Request {
    /// Send this request.
    Login {
        /// The path of the auth method: `auth/kubernetes/login`.
        path: String,
        /// The JSON to post.
        body: Zeroizing<Vec<u8>>,
    },
    /// Use this token.
    Token(HeaderValue),
}

/// The result of a login.
pub(super) struct Granted {
    pub(super) token: HeaderValue,
    pub(super) lease_s: u64,
    pub(super) renewable: bool,
}

/// Reads the files of `auth` and builds the request.
pub(super) fn request(auth: &VaultAuth) -> Result<Request, Failure> {
    #[derive(Serialize)]
    struct Jwt<'a> {
        role: &'a str,
        jwt: &'a str,
    }

    #[derive(Serialize)]
    struct AppRole<'a> {
        role_id: &'a str,
        secret_id: &'a str,
    }

    let body = match auth {
        VaultAuth::Kubernetes { role, jwt_file } | VaultAuth::Jwt { role, jwt_file } => {
            let jwt = read_file("credentials.vault.jwt_file", jwt_file)?;
            json(&Jwt { role, jwt: &jwt }, role.len() + jwt.len())
        }
        VaultAuth::AppRole { role_id_file, secret_id_file } => {
            let role_id = read_file("credentials.vault.role_id_file", role_id_file)?;
            let secret_id = read_file("credentials.vault.secret_id_file", secret_id_file)?;
            json(&AppRole { role_id: &role_id, secret_id: &secret_id }, role_id.len() + secret_id.len())
        }
        VaultAuth::Token { token_file } => return read_token(token_file).map(Request::Token),
    };
    Ok(Request::Login { path: format!("{}/login", mount(auth)), body })
}

/// Whether `token` is still current. Only a token from a file can be replaced.
pub(super) fn is_current(auth: &VaultAuth, token: &HeaderValue) -> Result<bool, Failure> {
    match auth {
        VaultAuth::Token { token_file } => read_token(token_file).map(|current| current == token),
        _ => Ok(true),
    }
}

/// The body of a request without parameters.
pub(super) fn empty_body() -> Zeroizing<Vec<u8>> {
    Zeroizing::new(b"{}".to_vec())
}

/// The token and lease in `response` to a login.
pub(super) fn read(response: &Response, config: &VaultConfig) -> Result<Granted, Failure> {
    if let Some(failure) = Failure::of_server(response) {
        return Err(failure);
    }
    if !response.status.is_success() {
        return Err(denied(response.status, &config.auth));
    }
    let Auth { client_token, lease_duration, renewable } = parse_auth(response)?;
    let token = sensitive(Zeroizing::new(client_token.as_bytes().to_vec())).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| {
        let reason = format!("the login at {} returned no token", mount(&config.auth));
        Failure::new(
            StoreFault::IdentityRefused,
            reason,
            "use an auth method and role without multi-factor authentication",
        )
    })?;
    Ok(Granted { token, lease_s: lease_duration, renewable })
}

/// The new lease in `response` to a renewal, in seconds, and whether it can be renewed again. `None` if the server denied it.
pub(super) fn read_renewal(response: &Response) -> Result<Option<(u64, bool)>, Failure> {
    if let Some(failure) = Failure::of_server(response) {
        return Err(failure);
    }
    if !response.status.is_success() {
        return Ok(None);
    }
    parse_auth(response).map(|auth| Some((auth.lease_duration, auth.renewable)))
}

/// The lease of a token from a file, in `response` to its lookup, and whether it can be renewed. `None` if the lookup is denied: the
/// token is invalid, or its policies do not permit the lookup.
pub(super) fn read_lookup(response: &Response) -> Result<Option<(u64, bool)>, Failure> {
    #[derive(Deserialize)]
    struct Body {
        data: Data,
    }

    #[derive(Deserialize)]
    struct Data {
        ttl: u64,
        #[serde(default)]
        renewable: bool,
    }

    if let Some(failure) = Failure::of_server(response) {
        return Err(failure);
    }
    match response.status {
        status if status.is_success() => {
            let body: Body = serde_json::from_slice(&response.body).map_err(|_| Failure::not_vault(status))?;
            Ok(Some((body.data.ttl, body.data.renewable)))
        }
        StatusCode::FORBIDDEN => Ok(None),
        status => Err(Failure::not_vault(status)),
    }
}

/// The path of the auth method.
fn mount(auth: &VaultAuth) -> &'static str {
    match auth {
        VaultAuth::Kubernetes { .. } => "auth/kubernetes",
        VaultAuth::Jwt { .. } => "auth/jwt",
        VaultAuth::AppRole { .. } => "auth/approle",
        VaultAuth::Token { .. } => "auth/token",
    }
}

#[derive(Deserialize)]
struct Auth<'a> {
    client_token: &'a str,
    lease_duration: u64,
    renewable: bool,
}

fn parse_auth(response: &Response) -> Result<Auth<'_>, Failure> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        auth: Auth<'a>,
    }

    let body: Body<'_> = serde_json::from_slice(&response.body).map_err(|_| Failure::not_vault(response.status))?;
    Ok(body.auth)
}

fn denied(status: StatusCode, auth: &VaultAuth) -> Failure {
    let mount = mount(auth);
    let check = match auth {
        VaultAuth::Kubernetes { role, .. } => format!(
            "that its role {role} names the service account and namespace of this pod (bound_service_account_names, \
             bound_service_account_namespaces, audience), and that the server may review tokens"
        ),
        VaultAuth::Jwt { role, .. } => format!(
            "that its role {role} accepts the audience, subject and claims of the token in credentials.vault.jwt_file, and that the \
             token has not expired"
        ),
        VaultAuth::AppRole { .. } => {
            "that role id and secret id belong to the same role, and that the secret id has not expired and \
                                      has uses left (secret_id_ttl, secret_id_num_uses)"
                .to_owned()
        }
        VaultAuth::Token { .. } => "the token".to_owned(),
    };
    Failure::new(
        StoreFault::IdentityRefused,
        format!("the login at {mount}/login was denied ({})", status.as_u16()),
        format!("check that the auth method is enabled at {mount}, {check}"),
    )
}

/// `value` as JSON. `length` is the total length of its strings in bytes. The buffer is never reallocated, because JSON escaping at most
/// doubles a string without control characters.
fn json(value: &impl Serialize, length: usize) -> Zeroizing<Vec<u8>> {
    let mut body = Zeroizing::new(Vec::with_capacity(2 * length + 64));
    serde_json::to_writer(&mut *body, value).expect("strings serialize to JSON, and writes to memory do not fail");
    body
}

fn read_token(path: &Path) -> Result<HeaderValue, Failure> {
    let text = read_file("credentials.vault.token_file", path)?;
    let token = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
    token.and_then(|text| sensitive(Zeroizing::new(text.as_bytes().to_vec()))).ok_or_else(|| {
        no_identity(
            "credentials.vault.token_file",
            path,
            "does not contain a token: it must be one line of visible ASCII characters",
        )
    })
}

/// The trimmed text in the file at `path`, which the configuration key `key` names.
fn read_file(key: &'static str, path: &Path) -> Result<Zeroizing<String>, Failure> {
    let read = || {
        // Checked before opening, because opening a pipe blocks until it has a writer.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a file"));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES + 1));
        File::open(path)?.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| no_identity(key, path, "cannot be read").with_cause(error))?;
    let text = str::from_utf8(&bytes).ok().filter(|text| text.len() <= MAX_FILE_BYTES).map(str::trim);
    match text {
        Some("") => Err(no_identity(key, path, "is empty")),
        Some(text) if !text.contains(char::is_control) => Ok(Zeroizing::new(text.to_owned())),
        _ => Err(no_identity(key, path, "does not contain one line of text")),
    }
}

fn no_identity(key: &str, path: &Path, what: &str) -> Failure {
    let path = ShownPath::new(path).to_string().replace(char::is_control, "\u{fffd}");
    let remedy = format!("check the volume and the permissions of the file in {key}");
    Failure::new(StoreFault::NoIdentity, format!("{path} ({key}) {what}"), remedy)
}
