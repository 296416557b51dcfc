//! The metadata server of Compute Engine, Google Kubernetes Engine and Cloud Run.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri};
use tokio::time::Instant;

use super::{
    access_token::{AccessToken, no_token},
    failure::{ErrorReport, Failure},
    http as google_http,
};
use crate::credentials::{
    store::{Limits, Transport, TransportError},
    store_error::StoreFault,
};

/// The address of `metadata.google.internal`. Used in place of the name, because a resolver could return another address.
const ADDRESS: &str = "169.254.169.254";

const NAME: &str = "metadata.google.internal";

const PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";

/// A short time to connect, because the server is on the same machine or its host, and where there is none, connections may get no
/// response at all. More time in total, because the server may have to fetch the token from elsewhere.
const LIMITS: Limits = Limits { connect: Duration::from_secs(3), total: Duration::from_secs(12) };

const PEER: &str = "the metadata server";

/// The server rejects requests without this header. A response without it is not from the metadata server.
const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");

const GOOGLE: HeaderValue = HeaderValue::from_static("Google");

const REMEDY: &str = "GKE: permit the service account of the pod to act as its Google service account \
                      (roles/iam.workloadIdentityUser on that), or grant the role to the principal of the pod itself";

/// The token of the service account of this machine or pod, from the server at `host` (`None`: Google's own).
pub(super) async fn token(transport: &Transport, host: Option<&str>) -> Result<AccessToken, Failure> {
    let url = url(host).ok_or_else(|| {
        let remedy = "set it to a host with or without a port, or remove it";
        Failure::new(StoreFault::NoIdentity, "GCE_METADATA_HOST is not a host", remedy)
    })?;
    let request = google_http::request(Method::GET, &url).header(FLAVOR, GOOGLE).body(Bytes::new());
    let request = request.expect("the URL was parsed, and the fields are constants");
    let sent = Instant::now();
    let response = match transport.send(request, LIMITS).await {
        Ok(response) => response,
        // This machine has no metadata server.
        Err(TransportError::Http(_)) => return Err(Failure::no_identity()),
        Err(error) => return Err(Failure::of_identity_transport(&error, PEER)),
    };
    if response.headers().get(FLAVOR) != Some(&GOOGLE) {
        return Err(Failure::no_identity());
    }
    match response.status().as_u16() {
        200 => AccessToken::read(&response, sent).ok_or_else(|| no_token(PEER)),
        404 => Err(Failure::new(
            StoreFault::NoIdentity,
            "this machine has no service account (according to the metadata server)",
            "attach a service account to the VM, node pool or pod",
        )),
        _ => Err(Failure::of_issuer(&ErrorReport::new(&response), PEER, REMEDY)),
    }
}

fn url(host: Option<&str>) -> Option<Uri> {
    let host = host.unwrap_or(ADDRESS);
    let name = host.strip_suffix(":80").unwrap_or(host);
    let host = if name == NAME { ADDRESS } else { host };
    let url: Uri = format!("http://{host}{PATH}").parse().ok()?;
    (url.path() == PATH && url.authority().is_some_and(|authority| authority.as_str() == host)).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_reached_by_its_address() {
        for (host, expected) in [
            (None, Some("169.254.169.254")),
            (Some(NAME), Some("169.254.169.254")),
            (Some("metadata.google.internal:80"), Some("169.254.169.254")),
            (Some("127.0.0.1:8080"), Some("127.0.0.1:8080")),
            (Some("[fd20:ce::254]"), Some("[fd20:ce::254]")),
            (Some("a/b"), None),
            (Some("a?b"), None),
            (Some("a b"), None),
            (Some(""), None),
        ] {
            let expected = expected.map(|authority| format!("http://{authority}{PATH}"));
            assert_eq!(url(host).map(|url| url.to_string()), expected, "{host:?}");
        }
    }
}
