//! Tests against in-memory upstreams, under paused time.

mod close_reasons;
mod early;
mod http2;
mod second_attempts;

use std::{
    convert::Infallible,
    io,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderName, Method, Request, Uri};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::{Instant, sleep, timeout},
};

use super::*;
use crate::{
    proxy::replay::ReplayBuffer,
    upstream::{Disposition, Protocol},
};

const SECOND: Duration = Duration::from_secs(1);

/// Opens in-memory connections; calls `serve` with the number of the connection and its server end.
struct MemoryConnector<F> {
    protocol: Protocol,
    opened: Arc<AtomicUsize>,
    serve: F,
}

impl<F: Fn(usize, DuplexStream) + Send + Sync + 'static> Connect for MemoryConnector<F> {
    type Stream = DuplexStream;

    async fn connect(&self) -> Result<(DuplexStream, Protocol), ConnectError> {
        // Simulates the time of a handshake.
        sleep(Duration::from_millis(100)).await;
        let (near, far) = duplex(64 * 1024);
        (self.serve)(self.opened.fetch_add(1, SeqCst), far);
        Ok((near, self.protocol))
    }
}

/// A client with connections served by `serve`, and the number of connections opened.
fn client<F>(protocol: Protocol, serve: F) -> (Upstream<Empty<Bytes>, MemoryConnector<F>>, Arc<AtomicUsize>)
where
    F: Fn(usize, DuplexStream) + Send + Sync + 'static,
{
    client_with_body(protocol, serve)
}

/// The same for requests with bodies of type `B`.
fn client_with_body<B, F>(protocol: Protocol, serve: F) -> (Upstream<B, MemoryConnector<F>>, Arc<AtomicUsize>)
where
    F: Fn(usize, DuplexStream) + Send + Sync + 'static,
{
    let config = UpstreamConfig {
        url: Uri::from_static("https://api.finicity.com"),
        egress: None,
        connect_timeout: 3 * SECOND,
        idle_timeout: 60 * SECOND,
        pool_idle_timeout: 30 * SECOND,
        connection_age: 300 * SECOND,
        http2: protocol == Protocol::Http2,
    };
    let opened = Arc::new(AtomicUsize::new(0));
    let connector = MemoryConnector { protocol, opened: Arc::clone(&opened), serve };
    let header_rules = Arc::new(HeaderRules::new(&[HeaderName::from_static("finicity-app-key")], &[]));
    (Upstream::with_connector(&config, header_rules, connector, Arc::new(Metrics::new())), opened)
}

fn exchange<B>(request: Request<ReplayBody<B>>) -> Exchange<ReplayBody<B>> {
    let record = Arc::new(Record::new(request.method().clone(), None));
    Exchange { request, record }
}

async fn get<F>(client: &Upstream<Empty<Bytes>, MemoryConnector<F>>) -> Result<Response<ResponseBody>, Error>
where
    F: Fn(usize, DuplexStream) + Send + Sync + 'static,
{
    let request = Request::get("/x").body(Empty::new()).unwrap();
    client.clone().call(exchange(ReplayBuffer::wrap(request, Bytes::new(), 0))).await
}

/// Sends a request and reads the whole response body.
async fn fetch<F>(client: &Upstream<Empty<Bytes>, MemoryConnector<F>>) -> Bytes
where
    F: Fn(usize, DuplexStream) + Send + Sync + 'static,
{
    get(client).await.unwrap().into_body().collect().await.unwrap().to_bytes()
}

/// The disposition of a request that is expected to fail.
async fn disposition<F>(client: &Upstream<Empty<Bytes>, MemoryConnector<F>>) -> Option<Disposition>
where
    F: Fn(usize, DuplexStream) + Send + Sync + 'static,
{
    get(client).await.unwrap_err().disposition()
}

/// Reads a request head. `None` if the connection is closed instead.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(head)
}

