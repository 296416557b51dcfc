//! How requests are written, and what becomes of those that fail.

use http_body_util::{Full, channel::Channel};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::{Instant, sleep},
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn full(bytes: &'static str) -> Sent {
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed()
}

/// A body of these parts, each after a second, with a failure at its end where `fails` says so.
fn parts(parts: &'static [&'static str], fails: bool) -> Sent {
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(1);
    tokio::spawn(async move {
        for part in parts {
            sleep(SECOND).await;
            if sender.send_data(Bytes::from(*part)).await.is_err() {
                return;
            }
        }
        if fails {
            sender.abort(io::ErrorKind::UnexpectedEof.into());
        }
    });
    body.map_err(BodyError::from).boxed()
}

/// What is written for a request, and the failure if it was not sent to its end.
async fn written(request: Request<Sent>) -> (String, Option<Error>) {
    let (near, mut far) = duplex(16);
    let mut line = Http1Connection::new(near, PATIENCE);
    begin(&mut line, request);
    let sending = async move {
        poll_fn(|cx| line.poll_upload(cx)).await;
        assert!(!line.is_uploading());
        line.failed
    };
    let mut written = String::new();
    let (failed, read) = tokio::join!(sending, far.read_to_string(&mut written));
    read.unwrap();
    (written, failed)
}

fn post(fields: &[(&'static str, &'static str)], body: Sent) -> Request<Sent> {
    let mut request = Request::post("/a/b?c=d").body(body).unwrap();
    for (name, value) in fields {
        request.headers_mut().append(*name, http::HeaderValue::from_static(value));
    }
    request
}

const POST: &str = "POST /a/b?c=d HTTP/1.1\r\n";

