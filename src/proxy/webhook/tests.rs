use http::HeaderValue;
use http_body_util::StreamBody;
use tower::ServiceExt as _;

use super::*;
use crate::token::Clock;

const KEY: &str = "aqJ5Ic4SEVx2IgDQ6oR4";

fn sign(body: &[u8]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, KEY.as_bytes());
    format!("{:x}", base16ct::HexDisplay(ring::hmac::sign(&key, body).as_ref()))
}

/// A receiver with a service that is never reachable.
fn receiver(rate: usize) -> Arc<WebhookReceiver> {
    receiver_with(rate, SigningKeys::new(Some(KEY.into()), None))
}

fn receiver_with(rate: usize, keys: SigningKeys) -> Arc<WebhookReceiver> {
    let forward_to: ForwardTo = "unix:/nonexistent/service.sock".parse().unwrap();
    let config = WebhookConfig {
        forward_to: Some(forward_to.clone()),
        signature_header: HeaderName::from_static("x-finicity-signature"),
        body_bytes: 1024,
        timeout: Duration::from_secs(10),
        rate,
    };
    let keys = Arc::new(arc_swap::ArcSwap::from_pointee(keys));
    let window = ReplayWindow::new(Clock::Tokio(Instant::now()));
    WebhookReceiver::new(forward_to, config, keys, window, Arc::new(Metrics::new()))
}

async fn post(receiver: &Arc<WebhookReceiver>, body: impl Into<Body>, signature: &str) -> u16 {
    let request = Request::post("/any/path").header("x-finicity-signature", signature).body(body.into()).unwrap();
    router(Arc::clone(receiver)).oneshot(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn without_a_key_every_event_gets_503() {
    let receiver = receiver_with(100, SigningKeys::default());
    let ping = r#"{"eventType":"ping","payload":{}}"#;
    assert_eq!(post(&receiver, ping, &sign(ping.as_bytes())).await, 503);
    assert_eq!(post(&receiver, ping, "00").await, 503);
}

#[tokio::test]
async fn only_a_genuine_ping_gets_200_without_the_service() {
    let receiver = receiver(100);
    let ping = r#"{"eventType":"ping","payload":{}}"#;
    assert_eq!(post(&receiver, ping, &sign(ping.as_bytes())).await, 200);
    assert_eq!(post(&receiver, ping, &sign(b"")).await, 401);
    // The word elsewhere does not make a ping, so these events are forwarded.
    for event in [r#"{"eventType":"added","x":"ping"}"#, r#"{"eventtype":"ping"}"#, "ping", r#"["ping"]"#, ""] {
        assert_eq!(post(&receiver, event, &sign(event.as_bytes())).await, 502, "{event}");
    }
}

#[tokio::test]
async fn a_body_above_the_limit_is_rejected_whatever_its_signature() {
    let receiver = receiver(100);
    for (length, status) in [(1024, 502), (1025, 413), (5000, 413)] {
        let body = "x".repeat(length);
        assert_eq!(post(&receiver, body.clone(), &sign(body.as_bytes())).await, status);
    }
}

#[tokio::test]
async fn only_post_is_allowed() {
    let receiver = receiver(100);
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let request = Request::builder().method(method).uri("/").body(Body::empty()).unwrap();
        assert_eq!(router(Arc::clone(&receiver)).oneshot(request).await.unwrap().status(), 405, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_body_times_out() {
    let receiver = receiver(100);
    let never = StreamBody::new(futures_util::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>());
    let started = Instant::now();
    assert_eq!(post(&receiver, Body::new(never), &sign(b"")).await, 408);
    assert_eq!(started.elapsed(), BODY_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_rate_get_429() {
    let receiver = receiver(2);
    let ping = r#"{"eventType":"ping"}"#;
    let signature = sign(ping.as_bytes());
    let statuses = [(); 3].map(|()| post(&receiver, ping, &signature));
    let [one, two, three] = statuses;
    assert_eq!((one.await, two.await, three.await), (200, 200, 429));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(post(&receiver, ping, &signature).await, 200);
}

#[tokio::test]
async fn events_beyond_the_memory_limit_get_503() {
    let receiver = receiver(100);
    let all = Arc::clone(&receiver.held_bytes).try_acquire_many_owned(u32::try_from(MAX_HELD_BYTES).unwrap()).unwrap();
    assert_eq!(post(&receiver, "x", &sign(b"x")).await, 503);
    drop(all);
    assert_eq!(post(&receiver, "x", &sign(b"x")).await, 502);
    assert_eq!(receiver.held_bytes.available_permits(), MAX_HELD_BYTES, "the bytes are released");
}

#[test]
fn forged_proxy_fields_and_target_overrides_are_removed() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-finicity-proxy-verified", "true"),
        ("x_finicity_proxy_verified", "true"),
        ("x-finicity-proxy.verified", "true"),
        ("connection", "x-named"),
        ("x-named", "1"),
        ("transfer-encoding", "chunked"),
        ("content-length", "7"),
        ("host", "hooks.example.com"),
        ("x-http-method-override", "DELETE"),
        ("x-original-url", "/admin"),
        ("x-rewrite-url", "/admin"),
        ("content-type", "application/json"),
        ("x-finicity-signature", "00"),
        ("authorization", "of the service's own webhookHeaders"),
    ] {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    crate::proxy::headers::strip_webhook(&mut headers);
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["authorization", "content-type", "x-finicity-signature"]);
}
