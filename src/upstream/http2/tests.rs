//! Against servers on h2, and one that only reads, in memory and under paused time.

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

/// A body that comes as it is given.
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

/// What has ended of the connections that were begun with it.
fn closed(metrics: &Metrics) -> String {
    let text = metrics.render();
    let ended = text.lines().filter(|line| line.starts_with("finicity_proxy_upstream_connections_closed_total"));
    ended.filter(|line| !line.ends_with(" 0")).map(|line| line.split_once('{').unwrap().1).collect()
}

/// A connection whose requests `answer` answers, by a server that `builder` makes.
async fn connection_to<F>(
    builder: server::Builder,
    answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + 'static,
) -> (Connection, Arc<Metrics>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (near, far) = duplex(256 * 1024);
    tokio::spawn(async move {
        let mut connection = builder.handshake::<_, Bytes>(far).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(answer(request, respond));
        }
    });
    begin(near).await
}

async fn connection<F>(
    answer: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + 'static,
) -> (Connection, Arc<Metrics>)
where
    F: Future<Output = ()> + Send + 'static,
{
    connection_to(server::Builder::new(), answer).await
}

async fn begin(stream: DuplexStream) -> (Connection, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    let life = ConnectionMetrics::begin(Arc::clone(&metrics), Duration::ZERO);
    (Connection::begin(stream, 60 * SECOND, life).await.unwrap(), metrics)
}

fn head() -> Response<()> {
    Response::new(())
}

/// All of a request's body, or why it ended.
async fn read(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut read = Vec::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len()).unwrap();
        read.extend_from_slice(&part);
    }
    Ok(read)
}

/// All of an answer's body, or why it ended.
async fn take(mut answer: Response<RecvBody>) -> Result<Vec<u8>, Error> {
    let mut taken = Vec::new();
    while let Some(part) = poll_fn(|cx| answer.body_mut().poll_data(cx)).await {
        taken.extend_from_slice(&part?);
    }
    assert!(answer.body().is_end_stream());
    Ok(taken)
}

