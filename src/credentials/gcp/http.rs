//! Requests to Google, over [`Transport`].

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

/// A request for `url`, to which header fields can be added.
pub(super) fn request(method: Method, url: &Uri) -> request::Builder {
    Request::builder()
        .method(method)
        .uri(url.clone())
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, JSON)
}

/// A form to send to `url`. Its memory is overwritten when it is dropped.
pub(super) fn form(url: &Uri, parameters: &[(&str, &str)]) -> Request<Bytes> {
    // Never moved while it grows: a byte becomes three at most.
    let length: usize = parameters.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let mut body = Zeroizing::new(String::with_capacity(3 * length));
    form_urlencoded::Serializer::new(&mut *body).extend_pairs(parameters);
    let body = Bytes::from_owner(Zeroizing::new(std::mem::take(&mut *body).into_bytes()));
    let request = request(Method::POST, url).header(header::CONTENT_TYPE, FORM);
    request.body(body).expect("the URL was parsed, and the fields are constants")
}

/// A JSON value to send to `url`, which holds no secret.
pub(super) fn json(url: &Uri, authorization: &HeaderValue, value: &impl Serialize) -> Request<Bytes> {
    let body = serde_json::to_vec(value).expect("texts are valid JSON").into();
    let request = request(Method::POST, url).header(header::CONTENT_TYPE, JSON);
    let request = request.header(header::AUTHORIZATION, authorization).body(body);
    request.expect("the URL was parsed, and the fields are valid")
}

/// Sends `request` within the limits of all stores.
pub(super) async fn send(transport: &Transport, request: Request<Bytes>) -> Result<Response, TransportError> {
    transport.send(request, Limits::default()).await
}
