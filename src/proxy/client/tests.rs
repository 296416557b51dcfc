//! Upstreams in memory, under paused time.

use std::{
    convert::Infallible,
    io,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http::{HeaderName, Method, Request};
use http_body_util::{
    BodyExt as _, Empty, Full,
    channel::{Channel, Sender},
};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::{Instant, sleep, timeout},
};

use super::{
    connect::{ConnectError, Protocol},
    request::not_connected,
    *,
};
use crate::proxy::{Code, Record, error::Fate, replay::Original};

const SECOND: Duration = Duration::from_secs(1);

/// Hands out connections to upstreams in memory: `serve` is called with the number of the connection and its other end.
struct Memory<F> {
    protocol: Protocol,
    opened: Arc<AtomicUsize>,
    serve: F,
}

impl<F: Fn(usize, DuplexStream) + Send + Sync + 'static> Connect for Memory<F> {
    type Stream = DuplexStream;

    async fn connect(&self) -> Result<(DuplexStream, Protocol), ConnectError> {
        // The time of a handshake.
        sleep(Duration::from_millis(100)).await;
        let (near, far) = duplex(64 * 1024);
        (self.serve)(self.opened.fetch_add(1, SeqCst), far);
        Ok((near, self.protocol))
    }
}

/// A client whose connections `serve` answers, and the number of those opened.
fn client<F>(protocol: Protocol, serve: F) -> (Upstream<Empty<Bytes>, Memory<F>>, Arc<AtomicUsize>)
where
    F: Fn(usize, DuplexStream) + Send + Sync + 'static,
{
    client_of(protocol, serve)
}

/// The same for requests with bodies of some kind.
fn client_of<B, F>(protocol: Protocol, serve: F) -> (Upstream<B, Memory<F>>, Arc<AtomicUsize>)
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
    let connector = Memory { protocol, opened: Arc::clone(&opened), serve };
    let own_names = Arc::new(OwnNames::new(&[HeaderName::from_static("finicity-app-key")]));
    (Upstream::with_connector(&config, own_names, connector, Arc::new(Metrics::new())), opened)
}

async fn get<F>(client: &Upstream<Empty<Bytes>, Memory<F>>) -> Result<Response<ResponseBody>, Error>
where
    F: Fn(usize, DuplexStream) + Send + Sync + 'static,
{
    let request = Original::keep(Request::get("/x").body(Empty::new()).unwrap(), 0);
    let record = Arc::new(Record::new(Method::GET, None));
    client.clone().call(Exchange { request, record }).await
}

/// Sends a request and takes the answer whole.
async fn fetch<F>(client: &Upstream<Empty<Bytes>, Memory<F>>) -> Bytes
where
    F: Fn(usize, DuplexStream) + Send + Sync + 'static,
{
    get(client).await.unwrap().into_body().collect().await.unwrap().to_bytes()
}

/// What became of a request that is expected to fail.
async fn fate<F>(client: &Upstream<Empty<Bytes>, Memory<F>>) -> Option<Fate>
where
    F: Fn(usize, DuplexStream) + Send + Sync + 'static,
{
    get(client).await.unwrap_err().fate()
}