async fn echo(mut request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let body = read(request.body_mut()).await.unwrap();
    let mut sent = respond.send_response(head(), false).unwrap();
    sent.send_data(body.into(), true).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_goes_as_far_as_the_server_lets_it_and_arrives_whole() {
    let mut narrow = server::Builder::new();
    narrow.initial_window_size(1000).initial_connection_window_size(1500);
    let (connection, _) = connection_to(narrow, echo).await;
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    let sent = (0..3).map(|_| connection.send(post(full(bytes.clone())), REUSED));
    for answer in sent.collect::<Vec<_>>() {
        assert!(take(answer.await.unwrap()).await.unwrap() == bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_in_parts_is_sent_in_parts_and_ended_when_it_ends() {
    let (connection, _) = connection(echo).await;
    let (mut parts, body) = channel();
    let answer = tokio::spawn(connection.send(post(body), REUSED));
    for part in ["a", "", "bc"] {
        parts.send_data(Bytes::from(part)).await.unwrap();
        sleep(SECOND).await;
    }
    drop(parts);
    assert_eq!(take(answer.await.unwrap().unwrap()).await.unwrap(), b"abc");
}

/// A body of these parts that knows its last one.
struct Parts(Vec<&'static str>);

impl Body for Parts {
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
async fn a_body_ends_with_its_last_part_even_if_that_is_empty_and_the_server_gives_no_leave_for_more() {
    for parts in [&["", "abc"][..], &["c", "ab"], &["", "", "abc"], &["abc", ""]] {
        let mut narrow = server::Builder::new();
        narrow.initial_window_size(3);
        let (connection, _) = connection_to(narrow, async |mut request: Request<RecvStream>, mut respond| {
            // Nothing more may be sent before all of it has been taken.
            let mut taken = Vec::new();
            while let Some(part) = request.body_mut().data().await {
                taken.extend_from_slice(&part.unwrap());
            }
            assert_eq!(taken, b"abc");
            respond.send_response(head(), true).unwrap();
        })
        .await;
        let request = Request::post("https://api.finicity.com/x").body(Parts(parts.to_vec())).unwrap();
        timeout(SECOND, connection.send(request, REUSED)).await.expect("it ends").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a22_a_body_that_breaks_off_is_never_taken_for_whole() {
    let (tell, told) = oneshot::channel();
    let tell = std::sync::Mutex::new(Some(tell));
    let (connection, _) = connection(move |mut request, respond| {
        let tell = tell.lock().unwrap().take().unwrap();
        async move {
            let _unanswered = respond;
            tell.send(read(request.body_mut()).await).unwrap();
        }
    })
    .await;
    let (mut parts, body) = channel();
    let answer = tokio::spawn(connection.send(post(body), REUSED));
    parts.send_data(Bytes::from("abc")).await.unwrap();
    parts.abort("the caller has gone".into());
    let Failure { error, disposition, ended } = answer.await.unwrap().err().unwrap();
    assert!(error.is_of_the_caller(), "{error:?}");
    assert_eq!((disposition, ended), (None, false));
    assert_eq!(told.await.unwrap().unwrap_err().reason(), Some(Reason::CANCEL));
    assert!(connection.is_usable(), "that is no fault of the connection");
}

#[tokio::test(start_paused = true)]
async fn g07_a_request_that_nobody_waits_for_is_reset_and_so_is_an_answer_that_nobody_takes() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (connection, _) = connection(move |_, mut respond| {
        let tell = tell.clone();
        async move {
            // Answers only those that are patient.
            let reset = timeout(SECOND, poll_fn(|cx| respond.poll_reset(cx))).await;
            if let Ok(reset) = reset {
                return tell.send(reset.unwrap()).unwrap();
            }
            let mut sent = respond.send_response(head(), false).unwrap();
            sent.send_data(Bytes::from("the start"), false).unwrap();
            tell.send(poll_fn(|cx| sent.poll_reset(cx)).await.unwrap()).unwrap();
        }
    })
    .await;
    timeout(SECOND / 2, connection.send(get(), REUSED)).await.err().unwrap();
    assert_eq!(told.recv().await, Some(Reason::CANCEL));
    let answer = connection.send(get(), REUSED).await.unwrap();
    assert_eq!(answer.body().size_hint().exact(), None);
    drop(answer);
    assert_eq!(told.recv().await, Some(Reason::CANCEL));
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_begin_and_end_before_its_request_has_been_sent() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (connection, _) = connection(move |mut request, mut respond| {
        let tell = tell.clone();
        async move {
            let early = Response::builder().status(StatusCode::PAYLOAD_TOO_LARGE).body(()).unwrap();
            let mut sent = respond.send_response(early, false).unwrap();
            sent.send_data(Bytes::from("too large"), true).unwrap();
            tell.send(read(request.body_mut()).await.unwrap()).unwrap();
        }
    })
    .await;
    let (mut parts, body) = channel();
    let answer = connection.send(post(body), REUSED).await.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(take(answer).await.unwrap(), b"too large");
    parts.send_data(Bytes::from("the rest")).await.unwrap();
    drop(parts);
    assert_eq!(told.recv().await.unwrap(), b"the rest", "the server has not said that it does not want it");
}

#[tokio::test(start_paused = true)]
async fn what_a_server_does_not_want_any_more_is_not_sent() {
    let (connection, _) = connection(|_, mut respond: SendResponse<Bytes>| async move {
        let mut sent = respond.send_response(head(), false).unwrap();
        sent.send_data(Bytes::from("enough"), true).unwrap();
        sleep(SECOND).await;
        sent.send_reset(Reason::NO_ERROR);
    })
    .await;
    let (mut parts, body) = channel();
    let answer = connection.send(post(body), REUSED).await.unwrap();
    assert_eq!(take(answer).await.unwrap(), b"enough");
    sleep(2 * SECOND).await;
    assert!(parts.send_data(Bytes::from("more")).await.is_err(), "nobody takes it");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_ends_before_its_end_has_failed() {
    for (reason, told) in [
        (Reason::NO_ERROR, "the upstream reset the body before its end"),
        (Reason::INTERNAL_ERROR, "the upstream ended the stream: unexpected internal error encountered"),
    ] {
        let (connection, _) = connection(move |_, mut respond: SendResponse<Bytes>| async move {
            let mut sent = respond.send_response(head(), false).unwrap();
            sent.send_data(Bytes::from("the start"), false).unwrap();
            sleep(SECOND).await;
            sent.send_reset(reason);
        })
        .await;
        let answer = connection.send(get(), REUSED).await.unwrap();
        assert_eq!(take(answer).await.unwrap_err().to_string(), told);
        assert!(connection.is_usable());
    }
}

#[tokio::test(start_paused = true)]
async fn the_length_that_is_told_is_what_comes() {
    let answer = |length: &'static str, body: &'static str| async move {
        let (connection, _) = connection(move |_, mut respond: SendResponse<Bytes>| async move {
            let told = Response::builder().header("content-length", length).body(()).unwrap();
            let mut sent = respond.send_response(told, false).unwrap();
            sent.send_data(Bytes::from(body), true).unwrap();
        })
        .await;
        let answer = connection.send(get(), REUSED).await.unwrap();
        assert_eq!(answer.body().size_hint().exact(), length.parse().ok());
        take(answer).await
    };
    assert_eq!(answer("5", "abcde").await.unwrap(), b"abcde");
    for body in ["abcd", "abcdef"] {
        assert!(answer("5", body).await.unwrap_err().is_of_the_protocol(), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn there_is_room_for_as_many_as_the_server_takes_at_a_time() {
    for (told, most) in [(Some(3), 3), (Some(1000), MAX_STREAMS), (None, MAX_STREAMS)] {
        let mut server = server::Builder::new();
        if let Some(told) = told {
            server.max_concurrent_streams(told);
        }
        let (connection, _) = connection_to(server, echo).await;
        assert!(connection.has_room_beside(MAX_STREAMS - 1), "it has said nothing yet");
        // That is known with its first word.
        connection.send(get(), REUSED).await.unwrap();
        assert!(connection.has_room_beside(most - 1) && !connection.has_room_beside(most), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn h04_a_connection_that_was_ended_takes_nothing_and_says_in_its_own_words_why() {
    let (far, near) = duplex(64 * 1024);
    let (connection, metrics) = begin(near).await;
    assert!(connection.is_usable());
    let mut server = server::handshake(far).await.unwrap();
    let waiting = tokio::spawn(connection.send(get(), REUSED));
    let (_request, _respond) = server.accept().await.unwrap().unwrap();
    server.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    let _ended = poll_fn(|cx| server.poll_closed(cx)).await;
    let Failure { error, disposition, ended } = waiting.await.unwrap().err().unwrap();
    assert_eq!((disposition, ended), (Some(Disposition::NoResponse), true), "it may have been looked at: {error:?}");
    assert!(!connection.is_usable());
    let Failure { error, disposition, ended } = connection.send(get(), REUSED).await.err().unwrap();
    assert_eq!((disposition, ended), (Some(Disposition::NotSent { reused: true }), true), "{error:?}");
    let told = "the upstream ended the connection: detected excessive load generating behavior";
    assert_eq!(error.to_string(), told);
    assert_eq!(closed(&metrics), r#"reason="failed"} 1"#);
}

#[tokio::test(start_paused = true)]
async fn g01_a_connection_that_closes_without_a_word_leaves_it_open_what_became_of_a_request() {
    for reused in [true, false] {
        let (mut far, near) = duplex(64 * 1024);
        let (connection, _) = begin(near).await;
        let waiting = tokio::spawn(connection.send(get(), reused));
        far.read_exact(&mut [0; 100]).await.unwrap();
        drop(far);
        let Failure { error, disposition, ended } = waiting.await.unwrap().err().unwrap();
        assert_eq!((disposition, ended), (reused.then_some(Disposition::NoResponse), true), "{error:?}");
        assert!(!connection.is_usable());
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_has_any_more_is_closed() {
    let (connection, metrics) = connection(echo).await;
    take(connection.send(post(full("x")), REUSED).await.unwrap()).await.unwrap();
    assert_eq!(closed(&metrics), "");
    drop(connection);
    sleep(SECOND).await;
    assert_eq!(closed(&metrics), r#"reason="upstream"} 1"#, "nobody said why");
}

/// Whether a connection on which a request waits for an answer is still there after so many seconds, when `server` is what the
/// server does with it.
async fn lives_for<F>(seconds: u32, server: impl FnOnce(DuplexStream) -> F) -> bool
where
    F: Future<Output = ()> + Send + 'static,
{
    let (far, near) = duplex(64 * 1024);
    tokio::spawn(server(far));
    let (connection, metrics) = begin(near).await;
    let waited = timeout(seconds * SECOND, connection.send(get(), REUSED)).await;
    if let Ok(failed) = &waited {
        let failure = failed.as_ref().err().expect("nobody answers");
        assert_eq!((failure.ended, closed(&metrics).as_str()), (true, r#"reason="failed"} 1"#));
    }
    waited.is_err()
}

/// Reads what comes and says nothing.
async fn only_read(mut stream: DuplexStream) {
    let mut read = [0; 1024];
    while stream.read(&mut read).await.is_ok_and(|bytes| bytes > 0) {}
}

/// Answers pings, and no requests.
async fn only_pong(stream: DuplexStream) {
    let mut connection = server::handshake(stream).await.unwrap();
    let mut unanswered = Vec::new();
    while let Some(Ok(request)) = connection.accept().await {
        unanswered.push(request);
    }
}

/// Says something every ten seconds, and answers no pings.
async fn only_talk(mut stream: DuplexStream) {
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
async fn a_connection_that_is_open_and_does_not_live_is_given_up() {
    assert!(lives_for(29, only_read).await, "20 s of silence, and 10 s for an answer");
    assert!(!lives_for(31, only_read).await);
    assert!(lives_for(1000, only_pong).await);
    assert!(lives_for(1000, only_talk).await, "who talks is not asked");
}

#[test]
fn what_a_server_says_in_words_is_not_told() {
    let error = Error::Io(io::Error::other("words"));
    assert_eq!(error.to_string(), "the connection failed");
    assert_eq!(
        Error::from(h2::Error::from(Reason::CANCEL)).to_string(),
        "this side ended the stream: stream no longer needed"
    );
}
