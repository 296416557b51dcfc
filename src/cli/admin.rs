//! Requests to the admin listener of the running proxy: to its socket first, then to its port.

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

/// The maximum time for a response.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// The access that a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Read only. The port allows this without the admin token.
    Read,
    /// Change something.
    Act,
}

/// The addresses of the running proxy's admin listeners.
#[derive(Debug)]
pub(super) struct AdminTarget(Vec<Endpoint>);

/// Finds the admin listeners by the configuration, which must be the one that the proxy was started with.
///
/// # Errors
///
/// When the configuration is invalid, or has no address that `access` can use.
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
        bail!("listen.admin has no fixed port: set one, or use admin.socket");
    }
    Ok(AdminTarget(endpoints))
}

/// The admin token, if one is set. A socket needs none, so with a socket an unreadable token is ignored.
fn usable(
    token: Result<Option<Secret<String>>, Problems>,
    has_socket: bool,
) -> Result<Option<Secret<String>>, Problems> {
    token.or_else(|problems| if has_socket { Ok(None) } else { Err(problems) })
}

fn bearer(token: &Secret<String>) -> anyhow::Result<HeaderValue> {
    let value = Zeroizing::new([b"Bearer ", token.expose().as_bytes()].concat());
    credentials::sensitive(value).context("the admin token is not a valid header value")
}

impl AdminTarget {
    /// Sends a request and returns a successful response.
    ///
    /// # Errors
    ///
    /// When there is no response, or not a successful one.
    pub(super) async fn send(&self, method: Method, path: &str) -> anyhow::Result<LocalResponse> {
        self.send_request(&LocalRequest::new(method, path)).await
    }

    /// Like [`send`](Self::send), for a request with a body.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    pub(super) async fn send_request(&self, request: &LocalRequest<'_>) -> anyhow::Result<LocalResponse> {
        let response = local_client::send(&self.0, request, TIMEOUT).await?;
        check_response(&response)?;
        Ok(response)
    }

    /// The status, as JSON and parsed.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send), or when the status is malformed.
    pub(super) async fn status(&self) -> anyhow::Result<(String, Status)> {
        let response = self.send(Method::GET, "/api/status").await?;
        let status = serde_json::from_str(&response.text);
        let status = status.with_context(|| format!("malformed status from {}", response.target))?;
        Ok((response.text, status))
    }
}

/// Turns an unsuccessful response into an error.
///
/// # Errors
///
/// When the status is not 2xx.
pub(super) fn check_response(response: &LocalResponse) -> anyhow::Result<()> {
    match response.head.status {
        status if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED => {
            bail!("the proxy's admin token differs from this command's: set the same FINICITY_ADMIN_TOKEN for both")
        }
        StatusCode::FORBIDDEN => bail!("the proxy denied the request: {}", response.text),
        StatusCode::CONFLICT => bail!("{}", response.text),
        status => bail!("the proxy returned {}: {}", status.as_u16(), response.text),
    }
}
