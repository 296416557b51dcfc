//! HTTP/2 to the upstream, if both sides enable it.

use std::{convert::Infallible, net::TcpListener, sync::mpsc, thread};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    APP_KEY,
    process::Proxy,
    upstream::{Reply, Upstream, server_config, token, token_response},
};

/// A request that arrived over HTTP/2.
struct RecordedRequest {
    version: Version,
    authority: Option<String>,
    headers: http::HeaderMap,
    target: String,
    body: Bytes,
}

/// The proxy in front of an upstream that supports HTTP/2, the port of the upstream, and the requests that it receives.
fn over_http2(variables: &[(&str, &str)]) -> (Proxy, u16, mpsc::Receiver<RecordedRequest>) {
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    let config = server_config(&ca_file, &[b"h2", b"http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let (recorder, recorded) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(serve(listener, TlsAcceptor::from(config), recorder));
    });

    // Only provides the environment of the child process.
    let unused = Upstream::start(3600, |_| Reply::json("{}"));
    let url = format!("https://localhost:{port}");
    let ca_file = ca_file.display().to_string();
    let own = [
        ("FINICITY__UPSTREAM__HTTP2", "auto"),
        ("FINICITY__UPSTREAM__URL", &url),
        ("FINICITY__UPSTREAM__CA_FILE", &ca_file),
    ];
    (Proxy::start_with(&unused, &[&own, variables].concat()), port, recorded)
}

#[test]
fn i10_i04_a22_body_errors_are_reported_over_http2() {
    let limits = [("FINICITY__LIMITS__BODY_BYTES", "1000"), ("FINICITY__UPSTREAM__IDLE_TIMEOUT", "1s")];
    let (proxy, _, recorded) = over_http2(&limits);
    let chunk = format!("258\r\n{}\r\n", "x".repeat(600));
    for (body, status, code) in [
        (chunk.repeat(2), 413, "body_too_large"),
        ("3\r\nabc\r\n".to_owned(), 408, "request_timeout"),
        ("3\r\nabcd\r\n".to_owned(), 400, "bad_request"),
    ] {
        let mut client = proxy.connect();
        client.send(format!("POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        client.read_response(false).unwrap().assert_problem(status, code);
        client.assert_closed();
    }
    assert!(recorded.try_recv().is_err(), "no complete body arrived");
}

#[test]
fn h01_the_same_request_arrives_over_http2() {
    let (proxy, port, recorded) = over_http2(&[]);
    let lines =
        ["Content-Length: 5", "Accept: application/json", "Connection: x-private", "X-Private: 1", "TE: trailers"];
    let response = proxy.connect().call("POST", "/aggregation/v1/customers?a=%2F&b=", &lines, b"hello");
    assert_eq!((response.status, response.text().as_str()), (200, "over h2"));
    let request = recorded.recv_timeout(crate::support::TIMEOUT).unwrap();
    assert_eq!(request.version, Version::HTTP_2);
    assert_eq!(request.authority.as_deref(), Some(format!("localhost:{port}").as_str()));
    assert_eq!((request.target.as_str(), &request.body[..]), ("/aggregation/v1/customers?a=%2F&b=", &b"hello"[..]));
    assert_eq!(request.headers["authorization"], format!("Bearer {}", token(1)).as_str());
    assert_eq!(request.headers["finicity-app-key"], APP_KEY);
    for name in ["x-private", "te", "connection"] {
        assert!(!request.headers.contains_key(name), "{name}");
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, recorder: mpsc::Sender<RecordedRequest>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, recorder) = (acceptor.clone(), recorder.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let io = TokioIo::new(stream);
            let service = service_fn(move |request: Request<Incoming>| respond(request, recorder.clone()));
            // The token request uses HTTP/1.1.
            if is_h2 {
                let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
            } else {
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            }
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    recorder: mpsc::Sender<RecordedRequest>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/oauth/token" {
        return Ok(Response::new(Full::from(token_response(1, 3600))));
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(Response::new(Full::from("truncated"))) };
    let request = RecordedRequest {
        version: parts.version,
        authority: parts.uri.authority().map(ToString::to_string),
        headers: parts.headers,
        target: parts.uri.path_and_query().unwrap().to_string(),
        body: body.to_bytes(),
    };
    recorder.send(request).unwrap();
    Ok(Response::new(Full::from("over h2")))
}
