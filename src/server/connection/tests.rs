//! When connections are parked, and that clients do not notice it.

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
    server::slots::{EvictionPolicy, PeerGroup, Slots},
    telemetry::Metrics,
};

/// A time that only a broken test reaches.
const DEADLINE: Duration = Duration::from_secs(60);

/// Long enough for a connection to be parked, if it is.
const PARK_TIME: Duration = Duration::from_millis(4 * 250);

const LIMITS: Limits = Limits {
    head: HeadLimits { target_bytes: 100, header_bytes: 1000, headers: 10 },
    header_timeout: DEADLINE,
    keepalive_timeout: DEADLINE,
    write_timeout: DEADLINE,
};

/// A client, the server's end of its connection, and a service: `/wait` gets no response, a malformed message a 400, and any other target
/// a body of as many bytes as the target says.
struct Fixture {
    client: TcpStream,
    stream: Option<Downstream>,
    connections: Connections,
    status: ReaderStatus,
    _slot: Slot,
}

fn connections(limits: Limits) -> Connections {
    let metrics = Arc::new(Metrics::new());
    let head_budget = HeadBudget::new(usize::MAX, Arc::clone(&metrics));
    let context =
        ListenerContext { head_budget, evictions: Evictions::new("proxy", metrics), close_after_response: false };
    Connections::new(limits, Arc::new(context), Drain::default(), Duration::ZERO)
}

fn slot() -> Slot {
    let policy = EvictionPolicy { grace: Duration::ZERO, evicts_stalled: false };
    Slots::new(1, policy).try_acquire(PeerGroup::All).unwrap()
}

async fn connected() -> (TcpStream, SocketStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, SocketStream::Tcp(listener.accept().await.unwrap().0))
}

impl Fixture {
    async fn new() -> Self {
        let (client, socket) = connected().await;
        let status = ReaderStatus::default();
        let (connections, slot) = (connections(LIMITS), slot());
        let head_share = connections.context.head_budget.share();
        let reader =
            FramedReader::new(LIMITS.head, LIMITS.header_timeout, status.clone(), Arc::clone(slot.state()), head_share);
        Self { client, stream: Some(Downstream::new(socket, reader)), connections, status, _slot: slot }
    }

    /// Serves the connection until it is parked, for at most [`PARK_TIME`]. Returns whether it was parked.
    async fn is_parked(&mut self) -> bool {
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
        let messages_begun = stream.messages_begun();
        let serving = self.connections.serve_active(stream, messages_begun, service, self.status.clone());
        self.stream = timeout(PARK_TIME, serving).await.ok().flatten();
        self.stream.is_some()
    }

    async fn send(&mut self, bytes: &str) {
        self.client.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// The status of the next response, which has an empty body.
    async fn status(&mut self) -> u16 {
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            response.push(self.client.read_u8().await.unwrap());
        }
        String::from_utf8(response).unwrap()["HTTP/1.1 ".len()..][..3].parse().unwrap()
    }
}

#[tokio::test]
async fn an_idle_connection_is_parked_and_serves_the_next_request() {
    let mut fixture = Fixture::new().await;
    for _ in 0..2 {
        fixture.send("GET /0 HTTP/1.1\r\n\r\nPOST /0 HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody").await;
        assert!(fixture.is_parked().await);
        assert_eq!((fixture.status().await, fixture.status().await), (200, 200));
    }
    assert_eq!(fixture.stream.as_ref().unwrap().messages_begun(), 4);
    // The numbering continues; otherwise the fault would be assigned to another message.
    fixture.send("GET /0 HTTP/1.1\r\n\r\nGET /0#fragment HTTP/1.1\r\n\r\n").await;
    assert!(!fixture.is_parked().await);
    assert_eq!((fixture.status().await, fixture.status().await), (200, 400));
}

