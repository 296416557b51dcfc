//! Requests to h2 servers and to one that only reads, in memory and under paused time.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use h2::{
    Reason, RecvStream,
    server::{self, SendResponse},
};
use http::{Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Channel, Empty, Full, combinators::BoxBody};
use tokio::{
    io::{AsyncReadExt as _, DuplexStream, duplex},
    sync::oneshot,
    time::{sleep, timeout},
};

use super::*;
use crate::{
    telemetry::Metrics,
    {error_chain::BodyError, upstream::Disposition},
};

const SECOND: Duration = Duration::from_secs(1);
const REUSED: bool = true;

type TestBody = BoxBody<Bytes, BodyError>;

fn empty() -> TestBody {
    Empty::new().map_err(|never| match never {}).boxed()
}

fn full(bytes: impl Into<Bytes>) -> TestBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// A body of the data sent to the sender.
fn channel() -> (http_body_util::channel::Sender<Bytes, BodyError>, TestBody) {
    let (sender, body) = Channel::new(1);
    (sender, body.boxed())
}

fn post(body: TestBody) -> Request<TestBody> {
    Request::post("https://api.finicity.com/x").body(body).unwrap()
}

fn get() -> Request<TestBody> {
    Request::get("https://api.finicity.com/x").body(empty()).unwrap()
}

/// The close reasons counted in `metrics`.
fn closed_metrics(metrics: &Metrics) -> String {
    let text = metrics.render();
    let lines = text.lines().filter(|line| line.starts_with("finicity_proxy_upstream_connections_closed_total"));
    lines.filter(|line| !line.ends_with(" 0")).map(|line| line.split_once('{').unwrap().1).collect()
}

/// A connection to a server from `builder` that calls `handler` for each request.
async fn connection_to<F>(
    builder: server::Builder,
    handler: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + 'static,
) -> (Http2Connection, Arc<Metrics>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (near, far) = duplex(256 * 1024);
    tokio::spawn(async move {
        let mut connection = builder.handshake::<_, Bytes>(far).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(handler(request, respond));
        }
    });
    begin(near).await
}

async fn connection<F>(
    handler: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + 'static,
) -> (Http2Connection, Arc<Metrics>)
where
    F: Future<Output = ()> + Send + 'static,
{
    connection_to(server::Builder::new(), handler).await
}

async fn begin(stream: DuplexStream) -> (Http2Connection, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    let connection_metrics = ConnectionMetrics::opened(Arc::clone(&metrics), Duration::ZERO);
    (Http2Connection::begin(stream, 60 * SECOND, connection_metrics).await.unwrap(), metrics)
}

fn head() -> Response<()> {
    Response::new(())
}

/// The complete request body, or the error that ended it.
async fn read(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut read = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len()).unwrap();
        read.extend_from_slice(&part);
    }
    Ok(read)
}

/// The complete response body, or the error that ended it.
async fn read_response(mut response: Response<RecvBody>) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(part) = poll_fn(|cx| response.body_mut().poll_data(cx)).await {
        body.extend_from_slice(&part?);
    }
    assert!(response.body().is_end_stream());
    Ok(body)
}

