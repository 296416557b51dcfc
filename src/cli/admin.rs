//! Requests to the administrator's side of the running proxy: the socket first, and then the port.

use std::time::Duration;

use anyhow::{Context as _, bail};
use http::{HeaderValue, Method, StatusCode};
use zeroize::Zeroizing;

use super::local_client::{self, Endpoint, LocalRequest, LocalResponse, Target};
use crate::{
    admin::Status,
    config::{self, Inputs, Problems},
    credentials,
    secret::Secret,
};

/// The time for a response.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It only reads, which the port allows without the admin token.
    Read,
    /// It changes something.
    Act,
}

/// Where the running proxy answers its administrator.
#[derive(Debug)]
pub(super) struct AdminTarget(Vec<Endpoint>);

/// Finds it by the configuration, which must be the one that the proxy was started with.
///
/// # Errors
///
/// What is wrong with that configuration, or that it names no address that `access` can use.
pub(super) fn admin_target(inputs: Inputs, access: Access) -> anyhow::Result<AdminTarget> {
    let control = config::operator_endpoints(&inputs)?;
    let admin_token = config::admin_token(&inputs);
    drop(inputs); // the environment's copy of the secrets with it
    let mut endpoints: Vec<Endpoint> =
        control.admin_socket.map(|socket| Endpoint::open(Target::Unix(socket))).into_iter().collect();
    let authorization = match usable(admin_token, !endpoints.is_empty())? {
        Some(token) => Some(bearer(&token)?),
        None if access == Access::Read => None,
        None if endpoints.is_empty() => bail!(
            "no admin access: neither admin.socket nor FINICITY_ADMIN_TOKEN (or FINICITY_ADMIN_TOKEN_FILE) is set; set one of them \
             to the value that the proxy uses"
        ),
        None => return Ok(AdminTarget(endpoints)),
    };
    let ports = control.admin.iter().filter_map(Target::of);
    endpoints.extend(ports.map(|target| Endpoint { target, authorization: authorization.clone() }));
    if endpoints.is_empty() {
        bail!("listen.admin leaves the port to the system: name it, or use admin.socket");
    }
    Ok(AdminTarget(endpoints))
}

/// The token, if there is one. With a socket none is needed, so one that cannot be read stops nothing.
fn usable(
    token: Result<Option<Secret<String>>, Problems>,
    has_socket: bool,
) -> Result<Option<Secret<String>>, Problems> {
    token.or_else(|problems| if has_socket { Ok(None) } else { Err(problems) })
}

fn bearer(token: &Secret<String>) -> anyhow::Result<HeaderValue> {
    let value = Zeroizing::new([b"Bearer ", token.expose().as_bytes()].concat());
    credentials::sensitive(value).context("the admin token is not legal in a header")
}

impl AdminTarget {
    /// Sends a request and returns a successful response.
    ///
    /// # Errors
    ///
    /// When there is no response, or it refuses the request.
    pub(super) async fn send(&self, method: Method, path: &str) -> anyhow::Result<LocalResponse> {
        self.send_request(&LocalRequest::new(method, path)).await
    }

    /// As [`send`](Self::send), for a request with a body.
    ///
    /// # Errors
    ///
    /// As those of [`send`](Self::send).
    pub(super) async fn send_request(&self, request: &LocalRequest<'_>) -> anyhow::Result<LocalResponse> {
        let response = local_client::send(&self.0, request, TIMEOUT).await?;
        check_response(&response)?;
        Ok(response)
    }

    /// The status, as JSON and parsed.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(super) async fn status(&self) -> anyhow::Result<(String, Status)> {
        let response = self.send(Method::GET, "/api/status").await?;
        let status = serde_json::from_str(&response.text);
        let status = status.with_context(|| format!("{} sends a malformed status", response.target))?;
        Ok((response.text, status))
    }
}

/// What a response means.
///
/// # Errors
///
/// When it is no success.
pub(super) fn check_response(response: &LocalResponse) -> anyhow::Result<()> {
    match response.head.status {
        status if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED => {
            bail!("the proxy has another admin token than this command: give both the same FINICITY_ADMIN_TOKEN")
        }
        StatusCode::FORBIDDEN => bail!("the proxy refuses: {}", response.text),
        StatusCode::CONFLICT => bail!("{}", response.text),
        status => bail!("the proxy answers {}: {}", status.as_u16(), response.text),
    }
}