/// Reads one request without a body. `None` when the connection is closed instead.
async fn read_request(stream: &mut DuplexStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    assert!(head.starts_with(b"GET /x HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
    Some(())
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Answers every request on `stream`.
fn answer_all(_: usize, mut stream: DuplexStream) {
    tokio::spawn(async move {
        while read_request(&mut stream).await.is_some() {
            stream.write_all(OK).await.unwrap();
        }
    });
}

/// Answers `requests` requests, reads one more, and says `last_words` before it closes.
fn answer_some(requests: usize, last_words: &'static [u8]) -> impl Fn(usize, DuplexStream) + Send + Sync {
    move |_, mut stream| {
        drop(tokio::spawn(async move {
            for _ in 0..requests {
                read_request(&mut stream).await;
                stream.write_all(OK).await.unwrap();
            }
            read_request(&mut stream).await;
            stream.write_all(last_words).await.unwrap();
        }));
    }
}

/// What the metrics say of the client's connections: how many are open, how many idle, and why the others were closed.
async fn lives<B, F>(client: &Upstream<B, Memory<F>>) -> String
where
    F: Fn(usize, DuplexStream) + Send + Sync + 'static,
{
    // The tasks of the connections have the last word.
    sleep(Duration::from_millis(1)).await;
    let text = client.0.pool.metrics().render();
    let told = text.lines().filter_map(|line| line.strip_prefix("finicity_proxy_upstream_connections"));
    let told = told.filter(|line| !line.starts_with("_opened") && !line.ends_with(" 0"));
    told.map(|line| line.replace("_closed_total{reason=", "")).collect::<Vec<_>>().join(",")
}

/// The far ends of connections, for the test to act on.
type Ends = Arc<Mutex<Vec<DuplexStream>>>;

fn ends() -> (Ends, impl Fn(usize, DuplexStream) + Send + Sync + 'static) {
    let ends = Ends::default();
    let kept = Arc::clone(&ends);
    (ends, move |_, end| kept.lock().unwrap().push(end))
}

/// Answers the request that has come on the first connection in a second, and gives that connection's end.
async fn answer_first(ends: &Ends) -> DuplexStream {
    sleep(SECOND).await;
    let mut end = ends.lock().unwrap().remove(0);
    read_request(&mut end).await;
    end.write_all(OK).await.unwrap();
    end
}

#[tokio::test(start_paused = true)]
async fn a_connection_serves_one_request_after_another() {
    let (client, opened) = client(Protocol::Http1, answer_all);
    for _ in 0..20 {
        assert_eq!(fetch(&client).await, "ok");
    }
    assert_eq!(opened.load(SeqCst), 1);
    let (first, second) = tokio::join!(get(&client), get(&client));
    assert_eq!(opened.load(SeqCst), 2, "one at a time");
    drop((first, second));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_taken_whole_costs_its_connection() {
    let (ends, keep) = ends();
    let (client, opened) = client(Protocol::Http1, keep);
    let act = async {
        sleep(SECOND).await;
        let mut end = ends.lock().unwrap().remove(0);
        read_request(&mut end).await;
        end.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nabc").await.unwrap();
        assert_eq!(end.read(&mut [0]).await.unwrap(), 0, "it must be closed");
    };
    tokio::join!(async { drop(get(&client).await.unwrap()) }, act);
    drop(timeout(SECOND, get(&client)).await);
    assert_eq!(opened.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn g05_a_connection_that_is_not_used_is_closed() {
    let (ends, keep) = ends();
    let (client, opened) = client(Protocol::Http1, keep);
    let (_, mut end) = tokio::join!(fetch(&client), answer_first(&ends));
    assert!(timeout(29 * SECOND, end.read(&mut [0])).await.is_err(), "it is kept for its time");
    assert_eq!(timeout(2 * SECOND, end.read(&mut [0])).await.unwrap().unwrap(), 0, "and then closed by us");
    drop(timeout(SECOND, get(&client)).await);
    assert_eq!(opened.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn g11_a_connection_takes_no_requests_after_its_age() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (client, opened) = client(protocol, move |number, stream| match protocol {
            Protocol::Http1 => answer_all(number, stream),
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
        assert!(ages.iter().any(|age| (age - ages[0]).abs() > 1.0), "all alike: {ages:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g11_what_is_under_way_when_a_connection_grows_too_old_is_finished() {
    let (client, opened) = client(Protocol::Http1, |_, mut stream| {
        drop(tokio::spawn(async move {
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 600\r\n\r\n").await.unwrap();
            for _ in 0..600 {
                sleep(SECOND).await;
                stream.write_all(b"x").await.unwrap();
            }
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "it is not kept");
        }));
    });
    // At a byte a second, this is also f17: what moves may take as long as it takes.
    assert_eq!(fetch(&client).await.len(), 600);
    assert_eq!(opened.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn f17_an_answer_that_drips_goes_on_and_one_that_stops_is_given_up() {
    let (client, _) = client(Protocol::Http1, |_, mut stream| {
        drop(tokio::spawn(async move {
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 600\r\n\r\n").await.unwrap();
            for _ in 0..100 {
                sleep(59 * SECOND).await;
                stream.write_all(b"x").await.unwrap();
            }
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "it must be closed");
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
async fn the_metrics_know_why_a_connection_was_closed() {
    let (kept, _) = client(Protocol::Http1, answer_all);
    fetch(&kept).await;
    assert_eq!(lives(&kept).await, " 1,_idle 1");
    let (first, second) = tokio::join!(get(&kept), get(&kept));
    assert_eq!(lives(&kept).await, " 2");
    drop((first.unwrap().into_body().collect().await, second.unwrap().into_body().collect().await));
    assert_eq!(lives(&kept).await, " 2,_idle 2");
    sleep(31 * SECOND).await;
    assert_eq!(lives(&kept).await, r#""idle"} 2"#);
    for _ in 0..40 {
        sleep(10 * SECOND).await;
        fetch(&kept).await;
    }
    assert_eq!(lives(&kept).await, r#" 1,"age"} 1,"idle"} 2,_idle 1"#);

    let (given_up, _) = client(Protocol::Http1, ends().1);
    assert!(timeout(SECOND, get(&given_up)).await.is_err());
    assert_eq!(lives(&given_up).await, r#""unfinished"} 1"#);

    let (ends, keep) = ends();
    let (half_taken, _) = client(Protocol::Http1, keep);
    let act = async {
        sleep(SECOND).await;
        let mut end = ends.lock().unwrap().remove(0);
        read_request(&mut end).await;
        end.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nabc").await.unwrap();
        end
    };
    let (_, _end) = tokio::join!(async { drop(get(&half_taken).await.unwrap()) }, act);
    assert_eq!(lives(&half_taken).await, r#""unfinished"} 1"#);

    let (closed, _) = client(Protocol::Http1, |_, mut stream| {
        drop(tokio::spawn(async move {
            read_request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await.unwrap();
        }));
    });
    fetch(&closed).await;
    assert_eq!(lives(&closed).await, r#""upstream"} 1"#);

    let (broken, _) = client(Protocol::Http1, answer_some(0, b""));
    fate(&broken).await;
    assert_eq!(lives(&broken).await, r#""upstream"} 1"#);

    let (noisy, _) = client(Protocol::Http1, |_, mut stream| {
        drop(tokio::spawn(async move {
            read_request(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            sleep(SECOND).await;
            stream.write_all(b"an answer that nobody asked for").await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "it must be closed");
        }));
    });
    fetch(&noisy).await;
    sleep(2 * SECOND).await;
    assert_eq!(lives(&noisy).await, r#""failed"} 1"#);

    for (broken, reason) in [(&b"nonsense"[..], "failed"), (b"", "upstream")] {
        let (broken_body, _) = client(Protocol::Http1, move |_, mut stream| {
            drop(tokio::spawn(async move {
                read_request(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
                sleep(SECOND).await;
                stream.write_all(broken).await.unwrap();
            }));
        });
        get(&broken_body).await.unwrap().into_body().collect().await.unwrap_err();
        assert_eq!(lives(&broken_body).await, format!(r#""{reason}"}} 1"#));
    }

    let (shared, _) = client(Protocol::Http2, serve_http2);
    assert!(timeout(SECOND / 2, get(&shared)).await.is_err());
    fetch(&shared).await;
    assert_eq!(lives(&shared).await, " 1", "one stream less, the same connection");
    sleep(31 * SECOND).await;
    assert_eq!(lives(&shared).await, r#""idle"} 1"#);
}

#[tokio::test(start_paused = true)]
async fn g07_a_request_that_nobody_waits_for_is_cut_off() {
    let (ends, keep) = ends();
    let (client, _) = client(Protocol::Http1, keep);
    assert!(timeout(SECOND, get(&client)).await.is_err());
    let mut end = ends.lock().unwrap().remove(0);
    read_request(&mut end).await;
    assert_eq!(end.read(&mut [0]).await.unwrap(), 0);
}

type Upload = Channel<Bytes, io::Error>;

/// Sends a request whose body the caller sends.
async fn post<F>(client: &Upstream<Upload, Memory<F>>) -> (Sender<Bytes, io::Error>, Response<ResponseBody>)
where
    F: Fn(usize, DuplexStream) + Send + Sync + 'static,
{
    let (sender, body) = Channel::new(1);
    let request = Request::post("/x").header("content-length", PARTS * PART).body(body).unwrap();
    let request = Original::keep(request, 0);
    let record = Arc::new(Record::new(Method::POST, None));
    let answer = client.clone().call(Exchange { request, record }).await.unwrap();
    (sender, answer)
}

/// A body that no buffer on the way has room for.
const PARTS: usize = 100;
const PART: usize = 32 * 1024;

/// Answers every request as soon as its head has come, with as much as its body has, and takes that body.
fn answer_early(fields: &'static str) -> impl Fn(usize, DuplexStream) + Send + Sync {
    move |_, stream| {
        drop(tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let mut taken = vec![0; PARTS * PART];
            loop {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = reader.read_u8().await else { return };
                    head.push(byte);
                }
                let answering = async {
                    writer.write_all(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes()).await?;
                    for _ in 0..PARTS {
                        let is_chunked = fields.contains("chunked");
                        let line = if is_chunked { format!("{PART:x}\r\n") } else { String::new() };
                        writer.write_all(line.as_bytes()).await?;
                        writer.write_all(&[b'a'; PART]).await?;
                        writer.write_all(if is_chunked { b"\r\n" } else { b"" }).await?;
                    }
                    writer.write_all(if fields.contains("chunked") { b"0\r\n\r\n" } else { b"" }).await
                };
                let (answered, read) = tokio::join!(answering, reader.read_exact(&mut taken));
                if answered.is_err() || read.is_err() {
                    return;
                }
                assert!(taken.iter().all(|byte| *byte == b'q'));
            }
        }));
    }
}

const EARLY: [&str; 2] = ["transfer-encoding: chunked\r\n", "content-length: 3276800\r\n"];

#[tokio::test(start_paused = true)]
async fn a_caller_that_takes_nothing_of_an_early_answer_before_it_has_sent_all_gets_all_of_it() {
    for fields in EARLY {
        let (client, opened) = client_of(Protocol::Http1, answer_early(fields));
        for _ in 0..2 {
            let (mut sender, answer) = post(&client).await;
            for _ in 0..PARTS {
                sender.send_data(Bytes::from(vec![b'q'; PART])).await.unwrap();
            }
            drop(sender);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(body.len() == PARTS * PART && body.iter().all(|byte| *byte == b'a'));
        }
        assert_eq!(opened.load(SeqCst), 1, "both sides have said everything");
        assert_eq!(lives(&client).await, " 1,_idle 1");
    }
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_can_be_taken_before_its_request_has_been_sent() {
    for fields in EARLY {
        let (client, _) = client_of(Protocol::Http1, answer_early(fields));
        let (sender, answer) = post(&client).await;
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(body.len() == PARTS * PART && body.iter().all(|byte| *byte == b'a'));
        drop(sender);
        assert_eq!(lives(&client).await, r#""upstream"} 1"#, "the rest of the request was never sent");
    }
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_ends_with_its_request_or_when_nobody_wants_it() {
    for fields in EARLY {
        let (client, _) = client_of(Protocol::Http1, answer_early(fields));
        let (mut sender, answer) = post(&client).await;
        sender.send_data(Bytes::from(vec![b'q'; PART])).await.unwrap();
        sender.abort(io::ErrorKind::UnexpectedEof.into());
        answer.into_body().collect().await.unwrap_err();
        assert_eq!(lives(&client).await, r#""unfinished"} 1"#);

        let (_sender, answer) = post(&client).await;
        drop(answer);
        assert_eq!(lives(&client).await, r#""unfinished"} 2"#);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_known_to_be_closed_is_not_used() {
    let (client, opened) = client(Protocol::Http1, |number, stream| match number {
        0 => drop(tokio::spawn(async move {
            let mut stream = stream;
            read_request(&mut stream).await;
            stream.write_all(OK).await.unwrap();
        })),
        _ => answer_all(number, stream),
    });
    fetch(&client).await;
    fetch(&client).await;
    assert_eq!(opened.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn g01_a_connection_that_closes_at_the_last_moment_is_not_used() {
    let (ends, keep) = ends();
    let (client, opened) = client(Protocol::Http1, keep);
    let (_, end) = tokio::join!(fetch(&client), answer_first(&ends));
    drop(end);
    tokio::join!(fetch(&client), answer_first(&ends));
    assert_eq!(opened.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn g01_only_silence_on_a_connection_that_served_before_says_that_it_was_closing() {
    let (fresh, _) = client(Protocol::Http1, answer_some(0, b""));
    assert_eq!(fate(&fresh).await, None, "its first request may have been executed");

    let (reused, _) = client(Protocol::Http1, answer_some(2, b""));
    fetch(&reused).await;
    fetch(&reused).await;
    assert_eq!(fate(&reused).await, Some(Fate::Unanswered));

    for last_words in [&b"H"[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let (begun, _) = client(Protocol::Http1, answer_some(1, last_words));
        fetch(&begun).await;
        assert_eq!(fate(&begun).await, None, "{last_words:?}");
    }
}

#[test]
fn a_failure_to_connect_says_nothing_of_a_request() {
    let error = not_connected(ConnectError::Tcp(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused))));
    assert_eq!((error.code(), error.fate()), (Code::UpstreamUnreachable, None));
    assert_eq!(error.cause().as_deref(), Some("connecting failed: connection refused"));
}

/// Answers every request on `stream`, over HTTP/2, after a second.
fn serve_http2(_: usize, stream: DuplexStream) {
    serve_http2_after(SECOND, stream);
}

fn serve_http2_after(pause: Duration, stream: DuplexStream) {
    let service = service_fn(move |_| async move {
        sleep(pause).await;
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("ok"))))
    });
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    tokio::spawn(serving.serve_connection(TokioIo::new(stream), service));
}

#[tokio::test(start_paused = true)]
async fn over_http2_a_crowd_shares_one_connection_from_the_start() {
    let (client, opened) = client(Protocol::Http2, serve_http2);
    let started = Instant::now();
    let crowd = (0..50).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { fetch(&client).await })
    });
    for answer in crowd.collect::<Vec<_>>() {
        assert_eq!(answer.await.unwrap(), "ok");
    }
    assert_eq!((opened.load(SeqCst), started.elapsed().as_secs()), (1, 1));
    sleep(31 * SECOND).await;
    fetch(&client).await;
    assert_eq!(opened.load(SeqCst), 2, "it is not kept for ever either");
}

#[tokio::test(start_paused = true)]
async fn over_http2_a_request_may_take_longer_than_an_unused_connection_is_kept() {
    let (client, opened) = client(Protocol::Http2, |_, stream| serve_http2_after(100 * SECOND, stream));
    // Time that is paused stands still while anything is busy, so this hangs when whoever looks after the connection is.
    assert_eq!(fetch(&client).await, "ok");
    assert_eq!(lives(&client).await, " 1", "it has just been used");
    fetch(&client).await;
    assert_eq!(opened.load(SeqCst), 1);
    sleep(61 * SECOND).await;
    assert_eq!(lives(&client).await, r#""idle"} 1"#);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_sent_again_may_go_over_the_other_protocol() {
    type Serve = Box<dyn Fn(usize, DuplexStream) + Send + Sync>;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let saw = Arc::clone(&seen);
    let serve_http1: Serve = Box::new(move |_, mut stream| {
        let saw = Arc::clone(&saw);
        drop(tokio::spawn(async move {
            let mut head = Vec::new();
            while let Ok(byte) = stream.read_u8().await {
                head.push(byte);
                if head.ends_with(b"\r\n\r\n") {
                    saw.lock().unwrap().push(String::from_utf8(std::mem::take(&mut head)).unwrap());
                    stream.write_all(OK).await.unwrap();
                }
            }
        }));
    });
    let saw = Arc::clone(&seen);
    let serve_http2: Serve = Box::new(move |_, stream| {
        let saw = Arc::clone(&saw);
        let service = service_fn(move |request: Request<_>| {
            let fields =
                request.headers().iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
            let head = format!("{} {}\r\n{}", request.method(), request.uri(), fields.collect::<String>());
            saw.lock().unwrap().push(head);
            std::future::ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("ok")))))
        });
        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(serving.serve_connection(TokioIo::new(stream), service));
    });
    let ((over_http1, _), (over_http2, _)) =
        (client(Protocol::Http1, serve_http1), client(Protocol::Http2, serve_http2));
    const OVER_HTTP1: &str = "PUT /x?y HTTP/1.1\r\na: b\r\ncontent-length: 0\r\nhost: api.finicity.com\r\n\r\n";
    const OVER_HTTP2: &str = "PUT https://api.finicity.com/x?y\r\na: b\r\ncontent-length: 0\r\n";
    for (tries, expected) in
        [([&over_http1, &over_http2], [OVER_HTTP1, OVER_HTTP2]), ([&over_http2, &over_http1], [OVER_HTTP2, OVER_HTTP1])]
    {
        let request = Request::put("/x?y").header("a", "b").header("content-length", "0").body(Empty::new()).unwrap();
        let mut request = Original::keep(request, 0);
        let original = request.body().original();
        for client in tries {
            let record = Arc::new(Record::new(Method::PUT, None));
            client.clone().call(Exchange { request, record }).await.unwrap().into_body().collect().await.unwrap();
            request = original.again().expect("it was sent, and can be sent again");
        }
        assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), expected);
    }
}
