//! How requests are written, and the disposition of those that fail.

use http_body_util::{Full, channel::Channel};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::{Instant, sleep},
};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn full(bytes: &'static str) -> TestBody {
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed()
}

/// A body of `parts`, each after a second. If `fails`, it ends with an error.
fn parts(parts: &'static [&'static str], fails: bool) -> TestBody {
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

/// The bytes written for a request, and the error if it was not sent completely.
async fn written(request: Request<TestBody>) -> (String, Option<Error>) {
    let (near, mut far) = duplex(16);
    let mut connection = Http1Connection::new(near, WRITE_TIMEOUT);
    begin(&mut connection, request);
    let sending = async move {
        poll_fn(|cx| connection.poll_upload(cx)).await;
        assert!(!connection.is_uploading());
        connection.send_error
    };
    let mut written = String::new();
    let (send_error, read) = tokio::join!(sending, far.read_to_string(&mut written));
    read.unwrap();
    (written, send_error)
}

fn post(fields: &[(&'static str, &'static str)], body: TestBody) -> Request<TestBody> {
    let mut request = Request::post("/a/b?c=d").body(body).unwrap();
    for (name, value) in fields {
        request.headers_mut().append(*name, http::HeaderValue::from_static(value));
    }
    request
}

const POST: &str = "POST /a/b?c=d HTTP/1.1\r\n";

#[tokio::test(start_paused = true)]
async fn a_head_is_written_unchanged() {
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
        let (written, send_error) = written(request).await;
        assert_eq!(written, expected);
        assert!(send_error.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_framed_by_its_head_or_else_chunked() {
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
        let (written, send_error) = written(post(fields, body)).await;
        assert_eq!(written.strip_prefix(POST).unwrap(), expected);
        assert!(send_error.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_contradicts_its_head_never_looks_complete() {
    const CHUNKED: &[(&str, &str)] = &[("transfer-encoding", "chunked")];
    for (length, body, sent) in [
        ("8", full("0123456"), "0123456"),
        ("8", full("012345678"), ""),
        ("8", empty(), ""),
        ("8", parts(&["012", "3456"], false), "0123456"),
        ("8", parts(&["012", "345678"], false), "012"),
    ] {
        let (written, send_error) = written(post(&[("content-length", length)], body)).await;
        let expected = format!("{POST}content-length: {length}\r\n\r\n{sent}");
        assert!(expected.starts_with(&written), "{written:?}");
        assert!(matches!(send_error, Some(Error::Length)));
    }
    for (fields, body, sent) in [
        (&[("content-length", "8")][..], parts(&["012"], true), "content-length: 8\r\n\r\n012"),
        (CHUNKED, parts(&["012"], true), "transfer-encoding: chunked\r\n\r\n3\r\n012\r\n"),
    ] {
        let (written, send_error) = written(post(fields, body)).await;
        assert_eq!(written, format!("{POST}{sent}"));
        assert!(matches!(send_error, Some(error @ Error::Body(_)) if error.is_downstream()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_without_progress_times_out() {
    let (near, _far) = duplex(16);
    let mut connection = Http1Connection::new(near, WRITE_TIMEOUT);
    begin(&mut connection, request(Method::GET));
    let started = Instant::now();
    assert!(matches!(head(&mut connection).await, Err(Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut));
    assert_eq!(started.elapsed(), WRITE_TIMEOUT);
}

/// A stream that calls a function for each write.
struct ScriptedWrites<F>(F);

impl<F> AsyncRead for ScriptedWrites<F> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl<F: FnMut(&[u8]) -> io::Result<usize> + Unpin> AsyncWrite for ScriptedWrites<F> {
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
async fn a_write_of_zero_bytes_is_an_error() {
    let mut times = 0;
    let nothing = move |_: &[u8]| {
        times += 1;
        assert!(times < 10, "an endless loop");
        Ok(0)
    };
    let mut connection = Http1Connection::new(ScriptedWrites(nothing), WRITE_TIMEOUT);
    begin(&mut connection, request(Method::GET));
    assert!(matches!(head(&mut connection).await, Err(Error::Io(error)) if error.kind() == io::ErrorKind::WriteZero));
}

/// A connection that has served one request, and its peer.
async fn reused_connection() -> (Http1Connection<DuplexStream, TestBody>, DuplexStream) {
    let (near, mut far) = duplex(1024);
    let mut connection = Http1Connection::new(near, WRITE_TIMEOUT);
    begin(&mut connection, request(Method::GET));
    far.write_all(OK).await.unwrap();
    head(&mut connection).await.unwrap();
    assert_eq!(body(&mut connection).await.unwrap(), b"ok");
    assert!(connection.is_reusable());
    read_request(&mut far).await;
    (connection, far)
}

async fn read_request(far: &mut DuplexStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(far.read_u8().await.unwrap());
    }
}

/// The disposition of the request in flight on `connection`, which fails.
async fn disposition(connection: &mut Http1Connection<DuplexStream, TestBody>, reused: bool) -> Option<Disposition> {
    let error = match head(connection).await {
        Err(error) => error,
        Ok(_) => body(connection).await.unwrap_err(),
    };
    connection.disposition(&error, reused)
}

#[tokio::test(start_paused = true)]
async fn g01_a_request_on_a_closed_connection_is_not_sent() {
    let (mut connection, far) = reused_connection().await;
    drop(far);
    begin(&mut connection, request(Method::GET));
    assert_eq!(disposition(&mut connection, true).await, Some(Disposition::NotSent { reused: true }));

    let (near, far) = duplex(1024);
    drop(far);
    let mut connection = Http1Connection::new(near, WRITE_TIMEOUT);
    begin(&mut connection, request(Method::GET));
    assert_eq!(disposition(&mut connection, false).await, Some(Disposition::NotSent { reused: false }));
}

#[tokio::test(start_paused = true)]
async fn g01_a_response_before_its_request_is_rejected() {
    // As sent by some servers when they close an idle connection.
    let (mut connection, mut far) = reused_connection().await;
    far.write_all(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    drop(far);
    begin(&mut connection, request(Method::GET));
    let error = head(&mut connection).await.unwrap_err();
    assert!(error.is_protocol());
    assert_eq!(connection.disposition(&error, true), Some(Disposition::NotSent { reused: true }));
}

#[tokio::test(start_paused = true)]
async fn g01_only_a_silent_close_of_a_reused_stream_is_no_response() {
    for (reused, final_bytes, expected) in [
        (true, &b""[..], Some(Disposition::NoResponse)),
        (false, b"", None),
        (true, b"H", None),
        (true, b"HTTP/1.1 100 Continue\r\n\r\n", None),
        (true, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no", None),
        (true, b"nonsense", None),
    ] {
        let (mut connection, mut far) = reused_connection().await;
        begin(&mut connection, request(Method::GET));
        let closing = async {
            read_request(&mut far).await;
            far.write_all(final_bytes).await.unwrap();
            drop(far);
        };
        let (disposition, ()) = tokio::join!(disposition(&mut connection, reused), closing);
        assert_eq!(disposition, expected, "{reused} {final_bytes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn g04_a_request_whose_body_failed_has_no_disposition() {
    for body in [parts(&["012"], true), parts(&[], true), parts(&["0123456789"], false)] {
        let (mut connection, _far) = reused_connection().await;
        begin(&mut connection, post(&[("content-length", "8")], body));
        assert_eq!(disposition(&mut connection, true).await, None);
        assert!(!connection.is_reusable());
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_can_arrive_while_its_request_is_sent() {
    let (mut connection, mut far) = reused_connection().await;
    begin(&mut connection, post(&[], parts(&["012", "345"], false)));
    far.write_all(OK).await.unwrap();
    assert_eq!(head(&mut connection).await.unwrap().status(), 200);
    assert!(connection.is_uploading() && connection.is_response_buffered());
    assert_eq!(body(&mut connection).await.unwrap(), b"ok");
    assert!(!connection.is_reusable(), "the rest of the request is not sent");
}

#[tokio::test(start_paused = true)]
async fn upload_continues_while_an_early_response_is_read() {
    let (mut connection, mut far) = reused_connection().await;
    begin(&mut connection, post(&[], parts(&["012", "345"], false)));
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
    let reading = async {
        head(&mut connection).await.unwrap();
        assert!(connection.is_uploading() && !connection.is_response_buffered());
        body(&mut connection).await.unwrap()
    };
    let (received, sent) = tokio::join!(reading, echoing);
    assert_eq!(received, sent);
    assert!(connection.is_reusable());
}

#[tokio::test(start_paused = true)]
async fn a_buffered_early_response_survives_a_failed_request() {
    for response in [
        &b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno"[..],
        b"HTTP/1.1 413 Too Large\r\ntransfer-encoding: chunked\r\n\r\n1\r\nn\r\n1\r\no\r\n0\r\n\r\n",
    ] {
        let (mut connection, mut far) = reused_connection().await;
        begin(&mut connection, post(&[], parts(&["012"], true)));
        far.write_all(response).await.unwrap();
        assert_eq!(head(&mut connection).await.unwrap().status(), 413);
        poll_fn(|cx| connection.poll_upload(cx)).await;
        assert!(matches!(connection.send_error, Some(Error::Body(_))));
        assert_eq!(body(&mut connection).await.unwrap(), b"no");
        assert!(!connection.is_reusable());
    }
    let (mut connection, mut far) = reused_connection().await;
    begin(&mut connection, post(&[], parts(&["012"], true)));
    far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nno").await.unwrap();
    head(&mut connection).await.unwrap();
    assert!(
        matches!(body(&mut connection).await, Err(Error::Body(_))),
        "an incomplete response does not hide the failure"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_detects_close_and_unsolicited_bytes() {
    let poll_closed = |mut connection: Http1Connection<DuplexStream, TestBody>| async move {
        poll_fn(|cx| connection.poll_closed(cx)).await
    };
    let (connection, far) = reused_connection().await;
    let waiting = tokio::spawn(poll_closed(connection));
    sleep(SECOND).await;
    assert!(!waiting.is_finished());
    drop(far);
    assert!(waiting.await.unwrap());

    let (connection, mut far) = reused_connection().await;
    let waiting = tokio::spawn(poll_closed(connection));
    far.write_all(OK).await.unwrap();
    assert!(!waiting.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_holds_no_memory_of_past_requests() {
    let chunks =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8000\r\n{}\r\n0\r\n\r\n", "x".repeat(0x8000));
    let length = format!("HTTP/1.1 200 OK\r\ncontent-length: 400000\r\n\r\n{}", "x".repeat(400_000));
    for response in [
        OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        chunks.as_bytes(),
        length.as_bytes(),
    ] {
        let script = ScriptedStream::new([Bytes::copy_from_slice(response)], StreamEnd::Open);
        let mut connection = Http1Connection::new(script, WRITE_TIMEOUT);
        begin(&mut connection, post(&[], parts(&["012"], false)));
        head(&mut connection).await.unwrap();
        while connection.is_uploading() {
            poll_fn(|cx| connection.poll_upload(cx)).await;
        }
        // Like `UpstreamBody`, which does not poll again when nothing is left.
        while connection.size_hint().exact() != Some(0) && poll_fn(|cx| connection.poll_data(cx)).await.is_some() {}
        assert!(connection.is_reusable());
        assert!(!connection.incoming.try_reclaim(1), "memory for {} bytes", response.len());
        assert!(connection.request_writer.is_empty());
    }
}
