//! What a [`FramedReader`] passes on, and when.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::{Instant, advance},
};

use super::{super::head_budget::HeadBudget, *};

const LIMITS: HeadLimits = HeadLimits { target_bytes: 100, header_bytes: 1000, headers: 5 };
const TIMEOUT: Duration = Duration::from_secs(10);

/// A reader in front of one end of a pipe.
struct ReaderStream {
    reader: FramedReader,
    stream: DuplexStream,
}

impl AsyncRead for ReaderStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.reader.poll_read(Pin::new(&mut this.stream), cx, buffer)
    }
}

fn reader_stream() -> (ReaderStream, DuplexStream, ReaderStatus) {
    let (ours, theirs) = duplex(1 << 20);
    let status = ReaderStatus::default();
    let head_share = HeadBudget::new(usize::MAX, Arc::default()).share();
    let reader = FramedReader::new(LIMITS, TIMEOUT, status.clone(), SlotState::detached(), head_share);
    (ReaderStream { reader, stream: ours }, theirs, status)
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_after_a_rejected_message() {
    let (mut reader_stream, mut client, status) = reader_stream();
    let good = b"GET /a HTTP/1.1\r\n\r\n";
    let bad = b"GET /b#c HTTP/1.1\r\n\r\n";
    client.write_all(&[&good[..], bad, good].concat()).await.unwrap();
    let mut bytes = vec![0; 1000];
    let read = reader_stream.read(&mut bytes).await.unwrap();
    assert_eq!(&bytes[..read], [&good[..], bad].concat());
    assert_eq!((status.fault_in(1), status.fault_in(2)), (None, Some(FramingFault::Fragment)));
    assert!(reader_stream.reader.leaves_bytes_unread());
    let more = tokio::time::timeout(Duration::from_secs(3600), reader_stream.read(&mut bytes)).await;
    assert!(more.is_err(), "neither bytes nor EOF");
}

#[tokio::test(start_paused = true)]
async fn a_partial_head_is_reported_and_passed_on_when_complete() {
    let (mut reader_stream, mut client, status) = reader_stream();
    let mut bytes = vec![0; 1000];
    for (sent, in_head, expected) in [
        ("\r\n", false, "\r\n"),
        ("GET /a HT", true, ""),
        ("TP/1.1\r\n", true, ""),
        ("\r\nGET /b", true, "GET /a HTTP/1.1\r\n\r\n"),
        (
            " HTTP/1.1\r\n\r\nPOST /c HTTP/1.1\r\nContent-Length: 3\r\n\r\nab",
            false,
            "GET /b HTTP/1.1\r\n\r\nPOST /c HTTP/1.1\r\nContent-Length: 3\r\n\r\nab",
        ),
        ("cGET /d", true, "c"),
    ] {
        client.write_all(sent.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        while let Ok(length) = tokio::time::timeout(Duration::from_millis(1), reader_stream.read(&mut bytes)).await {
            read.extend_from_slice(&bytes[..length.unwrap()]);
        }
        assert_eq!((str::from_utf8(&read).unwrap(), status.is_in_head()), (expected, in_head), "{sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_oversized_head_is_replaced_before_it_is_complete() {
    for (start, fault, method) in
        [("PUT / HTTP/1.1\r\nX: ", FramingFault::HeadersTooLarge, "PUT"), ("GET /", FramingFault::TargetTooLong, "GET")]
    {
        for prefix in ["", "GET /a HTTP/1.1\r\n\r\n"] {
            let (mut reader_stream, mut client, status) = reader_stream();
            let head = [prefix.as_bytes(), start.as_bytes(), &vec![b'a'; 2 * HEAD_SLACK]].concat();
            client.write_all(&head).await.unwrap();
            let expected = format!("{prefix}{method} / HTTP/1.1\r\n\r\n");
            assert_eq!(read_available(&mut reader_stream).await, expected);
            let number = 1 + u64::from(!prefix.is_empty());
            assert_eq!((status.fault_in(number), reader_stream.reader.messages_begun()), (Some(fault), number));
            assert!(!status.is_in_head() && reader_stream.reader.leaves_bytes_unread());
        }
    }
}

/// Everything that can be read now.
async fn read_available(reader_stream: &mut ReaderStream) -> String {
    let (mut bytes, mut read) = (vec![0; 1000], Vec::new());
    while let Ok(length) = tokio::time::timeout(Duration::from_millis(1), reader_stream.read(&mut bytes)).await {
        read.extend_from_slice(&bytes[..length.unwrap()]);
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_unparsable_head_is_replaced_for_any_read_size() {
    let good = "GET /a HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 2\r\n\r\nok";
    for (bad, fault) in [
        ("HEAD /<> HTTP/1.1\r\nX-Request-Id: 1\r\n\r\n", None),
        ("HEAD / HTTP/1.1\r\nX-Request-Id: 1\r\nContent-Length: x\r\n\r\n", Some(FramingFault::Length)),
        ("HEAD / HTTP/1.1\r\nX-Request-Id: 1\r\nTransfer-Encoding: x\r\n\r\n", Some(FramingFault::Coding)),
        // hyper parses the malformed head, but nothing after it.
        ("HEAD /#f HTTP/1.0\r\nX-Request-Id: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Some(FramingFault::Fragment)),
    ] {
        let sent = [good, bad, "GET /never HTTP/1.1\r\n\r\n"].concat();
        for size in [1, 2, 7, 30, 1000] {
            let (mut reader_stream, mut client, status) = reader_stream();
            let mut read = String::new();
            for part in sent.as_bytes().chunks(size) {
                client.write_all(part).await.unwrap();
                read += &read_available(&mut reader_stream).await;
            }
            assert_eq!(read, format!("{good}HEAD / HTTP/1.1\r\nx-request-id: 1\r\n\r\n"), "{size}");
            let found = status.fault_in(3);
            assert!(found.is_some_and(|found| fault.is_none_or(|fault| found == fault)), "{found:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn i01_the_header_timeout_is_not_extended_by_slow_bytes() {
    for first_request in ["", "GET /a HTTP/1.1\r\n\r\n"] {
        let (mut reader_stream, mut client, status) = reader_stream();
        let mut bytes = vec![0; 1000];
        client.write_all(first_request.as_bytes()).await.unwrap();
        if !first_request.is_empty() {
            let _ = reader_stream.read(&mut bytes).await.unwrap();
            advance(TIMEOUT * 10).await;
        }
        let started = Instant::now();
        let dripping = tokio::spawn(async move {
            for byte in *b"GET / HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaa" {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if client.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        });
        let length = reader_stream.read(&mut bytes).await.unwrap();
        assert_eq!(&bytes[..length], b"GET / HTTP/1.1\r\n\r\n");
        let number = 1 + u64::from(!first_request.is_empty());
        assert_eq!(status.fault_in(number), Some(FramingFault::HeadTimeout));
        // On a reused connection, the timeout starts with the first byte, which is sent after one second.
        assert_eq!(started.elapsed().as_secs(), if first_request.is_empty() { 10 } else { 11 });
        drop(reader_stream);
        dripping.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_chunk_is_a_connection_error() {
    let (mut reader_stream, mut client, _) = reader_stream();
    client.write_all(b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n").await.unwrap();
    let error = reader_stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
