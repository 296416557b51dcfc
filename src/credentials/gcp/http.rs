//! Requests to Google, by [`Transport`].

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header, request};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::credentials::store::{Limits, Transport, TransportError};

/// A complete response. The memory of its body is overwritten when it is dropped.
pub(super) type Response = http::Response<Bytes>;

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("finicity-proxy/", env!("CARGO_PKG_VERSION")));

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Builds a request for `url`; the caller can add header fields.
pub(super) fn request(method: Method, url: &Uri) -> request::Builder {
    Request::builder()
        .method(method)
        .uri(url.clone())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, JSON)
}

/// A request that posts a form to `url`. The memory of its body is overwritten when it is dropped.
pub(super) fn form(url: &Uri, parameters: &[(&str, &str)]) -> Request<Bytes> {
    // Full capacity, because a reallocation would leave a copy in memory: encoding makes at most three bytes of one.
    let length: usize = parameters.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let mut body = Zeroizing::new(String::with_capacity(3 * length));
    form_urlencoded::Serializer::new(&mut *body).extend_pairs(parameters);
    let body = Bytes::from_owner(Zeroizing::new(std::mem::take(&mut *body).into_bytes()));
    let request = request(Method::POST, url).header(header::CONTENT_TYPE, FORM);
    request.body(body).expect("the URL was parsed, and the fields are constants")
}

/// A request that posts a JSON value to `url`. The value must not contain a secret.
pub(super) fn json(url: &Uri, authorization: &HeaderValue, value: &impl Serialize) -> Request<Bytes> {
    let body = serde_json::to_vec(value).expect("the value serializes to JSON").into();
    let request = request(Method::POST, url).header(header::CONTENT_TYPE, JSON);
    let request = request.header(header::AUTHORIZATION, authorization).body(body);
    request.expect("the URL was parsed, and the fields are valid")
}

/// Sends `request` within the default limits.
pub(super) async fn send(transport: &Transport, request: Request<Bytes>) -> Result<Response, TransportError> {
    transport.send(request, Limits::default()).await
}