#[tokio::test(start_paused = true)]
async fn a_head_is_written_as_it_is() {
    for (method, target, fields, expected) in [
        ("GET", "/", &[][..], "GET / HTTP/1.1\r\n\r\n"),
        (
            "GET",
            "/a%2Fb/../c;d?e=f&g=%20?",
            &[("host", "api.finicity.com"), ("accept", "*/*"), ("x-a", "1"), ("x-b", ""), ("x-c", "\"\t é")],
            "GET /a%2Fb/../c;d?e=f&g=%20? HTTP/1.1\r\n\
             host: api.finicity.com\r\naccept: */*\r\nx-a: 1\r\nx-b: \r\nx-c: \"\t é\r\n\r\n",
        ),
        ("HEAD", "/x", &[("x-a", "1"), ("x-a", "2")], "HEAD /x HTTP/1.1\r\nx-a: 1\r\nx-a: 2\r\n\r\n"),
        ("OPTIONS", "*", &[], "OPTIONS * HTTP/1.1\r\n\r\n"),
        ("DELETE", "/x", &[("content-length", "0")], "DELETE /x HTTP/1.1\r\ncontent-length: 0\r\n\r\n"),
    ] {
        let mut request = Request::builder().method(method).uri(target).body(empty()).unwrap();
        for (name, value) in fields {
            request.headers_mut().append(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let (written, failed) = written(request).await;
        assert_eq!(written, expected);
        assert!(failed.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_framed_as_its_head_says_and_in_chunks_where_that_says_nothing() {
    const LENGTH: &[(&str, &str)] = &[("content-length", "8")];
    const CHUNKED: &[(&str, &str)] = &[("transfer-encoding", "chunked")];
    for (fields, body, expected) in [
        (LENGTH, full("01234567"), "content-length: 8\r\n\r\n01234567"),
        (LENGTH, parts(&["012", "", "34567"], false), "content-length: 8\r\n\r\n01234567"),
        (
            CHUNKED,
            parts(&["012", "", "a chunk of 18 bytes"], false),
            "transfer-encoding: chunked\r\n\r\n3\r\n012\r\n13\r\na chunk of 18 bytes\r\n0\r\n\r\n",
        ),
        (CHUNKED, full(""), "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        (&[], full("0123"), "transfer-encoding: chunked\r\n\r\n4\r\n0123\r\n0\r\n\r\n"),
        (&[], parts(&[], false), "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        (&[], empty(), "\r\n"),
        (&[("content-length", "0")], empty(), "content-length: 0\r\n\r\n"),
    ] {
        let (written, failed) = written(post(fields, body)).await;
        assert_eq!(written.strip_prefix(POST).unwrap(), expected);
        assert!(failed.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_what_was_told_never_looks_whole() {
    const CHUNKED: &[(&str, &str)] = &[("transfer-encoding", "chunked")];
    for (length, body, sent) in [
        ("8", full("0123456"), "0123456"),
        ("8", full("012345678"), ""),
        ("8", empty(), ""),
        ("8", parts(&["012", "3456"], false), "0123456"),
        ("8", parts(&["012", "345678"], false), "012"),
    ] {
        let (written, failed) = written(post(&[("content-length", length)], body)).await;
        let expected = format!("{POST}content-length: {length}\r\n\r\n{sent}");
        assert!(expected.starts_with(&written), "{written:?}");
        assert!(matches!(failed, Some(Error::Length)));
    }
    for (fields, body, sent) in [
        (&[("content-length", "8")][..], parts(&["012"], true), "content-length: 8\r\n\r\n012"),
        (CHUNKED, parts(&["012"], true), "transfer-encoding: chunked\r\n\r\n3\r\n012\r\n"),
    ] {
        let (written, failed) = written(post(fields, body)).await;
        assert_eq!(written, format!("{POST}{sent}"));
        assert!(matches!(failed, Some(error @ Error::Body(_)) if error.is_of_the_caller()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_takes_nothing_more_is_given_up() {
    let (near, _far) = duplex(16);
    let mut line = Http1Connection::new(near, PATIENCE);
    begin(&mut line, request(Method::GET));
    let started = Instant::now();
    assert!(matches!(head(&mut line).await, Err(Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut));
    assert_eq!(started.elapsed(), PATIENCE);
}

/// A stream of which `write` says what comes of each write.
struct Writes<F>(F);

impl<F> AsyncRead for Writes<F> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl<F: FnMut(&[u8]) -> io::Result<usize> + Unpin> AsyncWrite for Writes<F> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0(buf))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_takes_nothing_and_does_not_say_so_is_no_loop() {
    let mut times = 0;
    let nothing = move |_: &[u8]| {
        times += 1;
        assert!(times < 10, "it goes on for ever");
        Ok(0)
    };
    let mut line = Http1Connection::new(Writes(nothing), PATIENCE);
    begin(&mut line, request(Method::GET));
    assert!(matches!(head(&mut line).await, Err(Error::Io(error)) if error.kind() == io::ErrorKind::WriteZero));
}

/// A line that has served one request already, and its far end.
async fn used() -> (Http1Connection<DuplexStream, Sent>, DuplexStream) {
    let (near, mut far) = duplex(1024);
    let mut line = Http1Connection::new(near, PATIENCE);
    begin(&mut line, request(Method::GET));
    far.write_all(OK).await.unwrap();
    head(&mut line).await.unwrap();
    assert_eq!(body(&mut line).await.unwrap(), b"ok");
    assert!(line.is_reusable());
    read_request(&mut far).await;
    (line, far)
}

async fn read_request(far: &mut DuplexStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(far.read_u8().await.unwrap());
    }
}

/// What became of the request that was begun on `line`, which fails.
async fn disposition(line: &mut Http1Connection<DuplexStream, Sent>, reused: bool) -> Option<Disposition> {
    let error = match head(line).await {
        Err(error) => error,
        Ok(_) => body(line).await.unwrap_err(),
    };
    line.disposition(&error, reused)
}

#[tokio::test(start_paused = true)]
async fn g01_a_request_that_meets_a_closed_connection_was_not_sent() {
    let (mut line, far) = used().await;
    drop(far);
    begin(&mut line, request(Method::GET));
    assert_eq!(disposition(&mut line, true).await, Some(Disposition::NotSent { reused: true }));

    let (near, far) = duplex(1024);
    drop(far);
    let mut line = Http1Connection::new(near, PATIENCE);
    begin(&mut line, request(Method::GET));
    assert_eq!(disposition(&mut line, false).await, Some(Disposition::NotSent { reused: false }));
}

#[tokio::test(start_paused = true)]
async fn g01_an_answer_that_came_before_its_request_is_none() {
    // What a server says that closes an idle connection, for one.
    let (mut line, mut far) = used().await;
    far.write_all(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    drop(far);
    begin(&mut line, request(Method::GET));
    let error = head(&mut line).await.unwrap_err();
    assert!(error.is_of_the_protocol());
    assert_eq!(line.disposition(&error, true), Some(Disposition::NotSent { reused: true }));
}

#[tokio::test(start_paused = true)]
async fn g01_only_silence_after_a_request_on_a_used_connection_says_that_it_was_closing() {
    for (reused, last_words, expected) in [
        (true, &b""[..], Some(Disposition::NoResponse)),
        (false, b"", None),
        (true, b"H", None),
        (true, b"HTTP/1.1 100 Continue\r\n\r\n", None),
        (true, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no", None),
        (true, b"nonsense", None),
    ] {
        let (mut line, mut far) = used().await;
        begin(&mut line, request(Method::GET));
        let closing = async {
            read_request(&mut far).await;
            far.write_all(last_words).await.unwrap();
            drop(far);
        };
        let (disposition, ()) = tokio::join!(disposition(&mut line, reused), closing);
        assert_eq!(disposition, expected, "{reused} {last_words:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g04_a_request_whose_body_failed_has_no_fate() {
    for body in [parts(&["012"], true), parts(&[], true), parts(&["0123456789"], false)] {
        let (mut line, _far) = used().await;
        begin(&mut line, post(&[("content-length", "8")], body));
        assert_eq!(disposition(&mut line, true).await, None);
        assert!(!line.is_reusable());
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_come_while_its_request_is_still_being_sent() {
    let (mut line, mut far) = used().await;
    begin(&mut line, post(&[], parts(&["012", "345"], false)));
    far.write_all(OK).await.unwrap();
    assert_eq!(head(&mut line).await.unwrap().status(), 200);
    assert!(line.is_uploading() && line.is_answer_here());
    assert_eq!(body(&mut line).await.unwrap(), b"ok");
    assert!(!line.is_reusable(), "the rest of the request is not sent");
}

#[tokio::test(start_paused = true)]
async fn both_directions_go_on_while_an_early_answer_is_taken() {
    let (mut line, mut far) = used().await;
    begin(&mut line, post(&[], parts(&["012", "345"], false)));
    let echoing = async {
        read_request(&mut far).await;
        far.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        let mut sent = vec![0; "3\r\n012\r\n3\r\n345\r\n0\r\n\r\n".len()];
        for byte in &mut sent {
            *byte = far.read_u8().await.unwrap();
            far.write_all(&[b'1', b'\r', b'\n', *byte, b'\r', b'\n']).await.unwrap();
        }
        far.write_all(b"0\r\n\r\n").await.unwrap();
        sent
    };
    let taking = async {
        head(&mut line).await.unwrap();
        assert!(line.is_uploading() && !line.is_answer_here());
        body(&mut line).await.unwrap()
    };
    let (taken, sent) = tokio::join!(taking, echoing);
    assert_eq!(taken, sent);
    assert!(line.is_reusable());
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_that_is_here_is_delivered_when_the_request_fails() {
    for answer in [
        &b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno"[..],
        b"HTTP/1.1 413 Too Large\r\ntransfer-encoding: chunked\r\n\r\n1\r\nn\r\n1\r\no\r\n0\r\n\r\n",
    ] {
        let (mut line, mut far) = used().await;
        begin(&mut line, post(&[], parts(&["012"], true)));
        far.write_all(answer).await.unwrap();
        assert_eq!(head(&mut line).await.unwrap().status(), 413);
        poll_fn(|cx| line.poll_upload(cx)).await;
        assert!(matches!(line.failed, Some(Error::Body(_))));
        assert_eq!(body(&mut line).await.unwrap(), b"no");
        assert!(!line.is_reusable());
    }
    let (mut line, mut far) = used().await;
    begin(&mut line, post(&[], parts(&["012"], true)));
    far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nno").await.unwrap();
    head(&mut line).await.unwrap();
    assert!(matches!(body(&mut line).await, Err(Error::Body(_))), "one that is not whole does not hide the failure");
}

#[tokio::test(start_paused = true)]
async fn an_idle_line_notices_its_end_and_what_nobody_asked_for() {
    let ended = |mut line: Http1Connection<DuplexStream, Sent>| async move { poll_fn(|cx| line.poll_ended(cx)).await };
    let (line, far) = used().await;
    let watching = tokio::spawn(ended(line));
    sleep(SECOND).await;
    assert!(!watching.is_finished());
    drop(far);
    assert!(watching.await.unwrap());

    let (line, mut far) = used().await;
    let watching = tokio::spawn(ended(line));
    far.write_all(OK).await.unwrap();
    assert!(!watching.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_idle_line_keeps_nothing_of_what_it_has_served() {
    let chunks =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8000\r\n{}\r\n0\r\n\r\n", "x".repeat(0x8000));
    let length = format!("HTTP/1.1 200 OK\r\ncontent-length: 400000\r\n\r\n{}", "x".repeat(400_000));
    for answer in [
        OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        chunks.as_bytes(),
        length.as_bytes(),
    ] {
        let script = Script::new([Bytes::copy_from_slice(answer)], Last::Silence);
        let mut line = Http1Connection::new(script, PATIENCE);
        begin(&mut line, post(&[], parts(&["012"], false)));
        head(&mut line).await.unwrap();
        while line.is_uploading() {
            poll_fn(|cx| line.poll_upload(cx)).await;
        }
        // As whoever takes it does, who does not ask for more where nothing is left.
        while line.size_hint().exact() != Some(0) && poll_fn(|cx| line.poll_data(cx)).await.is_some() {}
        assert!(line.is_reusable());
        assert!(!line.incoming.try_reclaim(1), "memory for {} bytes", answer.len());
        assert!(line.upload.holds_nothing());
    }
}
