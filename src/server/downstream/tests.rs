//! What a client sees of a connection that stalls, breaks off or closes.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};

use super::{
    super::{framed_reader::ReaderStatus, head_budget::HeadBudget},
    *,
};
use crate::message::framing::HeadLimits;

const LIMITS: HeadLimits = HeadLimits { target_bytes: 100, header_bytes: 1000, headers: 5 };

async fn pair(write_timeout: Duration) -> (DownstreamIo, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (served(listener.accept().await.unwrap().0, write_timeout), caller)
}

fn served(stream: TcpStream, write_timeout: Duration) -> DownstreamIo {
    let share = HeadBudget::new(usize::MAX, Arc::default()).share();
    let gate = FramedReader::new(LIMITS, Duration::from_secs(60), ReaderStatus::default(), State::detached(), share);
    DownstreamIo::new(Downstream::new(SocketStream::Tcp(stream), gate), write_timeout, Reclaim::default())
}

#[tokio::test]
async fn a_caller_that_stops_reading_is_given_up() {
    let (mut ours, _caller) = pair(Duration::from_millis(50)).await;
    let error = ours.write_all(&vec![0; 64 * 1024 * 1024]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn g07_a_caller_that_goes_away_while_it_is_waited_for_is_noticed() {
    let (mut ours, mut caller) = pair(Duration::from_secs(60)).await;
    let request = b"GET / HTTP/1.1\r\n\r\n";
    caller.write_all(request).await.unwrap();
    assert_eq!(ours.read(&mut [0; 1000]).await.unwrap(), request.len());
    ours.flush().await.unwrap();
    let mut gone = tokio::spawn(async move { poll_fn(|cx| failure(&mut ours, cx)).await });
    assert!(timeout(Duration::ZERO, &mut gone).await.is_err(), "it is there still");
    drop(caller);
    assert_eq!(gone.await.unwrap(), io::ErrorKind::ConnectionAborted);
}

/// Waits until flushing fails.
fn failure(stream: &mut DownstreamIo, cx: &mut Context<'_>) -> Poll<io::ErrorKind> {
    match Pin::new(stream).poll_flush(cx) {
        Poll::Ready(Err(error)) => Poll::Ready(error.kind()),
        _ => Poll::Pending,
    }
}

#[tokio::test]
async fn an_end_that_somebody_reads_up_to_is_not_noticed_before() {
    for sent in ["GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc", ""] {
        let (mut ours, mut caller) = pair(Duration::from_secs(60)).await;
        caller.write_all(sent.as_bytes()).await.unwrap();
        let mut buffer = [0; 18];
        let reading = timeout(Duration::ZERO, ours.read(&mut buffer)).await;
        assert_eq!(reading.is_ok(), !sent.is_empty(), "{sent:?}");
        caller.shutdown().await.unwrap();
        // The end is here, behind what was sent, in the middle of a message, or for a reader that waits.
        ours.open().transport.readable().await.unwrap();
        ours.flush().await.unwrap();
    }
}

#[tokio::test]
async fn g06_an_answer_survives_requests_that_were_sent_ahead_and_are_not_served() {
    let (mut ours, mut caller) = pair(Duration::from_secs(60)).await;
    let request = b"GET / HTTP/1.1\r\n\r\n";
    caller.write_all(request).await.unwrap();
    assert_eq!(ours.read(&mut [0; 1000]).await.unwrap(), request.len());
    // One that nobody reads before the end, and one that comes after it.
    caller.write_all(request).await.unwrap();
    ours.write_all(b"answer").await.unwrap();
    let closing = tokio::spawn(returned(ours).close());
    let mut answer = [0; 6];
    caller.read_exact(&mut answer).await.unwrap();
    caller.write_all(request).await.unwrap();
    assert_eq!(caller.read(&mut answer[..1]).await.unwrap(), 0, "an end, and no reset");
    assert_eq!(&answer, b"answer");
    drop(caller);
    closing.await.unwrap();
}

fn returned(stream: DownstreamIo) -> Downstream {
    let returned = stream.returned.clone();
    drop(stream);
    returned.take().unwrap()
}

#[tokio::test]
async fn a_connection_whose_answer_broke_off_looks_broken_and_no_other_does() {
    for (broken, expected) in [(false, None), (true, Some(io::ErrorKind::ConnectionReset))] {
        let (mut ours, mut caller) = pair(Duration::from_secs(60)).await;
        ours.write_all(b"half").await.unwrap();
        let mut half = [0; 4];
        caller.read_exact(&mut half).await.unwrap();
        if broken {
            returned(ours).reset();
        } else {
            returned(ours).close().await;
        }
        assert_eq!(caller.read_to_end(&mut Vec::new()).await.err().map(|error| error.kind()), expected);
    }
}

#[tokio::test]
async fn g06_an_answer_that_the_caller_takes_slowly_survives_requests_that_it_sends_meanwhile() {
    const ANSWER_BYTES: usize = 1024 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    // So little that most of the answer waits on our side, where a reset would drop it.
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut caller = socket.connect(listener.local_addr().unwrap()).await.unwrap();
    let mut ours = served(listener.accept().await.unwrap().0, Duration::from_secs(60));
    let closing = tokio::spawn(async move {
        ours.write_all(&vec![b'x'; ANSWER_BYTES]).await.unwrap();
        returned(ours).close().await;
    });
    let (mut answer, mut part) = (0, vec![0; 8 * 1024]);
    loop {
        // It fails once the connection is closed, when the answer must be there.
        let _ = caller.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
        match caller.read(&mut part).await.unwrap() {
            0 => break,
            read => answer += read,
        }
    }
    assert_eq!(answer, ANSWER_BYTES);
    drop(caller);
    closing.await.unwrap();
}

#[tokio::test]
async fn g06_an_answer_survives_a_request_that_is_not_read_to_its_end() {
    let (mut ours, mut caller) = pair(Duration::from_secs(60)).await;
    caller.write_all(b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n").await.unwrap();
    assert!(ours.read(&mut [0; 1000]).await.unwrap() > 0);
    caller.write_all(&[0; 300_000]).await.unwrap();
    ours.write_all(b"answer").await.unwrap();
    let closing = tokio::spawn(returned(ours).close());
    caller.write_all(&[0; 300_000]).await.unwrap();
    let mut answer = Vec::new();
    caller.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
    drop(caller);
    closing.await.unwrap();
}
