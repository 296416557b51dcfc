use std::{
    convert::Infallible,
    sync::{Mutex, PoisonError},
};

use http::Method;
use http_body_util::{Full, StreamBody, channel::Channel};
use tower::{ServiceExt as _, service_fn};

use super::*;
use crate::vendor::catalogue::Catalogue;

const GENERATE: &str = "/connect/v2/generate";

fn partner() -> Option<PartnerCredentials> {
    Some(PartnerCredentials { id: "17".into(), secret: "not-so-secret".into() })
}

fn connect_config(fill_partner_id: bool, partner_id: Option<&str>) -> ConnectConfig {
    ConnectConfig { fill_partner_id, partner_id: partner_id.map(Into::into), body_bytes: 100 }
}

/// The body and `Content-Length` of the request that reaches the upstream.
#[derive(Debug, PartialEq)]
struct Sent {
    body: String,
    length: Option<String>,
}

impl Sent {
    fn new(body: &str, length: Option<usize>) -> Self {
        Self { body: body.to_owned(), length: length.map(|length| length.to_string()) }
    }
}

/// Sends a request through the layer, and returns what reaches the service below.
async fn send<B>(
    config: ConnectConfig,
    partner: Option<PartnerCredentials>,
    path: &str,
    request: Request<B>,
) -> Result<Sent, Code>
where
    B: Body<Data = Bytes, Error = Infallible> + Unpin + Send + 'static,
{
    let filler = PartnerIdFiller { config, partner: watch::channel(partner).1, replay_buffer: 0 };
    let seen = Arc::new(Mutex::new(None));
    let sees = Arc::clone(&seen);
    let service = PartnerIdLayer(Arc::new(filler)).layer(service_fn(move |exchange: Exchange<ReplayBody<B>>| {
        let sees = Arc::clone(&sees);
        async move {
            let (head, body) = exchange.request.into_parts();
            let length = head.headers.get(header::CONTENT_LENGTH).map(|value| value.to_str().unwrap().to_owned());
            let body = body.collect().await.unwrap().to_bytes();
            *sees.lock().unwrap() = Some(Sent { body: String::from_utf8(body.to_vec()).unwrap(), length });
            Ok::<_, Error>(())
        }
    }));
    let record = Arc::new(Record::new(request.method().clone(), None));
    record.set_operation(Catalogue::us().find(request.method(), path));
    service.oneshot(Exchange { request, record }).await.map_err(|error| error.code())?;
    Ok(seen.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap())
}

fn post(body: &str) -> Request<Full<Bytes>> {
    let length = body.len().to_string();
    Request::post("/").header("content-length", length).body(Full::from(body.to_owned())).unwrap()
}

#[tokio::test]
async fn the_partner_id_is_added_and_the_length_corrected() {
    let config = connect_config(true, Some("9"));
    let sent = send(config, partner(), GENERATE, post(r#"{"a":1}"#)).await;
    assert_eq!(sent, Ok(Sent::new(r#"{"partnerId":"17","a":1}"#, Some(24))));
}

#[tokio::test]
async fn oauth2_credentials_need_a_configured_partner_id() {
    for (configured, expected) in
        [(None, Sent::new("{}", Some(2))), (Some("9"), Sent::new(r#"{"partnerId":"9"}"#, Some(17)))]
    {
        assert_eq!(send(connect_config(true, configured), None, GENERATE, post("{}")).await, Ok(expected));
    }
}

#[tokio::test]
async fn only_connect_calls_are_edited_and_only_if_configured() {
    for (fills, path) in
        [(true, "/aggregation/v2/customers/testing"), (true, "/connect/v3/generate"), (false, GENERATE)]
    {
        let sent = send(connect_config(fills, None), partner(), path, post("{}")).await;
        assert_eq!(sent, Ok(Sent::new("{}", Some(2))), "{path}");
    }
}

#[tokio::test]
async fn a_body_above_the_limit_passes_unedited() {
    for (length, is_edited) in [(100, true), (101, false), (5000, false)] {
        let body = format!(r#"{{"a":"{}"}}"#, "x".repeat(length - 8));
        let expected = if is_edited { body.replace('{', r#"{"partnerId":"17","#) } else { body.clone() };
        let sent = send(connect_config(true, None), partner(), GENERATE, post(&body)).await;
        assert_eq!(sent, Ok(Sent::new(&expected, Some(expected.len()))));

        let chunks: Vec<_> = body.as_bytes().chunks(7).map(Bytes::copy_from_slice).collect();
        let frames = chunks.into_iter().map(|chunk| Ok::<_, Infallible>(http_body::Frame::data(chunk)));
        let chunked = Request::post("/").body(StreamBody::new(futures_util::stream::iter(frames))).unwrap();
        let sent = send(connect_config(true, None), partner(), GENERATE, chunked).await;
        assert_eq!(sent, Ok(Sent::new(&expected, None)));
    }
}

#[tokio::test]
async fn a_compressed_body_passes_unedited() {
    for (coding, is_edited) in
        [("gzip", false), ("x", false), ("identity, br", false), ("identity", true), ("IDENTITY", true)]
    {
        let mut request = post("{}");
        request.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        let sent = send(connect_config(true, None), partner(), GENERATE, request).await;
        assert_eq!(sent.unwrap().body != "{}", is_edited, "{coding}");
    }
}

#[tokio::test]
async fn reading_the_body_counts_as_waiting_for_the_caller() {
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    let filler =
        PartnerIdFiller { config: connect_config(true, None), partner: watch::channel(partner()).1, replay_buffer: 0 };
    let service = PartnerIdLayer(Arc::new(filler))
        .layer(service_fn(|_: Exchange<ReplayBody<_>>| std::future::ready(Ok::<_, Error>(()))));
    let record = Arc::new(Record::new(Method::POST, None));
    record.set_operation(Catalogue::us().find(&Method::POST, GENERATE));
    let request = Request::post("/").body(body).unwrap();
    let call = tokio::spawn(service.oneshot(Exchange { request, record: Arc::clone(&record) }));
    sender.send_data(Bytes::from_static(b"{")).await.unwrap();
    tokio::task::yield_now().await;
    assert!(record.is_waiting_for_caller());
    sender.send_data(Bytes::from_static(b"}")).await.unwrap();
    drop(sender);
    call.await.unwrap().unwrap();
    assert!(!record.is_waiting_for_caller());
}