#[tokio::test]
async fn a_connection_with_a_partial_head_is_parked() {
    let mut fixture = Fixture::new().await;
    fixture.send("GET /0 HTTP/1.1\r\n\r\nGET /0 HT").await;
    assert!(fixture.is_parked().await);
    assert_eq!(fixture.status().await, 200);
    let mut stream = fixture.stream.take().unwrap();
    fixture.send("TP/1.1\r\n").await;
    assert!(timeout(Duration::ZERO, stream.buffer_head()).await.is_err());
    fixture.send("\r\n").await;
    let messages_begun = stream.messages_begun();
    assert!(stream.buffer_head().await.unwrap());
    assert_eq!((messages_begun, stream.messages_begun()), (1, 2));
}

#[tokio::test]
async fn a_connection_with_unread_bytes_is_not_evicted() {
    let policy = EvictionPolicy { grace: Duration::ZERO, evicts_stalled: false };
    let slots = Slots::new(1, policy);
    for request in ["GET /0 HTTP/1.1\r\n\r\n", ""] {
        let (mut client, socket) = connected().await;
        let service = service_fn(|_: Request<Incoming>| async { Ok(Response::new(Full::new(Bytes::new()))) });
        let slot = slots.try_acquire(PeerGroup::All).unwrap();
        let running = tokio::spawn(connections(LIMITS).run(socket, service, slot, ()));
        // Let it wait for a head.
        tokio::task::yield_now().await;
        // Without yielding, so that it is not read yet.
        assert!(request.is_empty() || client.try_write(request.as_bytes()).unwrap() == request.len());
        let mut acquiring = pin!(slots.acquire(PeerGroup::All, || ()));
        assert!(poll_fn(|cx| Poll::Ready(acquiring.as_mut().poll(cx).is_pending())).await);
        let mut response = [0; 12];
        if !request.is_empty() {
            client.read_exact(&mut response).await.unwrap();
            assert_eq!(&response, b"HTTP/1.1 200");
        }
        // Now it is idle and is evicted.
        drop(timeout(DEADLINE, acquiring).await.unwrap());
        running.await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_is_not_parked_in_the_middle_of_a_message() {
    let body_begun = "POST /0 HTTP/1.1\r\nContent-Length: 4\r\n\r\nbo";
    let response_awaited = "GET /wait HTTP/1.1\r\n\r\n";
    // More than the kernel buffers while the client does not read.
    let response_not_read = "GET /50000000 HTTP/1.1\r\n\r\n";
    for middle in [body_begun, response_awaited, response_not_read] {
        let mut fixture = Fixture::new().await;
        fixture.send(middle).await;
        assert!(!fixture.is_parked().await, "{middle}");
    }
}

#[tokio::test]
async fn a_parked_connection_is_closed_after_its_idle_timeout() {
    for first_request in ["", "GET /0 HTTP/1.1\r\n\r\n"] {
        let (mut client, socket) = connected().await;
        let short = Duration::from_millis(300);
        let limits = match first_request {
            "" => Limits { header_timeout: short, ..LIMITS },
            _ => Limits { keepalive_timeout: short, ..LIMITS },
        };
        let service = service_fn(|_: Request<Incoming>| async { Ok(Response::new(Full::new(Bytes::new()))) });
        client.write_all(first_request.as_bytes()).await.unwrap();
        let running = tokio::spawn(connections(limits).run(socket, service, slot(), ()));
        let (mut reader, mut writer) = client.into_split();
        // Empty lines do not count as a request.
        let blank_lines = tokio::spawn(async move {
            while writer.write_all(b"\r\n").await.is_ok() {
                sleep(short / 3).await;
            }
        });
        let mut received = Vec::new();
        // Bytes sent after the close may reset the connection.
        let _ = timeout(DEADLINE, reader.read_to_end(&mut received)).await.unwrap();
        assert_eq!(received.starts_with(b"HTTP/1.1 200 OK\r\n"), !first_request.is_empty());
        blank_lines.abort();
        running.await.unwrap();
    }
}
