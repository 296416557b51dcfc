//! What passes a gate, and when.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::{Instant, advance},
};

use super::{super::head_budget::HeadBudget, *};

const LIMITS: HeadLimits = HeadLimits { target_bytes: 100, header_bytes: 1000, headers: 5 };
const TIMEOUT: Duration = Duration::from_secs(10);

/// A gate in front of one end of a pipe.
struct Gated {
    gate: FramedReader,
    stream: DuplexStream,
}

impl AsyncRead for Gated {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.gate.poll_read(Pin::new(&mut this.stream), cx, buffer)
    }
}

fn gated() -> (Gated, DuplexStream, ReaderStatus) {
    let (ours, theirs) = duplex(1 << 20);
    let view = ReaderStatus::default();
    let share = HeadBudget::new(usize::MAX, Arc::default()).share();
    let gate = FramedReader::new(LIMITS, TIMEOUT, view.clone(), State::detached(), share);
    (Gated { gate, stream: ours }, theirs, view)
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_after_a_message_that_is_refused() {
    let (mut gated, mut caller, view) = gated();
    let good = b"GET /a HTTP/1.1\r\n\r\n";
    let bad = b"GET /b#c HTTP/1.1\r\n\r\n";
    caller.write_all(&[&good[..], bad, good].concat()).await.unwrap();
    let mut bytes = vec![0; 1000];
    let read = gated.read(&mut bytes).await.unwrap();
    assert_eq!(&bytes[..read], [&good[..], bad].concat());
    assert_eq!((view.fault_of(1), view.fault_of(2)), (None, Some(FramingFault::Fragment)));
    assert!(gated.gate.leaves_bytes_unread());
    let more = tokio::time::timeout(Duration::from_secs(3600), gated.read(&mut bytes)).await;
    assert!(more.is_err(), "neither bytes nor an end");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_begun_to_arrive_is_seen_from_outside_and_read_as_a_whole() {
    let (mut gated, mut caller, view) = gated();
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
        caller.write_all(sent.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        while let Ok(length) = tokio::time::timeout(Duration::from_millis(1), gated.read(&mut bytes)).await {
            read.extend_from_slice(&bytes[..length.unwrap()]);
        }
        assert_eq!((str::from_utf8(&read).unwrap(), view.is_in_head()), (expected, in_head), "{sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_beyond_every_limit_is_passed_on_for_hyper_to_refuse() {
    let (mut gated, mut caller, _) = gated();
    let head = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 2 * HEAD_SLACK]].concat();
    caller.write_all(&head).await.unwrap();
    let (mut bytes, mut read) = (vec![0; 1000], Vec::new());
    while read.len() < head.len() {
        let length = gated.read(&mut bytes).await.unwrap();
        read.extend_from_slice(&bytes[..length]);
    }
    assert_eq!(read, head);
}

#[tokio::test(start_paused = true)]
async fn i01_a_head_has_its_time_however_slowly_it_drips() {
    for before in ["", "GET /a HTTP/1.1\r\n\r\n"] {
        let (mut gated, mut caller, _) = gated();
        let mut bytes = vec![0; 1000];
        caller.write_all(before.as_bytes()).await.unwrap();
        if !before.is_empty() {
            let _ = gated.read(&mut bytes).await.unwrap();
            advance(TIMEOUT * 10).await;
        }
        let started = Instant::now();
        let dripping = tokio::spawn(async move {
            for byte in *b"GET / HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaa" {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if caller.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        });
        let error = gated.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // On a kept connection the time starts with the first byte, which comes after a second.
        assert_eq!(started.elapsed().as_secs(), if before.is_empty() { 10 } else { 11 });
        drop(gated);
        dripping.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_chunk_is_an_error_of_the_connection() {
    let (mut gated, mut caller, _) = gated();
    caller.write_all(b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n").await.unwrap();
    let error = gated.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
