//! A service that receives webhooks: an HTTP server on loopback or a Unix socket that records events.

use std::{
    collections::VecDeque,
    io::{BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use super::{
    TIMEOUT,
    client::{Client, Response},
};

/// The reaction of the service to an event.
#[derive(Clone, Debug)]
pub enum Reaction {
    /// Responds with this status.
    Status(u16),
    /// Responds with this status after [`Service::release`].
    Held(u16),
    /// Closes the connection without a response.
    Close,
}

/// An event as it arrived.
#[derive(Clone, Debug)]
pub struct ReceivedEvent {
    /// Request line and header fields.
    pub head: String,
    pub body: Vec<u8>,
}

impl ReceivedEvent {
    /// The values of the field `name` (in lower case), in order.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        let fields = self.head.split("\r\n").skip(1).map(|line| line.split_once(':').unwrap());
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }
}

/// The service. Its thread ends when the tests exit.
pub struct Service {
    /// For `webhook.forward_to`.
    pub url: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    shared: Mutex<Shared>,
    changed: Condvar,
}

#[derive(Default)]
struct Shared {
    received: Vec<ReceivedEvent>,
    reactions: VecDeque<Reaction>,
    released: bool,
}

impl Service {
    /// Listens on a loopback port. Reacts to the first events with `reactions`, in order, and to all others with 200.
    pub fn start(reactions: &[Reaction]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/webhooks", listener.local_addr().unwrap());
        let state = State::new(reactions);
        let serving = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                serving.serve(stream.unwrap());
            }
        });
        Self { url, state }
    }

    /// Like [`start`](Self::start), on a Unix socket at `path`.
    pub fn start_unix(path: &Path, reactions: &[Reaction]) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let state = State::new(reactions);
        let serving = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                serving.serve(stream.unwrap());
            }
        });
        Self { url: format!("unix:{}:/webhooks", path.display()), state }
    }

    /// The events so far.
    pub fn received(&self) -> Vec<ReceivedEvent> {
        self.state.shared.lock().unwrap().received.clone()
    }

    /// Waits until `count` events have arrived.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<ReceivedEvent> {
        let deadline = Instant::now() + TIMEOUT;
        let mut shared = self.state.shared.lock().unwrap();
        while shared.received.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the event does not arrive");
            shared = self.state.changed.wait_timeout(shared, left).unwrap().0;
        }
        shared.received.clone()
    }

    /// Sends the held responses.
    pub fn release(&self) {
        self.state.shared.lock().unwrap().released = true;
        self.state.changed.notify_all();
    }
}

trait Stream: Read + Write + Send + Sized + 'static {
    fn duplicate(&self) -> Self;
    fn limit(&self, timeout: Duration);
}

impl Stream for TcpStream {
    fn duplicate(&self) -> Self {
        self.try_clone().unwrap()
    }

    fn limit(&self, timeout: Duration) {
        self.set_read_timeout(Some(timeout)).unwrap();
    }
}

impl Stream for UnixStream {
    fn duplicate(&self) -> Self {
        self.try_clone().unwrap()
    }

    fn limit(&self, timeout: Duration) {
        self.set_read_timeout(Some(timeout)).unwrap();
    }
}

impl State {
    fn new(reactions: &[Reaction]) -> Arc<Self> {
        let shared = Shared { reactions: reactions.iter().cloned().collect(), ..Shared::default() };
        Arc::new(Self { shared: Mutex::new(shared), changed: Condvar::new() })
    }

    fn serve(self: &Arc<Self>, stream: impl Stream) {
        let state = Arc::clone(self);
        thread::spawn(move || {
            stream.limit(TIMEOUT);
            let mut writer = stream.duplicate();
            let mut reader = BufReader::new(stream);
            while let Some(event) = read_event(&mut reader) {
                let reaction = state.record(event);
                let status = match reaction {
                    Reaction::Status(status) => status,
                    Reaction::Held(status) => {
                        let shared = state.shared.lock().unwrap();
                        drop(state.changed.wait_while(shared, |shared| !shared.released).unwrap());
                        status
                    }
                    Reaction::Close => return,
                };
                let response = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nok");
                if writer.write_all(response.as_bytes()).is_err() {
                    return;
                }
            }
        });
    }

    fn record(&self, event: ReceivedEvent) -> Reaction {
        let mut shared = self.shared.lock().unwrap();
        shared.received.push(event);
        self.changed.notify_all();
        shared.reactions.pop_front().unwrap_or(Reaction::Status(200))
    }
}

/// Reads the next request. Panics if its framing is not strictly valid.
fn read_event(reader: &mut impl std::io::BufRead) -> Option<ReceivedEvent> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        assert!(line.ends_with("\r\n"), "{line:?}");
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut event = ReceivedEvent { head: head.trim_end().to_owned(), body: Vec::new() };
    assert_eq!(event.headers("transfer-encoding"), [""; 0]);
    let length: usize = event.headers("content-length").first().map_or(0, |length| length.parse().unwrap());
    event.body.resize(length, 0);
    reader.read_exact(&mut event.body).ok()?;
    Some(event)
}

/// The signature of `body` with `secret`, in the form that the vendor sends.
pub fn sign(secret: &str, body: &[u8]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    format!("{:x}", base16ct::HexDisplay(ring::hmac::sign(&key, body).as_ref()))
}

/// The body of the event with this number.
pub fn event(number: usize) -> String {
    format!(
        r#"{{"customerId":"5","eventType":"added","eventId":"1495468585434-{number}","payload":{{"accounts":[]}}}}"#
    )
}

/// Posts `body` to `address` over a new connection, with additional head lines.
pub fn post(address: SocketAddr, lines: &[&str], body: &[u8]) -> Response {
    let length = format!("Content-Length: {}", body.len());
    let lines = [lines, &[length.as_str()]].concat();
    Client::connect(address).call("POST", "/finicity?x=y", &lines, body)
}

/// Posts `body` signed with `secret`, and returns the status.
pub fn post_signed(address: SocketAddr, secret: &str, body: &str) -> u16 {
    let signature = format!("X-Finicity-Signature: {}", sign(secret, body.as_bytes()));
    post(address, &[signature.as_str()], body.as_bytes()).status
}
