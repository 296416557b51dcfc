//! When a connection rests, and that a caller does not notice.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tower::service_fn;

use super::*;
use crate::{
    message::framing::{FramingFault, HeadLimits},
    server::slots::{PeerGroup, Policy, Slots},
    telemetry::Metrics,
};

/// A time that only a broken test reaches.
const PATIENCE: Duration = Duration::from_secs(60);

/// Long enough for a connection to rest, if it does.
const LONG_ENOUGH: Duration = Duration::from_millis(4 * 250);

const LIMITS: Limits = Limits {
    head: HeadLimits { target_bytes: 100, header_bytes: 1000, headers: 10 },
    header_timeout: PATIENCE,
    keepalive_timeout: PATIENCE,
    write_timeout: PATIENCE,
};

/// A caller, the other end of its connection, and what serves it: `/wait` is never answered, any other target with as many bytes as
/// it says; a message at fault with 400.
struct Served {
    caller: TcpStream,
    stream: Option<Downstream>,
    connections: Connections,
    view: ReaderStatus,
    _slot: Slot,
}

fn connections(limits: Limits) -> Connections {
    let metrics = Arc::new(Metrics::new());
    let heads = HeadBudget::new(usize::MAX, Arc::clone(&metrics));
    let shared = Shared { heads, evictions: Evictions::new("proxy", "", None, metrics), closes: false };
    Connections::new(limits, Arc::new(shared), Drain::default(), Duration::ZERO)
}

fn slot() -> Slot {
    let policy = Policy { grace: Duration::ZERO, evicts_stalled: false };
    Slots::new(1, policy).try_acquire(PeerGroup::All).unwrap()
}

async fn connected() -> (TcpStream, SocketStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (caller, SocketStream::Tcp(listener.accept().await.unwrap().0))
}

impl Served {
    async fn new() -> Self {
        let (caller, transport) = connected().await;
        let view = ReaderStatus::default();
        let (connections, slot) = (connections(LIMITS), slot());
        let share = connections.shared.heads.share();
        let gate = FramedReader::new(LIMITS.head, LIMITS.header_timeout, view.clone(), Arc::clone(slot.state()), share);
        Self { caller, stream: Some(Downstream::new(transport, gate)), connections, view, _slot: slot }
    }

    /// Serves the connection until it rests, or for a while. Whether it rests.
    async fn rests(&mut self) -> bool {
        let service = service_fn(|request: Request<Incoming>| async move {
            if request.uri().path() == "/wait" {
                std::future::pending::<()>().await;
            }
            let fault = request.extensions().get::<FramingFault>().is_some();
            let size = request.uri().path()[1..].parse().unwrap_or(0);
            request.into_body().collect().await.unwrap();
            let mut response = Response::new(Full::new(Bytes::from(vec![b'x'; size])));
            *response.status_mut() = if fault { http::StatusCode::BAD_REQUEST } else { http::StatusCode::OK };
            Ok(response)
        });
        let stream = self.stream.take().unwrap();
        let messages = stream.messages();
        let serving = self.connections.serve_awake(stream, messages, service, self.view.clone());
        self.stream = timeout(LONG_ENOUGH, serving).await.ok().flatten();
        self.stream.is_some()
    }

    async fn send(&mut self, bytes: &str) {
        self.caller.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// The status of the next answer, whose body has no bytes.
    async fn status(&mut self) -> u16 {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(self.caller.read_u8().await.unwrap());
        }
        String::from_utf8(answer).unwrap()["HTTP/1.1 ".len()..][..3].parse().unwrap()
    }
}

#[tokio::test]
async fn an_idle_connection_rests_and_serves_again_when_the_next_request_comes() {
    let mut served = Served::new().await;
    for _ in 0..2 {
        served.send("GET /0 HTTP/1.1\r\n\r\nPOST /0 HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody").await;
        assert!(served.rests().await);
        assert_eq!((served.status().await, served.status().await), (200, 200));
    }
    assert_eq!(served.stream.as_ref().unwrap().messages(), 4);
    // The numbers go on, or the fault would be another message's.
    served.send("GET /0 HTTP/1.1\r\n\r\nGET /0#fragment HTTP/1.1\r\n\r\n").await;
    assert!(!served.rests().await);
    assert_eq!((served.status().await, served.status().await), (200, 400));
}

