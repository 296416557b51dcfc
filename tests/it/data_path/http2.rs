//! HTTP/2 towards the upstream, where it is offered and wanted.

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

/// What a request over HTTP/2 was like.
struct Seen {
    version: Version,
    authority: Option<String>,
    headers: http::HeaderMap,
    target: String,
    body: Bytes,
}

/// The proxy in front of an upstream that speaks HTTP/2, and what that sees.
fn over_http2(variables: &[(&str, &str)]) -> (Proxy, u16, mpsc::Receiver<Seen>) {
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    let config = server_config(&ca_file, &[b"h2", b"http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let (tell, seen) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(serve(listener, TlsAcceptor::from(config), tell));
    });

    // Only the support code's environment is wanted of this upstream.
    let unused = Upstream::start(3600, |_| Reply::json("{}"));
    let url = format!("https://localhost:{port}");
    let ca_file = ca_file.display().to_string();
    let own = [
        ("FINICITY__UPSTREAM__HTTP2", "auto"),
        ("FINICITY__UPSTREAM__URL", &url),
        ("FINICITY__UPSTREAM__CA_FILE", &ca_file),
    ];
    (Proxy::start_with(&unused, &[&own, variables].concat()), port, seen)
}

#[test]
fn i10_i04_a22_the_failure_of_a_body_is_told_over_http2_too() {
    let limits = [("FINICITY__LIMITS__BODY_BYTES", "1000"), ("FINICITY__UPSTREAM__IDLE_TIMEOUT", "1s")];
    let (proxy, _, seen) = over_http2(&limits);
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
    assert!(seen.try_recv().is_err(), "no body arrived whole");
}

#[test]
fn h01_the_same_request_arrives_over_http2() {
    let (proxy, port, seen) = over_http2(&[]);
    let lines =
        ["Content-Length: 5", "Accept: application/json", "Connection: x-private", "X-Private: 1", "TE: trailers"];
    let answer = proxy.connect().call("POST", "/aggregation/v1/customers?a=%2F&b=", &lines, b"hello");
    assert_eq!((answer.status, answer.text().as_str()), (200, "over h2"));
    let seen: Seen = seen.recv_timeout(crate::support::TIMEOUT).unwrap();
    assert_eq!(seen.version, Version::HTTP_2);
    assert_eq!(seen.authority.as_deref(), Some(format!("localhost:{port}").as_str()));
    assert_eq!((seen.target.as_str(), &seen.body[..]), ("/aggregation/v1/customers?a=%2F&b=", &b"hello"[..]));
    assert_eq!(seen.headers["authorization"], format!("Bearer {}", token(1)).as_str());
    assert_eq!(seen.headers["finicity-app-key"], APP_KEY);
    for name in ["x-private", "te", "connection"] {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, tell: mpsc::Sender<Seen>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, tell) = (acceptor.clone(), tell.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let io = TokioIo::new(stream);
            let service = service_fn(move |request: Request<Incoming>| answer(request, tell.clone()));
            // The token call is HTTP/1.1.
            if is_h2 {
                let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
            } else {
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            }
        });
    }
}

async fn answer(request: Request<Incoming>, tell: mpsc::Sender<Seen>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/oauth/token" {
        return Ok(Response::new(Full::from(token_response(1, 3600))));
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(Response::new(Full::from("what broke off"))) };
    let seen = Seen {
        version: parts.version,
        authority: parts.uri.authority().map(ToString::to_string),
        headers: parts.headers,
        target: parts.uri.path_and_query().unwrap().to_string(),
        body: body.to_bytes(),
    };
    tell.send(seen).unwrap();
    Ok(Response::new(Full::from("over h2")))
}