async fn echo(mut request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let body = read(request.body_mut()).await.unwrap();
    let mut sent = respond.send_response(head(), false).unwrap();
    sent.send_data(body.into(), true).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_follows_flow_control_and_arrives_complete() {
    let mut builder = server::Builder::new();
    builder.initial_window_size(1000).initial_connection_window_size(1500);
    let (connection, _) = connection_to(builder, echo).await;
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    let sent = (0..3).map(|_| connection.send(post(full(bytes.clone())), REUSED));
    for response in sent.collect::<Vec<_>>() {
        assert!(read_response(response.await.unwrap()).await.unwrap() == bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_sent_in_parts_and_ends_with_the_last() {
    let (connection, _) = connection(echo).await;
    let (mut parts, body) = channel();
    let response = tokio::spawn(connection.send(post(body), REUSED));
    for part in ["a", "", "bc"] {
        parts.send_data(Bytes::from(part)).await.unwrap();
        sleep(SECOND).await;
    }
    drop(parts);
    assert_eq!(read_response(response.await.unwrap().unwrap()).await.unwrap(), b"abc");
}

/// A body of these parts, in reverse order. It reports its end together with the last part.
struct KnownPartsBody(Vec<&'static str>);

impl Body for KnownPartsBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.0.pop().map(|part| Ok(Frame::data(Bytes::from(part)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_window_does_not_delay_the_end_of_a_body() {
    for parts in [&["", "abc"][..], &["c", "ab"], &["", "", "abc"], &["abc", ""]] {
        let mut builder = server::Builder::new();
        builder.initial_window_size(3);
        let (connection, _) = connection_to(builder, async |mut request: Request<RecvStream>, mut respond| {
            // The window stays exhausted until the whole body has been read.
            let mut body = Vec::new();
            while let Some(part) = request.body_mut().data().await {
                body.extend_from_slice(&part.unwrap());
            }
            assert_eq!(body, b"abc");
            respond.send_response(head(), true).unwrap();
        })
        .await;
        let request = Request::post("https://api.finicity.com/x").body(KnownPartsBody(parts.to_vec())).unwrap();
        timeout(SECOND, connection.send(request, REUSED)).await.expect("the request completes").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a22_a_failed_body_resets_the_stream() {
    let (sender, received) = oneshot::channel();
    let sender = std::sync::Mutex::new(Some(sender));
    let (connection, _) = connection(move |mut request, respond| {
        let sender = sender.lock().unwrap().take().unwrap();
        async move {
            let _respond = respond;
            sender.send(read(request.body_mut()).await).unwrap();
        }
    })
    .await;
    let (mut parts, body) = channel();
    let response = tokio::spawn(connection.send(post(body), REUSED));
    parts.send_data(Bytes::from("abc")).await.unwrap();
    parts.abort("the client disconnected".into());
    let Http2Failure { error, disposition, is_connection_error } = response.await.unwrap().err().unwrap();
    assert!(error.is_downstream(), "{error:?}");
    assert_eq!((disposition, is_connection_error), (None, false));
    assert_eq!(received.await.unwrap().unwrap_err().reason(), Some(Reason::CANCEL));
    assert!(connection.is_usable(), "not a connection error");
}

#[tokio::test(start_paused = true)]
async fn g07_a_dropped_request_or_response_resets_its_stream() {
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    let (connection, _) = connection(move |_, mut respond| {
        let sender = sender.clone();
        async move {
            // Responds only to requests that wait.
            let reset = timeout(SECOND, poll_fn(|cx| respond.poll_reset(cx))).await;
            if let Ok(reset) = reset {
                return sender.send(reset.unwrap()).unwrap();
            }
            let mut sent = respond.send_response(head(), false).unwrap();
            sent.send_data(Bytes::from("the start"), false).unwrap();
            sender.send(poll_fn(|cx| sent.poll_reset(cx)).await.unwrap()).unwrap();
        }
    })
    .await;
    timeout(SECOND / 2, connection.send(get(), REUSED)).await.err().unwrap();
    assert_eq!(received.recv().await, Some(Reason::CANCEL));
    let response = connection.send(get(), REUSED).await.unwrap();
    assert_eq!(response.body().size_hint().exact(), None);
    drop(response);
    assert_eq!(received.recv().await, Some(Reason::CANCEL));
}

#[tokio::test(start_paused = true)]
async fn a_response_can_complete_before_its_request() {
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    let (connection, _) = connection(move |mut request, mut respond| {
        let sender = sender.clone();
        async move {
            let early = Response::builder().status(StatusCode::PAYLOAD_TOO_LARGE).body(()).unwrap();
            let mut sent = respond.send_response(early, false).unwrap();
            sent.send_data(Bytes::from("too large"), true).unwrap();
            sender.send(read(request.body_mut()).await.unwrap()).unwrap();
        }
    })
    .await;
    let (mut parts, body) = channel();
    let response = connection.send(post(body), REUSED).await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(read_response(response).await.unwrap(), b"too large");
    parts.send_data(Bytes::from("the rest")).await.unwrap();
    drop(parts);
    assert_eq!(received.recv().await.unwrap(), b"the rest", "the server did not reset the stream");
}

#[tokio::test(start_paused = true)]
async fn informational_responses_are_skipped_up_to_a_limit() {
    // The same limit as over HTTP/1.1: 64 KiB in total.
    const HINT_BYTES: usize = "HTTP/1.1 103 \r\nlink: \r\n\r\n".len() + 8192;
    for (hints, is_early, accepted) in [
        (0, false, true),
        (INTERIM_LIMIT / HINT_BYTES, false, true),
        (INTERIM_LIMIT / HINT_BYTES + 1, false, false),
        (INTERIM_LIMIT / HINT_BYTES, true, true),
        (INTERIM_LIMIT / HINT_BYTES + 1, true, false),
    ] {
        let (connection, _) = connection(move |_, mut respond: SendResponse<Bytes>| async move {
            for _ in 0..hints {
                let hint = Response::builder().status(StatusCode::EARLY_HINTS).header("link", "x".repeat(8192));
                if respond.send_informational(hint.body(()).unwrap()).is_err() {
                    return;
                }
                if is_early {
                    sleep(SECOND).await;
                }
            }
            let _ = respond.send_response(head(), true);
        })
        .await;
        let result = connection.send(get(), REUSED).await;
        assert_eq!(result.is_ok(), accepted, "{hints} {is_early}");
        if let Err(Http2Failure { error, disposition, is_connection_error }) = result {
            assert!(error.is_protocol() && is_connection_error, "{error:?}");
            assert_eq!(disposition, None, "it may have been executed");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sending_stops_when_the_server_resets_the_stream() {
    let (connection, _) = connection(|_, mut respond: SendResponse<Bytes>| async move {
        let mut sent = respond.send_response(head(), false).unwrap();
        sent.send_data(Bytes::from("enough"), true).unwrap();
        sleep(SECOND).await;
        sent.send_reset(Reason::NO_ERROR);
    })
    .await;
    let (mut parts, body) = channel();
    let response = connection.send(post(body), REUSED).await.unwrap();
    assert_eq!(read_response(response).await.unwrap(), b"enough");
    sleep(2 * SECOND).await;
    assert!(parts.send_data(Bytes::from("more")).await.is_err(), "the body was dropped");
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_reset_before_its_end_fails() {
    for (reason, expected) in [
        (Reason::NO_ERROR, "the upstream reset the stream before the end of the response"),
        (Reason::INTERNAL_ERROR, "the upstream ended the stream: unexpected internal error encountered"),
    ] {
        let (connection, _) = connection(move |_, mut respond: SendResponse<Bytes>| async move {
            let mut sent = respond.send_response(head(), false).unwrap();
            sent.send_data(Bytes::from("the start"), false).unwrap();
            sleep(SECOND).await;
            sent.send_reset(reason);
        })
        .await;
        let response = connection.send(get(), REUSED).await.unwrap();
        assert_eq!(read_response(response).await.unwrap_err().to_string(), expected);
        assert!(connection.is_usable());
    }
}

#[tokio::test(start_paused = true)]
async fn the_body_must_match_content_length() {
    let response_body = |length: &'static str, body: &'static str| async move {
        let (connection, _) = connection(move |_, mut respond: SendResponse<Bytes>| async move {
            let response_head = Response::builder().header("content-length", length).body(()).unwrap();
            let mut sent = respond.send_response(response_head, false).unwrap();
            sent.send_data(Bytes::from(body), true).unwrap();
        })
        .await;
        let response = connection.send(get(), REUSED).await.unwrap();
        assert_eq!(response.body().size_hint().exact(), length.parse().ok());
        read_response(response).await
    };
    assert_eq!(response_body("5", "abcde").await.unwrap(), b"abcde");
    for body in ["abcd", "abcdef"] {
        assert!(response_body("5", body).await.unwrap_err().is_protocol(), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn capacity_follows_the_maximum_of_concurrent_streams() {
    for (announced, limit) in [(Some(3), 3), (Some(1000), MAX_STREAMS), (None, MAX_STREAMS)] {
        let mut server = server::Builder::new();
        if let Some(announced) = announced {
            server.max_concurrent_streams(announced);
        }
        let (connection, _) = connection_to(server, echo).await;
        assert!(connection.has_capacity(MAX_STREAMS - 1), "SETTINGS have not arrived yet");
        // The limit is known after the first response.
        connection.send(get(), REUSED).await.unwrap();
        assert!(connection.has_capacity(limit - 1) && !connection.has_capacity(limit), "{announced:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn h04_a_closed_connection_rejects_requests_with_the_reason() {
    let (far, near) = duplex(64 * 1024);
    let (connection, metrics) = begin(near).await;
    assert!(connection.is_usable());
    let mut server = server::handshake(far).await.unwrap();
    let pending = tokio::spawn(connection.send(get(), REUSED));
    let (_request, _respond) = server.accept().await.unwrap().unwrap();
    server.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    let _ended = poll_fn(|cx| server.poll_closed(cx)).await;
    let Http2Failure { error, disposition, is_connection_error } = pending.await.unwrap().err().unwrap();
    assert_eq!(
        (disposition, is_connection_error),
        (Some(Disposition::NoResponse), true),
        "it may have been processed: {error:?}"
    );
    assert!(!connection.is_usable());
    let Http2Failure { error, disposition, is_connection_error } = connection.send(get(), REUSED).await.err().unwrap();
    assert_eq!((disposition, is_connection_error), (Some(Disposition::NotSent { reused: true }), true), "{error:?}");
    let expected = "the upstream ended the connection: detected excessive load generating behavior";
    assert_eq!(error.to_string(), expected);
    assert_eq!(closed_metrics(&metrics), r#"reason="failed"} 1"#);
}

#[tokio::test(start_paused = true)]
async fn g01_only_a_close_of_a_reused_connection_is_no_response() {
    for reused in [true, false] {
        let (mut far, near) = duplex(64 * 1024);
        let (connection, _) = begin(near).await;
        let pending = tokio::spawn(connection.send(get(), reused));
        far.read_exact(&mut [0; 100]).await.unwrap();
        drop(far);
        let Http2Failure { error, disposition, is_connection_error } = pending.await.unwrap().err().unwrap();
        assert_eq!((disposition, is_connection_error), (reused.then_some(Disposition::NoResponse), true), "{error:?}");
        assert!(!connection.is_usable());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_connection_is_closed() {
    let (connection, metrics) = connection(echo).await;
    read_response(connection.send(post(full("x")), REUSED).await.unwrap()).await.unwrap();
    assert_eq!(closed_metrics(&metrics), "");
    drop(connection);
    sleep(SECOND).await;
    assert_eq!(closed_metrics(&metrics), r#"reason="upstream"} 1"#, "no reason was set");
}

/// Whether a connection with a request in flight is still open after `seconds`, if the peer runs `server`.
async fn is_open_after<F>(seconds: u32, server: impl FnOnce(DuplexStream) -> F) -> bool
where
    F: Future<Output = ()> + Send + 'static,
{
    let (far, near) = duplex(64 * 1024);
    tokio::spawn(server(far));
    let (connection, metrics) = begin(near).await;
    let result = timeout(seconds * SECOND, connection.send(get(), REUSED)).await;
    if let Ok(response) = &result {
        let failure = response.as_ref().err().expect("no server here responds");
        assert_eq!((failure.is_connection_error, closed_metrics(&metrics).as_str()), (true, r#"reason="failed"} 1"#));
    }
    result.is_err()
}

/// Reads everything, and sends nothing.
async fn only_read(mut stream: DuplexStream) {
    let mut read = [0; 1024];
    while stream.read(&mut read).await.is_ok_and(|bytes| bytes > 0) {}
}

/// Responds to pings, and to no requests.
async fn only_pong(stream: DuplexStream) {
    let mut connection = server::handshake(stream).await.unwrap();
    let mut requests = Vec::new();
    while let Some(Ok(request)) = connection.accept().await {
        requests.push(request);
    }
}

/// Sends a frame every ten seconds, and responds to no pings.
async fn only_send(mut stream: DuplexStream) {
    const UNKNOWN_FRAME: [u8; 9] = [0, 0, 0, 0xfe, 0, 0, 0, 0, 0];
    use tokio::io::AsyncWriteExt as _;
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    tokio::spawn(async move { while reader.read(&mut [0; 1024]).await.is_ok_and(|bytes| bytes > 0) {} });
    loop {
        sleep(10 * SECOND).await;
        if writer.write_all(&UNKNOWN_FRAME).await.is_err() {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_timeout_closes_the_connection() {
    assert!(is_open_after(29, only_read).await, "20 s of silence, and 10 s for the response");
    assert!(!is_open_after(31, only_read).await);
    assert!(is_open_after(1000, only_pong).await);
    assert!(is_open_after(1000, only_send).await, "a server that sends is not pinged");
}

#[test]
fn errors_contain_no_text_from_the_server() {
    let error = Error::Io(io::Error::other("words"));
    assert_eq!(error.to_string(), "the connection failed");
    assert_eq!(
        Error::from(h2::Error::from(Reason::CANCEL)).to_string(),
        "the proxy ended the stream: stream no longer needed"
    );
}