/// Reads one request without a body. `None` if the connection is closed instead.
async fn read_request(stream: &mut DuplexStream) -> Option<()> {
    let head = read_head(stream).await?;
    assert!(head.starts_with(b"GET /x HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
    Some(())
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Responds to every request on `stream`.
fn respond_to_all(_: usize, mut stream: DuplexStream) {
    tokio::spawn(async move {
        while read_request(&mut stream).await.is_some() {
            stream.write_all(OK).await.unwrap();
        }
    });
}

/// Responds to `requests` requests, reads one more, sends `last_bytes`, and closes.
fn respond_to_some(requests: usize, last_bytes: &'static [u8]) -> impl Fn(usize, DuplexStream) + Send + Sync {
    move |_, mut stream| {
        drop(tokio::spawn(async move {
            for _ in 0..requests {
                read_request(&mut stream).await;
                stream.write_all(OK).await.unwrap();
            }
            read_request(&mut stream).await;
            stream.write_all(last_bytes).await.unwrap();
        }));
    }
}

/// The connection metrics of `client`: open and idle connections, and the close reasons of the others.
async fn connection_metrics<B, F>(client: &Upstream<B, MemoryConnector<F>>) -> String
where
    F: Fn(usize, DuplexStream) + Send + Sync + 'static,
{
    // Let the connection tasks finish.
    sleep(Duration::from_millis(1)).await;
    let text = client.0.pool.metrics().render();
    let lines = text.lines().filter_map(|line| line.strip_prefix("finicity_proxy_upstream_connections"));
    let lines = lines.filter(|line| !line.starts_with("_opened") && !line.ends_with(" 0"));
    lines.map(|line| line.replace("_closed_total{reason=", "")).collect::<Vec<_>>().join(",")
}

/// Responds to every request on `stream`, over HTTP/2, after a second.
fn serve_http2(_: usize, stream: DuplexStream) {
    serve_http2_after(SECOND, stream);
}

fn serve_http2_after(pause: Duration, stream: DuplexStream) {
    serve_http2_with(stream, move |_| async move {
        sleep(pause).await;
        Response::new(Full::new(Bytes::from("ok")))
    });
}

fn serve_http2_with<F>(stream: DuplexStream, respond: impl Fn(Request<Incoming>) -> F + Send + 'static)
where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let service = service_fn(move |request| respond(request).map(Ok::<_, Infallible>));
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    tokio::spawn(serving.serve_connection(TokioIo::new(stream), service));
}

/// The server ends of connections, for the test to use.
type ServerStreams = Arc<Mutex<Vec<DuplexStream>>>;

fn server_streams() -> (ServerStreams, impl Fn(usize, DuplexStream) + Send + Sync + 'static) {
    let streams = ServerStreams::default();
    let collected = Arc::clone(&streams);
    (streams, move |_, stream| collected.lock().unwrap().push(stream))
}

/// Responds after a second to the request on the first connection, and returns the server end of that connection.
async fn respond_to_first(streams: &ServerStreams) -> DuplexStream {
    sleep(SECOND).await;
    let mut stream = streams.lock().unwrap().remove(0);
    read_request(&mut stream).await;
    stream.write_all(OK).await.unwrap();
    stream
}

#[tokio::test(start_paused = true)]
async fn a_connection_serves_one_request_after_another() {
    let (client, opened) = client(Protocol::Http1, respond_to_all);
    for _ in 0..20 {
        assert_eq!(fetch(&client).await, "ok");
    }
    assert_eq!(opened.load(SeqCst), 1);
    let (first, second) = tokio::join!(get(&client), get(&client));
    assert_eq!(opened.load(SeqCst), 2, "one at a time");
    drop((first, second));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_not_read_to_its_end_closes_its_connection() {
    let (streams, collect) = server_streams();
    let (client, opened) = client(Protocol::Http1, collect);
    let act = async {
        sleep(SECOND).await;
        let mut stream = streams.lock().unwrap().remove(0);
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nabc").await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the connection must be closed");
    };
    tokio::join!(async { drop(get(&client).await.unwrap()) }, act);
    drop(timeout(SECOND, get(&client)).await);
    assert_eq!(opened.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn g05_an_idle_connection_is_closed() {
    let (streams, collect) = server_streams();
    let (client, opened) = client(Protocol::Http1, collect);
    let (_, mut stream) = tokio::join!(fetch(&client), respond_to_first(&streams));
    assert!(
        timeout(29 * SECOND, stream.read(&mut [0])).await.is_err(),
        "the connection stays open within the idle timeout"
    );
    assert_eq!(
        timeout(2 * SECOND, stream.read(&mut [0])).await.unwrap().unwrap(),
        0,
        "the proxy closes the connection after it"
    );
    drop(timeout(SECOND, get(&client)).await);
    assert_eq!(opened.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_idles_a_second_less_than_its_keep_alive_timeout() {
    for (fields, idle_s) in [
        ("", 30),
        ("keep-alive: timeout=5\r\n", 4),
        ("connection: keep-alive\r\nkeep-alive: timeout=15, max=100\r\n", 14),
        ("keep-alive: max=100,Timeout = \"7\"\r\n", 6),
        ("keep-alive: timeout=9\r\nkeep-alive: timeout=3, timeout=8\r\n", 2),
        ("keep-alive: timeout=60\r\n", 30),
        ("keep-alive: timeout=99999999999999999999999\r\n", 30),
        ("keep-alive: timeout=soon, timeout, timeout=, timeout=-1, x=2, timeoutx=2\r\n", 30),
        ("keep-alive: timeout=1\r\n", 0),
        ("keep-alive: timeout=0\r\n", 0),
    ] {
        let (client, opened) = client(Protocol::Http1, move |_, mut stream| {
            drop(tokio::spawn(async move {
                while read_request(&mut stream).await.is_some() {
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{fields}\r\nok");
                    stream.write_all(head.as_bytes()).await.unwrap();
                }
            }));
        });
        fetch(&client).await;
        for _ in 0..if idle_s == 0 { 0 } else { 3 } {
            sleep(idle_s * SECOND - SECOND / 2).await;
            fetch(&client).await;
        }
        assert_eq!(opened.load(SeqCst), 1, "{fields:?}: the connection is reused within the time");
        // The connection is closed when that time is over, and not only when the next request needs one.
        sleep(idle_s * SECOND + SECOND / 10).await;
        assert_eq!(connection_metrics(&client).await, r#""idle"} 1"#, "{fields:?}");
        fetch(&client).await;
        assert_eq!(opened.load(SeqCst), 2, "{fields:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_connection_has_its_own_keep_alive_timeout() {
    let (client, _) = client(Protocol::Http1, |number, mut stream| {
        drop(tokio::spawn(async move {
            while read_request(&mut stream).await.is_some() {
                let timeout = if number == 0 { "" } else { "keep-alive: timeout=5\r\n" };
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{timeout}\r\nok");
                stream.write_all(head.as_bytes()).await.unwrap();
            }
        }));
    });
    // Two concurrent requests open two connections; the one with the longer time becomes idle first.
    let (first, second) = tokio::join!(get(&client), get(&client));
    first.unwrap().into_body().collect().await.unwrap();
    sleep(SECOND).await;
    second.unwrap().into_body().collect().await.unwrap();
    assert_eq!(connection_metrics(&client).await, " 2,_idle 2");
    sleep(5 * SECOND).await;
    assert_eq!(connection_metrics(&client).await, r#" 1,"idle"} 1,_idle 1"#);
    sleep(25 * SECOND).await;
    assert_eq!(connection_metrics(&client).await, r#""idle"} 2"#);
}

#[tokio::test(start_paused = true)]
async fn g11_a_connection_is_not_reused_after_its_maximum_age() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (client, opened) = client(protocol, move |number, stream| match protocol {
            Protocol::Http1 => respond_to_all(number, stream),
            Protocol::Http2 => serve_http2(number, stream),
        });
        let started = Instant::now();
        let mut openings = Vec::new();
        while started.elapsed() < 3000 * SECOND {
            fetch(&client).await;
            openings.resize(opened.load(SeqCst), started.elapsed().as_secs_f64());
            sleep(SECOND).await;
        }
        let ages: Vec<f64> = openings.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(ages.iter().all(|age| (269.0..=332.0).contains(age)), "{ages:?}");
        assert!(ages.iter().any(|age| (age - ages[0]).abs() > 1.0), "no jitter: {ages:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g11_a_response_outlives_the_age_limit_of_its_connection() {
    let (client, opened) = client(Protocol::Http1, |_, mut stream| {
        drop(tokio::spawn(async move {
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 600\r\n\r\n").await.unwrap();
            for _ in 0..600 {
                sleep(SECOND).await;
                stream.write_all(b"x").await.unwrap();
            }
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the connection must be closed");
        }));
    });
    // At a byte a second, this also covers f17: a body that makes progress has no time limit.
    assert_eq!(fetch(&client).await.len(), 600);
    assert_eq!(opened.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn f17_a_slow_response_continues_and_a_stalled_one_fails() {
    let (client, _) = client(Protocol::Http1, |_, mut stream| {
        drop(tokio::spawn(async move {
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 600\r\n\r\n").await.unwrap();
            for _ in 0..100 {
                sleep(59 * SECOND).await;
                stream.write_all(b"x").await.unwrap();
            }
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the connection must be closed");
        }));
    });
    let mut body = get(&client).await.unwrap().into_body();
    for _ in 0..100 {
        body.frame().await.unwrap().unwrap();
    }
    let stopped = Instant::now();
    body.frame().await.unwrap().unwrap_err();
    assert_eq!(stopped.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn g07_an_abandoned_request_closes_its_connection() {
    let (streams, collect) = server_streams();
    let (client, _) = client(Protocol::Http1, collect);
    assert!(timeout(SECOND, get(&client)).await.is_err());
    let mut stream = streams.lock().unwrap().remove(0);
    read_request(&mut stream).await;
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_closed_connection_is_not_reused() {
    let (client, opened) = client(Protocol::Http1, |number, stream| match number {
        0 => drop(tokio::spawn(async move {
            let mut stream = stream;
            read_request(&mut stream).await;
            stream.write_all(OK).await.unwrap();
        })),
        _ => respond_to_all(number, stream),
    });
    fetch(&client).await;
    fetch(&client).await;
    assert_eq!(opened.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn g01_a_connection_closed_at_the_last_moment_is_not_reused() {
    let (streams, collect) = server_streams();
    let (client, opened) = client(Protocol::Http1, collect);
    let (_, stream) = tokio::join!(fetch(&client), respond_to_first(&streams));
    drop(stream);
    tokio::join!(fetch(&client), respond_to_first(&streams));
    assert_eq!(opened.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn g01_no_response_needs_a_reused_connection_and_no_bytes() {
    let (fresh, _) = client(Protocol::Http1, respond_to_some(0, b""));
    assert_eq!(disposition(&fresh).await, None, "the first request may have been executed");

    let (reused, _) = client(Protocol::Http1, respond_to_some(2, b""));
    fetch(&reused).await;
    fetch(&reused).await;
    assert_eq!(disposition(&reused).await, Some(Disposition::NoResponse));

    for last_bytes in [&b"H"[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let (begun, _) = client(Protocol::Http1, respond_to_some(1, last_bytes));
        fetch(&begun).await;
        assert_eq!(disposition(&begun).await, None, "{last_bytes:?}");
    }
}

#[test]
fn a_connect_error_has_no_disposition() {
    let error =
        connect_error(ConnectError::Tcp(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused))), Executed::No);
    assert_eq!((error.code(), error.disposition()), (Code::UpstreamUnreachable, None));
    assert_eq!(error.cause().as_deref(), Some("TCP connect failed: connection refused"));
}