#[tokio::test]
async fn a_connection_rests_while_a_head_has_arrived_in_part() {
    let mut served = Served::new().await;
    served.send("GET /0 HTTP/1.1\r\n\r\nGET /0 HT").await;
    assert!(served.rests().await);
    assert_eq!(served.status().await, 200);
    let mut stream = served.stream.take().unwrap();
    served.send("TP/1.1\r\n").await;
    assert!(timeout(Duration::ZERO, stream.collect()).await.is_err());
    served.send("\r\n").await;
    let messages = stream.messages();
    assert!(stream.collect().await.unwrap());
    assert_eq!((messages, stream.messages()), (1, 2));
}

#[tokio::test]
async fn a_connection_with_unread_bytes_does_not_give_way() {
    let policy = Policy { grace: Duration::ZERO, evicts_stalled: false };
    let slots = Slots::new(1, policy);
    for request in ["GET /0 HTTP/1.1\r\n\r\n", ""] {
        let (mut caller, transport) = connected().await;
        let service = service_fn(|_: Request<Incoming>| async { Ok(Response::new(Full::new(Bytes::new()))) });
        let slot = slots.try_acquire(PeerGroup::All).unwrap();
        let attending = tokio::spawn(connections(LIMITS).attend(transport, service, slot, ()));
        // Until it rests.
        tokio::task::yield_now().await;
        // Without a pause, in which it could be read.
        assert!(request.is_empty() || caller.try_write(request.as_bytes()).unwrap() == request.len());
        let mut acquiring = pin!(slots.acquire(PeerGroup::All, || ()));
        assert!(poll_fn(|cx| Poll::Ready(acquiring.as_mut().poll(cx).is_pending())).await);
        let mut response = [0; 12];
        if !request.is_empty() {
            caller.read_exact(&mut response).await.unwrap();
            assert_eq!(&response, b"HTTP/1.1 200");
        }
        // It is idle now, and gives way.
        drop(timeout(PATIENCE, acquiring).await.unwrap());
        attending.await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_does_not_rest_in_the_middle_of_anything() {
    let body_begun = "POST /0 HTTP/1.1\r\nContent-Length: 4\r\n\r\nbo";
    let answer_awaited = "GET /wait HTTP/1.1\r\n\r\n";
    // More than the kernel takes while the caller reads nothing.
    let answer_not_taken = "GET /50000000 HTTP/1.1\r\n\r\n";
    for middle in [body_begun, answer_awaited, answer_not_taken] {
        let mut served = Served::new().await;
        served.send(middle).await;
        assert!(!served.rests().await, "{middle}");
    }
}

#[tokio::test]
async fn a_resting_connection_is_closed_when_it_was_idle_for_too_long() {
    for before in ["", "GET /0 HTTP/1.1\r\n\r\n"] {
        let (mut caller, transport) = connected().await;
        let short = Duration::from_millis(300);
        let limits = match before {
            "" => Limits { header_timeout: short, ..LIMITS },
            _ => Limits { keepalive_timeout: short, ..LIMITS },
        };
        let answer = service_fn(|_: Request<Incoming>| async { Ok(Response::new(Full::new(Bytes::new()))) });
        caller.write_all(before.as_bytes()).await.unwrap();
        let attending = tokio::spawn(connections(limits).attend(transport, answer, slot(), ()));
        let (mut reader, mut writer) = caller.into_split();
        // Empty lines are no sign of a request.
        let chatter = tokio::spawn(async move {
            while writer.write_all(b"\r\n").await.is_ok() {
                sleep(short / 3).await;
            }
        });
        let mut all = Vec::new();
        // What is sent after the end may reset the connection.
        let _ = timeout(PATIENCE, reader.read_to_end(&mut all)).await.unwrap();
        assert_eq!(all.starts_with(b"HTTP/1.1 200 OK\r\n"), !before.is_empty());
        chatter.abort();
        attending.await.unwrap();
    }
}
