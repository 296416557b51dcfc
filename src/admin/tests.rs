use std::time::Duration;

use axum::{body::Body, extract::Request};
use http::Method;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::*;
use crate::{
    credentials::Scheme,
    telemetry::Levels,
    token::{Clock, channel, command_channel},
};

async fn call(
    method: Method,
    path: &str,
    transport: Transport,
    admin_token: Option<&str>,
    fields: &[(&str, &str)],
) -> (u16, String) {
    let (mut writer, token) = channel(Clock::Boot, Duration::from_secs(2));
    writer.set_scheme(Scheme::Partner);
    // The command queue is closed, so an authorized action gets the same response as during a shutdown.
    let (control, _) = command_channel();
    let state = AdminState {
        token,
        control,
        stop: CancellationToken::new(),
        draining: CancellationToken::new(),
        upstream: "https://api.finicity.com".to_owned(),
        credentials_source: "directory",
        credentials_description: "the directory /x".to_owned(),
        lockout_storage: "memory",
        admin_token: admin_token.map(Secret::from),
        log_level: LogLevel::noop(Levels::default()),
        started: Instant::now(),
    };
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let response = router(state, transport).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(fields: &[(&str, &str)]) -> (u16, String) {
    call(Method::GET, "/api/status", Transport::Tcp, None, fields).await
}

#[tokio::test]
async fn local_programs_can_read_the_status() {
    let (status, text) = get(&[("host", "localhost:3466")]).await;
    assert_eq!(status, 200);
    for part in [
        r#""token":{"state":"empty","version":0,"obtained":false,"usable_for_s":0,"next_attempt_in_s":null,"last_error":null}"#,
        r#""lock_out":{"latched":false,"budget_spent":false,"rejections":0,"unresolved_attempts":0,"held":false,"unrecorded":false,"new_credentials":null,"remembered_in":"memory""#,
        r#""reason":null,"remedy":null}"#,
        r#""scheme":"partner","credentials_source":"directory","credentials_description":"the directory /x""#,
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn web_pages_and_foreign_host_names_are_rejected() {
    assert_eq!(get(&[]).await.0, 400);
    assert_eq!(get(&[("host", "attacker.example")]).await.0, 421);
    assert_eq!(get(&[("host", "localhost"), ("origin", "https://evil.example")]).await.0, 403);
}

const ACTIONS: [&str; 4] = ["/api/token/invalidate", "/api/quarantine", "/api/quarantine/lift", "/api/latch/reset"];

#[tokio::test(start_paused = true)]
async fn a_shutdown_needs_the_token_or_the_socket() {
    let post = |transport, fields: &'static [(&str, &str)]| {
        call(Method::POST, "/api/shutdown", transport, Some("right"), fields)
    };
    assert_eq!(post(Transport::Tcp, &[("host", "localhost")]).await.0, 401);
    assert_eq!(post(Transport::Tcp, &[("host", "localhost"), ("authorization", "Bearer wrong")]).await.0, 401);
    assert_eq!(post(Transport::Tcp, &[("host", "evil.example"), ("authorization", "Bearer right")]).await.0, 421);
    assert_eq!(call(Method::POST, "/api/shutdown", Transport::Tcp, None, &[("host", "localhost")]).await.0, 403);
    assert_eq!(call(Method::GET, "/api/shutdown", Transport::Unix, None, &[]).await.0, 405);
    let accepted = (200, "the proxy drains and stops\n".to_owned());
    assert_eq!(post(Transport::Tcp, &[("host", "localhost"), ("authorization", "Bearer right")]).await, accepted);
    assert_eq!(post(Transport::Unix, &[]).await, accepted);
}

#[tokio::test(start_paused = true)]
async fn actions_need_the_token_or_the_socket() {
    const HOST: (&str, &str) = ("host", "localhost");
    for path in ACTIONS {
        let on_port = |token, fields: Vec<(&'static str, &'static str)>| async move {
            call(Method::POST, path, Transport::Tcp, token, &fields).await
        };
        let (status, text) = on_port(None, vec![HOST, ("authorization", "Bearer ")]).await;
        assert!(status == 403 && text.contains("FINICITY_ADMIN_TOKEN") && text.contains("admin.socket"), "{text}");
        for wrong in ["Bearer wrong", "Bearer", "Basic right", "right", "Bearer right "] {
            assert_eq!(on_port(Some("right"), vec![HOST, ("authorization", wrong)]).await.0, 401, "{wrong}");
        }
        assert_eq!(on_port(Some("right"), vec![HOST]).await.0, 401);
        assert_eq!(
            on_port(Some("right"), vec![("host", "evil.example"), ("authorization", "Bearer right")]).await.0,
            421
        );
        assert_eq!(on_port(Some("right"), vec![HOST, ("authorization", "bearer right")]).await.0, 503, "authorized");
        assert_eq!(call(Method::POST, path, Transport::Unix, None, &[]).await.0, 503, "authorized");
        assert_eq!(call(Method::GET, path, Transport::Unix, None, &[]).await.0, 405);
    }
}
